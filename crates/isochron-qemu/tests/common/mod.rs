//! Real QEMUs without a kernel for the tests of this crate: SeaBIOS and disks.
//! What a guest would write is written by QEMU itself, through the same device,
//! by `qemu-io` over the second monitor.
//!
//! `ISOCHRON_TEST_QEMU` names another QEMU than the one in `PATH`.

#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)] // each test file uses its part

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use isochron_engine::LiveMachine;
use isochron_engine::model::*;
use isochron_engine::ports::*;
use isochron_qemu::{QemuConfig, QemuHypervisor};
use serde_json::{Value, json};

pub const MIB: u64 = 1 << 20;

pub fn qemu_binary() -> PathBuf {
    std::env::var_os("ISOCHRON_TEST_QEMU").map_or("qemu-system-x86_64".into(), Into::into)
}

/// A directory, a hypervisor over it, and the promise that no QEMU is left.
pub struct Host {
    pub directory: tempfile::TempDir,
    pub config: QemuConfig,
    pub qemu: QemuHypervisor,
}

impl Host {
    pub fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("iq")
            .tempdir_in("/tmp")
            .unwrap();
        let mut config = QemuConfig::new(directory.path().join("run"));
        config.qemu_binary = qemu_binary();
        config.guardian_exe = env!("CARGO_BIN_EXE_isochron-guardian").into();
        config.guardian_args = vec![];
        Self {
            qemu: QemuHypervisor::new(config.clone()),
            config,
            directory,
        }
    }

    /// A hypervisor as a new daemon has it.
    pub fn new_daemon(&mut self) {
        self.qemu = QemuHypervisor::new(self.config.clone());
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn image(&self, name: &str, format: ImageFormat) -> PathBuf {
        let path = self.path(name);
        run(
            "qemu-img",
            &[
                "create",
                "-q",
                "-f",
                format.as_str(),
                path.to_str().unwrap(),
                "16M",
            ],
        );
        path
    }

    pub fn machine(&self, disks: &[(&str, ImageFormat)]) -> Vm {
        let disks = disks.iter().map(|(name, format)| DiskDefinition {
            name: (*name).to_owned(),
            path: self.image(&format!("{name}.{}", format.as_str()), *format),
            format: *format,
            cache: Cache::Writeback,
            read_only: false,
        });
        let mut definition: Definition = serde_json::from_value(json!({
            "name": "test, with a comma", "memory_mib": 64, "accel": "tcg",
        }))
        .unwrap();
        definition.disks = disks.collect();
        Vm::new(self, definition)
    }

    /// The socket of the machine's second monitor.
    pub fn observe(&self, vm: &Vm) -> PathBuf {
        self.config
            .run_dir
            .join(vm.machine.id.to_string())
            .join("observe.sock")
    }

    /// Writes a byte over a range of a disk as the guest would.
    pub fn guest_write(&self, vm: &Vm, disk: usize, byte: u8, offset: &str, length: &str) {
        let device = format!("/machine/peripheral/isochron-disk{disk}/virtio-backend");
        qemu_io(
            &self.observe(vm),
            &device,
            &format!("write -P {byte} {offset} {length}"),
        );
        qemu_io(&self.observe(vm), &device, "flush");
    }

    /// Asserts what the guest would read.
    pub fn guest_reads(&self, vm: &Vm, disk: usize, byte: u8, offset: &str, length: &str) {
        let device = format!("/machine/peripheral/isochron-disk{disk}/virtio-backend");
        qemu_io(
            &self.observe(vm),
            &device,
            &format!("read -P {byte} {offset} {length}"),
        );
    }

    pub fn pid(&self, vm: &Vm) -> Option<i32> {
        let file = self
            .config
            .run_dir
            .join(vm.machine.id.to_string())
            .join("pid");
        std::fs::read_to_string(file).ok()?.trim().parse().ok()
    }

    pub async fn snapshot(&self, vm: &mut Vm, live: &dyn LiveMachine) -> Vec<LayerFile> {
        let swaps = self.overlays(vm, "snap").await;
        live.open_overlays(&swaps).await.unwrap();
        live.flush().await.unwrap();
        live.stop().await.unwrap();
        live.swap(&swaps).await.unwrap();
        live.resume().await.unwrap();
        vm.swapped(&swaps)
    }

    /// Creates an overlay for every disk.
    pub async fn overlays(&self, vm: &Vm, prefix: &str) -> Vec<Swap> {
        let mut swaps = Vec::new();
        for (index, chain) in vm.chains.iter().enumerate() {
            let id = LayerId::new();
            let overlay = LayerFile {
                id,
                path: self.path(&format!("{prefix}-{id}.qcow2")),
                format: ImageFormat::Qcow2,
            };
            let pair = Overlay {
                layer: overlay.clone(),
                base: chain[0].clone(),
            };
            self.qemu
                .create_overlay(&pair, Some(16 * MIB))
                .await
                .unwrap();
            let disk = vm.machine.definition.disks[index].name.clone();
            swaps.push(Swap { disk, overlay });
        }
        swaps
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let Ok(entries) = std::fs::read_dir(&self.config.run_dir) else {
            return;
        };
        for entry in entries.flatten() {
            let Ok(pid) = std::fs::read_to_string(entry.path().join("pid")) else {
                continue;
            };
            let Ok(pid) = pid.trim().parse() else {
                continue;
            };
            let ours = self.directory.path().to_string_lossy().into_owned();
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&command).contains(&ours) {
                signal(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// A machine and its layers as the engine would keep them.
pub struct Vm {
    pub machine: Machine,
    pub chains: Vec<Vec<LayerFile>>,
}

impl Vm {
    pub fn new(_: &Host, definition: Definition) -> Self {
        let chains = definition.disks.iter().map(|disk| {
            vec![LayerFile {
                id: LayerId::new(),
                path: disk.path.clone(),
                format: disk.format,
            }]
        });
        let chains = chains.collect();
        Self {
            machine: machine(definition, Origin::Launched),
            chains,
        }
    }

    pub fn start(&self) -> Start<'_> {
        Start {
            id: self.machine.id,
            definition: &self.machine.definition,
            chains: self.chains.clone(),
            machine_type: None,
            memory: None,
        }
    }

    /// Notes a swap; the layers frozen by it.
    pub fn swapped(&mut self, swaps: &[Swap]) -> Vec<LayerFile> {
        let mut frozen = Vec::new();
        for (chain, swap) in self.chains.iter_mut().zip(swaps) {
            frozen.push(chain[0].clone());
            chain.insert(0, swap.overlay.clone());
        }
        frozen
    }
}

pub fn machine(definition: Definition, origin: Origin) -> Machine {
    serde_json::from_value(json!({
        "id": MachineId::new(), "name": definition.name, "origin": origin,
        "definition": definition, "disks": [], "current": null, "last_applied": null,
        "created_at": "2024-01-01T00:00:00Z",
    }))
    .unwrap()
}

/// A QEMU that its owner started, in a directory of its own.
pub struct Owned {
    pub child: std::process::Child,
    pub machine: Machine,
}

impl Drop for Owned {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn owned(host: &Host, arguments: &[&str]) -> Owned {
    let child = std::process::Command::new(qemu_binary())
        .current_dir(host.directory.path())
        .args([
            "-accel",
            "tcg",
            "-machine",
            "q35",
            "-m",
            "64",
            "-nodefaults",
            "-display",
            "none",
        ])
        .args([
            "-qmp",
            "unix:qmp,server=on,wait=off",
            "-qmp",
            "unix:other,server=on,wait=off",
        ])
        .args(arguments)
        .spawn()
        .unwrap();
    Monitor::open(&host.path("other"));
    let definition =
        serde_json::from_value(json!({ "name": "attached", "memory_mib": 64 })).unwrap();
    let origin = Origin::Attached {
        qmp: host.path("qmp"),
        guest_agent: host.path("agent").exists().then(|| host.path("agent")),
    };
    Owned {
        child,
        machine: machine(definition, origin),
    }
}

pub async fn live(qemu: &QemuHypervisor, vm: &Machine) -> Arc<dyn LiveMachine> {
    qemu.live(vm).await.unwrap().expect("the machine is off")
}

pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Asserts what an image holds, by means that have nothing to do with us.
pub fn image_reads(path: &Path, format: ImageFormat, byte: u8, offset: &str, length: &str) {
    let command = format!("read -P {byte} {offset} {length}");
    let path = path.to_str().unwrap();
    let text = run(
        "qemu-io",
        &["-r", "-U", "-f", format.as_str(), "-c", &command, path],
    );
    assert!(
        !text.contains("verification failed"),
        "{path}: {command}: {text}"
    );
}

pub fn backing_of(path: &Path) -> Option<String> {
    let text = run(
        "qemu-img",
        &["info", "-U", "--output=json", path.to_str().unwrap()],
    );
    let info: Value = serde_json::from_str(&text).unwrap();
    info["backing-filename"].as_str().map(str::to_owned)
}

/// A client of a monitor that has nothing to do with ours.
pub struct Monitor(BufReader<UnixStream>);

impl Monitor {
    pub fn open(socket: &Path) -> Self {
        let begin = Instant::now();
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(error) if begin.elapsed() > Duration::from_secs(20) => {
                    panic!("{}: {error}", socket.display())
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        };
        let mut monitor = Self(BufReader::new(stream));
        monitor.line();
        monitor.run("qmp_capabilities", json!({})).unwrap();
        monitor
    }

    pub fn line(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    pub fn run(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        let line = json!({ "execute": command, "arguments": arguments });
        writeln!(self.0.get_mut(), "{line}").unwrap();
        loop {
            let answer = self.line();
            if let Some(error) = answer.get("error") {
                return Err(error["desc"].as_str().unwrap().to_owned());
            }
            if let Some(result) = answer.get("return") {
                return Ok(result.clone());
            }
        }
    }

    pub fn status(&mut self) -> String {
        self.run("query-status", json!({})).unwrap()["status"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

pub fn qemu_io(socket: &Path, device: &str, command: &str) {
    let line = format!("qemu-io -d {device} \"{command}\"");
    let text = Monitor::open(socket)
        .run("human-monitor-command", json!({ "command-line": line }))
        .unwrap();
    let text = text.as_str().unwrap();
    assert!(
        !text.contains("rror") && !text.contains("failed"),
        "{device}: {command}: {text}"
    );
}

pub fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, signal);
}

/// Whether a process runs: it is there and was not only not yet collected.
pub fn runs(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
        !stat
            .rsplit(')')
            .next()
            .unwrap()
            .trim_start()
            .starts_with('Z')
    })
}

pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "{what} does not come"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
