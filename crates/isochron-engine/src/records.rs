//! The engine's records in the [`Store`]: which keys there are, and transactions
//! over them.
//!
//! ```text
//!   machine/ID            Machine            machine-name/NAME      -> ID
//!   collection/ID         Collection         collection-name/NAME   -> ID
//!   layer/MACHINE/ID      Layer
//!   snapshot/ID           Snapshot
//!   point/ID              ReferencePoint
//!   changes/POINT/MACHINE/DISK   PointChanges; none where nothing changed
//!   export/JOB            an export under way
//!   job/ID                Job
//!   activity/MACHINE      since when it does what it does
//!   journal/JOB           Journal: an operation under way and how to undo it
//!   collect/MACHINE       the machine may have layers that nobody needs
//!   starting/MACHINE      the machine's process may stand, and shall run
//!   trash/FILE            a file that nobody needs
//! ```
//!
//! A transaction reads what it needs and commits all its writes at once; a
//! record read in it must not have changed meanwhile.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::{Mutex, MutexGuard};

use crate::EngineError;
use crate::events::{self, Events};
use crate::export::Exports;
use crate::journal::Journal;
use crate::model::{
    Changes, Collection, CollectionId, ExportId, Job, JobId, Layer, LayerId, Machine, MachineId,
    ReferencePoint, ReferencePointId, Snapshot, SnapshotId,
};
use crate::ports::{Batch, Check, Record, Store, StoreError, Write};
use crate::relations::Relations;

/// A type that is kept as a record.
pub(crate) trait Kept: Serialize + DeserializeOwned + Send {
    /// What all keys of the type begin with.
    const PREFIX: &'static str;

    /// The record's key.
    fn key(&self) -> String;
}

macro_rules! kept {
    ($type:ty, $prefix:literal, $self:ident => $key:expr) => {
        impl Kept for $type {
            const PREFIX: &'static str = $prefix;

            fn key(&$self) -> String {
                $key
            }
        }
    };
}

kept!(Machine, "machine/", self => machine_key(self.id));
kept!(Collection, "collection/", self => collection_key(self.id));
kept!(Layer, "layer/", self => layer_key(self.machine, self.id));
kept!(Snapshot, "snapshot/", self => snapshot_key(self.id));
kept!(ReferencePoint, "point/", self => point_key(self.id));
kept!(PointChanges, "changes/", self => changes_key(self.point, self.machine, &self.disk));
kept!(Exporting, "export/", self => export_key(self.job));
kept!(Job, "job/", self => job_key(self.id));
kept!(Journal, "journal/", self => journal_key(self.job));

pub(crate) fn machine_key(id: MachineId) -> String {
    format!("machine/{id}")
}

pub(crate) fn machine_name_key(name: &str) -> String {
    format!("machine-name/{name}")
}

pub(crate) fn collection_key(id: CollectionId) -> String {
    format!("collection/{id}")
}

pub(crate) fn collection_name_key(name: &str) -> String {
    format!("collection-name/{name}")
}

pub(crate) fn layer_key(machine: MachineId, id: LayerId) -> String {
    format!("layer/{machine}/{id}")
}

pub(crate) fn snapshot_key(id: SnapshotId) -> String {
    format!("snapshot/{id}")
}

pub(crate) fn point_key(id: ReferencePointId) -> String {
    format!("point/{id}")
}

pub(crate) fn changes_key(point: ReferencePointId, machine: MachineId, disk: &str) -> String {
    format!("changes/{point}/{machine}/{disk}")
}

pub(crate) fn export_key(job: JobId) -> String {
    format!("export/{job}")
}

pub(crate) fn job_key(id: JobId) -> String {
    format!("job/{id}")
}

pub(crate) fn journal_key(job: JobId) -> String {
    format!("journal/{job}")
}

pub(crate) fn activity_key(machine: MachineId) -> String {
    format!("activity/{machine}")
}

