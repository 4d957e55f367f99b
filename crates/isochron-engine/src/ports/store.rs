//! The [`Store`]: revisioned records with atomic compare-and-swap batches, which
//! both an embedded SQL database and etcd give.

use async_trait::async_trait;

/// A revision of the store: rises with every batch.
pub type Revision = u64;

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its key, such as `machine/4f...`.
    pub key: String,
    /// The revision at which it was last written.
    pub revision: Revision,
    /// Its value: JSON.
    pub value: Vec<u8>,
}

/// What a batch does to one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Creates or replaces it.
    Put(String, Vec<u8>),
    /// Deletes it, if it is there.
    Delete(String),
}

/// What a batch requires of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The record's key.
    pub key: String,
    /// The revision that it must have; `None`: it must not exist.
    pub revision: Option<Revision>,
}

/// Checks and writes that happen together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// All must hold.
    pub checks: Vec<Check>,
    /// All are made.
    pub writes: Vec<Write>,
}

/// Why the store refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A check did not hold; nothing was written.
    #[error("the record {0} was changed by someone else")]
    Conflict(String),
    /// The store itself failed.
    #[error("the store failed: {0}")]
    Failed(String),
}

/// What remembers. When [`commit`](Store::commit) returns, the batch is on
/// stable storage.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The record of this key.
    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError>;

    /// All records whose key begins so, in the order of their keys.
    async fn list(&self, prefix: &str) -> Result<Vec<Record>, StoreError>;

    /// Makes a batch's writes if its checks hold.
    async fn commit(&self, batch: Batch) -> Result<Revision, StoreError>;
}
