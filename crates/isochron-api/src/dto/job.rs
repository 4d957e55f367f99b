//! Jobs on the wire.

use isochron_engine::model;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Error, JobExport, same_variants};

/// A job: what runs after a call has returned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Job {
    /// Its identifier.
    pub id: Uuid,
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
    /// Who asked for it, where that is known.
    pub owner: Option<String>,
    /// The collection that it works on.
    pub collection_id: Option<Uuid>,
    /// The snapshot that it makes, applies, exports or destroys.
    pub snapshot_id: Option<Uuid>,
    /// The reference point that it makes, exports or destroys.
    pub point_id: Option<Uuid>,
    /// What it exports, and how far that is.
    pub export: Option<JobExport>,
    /// The element that it affects; null when it failed.
    pub affected: Option<Affected>,
    /// When it started.
    #[serde(with = "time::serde::rfc3339")]
    pub started_at: OffsetDateTime,
    /// When its state last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub changed_at: OffsetDateTime,
    /// When it ended.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    pub ended_at: Option<OffsetDateTime>,
    /// Why it failed.
    pub error: Option<Error>,
}

impl Job {
    /// Whether it has ended.
    pub fn ended(&self) -> bool {
        self.state != JobState::Running
    }
}

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
    /// Lets a machine run on.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "kind", content = "id")]
pub enum Affected {
    /// A snapshot.
    Snapshot(Uuid),
    /// A collection.
    Collection(Uuid),
    /// A machine.
    Machine(Uuid),
    /// A reference point.
    ReferencePoint(Uuid),
}

same_variants!(
    JobKind = model::JobKind {
        CreateSnapshot,
        ApplySnapshot,
        DestroySnapshot,
        ExportSnapshot,
        ConvertSnapshot,
        CreateReferencePoint,
        DestroyReferencePoint,
        ExportReferencePoint,
        RemoveReferencePointData,
        StartMachine,
        RestoreMachine,
        ResumeMachine,
        PauseMachine,
        SaveMachine,
        ShutDownMachine,
        TurnOffMachine,
        ModifyMachine,
        DestroyMachine,
    }
);
same_variants!(
    JobState = model::JobState {
        Running,
        Completed,
        Cancelled,
        Failed
    }
);

impl From<model::Job> for Job {
    fn from(job: model::Job) -> Self {
        Self {
            id: job.id.0,
            kind: job.kind.into(),
            state: job.state.into(),
            percent: job.percent,
            step: job.step,
            cancellable: job.cancellable,
            owner: job.owner,
            collection_id: job.collection.map(|id| id.0),
            snapshot_id: job.snapshot.map(|id| id.0),
            point_id: job.point.map(|id| id.0),
            export: job.export.map(Into::into),
            affected: job.affected.map(|affected| match affected {
                model::Affected::Snapshot(id) => Affected::Snapshot(id.0),
                model::Affected::Collection(id) => Affected::Collection(id.0),
                model::Affected::Machine(id) => Affected::Machine(id.0),
                model::Affected::ReferencePoint(id) => Affected::ReferencePoint(id.0),
            }),
            started_at: job.started_at,
            changed_at: job.changed_at,
            ended_at: job.ended_at,
            error: job.error.map(|error| Error {
                kind: error.kind.into(),
                message: error.message,
            }),
        }
    }
}
