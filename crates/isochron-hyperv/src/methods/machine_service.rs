//! Msvm_VirtualSystemManagementService, as far as it is about what is there:
//! renames machines and snapshots and changes their notes, forgets machines, and
//! tells of many at once. Machines are defined by a definition of their hypervisor,
//! which Hyper-V's settings do not express, so what defines or changes hardware is
//! Not Supported.

use isochron_cim::{CimError, Instance, Outcome, Value};
use isochron_engine::model::JobKind;
use isochron_engine::{EngineError, ErrorKind};

use super::{Call, invalid};
use crate::codes::{ManagementReturn, ServiceReturn};
use crate::object::{Object, class};
use crate::render::{Wanted, evidence};
use crate::settings::embedded;

/// The most that are told of in one call.
const MOST: usize = 10_000;

/// Calls a method; `None` if there is none of that name.
pub(super) async fn invoke(call: &Call<'_>, method: &str) -> Result<Option<Outcome>, CimError> {
    Ok(Some(match method {
        "ModifySystemSettings" => match modify(call).await {
            Ok(()) => call.reply(ServiceReturn::Completed, []),
            Err(error) => call.refuse(JobKind::ModifyMachine, &error).await?,
        },
        "DestroySystem" => match destroy(call).await {
            Ok(()) => call.reply(ServiceReturn::Completed, []),
            Err(error) => call.refuse(JobKind::DestroyMachine, &error).await?,
        },
        "GetSummaryInformation" => match summaries(call).await? {
            Ok(all) => call.reply(
                ManagementReturn::Completed,
                [("SummaryInformation", Value::Array(all))],
            ),
            Err(error) => call.reply(ManagementReturn::from(error.kind), []),
        },
        "FormatError" => match format_error(call) {
            Ok(text) => call.reply(ManagementReturn::Completed, [("ErrorMessage", text.into())]),
            Err(error) => call.reply(ManagementReturn::from(error.kind), []),
        },
        "GetSizeOfSystemFiles" => call.reply(ManagementReturn::NotSupported, []),
        "AddResourceSettings"
        | "DefineSystem"
        | "ModifyResourceSettings"
        | "RemoveResourceSettings" => {
            let error = not_here(method);
            call.refuse(JobKind::ModifyMachine, &error).await?
        }
        "ExportSystemDefinition" => {
            let error = EngineError::new(
                ErrorKind::NotSupported,
                "ExportSystemDefinition: a machine is exported as its snapshot (`isochron snapshot \
                 export`) or as its reference point (ExportReferencePoint of \
                 Msvm_VirtualSystemReferencePointService)",
            );
            let code = ManagementReturn::NotSupported;
            call.refuse_as(JobKind::ModifyMachine, &error, code).await?
        }
        "ModifyServiceSettings" => {
            let (error, code) = (not_here(method), ManagementReturn::NotSupported);
            call.refuse_as(JobKind::ModifyMachine, &error, code).await?
        }
        _ => return Ok(None),
    }))
}

fn not_here(method: &str) -> EngineError {
    EngineError::new(
        ErrorKind::NotSupported,
        format!(
            "{method}: the hardware of machines is defined by their definitions (`isochron vm \
             define`), which this class cannot express"
        ),
    )
}

/// Changes ElementName and Notes; any other change that is asked for is refused
/// before anything is changed.
async fn modify(call: &Call<'_>) -> Result<(), EngineError> {
    let name = "SystemSettings";
    let given = embedded(name, call.value(name), &call.provider.decode)?
        .ok_or_else(|| invalid(format!("{name} is missing")))?;
    if !given.class.is(class::SETTINGS) {
        return Err(invalid(format!(
            "{name} holds a {}, not a {}",
            given.class,
            class::SETTINGS
        )));
    }
    let id = given.get("InstanceID").and_then(Value::as_str);
    let id = id.ok_or_else(|| invalid(format!("{name} has no InstanceID: whose are they?")))?;
    let path = isochron_cim::ObjectPath::class(class::SETTINGS).with_key("InstanceID", id);
    let object = call.provider.resolve(call.space, name, &path).await?;
    let failed = |error: CimError| EngineError::new(ErrorKind::Failed, error.message);
    let current = call.provider.render(call.space, &object).await;
    let current = current.map_err(failed)?;
    refuse_other_changes(call, &given, &current)?;
    let text = |instance: &Instance| {
        let value = instance.get("ElementName").and_then(Value::as_str);
        value.map(str::to_owned)
    };
    let renamed = text(&given).filter(|name| Some(name) != text(&current).as_ref());
    let noted = given
        .get("Notes")
        .filter(|n| current.get("Notes") != Some(*n));
    let noted = noted.map(|notes| match notes {
        Value::Array(lines) => lines
            .iter()
            .flatten()
            .filter_map(|line| line.as_str().map(str::to_owned))
            .collect(),
        other => other.as_str().map(str::to_owned).into_iter().collect(),
    });
    let noted: Option<Vec<String>> = noted;
    let engine = &call.engine;
    match object {
        Object::MachineSettings(machine) => {
            if let Some(name) = renamed {
                engine.rename_machine(machine.id, &name).await?;
            }
            if let Some(notes) = noted {
                engine.note_machine(machine.id, &notes.join("\n")).await?;
            }
        }
        Object::MemberSettings(member) => {
            if let Some(name) = renamed {
                engine.rename_snapshot(member.snapshot.id, &name).await?;
            }
            if let Some(mut notes) = noted {
                // The evidence is read with them, and cannot be changed.
                let evidence = evidence(&member);
                notes.retain(|note| *note != evidence);
                let notes = notes.join("\n");
                engine.note_snapshot(member.snapshot.id, &notes).await?;
            }
        }
        other => return Err(invalid(format!("{name} names a {}", other.class()))),
    }
    Ok(())
}

