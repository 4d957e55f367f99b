//! The daemon as a process: how it starts, listens, refuses to and stops.

#![allow(clippy::unwrap_used)] // tests end at the first surprise

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// How long a daemon may take to listen or to end. Far more than it needs.
const LIMIT: Duration = Duration::from_secs(60);

fn isochron(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isochron"));
    command
        .args(arguments)
        .current_dir(directory)
        .env_remove("ISOCHRON_SERVER")
        .env_remove("ISOCHRON_CONFIG")
        .env_remove("ISOCHRON_LOG")
        .stdin(Stdio::null());
    command
}

fn output(directory: &Path, arguments: &[&str]) -> Output {
    isochron(directory, arguments).output().unwrap()
}

/// A daemon that listens; killed when it is dropped.
struct Daemon {
    child: Child,
    /// The addresses after `listening for ... on`.
    listening: Vec<String>,
}

impl Daemon {
    fn start(directory: &Path, arguments: &[&str]) -> Self {
        let mut child = isochron(directory, arguments)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut daemon = Self {
            child,
            listening: Vec::new(),
        };
        let mut log = String::new();
        // The unix socket is the last.
        while !daemon
            .listening
            .iter()
            .any(|address| address.starts_with("unix:"))
        {
            let line = lines
                .recv_timeout(LIMIT)
                .unwrap_or_else(|_| panic!("not listening: {log}"));
            if let Some((_, address)) = line
                .split_once(" on ")
                .filter(|_| line.starts_with("listening"))
            {
                daemon.listening.push(address.to_owned());
            }
            log.push_str(&line);
            log.push('\n');
        }
        daemon
    }

    fn signal(&self, signal: Signal) {
        kill_process(
            Pid::from_raw(self.child.id().try_into().unwrap()).unwrap(),
            signal,
        )
        .unwrap();
    }

    fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        for _ in 0..LIMIT.as_millis() / 20 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the daemon does not end");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const CONFIG: &str = "state = \"state\"\n[listen]\nsocket = \"api.sock\"\ncimxml = \"off\"\n\
    cimxml_https = \"off\"\nwsman = \"off\"\nwsman_https = \"off\"\nanonymous = \"reader\"\n";

fn place() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("isochron.toml"), CONFIG).unwrap();
    directory
}

const SERVE: &[&str] = &["--config", "isochron.toml", "serve"];

#[test]
fn it_serves_and_stops() {
    let place = place();
    let http = [
        SERVE,
        &[
            "--listen-http",
            "127.0.0.1:0",
            "--listen-cimxml",
            "localhost:0",
        ],
    ]
    .concat();
    let mut daemon = Daemon::start(place.path(), &http);
    let socket = place.path().join("api.sock");
    assert!(
        daemon
            .listening
            .contains(&format!("unix:{}", socket.display()))
    );
    let tcp: Vec<_> = daemon
        .listening
        .iter()
        .filter_map(|address| address.strip_prefix("http://"))
        .collect();
    assert_eq!(tcp.len(), 2, "{:?}", daemon.listening);
    assert!(
        tcp.iter().all(|address| !address.ends_with(":0")),
        "real ports: {tcp:?}"
    );

    // The command line finds the socket by the same configuration, or by flag.
    for arguments in [
        &["--config", "isochron.toml", "vm", "list", "--json"][..],
        &["--server", "unix:api.sock", "vm", "list", "--json"],
        &[
            "--server",
            &format!("http://{}", tcp[1]),
            "vm",
            "list",
            "--json",
        ],
    ] {
        let answer = output(place.path(), arguments);
        assert_eq!(answer.stdout, b"[]\n", "{arguments:?}: {answer:?}");
    }
    // CIM-XML is spoken on the other port.
    let classes = enumerate_class_names(tcp[0]);
    assert!(
        classes.contains("Msvm_CollectionSnapshotService"),
        "{classes}"
    );

    let status = daemon.end(Signal::TERM);
    assert!(status.success(), "{status}");
    assert!(!socket.exists());
    let answer = output(place.path(), &["--config", "isochron.toml", "vm", "list"]);
    assert_eq!(answer.status.code(), Some(5));
}

