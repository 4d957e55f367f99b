//! The demo, and the oracle's benchmark in short form, on real guests: one instant
//! each time, and with the looped coordinator never. What is interrupted leaves
//! nothing.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Far beyond what anything here takes.
const LIMIT: Duration = Duration::from_secs(300);

/// Runs `isochron ARGUMENTS`, with a directory for temporary files of its own.
/// Every process that it starts, and those that they start, has that directory in
/// its environment.
fn isochron(temporary: &TempDir, arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isochron"));
    command
        .args(arguments.split(' '))
        .env("TMPDIR", temporary.path())
        .stdin(Stdio::null());
    command
}

/// A short directory: below it are unix sockets.
fn directory() -> TempDir {
    tempfile::Builder::new()
        .prefix("t")
        .rand_bytes(5)
        .tempdir_in("/var/tmp")
        .unwrap()
}

/// The command lines of processes that were started with this directory.
fn processes(temporary: &Path) -> Vec<String> {
    let directory = temporary.to_str().unwrap();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if String::from_utf8_lossy(&environment).contains(directory) {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    found
}

fn nothing_is_left(temporary: &TempDir) {
    assert_eq!(processes(temporary.path()), Vec::<String>::new());
    let files: Vec<_> = temporary.path().read_dir().unwrap().flatten().collect();
    assert!(files.is_empty(), "{files:?}");
}

/// What the benchmark found, for each type of snapshot.
fn combinations(output: &Output) -> Vec<Value> {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    found["combinations"].as_array().unwrap().clone()
}

#[test]
fn the_demo_shows_what_it_claims() {
    let temporary = directory();
    let output = isochron(&temporary, "demo").output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shown}\n{said}");
    assert!(shown.contains("Every claim held."), "{shown}");
    nothing_is_left(&temporary);
}

#[test]
fn every_snapshot_is_one_instant() {
    let temporary = directory();
    let output = isochron(&temporary, "bench oracle --rounds 5 --members 3 --json").output();
    let combinations = combinations(&output.unwrap());
    assert_eq!(combinations.len(), 2);
    for (found, kind) in combinations.iter().zip(["standard", "recovery"]) {
        assert_eq!(
            (&found["type"], &found["rounds"]),
            (&kind.into(), &5.into())
        );
        assert_eq!(
            (&found["violations"], &found["without_window"]),
            (&0.into(), &0.into())
        );
        assert!(
            found["common_window_us"]["worst"].as_i64().unwrap() >= 0,
            "{found}"
        );
    }
    nothing_is_left(&temporary);
}

/// If this did not show, the test above would mean nothing.
#[test]
fn members_taken_in_turn_are_no_instant() {
    let temporary = directory();
    let arguments = "bench oracle --looped --rounds 3 --members 3 --json";
    let combinations = combinations(&isochron(&temporary, arguments).output().unwrap());
    assert_eq!(combinations.len(), 2);
    for found in combinations {
        assert_eq!(found["without_window"], 3, "{found}");
        // Round after round goes by between the first member and the last.
        assert!(found["violations"].as_u64().unwrap() > 0, "{found}");
    }
    nothing_is_left(&temporary);
}

#[test]
fn an_interrupt_ends_guests_and_daemon() {
    let temporary = directory();
    let arguments = "bench oracle --rounds 1000 --members 3 --types recovery";
    let mut bench = isochron(&temporary, arguments)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let began = Instant::now();
    let guests = || {
        let all = processes(temporary.path());
        all.iter()
            .filter(|line| line.contains("qemu-system"))
            .count()
    };
    while guests() < 3 {
        assert!(began.elapsed() < LIMIT && bench.try_wait().unwrap().is_none());
        std::thread::sleep(Duration::from_millis(100));
    }
    let process = Pid::from_raw(bench.id().cast_signed()).unwrap();
    kill_process(process, Signal::INT).unwrap();
    assert_eq!(ended(&mut bench), Some(130));
    nothing_is_left(&temporary);
}

fn ended(child: &mut Child) -> Option<i32> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        assert!(began.elapsed() < LIMIT, "it does not end");
        std::thread::sleep(Duration::from_millis(50));
    }
}
