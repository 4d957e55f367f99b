//! Clients that were written for Hyper-V: what they do is in tests/py/wmi.py, and is
//! done here to the daemon and real guests, whose consoles and disks are looked at.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use common::{Host, LIMIT, one_instant};
use isochron_lab::kit::Kit;
use isochron_lab::ring::{Options, Ring};
use serde_json::Value;

/// RequestedState and EnabledState of Msvm_ComputerSystem.
const RUNNING: u64 = 2;
const OFF: u64 = 3;
const SAVE: &str = "32773";
const PAUSED: u64 = 9;
const SAVED: u64 = 6;

fn ring(host: &Host, count: usize) -> Ring {
    let options = Options {
        count,
        ..Options::default()
    };
    Ring::create(&Kit::load().unwrap(), &host.directory("ring"), &options).unwrap()
}

/// How often the guest began anew, by what its console says.
fn starts(ring: &Ring, member: usize) -> usize {
    let log = &ring.members[member].definition.serial_log;
    let log = std::fs::read_to_string(log).unwrap();
    log.matches("starts at").count()
}

/// The counter, which must not go up.
fn stands(ring: &Ring) -> u64 {
    let counter = ring.counter_now(0).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert_eq!(ring.counter_now(0), Some(counter));
    counter
}

/// Asks for states; fails unless each was reached by a job of the type.
fn change(host: &Host, wanted: &[(&str, u64, u64)]) -> Vec<Value> {
    let mut words = vec!["ring-0"];
    words.extend(wanted.iter().map(|(state, _, _)| *state));
    let seen = host.python("power.py", &words);
    let seen = seen.as_array().unwrap();
    for ((state, kind, enabled), seen) in wanted.iter().zip(seen) {
        assert_eq!(seen["code"], 4096, "{state}: {seen}");
        assert_eq!(seen["state"], 7, "{state}: {seen}");
        assert_eq!(seen["type"], *kind, "{state}: {seen}");
        assert_eq!(seen["enabled"], *enabled, "{state}: {seen}");
        let process = seen["process"].as_u64().unwrap();
        let runs = [RUNNING, PAUSED].contains(enabled);
        assert_eq!(process != 0, runs, "{state}: {seen}");
        assert_eq!(seen["saved"], *enabled == SAVED, "{state}: {seen}");
    }
    seen.clone()
}

#[test]
fn a_guest_is_paused_saved_restored_and_turned_off() {
    let host = Host::start();
    let ring = ring(&host, 1);
    host.start_ring(&ring);
    let files = host.files();

    change(&host, &[("32776", 26, PAUSED)]);
    stands(&ring);
    change(&host, &[("32777", 27, RUNNING)]);
    ring.wait_progress(5, LIMIT).unwrap();

    // Saved: no process, its memory in a file, and nothing runs on the disk.
    let process = host.process("ring-0");
    change(&host, &[(SAVE, 14, SAVED)]);
    // It may wait to be reaped by who adopted it, but runs no program.
    assert!(std::fs::read_link(format!("/proc/{process}/exe")).is_err());
    assert_eq!(host.power("ring-0"), "saved");
    let memory: Vec<_> = host.files().difference(&files).cloned().collect();
    assert!(
        memory
            .iter()
            .any(|path| path.extension().unwrap_or_default() == "memory"),
        "{memory:?}"
    );
    let counter = stands(&ring);
    // What cannot be done with it is refused, with a job that says why.
    for state in ["9", SAVE, "4", "32777", "11", "77"] {
        let seen = host.python("power.py", &["ring-0", state]);
        assert_eq!(seen[0]["code"], 32775, "{seen}");
        assert_eq!(seen[0]["state"], 10, "{seen}");
        assert!(!seen[0]["error"].as_str().unwrap().is_empty(), "{seen}");
        assert_eq!(seen[0]["enabled"], SAVED, "{seen}");
    }

    // Restored: it goes on in the middle of what it did, and does not boot.
    change(&host, &[("2", 15, RUNNING)]);
    ring.wait_progress(5, LIMIT).unwrap();
    assert!(ring.counter_now(0).unwrap() > counter);
    assert_eq!(starts(&ring, 0), 1);
    host.files_become(&files);

    // Also from where it was paused.
    let seen = change(
        &host,
        &[("9", 26, PAUSED), ("6", 14, SAVED), ("2", 15, RUNNING)],
    );
    assert_ne!(seen[0]["process"], seen[2]["process"]);
    ring.wait_progress(5, LIMIT).unwrap();
    assert_eq!(starts(&ring, 0), 1);

    // What was saved is given up when it is turned off; then it boots.
    change(&host, &[(SAVE, 14, SAVED), ("3", 13, OFF)]);
    host.files_become(&files);
    change(&host, &[("2", 12, RUNNING)]);
    ring.wait_progress(5, LIMIT).unwrap();
    assert_eq!(starts(&ring, 0), 2);
    host.close();
}

#[test]
fn one_guest_is_snapshotted_returned_and_renamed() {
    let host = Host::start();
    let ring = ring(&host, 1);
    host.start_ring(&ring);
    let files = host.files();
    let client = |words: &[&str]| host.python("single.py", &[&["ring-0"], words].concat());

    let before = ring.counter_now(0).unwrap();
    let taken = client(&["take"]);
    assert_eq!(taken.as_array().unwrap().len(), 6);
    ring.wait_progress(20, LIMIT).unwrap();
    let after = ring.counter_now(0).unwrap();

    // Turned off and returned to the first: from its memory, and back in time.
    client(&["return", taken[0].as_str().unwrap()]);
    ring.wait_progress(5, LIMIT).unwrap();
    assert_eq!(starts(&ring, 0), 1);
    let log = std::fs::read_to_string(&ring.members[0].definition.serial_log).unwrap();
    let counters: Vec<u64> = log
        .lines()
        .filter_map(|line| {
            line.trim()
                .strip_prefix("ring ")?
                .split(' ')
                .nth(1)?
                .parse()
                .ok()
        })
        .collect();
    let back = counters.windows(2).find(|pair| pair[1] < pair[0]).unwrap();
    assert!(
        back[0] >= after && back[1] >= before && back[1] < after,
        "{back:?}"
    );

    let notes = client(&["rename"]);
    let expected = serde_json::json!([["by a client, 2"], ["one\nof two lines"]]);
    assert_eq!(notes, expected);
    assert_eq!(client(&["clear"]), 5);
    ring.wait_progress(5, LIMIT).unwrap();
    host.files_become(&files);
    host.close();
}

#[test]
fn a_collection_is_snapshotted_in_every_dialect_and_cancelled() {
    let host = Host::start();
    let ring = ring(&host, 2);
    host.start_ring(&ring);
    let kept = host.python("collective.py", &["shop", "ring-0", "ring-1"]);
    ring.wait_progress(5, LIMIT).unwrap();
    one_instant(
        &ring.members,
        &host.json(&["snapshot", "show", kept.as_str().unwrap()]),
    );
    let files = host.files();
    let process = host.process("ring-1").to_string();
    let said = host.python("collective.py", &["--cancel", "shop", &process]);
    assert!(said.as_str().unwrap().contains("cancelled"), "{said}");
    host.files_become(&files);
    ring.wait_progress(5, LIMIT).unwrap();
    host.close();
}
