//! Messages of a driving simulator read as a second opinion reads them, and are written as they came.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ocpcan::proto::assetto::fuzz::assetto(data));
