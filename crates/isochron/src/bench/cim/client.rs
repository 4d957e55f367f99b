//! A CIM-XML client that does no more than a benchmark needs: it writes requests as
//! text and looks for elements in the answer's text, so that the time measured is
//! the server's and not its own.

use std::fmt::Write as _;

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::bench::asking::{self, Ask, Target};

const CLASS: &str = "Isochron_BenchRecord";
const MSVM: &str = "root/HyperVCluster/v2";
const SERVICE: &str = "Msvm_CollectionSnapshotService";

/// One kept connection, one request at a time.
pub struct Connection(asking::Connection);

impl Connection {
    /// One of its own.
    pub async fn to(target: &Target) -> Result<Self> {
        Ok(Self(target.connect().await?))
    }

    /// The answer's text; an answer that tells of an error is one.
    pub async fn call(&mut self, request: &Request) -> Result<String> {
        request.call(&mut self.0).await
    }

    /// How often an element begins in the answer, and the answer's bytes, of which
    /// never more than a piece is kept.
    pub async fn count(&mut self, request: &Request, element: &str) -> Result<(usize, usize)> {
        let mut body = request.send(&mut self.0).await?;
        let (mut found, mut bytes) = (0, 0);
        let mut piece = String::new();
        let mut broken = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            bytes += data.len();
            broken.extend_from_slice(&data);
            // A character may be cut in two: its rest comes with the next frame.
            let whole = broken.utf8_chunks().next().map_or(0, |c| c.valid().len());
            piece.push_str(std::str::from_utf8(&broken[..whole])?);
            broken.drain(..whole);
            found += piece.matches(element).count();
            check(request, &piece)?;
            // What may be an element's beginning is kept.
            let mut keep = piece.rfind('<').unwrap_or(piece.len());
            if piece[keep..].starts_with(element) {
                keep = piece.len();
            }
            piece.drain(..keep);
        }
        Ok((found, bytes))
    }
}

fn check(request: &Request, answer: &str) -> Result<()> {
    if let Some((_, error)) = answer.split_once("<ERROR ") {
        let told = error.split('>').next().unwrap_or_default();
        bail!("{} failed: {told}", request.operation);
    }
    Ok(())
}

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    method: Method,
    operation: &'static str,
    namespace: String,
    body: Bytes,
}

impl Request {
    fn new(operation: &'static str, namespace: &str, parameters: &[(&str, &str)]) -> Self {
        let mut body = String::from(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<CIM CIMVERSION=\"2.0\" \
             DTDVERSION=\"2.0\"><MESSAGE ID=\"1\" PROTOCOLVERSION=\"1.0\"><SIMPLEREQ>",
        );
        // Writing to a string cannot fail.
        let _ = write!(
            body,
            "<IMETHODCALL NAME=\"{operation}\"><LOCALNAMESPACEPATH>"
        );
        for part in namespace.split('/') {
            let _ = write!(body, "<NAMESPACE NAME=\"{part}\"/>");
        }
        body.push_str("</LOCALNAMESPACEPATH>");
        for (name, value) in parameters {
            let _ = write!(body, "<IPARAMVALUE NAME=\"{name}\">{value}</IPARAMVALUE>");
        }
        body.push_str("</IMETHODCALL></SIMPLEREQ></MESSAGE></CIM>");
        Self {
            method: Method::POST,
            operation,
            namespace: namespace.to_owned(),
            body: body.into(),
        }
    }

    /// Sends it; the answer as it comes.
    async fn send(&self, connection: &mut asking::Connection) -> Result<Incoming> {
        let mut message = http::Request::builder()
            .method(self.method.clone())
            .header(CONTENT_TYPE, "application/xml; charset=\"utf-8\"");
        if self.method == Method::POST {
            message = message
                .header("CIMOperation", "MethodCall")
                .header("CIMMethod", self.operation)
                .header("CIMObject", &self.namespace);
        }
        let answer = connection.send(message, self.body.clone()).await?;
        let expected = match self.method == Method::POST {
            true => StatusCode::OK,
            false => StatusCode::METHOD_NOT_ALLOWED,
        };
        ensure!(
            answer.status() == expected,
            "{}: the server answered {}",
            self.operation,
            answer.status()
        );
        Ok(answer.into_body())
    }

