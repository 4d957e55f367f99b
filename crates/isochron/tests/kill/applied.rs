//! The daemon dies while a snapshot is applied or destroyed.

use std::time::{Duration, Instant};

use isochron_api::dto::{JobKind, JobState, SnapshotKind};
use rustix::process::Signal;

use crate::points;
use crate::stage::{Stage, signal};

const ALL: [usize; 3] = [0, 1, 2];

/// A guardian that was armed says this when its daemon is killed.
const HELPED: &str = "isochron guardian: the daemon is gone";

#[test]
fn a_killed_daemon_has_applied_to_all_or_to_none() {
    let mut stage = Stage::open();
    let bare = stage.picture();
    let snapshot = stage.snapshot(SnapshotKind::Standard);
    let id = snapshot.id.to_string();
    stage.ring.wait_progress(50, crate::common::LIMIT).unwrap();
    let said = stage.said();
    let began = Instant::now();
    let name = id.clone();
    stage.complete(async |client| client.apply_snapshot(&name).await);
    let length = began.elapsed();
    stage.watch();
    stage.goes_round();
    assert!(ALL.iter().all(|&index| stage.went_back(index, said[index])));
    let settled = stage.picture().size();

    let spread = points(8);
    let mut applied = 0;
    for point in 0..spread {
        stage.ring.wait_progress(50, crate::common::LIMIT).unwrap();
        stage.nobody_stood_too_long(&ALL);
        let (said, helped) = (stage.said(), stage.log().matches(HELPED).count());
        let old = stage.processes();
        let jobs = stage.jobs(JobKind::ApplySnapshot, snapshot.id).len();
        let name = id.clone();
        let asked = stage.begin(async move |client| client.apply_snapshot(&name).await);
        std::thread::sleep(length * point / spread);
        stage.kill_daemon();
        let answered = asked.join().unwrap();
        if point % 2 == 0 {
            // Until processes are exchanged, those that stand are helped at once.
            std::thread::sleep(Duration::from_millis(300));
            let switching = stage.processes() != old;
            if !switching && stage.log().matches(HELPED).count() > helped {
                stage.nobody_stood_too_long(&ALL);
                stage.goes_round();
            }
        }
        stage.start_daemon();
        let found = stage.jobs(JobKind::ApplySnapshot, snapshot.id);
        assert!(
            answered.is_err() || found.len() == jobs + 1,
            "the job that was answered is gone"
        );
        assert!(
            found.iter().all(|job| job.state != JobState::Running),
            "{found:?}"
        );
        let done = found.len() > jobs && found.last().unwrap().state == JobState::Completed;
        stage.watch();
        for index in ALL {
            stage.process(index);
        }
        stage.nobody_stood_too_long(&ALL);
        stage.goes_round();
        let went_back: Vec<bool> = ALL.iter().map(|&i| stage.went_back(i, said[i])).collect();
        assert_eq!(went_back, [done; 3], "{found:?}\n{}", stage.log());
        println!(
            "apply {:?}: {}",
            length * point / spread,
            if done { "done" } else { "not" }
        );
        applied += u32::from(done);
        let (began, mut now) = (Instant::now(), stage.picture());
        while now.size() != settled {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{now:?}\n{}",
                stage.log()
            );
            std::thread::sleep(Duration::from_millis(100));
            now = stage.picture();
        }
        // What it holds is as it was taken.
        stage.is_whole(&stage.find(snapshot.id).unwrap());
    }
    println!("apply: {length:?}, {applied} of {spread} are done");
    let name = id.clone();
    stage.complete(async |client| client.apply_snapshot(&name).await);
    stage.watch();
    stage.destroy(snapshot.id);
    stage.looks_like(&bare);
    stage.close(false);
}

#[test]
fn a_snapshot_whose_destruction_was_interrupted_goes_or_stays_whole() {
    let mut stage = Stage::open();
    let before = stage.picture();
    let first = stage.snapshot(SnapshotKind::Standard);
    let began = Instant::now();
    stage.destroy(first.id);
    let length = began.elapsed();
    stage.looks_like(&before);
    // The layer below one that the guest writes to is merged by a job of QEMU's,
    // which goes on by itself; the guest's own is exchanged while it stands.
    let mut moments = vec![
        (Merge::Frozen, When::Event("JOB_STATUS_CHANGE")),
        (Merge::Frozen, When::Event("BLOCK_JOB_COMPLETED")),
        (Merge::Active, When::Event("BLOCK_JOB_READY")),
        (Merge::Active, When::Event("STOP")),
        (Merge::Active, When::Event("BLOCK_JOB_COMPLETED")),
    ];
    let spread = points(4);
    for point in 0..spread {
        let merge = [Merge::Frozen, Merge::Active][(point % 2) as usize];
        moments.push((merge, When::Asked(length * point / spread)));
    }
    for (merge, when) in moments {
        let gone = interrupted(&mut stage, merge, when);
        println!(
            "destroy {merge:?} {when:?}: {}",
            if gone { "gone" } else { "whole" }
        );
        stage.looks_like(&before);
        stage.nobody_stood_too_long(&ALL);
        stage.goes_round();
    }
    stage.close(false);
}

/// Which layer destroying merges.
#[derive(Clone, Copy, Debug)]
enum Merge {
    Frozen,
    Active,
}

/// When the daemon is killed.
#[derive(Clone, Copy, Debug)]
enum When {
    Asked(Duration),
    Event(&'static str),
}

/// Takes two snapshots and kills the daemon while it destroys one; whether that one
/// is gone. In the end both are.
fn interrupted(stage: &mut Stage, merge: Merge, when: When) -> bool {
    let lower = stage.snapshot(SnapshotKind::Recovery);
    let upper = stage.snapshot(SnapshotKind::Standard);
    let [victim, other] = match merge {
        Merge::Frozen => [lower, upper],
        Merge::Active => [upper, lower],
    };
    let (daemon, name) = (stage.daemon(), victim.id.to_string());
    if let When::Event(event) = when {
        stage.on(event, move || signal(daemon, Signal::KILL));
    }
    let asked = stage.begin(async move |client| client.destroy_snapshot(&name).await);
    match when {
        When::Asked(delay) => std::thread::sleep(delay),
        When::Event(_) => stage.happens(),
    }
    stage.kill_daemon();
    let answered = asked.join().unwrap();
    stage.nobody_stood_too_long(&ALL);
    stage.goes_round();
    stage.start_daemon();
    let jobs = stage.jobs(JobKind::DestroySnapshot, victim.id);
    assert!(answered.is_err() || jobs.len() == 1, "{jobs:?}");
    assert!(
        jobs.iter().all(|job| job.state != JobState::Running),
        "{jobs:?}"
    );
    let found = stage.find(victim.id);
    if let Some(snapshot) = &found {
        stage.is_whole(snapshot);
    }
    stage.is_whole(&stage.find(other.id).unwrap());
    stage.destroy(other.id);
    if found.is_some() {
        stage.destroy(victim.id);
    }
    found.is_none()
}
