//! Snapshots of collections on the wire, with the evidence for their instant.

use std::path::PathBuf;

use isochron_engine::model;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{FinishedExport, ImageFormat, Power, same_variants};

/// A snapshot of a whole collection at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// Its identifier.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// The name that its collection had when it was taken; of a snapshot of a single
    /// machine, the machine's.
    pub collection: String,
    /// That collection's identifier; of a snapshot of a single machine, the
    /// machine's.
    pub collection_id: Uuid,
    /// Memory and disks, or disks.
    #[serde(rename = "type")]
    pub kind: SnapshotKind,
    /// The consistency reached.
    pub consistency: Consistency,
    /// The snapshot that the collection stood on when this was taken.
    pub parent: Option<Uuid>,
    /// Whether the collection stands on this one now.
    pub current: bool,
    /// The instant.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// One snapshot per member.
    pub members: Vec<MemberSnapshot>,
    /// The cut report: the evidence for the instant.
    pub cut: Cut,
    /// The finished exports of it, the newest first.
    pub exports: Vec<FinishedExport>,
}

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotKind {
    /// Memory, devices and disks.
    Standard,
    /// Disks, for backup.
    Recovery,
}

/// What the guests find when they come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// File systems were frozen by the guest around the instant.
    Application,
    /// The disks as after a loss of power at the instant.
    Crash,
}

/// One member's part of a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MemberSnapshot {
    /// Its identifier.
    pub id: Uuid,
    /// The machine's name at the time.
    pub vm: String,
    /// The machine's identifier.
    pub vm_id: Uuid,
    /// Whether the machine ran, stood or was off.
    pub power: Power,
    /// Its disks' frozen layers.
    pub disks: Vec<DiskSnapshot>,
    /// Disks that were left out because they cannot be snapshotted.
    pub left_out: Vec<String>,
    /// The file of saved memory and devices.
    #[schema(value_type = Option<String>)]
    pub memory: Option<PathBuf>,
    /// That file's size in bytes.
    pub memory_bytes: Option<u64>,
    /// The exact machine type, which saved memory needs.
    pub machine_type: Option<String>,
    /// The machine's snapshot that this one grew from.
    pub parent: Option<Uuid>,
}

/// One disk's frozen layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiskSnapshot {
    /// The disk's name.
    pub disk: String,
    /// The frozen layer's file. With its backing files it is the disk's content
    /// at the instant.
    #[schema(value_type = String)]
    pub layer: PathBuf,
    /// The layer's identifier.
    pub layer_id: Uuid,
    /// Its format.
    pub format: ImageFormat,
}

/// The cut report: what the hypervisor itself said of every member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Cut {
    /// One entry per member.
    pub members: Vec<CutMember>,
    /// Last stop minus first stop; null if no member ran.
    pub skew_us: Option<u64>,
    /// First resume minus last stop: for so long all members stood still. Null
    /// if no member ran.
    pub common_window_us: Option<i64>,
    /// The consistency reached.
    pub consistency: Option<Consistency>,
}

/// One member in the cut report. The stamps are null for a member that did not
/// run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CutMember {
    /// The machine's name at the time.
    pub vm: String,
    /// The machine's identifier.
    pub vm_id: Uuid,
    /// What it was doing before.
    pub power: Power,
    /// When its processors stood.
    pub stopped_at_us: Option<u64>,
    /// When they ran again.
    pub resumed_at_us: Option<u64>,
    /// The difference.
    pub pause_us: Option<u64>,
    /// How memory was saved.
    pub memory: MemorySave,
    /// Why memory was saved plainly, where background was impossible.
    pub memory_note: Option<String>,
    /// File systems that the guest froze around the instant.
    pub frozen_filesystems: u32,
}

/// How a member's memory was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MemorySave {
    /// Not at all.
    None,
    /// While the guest ran on.
    Background,
    /// While the guest stood.
    Plain,
}

/// A snapshot to be taken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSnapshot {
    /// Of which collection, by name or identifier; or of which single machine.
    pub collection: String,
    /// Its name; `COLLECTION - (DATE)` where absent.
    #[serde(default)]
    pub name: Option<String>,
    /// Memory and disks, or disks.
    #[serde(rename = "type", default = "default_kind")]
    pub kind: SnapshotKind,
    /// The consistency asked for; one that is not reached is a failure. Crash
    /// where absent.
    #[serde(default)]
    pub consistency: Option<Consistency>,
    /// Leave out disks that cannot be snapshotted instead of refusing.
    #[serde(default)]
    pub ignore_excluded_disks: bool,
    /// Its identifier; chosen where absent. A request that is sent again with
    /// the same one is refused and so cannot make a second snapshot.
    #[serde(default)]
    pub id: Option<Uuid>,
}

fn default_kind() -> SnapshotKind {
    SnapshotKind::Standard
}

same_variants!(SnapshotKind = model::SnapshotKind { Standard, Recovery });
same_variants!(Consistency = model::Consistency { Application, Crash });
same_variants!(
    MemorySave = model::MemorySave {
        None,
        Background,
        Plain
    }
);

impl Snapshot {
    /// A snapshot as it goes out; `current` says whether its collection stands
    /// on it.
    pub fn new(snapshot: model::Snapshot, current: bool) -> Self {
        Self {
            id: snapshot.id.0,
            name: snapshot.name,
            collection: snapshot.collection_name,
            collection_id: snapshot.collection.0,
            kind: snapshot.kind.into(),
            consistency: snapshot.consistency.into(),
            parent: snapshot.parent.map(|id| id.0),
            current,
            created_at: snapshot.created_at,
            members: snapshot.members.into_iter().map(Into::into).collect(),
            cut: snapshot.cut.into(),
            exports: snapshot.exports.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<model::MemberSnapshot> for MemberSnapshot {
    fn from(member: model::MemberSnapshot) -> Self {
        let (memory, memory_bytes) = member
            .memory
            .map(|memory| (memory.path, memory.bytes))
            .unzip();
        Self {
            id: member.id.0,
            vm: member.machine_name,
            vm_id: member.machine.0,
            power: member.power.into(),
            disks: member
                .disks
                .into_iter()
                .map(|disk| DiskSnapshot {
                    disk: disk.disk,
                    layer: disk.path,
                    layer_id: disk.layer.0,
                    format: disk.format.into(),
                })
                .collect(),
            left_out: member.left_out,
            memory,
            memory_bytes,
            machine_type: member.machine_type,
            parent: member.parent.map(|id| id.0),
        }
    }
}

impl From<model::CutReport> for Cut {
    fn from(cut: model::CutReport) -> Self {
        Self {
            members: cut
                .members
                .into_iter()
                .map(|member| CutMember {
                    vm: member.name,
                    vm_id: member.vm.0,
                    power: member.power.into(),
                    stopped_at_us: member.stopped_at_us,
                    resumed_at_us: member.resumed_at_us,
                    pause_us: member.pause_us,
                    memory: member.memory.into(),
                    memory_note: member.memory_note,
                    frozen_filesystems: member.frozen_filesystems,
                })
                .collect(),
            skew_us: cut.skew_us,
            common_window_us: cut.common_window_us,
            consistency: cut.consistency.map(Into::into),
        }
    }
}
