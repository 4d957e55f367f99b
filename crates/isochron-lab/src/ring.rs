//! A ring of guests: each hears a counter from its left neighbour, writes it to
//! its disks and passes it to its right (isochron-ring has the protocol).
//!
//! Every member has two network cards, each with one end of a link: its first
//! hears the left neighbour, its second speaks to the right one. A link is a pair
//! of unix datagram sockets in the ring's directory, so nothing stands between
//! two members, and one that is started again finds its neighbours.

use crate::definition::{Definition, Disk, Machine, Nic};
use crate::disk::{self, Format};
use crate::guest::Guest;
use crate::kit::Kit;
use crate::oracle::Image;
use crate::serial;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A unix socket's path has room for 107 bytes and a NUL.
const SOCKET_PATH_MAX: usize = 107;

/// Between two writes of a member that is idle otherwise.
const IDLE_PACE_MS: u32 = 25;

/// How a ring is built.
#[derive(Debug, Clone)]
pub struct Options {
    /// First part of the members' names: `ring` gives `ring-0`, `ring-1`, ...
    pub name: String,
    /// Members; at least 1, at most 64.
    pub count: usize,
    /// Memory of each in MiB.
    pub memory_mib: u32,
    /// Accelerator: `auto`, `kvm` or `tcg`.
    pub accel: String,
    /// Data disks of each, at most 8.
    pub disks: usize,
    /// Size of a disk in MiB, at least 2.
    pub disk_mib: u64,
    /// Format of the disks.
    pub format: Format,
    /// QEMU's cache mode of the disks.
    pub cache: String,
    /// Extra load: MB/s of dirty page cache in each guest.
    pub dirty_mbps: u32,
    /// Whether what a member wrote is on stable storage before it says so. If not,
    /// the oracle still holds of snapshots, though not after a loss of power.
    pub sync: bool,
    /// No ring: each member writes by itself, now and then. The oracle does not
    /// hold of what they write.
    pub idle: bool,
    /// Each member tells every write on a second serial port
    /// ([`Ring::pulses`]).
    pub pulse: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            name: "ring".into(),
            count: 3,
            memory_mib: 128,
            accel: "tcg".into(),
            disks: 1,
            disk_mib: 64,
            format: Format::Qcow2,
            cache: "none".into(),
            dirty_mbps: 0,
            sync: true,
            idle: false,
            pulse: false,
        }
    }
}

/// A ring whose disks and definitions are written; its guests may run or not.
#[derive(Debug)]
pub struct Ring {
    /// The members, by index.
    pub members: Vec<Machine>,
    dir: PathBuf,
}

impl Ring {
    /// Writes the disks and one machine definition per member into `dir`, which
    /// must exist and is the ring's alone.
    ///
    /// # Errors
    /// When the options are out of range, the directory's path is too long for
    /// unix sockets, or a file cannot be written.
    pub fn create(kit: &Kit, dir: &Path, options: &Options) -> Result<Ring> {
        if !(1..=64).contains(&options.count) {
            bail!("a ring has 1 to 64 members, not {}", options.count);
        }
        if !(1..=8).contains(&options.disks) || options.disk_mib < 2 {
            bail!("a member has 1 to 8 disks of at least 2 MiB");
        }
        let dir = directory(dir)?;
        let members = (0..options.count)
            .map(|index| {
                let definition = member(kit, &dir, options, index)?;
                for disk in &definition.disks {
                    disk::create(&disk.path, disk.format, options.disk_mib)?;
                }
                Machine::create(&dir, definition)
            })
            .collect::<Result<_>>()?;
        Ok(Ring { members, dir })
    }

    /// Starts every member with QEMU directly, without the product. The guests
    /// end when what is returned is dropped.
    ///
    /// # Errors
    /// When one cannot be started; those already started are ended.
    pub fn spawn(&self) -> Result<Vec<Guest>> {
        self.members
            .iter()
            .map(|member| Guest::start(&member.definition, &self.dir))
            .collect()
    }

