//! Letting a guest run, over a monitor connection that is, or was, the daemon's.
//!
//! A save that was under way when the daemon died goes on without it. A plain one
//! stops the guest again when it reaches its end, for good: it is given up first,
//! and `cont` is repeated until none is under way and the guest runs. A background
//! one lets the guest run by itself and must not be given up ([`crate::drain`]).
//!
//! As long as the daemon lives, what QEMU says is looked at and left where it is:
//! a daemon that hung and goes on finds its answers whole. One that reads along
//! takes ours, too; it then sees to what is under way itself.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::process::{Pid, getppid};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use super::Helped;
use crate::qmp::{Capability, Migration, Status};

/// Between two tries, and two looks for an answer.
const PAUSE: Duration = Duration::from_millis(10);
/// How long an answer may take until it is taken for one that the daemon took.
const SHARED: Duration = Duration::from_secs(2);
/// What is looked at: more than a socket holds.
const SEEN: usize = 512 << 10;

/// Lets the guest run. Ends when QEMU says that it does; the caller bounds it.
pub(super) async fn resume(socket: &mut UnixStream) -> io::Result<Helped> {
    // This byte ends whatever the daemon left half said: QEMU's parser starts
    // afresh on it.
    socket.write_all(&[0xff]).await?;
    let mut monitor = Monitor {
        socket,
        daemon: getppid(),
        seen: vec![0; SEEN],
        next: 0,
    };
    match monitor.let_run().await {
        Ok(()) => Ok(Helped::Seen),
        Err(Silence::Shared) => Ok(Helped::Told),
        Err(Silence::Broken(error)) => Err(error),
    }
}

/// Why there is no answer.
enum Silence {
    /// The daemon lives and took it.
    Shared,
    /// There is none, or none that can be understood.
    Broken(io::Error),
}

impl<E: Into<io::Error>> From<E> for Silence {
    fn from(error: E) -> Self {
        Self::Broken(error.into())
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
    /// Our parent: another one once the daemon is dead.
    daemon: Option<Pid>,
    seen: Vec<u8>,
    next: u32,
}

impl Monitor<'_> {
    async fn let_run(&mut self) -> Result<(), Silence> {
        // At once, for a guest that merely stands.
        let first = self.run("cont").await?;
        let capabilities: Vec<Capability> = self.ask("query-migrate-capabilities").await?;
        let background = capabilities
            .iter()
            .any(|c| c.state && c.capability == "background-snapshot");
        let mut refusal = first.err();
        // Whether nothing was under way before the last `cont`: one that is refused
        // while a save ends says nothing of what comes after.
        let mut settled = false;
        loop {
            let migration: Migration = self.ask("query-migrate").await?;
            if background || !migration.is_under_way() {
                let status: Status = self.ask("query-status").await?;
                if status.running {
                    return Ok(());
                }
                let over = status.status != "finish-migrate";
                if let (Some(refusal), true) = (refusal, settled && over) {
                    return Err(io::Error::other(refusal).into());
                }
                settled = over;
            } else {
                settled = false;
                // Refused is as good: then it has just ended.
                let _ = self.run("migrate_cancel").await?;
            }
            sleep(PAUSE).await;
            refusal = self.run("cont").await?.err();
        }
    }

