//! What the engine keeps: machines, collections, layers, snapshots, jobs.
//!
//! Every type here is a record of the store or a part of one, and serialises to
//! JSON as it is kept.

mod collection;
mod ids;
mod job;
mod machine;
mod snapshot;

pub use collection::{Collection, CollectionKind};
pub use ids::{CollectionId, JobId, LayerId, MachineId, MemberSnapshotId, SnapshotId};
pub use job::{Affected, Job, JobError, JobKind, JobState};
pub use machine::{
    Accelerator, Cache, Definition, Disk, DiskDefinition, ImageFormat, Layer, Machine, Nic, Origin,
    Power, SavedState,
};
pub use snapshot::{
    Consistency, CutMember, CutReport, DiskSnapshot, MemberSnapshot, MemorySave, MemoryState,
    Snapshot, SnapshotKind,
};
