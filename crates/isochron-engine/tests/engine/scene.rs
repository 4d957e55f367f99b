//! A collection in the simulated world whose members do all that a member can,
//! and one operation on it, during which its guests go on writing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use isochron_engine::model::{
    Collection, CollectionId, CollectionKind, Consistency, Definition, JobId, JobState, MachineId,
    Power, ReferencePoint, ReferencePointId, Snapshot, SnapshotId, SnapshotKind,
};
use isochron_engine::{
    Config, CreateReferencePoint, CreateSnapshot, Engine, EngineError, ExportBase, ExportRequest,
    Exports, PowerChange, Started,
};
use isochron_sim::{Daemon, Point, Survey, When, World};
use tokio::sync::Notify;

use crate::guests::Guests;

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    Create(SnapshotKind, Consistency),
    /// Of the only snapshot, which is of this kind.
    Apply(SnapshotKind),
    /// Of one of three.
    Destroy(usize),
    /// Of the first machine.
    Save,
    /// Of the first machine, which is saved.
    Restore,
    /// A reference point of now.
    CreatePoint(Consistency),
    /// One of three snapshots becomes a reference point.
    Convert(usize),
    /// Of the only reference point.
    RemoveData,
    DestroyPoint,
    /// Of the newest of two snapshots, the first of which was exported and became a
    /// reference point: in full, as the difference to that, or merged with it.
    Export(Written),
}

/// How an export is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    Full,
    Difference,
    Merged,
}

impl Op {
    /// Whether it goes forward once it has begun, and is not taken back.
    pub fn goes_forward(self) -> bool {
        matches!(
            self,
            Self::Destroy(_) | Self::Convert(_) | Self::RemoveData | Self::DestroyPoint
        )
    }
}

/// Where the base of an export is, and where the export goes.
pub const BASE: &str = "/exports/base";
pub const EXPORT: &str = "/exports/new";

/// What a member's disks hold.
pub type Content = BTreeSet<u64>;

pub struct Scene {
    pub op: Op,
    pub world: World,
    pub daemon: Daemon,
    pub engine: Engine,
    pub state: tempfile::TempDir,
    pub collection: CollectionId,
    pub machines: Vec<Member>,
    pub guests: Guests,
    /// Snapshots taken before the operation, and what they hold.
    pub snapshots: Vec<(SnapshotId, BTreeMap<MachineId, Content>)>,
    /// Reference points made before the operation, and what was there at their
    /// instants.
    pub points: Vec<(ReferencePointId, BTreeMap<MachineId, Content>)>,
    /// All there was before the operation.
    pub before: Survey,
    pub jobs_before: Vec<JobId>,
    /// What the machines that run had written before the operation.
    pub written_before: BTreeMap<MachineId, usize>,
    /// Whether the operation is over, so that hooks do nothing more.
    pub over: Arc<AtomicBool>,
    /// Told when the daemon dies.
    pub died: Arc<Notify>,
    /// For how long the members that run stood still or were frozen, at most.
    pub stood: Arc<Mutex<Duration>>,
}

pub struct Member {
    pub id: MachineId,
    pub power: Power,
}

/// Whether a call has no effect.
fn asks(point: Point) -> bool {
    use Point::*;
    matches!(
        point,
        Check
            | Live
            | IsImage
            | FileSize
            | SavedState
            | Allocated
            | VirtualSize
            | Identity
            | KeptMemory
            | Power
            | MachineType
            | Disks
            | AgentAnswers
            | Get
            | List
            | Describe
    )
}

/// A runtime of its own whose time jumps to the next timer; whatever a run leaves
/// behind ends with it.
pub fn alone<T>(run: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(run)
}

pub async fn open(daemon: &Daemon, state: &Path) -> Result<Engine, EngineError> {
    let clock = daemon.world().clock();
    let config = Config {
        // What is judged long after it ended is still there.
        job_retention: Duration::from_secs(100_000),
        ..Config::new(state)
    };
    Engine::open(
        daemon.hypervisor(),
        daemon.store(),
        daemon.archive(),
        clock,
        config,
    )
    .await
}

/// A definition with an agent.
pub async fn define(engine: &Engine, definition: Definition) -> MachineId {
    engine.define_machine(definition).await.unwrap().id
}

