//! Who asks, what they may, and the record of what they did.
//!
//! This is the one place where a role decides: every method of [`Engine`] that
//! changes something goes through [`Engine::perform`], which knows its
//! [`Operation`], refuses whoever has a lesser role than that takes
//! (`AccessDenied`), and tells the [`Audit`] what came of it, refusals included.
//! Faces only say who is there, with [`Engine::on_behalf_of`], and translate the
//! refusal.
//!
//! An engine as [`Engine::open`] makes it acts for the daemon itself and may do
//! everything; a face keeps one for a reader and takes another per request.

use std::fmt::{self, Display};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::model::{CollectionId, JobId, MachineId, ReferencePointId, SnapshotId};
use crate::{Engine, EngineError, ErrorKind};

/// What a caller may do. Each role may do what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Look.
    Reader,
    /// Work with what there is: snapshots, and the power of machines.
    Operator,
    /// Define what there is: machines, collections, users.
    Administrator,
}

impl Role {
    /// All, the least first.
    pub const ALL: [Self; 3] = [Self::Reader, Self::Operator, Self::Administrator];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Operator => "operator",
            Self::Administrator => "administrator",
        }
    }
}

impl Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| {
            format!("{text:?} is no role; there are reader, operator and administrator")
        })
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The name, where it is known.
    pub name: Option<String>,
    /// What they may do.
    pub role: Role,
    /// Through which face they came: `unix`, `http`, `cim-xml`, ...
    pub face: &'static str,
    /// From which address, where there is one.
    pub address: Option<String>,
    /// Whether the paths that they name may be anywhere on this host, as root's
    /// may. Others' lie below [`Config::roots`](crate::Config::roots); see
    /// [`Engine::confine`].
    pub unconfined: bool,
}

impl Caller {
    /// The daemon itself: everything is allowed.
    pub fn daemon() -> Self {
        Self {
            name: None,
            role: Role::Administrator,
            face: "daemon",
            address: None,
            unconfined: true,
        }
    }

    /// A face that looks for nobody in particular.
    pub fn reader(face: &'static str) -> Self {
        Self {
            name: None,
            role: Role::Reader,
            face,
            address: None,
            unconfined: false,
        }
    }

    /// A user of this name, who came through a face.
    pub fn user(name: impl Into<String>, role: Role, face: &'static str) -> Self {
        Self {
            name: Some(name.into()),
            role,
            ..Self::reader(face)
        }
    }

    /// `AccessDenied` unless the caller has at least this role.
    ///
    /// # Errors
    /// `AccessDenied`, with both roles.
    pub fn require(&self, role: Role) -> Result<(), EngineError> {
        if self.role >= role {
            return Ok(());
        }
        let who = self.name.as_deref().unwrap_or("the caller");
        Err(EngineError::new(
            ErrorKind::AccessDenied,
            format!(
                "{who} has the role {}; this takes the role {role}",
                self.role
            ),
        ))
    }
}

/// Declares the operations: variant, name in the audit log, role that it takes.
macro_rules! operations {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $role:ident;)*) => {
        /// What changes something, and the role that it takes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Operation {
            $($(#[$doc])* $variant,)*
        }

        impl Operation {
            /// All.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name, as the audit log has it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The least role that may.
            pub fn role(self) -> Role {
                match self {
                    $(Self::$variant => Role::$role,)*
                }
            }
        }
    };
}

operations! {
    /// A snapshot of a collection.
    CreateSnapshot = "create-snapshot", Operator;
    /// A collection's return to a snapshot.
    ApplySnapshot = "apply-snapshot", Operator;
    /// A snapshot's end.
    DestroySnapshot = "destroy-snapshot", Operator;
    /// Another name or other notes for a snapshot.
    ModifySnapshot = "modify-snapshot", Operator;
    /// A snapshot, or what changed since a reference point, written to a directory.
    Export = "export", Operator;
    /// A reference point made of a snapshot or of now.
    CreateReferencePoint = "create-reference-point", Operator;
    /// A reference point's end, or its data's.
    DestroyReferencePoint = "destroy-reference-point", Operator;
    /// A job's cancellation.
    CancelJob = "cancel-job", Operator;
    /// A call that was refused, kept as a job that says why.
    RecordRefusal = "record-refusal", Operator;
    /// A call that its face refused, so that no other operation began.
    CallMethod = "call-method", Operator;
    /// A machine's start.
    StartMachine = "start-machine", Operator;
    /// A guest's shutdown.
    ShutDownMachine = "shut-down-machine", Operator;
    /// A process's end.
    KillMachine = "kill-machine", Operator;
    /// A guest's halt.
    PauseMachine = "pause-machine", Operator;
    /// A guest's going on.
    ResumeMachine = "resume-machine", Operator;
    /// A guest's halt with its memory on disk.
    SaveMachine = "save-machine", Operator;
    /// A new machine.
    DefineMachine = "define-machine", Administrator;
    /// A machine whose process is its owner's.
    AttachMachine = "attach-machine", Administrator;
    /// A machine forgotten.
    UndefineMachine = "undefine-machine", Administrator;
    /// Another name or other notes for a machine.
    ModifyMachine = "modify-machine", Administrator;
    /// A new collection.
    CreateCollection = "create-collection", Administrator;
    /// Another name for a collection.
    RenameCollection = "rename-collection", Administrator;
    /// A collection's end.
    DestroyCollection = "destroy-collection", Administrator;
    /// A new member.
    AddMember = "add-member", Administrator;
    /// A member's leaving.
    RemoveMember = "remove-member", Administrator;
    /// A new user.
    AddUser = "add-user", Administrator;
    /// A user's end.
    RemoveUser = "remove-user", Administrator;
    /// Another password for a user.
    ChangePassword = "change-password", Administrator;
    /// Another role for a user.
    ChangeRole = "change-role", Administrator;
}

