//! Whatever a server sends, a client reads it or says why not, and takes no refusal for a success.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ocpcan::proto::rcsp::fuzz::reply(data));
