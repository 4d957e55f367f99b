//! CIM-XML: DSP0201's representation of CIM in XML and DSP0200's operations
//! over HTTP, on the types of `isochron-cim`.
//!
//! [`decode`] turns a request's bytes into a call, [`operations`] runs a call
//! against a [`CimServer`](isochron_cim::CimServer), [`encode`] turns the
//! answer into XML, and [`http`] carries both. [`Listener`] is the one client here:
//! it sends indications. Nothing here knows a schema.
//!
//! What holds: bytes from a client never panic and never cost more than the
//! [`Limits`] allow; what is sent is always well-formed XML 1.0.

pub mod decode;
pub mod encode;
pub mod http;
mod listener;
pub mod operations;

pub use decode::{DecodeError, Limits, decode_embedded};
pub use http::{Config, FACE, Server};
pub use listener::Listener;