    /// The answer's text.
    async fn call(&self, connection: &mut asking::Connection) -> Result<String> {
        let answer = self.send(connection).await?.collect().await?.to_bytes();
        let text = String::from_utf8(answer.into())?;
        check(self, &text)?;
        Ok(text)
    }

    /// One that HTTP refuses before anything of CIM is read.
    pub fn refused() -> Self {
        Self {
            method: Method::GET,
            operation: "GET",
            namespace: String::new(),
            body: Bytes::new(),
        }
    }

    pub fn create_namespace(name: &str) -> Self {
        let instance = format!(
            "<INSTANCE CLASSNAME=\"CIM_Namespace\"><PROPERTY NAME=\"Name\" \
             TYPE=\"string\"><VALUE>{name}</VALUE></PROPERTY></INSTANCE>"
        );
        Self::new("CreateInstance", "interop", &[("NewInstance", &instance)])
    }

    pub fn namespaces() -> Self {
        Self::new(
            "EnumerateInstanceNames",
            "interop",
            &[("ClassName", "<CLASSNAME NAME=\"CIM_Namespace\"/>")],
        )
    }

    pub fn delete_namespace(path: &str) -> Self {
        Self::new("DeleteInstance", "interop", &[("InstanceName", path)])
    }

    pub fn set_key_qualifier(namespace: &str) -> Self {
        let declaration = "<QUALIFIER.DECLARATION NAME=\"Key\" TYPE=\"boolean\" ISARRAY=\"false\" \
             OVERRIDABLE=\"false\" TOSUBCLASS=\"true\"><SCOPE PROPERTY=\"true\" \
             REFERENCE=\"true\"/><VALUE>FALSE</VALUE></QUALIFIER.DECLARATION>";
        Self::new(
            "SetQualifier",
            namespace,
            &[("QualifierDeclaration", declaration)],
        )
    }

    pub fn delete_qualifier(namespace: &str) -> Self {
        let name = "<VALUE>Key</VALUE>";
        Self::new("DeleteQualifier", namespace, &[("QualifierName", name)])
    }

    pub fn create_class(namespace: &str) -> Self {
        let class = format!(
            "<CLASS NAME=\"{CLASS}\"><PROPERTY NAME=\"Id\" TYPE=\"uint32\"><QUALIFIER \
             NAME=\"Key\" TYPE=\"boolean\"><VALUE>TRUE</VALUE></QUALIFIER></PROPERTY><PROPERTY \
             NAME=\"Text\" TYPE=\"string\"/></CLASS>"
        );
        Self::new("CreateClass", namespace, &[("NewClass", &class)])
    }

    pub fn delete_class(namespace: &str) -> Self {
        Self::new("DeleteClass", namespace, &[("ClassName", &class())])
    }

    pub fn create_instance(namespace: &str, id: u32, text: usize) -> Self {
        let text = "what is kept ".repeat(text / 13 + 1);
        let instance = format!(
            "<INSTANCE CLASSNAME=\"{CLASS}\"><PROPERTY NAME=\"Id\" \
             TYPE=\"uint32\"><VALUE>{id}</VALUE></PROPERTY><PROPERTY NAME=\"Text\" \
             TYPE=\"string\"><VALUE>{text}</VALUE></PROPERTY></INSTANCE>"
        );
        Self::new("CreateInstance", namespace, &[("NewInstance", &instance)])
    }

    pub fn delete_instance(namespace: &str, id: u32) -> Self {
        Self::new(
            "DeleteInstance",
            namespace,
            &[("InstanceName", &record(id))],
        )
    }

    pub fn get_instance(namespace: &str, id: u32) -> Self {
        Self::new("GetInstance", namespace, &[("InstanceName", &record(id))])
    }

    pub fn enumerate(namespace: &str) -> Self {
        Self::new("EnumerateInstances", namespace, &[("ClassName", &class())])
    }

    pub fn enumerate_names(namespace: &str) -> Self {
        Self::new(
            "EnumerateInstanceNames",
            namespace,
            &[("ClassName", &class())],
        )
    }

    pub fn open(namespace: &str, count: u32) -> Self {
        Self::new(
            "OpenEnumerateInstances",
            namespace,
            &[("ClassName", &class()), ("MaxObjectCount", &value(count))],
        )
    }

