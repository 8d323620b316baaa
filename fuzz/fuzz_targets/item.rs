#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tallymark::testing::properties::item(data));
