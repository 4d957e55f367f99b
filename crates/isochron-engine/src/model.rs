//! What the engine keeps: machines, collections, layers, snapshots, jobs.
//!
//! Every type here is a record of the store or a part of one, and serialises to
//! JSON as it is kept.

mod changes;
mod collection;
mod ids;
mod job;
mod machine;
mod snapshot;

pub use changes::Changes;
pub use collection::{Collection, CollectionKind};
pub(crate) use ids::random;
pub use ids::{
    CollectionId, ExportId, JobId, LayerId, MachineId, MemberPointId, MemberSnapshotId,
    ReferencePointId, SnapshotId, seed_identifiers,
};
pub use job::{Affected, Job, JobError, JobKind, JobState};
pub use machine::{
    Accelerator, Cache, Definition, Disk, DiskDefinition, ImageFormat, Layer, Machine, Nic, Origin,
    Power, SavedState,
};
pub use snapshot::{
    Consistency, CutMember, CutReport, DiskSnapshot, MemberSnapshot, MemorySave, MemoryState,
    Snapshot, SnapshotKind,
};
