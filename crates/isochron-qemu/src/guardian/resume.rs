//! Letting a guest run, over a monitor connection that was the daemon's.
//!
//! A save that was under way when the daemon died goes on without it. A plain one
//! stops the guest again when it reaches its end, for good: it is given up first,
//! and `cont` is repeated until none is under way and the guest runs. A background
//! one lets the guest run by itself and must not be given up ([`crate::drain`]).

use std::io;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::sleep;

use crate::qmp::{Capability, Lines, Migration, Status};

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(10);

/// Lets the guest run. Ends when QEMU says that it does; the caller bounds it.
pub(super) async fn resume(socket: &mut UnixStream) -> io::Result<()> {
    // This byte ends whatever the daemon left half said: QEMU's parser starts
    // afresh on it.
    socket.write_all(&[0xff]).await?;
    let mut monitor = Monitor {
        socket,
        lines: Lines::default(),
        next: 0,
    };
    // At once, for a guest that merely stands.
    let first = monitor.run("cont").await?;
    let capabilities: Vec<Capability> = monitor.ask("query-migrate-capabilities").await?;
    let background = capabilities
        .iter()
        .any(|c| c.state && c.capability == "background-snapshot");
    let mut refusal = first.err();
    loop {
        let migration: Migration = monitor.ask("query-migrate").await?;
        if background || !migration.is_under_way() {
            let status: Status = monitor.ask("query-status").await?;
            if status.running {
                return Ok(());
            }
            if let (Some(refusal), true) = (refusal, status.status != "finish-migrate") {
                return Err(io::Error::other(refusal));
            }
        } else {
            // Refused is as good: then it has just ended.
            let _ = monitor.run("migrate_cancel").await?;
        }
        sleep(PAUSE).await;
        refusal = monitor.run("cont").await?.err();
    }
}

impl Migration {
    /// QEMU is at it and not at its end.
    fn is_under_way(&self) -> bool {
        let over = ["none", "completed", "failed", "cancelled"];
        self.status
            .as_deref()
            .is_some_and(|now| !over.contains(&now))
    }
}

#[derive(Deserialize)]
struct Reply {
    id: String,
    r#return: Option<Box<RawValue>>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    desc: String,
}

struct Monitor<'a> {
    socket: &'a mut UnixStream,
    lines: Lines,
    next: u32,
}

impl Monitor<'_> {
    /// What a command without arguments returns; the inner error is QEMU's text.
    async fn run(&mut self, command: &str) -> io::Result<Result<Box<RawValue>, String>> {
        self.next += 1;
        let id = format!("guardian-{}", self.next);
        let line = format!("{{\"execute\":\"{command}\",\"id\":\"{id}\"}}\n");
        self.socket.write_all(line.as_bytes()).await?;
        let mut chunk = [0; 4096];
        loop {
            // Among what else comes here: answers to the daemon, events.
            let mut reply = None;
            self.lines.drain(|line| {
                let ours = |reply: &Reply| reply.id == id;
                let read = serde_json::from_slice(line).ok();
                reply = read.filter(ours).or(reply.take());
            });
            match reply {
                Some(Reply {
                    error: Some(refusal),
                    ..
                }) => return Ok(Err(refusal.desc)),
                Some(Reply { r#return, .. }) => return Ok(Ok(r#return.unwrap_or_default())),
                None => (),
            }
            self.socket.readable().await?;
            match self.socket.try_read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.lines.push(&chunk[..count]).map_err(io::Error::other)?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                Err(error) => return Err(error),
            }
        }
    }

    async fn ask<T: DeserializeOwned>(&mut self, command: &str) -> io::Result<T> {
        let answer = self.run(command).await?.map_err(io::Error::other)?;
        Ok(serde_json::from_str(answer.get())?)
    }
}
