//! The JSON reader agrees with a second one.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ocpcan::proto::ocp::fuzz::json(data));
