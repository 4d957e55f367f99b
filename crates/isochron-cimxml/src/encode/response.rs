//! Response messages (DSP0201 §5.2.6): SIMPLERSP around what an operation
//! returned, or around its error.

use isochron_cim::{CimError, ObjectPath, Outcome};

use super::object::returnvalue;
use super::object::{classname, classpath, instance, instancename, instancepath, paramvalue};
use super::{attribute, class, qualifier_declaration};
use crate::operations::{Answer, Object};

/// Where objects come from that do not say it themselves: what a path with
/// host and namespace needs.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The server's name, as the client knows it.
    pub host: &'a str,
    /// The namespace of the operation.
    pub namespace: &'a str,
}

/// The response to an intrinsic method.
pub fn imethodresponse(id: &str, method: &str, answer: &Answer, origin: Origin<'_>) -> String {
    message(id, "IMETHODRESPONSE", method, |out| {
        if let Answer::Nothing = answer {
            return;
        }
        out.push_str("<IRETURNVALUE>");
        ireturnvalue(out, answer, origin);
        out.push_str("</IRETURNVALUE>");
    })
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
        "IMETHODRESPONSE"
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
    out.push_str("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n");
    out.push_str("<CIM CIMVERSION=\"2.0\" DTDVERSION=\"2.0\"><MESSAGE");
    attribute(&mut out, "ID", id);
    out.push_str(" PROTOCOLVERSION=\"1.0\"><SIMPLERSP><");
    out.push_str(element);
    attribute(&mut out, "NAME", method);
    out.push('>');
    content(&mut out);
    out.push_str("</");
    out.push_str(element);
    out.push_str("></SIMPLERSP></MESSAGE></CIM>\n");
    out
}

fn ireturnvalue(out: &mut String, answer: &Answer, origin: Origin<'_>) {
    match answer {
        Answer::Nothing => {}
        Answer::Classes(classes) => classes.iter().for_each(|item| class(out, item)),
        Answer::ClassNames(names) => names.iter().for_each(|name| classname(out, name)),
        Answer::Instances(items) => items.iter().for_each(|item| instance(out, item)),
        Answer::NamedInstances(items) => {
            for item in items {
                out.push_str("<VALUE.NAMEDINSTANCE>");
                if let Some(path) = &item.path {
                    instancename(out, path);
                }
                instance(out, item);
                out.push_str("</VALUE.NAMEDINSTANCE>");
            }
        }
        Answer::InstanceNames(paths) => paths.iter().for_each(|path| instancename(out, path)),
        Answer::ObjectsWithPath(objects) => {
            for object in objects {
                out.push_str("<VALUE.OBJECTWITHPATH>");
                match object {
                    Object::Instance(item) => {
                        if let Some(path) = &item.path {
                            full_instancepath(out, path, origin);
                        }
                        instance(out, item);
                    }
                    Object::Class(item) => {
                        classpath(out, origin.host, origin.namespace, &item.name);
                        class(out, item);
                    }
                }
                out.push_str("</VALUE.OBJECTWITHPATH>");
            }
        }
        Answer::ObjectPaths(paths) => {
            for path in paths {
                out.push_str("<OBJECTPATH>");
                if path.keys.is_empty() {
                    classpath(out, origin.host, origin.namespace, &path.class);
                } else {
                    full_instancepath(out, path, origin);
                }
                out.push_str("</OBJECTPATH>");
            }
        }
        Answer::Qualifiers(items) => items
            .iter()
            .for_each(|item| qualifier_declaration(out, item)),
    }
}

fn full_instancepath(out: &mut String, path: &ObjectPath, origin: Origin<'_>) {
    let host = path.host.as_deref().unwrap_or(origin.host);
    let namespace = path.namespace.as_deref().unwrap_or(origin.namespace);
    instancepath(out, host, namespace, path);
}
