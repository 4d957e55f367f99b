//! A server over an engine over the simulator, and a client that calls it as a
//! protocol would.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::TryStreamExt;
use indexmap::IndexMap;
use isochron_cim::{
    AssociationFilter, CimError, CimServer, CimType, Instance, Invocation, MethodTarget, Name,
    ObjectPath, Principal, RequestContext, Role, TypedValue, Value,
};
use isochron_engine::model::MachineId;
use isochron_engine::{Config, Engine};
use isochron_hyperv::{Decode, HypervServer};
use isochron_sim::World;
use tempfile::TempDir;

pub const CLUSTER: &str = "root/HyperVCluster/v2";
pub const VIRTUALIZATION: &str = "root/virtualization/v2";
pub const INTEROP: &str = "interop";
pub const HOST: &str = "host.example";

/// Speaks to a server in one namespace.
pub struct Client {
    pub server: HypervServer,
    pub cx: RequestContext,
}

/// What a method returned.
#[derive(Debug)]
pub struct Reply {
    pub code: u64,
    pub out: IndexMap<Name, TypedValue>,
}

impl Reply {
    /// An out-parameter's value; null, too, where the method has none of that name.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.out.get(&Name::from(name))?.value.as_ref()
    }

    pub fn reference(&self, name: &str) -> Option<ObjectPath> {
        self.value(name)
            .map(|value| value.as_reference().unwrap().clone())
    }
}

/// Reads `CLASS NAME=VALUE ...`: the codec of XML is the protocol's.
fn decoder() -> Decode {
    Arc::new(|text: &str| {
        let mut words = text.split(' ');
        let class = words.next().unwrap_or_default();
        if !class.starts_with("Msvm_") {
            return Err(CimError::invalid_parameter("there is no INSTANCE element"));
        }
        let mut instance = Instance::new(class);
        for (name, value) in words.filter_map(|word| word.split_once('=')) {
            match value.parse::<u16>() {
                Ok(number) => instance.set(name, number),
                Err(_) => instance.set(name, value),
            };
        }
        Ok(instance)
    })
}

impl Client {
    pub fn new(engine: Engine, namespace: &str) -> Self {
        Self::on_host(engine, namespace, None)
    }

    /// To a server on a host that the files below a directory describe.
    pub fn described(engine: Engine, namespace: &str, root: &Path) -> Self {
        Self::on_host(engine, namespace, Some(root.to_owned()))
    }

    fn on_host(engine: Engine, namespace: &str, root: Option<PathBuf>) -> Self {
        let server = HypervServer::new(engine, decoder(), HOST, root).unwrap();
        let cx = RequestContext {
            namespace: namespace.to_owned(),
            principal: Principal::anonymous(Role::Administrator),
        };
        Self { server, cx }
    }

    pub fn at(&self, namespace: &str) -> Self {
        let cx = RequestContext {
            namespace: namespace.to_owned(),
            ..self.cx.clone()
        };
        Self {
            server: self.server.clone(),
            cx,
        }
    }

    pub async fn all(&self, class: &str) -> Vec<Instance> {
        let stream = self
            .server
            .enumerate_instances(&self.cx, &Name::from(class))
            .await
            .unwrap();
        stream.try_collect().await.unwrap()
    }

    pub async fn get(&self, path: &ObjectPath) -> Result<Instance, CimError> {
        self.server.get_instance(&self.cx, path).await
    }

    /// The only instance of a class.
    pub async fn the(&self, class: &str) -> ObjectPath {
        let mut all = self.all(class).await;
        assert_eq!(all.len(), 1, "{class}");
        all.remove(0).path.unwrap()
    }

    pub async fn associators(
        &self,
        source: &ObjectPath,
        association: Option<&str>,
        result: Option<&str>,
    ) -> Vec<Instance> {
        let filter = AssociationFilter {
            association: association.map(Name::from),
            result_class: result.map(Name::from),
            ..AssociationFilter::default()
        };
        let stream = self
            .server
            .associators(&self.cx, source, &filter)
            .await
            .unwrap();
        stream.try_collect().await.unwrap()
    }

    pub async fn references(&self, source: &ObjectPath, association: &str) -> Vec<Instance> {
        let association = Some(Name::from(association));
        let filter = AssociationFilter {
            association,
            ..AssociationFilter::default()
        };
        let stream = self
            .server
            .references(&self.cx, source, &filter)
            .await
            .unwrap();
        stream.try_collect().await.unwrap()
    }