impl Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What somebody did, or was refused.
#[derive(Clone, Copy, Debug)]
pub struct Act<'a> {
    /// Who.
    pub caller: &'a Caller,
    /// What.
    pub operation: Operation,
    /// To what.
    pub target: &'a str,
    /// Why it was refused or failed, if it was or did. Of a job only its start is
    /// told here; its end is in its record.
    pub error: Option<&'a EngineError>,
}

/// Remembers what was done. Must not wait: it is called between the operation and
/// its answer.
pub trait Audit: Send + Sync + 'static {
    /// Remembers an act.
    fn record(&self, act: Act<'_>);
}

/// What an [`Engine`] knows of the one for whom it acts.
#[derive(Clone)]
pub(crate) struct Acting {
    caller: Arc<Caller>,
    audit: Option<Arc<dyn Audit>>,
    /// Whether the audit was told of anything that this caller did.
    told: Arc<AtomicBool>,
}

impl Acting {
    pub(crate) fn daemon() -> Self {
        Self {
            caller: Arc::new(Caller::daemon()),
            audit: None,
            told: Arc::default(),
        }
    }
}

impl Engine {
    /// The same engine, acting for this caller.
    #[must_use]
    pub fn on_behalf_of(&self, caller: Caller) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            acting: Acting {
                caller: Arc::new(caller),
                audit: self.acting.audit.clone(),
                told: Arc::default(),
            },
        }
    }

    /// The same engine; what is done through it and those taken from it is told
    /// to `audit`.
    #[must_use]
    pub fn audited(&self, audit: Arc<dyn Audit>) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            acting: Acting {
                caller: Arc::clone(&self.acting.caller),
                audit: Some(audit),
                told: Arc::default(),
            },
        }
    }

    /// For whom it acts.
    pub fn caller(&self) -> &Caller {
        &self.acting.caller
    }

    /// Does something that changes something, if the caller may, and tells the
    /// audit what came of it. `target` names what it is done to, for a person.
    ///
    /// # Errors
    /// `AccessDenied`, and then nothing was done; what `work` says.
    pub async fn perform<T>(
        &self,
        operation: Operation,
        target: impl Display,
        work: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<T, EngineError> {
        let caller = self.caller();
        let result = match caller.require(operation.role()) {
            Ok(()) => work.await,
            Err(denied) => Err(denied),
        };
        self.tell(operation, &target.to_string(), result.as_ref().err());
        result
    }

    /// Tells the audit of a call that a face refused, such as one with parameters that
    /// make no sense. Where the caller was taken for this call alone and this engine
    /// has told of it already, nothing is told twice.
    pub fn tell_refused(&self, target: impl Display, error: &EngineError) {
        if !self.acting.told.load(Ordering::Relaxed) {
            self.tell(Operation::CallMethod, &target.to_string(), Some(error));
        }
    }

    fn tell(&self, operation: Operation, target: &str, error: Option<&EngineError>) {
        let Some(audit) = &self.acting.audit else {
            return;
        };
        self.acting.told.store(true, Ordering::Relaxed);
        audit.record(Act {
            caller: self.caller(),
            operation,
            target,
            error,
        });
    }

    /// A machine as an act's target: with its name, where it has a record.
    pub(crate) async fn machine_target(&self, id: MachineId) -> String {
        match self.inner.machine(id).await {
            Ok(machine) => format!("machine {} ({id})", machine.name),
            Err(_) => format!("machine {id}"),
        }
    }

    /// A collection as an act's target.
    pub(crate) async fn collection_target(&self, id: CollectionId) -> String {
        match self.inner.collection(id).await {
            Ok(collection) => format!("collection {} ({id})", collection.name),
            Err(_) => format!("collection {id}"),
        }
    }

    /// A snapshot as an act's target.
    pub(crate) async fn snapshot_target(&self, id: SnapshotId) -> String {
        match self.inner.snapshot(id).await {
            Ok(snapshot) => format!("snapshot {} ({id})", snapshot.name),
            Err(_) => format!("snapshot {id}"),
        }
    }

    /// A reference point as an act's target.
    pub(crate) async fn point_target(&self, id: ReferencePointId) -> String {
        match self.inner.point(id).await {
            Ok(point) => format!("reference point {} ({id})", point.name),
            Err(_) => format!("reference point {id}"),
        }
    }

    /// A job as an act's target.
    pub(crate) fn job_target(id: JobId) -> String {
        format!("job {id}")
    }
}