/// Fails if the settings ask for another change than that of name and notes. What
/// is only read cannot be asked for, so it does not count; what is done when the host
/// starts or stops does, which clients change although it is declared without `Write`.
fn refuse_other_changes(
    call: &Call<'_>,
    given: &Instance,
    current: &Instance,
) -> Result<(), EngineError> {
    let schema = &call.space.repository;
    let Some(class) = schema.get(&current.class) else {
        return Ok(());
    };
    for (name, property) in &given.properties {
        let Some(asked) = &property.value.value else {
            continue;
        };
        let Some(declared) = class.properties.get(name) else {
            continue;
        };
        let writable = declared
            .qualifiers
            .get(&isochron_cim::Name::fixed("Write"))
            .and_then(|qualifier| qualifier.value.value.as_ref())
            .and_then(Value::as_bool)
            .unwrap_or(false);
        let writable = writable || name.as_str().starts_with("Automatic");
        // Also where a caller's text has no types.
        let same = current.get(name.as_str()).is_some_and(|now| {
            now == asked || now.as_str() == asked.as_str() && now.as_str().is_some()
        });
        let typed = asked
            .as_str()
            .and_then(|text| declared.value.ty.parse(text).ok());
        let same = same || (typed.is_some() && typed.as_ref() == current.get(name.as_str()));
        if writable && !same && asked.as_str() != Some("") {
            return Err(EngineError::new(
                ErrorKind::NotSupported,
                format!(
                    "{name} cannot be changed here; ElementName and Notes can, and hardware is \
                     changed in the machine's definition"
                ),
            ));
        }
    }
    Ok(())
}

async fn destroy(call: &Call<'_>) -> Result<(), EngineError> {
    let machine = call.machine("AffectedSystem").await?;
    call.engine.undefine_machine(machine.id).await
}

/// One summary for each of SettingData, in its order.
async fn summaries(call: &Call<'_>) -> Result<Result<Vec<Option<Value>>, EngineError>, CimError> {
    let provider = call.provider;
    let wanted = Wanted::read(call.value("RequestedInformation"));
    let objects = match call.value("SettingData") {
        Some(Value::Array(references)) if references.len() > MOST => {
            return Ok(Err(invalid(format!("SettingData names more than {MOST}"))));
        }
        Some(Value::Array(references)) => {
            let mut objects = Vec::with_capacity(references.len());
            for reference in references {
                let path = reference.as_ref().and_then(Value::as_reference);
                let found = match path {
                    Some(path) => provider.resolve(call.space, "SettingData", path).await.ok(),
                    None => None,
                };
                objects.push(found);
            }
            objects
        }
        _ => provider
            .all_settings()
            .await?
            .into_iter()
            .map(Some)
            .collect(),
    };
    let mut all = Vec::with_capacity(objects.len());
    for object in &objects {
        let summary = provider
            .summary(call.space, object.as_ref(), &wanted)
            .await?;
        all.push(Some(Value::from(summary)));
    }
    Ok(Ok(all))
}

/// The messages of errors, with an empty line between them.
fn format_error(call: &Call<'_>) -> Result<String, EngineError> {
    let Some(Value::Array(errors)) = call.value("Errors") else {
        return Err(invalid("Errors is missing"));
    };
    let mut messages = Vec::with_capacity(errors.len());
    for error in errors {
        let error = embedded("Errors", error.as_ref(), &call.provider.decode)?;
        let message = error.and_then(|e| e.get("Message")?.as_str().map(str::to_owned));
        messages.extend(message);
    }
    Ok(messages.join("\n\n"))
}
