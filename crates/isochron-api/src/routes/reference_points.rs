//! `/v1/refpoints`, and the snapshots that become reference points.

use axum::Json;
use axum::response::IntoResponse;
use isochron_engine::CreateReferencePoint;
use isochron_engine::model::ReferencePointId;
use serde::Deserialize;
use utoipa::IntoParams;

use super::snapshots::find;
use super::{Asked, Body, Named, Owner, Query, Refusal, accepted, to_end};
use crate::ApiError;
use crate::dto::{ConvertSnapshot, Job, NewReferencePoint, ReferencePoint};

/// Which reference points to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    /// Only this collection's, by name or identifier; or this single machine's.
    collection: Option<String>,
}

/// All reference points, or one collection's, oldest first.
#[utoipa::path(get, path = "/v1/refpoints", operation_id = "list_reference_points",
    tag = "reference points", params(Which),
    responses((status = 200, description = "Reference points", body = [ReferencePoint]), Refusal))]
pub(super) async fn list(
    Asked(engine): Asked,
    Query(which): Query<Which>,
) -> Result<Json<Vec<ReferencePoint>>, ApiError> {
    let collection = match which.collection {
        Some(text) => Some(find(&engine, &text).await?),
        None => None,
    };
    let points = engine.reference_points(collection).await?;
    Ok(Json(points.into_iter().map(Into::into).collect()))
}

/// Makes a reference point of now, which keeps its data until it is told to forget it.
///
/// Everything that can be checked is checked before the answer; the job's `point_id`
/// is the reference point to be.
#[utoipa::path(post, path = "/v1/refpoints", operation_id = "create_reference_point",
    tag = "reference points", request_body = NewReferencePoint,
    responses((status = 202, description = "The job", body = Job), Refusal))]
pub(super) async fn create(
    Asked(engine): Asked,
    Owner(owner): Owner,
    Body(new): Body<NewReferencePoint>,
) -> Result<impl IntoResponse, ApiError> {
    let started = to_end({
        let engine = engine.clone();
        async move {
            let collection = find(&engine, &new.collection).await?;
            let request = CreateReferencePoint {
                collection,
                id: new.id.map(ReferencePointId),
                name: new.name,
                consistency: new.consistency.map(Into::into),
                ignore_excluded_disks: new.ignore_excluded_disks,
                owner,
            };
            engine.create_reference_point(request).await
        }
    })
    .await?;
    accepted(&engine, started.job).await
}

/// A reference point, with the evidence for its instant.
#[utoipa::path(get, path = "/v1/refpoints/{refpoint}", operation_id = "show_reference_point",
    tag = "reference points",
    params(("refpoint" = String, Path, description = "Identifier, or a name that only one has")),
    responses((status = 200, description = "The reference point", body = ReferencePoint), Refusal))]
pub(super) async fn show(
    Asked(engine): Asked,
    Named(point): Named<String>,
) -> Result<Json<ReferencePoint>, ApiError> {
    Ok(Json(engine.find_reference_point(&point).await?.into()))
}

/// Destroys a reference point: merges its layers while guests run and frees the space.
#[utoipa::path(delete, path = "/v1/refpoints/{refpoint}",
    operation_id = "destroy_reference_point", tag = "reference points",
    params(("refpoint" = String, Path, description = "Identifier, or a name that only one has")),
    responses((status = 202, description = "The job", body = Job), Refusal))]
pub(super) async fn destroy(
    Asked(engine): Asked,
    Owner(owner): Owner,
    Named(point): Named<String>,
) -> Result<impl IntoResponse, ApiError> {
    let started = to_end({
        let engine = engine.clone();
        async move {
            let point = engine.find_reference_point(&point).await?;
            engine.destroy_reference_point(point.id, owner).await
        }
    })
    .await?;
    accepted(&engine, started.job).await
}

/// Removes what a reference point keeps: it stays as the base of differences, and
/// cannot be exported any more.
#[utoipa::path(delete, path = "/v1/refpoints/{refpoint}/data",
    operation_id = "forget_reference_point_data", tag = "reference points",
    params(("refpoint" = String, Path, description = "Identifier, or a name that only one has")),
    responses((status = 202, description = "The job", body = Job), Refusal))]
pub(super) async fn forget_data(
    Asked(engine): Asked,
    Owner(owner): Owner,
    Named(point): Named<String>,
) -> Result<impl IntoResponse, ApiError> {
    let started = to_end({
        let engine = engine.clone();
        async move {
            let point = engine.find_reference_point(&point).await?;
            engine.remove_reference_point_data(point.id, owner).await
        }
    })
    .await?;
    accepted(&engine, started.job).await
}

/// Turns a recovery snapshot into a reference point.
///
/// The snapshot is gone when the job starts, and its layers are merged while guests
/// run; the job's `point_id` is the reference point.
#[utoipa::path(post, path = "/v1/snapshots/{snapshot}/convert", operation_id = "convert_snapshot",
    tag = "reference points",
    params(("snapshot" = String, Path, description = "Identifier, or a name that only one has")),
    request_body = ConvertSnapshot,
    responses((status = 202, description = "The job", body = Job), Refusal))]
pub(super) async fn convert(
    Asked(engine): Asked,
    Owner(owner): Owner,
    Named(snapshot): Named<String>,
    Body(convert): Body<ConvertSnapshot>,
) -> Result<impl IntoResponse, ApiError> {
    let started = to_end({
        let engine = engine.clone();
        async move {
            let snapshot = engine.find_snapshot(&snapshot).await?;
            let point = convert.id.map(ReferencePointId);
            engine.convert_snapshot(snapshot.id, point, owner).await
        }
    })
    .await?;
    accepted(&engine, started.job).await
}
