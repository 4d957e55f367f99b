//! Work on several files at once, and its progress told from the caller's thread.

use std::collections::VecDeque;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use isochron_engine::ports::{ArchiveError, Copied, Go};

use crate::control::{Control, LOOK};

/// Jobs that are under way at once, at most, whatever the number of processors: each
/// keeps some MiB in memory.
const AT_ONCE: usize = 8;

/// Carries out jobs, several at once; what came of them, in their order. After a
/// failure no further one is begun, and those that run end soon.
pub(crate) fn each<J: Send, R: Send>(
    jobs: Vec<J>,
    control: &Control,
    work: impl Fn(J) -> Result<R, ArchiveError> + Sync,
) -> Result<Vec<R>, ArchiveError> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(AT_ONCE).min(jobs.len());
    let jobs: Mutex<VecDeque<_>> = Mutex::new(jobs.into_iter().enumerate().collect());
    let done = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let job = jobs
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .pop_front();
                    let Some((number, job)) = job else { return };
                    match control.check().and_then(|()| work(job)) {
                        Ok(end) => {
                            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                            done.push((number, end));
                        }
                        Err(error) => return control.fail(error),
                    }
                }
            });
        }
    });
    control.outcome(control.check())?;
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, end)| end).collect())
}

/// Carries out work in a thread of its own, and tells of its progress meanwhile.
pub(crate) fn watched<R: Send>(
    control: &Control,
    progress: &dyn Fn(Copied) -> Go,
    work: impl FnOnce() -> Result<R, ArchiveError> + Send,
) -> Result<R, ArchiveError> {
    let (ended, end) = channel::<()>();
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            // Dropped at the end, also by a panic.
            let _ended = ended;
            work()
        });
        while let Err(RecvTimeoutError::Timeout) = end.recv_timeout(LOOK) {
            if progress(control.copied()) == Go::Stop {
                control.stop();
            }
        }
        let result = worker
            .join()
            .unwrap_or_else(|_| Err(ArchiveError::Failed("a thread ended early".to_owned())));
        progress(control.copied());
        control.outcome(result)
    })
}
