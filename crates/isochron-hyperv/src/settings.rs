//! SnapshotSettings: the text in which a caller says how a snapshot is to be
//! taken, an embedded instance of one of two classes. And ReferencePointSettings,
//! which are alike.
//!
//! Nobody documents which class a collection's snapshot takes. Accepted are null
//! and empty text, Msvm_VirtualSystemSnapshotSettingData (how) and
//! Msvm_VirtualSystemSettingData (only its ElementName: the name to give).
//! Properties that are not known here are ignored, whatever they say; an
//! ElementName counts on either.

use isochron_cim::{Instance, Name, Value};
use isochron_engine::model::Consistency;
use isochron_engine::{EngineError, ErrorKind};

use crate::server::Decode;

/// The parameter's name.
const PARAMETER: &str = "SnapshotSettings";

/// What the settings say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SnapshotSettings {
    /// The name to give.
    pub(crate) name: Option<String>,
    /// The consistency asked for.
    pub(crate) consistency: Option<Consistency>,
    /// Leave out disks that cannot be snapshotted.
    pub(crate) ignore_excluded_disks: bool,
}

pub(crate) fn refuse(message: String) -> EngineError {
    EngineError::new(ErrorKind::InvalidParameter, message)
}

/// The embedded instance that a parameter holds, which may come decoded already;
/// `None` where there is none.
pub(crate) fn embedded(
    name: &str,
    value: Option<&Value>,
    decode: &Decode,
) -> Result<Option<Instance>, EngineError> {
    match value {
        None => Ok(None),
        Some(Value::Instance(instance)) => Ok(Some(instance.as_ref().clone())),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) => decode(text)
            .map(Some)
            .map_err(|error| refuse(format!("{name} cannot be read: {}", error.message))),
        Some(_) => Err(refuse(format!("{name} is not the text of an instance"))),
    }
}

impl SnapshotSettings {
    /// Reads the parameter, which may come decoded already.
    pub(crate) fn read(value: Option<&Value>, decode: &Decode) -> Result<Self, EngineError> {
        match embedded(PARAMETER, value, decode)? {
            Some(instance) => Self::of(&instance),
            None => Ok(Self::default()),
        }
    }

    /// What the instance says.
    fn of(instance: &Instance) -> Result<Self, EngineError> {
        let name = text(instance, "ElementName");
        if instance.class == Name::fixed("Msvm_VirtualSystemSettingData") {
            return Ok(Self {
                name,
                ..Self::default()
            });
        }
        if instance.class != Name::fixed("Msvm_VirtualSystemSnapshotSettingData") {
            return Err(refuse(format!(
                "SnapshotSettings holds a {}; a Msvm_VirtualSystemSnapshotSettingData, or a \
                 Msvm_VirtualSystemSettingData with the name to give, is understood",
                instance.class
            )));
        }
        let consistency = consistency(PARAMETER, instance)?;
        // Full or copy: whether the guest's applications note a backup. Guests here
        // have no such notes, so both ask for the same.
        if let Some(other @ 3..) = number(PARAMETER, instance, "GuestBackupType")? {
            return Err(refuse(format!(
                "GuestBackupType {other} is neither 1 (full) nor 2 (copy)"
            )));
        }
        Ok(Self {
            name,
            consistency,
            ignore_excluded_disks: flag(PARAMETER, instance, "IgnoreNonSnapshottableDisks")?
                .unwrap_or_default(),
        })
    }
}

/// What the settings of a reference point say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PointSettings {
    /// The name to give.
    pub(crate) name: Option<String>,
    /// The consistency asked for.
    pub(crate) consistency: Option<Consistency>,
}

impl PointSettings {
    /// Reads ReferencePointSettings, an instance of `class`.
    pub(crate) fn read(
        value: Option<&Value>,
        class: &'static str,
        decode: &Decode,
    ) -> Result<Self, EngineError> {
        let parameter = "ReferencePointSettings";
        let Some(instance) = embedded(parameter, value, decode)? else {
            return Ok(Self::default());
        };
        if instance.class != Name::fixed(class) {
            return Err(refuse(format!(
                "{parameter} holds a {}; a {class} is understood",
                instance.class
            )));
        }
        Ok(Self {
            name: text(&instance, "ElementName"),
            consistency: consistency(parameter, &instance)?,
        })
    }
}

/// ConsistencyLevel, as all settings count it.
fn consistency(parameter: &str, instance: &Instance) -> Result<Option<Consistency>, EngineError> {
    match number(parameter, instance, "ConsistencyLevel")? {
        None | Some(0) => Ok(None),
        Some(1) => Ok(Some(Consistency::Application)),
        Some(2) => Ok(Some(Consistency::Crash)),
        Some(other) => Err(refuse(format!(
            "ConsistencyLevel {other} is neither 1 (application consistent) nor 2 (crash \
             consistent)"
        ))),
    }
}

