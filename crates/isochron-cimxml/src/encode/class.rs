//! Class declarations and qualifier types (DSP0201 §5.2.2 and §5.2.5).

use indexmap::IndexMap;
use isochron_cim::{
    CimType, Class, Flavor, Method, Name, Parameter, PropertyDecl, Qualifier, QualifierDecl, Scope,
    Value,
};

use super::object::{close_with, property_element, type_attribute};
use super::{attribute, flag};
use crate::decode::SCOPES;

/// Appends CLASS. An element whose class of origin is the empty name carries
/// no CLASSORIGIN (a client asks for it with IncludeClassOrigin).
pub fn class(out: &mut String, class: &Class) {
    out.push_str("<CLASS");
    attribute(out, "NAME", class.name.as_str());
    if let Some(superclass) = &class.superclass {
        attribute(out, "SUPERCLASS", superclass.as_str());
    }
    out.push('>');
    qualifiers(out, &class.qualifiers);
    for (name, property) in &class.properties {
        property_decl(out, name, property);
    }
    for (name, declared) in &class.methods {
        method(out, name, declared);
    }
    out.push_str("</CLASS>");
}

fn property_decl(out: &mut String, name: &Name, property: &PropertyDecl) {
    let ty = &property.value.ty;
    let element = property_element(ty, property.value.is_array);
    out.push('<');
    out.push_str(element);
    attribute(out, "NAME", name.as_str());
    type_attribute(out, ty);
    array_size(out, property.array_size);
    origin(out, &property.class_origin, property.propagated);
    embedded_object(out, &property.qualifiers);
    out.push('>');
    qualifiers(out, &property.qualifiers);
    if let Some(default) = &property.value.value {
        super::object::value(out, ty, default);
    }
    end(out, element);
}

fn method(out: &mut String, name: &Name, method: &Method) {
    out.push_str("<METHOD");
    attribute(out, "NAME", name.as_str());
    attribute(out, "TYPE", method.return_type.name());
    origin(out, &method.class_origin, method.propagated);
    out.push('>');
    qualifiers(out, &method.qualifiers);
    for (name, declared) in &method.parameters {
        parameter(out, name, declared);
    }
    out.push_str("</METHOD>");
}

fn parameter(out: &mut String, name: &Name, parameter: &Parameter) {
    let element = match (&parameter.ty, parameter.is_array) {
        (CimType::Reference(_), false) => "PARAMETER.REFERENCE",
        (CimType::Reference(_), true) => "PARAMETER.REFARRAY",
        (_, false) => "PARAMETER",
        (_, true) => "PARAMETER.ARRAY",
    };
    out.push('<');
    out.push_str(element);
    attribute(out, "NAME", name.as_str());
    type_attribute(out, &parameter.ty);
    array_size(out, parameter.array_size);
    out.push('>');
    qualifiers(out, &parameter.qualifiers);
    end(out, element);
}

fn qualifiers(out: &mut String, qualifiers: &IndexMap<Name, Qualifier>) {
    for (name, qualifier) in qualifiers {
        out.push_str("<QUALIFIER");
        attribute(out, "NAME", name.as_str());
        attribute(out, "TYPE", qualifier.value.ty.name());
        if qualifier.propagated {
            flag(out, "PROPAGATED", true);
        }
        flavor(out, qualifier.flavor);
        close_with(out, "QUALIFIER", &qualifier.value);
    }
}

/// Appends QUALIFIER.DECLARATION.
pub fn qualifier_declaration(out: &mut String, declared: &QualifierDecl) {
    let element = "QUALIFIER.DECLARATION";
    out.push('<');
    out.push_str(element);
    attribute(out, "NAME", declared.name.as_str());
    attribute(out, "TYPE", declared.value.ty.name());
    flag(out, "ISARRAY", declared.value.is_array);
    array_size(out, declared.array_size);
    flavor(out, declared.flavor);
    out.push_str("><SCOPE");
    for (name, scope) in SCOPES {
        if declared.scope.contains(&scope) || declared.scope.contains(&Scope::Any) {
            flag(out, name, true);
        }
    }
    out.push_str("/>");
    if let Some(default) = &declared.value.value {
        super::object::value(out, &declared.value.ty, default);
    }
    end(out, element);
}

/// The flavors that differ from DSP0201's defaults.
fn flavor(out: &mut String, flavor: Flavor) {
    if !flavor.overridable {
        flag(out, "OVERRIDABLE", false);
    }
    if !flavor.to_subclass {
        flag(out, "TOSUBCLASS", false);
    }
    if flavor.translatable {
        flag(out, "TRANSLATABLE", true);
    }
}

fn array_size(out: &mut String, size: Option<u32>) {
    if let Some(size) = size {
        attribute(out, "ARRAYSIZE", &size.to_string());
    }
}

fn origin(out: &mut String, class: &Name, propagated: bool) {
    if !class.is("") {
        attribute(out, "CLASSORIGIN", class.as_str());
    }
    if propagated {
        flag(out, "PROPAGATED", true);
    }
}

/// EmbeddedObject as the qualifiers of the same names say it.
fn embedded_object(out: &mut String, qualifiers: &IndexMap<Name, Qualifier>) {
    let value = |name: &'static str| qualifiers.get(&Name::fixed(name))?.value.value.as_ref();
    if value("EmbeddedInstance").is_some() {
        attribute(out, "EmbeddedObject", "instance");
    } else if value("EmbeddedObject").and_then(Value::as_bool) == Some(true) {
        attribute(out, "EmbeddedObject", "object");
    }
}

fn end(out: &mut String, element: &str) {
    out.push_str("</");
    out.push_str(element);
    out.push('>');
}
