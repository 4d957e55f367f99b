//! From DSP0201's XML to CIM's types.
//!
//! A pull reader over the document and one function per element of
//! DSP0201, named after it, in the files by subject. DSP0201 is read "loosely
//! validating" (DSP0200, "Terms"): what an element needs must be there, attributes
//! that nobody knows are passed over.

mod class;
mod embedded;
mod export;
mod message;
mod object;
mod path;
mod xml;

pub(crate) use class::SCOPES;
pub use embedded::decode_embedded;
pub use export::{ListenerError, export_response};
pub use message::{Argument, Arguments, Call, Request, request};
pub(crate) use xml::is_xml_char;
pub use xml::{Element, Limits, Pull, Token};

/// Why a document is no CIM-XML request, with the reason for its sender.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// It is no XML at all, or in an encoding other than UTF-8.
    #[error("the XML is not well-formed: {0}")]
    NotWellFormed(String),
    /// It is XML, but lacks what DSP0201 requires or holds what it does not know.
    #[error("the XML is not valid CIM-XML: {0}")]
    NotLooselyValid(String),
    /// A text is no value of the type that it should have.
    #[error("{0}")]
    BadValue(String),
    /// It is larger or deeper than [`Limits`] allow.
    #[error("the XML exceeds a limit of this server: {0}")]
    TooLarge(String),
    /// `CIMVERSION` is of another major version than 2.
    #[error("CIM version {0} is not supported, only 2.x is")]
    CimVersion(String),
    /// `DTDVERSION` is of another major version than 2.
    #[error("DTD version {0} is not supported, only 2.x is")]
    DtdVersion(String),
    /// `PROTOCOLVERSION` is of another major version than 1.
    #[error("protocol version {0} is not supported, only 1.x is")]
    ProtocolVersion(String),
    /// A MULTIREQ message.
    #[error("several operations in one message are not supported: send one at a time")]
    MultipleRequests,
}

/// The result of decoding.
pub type Decoded<T> = Result<T, DecodeError>;
