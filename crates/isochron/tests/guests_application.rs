//! Application consistency with a real guest: ext4, a writer in it, and qemu-ga.
//! What the frozen layer holds is judged by the file system's own word. Then agents
//! that fail: absent, mute in the middle of the freeze, gone in the middle of it.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use common::{Host, LIMIT, frozen};
use isochron_lab::definition::Machine;
use isochron_lab::disk::Format;
use isochron_lab::filesystem::{self, Found};
use isochron_lab::guest::Guest;
use isochron_lab::kit::Kit;
use isochron_lab::ring::agent_machine;
use isochron_lab::serial;
use serde_json::Value;

const APPLICATION: &[&str] = &["--type", "recovery", "--consistency", "application"];

#[test]
fn file_systems_are_frozen_around_the_instant() {
    let host = Host::start();
    let kit = Kit::load().unwrap();
    let directory = host.directory("guests");
    let with = agent_machine(&kit, &directory, "with", Format::Qcow2).unwrap();
    // The same guest, but nobody listens on the line to its agent.
    let mut without = agent_machine(&kit, &directory, "without", Format::Raw).unwrap();
    without.definition.guest_agent = false;
    without.definition.write(&without.file).unwrap();
    host.start_machines(&[with.clone(), without.clone()]);
    writes(&[&with, &without]);
    host.json(&["collection", "create", "app", "with"]);
    host.json(&["collection", "create", "both", "with", "without"]);
    let files = host.files();

    let written = with.counter_now().unwrap();
    let application = create(&host, "app", APPLICATION);
    assert_eq!(application["consistency"], "application");
    assert_eq!(application["cut"]["consistency"], "application");
    let member = &application["cut"]["members"][0];
    assert!(
        member["frozen_filesystems"].as_u64().unwrap() >= 1,
        "{member}"
    );
    writes(&[&with]);
    let found = inspect(&with, &application);
    assert!(
        found.clean && found.counter >= written,
        "{found:?} {written}"
    );

    // Without asking for it the same guest's layer needs its journal: were that
    // one clean as well, the above would prove nothing.
    let crash = create(&host, "app", &["--type", "recovery"]);
    assert_eq!(crash["consistency"], "crash");
    assert_eq!(crash["cut"]["members"][0]["frozen_filesystems"], 0);
    let found = inspect(&with, &crash);
    assert!(!found.clean && found.counter > written, "{found:?}");
    writes(&[&with]);

    // One member without an agent: refused before anything is touched.
    let layers = host.files();
    let both = ["snapshot", "create", "both"];
    let refusal = host.refusal(&[&both, APPLICATION].concat());
    assert!(
        refusal.contains("without") && refusal.contains("agent"),
        "{refusal}"
    );
    let standard = [&both[..], &["--consistency", "application"]].concat();
    assert!(host.refusal(&standard).contains("recovery"));
    assert_eq!(host.files(), layers);
    writes(&[&with, &without]);

    // Applied, the clean file system is found by the guest that starts on it.
    let id = application["id"].as_str().unwrap();
    host.json(&["snapshot", "apply", id]);
    writes(&[&with]);
    host.json(&["snapshot", "destroy", crash["id"].as_str().unwrap()]);
    host.json(&["snapshot", "destroy", id]);
    host.files_become(&files);
    writes(&[&with, &without]);
    host.close();
}

