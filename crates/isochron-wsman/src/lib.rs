//! WS-Management: DSP0226 with its binding to CIM (DSP0227, DSP0230), in the dialect
//! that Windows' clients speak (MS-WSMV), over HTTP, on the types of `isochron-cim`.
//!
//! [`soap`] reads envelopes and writes replies and faults, [`Operations`] runs a request
//! against a [`CimServer`](isochron_cim::CimServer), [`Server`] carries both. Nothing here
//! knows a schema.
//!
//! What holds: bytes from a client never panic and never cost more than the limits
//! allow; a request of nobody in particular never reaches the `CimServer` unless the
//! [`Authenticator`](isochron_net::Authenticator) says that it may; what is sent is always
//! well-formed XML 1.0.

mod http;
mod names;
pub mod negotiate;
mod operations;
mod resource;
pub mod soap;
mod values;

pub use self::http::{Config, FACE, Server};
pub use operations::Operations;
