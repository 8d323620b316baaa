#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tallymark::properties::event(data));
