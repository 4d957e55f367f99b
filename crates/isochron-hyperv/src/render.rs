//! Describes objects as instances: what each property of a class says of a record.
//! Properties that nothing is known about stay null.

mod collections;
mod host;
mod interop;
mod jobs;
mod machines;
mod points;
mod resources;
mod services;
mod snapshots;
mod summary;

pub(crate) use jobs::{effects, errors};
pub(crate) use snapshots::evidence;
pub(crate) use summary::Wanted;

use std::sync::Arc;

use isochron_cim::{CimError, Instance, ObjectPath, Value};
use isochron_engine::model::{Job, JobKind, Machine, MachineId, SnapshotId};
use isochron_engine::{EngineError, MachineView};
use time::OffsetDateTime;

use crate::lookup::{Provider, found};
use crate::object::{Member, Object};
use crate::schema::Space;

impl Provider {
    /// The object as an instance with its path, seen through a namespace.
    pub(crate) async fn render(
        &self,
        space: &Space,
        object: &Object,
    ) -> Result<Instance, CimError> {
        let mut instance = Instance::new(object.class());
        match object {
            Object::Facts(facts, fact) => host::fact(facts, *fact, &self.host, &mut instance),
            Object::Host => machines::host(&self.host, &mut instance),
            Object::Machine(machine) => {
                let view = self.engine.machine_view(machine.id).await;
                machines::machine(machine, view, &mut instance);
                if let Some(job) = self.at_work_on(machine).await? {
                    machines::busy(job, &mut instance);
                }
            }
            Object::MachineSettings(machine) => {
                let parent = self.current(machine).await?;
                machines::settings(machine, &self.engine.config().state, &mut instance);
                self.set_parent(space, parent.map(Object::MemberSettings), &mut instance);
            }
            Object::MemberSettings(member) => {
                snapshots::member(member, &self.engine.config().state, &mut instance);
                let parent = match member.record().parent {
                    Some(id) => self.member(id).await?,
                    None => None,
                };
                self.set_parent(space, parent.map(Object::MemberSettings), &mut instance);
            }
            Object::Resource(machine, resource) => {
                resources::resource(machine, resource, &mut instance);
                let parent = resource.parent();
                let parent = parent.map(|parent| Object::Resource(machine.clone(), parent));
                self.set_parent(space, parent, &mut instance);
            }
            Object::Collection(collection) => collections::collection(collection, &mut instance),
            Object::SnapshotCollection(snapshot) => snapshots::collection(snapshot, &mut instance),
            Object::PointCollection(point) => points::collection(point, &mut instance),
            Object::Point(part) => points::part(part, &mut instance),
            Object::Job(job) => {
                let (now, kept) = (
                    OffsetDateTime::now_utc(),
                    self.engine.config().job_retention,
                );
                let single = self.works_on_a_machine(job).await?;
                jobs::job(job, single, kept, now, &mut instance);
            }
            Object::Service(service) => services::service(*service, &mut instance),
            Object::Capabilities(service) => services::capabilities(*service, &mut instance),
            Object::Server => interop::object_manager(&mut instance),
            Object::Namespace(name) => interop::namespace(name, &mut instance),
            Object::CimXml => interop::cimxml(&mut instance),
            Object::Profile => interop::profile(&mut instance),
        }
        self.finish(space, object, instance)
    }

    /// A virtual machine as it is, or was, at a moment.
    pub(crate) fn render_machine(
        &self,
        space: &Space,
        machine: &Arc<Machine>,
        view: Result<MachineView, EngineError>,
    ) -> Result<Instance, CimError> {
        let object = Object::Machine(Arc::clone(machine));
        let mut instance = Instance::new(object.class());
        machines::machine(machine, view, &mut instance);
        self.finish(space, &object, instance)
    }

    /// Whether a job works on a single machine.
    async fn works_on_a_machine(&self, job: &Job) -> Result<bool, CimError> {
        let Some(collection) = job.collection else {
            return Ok(false);
        };
        let machine = self.engine.machine(MachineId(collection.0)).await;
        Ok(found(machine)?.is_some())
    }

    /// The job under way that a machine takes part in.
    pub(crate) async fn at_work_on(&self, machine: &Machine) -> Result<Option<JobKind>, CimError> {
        for job in self.jobs().await?.iter().filter(|job| !job.ended()) {
            let Some(collection) = job.collection else {
                continue;
            };
            if collection == machine.id.into() {
                return Ok(Some(job.kind));
            }
            // It may be gone since.
            let members = self
                .engine
                .machines_of(collection)
                .await
                .unwrap_or_default();
            if members.iter().any(|member| member.id == machine.id) {
                return Ok(Some(job.kind));
            }
        }
        Ok(None)
    }

    /// Adds path, keys, and the properties that are null.
    fn finish(
        &self,
        space: &Space,
        object: &Object,
        mut instance: Instance,
    ) -> Result<Instance, CimError> {
        let path = object.path(&self.host);
        for (name, value) in &path.keys {
            instance.set(name.clone(), value.clone());
        }
        let mut instance = space.repository.complete(instance)?;
        instance.path = Some(path.in_namespace(space.name));
        Ok(instance)
    }

    /// The member's snapshot that a machine grew from.
    pub(crate) async fn current(&self, machine: &Machine) -> Result<Option<Member>, CimError> {
        self.member_of(machine, machine.current).await
    }

    /// A machine's part of a snapshot.
    pub(crate) async fn member_of(
        &self,
        machine: &Machine,
        snapshot: Option<SnapshotId>,
    ) -> Result<Option<Member>, CimError> {
        let Some(id) = snapshot else { return Ok(None) };
        let snapshot = self.snapshot(id).await?;
        Ok(snapshot.and_then(|snapshot| Member::find(&snapshot, |m| m.machine == machine.id)))
    }

    /// Parent is text: an object path.
    fn set_parent(&self, space: &Space, parent: Option<Object>, instance: &mut Instance) {
        if let Some(parent) = parent {
            instance.set("Parent", self.path(space, &parent).to_string());
        }
    }

    /// The object's path in a namespace.
    pub(crate) fn path(&self, space: &Space, object: &Object) -> ObjectPath {
        object.path(&self.host).in_namespace(space.name)
    }
}

/// What every element that works says of itself.
fn healthy(instance: &mut Instance) {
    status(instance, &[(2, "OK")], 5);
}

/// OperationalStatus with its words, and HealthState (5 OK, 20 major failure).
fn status(instance: &mut Instance, operational: &[(u16, &str)], health: u16) {
    let codes: Vec<u16> = operational.iter().map(|(code, _)| *code).collect();
    let words: Vec<&str> = operational.iter().map(|(_, words)| *words).collect();
    instance.set("Status", words.first().copied().unwrap_or_default());
    instance.set("OperationalStatus", codes);
    instance.set("StatusDescriptions", words);
    instance.set("HealthState", health);
}

/// Sets a property where there is a value.
fn set_some(instance: &mut Instance, name: &'static str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        instance.set(name, value);
    }
}
