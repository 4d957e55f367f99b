//! What goes over the wire, in both directions.
//!
//! Every field is documented here, and from here in the OpenAPI document. Names
//! are stable: a field may be added, none is renamed or given another meaning.
//! Times are RFC 3339, stamps are microseconds since 1970 on the host's clock,
//! paths are absolute.

mod collection;
mod definition;
mod error;
mod export;
mod job;
mod machine;
mod reference_point;
mod snapshot;
mod user;

pub use collection::{Collection, CollectionChange, CollectionKind, Member, NewCollection};
pub use definition::{Accelerator, Cache, Definition, DiskDefinition, ImageFormat, Nic};
pub use error::{Error, ErrorKind};
pub use export::{ExportDisks, ExportIntent, FinishedExport, JobExport, NewExport, WholeDisk};
pub use job::{Affected, Job, JobKind, JobState};
pub use machine::{
    Attach, DefineSaved, Disk, Layer, Machine, MachineChange, MachineSummary, NewMachine, Origin,
    Power,
};
pub use reference_point::{
    ConvertSnapshot, DiskPoint, MemberPoint, NewReferencePoint, ReferencePoint,
};
pub use snapshot::{
    Consistency, Cut, CutMember, DiskSnapshot, MemberSnapshot, MemorySave, NewSnapshot, Snapshot,
    SnapshotKind,
};
pub use user::{Certificate, NewUser, Role, User, UserChange};

/// Conversions between an enumeration of the wire and the engine's of the same
/// variants.
macro_rules! same_variants {
    ($wire:ident = $engine:ty { $($variant:ident),+ $(,)? }) => {
        impl From<$engine> for $wire {
            fn from(value: $engine) -> Self {
                match value { $(<$engine>::$variant => Self::$variant,)+ }
            }
        }

        impl From<$wire> for $engine {
            fn from(value: $wire) -> Self {
                match value { $($wire::$variant => Self::$variant,)+ }
            }
        }
    };
}
use same_variants;

/// The daemon, as `GET /v1/version` tells.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Version {
    /// Always `isochron`.
    pub name: String,
    /// The daemon's version.
    pub version: String,
}