pub fn request(
    collection: CollectionId,
    kind: SnapshotKind,
    consistency: Consistency,
) -> CreateSnapshot {
    CreateSnapshot {
        collection,
        id: None,
        name: None,
        kind,
        consistency: Some(consistency),
        ignore_excluded_disks: false,
        owner: None,
    }
}

/// A reference point of now.
pub fn point_request(collection: CollectionId, consistency: Consistency) -> CreateReferencePoint {
    CreateReferencePoint {
        collection,
        id: None,
        name: None,
        consistency: Some(consistency),
        ignore_excluded_disks: false,
        owner: None,
    }
}

/// A full export.
pub fn full(what: Exports, directory: PathBuf) -> ExportRequest {
    ExportRequest {
        what,
        directory,
        base: None,
        merge: false,
        copy_storage: true,
        limit: None,
        disks: None,
        require_difference: false,
        owner: None,
    }
}

/// Takes a snapshot, which must succeed.
pub async fn snapshot(engine: &Engine, request: CreateSnapshot) -> Snapshot {
    let started = engine.create_snapshot(request).await.unwrap();
    let job = engine.wait_job(started.job).await.unwrap();
    assert_eq!(job.state, JobState::Completed, "{job:?}");
    engine.snapshot(started.snapshot).await.unwrap()
}

/// What a snapshot holds of each member.
pub fn content(world: &World, snapshot: &Snapshot) -> Result<BTreeMap<MachineId, Content>, String> {
    let disks = snapshot.members.iter().flat_map(|member| {
        let disks = member.disks.iter();
        disks.map(|disk| (member.machine, world.read_view(&disk.path)))
    });
    collected(disks)
}

/// What a reference point that keeps its data holds of each member.
pub fn content_of_point(
    world: &World,
    point: &ReferencePoint,
) -> Result<BTreeMap<MachineId, Content>, String> {
    let disks = point.members.iter().flat_map(|member| {
        let disks = member.disks.iter();
        disks.map(|disk| (member.machine, world.read_view(&disk.path)))
    });
    collected(disks)
}

/// What an export restores to, of each member.
pub fn content_of_export(
    world: &World,
    directory: &Path,
) -> Result<BTreeMap<MachineId, Content>, String> {
    let export = world.export(directory).ok_or("there is no export")?;
    let disks = export.disks.keys();
    collected(disks.map(|(machine, disk)| (*machine, world.restored(directory, *machine, disk))))
}

fn collected<E: std::fmt::Display>(
    disks: impl Iterator<Item = (MachineId, Result<BTreeMap<u64, u64>, E>)>,
) -> Result<BTreeMap<MachineId, Content>, String> {
    let mut content: BTreeMap<_, Content> = BTreeMap::new();
    for (machine, view) in disks {
        let view = view.map_err(|error| format!("it cannot be read: {error}"))?;
        content.entry(machine).or_default().extend(view.into_keys());
    }
    Ok(content)
}

/// Every whole export is known to what it is of, as long as that is there, and
/// what is known is there.
async fn exports(world: &World, engine: &Engine) -> Result<Vec<String>, EngineError> {
    let mut known = Vec::new();
    for snapshot in engine.snapshots(None).await? {
        known.push((snapshot.id.0, snapshot.exports));
    }
    for point in engine.reference_points(None).await? {
        known.push((point.id.0, point.exports));
    }
    let mut wrong = Vec::new();
    for (of, export) in known
        .iter()
        .flat_map(|(of, all)| all.iter().map(move |e| (of, e)))
    {
        let there = world.export(&export.directory);
        if there.is_none_or(|there| there.order.id != export.id) {
            wrong.push(format!("{of} is said to be exported to {export:?}"));
        }
    }
    for (directory, export) in world.exports() {
        let of = known.iter().find(|(of, _)| *of == export.order.instant.id);
        if let Some((of, known)) = of
            && export.order.copy_storage
            && !known.iter().any(|known| known.id == export.order.id)
        {
            wrong.push(format!(
                "{} is of {of}, which says nothing",
                directory.display()
            ));
        }
    }
    Ok(wrong)
}

