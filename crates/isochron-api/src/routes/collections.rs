//! `/v1/collections`

use axum::Json;
use http::StatusCode;
use isochron_engine::model::{self, CollectionId, MachineId};
use isochron_engine::{Engine, EngineError, ErrorKind};

use super::{Asked, Body, Named, Refusal, to_end};
use crate::ApiError;
use crate::dto::{Collection, CollectionChange, Member, NewCollection};

/// All collections.
#[utoipa::path(get, path = "/v1/collections", operation_id = "list_collections",
    tag = "collections",
    responses((status = 200, description = "Collections", body = [Collection]), Refusal))]
pub(super) async fn list(Asked(engine): Asked) -> Result<Json<Vec<Collection>>, ApiError> {
    let mut all = Vec::new();
    for collection in engine.collections().await? {
        all.push(described(&engine, collection).await?);
    }
    Ok(Json(all))
}

/// Creates a collection with its first members.
#[utoipa::path(post, path = "/v1/collections", operation_id = "create_collection",
    tag = "collections", request_body = NewCollection,
    responses((status = 201, description = "The collection", body = Collection), Refusal))]
pub(super) async fn create(
    Asked(engine): Asked,
    Body(new): Body<NewCollection>,
) -> Result<(StatusCode, Json<Collection>), ApiError> {
    let collection = to_end(async move {
        let kind = new.kind.into();
        let members = find_members(&engine, kind, &new.members).await?;
        let id = new.id.map(CollectionId);
        let collection = engine.create_collection(&new.name, id, kind).await?;
        if let Err(error) = add(&engine, &collection, &members).await {
            engine.destroy_collection(collection.id).await?;
            return Err(error);
        }
        described(&engine, engine.collection(collection.id).await?).await
    })
    .await?;
    Ok((StatusCode::CREATED, Json(collection)))
}

/// A collection.
#[utoipa::path(get, path = "/v1/collections/{collection}", operation_id = "show_collection",
    tag = "collections", params(("collection" = String, Path, description = "Name or identifier")),
    responses((status = 200, description = "The collection", body = Collection), Refusal))]
pub(super) async fn show(
    Asked(engine): Asked,
    Named(collection): Named<String>,
) -> Result<Json<Collection>, ApiError> {
    let collection = engine.find_collection(&collection).await?;
    Ok(Json(described(&engine, collection).await?))
}

/// Adds members, removes members, renames, in this order; the first refusal ends
/// it.
#[utoipa::path(patch, path = "/v1/collections/{collection}", operation_id = "change_collection",
    tag = "collections", params(("collection" = String, Path, description = "Name or identifier")),
    request_body = CollectionChange,
    responses((status = 200, description = "The collection", body = Collection), Refusal))]
pub(super) async fn change(
    Asked(engine): Asked,
    Named(collection): Named<String>,
    Body(change): Body<CollectionChange>,
) -> Result<Json<Collection>, ApiError> {
    let collection = to_end(async move {
        let collection = engine.find_collection(&collection).await?;
        let added = find_members(&engine, collection.kind, &change.add).await?;
        let removed = find_members(&engine, collection.kind, &change.remove).await?;
        for (member, text) in removed.iter().zip(&change.remove) {
            if !member.is_in(&collection) {
                return Err(EngineError::new(
                    ErrorKind::NotFound,
                    format!(
                        "\"{text}\" is no member of the collection \"{}\"",
                        collection.name
                    ),
                ));
            }
        }
        add(&engine, &collection, &added).await?;
        for member in &removed {
            member.remove_from(&engine, collection.id).await?;
        }
        if let Some(name) = &change.name {
            engine.rename_collection(collection.id, name).await?;
        }
        described(&engine, engine.collection(collection.id).await?).await
    })
    .await?;
    Ok(Json(collection))
}

/// Destroys a collection. Its machines stay.
#[utoipa::path(delete, path = "/v1/collections/{collection}", operation_id = "destroy_collection",
    tag = "collections", params(("collection" = String, Path, description = "Name or identifier")),
    responses((status = 204, description = "Destroyed"), Refusal))]
pub(super) async fn remove(
    Asked(engine): Asked,
    Named(collection): Named<String>,
) -> Result<StatusCode, ApiError> {
    to_end(async move {
        let collection = engine.find_collection(&collection).await?;
        engine.destroy_collection(collection.id).await
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A member of a collection, found.
#[derive(Clone, Copy)]
enum Found {
    Machine(MachineId),
    Collection(CollectionId),
}

impl Found {
    fn is_in(self, collection: &model::Collection) -> bool {
        match self {
            Self::Machine(id) => collection.machines.contains(&id),
            Self::Collection(id) => collection.collections.contains(&id),
        }
    }

    async fn add_to(self, engine: &Engine, to: CollectionId) -> Result<(), EngineError> {
        match self {
            Self::Machine(id) => engine.add_machine(to, id).await,
            Self::Collection(id) => engine.add_collection(to, id).await,
        }
    }

    async fn remove_from(self, engine: &Engine, from: CollectionId) -> Result<(), EngineError> {
        match self {
            Self::Machine(id) => engine.remove_machine(from, id).await,
            Self::Collection(id) => engine.remove_collection(from, id).await,
        }
    }
}

/// Looks all of them up, machines or collections as the collection's kind says.
async fn find_members(
    engine: &Engine,
    kind: model::CollectionKind,
    names: &[String],
) -> Result<Vec<Found>, EngineError> {
    let mut found = Vec::with_capacity(names.len());
    for name in names {
        found.push(match kind {
            model::CollectionKind::Machines => Found::Machine(engine.find_machine(name).await?.id),
            model::CollectionKind::Collections => {
                Found::Collection(engine.find_collection(name).await?.id)
            }
        });
    }
    Ok(found)
}

/// Adds all of them or none.
async fn add(
    engine: &Engine,
    to: &model::Collection,
    members: &[Found],
) -> Result<(), EngineError> {
    let mut added = Vec::new();
    for member in members.iter().filter(|member| !member.is_in(to)) {
        if let Err(error) = member.add_to(engine, to.id).await {
            for member in added {
                Found::remove_from(member, engine, to.id).await?;
            }
            return Err(error);
        }
        added.push(*member);
    }
    Ok(())
}

/// A collection with its members' names. A member that was forgotten meanwhile
/// is left out.
async fn described(
    engine: &Engine,
    collection: model::Collection,
) -> Result<Collection, EngineError> {
    let mut members = Vec::new();
    for &id in &collection.machines {
        if let Some(machine) = present(engine.machine(id).await)? {
            members.push(Member {
                id: id.0,
                name: machine.name,
            });
        }
    }
    for &id in &collection.collections {
        if let Some(member) = present(engine.collection(id).await)? {
            members.push(Member {
                id: id.0,
                name: member.name,
            });
        }
    }
    Ok(Collection {
        id: collection.id.0,
        name: collection.name,
        kind: collection.kind.into(),
        members,
        current: collection.current.map(|id| id.0),
        created_at: collection.created_at,
    })
}

/// `None` for what is not there.
fn present<T>(found: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match found {
        Ok(thing) => Ok(Some(thing)),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
