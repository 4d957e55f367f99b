//! Snapshot collections and the evidence for their instant.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{
    CollectionId, Definition, FinishedExport, ImageFormat, LayerId, MachineId, MemberSnapshotId,
    Power, SnapshotId,
};

/// A snapshot of a whole collection at one instant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its identifier.
    pub id: SnapshotId,
    /// Its name.
    pub name: String,
    /// The collection that it was taken of (which may be gone since). Of a single
    /// machine, the collection of one that the machine is.
    pub collection: CollectionId,
    /// That collection's name at the time.
    pub collection_name: String,
    /// Memory and disks, or disks.
    pub kind: SnapshotKind,
    /// The consistency reached.
    pub consistency: Consistency,
    /// The snapshot that the collection stood on when this was taken.
    pub parent: Option<SnapshotId>,
    /// The instant.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// One snapshot per member.
    pub members: Vec<MemberSnapshot>,
    /// The evidence.
    pub cut: CutReport,
    /// Free text of its owner.
    #[serde(default)]
    pub notes: String,
    /// Its finished exports, the newest first.
    #[serde(default)]
    pub exports: Vec<FinishedExport>,
}

impl Snapshot {
    /// The machine, if it was taken of a single machine and not of a collection.
    pub fn of_machine(&self) -> Option<MachineId> {
        let [member] = self.members.as_slice() else {
            return None;
        };
        (self.collection == member.machine.into()).then_some(member.machine)
    }
}

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotKind {
    /// Memory, devices and disks.
    Standard,
    /// Disks, for backup.
    Recovery,
}

/// What the guests find when they come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Consistency {
    /// File systems were frozen by the guest around the instant.
    Application,
    /// The disks as after a loss of power at the instant. A standard snapshot's
    /// disks are that too; its memory makes up for it.
    Crash,
}

/// One member's part of a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberSnapshot {
    /// Its identifier.
    pub id: MemberSnapshotId,
    /// The machine.
    pub machine: MachineId,
    /// The machine's name at the time.
    pub machine_name: String,
    /// Whether the machine ran, stood or was off.
    pub power: Power,
    /// The machine's definition at the time.
    pub definition: Definition,
    /// The exact machine type the process had, in the hypervisor's words, so
    /// that memory can be loaded after an upgrade.
    pub machine_type: Option<String>,
    /// The layers frozen.
    pub disks: Vec<DiskSnapshot>,
    /// Disks that were left out because they cannot be snapshotted.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// Saved memory and devices.
    pub memory: Option<MemoryState>,
    /// The machine's snapshot that this one grew from.
    pub parent: Option<MemberSnapshotId>,
}

/// One disk's frozen layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiskSnapshot {
    /// The disk's name.
    pub disk: String,
    /// The layer, together with those beneath it the disk's content.
    pub layer: LayerId,
    /// Its file, absolute. Kept equal to the layer's record.
    pub path: PathBuf,
    /// Its format.
    pub format: ImageFormat,
    /// Why no difference can be told from it any more: somebody else has changed or
    /// replaced a file beneath.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
}

/// Saved memory and device state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryState {
    /// The file, absolute.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
}

/// How a member's memory was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemorySave {
    /// Not at all.
    None,
    /// While the guest ran on.
    Background,
    /// While the guest stood.
    Plain,
}

/// The evidence for the instant: what the hypervisor itself said of every member.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CutReport {
    /// One entry per member.
    pub members: Vec<CutMember>,
    /// Last stop minus first stop, in microseconds; null if no member ran.
    pub skew_us: Option<u64>,
    /// First resume minus last stop, in microseconds: the time during which all
    /// members stood still. Negative would be no instant at all, and is a
    /// failure. Null if no member ran.
    pub common_window_us: Option<i64>,
    /// Consistency reached.
    pub consistency: Option<Consistency>,
}

/// One member in the cut report. Stamps are the hypervisor's own, microseconds
/// since 1970 on the host's clock; null for a member that did not run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CutMember {
    /// The machine.
    pub vm: MachineId,
    /// Its name.
    pub name: String,
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_note: Option<String>,
    /// File systems that the guest froze around the instant.
    pub frozen_filesystems: u32,
}

impl CutReport {
    /// Fills skew and window from the members' stamps. The window is what the
    /// instant rests on: the last stop precedes the first resume.
    pub fn conclude(&mut self) {
        let stops = || self.members.iter().filter_map(|m| m.stopped_at_us);
        let (first_stop, last_stop) = (stops().min(), stops().max());
        let first_resume = self.members.iter().filter_map(|m| m.resumed_at_us).min();
        self.skew_us = last_stop.zip(first_stop).map(|(last, first)| last - first);
        self.common_window_us = first_resume
            .zip(last_stop)
            .map(|(resume, stop)| resume as i64 - stop as i64);
        for member in &mut self.members {
            member.pause_us = member
                .resumed_at_us
                .zip(member.stopped_at_us)
                .map(|(resume, stop)| resume.saturating_sub(stop));
        }
    }
}
