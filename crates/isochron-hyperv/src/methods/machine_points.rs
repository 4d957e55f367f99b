//! Msvm_VirtualSystemReferencePointService: reference points of single machines, by
//! the engine that keeps those of collections: a machine is a collection of one.
//!
//! A machine's part of a collection's reference point is read as one of its own, but
//! is not exported or destroyed: the collection's has all its members or none. Its
//! methods but the first answer in another family than the collection's service.

use isochron_cim::{CimError, ObjectPath, Outcome};
use isochron_engine::model::{JobKind, MachineId, ReferencePointId};
use isochron_engine::{
    CreateReferencePoint, EngineError, ErrorKind, ExportStarted, Exports, PointStarted,
};

use super::points::check_type;
use super::{Call, exports, invalid};
use crate::codes::{ManagementReturn, ServiceReturn};
use crate::export_settings::ExportSettings;
use crate::object::{Object, PointPart, class, job_path, point_path, settings_uuid};
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
        "ExportReferencePoint" => (
            JobKind::ExportReferencePoint,
            export(call).await.map(|started| started.job),
        ),
        "DestroyReferencePoint" => (
            JobKind::DestroyReferencePoint,
            destroy(call).await.map(|started| started.job),
        ),
        "RemoveAssociatedData" => (
            JobKind::RemoveReferencePointData,
            remove(call).await.map(|started| started.job),
        ),
        "ImportReferencePointMetadata" => {
            let message = "reference points are told of by what they are of; none is imported";
            let error = EngineError::new(ErrorKind::NotSupported, message);
            (JobKind::CreateReferencePoint, Err(error))
        }
        _ => return Ok(None),
    };
    Ok(Some(match started {
        Ok(job) => {
            let job = call.path(job_path(job));
            call.reply(ManagementReturn::JobStarted, [("Job", job)])
        }
        Err(error) => {
            let code = ManagementReturn::from(error.kind);
            call.refuse_as(kind, &error, code).await?
        }
    }))
}

/// The reply that a machine's reference point of this path is on its way.
pub(super) fn begun(call: &Call<'_>, path: ObjectPath, started: PointStarted) -> Outcome {
    call.reply(
        ServiceReturn::JobStarted,
        [
            ("ResultingReferencePoint", call.path(path)),
            ("Job", call.path(job_path(started.job))),
        ],
    )
}

/// How to make it, of the call's ReferencePointSettings.
pub(super) fn settings(call: &Call<'_>) -> Result<PointSettings, EngineError> {
    PointSettings::read(
        call.value("ReferencePointSettings"),
        "Msvm_VirtualSystemReferencePointSettingData",
        &call.provider.decode,
    )
}

async fn create(call: &Call<'_>) -> Result<(ObjectPath, PointStarted), EngineError> {
    // Otherwise than the collection's service: 0 log based, 1 RCT based.
    check_type(call, 0, 1)?;
    let machine = call.machine("AffectedSystem").await?;
    let settings = settings(call)?;
    let request = CreateReferencePoint {
        collection: machine.id.into(),
        id: wanted(call, machine.id)?,
        name: settings.name,
        consistency: settings.consistency,
        ignore_excluded_disks: false,
        owner: call.owner.clone(),
    };
    let started = call.engine.create_reference_point(request).await?;
    Ok((point_path(started.point, machine.id), started))
}

/// The identifier that the caller names the new reference point by.
pub(super) fn wanted(
    call: &Call<'_>,
    machine: MachineId,
) -> Result<Option<ReferencePointId>, EngineError> {
    let name = "ResultingReferencePoint";
    let Some(reference) = call.reference(name) else {
        return Ok(None);
    };
    let path = call.provider.complete(call.space, name, reference)?;
    let key = |key| path.key_str(key).unwrap_or_default();
    let id = settings_uuid(key("InstanceID")).filter(|_| path.class.is(class::POINT));
    let id = id.ok_or_else(|| {
        invalid(format!(
            "{name} is no path of a new {}, whose InstanceID is Microsoft: and a GUID",
            class::POINT
        ))
    })?;
    if !key("VirtualSystemIdentifier").eq_ignore_ascii_case(&machine.to_string()) {
        return Err(invalid(format!(
            "{name} names another virtual machine than the one that it is to be of"
        )));
    }
    Ok(Some(ReferencePointId(id)))
}

/// The reference point of a single machine that a reference names.
async fn single(call: &Call<'_>, name: &str) -> Result<PointPart, EngineError> {
    match call.object(name).await? {
        Object::Point(part) if part.point.of_machine().is_some() => Ok(part),
        Object::Point(part) => Err(EngineError::new(
            ErrorKind::InvalidState,
            format!(
                "{name} is part of the reference point {} of the collection {}, which has all its \
                 members or none: Msvm_CollectionReferencePointService is for it",
                part.point.name, part.point.collection_name
            ),
        )),
        other => Err(invalid(format!(
            "{name} names a {}, not a reference point",
            other.class()
        ))),
    }
}

async fn export(call: &Call<'_>) -> Result<ExportStarted, EngineError> {
    let part = single(call, "ReferencePoint").await?;
    let settings = ExportSettings::of_single_point(
        call.value("ExportSettingData"),
        &call.provider.decode,
        &part.record().machine.to_string(),
    )?;
    let what = Exports::Point(part.point.id);
    exports::start(call, what, Some(&part.point), settings).await
}

async fn destroy(call: &Call<'_>) -> Result<PointStarted, EngineError> {
    let id = single(call, "AffectedReferencePoint").await?.point.id;
    let owner = call.owner.clone();
    call.engine.destroy_reference_point(id, owner).await
}

async fn remove(call: &Call<'_>) -> Result<PointStarted, EngineError> {
    let id = single(call, "AffectedReferencePoint").await?.point.id;
    let owner = call.owner.clone();
    call.engine.remove_reference_point_data(id, owner).await
}