/// Records against files, processes, and what the engine says refers to what.
pub async fn disagreements(world: &World, engine: &Engine) -> Result<Vec<String>, EngineError> {
    let mut views = Vec::new();
    for machine in engine.machines().await? {
        views.push(engine.machine_view(machine.id).await?);
    }
    let snapshots = engine.snapshots(None).await?;
    let points = engine.reference_points(None).await?;
    let mut disagreements = world.disagreements(&views, &snapshots, &points);
    disagreements.extend(relations(engine).await?);
    disagreements.extend(exports(world, engine).await?);
    Ok(disagreements)
}

/// The engine's answers about one object against the records of all.
async fn relations(engine: &Engine) -> Result<Vec<String>, EngineError> {
    let mut wrong = Vec::new();
    let mut check = |right: bool, what: String| {
        if !right {
            wrong.push(format!("{what}: the answer is not what the records say"));
        }
    };
    let (collections, snapshots) = (engine.collections().await?, engine.snapshots(None).await?);
    let points = engine.reference_points(None).await?;
    let points_that = |wanted: &dyn Fn(&ReferencePoint) -> bool| -> Vec<_> {
        points.iter().filter(|p| wanted(p)).cloned().collect()
    };
    let in_which = |wanted: &dyn Fn(&Collection) -> bool| -> Vec<_> {
        collections.iter().filter(|c| wanted(c)).cloned().collect()
    };
    let which = |wanted: &dyn Fn(&Snapshot) -> bool| -> Vec<_> {
        snapshots.iter().filter(|s| wanted(s)).cloned().collect()
    };
    for machine in engine.machines().await? {
        let id = machine.id;
        let with = in_which(&|c| c.machines.contains(&id));
        let of = which(&|s| s.members.iter().any(|m| m.machine == id));
        check(
            engine.collections_with(id).await? == with,
            format!("collections with {id}"),
        );
        check(
            engine.snapshots_of_machine(id).await? == of,
            format!("snapshots of {id}"),
        );
        let of = points_that(&|p| p.members.iter().any(|m| m.machine == id));
        check(
            engine.reference_points_of_machine(id).await? == of,
            format!("points of {id}"),
        );
    }
    for point in &points {
        let of = points_that(&|other| other.collection == point.collection);
        check(
            engine.reference_points(Some(point.collection)).await? == of,
            format!("points of {}", point.collection),
        );
        for member in &point.members {
            let with = engine.reference_point_with(member.id).await?;
            check(
                with.as_ref() == Some(point),
                format!("point with {}", member.id),
            );
        }
    }
    for collection in &collections {
        let id = collection.id;
        let above = in_which(&|c| c.collections.contains(&id));
        let of = which(&|s| s.collection == id);
        check(
            engine.collections_above(id).await? == above,
            format!("collections above {id}"),
        );
        check(
            engine.snapshots(Some(id)).await? == of,
            format!("snapshots of {id}"),
        );
    }
    for snapshot in &snapshots {
        for member in &snapshot.members {
            let id = member.id;
            let grown = which(&|s| s.members.iter().any(|m| m.parent == Some(id)));
            let with = engine.snapshot_with(id).await?;
            check(
                with.as_ref() == Some(snapshot),
                format!("snapshot with {id}"),
            );
            check(
                engine.snapshots_grown_from(id).await? == grown,
                format!("grown from {id}"),
            );
        }
    }
    Ok(wrong)
}

