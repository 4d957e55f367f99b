//! Machines in collections that overlap, and rounds of what is done to them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use isochron_engine::model::{
    CollectionId, CollectionKind, Consistency, JobId, JobState, MachineId, Power, ReferencePointId,
    SnapshotId, SnapshotKind,
};
use isochron_engine::ports::Content as Read;
use isochron_engine::{
    CreateReferencePoint, CreateSnapshot, Engine, EngineError, ExportBase, ExportRequest, Exports,
    PowerChange,
};
use isochron_sim::{Daemon, Fault, StoredExport, Survey, When, World};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::Random;
use crate::guests::Guests;
use crate::scene::{Content, full, open};

/// Something that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Of a collection or a machine.
    Create(CollectionId, SnapshotKind, Consistency),
    Apply(SnapshotId),
    ApplyTo(SnapshotId, MachineId),
    Destroy(SnapshotId),
    CreatePoint(CollectionId, Consistency),
    Convert(SnapshotId, ReferencePointId),
    RemoveData(ReferencePointId),
    DestroyPoint(ReferencePointId),
    /// To a directory of this number.
    Export(Exports, Option<ExportBase>, bool, usize),
    Turn(MachineId, PowerChange),
    /// Cancels whatever job can be cancelled.
    Cancel,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug)]
pub enum Blow {
    Fault(Fault, When),
    /// The daemon's.
    Death,
    PowerLoss,
    /// Of one machine's process.
    End(usize),
}

pub struct Stage {
    pub world: World,
    pub daemon: Daemon,
    pub engine: Engine,
    pub state: tempfile::TempDir,
    pub machines: Vec<(MachineId, &'static [&'static str])>,
    /// The collection of all, one of two, and each machine for itself.
    pub targets: Vec<CollectionId>,
    pub guests: Guests,
    /// What each snapshot held when it was seen first.
    pub held: BTreeMap<SnapshotId, BTreeMap<MachineId, Content>>,
    /// What each reference point held at its instant.
    pub points: BTreeMap<ReferencePointId, BTreeMap<MachineId, Content>>,
    /// What is held by what is gone, for its exports.
    pub gone: BTreeMap<Uuid, BTreeMap<MachineId, Content>>,
    /// Whether it is the history of a backup.
    pub backup: bool,
    /// Exports that were asked for.
    pub exports: usize,
    /// Jobs of the rounds that are over.
    pub jobs: BTreeSet<JobId>,
    /// All there was at the beginning.
    pub bare: Survey,
    /// What was asked for and happened.
    pub told: Vec<String>,
    /// How many operations were done, and how many blows fell.
    pub done: usize,
    pub struck: usize,
    shared: Arc<Shared>,
}

/// What hooks and rounds share.
struct Shared {
    /// Whether guests write and blows fall.
    on: AtomicBool,
    /// At which call from the round's beginning what happens.
    blows: Mutex<Vec<(usize, Blow)>>,
    calls: Mutex<usize>,
    /// What has happened in this round.
    struck: Mutex<Vec<Blow>>,
    died: Notify,
    /// For how long each machine stood still at most.
    stood: Mutex<BTreeMap<MachineId, Duration>>,
}

/// What a round's end is judged by.
pub struct Round {
    pub acts: Vec<Act>,
    /// Each with its end, where it got so far: the error, if it had one.
    pub ends: Vec<(Act, Result<(), EngineError>)>,
    pub power_before: BTreeMap<MachineId, Power>,
    pub written_before: BTreeMap<MachineId, usize>,
    pub power_lost: bool,
    pub ended: BTreeSet<MachineId>,
    /// How long each machine stood still at most.
    pub stood: BTreeMap<MachineId, Duration>,
}

const MACHINES: [(&str, &[&str]); 4] = [
    ("a", &["disk0", "disk1"]),
    ("b", &["disk0"]),
    ("c", &["disk0"]),
    ("d", &["disk0"]),
];

