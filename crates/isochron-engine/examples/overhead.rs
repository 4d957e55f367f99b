//! What the engine itself costs while guests stand still: cuts through simulated
//! members, whose hypervisor takes no time of its own, measured in real time.
//!
//! ```text
//! cargo run --release -p isochron-engine --example overhead -- [MEMBERS ...]
//! ```
//!
//! The *window* lasts from the first stop that is sent to the last resume (of a standard
//! snapshot, the last start of a save in the background, which resumes). The simulator
//! is in it: *bare* is what the same calls take without an engine, made for all members
//! at once, step by step. Both are of the same run; the smallest of the rounds counts,
//! as whatever else the machine does only adds to it.

#![allow(clippy::unwrap_used)] // a measurement ends at the first surprise

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::join_all;
use isochron_engine::model::{
    CollectionId, CollectionKind, Consistency, JobState, Power, SnapshotKind,
};
use isochron_engine::ports::{Hypervisor, HypervisorError, LiveMachine, SaveMode};
use isochron_engine::{Config, CreateSnapshot, Deadlines, Engine};
use isochron_sim::{Point, When, World};

/// Cuts of each kind.
const ROUNDS: usize = 5;

/// How many machines are in one collection below the one that is cut.
const TOGETHER: usize = 100;

/// A busy machine shows long times, not failures.
const PATIENT: Deadlines = Deadlines {
    freeze: Duration::from_secs(60),
    stop: Duration::from_secs(60),
    window: Duration::from_secs(600),
};

#[tokio::main]
async fn main() {
    let mut sizes: Vec<usize> = std::env::args()
        .skip(1)
        .map(|argument| argument.parse().unwrap())
        .collect();
    if sizes.is_empty() {
        sizes = vec![1_000, 10_000];
    }
    println!("kind      members    window  a member      bare  a member  whole call");
    for members in sizes {
        // Off the main task, as the daemon does it.
        let measured = tokio::spawn(async move {
            let state = tempfile::tempdir().unwrap();
            let rig = Rig::new(members, state.path()).await;
            for kind in [SnapshotKind::Recovery, SnapshotKind::Standard] {
                measure(&rig, kind).await;
            }
        });
        measured.await.unwrap();
    }
}