    /// The counter that member `index` last showed on its serial port.
    pub fn counter_now(&self, index: usize) -> Option<u64> {
        self.members.get(index)?.counter_now()
    }

    /// Waits until every member is up and the counter goes round.
    ///
    /// # Errors
    /// When that is not so within `limit`.
    pub fn wait_alive(&self, limit: Duration) -> Result<()> {
        self.wait_progress(2, limit)
    }

    /// Waits until every member's counter has gone up by `by` from now on; a ring
    /// that is restored meanwhile counts from its lowest counter.
    ///
    /// # Errors
    /// When that is not so within `limit`.
    pub fn wait_progress(&self, by: u64, limit: Duration) -> Result<()> {
        let logs = self.members.iter().map(|m| m.definition.serial_log.clone());
        serial::wait_progress(&logs.collect::<Vec<_>>(), by, limit)
    }

    /// Per member, the unix socket on which a byte comes for every write, where the
    /// ring was made so. QEMU listens there while the member has a process.
    pub fn pulses(&self) -> Vec<PathBuf> {
        let members = self.members.iter().map(|m| &m.definition);
        members
            .map(|member| pulse(&self.dir, &member.name))
            .collect()
    }

    /// The members' disks as they were created, in the form that the oracle takes.
    /// What a snapshot froze has other paths: take those from the snapshot.
    pub fn images(&self) -> Vec<Vec<Image>> {
        let images = |member: &Machine| {
            let disks = member.definition.disks.iter();
            disks
                .map(|disk| Image::new(&disk.path, disk.format))
                .collect()
        };
        self.members.iter().map(images).collect()
    }
}

fn member(kit: &Kit, dir: &Path, options: &Options, index: usize) -> Result<Definition> {
    let count = options.count;
    let name = format!("{}-{index}", options.name);
    let left = (index + count - 1) % count;
    let right = (index + 1) % count;
    let socket = |path: &Path| -> Result<String> {
        let path = path.to_str().context("the ring's directory is not UTF-8")?;
        if path.len() > SOCKET_PATH_MAX || path.contains(',') {
            bail!("{path} cannot be a unix socket of QEMU's: use a directory with a shorter path");
        }
        Ok(path.to_owned())
    };
    let end = |member: usize, side: &str| socket(&dir.join(format!("{member}-{side}.sock")));
    let nic = |side: u8, local: String, remote: String| Nic {
        netdev: format!(
            "dgram,local.type=unix,local.path={local},remote.type=unix,remote.path={remote}"
        ),
        mac: format!("52:54:00:49:{index:02x}:{side:02x}"),
    };
    let mut append = format!("{} ring.index={index} ring.count={count}", APPEND);
    if options.dirty_mbps > 0 {
        append.push_str(&format!(" ring.dirty={}", options.dirty_mbps));
    }
    if options.idle {
        append.push_str(&format!(" ring.pace={IDLE_PACE_MS}"));
    }
    if !options.sync {
        append.push_str(" ring.sync=0");
    }
    let mut extra_args = Vec::new();
    if options.pulse {
        append.push_str(" ring.pulse=1");
        // The second serial port, since the log is the first.
        let path = socket(&pulse(dir, &name))?;
        extra_args = [
            "-chardev",
            &format!("socket,id=pulse,server=on,wait=off,path={path}"),
            "-serial",
            "chardev:pulse",
        ]
        .map(str::to_owned)
        .to_vec();
    }
    Ok(Definition {
        memory_mib: options.memory_mib,
        cpus: 1,
        machine: "q35".into(),
        accel: options.accel.clone(),
        kernel: kit.kernel.clone(),
        initrd: kit.ring_initrd.clone(),
        append,
        serial_log: dir.join(format!("{name}.log")),
        guest_agent: false,
        extra_args,
        disks: (0..options.disks)
            .map(|disk| {
                let data = match disk {
                    0 => "data".to_owned(),
                    _ => format!("data{disk}"),
                };
                Disk {
                    path: dir.join(format!("{name}-{data}.{}", options.format)),
                    name: data,
                    format: options.format,
                    cache: options.cache.clone(),
                    read_only: false,
                }
            })
            .collect(),
        nics: vec![
            nic(0, end(index, "left")?, end(left, "right")?),
            nic(1, end(index, "right")?, end(right, "left")?),
        ],
        name,
    })
}

