//! Reference points: remembered instants, from which what changed since can be told.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    CollectionId, Consistency, CutReport, Definition, FinishedExport, ImageFormat, LayerId,
    MachineId, MemberPointId, Power, ReferencePointId,
};

/// A collection at one instant, remembered as the base of differences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReferencePoint {
    /// Its identifier.
    pub id: ReferencePointId,
    /// Its name.
    pub name: String,
    /// The collection (which may be gone since). Of a single machine, the collection
    /// of one that the machine is.
    pub collection: CollectionId,
    /// That collection's name at the time.
    pub collection_name: String,
    /// The consistency reached at the instant.
    pub consistency: Consistency,
    /// The instant.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The evidence.
    pub cut: CutReport,
    /// One part per member.
    pub members: Vec<MemberPoint>,
    /// What the disks held is kept, so that it can be exported. Without it, it can
    /// only be the base of differences.
    pub keeps_data: bool,
    /// Free text of its owner.
    #[serde(default)]
    pub notes: String,
    /// The finished exports of this instant, the newest first; also those made of the
    /// snapshot that it was before.
    #[serde(default)]
    pub exports: Vec<FinishedExport>,
}

impl ReferencePoint {
    /// The machine, if it is of a single machine and not of a collection.
    pub fn of_machine(&self) -> Option<MachineId> {
        let [member] = self.members.as_slice() else {
            return None;
        };
        (self.collection == member.machine.into()).then_some(member.machine)
    }
}

/// One member's part of a reference point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberPoint {
    /// Its identifier.
    pub id: MemberPointId,
    /// The machine.
    pub machine: MachineId,
    /// The machine's name at the time.
    pub machine_name: String,
    /// The machine's definition at the time.
    pub definition: Definition,
    /// What the machine was doing.
    pub power: Power,
    /// The exact machine type the process had.
    pub machine_type: Option<String>,
    /// Its disks.
    pub disks: Vec<DiskPoint>,
    /// Disks that were left out because they cannot be snapshotted.
    #[serde(default)]
    pub left_out: Vec<String>,
}

/// One disk at a reference point: what it held differs from what the chain of `layer`
/// reads as at most in the blocks of a record of its own, which is empty at first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskPoint {
    /// The disk's name.
    pub disk: String,
    /// Names this point in this disk's history (CIM's
    /// ResilientChangeTrackingIdentifiers).
    pub tracking: Uuid,
    /// The disk's first image, by which it is known (CIM's VirtualDiskIdentifiers).
    pub root: LayerId,
    /// The layer from which differences are told.
    pub layer: LayerId,
    /// Its file, absolute. Kept equal to the layer's record.
    pub path: PathBuf,
    /// Its format.
    pub format: ImageFormat,
    /// Its size in bytes.
    pub virtual_size: u64,
    /// Why no difference can be told from it any more: somebody else has changed or
    /// replaced a file beneath.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
}
