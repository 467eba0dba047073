//! Decoding a message is total and agrees with a second opinion.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ocpcan::proto::tcpcan::fuzz::message(data));
