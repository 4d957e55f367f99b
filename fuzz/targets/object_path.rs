//! Object paths (DSP0207). One that was understood is written, and is then
//! understood as the same.
#![no_main]

use isochron_cim::{DateTime, ObjectPath};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = text.parse::<DateTime>();
    let Ok(path) = text.parse::<ObjectPath>() else {
        return;
    };
    let written = path.to_string();
    let again: ObjectPath = written.parse().expect("what we write can be read");
    assert_eq!(again.to_string(), written);
});
