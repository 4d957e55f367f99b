//! Jobs: what runs after a call has returned.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{CollectionId, JobExport, JobId, MachineId, ReferencePointId, SnapshotId};
use crate::ErrorKind;

/// A job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its identifier.
    pub id: JobId,
    /// What it does.
    pub kind: JobKind,
    /// Where it stands.
    pub state: JobState,
    /// 0 to 100; 100 only when it has ended.
    pub percent: u8,
    /// What it is doing now, in words.
    pub step: String,
    /// Whether it can be cancelled now.
    pub cancellable: bool,
    /// Who asked for it.
    pub owner: Option<String>,
    /// The collection that it works on; or, as a collection of one, the machine.
    pub collection: Option<CollectionId>,
    /// The snapshot collection that it makes, applies, exports or destroys.
    pub snapshot: Option<SnapshotId>,
    /// The reference point that it makes, exports or destroys.
    #[serde(default)]
    pub point: Option<ReferencePointId>,
    /// What it exports.
    #[serde(default)]
    pub export: Option<JobExport>,
    /// The element that it affects, for CIM's AffectedJobElement; empty when it
    /// failed.
    pub affected: Option<Affected>,
    /// When it started.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When its state last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub changed_at: OffsetDateTime,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// Why it failed.
    pub error: Option<JobError>,
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// Takes a snapshot of a collection.
    CreateSnapshot,
    /// Returns a collection to a snapshot.
    ApplySnapshot,
    /// Destroys a snapshot.
    DestroySnapshot,
    /// Exports a snapshot.
    ExportSnapshot,
    /// Turns a snapshot into a reference point.
    ConvertSnapshot,
    /// Creates a reference point.
    CreateReferencePoint,
    /// Destroys a reference point.
    DestroyReferencePoint,
    /// Exports what changed since a reference point.
    ExportReferencePoint,
    /// Removes what a reference point keeps.
    RemoveReferencePointData,
    /// Starts a machine.
    StartMachine,
    /// Starts a machine from its saved memory.
    RestoreMachine,
    /// Lets a machine run on, or finds it running.
    ResumeMachine,
    /// Lets a machine stand still.
    PauseMachine,
    /// Saves a machine's memory and ends its process.
    SaveMachine,
    /// Has a machine's guest shut down.
    ShutDownMachine,
    /// Ends a machine's process at once.
    TurnOffMachine,
    /// Changes what a machine or a snapshot is called.
    ModifyMachine,
    /// Forgets a machine.
    DestroyMachine,
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Under way.
    Running,
    /// Done.
    Completed,
    /// Cancelled by its caller; nothing was changed.
    Cancelled,
    /// Failed; nothing was changed.
    Failed,
}

/// What a job affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "id")]
pub enum Affected {
    /// A snapshot collection.
    Snapshot(SnapshotId),
    /// A collection.
    Collection(CollectionId),
    /// A machine.
    Machine(MachineId),
    /// A reference point.
    ReferencePoint(ReferencePointId),
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobError {
    /// The kind.
    pub kind: ErrorKind,
    /// The sentence.
    pub message: String,
}

impl Job {
    /// Whether it has ended.
    pub fn ended(&self) -> bool {
        self.state != JobState::Running
    }
}
