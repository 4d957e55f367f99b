//! The envelopes of replies, and of what is sent unasked.

use std::fmt::Write;

use isochron_cimxml::encode::{attribute, text};
use uuid::Uuid;

use crate::names::{
    ADDRESSING, ANONYMOUS, BINDING, COMMON, ENUMERATION, EVENTING, SOAP, TRANSFER, WSMAN, WSMV, XSI,
};

/// The prefixes that every reply declares, so that no part of one has to.
const PREFIXES: [(&str, &str); 10] = [
    ("s", SOAP),
    ("a", ADDRESSING),
    ("w", WSMAN),
    ("n", ENUMERATION),
    ("x", TRANSFER),
    ("e", EVENTING),
    ("b", BINDING),
    ("v", WSMV),
    ("cim", COMMON),
    ("xsi", XSI),
];

/// Begins a reply's envelope, up to the content of its body. `more` adds headers.
pub(crate) fn open_envelope(
    out: &mut String,
    action: &str,
    relates_to: Option<&str>,
    more: impl FnOnce(&mut String),
) {
    open_message(out, action, &message_id(), ANONYMOUS, |out| {
        if let Some(id) = relates_to {
            element(out, "a:RelatesTo", id);
        }
        more(out);
    });
}

/// Begins any message's envelope, up to the content of its body. `more` adds headers.
pub(crate) fn open_message(
    out: &mut String,
    action: &str,
    id: &str,
    to: &str,
    more: impl FnOnce(&mut String),
) {
    out.push_str("<s:Envelope xml:lang=\"en-US\"");
    for (prefix, uri) in PREFIXES {
        let _ = write!(out, " xmlns:{prefix}=\"{uri}\"");
    }
    out.push_str("><s:Header>");
    element(out, "a:Action", action);
    element(out, "a:MessageID", id);
    element(out, "a:To", to);
    more(out);
    out.push_str("</s:Header><s:Body>");
}

/// Ends an envelope within its body.
pub(crate) fn close_envelope(out: &mut String) {
    out.push_str("</s:Body></s:Envelope>");
}

/// An ID that no other message has.
pub(crate) fn message_id() -> String {
    let mut buffer = Uuid::encode_buffer();
    format!(
        "uuid:{}",
        Uuid::new_v4().hyphenated().encode_upper(&mut buffer)
    )
}

/// Appends an element with text.
pub(crate) fn element(out: &mut String, name: &str, content: &str) {
    out.push('<');
    out.push_str(name);
    out.push('>');
    text(out, content);
    close(out, name);
}

/// Appends an end tag.
pub(crate) fn close(out: &mut String, name: &str) {
    out.push_str("</");
    out.push_str(name);
    out.push('>');
}

/// Appends `<NAME KEY="VALUE">TEXT</NAME>`.
pub(crate) fn element_with(out: &mut String, name: &str, key: &str, value: &str, content: &str) {
    out.push('<');
    out.push_str(name);
    attribute(out, key, value);
    out.push('>');
    text(out, content);
    close(out, name);
}
