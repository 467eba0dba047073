//! Decoding a control message is total and agrees with a reading of the whole tree.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ocpcan::proto::ocp::fuzz::control(data));
