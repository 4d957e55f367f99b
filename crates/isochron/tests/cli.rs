//! The command line against a daemon's API: what every verb prints, and how it
//! exits. The machines are simulated; the program, the socket and the API are
//! real.

#![allow(clippy::unwrap_used)] // tests end at the first surprise

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use isochron_access::Users;
use isochron_api::listen::Socket;
use isochron_api::{Limits, Served};
use isochron_engine::Engine;
use isochron_engine::model::ImageFormat;
use isochron_sim::{Fault, Point, When, World};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::runtime::Runtime;

/// A daemon in this process, and a place for files.
struct Daemon {
    world: World,
    server: String,
    /// Ends listener and jobs when it is dropped, before their directory goes.
    _runtime: Runtime,
    directory: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let world = World::new();
        let runtime = Runtime::new().unwrap();
        let path = directory.path().join("api.sock");
        runtime.block_on(async {
            let ports = world.daemon();
            let config = isochron_engine::Config::new(directory.path());
            let engine = Engine::open(
                ports.hypervisor(),
                ports.store(),
                ports.archive(),
                world.clock(),
                config,
            )
            .await
            .unwrap();
            let users = Users::open(ports.store()).await.unwrap();
            let router = isochron_api::router(Served {
                engine,
                users: Arc::new(users),
                tls: None,
                limits: Limits::default(),
            });
            let socket = Socket::bind(&path, None).await.unwrap();
            tokio::spawn(socket.serve(router, None, std::future::pending()));
        });
        let server = format!("unix:{}", path.display());
        Self {
            world,
            directory,
            server,
            _runtime: runtime,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isochron"));
        command
            .args(arguments)
            .env("ISOCHRON_SERVER", &self.server)
            .current_dir(&self.directory);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs it, expects success, returns what it printed.
    fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
        assert_eq!(
            errors, "",
            "{arguments:?}: nothing on stderr where nobody looks"
        );
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(&[arguments, &["--json"]].concat())).unwrap()
    }

    /// Runs it, expects this exit code, returns stderr.
    fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert_eq!(output.stdout, b"", "{arguments:?} prints no result");
        errors
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).unwrap();
    }

    /// Defines machines from files, each with a disk beside its file.
    fn define(&self, names: &[&str]) {
        for name in names {
            let image = self.directory.path().join(format!("{name}.qcow2"));
            self.world.add_image(&image, ImageFormat::Qcow2).unwrap();
            let text = format!("name = \"{name}\"\n\n[[disks]]\npath = \"{name}.qcow2\"\n");
            self.write(&format!("{name}.toml"), &text);
            self.text(&["vm", "define", &format!("{name}.toml")]);
        }
    }

    /// A collection `shop` of running machines.
    fn shop(&self, names: &[&str]) {
        self.define(names);
        self.text(&[&["vm", "start"], names].concat());
        self.text(&[&["collection", "create", "shop"], names].concat());
    }

    /// A snapshot whose members do not stop until they are told to.
    fn start_hanging_snapshot(&self) -> String {
        self.world
            .fail_next(Point::Flush, None, When::Before, Fault::Hang);
        let started = self.json(&["snapshot", "create", "shop", "--no-wait"]);
        assert!(started["snapshot"].is_string());
        started["job"].as_str().unwrap().to_owned()
    }
}

fn interrupt(child: &Child) {
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
}

