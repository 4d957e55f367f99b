//! A member's QEMU dies, or does not answer, while a snapshot is taken.

use std::time::{Duration, Instant};

use isochron_api::client::ClientError;
use isochron_api::dto::{ErrorKind, Job, JobState, Power, SnapshotKind};
use rustix::process::Signal;

use crate::common::LIMIT;
use crate::hold::guardians;
use crate::points;
use crate::stage::{Picture, Stage, new, signal};

const ALL: [usize; 3] = [0, 1, 2];

/// The member that it happens to.
pub const VICTIM: usize = 1;
pub const OTHERS: [usize; 2] = [0, 2];

#[test]
fn a_member_that_dies_takes_no_other_with_it() {
    let mut stage = Stage::open();
    let before = stage.picture();
    for kind in [SnapshotKind::Recovery, SnapshotKind::Standard] {
        let began = Instant::now();
        let faultless = stage.snapshot(kind);
        let length = began.elapsed();
        stage.destroy(faultless.id);
        stage.looks_like(&before);
        let spread = points(2);
        for point in 0..=spread {
            let victim = stage.process(VICTIM);
            let at_stop = point == spread;
            if at_stop {
                stage.on("STOP", move || signal(victim, Signal::KILL));
            }
            let asked =
                stage.begin(async move |client| client.create_snapshot(&new(kind, None)).await);
            match at_stop {
                true => stage.happens(),
                false => {
                    std::thread::sleep(length * (point + 1) / (spread + 1));
                    signal(victim, Signal::KILL);
                }
            }
            let outcome = asked.join().unwrap().map(|job| stage.ended(job));
            stage.nobody_stood_too_long(&OTHERS);
            let is_there = consistent(&stage, &outcome);
            println!(
                "{kind:?} at {point}: {}",
                if is_there { "whole" } else { "none" }
            );
            come_back(&mut stage);
            if let (true, Ok(job)) = (is_there, &outcome) {
                let snapshot = stage.find(job.snapshot_id.unwrap()).unwrap();
                stage.is_whole(&snapshot);
                stage.destroy(snapshot.id);
            }
            works_again(&mut stage, &before);
        }
    }
    stage.close(true);
}

/// The killed member is off; started again it goes on from what it said was done.
pub fn come_back(stage: &mut Stage) {
    let name = stage.ring.members[VICTIM].definition.name.clone();
    let log = stage.ring.members[VICTIM].definition.serial_log.clone();
    let shown = stage
        .call(async |client| client.machine(&name).await)
        .unwrap();
    assert_eq!(shown.power, Power::Off);
    let said = stage.counters()[VICTIM];
    // Its layers may still be being merged; then it says so, and is asked again.
    stage.until("it starts again", || {
        match stage.call(async |client| client.start_machine(&name).await) {
            Ok(_) => true,
            Err(ClientError::Refused(error)) if error.kind == ErrorKind::InvalidState => false,
            Err(error) => panic!("{error}\n{}", stage.log()),
        }
    });
    stage.watch_again(VICTIM);
    stage.goes_round();
    let log = String::from_utf8_lossy(&std::fs::read(log).unwrap()).into_owned();
    let mut starts = log.lines().filter_map(|line| {
        let (_, rest) = line.split_once(" starts at ")?;
        rest.split(' ').next()?.parse::<u64>().ok()
    });
    let start = starts.next_back().unwrap();
    assert!(
        start >= said,
        "{said} was said to be on disk, but it starts at {start}"
    );
}

/// Whether the snapshot is there, which must be as the job says.
fn consistent(stage: &Stage, outcome: &Result<Job, ClientError>) -> bool {
    match outcome {
        Ok(job) => {
            let found = stage.find(job.snapshot_id.unwrap());
            assert_eq!(found.is_some(), job.state == JobState::Completed, "{job:?}");
            assert_eq!(job.error.is_none(), found.is_some(), "{job:?}");
            found.is_some()
        }
        Err(ClientError::Refused(error)) => {
            println!("refused: {}", error.message);
            false
        }
        Err(error) => panic!("{error}\n{}", stage.log()),
    }
}

/// Nothing is left, everyone runs, and the next snapshot works.
fn works_again(stage: &mut Stage, before: &Picture) {
    stage.looks_like(before);
    stage.nobody_stood_too_long(&ALL);
    stage.goes_round();
    let next = stage.snapshot(SnapshotKind::Recovery);
    stage.is_whole(&next);
    stage.destroy(next.id);
    stage.looks_like(before);
}

#[test]
fn a_member_that_does_not_answer_holds_nobody_up() {
    let mut stage = Stage::open();
    let before = stage.picture();
    let victim = stage.process(VICTIM);

    // Before anything was touched: nothing is.
    signal(victim, Signal::STOP);
    let outcome = stage.call(async |client| {
        client
            .create_snapshot(&new(SnapshotKind::Standard, None))
            .await
    });
    match outcome {
        Err(ClientError::Refused(error)) => assert_eq!(error.kind, ErrorKind::Timeout, "{error:?}"),
        other => panic!("{other:?}"),
    }
    assert!(
        OTHERS
            .iter()
            .all(|&index| stage.watches[index].longest_stand() == Duration::ZERO)
    );
    signal(victim, Signal::CONT);
    stage.looks_like(&before);
    stage.goes_round();

    for kind in [SnapshotKind::Recovery, SnapshotKind::Standard] {
        // When all is prepared, so that it does not stop; and when a guest has
        // stopped, be it itself.
        for moment in [Moment::Prepared, Moment::Stopped] {
            let in_window = (0..20).any(|_| !held_up(&mut stage, &before, kind, moment));
            assert!(in_window, "it was never hit in time");
        }
    }
    stage.close(false);
}

/// When a member stops answering.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    Prepared,
    Stopped,
}

/// Takes a snapshot in which a member does not answer from then on; whether there
/// is one in spite of it, since it had done its part.
fn held_up(stage: &mut Stage, before: &Picture, kind: SnapshotKind, moment: Moment) -> bool {
    let victim = stage.process(VICTIM);
    if moment == Moment::Stopped {
        stage.on("STOP", move || signal(victim, Signal::STOP));
    }
    let asked = stage.begin(async move |client| client.create_snapshot(&new(kind, None)).await);
    match moment {
        Moment::Stopped => stage.happens(),
        Moment::Prepared => {
            // The guardian comes last; what carries memory is of its kind.
            let last = match kind {
                SnapshotKind::Recovery => 1,
                SnapshotKind::Standard => 4,
            };
            let began = Instant::now();
            while guardians(stage.daemon()).len() < last && began.elapsed() < Duration::from_secs(5)
            {
            }
            signal(victim, Signal::STOP);
        }
    }
    let job = stage.ended(asked.join().unwrap().unwrap());
    stage.nobody_stood_too_long(&OTHERS);
    let is_there = consistent(stage, &Ok(job.clone()));
    signal(victim, Signal::CONT);
    match &job.error {
        None => stage.destroy(job.snapshot_id.unwrap()),
        Some(error) => {
            println!("{kind:?} {moment:?}: {}", error.message);
            assert_eq!(error.kind, ErrorKind::Timeout);
        }
    }
    // For as long as it did not answer it was not ours.
    let began = Instant::now();
    while stage.watches[VICTIM].runs(Duration::from_secs(1)) != Some(true) {
        assert!(began.elapsed() < LIMIT, "it stands still\n{}", stage.log());
    }
    stage.watches[VICTIM].longest_stand();
    works_again(stage, before);
    is_there
}
