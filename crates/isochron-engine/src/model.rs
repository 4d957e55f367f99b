//! What the engine keeps: machines, collections, layers, snapshots, reference points,
//! jobs.
//!
//! Every type here is a record of the store or a part of one, and serialises to
//! JSON as it is kept.

mod changes;
mod collection;
mod export;
mod ids;
mod job;
mod machine;
mod point;
mod snapshot;

pub use changes::Changes;
pub use collection::{Collection, CollectionKind};
pub use export::{FinishedExport, JobExport, WholeDisk};
pub(crate) use ids::random;
pub use ids::{
    CollectionId, ExportId, JobId, LayerId, MachineId, MemberPointId, MemberSnapshotId,
    ReferencePointId, SnapshotId, seed_identifiers,
};
pub use job::{Affected, Job, JobError, JobKind, JobState};
pub use machine::{
    Accelerator, Cache, Definition, Disk, DiskDefinition, FileIdentity, ImageFormat, Layer,
    Machine, Nic, Origin, Power, SavedState,
};
pub use point::{DiskPoint, MemberPoint, ReferencePoint};
pub use snapshot::{
    Consistency, CutMember, CutReport, DiskSnapshot, MemberSnapshot, MemorySave, MemoryState,
    Snapshot, SnapshotKind,
};
