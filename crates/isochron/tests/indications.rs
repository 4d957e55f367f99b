//! Indications by a third-party client: pywbem's subscription manager and listener
//! against the daemon, over a restart. No guest runs: the machine is off.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use std::net::TcpListener;

use common::Host;
use isochron_lab::disk::{self, Format};

#[test]
fn pywbem_is_told_of_jobs_snapshots_and_collections() {
    let mut host = Host::start();
    let image = host.path().join("web.qcow2");
    disk::create(&image, Format::Qcow2, 16).unwrap();
    let definition = host.path().join("web.toml");
    let text =
        "name = \"web\"\nmemory_mib = 64\naccel = \"tcg\"\n[[disks]]\npath = \"web.qcow2\"\n";
    std::fs::write(&definition, text).unwrap();
    host.json(&["vm", "define", definition.to_str().unwrap()]);
    let port = free_port();
    host.python("indications.py", &[&port, "web"]);
    host.restart();
    host.python("indications.py", &[&port]);
    host.close();
}

/// A port that nobody has now.
fn free_port() -> String {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port().to_string()
}
