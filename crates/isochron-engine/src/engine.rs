//! The engine's outer side: what its faces call, and what its rooms share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use time::macros::format_description;
use tokio::sync::broadcast;

use crate::access::{Acting, Operation};
use crate::events::Events;
use crate::gate::{Gate, Pass, Place};
use crate::jobs::{Jobs, NewJob, Progress, record};
use crate::model::{
    Affected, Collection, CollectionId, Consistency, Job, JobId, JobKind, Layer, Machine,
    MachineId, ReferencePoint, ReferencePointId, Snapshot, SnapshotId, SnapshotKind, random,
};
use crate::records::{Records, collection_key, machine_key, point_key, snapshot_key};
use crate::relations::Of;
use crate::watch::Powers;
use crate::{
    Archive, Clock, EngineError, ErrorKind, Event, Hypervisor, Store, apply, cut, destroy, recovery,
};

/// How the engine behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory for the memory of snapshots.
    pub state: PathBuf,
    /// How long what may take.
    pub deadlines: Deadlines,
    /// How long an ended job is kept (CIM's TimeBeforeRemoval).
    pub job_retention: Duration,
    /// The directories below which the paths lie that confined callers name; see
    /// [`Engine::confine`].
    pub roots: Vec<PathBuf>,
}

impl Config {
    /// The defaults, with this directory.
    pub fn new(state: impl Into<PathBuf>) -> Self {
        Self {
            state: state.into(),
            deadlines: Deadlines::default(),
            job_retention: Duration::from_secs(300),
            roots: Vec::new(),
        }
    }
}

/// How long what may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// Freezing of the guests' file systems; 10 s by default, which is also
    /// what Windows guests allow.
    pub freeze: Duration,
    /// A member's answer to stop and to resume; 2 s by default.
    pub stop: Duration,
    /// The window: the longest time for which guests stand still, after which the
    /// guard lets them run; 10 s by default. A snapshot gives up after three
    /// quarters of it.
    pub window: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            freeze: Duration::from_secs(10),
            stop: Duration::from_secs(2),
            window: Duration::from_secs(10),
        }
    }
}

/// A request for a snapshot of a collection.
#[derive(Clone, Debug)]
pub struct CreateSnapshot {
    /// Of which collection; or, by its identifier, of which single machine.
    pub collection: CollectionId,
    /// The new snapshot's identifier; chosen where absent. One that is in use is
    /// `InvalidParameter`.
    pub id: Option<SnapshotId>,
    /// Its name; `COLLECTION - (DATE)` where absent.
    pub name: Option<String>,
    /// Memory and disks, or disks.
    pub kind: SnapshotKind,
    /// The consistency asked for; crash where absent. Application consistency of
    /// a standard snapshot is `InvalidParameter`.
    pub consistency: Option<Consistency>,
    /// Leave out disks that cannot be snapshotted instead of refusing.
    pub ignore_excluded_disks: bool,
    /// Who asks.
    pub owner: Option<String>,
}

/// A job was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    /// The job.
    pub job: JobId,
    /// The snapshot that it makes, applies or destroys.
    pub snapshot: SnapshotId,
}

/// The engine. Cheap to clone; all clones are one engine. Each acts for somebody:
/// see [`Engine::on_behalf_of`].
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
    pub(crate) acting: Acting,
}

/// What the engine's rooms share.
pub(crate) struct Inner {
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) records: Records,
    pub(crate) archive: Arc<dyn Archive>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: Config,
    pub(crate) jobs: Arc<Jobs>,
    pub(crate) gate: Gate,
    pub(crate) events: Events,
    pub(crate) powers: Powers,
}

