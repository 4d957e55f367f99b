//! The [`Archive`]: writes a collection at one instant into a directory, in full or
//! as what changed since another, so that it can be proven and restored without us.
//!
//! ```text
//!   open    sources are opened; nothing of the directory's name is there
//!           (from now on layers may be merged: what was opened reads the same)
//!   run     everything is copied into a directory beside it, digests are made,
//!           all is synced, one rename makes it the directory
//! ```
//!
//! An export that was interrupted leaves a directory of another name, which
//! [`Archive::clear`] removes.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use time::OffsetDateTime;

use super::LayerFile;
use crate::model::{
    Changes, CollectionId, Consistency, CutReport, Definition, ExportId, MachineId, MemoryState,
    Power, SnapshotKind,
};

/// Why the archive refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// What was asked for is wrong: a directory that is in use, a base that is no
    /// export or not one of this collection.
    #[error("{0}")]
    Invalid(String),
    /// A file of an export is not what its manifest says.
    #[error("{0}")]
    Damaged(String),
    /// There is no archive here.
    #[error("{0}")]
    NotSupported(String),
    /// The caller took it back.
    #[error("the export was cancelled")]
    Cancelled,
    /// It tried and failed.
    #[error("{0}")]
    Failed(String),
}

/// The instant that is written: a snapshot's, or a reference point's.
#[derive(Clone, Debug, PartialEq)]
pub struct Instant {
    /// The identifier of the snapshot or of the reference point.
    pub id: uuid::Uuid,
    /// Its name.
    pub name: String,
    /// The collection, or the machine that is a collection of one.
    pub collection: CollectionId,
    /// Its name at the instant.
    pub collection_name: String,
    /// Memory and disks, or disks.
    pub kind: SnapshotKind,
    /// The consistency reached.
    pub consistency: Consistency,
    /// When it was.
    pub created_at: OffsetDateTime,
    /// The evidence.
    pub cut: CutReport,
    /// Free text of its owner.
    pub notes: String,
}

/// An export to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// Its identifier, chosen by the caller.
    pub id: ExportId,
    /// The directory that it becomes: absolute, missing or empty.
    pub directory: PathBuf,
    /// Of what.
    pub instant: Instant,
    /// Its members.
    pub members: Vec<OrderMember>,
    /// The finished export's directory to which this one is a difference.
    pub base: Option<PathBuf>,
    /// Make a full one of the base and the changes: [`Content::Since`] says what is
    /// read of the layers, the rest comes from the base.
    pub merge: bool,
    /// Write the disks and memory; if not, only a record of the layers.
    pub copy_storage: bool,
    /// Bytes a second at most, over all disks.
    pub limit: Option<u64>,
}

/// One member.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderMember {
    /// The machine.
    pub machine: MachineId,
    /// Its name at the instant.
    pub machine_name: String,
    /// What it was doing.
    pub power: Power,
    /// Its definition at the instant.
    pub definition: Definition,
    /// The exact machine type of its process, for its memory.
    pub machine_type: Option<String>,
    /// Its memory.
    pub memory: Option<MemoryState>,
    /// The disks to be written.
    pub disks: Vec<OrderDisk>,
    /// Disks that the instant does not hold.
    pub left_out: Vec<String>,
}

/// One disk.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderDisk {
    /// Its name.
    pub name: String,
    /// The frozen layers that hold it, the instant's first. Guests may have them
    /// open, below their active layer.
    pub chain: Vec<LayerFile>,
    /// Its size in bytes.
    pub virtual_size: u64,
    /// What is read of it.
    pub content: Content,
}

/// What is read of a disk.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// All, for this reason where the export is a difference otherwise.
    Full {
        /// Such as `the disk was resized since`.
        reason: Option<String>,
    },
    /// What may have changed since the base.
    Since(Changes),
}

/// How far an export is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Bytes of disks and memory dealt with, holes and zeroes included.
    pub done: u64,
    /// Of how many.
    pub total: u64,
    /// Bytes that were read and written.
    pub written: u64,
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Go {
    /// Yes.
    On,
    /// The caller took it back.
    Stop,
}

/// A finished export.
#[derive(Clone, Debug, PartialEq)]
pub struct Exported {
    /// All its files, relative to its directory.
    pub files: Vec<PathBuf>,
    /// Bytes of the files.
    pub bytes: u64,
}

/// What a finished export's manifest says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// The export.
    pub id: ExportId,
    /// The identifier of the snapshot or reference point that it is of.
    pub instant: uuid::Uuid,
    /// The collection.
    pub collection: CollectionId,
    /// The members' disks that it has, with their sizes in bytes.
    pub disks: Vec<(MachineId, String, u64)>,
    /// All its files, relative to its directory.
    pub files: Vec<PathBuf>,
}

/// Where exports are written.
#[async_trait]
pub trait Archive: Send + Sync + 'static {
    /// Reads the manifest of a finished export.
    ///
    /// # Errors
    /// `Invalid` no finished export; `Damaged`.
    async fn describe(&self, directory: &Path) -> Result<Described, ArchiveError>;

    /// Checks an order and opens what it reads. When this returns, nothing of what
    /// others do to the layers changes what is read, as long as the layer of the
    /// instant stays wanted; layers beneath it may be merged.
    ///
    /// # Errors
    /// `Invalid`, `Damaged` (the base), `Failed`. Nothing is left then.
    async fn open(&self, order: Order) -> Result<Box<dyn Export>, ArchiveError>;

    /// Removes what an export to this directory left when it was interrupted; a
    /// finished export stays. Can be repeated; `Ok` where there is nothing.
    ///
    /// # Errors
    /// `Failed` it cannot be removed.
    async fn clear(&self, directory: &Path, export: ExportId) -> Result<(), ArchiveError>;
}

/// An export that is ready to be written.
#[async_trait]
pub trait Export: Send {
    /// Writes it to its end; `progress` is told often and says whether to go on.
    ///
    /// # Errors
    /// As for the trait. Nothing is left then, unless removing fails.
    async fn run(
        self: Box<Self>,
        progress: &(dyn Fn(Copied) -> Go + Send + Sync),
    ) -> Result<Exported, ArchiveError>;
}
