//! docs/cim.md is true: its sessions are run as they stand there against a daemon with
//! machines that run, and show what the page shows; its tables of classes are those of
//! the server.
//!
//! Identifiers, times and the host's name are the page's own. A command of the page is
//! given the identifiers that were answered where the page has its own.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Host, LIMIT, MARK};
use isochron_lab::clients;
use isochron_lab::disk::{self, Format};
use regex::{Captures, Regex};

const PASSWORD: &str = "ada-word-1";

#[test]
fn the_sessions_of_the_page_show_what_happens() {
    let host = as_on_the_page();
    let page = page();
    let (_, sessions) = page.split_once("\n## Sessions\n").unwrap();
    let (sessions, _) = sessions.split_once("\n## ").unwrap();

    let (program, rest) = block(sessions, "python").unwrap();
    let (printed, _) = block(rest, "text").unwrap();
    let output = Command::new(clients::python().unwrap())
        .args([
            "-B",
            "-c",
            &program.replace("http://127.0.0.1:5988", &host.cimxml),
        ])
        .env(MARK, host.path())
        .env("ISOCHRON_PASSWORD", PASSWORD)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), printed, "{said}");

    for client in ["pywbemcli", "wbemcli"] {
        let mut session = Session::start(&host);
        let (_, mut rest) = sessions.split_once(&format!("\n### {client}\n")).unwrap();
        rest = rest.split("\n### ").next().unwrap();
        let mut commands = 0;
        while let Some((console, after)) = block(rest, "console") {
            for (command, shown) in exchanges(console) {
                session.shows(&command, &shown);
                commands += 1;
            }
            rest = after;
        }
        assert!(commands > 10, "{client}: {commands} commands");
        session.end();
    }
    host.close();
}

#[test]
fn the_tables_of_the_page_are_those_of_the_server() {
    let host = as_on_the_page();
    host.json(&["collection", "create", "all", "--of-collections", "shop"]);
    host.json(&[
        "snapshot", "create", "shop", "--type", "recovery", "--name", "first",
    ]);
    host.json(&["snapshot", "apply", "first"]);
    host.json(&["snapshot", "create", "shop", "--type", "recovery"]);
    host.json(&["refpoint", "create", "shop", "--name", "now"]);
    let directory = host.path().join("export");
    host.json(&["refpoint", "export", "now", directory.to_str().unwrap()]);
    let page = page_path();
    host.add_user("root", "administrator", PASSWORD);
    host.python("documented.py", &["root", PASSWORD, page.to_str().unwrap()]);
    host.close();
}

fn page_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cim.md")
}

fn page() -> String {
    std::fs::read_to_string(page_path()).unwrap()
}

/// The first block of a language, and what follows it.
fn block<'p>(text: &'p str, language: &str) -> Option<(&'p str, &'p str)> {
    let (_, rest) = text.split_once(&format!("```{language}\n"))?;
    rest.split_once("```\n")
}

/// Commands with what they print.
fn exchanges(console: &str) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut continued = false;
    for line in console.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            found.push((command.to_owned(), String::new()));
        } else if continued {
            let (command, _) = found.last_mut().unwrap();
            *command = format!("{command}\n{line}");
        } else {
            let (_, shown) = found.last_mut().unwrap();
            shown.push_str(line);
            shown.push('\n');
            continue;
        }
        continued = line.ends_with('\\');
    }
    found
}

/// A host with what the page says there is.
fn as_on_the_page() -> Host {
    let host = Host::closed("cimxml_https = \"off\"\nwsman_https = \"off\"\n", &[]);
    let define = |name: &str| {
        let image = host.path().join(format!("{name}.qcow2"));
        if !image.exists() {
            disk::create(&image, Format::Qcow2, 16).unwrap();
        }
        let definition = host.path().join(format!("{name}.toml"));
        let text = format!(
            "name = \"{name}\"\nmemory_mib = 64\naccel = \"tcg\"\n[[disks]]\n\
             path = \"{name}.qcow2\"\n"
        );
        std::fs::write(&definition, text).unwrap();
        host.json(&["vm", "define", definition.to_str().unwrap()]);
        let shown = host.json(&["vm", "show", name]);
        shown["id"].as_str().unwrap().to_owned()
    };
    // Machines are listed in the order of their identifiers, which is to be the page's.
    let web = define("web");
    while define("db") < web {
        host.json(&["vm", "undefine", "db"]);
    }
    host.json(&["vm", "start", "web", "db"]);
    host.json(&["collection", "create", "shop", "web", "db"]);
    host.add_user("ada", "operator", PASSWORD);
    host
}

