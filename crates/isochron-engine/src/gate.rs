//! Who works on what: one operation at a time on a machine or a collection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::EngineError;
use crate::model::{CollectionId, MachineId, ReferencePointId, SnapshotId};

/// What an operation holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    Machine(MachineId),
    Collection(CollectionId),
    /// Held while it is exported or goes, so that its layers stay.
    Snapshot(SnapshotId),
    /// The same.
    Point(ReferencePointId),
}

type Held = HashMap<Place, String>;

/// The places that are held, and by what.
#[derive(Clone, Default)]
pub(crate) struct Gate {
    held: Arc<Mutex<Held>>,
}

/// Holds places until it is dropped.
pub(crate) struct Pass {
    held: Arc<Mutex<Held>>,
    places: Vec<Place>,
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    // A panic between two map operations leaves the map whole.
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gate {
    /// Whether an operation holds a machine now.
    pub(crate) fn holds(&self, machine: MachineId) -> bool {
        lock(&self.held).contains_key(&Place::Machine(machine))
    }

    /// Takes all places, each with the name that an error shows, or none.
    ///
    /// # Errors
    /// `InvalidState`, naming what holds the place.
    pub(crate) fn enter(
        &self,
        what: &str,
        places: impl IntoIterator<Item = (Place, String)>,
    ) -> Result<Pass, EngineError> {
        let places: Vec<_> = places.into_iter().collect();
        let mut held = lock(&self.held);
        for (place, name) in &places {
            if let Some(other) = held.get(place) {
                return Err(EngineError::state(format!(
                    "{name} is taking part in another operation ({other}); wait for it to end"
                )));
            }
        }
        for (place, _) in &places {
            held.insert(*place, what.to_owned());
        }
        Ok(Pass {
            held: Arc::clone(&self.held),
            places: places.into_iter().map(|(place, _)| place).collect(),
        })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut held = lock(&self.held);
        for place in &self.places {
            held.remove(place);
        }
    }
}
