//! Backups of real guests that write, the whole circle: through the command line and
//! through pywbem, exported in full and as what changed, verified, restored as files
//! and as machines, and by `qemu-img` alone. What comes back is, byte for byte, what was
//! frozen at its instant, and one instant by the oracle's word.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Host, LIMIT, Mount, frozen, one_instant};
use isochron_lab::definition::Machine;
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

/// What the members of a ring show on their consoles from now on.
struct Consoles<'a> {
    ring: &'a Ring,
    from: Vec<usize>,
}

impl<'a> Consoles<'a> {
    fn from_now(ring: &'a Ring) -> Self {
        let texts = ring.members.iter().map(console);
        let from = texts.map(|text| text.len()).collect();
        Self { ring, from }
    }

    /// How many members have booted since.
    fn booted(&self) -> usize {
        let members = self.ring.members.iter().zip(&self.from);
        let texts = members.map(|(member, from)| console(member).split_off(*from));
        texts.filter(|text| text.contains("starts at")).count()
    }

    /// The first counter that each member has shown since.
    fn first(&self) -> Vec<u64> {
        let members = self.ring.members.iter().zip(&self.from);
        let first = members.map(|(member, from)| {
            let text = console(member).split_off(*from);
            let mut counters = text.lines().filter_map(|line| {
                let words: Vec<_> = line.trim().split(' ').collect();
                (words.len() == 3 && words[0] == "ring").then(|| words[2].parse().ok())?
            });
            counters.next().unwrap()
        });
        first.collect()
    }
}

fn console(member: &Machine) -> String {
    let text = std::fs::read(&member.definition.serial_log).unwrap();
    String::from_utf8(text).unwrap()
}

fn counters(ring: &Ring) -> Vec<u64> {
    let indices = 0..ring.members.len();
    indices.map(|i| ring.counter_now(i).unwrap()).collect()
}

/// On a host that never saw the originals, which are gone: with their own names and
/// identifiers they go on from the instant, as often as it is wanted; or they boot.
#[test]
fn an_export_is_restored_on_another_host_and_goes_on() {
    let here = Host::start();
    let ring = shop(&here, 1);
    let export = here.path().join("friday");
    let before = counters(&ring);
    let friday = here.json(&["snapshot", "create", "shop", "--name", "friday"]);
    here.json(&["snapshot", "export", "friday", text(&export)]);
    ring.wait_progress(100, LIMIT).unwrap();
    let old = ["ring-0", "ring-1", "ring-2"];
    here.json(&[&["vm", "stop", "--force"], &old[..]].concat());
    let last = counters(&ring);
    for image in here.files() {
        let name = image.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with(".qcow2") && !image.starts_with(&export) {
            std::fs::remove_file(image).unwrap();
        }
    }

    let there = Host::start();
    let goes_on = |names: &[&str]| {
        let consoles = Consoles::from_now(&ring);
        for name in names {
            assert_eq!(there.power(name), "saved");
        }
        there.json(&[&["vm", "start"], names].concat());
        ring.wait_progress(5, LIMIT).unwrap();
        assert_eq!(consoles.booted(), 0);
        let first = consoles.first();
        for ((first, before), last) in first.iter().zip(&before).zip(&last) {
            assert!(before <= first && first < last, "{before} {first} {last}");
        }
    };
    let memories = || {
        let files = there.files().into_iter();
        files.filter(|file| file.ends_with("memory")).count()
    };
    let restored = there.run(&["restore", text(&export)]);
    let said = String::from_utf8_lossy(&restored.stdout);
    assert!(restored.status.success(), "{restored:?}");
    assert!(said.contains("goes on from"), "{said}");
    let shop = there.json(&["collection", "show", "shop"]);
    assert_eq!(shop["id"], friday["collection_id"]);
    let image = there.active("ring-0").remove(0);
    assert!(
        image.starts_with(there.path().join("shop/ring-0")),
        "{image:?}"
    );
    assert_eq!(memories(), 3);
    goes_on(&old);
    assert_eq!(memories(), 0, "what was gone on from is gone");
    let monday = there.json(&["snapshot", "create", "shop", "--type", "recovery"]);
    one_instant(&ring.members, &monday);
    there.json(&[&["vm", "stop", "--force"], &old[..]].concat());

    // Once more, on raw images, under other names.
    let new = ["new-ring-0", "new-ring-1", "new-ring-2"];
    let words = ["restore", text(&export), "new", "--as", "new-", "--format"];
    let made = there.json(&[&words[..], &["raw"]].concat());
    assert_eq!(made["machines"][1]["name"], "new-ring-1");
    goes_on(&new);
    let image = there.active("new-ring-0").remove(0);
    assert_eq!(image, there.path().join("new/ring-0/data.raw"));
    there.json(&[&["vm", "stop", "--force"], &new[..]].concat());

    // As files, which are defined by hand.
    there.json(&["restore", "--files-only", text(&export), "files"]);
    for name in old {
        let directory = there.path().join("files").join(name);
        let [file, memory] = ["definition.toml", "memory"].map(|name| directory.join(name));
        let definition = std::fs::read_to_string(&file).unwrap();
        let mine = definition.replace(&format!("\"{name}\""), &format!("\"my-{name}\""));
        let lines = mine.lines().filter(|line| !line.starts_with("id = "));
        std::fs::write(&file, lines.collect::<Vec<_>>().join("\n")).unwrap();
        there.json(&["vm", "define", text(&file), "--memory", text(&memory)]);
    }
    assert_eq!(memories(), 3);
    let mine = ["my-ring-0", "my-ring-1", "my-ring-2"];
    goes_on(&mine);
    there.json(&[&["vm", "stop", "--force"], &mine[..]].concat());

    // Without memory they boot.
    let words = ["restore", text(&export), "off", "--as", "off-", "--off"];
    let made = there.json(&[&words[..], &["--format", "raw"]].concat());
    assert_eq!(made["machines"][2]["power"], "off");
    assert_eq!(memories(), 0);
    let consoles = Consoles::from_now(&ring);
    there.json(&["vm", "start", "off-ring-0", "off-ring-1", "off-ring-2"]);
    ring.wait_alive(LIMIT).unwrap();
    assert_eq!(consoles.booted(), 3);
    there.close();
    here.close();
}

