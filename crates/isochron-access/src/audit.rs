//! The audit log: who did what, and who was refused, as lines of JSON.
//!
//! ```text
//! {"time":"2026-01-02T03:04:05.678Z","user":"ada","role":"operator","face":"cim-xml",
//!  "address":"10.0.0.7:50022","operation":"create-snapshot",
//!  "object":"collection shop (4f...)","result":"done"}
//! ```
//!
//! `result` is `done`, `denied` (the caller may not) or `failed`; the latter two have
//! `error`. Of what goes on as a job, the line tells the start. A login is an operation
//! too: `login`, when a password or a certificate was refused, or a password was found
//! right that was not known to be. Of refused logins, so many a minute are told and the
//! rest is counted (`omitted`), so that a guesser cannot fill the disk.
//!
//! The file is for its owner alone (0600), is only ever appended to, and is opened anew
//! when something else, or nothing, is found under its name: logrotate needs to signal
//! nobody. Lines are written by a thread of their own, in the order of what they tell.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use isochron_engine::{Act, Audit, Caller, ErrorKind};
use isochron_net::Peer;
use serde::Serialize;
use time::OffsetDateTime;

use crate::users::Kept;

/// How many refused logins are told in one minute.
const REFUSALS: u32 = 100;
const MINUTE: Duration = Duration::from_secs(60);

/// How many bytes a line has of an object and of an error: clients choose the names
/// that are in them.
const TEXT_MAX: usize = 1000;

/// How many lines may wait for the disk.
const WAITING: usize = 10_000;

/// The log, appended to as long as this is there.
#[derive(Debug)]
pub struct AuditLog {
    lines: Option<mpsc::SyncSender<String>>,
    writer: Option<JoinHandle<()>>,
    refusals: Mutex<Refusals>,
}

#[derive(Debug)]
struct Refusals {
    since: Instant,
    told: u32,
    omitted: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    #[serde(with = "time::serde::rfc3339")]
    time: OffsetDateTime,
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'a str>,
    face: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<&'a str>,
    operation: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<&'a str>,
    result: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "is_zero")]
    omitted: u64,
}

/// Why an act came to nothing.
pub(crate) struct Wrong<'a> {
    /// The caller may not.
    pub(crate) denied: bool,
    pub(crate) message: &'a str,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl AuditLog {
    /// Opens a file for appending; makes it if it is not there.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut target = Target {
            file: open(path)?,
            path: path.to_owned(),
            failing: false,
        };
        let (lines, waiting) = mpsc::sync_channel::<String>(WAITING);
        let writer = std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || waiting.iter().for_each(|line| target.append(&line)))?;
        Ok(Self {
            lines: Some(lines),
            writer: Some(writer),
            refusals: Mutex::new(Refusals {
                since: Instant::now(),
                told: 0,
                omitted: 0,
            }),
        })
    }

    /// Somebody did something, or it went wrong.
    pub(crate) fn act(
        &self,
        caller: &Caller,
        operation: &str,
        object: &str,
        wrong: Option<Wrong<'_>>,
    ) {
        self.write(&Line {
            time: now(),
            user: caller.name.as_deref(),
            role: Some(caller.role.as_str()),
            face: caller.face,
            address: caller.address.as_deref(),
            operation,
            object: Some(cut(object)),
            result: match &wrong {
                None => "done",
                Some(Wrong { denied: true, .. }) => "denied",
                Some(_) => "failed",
            },
            error: wrong.map(|wrong| cut(wrong.message)),
            omitted: 0,
        });
    }

    /// A login was refused.
    pub fn login_refused(&self, user: Option<&str>, face: &str, address: Option<&str>, why: &str) {
        let omitted = {
            let refusals = self.refusals.lock();
            let mut refusals = refusals.unwrap_or_else(PoisonError::into_inner);
            if refusals.since.elapsed() >= MINUTE {
                (refusals.since, refusals.told) = (Instant::now(), 0);
            }
            if refusals.told >= REFUSALS {
                refusals.omitted += 1;
                return;
            }
            refusals.told += 1;
            std::mem::take(&mut refusals.omitted)
        };
        self.write(&Line {
            user,
            result: "denied",
            error: Some(why),
            omitted,
            ..login(face, address)
        });
    }

    pub(crate) fn refused(&self, user: Option<&str>, peer: &Peer, why: &str) {
        self.login_refused(user, peer.face, Some(&peer.address.to_string()), why);
    }

    /// A user's password was found right.
    pub(crate) fn came(&self, user: &Kept, peer: &Peer) {
        self.write(&Line {
            user: Some(&user.name),
            role: Some(user.role.as_str()),
            ..login(peer.face, Some(&peer.address.to_string()))
        });
    }

    fn write(&self, line: &Line<'_>) {
        let (Ok(text), Some(lines)) = (serde_json::to_string(line), &self.lines) else {
            return;
        };
        if lines.try_send(text).is_err() {
            tracing::error!(
                user = line.user,
                operation = line.operation,
                "the audit log takes no more lines; this one is lost"
            );
        }
    }
}

/// As much of a text as a line has.
fn cut(text: &str) -> &str {
    let last = text.len().min(TEXT_MAX);
    let end = (0..=last).rev().find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}

fn login<'a>(face: &'a str, address: Option<&'a str>) -> Line<'a> {
    Line {
        time: now(),
        user: None,
        role: None,
        face,
        address,
        operation: "login",
        object: None,
        result: "done",
        error: None,
        omitted: 0,
    }
}

/// To the millisecond.
fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    now.replace_millisecond(now.millisecond()).unwrap_or(now)
}

impl Audit for AuditLog {
    fn record(&self, act: Act<'_>) {
        let wrong = act.error.map(|error| Wrong {
            denied: error.kind == ErrorKind::AccessDenied,
            message: &error.message,
        });
        self.act(act.caller, act.operation.as_str(), act.target, wrong);
    }
}

impl Drop for AuditLog {
    /// Waits until all lines are written.
    fn drop(&mut self) {
        self.lines = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

struct Target {
    path: PathBuf,
    file: File,
    failing: bool,
}

impl Target {
    fn append(&mut self, line: &str) {
        match self.try_append(line) {
            Ok(()) => self.failing = false,
            Err(error) => {
                // Told once: the disk that is full may be that of our own log.
                if !self.failing {
                    let path = self.path.display();
                    tracing::error!(%error, %path, "the audit log cannot be written");
                }
                self.failing = true;
            }
        }
    }

    fn try_append(&mut self, line: &str) -> io::Result<()> {
        let opened = self.file.metadata()?;
        let same = std::fs::metadata(&self.path)
            .is_ok_and(|there| (there.dev(), there.ino()) == (opened.dev(), opened.ino()));
        if !same {
            self.file = open(&self.path)?;
        }
        // In one write, so that a line is whole.
        self.file.write_all(format!("{line}\n").as_bytes())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_choose_is_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        let long = "é".repeat(TEXT_MAX);
        assert_eq!(cut(&long).len(), TEXT_MAX);
        assert_eq!(cut(&format!("a{long}")).len(), TEXT_MAX - 1);
    }
}
