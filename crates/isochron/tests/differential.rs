//! The same questions to the daemon and to another CIM server's implementation, which
//! has been given the daemon's schema and instances: tests/py/differential.py asks
//! them. The machines are off, so no guest runs here.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use std::collections::BTreeSet;

use common::Host;
use isochron_lab::disk::{self, Format};

/// Machines, a collection, snapshots of it, and jobs.
fn populate(host: &Host) {
    let directory = host.directory("machines");
    for name in ["web", "db", "mail"] {
        disk::create(&directory.join(format!("{name}.qcow2")), Format::Qcow2, 8).unwrap();
        let file = directory.join(format!("{name}.toml"));
        let definition = format!(
            "name = \"{name}\"\nmemory_mib = 64\naccel = \"tcg\"\n\
             [[disks]]\npath = \"{name}.qcow2\"\nformat = \"qcow2\"\n"
        );
        std::fs::write(&file, definition).unwrap();
        host.json(&["vm", "define", file.to_str().unwrap()]);
    }
    host.json(&["collection", "create", "shop", "web", "db"]);
    for name in ["first", "second"] {
        host.json(&[
            "snapshot", "create", "shop", "--type", "recovery", "--name", name,
        ]);
    }
    host.json(&["snapshot", "apply", "first"]);
}

#[test]
fn another_servers_answers_are_the_same() {
    let host = Host::start();
    populate(&host);
    let mof = |namespace: &str, file: &str| {
        let printed = host.run(&["schema", namespace]);
        assert!(printed.status.success(), "{printed:?}");
        let path = host.path().join(file);
        std::fs::write(&path, printed.stdout).unwrap();
        format!("{namespace}={}", path.display())
    };
    let cluster = mof("root/HyperVCluster/v2", "cluster.mof");
    let interop = mof("interop", "interop.mof");
    let mut unneeded: Option<BTreeSet<String>> = None;
    for (namespace, given, least) in [
        ("root/HyperVCluster/v2", vec![cluster.as_str()], 3_000),
        ("interop", vec![interop.as_str(), cluster.as_str()], 1_200),
    ] {
        let words = [&[namespace], &given[..]].concat();
        let said = host.python("differential.py", &words);
        assert!(said["asked"].as_u64().unwrap() > least, "{said}");
        let needed = said["needed"].as_object().unwrap().iter();
        let idle = needed.filter(|(_, count)| **count == 0);
        let idle = idle.map(|(reason, _)| reason.clone()).collect();
        unneeded = Some(match unneeded {
            Some(before) => &before & &idle,
            None => idle,
        });
    }
    // A difference that is explained but is not there any more.
    assert_eq!(unneeded, Some(BTreeSet::new()));
    let refused = host.run(&["schema", "root/elsewhere"]);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    host.close();
}
