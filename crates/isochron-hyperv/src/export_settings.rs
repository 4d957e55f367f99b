//! ExportSettingData: the text in which a caller says how something is to be exported,
//! an embedded instance of a class that depends on what is exported.
//!
//! Null and empty text are accepted: everything is exported then. As with
//! SnapshotSettings, properties that are not known here are ignored.

use isochron_cim::{Instance, Name, ObjectPath, Value};
use isochron_engine::EngineError;

use crate::server::Decode;
use crate::settings::{embedded, flag, number, refuse, text};

/// The parameter's name.
const PARAMETER: &str = "ExportSettingData";

/// What the settings say.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ExportSettings {
    /// Write disks and memory.
    pub(crate) copy_storage: bool,
    /// From where changes are told: the property that said so, and the path.
    pub(crate) base: Option<(&'static str, ObjectPath)>,
    /// Make a full export of the base's and the changes.
    pub(crate) merge: bool,
    /// Only these machines and disks.
    pub(crate) disks: Option<Vec<MachineDisks>>,
}

/// Which disks of a machine.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MachineDisks {
    /// The machine: Msvm_ComputerSystem.Name.
    pub(crate) machine: String,
    /// The disks, by name or VirtualDiskIdentifiers; all where empty.
    pub(crate) disks: Vec<String>,
}

impl Default for ExportSettings {
    fn default() -> Self {
        Self {
            copy_storage: true,
            base: None,
            merge: false,
            disks: None,
        }
    }
}

impl ExportSettings {
    /// Of Msvm_CollectionSnapshotExportSettingData.
    pub(crate) fn of_snapshot(value: Option<&Value>, decode: &Decode) -> Result<Self, EngineError> {
        let class = "Msvm_CollectionSnapshotExportSettingData";
        let Some(instance) = read(value, decode, class)? else {
            return Ok(Self::default());
        };
        let merge = match number(PARAMETER, &instance, "BackupIntent")? {
            None | Some(1) => false,
            Some(2) => true,
            Some(other) => {
                return Err(refuse(format!(
                    "BackupIntent {other} is neither 1 (preserve chain) nor 2 (merge)"
                )));
            }
        };
        Ok(Self {
            copy_storage: flag(PARAMETER, &instance, "CopyVmStorage")?.unwrap_or(true),
            base: base(&instance, "DifferentialBackupBase")?,
            merge,
            disks: None,
        })
    }

    /// Of Msvm_CollectionReferencePointExportSettingData.
    pub(crate) fn of_point(value: Option<&Value>, decode: &Decode) -> Result<Self, EngineError> {
        let class = "Msvm_CollectionReferencePointExportSettingData";
        let Some(instance) = read(value, decode, class)? else {
            return Ok(Self::default());
        };
        let choice = array(&instance, "VirtualMachinesToDisksToExport")?;
        let choice = choice.map(|choice| {
            let choice = choice.iter();
            choice.map(|one| machine_disks(one, decode)).collect()
        });
        Ok(Self {
            base: base(&instance, "BaseReferencePointCollection")?,
            disks: choice.transpose()?,
            ..Self::default()
        })
    }

    /// Of Msvm_VirtualSystemReferencePointExportSettingData; `machine` is the one that
    /// is exported.
    pub(crate) fn of_single_point(
        value: Option<&Value>,
        decode: &Decode,
        machine: &str,
    ) -> Result<Self, EngineError> {
        let class = "Msvm_VirtualSystemReferencePointExportSettingData";
        let Some(instance) = read(value, decode, class)? else {
            return Ok(Self::default());
        };
        let disks = texts(&instance, "DisksToExport")?;
        Ok(Self {
            base: base(&instance, "BaseReferencePoint")?,
            disks: disks.map(|disks| {
                vec![MachineDisks {
                    machine: machine.to_owned(),
                    disks,
                }]
            }),
            ..Self::default()
        })
    }
}

fn read(
    value: Option<&Value>,
    decode: &Decode,
    class: &'static str,
) -> Result<Option<Instance>, EngineError> {
    let instance = embedded(PARAMETER, value, decode)?;
    match instance {
        Some(instance) if instance.class != Name::fixed(class) => Err(refuse(format!(
            "{PARAMETER} holds a {}; a {class} is understood",
            instance.class
        ))),
        instance => Ok(instance),
    }
}

fn base(
    instance: &Instance,
    name: &'static str,
) -> Result<Option<(&'static str, ObjectPath)>, EngineError> {
    if let Some(Value::Reference(path)) = instance.get(name) {
        return Ok(Some((name, path.as_ref().clone())));
    }
    let Some(text) = text(instance, name) else {
        return Ok(None);
    };
    let path = text
        .parse()
        .map_err(|error| refuse(format!("{name} is no object path: {error}")))?;
    Ok(Some((name, path)))
}

/// An array's elements; one that is empty is absent.
fn array<'a>(instance: &'a Instance, name: &str) -> Result<Option<Vec<&'a Value>>, EngineError> {
    let elements = match instance.get(name) {
        None => return Ok(None),
        Some(Value::Array(elements)) => elements,
        Some(_) => return Err(refuse(format!("{name} in {PARAMETER} is no array"))),
    };
    if elements.is_empty() {
        return Ok(None);
    }
    let elements = elements.iter().map(|element| {
        element
            .as_ref()
            .ok_or_else(|| refuse(format!("an element of {name} in {PARAMETER} is null")))
    });
    elements.collect::<Result<_, _>>().map(Some)
}

