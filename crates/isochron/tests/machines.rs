//! The whole from the command line: the daemon, real QEMU, snapshots taken,
//! applied and destroyed, and guests that outlive the daemon. The guests are
//! QEMU's own firmware with a disk: they run, and need nothing.

#![allow(clippy::unwrap_used)] // tests end at the first surprise

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const CONFIG: &str = "state = \"state\"\n[listen]\nsocket = \"api.sock\"\ncimxml = \"off\"\n\
                      cimxml_https = \"off\"\nwsman = \"off\"\nwsman_https = \"off\"\n\
                      [deadlines]\nstop = \"20s\"\nwindow = \"60s\"\n";

/// A directory with a daemon and machines in it; whatever happens, none of their
/// processes is left.
struct Host {
    directory: tempfile::TempDir,
    daemon: Child,
}

impl Host {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("isochron.toml"), CONFIG).unwrap();
        let daemon = serve(directory.path());
        let host = Self { directory, daemon };
        host.listens();
        host
    }

    fn listens(&self) {
        let began = Instant::now();
        while !self.isochron(&["vm", "list"]).status.success() {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "the daemon does not listen"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn restart(&mut self, signal: Signal) {
        kill_process(pid(self.daemon.id()), signal).unwrap();
        self.daemon.wait().unwrap();
        self.daemon = serve(self.directory.path());
        self.listens();
    }

    fn isochron(&self, arguments: &[&str]) -> std::process::Output {
        command(self.directory.path())
            .args(arguments)
            .output()
            .unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.isochron(&[arguments, &["--json"]].concat());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn define(&self, name: &str) {
        let image = format!("{name}.qcow2");
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2", &image, "16M"])
            .current_dir(&self.directory)
            .status();
        assert!(made.unwrap().success());
        let text = format!(
            "name = \"{name}\"\nmemory_mib = 64\naccel = \"tcg\"\n[[disks]]\npath = \"{image}\"\n"
        );
        let file = format!("{name}.toml");
        std::fs::write(self.directory.path().join(&file), text).unwrap();
        self.json(&["vm", "define", &file]);
    }

    fn process(&self, name: &str) -> u32 {
        self.json(&["vm", "show", name])["process_id"]
            .as_u64()
            .unwrap()
            .try_into()
            .unwrap()
    }

    fn active(&self, name: &str) -> PathBuf {
        self.json(&["vm", "show", name])["disks"][0]["active"]
            .as_str()
            .unwrap()
            .into()
    }

    /// Processes whose command line names the directory.
    fn processes(&self) -> Vec<u32> {
        let mark = self.directory.path().to_str().unwrap();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(id) = entry.file_name().to_string_lossy().parse() else {
                continue;
            };
            let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&arguments).contains(mark) {
                found.push(id);
            }
        }
        found
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        for id in self.processes() {
            let _ = kill_process(pid(id), Signal::KILL);
        }
    }
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(id.try_into().unwrap()).unwrap()
}

fn command(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isochron"));
    command
        .args(["--config", "isochron.toml"])
        .current_dir(directory)
        .env_remove("ISOCHRON_SERVER")
        .stdin(Stdio::null());
    command
}

fn serve(directory: &Path) -> Child {
    command(directory).arg("serve").spawn().unwrap()
}

#[test]
fn a_collection_there_and_back() {
    let mut host = Host::start();
    for name in ["web", "db"] {
        host.define(name);
    }
    host.json(&["vm", "start", "web"]);
    host.json(&["collection", "create", "shop", "web", "db"]);
    let bases = [host.active("web"), host.active("db")];

    // One member runs, one is off: each stays what it was.
    let one = host.json(&["snapshot", "create", "shop", "--name", "one"]);
    assert_eq!(one["cut"]["members"].as_array().unwrap().len(), 2);
    assert!(one["cut"]["common_window_us"].as_i64().unwrap() >= 0);
    for (member, base) in one["members"].as_array().unwrap().iter().zip(&bases) {
        assert_eq!(member["disks"][0]["layer"], base.to_str().unwrap());
    }
    let memory = Path::new(one["members"][0]["memory"].as_str().unwrap());
    assert!(memory.metadata().unwrap().len() > 0);
    assert_eq!(one["members"][1]["memory"], Value::Null);
    assert_ne!(host.active("web"), bases[0]);
    assert_eq!(host.json(&["vm", "show", "db"])["power"], "off");

    // A killed daemon's machines run on, and the next one takes them over.
    let process = host.process("web");
    host.restart(Signal::KILL);
    assert_eq!(host.process("web"), process);
    // One that is told to stop lets the job that runs reach its end.
    let two = "snapshot create shop --name two --type recovery --no-wait";
    host.json(&two.split(' ').collect::<Vec<_>>());
    host.restart(Signal::TERM);
    assert_eq!(host.process("web"), process);
    assert_eq!(host.json(&["snapshot", "show", "two"])["parent"], one["id"]);

    host.json(&["snapshot", "apply", "one"]);
    assert_eq!(host.json(&["vm", "show", "web"])["power"], "running");
    assert_eq!(host.json(&["vm", "show", "db"])["power"], "off");
    assert_eq!(host.json(&["snapshot", "show", "one"])["current"], true);

    host.json(&["snapshot", "destroy", "two"]);
    host.json(&["snapshot", "destroy", "one"]);
    assert!(!memory.exists());
    assert_eq!(host.json(&["snapshot", "list"]), serde_json::json!([]));
    assert_eq!(
        host.json(&["vm", "show", "web"])["disks"][0]["chain"]
            .as_array()
            .unwrap()
            .len(),
        1
    );

    host.json(&["vm", "stop", "--force", "web"]);
    host.json(&["collection", "destroy", "shop"]);
    for name in ["web", "db"] {
        host.json(&["vm", "undefine", name]);
    }
    assert_eq!(host.processes(), [0_u32; 0]);
}
