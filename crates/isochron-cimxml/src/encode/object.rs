//! Values, names and paths, and instances (DSP0201 §5.2.3 to §5.2.5).

use isochron_cim::{CimType, Embedded, Instance, Name, ObjectPath, Property, TypedValue, Value};

use super::{attribute, text};

/// Appends INSTANCE, without its path.
pub fn instance(out: &mut String, instance: &Instance) {
    out.push_str("<INSTANCE");
    attribute(out, "CLASSNAME", instance.class.as_str());
    out.push('>');
    for (name, value) in &instance.properties {
        property(out, name, value);
    }
    out.push_str("</INSTANCE>");
}

/// PROPERTY, PROPERTY.ARRAY or PROPERTY.REFERENCE of an instance.
fn property(out: &mut String, name: &Name, property: &Property) {
    let TypedValue {
        ty,
        is_array,
        value,
    } = &property.value;
    let element = property_element(ty, *is_array);
    out.push('<');
    out.push_str(element);
    attribute(out, "NAME", name.as_str());
    type_attribute(out, ty);
    if let Some(origin) = &property.class_origin {
        attribute(out, "CLASSORIGIN", origin.as_str());
    }
    match &property.embedded {
        Some(Embedded::Instance(_)) => attribute(out, "EmbeddedObject", "instance"),
        Some(Embedded::Object) => attribute(out, "EmbeddedObject", "object"),
        None => embedded_object(out, value.as_ref()),
    }
    close_with(out, element, &property.value);
}

/// The element's name for a property of this type.
pub(super) fn property_element(ty: &CimType, is_array: bool) -> &'static str {
    match (ty, is_array) {
        (CimType::Reference(_), _) => "PROPERTY.REFERENCE",
        (_, true) => "PROPERTY.ARRAY",
        (_, false) => "PROPERTY",
    }
}

/// TYPE, or for a reference REFERENCECLASS where the class is known.
pub(super) fn type_attribute(out: &mut String, ty: &CimType) {
    match ty {
        CimType::Reference(Some(class)) => attribute(out, "REFERENCECLASS", class.as_str()),
        CimType::Reference(None) => {}
        ty => attribute(out, "TYPE", ty.name()),
    }
}

/// Ends the start tag, then the value and the end tag. Null has an end tag of
/// its own too: wbemcli knows no `<PROPERTY .../>`.
pub(super) fn close_with(out: &mut String, element: &str, typed: &TypedValue) {
    out.push('>');
    if let Some(content) = &typed.value {
        value(out, &typed.ty, content);
    }
    out.push_str("</");
    out.push_str(element);
    out.push('>');
}

/// The EmbeddedObject attribute, where the value needs it.
fn embedded_object(out: &mut String, value: Option<&Value>) {
    let first = match value {
        Some(Value::Array(items)) => items.iter().flatten().next(),
        other => other,
    };
    match first {
        Some(Value::Instance(_)) => attribute(out, "EmbeddedObject", "instance"),
        Some(Value::Class(_)) => attribute(out, "EmbeddedObject", "object"),
        _ => {}
    }
}

/// VALUE, VALUE.ARRAY, VALUE.REFERENCE or VALUE.REFARRAY.
pub(super) fn value(out: &mut String, ty: &CimType, value: &Value) {
    match value {
        Value::Array(items) => {
            let references = matches!(ty, CimType::Reference(_));
            let element = if references {
                "VALUE.REFARRAY"
            } else {
                "VALUE.ARRAY"
            };
            out.push('<');
            out.push_str(element);
            out.push('>');
            for item in items {
                match item {
                    Some(item) => scalar(out, item),
                    None => out.push_str("<VALUE.NULL/>"),
                }
            }
            out.push_str("</");
            out.push_str(element);
            out.push('>');
        }
        value => scalar(out, value),
    }
}

fn scalar(out: &mut String, value: &Value) {
    match value {
        Value::Reference(path) => {
            out.push_str("<VALUE.REFERENCE>");
            reference(out, path);
            out.push_str("</VALUE.REFERENCE>");
        }
        value => {
            out.push_str("<VALUE>");
            text(out, &scalar_text(value));
            out.push_str("</VALUE>");
        }
    }
}

/// A scalar's text (DSP0201, "VALUE"), before escaping.
fn scalar_text(value: &Value) -> String {
    match value {
        Value::Boolean(v) => v.to_string(),
        Value::Uint8(v) => v.to_string(),
        Value::Uint16(v) => v.to_string(),
        Value::Uint32(v) => v.to_string(),
        Value::Uint64(v) => v.to_string(),
        Value::Sint8(v) => v.to_string(),
        Value::Sint16(v) => v.to_string(),
        Value::Sint32(v) => v.to_string(),
        Value::Sint64(v) => v.to_string(),
        Value::Real32(v) => real(f64::from(*v), format!("{v:?}")),
        Value::Real64(v) => real(*v, format!("{v:?}")),
        Value::Char16(unit) => String::from_utf16_lossy(&[*unit]),
        Value::String(v) => v.clone(),
        Value::DateTime(v) => v.to_string(),
        Value::Reference(path) => path.to_string(),
        Value::Instance(v) => {
            let mut inner = String::new();
            instance(&mut inner, v);
            inner
        }
        Value::Class(v) => {
            let mut inner = String::new();
            super::class(&mut inner, v);
            inner
        }
        // CIM has no arrays of arrays, and `value` takes arrays apart.
        Value::Array(_) => String::new(),
    }
}

