//! Reference points of collections with a machine that someone else started and with one
//! that is saved: what changed since is told across all that happens to it, and what
//! comes back is, byte for byte, what was frozen.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{Host, LIMIT, frozen};
use isochron_lab::definition::Machine;
use isochron_lab::disk::Format;
use isochron_lab::guest::Guest;
use isochron_lab::kit::Kit;
use isochron_lab::ring::{Options, Ring};
use serde_json::{Value, json};

/// A pair that writes; its members start as their test wants.
fn pair(host: &Host, format: Format) -> Ring {
    let options = Options {
        count: 2,
        format,
        dirty_mbps: 1,
        ..Options::default()
    };
    Ring::create(&Kit::load().unwrap(), &host.directory("ring"), &options).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A recovery snapshot of the pair.
fn recovery(host: &Host, name: &str) -> Value {
    let words = ["snapshot", "create", "pair", "--type", "recovery"];
    host.json(&[&words[..], &["--name", name]].concat())
}

/// Exports what was frozen, restores it, and holds it against the frozen layers. With a
/// base it is a difference. All files are removed where it is none's base.
fn comes_back(
    host: &Host,
    machines: &[Machine],
    what: [&str; 2],
    frozen_at: &Value,
    base: &[&str],
) {
    let [kind, name] = what;
    let (export, out) = (host.path().join(name), host.path().join("restored"));
    let words = [&[kind, "export", name, text(&export)], base].concat();
    let job = host.json(&words);
    assert_eq!(job["export"]["whole"], json!([]));
    host.json(&["export", "verify", text(&export)]);
    let told = host.json(&["restore", "--files-only", text(&export), text(&out)]);
    let members = told["members"].as_array().unwrap();
    assert_eq!(members.len(), machines.len());
    let image = |member: &Value| member["disks"][0]["path"].as_str().unwrap().to_owned();
    let mut images: Vec<_> = members.iter().map(image).collect();
    images.sort();
    for (image, disks) in images.iter().zip(frozen(machines, frozen_at)) {
        let layer = &disks[0];
        let compared = Command::new("qemu-img")
            .args([
                "compare",
                "-U",
                "-f",
                "qcow2",
                "-F",
                &layer.format.to_string(),
            ])
            .args([Path::new(image), &layer.path])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&compared.stdout);
        assert!(compared.status.success(), "{image}: {said}");
    }
    std::fs::remove_dir_all(out).unwrap();
}

/// Its owner ends it and starts it anew where `vm show` says.
#[test]
fn points_of_an_attached_machine_outlive_its_process() {
    let host = Host::start();
    let ring = pair(&host, Format::Raw);
    let directory = host.path().join("ring");
    let mut theirs = ring.members[1].definition.clone();
    let guest = Guest::start(&theirs, &directory).unwrap();
    host.start_machines(&ring.members[..1]);
    ring.wait_alive(LIMIT).unwrap();
    host.json(&["vm", "attach", "theirs", "--qmp", text(&guest.qmp)]);
    host.json(&["collection", "create", "pair", "ring-0", "theirs"]);
    let mut machines = ring.members.clone();
    machines[1].definition.name = "theirs".into();
    let files = host.files();

    let monday = recovery(&host, "monday");
    comes_back(&host, &machines, ["snapshot", "monday"], &monday, &[]);
    host.json(&["snapshot", "convert", "monday"]);
    ring.wait_progress(5, LIMIT).unwrap();
    let tuesday = recovery(&host, "tuesday");
    let since = ["--require-difference", "--base", "monday"];
    comes_back(&host, &machines, ["snapshot", "tuesday"], &tuesday, &since);
    host.json(&["snapshot", "convert", "tuesday"]);

    theirs.disks[0].path = host.active("theirs").remove(0);
    theirs.disks[0].format = Format::Qcow2;
    guest.kill();
    let refusal = host.refusal(&["refpoint", "create", "pair"]);
    assert!(refusal.contains("theirs"), "{refusal}");
    let guest = Guest::start(&theirs, &directory).unwrap();
    ring.wait_progress(5, LIMIT).unwrap();
    let point = host.json(&["refpoint", "create", "pair", "--name", "wednesday"]);
    ring.wait_progress(5, LIMIT).unwrap();
    let since = ["--require-difference", "--base", "tuesday"];
    comes_back(&host, &machines, ["refpoint", "wednesday"], &point, &since);

    for point in ["monday", "tuesday", "wednesday"] {
        host.json(&["refpoint", "destroy", point]);
        std::fs::remove_dir_all(host.path().join(point)).unwrap();
    }
    host.files_become(&files);
    let image = ring.members[1].definition.disks[0].path.clone();
    assert_eq!(host.active("theirs"), [image]);
    ring.wait_progress(5, LIMIT).unwrap();
    host.close();
    guest.kill();
}

/// It is saved between two instants and at the later ones; its layers are merged
/// without a process, and it goes on from its memory.
#[test]
fn points_of_a_saved_machine_hold_and_it_goes_on() {
    let host = Host::start();
    let ring = pair(&host, Format::Qcow2);
    host.start_ring(&ring);
    host.json(&["collection", "create", "pair", "ring-0", "ring-1"]);
    let files = host.files();
    let machines = &ring.members;
    let monday = recovery(&host, "monday");
    comes_back(&host, machines, ["snapshot", "monday"], &monday, &[]);
    host.json(&["snapshot", "convert", "monday"]);
    ring.wait_progress(5, LIMIT).unwrap();

    host.json(&["vm", "save", "ring-1"]);
    let tuesday = recovery(&host, "tuesday");
    let since = ["--require-difference", "--base", "monday"];
    comes_back(&host, machines, ["snapshot", "tuesday"], &tuesday, &since);
    host.json(&["snapshot", "convert", "tuesday"]);
    let point = host.json(&["refpoint", "create", "pair", "--name", "wednesday"]);
    let since = ["--require-difference", "--base", "tuesday"];
    comes_back(&host, machines, ["refpoint", "wednesday"], &point, &since);
    host.json(&["refpoint", "destroy", "monday"]);
    host.json(&["refpoint", "forget-data", "wednesday"]);
    assert_eq!(host.power("ring-1"), "saved");

    // From its memory, and not from its disks: it does not begin anew.
    let starts = || {
        let log = std::fs::read(&machines[1].definition.serial_log).unwrap();
        String::from_utf8_lossy(&log).matches(" starts at ").count()
    };
    let before = starts();
    host.json(&["vm", "start", "ring-1"]);
    ring.wait_progress(5, LIMIT).unwrap();
    assert_eq!(starts(), before);
    let thursday = recovery(&host, "thursday");
    let since = ["--require-difference", "--base", "wednesday"];
    comes_back(&host, machines, ["snapshot", "thursday"], &thursday, &since);

    host.json(&["snapshot", "destroy", "thursday"]);
    for point in ["tuesday", "wednesday"] {
        host.json(&["refpoint", "destroy", point]);
    }
    for name in ["monday", "tuesday", "wednesday", "thursday"] {
        std::fs::remove_dir_all(host.path().join(name)).unwrap();
    }
    host.files_become(&files);
    ring.wait_progress(5, LIMIT).unwrap();
    host.close();
}
