//! What the host's disk takes to keep a write, measured all the time: a guest
//! that stops has its writes flushed, and nobody can let it run before that.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two probes.
const EVERY: Duration = Duration::from_millis(100);

/// Probes the disk until it is dropped.
pub struct Probe {
    /// The longest that a probe took, and when the present one began, if one is on.
    seen: Arc<Mutex<(Duration, Option<Instant>)>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Probe {
    pub fn new(directory: &Path) -> Self {
        let seen = Arc::new(Mutex::new((Duration::ZERO, None)));
        let end = Arc::new(AtomicBool::new(false));
        let file = File::create(directory.join("probe")).unwrap();
        let (told, ends) = (seen.clone(), end.clone());
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                let began = Instant::now();
                told.lock().unwrap().1 = Some(began);
                // A full disk takes no time.
                let _ = file
                    .write_all_at(&[0; 4096], 0)
                    .and_then(|()| file.sync_data());
                let mut seen = told.lock().unwrap();
                *seen = (seen.0.max(began.elapsed()), None);
                drop(seen);
                std::thread::sleep(EVERY);
            }
        });
        Self {
            seen,
            end,
            thread: Some(thread),
        }
    }

    /// The longest that the disk took since the last call.
    pub fn longest(&self) -> Duration {
        let mut seen = self.seen.lock().unwrap();
        let now = seen.1.map_or(Duration::ZERO, |began| began.elapsed());
        let longest = seen.0.max(now);
        seen.0 = Duration::ZERO;
        longest
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
