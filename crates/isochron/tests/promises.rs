//! `docs/promises.md` names tests that there are.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

use std::path::Path;

use regex::Regex;

#[test]
fn every_promise_is_held_by_a_test() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let page = std::fs::read_to_string(root.join("docs/promises.md")).unwrap();
    let test = Regex::new(r"\| `([a-z/_-]+\.rs)::([a-z_]+)` \|").unwrap();
    let promises = page.lines().filter(|line| line.starts_with("| ")).count();
    let headings = page.matches("| promise |").count();
    let mut held = 0;
    for named in test.captures_iter(&page) {
        let source = std::fs::read_to_string(root.join(&named[1]));
        let source = source.unwrap_or_else(|error| panic!("{}: {error}", &named[1]));
        // With an attribute of its own, or by a macro that gives it one.
        let is_test = [format!("fn {}(", &named[2]), format!("    {}(", &named[2])];
        assert!(
            is_test.iter().any(|text| source.contains(text)),
            "{} has no test {}",
            &named[1],
            &named[2]
        );
        held += 1;
    }
    assert_eq!(held, promises - headings, "a promise without a test");
    assert!(held > 20);
}
