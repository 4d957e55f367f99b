//! The product's machine definition, as the lab writes it: one TOML file per
//! machine, to be given to `isochron vm define`.

use crate::disk::Format;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// One machine. Every path is absolute.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Definition {
    /// The machine's name.
    pub name: String,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual processors.
    pub cpus: u32,
    /// QEMU's machine type.
    pub machine: String,
    /// `auto`, `kvm` or `tcg`.
    pub accel: String,
    /// Kernel to boot directly.
    pub kernel: PathBuf,
    /// Its initramfs.
    pub initrd: PathBuf,
    /// Its command line.
    pub append: String,
    /// File that takes what the guest writes on its serial port.
    pub serial_log: PathBuf,
    /// Whether the guest runs the guest agent.
    pub guest_agent: bool,
    /// Arguments for QEMU that nothing else covers.
    pub extra_args: Vec<String>,
    /// Disks, in the order in which the guest sees them.
    #[serde(default)]
    pub disks: Vec<Disk>,
    /// Network cards, in the order in which the guest sees them.
    #[serde(default)]
    pub nics: Vec<Nic>,
}

/// One disk of a machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Disk {
    /// Name within the machine.
    pub name: String,
    /// The image file.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
    /// QEMU's cache mode, such as `none`.
    pub cache: String,
    /// Whether the guest may only read.
    pub read_only: bool,
}

/// One network card of a machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Nic {
    /// Text of a QEMU netdev without `id=`.
    pub netdev: String,
    /// Hardware address.
    pub mac: String,
}

impl Definition {
    /// Writes the definition to a file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = toml::to_string(self).context("a machine definition does not fit TOML")?;
        std::fs::write(path, text).with_context(|| format!("writing {}", path.display()))
    }
}

/// A machine whose definition lies in a file.
#[derive(Debug, Clone)]
pub struct Machine {
    /// What the file says.
    pub definition: Definition,
    /// The file, `NAME.toml` beside the machine's disks.
    pub file: PathBuf,
}

impl Machine {
    /// Writes the definition to `DIR/NAME.toml`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(dir: &Path, definition: Definition) -> Result<Machine> {
        let file = dir.join(format!("{}.toml", definition.name));
        definition.write(&file)?;
        Ok(Machine { definition, file })
    }

    /// The counter that the guest last showed on its serial port.
    pub fn counter_now(&self) -> Option<u64> {
        crate::serial::counter(&self.definition.serial_log)
    }
}
