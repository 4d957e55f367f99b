//! The [`Store`] of one life of the daemon: the records are the world's.

use async_trait::async_trait;
use isochron_engine::ports::{Batch, Record, Revision, Store, StoreError, Write};

use crate::daemon::At;
use crate::{Daemon, Point};

/// The store of one life of the daemon.
pub struct SimStore {
    daemon: Daemon,
}

fn at(point: Point) -> At<'static> {
    At {
        point,
        machine: None,
        file: None,
    }
}

impl SimStore {
    pub(crate) fn new(daemon: Daemon) -> Self {
        Self { daemon }
    }
}

#[async_trait]
impl Store for SimStore {
    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError> {
        self.daemon
            .call(at(Point::Get), |state| Ok(state.records.get(key).cloned()))
            .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Record>, StoreError> {
        self.daemon
            .call(at(Point::List), |state| {
                let records = state.records.range(prefix.to_owned()..);
                let below = records.take_while(|(key, _)| key.starts_with(prefix));
                Ok(below.map(|(_, record)| record.clone()).collect())
            })
            .await
    }

    async fn commit(&self, batch: Batch) -> Result<Revision, StoreError> {
        self.daemon
            .call(at(Point::Commit), |state| {
                for check in batch.checks {
                    if state.records.get(&check.key).map(|record| record.revision) != check.revision
                    {
                        return Err(StoreError::Conflict(check.key));
                    }
                }
                state.revision += 1;
                let revision = state.revision;
                for write in batch.writes {
                    match write {
                        Write::Put(key, value) => {
                            let record = Record {
                                key: key.clone(),
                                revision,
                                value,
                            };
                            state.records.insert(key, record);
                        }
                        Write::Delete(key) => {
                            state.records.remove(&key);
                        }
                    }
                }
                Ok(revision)
            })
            .await
    }
}
