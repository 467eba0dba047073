//! Whatever a client sends, each command gets one answer, in order, and memory stays bounded.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ocpcan::nodes::rcsp::fuzz::session(data));
