//! Extracted user data is what a reading of the whole tree finds.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ocpcan::proto::ocp::fuzz::user_data(data));
