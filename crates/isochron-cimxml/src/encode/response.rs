//! Response messages (DSP0201 §5.2.6): SIMPLERSP around what an operation
//! returned, or around its error.

use isochron_cim::{CimError, Class, Instance, ObjectPath, Outcome};

use super::object::returnvalue;
use super::object::{
    classname, classpath, instance, instancename, instancepath, paramvalue, value,
};
use super::{attribute, class, qualifier_declaration};
use crate::operations::Item;

const IMETHODRESPONSE: &str = "IMETHODRESPONSE";

/// Where objects come from that do not say it themselves: what a path with
/// host and namespace needs.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The server's name, as the client knows it.
    pub host: &'a str,
    /// The namespace of the operation.
    pub namespace: &'a str,
}

/// The response to an intrinsic method that returns no value.
pub fn empty_imethodresponse(id: &str, method: &str) -> String {
    message(id, IMETHODRESPONSE, method, |_| {})
}

/// The response to an intrinsic method that returns these elements and, if it opens
/// or reads an enumeration, where that stands.
pub fn imethodresponse(
    id: &str,
    method: &str,
    items: &[Item],
    state: Option<&EnumerationState>,
    origin: Origin<'_>,
) -> String {
    let mut out = begin_imethodresponse(id, method);
    items
        .iter()
        .for_each(|returned| item(&mut out, returned, origin));
    end_imethodresponse(&mut out, state);
    out
}

/// Where a pulled enumeration stands.
#[derive(Clone, Debug, PartialEq)]
pub struct EnumerationState {
    /// EnumerationContext; `None` is the end of the sequence.
    pub context: Option<String>,
    /// QueryResultClass, where it was asked for.
    pub class: Option<Box<Class>>,
}

/// The response to an intrinsic method, as far as the returned elements. Each is
/// appended by [`item`], and then [`end_imethodresponse`].
pub fn begin_imethodresponse(id: &str, method: &str) -> String {
    let mut out = String::with_capacity(1024);
    begin(&mut out, id, IMETHODRESPONSE, method);
    out.push_str("<IRETURNVALUE>");
    out
}

/// Appends what follows the returned elements.
pub fn end_imethodresponse(out: &mut String, state: Option<&EnumerationState>) {
    out.push_str("</IRETURNVALUE>");
    if let Some(EnumerationState { context, class }) = state {
        if let Some(class) = class {
            out.push_str("<PARAMVALUE NAME=\"QueryResultClass\">");
            super::class(out, class);
            out.push_str("</PARAMVALUE>");
        }
        if let Some(context) = context {
            out.push_str("<PARAMVALUE NAME=\"EnumerationContext\" PARAMTYPE=\"string\"><VALUE>");
            super::text(out, context);
            out.push_str("</VALUE></PARAMVALUE>");
        }
        let end = context.is_none();
        out.push_str("<PARAMVALUE NAME=\"EndOfSequence\" PARAMTYPE=\"boolean\"><VALUE>");
        out.push_str(if end { "true" } else { "false" });
        out.push_str("</VALUE></PARAMVALUE>");
    }
    end(out, IMETHODRESPONSE);
}

/// The response to an extrinsic method.
pub fn methodresponse(id: &str, method: &str, outcome: &Outcome) -> String {
    message(id, "METHODRESPONSE", method, |out| {
        returnvalue(out, &outcome.return_value);
        for (name, parameter) in &outcome.parameters {
            paramvalue(out, name, parameter);
        }
    })
}

/// The response that says why a method failed.
pub fn error_response(id: &str, method: &str, intrinsic: bool, error: &CimError) -> String {
    let element = if intrinsic {
        IMETHODRESPONSE
    } else {
        "METHODRESPONSE"
    };
    message(id, element, method, |out| {
        out.push_str("<ERROR");
        attribute(out, "CODE", &error.status.code().to_string());
        attribute(out, "DESCRIPTION", &error.message);
        out.push_str("/>");
    })
}

fn message(id: &str, element: &str, method: &str, content: impl FnOnce(&mut String)) -> String {
    let mut out = String::with_capacity(1024);
    begin(&mut out, id, element, method);
    content(&mut out);
    end(&mut out, element);
    out
}

fn begin(out: &mut String, id: &str, element: &str, method: &str) {
    out.push_str("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n");
    out.push_str("<CIM CIMVERSION=\"2.0\" DTDVERSION=\"2.0\"><MESSAGE");
    attribute(out, "ID", id);
    out.push_str(" PROTOCOLVERSION=\"1.0\"><SIMPLERSP><");
    out.push_str(element);
    attribute(out, "NAME", method);
    out.push('>');
}

fn end(out: &mut String, element: &str) {
    out.push_str("</");
    out.push_str(element);
    out.push_str("></SIMPLERSP></MESSAGE></CIM>\n");
}

/// Appends an element of IRETURNVALUE.
pub fn item(out: &mut String, item: &Item, origin: Origin<'_>) {
    match item {
        Item::Class(item) => class(out, item),
        Item::ClassName(name) => classname(out, name),
        Item::Instance(item) => instance(out, item),
        Item::NamedInstance(item) => {
            out.push_str("<VALUE.NAMEDINSTANCE>");
            if let Some(path) = &item.path {
                instancename(out, path);
            }
            instance(out, item);
            out.push_str("</VALUE.NAMEDINSTANCE>");
        }
        Item::InstanceWithPath(item) => {
            out.push_str("<VALUE.INSTANCEWITHPATH>");
            instance_with_path(out, item, origin);
            out.push_str("</VALUE.INSTANCEWITHPATH>");
        }
        Item::InstanceName(path) => instancename(out, path),
        Item::InstancePath(path) => full_instancepath(out, path, origin),
        Item::ObjectWithPath(item) => {
            out.push_str("<VALUE.OBJECTWITHPATH>");
            instance_with_path(out, item, origin);
            out.push_str("</VALUE.OBJECTWITHPATH>");
        }
        Item::ClassWithPath(item) => {
            out.push_str("<VALUE.OBJECTWITHPATH>");
            classpath(out, origin.host, origin.namespace, &item.name);
            class(out, item);
            out.push_str("</VALUE.OBJECTWITHPATH>");
        }
        Item::ObjectPath(path) => {
            out.push_str("<OBJECTPATH>");
            if path.keys.is_empty() {
                classpath(out, origin.host, origin.namespace, &path.class);
            } else {
                full_instancepath(out, path, origin);
            }
            out.push_str("</OBJECTPATH>");
        }
        Item::Qualifier(item) => qualifier_declaration(out, item),
        Item::Value(typed) => {
            if let Some(content) = &typed.value {
                value(out, &typed.ty, content);
            }
        }
    }
}

fn instance_with_path(out: &mut String, item: &Instance, origin: Origin<'_>) {
    if let Some(path) = &item.path {
        full_instancepath(out, path, origin);
    }
    instance(out, item);
}

fn full_instancepath(out: &mut String, path: &ObjectPath, origin: Origin<'_>) {
    let host = path.host.as_deref().unwrap_or(origin.host);
    let namespace = path.namespace.as_deref().unwrap_or(origin.namespace);
    instancepath(out, host, namespace, path);
}
