//! Virtual machines, their definitions, their disks' layers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{LayerId, MachineId, MemoryState, SnapshotId};

/// A virtual machine that the engine knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Its identifier, also the guest's SMBIOS UUID.
    pub id: MachineId,
    /// Its name, unique among machines.
    pub name: String,
    /// Who starts its process.
    pub origin: Origin,
    /// What it is made of.
    pub definition: Definition,
    /// Its disks, in the definition's order, and which layer each writes to.
    pub disks: Vec<Disk>,
    /// The snapshot that it was last returned to or that was last taken of it:
    /// the parent of the next.
    pub current: Option<SnapshotId>,
    /// The snapshot collection that was last applied to it.
    pub last_applied: Option<SnapshotId>,
    /// Free text of its owner.
    #[serde(default)]
    pub notes: String,
    /// What was saved of it, to go on from.
    #[serde(default)]
    pub saved: Option<SavedState>,
    /// When it was defined.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// A machine's memory and devices while it has no process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedState {
    /// The file.
    pub memory: MemoryState,
    /// The exact machine type that the process had.
    pub machine_type: Option<String>,
}

impl Machine {
    /// Whether its owner starts its process, not we.
    pub fn attached(&self) -> bool {
        matches!(self.origin, Origin::Attached { .. })
    }

    /// Makes a layer the active one of its disk.
    pub(crate) fn set_active(&mut self, layer: &Layer) {
        for disk in self.disks.iter_mut().filter(|disk| disk.name == layer.disk) {
            disk.active = layer.id;
        }
    }
}

/// Who starts a machine's process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Origin {
    /// We do, from its definition.
    Launched,
    /// Its owner did; we reach it through its management socket.
    Attached {
        /// The management (QMP) socket.
        qmp: PathBuf,
        /// The guest agent's socket.
        guest_agent: Option<PathBuf>,
    },
}

/// A machine's definition: what its owner writes, as TOML, in `vm define`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Name, unique among machines.
    pub name: String,
    /// Identifier; generated where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<MachineId>,
    /// Guest memory in MiB.
    #[serde(default = "default_memory")]
    pub memory_mib: u64,
    /// Virtual CPUs.
    #[serde(default = "default_cpus")]
    pub cpus: u32,
    /// Machine type, in the hypervisor's words.
    #[serde(default = "default_machine")]
    pub machine: String,
    /// How guest code is run.
    #[serde(default)]
    pub accel: Accelerator,
    /// Kernel to boot directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk, with `kernel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<PathBuf>,
    /// Kernel command line, with `kernel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append: Option<String>,
    /// Firmware image instead of the built-in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<PathBuf>,
    /// File that receives what the guest writes to its first serial port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_log: Option<PathBuf>,
    /// Whether the guest runs an agent through which file systems are frozen.
    #[serde(default)]
    pub guest_agent: bool,
    /// Further arguments for the hypervisor, as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extra_args: Vec<String>,
    /// Disks, the first one first in the guest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DiskDefinition>,
    /// Network interfaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nics: Vec<Nic>,
}

fn default_memory() -> u64 {
    512
}

fn default_cpus() -> u32 {
    1
}

fn default_machine() -> String {
    "q35".to_owned()
}

/// How guest code is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accelerator {
    /// KVM if it is proven to run a guest on this host, else emulation.
    #[default]
    Auto,
    /// KVM.
    Kvm,
    /// Emulation.
    Tcg,
}

/// A disk in a definition.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiskDefinition {
    /// Name, unique in the machine; `disk0`, `disk1`, ... where absent.
    #[serde(default)]
    pub name: String,
    /// Image file or block device, absolute.
    pub path: PathBuf,
    /// Its format.
    #[serde(default)]
    pub format: ImageFormat,
    /// How the host caches it.
    #[serde(default)]
    pub cache: Cache,
    /// The guest cannot write to it; it takes no part in snapshots.
    #[serde(default)]
    pub read_only: bool,
}

/// An image format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// QEMU's copy-on-write format.
    #[default]
    Qcow2,
    /// The bare content.
    Raw,
}

impl ImageFormat {
    /// The format's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
        }
    }
}

/// How the host caches a disk (QEMU's cache modes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// Host cache bypassed, guest's flushes honoured.
    None,
    /// Host cache used, guest's flushes honoured.
    #[default]
    Writeback,
    /// Host cache used, every write flushed.
    Writethrough,
    /// Host cache bypassed, every write flushed.
    Directsync,
    /// Host cache used, flushes ignored: loses data with the host.
    Unsafe,
}

/// A network interface: the text of a network back end, in the hypervisor's
/// words, without an identifier.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nic {
    /// The back end, such as `user` or `dgram,local.type=unix,...`.
    pub netdev: String,
    /// Hardware address; the hypervisor chooses one where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

/// A disk of a machine and where it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disk {
    /// Its name in the definition; of an attached machine, the block device's
    /// name or path in the hypervisor.
    pub name: String,
    /// The layer that the guest writes to.
    pub active: LayerId,
    /// Why it cannot be snapshotted, if it cannot (a passed-through device, a
    /// read-only medium).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excluded: Option<String>,
    /// The guest cannot write to it, so a snapshot need not hold it.
    #[serde(default)]
    pub read_only: bool,
}

/// A layer: one image file of a disk's chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// Its identifier.
    pub id: LayerId,
    /// The machine whose disk it belongs to.
    pub machine: MachineId,
    /// The disk's name.
    pub disk: String,
    /// The file, absolute. Empty where an attached machine's disk is no file
    /// (which then is [excluded](Disk::excluded)).
    pub path: PathBuf,
    /// Its format.
    pub format: ImageFormat,
    /// The layer beneath; none for the image that the owner brought.
    pub parent: Option<LayerId>,
    /// What its file was when it was frozen, or when we changed it last; absent while
    /// a guest or we may write to it. What differs now was changed by somebody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<FileIdentity>,
}

/// What tells a file from another of its name, and from itself after a change. Its
/// device's number is no part of it: that may be another after each boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileIdentity {
    /// Its number in its file system.
    pub inode: u64,
    /// When it was created, where the file system knows, in nanoseconds since 1970.
    pub born: Option<i64>,
    /// Its length in bytes.
    pub bytes: u64,
    /// When its content was last changed, in nanoseconds since 1970.
    pub modified: i64,
}

impl Layer {
    /// Whether there is a file to it.
    pub fn is_file(&self) -> bool {
        !self.path.as_os_str().is_empty()
    }
}

/// Whether a machine executes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Power {
    /// Its processors run.
    Running,
    /// It has a process and memory, but its processors stand.
    Paused,
    /// It has no process.
    Off,
    /// It has no process; its memory is in a file, from which it goes on.
    Saved,
}

impl std::fmt::Display for Power {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Off => "off",
            Self::Saved => "saved",
        })
    }
}