impl Scene {
    pub async fn new(op: Op) -> Self {
        let world = World::new();
        let daemon = world.daemon();
        let state = tempfile::tempdir().unwrap();
        let engine = open(&daemon, state.path()).await.unwrap();
        let machines_kind = CollectionKind::Machines;
        let collection = engine
            .create_collection("all", None, machines_kind)
            .await
            .unwrap();
        let guests = Guests::default();
        let mut machines = Vec::new();
        let members: &[(&str, &[&str], Power)] = &[
            ("a", &["disk0", "disk1"], Power::Running),
            ("b", &["disk0"], Power::Running),
            ("off", &["disk0"], Power::Off),
            ("paused", &["disk0"], Power::Paused),
        ];
        for (name, disks, power) in members {
            let application = matches!(
                op,
                Op::Create(_, Consistency::Application) | Op::CreatePoint(Consistency::Application)
            );
            if *power == Power::Paused && application {
                continue; // it is refused
            }
            let id = define(&engine, world.definition(name, disks)).await;
            if *power != Power::Off {
                engine.start_machine(id).await.unwrap();
                guests.write(&world, id, disks).unwrap();
            }
            if *power == Power::Paused {
                engine.pause_machine(id).await.unwrap();
            }
            engine.add_machine(collection.id, id).await.unwrap();
            machines.push(Member { id, power: *power });
        }
        let mut scene = Self {
            op,
            before: world.survey(),
            world,
            daemon,
            engine,
            state,
            collection: collection.id,
            machines,
            guests,
            snapshots: Vec::new(),
            points: Vec::new(),
            jobs_before: Vec::new(),
            written_before: BTreeMap::new(),
            over: Arc::default(),
            died: Arc::default(),
            stood: Arc::default(),
        };
        let earlier = match op {
            Op::Create(..) | Op::Save | Op::Restore => vec![],
            Op::CreatePoint(_) | Op::RemoveData | Op::DestroyPoint => vec![],
            Op::Apply(kind) => vec![kind],
            Op::Destroy(_) | Op::Convert(_) => vec![SnapshotKind::Recovery; 3],
            Op::Export(_) => vec![SnapshotKind::Recovery; 2],
        };
        for kind in earlier {
            let request = request(collection.id, kind, Consistency::Crash);
            let snapshot = snapshot(&scene.engine, request).await;
            let content = content(&scene.world, &snapshot).unwrap();
            scene.snapshots.push((snapshot.id, content));
            scene.guests.exchange(&scene.world, scene.pair());
        }
        if matches!(op, Op::RemoveData | Op::DestroyPoint) {
            let request = point_request(collection.id, Consistency::Crash);
            let started = scene.engine.create_reference_point(request).await.unwrap();
            scene.engine.wait_job(started.job).await.unwrap();
            let point = scene.engine.reference_point(started.point).await.unwrap();
            let content = content_of_point(&scene.world, &point).unwrap();
            scene.points.push((point.id, content));
            scene.guests.exchange(&scene.world, scene.pair());
        }
        if matches!(op, Op::Export(_)) {
            let (first, content) = scene.snapshots.remove(0);
            let request = full(Exports::Snapshot(first), BASE.into());
            let started = scene.engine.export(request).await.unwrap();
            let job = scene.engine.wait_job(started.job).await.unwrap();
            assert_eq!(job.state, JobState::Completed, "{job:?}");
            let converted = scene
                .engine
                .convert_snapshot(first, None, None)
                .await
                .unwrap();
            let job = scene.engine.wait_job(converted.job).await.unwrap();
            assert_eq!(job.state, JobState::Completed, "{job:?}");
            scene.points.push((converted.point, content));
        }
        if op == Op::Restore {
            scene.engine.save_machine(scene.pair()[0]).await.unwrap();
        }
        scene.before = scene.world.survey();
        scene.jobs_before = scene
            .engine
            .jobs()
            .await
            .unwrap()
            .iter()
            .map(|j| j.id)
            .collect();
        for id in scene.pair() {
            scene
                .written_before
                .insert(id, scene.guests.written(id).len());
        }
        scene.let_guests_write();
        scene.watch_the_clock();
        scene
    }

    /// The two members that run.
    pub fn pair(&self) -> [MachineId; 2] {
        [self.machines[0].id, self.machines[1].id]
    }

    /// Around the calls that matter the guests write.
    fn let_guests_write(&self) {
        use Point::*;
        let points = [
            CreateOverlay,
            Freeze,
            Thaw,
            Stop,
            Swap,
            Save,
            FinishSave,
            Forfeits,
            Disarm,
            Resume,
            Kill,
            Start,
            Merge,
            BeginMergeActive,
            EndMergeActive,
            Commit,
            DeleteFile,
            OpenExport,
            CopyDisk,
            SealExport,
        ];
        for when in [When::Before, When::After] {
            for point in points {
                let (guests, pair, over) = (self.guests.clone(), self.pair(), self.over.clone());
                self.world.on(point, when, move |daemon, _| {
                    if !over.load(Ordering::Relaxed) && !daemon.crashed() {
                        guests.exchange(daemon.world(), pair);
                    }
                });
            }
        }
    }

