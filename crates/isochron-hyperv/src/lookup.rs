//! Finds objects: one by its path, all of a class. By path is a direct look-up in
//! the engine.

use std::path::PathBuf;
use std::sync::Arc;

use isochron_cim::{CimError, Name, ObjectPath, Principal, Status};
use isochron_engine::model::{
    Collection, CollectionId, CollectionKind, Job, JobId, Machine, MachineId, MemberPointId,
    MemberSnapshotId, ReferencePoint, ReferencePointId, Snapshot, SnapshotId,
};
use isochron_engine::{Caller, Engine, EngineError, ErrorKind, Role};

use crate::object::{Member, Object, PointPart, Service, class, settings_uuid};
use crate::resources::owner;
use crate::schema::{Schema, Space};
use crate::server::Decode;

/// What every operation needs: the engine, and how it is seen.
pub(crate) struct Provider {
    /// For a reader: what changes something goes through the caller's own, which
    /// [`Provider::on_behalf_of`] gives.
    pub(crate) engine: Engine,
    pub(crate) schema: Schema,
    /// This host's name.
    pub(crate) host: String,
    /// Where the directories are in which the kernel describes this host, if it is
    /// described.
    pub(crate) root: Option<PathBuf>,
    /// Reads embedded instances.
    pub(crate) decode: Decode,
}

/// An engine's refusal as the error of an operation that is no method.
pub(crate) fn cim_error(error: EngineError) -> CimError {
    let status = match error.kind {
        ErrorKind::NotFound => Status::NotFound,
        ErrorKind::Exists => Status::AlreadyExists,
        ErrorKind::InvalidParameter | ErrorKind::InvalidType => Status::InvalidParameter,
        ErrorKind::NotSupported => Status::NotSupported,
        ErrorKind::AccessDenied => Status::AccessDenied,
        ErrorKind::InvalidState | ErrorKind::Timeout | ErrorKind::Cancelled | ErrorKind::Failed => {
            Status::Failed
        }
    };
    CimError::new(status, error.message)
}

/// What was found; that nothing was is no error here.
pub(crate) fn found<T>(result: Result<T, EngineError>) -> Result<Option<Arc<T>>, CimError> {
    match result {
        Ok(record) => Ok(Some(Arc::new(record))),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cim_error(error)),
    }
}

pub(crate) fn shared<T>(result: Result<Vec<T>, EngineError>) -> Result<Vec<Arc<T>>, CimError> {
    Ok(result
        .map_err(cim_error)?
        .into_iter()
        .map(Arc::new)
        .collect())
}

impl Provider {
    /// The engine, acting for the caller of an operation.
    pub(crate) fn on_behalf_of(&self, principal: &Principal) -> Engine {
        let role = match principal.role {
            isochron_cim::Role::Reader => Role::Reader,
            isochron_cim::Role::Operator => Role::Operator,
            isochron_cim::Role::Administrator => Role::Administrator,
        };
        self.engine.on_behalf_of(Caller {
            name: principal.name.clone(),
            role,
            face: principal.face,
            address: principal.address.map(|address| address.to_string()),
            unconfined: false,
        })
    }

    pub(crate) async fn machines(&self) -> Result<Vec<Arc<Machine>>, CimError> {
        shared(self.engine.machines().await)
    }

    pub(crate) async fn collections(&self) -> Result<Vec<Arc<Collection>>, CimError> {
        shared(self.engine.collections().await)
    }

    pub(crate) async fn snapshots(&self) -> Result<Vec<Arc<Snapshot>>, CimError> {
        shared(self.engine.snapshots(None).await)
    }

    pub(crate) async fn points(&self) -> Result<Vec<Arc<ReferencePoint>>, CimError> {
        shared(self.engine.reference_points(None).await)
    }

    pub(crate) async fn jobs(&self) -> Result<Vec<Arc<Job>>, CimError> {
        shared(self.engine.jobs().await)
    }

