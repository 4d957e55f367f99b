//! Instances as the text that is kept: JSON with every value's type beside it, so
//! that it can be read without the class.
//!
//! ```text
//!   {"class": "EX_Thing", "properties": {"Id": {"type": "string", "value": "a"}}}
//! ```
//!
//! Integers and booleans are JSON's; reals, characters, datetimes and references
//! are text as object paths write them; an embedded instance is an object. The
//! path is not kept: it follows from the keys.

use indexmap::IndexMap;
use isochron_cim::{CimType, Embedded, Instance, Name, Property, TypedValue, Value};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// An instance as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    class: String,
    properties: IndexMap<String, KeptProperty>,
}

/// A property as it is kept.
#[derive(Serialize, Deserialize)]
struct KeptProperty {
    #[serde(rename = "type")]
    ty: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    array: bool,
    /// The class that a reference may hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    #[serde(default, skip_serializing_if = "Json::is_null")]
    value: Json,
}

/// The instance's text. Fails where a value is a class, which is not kept.
pub(crate) fn write(instance: &Instance) -> Result<String, String> {
    let kept = keep(instance)?;
    serde_json::to_string(&kept).map_err(|error| error.to_string())
}

/// The instance of this text, without path.
pub(crate) fn read(text: &str) -> Result<Instance, String> {
    let kept = serde_json::from_str(text).map_err(|error| error.to_string())?;
    restore(kept)
}

fn keep(instance: &Instance) -> Result<Kept, String> {
    let mut properties = IndexMap::with_capacity(instance.properties.len());
    for (name, property) in &instance.properties {
        let TypedValue {
            ty,
            is_array,
            value,
        } = &property.value;
        let kept = KeptProperty {
            ty: ty.name().to_owned(),
            array: *is_array,
            reference: match ty {
                CimType::Reference(Some(class)) => Some(class.to_string()),
                _ => None,
            },
            value: keep_value(value.as_ref())?,
        };
        properties.insert(name.to_string(), kept);
    }
    Ok(Kept {
        class: instance.class.to_string(),
        properties,
    })
}

fn keep_value(value: Option<&Value>) -> Result<Json, String> {
    Ok(match value {
        None => Json::Null,
        Some(Value::Boolean(v)) => (*v).into(),
        Some(Value::Real32(v)) => format!("{v:e}").into(),
        Some(Value::Real64(v)) => format!("{v:e}").into(),
        Some(Value::Char16(v)) => (*v).into(),
        Some(Value::String(v)) => v.clone().into(),
        Some(Value::DateTime(v)) => v.to_string().into(),
        Some(Value::Reference(v)) => v.to_string().into(),
        Some(Value::Instance(v)) => {
            serde_json::to_value(keep(v)?).map_err(|error| error.to_string())?
        }
        Some(Value::Class(v)) => return Err(format!("the class {} as a value", v.name)),
        Some(Value::Array(items)) => {
            let items = items.iter().map(|item| keep_value(item.as_ref()));
            Json::Array(items.collect::<Result<_, _>>()?)
        }
        Some(value) => match value.as_integer().map(i64::try_from) {
            Some(Ok(number)) => number.into(),
            _ => value.as_u64().into(),
        },
    })
}

fn restore(kept: Kept) -> Result<Instance, String> {
    let mut instance = Instance::new(kept.class);
    for (name, kept) in kept.properties {
        let ty = CimType::from_name(&kept.ty).ok_or_else(|| format!("the type {}", kept.ty))?;
        let ty = match ty {
            CimType::Reference(_) => CimType::Reference(kept.reference.map(Name::from)),
            ty => ty,
        };
        let value = restore_value(kept.value, &ty)?;
        let inside = match &value {
            Some(Value::Array(items)) => items.iter().flatten().next(),
            value => value.as_ref(),
        };
        let embedded = match inside {
            Some(Value::Instance(inside)) => Some(Embedded::Instance(inside.class.clone())),
            _ => None,
        };
        let property = Property {
            value: TypedValue {
                ty,
                is_array: kept.array,
                value,
            },
            embedded,
            class_origin: None,
        };
        instance.properties.insert(name.into(), property);
    }
    Ok(instance)
}

fn restore_value(json: Json, ty: &CimType) -> Result<Option<Value>, String> {
    let wrong = |json: &Json| format!("{json} as a value of type {}", ty.name());
    Ok(Some(match json {
        Json::Null => return Ok(None),
        Json::Bool(v) => Value::Boolean(v),
        Json::Array(items) => {
            let items = items.into_iter().map(|item| restore_value(item, ty));
            Value::Array(items.collect::<Result<_, _>>()?)
        }
        Json::Object(_) => {
            let kept = serde_json::from_value(json).map_err(|error| error.to_string())?;
            Value::Instance(Box::new(restore(kept)?))
        }
        Json::String(text) if *ty == CimType::String => Value::String(text),
        Json::String(text) => ty.parse(&text).map_err(|error| error.to_string())?,
        Json::Number(ref number) => {
            let signed = number.as_i64().map(i128::from);
            let number = signed.or_else(|| number.as_u64().map(i128::from));
            let number = number.ok_or_else(|| wrong(&json))?;
            match ty {
                CimType::Char16 => Value::Char16(number.try_into().map_err(|_| wrong(&json))?),
                ty => ty.integer(number).ok_or_else(|| wrong(&json))?,
            }
        }
    }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use isochron_cim::ObjectPath;

    use super::*;

    #[test]
    fn what_is_kept_is_read_again() {
        let mut inside = Instance::new("EX_Inside");
        inside
            .set("Small", Value::Sint8(-128))
            .set("Text", "a\"\\\n\u{1}é");
        let other = ObjectPath::class("EX_Other")
            .with_key("Id", "a\"b")
            .in_namespace("root/x");
        let mut instance = Instance::new("EX_Thing");
        instance
            .set("Flag", true)
            .set("Big", u64::MAX)
            .set("Least", Value::Sint64(i64::MIN))
            .set("R32", Value::Real32(1.1))
            .set("R64", Value::Real64(f64::MIN_POSITIVE))
            .set("Unit", Value::Char16(0xD800))
            .set(
                "When",
                "20240101000000.000000+000"
                    .parse::<isochron_cim::DateTime>()
                    .unwrap(),
            )
            .set("Other", other)
            .set("Inside", inside.clone())
            .set("List", Value::Array(vec![Some(Value::Uint8(1)), None]));
        let none = TypedValue {
            ty: CimType::Reference(None),
            is_array: false,
            value: None,
        };
        let none = Property {
            value: none,
            embedded: None,
            class_origin: None,
        };
        instance.properties.insert("None".into(), none);
        let text = write(&instance).unwrap();
        assert_eq!(read(&text).unwrap(), instance, "{text}");
    }

    #[test]
    fn text_that_is_none_is_refused() {
        for text in [
            "",
            "{}",
            r#"{"class":"A","properties":{"P":{"type":"int","value":1}}}"#,
            r#"{"class":"A","properties":{"P":{"type":"uint8","value":256}}}"#,
            r#"{"class":"A","properties":{"P":{"type":"uint8","value":1.5}}}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
