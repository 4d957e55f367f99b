//! A request: its headers, decoded and checked, and what its body holds.
//!
//! Every header that is known is read, whether it has to be understood or not; one that
//! is not known is passed over unless it has to be (SOAP 1.2 part 1, §5.2.3).

use std::fmt;
use std::time::Duration;

use isochron_cimxml::decode::Limits;

use super::{Fault, Kind, Node, duration};
use crate::names::{ADDRESSING, ANONYMOUS, EVENTING, SECURITY, SOAP, TRUST, WSMAN, WSMV, XML};

/// The most selectors, and the most options (DSP0226 §14.6, `SelectorLimit`,
/// `OptionLimit`).
const SET_MAX: usize = 256;

/// The longest URI, in bytes (DSP0226 R13.1-6 asks for 2048 at least).
const URI_MAX: usize = 4096;

/// The least envelope that a client may ask replies to fit in (DSP0226 R6.2-4).
pub(crate) const ENVELOPE_MIN: usize = 8192;

/// A request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Its headers.
    pub header: Header,
    /// The elements of its body.
    pub body: Vec<Node>,
}

/// The headers that matter here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Header {
    /// What is to be done (WS-Addressing §3).
    pub action: String,
    /// The message's ID, to the letter.
    pub message_id: Option<String>,
    /// The resource (DSP0226 §5.1.2.1).
    pub resource: Option<String>,
    /// Which instance of it (§5.1.2.2).
    pub selectors: Selectors,
    /// Options (§6.4).
    pub options: Vec<Opt>,
    /// For how long the client waits (§6.1).
    pub timeout: Option<Duration>,
    /// How large the reply may be, in bytes (§6.2).
    pub max_envelope: Option<usize>,
    /// Which subscription is meant (WS-Eventing §3.2).
    pub identifier: Option<String>,
    /// Whether an estimate of the number of items is asked for (§8.2.2).
    pub wants_count: bool,
    /// How we log in where we are to deliver events (annex C, `wst:IssuedTokens`).
    pub credentials: Option<Credentials>,
}

/// A user and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user's name.
    pub user: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    /// Without the password, which is not for logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = &self.user;
        f.debug_struct("Credentials")
            .field("user", user)
            .finish_non_exhaustive()
    }
}

/// Selectors, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selectors(pub Vec<Selector>);

/// One selector.
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: SelectorValue,
}

/// A selector's value.
#[derive(Clone, Debug, PartialEq)]
pub enum SelectorValue {
    /// Text.
    Text(String),
    /// A reference: `wsa:EndpointReference`.
    Reference(Node),
}

/// An option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opt {
    /// Its name; MI's begin with `wmi:` or `wmiarray:`.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Whether a service that does not know it has to refuse.
    pub must_comply: bool,
}

/// Why an envelope is no request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// What has to be answered.
    pub fault: Fault,
    /// To which message, where that much can be seen.
    pub message_id: Option<String>,
}

impl From<Fault> for Box<Unreadable> {
    fn from(fault: Fault) -> Self {
        Self::new(Unreadable {
            fault,
            message_id: None,
        })
    }
}

impl Request {
    /// Reads an envelope.
    ///
    /// # Errors
    /// The fault that has to be answered.
    pub fn read(text: &str, limits: Limits) -> Result<Self, Box<Unreadable>> {
        let root = Node::read(text, limits).map_err(Fault::from)?;
        if !root.is(SOAP, "Envelope") {
            let fault = match root.name.as_str() {
                "Envelope" => Fault::new(
                    Kind::VERSION_MISMATCH,
                    format!("the envelope is of {:?}, not of SOAP 1.2", &*root.namespace),
                ),
                _ => Fault::schema("the document is no SOAP envelope"),
            };
            return Err(fault.into());
        }
        let (mut header, mut body) = (None, None);
        for child in root.children {
            match &*child.name {
                _ if *child.namespace != *SOAP => {}
                "Header" if header.is_none() && body.is_none() => header = Some(child),
                "Body" if body.is_none() => body = Some(child),
                _ => return Err(Fault::schema("the envelope's parts are not in order").into()),
            }
        }
        let blocks = header.map(|header| header.children).unwrap_or_default();
        let id = blocks
            .iter()
            .find(|block| block.is(ADDRESSING, "MessageID"));
        let id = id.map(|block| block.text.clone());
        let read = |body: Option<Node>| {
            let body = body.ok_or_else(|| Fault::schema("the envelope has no body"))?;
            Ok(Self {
                header: Header::read(&blocks)?,
                body: body.children,
            })
        };
        read(body).map_err(|fault| {
            Box::new(Unreadable {
                fault,
                message_id: id,
            })
        })
    }

    /// The body's first element of this name.
    pub(crate) fn body(&self, namespace: &str, name: &str) -> Result<&Node, Fault> {
        let found = self.body.iter().find(|node| node.is(namespace, name));
        found.ok_or_else(|| Fault::schema(format!("the body has no element {name}")))
    }
}

