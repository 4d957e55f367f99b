//! The [`Hypervisor`]: starts machines, reaches those that run, writes layers.
//!
//! The order of calls in a cut, per member, and what may be called when:
//!
//! ```text
//!   create_overlay -> open_overlays, flush -> prepare_save        guests run
//!   freeze                                                        guests run, file systems frozen
//!   stop  ==================== the common instant ==============  guests stand
//!   swap -> save (plain: to its end; background: until it runs)   guests stand
//!   resume                                                        guests run
//!   thaw -> finish_save                                           guests run
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::model::{
    Changes, Definition, FileIdentity, ImageFormat, LayerId, Machine, MachineId, Power, SavedState,
};

/// Why the hypervisor refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HypervisorError {
    /// The machine has no process.
    #[error("the machine is off")]
    Off,
    /// It did not answer in time.
    #[error("{0}")]
    Timeout(String),
    /// It cannot do that.
    #[error("{0}")]
    NotSupported(String),
    /// What was asked for is wrong.
    #[error("{0}")]
    Invalid(String),
    /// It tried and failed.
    #[error("{0}")]
    Failed(String),
}

/// A moment by the hypervisor's own stamp: microseconds since 1970, host clock.
pub type Stamp = u64;

/// A layer's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerFile {
    /// The layer.
    pub id: LayerId,
    /// Its file, absolute.
    pub path: PathBuf,
    /// Its format.
    pub format: ImageFormat,
}

/// An overlay to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// The new layer (always qcow2).
    pub layer: LayerFile,
    /// The layer that it stands on.
    pub base: LayerFile,
}

/// A disk of a machine that has a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveDisk {
    /// The disk's name (see [`crate::model::Disk::name`]).
    pub name: String,
    /// The file that the guest writes to, absolute.
    pub path: PathBuf,
    /// Its format.
    pub format: ImageFormat,
    /// The chain's files, the active one first.
    pub chain: Vec<PathBuf>,
    /// Size of the disk as the guest sees it, in bytes.
    pub virtual_size: u64,
    /// The guest cannot write to it.
    pub read_only: bool,
    /// Why it cannot be snapshotted, if it cannot.
    pub excluded: Option<String>,
}

/// How to start a machine.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    /// The machine's identifier.
    pub id: MachineId,
    /// What it is made of.
    pub definition: &'a Definition,
    /// Per disk of the definition, its chain: the active layer first.
    pub chains: Vec<Vec<LayerFile>>,
    /// The exact machine type, where a saved memory needs it.
    pub machine_type: Option<String>,
    /// Memory to load.
    pub memory: Option<PathBuf>,
}

/// One disk's exchange of the active layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// The disk's name.
    pub disk: String,
    /// The overlay, opened before; becomes the active layer.
    pub overlay: LayerFile,
}

/// How memory is saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SaveMode {
    /// While the guest runs on.
    Background,
    /// While the guest stands, for this reason.
    Plain(String),
}

/// A member to be watched over by a [`Guard`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guarded {
    /// The machine.
    pub machine: MachineId,
    /// Resume it: it ran before.
    pub resume: bool,
    /// Thaw its file systems.
    pub thaw: bool,
}

/// A process of its own that resumes and thaws machines if we do not.
#[async_trait]
pub trait Guard: Send + Sync {
    /// From now on: if nobody disarms within this time, or our process ends,
    /// every guarded member is resumed and thawed. May be called again to set a
    /// new deadline.
    async fn arm(&self, deadline: Duration) -> Result<(), HypervisorError>;

    /// To resume anyone from now on is to forfeit this memory, a complete file, with
    /// those named before: the guard empties them on stable storage before, and where
    /// it cannot, resumes nobody. A guest that has run on is never started from that
    /// memory again.
    async fn forfeits(&self, memory: &Path) -> Result<(), HypervisorError>;

    /// Ends the watch. `true` if it was kept in time; `false` if the guard acted
    /// before, so that nothing about the window can be claimed.
    async fn disarm(&self) -> Result<bool, HypervisorError>;
}

