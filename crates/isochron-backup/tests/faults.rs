//! Exports that cannot be made or do not come to their end: nothing is left of them,
//! and the next attempt succeeds.

#![allow(clippy::unwrap_used)] // tests end at the first surprise

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use common::{Rig, disk, export, export_with};
use isochron_backup::manifest::{Kind, Manifest, Mode};
use isochron_backup::{DirectoryArchive, verify};
use isochron_engine::model::{Changes, CollectionId, ExportId, ImageFormat, MemoryState};
use isochron_engine::ports::{Archive, ArchiveError, Content, Go};
use rustix::process::{Pid, Signal, kill_process};

const FULL: Content = Content::Full { reason: None };

/// A rig with so many MiB of data.
fn rig(mib: u64) -> Rig {
    let rig = Rig::new(mib << 20, ImageFormat::Qcow2);
    rig.io(&[&format!("write -P 1 0 {mib}M")]);
    rig
}

/// The processes whose command line contains a text, but this one.
fn processes(text: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id: &u32| {
        let command = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        *id != std::process::id() && String::from_utf8_lossy(&command).contains(text)
    })
    .collect()
}

fn no_process_is_left(rig: &Rig) {
    let text = rig.directory.path().to_str().unwrap();
    let began = Instant::now();
    while !processes(text).is_empty() {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "a process is left"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_directory_that_is_in_use_is_refused() {
    let rig = rig(1);
    let invalid = |directory: PathBuf, why: &str| {
        let mut order = rig.order("x", FULL);
        order.directory = directory;
        match export(order) {
            Err(ArchiveError::Invalid(error)) => assert!(error.contains(why), "{error}"),
            other => panic!("{other:?}"),
        }
    };
    std::fs::create_dir(rig.path("used")).unwrap();
    std::fs::write(rig.path("used/file"), "").unwrap();
    invalid(rig.path("used"), "is not empty");
    invalid(rig.path("used/file"), "cannot be used");
    invalid(rig.path("missing/x"), "in a directory that is not there");
    invalid("relative".into(), "no absolute path");
    std::fs::create_dir(rig.path("empty")).unwrap();
    rig.full("empty");
    invalid(rig.path("empty"), "is not empty");
    no_process_is_left(&rig);
}

#[test]
fn a_base_that_does_not_fit_is_refused() {
    let mut rig = rig(1);
    rig.full("full");
    let mut record = rig.order("record", FULL);
    record.copy_storage = false;
    export(record).unwrap();
    rig.overlay();
    let order = |base: &str| {
        let mut order = rig.order("x", Content::Since(Changes::none()));
        order.base = Some(rig.path(base));
        order
    };
    let refused = |order, why: &str| match export(order) {
        Err(ArchiveError::Invalid(error)) => assert!(error.contains(why), "{error}"),
        other => panic!("{other:?}"),
    };
    refused(order("none"), "there is no finished export");
    refused(order("record"), "does not hold the disk");
    let mut other = order("full");
    other.instant.collection = CollectionId::new();
    refused(other, "is an export of the collection shop");
    let mut added = order("full");
    added.members[0].disks[0].name = "disk1".to_owned();
    refused(added, "does not hold the disk disk1");
    let mut none = order("full");
    none.base = None;
    refused(none, "does not hold the disk");
    let mut resized = rig.order("x", FULL);
    resized.members[0].disks[0].virtual_size += 512;
    refused(resized, "has 1048576 bytes and not 1049088");
    // A damaged base.
    let leaves = rig.path("full/web.disk0.leaves");
    let mut bytes = std::fs::read(&leaves).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&leaves, bytes).unwrap();
    match export(order("full")) {
        Err(ArchiveError::Damaged(error)) => assert!(error.contains("web.disk0.leaves"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(!rig.path("x").exists());
    assert!(rig.leftovers().is_empty());
}

#[test]
fn a_merge_does_not_take_over_what_is_damaged() {
    let mut rig = rig(2);
    rig.full("full");
    let image = rig.path("full/web.disk0.qcow2");
    let mut bytes = std::fs::read(&image).unwrap();
    bytes[700_000] ^= 1;
    std::fs::write(&image, bytes).unwrap();
    rig.overlay();
    let mut order = rig.order("merged", Content::Since(Changes::none()));
    order.base = Some(rig.path("full"));
    order.merge = true;
    match export(order) {
        Err(ArchiveError::Damaged(error)) => {
            assert!(error.contains("full/web.disk0.qcow2"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert!(!rig.path("merged").exists() && rig.leftovers().is_empty());
}

#[test]
fn memory_is_copied_and_a_record_has_neither() {
    let rig = rig(1);
    let memory = MemoryState {
        path: rig.path("memory"),
        bytes: 3_000_001,
    };
    let bytes: Vec<u8> = (0..memory.bytes).map(|at| (at % 251) as u8).collect();
    std::fs::write(&memory.path, &bytes).unwrap();
    let mut order = rig.order("full", FULL);
    order.members[0].memory = Some(memory.clone());
    let exported = export(order.clone()).unwrap();
    assert_eq!(std::fs::read(rig.path("full/web.memory")).unwrap(), bytes);
    let manifest = rig.check("full");
    assert_eq!(
        manifest.members[0].memory.as_ref().unwrap().bytes,
        memory.bytes
    );
    let sizes = exported.files.iter();
    let sizes = sizes.map(|file| rig.path("full").join(file).metadata().unwrap().len());
    assert_eq!(exported.bytes, sizes.sum::<u64>());
    assert_eq!(exported.files.len(), 5);

    (order.id, order.directory) = (ExportId::new(), rig.path("record"));
    order.copy_storage = false;
    export(order).unwrap();
    let (manifest, _) = Manifest::read(&rig.path("record")).unwrap();
    assert_eq!(
        (manifest.kind, disk(&manifest).mode),
        (Kind::Record, Mode::RecordOnly)
    );
    assert_eq!(disk(&manifest).layers[0].path, rig.layers[0].path);
    assert_eq!(std::fs::read_dir(rig.path("record")).unwrap().count(), 2);
}

#[test]
fn an_export_that_is_cancelled_at_any_moment_leaves_nothing() {
    let rig = rig(24);
    for moment in 0..12 {
        let mut order = rig.order("x", FULL);
        // Slow enough for many words on its progress.
        order.limit = Some(8 << 20);
        let words = AtomicU32::new(0);
        let ended = export_with(order, |copied| {
            assert!(copied.done <= copied.total);
            match words.fetch_add(1, Ordering::Relaxed) >= moment {
                true => Go::Stop,
                false => Go::On,
            }
        });
        assert_eq!(ended, Err(ArchiveError::Cancelled), "at moment {moment}");
        assert!(!rig.path("x").exists() && rig.leftovers().is_empty());
    }
    no_process_is_left(&rig);
    rig.full("x");
}

#[test]
fn an_export_that_nobody_waits_for_ends() {
    let rig = rig(24);
    let mut order = rig.order("x", FULL);
    order.limit = Some(1 << 20);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let archive = DirectoryArchive::default();
        // Opened and never run.
        drop(archive.open(order.clone()).await.unwrap());
        let export = archive.open(order).await.unwrap();
        let run = export.run(&|_| Go::On);
        let _ = tokio::time::timeout(Duration::from_millis(500), run).await;
    });
    // Waits for its threads.
    drop(runtime);
    assert!(!rig.path("x").exists() && rig.leftovers().is_empty());
    no_process_is_left(&rig);
}

#[test]
fn what_an_interrupted_export_left_is_cleared() {
    let rig = rig(1);
    let order = rig.order("x", FULL);
    let partial = rig.path(&format!(".x.{}.partial", order.id));
    std::fs::create_dir(&partial).unwrap();
    std::fs::write(partial.join("web.disk0.qcow2"), "half").unwrap();
    let other = rig.path(&format!(".x.{}.partial", ExportId::new()));
    std::fs::create_dir(&other).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let archive = DirectoryArchive::default();
    for _ in 0..2 {
        runtime
            .block_on(archive.clear(&order.directory, order.id))
            .unwrap();
        assert!(
            !partial.exists() && other.exists(),
            "its own and no other's"
        );
    }
    let id = order.id;
    export(order.clone()).unwrap();
    runtime
        .block_on(archive.clear(&order.directory, id))
        .unwrap();
    rig.check("x");
    let described = runtime
        .block_on(archive.describe(&order.directory))
        .unwrap();
    assert_eq!((described.id, described.instant), (id, order.instant.id));
    assert_eq!(
        described.disks,
        [(rig.machine, "disk0".to_owned(), 1 << 20)]
    );
}

#[test]
fn a_reader_that_is_killed_fails_the_export() {
    let mut rig = rig(24);
    rig.io(&["write -P 2 1M 1M"]);
    // Compressed data is read through it.
    rig.convert(&["-c"]);
    let mut order = rig.order("x", FULL);
    order.limit = Some(4 << 20);
    let text = rig.directory.path().to_str().unwrap().to_owned();
    let killed = AtomicU32::new(0);
    let ended = export_with(order, |_| {
        // The second word: it is under way.
        if killed.fetch_add(1, Ordering::Relaxed) == 1 {
            for id in processes(&text) {
                let name = std::fs::read_to_string(format!("/proc/{id}/comm")).unwrap_or_default();
                if name.trim() == "qemu-nbd" {
                    let id = Pid::from_raw(id.try_into().unwrap()).unwrap();
                    kill_process(id, Signal::KILL).unwrap();
                }
            }
        }
        Go::On
    });
    match ended {
        Err(ArchiveError::Failed(error)) => assert!(error.contains("qemu-nbd"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert!(!rig.path("x").exists() && rig.leftovers().is_empty());
    no_process_is_left(&rig);
    rig.full("x");
}

#[test]
fn layers_that_cannot_be_read_fail_the_export() {
    let rig = rig(1);
    let mut order = rig.order("x", FULL);
    order.members[0].disks[0].chain[0].path = rig.path("missing.qcow2");
    match export(order) {
        Err(ArchiveError::Failed(error)) => {
            assert!(error.contains("missing.qcow2"), "{error}");
            assert!(error.contains("No such file"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert!(rig.leftovers().is_empty());
}

/// A small file system.
struct Mount(PathBuf);

impl Mount {
    fn new(directory: &Path, mib: u64) -> Option<Self> {
        std::fs::create_dir_all(directory).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "tmpfs"])
            .arg(directory)
            .status();
        mounted
            .is_ok_and(|status| status.success())
            .then(|| Self(directory.to_owned()))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_fails_the_export_and_is_as_it_was() {
    let rig = rig(24);
    let Some(mount) = Mount::new(&rig.path("small"), 16) else {
        println!("skipped: a file system of a given size cannot be mounted here");
        return;
    };
    let mut order = rig.order("x", FULL);
    order.directory = mount.0.join("x");
    match export(order) {
        Err(ArchiveError::Failed(error)) => assert!(error.contains("No space left"), "{error}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(std::fs::read_dir(&mount.0).unwrap().count(), 0);
}

#[test]
fn a_limit_slows_it_down() {
    let rig = rig(6);
    let mut order = rig.order("x", FULL);
    order.limit = Some(4 << 20);
    let began = Instant::now();
    export(order).unwrap();
    // The limit's own promise, not the speed of a machine.
    assert!(began.elapsed() >= Duration::from_millis(1400));
    verify(Path::new("qemu-nbd"), &rig.path("x"), &[], &|_| Go::On).unwrap();
}
