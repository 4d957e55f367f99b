//! Paths and selectors: the keys of an instance as text with a name each.

use indexmap::IndexMap;
use isochron_cim::{CimType, Class, Name, ObjectPath, Value};

use crate::resource::NAMESPACE_SELECTOR;
use crate::soap::{Fault, Kind, Selectors};

/// A key's value as a selector has it.
pub(crate) fn key_text(value: &Value) -> String {
    match value {
        Value::Boolean(value) => value.to_string(),
        Value::Char16(unit) => String::from_utf16_lossy(&[*unit]),
        Value::String(text) => text.clone(),
        Value::DateTime(value) => value.to_string(),
        Value::Real32(value) => value.to_string(),
        Value::Real64(value) => value.to_string(),
        Value::Reference(path) => path.to_string(),
        value => value.as_integer().unwrap_or_default().to_string(),
    }
}

/// The keys that selectors give, of the types and in the spelling of the class, as far as
/// they are text; those that are references are left for who can read them.
///
/// # Errors
/// `InvalidSelectors` with what is wrong with them (DSP0226 §5.1.2.2).
pub(crate) fn selected_path(
    class: &Class,
    selectors: &Selectors,
    reference: &mut dyn FnMut(&Name) -> Option<ObjectPath>,
) -> Result<IndexMap<Name, Value>, Fault> {
    let wrong =
        |detail, reason: String| Err(Fault::new(Kind::INVALID_SELECTORS, reason).detailed(detail));
    let given = |name: &str| {
        let mut given = selectors.0.iter();
        given.find(|selector| selector.name.eq_ignore_ascii_case(name))
    };
    for selector in &selectors.0 {
        let name = &*selector.name;
        let known =
            name.eq_ignore_ascii_case(NAMESPACE_SELECTOR) || class.keys().any(|key| key.is(name));
        if !known {
            return wrong(
                "UnexpectedSelectors",
                format!("{name} is no key of {}", class.name),
            );
        }
    }
    let mut keys = IndexMap::new();
    for (name, declared) in class.properties.iter().filter(|(_, p)| p.flag("Key")) {
        if given(name.as_str()).is_none() {
            return wrong(
                "InsufficientSelectors",
                format!("the key {name} of {} is missing", class.name),
            );
        }
        let value = match &declared.value.ty {
            CimType::Reference(_) => reference(name).map(Value::from),
            ty => selectors.text(name.as_str()).and_then(|text| key(ty, text)),
        };
        let Some(value) = value else {
            return wrong(
                "TypeMismatch",
                format!("{name} is no {} value", declared.value.ty.name()),
            );
        };
        keys.insert(name.clone(), value);
    }
    Ok(keys)
}

/// Reads a key of a type.
fn key(ty: &CimType, text: &str) -> Option<Value> {
    match ty {
        CimType::DateTime => super::time::parse_text(text).map(Value::DateTime),
        CimType::Boolean => match text.trim() {
            "1" => Some(Value::Boolean(true)),
            "0" => Some(Value::Boolean(false)),
            text => ty.parse(text).ok(),
        },
        ty => ty.parse(text).ok(),
    }
}
