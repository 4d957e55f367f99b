//! DSP0200's extension headers (§6.3): found with or without the prefix that
//! M-POST's `Man` header declares, decoded, and compared with the request that
//! they describe.

use http::{HeaderMap, HeaderValue, Method};
use isochron_cim::ObjectPath;

use super::refusal::Refusal;
use crate::decode::{Call, Request};

/// The extension declaration's name (DSP0200 §6.2).
pub(super) const MAPPING: &str = "http://www.dmtf.org/cim/mapping/http/v1.0";

/// A request's extension headers.
pub(super) struct Extension<'a> {
    headers: &'a HeaderMap,
    /// The digits before the headers' names, where `Man` or `Opt` declares any.
    prefix: Option<String>,
}

impl<'a> Extension<'a> {
    /// # Errors
    /// An M-POST request without the declaration that makes it one (RFC 2774).
    pub fn of(method: &Method, headers: &'a HeaderMap) -> Result<Self, Refusal> {
        let prefix = ["man", "opt"]
            .iter()
            .flat_map(|name| headers.get_all(*name))
            .filter_map(|value| value.to_str().ok())
            .find_map(declared_prefix);
        if method.as_str() == "M-POST" && prefix.is_none() {
            return Err(Refusal::not_extended());
        }
        Ok(Self {
            headers,
            prefix: prefix.flatten(),
        })
    }

    /// The declared prefix, which the response uses too.
    pub fn prefix(&self) -> Option<&str> {
        self.prefix.as_deref()
    }

    fn get(&self, name: &str) -> Option<&'a HeaderValue> {
        let prefixed = self
            .prefix
            .as_ref()
            .and_then(|ns| self.headers.get(format!("{ns}-{name}")));
        prefixed.or_else(|| self.headers.get(name))
    }

    /// A header's text, percent-decoded (§6.3.1, §6.3.2).
    fn decoded(&self, name: &'static str) -> Result<Option<String>, Refusal> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        percent_decoded(value.as_bytes())
            .map(Some)
            .ok_or_else(|| Refusal::mismatch(format!("{name} is not percent-encoded UTF-8")))
    }

    /// Whether a header is there more than once: which of them counts is not to be
    /// guessed (§6.3 defines one of each).
    fn is_ambiguous(&self, name: &str) -> bool {
        let many = |name: &str| self.headers.get_all(name).iter().nth(1).is_some();
        let prefixed = self.prefix.as_ref().map(|ns| format!("{ns}-{name}"));
        many(name) || prefixed.is_some_and(|name| many(&name))
    }

    /// What must hold before the body is worth reading (§6.3.3, §6.3.5, §6.3.9).
    pub fn check_before_body(&self) -> Result<(), Refusal> {
        let single = [
            "CIMOperation",
            "CIMProtocolVersion",
            "CIMMethod",
            "CIMObject",
        ];
        if let Some(name) = single.into_iter().find(|name| self.is_ambiguous(name)) {
            return Err(Refusal::mismatch(format!("{name} is given more than once")));
        }
        match self.decoded("cimoperation")?.as_deref().map(str::trim) {
            Some(operation) if operation.eq_ignore_ascii_case("MethodCall") => {}
            Some(other) => {
                return Err(Refusal::unsupported_operation(format!(
                    "CIMOperation is MethodCall, not {other:?}"
                )));
            }
            None if self.get("cimexport").is_some() => {
                return Err(Refusal::unsupported_operation(
                    "this server is no listener for indications".into(),
                ));
            }
            None => {
                return Err(Refusal::unsupported_operation(
                    "a CIM operation needs the header CIMOperation: MethodCall".into(),
                ));
            }
        }
        if self.get("cimbatch").is_some() {
            return Err(Refusal::multiple_requests());
        }
        match self.decoded("cimprotocolversion")? {
            Some(version) if version.trim().split('.').next() != Some("1") => {
                Err(Refusal::protocol_version(&version))
            }
            _ => Ok(()),
        }
    }

    /// Whether the headers say what the body says (§6.3.5 to §6.3.7).
    pub fn check_against(&self, request: &Request) -> Result<(), Refusal> {
        if let Some(version) = self.decoded("cimprotocolversion")?
            && version.trim() != request.protocol_version
        {
            return Err(Refusal::mismatch(format!(
                "CIMProtocolVersion is {version}, the message's is {}",
                request.protocol_version
            )));
        }
        let needed = |name: &'static str| {
            self.decoded(name)?
                .ok_or_else(|| Refusal::mismatch(format!("{name} is missing")))
        };
        let method = needed("cimmethod")?;
        if !method.trim().eq_ignore_ascii_case(&request.method) {
            return Err(Refusal::mismatch(format!(
                "CIMMethod is {method:?}, the message calls {:?}",
                request.method
            )));
        }
        let object = needed("cimobject")?;
        if names(&object, &request.call) {
            Ok(())
        } else {
            Err(Refusal::mismatch(format!(
                "CIMObject {object:?} is not what the message is for"
            )))
        }
    }
}

/// The prefix in a declaration of our mapping: `Some(None)` where there is a
/// declaration without `ns`.
fn declared_prefix(declaration: &str) -> Option<Option<String>> {
    let mut parts = declaration.split(';').map(str::trim);
    if !parts
        .next()?
        .trim_matches('"')
        .eq_ignore_ascii_case(MAPPING)
    {
        return None;
    }
    Some(parts.find_map(|part| {
        let (key, value) = part.split_once('=')?;
        let value = value.trim().trim_matches('"');
        let digits = (1..=4).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit());
        (key.trim().eq_ignore_ascii_case("ns") && digits).then(|| value.to_owned())
    }))
}

/// Whether CIMObject names the call's target: a namespace for an intrinsic
/// method, a class or instance with its namespace for an extrinsic one.
fn names(object: &str, call: &Call) -> bool {
    match call {
        Call::Intrinsic { namespace, .. } => {
            let normal = object.trim().replace('\\', "/");
            normal.trim_matches('/').eq_ignore_ascii_case(namespace)
        }
        Call::Extrinsic { target, .. } => match object.trim().parse::<ObjectPath>() {
            Ok(path) => {
                let ObjectPath { namespace, .. } = &path;
                let namespaces = namespace.as_deref().unwrap_or_default();
                let expected = target.namespace.as_deref().unwrap_or_default();
                namespaces.trim_matches('/').eq_ignore_ascii_case(expected)
                    && path.relative() == target.relative()
            }
            Err(_) => false,
        },
    }
}

/// Decodes `%XX`; `None` if that is broken or gives no UTF-8.
pub(super) fn percent_decoded(bytes: &[u8]) -> Option<String> {
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            // from_str_radix takes a sign, an escape has none.
            if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            decoded.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            decoded.push(first);
            rest = tail;
        }
    }
    String::from_utf8(decoded).ok()
}

/// Percent-encodes what a header cannot carry, and `%`.
pub(super) fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | 0..0x20 | 0x7f.. => encoded.push_str(&format!("%{byte:02X}")),
            _ => encoded.push(char::from(byte)),
        }
    }
    encoded
}
