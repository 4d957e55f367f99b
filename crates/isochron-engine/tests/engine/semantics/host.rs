//! A host with a daemon, and what the questions of `semantics` ask of it.

use isochron_engine::model::*;
use isochron_engine::*;
use isochron_sim::{Daemon, World};

use crate::scene::{disagreements, request, snapshot};

pub const CRASH: Consistency = Consistency::Crash;

pub struct Host {
    pub world: World,
    pub daemon: Daemon,
    pub engine: Engine,
    _state: tempfile::TempDir,
}

impl Host {
    pub async fn new() -> Self {
        let world = World::new();
        let daemon = world.daemon();
        let state = tempfile::tempdir().unwrap();
        let (hypervisor, store) = (daemon.hypervisor(), daemon.store());
        let config = Config::new(state.path());
        let engine = Engine::open(hypervisor, store, daemon.archive(), world.clock(), config)
            .await
            .unwrap();
        Self {
            world,
            daemon,
            engine,
            _state: state,
        }
    }

    /// The next life of the daemon.
    pub async fn reopened(&self) -> Engine {
        let daemon = self.world.daemon();
        let (hypervisor, store) = (daemon.hypervisor(), daemon.store());
        let config = self.engine.config().clone();
        let clock = self.world.clock();
        Engine::open(hypervisor, store, daemon.archive(), clock, config)
            .await
            .unwrap()
    }

    pub async fn off(&self, name: &str) -> MachineId {
        let definition = self.world.definition(name, &["disk0"]);
        self.engine.define_machine(definition).await.unwrap().id
    }

    pub async fn running(&self, name: &str) -> MachineId {
        let id = self.off(name).await;
        self.engine.start_machine(id).await.unwrap();
        id
    }

    pub async fn collection(&self, name: &str, members: &[MachineId]) -> CollectionId {
        let kind = CollectionKind::Machines;
        let id = self
            .engine
            .create_collection(name, None, kind)
            .await
            .unwrap()
            .id;
        for member in members {
            self.engine.add_machine(id, *member).await.unwrap();
        }
        id
    }

    pub async fn above(&self, name: &str, members: &[CollectionId]) -> CollectionId {
        let kind = CollectionKind::Collections;
        let id = self
            .engine
            .create_collection(name, None, kind)
            .await
            .unwrap()
            .id;
        for member in members {
            self.engine.add_collection(id, *member).await.unwrap();
        }
        id
    }

    pub async fn recovery(&self, collection: CollectionId) -> Snapshot {
        snapshot(
            &self.engine,
            request(collection, SnapshotKind::Recovery, CRASH),
        )
        .await
    }

    pub async fn ended(&self, started: Result<Started, EngineError>) -> Job {
        self.engine.wait_job(started.unwrap().job).await.unwrap()
    }

    pub async fn completed(&self, started: Result<Started, EngineError>) {
        let job = self.ended(started).await;
        assert_eq!(job.state, JobState::Completed, "{job:?}");
        self.sound().await;
    }

    /// The call is refused so, and nothing is changed.
    pub async fn refused<T>(
        &self,
        kind: ErrorKind,
        call: impl Future<Output = Result<T, EngineError>>,
    ) -> String {
        let before = self.world.survey();
        let Err(error) = call.await else {
            panic!("accepted, and not refused as {kind:?}")
        };
        assert_eq!(error.kind, kind, "{error}");
        assert_eq!(self.world.survey(), before);
        error.message
    }

    pub async fn snapshot_refused(&self, kind: ErrorKind, request: CreateSnapshot) -> String {
        self.refused(kind, self.engine.create_snapshot(request))
            .await
    }

    pub fn write(&self, machine: MachineId, value: u64) {
        self.world.guest_write(machine, "disk0", 0, value).unwrap();
    }

    pub fn reads(&self, machine: MachineId) -> Option<u64> {
        self.world
            .guest_view(machine, "disk0")
            .unwrap()
            .get(&0)
            .copied()
    }

    pub async fn sound(&self) {
        assert_eq!(
            disagreements(&self.world, &self.engine).await.unwrap(),
            [""; 0]
        );
    }

    pub async fn stands_on(&self, collection: CollectionId) -> Option<SnapshotId> {
        let collection: Collection = self.engine.collection(collection).await.unwrap();
        collection.current
    }
}

pub fn recovery(collection: CollectionId) -> CreateSnapshot {
    request(collection, SnapshotKind::Recovery, CRASH)
}

pub fn standard(collection: CollectionId) -> CreateSnapshot {
    request(collection, SnapshotKind::Standard, CRASH)
}

pub fn application(collection: CollectionId) -> CreateSnapshot {
    request(collection, SnapshotKind::Recovery, Consistency::Application)
}

macro_rules! answers {
    ($($name:ident($host:ident) $body:block)*) => {$(
        #[test]
        fn $name() {
            alone(async {
                let $host = Host::new().await;
                $body
            });
        }
    )*};
}

pub(crate) use answers;
