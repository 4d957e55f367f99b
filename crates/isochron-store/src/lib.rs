//! The engine's [`Store`] on SQLite: one file, one writer, whole batches.
//!
//! What holds: when [`Store::commit`] returns, the batch is on stable storage
//! (write-ahead log, `synchronous=FULL`); after a crash at any moment the file
//! holds every such batch, and of a batch under way all or nothing. At most one
//! process serves from a file. A file that a newer version wrote, that another
//! program owns or that is damaged is refused and left as it is.
//!
//! SQLite blocks, so it lives on a thread of its own; the async side sends it
//! requests and awaits the answers.

mod database;
mod error;
mod lock;
mod schema;
mod worker;

use std::path::PathBuf;

use async_trait::async_trait;
use isochron_engine::ports::{Batch, Record, Revision, Store, StoreError};

pub use error::OpenError;

/// The engine's store in an SQLite file.
///
/// Dropping it waits until requests already sent are done, closes the file and
/// gives it free for the next opener.
///
/// ```
/// use isochron_engine::ports::{Batch, Store, Write};
/// use isochron_store::SqliteStore;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// let store = SqliteStore::open(directory.path().join("state/isochron.db")).await?;
/// let write = Write::Put("machine/web".to_owned(), b"{}".to_vec());
/// let revision = store.commit(Batch { checks: vec![], writes: vec![write] }).await?;
/// assert_eq!(store.list("machine/").await?[0].revision, revision);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct SqliteStore {
    worker: worker::Worker,
}

impl SqliteStore {
    /// Opens the store in this file for serving. A file that is not there is
    /// created for its owner alone (0600), as are the directories above it
    /// (0700); a file of an older version is brought forward.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        Ok(Self {
            worker: worker::Worker::start(path.into()).await?,
        })
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError> {
        let key = key.to_owned();
        self.worker.run(move |database| database.get(&key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Record>, StoreError> {
        let prefix = prefix.to_owned();
        self.worker
            .run(move |database| database.list(&prefix))
            .await
    }

    /// A batch that was sent is carried out even if its caller stops waiting.
    async fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        self.worker
            .run(move |database| database.commit(&batch))
            .await
    }
}
