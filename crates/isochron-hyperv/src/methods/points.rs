//! Msvm_CollectionReferencePointService: remembers instants of collections, exports
//! them and what changed since, and forgets them. What is started goes on in a job
//! (4096); what is refused leaves a job that failed before it began.

use isochron_cim::{CimError, ObjectPath, Outcome};
use isochron_engine::model::{JobKind, ReferencePointId};
use isochron_engine::{
    CreateReferencePoint, EngineError, ErrorKind, ExportStarted, Exports, PointStarted,
};

use super::{Call, exports, invalid};
use crate::codes::ServiceReturn;
use crate::export_settings::ExportSettings;
use crate::object::{class, export_job_path, job_path, point_collection_path};
use crate::settings::PointSettings;

/// Calls a method; `None` if there is none of that name.
pub(super) async fn invoke(call: &Call<'_>, method: &str) -> Result<Option<Outcome>, CimError> {
    let (kind, started) = match method {
        "CreateReferencePoint" => {
            return Ok(Some(match create(call).await {
                Ok((path, started)) => begun(call, path, started),
                Err(error) => call.refuse(JobKind::CreateReferencePoint, &error).await?,
            }));
        }
        "ExportReferencePoint" => {
            return Ok(Some(match export(call).await {
                Ok(started) => {
                    let job = call.path(export_job_path(started.job));
                    call.reply(ServiceReturn::JobStarted, [("Job", job)])
                }
                Err(error) => call.refuse(JobKind::ExportReferencePoint, &error).await?,
            }));
        }
        "DestroyReferencePoint" => (JobKind::DestroyReferencePoint, destroy(call).await),
        "RemoveAssociatedData" => (JobKind::RemoveReferencePointData, remove(call).await),
        _ => return Ok(None),
    };
    Ok(Some(match started {
        Ok(started) => {
            let job = call.path(job_path(started.job));
            call.reply(ServiceReturn::JobStarted, [("Job", job)])
        }
        Err(error) => call.refuse(kind, &error).await?,
    }))
}

/// The reply that a reference point of this path is on its way.
pub(super) fn begun(call: &Call<'_>, path: ObjectPath, started: PointStarted) -> Outcome {
    call.reply(
        ServiceReturn::JobStarted,
        [
            ("ResultingReferencePointCollection", call.path(path)),
            ("Job", call.path(job_path(started.job))),
        ],
    )
}

/// Checks ReferencePointType, of which `log` is what is based on logs.
pub(super) fn check_type(call: &Call<'_>, log: u64, tracked: u64) -> Result<(), EngineError> {
    match call.number("ReferencePointType") {
        Some(given) if given == tracked => Ok(()),
        Some(given) if given == log => Err(EngineError::new(
            ErrorKind::NotSupported,
            format!(
                "ReferencePointType {log} (log based) is not supported: no log of writes is kept, \
                 what changed is told from the disks' layers, which is {tracked} (RCT based)"
            ),
        )),
        Some(vendor @ 32768..) => Err(EngineError::new(
            ErrorKind::NotSupported,
            format!("ReferencePointType {vendor} is a vendor's; {tracked} (RCT based) is known"),
        )),
        Some(other) => Err(EngineError::new(
            ErrorKind::InvalidType,
            format!(
                "ReferencePointType {other} is no type of reference point; {tracked} is RCT based"
            ),
        )),
        None => Err(invalid(format!(
            "ReferencePointType is missing; {tracked} is RCT based"
        ))),
    }
}

async fn create(call: &Call<'_>) -> Result<(ObjectPath, PointStarted), EngineError> {
    check_type(call, 1, 2)?;
    let collection = call.collection("Collection").await?.id;
    let settings = PointSettings::read(
        call.value("ReferencePointSettings"),
        "Msvm_CollectionReferencePointSettingData",
        &call.provider.decode,
    )?;
    let request = CreateReferencePoint {
        collection,
        id: wanted(call)?,
        name: settings.name,
        consistency: settings.consistency,
        ignore_excluded_disks: false,
        owner: call.owner.clone(),
    };
    let started = call.engine.create_reference_point(request).await?;
    Ok((point_collection_path(started.point, collection), started))
}

/// The identifier that the caller names the new reference point by.
pub(super) fn wanted(call: &Call<'_>) -> Result<Option<ReferencePointId>, EngineError> {
    let name = "ResultingReferencePointCollection";
    let Some(reference) = call.reference(name) else {
        return Ok(None);
    };
    let path = call.provider.complete(call.space, name, reference)?;
    if !path.class.is(class::POINT_COLLECTION) {
        return Err(invalid(format!(
            "{name} names a {}, not a reference point collection",
            path.class
        )));
    }
    let id = path.key_str("CollectionID").unwrap_or_default();
    let id = id.parse().map_err(|_| {
        invalid(format!(
            "{name}: the CollectionID {id:?} of the new reference point is no GUID"
        ))
    })?;
    Ok(Some(id))
}

async fn export(call: &Call<'_>) -> Result<ExportStarted, EngineError> {
    let point = call.point("ReferencePointCollection").await?;
    let settings =
        ExportSettings::of_point(call.value("ExportSettingData"), &call.provider.decode)?;
    exports::start(call, Exports::Point(point.id), Some(&point), settings).await
}

async fn destroy(call: &Call<'_>) -> Result<PointStarted, EngineError> {
    let point = call.point("AffectedReferencePointCollection").await?;
    let owner = call.owner.clone();
    call.engine.destroy_reference_point(point.id, owner).await
}

async fn remove(call: &Call<'_>) -> Result<PointStarted, EngineError> {
    let point = call.point("AffectedReferencePointCollection").await?;
    let owner = call.owner.clone();
    call.engine
        .remove_reference_point_data(point.id, owner)
        .await
}