    /// All objects of a class (not of its subclasses), named as the schema does.
    pub(crate) async fn all(&self, class: &str) -> Result<Vec<Object>, CimError> {
        Ok(match class {
            class::COMPUTER_SYSTEM => {
                let machines = self.machines().await?.into_iter().map(Object::Machine);
                std::iter::once(Object::Host).chain(machines).collect()
            }
            class::SETTINGS => {
                let machines = self
                    .machines()
                    .await?
                    .into_iter()
                    .map(Object::MachineSettings);
                let snapshots = self.snapshots().await?;
                let members = snapshots
                    .iter()
                    .flat_map(Member::all)
                    .map(Object::MemberSettings);
                machines.chain(members).collect()
            }
            class::RESOURCE | class::PROCESSORS | class::MEMORY | class::STORAGE => {
                let mut resources = Vec::new();
                for machine in self.machines().await? {
                    resources.extend(self.resources(&machine).await?);
                }
                resources.retain(|resource| resource.class() == class);
                resources
            }
            class::HOST_SYSTEM
            | class::HOST_PRODUCT
            | class::OPERATING_SYSTEM
            | class::HOST_PROCESSOR => {
                let mut facts = self.facts().await?;
                facts.retain(|fact| fact.class() == class);
                facts
            }
            class::SYSTEM_COLLECTION => self.collections_of(CollectionKind::Machines).await?,
            class::MANAGEMENT_COLLECTION => {
                self.collections_of(CollectionKind::Collections).await?
            }
            class::SNAPSHOT_COLLECTION => self
                .snapshots()
                .await?
                .into_iter()
                .filter(|snapshot| snapshot.of_machine().is_none())
                .map(Object::SnapshotCollection)
                .collect(),
            class::POINT_COLLECTION => self
                .points()
                .await?
                .into_iter()
                .filter(|point| point.of_machine().is_none())
                .map(Object::PointCollection)
                .collect(),
            class::POINT => {
                let points = self.points().await?;
                let parts = points.iter().flat_map(PointPart::all);
                parts.map(Object::Point).collect()
            }
            class::JOB | class::POINT_EXPORT_JOB => {
                let jobs = self.jobs().await?.into_iter().map(Object::Job);
                jobs.filter(|job| job.class() == class).collect()
            }
            _ => self.fixed(class),
        })
    }

    async fn collections_of(&self, kind: CollectionKind) -> Result<Vec<Object>, CimError> {
        let all = self.collections().await?;
        Ok(all
            .into_iter()
            .filter(|c| c.kind == kind)
            .map(Object::Collection)
            .collect())
    }

    /// The objects of a class that are always there.
    fn fixed(&self, class: &str) -> Vec<Object> {
        match class {
            class::OBJECT_MANAGER => vec![Object::Server],
            class::CIMXML => vec![Object::CimXml],
            class::PROFILE => vec![Object::Profile],
            class::NAMESPACE => self.schema.names().map(Object::Namespace).collect(),
            class::MACHINE_CAPABILITIES | class::SNAPSHOT_CAPABILITIES => Service::ALL
                .into_iter()
                .filter(|service| service.capabilities() == Some(class))
                .map(Object::Capabilities)
                .collect(),
            _ => {
                let services = Service::ALL.into_iter().filter(|s| s.class() == class);
                services.map(Object::Service).collect()
            }
        }
    }

    /// The object of this path, which has its class's keys; the namespace is
    /// `space`'s. `None` if there is none.
    pub(crate) async fn find(
        &self,
        space: &Space,
        path: &ObjectPath,
    ) -> Result<Option<Object>, CimError> {
        let Some(class) = space.repository.get(&path.class) else {
            return Ok(None);
        };
        let id = |key: &str| {
            path.key_str(key)
                .and_then(|text| text.parse::<uuid::Uuid>().ok())
        };
        Ok(match class.name.as_str() {
            class::COMPUTER_SYSTEM => {
                if self.is(&Object::Host, path) {
                    Some(Object::Host)
                } else if key_is(path, "CreationClassName", class::COMPUTER_SYSTEM) {
                    self.machine(id("Name")).await?.map(Object::Machine)
                } else {
                    None
                }
            }
            class::SETTINGS => {
                let id = path.key_str("InstanceID").and_then(settings_uuid);
                match self.machine(id).await? {
                    Some(machine) => Some(Object::MachineSettings(machine)),
                    None => match id {
                        Some(id) => self
                            .member(MemberSnapshotId(id))
                            .await?
                            .map(Object::MemberSettings),
                        None => None,
                    },
                }
            }
            class::RESOURCE | class::PROCESSORS | class::MEMORY | class::STORAGE => {
                match self
                    .machine(path.key_str("InstanceID").and_then(owner))
                    .await?
                {
                    Some(machine) => {
                        let mut resources = self.resources(&machine).await?.into_iter();
                        resources.find(|resource| self.is(resource, path))
                    }
                    None => None,
                }
            }
            class::HOST_SYSTEM
            | class::HOST_PRODUCT
            | class::OPERATING_SYSTEM
            | class::HOST_PROCESSOR => {
                let mut facts = self.facts().await?.into_iter();
                facts.find(|fact| self.is(fact, path))
            }
            class::SYSTEM_COLLECTION | class::MANAGEMENT_COLLECTION => match id("CollectionID") {
                Some(id) => found(self.engine.collection(CollectionId(id)).await)?
                    .map(Object::Collection)
                    .filter(|object| path.class.is(object.class())),
                None => None,
            },
            class::SNAPSHOT_COLLECTION => match id("CollectionID") {
                Some(id) => self
                    .snapshot(SnapshotId(id))
                    .await?
                    .filter(|snapshot| snapshot.of_machine().is_none())
                    .map(Object::SnapshotCollection),
                None => None,
            },
            class::POINT_COLLECTION => match id("CollectionID") {
                Some(id) => self
                    .point(ReferencePointId(id))
                    .await?
                    .filter(|point| point.of_machine().is_none())
                    .map(Object::PointCollection)
                    .filter(|object| self.is(object, path)),
                None => None,
            },
            class::POINT => match path.key_str("InstanceID").and_then(settings_uuid) {
                Some(id) => self
                    .point_part(MemberPointId(id))
                    .await?
                    .map(Object::Point)
                    .filter(|object| self.is(object, path)),
                None => None,
            },
            name @ (class::JOB | class::POINT_EXPORT_JOB) => match id("InstanceID") {
                Some(id) => found(self.engine.job(JobId(id)).await)?
                    .map(Object::Job)
                    .filter(|object| object.class() == name),
                None => None,
            },
            name => self
                .fixed(name)
                .into_iter()
                .find(|object| self.is(object, path)),
        })
    }