/// A shell in which the commands of a session are run.
struct Session {
    shell: Child,
    into: ChildStdin,
    from: BufReader<ChildStdout>,
    /// Where the daemon is: `ADDRESS:PORT`.
    server: String,
    /// The identifiers of the page, and what they are here.
    known: HashMap<String, String>,
}

impl Session {
    fn start(host: &Host) -> Self {
        let clients = [clients::pywbemcli().unwrap(), clients::wbemcli().unwrap()];
        let mut path: Vec<PathBuf> = clients
            .iter()
            .map(|client| client.parent().unwrap().canonicalize().unwrap())
            .collect();
        path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
        let mut shell = Command::new("sh")
            .env_clear()
            .env("PATH", std::env::join_paths(path).unwrap())
            // pywbemcli keeps its history and its connections at home.
            .env("HOME", host.path())
            .env("LANG", "C.UTF-8")
            .env("ISOCHRON_PASSWORD", PASSWORD)
            .env(MARK, host.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut into = shell.stdin.take().unwrap();
        into.write_all(b"exec 2>&1\n").unwrap();
        Self {
            from: BufReader::new(shell.stdout.take().unwrap()),
            into,
            shell,
            server: host.cimxml.strip_prefix("http://").unwrap().to_owned(),
            known: HashMap::new(),
        }
    }

    /// Runs a command, which must print what the page shows.
    fn shows(&mut self, command: &str, shown: &str) {
        let command = identifier().replace_all(command, |found: &Captures<'_>| {
            let here = self.known.get(&found[0]);
            here.unwrap_or_else(|| panic!("{} of {command} was not answered", &found[0]))
        });
        let command = command.replace("127.0.0.1:5988", &self.server);
        let shown = normal(shown);
        let begins = ["invokemethod", "wbemcli cm"];
        let once = begins.iter().any(|begin| command.contains(begin));
        let began = Instant::now();
        loop {
            let printed = normal(&self.run(&command).replace(&self.server, "127.0.0.1:5988"));
            if self.same(&shown, &printed) {
                return;
            }
            // What goes on in a job is done later.
            let wait = !once && began.elapsed() < LIMIT && printed.contains("JobState");
            assert!(wait, "$ {command}\n{printed}\nThe page shows:\n{shown}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn run(&mut self, command: &str) -> String {
        const END: &str = "-- that was it --";
        let script = format!("{{ {command}\n}} < /dev/null\necho\necho '{END}'\n");
        self.into.write_all(script.as_bytes()).unwrap();
        let mut printed = String::new();
        loop {
            let mut line = String::new();
            let read = self.from.read_line(&mut line).unwrap();
            assert!(read > 0, "the shell ended: {printed}");
            if line.trim_end() == END {
                return printed;
            }
            printed.push_str(&line);
        }
    }

    /// Whether two texts are the same but for their identifiers, where one of the page
    /// is always the same one here. What is new is remembered.
    fn same(&mut self, shown: &str, printed: &str) -> bool {
        let identifier = identifier();
        let without = |text: &str| identifier.replace_all(text, "ID").into_owned();
        if without(shown) != without(printed) {
            return false;
        }
        let all = |text: &str| -> Vec<String> {
            let found = identifier.find_iter(text);
            found.map(|found| found.as_str().to_owned()).collect()
        };
        let (page, here) = (all(shown), all(printed));
        page.into_iter().zip(here).all(|(page, here)| {
            let known = self.known.entry(page).or_insert_with(|| here.clone());
            *known == here
        })
    }

    fn end(mut self) {
        drop(self.into);
        assert!(self.shell.wait().unwrap().success());
    }
}

fn identifier() -> Regex {
    Regex::new("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").unwrap()
}

/// A text without what differs from run to run: the host's name, times and sizes,
/// lines that are empty, and where long text is broken.
fn normal(text: &str) -> String {
    let text = text.replace("\"\n\"", "");
    let host = Regex::new("SystemName=\"[^\"]*\"").unwrap();
    let mut text = host.replace_all(&text, "SystemName=\"host\"").into_owned();
    if text.contains("Client statistics") {
        let number = Regex::new("[0-9]+([.][0-9]+)?").unwrap();
        text = number.replace_all(&text, "N").into_owned();
        text = Regex::new(" +")
            .unwrap()
            .replace_all(&text, " ")
            .into_owned();
    }
    let lines = text.lines().map(str::trim_end);
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    lines.join("\n")
}