#[test]
fn machines() {
    let daemon = Daemon::start();
    daemon.define(&["web", "db"]);
    let shown = daemon.json(&["vm", "show", "web"]);
    let image = daemon.directory.path().join("web.qcow2");
    assert_eq!(
        shown["disks"][0]["active"],
        image.to_str().unwrap(),
        "relative to its file"
    );
    assert_eq!(shown["definition"]["memory_mib"], 512);
    let text = daemon.text(&["vm", "show", shown["id"].as_str().unwrap()]);
    assert!(
        text.contains("off") && text.contains(image.to_str().unwrap()),
        "{text}"
    );
    assert!(text.contains("memory_mib = 512"), "{text}");

    assert_eq!(
        daemon.text(&["vm", "start", "web", "db"]),
        "web: running\ndb: running\n"
    );
    assert_eq!(daemon.text(&["vm", "pause", "db"]), "db: paused\n");
    let list = daemon.text(&["vm", "list"]);
    let mut lines = list
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    assert_eq!(lines.next().unwrap()[..3], ["NAME", "STATE", "ORIGIN"]);
    let mut states: Vec<_> = lines.map(|line| (line[0], line[1])).collect();
    states.sort();
    assert_eq!(states, [("db", "paused"), ("web", "running")]);
    assert_eq!(daemon.json(&["vm", "list"]).as_array().unwrap().len(), 2);
    assert_eq!(daemon.json(&["vm", "resume", "db"])["power"], "running");
    assert_eq!(daemon.text(&["vm", "stop", "--force", "web"]), "web: off\n");
    daemon.text(&["vm", "rename", "web", "front"]);
    assert_eq!(
        daemon.json(&["vm", "undefine", "front"]),
        serde_json::json!({})
    );
    assert_eq!(daemon.json(&["vm", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn a_definition_on_standard_input() {
    let daemon = Daemon::start();
    let image = daemon.directory.path().join("a.raw");
    daemon.world.add_image(&image, ImageFormat::Raw).unwrap();
    let mut child = daemon
        .command(&["vm", "define", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let text = b"name = \"a\"\ndisks = [{ path = \"a.raw\", format = \"raw\" }]";
    child.stdin.take().unwrap().write_all(text).unwrap();
    let output = child.wait_with_output().unwrap();
    let machine: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(machine["disks"][0]["active"], image.to_str().unwrap());
    assert_eq!(machine["disks"][0]["chain"][0]["format"], "raw");
}

#[test]
fn an_attached_machine_tells_its_owner_what_to_start_from() {
    let daemon = Daemon::start();
    let socket = daemon.directory.path().join("qmp.sock");
    let image = daemon.directory.path().join("legacy.qcow2");
    daemon.world.add_image(&image, ImageFormat::Qcow2).unwrap();
    daemon
        .world
        .start_foreign(&socket, &[("virtio0", &image)])
        .unwrap();
    daemon.text(&["vm", "attach", "legacy", "--qmp", "qmp.sock"]);
    daemon.text(&["collection", "create", "old", "legacy"]);
    daemon.text(&[
        "snapshot", "create", "old", "--type", "recovery", "--name", "past",
    ]);
    let shown = daemon.json(&["vm", "show", "legacy"]);
    let active = shown["disks"][0]["active"].as_str().unwrap();
    assert_ne!(Path::new(active), image);
    assert_eq!(
        shown["disks"][0]["chain"][1]["path"],
        image.to_str().unwrap()
    );
    let text = daemon.text(&["vm", "show", "legacy"]);
    let advice = text
        .split_once("to start it again, its owner must use")
        .unwrap()
        .1;
    assert!(
        advice.contains(&format!("virtio0: {active} (qcow2)")),
        "{text}"
    );
    assert!(
        daemon
            .fails(7, &["snapshot", "apply", "past"])
            .contains("legacy")
    );
}

#[test]
fn collections() {
    let daemon = Daemon::start();
    daemon.define(&["web", "db", "queue"]);
    daemon.text(&["collection", "create", "shop", "web"]);
    daemon.text(&["collection", "add", "shop", "db", "queue"]);
    daemon.text(&["collection", "remove", "shop", "web"]);
    daemon.text(&["collection", "rename", "shop", "store"]);
    daemon.text(&["collection", "create", "site", "store", "--of-collections"]);
    let shown = daemon.json(&["collection", "show", "store"]);
    let members: Vec<_> = shown["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["name"])
        .collect();
    assert_eq!(members, ["db", "queue"]);
    let text = daemon.text(&["collection", "list"]);
    assert!(
        text.contains("db, queue") && text.contains("collections"),
        "{text}"
    );
    assert!(
        daemon
            .text(&["collection", "show", "site"])
            .contains("store")
    );
    daemon.fails(4, &["collection", "destroy", "store"]);
    daemon.text(&["collection", "destroy", "site"]);
    daemon.text(&["collection", "destroy", "store"]);
    assert_eq!(daemon.json(&["collection", "list"]), serde_json::json!([]));
}

#[test]
fn snapshots_form_a_tree() {
    let daemon = Daemon::start();
    daemon.shop(&["web", "db"]);
    let one = daemon.json(&["snapshot", "create", "shop", "--name", "one"]);
    assert_eq!(
        (&one["type"], &one["parent"]),
        (&"standard".into(), &Value::Null)
    );
    let text = daemon.text(&[
        "snapshot", "create", "shop", "--name", "two", "--type", "recovery",
    ]);
    assert!(
        text.contains("all stood still") && text.contains("two"),
        "{text}"
    );
    daemon.text(&["snapshot", "apply", "one"]);
    daemon.text(&["snapshot", "create", "shop", "--name", "three"]);

    let list = daemon.text(&["snapshot", "list", "shop"]);
    let tree: Vec<_> = list.lines().skip(1).collect();
    assert_eq!(tree[0], "shop");
    assert!(tree[1].starts_with("└─ one"), "{list}");
    assert!(tree[2].starts_with("   ├─ two"), "{list}");
    assert!(tree[3].starts_with("   └─ three"), "{list}");
    let current: Vec<_> = list
        .lines()
        .filter(|line| line.contains("<- current"))
        .collect();
    assert!(current.len() == 1 && current[0].contains("three"), "{list}");

    let shown = daemon.text(&["snapshot", "show", "one"]);
    for member in one["members"].as_array().unwrap() {
        assert!(
            shown.contains(member["disks"][0]["layer"].as_str().unwrap()),
            "{shown}"
        );
        assert!(
            shown.contains(member["memory"].as_str().unwrap()),
            "{shown}"
        );
    }
    assert_eq!(
        daemon.json(&["snapshot", "list"]).as_array().unwrap().len(),
        3
    );
    for name in ["two", "three", "one"] {
        daemon.text(&["snapshot", "destroy", name]);
    }
    assert_eq!(daemon.json(&["snapshot", "list"]), serde_json::json!([]));
    let jobs = daemon.text(&["job", "list"]);
    assert_eq!(
        jobs.lines()
            .filter(|line| line.contains("destroy snapshot"))
            .count(),
        3,
        "{jobs}"
    );
}

#[test]
fn a_job_can_be_followed_and_cancelled() {
    let daemon = Daemon::start();
    daemon.shop(&["web"]);
    let id = daemon.start_hanging_snapshot();
    assert_eq!(daemon.json(&["job", "show", &id])["state"], "running");
    assert!(
        daemon
            .fails(6, &["job", "wait", &id, "--timeout", "1"])
            .contains(&id)
    );
    // Another operation on the same collection is refused while it runs.
    daemon.fails(4, &["snapshot", "create", "shop"]);

    // Interrupting the wait is not cancelling the job.
    let waiting = daemon
        .command(&["job", "wait", &id])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(700));
    interrupt(&waiting);
    let output = waiting.wait_with_output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{errors}");
    assert!(
        errors.contains(&format!("isochron job show {id}")),
        "{errors}"
    );
    assert_eq!(daemon.json(&["job", "show", &id])["state"], "running");

    daemon.text(&["job", "cancel", &id]);
    daemon.world.release();
    daemon.fails(8, &["job", "wait", &id]);
    assert_eq!(daemon.json(&["job", "show", &id])["state"], "cancelled");
    assert_eq!(daemon.json(&["snapshot", "list"]), serde_json::json!([]));
}

#[test]
fn exports_and_reference_points() {
    let daemon = Daemon::start();
    daemon.shop(&["web", "db"]);
    daemon.text(&[
        "snapshot", "create", "shop", "--name", "monday", "--type", "recovery",
    ]);
    // Relative to where one stands, as every path of the command line.
    let text = daemon.text(&["snapshot", "export", "monday", "out/monday"]);
    let full = daemon.directory.path().join("out/monday");
    assert!(text.contains(full.to_str().unwrap()), "{text}");
    let text = daemon.text(&["snapshot", "show", "monday"]);
    assert!(text.contains("exports") && text.contains(full.to_str().unwrap()));

    let point = daemon.json(&["snapshot", "convert", "monday"]);
    assert_eq!(
        (&point["name"], &point["keeps_data"]),
        (&"monday".into(), &false.into())
    );
    daemon.fails(3, &["snapshot", "show", "monday"]);
    let text = daemon.text(&["refpoint", "create", "shop", "--name", "tuesday"]);
    assert!(text.contains("it can be exported"), "{text}");
    let list = daemon.text(&["refpoint", "list", "shop"]);
    assert!(list.contains("monday") && list.contains("kept"), "{list}");
    let text = daemon.text(&["refpoint", "show", "monday"]);
    assert!(
        text.contains("web") && text.contains("out/monday"),
        "{text}"
    );

    for (directory, base, more) in [
        ("out/by-name", "monday", &["--intent", "merge"][..]),
        (
            "out/by-path",
            "./out/monday",
            &["--limit", "20M", "--require-difference"],
        ),
        ("out/part", "monday", &["--disk", "web"]),
    ] {
        let export = ["refpoint", "export", "tuesday", directory, "--base", base];
        let job = daemon.json(&[&export, more].concat());
        assert_eq!(
            (&job["state"], &job["export"]["base"]),
            (&"completed".into(), &point["id"])
        );
        let members = job["export"]["vm_ids"].as_array().unwrap().len();
        assert_eq!(members, if directory == "out/part" { 1 } else { 2 });
    }
    let record = ["refpoint", "export", "tuesday", "out/rec", "--no-storage"];
    let job = daemon.json(&[&record[..], &["--no-wait"]].concat());
    let shown = daemon.json(&["job", "wait", job["job"].as_str().unwrap()]);
    assert_eq!(shown["point_id"], job["reference_point"]);

    // What cannot be, and how it exits.
    let to = |base| ["refpoint", "export", "tuesday", "out/x", "--base", base];
    daemon.fails(3, &to("nothing"));
    daemon.fails(2, &to("out/nothing"));
    daemon.fails(
        2,
        &["refpoint", "export", "tuesday", "x", "--limit", "fast"],
    );
    daemon.fails(4, &["refpoint", "export", "monday", "out/x"]);
    daemon.fails(3, &["snapshot", "convert", "nothing"]);

    daemon.text(&["refpoint", "forget-data", "tuesday"]);
    daemon.fails(4, &["refpoint", "export", "tuesday", "out/x"]);
    daemon.text(&["refpoint", "destroy", "tuesday"]);
    daemon.text(&["refpoint", "destroy", "monday"]);
    assert_eq!(daemon.json(&["refpoint", "list"]), serde_json::json!([]));
}

#[test]
fn an_export_is_cancelled() {
    let daemon = Daemon::start();
    daemon.shop(&["web"]);
    daemon.text(&["snapshot", "create", "shop", "--name", "monday"]);
    daemon
        .world
        .fail_next(Point::CopyDisk, None, When::Before, Fault::Hang);
    let export = ["snapshot", "export", "monday", "out", "--no-wait"];
    let job = daemon.json(&export)["job"].as_str().unwrap().to_owned();
    // Meanwhile it cannot go.
    daemon.fails(4, &["snapshot", "destroy", "monday"]);
    daemon.text(&["job", "cancel", &job]);
    daemon.world.release();
    daemon.fails(8, &["job", "wait", &job]);
    let exports = daemon.json(&["snapshot", "show", "monday"])["exports"].clone();
    assert_eq!(exports, serde_json::json!([]));
    daemon.text(&["snapshot", "export", "monday", "out"]);
    daemon.text(&["snapshot", "destroy", "monday"]);
}

#[test]
fn what_fails_says_why_and_exits_so() {
    let daemon = Daemon::start();
    daemon.shop(&["web"]);
    daemon.fails(2, &["vm", "defin"]);
    daemon.fails(3, &["vm", "show", "nobody"]);
    daemon.fails(3, &["snapshot", "create", "nothing"]);
    daemon.fails(4, &["collection", "create", "shop"]);
    daemon.fails(4, &["vm", "undefine", "web"]);
    daemon.fails(2, &["job", "show", "nonsense"]);
    daemon.fails(2, &["--server", "http://nowhere", "vm", "list"]);
    daemon
        .world
        .fail_next(Point::Swap, None, When::Before, Fault::Error);
    assert!(daemon.fails(1, &["snapshot", "create", "shop"]).len() > 20);
    // What can be done is done, and what cannot is said.
    let output = daemon.run(&["vm", "start", "nobody", "web"]);
    assert_eq!(output.status.code(), Some(3));

    let nowhere = daemon.directory.path().join("nobody.sock");
    let server = format!("unix:{}", nowhere.display());
    let errors = daemon.fails(5, &["--server", &server, "vm", "list"]);
    assert!(
        errors.contains("nobody.sock") && errors.contains("isochron serve"),
        "{errors}"
    );
}

#[test]
fn mistakes_in_a_definition_are_named_with_their_line() {
    let daemon = Daemon::start();
    for (text, parts) in [
        (
            "name = \"a\"\nmemory = 512\n",
            &["bad.toml", "line 2", "memory"][..],
        ),
        (
            "name = \"a\"\n\ncpus = \"two\"\n",
            &["bad.toml", "line 3", "cpus"],
        ),
        ("memory_mib = 64\n", &["bad.toml", "name"]),
        (
            "name = \"a\"\n[[disks]]\npath = \"x\"\nformat = \"vmdk\"\n",
            &["line 4", "vmdk"],
        ),
        ("name = \n", &["bad.toml", "line 1"]),
    ] {
        daemon.write("bad.toml", text);
        let errors = daemon.fails(2, &["vm", "define", "bad.toml"]);
        for part in parts {
            assert!(errors.contains(part), "{part} is not in: {errors}");
        }
    }
    daemon.fails(2, &["vm", "define", "absent.toml"]);
    assert_eq!(daemon.json(&["vm", "list"]), serde_json::json!([]));
}

#[test]
fn completions_and_manual_pages() {
    let daemon = Daemon::start();
    for shell in ["bash", "zsh", "fish"] {
        assert!(daemon.text(&["completion", shell]).contains("snapshot"));
    }
    daemon.text(&["man", "man1"]);
    let page = std::fs::read_to_string(
        daemon
            .directory
            .path()
            .join("man1/isochron-snapshot-create.1"),
    );
    assert!(page.unwrap().contains("consistency"));
    assert!(daemon.text(&["--help"]).contains("Exit codes"));
}

/// `isochron ... | head` ends quietly.
#[test]
fn a_reader_who_leaves_is_no_failure() {
    let daemon = Daemon::start();
    let mut child = daemon
        .command(&["completion", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
}