async fn measure(rig: &Rig, kind: SnapshotKind) {
    let members = rig.live.len();
    let (mut windows, mut bares, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    // The first is not counted: whatever is done once is done in it.
    for round in 0..=ROUNDS {
        let bare = rig.bare(kind, round).await;
        let (window, call) = rig.cut(kind).await;
        if round > 0 {
            windows.push(window);
            bares.push(bare);
            calls.push(call);
        }
    }
    let least = |times: Vec<Duration>| times.into_iter().min().unwrap_or_default();
    let (window, bare, call) = (least(windows), least(bares), least(calls));
    let each = |time: Duration| time.as_secs_f64() * 1e6 / members as f64;
    let kind = match kind {
        SnapshotKind::Recovery => "recovery",
        SnapshotKind::Standard => "standard",
    };
    println!(
        "{kind:<9} {members:>7} {:>6.1} ms {:>6.2} µs {:>6.1} ms {:>6.2} µs {:>8.1} ms",
        window.as_secs_f64() * 1e3,
        each(window),
        bare.as_secs_f64() * 1e3,
        each(bare),
        call.as_secs_f64() * 1e3,
    );
}

/// Machines that run, and when the last cut's first stop and last resume were sent.
struct Rig {
    hypervisor: Arc<dyn Hypervisor>,
    engine: Engine,
    all: CollectionId,
    live: Vec<Arc<dyn LiveMachine>>,
    window: Arc<Mutex<Option<(Instant, Instant)>>>,
}

impl Rig {
    async fn new(members: usize, state: &Path) -> Self {
        let world = World::new();
        let daemon = world.daemon();
        let hypervisor = daemon.hypervisor();
        let config = Config {
            deadlines: PATIENT,
            ..Config::new(state)
        };
        let engine = Engine::open(
            hypervisor.clone(),
            daemon.store(),
            daemon.archive(),
            world.clock(),
            config,
        )
        .await
        .unwrap();
        let above = CollectionKind::Collections;
        let all = engine.create_collection("all", None, above).await.unwrap();
        let (mut live, mut some) = (Vec::new(), None);
        for number in 0..members {
            if number % TOGETHER == 0 {
                let name = format!("some-{number}");
                let kind = CollectionKind::Machines;
                let made = engine.create_collection(&name, None, kind).await.unwrap();
                engine.add_collection(all.id, made.id).await.unwrap();
                some = Some(made.id);
            }
            let definition = world.definition(&format!("vm-{number}"), &["disk0"]);
            let machine = engine.define_machine(definition).await.unwrap();
            engine.start_machine(machine.id).await.unwrap();
            engine.add_machine(some.unwrap(), machine.id).await.unwrap();
            live.push(hypervisor.live(&machine).await.unwrap().unwrap());
        }
        let window = Arc::new(Mutex::new(None));
        for point in [Point::Stop, Point::Save, Point::Resume] {
            let window = window.clone();
            world.on(point, When::Before, move |_, _| {
                let now = Instant::now();
                let mut window = window.lock().unwrap();
                *window = Some((window.map_or(now, |(first, _)| first), now));
            });
        }
        Self {
            hypervisor,
            engine,
            all: all.id,
            live,
            window,
        }
    }

    /// From the first stop to the last resume that was sent.
    fn window(&self) -> Duration {
        let (first, last) = self.window.lock().unwrap().take().unwrap();
        last - first
    }

    /// One snapshot: its window, and the whole call with its job.
    async fn cut(&self, kind: SnapshotKind) -> (Duration, Duration) {
        let began = Instant::now();
        let request = CreateSnapshot {
            collection: self.all,
            id: None,
            name: None,
            kind,
            consistency: Some(Consistency::Crash),
            ignore_excluded_disks: false,
            owner: None,
        };
        let started = self.engine.create_snapshot(request).await.unwrap();
        let job = self.engine.wait_job(started.job).await.unwrap();
        let call = began.elapsed();
        assert_eq!(job.state, JobState::Completed, "{:?}", job.error);
        let window = self.window();
        let destroyed = self.engine.destroy_snapshot(started.snapshot, None).await;
        let job = self.engine.wait_job(destroyed.unwrap().job).await.unwrap();
        assert_eq!(job.state, JobState::Completed, "{:?}", job.error);
        self.window.lock().unwrap().take();
        (window, call)
    }

    /// The calls of a window, and nothing else.
    async fn bare(&self, kind: SnapshotKind, round: usize) -> Duration {
        let file = |index: usize| PathBuf::from(format!("/bare/{round}/{index}"));
        if kind == SnapshotKind::Standard {
            let prepared = self
                .live
                .iter()
                .map(|live| live.prepare_save(Power::Running));
            join_all(prepared).await.into_iter().for_each(|mode| {
                assert_eq!(mode.unwrap(), SaveMode::Background);
            });
        }
        done(join_all(self.live.iter().map(|live| live.stop())).await);
        done(join_all(self.live.iter().map(|live| live.swap(&[]))).await);
        match kind {
            SnapshotKind::Recovery => {
                done(join_all(self.live.iter().map(|live| live.resume())).await);
            }
            SnapshotKind::Standard => {
                let saves = self.live.iter().enumerate().map(async |(index, live)| {
                    live.save(&file(index), &SaveMode::Background).await
                });
                done(join_all(saves).await);
            }
        }
        let window = self.window();
        if kind == SnapshotKind::Standard {
            for (index, live) in self.live.iter().enumerate() {
                live.finish_save(&file(index), &|_| ()).await.unwrap();
                self.hypervisor.delete_file(&file(index)).await.unwrap();
            }
        }
        window
    }
}

fn done<T>(outcomes: Vec<Result<T, HypervisorError>>) {
    for outcome in outcomes {
        outcome.unwrap();
    }
}