    /// What a command without arguments returns; the inner error is QEMU's text.
    async fn run(&mut self, command: &str) -> Result<Result<Box<RawValue>, String>, Silence> {
        self.next += 1;
        let id = format!("guardian-{}", self.next);
        let line = format!("{{\"execute\":\"{command}\",\"id\":\"{id}\"}}\n");
        self.socket.write_all(line.as_bytes()).await?;
        let sent = Instant::now();
        loop {
            let daemon_lives = getppid() == self.daemon;
            if let Some(reply) = self.look(&id, daemon_lives)? {
                return Ok(match reply.error {
                    Some(refusal) => Err(refusal.desc),
                    None => Ok(reply.r#return.unwrap_or_default()),
                });
            }
            if daemon_lives && sent.elapsed() > SHARED {
                return Err(Silence::Shared);
            }
            sleep(PAUSE / 5).await;
        }
    }

    async fn ask<T: DeserializeOwned>(&mut self, command: &str) -> Result<T, Silence> {
        let answer = self.run(command).await?.map_err(io::Error::other)?;
        Ok(serde_json::from_str(answer.get())?)
    }

    /// The reply of that identifier among what else has come: answers to the
    /// daemon, events.
    fn look(&mut self, id: &str, daemon_lives: bool) -> io::Result<Option<Reply>> {
        let flags = RecvFlags::DONTWAIT;
        let count = match recv(&*self.socket, &mut self.seen[..], flags | RecvFlags::PEEK) {
            Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok((count, _)) => count,
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let seen = &self.seen[..count];
        let whole = seen
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let found = seen[..whole]
            .split(|byte| *byte == b'\n')
            .filter_map(|line| serde_json::from_slice::<Reply>(line).ok())
            .find(|reply| reply.id == id);
        if !daemon_lives && whole > 0 {
            // Nobody else wants it, and QEMU needs the room.
            recv(&*self.socket, &mut self.seen[..whole], flags)?;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: &str = r#""return":{"running":true,"status":"running"}"#;
    const SAVED: &str = r#""return":{"running":false,"status":"postmigrate"}"#;
    const OVER: &str = r#""return":{"status":"completed"}"#;
    const DONE: &str = r#""return":{}"#;
    const NONE: &str = r#""return":[]"#;
    const REFUSED: &str = r#""error":{"desc":"Migration is not finalized yet"}"#;

    /// Answers one command after the other; what it heard.
    async fn answer(qemu: &mut UnixStream, answers: &[&str]) -> Vec<u8> {
        let mut heard = Vec::new();
        for answer in answers {
            let mut byte = [0];
            while !heard.ends_with(b"\n") {
                qemu.readable().await.unwrap();
                if qemu.try_read(&mut byte).is_ok() {
                    heard.push(byte[0]);
                }
            }
            let at = heard.iter().rposition(|byte| *byte == b'{').unwrap();
            let command: serde_json::Value = serde_json::from_slice(&heard[at..]).unwrap();
            let id = &command["id"];
            let answer = format!("{{{answer},\"id\":{id}}}\n");
            qemu.write_all(answer.as_bytes()).await.unwrap();
            heard.push(b' ');
        }
        heard
    }

    /// The save ends between the refusal and the question for it.
    #[tokio::test]
    async fn a_refusal_while_a_save_ends_is_not_the_last_word() {
        let (mut daemon, mut qemu) = UnixStream::pair().unwrap();
        let answers = [REFUSED, NONE, OVER, SAVED, DONE, OVER, RUNNING];
        let (resumed, _) = tokio::join!(resume(&mut daemon), answer(&mut qemu, &answers));
        assert!(matches!(resumed, Ok(Helped::Seen)));
    }

    #[tokio::test]
    async fn a_refusal_with_nothing_under_way_is_told() {
        let (mut daemon, mut qemu) = UnixStream::pair().unwrap();
        let answers = [REFUSED, NONE, OVER, SAVED, REFUSED, OVER, SAVED];
        let (resumed, _) = tokio::join!(resume(&mut daemon), answer(&mut qemu, &answers));
        let told = resumed.err().map(|error| error.to_string());
        assert_eq!(told.as_deref(), Some("Migration is not finalized yet"));
    }

    /// A QEMU that had talked, hears a torn command, and then ours.
    #[tokio::test]
    async fn answers_are_found_and_left_to_a_daemon_that_lives() {
        let (mut daemon, mut qemu) = UnixStream::pair().unwrap();
        daemon.try_write(b"{\"execute\":\"block").unwrap();
        let before = b"half an answer\n{\"return\":{},\"id\":7}\n";
        qemu.write_all(before).await.unwrap();
        let answers = [DONE, NONE, DONE, RUNNING];
        let (resumed, heard) = tokio::join!(resume(&mut daemon), answer(&mut qemu, &answers));
        assert!(matches!(resumed, Ok(Helped::Seen)));
        let torn = b"{\"execute\":\"block\xff{\"execute\":\"cont\",\"id\":\"guardian-1\"}\n";
        assert!(heard.starts_with(torn));
        let mut left = vec![0; 1024];
        let count = daemon.try_read(&mut left).unwrap();
        assert!(left[..count].starts_with(before));
    }
}
