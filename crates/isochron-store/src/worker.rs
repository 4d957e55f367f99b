//! The thread on which the database lives. Requests are closures, carried out
//! in the order in which they were sent; the last request's end and then the
//! database's close end the thread.

use std::fmt;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use isochron_engine::ports::StoreError;
use tokio::sync::oneshot;

use crate::OpenError;
use crate::database::Database;

type Request = Box<dyn FnOnce(&mut Database) + Send>;

/// The async side of the thread.
pub(crate) struct Worker {
    /// `None` only while it is dropped.
    requests: Option<mpsc::Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts the thread and opens the database on it.
    pub(crate) async fn start(path: PathBuf) -> Result<Self, OpenError> {
        let (requests, inbox) = mpsc::channel::<Request>();
        let (opened, answer) = oneshot::channel();
        let file = path.clone();
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || {
                match Database::open(&file) {
                    Ok(mut database) => {
                        // nobody waits any more: the inbox is closed as well
                        let _ = opened.send(Ok(()));
                        for request in inbox {
                            request(&mut database);
                        }
                    }
                    Err(error) => drop(opened.send(Err(error))),
                }
            });
        let io = |source| OpenError::Io { path, source };
        let thread = match thread {
            Ok(thread) => thread,
            Err(error) => return Err(io(error)),
        };
        let worker = Self {
            requests: Some(requests),
            thread: Some(thread),
        };
        match answer.await {
            Ok(Ok(())) => Ok(worker),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(io(std::io::Error::other("the store's thread ended"))),
        }
    }

    /// Sends a request and waits for its answer.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        request: impl FnOnce(&mut Database) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let ended = || StoreError::Failed("its thread ended".to_owned());
        let (done, answer) = oneshot::channel();
        let request: Request = Box::new(move |database| {
            // an answer that nobody waits for any more is no failure
            let _ = done.send(request(database));
        });
        self.requests
            .as_ref()
            .ok_or_else(ended)?
            .send(request)
            .map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl Drop for Worker {
    /// Short: what is waited for is the disk, and only at the store's end.
    fn drop(&mut self) {
        drop(self.requests.take());
        if let Some(thread) = self.thread.take() {
            // it panicked: nothing is left to close
            let _ = thread.join();
        }
    }
}
