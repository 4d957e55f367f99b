//! What CIM clients leave with us, kept as records of the engine's store.

use std::sync::Arc;

use isochron_cimom::{Record, RecordWrite, Records, RecordsError};
use isochron_engine::ports::{Batch, Store, StoreError, Write};

/// The object manager's records in a store.
pub struct StoredRecords(pub Arc<dyn Store>);

fn failed(error: StoreError) -> RecordsError {
    RecordsError(error.to_string())
}

#[async_trait::async_trait]
impl Records for StoredRecords {
    async fn list(&self, prefix: &str) -> Result<Vec<Record>, RecordsError> {
        let records = self.0.list(prefix).await.map_err(failed)?;
        let records = records.into_iter().map(|record| {
            let text = String::from_utf8(record.value);
            let text = text.map_err(|_| RecordsError(format!("{} is no text", record.key)))?;
            let key = record.key;
            Ok(Record { key, text })
        });
        records.collect()
    }

    async fn commit(&self, writes: Vec<RecordWrite>) -> Result<(), RecordsError> {
        let writes = writes.into_iter().map(|write| match write {
            RecordWrite::Put(record) => Write::Put(record.key, record.text.into_bytes()),
            RecordWrite::Delete(key) => Write::Delete(key),
        });
        let batch = Batch {
            checks: Vec::new(),
            writes: writes.collect(),
        };
        self.0.commit(batch).await.map_err(failed).map(drop)
    }
}
