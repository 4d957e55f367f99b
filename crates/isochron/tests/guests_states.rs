//! Members of every kind in one snapshot: running, paused, off, attached, with disks
//! that cannot be snapshotted, in several collections. Each stays what it was, and
//! what cannot be done is refused before anything is touched.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use std::collections::BTreeSet;
use std::path::PathBuf;

use common::{Host, LIMIT, frozen, one_instant, open_images};
use isochron_lab::disk::Format;
use isochron_lab::guest::Guest;
use isochron_lab::kit::Kit;
use isochron_lab::oracle::{self, Verdict};
use isochron_lab::ring::{Options, Ring};
use serde_json::{Value, json};

const KINDS: [&str; 2] = ["standard", "recovery"];

/// A ring stands when members do; its others run on all the same.
#[test]
fn members_that_are_off_or_paused_stay_so() {
    let host = Host::start();
    let ring = ring(&host, "ring", 3, Format::Qcow2);
    host.start_ring(&ring);
    host.json(&["collection", "create", "all", "ring-0", "ring-1", "ring-2"]);
    let files = host.files();
    host.json(&["vm", "pause", "ring-1"]);
    host.json(&["vm", "stop", "--force", "ring-2"]);
    let states = || ["ring-0", "ring-1", "ring-2"].map(|name| host.power(name));
    let as_was = ["running", "paused", "off"];
    let process = host.process("ring-1");

    for kind in KINDS {
        let snapshot = create(&host, "all", kind);
        assert_eq!(states(), as_was, "{kind}");
        one_instant(&ring.members, &snapshot);
        let cut = snapshot["cut"]["members"].as_array().unwrap();
        let powers: Vec<&str> = cut.iter().map(|m| m["power"].as_str().unwrap()).collect();
        assert_eq!(powers, as_was, "{kind}");
        assert!(
            cut[0]["pause_us"].is_u64() && cut[1]["pause_us"].is_null(),
            "{cut:?}"
        );
        let memory: Vec<&str> = cut.iter().map(|m| m["memory"].as_str().unwrap()).collect();
        let expected = match kind {
            "standard" => ["background", "plain", "none"],
            _ => ["none"; 3],
        };
        assert_eq!(memory, expected, "{kind}");
        // One file per member that has memory, and of all of it.
        for (member, how) in snapshot["members"].as_array().unwrap().iter().zip(expected) {
            assert_eq!(member["memory"].is_string(), how != "none", "{member}");
        }
    }
    assert_eq!(
        host.process("ring-1"),
        process,
        "a paused member was started anew"
    );

    // Back and forth: the states are those of the snapshot for a standard one; a
    // recovery one starts who runs now and leaves the others off.
    host.json(&["vm", "resume", "ring-1"]);
    host.json(&["vm", "start", "ring-2"]);
    ring.wait_progress(5, LIMIT).unwrap();
    host.json(&["snapshot", "apply", "standard"]);
    assert_eq!(states(), as_was);
    host.json(&["vm", "resume", "ring-1"]);
    host.json(&["vm", "start", "ring-2"]);
    ring.wait_progress(5, LIMIT).unwrap();
    host.json(&["vm", "pause", "ring-1"]);
    host.json(&["vm", "stop", "--force", "ring-2"]);
    host.json(&["snapshot", "apply", "recovery"]);
    assert_eq!(states(), ["running", "off", "off"]);
    // And again; one may be applied as often as one likes.
    host.json(&["snapshot", "apply", "standard"]);
    assert_eq!(states(), as_was);

    for name in KINDS {
        host.json(&["snapshot", "destroy", name]);
        assert_eq!(states(), as_was);
    }
    host.files_become(&files);
    host.json(&["vm", "resume", "ring-1"]);
    host.json(&["vm", "start", "ring-2"]);
    ring.wait_progress(5, LIMIT).unwrap();

    // A member that is off and has lost its image: the job fails, with a sentence,
    // and the others have nothing of it.
    host.json(&["vm", "stop", "--force", "ring-2"]);
    let image = &ring.members[2].definition.disks[0].path;
    let away = image.with_extension("away");
    std::fs::rename(image, &away).unwrap();
    let refusal = host.refusal(&["snapshot", "create", "all", "--type", "recovery"]);
    assert!(refusal.contains("ring-2"), "{refusal}");
    std::fs::rename(&away, image).unwrap();
    host.files_become(&files);
    assert_eq!(states(), ["running", "running", "off"]);
    host.close();
}

