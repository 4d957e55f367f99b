//! Exports, as the four services that have them ask for them.

use std::path::PathBuf;

use isochron_engine::model::{MachineId, ReferencePoint};
use isochron_engine::{
    EngineError, ExportBase, ExportDisks, ExportRequest, ExportStarted, Exports,
};

use super::{Call, invalid};
use crate::export_settings::{ExportSettings, MachineDisks};
use crate::object::Object;

/// Starts an export to the call's ExportDirectory. `point`: the reference point, if it
/// is one that is exported.
pub(super) async fn start(
    call: &Call<'_>,
    what: Exports,
    point: Option<&ReferencePoint>,
    settings: ExportSettings,
) -> Result<ExportStarted, EngineError> {
    let directory = call.text("ExportDirectory").map(PathBuf::from);
    let directory = directory.ok_or_else(|| invalid("ExportDirectory is missing"))?;
    let base = match &settings.base {
        Some((property, path)) => {
            let object = call.provider.resolve(call.space, property, path).await?;
            Some(base(property, object)?)
        }
        None => None,
    };
    let disks = settings.disks.map(|choice| {
        let choice = choice.into_iter();
        choice.map(|one| chosen(one, point)).collect()
    });
    let request = ExportRequest {
        what,
        directory,
        base,
        merge: settings.merge,
        copy_storage: settings.copy_storage,
        limit: None,
        disks: disks.transpose()?,
        require_difference: false,
        owner: call.owner.clone(),
    };
    call.engine.export(request).await
}

/// What differences are told from.
fn base(property: &str, object: Object) -> Result<ExportBase, EngineError> {
    match object {
        Object::SnapshotCollection(snapshot) => Ok(ExportBase::Snapshot(snapshot.id)),
        Object::PointCollection(point) => Ok(ExportBase::Point(point.id)),
        Object::Point(part) if part.point.of_machine().is_some() => {
            Ok(ExportBase::Point(part.point.id))
        }
        other => Err(invalid(format!(
            "{property} names a {}, from which no difference can be told",
            other.class()
        ))),
    }
}

/// A machine and its disks, which may be named as VirtualDiskIdentifiers names them.
fn chosen(
    choice: MachineDisks,
    point: Option<&ReferencePoint>,
) -> Result<ExportDisks, EngineError> {
    let machine: MachineId = choice.machine.parse().map_err(|_| {
        invalid(format!(
            "the VirtualMachineId {:?} is no GUID",
            choice.machine
        ))
    })?;
    let member = point.and_then(|point| point.members.iter().find(|m| m.machine == machine));
    let name = |disk: String| {
        let mut disks = member.iter().flat_map(|member| &member.disks);
        let named = disks.find(|one| one.root.to_string().eq_ignore_ascii_case(&disk));
        named.map_or(disk, |one| one.disk.clone())
    };
    Ok(ExportDisks {
        machine,
        disks: choice.disks.into_iter().map(name).collect(),
    })
}