    pub async fn try_call(
        &self,
        target: &ObjectPath,
        method: &str,
        parameters: &[(&str, Value)],
    ) -> Result<Reply, CimError> {
        let typed = |value: &Value| TypedValue {
            ty: value.cim_type().unwrap_or(CimType::String),
            is_array: matches!(value, Value::Array(_)),
            value: Some(value.clone()),
        };
        let call = Invocation {
            target: MethodTarget::Instance(target.clone()),
            method: Name::from(method),
            parameters: parameters
                .iter()
                .map(|(n, v)| (Name::from(*n), typed(v)))
                .collect(),
        };
        let outcome = self.server.invoke_method(&self.cx, call).await?;
        let code = outcome.return_value.value.unwrap().as_u64().unwrap();
        Ok(Reply {
            code,
            out: outcome.parameters,
        })
    }

    /// Calls a method of the only instance of a class.
    pub async fn call(&self, class: &str, method: &str, parameters: &[(&str, Value)]) -> Reply {
        self.try_call(&self.the(class).await, method, parameters)
            .await
            .unwrap()
    }

    /// Reads a job until it is not running any more.
    pub async fn ended(&self, job: &ObjectPath) -> Instance {
        loop {
            let instance = self.get(job).await.unwrap();
            if number(&instance, "JobState") != 4 {
                return instance;
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }
}

pub fn number(instance: &Instance, name: &str) -> u64 {
    instance
        .get(name)
        .unwrap_or_else(|| panic!("{name} is null"))
        .as_u64()
        .unwrap()
}

pub fn text(instance: &Instance, name: &str) -> String {
    instance
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// A world with a daemon in it.
pub struct Setup {
    pub world: World,
    pub engine: Engine,
    pub client: Client,
    /// Where memory is kept, and what is open to clients.
    pub state: TempDir,
}

impl Setup {
    pub async fn new() -> Self {
        let (world, state) = (World::new(), TempDir::new().unwrap());
        let daemon = world.daemon();
        let config = Config {
            roots: vec![state.path().to_owned()],
            ..Config::new(state.path())
        };
        let engine = Engine::open(
            daemon.hypervisor(),
            daemon.store(),
            daemon.archive(),
            world.clock(),
            config,
        )
        .await
        .unwrap();
        let client = Client::new(engine.clone(), CLUSTER);
        Self {
            world,
            engine,
            client,
            state,
        }
    }

    /// A machine that is off.
    pub async fn machine(&self, name: &str) -> MachineId {
        let definition = self.world.definition(name, &["disk0"]);
        self.engine.define_machine(definition).await.unwrap().id
    }

    /// A machine that runs.
    pub async fn running(&self, name: &str) -> MachineId {
        let id = self.machine(name).await;
        self.engine.start_machine(id).await.unwrap();
        id
    }

    /// A collection of running machines, through the methods that define it.
    pub async fn collection(&self, name: &str, members: &[&str]) -> ObjectPath {
        let (client, service) = (&self.client, "Msvm_CollectionManagementService");
        let parameters = [("Name", name.into()), ("Type", Value::Uint16(0))];
        let reply = client.call(service, "DefineCollection", &parameters).await;
        assert_eq!(reply.code, 0);
        let collection = reply.reference("DefinedCollection").unwrap();
        for member in members {
            let member = machine_path(self.running(member).await);
            let parameters = [
                ("Member", member.into()),
                ("Collection", collection.clone().into()),
            ];
            assert_eq!(client.call(service, "AddMember", &parameters).await.code, 0);
        }
        collection
    }

    /// Takes a snapshot and waits for it.
    pub async fn snapshot(&self, collection: &ObjectPath, kind: u16) -> ObjectPath {
        let reply = self.create(collection, kind, &[]).await;
        assert_eq!(reply.code, 4096, "{reply:?}");
        let job = self.client.ended(&reply.reference("Job").unwrap()).await;
        assert_eq!(
            number(&job, "JobState"),
            7,
            "{}",
            text(&job, "ErrorDescription")
        );
        reply.reference("ResultingSnapshotCollection").unwrap()
    }

    pub async fn create(
        &self,
        collection: &ObjectPath,
        kind: u16,
        more: &[(&str, Value)],
    ) -> Reply {
        let mut parameters = vec![
            ("Collection", collection.clone().into()),
            ("SnapshotType", Value::Uint16(kind)),
        ];
        parameters.extend_from_slice(more);
        self.client
            .call(SNAPSHOTS, "CreateSnapshot", &parameters)
            .await
    }
}

pub const SNAPSHOTS: &str = "Msvm_CollectionSnapshotService";

pub fn machine_path(id: MachineId) -> ObjectPath {
    ObjectPath::class("Msvm_ComputerSystem")
        .with_key("CreationClassName", "Msvm_ComputerSystem")
        .with_key("Name", id.to_string())
}
