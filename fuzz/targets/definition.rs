//! The definition of a machine, a TOML file.
#![no_main]

use isochron_api::dto::Definition;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = toml::from_str::<Definition>(text);
});
