//! Indications by a third-party client: pywbem's subscription manager and listener
//! against the daemon, over a restart, and as docs/cim.md shows it. No guest runs: the
//! machine is off.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Host, MARK};
use isochron_lab::clients;
use isochron_lab::disk::{self, Format};

#[test]
fn pywbem_is_told_of_jobs_snapshots_and_collections() {
    let mut host = with_machine();
    let port = free_port();
    host.python("indications.py", &[&port, "web"]);
    host.restart();
    host.python("indications.py", &[&port]);
    host.close();
}

#[test]
fn the_example_of_the_documentation_shows_a_jobs_steps() {
    let host = with_machine();
    host.json(&["collection", "create", "shop", "web"]);
    host.add_user("ada", "administrator", "ada word");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cim.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, section) = page.split_once("\n## Indications\n").unwrap();
    let (_, example) = section.split_once("```python\n").unwrap();
    let (example, _) = example.split_once("```").unwrap();
    let port = free_port();
    let example = example
        .replace("http://127.0.0.1:5988", &host.cimxml)
        .replace("5000", &port);
    let mut session = Command::new(clients::python().unwrap())
        .args(["-B", "-c", &example])
        .env(MARK, host.path())
        .env("ISOCHRON_PASSWORD", "ada word")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut shown = BufReader::new(session.stdout.take().unwrap()).lines();
    let first = shown.next().unwrap().unwrap();
    assert!(first.starts_with("Listening"), "{first}");
    host.json(&["snapshot", "create", "shop", "--type", "recovery"]);
    let last = shown
        .map(Result::unwrap)
        .find(|line| line.contains(" 100 "));
    let last = last.unwrap_or_default();
    assert!(last.starts_with("Taking a snapshot"), "{last}");
    session.stdin.take().unwrap().write_all(b"\n").unwrap();
    assert!(session.wait().unwrap().success());
    host.close();
}

/// A host with a machine `web` that is off.
fn with_machine() -> Host {
    let host = Host::start();
    let image = host.path().join("web.qcow2");
    disk::create(&image, Format::Qcow2, 16).unwrap();
    let definition = host.path().join("web.toml");
    let text =
        "name = \"web\"\nmemory_mib = 64\naccel = \"tcg\"\n[[disks]]\npath = \"web.qcow2\"\n";
    std::fs::write(&definition, text).unwrap();
    host.json(&["vm", "define", definition.to_str().unwrap()]);
    host
}

/// A port that nobody has now.
fn free_port() -> String {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port().to_string()
}
