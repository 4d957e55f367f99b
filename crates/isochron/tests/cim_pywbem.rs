//! The main job by a third-party client: pywbem against the daemon and a ring of
//! three real guests, one of them with a raw disk beside its qcow2 one. The scripts
//! in tests/py make the calls; here the guests and their files are looked at.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use std::collections::BTreeSet;
use std::path::PathBuf;

use common::{Host, LIMIT, frozen, one_instant, open_images};
use isochron_lab::definition::{Disk, Machine};
use isochron_lab::disk::{self, Format};
use isochron_lab::kit::Kit;
use isochron_lab::oracle::{self, Verdict};
use isochron_lab::ring::{Options, Ring};

#[test]
fn pywbem_takes_applies_and_destroys_snapshots_of_a_ring() {
    let host = Host::start();
    let ring = ring(&host);
    host.start_ring(&ring);
    let files = host.files();
    host.python("schema.py", &[]);
    host.python("define.py", &["shop", "ring-0", "ring-1", "ring-2"]);

    let taken = host.python("snapshots.py", &["shop"]);
    let taken: Vec<&str> = taken
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_str().unwrap())
        .collect();
    for id in &taken {
        one_instant(&ring.members, &host.json(&["snapshot", "show", id]));
    }
    let layers = host.files();
    let process = host.process("ring-1").to_string();
    host.python("refusals.py", &["shop", &process]);
    // One of these was given up by a member that did not answer: what it left is
    // cleared away as soon as it does.
    host.files_become(&layers);
    ring.wait_progress(5, LIMIT).unwrap();
    host.python("walk.py", &["shop", &taken.len().to_string()]);

    // Back to the oldest, with memory: the ring goes on from there, together.
    let standard = host.json(&["snapshot", "show", taken[0]]);
    assert_eq!(standard["type"], "standard");
    let then = counters(&ring, &standard);
    let now = ring.counter_now(0).unwrap();
    assert!(now > then[0][0] + 20, "{now} is not far from {then:?}");
    let member = &standard["members"][1];
    let memory = PathBuf::from(member["memory"].as_str().unwrap());
    let away = memory.with_extension("away");
    std::fs::rename(&memory, &away).unwrap();
    let message = host.python("damaged.py", &[taken[0]]);
    let vm = member["vm"].as_str().unwrap();
    assert!(message.as_str().unwrap().contains(vm), "{message}");
    std::fs::rename(&away, &memory).unwrap();
    ring.wait_progress(5, LIMIT).unwrap();
    host.python("apply.py", &[taken[0]]);
    ring.wait_progress(5, LIMIT).unwrap();
    let after = ["snapshot", "create", "shop", "--type", "recovery"];
    let after = host.json(&after);
    one_instant(&ring.members, &after);
    assert_eq!(after["parent"], standard["id"]);

    // All gone, in no particular order, while the guests run: each writes to its
    // first images again, and no other file is there.
    let mut order: Vec<&str> = taken.iter().skip(1).copied().collect();
    order.push(after["id"].as_str().unwrap());
    order.insert(2, taken[0]);
    host.python("destroy.py", &order);
    ring.wait_progress(5, LIMIT).unwrap();
    host.files_become(&files);
    for member in &ring.members {
        let first: BTreeSet<PathBuf> = member
            .definition
            .disks
            .iter()
            .map(|disk| disk.path.clone())
            .collect();
        let name = &member.definition.name;
        assert_eq!(open_images(host.process(name)), first, "{name}");
        assert_eq!(
            host.active(name).into_iter().collect::<BTreeSet<_>>(),
            first
        );
    }
    // Nothing that a guest had on its console is lost.
    let shown: Vec<u64> = (0..3).map(|i| ring.counter_now(i).unwrap()).collect();
    for name in ["ring-0", "ring-1", "ring-2"] {
        host.json(&["vm", "stop", "--force", name]);
    }
    let (Verdict::Consistent { counters } | Verdict::Violated { counters, .. }) =
        oracle::judge(&ring.images()).unwrap();
    for (disks, shown) in counters.iter().zip(shown) {
        assert!(
            disks.iter().all(|counter| *counter >= shown),
            "{disks:?} {shown}"
        );
    }
    host.close();
}

/// A ring whose first member has a raw disk behind its qcow2 one.
fn ring(host: &Host) -> Ring {
    let directory = host.directory("ring");
    let mut ring = Ring::create(&Kit::load().unwrap(), &directory, &Options::default()).unwrap();
    let mut definition = ring.members[0].definition.clone();
    let path = definition.disks[0].path.with_file_name("ring-0-data1.raw");
    disk::create(&path, Format::Raw, 64).unwrap();
    definition.disks.push(Disk {
        name: "data1".into(),
        path,
        format: Format::Raw,
        ..definition.disks[0].clone()
    });
    ring.members[0] = Machine::create(&directory, definition).unwrap();
    ring
}

fn counters(ring: &Ring, snapshot: &serde_json::Value) -> Vec<Vec<u64>> {
    match oracle::judge(&frozen(&ring.members, snapshot)).unwrap() {
        Verdict::Consistent { counters } => counters,
        violated => panic!("{violated}"),
    }
}
