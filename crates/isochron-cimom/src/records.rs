//! The port through which things are remembered: text records under keys. The
//! binary implements it over its store; [`MemoryRecords`] is for tests.
//!
//! ```text
//!   cim/SPACE/namespace          a namespace of clients
//!   cim/SPACE/qualifier/NAME     a qualifier type, as MOF
//!   cim/SPACE/class/NAME         a class, as MOF
//!   cim/SPACE/instance/NUMBER    an instance, as JSON
//! ```
//!
//! SPACE is the namespace's name in lower case, with colons for its slashes.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its key.
    pub key: String,
    /// Its text.
    pub text: String,
}

/// What is done to one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordWrite {
    /// Creates or replaces it.
    Put(Record),
    /// Deletes it, if it is there.
    Delete(String),
}

/// Why records cannot be had or kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RecordsError(pub String);

/// What remembers records. We are the only one who writes those that begin with
/// `cim/`, so nothing needs to be compared before it is written.
#[async_trait]
pub trait Records: Send + Sync + 'static {
    /// All records whose key begins so, in the order of their keys.
    async fn list(&self, prefix: &str) -> Result<Vec<Record>, RecordsError>;

    /// Makes all writes or none. When it returns, they are on stable storage.
    async fn commit(&self, writes: Vec<RecordWrite>) -> Result<(), RecordsError>;
}

/// Records that are forgotten with the process.
#[derive(Debug, Default)]
pub struct MemoryRecords(Mutex<BTreeMap<String, String>>);

#[async_trait]
impl Records for MemoryRecords {
    async fn list(&self, prefix: &str) -> Result<Vec<Record>, RecordsError> {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = records.iter().filter(|(key, _)| key.starts_with(prefix));
        Ok(found
            .map(|(key, text)| Record {
                key: key.clone(),
                text: text.clone(),
            })
            .collect())
    }

    async fn commit(&self, writes: Vec<RecordWrite>) -> Result<(), RecordsError> {
        let mut records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for write in writes {
            match write {
                RecordWrite::Put(record) => records.insert(record.key, record.text),
                RecordWrite::Delete(key) => records.remove(&key),
            };
        }
        Ok(())
    }
}
