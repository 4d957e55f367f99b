//! The daemon's side of the guardian, and the words between the two.
//!
//! They talk over a socket pair, one JSON object per line. Per machine the
//! guardian is handed duplicates of the daemon's own, connected sockets: QEMU
//! serves one client at a time, and carries out what comes on one connection in
//! order, so that the guardian's `cont` comes after a `stop` that was the daemon's
//! last word.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use async_trait::async_trait;
use isochron_engine::ports::{Guard, HypervisorError};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use serde::{Deserialize, Serialize};
use tokio::fs::{File, OpenOptions};
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use crate::config::QemuConfig;
use crate::error::file_error;
use crate::qmp::{Lines, send_with};

/// How long the guardian may take to start and for each answer, also while it
/// acts.
const LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at a file that a guardian holds.
const LOOK: Duration = Duration::from_millis(10);

/// What the daemon says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Order {
    /// One more machine to be resumed; its QMP socket comes with this line.
    Resume(String),
    /// One more machine to be thawed; its agent's socket comes with this line.
    Thaw(String),
    /// That was all of them.
    Ready,
    /// Act after so many milliseconds, or when the daemon ends.
    Arm(u64),
    /// Do not act.
    Disarm,
    /// Empty this file before anyone is resumed; it comes with this line, locked.
    Forfeit,
    /// Memory will come through this pipe (see [`crate::drain`]).
    Pipe,
    /// Write what comes through the pipe to this file, but hold it back for a moment.
    File,
    /// Hold nothing back.
    Flow,
    /// Throw away what still comes.
    Discard,
    /// Tell when the pipe has ended.
    Report,
}

/// What the guardian answers to [`Order::Ready`], [`Order::Arm`],
/// [`Order::Disarm`] and [`Order::Report`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// All sockets are there.
    Ready,
    /// The watch is on.
    Armed,
    /// The watch is off.
    Disarmed,
    /// It acted before.
    Fired,
    /// All that came is in the file: so many bytes.
    Written(u64),
    /// It is not, for this reason.
    Unwritten(String),
}

/// What a guardian does for one machine.
pub(crate) struct Charge {
    /// The machine's name or identifier, for messages.
    pub(crate) name: String,
    /// Its QMP socket, if it is to be resumed.
    pub(crate) resume: Option<OwnedFd>,
    /// Its agent's socket, if it is to be thawed.
    pub(crate) thaw: Option<OwnedFd>,
}

/// A guardian. Dropped without being disarmed, it acts.
pub(crate) struct Guardian {
    line: Mutex<Wire>,
}

/// The daemon's end of the socket pair.
pub(crate) struct Wire {
    stream: UnixStream,
    lines: Lines,
}

impl Guardian {
    /// Starts one and waits until it holds all sockets.
    pub(crate) async fn start(
        config: &QemuConfig,
        charges: Vec<Charge>,
    ) -> Result<Self, HypervisorError> {
        let mut wire = Wire::spawn(config)?;
        for Charge { name, resume, thaw } in charges {
            if let Some(socket) = resume {
                wire.say(&Order::Resume(name.clone()), Some(socket)).await?;
            }
            if let Some(socket) = thaw {
                wire.say(&Order::Thaw(name), Some(socket)).await?;
            }
        }
        match wire.ask(&Order::Ready).await? {
            Answer::Ready => Ok(Self {
                line: Mutex::new(wire),
            }),
            other => Err(HypervisorError::Failed(format!(
                "the guardian says {other:?}"
            ))),
        }
    }
}

#[async_trait]
impl Guard for Guardian {
    async fn arm(&self, deadline: Duration) -> Result<(), HypervisorError> {
        let millis = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
        match self.line.lock().await.ask(&Order::Arm(millis)).await? {
            Answer::Armed => Ok(()),
            _ => Err(HypervisorError::Failed(
                "the guardian acted already and cannot be armed again".to_owned(),
            )),
        }
    }

