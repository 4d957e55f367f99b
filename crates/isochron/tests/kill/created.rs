//! The daemon dies, or stands still, while a snapshot is taken.

use std::time::{Duration, Instant};

use isochron_api::dto::{JobKind, JobState, SnapshotKind};
use rustix::process::Signal;
use uuid::Uuid;

use crate::points;
use crate::stage::{Picture, Stage, WINDOW, new, signal};

const ALL: [usize; 3] = [0, 1, 2];

/// When the daemon is killed.
#[derive(Clone, Copy, Debug)]
enum When {
    /// So long after the request.
    Asked(Duration),
    /// So long after the first guest stopped.
    Stopped(Duration),
    /// When the snapshot is there.
    Done,
}

#[test]
fn a_killed_daemon_leaves_a_whole_snapshot_or_none() {
    let mut stage = Stage::open();
    let before = stage.picture();
    for kind in [SnapshotKind::Recovery, SnapshotKind::Standard] {
        // What it takes where nothing is wrong, and how long the guests stand.
        let began = Instant::now();
        let faultless = stage.snapshot(kind);
        let length = began.elapsed();
        let pauses = faultless.cut.members.iter().filter_map(|m| m.pause_us);
        let pause = Duration::from_micros(pauses.max().unwrap());
        stage.destroy(faultless.id);
        stage.looks_like(&before);
        stage.nobody_stood_too_long(&ALL);

        let spread = points(6);
        let in_window = spread.div_ceil(2);
        let mut moments = Vec::new();
        for point in 0..spread {
            moments.push(When::Asked(length * point / spread));
        }
        for point in 0..in_window {
            moments.push(When::Stopped(pause * 3 / 2 * point / in_window));
        }
        moments.push(When::Done);
        let mut whole = 0;
        for (number, when) in moments.iter().enumerate() {
            // The next daemon comes at once, or when guests were helped already.
            let at_once = number % 2 == 1;
            let is_there = killed(&mut stage, kind, *when, at_once, &before);
            println!(
                "{kind:?} {when:?}: {}",
                if is_there { "whole" } else { "none" }
            );
            whole += usize::from(is_there);
        }
        println!(
            "{kind:?}: {length:?}, {whole} of {} are whole",
            moments.len()
        );
        assert!(
            0 < whole && whole < moments.len(),
            "one side was never tried"
        );
    }
    stage.close(false);
}

/// One kill and what must hold after it; whether the snapshot is there.
fn killed(
    stage: &mut Stage,
    kind: SnapshotKind,
    when: When,
    at_once: bool,
    before: &Picture,
) -> bool {
    let counters = stage.counters();
    let id = Uuid::new_v4();
    let daemon = stage.daemon();
    if let When::Stopped(delay) = when {
        stage.on("STOP", move || {
            std::thread::sleep(delay);
            signal(daemon, Signal::KILL);
        });
    }
    let asked = stage.begin(async move |client| client.create_snapshot(&new(kind, Some(id))).await);
    match when {
        When::Asked(delay) => std::thread::sleep(delay),
        When::Done => stage.until("it is there", || stage.find(id).is_some()),
        When::Stopped(_) => {
            stage.happens();
            stage.until("the daemon ends", || !lives(daemon));
        }
    }
    stage.kill_daemon();
    let answered = asked.join().unwrap();
    if !at_once {
        stage.nobody_stood_too_long(&ALL);
        stage.goes_round();
    }
    stage.start_daemon();
    stage.nobody_stood_too_long(&ALL);

    let found = stage.find(id);
    let jobs = stage.jobs(JobKind::CreateSnapshot, id);
    assert!(jobs.len() <= 1, "{jobs:?}");
    assert!(
        answered.is_err() || jobs.len() == 1,
        "the job that was answered is gone"
    );
    for job in &jobs {
        let expected = match found {
            Some(_) => JobState::Completed,
            None => JobState::Failed,
        };
        assert_eq!(job.state, expected, "{job:?}");
        assert_eq!(job.error.is_some(), found.is_none(), "{job:?}");
    }
    match &found {
        Some(snapshot) => {
            assert_eq!(jobs.len(), 1);
            stage.is_whole(snapshot);
            stage.destroy(id);
        }
        None => stage.looks_like(before),
    }
    // The next one works, and what is destroyed leaves nothing.
    let next = stage.snapshot(SnapshotKind::Recovery);
    stage.is_whole(&next);
    stage.destroy(next.id);
    stage.looks_like(before);
    stage.goes_round();
    stage.nobody_stood_too_long(&ALL);
    let now = stage.counters();
    assert!(
        counters.iter().zip(&now).all(|(then, now)| then <= now),
        "{counters:?} {now:?}"
    );
    found.is_some()
}

/// Whether a process is there and has not ended.
fn lives(process: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().unwrap_or_default();
    !state.is_empty() && !state.starts_with(['Z', 'X'])
}

#[test]
fn a_daemon_that_stands_still_is_overruled() {
    let mut stage = Stage::open();
    let before = stage.picture();
    for kind in [SnapshotKind::Recovery, SnapshotKind::Standard] {
        stage.nobody_stood_too_long(&ALL);
        let daemon = stage.daemon();
        stage.on("STOP", move || signal(daemon, Signal::STOP));
        let asked = stage.begin(async move |client| client.create_snapshot(&new(kind, None)).await);
        stage.happens();
        // The guardian lets them run, and they do.
        std::thread::sleep(WINDOW);
        stage.nobody_stood_too_long(&ALL);
        stage.goes_round();
        assert!(
            stage
                .log()
                .contains("isochron guardian: the deadline passed"),
            "{}",
            stage.log()
        );
        signal(daemon, Signal::CONT);
        let job = stage.ended(asked.join().unwrap().unwrap());
        assert_eq!(job.state, JobState::Failed, "{job:?}");
        assert!(stage.find(job.snapshot_id.unwrap()).is_none());
        stage.looks_like(&before);
        stage.nobody_stood_too_long(&ALL);
        stage.goes_round();
        let next = stage.snapshot(kind);
        stage.is_whole(&next);
        stage.destroy(next.id);
        stage.looks_like(&before);
    }
    stage.close(false);
}