/// The second of three machines is refused, or there is no space: nothing is left, and
/// it can be said again when that is put right.
#[test]
fn a_restore_that_ends_midway_leaves_nothing() {
    let host = Host::start();
    let directory = host.directory("ring");
    let mut ring = Ring::create(&Kit::load().unwrap(), &directory, &Options::default()).unwrap();
    let mut definition = ring.members[1].definition.clone();
    let kernel = directory.join("kernel");
    std::fs::copy(&definition.kernel, &kernel).unwrap();
    definition.kernel.clone_from(&kernel);
    ring.members[1] = Machine::create(&directory, definition).unwrap();
    host.start_ring(&ring);
    let old = ["ring-0", "ring-1", "ring-2"];
    host.json(&[&["collection", "create", "shop"], &old[..]].concat());
    let export = host.path().join("friday");
    host.json(&["snapshot", "create", "shop", "--name", "friday"]);
    host.json(&["snapshot", "export", "friday", text(&export)]);
    host.json(&[&["vm", "stop", "--force"], &old[..]].concat());

    let restore = ["restore", text(&export), "small/new", "--as", "new-"];
    let ends = |says: &str| {
        let files = host.files();
        let said = host.refusal(&restore);
        assert!(said.contains(says), "{said}");
        assert_eq!(host.files(), files);
        assert_eq!(host.json(&["vm", "list"]).as_array().unwrap().len(), 3);
        let collections = host.json(&["collection", "list"]);
        assert_eq!(collections.as_array().unwrap().len(), 1);
    };
    let small = host.path().join("small");
    match Mount::new(&small, 4 << 10) {
        Ok(_mount) => ends("No space left"),
        Err(why) => {
            println!("left out: a file system of a given size cannot be mounted here: {why}");
            std::fs::create_dir(&small).unwrap();
        }
    }
    let away = directory.join("away");
    std::fs::rename(&kernel, &away).unwrap();
    ends(text(&kernel));
    std::fs::rename(&away, &kernel).unwrap();
    host.json(&restore);
    let consoles = Consoles::from_now(&ring);
    host.json(&["vm", "start", "new-ring-0", "new-ring-1", "new-ring-2"]);
    ring.wait_progress(5, LIMIT).unwrap();
    assert_eq!(consoles.booted(), 0);
    host.close();
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