fn collect_key(machine: MachineId) -> String {
    format!("collect/{machine}")
}

fn starting_key(machine: MachineId) -> String {
    format!("starting/{machine}")
}

fn trash_key(file: &Path) -> String {
    format!("trash/{}", file.display())
}

/// A file that nobody needs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Trash {
    /// The file.
    pub(crate) path: PathBuf,
    /// The layer that it was, which a process may still have open.
    pub(crate) layer: Option<Layer>,
}

/// The blocks in which what a disk held at a reference point may differ from what the
/// chain of the point's layer reads as.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PointChanges {
    pub(crate) point: ReferencePointId,
    pub(crate) machine: MachineId,
    pub(crate) disk: String,
    pub(crate) changes: Changes,
}

/// An export under way: what it may leave is known before it leaves anything.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Exporting {
    pub(crate) job: JobId,
    pub(crate) export: ExportId,
    pub(crate) directory: PathBuf,
    pub(crate) what: Exports,
    /// Its disks are copied, so that it can be the base of another.
    pub(crate) with_storage: bool,
}

/// Of each transaction of which the store has not said if it was made, what is told if
/// it was.
type Unsure = Vec<Vec<Told>>;

/// The records.
pub(crate) struct Records {
    store: Arc<dyn Store>,
    /// One transaction at a time; the store's checks remain the last word where
    /// several daemons share it.
    writing: Mutex<Unsure>,
    /// Whether there is a transaction of which it is not known if it was made.
    doubt: AtomicBool,
    relations: Relations,
    events: Events,
}

fn read<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, EngineError> {
    serde_json::from_slice(value)
        .map_err(|error| EngineError::failed(format!("the record {key} cannot be read: {error}")))
}

fn json<T: Serialize>(value: &T) -> Result<Vec<u8>, EngineError> {
    serde_json::to_vec(value)
        .map_err(|error| EngineError::failed(format!("a record cannot be written: {error}")))
}

impl Records {
    /// The records of a store, which nobody else writes meanwhile.
    pub(crate) async fn open(store: Arc<dyn Store>, events: Events) -> Result<Self, EngineError> {
        let mut records = Self {
            store,
            writing: Mutex::default(),
            doubt: AtomicBool::new(false),
            relations: Relations::default(),
            events,
        };
        records.relations = Relations::new(
            &records.list().await?,
            &records.list().await?,
            &records.list().await?,
        );
        Ok(records)
    }

    /// What refers to what.
    pub(crate) async fn relations(&self) -> &Relations {
        self.settle().await;
        &self.relations
    }

    /// Asks the store what became of transactions that it did not say, and tells it.
    pub(crate) async fn settle(&self) {
        // Within a transaction, which holds it, this was done at its beginning.
        if self.doubt.load(Ordering::Acquire)
            && let Ok(mut unsure) = self.writing.try_lock()
        {
            self.settle_all(&mut unsure).await;
        }
    }

    /// `false` where the store still does not say.
    async fn settle_all(&self, unsure: &mut Unsure) -> bool {
        while let Some(told) = unsure.first() {
            let written = match told.first() {
                Some(first) => first.holds(self.store.as_ref()).await,
                None => Ok(false),
            };
            let Ok(written) = written else { return false };
            let told = unsure.remove(0);
            if written {
                self.tell(&told);
            }
        }
        self.doubt.store(false, Ordering::Release);
        true
    }

    fn tell(&self, told: &[Told]) {
        let events: Vec<_> = told.iter().filter_map(Told::event).collect();
        for event in &events {
            self.relations.follow(event);
        }
        for event in events {
            self.events.tell(event);
        }
    }

    pub(crate) async fn get<T: Kept>(&self, key: &str) -> Result<Option<T>, EngineError> {
        match self.store.get(key).await? {
            Some(record) => read(key, &record.value).map(Some),
            None => Ok(None),
        }
    }

    /// All records of a type, in the order of their keys.
    pub(crate) async fn list<T: Kept>(&self) -> Result<Vec<T>, EngineError> {
        self.list_below(T::PREFIX).await
    }

