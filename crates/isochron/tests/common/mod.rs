//! A host to test on: a directory, a daemon in it with everything it listens on,
//! and real guests.
//!
//! What holds: every process that begins here carries the directory in its
//! environment (`ISOCHRON_TEST_HOST`). [`Host::close`] ends machines and daemon as
//! their owner would and fails if a process is left; dropping a host on the way
//! out of a failed test kills what there is.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]
#![allow(dead_code, reason = "every test uses its part")]

pub mod soap;

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use isochron_lab::clients;
use isochron_lab::definition::Machine;
use isochron_lab::disk::Format;
use isochron_lab::oracle::{self, Image};
use isochron_lab::ring::Ring;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Far beyond what anything here takes, on a busy host too.
pub const LIMIT: Duration = Duration::from_secs(180);

/// Marks every process of a host.
pub const MARK: &str = "ISOCHRON_TEST_HOST";

/// Longer deadlines than the defaults: hosts that run tests are busy.
const CONFIGURATION: &str = r#"state = "state"
deadlines = { freeze = "4s", stop = "8s", window = "60s" }
[listen]
socket = "api.sock"
cimxml = "127.0.0.1:0"
wsman = "127.0.0.1:0"
"#;

/// Who drives these daemons is trusted.
const OPEN: &str = r#"cimxml_https = "off"
wsman_https = "off"
anonymous = "administrator"
"#;

/// A daemon and what it runs.
pub struct Host {
    daemon: Child,
    /// What it is started with.
    options: Vec<String>,
    directory: TempDir,
    /// Where it speaks CIM-XML: `http://ADDRESS:PORT`.
    pub cimxml: String,
}

impl Host {
    /// Starts a daemon in a directory of its own; returns when it listens.
    pub fn start() -> Self {
        Self::with("", &[])
    }

    /// The same with more configuration, and with options of `serve`.
    pub fn with(configuration: &str, options: &[&str]) -> Self {
        Self::closed(&format!("{OPEN}{configuration}"), options)
    }

    /// The same where nobody gets in on TCP without saying who they are. What the
    /// configuration begins with is of `[listen]`.
    pub fn closed(configuration: &str, options: &[&str]) -> Self {
        // Short, for unix sockets, and where a file system takes O_DIRECT.
        let directory = tempfile::Builder::new()
            .prefix("h")
            .rand_bytes(5)
            .tempdir_in("/var/tmp")
            .unwrap();
        let path = directory.path();
        let configuration = format!("{CONFIGURATION}{configuration}");
        std::fs::write(path.join("isochron.toml"), configuration).unwrap();
        let options: Vec<String> = options.iter().map(|&option| option.to_owned()).collect();
        let mut host = Self {
            daemon: serve(path, &options),
            options,
            directory,
            cimxml: String::new(),
        };
        host.listens();
        host
    }

    /// Ends the daemon as its owner would and starts it again.
    pub fn restart(&mut self) {
        signal(self.daemon.id(), Signal::TERM);
        let status = self.daemon.wait().unwrap();
        assert!(status.success(), "{status}\n{}", self.log());
        self.daemon = serve(self.path(), &self.options);
        self.listens();
    }

    fn listens(&mut self) {
        // The unix socket is the last that it tells.
        self.until("the daemon listens", |host| {
            assert!(host.daemon.try_wait().unwrap().is_none(), "{}", host.log());
            host.log().contains("listening for the JSON API on unix:")
        });
        self.cimxml = self.said("listening for CIM-XML on ").unwrap();
    }

    /// The rest of the first line of the daemon's log that begins so.
    pub fn said(&self, beginning: &str) -> Option<String> {
        let log = self.log();
        let rest = log.lines().find_map(|line| line.strip_prefix(beginning));
        rest.map(str::to_owned)
    }

    /// Tells the daemon to read its certificate anew.
    pub fn hang_up(&self) {
        signal(self.daemon.id(), Signal::HUP);
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The most memory that the daemon has had so far, in bytes.
    pub fn peak_memory(&self) -> u64 {
        let status = format!("/proc/{}/status", self.daemon.id());
        let status = std::fs::read_to_string(status).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = peak.unwrap().trim().trim_end_matches(" kB");
        kilobytes.parse::<u64>().unwrap() * 1024
    }

    /// What the daemon said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("serve.log")).unwrap_or_default()
    }

    fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let began = Instant::now();
        while !condition(self) {
            assert!(began.elapsed() < LIMIT, "not so: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs `isochron WORDS...` with more in its environment.
    pub fn run_with(&self, words: &[&str], environment: &[(&str, &str)]) -> Output {
        let mut command = isochron(self.path());
        command.args(words).envs(environment.iter().copied());
        command.output().unwrap()
    }

    /// Runs `isochron WORDS...`.
    pub fn run(&self, words: &[&str]) -> Output {
        isochron(self.path()).args(words).output().unwrap()
    }

    /// Adds a user with `isochron user add`.
    pub fn add_user(&self, name: &str, role: &str, password: &str) {
        self.add_user_with(name, role, password, &[]);
    }

    /// The same with more options.
    pub fn add_user_with(&self, name: &str, role: &str, password: &str, options: &[&str]) {
        let file = self.path().join("password");
        std::fs::write(&file, password).unwrap();
        let words = ["user", "add", name, "--role", role, "--password-stdin"];
        let mut adding = isochron(self.path());
        let adding = adding.args(words).args(options);
        let output = adding.stdin(File::open(&file).unwrap());
        let output = output.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        std::fs::remove_file(file).unwrap();
    }

    /// What `isochron WORDS... --json` prints; it must succeed.
    pub fn json(&self, words: &[&str]) -> Value {
        let output = self.run(&[words, &["--json"]].concat());
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "isochron {words:?}: {said}\n{}",
            self.log()
        );
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    /// What `isochron WORDS...` says when it is refused; it must be.
    pub fn refusal(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(!output.status.success(), "isochron {words:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// Runs a script of tests/py with the server's address and these arguments;
    /// what it prints last, as JSON.
    pub fn python(&self, script: &str, arguments: &[&str]) -> Value {
        self.python_of(&clients::python().unwrap(), script, arguments)
    }

    /// The same with another Python.
    pub fn python_of(&self, python: &Path, script: &str, arguments: &[&str]) -> Value {
        let output = self.script(python, script, arguments);
        self.printed(&format!("{script} {arguments:?}"), &output)
    }

    /// Runs a script of tests/js with these arguments; what it prints last, as JSON.
    pub fn node(&self, script: &str, arguments: &[&str]) -> Value {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/js");
        let output = Command::new(clients::node().unwrap())
            .arg(scripts.join(script))
            .args(arguments)
            .env("NODE_PATH", clients::node_modules().unwrap())
            .env(MARK, self.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        self.printed(&format!("{script} {arguments:?}"), &output)
    }

    fn printed(&self, what: &str, output: &Output) -> Value {
        let printed = String::from_utf8_lossy(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{what}: {printed}\n{said}\n{}",
            self.log()
        );
        serde_json::from_str(printed.lines().last().unwrap_or("null")).unwrap()
    }

    /// What a script says on standard error that must fail.
    pub fn python_fails(&self, script: &str, arguments: &[&str]) -> String {
        let output = self.script(&clients::python().unwrap(), script, arguments);
        assert!(!output.status.success(), "{script} {arguments:?} succeeded");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn script(&self, python: &Path, script: &str, arguments: &[&str]) -> Output {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/py");
        // -B: no compiled files in the source tree.
        Command::new(python)
            .arg("-B")
            .arg(scripts.join(script))
            .arg(&self.cimxml)
            .args(arguments)
            .env(MARK, self.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// A directory for guests' files.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    }

    /// Defines machines and starts them.
    pub fn start_machines(&self, machines: &[Machine]) {
        let names: Vec<&str> = machines.iter().map(|m| &*m.definition.name).collect();
        for machine in machines {
            self.json(&["vm", "define", machine.file.to_str().unwrap()]);
        }
        self.json(&[&["vm", "start"], &names[..]].concat());
    }

    /// Defines and starts the members of a ring and waits until it goes round.
    pub fn start_ring(&self, ring: &Ring) {
        self.start_machines(&ring.members);
        ring.wait_alive(LIMIT).unwrap();
    }

    /// QEMU's process of a machine.
    pub fn process(&self, machine: &str) -> u32 {
        let shown = self.json(&["vm", "show", machine]);
        shown["process_id"].as_u64().unwrap().try_into().unwrap()
    }

    /// What a machine does, in the command line's word.
    pub fn power(&self, machine: &str) -> String {
        let shown = self.json(&["vm", "show", machine]);
        shown["power"].as_str().unwrap().to_owned()
    }

    /// The images that a machine writes to now, one per disk that is a file.
    pub fn active(&self, machine: &str) -> Vec<PathBuf> {
        let shown = self.json(&["vm", "show", machine]);
        let disks = shown["disks"].as_array().unwrap();
        disks
            .iter()
            .filter_map(|disk| disk["active"].as_str().map(PathBuf::from))
            .collect()
    }

    /// Every file and directory below this one that is not the daemon's for good or
    /// a socket: images, memory, logs of guests.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut left = vec![self.path().to_owned()];
        while let Some(directory) = left.pop() {
            for entry in directory.read_dir().unwrap().flatten() {
                let (path, kind) = (entry.path(), entry.file_type().unwrap());
                let name = entry.file_name().to_string_lossy().into_owned();
                let in_state = directory == self.path().join("state");
                if kind.is_socket() || in_state && name == "run" {
                    continue;
                }
                if kind.is_dir() {
                    left.push(path.clone());
                }
                let store = name.starts_with("isochron.") || kind.is_dir();
                if !(in_state && store) {
                    found.insert(path);
                }
            }
        }
        found
    }

    /// Waits until there are these files and no others. At once, but for what is
    /// settled only when a machine answers again.
    pub fn files_become(&self, expected: &BTreeSet<PathBuf>) {
        let began = Instant::now();
        loop {
            let found = self.files();
            let differ: Vec<_> = found.symmetric_difference(expected).collect();
            if differ.is_empty() {
                return;
            }
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "left over or missing: {differ:?}\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends machines and daemon as their owner would; fails if a process is left.
    pub fn close(mut self) {
        for machine in self.json(&["vm", "list"]).as_array().unwrap() {
            if machine["origin"] == "launched" {
                let name = machine["name"].as_str().unwrap();
                self.json(&["vm", "stop", "--force", name]);
            }
        }
        signal(self.daemon.id(), Signal::TERM);
        let status = self.daemon.wait().unwrap();
        assert!(status.success(), "{status}\n{}", self.log());
        // A guardian may need a moment to see that it is not needed any more.
        self.until("no process is left", |host| host.processes().is_empty());
    }

    /// The processes that began here.
    fn processes(&self) -> Vec<u32> {
        let mark = format!("{MARK}={}", self.path().display());
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(id) = entry.file_name().to_string_lossy().parse() else {
                continue;
            };
            let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment.split(|b| *b == 0).any(|v| v == mark.as_bytes()) {
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

/// A file system in memory; it goes when this is dropped.
pub struct Mount(PathBuf);

impl Mount {
    /// Mounts one of so many KiB on a directory, which is made. The error says why
    /// that cannot be done here.
    pub fn new(directory: &Path, kib: u64) -> Result<Self, String> {
        std::fs::create_dir_all(directory).unwrap();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"])
            .arg(directory)
            .output()
            .map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(Self(directory.to_owned())),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Detached also if somebody still has a file open there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Sends a signal to a process of this test's.
pub fn signal(process: u32, signal: Signal) {
    kill_process(pid(process), signal).unwrap();
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(id.try_into().unwrap()).unwrap()
}

fn serve(directory: &Path, options: &[String]) -> Child {
    let log = File::create(directory.join("serve.log")).unwrap();
    isochron(directory)
        .arg("serve")
        .args(options)
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

fn isochron(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isochron"));
    command
        .args(["--config", "isochron.toml"])
        .current_dir(directory)
        .env_remove("ISOCHRON_SERVER")
        .env_remove("ISOCHRON_LOG")
        .env(MARK, directory)
        .stdin(Stdio::null());
    command
}

/// The image files that a process has open, as the kernel says.
pub fn open_images(process: u32) -> BTreeSet<PathBuf> {
    let links = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let image = |path: &PathBuf| {
        let end = path.extension().unwrap_or_default();
        end == "qcow2" || end == "raw"
    };
    links
        .flatten()
        .filter_map(|link| std::fs::read_link(link.path()).ok())
        .filter(image)
        .collect()
}

/// The layers of these machines' disks that a snapshot froze, as `snapshot show`
/// tells, in the order in which the oracle takes them.
pub fn frozen(machines: &[Machine], snapshot: &Value) -> Vec<Vec<Image>> {
    let part = |machine: &Machine| {
        let members = snapshot["members"].as_array().unwrap();
        let member = members
            .iter()
            .find(|member| member["vm"] == *machine.definition.name)
            .unwrap();
        let disks = member["disks"].as_array().unwrap();
        // An attached machine's disks have QEMU's names, but the same order.
        let layer = |(index, disk): (usize, &isochron_lab::definition::Disk)| {
            let named = disks.iter().find(|d| d["disk"] == *disk.name);
            let frozen = named.unwrap_or(&disks[index]);
            let format = match frozen["format"].as_str() {
                Some("raw") => Format::Raw,
                _ => Format::Qcow2,
            };
            Image::new(frozen["layer"].as_str().unwrap(), format)
        };
        machine
            .definition
            .disks
            .iter()
            .enumerate()
            .map(layer)
            .collect()
    };
    machines.iter().map(part).collect()
}

/// Fails unless what a snapshot froze is one instant, by the oracle's word and by
/// QEMU's stamps.
pub fn one_instant(machines: &[Machine], snapshot: &Value) {
    let verdict = oracle::judge(&frozen(machines, snapshot)).unwrap();
    assert!(verdict.is_consistent(), "{verdict}");
    let cut = &snapshot["cut"];
    assert!(cut["common_window_us"].as_i64().unwrap() >= 0, "{cut}");
    let members = cut["members"].as_array().unwrap();
    let stamps = |key: &str| -> Vec<u64> {
        let stamps = members.iter().filter(|m| m["power"] == "running");
        stamps.map(|m| m[key].as_u64().unwrap()).collect()
    };
    let (stops, resumes) = (stamps("stopped_at_us"), stamps("resumed_at_us"));
    assert!(stops.iter().max() <= resumes.iter().min(), "{cut}");
}
