//! An object manager over the provider over the engine over the simulator, and a
//! client that calls it as a protocol would.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]
#![allow(dead_code, reason = "every test uses its part")]

pub mod listener;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use isochron_cim::{
    AssociationFilter, CimError, CimServer, Instance, Invocation, MethodTarget, ObjectPath,
    Principal, RequestContext, Role, Status,
};
use isochron_cimom::{Delivery, IndicationOptions, Limits, MemoryRecords, ObjectManager};
use isochron_engine::{Config, Engine};
use isochron_hyperv::HypervServer;
use isochron_net::outgoing::Retries;

pub const ADMINISTRATOR: Role = Role::Administrator;
pub const READER: Role = Role::Reader;

/// The server, and what it keeps.
pub struct World {
    records: Arc<MemoryRecords>,
    limits: Limits,
    delivery: Delivery,
    /// Where this host is described, if it is: from the next restart on.
    pub root: Option<PathBuf>,
    server: Option<Arc<ObjectManager>>,
    _state: tempfile::TempDir,
    engine: Engine,
}

/// Retries so fast that tests need not wait.
pub const FAST: Delivery = Delivery {
    retries: Retries {
        attempts: 1000,
        interval: Duration::from_millis(5),
        interval_max: Duration::from_millis(20),
    },
    removal_interval: Duration::from_secs(3600),
};

async fn open(
    engine: &Engine,
    records: &Arc<MemoryRecords>,
    limits: Limits,
    delivery: Delivery,
    root: Option<PathBuf>,
) -> Arc<ObjectManager> {
    let decode = |_: &str| Err(CimError::invalid_parameter("no text is read here"));
    let provider = HypervServer::new(engine.clone(), Arc::new(decode), "host.example", root);
    let provider = provider.unwrap();
    let indications = IndicationOptions {
        listeners: Arc::new(listener::CimXml),
        delivery,
    };
    let manager = ObjectManager::open(Arc::new(provider), records.clone(), limits, indications);
    Arc::new(manager.await.unwrap())
}

impl World {
    pub async fn new() -> Self {
        Self::with(Limits::default()).await
    }

    pub async fn with(limits: Limits) -> Self {
        Self::delivering(limits, FAST).await
    }

    pub async fn delivering(limits: Limits, delivery: Delivery) -> Self {
        let state = tempfile::tempdir().unwrap();
        let world = isochron_sim::World::new();
        let daemon = world.daemon();
        let engine = Engine::open(
            daemon.hypervisor(),
            daemon.store(),
            daemon.archive(),
            world.clock(),
            Config::new(state.path()),
        );
        let engine = engine.await.unwrap();
        let records = Arc::new(MemoryRecords::default());
        let server = Some(open(&engine, &records, limits, delivery, None).await);
        Self {
            records,
            limits,
            delivery,
            root: None,
            server,
            _state: state,
            engine,
        }
    }

    /// Begins again with what was kept.
    pub async fn restart(&mut self) {
        // The old one is gone before the new one begins, if no client is left.
        self.server = None;
        let root = self.root.clone();
        let server = open(
            &self.engine,
            &self.records,
            self.limits,
            self.delivery,
            root,
        );
        let server = server.await;
        self.server = Some(server);
    }

    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    pub fn client(&self, namespace: &str, role: Role) -> Client {
        Client {
            server: self.server.clone().unwrap(),
            cx: RequestContext {
                namespace: namespace.to_owned(),
                principal: Principal::user("someone", role),
            },
        }
    }

    pub async fn namespace(&self, name: &str) {
        let mut instance = Instance::new("CIM_Namespace");
        instance.set("Name", name);
        let interop = self.client("interop", ADMINISTRATOR);
        interop.create(instance).await.unwrap();
    }
}

/// Speaks to the server in one namespace.
pub struct Client {
    pub server: Arc<ObjectManager>,
    pub cx: RequestContext,
}

impl Client {
    /// The status that an operation fails with; it must.
    pub async fn error<T: std::fmt::Debug>(
        &self,
        operation: impl Future<Output = Result<T, CimError>>,
    ) -> Status {
        operation.await.unwrap_err().status
    }

    pub async fn create(&self, instance: Instance) -> Result<ObjectPath, CimError> {
        self.server.create_instance(&self.cx, instance).await
    }

    pub async fn modify(&self, path: &ObjectPath, changes: Instance) -> Result<(), CimError> {
        self.server.modify_instance(&self.cx, path, changes).await
    }

    pub async fn delete(&self, path: &ObjectPath) -> Result<(), CimError> {
        self.server.delete_instance(&self.cx, path).await
    }

    pub async fn get(&self, path: &ObjectPath) -> Result<Instance, CimError> {
        self.server.get_instance(&self.cx, path).await
    }

    pub async fn all(&self, class: &str) -> Result<Vec<Instance>, CimError> {
        let class = isochron_cim::Name::from(class);
        let found = self.server.enumerate_instances(&self.cx, &class);
        found.await?.try_collect().await
    }

    pub async fn associators(
        &self,
        source: &ObjectPath,
        filter: &AssociationFilter,
    ) -> Result<Vec<Instance>, CimError> {
        let found = self.server.associators(&self.cx, source, filter);
        found.await?.try_collect().await
    }

    pub async fn references(
        &self,
        source: &ObjectPath,
        filter: &AssociationFilter,
    ) -> Result<Vec<Instance>, CimError> {
        let found = self.server.references(&self.cx, source, filter);
        found.await?.try_collect().await
    }

    /// The status that a method without parameters fails with; it must.
    pub async fn call(&self, path: &ObjectPath, method: &str) -> Status {
        let call = Invocation {
            target: MethodTarget::Instance(path.clone()),
            method: method.into(),
            parameters: Default::default(),
        };
        let called = self.server.invoke_method(&self.cx, call).await;
        called.unwrap_err().status
    }
}
