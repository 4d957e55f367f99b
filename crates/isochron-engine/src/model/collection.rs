//! Collections.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{CollectionId, Machine, MachineId, SnapshotId};

/// A named set of virtual machines, or of collections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Collection {
    /// Its identifier.
    pub id: CollectionId,
    /// Its name, unique among collections.
    pub name: String,
    /// What it may hold.
    pub kind: CollectionKind,
    /// Member machines, in the order they were added.
    #[serde(default)]
    pub machines: Vec<MachineId>,
    /// Member collections, in the order they were added.
    #[serde(default)]
    pub collections: Vec<CollectionId>,
    /// The snapshot last taken or applied: the parent of the next.
    pub current: Option<SnapshotId>,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

impl Collection {
    /// The collection of one that a machine is. It is no record: nobody made it,
    /// nobody sees it listed, and it is there for as long as the machine.
    pub(crate) fn of_one(machine: &Machine) -> Self {
        Self {
            id: machine.id.into(),
            name: machine.name.clone(),
            kind: CollectionKind::Machines,
            machines: vec![machine.id],
            collections: Vec::new(),
            current: machine.current,
            created_at: machine.created_at,
        }
    }
}

/// What a collection may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CollectionKind {
    /// Virtual machines.
    Machines,
    /// Collections.
    Collections,
}
