//! Processes: the QEMUs that we started, who may be nobody's children any more,
//! and the programs that we run to their end.
//!
//! A process is ended by its descriptor (pidfd) only, and only when its command
//! line proves that it is the machine's QEMU: process identifiers are used again.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use isochron_engine::model::MachineId;
use isochron_engine::ports::HypervisorError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{ChildStdout, Command};
use tokio::time::{Instant, sleep, timeout};

/// The most text of a program that is kept for an error message.
const ERROR_TEXT: u64 = 64 << 10;

/// Between two looks at a process that is to end.
const LOOK: Duration = Duration::from_millis(5);

/// A machine's running QEMU.
pub(crate) struct QemuProcess {
    /// Its identifier.
    pub(crate) id: u32,
    descriptor: OwnedFd,
}

impl QemuProcess {
    /// The process whose identifier the file names, if it runs and is the
    /// machine's QEMU.
    pub(crate) async fn find(pid_file: &Path, machine: MachineId) -> Option<Self> {
        let text = tokio::fs::read_to_string(pid_file).await.ok()?;
        let id: i32 = text.trim().parse().ok()?;
        let descriptor = pidfd_open(Pid::from_raw(id)?, PidfdFlags::empty()).ok()?;
        // Read after the descriptor was opened: now both mean the same process.
        let command = tokio::fs::read(format!("/proc/{id}/cmdline")).await.ok()?;
        let uuid = machine.to_string();
        let mut words = command.split(|byte| *byte == 0);
        // A process that ended but was not collected has no command line.
        words.find(|word| *word == b"-uuid")?;
        if words.next()? != uuid.as_bytes() {
            return None;
        }
        Some(Self {
            id: u32::try_from(id).ok()?,
            descriptor,
        })
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        // A process' descriptor becomes readable when it ends.
        let mut watched = [PollFd::new(&self.descriptor, PollFlags::IN)];
        poll(&mut watched, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Waits until it has ended; `false` if it still runs after that time.
    pub(crate) async fn ended_within(&self, limit: Duration) -> bool {
        let begin = Instant::now();
        loop {
            if self.has_ended() {
                return true;
            }
            if begin.elapsed() >= limit {
                return false;
            }
            sleep(LOOK).await;
        }
    }

    /// Ends it: SIGTERM, on which QEMU flushes its images, then SIGKILL.
    pub(crate) async fn end(&self, patience: Duration) -> Result<(), HypervisorError> {
        for (signal, limit) in [
            (Signal::TERM, patience),
            (Signal::KILL, patience + Duration::from_secs(8)),
        ] {
            // An error means that it has ended.
            let _ = pidfd_send_signal(&self.descriptor, signal);
            if self.ended_within(limit).await {
                return Ok(());
            }
        }
        Err(HypervisorError::Timeout(format!(
            "process {} does not end",
            self.id
        )))
    }

    /// Ends it at once.
    pub(crate) async fn kill(&self) -> Result<(), HypervisorError> {
        // An error means that it has ended.
        let _ = pidfd_send_signal(&self.descriptor, Signal::KILL);
        if self.ended_within(Duration::from_secs(10)).await {
            return Ok(());
        }
        Err(HypervisorError::Timeout(format!(
            "process {} does not end",
            self.id
        )))
    }
}

/// How a program ended.
pub(crate) struct Ended {
    /// Whether it says that it succeeded.
    pub(crate) success: bool,
    /// What it wrote, without surrounding space.
    pub(crate) output: String,
    /// What it complained of, without surrounding space.
    pub(crate) complaint: String,
}

/// Runs a program to its end, or kills it after that time.
pub(crate) async fn run(command: &mut Command, limit: Duration) -> Result<Ended, HypervisorError> {
    run_reading(command, limit, text).await
}

/// The same; each line that it writes is taken by `line` as it comes, and none is kept.
pub(crate) async fn run_lines(
    command: &mut Command,
    limit: Duration,
    mut line: impl FnMut(&str) -> io::Result<()>,
) -> Result<Ended, HypervisorError> {
    let read = async |stream: Option<ChildStdout>| {
        let Some(stream) = stream else {
            return Ok(String::new());
        };
        let mut lines = BufReader::new(stream).lines();
        while let Some(text) = lines.next_line().await? {
            line(&text)?;
        }
        Ok(String::new())
    };
    run_reading(command, limit, read).await
}

async fn run_reading(
    command: &mut Command,
    limit: Duration,
    read: impl AsyncFnOnce(Option<ChildStdout>) -> io::Result<String>,
) -> Result<Ended, HypervisorError> {
    let name = command
        .as_std()
        .get_program()
        .to_string_lossy()
        .into_owned();
    let failed =
        |error: io::Error| HypervisorError::Failed(format!("{name} could not be run: {error}"));
    let mut child = command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let work = async {
        let (output, complaint) = tokio::join!(read(stdout), text(stderr));
        Ok::<_, io::Error>(Ended {
            success: child.wait().await?.success(),
            output: output?,
            complaint: complaint?,
        })
    };
    match timeout(limit, work).await {
        Ok(ended) => ended.map_err(failed),
        Err(_) => Err(HypervisorError::Timeout(format!(
            "{name} did not end within {} s",
            limit.as_secs()
        ))),
    }
}

/// All of a stream, of which no more than [`ERROR_TEXT`] is kept.
async fn text(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> io::Result<String> {
    let Some(mut stream) = stream else {
        return Ok(String::new());
    };
    let mut bytes = Vec::new();
    (&mut stream)
        .take(ERROR_TEXT)
        .read_to_end(&mut bytes)
        .await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
}