/// The owner of an attached QEMU keeps its process: snapshots are taken and
/// destroyed, applying is refused, and it can be started by hand where it says.
#[test]
fn an_attached_machine_is_snapshotted_but_never_restarted() {
    let host = Host::start();
    let mut ring = ring(&host, "ring", 2, Format::Raw);
    let directory = host.path().join("ring");
    // A device that is no file, beside the disk.
    let device = [
        "-blockdev",
        "null-co,node-name=n",
        "-device",
        "ide-hd,id=scratch,drive=n",
    ];
    ring.members[1].definition.extra_args = device.map(Into::into).into();
    let guest = Guest::start(&ring.members[1].definition, &directory).unwrap();
    host.start_machines(&ring.members[..1]);
    ring.wait_alive(LIMIT).unwrap();
    host.json(&[
        "vm",
        "attach",
        "theirs",
        "--qmp",
        guest.qmp.to_str().unwrap(),
    ]);
    // Another with a device like that: there is no file that both would claim.
    let mut other = ring.members[1].definition.clone();
    other.name = "other".into();
    other.disks.clear();
    other.nics.clear();
    other.extra_args.push("-S".into());
    let other = Guest::start(&other, &directory).unwrap();
    host.json(&[
        "vm",
        "attach",
        "other",
        "--qmp",
        other.qmp.to_str().unwrap(),
    ]);
    assert!(host.active("other").is_empty());
    host.json(&["vm", "undefine", "other"]);
    other.kill();
    host.json(&["collection", "create", "pair", "ring-0", "theirs"]);
    let files = host.files();
    let base = &ring.members[1].definition.disks[0].path;

    // The device cannot be snapshotted: refused, unless it is to be left out.
    let refusal = host.refusal(&["snapshot", "create", "pair", "--type", "recovery"]);
    assert!(
        refusal.contains("theirs") && refusal.contains("scratch"),
        "{refusal}"
    );
    assert!(refusal.contains("IgnoreNonSnapshottableDisks"), "{refusal}");
    assert_eq!(host.files(), files);
    let script = host.python("ignore_disks.py", &["pair"]);
    assert_eq!(script, json!(["kept"]));
    let snapshot = host.json(&["snapshot", "show", "kept"]);
    let theirs = &snapshot["members"][1];
    assert_eq!(
        (&theirs["vm"], &theirs["left_out"]),
        (&json!("theirs"), &json!(["scratch"]))
    );
    assert_eq!(theirs["disks"][0]["layer"], base.to_str().unwrap());
    assert_eq!(theirs["disks"][0]["format"], "raw");
    one_instant_of(&ring, &snapshot);
    ring.wait_progress(5, LIMIT).unwrap();

    // Applying is refused for the whole collection, and nothing is touched.
    let layers = host.files();
    let process = host.process("ring-0");
    let refusal = host.refusal(&["snapshot", "apply", "kept"]);
    assert!(
        refusal.contains("theirs") && refusal.contains("attached"),
        "{refusal}"
    );
    for verb in ["start", "stop"] {
        let mut words = vec!["vm", verb, "theirs"];
        words.extend((verb == "stop").then_some("--force"));
        host.refusal(&words);
    }
    assert_eq!((host.files(), host.process("ring-0")), (layers, process));
    ring.wait_progress(5, LIMIT).unwrap();

    // Its owner ends it, and starts it from the layer that `vm show` names.
    let active = host.active("theirs")[0].clone();
    assert_ne!(active, *base);
    let shown = host.run(&["vm", "show", "theirs"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(
        shown.contains("its owner must use") && shown.contains(active.to_str().unwrap()),
        "{shown}"
    );
    let counter = ring.counter_now(1).unwrap();
    let mut definition = ring.members[1].definition.clone();
    guest.kill();
    let refusal = host.refusal(&["snapshot", "create", "pair", "--type", "recovery"]);
    assert!(refusal.contains("theirs"), "{refusal}");
    // From the layer that it had at first (standing, for it must not write there):
    // it is noticed.
    definition.extra_args.push("-S".into());
    let wrong = Guest::start(&definition, &directory).unwrap();
    let refusal = host.refusal(&[
        "snapshot",
        "create",
        "pair",
        "--type",
        "recovery",
        "--ignore-excluded-disks",
    ]);
    assert!(refusal.contains(active.to_str().unwrap()), "{refusal}");
    wrong.kill();
    definition.extra_args.pop();
    definition.disks[0].path.clone_from(&active);
    definition.disks[0].format = Format::Qcow2;
    let guest = Guest::start(&definition, &directory).unwrap();
    ring.wait_progress(5, LIMIT).unwrap();
    assert!(ring.counter_now(1).unwrap() >= counter);

    // The connection is made anew, and merging goes on in the new process.
    let second = host.json(&[
        "snapshot",
        "create",
        "pair",
        "--type",
        "recovery",
        "--name",
        "second",
        "--ignore-excluded-disks",
    ]);
    assert_eq!(
        second["members"][1]["disks"][0]["layer"],
        active.to_str().unwrap()
    );
    for name in ["kept", "second"] {
        host.json(&["snapshot", "destroy", name]);
    }
    host.files_become(&files);
    assert_eq!(open_images(guest.pid()), BTreeSet::from([base.clone()]));
    assert_eq!(host.active("theirs"), [PathBuf::from(base)]);
    ring.wait_progress(5, LIMIT).unwrap();
    host.json(&["collection", "destroy", "pair"]);
    host.json(&["vm", "undefine", "theirs"]);
    ring.wait_progress(5, LIMIT).unwrap();
    host.close();
    guest.kill();
}

/// A machine in two collections, and a collection of collections: one cut for all,
/// each machine in it once, and each machine's snapshots in one line.
#[test]
fn collections_overlap_and_nest() {
    let host = Host::start();
    let ring = ring(&host, "ring", 3, Format::Qcow2);
    host.start_ring(&ring);
    let files = host.files();
    host.json(&["collection", "create", "left", "ring-0", "ring-1"]);
    host.json(&["collection", "create", "right", "ring-1", "ring-2"]);
    host.json(&[
        "collection",
        "create",
        "--of-collections",
        "whole",
        "left",
        "right",
    ]);

    let snapshot = create(&host, "whole", "standard");
    let mut members: Vec<&str> = members(&snapshot);
    members.sort_unstable();
    assert_eq!(members, ["ring-0", "ring-1", "ring-2"]);
    one_instant(&ring.members, &snapshot);
    let left = create(&host, "left", "recovery");
    assert_eq!(self::members(&left), ["ring-0", "ring-1"]);

    // What they share is used by one operation at a time.
    let busy = [
        "snapshot",
        "create",
        "right",
        "--name",
        "right",
        "--no-wait",
    ];
    let job = host.json(&busy);
    let refusal = host.refusal(&["snapshot", "create", "left", "--type", "recovery"]);
    assert!(
        refusal.contains("ring-1") || refusal.contains("operation"),
        "{refusal}"
    );
    let job = job["id"]
        .as_str()
        .or(job["job"].as_str())
        .unwrap()
        .to_owned();
    host.json(&["job", "wait", &job]);

    // The whole goes back; the snapshots that grew since stay.
    ring.wait_progress(20, LIMIT).unwrap();
    let frozen = match oracle::judge(&frozen(&ring.members, &snapshot)).unwrap() {
        Verdict::Consistent { counters } => counters[0][0],
        violated => panic!("{violated}"),
    };
    host.json(&["snapshot", "apply", "standard"]);
    ring.wait_progress(5, LIMIT).unwrap();
    assert!(ring.counter_now(0).unwrap() >= frozen);
    assert_eq!(
        host.json(&["snapshot", "list"]).as_array().unwrap().len(),
        3
    );
    // A collection that has snapshots stays.
    let refusal = host.refusal(&["collection", "destroy", "right"]);
    assert!(refusal.contains("snapshot"), "{refusal}");
    for name in ["standard", "right", "recovery"] {
        host.json(&["snapshot", "destroy", name]);
    }
    host.files_become(&files);
    ring.wait_progress(5, LIMIT).unwrap();
    for name in ["whole", "right", "left"] {
        host.json(&["collection", "destroy", name]);
    }
    host.close();
}

/// A host's block device as a disk, where this machine gives us one.
#[test]
fn a_passed_through_device_is_refused_or_left_out() {
    let host = Host::start();
    let mut ring = ring(&host, "ring", 2, Format::Qcow2);
    let backing = host.path().join("device.raw");
    std::fs::File::create(&backing)
        .unwrap()
        .set_len(8 << 20)
        .unwrap();
    let Some(device) = Loop::on(&backing) else {
        eprintln!("no loop device can be set up here: skipped");
        host.close();
        return;
    };
    let mut definition = ring.members[1].definition.clone();
    definition.disks.push(isochron_lab::definition::Disk {
        name: "device".into(),
        path: device.0.clone(),
        format: Format::Raw,
        cache: "none".into(),
        read_only: false,
    });
    ring.members[1] =
        isochron_lab::definition::Machine::create(&host.path().join("ring"), definition).unwrap();
    host.start_ring(&ring);
    host.json(&["collection", "create", "pair", "ring-0", "ring-1"]);
    let files = host.files();
    for kind in KINDS {
        let refusal = host.refusal(&["snapshot", "create", "pair", "--type", kind]);
        assert!(refusal.contains("device"), "{refusal}");
    }
    assert_eq!(host.files(), files);
    let kept = host.json(&[
        "snapshot",
        "create",
        "pair",
        "--type",
        "recovery",
        "--name",
        "kept",
        "--ignore-excluded-disks",
    ]);
    assert_eq!(kept["members"][1]["left_out"], json!(["device"]));
    assert_eq!(kept["members"][1]["disks"].as_array().unwrap().len(), 1);
    host.json(&["snapshot", "destroy", "kept"]);
    host.files_become(&files);
    ring.wait_progress(5, LIMIT).unwrap();
    host.close();
}

/// A loop device; gone when dropped.
struct Loop(PathBuf);

impl Loop {
    fn on(file: &std::path::Path) -> Option<Self> {
        let made = std::process::Command::new("losetup")
            .args(["--find", "--show"])
            .arg(file)
            .stderr(std::process::Stdio::null())
            .output()
            .ok()?;
        let path = String::from_utf8_lossy(&made.stdout).trim().to_owned();
        made.status.success().then(|| Self(path.into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = std::process::Command::new("losetup")
            .arg("-d")
            .arg(&self.0)
            .status();
    }
}

fn ring(host: &Host, name: &str, count: usize, format: Format) -> Ring {
    let options = Options {
        count,
        format,
        ..Options::default()
    };
    Ring::create(&Kit::load().unwrap(), &host.directory(name), &options).unwrap()
}

/// Takes a snapshot that is named after its type.
fn create(host: &Host, collection: &str, kind: &str) -> Value {
    host.json(&[
        "snapshot", "create", collection, "--type", kind, "--name", kind,
    ])
}

fn members(snapshot: &Value) -> Vec<&str> {
    let members = snapshot["members"].as_array().unwrap();
    members.iter().map(|m| m["vm"].as_str().unwrap()).collect()
}

/// As [`one_instant`], of a ring whose second member is attached as `theirs` with
/// QEMU's own names for disks.
fn one_instant_of(ring: &Ring, snapshot: &Value) {
    let layer = |member: usize| {
        let disk = &snapshot["members"][member]["disks"][0];
        let format = match disk["format"].as_str() {
            Some("raw") => Format::Raw,
            _ => Format::Qcow2,
        };
        vec![oracle::Image::new(disk["layer"].as_str().unwrap(), format)]
    };
    let layers: Vec<_> = (0..ring.members.len()).map(layer).collect();
    let verdict = oracle::judge(&layers).unwrap();
    assert!(verdict.is_consistent(), "{verdict}");
}
