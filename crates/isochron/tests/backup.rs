//! Backups of real guests that write, the whole circle: through the command line and
//! through pywbem, exported in full and as what changed, verified, restored as files
//! and as machines, and by `qemu-img` alone. What comes back is, byte for byte, what was
//! frozen at its instant, and one instant by the oracle's word.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Host, LIMIT, frozen};
use isochron_lab::disk::Format;
use isochron_lab::kit::Kit;
use isochron_lab::oracle::{self, Image};
use isochron_lab::ring::{Options, Ring};
use serde_json::Value;

/// A ring of three that writes, as the collection `shop`.
fn shop(host: &Host, dirty_mbps: u32) -> Ring {
    let options = Options {
        dirty_mbps,
        ..Options::default()
    };
    let directory = host.directory("ring");
    let ring = Ring::create(&Kit::load().unwrap(), &directory, &options).unwrap();
    host.start_ring(&ring);
    host.json(&["collection", "create", "shop", "ring-0", "ring-1", "ring-2"]);
    ring
}

fn qemu_img(words: &[&str]) {
    let output = Command::new("qemu-img").args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{words:?}: {printed}{said}");
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Fails unless images hold, byte for byte, what a snapshot froze.
fn same(ring: &Ring, snapshot: &Value, images: &[PathBuf], format: &str) {
    let frozen = frozen(&ring.members, snapshot);
    for (disks, image) in frozen.iter().zip(images) {
        let layer = &disks[0];
        let of = layer.format.to_string();
        qemu_img(&[
            "compare",
            "-U",
            "-f",
            format,
            "-F",
            &of,
            text(image),
            text(&layer.path),
        ]);
    }
    let disks: Vec<_> = images
        .iter()
        .map(|image| {
            let format = if format == "raw" {
                Format::Raw
            } else {
                Format::Qcow2
            };
            vec![Image::new(image, format)]
        })
        .collect();
    let verdict = oracle::judge(&disks).unwrap();
    assert!(verdict.is_consistent(), "{verdict}");
}

/// Verifies an export and restores its files; the images, in the ring's order.
fn restored(host: &Host, export: &Path, to: &str) -> Vec<PathBuf> {
    host.json(&["export", "verify", text(export)]);
    let out = host.path().join(to);
    let told = host.json(&["restore", "--files-only", text(export), text(&out)]);
    let mut images: Vec<PathBuf> = told["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| member["disks"][0]["path"].as_str().unwrap().into())
        .collect();
    images.sort();
    images
}

/// A difference is a chain of qcow2 files: `qemu-img` reads it without us.
fn by_qemu_img_alone(host: &Host, export: &Path, to: &str) -> Vec<PathBuf> {
    let out = host.directory(to);
    let convert = |index: usize| {
        let from = export.join(format!("ring-{index}.data.qcow2"));
        let raw = out.join(format!("{index}.raw"));
        qemu_img(&["convert", "-O", "raw", text(&from), text(&raw)]);
        raw
    };
    (0..3).map(convert).collect()
}

#[test]
fn a_collection_is_backed_up_and_restored_by_the_command_line() {
    let mut host = Host::start();
    let ring = shop(&host, 1);
    let backups = host.directory("backups");
    let [full, difference, merged] = ["monday", "tuesday", "merged"].map(|name| backups.join(name));
    let recovery = |name| {
        [
            "snapshot", "create", "shop", "--type", "recovery", "--name", name,
        ]
    };

    let monday = host.json(&recovery("monday"));
    let job = host.json(&["snapshot", "export", "monday", text(&full)]);
    assert_eq!(job["export"]["done_bytes"], job["export"]["total_bytes"]);
    same(&ring, &monday, &restored(&host, &full, "m"), "qcow2");
    let point = host.json(&["snapshot", "convert", "monday"]);
    assert_eq!(point["exports"][0]["directory"], text(&full));

    // The daemon is another, the guests are the same, and one of them is begun anew.
    host.restart();
    ring.wait_progress(20, LIMIT).unwrap();
    host.json(&["vm", "stop", "--force", "ring-1"]);
    host.json(&["vm", "start", "ring-1"]);
    ring.wait_alive(LIMIT).unwrap();
    let tuesday = host.json(&recovery("tuesday"));

    // Taken back in the middle: nothing is left, guests go on, and it can be said again.
    let export = ["snapshot", "export", "tuesday", text(&difference)];
    let export = [&export[..], &["--base", "monday", "--require-difference"]].concat();
    let started = host.json(&[&export[..], &["--limit", "16K", "--no-wait"]].concat());
    let job = started["job"].as_str().unwrap();
    assert!(
        host.refusal(&["snapshot", "destroy", "tuesday"])
            .contains("export")
    );
    host.json(&["job", "cancel", job]);
    assert_eq!(host.run(&["job", "wait", job]).status.code(), Some(8));
    let left: Vec<_> = backups.read_dir().unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    ring.wait_progress(5, LIMIT).unwrap();

    let job = host.json(&export);
    assert_eq!(job["export"]["base"], point["id"]);
    assert_eq!(job["export"]["whole"], Value::Array(vec![]));
    let merge = ["snapshot", "export", "tuesday", text(&merged)];
    host.json(&[&merge[..], &["--base", text(&full), "--intent", "merge"]].concat());
    same(&ring, &tuesday, &restored(&host, &difference, "t"), "qcow2");
    same(
        &ring,
        &tuesday,
        &by_qemu_img_alone(&host, &difference, "q"),
        "raw",
    );
    // The merged one needs nobody.
    std::fs::rename(&full, backups.join("away")).unwrap();
    same(&ring, &tuesday, &restored(&host, &merged, "f"), "qcow2");

    // A part of it is damaged: nothing is restored, no machine is made.
    let image = merged.join("ring-2.data.qcow2");
    let good = std::fs::read(&image).unwrap();
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    std::fs::write(&image, bad).unwrap();
    let words = ["restore", text(&merged), "new", "--as", "new-"];
    assert!(host.refusal(&words).contains("ring-2.data.qcow2"));
    assert_eq!(host.json(&["vm", "list"]).as_array().unwrap().len(), 3);
    assert!(!host.path().join("new").exists());
    std::fs::write(&image, good).unwrap();
    // Names that are there are not taken again.
    let there = host.run(&["restore", text(&merged)]);
    assert_eq!(there.status.code(), Some(4));
    assert!(!host.path().join("shop").exists());

    // Beside what is there; then the originals end, and the restored ring goes round.
    let made = host.json(&words);
    assert_eq!(made["members"].as_array().unwrap().len(), 3);
    let old = ["ring-0", "ring-1", "ring-2"];
    host.json(&[&["vm", "stop", "--force"], &old[..]].concat());
    host.json(&["vm", "start", "new-ring-0", "new-ring-1", "new-ring-2"]);
    ring.wait_alive(LIMIT).unwrap();
    host.json(&["snapshot", "create", "new-shop", "--type", "recovery"]);
    host.close();
}

/// On a host that never saw the originals, with their own names and identifiers.
#[test]
fn an_export_is_restored_on_another_host() {
    let here = Host::start();
    let ring = shop(&here, 0);
    let export = here.path().join("friday");
    let friday = here.json(&["snapshot", "create", "shop", "--name", "friday"]);
    here.json(&["snapshot", "export", "friday", text(&export)]);
    let old = ["ring-0", "ring-1", "ring-2"];
    here.json(&[&["vm", "stop", "--force"], &old[..]].concat());

    let there = Host::start();
    let restored = there.run(&["restore", text(&export)]);
    let said = String::from_utf8_lossy(&restored.stdout);
    assert!(restored.status.success(), "{restored:?}");
    assert!(said.contains("as files only"), "{said}");
    let shop = there.json(&["collection", "show", "shop"]);
    assert_eq!(shop["id"], friday["collection_id"]);
    let image = there.active("ring-0").remove(0);
    assert!(
        image.starts_with(there.path().join("shop/ring-0")),
        "{image:?}"
    );
    there.json(&[&["vm", "start"], &old[..]].concat());
    ring.wait_alive(LIMIT).unwrap();
    there.close();
    here.close();
}

#[test]
fn a_collection_is_backed_up_through_cim() {
    let host = Host::with("[paths]\nroots = [\"backups\"]\n", &[]);
    let ring = shop(&host, 1);
    let backups = host.directory("backups");
    let made = host.python("backup.py", &["shop", text(&backups)]);
    let tuesday = host.json(&["snapshot", "show", made["snapshot"].as_str().unwrap()]);
    for (name, to) in [("tuesday", "t"), ("merged", "f")] {
        let images = restored(&host, &backups.join(name), to);
        same(&ring, &tuesday, &images, "qcow2");
    }
    let raw = by_qemu_img_alone(&host, &backups.join("tuesday"), "q");
    same(&ring, &tuesday, &raw, "raw");
    host.json(&["export", "verify", text(&backups.join("part"))]);
    assert!(Path::new(made["disk"].as_str().unwrap()).is_file());
    ring.wait_progress(5, LIMIT).unwrap();
    host.close();
}