impl Engine {
    /// Opens the engine. Recovery runs first, resuming guests before anything
    /// else; when this returns, records, files and machines agree, except for
    /// machines that do not answer: those stay closed to operations until they do.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn open(
        hypervisor: Arc<dyn Hypervisor>,
        store: Arc<dyn Store>,
        archive: Arc<dyn Archive>,
        clock: Arc<dyn Clock>,
        config: Config,
    ) -> Result<Self, EngineError> {
        let events = Events::new();
        let jobs = Arc::new(Jobs::new(
            Arc::clone(&clock),
            events.clone(),
            config.job_retention,
        ));
        let inner = Arc::new(Inner {
            hypervisor,
            records: Records::open(store, events.clone()).await?,
            archive,
            clock,
            config,
            jobs,
            gate: Gate::default(),
            events,
            powers: Powers::default(),
        });
        recovery::recover(&inner).await?;
        inner.watch_power();
        let sweeper = Arc::downgrade(&inner);
        tokio::spawn(async move {
            while let Some(inner) = sweeper.upgrade() {
                if let Err(error) = inner.jobs.sweep(&inner.records).await {
                    tracing::warn!(%error, "ended jobs are not removed yet");
                }
                inner.records.settle().await;
                inner.empty_trash().await;
                let clock = Arc::clone(&inner.clock);
                drop(inner);
                clock.sleep(Duration::from_secs(5)).await;
            }
        });
        Ok(Self {
            inner,
            acting: Acting::daemon(),
        })
    }

    /// Takes a snapshot of a collection. Everything that can be checked without
    /// touching a member is checked before this returns; the rest is the job's.
    ///
    /// # Errors
    /// `NotFound` collection; `InvalidParameter` identifier in use, settings that
    /// make no sense; `InvalidState` empty, in use, a member that cannot take part
    /// now; `NotSupported` disk or guest that cannot do it; `Timeout` a member that
    /// does not answer.
    pub async fn create_snapshot(&self, request: CreateSnapshot) -> Result<Started, EngineError> {
        let target = self.collection_target(request.collection).await;
        self.perform(Operation::CreateSnapshot, target, self.create(request))
            .await
    }

    async fn create(&self, request: CreateSnapshot) -> Result<Started, EngineError> {
        let inner = &self.inner;
        let owner = request.owner.clone();
        let id = request.id.unwrap_or_else(SnapshotId::new);
        let request = CreateSnapshot {
            id: Some(id),
            ..request
        };
        let plan = cut::plan(inner, request.into()).await?;
        let snapshot = id;
        let progress = inner
            .begin_job(NewJob {
                collection: Some(plan.collection.id),
                snapshot: Some(snapshot),
                cancellable: true,
                ..NewJob::new(JobKind::CreateSnapshot, owner)
            })
            .await?;
        let job = progress.id();
        let inner = Arc::clone(inner);
        tokio::spawn(async move { cut::run(&inner, plan, &progress).await });
        Ok(Started { job, snapshot })
    }

    /// Returns a snapshot's members to it: all, or none.
    ///
    /// # Errors
    /// `NotFound`; `InvalidState` in use; `NotSupported` an attached member;
    /// `Failed` a layer or memory that is missing.
    pub async fn apply_snapshot(
        &self,
        id: SnapshotId,
        owner: Option<String>,
    ) -> Result<Started, EngineError> {
        let target = self.snapshot_target(id).await;
        let apply = async {
            self.apply(apply::plan(&self.inner, id, None).await?, owner)
                .await
        };
        self.perform(Operation::ApplySnapshot, target, apply).await
    }

    /// Returns one member of a snapshot to it, and leaves the others where they are.
    ///
    /// # Errors
    /// As [`apply_snapshot`](Self::apply_snapshot); `NotFound` also where the
    /// machine is no member.
    pub async fn apply_snapshot_to(
        &self,
        id: SnapshotId,
        machine: MachineId,
        owner: Option<String>,
    ) -> Result<Started, EngineError> {
        let target = format!(
            "{} for {}",
            self.snapshot_target(id).await,
            self.machine_target(machine).await
        );
        let apply = async {
            let plan = apply::plan(&self.inner, id, Some(machine)).await?;
            self.apply(plan, owner).await
        };
        self.perform(Operation::ApplySnapshot, target, apply).await
    }

    async fn apply(
        &self,
        plan: apply::Plan,
        owner: Option<String>,
    ) -> Result<Started, EngineError> {
        let inner = &self.inner;
        let id = plan.snapshot.id;
        let progress = inner
            .begin_job(NewJob {
                collection: Some(plan.snapshot.collection),
                snapshot: Some(id),
                cancellable: true,
                ..NewJob::new(JobKind::ApplySnapshot, owner)
            })
            .await?;
        let job = progress.id();
        let inner = Arc::clone(inner);
        tokio::spawn(async move { apply::run(&inner, plan, &progress).await });
        Ok(Started { job, snapshot: id })
    }

    /// Destroys a snapshot: it is gone when the job starts, its layers are merged
    /// by the job while guests run. Snapshots that grew from it stay.
    ///
    /// # Errors
    /// `NotFound`; `InvalidState` in use; `Timeout` a member that does not answer.
    pub async fn destroy_snapshot(
        &self,
        id: SnapshotId,
        owner: Option<String>,
    ) -> Result<Started, EngineError> {
        let target = self.snapshot_target(id).await;
        let destroy = async {
            self.destroy(destroy::plan(&self.inner, id).await?, owner)
                .await
        };
        self.perform(Operation::DestroySnapshot, target, destroy)
            .await
    }

    /// Destroys a single machine's snapshot and all that grew from it, at once.
    ///
    /// # Errors
    /// As [`destroy_snapshot`](Self::destroy_snapshot); `InvalidState` also where
    /// one of them is part of a collection's snapshot.
    pub async fn destroy_snapshot_tree(
        &self,
        id: SnapshotId,
        owner: Option<String>,
    ) -> Result<Started, EngineError> {
        let target = format!("{} and its children", self.snapshot_target(id).await);
        let destroy = async {
            let plan = destroy::plan_tree(&self.inner, id).await?;
            self.destroy(plan, owner).await
        };
        self.perform(Operation::DestroySnapshot, target, destroy)
            .await
    }

    async fn destroy(
        &self,
        plan: destroy::Plan,
        owner: Option<String>,
    ) -> Result<Started, EngineError> {
        let inner = &self.inner;
        let id = plan.root().id;
        let progress = inner
            .begin_job(NewJob {
                collection: Some(plan.root().collection),
                snapshot: Some(id),
                ..NewJob::new(JobKind::DestroySnapshot, owner)
            })
            .await?;
        let job = progress.id();
        let inner = Arc::clone(inner);
        tokio::spawn(async move { destroy::run(&inner, plan, &progress).await });
        Ok(Started { job, snapshot: id })
    }

    /// All snapshots, or one collection's, oldest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn snapshots(
        &self,
        collection: Option<CollectionId>,
    ) -> Result<Vec<Snapshot>, EngineError> {
        if let Some(collection) = collection {
            let of = Of::SnapshotsOfCollection(collection);
            return self.snapshots_that(of).await;
        }
        let mut snapshots: Vec<Snapshot> = self.inner.records.list().await?;
        snapshots.sort_by_key(|snapshot| (snapshot.created_at, snapshot.id));
        Ok(snapshots)
    }

    /// A snapshot.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn snapshot(&self, id: SnapshotId) -> Result<Snapshot, EngineError> {
        self.inner.snapshot(id).await
    }

    /// A snapshot by identifier, or by name where only one has it.
    ///
    /// # Errors
    /// `NotFound`; `InvalidParameter` where several have the name.
    pub async fn find_snapshot(&self, text: &str) -> Result<Snapshot, EngineError> {
        if let Ok(id) = text.parse() {
            return self.snapshot(id).await;
        }
        let mut named: Vec<_> = self.snapshots(None).await?;
        named.retain(|snapshot| snapshot.name == text);
        match named.len() {
            0 => Err(EngineError::not_found(format!(
                "there is no snapshot {text}"
            ))),
            1 => Ok(named.remove(0)),
            count => Err(EngineError::invalid(format!(
                "{count} snapshots are named {text}; name one by its identifier"
            ))),
        }
    }

    /// All jobs under way and those that ended not long ago, oldest first.
    ///
    /// # Errors
    /// None at present.
    #[allow(clippy::unused_async)] // a store of several daemons will have to be asked
    pub async fn jobs(&self) -> Result<Vec<Job>, EngineError> {
        Ok(self.inner.jobs.list())
    }

    /// The jobs that affect an element, oldest first.
    pub fn jobs_affecting(&self, affected: Affected) -> Vec<Job> {
        self.inner.jobs.affecting(affected)
    }

    /// A job.
    ///
    /// # Errors
    /// `NotFound`, also when it ended longer ago than jobs are kept.
    #[allow(clippy::unused_async)] // a store of several daemons will have to be asked
    pub async fn job(&self, id: JobId) -> Result<Job, EngineError> {
        self.inner.jobs.get(id)
    }

    /// Waits until a job has ended.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn wait_job(&self, id: JobId) -> Result<Job, EngineError> {
        self.inner.jobs.wait(id).await
    }

    /// Asks a job to stop and take back what it did.
    ///
    /// # Errors
    /// `NotFound`; `InvalidState` once it cannot be cancelled any more.
    pub async fn cancel_job(&self, id: JobId) -> Result<(), EngineError> {
        let cancel = async { self.inner.jobs.cancel(id) };
        self.perform(Operation::CancelJob, Self::job_target(id), cancel)
            .await
    }

    /// Records a refused call as a job that has failed, so that there is a place
    /// where the reason can be read.
    ///
    /// # Errors
    /// The store cannot be written.
    pub async fn record_refusal(
        &self,
        kind: JobKind,
        owner: Option<String>,
        error: &EngineError,
    ) -> Result<JobId, EngineError> {
        self.caller().require(Operation::RecordRefusal.role())?;
        let progress = self.inner.begin_job(NewJob::new(kind, owner)).await?;
        progress
            .finish(&self.inner.records, None, Some(error.clone()))
            .await;
        Ok(progress.id())
    }

    /// What changes from now on; the first to ask is told what recovery changed as
    /// well. A reader that lags some thousand events behind loses the oldest.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.events.subscribe()
    }

    /// The engine's configuration.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }
}