impl Stage {
    pub async fn new(seed: u64) -> Self {
        let world = World::new();
        let daemon = world.daemon();
        let state = tempfile::tempdir().unwrap();
        let engine = open(&daemon, state.path()).await.unwrap();
        let kind = CollectionKind::Machines;
        let all = engine.create_collection("all", None, kind).await.unwrap();
        let two = engine.create_collection("two", None, kind).await.unwrap();
        let mut machines = Vec::new();
        for (name, disks) in MACHINES {
            let id = engine
                .define_machine(world.definition(name, disks))
                .await
                .unwrap()
                .id;
            engine.add_machine(all.id, id).await.unwrap();
            machines.push((id, disks));
        }
        for (id, _) in &machines[1..3] {
            engine.add_machine(two.id, *id).await.unwrap();
        }
        let bare = world.survey();
        for (id, _) in &machines {
            engine.start_machine(*id).await.unwrap();
        }
        let mut targets = vec![all.id, all.id, all.id, two.id, two.id];
        targets.extend(machines.iter().map(|(id, _)| CollectionId::from(*id)));
        let stage = Self {
            daemon,
            engine,
            state,
            machines,
            targets,
            guests: Guests::default(),
            held: BTreeMap::new(),
            points: BTreeMap::new(),
            gone: BTreeMap::new(),
            backup: seed.is_multiple_of(2),
            exports: 0,
            jobs: BTreeSet::new(),
            bare,
            told: Vec::new(),
            done: 0,
            struck: 0,
            shared: Arc::new(Shared {
                on: AtomicBool::new(false),
                blows: Mutex::default(),
                calls: Mutex::default(),
                struck: Mutex::default(),
                died: Notify::new(),
                stood: Mutex::default(),
            }),
            world,
        };
        stage.haunt(seed);
        stage
    }

    /// Guests write at any call, calls take their time, blows fall.
    fn haunt(&self, seed: u64) {
        let mut random = Random::new(seed ^ 0xfeed);
        self.world
            .set_latency(move |_| Duration::from_millis([0, 0, 0, 0, 1, 2, 5][random.below(7)]));
        let mut random = Random::new(seed ^ 0xbeef);
        let (guests, machines) = (self.guests.clone(), self.machines.clone());
        let shared = self.shared.clone();
        self.world.on_every(When::After, move |daemon, _| {
            if shared.on.load(Ordering::Relaxed) && !daemon.crashed() && random.one_in(5) {
                let first = random.below(machines.len());
                let second = (first + 1 + random.below(machines.len() - 1)) % machines.len();
                guests.tell(daemon.world(), machines[first], machines[second]);
            }
        });
        let (shared, machines) = (self.shared.clone(), self.machines.clone());
        self.world.on_every(When::Before, move |daemon, call| {
            if !shared.on.load(Ordering::Relaxed) || daemon.crashed() {
                return;
            }
            let mut calls = shared.calls.lock().unwrap();
            *calls += 1;
            let mut blows = shared.blows.lock().unwrap();
            while let Some(at) = blows.iter().position(|(n, _)| *n <= *calls) {
                let (_, blow) = blows.remove(at);
                shared.struck.lock().unwrap().push(blow);
                let world = daemon.world();
                match blow {
                    Blow::Fault(fault, when) => {
                        world.fail_next(call.point, call.machine, when, fault)
                    }
                    Blow::End(machine) => world.kill_process(machines[machine].0),
                    Blow::Death | Blow::PowerLoss => {
                        daemon.crash();
                        if matches!(blow, Blow::PowerLoss) {
                            for (id, _) in &machines {
                                world.kill_process(*id);
                            }
                        }
                        shared.died.notify_one();
                        return;
                    }
                }
            }
        });
    }

    /// Every call so far, without names that differ from run to run.
    pub fn calls(&self) -> Vec<String> {
        let calls = self.world.calls();
        let told = calls.iter().map(|call| {
            let file = call.file.as_ref().and_then(|file| file.file_name());
            format!("{:?} {:?} {file:?}", call.point, call.machine)
        });
        told.collect()
    }

    /// How many disks were exported in full, and as differences.
    pub fn exported(&self) -> [usize; 2] {
        let exports = self.world.exports();
        let orders = exports.values().map(|export| &export.order);
        let disks = orders.flat_map(|order| order.members.iter().flat_map(|m| &m.disks));
        let mut exported = [0; 2];
        for disk in disks {
            exported[usize::from(matches!(disk.content, Read::Since(_)))] += 1;
        }
        exported
    }

