//! However a stream is cut, the session reads what a reading of the whole stream reads.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ocpcan::proto::tcpcan::fuzz::session(data));