    async fn list_below<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<T>, EngineError> {
        let records = self.store.list(prefix).await?;
        records
            .iter()
            .map(|record| read(&record.key, &record.value))
            .collect()
    }

    pub(crate) async fn layers(&self, machine: MachineId) -> Result<Vec<Layer>, EngineError> {
        self.list_below(&format!("layer/{machine}/")).await
    }

    /// The identifier that an index record points to.
    pub(crate) async fn index<T: DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<Option<T>, EngineError> {
        match self.store.get(key).await? {
            Some(record) => read(key, &record.value).map(Some),
            None => Ok(None),
        }
    }

    /// Machines that may have layers that nobody needs.
    pub(crate) async fn to_collect(&self) -> Result<Vec<MachineId>, EngineError> {
        self.list_below("collect/").await
    }

    /// Whether a machine may have layers that nobody needs.
    pub(crate) async fn is_to_collect(&self, machine: MachineId) -> Result<bool, EngineError> {
        Ok(self.store.get(&collect_key(machine)).await?.is_some())
    }

    /// Machines that were being started.
    pub(crate) async fn starting(&self) -> Result<Vec<MachineId>, EngineError> {
        self.list_below("starting/").await
    }

    /// Files that nobody needs.
    pub(crate) async fn trash(&self) -> Result<Vec<Trash>, EngineError> {
        self.list_below("trash/").await
    }

    pub(crate) async fn begin(&self) -> Transaction<'_> {
        let mut alone = self.writing.lock().await;
        Transaction {
            sure: self.settle_all(&mut alone).await,
            records: self,
            store: &self.store,
            alone,
            read: BTreeMap::new(),
            writes: BTreeMap::new(),
        }
    }
}

/// Reads and writes that happen together or not at all.
pub(crate) struct Transaction<'a> {
    records: &'a Records,
    store: &'a Arc<dyn Store>,
    alone: MutexGuard<'a, Unsure>,
    /// What was told last was known when it began, and so what refers to what.
    sure: bool,
    read: BTreeMap<String, Option<Record>>,
    writes: BTreeMap<String, Option<Vec<u8>>>,
}