    fn choose_instant(&self, random: &mut Random) -> Option<Exports> {
        let snapshots = self.held.keys().copied().map(Exports::Snapshot);
        let all: Vec<_> = snapshots
            .chain(self.points.keys().copied().map(Exports::Point))
            .collect();
        (!all.is_empty()).then(|| *random.pick(&all))
    }

    /// What a backup does: instants of all, exported one after the other, each as a
    /// difference to one that was exported.
    fn choose_of_backup(&mut self, random: &mut Random) -> Option<Act> {
        let all = self.targets[0];
        Some(match random.below(9) {
            0 => Act::Create(all, SnapshotKind::Recovery, Consistency::Crash),
            1 => Act::CreatePoint(all, Consistency::Crash),
            2 => Act::Convert(*self.held.keys().next()?, ReferencePointId::new()),
            3..=7 => {
                let what = self.choose_instant(random)?;
                let exports = self.world.exports().into_iter();
                let other = |export: &StoredExport| match what {
                    Exports::Snapshot(id) => export.order.instant.id != id.0,
                    Exports::Point(id) => export.order.instant.id != id.0,
                };
                let exports: Vec<_> = exports.filter(|(_, export)| other(export)).collect();
                let base = exports.get(random.below(exports.len() + 1));
                let base = base.map(|(directory, export)| {
                    let id = export.order.instant.id;
                    if self.held.contains_key(&SnapshotId(id)) {
                        ExportBase::Snapshot(SnapshotId(id))
                    } else if self.points.contains_key(&ReferencePointId(id)) {
                        ExportBase::Point(ReferencePointId(id))
                    } else {
                        ExportBase::Directory(directory.clone())
                    }
                });
                self.exports += 1;
                let merge = base.is_some() && random.one_in(3);
                Act::Export(what, base, merge, self.exports)
            }
            _ => return None,
        })
    }

    fn choose(&mut self, random: &mut Random) -> Act {
        if self.backup
            && let Some(act) = self.choose_of_backup(random)
        {
            return act;
        }
        use SnapshotKind::{Recovery, Standard};
        let snapshots: Vec<_> = self.held.keys().copied().collect();
        let points: Vec<_> = self.points.keys().copied().collect();
        let (machine, _) = *random.pick(&self.machines);
        match random.below(28) {
            16..=17 => {
                let consistency = *random.pick(&[Consistency::Crash, Consistency::Application]);
                Act::CreatePoint(*random.pick(&self.targets), consistency)
            }
            18..=19 if !snapshots.is_empty() => {
                Act::Convert(*random.pick(&snapshots), ReferencePointId::new())
            }
            20 if !points.is_empty() => Act::RemoveData(*random.pick(&points)),
            21 if !points.is_empty() => Act::DestroyPoint(*random.pick(&points)),
            22..=27 if !(snapshots.is_empty() && points.is_empty()) => {
                self.exports += 1;
                let what = self.choose_instant(random).unwrap();
                let base = match random.below(5) {
                    0 => None,
                    1 => {
                        let directory = directory(1 + random.below(self.exports));
                        Some(ExportBase::Directory(directory))
                    }
                    _ => self.choose_instant(random).map(|base| match base {
                        Exports::Snapshot(id) => ExportBase::Snapshot(id),
                        Exports::Point(id) => ExportBase::Point(id),
                    }),
                };
                let merge = base.is_some() && random.one_in(3);
                Act::Export(what, base, merge, self.exports)
            }
            0..=5 => {
                let (kind, consistency) = *random.pick(&[
                    (Recovery, Consistency::Crash),
                    (Recovery, Consistency::Application),
                    (Standard, Consistency::Crash),
                ]);
                Act::Create(*random.pick(&self.targets), kind, consistency)
            }
            6..=8 if !snapshots.is_empty() => Act::Apply(*random.pick(&snapshots)),
            9 if !snapshots.is_empty() => Act::ApplyTo(*random.pick(&snapshots), machine),
            10..=12 if !snapshots.is_empty() => Act::Destroy(*random.pick(&snapshots)),
            13 => Act::Cancel,
            _ => Act::Turn(
                machine,
                match random.below(8) {
                    0 => PowerChange::TurnOff,
                    1 => PowerChange::Pause,
                    2 => PowerChange::Save,
                    3 => PowerChange::ShutDown(Duration::from_secs(5)),
                    _ => PowerChange::Run,
                },
            ),
        }
    }

