//! From a pipe to a file, to the pipe's end, whatever happens to the file.
//!
//! The writer must never see an error: see [`crate::drain`].

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use tokio::task::{JoinHandle, spawn_blocking};

use crate::guard::Answer;

/// What is carried at once.
const CHUNK: usize = 1 << 20;
/// The longest that memory is held back: should the daemon hang, a guest whose next
/// write waits for it goes on.
const HOLD: Duration = Duration::from_millis(250);

/// A pipe that is, or will be, carried to a file.
pub(super) struct Drain {
    pipe: OwnedFd,
    discard: Arc<AtomicBool>,
    /// Dropped, it lets memory flow.
    hold: Option<mpsc::Sender<()>>,
    work: Option<JoinHandle<io::Result<u64>>>,
}

impl Drain {
    pub(super) fn new(pipe: OwnedFd) -> Self {
        Self {
            pipe,
            discard: Arc::default(),
            hold: None,
            work: None,
        }
    }

    /// Begins when it is told to, or at the latest after [`HOLD`]. The pipe is read
    /// until every writer has closed it.
    pub(super) fn start(&mut self, file: OwnedFd) -> io::Result<()> {
        let pipe = File::from(self.pipe.try_clone()?);
        let discard = self.discard.clone();
        let (hold, held) = mpsc::channel();
        self.hold = Some(hold);
        self.work = Some(spawn_blocking(move || {
            let _ = held.recv_timeout(HOLD);
            carry(pipe, File::from(file), &discard)
        }));
        Ok(())
    }

    /// Holds nothing back any more.
    pub(super) fn flow(&mut self) {
        self.hold = None;
    }

    /// Throws away what still comes.
    pub(super) fn discard(&mut self) {
        self.discard.store(true, Ordering::Relaxed);
        self.flow();
    }

    /// Waits for the end.
    pub(super) async fn end(mut self) -> Answer {
        self.flow();
        let Some(work) = self.work else {
            return Answer::Unwritten("there is no file".to_owned());
        };
        match work.await {
            Ok(Ok(_)) if self.discard.load(Ordering::Relaxed) => {
                Answer::Unwritten("it was given up".to_owned())
            }
            Ok(Ok(count)) => Answer::Written(count),
            Ok(Err(error)) => Answer::Unwritten(error.to_string()),
            Err(error) => Answer::Unwritten(error.to_string()),
        }
    }
}

fn carry(mut pipe: File, mut file: File, discard: &AtomicBool) -> io::Result<u64> {
    let mut chunk = vec![0; CHUNK];
    let mut outcome = Ok(0);
    loop {
        let count = match pipe.read(&mut chunk) {
            Ok(0) => return outcome,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if let Ok(written) = &mut outcome
            && !discard.load(Ordering::Relaxed)
        {
            match file.write_all(&chunk[..count]) {
                Ok(()) => *written += u64::try_from(count).unwrap_or(0),
                Err(error) => outcome = Err(error),
            }
        }
    }
}
