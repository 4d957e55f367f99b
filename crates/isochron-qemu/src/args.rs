//! QEMU's command line for a definition.
//!
//! The same definition gives the same devices in the same order with the same
//! names and so the same addresses, at every start: saved memory only loads into
//! the devices it was saved from. Disks are opened as explicit nodes, one per
//! layer; only the last one is opened as its own header says, since its owner's
//! image may stand on images that nobody told us of.

use std::ffi::OsString;
use std::path::Path;

use isochron_engine::model::{Accelerator, Cache, Definition, DiskDefinition, MachineId, Nic};
use isochron_engine::ports::{HypervisorError, Start};
use serde_json::{Value, json};

use crate::launch::RunFiles;
use crate::nodes::{self, Access, Backing};

/// A virtio disk's serial number holds no more.
const SERIAL_LENGTH: usize = 20;

/// A disk's name: its own or the one that its place gives it.
pub(crate) fn disk_name(definition: &Definition, index: usize) -> String {
    match definition.disks.get(index) {
        Some(disk) if !disk.name.is_empty() => disk.name.clone(),
        _ => format!("disk{index}"),
    }
}

/// The device's identifier of a definition's disk.
pub(crate) fn disk_device(index: usize) -> String {
    format!("isochron-disk{index}")
}

/// Everything behind the program's name. `accelerator` is the one decided on.
pub(crate) async fn arguments(
    start: &Start<'_>,
    files: &RunFiles,
    accelerator: Accelerator,
) -> Result<Vec<OsString>, HypervisorError> {
    let definition = start.definition;
    if start.chains.len() != definition.disks.len() {
        return Err(HypervisorError::Invalid(
            "one chain per disk is needed".to_owned(),
        ));
    }
    let mut line = Line(Vec::new());
    line.machine(start, accelerator);
    line.monitors(files)?;
    line.boot(definition);
    line.pair("-nodefaults", None);
    line.pair("-no-user-config", None);
    line.pair("-display", Some("none".into()));
    line.pair("-S", None);
    line.pair("-daemonize", None);
    line.pair("-pidfile", Some(files.pid().into()));
    line.pair("-D", Some(files.log().into()));
    if start.memory.is_some() {
        line.pair("-incoming", Some("defer".into()));
    }
    if let Some(log) = &definition.serial_log {
        let log = option_value(log)?;
        line.text(
            "-chardev",
            format!("file,id=isochron-serial0,append=on,path={log}"),
        );
        line.text("-serial", "chardev:isochron-serial0");
    }
    for (index, (disk, chain)) in definition.disks.iter().zip(&start.chains).enumerate() {
        line.disk(index, &disk_name(definition, index), disk, chain)
            .await?;
    }
    for (index, nic) in definition.nics.iter().enumerate() {
        line.nic(start.id, index, nic)?;
    }
    if definition.guest_agent {
        let path = option_value(&files.agent())?;
        line.text(
            "-chardev",
            format!("socket,id=isochron-agent,server=on,wait=off,path={path}"),
        );
        line.json(
            "-device",
            &json!({"driver": "virtio-serial-pci", "id": "isochron-serial"}),
        );
        line.json(
            "-device",
            &json!({
                "driver": "virtserialport",
                "id": "isochron-agent-port",
                "bus": "isochron-serial.0",
                "chardev": "isochron-agent",
                "name": "org.qemu.guest_agent.0",
            }),
        );
    }
    line.0.extend(definition.extra_args.iter().map(Into::into));
    Ok(line.0)
}

struct Line(Vec<OsString>);

impl Line {
    fn pair(&mut self, option: &str, value: Option<OsString>) {
        self.0.push(option.into());
        self.0.extend(value);
    }

    fn text(&mut self, option: &str, value: impl Into<String>) {
        self.pair(option, Some(value.into().into()));
    }

    fn json(&mut self, option: &str, value: &Value) {
        self.text(option, value.to_string());
    }

    fn machine(&mut self, start: &Start<'_>, accelerator: Accelerator) {
        let definition = start.definition;
        let (own_type, options) = match definition.machine.split_once(',') {
            Some((own_type, options)) => (own_type, format!(",{options}")),
            None => (&*definition.machine, String::new()),
        };
        let machine_type = start.machine_type.as_deref().unwrap_or(own_type);
        let (accelerator, processor) = match accelerator {
            Accelerator::Kvm => ("kvm", "host"),
            Accelerator::Tcg | Accelerator::Auto => ("tcg", "max"),
        };
        let name = escaped(&definition.name);
        self.text("-name", format!("guest={name},process=isochron-qemu"));
        self.text("-uuid", start.id.to_string());
        self.text(
            "-machine",
            format!("{machine_type},accel={accelerator}{options}"),
        );
        self.text("-cpu", processor);
        self.text("-smp", definition.cpus.to_string());
        self.text("-m", format!("size={}M", definition.memory_mib));
    }

