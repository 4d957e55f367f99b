//! The guest agent's line, with an agent that answers as its script says.

#![allow(clippy::unwrap_used)] // functions of tests

mod common;

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use isochron_engine::ports::*;
use serde_json::Value;

const LIMIT: Duration = Duration::from_millis(400);

/// What came in, one line each.
type Heard = Arc<Mutex<Vec<String>>>;

/// An agent whose every line is answered by the script; it may keep silent.
fn agent(
    host: &Host,
    mut script: impl FnMut(&mut UnixStream, &str, &Value) + Send + 'static,
) -> Heard {
    let listener = UnixListener::bind(host.path("agent")).unwrap();
    let heard = Heard::default();
    let ours = heard.clone();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut bytes = Vec::new();
            let mut chunk = [0; 512];
            while let Ok(count @ 1..) = stream.read(&mut chunk) {
                bytes.extend_from_slice(&chunk[..count]);
                while let Some(end) = bytes.iter().position(|b| *b == b'\n') {
                    let mut line: Vec<u8> = bytes.drain(..=end).collect();
                    if line[0] == 0xff {
                        line.remove(0);
                    }
                    let line: Value = serde_json::from_slice(&line).unwrap();
                    let command = line["execute"].as_str().unwrap().to_owned();
                    ours.lock().unwrap().push(command.clone());
                    script(&mut stream, &command, &line["arguments"]["id"]);
                }
            }
        }
    });
    heard
}

fn synchronized(stream: &mut UnixStream, id: &Value) {
    stream.write_all(b"\xff").unwrap();
    writeln!(stream, r#"{{"return": {id}}}"#).unwrap();
}

fn heard(heard: &Heard) -> Vec<String> {
    heard.lock().unwrap().clone()
}

const SYNC: &str = "guest-sync-delimited";
const FREEZE: &str = "guest-fsfreeze-freeze";
const THAW: &str = "guest-fsfreeze-thaw";

#[tokio::test(flavor = "multi_thread")]
async fn file_systems_are_frozen_and_thawed_past_what_others_left_on_the_line() {
    let host = Host::new();
    let heard_by = agent(&host, |stream, command, id| match command {
        SYNC => {
            // The end of an answer, a whole one, and an answer to another's call.
            stream
                .write_all(b"n\": 7}\n{\"return\": 99}\n\xff{\"return\": 3}\n\xff")
                .unwrap();
            stream
                .write_all(b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"?\"}}\n")
                .unwrap();
            synchronized(stream, id);
        }
        _ => writeln!(stream, r#"{{"return": 2}}"#).unwrap(),
    });
    let owned = owned(&host, &[]);
    let live = live(&host.qemu, &owned.machine).await;
    assert!(live.agent_answers().await);
    assert_eq!(live.freeze(LIMIT).await.unwrap(), 2);
    assert_eq!(live.thaw(LIMIT).await.unwrap(), 2);
    assert_eq!(heard(&heard_by), [SYNC, SYNC, FREEZE, SYNC, THAW]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_frozen_before_the_agent_answers() {
    let host = Host::new();
    let heard_by = agent(&host, |_, _, _| ());
    let owned = owned(&host, &[]);
    let live = live(&host.qemu, &owned.machine).await;
    assert!(matches!(
        live.freeze(LIMIT).await,
        Err(HypervisorError::Timeout(_))
    ));
    assert_eq!(heard(&heard_by), [SYNC]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_that_takes_too_long_is_thawed_and_its_late_answer_does_no_harm() {
    let host = Host::new();
    let mut frozen = false;
    let heard_by = agent(&host, move |stream, command, id| match command {
        SYNC => synchronized(stream, id),
        FREEZE if !frozen => {
            frozen = true;
            std::thread::sleep(LIMIT + LIMIT / 2);
            writeln!(stream, r#"{{"return": 5}}"#).unwrap();
        }
        FREEZE => writeln!(stream, r#"{{"return": 3}}"#).unwrap(),
        _ => writeln!(stream, r#"{{"return": 4}}"#).unwrap(),
    });
    let owned = owned(&host, &[]);
    let live = live(&host.qemu, &owned.machine).await;
    let Err(HypervisorError::Timeout(text)) = live.freeze(LIMIT).await else {
        panic!()
    };
    assert!(text.contains("freeze"), "{text}");
    eventually("the thaw", || heard(&heard_by).len() == 4).await;
    assert_eq!(heard(&heard_by), [SYNC, FREEZE, SYNC, THAW]);
    // What was late is not taken for an answer.
    assert_eq!(live.freeze(LIMIT).await.unwrap(), 3);
    assert_eq!(live.thaw(LIMIT).await.unwrap(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_freeze_is_thawed_and_told_in_the_agents_words() {
    let host = Host::new();
    let heard_by = agent(&host, |stream, command, id| match command {
        SYNC => synchronized(stream, id),
        FREEZE => stream
            .write_all(b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"/srv is busy\"}}\n")
            .unwrap(),
        _ => writeln!(stream, r#"{{"return": 0}}"#).unwrap(),
    });
    let owned = owned(&host, &[]);
    let live = live(&host.qemu, &owned.machine).await;
    let Err(HypervisorError::Failed(text)) = live.freeze(LIMIT).await else {
        panic!()
    };
    assert!(text.contains("/srv is busy"), "{text}");
    assert_eq!(heard(&heard_by), [SYNC, FREEZE, SYNC, THAW]);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_an_error_and_a_closed_line_is_opened_again() {
    let host = Host::new();
    let mut calls = 0;
    agent(&host, move |stream, command, id| match command {
        SYNC => synchronized(stream, id),
        _ => {
            calls += 1;
            match calls {
                1 => stream.write_all(b"no json at all\n").unwrap(),
                2 => stream.write_all(b"{\"return\": \"two\"}\n").unwrap(),
                3 => stream.shutdown(std::net::Shutdown::Both).unwrap(),
                _ => writeln!(stream, r#"{{"return": 1}}"#).unwrap(),
            }
        }
    });
    let owned = owned(&host, &[]);
    let live = live(&host.qemu, &owned.machine).await;
    for _ in 0..3 {
        let Err(HypervisorError::Failed(_)) = live.thaw(LIMIT).await else {
            panic!()
        };
    }
    assert_eq!(live.thaw(LIMIT).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guardian_thaws() {
    let host = Host::new();
    let heard_by = agent(&host, |stream, command, id| match command {
        SYNC => synchronized(stream, id),
        _ => writeln!(stream, r#"{{"return": 1}}"#).unwrap(),
    });
    let owned = owned(&host, &[]);
    let live = live(&host.qemu, &owned.machine).await;
    let member = Guarded {
        machine: owned.machine.id,
        resume: true,
        thaw: true,
    };
    let guard = host.qemu.guard(&[member]).await.unwrap();
    guard.arm(Duration::from_secs(60)).await.unwrap();
    live.freeze(LIMIT).await.unwrap();
    live.stop().await.unwrap();
    drop(guard);
    eventually("the thaw", || heard(&heard_by).last().unwrap() == THAW).await;
    let mut monitor = Monitor::open(&host.path("other"));
    assert_eq!(monitor.status(), "running");
}
