//! However a stream is cut, the same frames come out.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ocpcan::proto::ocp::fuzz::deframe(data));
