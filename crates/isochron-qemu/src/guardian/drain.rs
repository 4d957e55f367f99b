//! From a pipe to a file, to the pipe's end, whatever happens to the file.
//!
//! The writer must never see an error: see [`crate::drain`].

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::{JoinHandle, spawn_blocking};

use crate::guard::Answer;

/// What is carried at once.
const CHUNK: usize = 1 << 20;

/// A pipe that is, or will be, carried to a file.
pub(super) struct Drain {
    pipe: OwnedFd,
    discard: Arc<AtomicBool>,
    work: Option<JoinHandle<io::Result<u64>>>,
}

impl Drain {
    pub(super) fn new(pipe: OwnedFd) -> Self {
        Self {
            pipe,
            discard: Arc::default(),
            work: None,
        }
    }

    /// Begins. The pipe is read until every writer has closed it.
    pub(super) fn start(&mut self, file: OwnedFd) -> io::Result<()> {
        let pipe = File::from(self.pipe.try_clone()?);
        let discard = self.discard.clone();
        self.work = Some(spawn_blocking(move || {
            carry(pipe, File::from(file), &discard)
        }));
        Ok(())
    }

    /// Throws away what still comes.
    pub(super) fn discard(&self) {
        self.discard.store(true, Ordering::Relaxed);
    }

    /// Waits for the end.
    pub(super) async fn end(self) -> Answer {
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
