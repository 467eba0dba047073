//! A response is whole and within its limit whatever is reported.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ocpcan::proto::ocp::fuzz::response(data));
