//! A hundred thousand instances from the daemon in one answer: they do not sit in its
//! memory.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use common::Host;

#[test]
fn a_hundred_thousand_instances_take_no_memory() {
    let host = Host::with("", &["--test-provider"]);
    // What a first answer takes stays taken.
    host.python("stress.py", &["2000", "1000"]);
    let before = host.peak_memory();
    let bytes = host.python("stress.py", &["100000", "1000"]);
    let bytes = bytes.as_u64().unwrap();
    assert!(bytes > 100_000_000, "{bytes}");
    let taken = host.peak_memory() - before;
    println!("{bytes} bytes sent, {taken} bytes of memory more than before");
    assert!(taken < 16 << 20, "{taken} bytes of {bytes} were held");
    host.close();
}
