//! Whatever happens, every frame is in exactly one place.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ocpcan::proto::tcpcan::fuzz::outbox(data));