impl Transaction<'_> {
    /// Reads a record, as this transaction has changed it.
    pub(crate) async fn get<T: DeserializeOwned>(
        &mut self,
        key: &str,
    ) -> Result<Option<T>, EngineError> {
        if let Some(written) = self.writes.get(key) {
            return written.as_ref().map(|value| read(key, value)).transpose();
        }
        let record = self.store.get(key).await?;
        let value = record.as_ref().map(|record| read(key, &record.value));
        self.read.insert(key.to_owned(), record);
        value.transpose()
    }

    /// Reads a record that must be there.
    pub(crate) async fn require<T: Kept>(&mut self, key: &str) -> Result<T, EngineError> {
        self.get(key)
            .await?
            .ok_or_else(|| EngineError::not_found(format!("there is no {key} any more")))
    }

    pub(crate) async fn exists(&mut self, key: &str) -> Result<bool, EngineError> {
        Ok(self.get::<serde_json::Value>(key).await?.is_some())
    }

    pub(crate) fn put<T: Kept>(&mut self, value: &T) -> Result<(), EngineError> {
        self.writes.insert(value.key(), Some(json(value)?));
        Ok(())
    }

    pub(crate) fn put_index<T: Serialize>(
        &mut self,
        key: String,
        id: &T,
    ) -> Result<(), EngineError> {
        self.writes.insert(key, Some(json(id)?));
        Ok(())
    }

    pub(crate) fn delete(&mut self, key: String) {
        self.writes.insert(key, None);
    }

    /// A reference point's blocks for one disk.
    pub(crate) async fn changes(
        &mut self,
        point: ReferencePointId,
        machine: MachineId,
        disk: &str,
    ) -> Result<Changes, EngineError> {
        let key = changes_key(point, machine, disk);
        let record: Option<PointChanges> = self.get(&key).await?;
        Ok(record.map(|record| record.changes).unwrap_or_default())
    }

    /// Remembers that a machine may have layers that nobody needs.
    pub(crate) fn needs_collecting(&mut self, machine: MachineId) -> Result<(), EngineError> {
        self.put_index(collect_key(machine), &machine)
    }

    pub(crate) fn collected(&mut self, machine: MachineId) {
        self.delete(collect_key(machine));
    }

    /// Remembers that a machine is being started.
    pub(crate) fn starting(&mut self, machine: MachineId) -> Result<(), EngineError> {
        self.put_index(starting_key(machine), &machine)
    }

    pub(crate) fn started(&mut self, machine: MachineId) {
        self.delete(starting_key(machine));
    }

    /// Remembers that nobody needs a layer's file.
    pub(crate) fn discard_layer(&mut self, layer: &Layer) -> Result<(), EngineError> {
        let trash = Trash {
            path: layer.path.clone(),
            layer: Some(layer.clone()),
        };
        self.put_index(trash_key(&layer.path), &trash)
    }

    /// Remembers that nobody needs a file.
    pub(crate) fn discard(&mut self, file: &Path) -> Result<(), EngineError> {
        let trash = Trash {
            path: file.to_owned(),
            layer: None,
        };
        self.put_index(trash_key(file), &trash)
    }

    pub(crate) fn discarded(&mut self, file: &Path) {
        self.delete(trash_key(file));
    }

    /// Makes all writes if nothing that was read has changed, and tells of them.
    pub(crate) async fn commit(mut self) -> Result<(), EngineError> {
        // What was told last must be known before it is read and written over.
        if !self.sure {
            return Err(EngineError::failed(
                "the store does not say what became of the last change",
            ));
        }
        let told = self.told().await?;
        let checks = self
            .read
            .into_iter()
            .map(|(key, record)| Check {
                key,
                revision: record.map(|record| record.revision),
            })
            .collect();
        let writes = self
            .writes
            .into_iter()
            .map(|(key, value)| match value {
                Some(value) => Write::Put(key, value),
                None => Write::Delete(key),
            })
            .collect();
        let outcome = self.store.commit(Batch { checks, writes }).await;
        match &outcome {
            Ok(_) => self.records.tell(&told),
            Err(StoreError::Conflict(_)) => {}
            // It may have failed after it wrote.
            Err(_) => {
                self.alone.push(told);
                self.records.doubt.store(true, Ordering::Release);
                self.records.settle_all(&mut self.alone).await;
            }
        }
        match outcome {
            Ok(_) => Ok(()),
            Err(error @ StoreError::Conflict(_)) => Err(EngineError::state(error)),
            Err(error) => Err(error.into()),
        }
    }

    /// The changes that are told, each with what was before.
    async fn told(&self) -> Result<Vec<Told>, EngineError> {
        let mut told = Vec::new();
        for (key, now) in &self.writes {
            if !events::is_told(key) {
                continue;
            }
            let before = match self.read.get(key) {
                Some(record) => record.clone(),
                None => self.store.get(key).await?,
            };
            let before = before.map(|record| record.value);
            if before != *now {
                told.push(Told {
                    key: key.clone(),
                    before,
                    now: now.clone(),
                });
            }
        }
        Ok(told)
    }
}

/// A change that is told.
struct Told {
    key: String,
    before: Option<Vec<u8>>,
    now: Option<Vec<u8>>,
}

impl Told {
    fn event(&self) -> Option<events::Event> {
        events::of_record(&self.key, self.before.as_deref(), self.now.as_deref())
    }

    /// Whether the store has what was to be written.
    async fn holds(&self, store: &dyn Store) -> Result<bool, StoreError> {
        let holds = store.get(&self.key).await?.map(|record| record.value);
        Ok(holds == self.now)
    }
}