fn texts(instance: &Instance, name: &str) -> Result<Option<Vec<String>>, EngineError> {
    let Some(elements) = array(instance, name)? else {
        return Ok(None);
    };
    let texts = elements.into_iter().map(|element| {
        let text = element.as_str().map(str::to_owned);
        text.ok_or_else(|| refuse(format!("an element of {name} in {PARAMETER} is no text")))
    });
    texts.collect::<Result<_, _>>().map(Some)
}

fn machine_disks(value: &Value, decode: &Decode) -> Result<MachineDisks, EngineError> {
    let name = "VirtualMachinesToDisksToExport";
    let class = "Msvm_VirtualMachineToDisks";
    let instance = embedded(name, Some(value), decode)?;
    let instance = instance.filter(|instance| instance.class == Name::fixed(class));
    let instance =
        instance.ok_or_else(|| refuse(format!("an element of {name} is not a {class}")))?;
    let machine = text(&instance, "VirtualMachineId");
    let machine = machine.ok_or_else(|| {
        refuse(format!(
            "an element of {name} does not say its VirtualMachineId"
        ))
    })?;
    Ok(MachineDisks {
        machine,
        disks: texts(&instance, "DisksToExport")?.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use isochron_cim::CimError;

    use super::*;

    /// There is no text in these tests.
    fn decode() -> Decode {
        Arc::new(|_: &str| Err(CimError::invalid_parameter("no INSTANCE element")))
    }

    fn array_of(values: Vec<Value>) -> Value {
        Value::Array(values.into_iter().map(Some).collect())
    }

    fn snapshot(properties: &[(&str, Value)]) -> Result<ExportSettings, String> {
        let mut instance = Instance::new("Msvm_CollectionSnapshotExportSettingData");
        for (name, value) in properties {
            instance.set(*name, value.clone());
        }
        ExportSettings::of_snapshot(Some(&instance.into()), &decode()).map_err(|e| e.message)
    }

    #[test]
    fn settings_of_a_snapshot() {
        let default = ExportSettings::default();
        let none = ExportSettings::of_snapshot(None, &decode());
        assert_eq!(
            (none, snapshot(&[])),
            (Ok(default.clone()), Ok(default.clone()))
        );
        let path = r#"Msvm_SnapshotCollection.CollectionID="42""#;
        let read = snapshot(&[
            ("CopyVmStorage", false.into()),
            ("DifferentialBackupBase", path.into()),
            ("BackupIntent", 2_u16.into()),
            ("Unknown", 9_u16.into()),
        ]);
        let base = ("DifferentialBackupBase", path.parse().unwrap());
        let expected = ExportSettings {
            copy_storage: false,
            base: Some(base),
            merge: true,
            disks: None,
        };
        assert_eq!(read, Ok(expected));
        // As text, as WMI's DTD carries it.
        let read = snapshot(&[
            ("BackupIntent", "1".into()),
            ("CopyVmStorage", "TRUE".into()),
        ]);
        assert_eq!(read, Ok(default));
        for (name, value, says) in [
            ("BackupIntent", Value::from(0_u16), "BackupIntent 0"),
            ("BackupIntent", 3_u16.into(), "BackupIntent 3"),
            ("CopyVmStorage", "perhaps".into(), "CopyVmStorage"),
            (
                "DifferentialBackupBase",
                "/backups".into(),
                "no object path",
            ),
        ] {
            let message = snapshot(&[(name, value)]).unwrap_err();
            assert!(message.contains(says), "{message}");
        }
        let other = Instance::new("Msvm_CollectionReferencePointExportSettingData");
        let refused = ExportSettings::of_snapshot(Some(&other.into()), &decode()).unwrap_err();
        assert!(refused.message.contains("is understood"), "{refused}");
        let refused = ExportSettings::of_snapshot(Some(&"x".into()), &decode()).unwrap_err();
        assert!(refused.message.contains("no INSTANCE"), "{refused}");
    }

    #[test]
    fn disks_of_a_reference_point() {
        let read = |choice: Vec<Value>| {
            let mut instance = Instance::new("Msvm_CollectionReferencePointExportSettingData");
            instance.set("VirtualMachinesToDisksToExport", array_of(choice));
            ExportSettings::of_point(Some(&instance.into()), &decode()).map_err(|e| e.message)
        };
        let machine = |properties: &[(&str, Value)]| {
            let mut instance = Instance::new("Msvm_VirtualMachineToDisks");
            for (name, value) in properties {
                instance.set(*name, value.clone());
            }
            Value::from(instance)
        };
        let web = ("VirtualMachineId", Value::from("web"));
        let disks = ("DisksToExport", array_of(vec!["root".into()]));
        let chosen = read(vec![
            machine(&[web.clone(), disks]),
            machine(std::slice::from_ref(&web)),
        ]);
        let expected = |disks: &[&str]| MachineDisks {
            machine: "web".to_owned(),
            disks: disks.iter().map(ToString::to_string).collect(),
        };
        let disks = chosen.unwrap().disks;
        assert_eq!(disks, Some(vec![expected(&["root"]), expected(&[])]));
        assert_eq!(read(vec![]).unwrap().disks, None);
        for (choice, says) in [
            (machine(&[]), "VirtualMachineId"),
            (Instance::new("Msvm_Error").into(), "not a Msvm_"),
            (
                machine(&[web, ("DisksToExport", array_of(vec![1_u16.into()]))]),
                "no text",
            ),
        ] {
            let message = read(vec![choice]).unwrap_err();
            assert!(message.contains(says), "{message}");
        }
    }
}
