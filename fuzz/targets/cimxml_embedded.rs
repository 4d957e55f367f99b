//! The text of an embedded instance, in any of the dialects. What was understood
//! can be written, and is understood again as the same.
#![no_main]

use isochron_cimxml::{decode_embedded, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(Some(instance)) = decode_embedded(text) else {
        return;
    };
    let mut written = String::new();
    encode::instance(&mut written, &instance);
    let again = decode_embedded(&written).expect("what we write can be read");
    assert_eq!(again.map(|again| again.class), Some(instance.class));
});
