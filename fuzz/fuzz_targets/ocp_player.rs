//! Feedback and client messages of the player side read back as they were written, and bad ones harm nothing.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ocpcan::proto::ocp::player::fuzz::both(data));