/// Where a member's writes are told.
fn pulse(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.pulse"))
}

/// What every lab guest has on its kernel command line: a serial console, none of
/// what only costs time in a guest that trusts itself, and no check of the timer, which
/// one of dozens that start at once on few processors does not pass.
const APPEND: &str = "console=ttyS0 quiet mitigations=off ipv6.disable=1 no_timer_check";

/// A machine with the guest agent: an ext4 file system on its one disk, mounted on
/// /data, in which a writer appends records with `fsync`
/// ([`crate::filesystem::inspect`] reads them back).
///
/// # Errors
/// When a file cannot be written.
pub fn agent_machine(kit: &Kit, dir: &Path, name: &str, format: Format) -> Result<Machine> {
    let dir = directory(dir)?;
    let path = dir.join(format!("{name}-data.{format}"));
    disk::create_ext4(&path, format, 128)?;
    let definition = Definition {
        name: name.into(),
        memory_mib: 128,
        cpus: 1,
        machine: "q35".into(),
        accel: "tcg".into(),
        kernel: kit.kernel.clone(),
        initrd: kit.agent_initrd.clone(),
        append: format!("{APPEND} ring.agent=1"),
        serial_log: dir.join(format!("{name}.log")),
        guest_agent: true,
        extra_args: Vec::new(),
        disks: vec![Disk {
            name: "data".into(),
            path,
            format,
            cache: "none".into(),
            read_only: false,
        }],
        nics: Vec::new(),
    };
    Machine::create(&dir, definition)
}

fn directory(dir: &Path) -> Result<PathBuf> {
    dir.canonicalize()
        .with_context(|| format!("the directory {} for guests", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kit() -> Kit {
        Kit {
            dir: "/lab".into(),
            kernel: "/lab/kernel/vmlinuz".into(),
            ring_initrd: "/lab/ring.initrd".into(),
            agent_initrd: "/lab/agent.initrd".into(),
        }
    }

    #[test]
    fn every_link_has_two_ends_that_name_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            count: 4,
            disks: 2,
            ..Options::default()
        };
        let ring = Ring::create(&kit(), dir.path(), &options).unwrap();
        let end = |member: usize, nic: usize, key: &str| {
            let file = std::fs::read_to_string(&ring.members[member].file).unwrap();
            let definition: Definition = toml::from_str(&file).unwrap();
            let text = &definition.nics[nic].netdev;
            let mut options = text.split(',');
            options
                .find_map(|option| option.strip_prefix(key).map(str::to_owned))
                .unwrap()
        };
        for member in 0..4 {
            let right = (member + 1) % 4;
            assert_eq!(end(member, 1, "remote.path="), end(right, 0, "local.path="));
            assert_eq!(end(member, 1, "local.path="), end(right, 0, "remote.path="));
        }
        assert!(ring.images().iter().flatten().all(|i| i.path.is_file()));
        assert_eq!(ring.images().iter().flatten().count(), 8);
    }

    #[test]
    fn a_directory_too_deep_for_sockets_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(100));
        std::fs::create_dir(&deep).unwrap();
        let error = Ring::create(&kit(), &deep, &Options::default()).unwrap_err();
        assert!(error.to_string().contains("shorter"), "{error}");
        assert_eq!(deep.read_dir().unwrap().count(), 0);
    }
}
