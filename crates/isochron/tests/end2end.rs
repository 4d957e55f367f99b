//! pywbem's own end2end tests of CIM servers against the daemon: namespaces and
//! profiles as `WBEMServer` finds them, indications in batches up to 1,000, and
//! operations that take longer than a client waits.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use common::Host;
use isochron_lab::clients;

#[test]
fn pywbems_end2end_tests_pass() {
    let host = Host::with("", &["--test-provider"]);
    let sources = clients::pywbem_sources().unwrap();
    let directory = host.directory("end2end");
    let (user, password) = ("tester", "end-to-end");
    host.add_user(user, "administrator", password);
    let (sources, directory) = (sources.to_str().unwrap(), directory.to_str().unwrap());
    let results = host.python("end2end.py", &[sources, directory, user, password]);
    let passed = &results["passed"];
    assert_eq!(passed["test_indications"], 1, "{results}");
    assert_eq!(passed["test_timeouts"], 1, "{results}");
    // Once for every default namespace that they try.
    for name in [
        "test_namespace_consistency",
        "test_namespace_getinstance",
        "test_brand_version",
        "test_cimom_inst",
        "test_profiles",
        "test_get_selected_profiles_no_filter",
    ] {
        assert_eq!(passed[name], 4, "{name}: {results}");
    }
    // What docs/cim.md says of them: profiles of SNIA, which are not ours.
    let skipped = results["skipped"].as_object().unwrap();
    let known = ["smis", "snia-server", "snia-smis"];
    assert!(skipped.keys().all(|k| known.contains(&&**k)), "{results}");
    host.close();
}