    pub fn pull(namespace: &str, context: &str, count: u32) -> Self {
        let context = format!("<VALUE>{context}</VALUE>");
        Self::new(
            "PullInstancesWithPath",
            namespace,
            &[
                ("EnumerationContext", &context),
                ("MaxObjectCount", &value(count)),
            ],
        )
    }

    pub fn services() -> Self {
        Self::new(
            "EnumerateInstanceNames",
            MSVM,
            &[("ClassName", &format!("<CLASSNAME NAME=\"{SERVICE}\"/>"))],
        )
    }

    pub fn get_service(path: &str) -> Self {
        Self::new("GetInstance", MSVM, &[("InstanceName", path)])
    }

    pub fn associator_names(path: &str) -> Self {
        Self::new("AssociatorNames", MSVM, &[("ObjectName", path)])
    }

    pub fn get_class() -> Self {
        Self::new(
            "GetClass",
            MSVM,
            &[("ClassName", &format!("<CLASSNAME NAME=\"{SERVICE}\"/>"))],
        )
    }
}

/// In turn.
impl Ask for Vec<Request> {
    async fn ask(&self, connection: &mut asking::Connection, number: usize) -> Result<()> {
        self[number % self.len()].call(connection).await?;
        Ok(())
    }
}

fn class() -> String {
    format!("<CLASSNAME NAME=\"{CLASS}\"/>")
}

fn value(number: u32) -> String {
    format!("<VALUE>{number}</VALUE>")
}

fn record(id: u32) -> String {
    format!(
        "<INSTANCENAME CLASSNAME=\"{CLASS}\"><KEYBINDING NAME=\"Id\"><KEYVALUE \
         VALUETYPE=\"numeric\">{id}</KEYVALUE></KEYBINDING></INSTANCENAME>"
    )
}

/// The first instance's name in an answer.
pub fn first_path(answer: &str) -> Option<&str> {
    paths(answer).next()
}

/// The name of a namespace's instance.
pub fn namespace_path<'a>(answer: &'a str, namespace: &str) -> Option<&'a str> {
    let key = format!(">{namespace}</KEYVALUE>");
    paths(answer).find(|path| path.contains(&key))
}

/// The names of instances in an answer.
fn paths(answer: &str) -> impl Iterator<Item = &str> {
    const END: &str = "</INSTANCENAME>";
    let mut rest = answer;
    std::iter::from_fn(move || {
        let from = rest.find("<INSTANCENAME ")?;
        let length = rest[from..].find(END)? + END.len();
        let path = &rest[from..from + length];
        rest = &rest[from + length..];
        Some(path)
    })
}

/// The context with which an enumeration goes on, unless it is at its end.
pub fn context(answer: &str) -> Option<&str> {
    let value_of = |parameter: &str| {
        let (_, rest) = answer.split_once(&format!("NAME=\"{parameter}\""))?;
        let (_, rest) = rest.split_once("<VALUE>")?;
        Some(rest.split_once("</VALUE>")?.0)
    };
    match value_of("EndOfSequence")?.eq_ignore_ascii_case("true") {
        true => None,
        false => value_of("EnumerationContext"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_contexts_are_found_in_answers() {
        let answer = "<A><INSTANCENAME CLASSNAME=\"X\"><KEYVALUE>one</KEYVALUE></INSTANCENAME>\
             <INSTANCENAME CLASSNAME=\"X\"><KEYVALUE>two</KEYVALUE></INSTANCENAME></A>";
        assert!(first_path(answer).is_some_and(|path| path.contains("one")));
        assert!(namespace_path(answer, "two").is_some_and(|path| !path.contains("one")));
        assert_eq!(namespace_path(answer, "tw"), None);
        let open = |end: &str| {
            format!(
                "<PARAMVALUE NAME=\"EndOfSequence\"><VALUE>{end}</VALUE></PARAMVALUE>\
                 <PARAMVALUE NAME=\"EnumerationContext\"><VALUE>7</VALUE></PARAMVALUE>"
            )
        };
        assert_eq!(context(&open("FALSE")), Some("7"));
        assert_eq!(context(&open("TRUE")), None);
    }
}
