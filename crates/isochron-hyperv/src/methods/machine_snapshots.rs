//! Msvm_VirtualSystemSnapshotService: snapshots of single machines, by the engine
//! that takes those of collections: a machine is a collection of one.
//!
//! A machine's part of a collection's snapshot can be applied to that machine, but
//! not destroyed, cleared or converted: the collection's snapshot has all its members.

use isochron_cim::{CimError, ObjectPath, Outcome};
use isochron_engine::model::{JobKind, SnapshotId, SnapshotKind};
use isochron_engine::{CreateSnapshot, EngineError, ErrorKind, PointStarted, Started};

use super::{Call, invalid, machine_points};
use crate::codes::{ManagementReturn, ServiceReturn};
use crate::object::{Member, Object, class, job_path, point_path, settings_uuid, single_path};
use crate::settings::SnapshotSettings;

/// Calls a method; `None` if there is none of that name.
pub(super) async fn invoke(call: &Call<'_>, method: &str) -> Result<Option<Outcome>, CimError> {
    Ok(Some(match method {
        "CreateSnapshot" => match create(call).await {
            Ok(started) => call.reply(
                ServiceReturn::JobStarted,
                [
                    (
                        "ResultingSnapshot",
                        call.path(single_path(started.snapshot)),
                    ),
                    ("Job", call.path(job_path(started.job))),
                ],
            ),
            Err(error) => call.refuse(JobKind::CreateSnapshot, &error).await?,
        },
        "ApplySnapshot" => match apply(call).await {
            Ok(started) => begun(call, started, ServiceReturn::JobStarted),
            Err(error) => call.refuse(JobKind::ApplySnapshot, &error).await?,
        },
        "DestroySnapshot" => match destroy(call, "AffectedSnapshot", false).await {
            Ok(started) => begun(call, started, ServiceReturn::JobStarted),
            Err(error) => call.refuse(JobKind::DestroySnapshot, &error).await?,
        },
        "DestroySnapshotTree" => match destroy(call, "SnapshotSettingData", true).await {
            Ok(started) => begun(call, started, ManagementReturn::JobStarted),
            Err(error) => refuse(call, &error).await?,
        },
        "ClearSnapshotState" => match clear(call).await {
            Ok(()) => call.reply(ManagementReturn::Completed, []),
            Err(error) => refuse(call, &error).await?,
        },
        "ConvertToReferencePoint" => match convert(call).await {
            Ok((path, started)) => machine_points::begun(call, path, started),
            Err(error) => call.refuse(JobKind::ConvertSnapshot, &error).await?,
        },
        _ => return Ok(None),
    }))
}

fn begun(call: &Call<'_>, started: Started, code: impl Into<u32>) -> Outcome {
    call.reply(code, [("Job", call.path(job_path(started.job)))])
}

/// A refusal of the methods that answer in the other family.
async fn refuse(call: &Call<'_>, error: &EngineError) -> Result<Outcome, CimError> {
    let code = ManagementReturn::from(error.kind);
    call.refuse_as(JobKind::DestroySnapshot, error, code).await
}

/// What SnapshotType asks for. Full and Disk are DMTF's, 32768 is Hyper-V's for a
/// snapshot that is for backup.
fn kind(snapshot_type: Option<u64>) -> Result<SnapshotKind, EngineError> {
    match snapshot_type {
        Some(2) => Ok(SnapshotKind::Standard),
        Some(3 | 32768) => Ok(SnapshotKind::Recovery),
        Some(vendor @ 32769..) => Err(EngineError::new(
            ErrorKind::NotSupported,
            format!(
                "SnapshotType {vendor} is not known; 2 (full), 3 (disk) and 32768 (recovery) are"
            ),
        )),
        Some(other) => Err(EngineError::new(
            ErrorKind::InvalidType,
            format!(
                "SnapshotType {other} is no type of snapshot; 2 is full, 3 disk, 32768 recovery"
            ),
        )),
        None => Err(invalid(
            "SnapshotType is missing; 2 is full, 3 disk, 32768 recovery",
        )),
    }
}

