//! Exports on the wire: what is asked for, how far it is, and what was finished.

use std::path::PathBuf;

use isochron_engine::model;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// An export to be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewExport {
    /// The directory that it becomes on the daemon's host, absolute; missing or empty.
    #[schema(value_type = String)]
    pub directory: PathBuf,
    /// Write what changed since this: a snapshot or reference point, by identifier or
    /// name, or the directory of a finished export of one, absolute. Everything is
    /// written where absent.
    #[serde(default)]
    pub base: Option<String>,
    /// What becomes of the changes.
    #[serde(default)]
    pub intent: ExportIntent,
    /// Write disks and memory; if not, only definitions and a record of the layers.
    #[serde(default = "yes")]
    pub storage: bool,
    /// Bytes a second at most.
    #[serde(default)]
    pub limit: Option<u64>,
    /// Only these machines and disks; all where absent.
    #[serde(default)]
    pub disks: Option<Vec<ExportDisks>>,
    /// Fail where a disk would have to be copied whole because what changed since the
    /// base cannot be told.
    #[serde(default)]
    pub require_difference: bool,
}

fn yes() -> bool {
    true
}

/// What becomes of what changed since the base.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExportIntent {
    /// A difference, which needs the base's export.
    #[default]
    Chain,
    /// A full export, made of the base's export and the changes.
    Merge,
}

/// Which disks of a machine are exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportDisks {
    /// The machine, by name or identifier.
    pub vm: String,
    /// Its disks, by name; all where empty.
    #[serde(default)]
    pub disks: Vec<String>,
}

/// An export under way, as its job tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobExport {
    /// Its identifier, which its manifest has as well.
    pub id: Uuid,
    /// The directory that it becomes.
    #[schema(value_type = String)]
    pub directory: PathBuf,
    /// The snapshot or reference point that it is a difference to.
    pub base: Option<Uuid>,
    /// Its members.
    pub vm_ids: Vec<Uuid>,
    /// Bytes of disks and memory dealt with, holes and zeroes included.
    pub done_bytes: u64,
    /// Of how many; 0 until that is known.
    pub total_bytes: u64,
    /// Bytes read and written.
    pub written_bytes: u64,
    /// Bytes written a second, since it began to copy.
    pub bytes_per_second: u64,
    /// Disks that are copied whole though a difference was asked for.
    pub whole: Vec<WholeDisk>,
    /// Its files, relative to the directory, when it is finished.
    #[schema(value_type = Vec<String>)]
    pub files: Vec<PathBuf>,
}

/// A disk that is copied whole though a difference was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WholeDisk {
    /// The machine's identifier.
    pub vm_id: Uuid,
    /// The disk's name.
    pub disk: String,
    /// Why.
    pub reason: String,
}

/// An export that was finished.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FinishedExport {
    /// Its identifier.
    pub id: Uuid,
    /// The directory that it became. It may have been moved or removed since.
    #[schema(value_type = String)]
    pub directory: PathBuf,
    /// When it was finished.
    #[serde(with = "time::serde::rfc3339")]
    pub finished_at: OffsetDateTime,
}

impl From<model::JobExport> for JobExport {
    fn from(export: model::JobExport) -> Self {
        Self {
            id: export.id.0,
            directory: export.directory,
            base: export.base,
            vm_ids: export.machines.into_iter().map(|id| id.0).collect(),
            done_bytes: export.done,
            total_bytes: export.total,
            written_bytes: export.written,
            bytes_per_second: export.rate,
            whole: export.whole.into_iter().map(Into::into).collect(),
            files: export.files,
        }
    }
}

impl From<model::WholeDisk> for WholeDisk {
    fn from(whole: model::WholeDisk) -> Self {
        Self {
            vm_id: whole.machine.0,
            disk: whole.disk,
            reason: whole.reason,
        }
    }
}

impl From<model::FinishedExport> for FinishedExport {
    fn from(export: model::FinishedExport) -> Self {
        Self {
            id: export.id.0,
            directory: export.directory,
            finished_at: export.finished_at,
        }
    }
}
