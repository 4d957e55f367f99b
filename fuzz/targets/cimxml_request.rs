//! A request's body, as a listener reads it (DSP0201).
#![no_main]

use isochron_cimxml::Limits;
use isochron_cimxml::decode::request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = request(bytes, Limits::default());
});
