//! What must hold for every input of this protocol, as functions that panic where it does not.
//!
//! Owns the properties that the fuzz targets under `fuzz/` and the seeded tests share. Relies on nothing but the
//! protocol. Never part of the gateway: nothing outside tests calls it.