/// What runs machines and writes layers.
#[async_trait]
pub trait Hypervisor: Send + Sync + 'static {
    /// Checks a definition as far as that is possible without starting it
    /// (files exist, formats are what is said), and says per disk why it cannot
    /// be snapshotted, if it cannot.
    async fn check(&self, definition: &Definition) -> Result<Vec<Option<String>>, HypervisorError>;

    /// The machine's live side; `None` if it is off. The connection is made once
    /// and kept.
    async fn live(
        &self,
        machine: &Machine,
    ) -> Result<Option<Arc<dyn LiveMachine>>, HypervisorError>;

    /// Starts a machine's process. When this returns the process is there, its
    /// disks are open, memory is loaded if there was one, and its processors
    /// stand: [`LiveMachine::resume`] makes it run. On error no process is left.
    async fn start(&self, start: Start<'_>) -> Result<Arc<dyn LiveMachine>, HypervisorError>;

    /// Ends a machine's process without asking the guest, and waits until it is
    /// gone. Its images are flushed first where the process still answers.
    /// `Ok` if it is off already.
    async fn kill(&self, machine: &Machine) -> Result<(), HypervisorError>;

    /// What a file of saved memory says of itself. Whether a machine goes on from it is
    /// known only when it is loaded.
    ///
    /// # Errors
    /// `Invalid` it is not there, or none.
    async fn saved_state(&self, memory: &Path) -> Result<SavedState, HypervisorError>;

    /// Creates an overlay file on stable storage. The base is not opened, since
    /// a guest may be writing to it: `virtual_size` says how large the disk is
    /// (asked of the base image when `None`).
    async fn create_overlay(
        &self,
        overlay: &Overlay,
        virtual_size: Option<u64>,
    ) -> Result<(), HypervisorError>;

    /// Merges a layer that no process uses into the one beneath it. Can be
    /// repeated after it was interrupted. The top file stays as it is.
    async fn merge_offline(&self, top: &LayerFile, base: &LayerFile)
    -> Result<(), HypervisorError>;

    /// Says in a layer's file that it stands on another file of equal content.
    async fn rebase(&self, layer: &LayerFile, base: &LayerFile) -> Result<(), HypervisorError>;

    /// Whether the file is a complete image of that format.
    async fn is_image(&self, layer: &LayerFile) -> Result<bool, HypervisorError>;

    /// The blocks in which what a frozen layer reads as can differ from what `base`
    /// reads as, on which it stands: those that its own file covers, with data or with
    /// zeroes. A guest may have the file open below its active layer. Of a raw layer
    /// that is every block.
    ///
    /// # Errors
    /// `Invalid` the file's header does not say that it stands on `base`.
    async fn allocated(
        &self,
        layer: &LayerFile,
        base: &LayerFile,
    ) -> Result<Changes, HypervisorError>;

    /// The size of the disk that a frozen layer holds, as a guest sees it, in bytes. A
    /// guest may have the file open.
    async fn virtual_size(&self, layer: &LayerFile) -> Result<u64, HypervisorError>;

    /// Which file it is and what it is now; `None` if it is not there. What it says is
    /// true after a loss of power too.
    async fn identity(&self, path: &Path) -> Result<Option<FileIdentity>, HypervisorError> {
        let owned = path.to_owned();
        let asked = tokio::task::spawn_blocking(move || identity(&owned)).await;
        let failed = |error: &dyn std::fmt::Display| {
            HypervisorError::Failed(format!("cannot read {}: {error}", path.display()))
        };
        match asked {
            Ok(Ok(identity)) => Ok(Some(identity)),
            Ok(Err(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Ok(Err(error)) => Err(failed(&error)),
            Err(error) => Err(failed(&error)),
        }
    }

    /// A file's length in bytes; `None` if it is not there.
    async fn file_size(&self, path: &Path) -> Result<Option<u64>, HypervisorError> {
        match tokio::fs::metadata(path).await {
            Ok(file) => Ok(Some(file.len())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(HypervisorError::Failed(format!(
                "cannot read {}: {error}",
                path.display()
            ))),
        }
    }

    /// The bytes of a file of memory, once no guard can empty it any more
    /// ([`Guard::forfeits`]); `None` if one did.
    ///
    /// # Errors
    /// `Timeout` there is a guard that still can.
    async fn kept_memory(&self, path: &Path) -> Result<Option<u64>, HypervisorError>;

    /// Creates a directory and those above it; `Ok` if it is there.
    async fn create_directory(&self, path: &Path) -> Result<(), HypervisorError> {
        tokio::fs::create_dir_all(path).await.map_err(|error| {
            HypervisorError::Failed(format!("cannot create {}: {error}", path.display()))
        })
    }

    /// Removes a directory that is empty; others stay.
    async fn remove_directory(&self, path: &Path) {
        let _ = tokio::fs::remove_dir(path).await;
    }

    /// What is in a directory, by name; nothing if it is not there.
    async fn list_directory(&self, path: &Path) -> Vec<String> {
        let mut names = Vec::new();
        if let Ok(mut entries) = tokio::fs::read_dir(path).await {
            while let Ok(Some(entry)) = entries.next_entry().await {
                names.extend(entry.file_name().into_string());
            }
        }
        names
    }

    /// Deletes a file; `Ok` if it is not there.
    async fn delete_file(&self, path: &Path) -> Result<(), HypervisorError>;

    /// Starts a guard over live machines, unarmed.
    async fn guard(&self, members: &[Guarded]) -> Result<Box<dyn Guard>, HypervisorError>;
}

fn identity(path: &Path) -> std::io::Result<FileIdentity> {
    let file = std::fs::File::open(path)?;
    // The time of its last change would be an older one after a loss of power.
    file.sync_all()?;
    let found = file.metadata()?;
    let nanoseconds = |time: std::time::SystemTime| {
        let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
        i64::try_from(since.as_nanos()).ok()
    };
    Ok(FileIdentity {
        inode: std::os::unix::fs::MetadataExt::ino(&found),
        born: found.created().ok().and_then(nanoseconds),
        bytes: found.len(),
        modified: found.modified().ok().and_then(nanoseconds).unwrap_or(0),
    })
}

/// A machine that has a process.
#[async_trait]
pub trait LiveMachine: Send + Sync {
    /// Whether it runs or stands.
    async fn power(&self) -> Result<Power, HypervisorError>;

    /// Process identifier, where it is known.
    fn process_id(&self) -> Option<u32>;

    /// The exact machine type.
    async fn machine_type(&self) -> Result<Option<String>, HypervisorError>;

    /// Its disks as the process has them: the truth about active layers.
    async fn disks(&self) -> Result<Vec<LiveDisk>, HypervisorError>;

    /// Whether a guest agent answers.
    async fn agent_answers(&self) -> bool;

    /// Opens overlays created before, without their base, ready for
    /// [`swap`](Self::swap).
    async fn open_overlays(&self, swaps: &[Swap]) -> Result<(), HypervisorError>;

    /// Closes what [`open_overlays`](Self::open_overlays) opened and no swap
    /// took, and what a merge left over; `Ok` where a layer is not open.
    async fn close_layers(&self, layers: &[LayerFile]) -> Result<(), HypervisorError>;

    /// Writes the host's cached pages of the active layers to disk, so that the
    /// stop need not.
    async fn flush(&self) -> Result<(), HypervisorError>;

    /// Sets up saving of memory and says which way it will go. A paused machine
    /// is always saved plainly.
    async fn prepare_save(&self, power: Power) -> Result<SaveMode, HypervisorError>;

    /// Freezes the guest's file systems through its agent; how many. Bounded; on
    /// error they are thawed.
    async fn freeze(&self, limit: Duration) -> Result<u32, HypervisorError>;

    /// Thaws the guest's file systems; how many. With 0 where `freeze` froze
    /// some, the guest had thawed them itself before.
    async fn thaw(&self, limit: Duration) -> Result<u32, HypervisorError>;

    /// Stops its processors and waits until it says so.
    async fn stop(&self) -> Result<Stamp, HypervisorError>;

    /// Exchanges the active layers of its disks, all or none, while it stands.
    async fn swap(&self, swaps: &[Swap]) -> Result<(), HypervisorError>;

    /// Saves memory and devices to a new file while it stands. Plain: returns
    /// `None` at the end, the machine stands as before. Background: returns when
    /// the hypervisor has let it run again, with the stamp of that;
    /// [`finish_save`](Self::finish_save) waits for the rest.
    async fn save(&self, file: &Path, mode: &SaveMode) -> Result<Option<Stamp>, HypervisorError>;

    /// Waits until memory is saved and on stable storage; the file's bytes.
    /// `progress` is told 0 to 100.
    async fn finish_save(
        &self,
        file: &Path,
        progress: &(dyn Fn(u8) + Send + Sync),
    ) -> Result<u64, HypervisorError>;

    /// Gives up saving memory and takes back what
    /// [`prepare_save`](Self::prepare_save) set; `Ok` when nothing is under way.
    async fn cancel_save(&self) -> Result<(), HypervisorError>;

    /// Lets its processors run and waits until it says so. Also right when an
    /// earlier stop is still unanswered: it is carried out after it. `Ok` with
    /// the present time when it runs already.
    async fn resume(&self) -> Result<Stamp, HypervisorError>;

    /// Asks the guest to shut down; does not wait.
    async fn ask_shutdown(&self) -> Result<(), HypervisorError>;

    /// Merges a frozen layer into the one beneath it, while the guest runs, to
    /// its end. `above` is the layer of this chain that stands on `top`; its file
    /// says afterwards that it stands on `base`. Can be repeated after it was
    /// interrupted or done, and clears away what an interruption left.
    /// `progress` is told 0 to 100.
    async fn merge(
        &self,
        disk: &str,
        top: &LayerFile,
        base: &LayerFile,
        above: &LayerFile,
        progress: &(dyn Fn(u8) + Send + Sync),
    ) -> Result<(), HypervisorError>;

    /// Begins to merge the active layer into the one beneath it, and returns
    /// when both are equal but for what the guest still writes. Adopts such a
    /// merge that is under way already.
    async fn begin_merge_active(
        &self,
        disk: &str,
        top: &LayerFile,
        base: &LayerFile,
        progress: &(dyn Fn(u8) + Send + Sync),
    ) -> Result<(), HypervisorError>;

    /// Makes the base the active layer; called while the machine stands. When
    /// this returns the base is complete on stable storage.
    async fn end_merge_active(&self, disk: &str, base: &LayerFile) -> Result<(), HypervisorError>;

    /// Gives up a merge of the active layer; `Ok` when none is under way.
    async fn cancel_merge_active(&self, disk: &str) -> Result<(), HypervisorError>;
}
