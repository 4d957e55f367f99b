//! Exports of snapshots and reference points.

use std::path::Path;

use axum::response::IntoResponse;
use isochron_engine::{
    Engine, EngineError, ErrorKind, ExportBase, ExportDisks, ExportRequest, ExportStarted, Exports,
};

use super::{Asked, Body, Named, Owner, Refusal, accepted, to_end};
use crate::ApiError;
use crate::dto::{ExportIntent, Job, NewExport};

/// Exports a snapshot into a directory, in full or as what changed since another.
///
/// Everything that can be checked without reading disks is checked before the answer.
#[utoipa::path(post, path = "/v1/snapshots/{snapshot}/export", operation_id = "export_snapshot",
    tag = "snapshots",
    params(("snapshot" = String, Path, description = "Identifier, or a name that only one has")),
    request_body = NewExport,
    responses((status = 202, description = "The job", body = Job), Refusal))]
pub(super) async fn snapshot(
    Asked(engine): Asked,
    Owner(owner): Owner,
    Named(snapshot): Named<String>,
    Body(new): Body<NewExport>,
) -> Result<impl IntoResponse, ApiError> {
    let started = to_end({
        let engine = engine.clone();
        async move {
            let snapshot = engine.find_snapshot(&snapshot).await?;
            export(&engine, Exports::Snapshot(snapshot.id), new, owner).await
        }
    })
    .await?;
    accepted(&engine, started.job).await
}

/// Exports a reference point that keeps its data, in full or as what changed since
/// another.
#[utoipa::path(post, path = "/v1/refpoints/{refpoint}/export",
    operation_id = "export_reference_point", tag = "reference points",
    params(("refpoint" = String, Path, description = "Identifier, or a name that only one has")),
    request_body = NewExport,
    responses((status = 202, description = "The job", body = Job), Refusal))]
pub(super) async fn reference_point(
    Asked(engine): Asked,
    Owner(owner): Owner,
    Named(point): Named<String>,
    Body(new): Body<NewExport>,
) -> Result<impl IntoResponse, ApiError> {
    let started = to_end({
        let engine = engine.clone();
        async move {
            let point = engine.find_reference_point(&point).await?;
            export(&engine, Exports::Point(point.id), new, owner).await
        }
    })
    .await?;
    accepted(&engine, started.job).await
}

async fn export(
    engine: &Engine,
    what: Exports,
    new: NewExport,
    owner: Option<String>,
) -> Result<ExportStarted, EngineError> {
    let base = match new.base {
        Some(text) => Some(base(engine, &text).await?),
        None => None,
    };
    let disks = match new.disks {
        Some(choice) => {
            let mut disks = Vec::with_capacity(choice.len());
            for choice in choice {
                disks.push(ExportDisks {
                    machine: engine.find_machine(&choice.vm).await?.id,
                    disks: choice.disks,
                });
            }
            Some(disks)
        }
        None => None,
    };
    let request = ExportRequest {
        what,
        directory: new.directory,
        base,
        merge: new.intent == ExportIntent::Merge,
        copy_storage: new.storage,
        limit: new.limit,
        disks,
        require_difference: new.require_difference,
        owner,
    };
    engine.export(request).await
}

/// A directory where the text is an absolute path; a snapshot or a reference point
/// otherwise.
async fn base(engine: &Engine, text: &str) -> Result<ExportBase, EngineError> {
    if Path::new(text).is_absolute() {
        return Ok(ExportBase::Directory(text.into()));
    }
    let snapshot = there(engine.find_snapshot(text).await)?;
    let point = there(engine.find_reference_point(text).await)?;
    match (snapshot, point) {
        (Some(snapshot), None) => Ok(ExportBase::Snapshot(snapshot.id)),
        (None, Some(point)) => Ok(ExportBase::Point(point.id)),
        (Some(_), Some(_)) => Err(EngineError::new(
            ErrorKind::InvalidParameter,
            format!(
                "a snapshot and a reference point are named {text}; name one by its identifier"
            ),
        )),
        (None, None) => Err(EngineError::new(
            ErrorKind::NotFound,
            format!(
                "there is no snapshot and no reference point {text}; the directory of an export \
                 is an absolute path"
            ),
        )),
    }
}

/// What is found, if anything is.
fn there<T>(found: Result<T, EngineError>) -> Result<Option<T>, EngineError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
