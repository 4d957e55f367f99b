//! Msvm_CollectionSnapshotService: takes, applies, exports and destroys snapshots of
//! collections, and turns them into reference points. What is started goes on in a job (4096); what is refused leaves a
//! job that failed before it began, whose ErrorDescription says why.

use isochron_cim::{CimError, ObjectPath, Outcome};
use isochron_engine::model::{JobKind, SnapshotId, SnapshotKind};
use isochron_engine::{
    CreateSnapshot, EngineError, ErrorKind, ExportStarted, Exports, PointStarted, Started,
};

use super::{Call, exports, invalid, points};
use crate::codes::ServiceReturn;
use crate::export_settings::ExportSettings;
use crate::object::{class, job_path, point_collection_path, snapshot_path};
use crate::settings::SnapshotSettings;

/// Calls a method; `None` if there is none of that name.
pub(super) async fn invoke(call: &Call<'_>, method: &str) -> Result<Option<Outcome>, CimError> {
    Ok(Some(match method {
        "CreateSnapshot" => {
            let started = create(call).await;
            finish(call, JobKind::CreateSnapshot, started).await?
        }
        "ApplySnapshot" => {
            let started = apply(call).await;
            finish(call, JobKind::ApplySnapshot, started).await?
        }
        "DestroySnapshot" => {
            let started = destroy(call).await;
            finish(call, JobKind::DestroySnapshot, started).await?
        }
        "ExportSnapshot" => match export(call).await {
            Ok(started) => {
                let job = call.path(job_path(started.job));
                call.reply(ServiceReturn::JobStarted, [("Job", job)])
            }
            Err(error) => call.refuse(JobKind::ExportSnapshot, &error).await?,
        },
        "ConvertToReferencePoint" => match convert(call).await {
            Ok((path, started)) => points::begun(call, path, started),
            Err(error) => call.refuse(JobKind::ConvertSnapshot, &error).await?,
        },
        _ => return Ok(None),
    }))
}

/// What SnapshotType asks for. 32768 is what a single machine's snapshot service
/// calls a recovery snapshot, so its clients send it here too.
fn kind(snapshot_type: Option<u64>) -> Result<SnapshotKind, EngineError> {
    match snapshot_type {
        Some(1) => Ok(SnapshotKind::Standard),
        Some(2 | 32768) => Ok(SnapshotKind::Recovery),
        Some(vendor @ 32769..) => Err(EngineError::new(
            ErrorKind::NotSupported,
            format!("SnapshotType {vendor} is a vendor's; 1 (standard) and 2 (recovery) are known"),
        )),
        Some(other) => Err(EngineError::new(
            ErrorKind::InvalidType,
            format!("SnapshotType {other} is no type of snapshot; 1 is standard, 2 is recovery"),
        )),
        None => Err(invalid(
            "SnapshotType is missing; 1 is standard, 2 is recovery",
        )),
    }
}

async fn create(call: &Call<'_>) -> Result<Started, EngineError> {
    let kind = kind(call.number("SnapshotType"))?;
    let collection = call.collection("Collection").await?.id;
    let settings = SnapshotSettings::read(call.value("SnapshotSettings"), &call.provider.decode)?;
    let request = CreateSnapshot {
        collection,
        id: wanted(call)?,
        name: settings.name,
        kind,
        consistency: settings.consistency,
        ignore_excluded_disks: settings.ignore_excluded_disks,
        owner: call.owner.clone(),
    };
    call.engine.create_snapshot(request).await
}

/// The identifier that the caller names the new snapshot collection by.
fn wanted(call: &Call<'_>) -> Result<Option<SnapshotId>, EngineError> {
    let name = "ResultingSnapshotCollection";
    let Some(reference) = call.reference(name) else {
        return Ok(None);
    };
    let path = call.provider.complete(call.space, name, reference)?;
    if !path.class.is(class::SNAPSHOT_COLLECTION) {
        return Err(invalid(format!(
            "{name} names a {}, not a snapshot collection",
            path.class
        )));
    }
    let id = path.key_str("CollectionID").unwrap_or_default();
    let id = id.parse().map_err(|_| {
        invalid(format!(
            "{name}: the CollectionID {id:?} of the new snapshot is no GUID"
        ))
    })?;
    Ok(Some(id))
}

async fn apply(call: &Call<'_>) -> Result<Started, EngineError> {
    let snapshot = call.snapshot("SnapshotCollection").await?;
    call.engine
        .apply_snapshot(snapshot.id, call.owner.clone())
        .await
}

async fn destroy(call: &Call<'_>) -> Result<Started, EngineError> {
    let snapshot = call.snapshot("AffectedSnapshotCollection").await?;
    call.engine
        .destroy_snapshot(snapshot.id, call.owner.clone())
        .await
}

async fn export(call: &Call<'_>) -> Result<ExportStarted, EngineError> {
    let snapshot = call.snapshot("SnapshotCollection").await?;
    let settings = call.value("ExportSettingData");
    let settings = ExportSettings::of_snapshot(settings, &call.provider.decode)?;
    exports::start(call, Exports::Snapshot(snapshot.id), None, settings).await
}

async fn convert(call: &Call<'_>) -> Result<(ObjectPath, PointStarted), EngineError> {
    let snapshot = call.snapshot("AffectedSnapshotCollection").await?;
    let (id, owner) = (points::wanted(call)?, call.owner.clone());
    let started = call.engine.convert_snapshot(snapshot.id, id, owner).await?;
    let path = point_collection_path(started.point, snapshot.collection);
    Ok((path, started))
}

/// The reply: a job either way, and for a new snapshot its path to be.
async fn finish(
    call: &Call<'_>,
    kind: JobKind,
    started: Result<Started, EngineError>,
) -> Result<Outcome, CimError> {
    match started {
        Ok(started) => Ok(call.reply(
            ServiceReturn::JobStarted,
            [
                (
                    "ResultingSnapshotCollection",
                    call.path(snapshot_path(started.snapshot)),
                ),
                ("Job", call.path(job_path(started.job))),
            ],
        )),
        Err(error) => call.refuse(kind, &error).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_told_apart_as_the_reference_says() {
        for (given, expected) in [
            (Some(1), Ok(SnapshotKind::Standard)),
            (Some(2), Ok(SnapshotKind::Recovery)),
            (Some(32768), Ok(SnapshotKind::Recovery)),
            (Some(0), Err(ServiceReturn::InvalidType)),
            (Some(3), Err(ServiceReturn::InvalidType)),
            (Some(32767), Err(ServiceReturn::InvalidType)),
            (Some(32769), Err(ServiceReturn::NotSupported)),
            (Some(65535), Err(ServiceReturn::NotSupported)),
            (None, Err(ServiceReturn::InvalidParameter)),
        ] {
            assert_eq!(
                kind(given).map_err(|error| ServiceReturn::from(error.kind)),
                expected,
                "{given:?}"
            );
        }
    }
}
