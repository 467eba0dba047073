//! TOML to validated types; every key documented, every problem reported at once.
