//! The journal: an operation under way, kept before its first step is taken, with
//! what is needed to take every step back (see [`crate::recovery`]).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model::{JobId, Layer, MachineId, Power, ReferencePointId, SnapshotId};

/// An operation under way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Journal {
    /// The job that carries it out.
    pub job: JobId,
    /// What it is.
    pub operation: Operation,
    /// How far it may have come.
    pub phase: Phase,
    /// Its members.
    pub members: Vec<JournalMember>,
}

/// What is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Operation {
    /// A snapshot is taken.
    Create(SnapshotId),
    /// A reference point is made.
    CreatePoint(ReferencePointId),
    /// A snapshot is applied.
    Apply(SnapshotId),
    /// A machine is saved.
    Save(MachineId),
    /// A machine is started from its saved memory.
    Restore(MachineId),
}

/// How far an operation may have come. A phase is written before its first step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// Files are created; no guest was touched, no overlay holds a write.
    Preparing,
    /// Create: guests may stand, overlays may be active and hold writes.
    Cutting,
    /// Apply and save: guests stand and their memory is saved, all processes are
    /// the old ones.
    Saving,
    /// Apply: old processes are replaced by new ones; the old memory is saved.
    Switching,
    /// Apply and restore: done, but for letting the new processes run.
    Resuming,
    /// Save: done, but for the end of the guard and of the process.
    Ending,
}

impl Phase {
    /// Whether an interrupted operation is finished from here, not taken back.
    pub(crate) fn goes_forward(self) -> bool {
        matches!(self, Self::Resuming | Self::Ending)
    }
}

/// One member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct JournalMember {
    /// The machine.
    pub machine: MachineId,
    /// What it was doing before.
    pub power: Power,
    /// Whether its file systems may be frozen.
    pub freeze: bool,
    /// Overlays that are created, each with its parent.
    pub overlays: Vec<Layer>,
    /// The file that receives its memory: the snapshot's when one is taken, the
    /// present one's when one is applied.
    pub memory: Option<PathBuf>,
    /// The exact machine type of its process.
    pub machine_type: Option<String>,
    /// Apply: the machine shall run when all is done.
    pub run: bool,
}
