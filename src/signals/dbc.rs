//! The vehicle description: a DBC file as messages and signals.