impl Header {
    fn read(blocks: &[Node]) -> Result<Self, Fault> {
        let mut header = Self::default();
        let (mut unknown, mut seen) = (Vec::new(), Vec::new());
        for block in blocks {
            let name = (&*block.namespace, &*block.name);
            if seen.contains(&name) && [ADDRESSING, WSMAN, EVENTING].contains(&name.0) {
                return Err(Fault::new(
                    Kind::INVALID_HEADER,
                    format!("the header {} is there twice", block.name),
                ));
            }
            seen.push(name);
            if !header.take(block)? && has_to_be_understood(block) {
                unknown.push((block.namespace.to_string(), block.name.clone()));
            }
        }
        if !unknown.is_empty() {
            return Err(Fault::must_understand(unknown));
        }
        Ok(header)
    }

    /// Reads a header; false if it is not known.
    fn take(&mut self, block: &Node) -> Result<bool, Fault> {
        match (&*block.namespace, block.name.as_str()) {
            (ADDRESSING, "Action") => self.action = uri(block)?,
            (ADDRESSING, "MessageID") => {
                uri(block)?;
                self.message_id = Some(block.text.clone());
            }
            (ADDRESSING, "ReplyTo" | "FaultTo") => reply_to(block)?,
            (ADDRESSING, "To" | "From" | "RelatesTo") => {}
            (TRUST, "IssuedTokens") => self.credentials = credentials(block),
            (EVENTING, "Identifier") => self.identifier = Some(block.value().to_owned()),
            (WSMAN, "ResourceURI") => self.resource = Some(uri(block)?),
            (WSMAN, "SelectorSet") => self.selectors = Selectors::read(block)?,
            (WSMAN, "OptionSet") => self.options = options(block)?,
            (WSMAN, "OperationTimeout") => {
                // DSP0226 R6.1-2.
                let invalid = |fault: Fault| Fault::new(Kind::INVALID_HEADER, fault.reason);
                let timeout = duration("OperationTimeout", &block.text);
                self.timeout = Some(timeout.map_err(invalid)?);
            }
            (WSMAN, "MaxEnvelopeSize") => self.max_envelope = Some(envelope_size(block)?),
            (WSMAN, "Locale") => locale(block)?,
            (WSMAN, "RequestTotalItemsCountEstimate") => self.wants_count = true,
            (WSMAN, "FragmentTransfer") => {
                return Err(Fault::unsupported(
                    "FragmentLevelAccess",
                    "parts of a representation are not transferred: only all of it",
                ));
            }
            // What would come in an EPR is not asked for, and need not be given.
            (WSMAN, "RequestEPR") => {}
            (
                WSMV,
                "SessionId" | "OperationID" | "SequenceId" | "DataLocale" | "ActivityId"
                | "CompressionType",
            ) => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The resource's URI.
    ///
    /// # Errors
    /// `DestinationUnreachable` with `InvalidResourceURI` (DSP0226 §5.1.2.1).
    pub fn resource(&self) -> Result<&str, Fault> {
        let missing = || {
            Fault::new(
                Kind::DESTINATION_UNREACHABLE,
                "the header wsman:ResourceURI is missing",
            )
            .detailed("InvalidResourceURI")
        };
        self.resource.as_deref().ok_or_else(missing)
    }
}

impl Selectors {
    /// Reads `wsman:SelectorSet`.
    pub(crate) fn read(set: &Node) -> Result<Self, Fault> {
        let mut selectors: Vec<Selector> = Vec::new();
        for child in &set.children {
            if !child.is(WSMAN, "Selector") {
                return Err(Fault::schema(format!(
                    "{} has no place in a SelectorSet",
                    child.name
                )));
            }
            let name = child.attribute("Name").unwrap_or_default();
            if name.is_empty() {
                return Err(Fault::schema("a Selector needs the attribute Name"));
            }
            // DSP0226 R5.1.2.2-4.
            if selectors.iter().any(|s| s.name.eq_ignore_ascii_case(name)) {
                return Err(Fault::new(
                    Kind::INVALID_SELECTORS,
                    format!("the selector {name} is there twice"),
                )
                .detailed("DuplicateSelectors"));
            }
            if selectors.len() == SET_MAX {
                return Err(Fault::new(
                    Kind::ENCODING_LIMIT,
                    format!("there are more than {SET_MAX} selectors"),
                )
                .detailed("SelectorLimit"));
            }
            let value = match child.child(ADDRESSING, "EndpointReference") {
                Some(reference) => SelectorValue::Reference(reference.clone()),
                None if child.children.is_empty() => SelectorValue::Text(child.text.clone()),
                None => {
                    return Err(Fault::new(
                        Kind::INVALID_SELECTORS,
                        format!("the selector {name} is neither text nor an endpoint reference"),
                    )
                    .detailed("InvalidValue"));
                }
            };
            selectors.push(Selector {
                name: name.to_owned(),
                value,
            });
        }
        Ok(Self(selectors))
    }

    /// The text of a selector.
    pub fn text(&self, name: &str) -> Option<&str> {
        let mut found = self.0.iter();
        let found = found.find(|selector| selector.name.eq_ignore_ascii_case(name))?;
        match &found.value {
            SelectorValue::Text(text) => Some(text),
            SelectorValue::Reference(_) => None,
        }
    }
}

/// A header's URI, which must be one in form at least.
fn uri(block: &Node) -> Result<String, Fault> {
    let text = block.value();
    if text.len() > URI_MAX {
        return Err(Fault::new(
            Kind::ENCODING_LIMIT,
            format!("{} is longer than {URI_MAX} bytes", block.name),
        )
        .detailed("URILimitExceeded"));
    }
    if text.is_empty() || !block.children.is_empty() || text.contains(char::is_whitespace) {
        return Err(Fault::new(
            Kind::INVALID_HEADER,
            format!("{} is no URI", block.name),
        ));
    }
    Ok(text.to_owned())
}

/// The user's name and password among security tokens, if they are there.
fn credentials(tokens: &Node) -> Option<Credentials> {
    let mut tokens = tokens.children.iter();
    tokens.find_map(|token| {
        let token = token.child(TRUST, "RequestedSecurityToken")?;
        let token = token.child(SECURITY, "UsernameToken")?;
        let text = |name| Some(token.child(SECURITY, name)?.text.clone());
        Some(Credentials {
            user: text("Username")?.trim().to_owned(),
            password: text("Password")?,
        })
    })
}

/// Replies go back on the connection (DSP0226 R5.4.2-2, R5.4.3-3).
fn reply_to(block: &Node) -> Result<(), Fault> {
    match block.child(ADDRESSING, "Address").map(Node::value) {
        Some(ANONYMOUS) => Ok(()),
        Some(_) => Err(Fault::unsupported(
            "AddressingMode",
            format!(
                "{} is another address than the anonymous one, and replies go back on the \
                 connection that they are asked for on",
                block.name
            ),
        )),
        None => Err(Fault::new(
            Kind::INVALID_HEADER,
            format!("{} has no address", block.name),
        )),
    }
}

fn envelope_size(block: &Node) -> Result<usize, Fault> {
    let size = block.value().parse::<u64>();
    let size = size.map_err(|_| Fault::schema("MaxEnvelopeSize is no number"))?;
    // Where it may be ignored, it is: the least is what is asked for.
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size < ENVELOPE_MIN && has_to_be_understood(block) {
        return Err(Fault::new(
            Kind::ENCODING_LIMIT,
            format!("MaxEnvelopeSize is less than {ENVELOPE_MIN}"),
        )
        .detailed("MinimumEnvelopeLimit"));
    }
    Ok(size.max(ENVELOPE_MIN))
}

/// Texts are in English. Who insists on another language is refused (DSP0226 R6.3-2).
fn locale(block: &Node) -> Result<(), Fault> {
    let language = block.attribute_in(XML, "lang").unwrap_or_default();
    let english = language.is_empty() || language.to_ascii_lowercase().starts_with("en");
    match !english && has_to_be_understood(block) {
        true => Err(Fault::unsupported(
            "Locale",
            format!("texts are in English, not in {language}"),
        )),
        false => Ok(()),
    }
}

/// Reads `wsman:OptionSet` (DSP0226 §6.4).
fn options(set: &Node) -> Result<Vec<Opt>, Fault> {
    let mut options = Vec::new();
    for child in set.children.iter().filter(|c| c.is(WSMAN, "Option")) {
        let name = child.attribute("Name").unwrap_or_default();
        if name.is_empty() {
            return Err(
                Fault::new(Kind::INVALID_OPTIONS, "an Option needs the attribute Name")
                    .detailed("InvalidName"),
            );
        }
        if options.len() == SET_MAX {
            return Err(Fault::new(
                Kind::ENCODING_LIMIT,
                format!("there are more than {SET_MAX} options"),
            )
            .detailed("OptionLimit"));
        }
        let must_comply = child.attribute("MustComply").map(str::trim);
        options.push(Opt {
            name: name.to_owned(),
            value: child.text.clone(),
            must_comply: matches!(must_comply, Some("true" | "1")),
        });
    }
    Ok(options)
}

/// Whether a header says so, to us (SOAP 1.2 part 1, §5.2).
fn has_to_be_understood(block: &Node) -> bool {
    let must = block.attribute_in(SOAP, "mustUnderstand").map(str::trim);
    let role = block.attribute_in(SOAP, "role").unwrap_or_default();
    let ours = role.is_empty()
        || role == format!("{SOAP}/role/next")
        || role == format!("{SOAP}/role/ultimateReceiver");
    matches!(must, Some("true" | "1")) && ours
}