    /// Measures for how long the members that run stand still.
    fn watch_the_clock(&self) {
        const EVERY: Duration = Duration::from_millis(500);
        let (world, pair, over) = (self.world.clone(), self.pair(), self.over.clone());
        let stood = self.stood.clone();
        tokio::spawn(async move {
            let mut now = [Duration::ZERO; 2];
            while !over.load(Ordering::Relaxed) {
                tokio::time::sleep(EVERY).await;
                let survey = world.survey();
                for (now, id) in now.iter_mut().zip(pair) {
                    let state = survey.processes.iter().find(|p| p.machine == Some(id));
                    let stands = state.is_some_and(|p| p.power != Power::Running || p.frozen > 0);
                    *now = if stands { *now + EVERY } else { Duration::ZERO };
                    let mut most = stood.lock().unwrap();
                    *most = most.max(*now);
                }
            }
        });
    }

    /// At the nth call from now on, by any life of the daemon, does this. Calls
    /// that only ask can be left out of the count.
    pub fn at_call(
        &self,
        n: usize,
        when: When,
        with_questions: bool,
        mut action: impl FnMut(&Daemon, &isochron_sim::Call) + Send + 'static,
    ) -> Arc<AtomicBool> {
        let met = Arc::new(AtomicBool::new(false));
        let (over, seen) = (self.over.clone(), met.clone());
        let mut calls = 0;
        self.world.on_every(when, move |daemon, call| {
            if over.load(Ordering::Relaxed)
                || daemon.crashed()
                || (!with_questions && asks(call.point))
            {
                return;
            }
            calls += 1;
            if calls == n {
                seen.store(true, Ordering::Relaxed);
                action(daemon, call);
            }
        });
        met
    }

    /// Asks for the operation.
    pub async fn start(&self) -> Result<JobId, EngineError> {
        let power = async |change| self.engine.change_power(self.pair()[0], change, None).await;
        let started = match self.op {
            Op::Save => return power(PowerChange::Save).await,
            Op::Restore => return power(PowerChange::Run).await,
            Op::Create(kind, consistency) => {
                let request = request(self.collection, kind, consistency);
                self.engine.create_snapshot(request).await
            }
            Op::CreatePoint(consistency) => {
                let request = point_request(self.collection, consistency);
                let started = self.engine.create_reference_point(request).await;
                return started.map(|started| started.job);
            }
            Op::Convert(index) => {
                let id = self.snapshots[index].0;
                let started = self.engine.convert_snapshot(id, None, None).await;
                return started.map(|started| started.job);
            }
            Op::RemoveData | Op::DestroyPoint => {
                let id = self.points[0].0;
                let started = match self.op {
                    Op::RemoveData => self.engine.remove_reference_point_data(id, None).await,
                    _ => self.engine.destroy_reference_point(id, None).await,
                };
                return started.map(|started| started.job);
            }
            Op::Export(written) => {
                let what = Exports::Snapshot(self.snapshots[0].0);
                let request = ExportRequest {
                    base: (written != Written::Full).then(|| ExportBase::Point(self.points[0].0)),
                    merge: written == Written::Merged,
                    ..full(what, EXPORT.into())
                };
                return self.engine.export(request).await.map(|started| started.job);
            }
            Op::Apply(_) => self.engine.apply_snapshot(self.snapshots[0].0, None).await,
            Op::Destroy(index) => {
                self.engine
                    .destroy_snapshot(self.snapshots[index].0, None)
                    .await
            }
        };
        started.map(|started: Started| started.job)
    }

    /// Carries the operation out until its job has ended or the daemon is dead.
    /// What hangs goes on at last.
    pub async fn perform(&self) -> Result<(), String> {
        let work = async {
            if let Ok(job) = self.start().await {
                self.engine.wait_job(job).await.ok();
            }
        };
        let patience = async {
            // Saving the present is given minutes, all else seconds.
            let long = if matches!(self.op, Op::Apply(_) | Op::Save) {
                500
            } else {
                60
            };
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(long)).await;
                self.world.release();
            }
        };
        tokio::select! {
            () = work => Ok(()),
            () = self.died.notified() => Ok(()),
            () = patience => Err("the operation does not end".to_owned()),
        }
    }
}
