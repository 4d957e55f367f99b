//! What holds a daemon at a step, and tells how far it is, without a word from it: a
//! store that takes no commit, a guardian that stands, a file's lock, a process that
//! it began.

use std::fs::File;
use std::path::Path;

use rusqlite::Connection;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// The daemon's store takes no commit as long as this lives; after five seconds one
/// that waits fails.
pub struct HeldStore(Connection);

impl HeldStore {
    pub fn new(stage: &Path) -> Self {
        let store = open(stage);
        store.execute_batch("BEGIN IMMEDIATE").unwrap();
        Self(store)
    }

    /// Commits are taken again.
    pub fn release(self) {
        self.0.execute_batch("ROLLBACK").unwrap();
    }
}

fn open(stage: &Path) -> Connection {
    let store = Connection::open(stage.join("state/isochron.db")).unwrap();
    store
        .busy_timeout(std::time::Duration::from_secs(5))
        .unwrap();
    store
}

/// Whether the journal of an operation says, on disk, that it came to this phase.
pub fn journal_says(stage: &Path, phase: &str) -> bool {
    let store = open(stage);
    let mut journals = store
        .prepare("SELECT value FROM records WHERE key LIKE 'journal/%'")
        .unwrap();
    let journals = journals
        .query_map([], |row| row.get::<_, Vec<u8>>(0))
        .unwrap();
    journals.flatten().any(|journal| {
        let journal: serde_json::Value = serde_json::from_slice(&journal).unwrap();
        journal["phase"] == phase
    })
}

/// Whether somebody holds a lock on a file that is there.
pub fn is_locked(file: &Path) -> bool {
    let Ok(file) = File::open(file) else {
        return false;
    };
    flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
}

/// A daemon's processes of the guardian's kind.
pub fn guardians(daemon: u32) -> Vec<u32> {
    let is_one = |process: &u32| {
        let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(b"guardian")
            && parent(*process) == Some(daemon)
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(is_one).collect()
}

fn parent(process: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()
}
