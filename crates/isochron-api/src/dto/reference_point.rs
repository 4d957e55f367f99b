//! Reference points on the wire: instants from which what changed since can be told.

use std::path::PathBuf;

use isochron_engine::model;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Consistency, Cut, FinishedExport, ImageFormat, Power};

/// A collection at one instant, remembered as the base of differences.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReferencePoint {
    /// Its identifier.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// The name that its collection had at the instant; of a single machine, the
    /// machine's.
    pub collection: String,
    /// That collection's identifier; of a single machine, the machine's.
    pub collection_id: Uuid,
    /// The consistency reached.
    pub consistency: Consistency,
    /// The instant.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// What the disks held is kept, so that it can be exported. Without it, it can
    /// only be the base of differences.
    pub keeps_data: bool,
    /// Free text of its owner.
    pub notes: String,
    /// One part per member.
    pub members: Vec<MemberPoint>,
    /// The cut report: the evidence for the instant.
    pub cut: Cut,
    /// The finished exports of the instant, the newest first; also those made of the
    /// snapshot that it was before.
    pub exports: Vec<FinishedExport>,
}

/// One member's part of a reference point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemberPoint {
    /// Its identifier.
    pub id: Uuid,
    /// The machine's name at the time.
    pub vm: String,
    /// The machine's identifier.
    pub vm_id: Uuid,
    /// Whether the machine ran, stood or was off.
    pub power: Power,
    /// Its disks.
    pub disks: Vec<DiskPoint>,
    /// Disks that were left out because they cannot be snapshotted.
    pub left_out: Vec<String>,
    /// The exact machine type that its process had.
    pub machine_type: Option<String>,
}

/// One disk at a reference point.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskPoint {
    /// The disk's name.
    pub disk: String,
    /// Names this instant in this disk's history.
    pub tracking_id: Uuid,
    /// The disk, by the identifier of its first image.
    pub disk_id: Uuid,
    /// The file of the layer from which differences are told.
    #[schema(value_type = String)]
    pub layer: PathBuf,
    /// Its format.
    pub format: ImageFormat,
    /// Its size in bytes.
    pub virtual_size: u64,
    /// Why no difference can be told from it any more, if that is so.
    pub lost: Option<String>,
}

/// A reference point to be made of now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewReferencePoint {
    /// Of which collection, by name or identifier; or of which single machine.
    pub collection: String,
    /// Its name; `COLLECTION - (DATE)` where absent.
    #[serde(default)]
    pub name: Option<String>,
    /// The consistency asked for; one that is not reached is a failure. Crash where
    /// absent.
    #[serde(default)]
    pub consistency: Option<Consistency>,
    /// Leave out disks that cannot be snapshotted instead of refusing.
    #[serde(default)]
    pub ignore_excluded_disks: bool,
    /// Its identifier; chosen where absent. A request that is sent again with the same
    /// one is refused and so cannot make a second.
    #[serde(default)]
    pub id: Option<Uuid>,
}

/// A snapshot to be turned into a reference point.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConvertSnapshot {
    /// The reference point's identifier; chosen where absent.
    #[serde(default)]
    pub id: Option<Uuid>,
}

impl From<model::ReferencePoint> for ReferencePoint {
    fn from(point: model::ReferencePoint) -> Self {
        Self {
            id: point.id.0,
            name: point.name,
            collection: point.collection_name,
            collection_id: point.collection.0,
            consistency: point.consistency.into(),
            created_at: point.created_at,
            keeps_data: point.keeps_data,
            notes: point.notes,
            members: point.members.into_iter().map(Into::into).collect(),
            cut: point.cut.into(),
            exports: point.exports.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<model::MemberPoint> for MemberPoint {
    fn from(member: model::MemberPoint) -> Self {
        Self {
            id: member.id.0,
            vm: member.machine_name,
            vm_id: member.machine.0,
            power: member.power.into(),
            disks: member.disks.into_iter().map(Into::into).collect(),
            left_out: member.left_out,
            machine_type: member.machine_type,
        }
    }
}

impl From<model::DiskPoint> for DiskPoint {
    fn from(disk: model::DiskPoint) -> Self {
        Self {
            disk: disk.disk,
            tracking_id: disk.tracking,
            disk_id: disk.root.0,
            layer: disk.path,
            format: disk.format.into(),
            virtual_size: disk.virtual_size,
            lost: disk.lost,
        }
    }
}