    async fn machine(&self, id: Option<uuid::Uuid>) -> Result<Option<Arc<Machine>>, CimError> {
        match id {
            Some(id) => found(self.engine.machine(MachineId(id)).await),
            None => Ok(None),
        }
    }

    pub(crate) async fn snapshot(&self, id: SnapshotId) -> Result<Option<Arc<Snapshot>>, CimError> {
        found(self.engine.snapshot(id).await)
    }

    /// A member's snapshot.
    pub(crate) async fn member(&self, id: MemberSnapshotId) -> Result<Option<Member>, CimError> {
        // A single machine's snapshot shares its identifier with the whole.
        if let Some(single) = self.snapshot(SnapshotId(id.0)).await? {
            return Ok(Member::find(&single, |m| m.id == id));
        }
        let snapshot = self.engine.snapshot_with(id).await.map_err(cim_error)?;
        Ok(snapshot.and_then(|snapshot| Member::find(&snapshot.into(), |m| m.id == id)))
    }

    pub(crate) async fn point(
        &self,
        id: ReferencePointId,
    ) -> Result<Option<Arc<ReferencePoint>>, CimError> {
        found(self.engine.reference_point(id).await)
    }

    /// A machine's part of a reference point.
    async fn point_part(&self, id: MemberPointId) -> Result<Option<PointPart>, CimError> {
        // That of a single machine shares its identifier with the whole.
        if let Some(single) = self.point(ReferencePointId(id.0)).await? {
            return Ok(PointPart::find(&single, |part| part.id == id));
        }
        let point = self.engine.reference_point_with(id).await;
        let point = point.map_err(cim_error)?;
        Ok(point.and_then(|point| PointPart::find(&point.into(), |part| part.id == id)))
    }

    /// Whether that is the object's path. The host's name counts without case.
    fn is(&self, object: &Object, path: &ObjectPath) -> bool {
        let own = object.path(&self.host);
        path.class == own.class
            && path.keys.len() == own.keys.len()
            && own.keys.iter().all(|(name, value)| {
                value
                    .as_str()
                    .is_some_and(|text| key_is(path, name.as_str(), text))
            })
    }

    /// The object that a reference in a method call names, or why there is none.
    /// A reference may leave out the namespace, and may name either of the two
    /// whose objects are the same.
    pub(crate) async fn resolve(
        &self,
        space: &Space,
        parameter: &str,
        reference: &ObjectPath,
    ) -> Result<Object, EngineError> {
        let path = self.complete(space, parameter, reference)?;
        let object = self.find(space, &path).await.map_err(|error| {
            EngineError::new(ErrorKind::Failed, format!("{parameter}: {}", error.message))
        })?;
        object.ok_or_else(|| {
            EngineError::new(
                ErrorKind::NotFound,
                format!("{parameter}: there is no {path}"),
            )
        })
    }

    /// The reference with keys of their class's types and without namespace.
    pub(crate) fn complete(
        &self,
        space: &Space,
        parameter: &str,
        reference: &ObjectPath,
    ) -> Result<ObjectPath, EngineError> {
        let refuse = |why: String| {
            EngineError::new(ErrorKind::InvalidParameter, format!("{parameter}: {why}"))
        };
        if let Some(namespace) = &reference.namespace {
            let same = self.schema.find(namespace).filter(|other| {
                other.name == space.name || (other.is_hyperv() && space.is_hyperv())
            });
            if same.is_none() {
                return Err(refuse(format!(
                    "{reference} is not in the namespace {}",
                    space.name
                )));
            }
        }
        if space.repository.get(&reference.class).is_none() {
            return Err(refuse(format!("there is no class {}", reference.class)));
        }
        space
            .repository
            .complete_path(reference.relative())
            .map_err(|error| refuse(error.message))
    }
}

fn key_is(path: &ObjectPath, key: &str, text: &str) -> bool {
    path.key_str(key)
        .is_some_and(|value| Name::from(value).is(text))
}