    async fn forfeits(&self, memory: &Path) -> Result<(), HypervisorError> {
        let failed = |error: io::Error| file_error("handing over", memory, &error);
        let file = OpenOptions::new().write(true).open(memory).await;
        let file = file.map_err(failed)?.into_std().await;
        // The lock is the open file's: the guardian's as long as it has it.
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|error| failed(error.into()))?;
        let mut wire = self.line.lock().await;
        wire.say(&Order::Forfeit, Some(file.into())).await?;
        match wire.ask(&Order::Ready).await? {
            Answer::Ready => Ok(()),
            _ => Err(HypervisorError::Failed(
                "the guardian acted already".to_owned(),
            )),
        }
    }

    async fn disarm(&self) -> Result<bool, HypervisorError> {
        Ok(self.line.lock().await.ask(&Order::Disarm).await? == Answer::Disarmed)
    }
}

/// The bytes of a file of memory that no guardian holds any more (see
/// [`Guard::forfeits`]); `None` if it is empty or not there.
pub(crate) async fn kept_memory(memory: &Path) -> Result<Option<u64>, HypervisorError> {
    let failed = |error: io::Error| file_error("opening", memory, &error);
    let file = match File::open(memory).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let let_go = async {
        loop {
            match flock(&file, FlockOperation::NonBlockingLockShared) {
                Err(Errno::WOULDBLOCK) => sleep(LOOK).await,
                taken => return taken.map_err(|error| failed(error.into())),
            }
        }
    };
    timeout(LIMIT, let_go).await.unwrap_or_else(|_| {
        let held = format!("a guardian still holds {}", memory.display());
        Err(HypervisorError::Timeout(held))
    })?;
    let bytes = file.metadata().await.map_err(failed)?.len();
    Ok(Some(bytes).filter(|bytes| *bytes > 0))
}

impl Wire {
    /// Starts the process. It ends when this is dropped and it has nothing to do.
    pub(crate) fn spawn(config: &QemuConfig) -> Result<Self, HypervisorError> {
        let failed = |error: io::Error| {
            HypervisorError::Failed(format!("the guardian could not be started: {error}"))
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|error| failed(error.into()))?;
        let mut child = Command::new(&config.guardian_exe)
            .args(&config.guardian_args)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .map_err(failed)?;
        // Collects it when it ends, whenever that is.
        tokio::spawn(async move { child.wait().await });
        let stream = UnixStream::from_std(ours.into()).map_err(failed)?;
        Ok(Self {
            stream,
            lines: Lines::default(),
        })
    }

    pub(crate) async fn say(
        &mut self,
        order: &Order,
        mut descriptor: Option<OwnedFd>,
    ) -> Result<(), HypervisorError> {
        let mut line = serde_json::to_vec(order).map_err(|error| gone(&error))?;
        line.push(b'\n');
        let mut rest = &line[..];
        while !rest.is_empty() {
            let sent = self
                .stream
                .async_io(Interest::WRITABLE, || match &descriptor {
                    Some(descriptor) => send_with(&self.stream, rest, descriptor.as_fd()),
                    None => self.stream.try_write(rest),
                });
            rest = &rest[sent.await.map_err(|error| gone(&error))?..];
            descriptor = None;
        }
        Ok(())
    }

    pub(crate) async fn ask(&mut self, order: &Order) -> Result<Answer, HypervisorError> {
        self.ask_within(order, LIMIT).await
    }

    pub(crate) async fn ask_within(
        &mut self,
        order: &Order,
        limit: Duration,
    ) -> Result<Answer, HypervisorError> {
        let work = async {
            self.say(order, None).await?;
            let mut chunk = [0; 256];
            loop {
                let mut answer = None;
                self.lines
                    .drain(|line| answer = serde_json::from_slice(line).ok());
                if let Some(answer) = answer {
                    return Ok(answer);
                }
                self.stream.readable().await.map_err(|error| gone(&error))?;
                match self.stream.try_read(&mut chunk) {
                    Ok(0) => return Err(gone(&"it ended")),
                    Ok(count) => self
                        .lines
                        .push(&chunk[..count])
                        .map_err(|error| gone(&error))?,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
                    Err(error) => return Err(gone(&error)),
                }
            }
        };
        timeout(limit, work).await.unwrap_or_else(|_| {
            Err(HypervisorError::Timeout(
                "the guardian does not answer".into(),
            ))
        })
    }
}

fn gone(why: &dyn std::fmt::Display) -> HypervisorError {
    HypervisorError::Failed(format!("the guardian cannot be reached: {why}"))
}