/// A real as DSP0201 writes it under "VALUE": a point with digits on both sides,
/// `INF`, `-INF` or `NaN`. `shortest` is Rust's shortest exact form.
fn real(value: f64, shortest: String) -> String {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 {
            "INF".into()
        } else {
            "-INF".into()
        }
    } else {
        match shortest.split_once('e') {
            Some((digits, exponent)) if !digits.contains('.') => format!("{digits}.0e{exponent}"),
            _ => shortest,
        }
    }
}

/// A path in the shortest form that says what it says.
fn reference(out: &mut String, path: &ObjectPath) {
    let is_class = path.keys.is_empty();
    match (&path.host, &path.namespace) {
        (Some(host), Some(namespace)) if is_class => classpath(out, host, namespace, &path.class),
        (Some(host), Some(namespace)) => instancepath(out, host, namespace, path),
        (None, Some(namespace)) => {
            let element = if is_class {
                "LOCALCLASSPATH"
            } else {
                "LOCALINSTANCEPATH"
            };
            out.push('<');
            out.push_str(element);
            out.push('>');
            localnamespacepath(out, namespace);
            if is_class {
                classname(out, &path.class)
            } else {
                instancename(out, path)
            }
            out.push_str("</");
            out.push_str(element);
            out.push('>');
        }
        (_, None) if is_class => classname(out, &path.class),
        (_, None) => instancename(out, path),
    }
}

/// Appends INSTANCENAME.
pub fn instancename(out: &mut String, path: &ObjectPath) {
    out.push_str("<INSTANCENAME");
    attribute(out, "CLASSNAME", path.class.as_str());
    out.push('>');
    for (name, value) in &path.keys {
        out.push_str("<KEYBINDING");
        attribute(out, "NAME", name.as_str());
        out.push('>');
        keyvalue(out, value);
        out.push_str("</KEYBINDING>");
    }
    out.push_str("</INSTANCENAME>");
}

/// KEYVALUE with VALUETYPE alone: clients take TYPE beside it badly.
fn keyvalue(out: &mut String, value: &Value) {
    let kind = match value {
        Value::Reference(_) => return scalar(out, value),
        Value::Boolean(_) => "boolean",
        Value::Uint8(_)
        | Value::Uint16(_)
        | Value::Uint32(_)
        | Value::Uint64(_)
        | Value::Sint8(_)
        | Value::Sint16(_)
        | Value::Sint32(_)
        | Value::Sint64(_)
        | Value::Real32(_)
        | Value::Real64(_) => "numeric",
        _ => "string",
    };
    out.push_str("<KEYVALUE");
    attribute(out, "VALUETYPE", kind);
    out.push('>');
    text(out, &scalar_text(value));
    out.push_str("</KEYVALUE>");
}

pub(super) fn classname(out: &mut String, class: &Name) {
    out.push_str("<CLASSNAME");
    attribute(out, "NAME", class.as_str());
    out.push_str("/>");
}

pub(super) fn classpath(out: &mut String, host: &str, namespace: &str, class: &Name) {
    out.push_str("<CLASSPATH>");
    namespacepath(out, host, namespace);
    classname(out, class);
    out.push_str("</CLASSPATH>");
}

pub(super) fn instancepath(out: &mut String, host: &str, namespace: &str, path: &ObjectPath) {
    out.push_str("<INSTANCEPATH>");
    namespacepath(out, host, namespace);
    instancename(out, path);
    out.push_str("</INSTANCEPATH>");
}

fn namespacepath(out: &mut String, host: &str, namespace: &str) {
    out.push_str("<NAMESPACEPATH><HOST>");
    text(out, host);
    out.push_str("</HOST>");
    localnamespacepath(out, namespace);
    out.push_str("</NAMESPACEPATH>");
}

fn localnamespacepath(out: &mut String, namespace: &str) {
    out.push_str("<LOCALNAMESPACEPATH>");
    for part in namespace.split(['/', '\\']).filter(|part| !part.is_empty()) {
        out.push_str("<NAMESPACE");
        attribute(out, "NAME", part);
        out.push_str("/>");
    }
    out.push_str("</LOCALNAMESPACEPATH>");
}

/// PARAMVALUE of a method's response; nothing for null, which an absent
/// parameter means too: an empty PARAMVALUE crashes wbemcli.
pub(super) fn paramvalue(out: &mut String, name: &Name, parameter: &TypedValue) {
    if parameter.value.is_none() {
        return;
    }
    out.push_str("<PARAMVALUE");
    attribute(out, "NAME", name.as_str());
    attribute(out, "PARAMTYPE", parameter.ty.name());
    embedded_object(out, parameter.value.as_ref());
    close_with(out, "PARAMVALUE", parameter);
}

/// RETURNVALUE; nothing for null.
pub(super) fn returnvalue(out: &mut String, returned: &TypedValue) {
    if let Some(content) = &returned.value {
        out.push_str("<RETURNVALUE");
        attribute(out, "PARAMTYPE", returned.ty.name());
        embedded_object(out, Some(content));
        close_with(out, "RETURNVALUE", returned);
    }
}
