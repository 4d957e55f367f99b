//! Memory's way to its file while the guest runs.
//!
//! Measured on QEMU 7.2: a background save that fails or is cancelled leaves the
//! guest's memory protected, and the guest stands still for good at its next
//! write. A full disk must not do that to a guest, nor may our end. So QEMU writes
//! to a pipe that never fails: a process of its own, of the guardian's kind,
//! carries it to the file, goes on reading when the file takes no more, and
//! outlives us. To give up a save is to throw away the rest and let QEMU finish.
//!
//! While other members of a cut still stand, nothing flows: QEMU fills the pipe and
//! waits, and leaves the processors to those whose guests do not run yet.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::time::Duration;

use isochron_engine::ports::HypervisorError;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::config::QemuConfig;
use crate::guard::{Answer, Order, Wire};

/// Room in the pipe: what an ordinary user may ask for.
const ROOM: usize = 1 << 20;
/// How long the last of the pipe may take once QEMU has ended.
const LAST: Duration = Duration::from_secs(60);

/// The carrier of one save.
pub(crate) struct Drain(Wire);

impl Drain {
    /// Starts one; the end of the pipe that QEMU writes to.
    pub(crate) async fn start(config: &QemuConfig) -> Result<(Self, OwnedFd), HypervisorError> {
        let failed = |error: rustix::io::Errno| {
            HypervisorError::Failed(format!("a pipe could not be made: {error}"))
        };
        let (reading, writing) = pipe_with(PipeFlags::CLOEXEC).map_err(failed)?;
        // With less room it is slower.
        let _ = fcntl_setpipe_size(&writing, ROOM);
        let mut wire = Wire::spawn(config)?;
        wire.say(&Order::Pipe, Some(reading)).await?;
        match wire.ask(&Order::Ready).await? {
            Answer::Ready => Ok((Self(wire), writing)),
            other => Err(HypervisorError::Failed(format!(
                "the carrier says {other:?}"
            ))),
        }
    }

    /// Into this file, once it [flows](Self::flow).
    pub(crate) async fn write_to(&mut self, file: File) -> Result<(), HypervisorError> {
        self.0.say(&Order::File, Some(file.into())).await
    }

    /// Holds nothing back any more. Happens by itself, a quarter of a second after
    /// [`write_to`](Self::write_to) and when we end.
    pub(crate) async fn flow(&mut self) -> Result<(), HypervisorError> {
        self.0.say(&Order::Flow, None).await
    }

    /// Throws away what still comes.
    pub(crate) async fn discard(&mut self) -> Result<(), HypervisorError> {
        self.0.say(&Order::Discard, None).await
    }

    /// When QEMU has ended: how many bytes are in the file.
    pub(crate) async fn end(mut self) -> Result<u64, HypervisorError> {
        match self.0.ask_within(&Order::Report, LAST).await? {
            Answer::Written(count) => Ok(count),
            Answer::Unwritten(why) => Err(HypervisorError::Failed(format!(
                "memory could not be written: {why}"
            ))),
            other => Err(HypervisorError::Failed(format!(
                "the carrier says {other:?}"
            ))),
        }
    }
}
