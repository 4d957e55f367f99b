//! What the engine tells those who watch it.
//!
//! A change of a record is told by the transaction that made it, in the order in
//! which transactions were committed, so no way to change one can forget it. What
//! a job and a machine do is told by `jobs` and `watch`. Every event carries what
//! was and what is: nobody has to read again, and so nobody misses what was
//! between two reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::broadcast;

use crate::model::{Collection, Job, Machine, Power, ReferencePoint, Snapshot};
use crate::records::Kept;

/// How many events a slow reader may lag behind before it loses some.
const KEPT: usize = 4096;

/// Something changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A job: its state, progress or step.
    Job(Change<Job>),
    /// A snapshot. It changes when the one that it grew from is destroyed, and
    /// when its layers move.
    Snapshot(Change<Snapshot>),
    /// A reference point. It changes when its data is removed, when it is exported, and
    /// when its layers move.
    ReferencePoint(Change<ReferencePoint>),
    /// A collection: its name, its members, the snapshot that it stands on.
    Collection(Change<Collection>),
    /// A machine's record: its name, the snapshot that it stands on, its layers.
    Machine(Change<Machine>),
    /// What a machine does. The moments for which an operation stops it are not
    /// told.
    Power {
        /// The machine.
        machine: Arc<Machine>,
        /// What it did.
        before: Power,
        /// What it does now.
        now: Power,
    },
}

/// What became of something.
#[derive(Clone, Debug, PartialEq)]
pub enum Change<T> {
    /// It is new.
    Created(Arc<T>),
    /// It is another.
    Changed {
        /// What it was.
        before: Arc<T>,
        /// What it is.
        now: Arc<T>,
    },
    /// It is gone; this is what it was.
    Gone(Arc<T>),
}

impl<T: PartialEq> Change<T> {
    /// The change between two moments; `None` if there is none.
    pub(crate) fn between(before: Option<T>, now: Option<T>) -> Option<Self> {
        match (before.map(Arc::new), now.map(Arc::new)) {
            (Some(before), Some(now)) => (before != now).then_some(Self::Changed { before, now }),
            (None, Some(now)) => Some(Self::Created(now)),
            (Some(before), None) => Some(Self::Gone(before)),
            (None, None) => None,
        }
    }
}

/// The change of a record, by its key and the bytes before and after; `None` if it
/// is none that is told.
pub(crate) fn of_record(key: &str, before: Option<&[u8]>, now: Option<&[u8]>) -> Option<Event> {
    told(key, before, now, Event::Snapshot)
        .or_else(|| told(key, before, now, Event::Collection))
        .or_else(|| told(key, before, now, Event::Machine))
        .or_else(|| told(key, before, now, Event::ReferencePoint))
}

/// Whether changes of records with this key are told.
pub(crate) fn is_told(key: &str) -> bool {
    [
        Snapshot::PREFIX,
        Collection::PREFIX,
        Machine::PREFIX,
        ReferencePoint::PREFIX,
    ]
    .iter()
    .any(|prefix| key.starts_with(prefix))
}

fn told<T: Kept + PartialEq>(
    key: &str,
    before: Option<&[u8]>,
    now: Option<&[u8]>,
    event: fn(Change<T>) -> Event,
) -> Option<Event> {
    if !key.starts_with(T::PREFIX) {
        return None;
    }
    let read = |value: Option<&[u8]>| value.and_then(|value| serde_json::from_slice(value).ok());
    Change::between(read(before), read(now)).map(event)
}

/// Where events come from. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Events {
    sender: broadcast::Sender<Event>,
    /// Has waited since before recovery: for the first who asks.
    first: Arc<Mutex<Option<broadcast::Receiver<Event>>>>,
    watched: Arc<AtomicBool>,
}

impl Events {
    pub(crate) fn new() -> Self {
        let (sender, first) = broadcast::channel(KEPT);
        Self {
            sender,
            first: Arc::new(Mutex::new(Some(first))),
            watched: Arc::default(),
        }
    }

    pub(crate) fn tell(&self, event: Event) {
        // Nobody listening is no error.
        let _ = self.sender.send(event);
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Event> {
        self.watched.store(true, Ordering::Relaxed);
        // A panic cannot leave an option half taken.
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.take().unwrap_or_else(|| self.sender.subscribe())
    }

    /// Whether somebody has asked for events yet.
    pub(crate) fn watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }
}