/// A text; empty is absent.
pub(crate) fn text(instance: &Instance, name: &str) -> Option<String> {
    let text = instance.get(name)?.as_str()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// A number, also where a caller's DTD carries it as text.
pub(crate) fn number(
    parameter: &str,
    instance: &Instance,
    name: &str,
) -> Result<Option<u64>, EngineError> {
    let Some(value) = instance.get(name) else {
        return Ok(None);
    };
    let number = match value {
        Value::String(text) if text.trim().is_empty() => return Ok(None),
        Value::String(text) => text.trim().parse().ok(),
        other => other.as_u64(),
    };
    number
        .map(Some)
        .ok_or_else(|| refuse(format!("{name} in {parameter} is no number")))
}

/// A boolean, also where a caller's DTD carries it as text.
pub(crate) fn flag(
    parameter: &str,
    instance: &Instance,
    name: &str,
) -> Result<Option<bool>, EngineError> {
    match instance.get(name) {
        None => Ok(None),
        Some(Value::Boolean(value)) => Ok(Some(*value)),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
        Some(Value::String(text)) if text.trim().eq_ignore_ascii_case("true") => Ok(Some(true)),
        Some(Value::String(text)) if text.trim().eq_ignore_ascii_case("false") => Ok(Some(false)),
        Some(_) => Err(refuse(format!(
            "{name} in {parameter} is neither true nor false"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use isochron_cim::CimError;

    use super::*;

    /// Reads `CLASS NAME=VALUE ...` instead of XML, which this crate does not know.
    fn decoder() -> Decode {
        Arc::new(|text: &str| {
            let mut words = text.split(' ');
            let class = words.next().unwrap_or_default();
            if !class.starts_with("Msvm_") {
                return Err(CimError::invalid_parameter("line 1: no INSTANCE element"));
            }
            let mut instance = Instance::new(class);
            for word in words {
                let (name, value) = word.split_once('=').unwrap();
                match value.parse::<u16>() {
                    Ok(number) => instance.set(name, number),
                    Err(_) => match value {
                        "true" => instance.set(name, true),
                        text => instance.set(name, text),
                    },
                };
            }
            Ok(instance)
        })
    }

    fn read(text: &str) -> Result<SnapshotSettings, String> {
        SnapshotSettings::read(Some(&Value::from(text)), &decoder()).map_err(|e| {
            assert_eq!(e.kind, ErrorKind::InvalidParameter);
            e.message
        })
    }

    #[test]
    fn nothing_said_is_the_default() {
        let default = SnapshotSettings::default();
        assert_eq!(
            SnapshotSettings::read(None, &decoder()).as_ref(),
            Ok(&default)
        );
        for text in [
            "",
            " \n",
            "Msvm_VirtualSystemSnapshotSettingData",
            "Msvm_VirtualSystemSettingData",
            "Msvm_VirtualSystemSnapshotSettingData ConsistencyLevel=0 ElementName=",
            "Msvm_VirtualSystemSnapshotSettingData Unknown=9 GuestBackupType=2",
        ] {
            assert_eq!(read(text).as_ref(), Ok(&default), "{text}");
        }
    }

    #[test]
    fn what_is_said_is_read() {
        assert_eq!(
            read(
                "Msvm_VirtualSystemSnapshotSettingData ConsistencyLevel=1 ElementName=Friday \
                 IgnoreNonSnapshottableDisks=true"
            ),
            Ok(SnapshotSettings {
                name: Some("Friday".into()),
                consistency: Some(Consistency::Application),
                ignore_excluded_disks: true,
            })
        );
        assert_eq!(
            read("Msvm_VirtualSystemSnapshotSettingData ConsistencyLevel=2")
                .unwrap()
                .consistency,
            Some(Consistency::Crash)
        );
        // The name only: nothing else of that class is about taking a snapshot.
        assert_eq!(
            read("Msvm_VirtualSystemSettingData ElementName=Friday ConsistencyLevel=7"),
            Ok(SnapshotSettings {
                name: Some("Friday".into()),
                ..Default::default()
            })
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_a_sentence() {
        for (text, says) in [
            ("garbage", "no INSTANCE element"),
            ("Msvm_ProcessorSettingData", "Msvm_ProcessorSettingData"),
            (
                "Msvm_VirtualSystemSnapshotSettingData ConsistencyLevel=3",
                "ConsistencyLevel 3",
            ),
            (
                "Msvm_VirtualSystemSnapshotSettingData ConsistencyLevel=high",
                "ConsistencyLevel",
            ),
            (
                "Msvm_VirtualSystemSnapshotSettingData GuestBackupType=3",
                "GuestBackupType 3",
            ),
            (
                "Msvm_VirtualSystemSnapshotSettingData IgnoreNonSnapshottableDisks=maybe",
                "Ignore",
            ),
        ] {
            let message = read(text).unwrap_err();
            assert!(message.contains(says), "{text}: {message}");
        }
    }
}