    fn choose_blow(random: &mut Random) -> Blow {
        let when = [When::Before, When::After][random.below(2)];
        match random.below(9) {
            0..=1 => Blow::Fault(Fault::Error, when),
            2 => Blow::Fault(Fault::Timeout, when),
            3..=4 => Blow::Fault(Fault::Hang, when),
            5..=6 => Blow::Death,
            7 => Blow::PowerLoss,
            _ => Blow::End(random.below(MACHINES.len())),
        }
    }

    /// One round, judged.
    pub async fn round(&mut self, random: &mut Random) -> Result<(), String> {
        for _ in 0..4 {
            let first = random.below(self.machines.len());
            let second = (first + 1) % self.machines.len();
            self.guests
                .tell(&self.world, self.machines[first], self.machines[second]);
        }
        let acts: Vec<_> = (0..1 + random.below(3))
            .map(|_| self.choose(random))
            .collect();
        let blows: Vec<_> = (0..[0, 1, 1, 1, 2, 3][random.below(6)])
            .map(|_| (1 + random.below(160), Self::choose_blow(random)))
            .collect();
        self.told.push(format!("asked {acts:?}, blows {blows:?}"));
        let mut round = self.perform(random, acts, blows).await?;
        self.shared.on.store(false, Ordering::Relaxed);
        // What was planned for a call that was not made is not for the next round.
        self.world.forgive();
        let struck = std::mem::take(&mut *self.shared.struck.lock().unwrap());
        round.power_lost = struck.iter().any(|blow| matches!(blow, Blow::PowerLoss));
        let ended = struck.iter().filter_map(|blow| match blow {
            Blow::End(machine) => Some(self.machines[*machine].0),
            _ => None,
        });
        round.ended = ended.collect();
        self.told
            .push(format!("ended {:?}, struck {struck:?}", round.ends));
        self.struck += struck.len();
        self.done += round.ends.iter().filter(|(_, end)| end.is_ok()).count();
        if self.daemon.crashed() {
            self.reopen().await?;
        }
        self.judge(&round).await
    }

    async fn perform(
        &mut self,
        random: &mut Random,
        acts: Vec<Act>,
        blows: Vec<(usize, Blow)>,
    ) -> Result<Round, String> {
        let mut round = Round {
            acts: acts.clone(),
            ends: Vec::new(),
            power_before: BTreeMap::new(),
            written_before: BTreeMap::new(),
            power_lost: false,
            ended: BTreeSet::new(),
            stood: BTreeMap::new(),
        };
        for (id, _) in &self.machines {
            let power = self.power_at_rest(*id).await?;
            round.power_before.insert(*id, power);
            round
                .written_before
                .insert(*id, self.guests.written(*id).len());
        }
        *self.shared.blows.lock().unwrap() = blows;
        *self.shared.calls.lock().unwrap() = 0;
        self.shared.on.store(true, Ordering::Relaxed);
        let mut tasks = JoinSet::new();
        for act in acts {
            let engine = self.engine.clone();
            let wait = Duration::from_millis([0, 0, 3, 20, 60][random.below(5)]);
            tasks.spawn(async move {
                tokio::time::sleep(wait).await;
                let end = carry_out(&engine, &act).await;
                (act, end)
            });
        }
        let watch = tokio::spawn(watch(
            self.world.clone(),
            self.machines.clone(),
            self.shared.clone(),
        ));
        let work = async {
            while let Some(end) = tasks.join_next().await {
                round.ends.push(end.map_err(|error| error.to_string())?);
            }
            Ok(())
        };
        let patience = async {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(700)).await;
                self.world.release();
            }
        };
        let outcome = tokio::select! {
            biased;
            outcome = work => outcome,
            () = self.shared.died.notified() => Ok(()),
            () = patience => Err("an operation does not end".to_owned()),
        };
        watch.abort();
        round.stood = std::mem::take(&mut *self.shared.stood.lock().unwrap());
        outcome.map(|()| round)
    }

    /// A new life of the daemon.
    async fn reopen(&mut self) -> Result<(), String> {
        self.shared.blows.lock().unwrap().clear();
        for _ in 0..5 {
            let daemon = self.world.daemon();
            let opened = tokio::select! {
                biased;
                opened = open(&daemon, self.state.path()) => opened,
                () = tokio::time::sleep(Duration::from_secs(600)) => {
                    self.world.release();
                    daemon.crash();
                    continue;
                }
            };
            match opened {
                Ok(engine) => {
                    (self.daemon, self.engine) = (daemon, engine);
                    return Ok(());
                }
                Err(_) => daemon.crash(),
            }
        }
        Err("it does not open".to_owned())
    }
}