fn enumerate_class_names(address: &str) -> String {
    let body = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\
        <CIM CIMVERSION=\"2.0\" DTDVERSION=\"2.0\"><MESSAGE ID=\"1\" PROTOCOLVERSION=\"1.0\">\
        <SIMPLEREQ><IMETHODCALL NAME=\"EnumerateClassNames\"><LOCALNAMESPACEPATH>\
        <NAMESPACE NAME=\"root\"/><NAMESPACE NAME=\"virtualization\"/><NAMESPACE NAME=\"v2\"/>\
        </LOCALNAMESPACEPATH><IPARAMVALUE NAME=\"DeepInheritance\"><VALUE>TRUE</VALUE>\
        </IPARAMVALUE></IMETHODCALL></SIMPLEREQ></MESSAGE></CIM>";
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "POST /cimom HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: application/xml; charset=\"utf-8\"\r\nContent-Length: {}\r\n\
         CIMOperation: MethodCall\r\nCIMMethod: EnumerateClassNames\r\n\
         CIMObject: root/virtualization/v2\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn interrupting_stops_it_too() {
    let place = place();
    assert!(
        Daemon::start(place.path(), SERVE)
            .end(Signal::INT)
            .success()
    );
}

#[test]
fn a_killed_daemon_leaves_nothing_in_the_way() {
    let place = place();
    let mut daemon = Daemon::start(place.path(), SERVE);
    daemon.end(Signal::KILL);
    assert!(place.path().join("api.sock").exists());
    let mut daemon = Daemon::start(place.path(), SERVE);
    assert!(daemon.end(Signal::TERM).success());
}

#[test]
fn one_daemon_per_state_and_per_socket() {
    let place = place();
    let _first = Daemon::start(place.path(), SERVE);
    let same_state = [SERVE, &["--listen-socket", "other.sock"]].concat();
    let same_socket = [SERVE, &["--state", "other", "--listen-socket", "api.sock"]].concat();
    for (arguments, part) in [(same_state, "store"), (same_socket, "api.sock")] {
        let refused = output(place.path(), &arguments);
        let errors = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{errors}");
        assert!(errors.contains(part), "{errors}");
    }
    let answer = output(place.path(), &["--server", "unix:api.sock", "vm", "list"]);
    assert!(answer.status.success(), "the first is not disturbed");
}

#[test]
fn what_cannot_be_listened_on_is_said() {
    let place = place();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = output(
        place.path(),
        &[SERVE, &["--listen-cimxml", &address]].concat(),
    );
    let errors = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{errors}");
    assert!(
        errors.contains(&address) && errors.contains("listen.cimxml"),
        "{errors}"
    );
    assert!(!place.path().join("api.sock").exists());

    let refused = output(
        place.path(),
        &[SERVE, &["--listen-http", "0.0.0.0:0"]].concat(),
    );
    let errors = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{errors}");
    assert!(errors.contains("allow_plain_remote"), "{errors}");
}

#[test]
fn the_configuration_is_printed_and_checked() {
    let place = place();
    let printed = output(
        place.path(),
        &[SERVE, &["--state", "elsewhere", "--print-config"]].concat(),
    );
    let text = String::from_utf8(printed.stdout).unwrap();
    let elsewhere = place.path().join("elsewhere");
    for line in [
        format!("state = \"{}\"", elsewhere.display()),
        format!("run = \"{}\"", elsewhere.join("run").display()),
        format!("socket = \"{}\"", place.path().join("api.sock").display()),
        "cimxml = \"off\"".to_owned(),
        "window = \"10s\"".to_owned(),
    ] {
        assert!(
            text.lines().any(|printed| printed == line),
            "{line} is not in:\n{text}"
        );
    }
    std::fs::write(
        place.path().join("isochron.toml"),
        "[listen]\ncimxlm = \"off\"\n",
    )
    .unwrap();
    let refused = output(place.path(), SERVE);
    let errors = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{errors}");
    assert!(
        errors.contains("isochron.toml") && errors.contains("cimxlm"),
        "{errors}"
    );
    assert!(!place.path().join("state").exists(), "nothing was made");
}
