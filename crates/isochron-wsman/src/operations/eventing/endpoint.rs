//! An endpoint that messages are sent to, as a client's reference names it: the
//! address of events (NotifyTo), and of a subscription's end (EndTo).

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use isochron_cimxml::decode::Limits;
use isochron_net::outgoing::{Destination, Outgoing, SendError, Sender};

use super::ACK;
use crate::names::{ADDRESSING, ANONYMOUS, SOAP};
use crate::soap::{
    Charset, Fault, Kind, Node, close_envelope, decoded, element, message_id, open_message,
};

/// The port of a URL without one.
const HTTP_PORT: u16 = 80;

/// Bytes of a reference that go with every message.
const REFERENCE_MAX: usize = 8 << 10;

/// An endpoint that messages are sent to.
pub(super) struct Endpoint {
    /// `wsa:To`.
    address: String,
    /// The headers that its reference asks for (WS-Addressing 2004/08 §2.3).
    headers: String,
    pub(super) charset: Charset,
    pub(super) authorization: Option<HeaderValue>,
    sender: Sender,
}

/// A message, which may be sent more than once.
pub(super) struct Message {
    id: String,
    envelope: String,
}

impl Endpoint {
    /// Reads a reference. `name` is what it is called.
    ///
    /// # Errors
    /// `UnsupportedFeature` with `AddressingMode`: nothing is sent there; `EncodingLimit`.
    pub(super) fn read(name: &str, reference: &Node, config: &Outgoing) -> Result<Self, Fault> {
        let wrong = |why: String| Fault::unsupported("AddressingMode", format!("{name}: {why}"));
        let address = reference.child(ADDRESSING, "Address").map(Node::value);
        let address = match address {
            None | Some("") => return Err(wrong("it has no address".into())),
            Some(ANONYMOUS) => {
                return Err(wrong(
                    "messages are not sent to the anonymous address".into(),
                ));
            }
            Some(address) => address,
        };
        let destination = Destination::parse(address, HTTP_PORT, config).map_err(wrong)?;
        let mut headers = String::new();
        for kind in ["ReferenceProperties", "ReferenceParameters"] {
            let of_kind = reference.child(ADDRESSING, kind);
            for header in of_kind.iter().flat_map(|node| &node.children) {
                header.write(&mut headers);
            }
        }
        if headers.len() > REFERENCE_MAX {
            return Err(Fault::new(
                Kind::ENCODING_LIMIT,
                format!("{name}: a reference has more than {REFERENCE_MAX} bytes"),
            ));
        }
        Ok(Self {
            address: address.to_owned(),
            headers,
            charset: Charset::Utf8,
            authorization: None,
            sender: Sender::new(destination, config.clone()),
        })
    }

    /// Where it is.
    pub(super) fn destination(&self) -> &Destination {
        self.sender.destination()
    }

    /// Bytes of a message beside its body, at most.
    pub(super) fn frame(&self) -> usize {
        crate::operations::enumerate::FRAME + self.headers.len()
    }

    /// A message to it.
    pub(super) fn message(&self, action: &str, headers: &str, body: &str) -> Message {
        let id = message_id();
        let mut envelope = String::with_capacity(body.len() + self.frame());
        open_message(&mut envelope, action, &id, &self.address, |out| {
            out.push_str("<a:ReplyTo>");
            element(out, "a:Address", ANONYMOUS);
            out.push_str("</a:ReplyTo>");
            out.push_str(headers);
            out.push_str(&self.headers);
        });
        envelope.push_str(body);
        close_envelope(&mut envelope);
        Message { id, envelope }
    }

    /// Sends a message; returns when it was taken, which has to be said by an
    /// acknowledgement where one is `wanted`.
    pub(super) async fn send(&mut self, message: &Message, wanted: bool) -> Result<(), SendError> {
        let media_type = match self.charset {
            Charset::Utf8 => "application/soap+xml;charset=UTF-8",
            Charset::Utf16 => "application/soap+xml;charset=UTF-16",
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let bytes = self.charset.encode(message.envelope.clone());
        let (status, body) = self.sender.post(headers, bytes.into()).await?;
        judge(status, &body, wanted.then_some(&*message.id))
    }
}

/// Whether an answer says that the message of this ID was taken (DSP0226 §10.7); of any
/// message where none has to be acknowledged.
fn judge(status: StatusCode, body: &[u8], id: Option<&str>) -> Result<(), SendError> {
    let envelope = read(body);
    let in_envelope = |part: &str| envelope.as_ref()?.child(SOAP, part);
    if let Some(fault) = in_envelope("Body").and_then(|body| body.child(SOAP, "Fault")) {
        return Err(of_fault(fault));
    }
    if !status.is_success() {
        let what = format!("the receiver answered with HTTP {status}");
        return Err(match status {
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                SendError::Unreachable(what)
            }
            status if status.is_client_error() => SendError::Refused(what),
            _ => SendError::Unreachable(what),
        });
    }
    let Some(id) = id else { return Ok(()) };
    let header = |name: &str| {
        let found = in_envelope("Header")?.child(ADDRESSING, name)?;
        Some(found.value())
    };
    match (header("Action"), header("RelatesTo")) {
        (Some(ACK), Some(related)) if related == id => Ok(()),
        _ => Err(SendError::Unreachable(
            "the receiver's answer is no acknowledgement".into(),
        )),
    }
}

fn read(body: &[u8]) -> Option<Node> {
    let said = match body {
        [_, 0, ..] => Charset::Utf16,
        _ => Charset::Utf8,
    };
    let (text, _) = decoded(body, said).ok()?;
    let root = Node::read(&text, Limits::default()).ok()?;
    root.is(SOAP, "Envelope").then_some(root)
}

/// What a fault means: a receiver that refuses delivery is to be left alone (DSP0226
/// §10.8), as is one that does not understand what it is sent; others may be better
/// later.
fn of_fault(fault: &Node) -> SendError {
    let local = |node: Option<&Node>| {
        let value = node.and_then(|node| node.child(SOAP, "Value"));
        let value = value.map(Node::value).unwrap_or_default();
        value.rsplit(':').next().unwrap_or_default().to_owned()
    };
    let code = fault.child(SOAP, "Code");
    let subcode = local(code.and_then(|code| code.child(SOAP, "Subcode")));
    let what = format!("the receiver answered with the fault {subcode}");
    match (&*subcode, &*local(code)) {
        ("DeliveryRefused" | "AccessDenied", _) => SendError::Refused(what),
        (_, "Receiver") => SendError::Unreachable(what),
        _ => SendError::Refused(what),
    }
}
