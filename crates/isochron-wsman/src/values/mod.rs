//! CIM's values in WS-Management's XML (DSP0230), both ways.
//!
//! Null is `xsi:nil`; an array repeats its element; a datetime is a point in time or a
//! length of time of XML Schema; a reference is an endpoint reference; an embedded
//! instance is an element with the type of its class.

mod decode;
mod encode;
mod path;
mod time;

pub(crate) use decode::Decoder;
pub(crate) use encode::{Encoder, fragment};
pub(crate) use path::{key_text, selected_path};
