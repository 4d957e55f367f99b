//! SOAP 1.2 envelopes with the headers of WS-Addressing and WS-Management.

mod duration;
mod encoding;
mod fault;
mod header;
mod node;
mod reply;

pub use encoding::{Charset, decoded};
pub use fault::{Fault, Kind};
pub use header::{
    Credentials, Header, Opt, Request, Selector, SelectorValue, Selectors, Unreadable,
};
pub use node::Node;

pub(crate) use duration::{duration, duration_text, parse_duration};
pub(crate) use header::ENVELOPE_MIN;
pub(crate) use reply::{
    close, close_envelope, element, element_with, message_id, open_envelope, open_message,
};
