//! Collections on the wire.

use isochron_engine::model;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::same_variants;

/// A named set of machines, or of collections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Collection {
    /// Its identifier.
    pub id: Uuid,
    /// Its name, unique among collections.
    pub name: String,
    /// What it may hold.
    pub kind: CollectionKind,
    /// What it holds, in the order of adding: machines or collections.
    pub members: Vec<Member>,
    /// The snapshot last taken or applied: the parent of the next.
    pub current: Option<Uuid>,
    /// When it was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// A member of a collection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// Its identifier.
    pub id: Uuid,
    /// Its name.
    pub name: String,
}

/// What a collection may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CollectionKind {
    /// Machines.
    #[default]
    Machines,
    /// Collections.
    Collections,
}

/// A collection to be created.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewCollection {
    /// Its name.
    pub name: String,
    /// Its identifier; chosen where absent.
    #[serde(default)]
    pub id: Option<Uuid>,
    /// What it may hold.
    #[serde(default)]
    pub kind: CollectionKind,
    /// Its first members, by name or identifier.
    #[serde(default)]
    pub members: Vec<String>,
}

/// A change of a collection. Everything named is looked up before anything is
/// changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CollectionChange {
    /// A new name.
    #[serde(default)]
    pub name: Option<String>,
    /// Members to be added, by name or identifier.
    #[serde(default)]
    pub add: Vec<String>,
    /// Members to be removed, by name or identifier.
    #[serde(default)]
    pub remove: Vec<String>,
}

same_variants!(
    CollectionKind = model::CollectionKind {
        Machines,
        Collections
    }
);
