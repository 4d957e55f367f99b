//! Method calls: each checks its parameters, asks the engine and answers with a
//! return code of its family.
//!
//! A call that is a valid CIM call never ends in a CIM error: what is wrong with
//! it is a return code and, where there is a job to say it, the message of a job
//! that failed before it began. Either way the audit is told of it, once, by
//! [`Attempt::tell`], where the engine has not told of it.

mod exports;
mod job;
mod machine;
mod machine_points;
mod machine_service;
mod machine_snapshots;
mod management;
mod points;
mod snapshots;

use std::sync::{Arc, OnceLock};

use indexmap::IndexMap;
use isochron_cim::{
    CimError, CimType, Method, Name, ObjectPath, Outcome, RequestContext, Status, TypedValue, Value,
};
use isochron_engine::model::{Collection, JobKind, Machine, ReferencePoint, Snapshot};
use isochron_engine::{Engine, EngineError, ErrorKind};

use crate::codes::{ServiceReturn, StateChangeReturn};
use crate::lookup::{Provider, cim_error};
use crate::object::{Object, Service, job_path};
use crate::schema::Space;

/// A call on an object, its in-parameters of the types declared.
struct Call<'a> {
    provider: &'a Provider,
    space: &'a Space,
    method: &'a Method,
    parameters: IndexMap<Name, TypedValue>,
    /// Who calls.
    owner: Option<String>,
    /// The engine, acting for who calls.
    engine: Engine,
    attempt: &'a Attempt,
}

/// Methods that change nothing, so that nobody needs to know who tried them.
const TELLING: [&str; 5] = [
    "FormatError",
    "GetError",
    "GetErrorEx",
    "GetSizeOfSystemFiles",
    "GetSummaryInformation",
];

/// A call as an act of somebody.
pub(crate) struct Attempt {
    /// The engine, acting for who calls, in this call alone.
    engine: Engine,
    /// Why it is refused, where a code says so.
    refusal: OnceLock<EngineError>,
}

impl Attempt {
    /// An attempt of who asks.
    pub(crate) fn new(provider: &Provider, cx: &RequestContext) -> Self {
        Self {
            engine: provider.on_behalf_of(&cx.principal),
            refusal: OnceLock::new(),
        }
    }

    /// Tells the audit if the call was refused and the engine did not tell.
    pub(crate) fn tell(&self, class: &Name, method: &Name, result: &Result<Outcome, CimError>) {
        if TELLING.iter().any(|telling| method.is(telling)) {
            return;
        }
        let target = format!("{class}.{method}");
        match result {
            Err(error) => {
                let kind = match error.status {
                    Status::AccessDenied => ErrorKind::AccessDenied,
                    _ => ErrorKind::Failed,
                };
                let error = EngineError::new(kind, &error.message);
                self.engine.tell_refused(target, &error);
            }
            Ok(outcome) => match outcome.return_value.value {
                Some(Value::Uint32(0 | 4096)) => {}
                Some(Value::Uint32(code)) => {
                    let coded =
                        || EngineError::new(ErrorKind::Failed, format!("it returned {code}"));
                    let error = self.refusal.get_or_init(coded);
                    self.engine.tell_refused(target, error);
                }
                _ => {}
            },
        }
    }
}

/// Calls a method that the object's class has.
pub(crate) async fn invoke(
    provider: &Provider,
    space: &Space,
    attempt: &Attempt,
    object: &Object,
    name: &Name,
    parameters: IndexMap<Name, TypedValue>,
) -> Result<Outcome, CimError> {
    let not_available = || {
        CimError::new(
            Status::MethodNotAvailable,
            format!("{name} of {} cannot be called here", object.class()),
        )
    };
    let class = space.repository.get(&Name::fixed(object.class()));
    let Some((name, method)) = class.and_then(|class| class.methods.get_key_value(name)) else {
        return Err(not_available());
    };
    let engine = attempt.engine.clone();
    let call = Call {
        provider,
        space,
        method,
        parameters,
        owner: engine.caller().name.clone(),
        engine,
        attempt,
    };
    let outcome = match (object, name.as_str()) {
        (Object::Service(_), "StartService" | "StopService" | "RequestStateChange") => {
            Some(call.reply(StateChangeReturn::NotSupported, []))
        }
        (Object::Service(Service::Snapshots), name) => snapshots::invoke(&call, name).await?,
        (Object::Service(Service::Management), name) => management::invoke(&call, name).await?,
        (Object::Service(Service::ReferencePoints), name) => points::invoke(&call, name).await?,
        (Object::Job(job), name) => job::invoke(&call, job, name).await?,
        (Object::Service(Service::MachineSnapshots), name) => {
            machine_snapshots::invoke(&call, name).await?
        }
        (Object::Service(Service::Machines), name) => machine_service::invoke(&call, name).await?,
        (Object::Service(Service::MachineReferencePoints), name) => {
            machine_points::invoke(&call, name).await?
        }
        (Object::Machine(machine), name) => machine::invoke(&call, machine.id, name).await?,
        _ => None,
    };
    outcome.ok_or_else(not_available)
}