impl Inner {
    pub(crate) async fn begin_job(&self, new: NewJob) -> Result<Progress, EngineError> {
        let job = self.jobs.create(new);
        record(&self.records, &job).await?;
        Ok(self.jobs.publish(None, job))
    }

    pub(crate) async fn machine(&self, id: MachineId) -> Result<Machine, EngineError> {
        let machine = self.records.get(&machine_key(id)).await?;
        machine.ok_or_else(|| EngineError::not_found(format!("there is no machine {id}")))
    }

    /// A machine and its layers as they were at one moment: a merge may change both
    /// while they are read.
    pub(crate) async fn machine_and_layers(
        &self,
        id: MachineId,
    ) -> Result<(Machine, Vec<Layer>), EngineError> {
        let mut machine = self.machine(id).await?;
        loop {
            let layers = self.records.layers(id).await?;
            let now = self.machine(id).await?;
            if now == machine {
                return Ok((machine, layers));
            }
            machine = now;
        }
    }

    pub(crate) async fn collection(&self, id: CollectionId) -> Result<Collection, EngineError> {
        let collection = self.records.get(&collection_key(id)).await?;
        collection.ok_or_else(|| EngineError::not_found(format!("there is no collection {id}")))
    }

    /// A collection, or the collection of one that the machine of this identifier is.
    pub(crate) async fn collection_or_machine(
        &self,
        id: CollectionId,
    ) -> Result<Collection, EngineError> {
        let missing = match self.collection(id).await {
            Err(error) if error.kind == ErrorKind::NotFound => error,
            found => return found,
        };
        match self.machine(MachineId(id.0)).await {
            Ok(machine) => Ok(Collection::of_one(&machine)),
            Err(error) if error.kind == ErrorKind::NotFound => Err(missing),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn snapshot(&self, id: SnapshotId) -> Result<Snapshot, EngineError> {
        let snapshot = self.records.get(&snapshot_key(id)).await?;
        snapshot.ok_or_else(|| EngineError::not_found(format!("there is no snapshot {id}")))
    }

    pub(crate) async fn point(&self, id: ReferencePointId) -> Result<ReferencePoint, EngineError> {
        let point = self.records.get(&point_key(id)).await?;
        point.ok_or_else(|| EngineError::not_found(format!("there is no reference point {id}")))
    }

    /// Keeps everyone else away from a collection, those below it, and machines.
    pub(crate) async fn enter(
        &self,
        what: &str,
        collection: &Collection,
        machines: &[Machine],
    ) -> Result<Pass, EngineError> {
        let mut places: Vec<_> = self
            .collections_below(collection)
            .await?
            .into_iter()
            .map(|below| {
                (
                    Place::Collection(below.id),
                    format!("collection {}", below.name),
                )
            })
            .collect();
        places.extend(
            machines
                .iter()
                .map(|m| (Place::Machine(m.id), format!("machine {}", m.name))),
        );
        self.gate.enter(what, places)
    }

    /// Keeps everyone else away from machines.
    pub(crate) fn enter_machines(
        &self,
        what: &str,
        machines: impl IntoIterator<Item = MachineId>,
    ) -> Result<Pass, EngineError> {
        let places = machines
            .into_iter()
            .map(|id| (Place::Machine(id), format!("machine {id}")));
        self.gate.enter(what, places)
    }

    /// Keeps everyone else away from a snapshot's collection and its members.
    pub(crate) fn enter_snapshot(
        &self,
        what: &str,
        snapshot: &Snapshot,
    ) -> Result<Pass, EngineError> {
        let collection = (
            Place::Collection(snapshot.collection),
            format!("collection {}", snapshot.collection_name),
        );
        let machines = snapshot.members.iter().map(|member| {
            (
                Place::Machine(member.machine),
                format!("machine {}", member.machine_name),
            )
        });
        self.gate
            .enter(what, std::iter::once(collection).chain(machines))
    }

    /// Keeps everyone else away from a reference point's collection and its members.
    pub(crate) fn enter_point(
        &self,
        what: &str,
        point: &ReferencePoint,
    ) -> Result<Pass, EngineError> {
        let collection = (
            Place::Collection(point.collection),
            format!("collection {}", point.collection_name),
        );
        let machines = point.members.iter().map(|member| {
            (
                Place::Machine(member.machine),
                format!("machine {}", member.machine_name),
            )
        });
        self.gate
            .enter(what, std::iter::once(collection).chain(machines))
    }

    /// Keeps a snapshot as it is: it is not exported and does not go meanwhile.
    pub(crate) fn hold_snapshot(
        &self,
        what: &str,
        snapshot: &Snapshot,
    ) -> Result<Pass, EngineError> {
        let place = Place::Snapshot(snapshot.id);
        self.gate
            .enter(what, [(place, format!("snapshot {}", snapshot.name))])
    }

    /// Keeps a reference point as it is.
    pub(crate) fn hold_point(
        &self,
        what: &str,
        point: &ReferencePoint,
    ) -> Result<Pass, EngineError> {
        let place = Place::Point(point.id);
        self.gate
            .enter(what, [(place, format!("reference point {}", point.name))])
    }

    /// Now, as names show it.
    pub(crate) fn timestamp(&self) -> String {
        let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second]Z");
        // Formatting a time of our own clock with a fixed format cannot fail.
        self.clock.now().format(format).unwrap_or_default()
    }

    pub(crate) fn memory_root(&self) -> PathBuf {
        self.config.state.join("memory")
    }

    /// A new file for a member's memory in a snapshot. No name is used twice:
    /// the file of an earlier attempt may still wait to be deleted.
    pub(crate) fn memory_file(&self, snapshot: SnapshotId, machine: MachineId) -> PathBuf {
        self.memory_root()
            .join(snapshot.to_string())
            .join(format!("{machine}.{}.memory", random().simple()))
    }

    /// A new file for a member's present memory while a snapshot is applied.
    pub(crate) fn rescue_file(&self) -> PathBuf {
        self.config
            .state
            .join("rescue")
            .join(format!("{}.memory", random().simple()))
    }

    /// Removes a snapshot's memory directory if it is empty.
    pub(crate) async fn remove_memory_directory(&self, snapshot: SnapshotId) {
        let directory = self.memory_root().join(snapshot.to_string());
        self.hypervisor.remove_directory(&directory).await;
    }
}
