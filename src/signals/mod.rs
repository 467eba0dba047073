//! Signals: the DBC file, bit codec, counters and checksums, sources, transforms and the mapping plan. Pure.
