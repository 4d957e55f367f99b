//! Runs a machine on QEMU directly, as somebody would who has never heard of the
//! product: with a monitor socket, and an agent socket if it runs the agent. A
//! guest ends with the value that stands for it.

use crate::definition::Definition;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START_LIMIT: Duration = Duration::from_secs(20);

/// A running QEMU; killed and waited for when dropped.
#[derive(Debug)]
pub struct Guest {
    /// Its QMP socket; takes one client at a time.
    pub qmp: PathBuf,
    /// The guest agent's socket.
    pub agent: Option<PathBuf>,
    child: Child,
}

impl Guest {
    /// Starts QEMU and returns once its monitor can be connected to. Its sockets
    /// `NAME.qmp` and `NAME.qga` are in `dir`, and what it says on standard error
    /// in `NAME.err`. The serial log is appended to. Disk `D` is the block node
    /// `D`. With accelerator `auto` it takes TCG.
    ///
    /// # Errors
    /// When QEMU cannot be run, or ends before its monitor is up.
    pub fn start(definition: &Definition, dir: &Path) -> Result<Guest> {
        let name = &definition.name;
        let qmp = dir.join(format!("{name}.qmp"));
        let agent = definition
            .guest_agent
            .then(|| dir.join(format!("{name}.qga")));
        let errors = dir.join(format!("{name}.err"));
        let _ = std::fs::remove_file(&qmp);
        let stderr =
            File::create(&errors).with_context(|| format!("creating {}", errors.display()))?;
        let child = Command::new("qemu-system-x86_64")
            .args(arguments(definition, &qmp, agent.as_deref()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .context("qemu-system-x86_64 cannot be run (scripts/prereqs.sh installs it)")?;
        let mut guest = Guest { qmp, agent, child };
        let start = Instant::now();
        while UnixStream::connect(&guest.qmp).is_err() {
            if let Some(status) = guest.child.try_wait()? {
                let said = std::fs::read_to_string(&errors).unwrap_or_default();
                bail!("QEMU for {name} ended at once ({status}): {}", said.trim());
            }
            if start.elapsed() > START_LIMIT {
                bail!("QEMU for {name} did not open its monitor socket");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(guest)
    }

    /// Process id of QEMU.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends the guest as a power cut does, and waits until QEMU is gone.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.end();
    }
}

fn arguments(definition: &Definition, qmp: &Path, agent: Option<&Path>) -> Vec<String> {
    let mut args = Vec::new();
    let mut add = |option: &str, value: String| args.extend([option.to_owned(), value]);
    let accel = match definition.accel.as_str() {
        "auto" => "tcg",
        other => other,
    };
    add("-name", definition.name.clone());
    add("-machine", definition.machine.clone());
    add("-accel", accel.into());
    add("-m", definition.memory_mib.to_string());
    add("-smp", definition.cpus.to_string());
    add("-display", "none".into());
    add("-kernel", path(&definition.kernel));
    add("-initrd", path(&definition.initrd));
    add("-append", definition.append.clone());
    add(
        "-chardev",
        format!(
            "file,id=serial0,path={},append=on",
            path(&definition.serial_log)
        ),
    );
    add("-serial", "chardev:serial0".into());
    add("-qmp", format!("unix:{},server=on,wait=off", path(qmp)));
    for disk in &definition.disks {
        let (direct, no_flush) = match disk.cache.as_str() {
            "none" | "directsync" => ("on", "off"),
            "unsafe" => ("off", "on"),
            _ => ("off", "off"),
        };
        let read_only = if disk.read_only { "on" } else { "off" };
        add(
            "-blockdev",
            format!(
                "driver={},node-name={},read-only={read_only},cache.direct={direct},\
                 cache.no-flush={no_flush},file.driver=file,file.filename={}",
                disk.format,
                disk.name,
                path(&disk.path)
            ),
        );
        let write_cache = match disk.cache.as_str() {
            "writethrough" | "directsync" => "off",
            _ => "on",
        };
        add(
            "-device",
            format!(
                "virtio-blk-pci,drive={},write-cache={write_cache}",
                disk.name
            ),
        );
    }
    for (number, nic) in definition.nics.iter().enumerate() {
        add("-netdev", format!("{},id=net{number}", nic.netdev));
        add(
            "-device",
            format!("virtio-net-pci,netdev=net{number},mac={},romfile=", nic.mac),
        );
    }
    if let Some(agent) = agent {
        add(
            "-chardev",
            format!("socket,id=qga0,path={},server=on,wait=off", path(agent)),
        );
        add("-device", "virtio-serial-pci".into());
        add(
            "-device",
            "virtserialport,chardev=qga0,name=org.qemu.guest_agent.0".into(),
        );
    }
    args.push("-nodefaults".into());
    args.extend(definition.extra_args.iter().cloned());
    args
}

/// A path as part of an option, in which a comma is written twice.
fn path(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}
