//! A disk is full: a snapshot fails, nobody notices, and nothing is left.

use std::path::Path;

use isochron_api::dto::{JobState, SnapshotKind};
use isochron_lab::ring::Options;

use crate::common::{LIMIT, Mount};
use crate::stage::{Stage, new};

const ALL: [usize; 3] = [0, 1, 2];

/// The free space of a file system, in bytes.
pub fn free(directory: &Path) -> u64 {
    let system = rustix::fs::statvfs(directory).unwrap();
    system.f_bavail * system.f_frsize
}

/// Takes a snapshot that must fail for want of space.
fn fails(stage: &mut Stage, kind: SnapshotKind) {
    let before = stage.picture();
    let asked = stage.call(async |client| client.create_snapshot(&new(kind, None)).await);
    let job = stage.ended(asked.unwrap());
    assert_eq!(job.state, JobState::Failed, "{job:?}");
    println!("{}", job.error.unwrap().message);
    assert!(stage.find(job.snapshot_id.unwrap()).is_none());
    stage.looks_like(&before);
    stage.nobody_stood_too_long(&ALL);
    stage.goes_round();
}

fn works(stage: &mut Stage, kind: SnapshotKind) {
    let before = stage.picture();
    let snapshot = stage.snapshot(kind);
    stage.is_whole(&snapshot);
    stage.destroy(snapshot.id);
    stage.looks_like(&before);
}

#[test]
fn without_space_a_snapshot_fails_and_nothing_is_left() {
    let probe = tempfile::tempdir().unwrap();
    if let Err(why) = Mount::new(&probe.path().join("probe"), 64) {
        println!("skipped: a file system of a given size cannot be mounted here: {why}");
        return;
    }
    // Disks and memory, each on what is too small.
    let options = Options {
        cache: "writeback".into(),
        ..Options::default()
    };
    let mount = |path: &Path| {
        vec![
            Mount::new(&path.join("ring"), 24 << 10).unwrap(),
            Mount::new(&path.join("state/memory"), 16 << 10).unwrap(),
        ]
    };
    let mut stage = Stage::open_with(mount, options);
    // Then every block that a guest writes has its place.
    stage.ring.wait_progress(300, LIMIT).unwrap();

    fails(&mut stage, SnapshotKind::Standard);
    works(&mut stage, SnapshotKind::Recovery);

    // Room for an overlay, but not for three.
    let (images, filler) = (stage.path().join("ring"), stage.path().join("ring/filler"));
    let size = free(&images) - (350 << 10);
    std::fs::write(&filler, vec![1; size.try_into().unwrap()]).unwrap();
    fails(&mut stage, SnapshotKind::Recovery);
    std::fs::remove_file(&filler).unwrap();
    works(&mut stage, SnapshotKind::Recovery);
    stage.close(false);
}

#[test]
fn a_store_without_space_does_not_keep_guests_or_files() {
    let probe = tempfile::tempdir().unwrap();
    if let Err(why) = Mount::new(&probe.path().join("probe"), 64) {
        println!("skipped: a file system of a given size cannot be mounted here: {why}");
        return;
    }
    let mount = |path: &Path| vec![Mount::new(&path.join("state"), 24 << 10).unwrap()];
    let mut stage = Stage::open_with(mount, Options::default());
    fails(&mut stage, SnapshotKind::Standard);
    works(&mut stage, SnapshotKind::Recovery);
    stage.close(false);
}
