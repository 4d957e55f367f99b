//! What all threads of one export, check or restore share: whether to go on, how far
//! it is, and how fast it may be.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use isochron_engine::ports::{ArchiveError, Copied};

/// How long a thread that waits does so before it looks whether to go on.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

/// Shared by all threads.
#[derive(Debug, Default)]
pub(crate) struct Control {
    stop: AtomicBool,
    done: AtomicU64,
    total: AtomicU64,
    written: AtomicU64,
    limit: Option<Mutex<Limit>>,
    failure: Mutex<Option<ArchiveError>>,
}

/// A bandwidth limit: when what was allowed up to now will have been used up.
#[derive(Debug)]
struct Limit {
    /// Bytes a second.
    rate: u64,
    used_up: Instant,
}

impl Control {
    /// With a limit of so many bytes a second.
    pub(crate) fn new(limit: Option<u64>) -> Self {
        Self {
            limit: limit.map(|rate| {
                Mutex::new(Limit {
                    rate: rate.max(1),
                    used_up: Instant::now(),
                })
            }),
            ..Self::default()
        }
    }

    /// Has all threads end soon.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// One thread failed: has all end soon. The first failure is the one that counts,
    /// the others follow from it.
    pub(crate) fn fail(&self, error: ArchiveError) {
        let mut failure = self.failure.lock().unwrap_or_else(|e| e.into_inner());
        failure.get_or_insert(error);
        drop(failure);
        self.stop();
    }

    /// The first failure, if there was one; else what came of the work.
    pub(crate) fn outcome<T>(&self, result: Result<T, ArchiveError>) -> Result<T, ArchiveError> {
        let failure = self.failure.lock().unwrap_or_else(|e| e.into_inner());
        match failure.as_ref() {
            Some(error) => Err(error.clone()),
            None => result,
        }
    }

    /// An error if threads are to end.
    pub(crate) fn check(&self) -> Result<(), ArchiveError> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(ArchiveError::Cancelled),
            false => Ok(()),
        }
    }

    /// There is so much more to do.
    pub(crate) fn expect(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So much has been dealt with.
    pub(crate) fn done(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So much of it was written.
    pub(crate) fn written(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }

    /// How far it is.
    pub(crate) fn copied(&self) -> Copied {
        Copied {
            done: self.done.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
            written: self.written.load(Ordering::Relaxed),
        }
    }

    /// Waits until so many bytes may be read.
    pub(crate) fn wait_for(&self, bytes: u64) -> Result<(), ArchiveError> {
        self.check()?;
        let Some(limit) = &self.limit else {
            return Ok(());
        };
        let until = {
            let mut limit = limit.lock().unwrap_or_else(|broken| broken.into_inner());
            // Time in which nothing was read is not made up for.
            let from = limit.used_up.max(Instant::now());
            let takes = Duration::from_secs_f64(bytes as f64 / limit.rate as f64);
            limit.used_up = from + takes;
            limit.used_up
        };
        loop {
            self.check()?;
            match until.saturating_duration_since(Instant::now()) {
                Duration::ZERO => return Ok(()),
                rest => sleep(rest.min(LOOK)),
            }
        }
    }
}