async fn create(call: &Call<'_>) -> Result<Started, EngineError> {
    let kind = kind(call.number("SnapshotType"))?;
    let machine = call.machine("AffectedSystem").await?;
    let settings = SnapshotSettings::read(call.value("SnapshotSettings"), &call.provider.decode)?;
    let request = CreateSnapshot {
        collection: machine.id.into(),
        id: wanted(call)?,
        name: settings.name,
        kind,
        consistency: settings.consistency,
        ignore_excluded_disks: settings.ignore_excluded_disks,
        owner: call.owner.clone(),
    };
    call.engine.create_snapshot(request).await
}

/// The identifier that the caller names the new snapshot by.
fn wanted(call: &Call<'_>) -> Result<Option<SnapshotId>, EngineError> {
    let name = "ResultingSnapshot";
    let Some(reference) = call.reference(name) else {
        return Ok(None);
    };
    let path = call.provider.complete(call.space, name, reference)?;
    if !path.class.is(class::SETTINGS) {
        return Err(invalid(format!(
            "{name} names a {}, not a {}",
            path.class,
            class::SETTINGS
        )));
    }
    let id = path.key_str("InstanceID").unwrap_or_default();
    let id = settings_uuid(id).ok_or_else(|| {
        invalid(format!(
            "{name}: the InstanceID {id:?} of the new snapshot is not Microsoft: and a GUID"
        ))
    })?;
    Ok(Some(SnapshotId(id)))
}

/// The snapshot of a machine that a reference names.
async fn snapshot(call: &Call<'_>, name: &str) -> Result<Member, EngineError> {
    match call.object(name).await? {
        Object::MemberSettings(member) => Ok(member),
        Object::MachineSettings(machine) => Err(invalid(format!(
            "{name} names the settings in force of {}, not a snapshot",
            machine.name
        ))),
        other => Err(invalid(format!(
            "{name} names a {}, not a snapshot",
            other.class()
        ))),
    }
}

/// The same, if it is the snapshot of a single machine.
async fn single(call: &Call<'_>, name: &str) -> Result<SnapshotId, EngineError> {
    let whole = snapshot(call, name).await?.snapshot;
    match whole.of_machine() {
        Some(_) => Ok(whole.id),
        None => Err(EngineError::new(
            ErrorKind::InvalidState,
            format!(
                "{name} is part of the snapshot {} of the collection {}, which has all its \
                 members or none: Msvm_CollectionSnapshotService destroys it",
                whole.name, whole.collection_name
            ),
        )),
    }
}

async fn apply(call: &Call<'_>) -> Result<Started, EngineError> {
    let member = snapshot(call, "Snapshot").await?;
    let (id, machine) = (member.snapshot.id, member.record().machine);
    let owner = call.owner.clone();
    call.engine.apply_snapshot_to(id, machine, owner).await
}

async fn destroy(call: &Call<'_>, name: &str, tree: bool) -> Result<Started, EngineError> {
    let id = single(call, name).await?;
    let (engine, owner) = (&call.engine, call.owner.clone());
    match tree {
        true => engine.destroy_snapshot_tree(id, owner).await,
        false => engine.destroy_snapshot(id, owner).await,
    }
}

async fn convert(call: &Call<'_>) -> Result<(ObjectPath, PointStarted), EngineError> {
    let snapshot = single(call, "AffectedSnapshot").await?;
    let machine = self::snapshot(call, "AffectedSnapshot").await?;
    let machine = machine.record().machine;
    // What it says of consistency is the snapshot's already.
    machine_points::settings(call)?;
    let (id, owner) = (machine_points::wanted(call, machine)?, call.owner.clone());
    let started = call.engine.convert_snapshot(snapshot, id, owner).await?;
    Ok((point_path(started.point, machine), started))
}

async fn clear(call: &Call<'_>) -> Result<(), EngineError> {
    let id = single(call, "SnapshotSettingData").await?;
    call.engine.clear_snapshot_memory(id).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_told_apart_as_the_reference_says() {
        for (given, expected) in [
            (Some(2), Ok(SnapshotKind::Standard)),
            (Some(3), Ok(SnapshotKind::Recovery)),
            (Some(32768), Ok(SnapshotKind::Recovery)),
            (Some(0), Err(ServiceReturn::InvalidType)),
            (Some(1), Err(ServiceReturn::InvalidType)),
            (Some(4), Err(ServiceReturn::InvalidType)),
            (Some(32769), Err(ServiceReturn::NotSupported)),
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
