//! Standard snapshots where memory cannot be saved behind a running guest: the
//! kernel cannot protect the pages of a file on disk from writes. It is saved
//! plainly then, the report says so and why, and the snapshot is as good as any.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use common::{Host, LIMIT, one_instant};
use isochron_lab::definition::Machine;
use isochron_lab::kit::Kit;
use isochron_lab::ring::{Options, Ring};

/// The ring's first member has a file for its memory; the others have the usual.
#[test]
fn memory_in_a_file_is_saved_plainly_and_the_report_says_why() {
    let host = Host::start();
    let directory = host.directory("ring");
    let mut ring = Ring::create(&Kit::load().unwrap(), &directory, &Options::default()).unwrap();
    let mut definition = ring.members[0].definition.clone();
    definition.machine = "q35,memory-backend=file".into();
    let memory = directory.display();
    // In a directory QEMU makes a file without a name.
    let object = format!("memory-backend-file,id=file,share=on,size=128M,mem-path={memory}");
    definition.extra_args = vec!["-object".into(), object];
    ring.members[0] = Machine::create(&directory, definition).unwrap();
    host.start_ring(&ring);
    let create = ["collection", "create", "ring", "ring-0", "ring-1", "ring-2"];
    host.json(&create);
    let files = host.files();

    let snapshot = host.json(&["snapshot", "create", "ring", "--name", "mixed"]);
    let members = snapshot["cut"]["members"].as_array().unwrap();
    let plain: Vec<bool> = members.iter().map(|m| m["memory"] == "plain").collect();
    assert_eq!(plain, [true, false, false], "{members:?}");
    assert!(!members[0]["memory_note"].as_str().unwrap().is_empty());
    for member in &members[1..] {
        assert_eq!(member["memory"], "background");
        assert!(member["memory_note"].is_null(), "{member}");
    }
    // A person reads it as well.
    let shown = host.run(&["snapshot", "show", "mixed"]);
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.contains("plain"), "{shown}");
    one_instant(&ring.members, &snapshot);
    ring.wait_progress(20, LIMIT).unwrap();

    let before = ring.counter_now(0).unwrap();
    host.json(&["snapshot", "apply", "mixed"]);
    ring.wait_progress(5, LIMIT).unwrap();
    for member in &ring.members {
        assert_eq!(host.power(&member.definition.name), "running");
        let log = std::fs::read_to_string(&member.definition.serial_log).unwrap();
        // From memory, not by booting: nobody started a second time, and each went
        // back on its console.
        assert_eq!(log.matches("starts at").count(), 1, "{log}");
        let counters = log.lines().filter_map(|line| {
            let words: Vec<&str> = line.trim().split(' ').collect();
            (words.len() == 3 && words[0] == "ring").then(|| words[2].parse::<u64>().ok())?
        });
        let counters: Vec<u64> = counters.collect();
        assert!(
            counters.windows(2).any(|pair| pair[1] < pair[0]),
            "{before}: {counters:?}"
        );
    }
    host.json(&["snapshot", "destroy", "mixed"]);
    host.files_become(&files);
    ring.wait_progress(5, LIMIT).unwrap();
    host.close();
}
