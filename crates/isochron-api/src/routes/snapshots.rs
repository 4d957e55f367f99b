//! `/v1/snapshots`

use std::collections::HashSet;

use axum::Json;
use axum::response::IntoResponse;
use isochron_engine::model::{CollectionId, SnapshotId};
use isochron_engine::{CreateSnapshot, Engine, EngineError};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Asked, Body, Named, Owner, Query, Refusal, accepted, to_end};
use crate::ApiError;
use crate::dto::{Job, NewSnapshot, Snapshot};

/// Which snapshots to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only this collection's, by name or identifier; or this single machine's.
    collection: Option<String>,
}

/// All snapshots, or one collection's, oldest first.
#[utoipa::path(get, path = "/v1/snapshots", operation_id = "list_snapshots", tag = "snapshots",
    params(Which),
    responses((status = 200, description = "Snapshots", body = [Snapshot]), Refusal))]
pub(super) async fn list(
    Asked(engine): Asked,
    Query(which): Query<Which>,
) -> Result<Json<Vec<Snapshot>>, ApiError> {
    let collection = match which.collection {
        Some(text) => Some(find(&engine, &text).await?),
        None => None,
    };
    let current = currents(&engine).await?;
    let snapshots = engine.snapshots(collection).await?;
    Ok(Json(
        snapshots
            .into_iter()
            .map(|snapshot| {
                let is_current = current.contains(&snapshot.id);
                Snapshot::new(snapshot, is_current)
            })
            .collect(),
    ))
}

/// A collection, or the collection of one that a machine is, where no collection
/// has that name.
pub(super) async fn find(engine: &Engine, text: &str) -> Result<CollectionId, EngineError> {
    let missing = match engine.find_collection(text).await {
        Ok(collection) => return Ok(collection.id),
        Err(error) => error,
    };
    match engine.find_machine(text).await {
        Ok(machine) => Ok(machine.id.into()),
        Err(_) => Err(missing),
    }
}

/// Takes a snapshot of a collection, or of a single machine, at one instant.
///
/// Everything that can be checked is checked before the answer; the job's
/// `snapshot_id` is the snapshot to be.
#[utoipa::path(post, path = "/v1/snapshots", operation_id = "create_snapshot", tag = "snapshots",
    request_body = NewSnapshot,
    responses((status = 202, description = "The job", body = Job), Refusal))]
pub(super) async fn create(
    Asked(engine): Asked,
    Owner(owner): Owner,
    Body(new): Body<NewSnapshot>,
) -> Result<impl IntoResponse, ApiError> {
    let started = to_end({
        let engine = engine.clone();
        async move {
            let collection = find(&engine, &new.collection).await?;
            engine
                .create_snapshot(CreateSnapshot {
                    collection,
                    id: new.id.map(SnapshotId),
                    name: new.name,
                    kind: new.kind.into(),
                    consistency: new.consistency.map(Into::into),
                    ignore_excluded_disks: new.ignore_excluded_disks,
                    owner,
                })
                .await
        }
    })
    .await?;
    accepted(&engine, started.job).await
}

/// A snapshot, with the evidence for its instant.
#[utoipa::path(get, path = "/v1/snapshots/{snapshot}", operation_id = "show_snapshot",
    tag = "snapshots",
    params(("snapshot" = String, Path, description = "Identifier, or a name that only one has")),
    responses((status = 200, description = "The snapshot", body = Snapshot), Refusal))]
pub(super) async fn show(
    Asked(engine): Asked,
    Named(snapshot): Named<String>,
) -> Result<Json<Snapshot>, ApiError> {
    let snapshot = engine.find_snapshot(&snapshot).await?;
    let current = currents(&engine).await?.contains(&snapshot.id);
    Ok(Json(Snapshot::new(snapshot, current)))
}

/// Returns a whole collection to a snapshot.
#[utoipa::path(post, path = "/v1/snapshots/{snapshot}/apply", operation_id = "apply_snapshot",
    tag = "snapshots",
    params(("snapshot" = String, Path, description = "Identifier, or a name that only one has")),
    responses((status = 202, description = "The job", body = Job), Refusal))]
pub(super) async fn apply(
    Asked(engine): Asked,
    Owner(owner): Owner,
    Named(snapshot): Named<String>,
) -> Result<impl IntoResponse, ApiError> {
    let started = to_end({
        let engine = engine.clone();
        async move {
            let snapshot = engine.find_snapshot(&snapshot).await?;
            engine.apply_snapshot(snapshot.id, owner).await
        }
    })
    .await?;
    accepted(&engine, started.job).await
}

/// Destroys a snapshot: merges its layers while guests run and frees the space.
#[utoipa::path(delete, path = "/v1/snapshots/{snapshot}", operation_id = "destroy_snapshot",
    tag = "snapshots",
    params(("snapshot" = String, Path, description = "Identifier, or a name that only one has")),
    responses((status = 202, description = "The job", body = Job), Refusal))]
pub(super) async fn destroy(
    Asked(engine): Asked,
    Owner(owner): Owner,
    Named(snapshot): Named<String>,
) -> Result<impl IntoResponse, ApiError> {
    let started = to_end({
        let engine = engine.clone();
        async move {
            let snapshot = engine.find_snapshot(&snapshot).await?;
            engine.destroy_snapshot(snapshot.id, owner).await
        }
    })
    .await?;
    accepted(&engine, started.job).await
}

/// The snapshots on which collections stand.
async fn currents(engine: &Engine) -> Result<HashSet<SnapshotId>, ApiError> {
    Ok(engine
        .collections()
        .await?
        .into_iter()
        .filter_map(|c| c.current)
        .collect())
}