#[test]
fn a_freeze_that_fails_leaves_the_guest_thawed_and_nothing_behind() {
    let host = Host::start();
    let kit = Kit::load().unwrap();
    let directory = host.directory("guests");
    let machine = agent_machine(&kit, &directory, "app", Format::Qcow2).unwrap();
    let guest = Guest::start(&machine.definition, &directory).unwrap();
    let line = Line::between(
        &directory.join("line.sock"),
        guest.agent.as_deref().unwrap(),
    );
    let attach = ["vm", "attach", "app", "--qmp", guest.qmp.to_str().unwrap()];
    let agent = ["--guest-agent", line.path.to_str().unwrap()];
    writes(&[&machine]);
    host.json(&[&attach[..], &agent[..]].concat());
    host.json(&["collection", "create", "app", "app"]);
    let files = host.files();

    let create = [&["snapshot", "create", "app"], APPLICATION].concat();
    for fault in [Fault::Mute, Fault::Cut] {
        line.fails(fault);
        let refusal = host.refusal(&create);
        assert!(line.froze(), "the guest was never asked to freeze");
        assert!(
            refusal.contains("member app") && refusal.contains("freez"),
            "{refusal}"
        );
        host.files_become(&files);
        // Frozen, the writer would stand.
        writes(&[&machine]);
        assert_eq!(host.json(&["snapshot", "list"]), serde_json::json!([]));
    }

    // The line holds again: now it succeeds.
    line.fails(Fault::None);
    let snapshot = host.json(&create);
    assert!(inspect(&machine, &snapshot).clean);
    host.json(&["snapshot", "destroy", snapshot["id"].as_str().unwrap()]);
    host.files_become(&files);
    writes(&[&machine]);
    host.close();
}

fn create(host: &Host, collection: &str, how: &[&str]) -> Value {
    host.json(&[&["snapshot", "create", collection], how].concat())
}

/// The guests' writers append, each record synced.
fn writes(machines: &[&Machine]) {
    let logs: Vec<_> = machines
        .iter()
        .map(|machine| machine.definition.serial_log.clone())
        .collect();
    serial::wait_progress(&logs, 10, LIMIT).unwrap();
}

fn inspect(machine: &Machine, snapshot: &Value) -> Found {
    let images = frozen(std::slice::from_ref(machine), snapshot);
    filesystem::inspect(&images[0][0]).unwrap()
}

/// What goes wrong when the guest is asked to freeze.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Fault {
    None,
    /// It freezes, and its agent says nothing more until it is asked to thaw.
    Mute,
    /// It freezes, and the connection breaks.
    Cut,
}

/// A line to a guest's agent through this process, with faults.
struct Line {
    path: std::path::PathBuf,
    fault: Arc<AtomicU8>,
    froze: Arc<AtomicBool>,
}

impl Line {
    fn between(path: &Path, agent: &Path) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let line = Self {
            path: path.to_owned(),
            fault: Arc::default(),
            froze: Arc::default(),
        };
        let (agent, fault, froze) = (agent.to_owned(), line.fault.clone(), line.froze.clone());
        // Ends with the test's process.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                carry(client, UnixStream::connect(&agent).unwrap(), &fault, &froze);
            }
        });
        line
    }

    fn fails(&self, fault: Fault) {
        self.fault.store(fault as u8, Ordering::SeqCst);
        self.froze.store(false, Ordering::SeqCst);
    }

    /// Whether the guest was asked to freeze since the last [`Line::fails`].
    fn froze(&self) -> bool {
        self.froze.load(Ordering::SeqCst)
    }
}

/// Carries one connection until either side closes it.
fn carry(mut client: UnixStream, mut agent: UnixStream, fault: &AtomicU8, froze: &AtomicBool) {
    let mute = Arc::new(AtomicBool::new(false));
    let (mut answers, mut to_client) = (agent.try_clone().unwrap(), client.try_clone().unwrap());
    let muted = mute.clone();
    let back = std::thread::spawn(move || {
        while let Some(bytes) = read(&mut answers) {
            let silent = muted.load(Ordering::SeqCst);
            if !silent && to_client.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
    });
    while let Some(bytes) = read(&mut client) {
        let asks = |what: &[u8]| bytes.windows(what.len()).any(|part| part == what);
        if asks(b"guest-fsfreeze-freeze") {
            froze.store(true, Ordering::SeqCst);
            mute.store(
                fault.load(Ordering::SeqCst) == Fault::Mute as u8,
                Ordering::SeqCst,
            );
        }
        if asks(b"guest-fsfreeze-thaw") {
            mute.store(false, Ordering::SeqCst);
        }
        if agent.write_all(&bytes).is_err() {
            break;
        }
        if asks(b"guest-fsfreeze-freeze") && fault.load(Ordering::SeqCst) == Fault::Cut as u8 {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = agent.shutdown(Shutdown::Both);
    back.join().unwrap();
}

/// What comes next; `None` at the end.
fn read(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return None,
            Ok(count) => return Some(bytes[..count].to_vec()),
        }
    }
}
