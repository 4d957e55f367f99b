//! Messages of WS-Eventing, and something that happens.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

use isochron_cim::Instance;

use super::{ENUMERATION, WMI, envelope};

pub const EVENTING: &str = "http://schemas.xmlsoap.org/ws/2004/08/eventing";
pub const PULL: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/Pull";
pub const PUSH: &str = "http://schemas.xmlsoap.org/ws/2004/08/eventing/DeliveryModes/Push";
pub const PUSH_WITH_ACK: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/PushWithAck";
pub const EVENTS: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/Events";
pub const WQL: &str = "http://schemas.microsoft.com/wbem/wsman/1/WQL";

fn with_eventing(envelope: String) -> String {
    envelope
        .replacen(
            "<s:Header>",
            "<s:Header xmlns:e=\"http://schemas.xmlsoap.org/ws/2004/08/eventing\">",
            1,
        )
        .replacen(
            "<s:Body>",
            "<s:Body xmlns:e=\"http://schemas.xmlsoap.org/ws/2004/08/eventing\">",
            1,
        )
}

pub fn subscribe(mode: &str, more: &str) -> String {
    subscribe_to(mode, "", "", more)
}

/// A Subscribe with headers, and something in its Delivery.
pub fn subscribe_to(mode: &str, headers: &str, delivery: &str, more: &str) -> String {
    let body = format!(
        "<e:Subscribe><e:Delivery Mode=\"{mode}\">{delivery}</e:Delivery>{more}</e:Subscribe>"
    );
    let action = format!("{EVENTING}/Subscribe");
    with_eventing(envelope(&action, &format!("{WMI}/*"), headers, &body))
}

/// Where events go.
pub fn notify_to(url: &str) -> String {
    format!("<e:NotifyTo><a:Address>{url}</a:Address></e:NotifyTo>")
}

pub fn filter(query: &str) -> String {
    format!("<w:Filter Dialect=\"{WQL}\">{query}</w:Filter>")
}

pub fn manage(verb: &str, identifier: &str, body: &str) -> String {
    let headers = format!("<e:Identifier>{identifier}</e:Identifier>");
    let body = format!("<e:{verb}>{body}</e:{verb}>");
    let action = format!("{EVENTING}/{verb}");
    with_eventing(envelope(&action, &format!("{WMI}/*"), &headers, &body))
}

pub fn pull(context: &str, headers: &str, more: &str) -> String {
    let body =
        format!("<n:Pull><n:EnumerationContext>{context}</n:EnumerationContext>{more}</n:Pull>");
    envelope(
        &format!("{ENUMERATION}/Pull"),
        &format!("{WMI}/*"),
        headers,
        &body,
    )
}

pub fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let at = text
        .find(from)
        .unwrap_or_else(|| panic!("no {from} in {text}"))
        + from.len();
    &text[at..at + text[at..].find(to).unwrap()]
}

/// Something that happens, with a number.
pub fn event(number: u32) -> Instance {
    let mut thing = Instance::new("T_Thing");
    thing.set("Name", "one");
    let mut event = Instance::new("CIM_InstModification");
    event.set("Number", number).set("SourceInstance", thing);
    event
}
