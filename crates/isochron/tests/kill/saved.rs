//! The daemon dies while a machine is saved: the machine runs on, or it is saved.

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use isochron_api::dto::{JobKind, JobState, Power};
use rustix::process::Signal;

use crate::hold::{HeldStore, guardians, is_locked, journal_says};
use crate::member::{OTHERS, VICTIM};
use crate::points;
use crate::stage::{Picture, Stage, WINDOW, signal};

const ALL: [usize; 3] = [0, 1, 2];

/// When the daemon is killed.
#[derive(Clone, Copy, Debug)]
enum When {
    /// So long after the request.
    Asked(Duration),
    /// When the machine's QEMU tells this.
    Event(&'static str),
    /// The guardian is to be told that to resume forfeits the memory, and does not
    /// hear it.
    Forfeiting,
    /// It heard it, and what is done is not on record.
    Recording,
    /// So long after it is on record.
    Recorded(Duration),
    /// The guardian is told not to act any more, and does not answer.
    Disarming,
}

#[test]
fn a_killed_daemon_leaves_a_machine_running_or_saved() {
    let mut stage = Stage::open();
    let before = stage.picture();
    let name = stage.ring.members[VICTIM].definition.name.clone();
    let began = Instant::now();
    stage
        .call(async |client| client.save_machine(&name).await)
        .unwrap();
    let length = began.elapsed();
    goes_on(&mut stage);
    stage.looks_like(&before);

    let spread = points(4);
    let mut moments: Vec<_> = (0..spread)
        .map(|point| When::Asked(length * point / spread))
        .collect();
    moments.extend([
        When::Event("STOP"),
        When::Forfeiting,
        When::Recording,
        When::Recorded(Duration::ZERO),
        When::Recorded(Duration::ZERO),
        When::Recorded(Duration::from_millis(2)),
        When::Disarming,
        When::Event("SHUTDOWN"),
    ]);
    let mut saved = 0;
    for when in &moments {
        let is_saved = killed(&mut stage, *when, &before);
        println!("{when:?}: {}", if is_saved { "saved" } else { "runs" });
        match when {
            When::Event("STOP") | When::Forfeiting | When::Recording => assert!(!is_saved),
            When::Disarming | When::Event(_) => assert!(is_saved),
            When::Asked(_) | When::Recorded(_) => {}
        }
        saved += usize::from(is_saved);
    }
    println!("{length:?}, {saved} of {} are saved", moments.len());
    stage.close(false);
}

/// One kill and what must hold after it; whether the machine is saved.
fn killed(stage: &mut Stage, when: When, before: &Picture) -> bool {
    let (said, path) = (stage.said(), stage.path().to_owned());
    let jobs = stage.jobs_of(JobKind::SaveMachine);
    let name = stage.ring.members[VICTIM].definition.name.clone();
    let daemon = stage.daemon();
    let (sender, held) = channel();
    match when {
        When::Asked(_) => {}
        When::Event(event) => stage.on(event, move || signal(daemon, Signal::KILL)),
        When::Forfeiting => stage.on("STOP", move || {
            for guardian in guardians(daemon) {
                signal(guardian, Signal::STOP);
            }
        }),
        When::Recording | When::Recorded(_) | When::Disarming => {
            let path = path.clone();
            stage.on("STOP", move || sender.send(HeldStore::new(&path)).unwrap());
        }
    }
    let saving = name.clone();
    let asked = stage.begin(async move |client| client.save_machine(&saving).await);
    let mut standing = Vec::new();
    match when {
        When::Asked(delay) => std::thread::sleep(delay),
        When::Event(_) => stage.happens(),
        When::Forfeiting => {
            stage.happens();
            standing = guardians(daemon);
            let began = Instant::now();
            while stage.watches[VICTIM].migration() != "completed" {
                assert!(began.elapsed() < WINDOW, "{}", stage.log());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        When::Recording | When::Recorded(_) | When::Disarming => {
            let store = held.recv().unwrap();
            stage.until("the guardian has the memory", || {
                memory(&path).is_some_and(|file| is_locked(&file))
            });
            // The commit is waiting.
            std::thread::sleep(Duration::from_millis(50));
            match when {
                When::Recording => {
                    stage.kill_daemon();
                    store.release();
                }
                When::Disarming => {
                    standing = guardians(daemon);
                    for guardian in &standing {
                        signal(*guardian, Signal::STOP);
                    }
                    store.release();
                    recorded(&path);
                    std::thread::sleep(Duration::from_millis(50));
                }
                _ => {
                    store.release();
                    recorded(&path);
                    if let When::Recorded(delay) = when {
                        std::thread::sleep(delay);
                    }
                }
            }
        }
    }
    stage.kill_daemon();
    for guardian in standing {
        signal(guardian, Signal::CONT);
    }
    let answered = asked.join().unwrap();
    stage.nobody_stood_too_long(&OTHERS);
    // Who is not helped within the window is not helped any more.
    let began = Instant::now();
    let mut runs = false;
    while !runs && began.elapsed() < WINDOW {
        std::thread::sleep(Duration::from_millis(20));
        runs = stage.watches[VICTIM].runs(Duration::from_millis(500)) == Some(true);
    }
    if runs {
        stage.goes_round();
    }

    stage.start_daemon();
    let shown = stage.call(async |client| client.machine(&name).await);
    let is_saved = match shown.unwrap().power {
        Power::Running => false,
        Power::Saved => true,
        power => panic!("it is {power:?}\n{}", stage.log()),
    };
    assert_ne!(runs, is_saved, "{}", stage.log());
    match &stage.jobs_since(JobKind::SaveMachine, &jobs)[..] {
        [job] => {
            let expected = match is_saved {
                true => JobState::Completed,
                false => JobState::Failed,
            };
            assert_eq!(job.state, expected, "{job:?}");
        }
        [] => assert!(answered.is_err() && !is_saved),
        jobs => panic!("{jobs:?}"),
    }
    match is_saved {
        true => goes_on(stage),
        false => {
            stage.nobody_stood_too_long(&ALL);
            stage.goes_round();
        }
    }
    assert!(!stage.went_back(VICTIM, said[VICTIM]), "{}", stage.log());
    stage.looks_like(before);
    is_saved
}

/// The saved machine goes on from where it was.
fn goes_on(stage: &mut Stage) {
    let name = stage.ring.members[VICTIM].definition.name.clone();
    stage
        .call(async |client| client.start_machine(&name).await)
        .unwrap();
    stage.watch_again(VICTIM);
    stage.nobody_stood_too_long(&ALL);
    stage.goes_round();
}

/// The file of the memory that is being saved.
fn memory(stage: &Path) -> Option<PathBuf> {
    let mut files = stage.join("state/saved").read_dir().ok()?.flatten();
    files.next().map(|file| file.path())
}

/// Waits until the journal says that all is done but the end of the guard.
fn recorded(stage: &Path) {
    let began = Instant::now();
    while !journal_says(stage, "ending") {
        assert!(began.elapsed() < WINDOW, "nothing is recorded");
    }
}
