//! Queries and filters in WQL, DMTF:CQL and DMTF:FQL, and what they make of an
//! instance.
#![no_main]

use isochron_cim::query::{Query, filter};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    for language in ["WQL", "DMTF:CQL"] {
        let _ = Query::parse(language, text);
    }
    for language in ["WQL", "DMTF:CQL", "DMTF:FQL"] {
        let _ = filter(language, text);
    }
});
