//! MOF (DSP0004 annex A).
#![no_main]

use isochron_cim::mof;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = mof::parse("fuzz.mof", text, &mut Default::default(), &mut |_| None);
});