/// A parameter that makes no sense.
fn invalid(message: impl std::fmt::Display) -> EngineError {
    EngineError::new(ErrorKind::InvalidParameter, message)
}

impl Call<'_> {
    /// An in-parameter's value.
    fn value(&self, name: &str) -> Option<&Value> {
        self.parameters.get(&Name::from(name))?.value.as_ref()
    }

    /// A text; empty is absent.
    fn text(&self, name: &str) -> Option<&str> {
        self.value(name)?
            .as_str()
            .map(str::trim)
            .filter(|text| !text.is_empty())
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.value(name)?.as_u64()
    }

    fn reference(&self, name: &str) -> Option<&ObjectPath> {
        self.value(name)?.as_reference()
    }

    /// The object that a reference names.
    async fn object(&self, name: &str) -> Result<Object, EngineError> {
        let reference = self
            .reference(name)
            .ok_or_else(|| invalid(format!("{name} is missing")))?;
        self.provider.resolve(self.space, name, reference).await
    }

    /// The collection of machines or collections that a reference names.
    async fn collection(&self, name: &str) -> Result<Arc<Collection>, EngineError> {
        match self.object(name).await? {
            Object::Collection(collection) => Ok(collection),
            other => Err(invalid(format!(
                "{name} names a {}, not a collection",
                other.class()
            ))),
        }
    }

    /// The virtual machine that a reference names.
    async fn machine(&self, name: &str) -> Result<Arc<Machine>, EngineError> {
        match self.object(name).await? {
            Object::Machine(machine) => Ok(machine),
            Object::Host => Err(invalid(format!("{name} names the host, not a machine"))),
            other => Err(invalid(format!(
                "{name} names a {}, not a virtual machine",
                other.class()
            ))),
        }
    }

    /// The snapshot collection that a reference names.
    async fn snapshot(&self, name: &str) -> Result<Arc<Snapshot>, EngineError> {
        match self.object(name).await? {
            Object::SnapshotCollection(snapshot) => Ok(snapshot),
            other => Err(invalid(format!(
                "{name} names a {}, not a snapshot collection",
                other.class()
            ))),
        }
    }

    /// The reference point of a collection that a reference names.
    async fn point(&self, name: &str) -> Result<Arc<ReferencePoint>, EngineError> {
        match self.object(name).await? {
            Object::PointCollection(point) => Ok(point),
            other => Err(invalid(format!(
                "{name} names a {}, not a reference point collection",
                other.class()
            ))),
        }
    }

    /// Remembers why it is refused, for the audit: a code alone says little.
    fn because(&self, error: &EngineError) {
        let _ = self.attempt.refusal.set(error.clone());
    }

    /// A reference in the namespace of the call.
    fn path(&self, path: ObjectPath) -> Value {
        Value::from(path.in_namespace(self.space.name))
    }

    /// A refusal of the services' first family: its code, and a job that failed
    /// before it began, whose ErrorDescription says why.
    async fn refuse(&self, kind: JobKind, error: &EngineError) -> Result<Outcome, CimError> {
        // The family has no word for it.
        if error.kind == ErrorKind::AccessDenied {
            return Err(cim_error(error.clone()));
        }
        self.refuse_as(kind, error, ServiceReturn::from(error.kind))
            .await
    }

    /// A refusal with the code of another family. Who may not do it leaves no job.
    async fn refuse_as(
        &self,
        kind: JobKind,
        error: &EngineError,
        code: impl Into<u32>,
    ) -> Result<Outcome, CimError> {
        self.because(error);
        if error.kind == ErrorKind::AccessDenied {
            return Ok(self.reply(code, []));
        }
        let owner = self.owner.clone();
        let job = self.engine.record_refusal(kind, owner, error).await;
        let job = self.path(job_path(job.map_err(cim_error)?));
        Ok(self.reply(code, [("Job", job)]))
    }

    /// An outcome with every out-parameter declared; those not given are null.
    fn reply<const N: usize>(&self, code: impl Into<u32>, given: [(&str, Value); N]) -> Outcome {
        let mut given: IndexMap<Name, Value> = given
            .into_iter()
            .map(|(name, value)| (Name::from(name), value))
            .collect();
        let declared = self
            .method
            .parameters
            .iter()
            .filter(|(_, parameter)| parameter.is_out());
        let parameters = declared.map(|(name, parameter)| {
            let value = TypedValue {
                ty: parameter.ty.clone(),
                is_array: parameter.is_array,
                value: given.swap_remove(name),
            };
            (name.clone(), value)
        });
        Outcome {
            parameters: parameters.collect(),
            return_value: TypedValue {
                ty: CimType::Uint32,
                is_array: false,
                value: Some(Value::Uint32(code.into())),
            },
        }
    }
}