    /// Three monitors, since each serves one client: two of ours, and one for whoever
    /// wants to look.
    fn monitors(&mut self, files: &RunFiles) -> Result<(), HypervisorError> {
        for (name, path) in [
            ("isochron-qmp", files.qmp()),
            ("isochron-cut", files.cut()),
            ("isochron-observe", files.observe()),
        ] {
            let path = option_value(&path)?;
            self.text(
                "-chardev",
                format!("socket,id={name},server=on,wait=off,path={path}"),
            );
            self.text("-mon", format!("chardev={name},mode=control"));
        }
        Ok(())
    }

    fn boot(&mut self, definition: &Definition) {
        for (option, file) in [
            ("-kernel", &definition.kernel),
            ("-initrd", &definition.initrd),
            ("-bios", &definition.firmware),
        ] {
            if let Some(file) = file {
                self.pair(option, Some(file.into()));
            }
        }
        if let Some(append) = &definition.append {
            self.text("-append", append);
        }
    }

    async fn disk(
        &mut self,
        index: usize,
        name: &str,
        disk: &DiskDefinition,
        chain: &[isochron_engine::ports::LayerFile],
    ) -> Result<(), HypervisorError> {
        let Some(active) = chain.first() else {
            return Err(HypervisorError::Invalid(format!(
                "the disk {name} has no layer"
            )));
        };
        let (direct, no_flush, write_cache) = match disk.cache {
            Cache::None => (true, false, true),
            Cache::Writeback => (false, false, true),
            Cache::Writethrough => (false, false, false),
            Cache::Directsync => (true, false, false),
            Cache::Unsafe => (false, true, true),
        };
        for (depth, layer) in chain.iter().enumerate().rev() {
            let backing = match chain.get(depth + 1) {
                Some(next) => Backing::Node(nodes::format_node(next.id)),
                None => Backing::Header,
            };
            let read_only = disk.read_only || depth > 0;
            let access = Access {
                read_only,
                direct,
                no_flush,
                detect_zeroes: None,
            };
            let device = nodes::is_block_device(&layer.path).await;
            let options = nodes::options(layer, backing, access, device)?;
            let options = serde_json::to_string(&options)
                .map_err(|error| HypervisorError::Failed(error.to_string()))?;
            self.text("-blockdev", options);
        }
        let serial: String = name.chars().take(SERIAL_LENGTH).collect();
        self.json(
            "-device",
            &json!({
                "driver": "virtio-blk-pci",
                "id": disk_device(index),
                "drive": nodes::format_node(active.id),
                "serial": serial,
                "write-cache": if write_cache { "on" } else { "off" },
            }),
        );
        Ok(())
    }

    fn nic(&mut self, machine: MachineId, index: usize, nic: &Nic) -> Result<(), HypervisorError> {
        let id = format!("isochron-net{index}");
        if nic.netdev.trim_start().starts_with('{') {
            let mut options: Value = serde_json::from_str(&nic.netdev).map_err(|error| {
                HypervisorError::Invalid(format!("the back end of network card {index}: {error}"))
            })?;
            options["id"] = id.as_str().into();
            self.json("-netdev", &options);
        } else {
            self.text("-netdev", format!("{},id={id}", nic.netdev));
        }
        let address = nic.mac.clone().unwrap_or_else(|| address(machine, index));
        self.json(
            "-device",
            &json!({
                "driver": "virtio-net-pci",
                "id": format!("isochron-nic{index}"),
                "netdev": id,
                "mac": address,
            }),
        );
        Ok(())
    }
}

/// A hardware address in QEMU's own range, the same at every start and, but for
/// chance, different for every machine: QEMU's default would be one for all.
fn address(machine: MachineId, index: usize) -> String {
    let [a, b, c, ..] = *machine.0.as_bytes();
    let number = u32::from_be_bytes([0, a, b, c]).wrapping_add(u32::try_from(index).unwrap_or(0));
    let [_, a, b, c] = number.to_be_bytes();
    format!("52:54:00:{a:02x}:{b:02x}:{c:02x}")
}

/// A comma ends a value in QEMU's options; doubled it is one.
fn escaped(value: &str) -> String {
    value.replace(',', ",,")
}

fn option_value(path: &Path) -> Result<String, HypervisorError> {
    let text = path
        .to_str()
        .ok_or_else(|| HypervisorError::Invalid(format!("{} is not UTF-8", path.display())))?;
    Ok(escaped(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_stable_and_differ() {
        let machine: MachineId = "00000fff-0000-4000-8000-000000000000".parse().unwrap();
        let other: MachineId = "10000fff-0000-4000-8000-000000000000".parse().unwrap();
        assert_eq!(address(machine, 0), "52:54:00:00:00:0f");
        assert_eq!(address(machine, 1), "52:54:00:00:00:10");
        assert_ne!(address(machine, 0), address(other, 0));
    }
}
