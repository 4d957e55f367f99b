//! A machine's definition: what its owner writes as TOML, and what goes over
//! the wire as JSON.

use std::path::{Path, PathBuf};

use isochron_engine::model;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::same_variants;

/// What a machine is made of. Unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Name, unique among machines.
    pub name: String,
    /// Identifier; generated where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    /// Guest memory in MiB.
    #[serde(default = "default_memory")]
    pub memory_mib: u64,
    /// Virtual CPUs.
    #[serde(default = "default_cpus")]
    pub cpus: u32,
    /// Machine type, in QEMU's words.
    #[serde(default = "default_machine")]
    pub machine: String,
    /// How guest code is run.
    #[serde(default)]
    pub accel: Accelerator,
    /// Kernel to boot directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk, with `kernel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub initrd: Option<PathBuf>,
    /// Kernel command line, with `kernel`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append: Option<String>,
    /// Firmware image instead of the built-in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub firmware: Option<PathBuf>,
    /// File that receives what the guest writes to its first serial port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub serial_log: Option<PathBuf>,
    /// Whether the guest runs an agent through which file systems are frozen.
    #[serde(default)]
    pub guest_agent: bool,
    /// Further arguments for QEMU, as they are.
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiskDefinition {
    /// Name, unique in the machine; `disk0`, `disk1`, ... where absent.
    #[serde(default)]
    pub name: String,
    /// Image file or block device.
    #[schema(value_type = String)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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
        model::ImageFormat::from(self).as_str()
    }
}

/// How the host caches a disk (QEMU's cache modes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
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

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Nic {
    /// The text of a QEMU netdev without an identifier, such as `user` or
    /// `dgram,local.type=unix,...`.
    pub netdev: String,
    /// Hardware address; QEMU chooses one where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
}

impl Definition {
    /// Makes relative paths absolute: they are meant relative to `directory`,
    /// where the definition's file lies.
    pub fn resolve(&mut self, directory: &Path) {
        let files = [
            &mut self.kernel,
            &mut self.initrd,
            &mut self.firmware,
            &mut self.serial_log,
        ];
        for path in files.into_iter().flatten() {
            *path = directory.join(&*path);
        }
        for disk in &mut self.disks {
            disk.path = directory.join(&disk.path);
        }
    }
}

same_variants!(Accelerator = model::Accelerator { Auto, Kvm, Tcg });
same_variants!(ImageFormat = model::ImageFormat { Qcow2, Raw });
same_variants!(
    Cache = model::Cache {
        None,
        Writeback,
        Writethrough,
        Directsync,
        Unsafe
    }
);

impl From<Definition> for model::Definition {
    fn from(definition: Definition) -> Self {
        Self {
            name: definition.name,
            id: definition.id.map(model::MachineId),
            memory_mib: definition.memory_mib,
            cpus: definition.cpus,
            machine: definition.machine,
            accel: definition.accel.into(),
            kernel: definition.kernel,
            initrd: definition.initrd,
            append: definition.append,
            firmware: definition.firmware,
            serial_log: definition.serial_log,
            guest_agent: definition.guest_agent,
            extra_args: definition.extra_args,
            disks: definition
                .disks
                .into_iter()
                .map(|disk| model::DiskDefinition {
                    name: disk.name,
                    path: disk.path,
                    format: disk.format.into(),
                    cache: disk.cache.into(),
                    read_only: disk.read_only,
                })
                .collect(),
            nics: definition
                .nics
                .into_iter()
                .map(|nic| model::Nic {
                    netdev: nic.netdev,
                    mac: nic.mac,
                })
                .collect(),
        }
    }
}

impl From<model::Definition> for Definition {
    fn from(definition: model::Definition) -> Self {
        Self {
            name: definition.name,
            id: definition.id.map(|id| id.0),
            memory_mib: definition.memory_mib,
            cpus: definition.cpus,
            machine: definition.machine,
            accel: definition.accel.into(),
            kernel: definition.kernel,
            initrd: definition.initrd,
            append: definition.append,
            firmware: definition.firmware,
            serial_log: definition.serial_log,
            guest_agent: definition.guest_agent,
            extra_args: definition.extra_args,
            disks: definition
                .disks
                .into_iter()
                .map(|disk| DiskDefinition {
                    name: disk.name,
                    path: disk.path,
                    format: disk.format.into(),
                    cache: disk.cache.into(),
                    read_only: disk.read_only,
                })
                .collect(),
            nics: definition
                .nics
                .into_iter()
                .map(|nic| Nic {
                    netdev: nic.netdev,
                    mac: nic.mac,
                })
                .collect(),
        }
    }
}
