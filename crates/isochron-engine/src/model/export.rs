//! Exports, as snapshots, reference points and jobs remember them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{ExportId, MachineId};

/// An export that was finished, with its disks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FinishedExport {
    /// Its identifier.
    pub id: ExportId,
    /// The directory that it became, absolute. It may have been moved or removed since.
    pub directory: PathBuf,
    /// When it was finished.
    #[serde(with = "time::serde::rfc3339")]
    pub finished_at: OffsetDateTime,
}

/// What an export's job tells of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobExport {
    /// The export.
    pub id: ExportId,
    /// The directory that it becomes, absolute.
    pub directory: PathBuf,
    /// The snapshot or reference point that it is a difference to.
    pub base: Option<Uuid>,
    /// Its members.
    pub machines: Vec<MachineId>,
    /// Bytes of disks and memory dealt with, holes and zeroes included.
    pub done: u64,
    /// Of how many; 0 until that is known.
    pub total: u64,
    /// Bytes read and written.
    pub written: u64,
    /// Bytes written a second, since it began to copy.
    pub rate: u64,
    /// Disks that are copied whole though a difference was asked for.
    pub whole: Vec<WholeDisk>,
    /// Its files, relative to the directory, when it is finished.
    pub files: Vec<PathBuf>,
}

/// A disk that is copied whole though a difference was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WholeDisk {
    /// The machine.
    pub machine: MachineId,
    /// The disk's name.
    pub disk: String,
    /// Why.
    pub reason: String,
}
