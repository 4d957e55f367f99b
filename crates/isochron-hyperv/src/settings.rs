//! SnapshotSettings: the text in which a caller says how a snapshot is to be
//! taken, an embedded instance of one of two classes.
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

fn refuse(message: String) -> EngineError {
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
        match embedded("SnapshotSettings", value, decode)? {
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
        let consistency = match number(instance, "ConsistencyLevel")? {
            None | Some(0) => None,
            Some(1) => Some(Consistency::Application),
            Some(2) => Some(Consistency::Crash),
            Some(other) => {
                return Err(refuse(format!(
                    "ConsistencyLevel {other} is neither 1 (application consistent) nor 2 (crash \
                     consistent)"
                )));
            }
        };
        // Full or copy: whether the guest's applications note a backup. Guests here
        // have no such notes, so both ask for the same.
        if let Some(other @ 3..) = number(instance, "GuestBackupType")? {
            return Err(refuse(format!(
                "GuestBackupType {other} is neither 1 (full) nor 2 (copy)"
            )));
        }
        Ok(Self {
            name,
            consistency,
            ignore_excluded_disks: ignore(instance)?,
        })
    }
}

fn text(instance: &Instance, name: &str) -> Option<String> {
    let text = instance.get(name)?.as_str()?.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// A number, also where a caller's DTD carries it as text.
fn number(instance: &Instance, name: &str) -> Result<Option<u64>, EngineError> {
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
        .ok_or_else(|| refuse(format!("{name} in SnapshotSettings is no number")))
}

fn ignore(instance: &Instance) -> Result<bool, EngineError> {
    let name = "IgnoreNonSnapshottableDisks";
    match instance.get(name) {
        None => Ok(false),
        Some(Value::Boolean(value)) => Ok(*value),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(false),
        Some(Value::String(text)) if text.trim().eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.trim().eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(refuse(format!(
            "{name} in SnapshotSettings is neither true nor false"
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