/// Where the export of this number goes.
pub fn directory(number: usize) -> PathBuf {
    format!("/exports/{number}").into()
}

/// Measures for how long machines stand still.
async fn watch(
    world: World,
    machines: Vec<(MachineId, &'static [&'static str])>,
    shared: Arc<Shared>,
) {
    const EVERY: Duration = Duration::from_millis(500);
    let mut now: BTreeMap<MachineId, Duration> = BTreeMap::new();
    loop {
        tokio::time::sleep(EVERY).await;
        let survey = world.survey();
        for (id, _) in &machines {
            let state = survey.processes.iter().find(|p| p.machine == Some(*id));
            let stands = state.is_some_and(|p| p.power != Power::Running || p.frozen > 0);
            let now = now.entry(*id).or_default();
            *now = if stands { *now + EVERY } else { Duration::ZERO };
            let mut stood = shared.stood.lock().unwrap();
            let most = stood.entry(*id).or_default();
            *most = (*most).max(*now);
        }
    }
}

async fn carry_out(engine: &Engine, act: &Act) -> Result<(), EngineError> {
    let job = match act {
        Act::Create(target, kind, consistency) => {
            let request = CreateSnapshot {
                collection: *target,
                id: None,
                name: None,
                kind: *kind,
                consistency: Some(*consistency),
                ignore_excluded_disks: false,
                owner: None,
            };
            engine.create_snapshot(request).await?.job
        }
        Act::Apply(id) => engine.apply_snapshot(*id, None).await?.job,
        Act::ApplyTo(id, machine) => engine.apply_snapshot_to(*id, *machine, None).await?.job,
        Act::Destroy(id) => engine.destroy_snapshot(*id, None).await?.job,
        Act::CreatePoint(target, consistency) => {
            let request = CreateReferencePoint {
                collection: *target,
                id: None,
                name: None,
                consistency: Some(*consistency),
                ignore_excluded_disks: false,
                owner: None,
            };
            engine.create_reference_point(request).await?.job
        }
        Act::Convert(snapshot, point) => {
            let convert = engine.convert_snapshot(*snapshot, Some(*point), None);
            convert.await?.job
        }
        Act::RemoveData(id) => engine.remove_reference_point_data(*id, None).await?.job,
        Act::DestroyPoint(id) => engine.destroy_reference_point(*id, None).await?.job,
        Act::Export(what, base, merge, number) => {
            let full = full(*what, directory(*number));
            let request = ExportRequest {
                base: base.clone(),
                merge: *merge,
                ..full
            };
            let mut started = engine.export(request.clone()).await;
            for _ in 0..3 {
                if started.is_ok() {
                    break;
                }
                // The members may be in use for a moment.
                tokio::time::sleep(Duration::from_millis(300)).await;
                started = engine.export(request.clone()).await;
            }
            // The base may not have been exported before, or be what is exported.
            match started {
                Err(_) => {
                    let full = ExportRequest {
                        base: None,
                        merge: false,
                        ..request
                    };
                    engine.export(full).await?.job
                }
                Ok(started) => started.job,
            }
        }
        Act::Turn(machine, change) => engine.change_power(*machine, *change, None).await?,
        Act::Cancel => {
            for job in engine.jobs().await? {
                if job.cancellable {
                    engine.cancel_job(job.id).await?;
                }
            }
            return Ok(());
        }
    };
    let ended = engine.wait_job(job).await?;
    match (ended.state, ended.error) {
        (JobState::Completed, _) => Ok(()),
        (_, Some(error)) => Err(EngineError::new(error.kind, error.message)),
        (state, None) => panic!("a job ended as {state:?} without a reason"),
    }
}
