//! A refusal on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Error {
    /// What kind it is, for programs.
    pub kind: ErrorKind,
    /// What went wrong, with names, and what to do about it.
    pub message: String,
}

/// What kind of refusal it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The thing named does not exist (404).
    NotFound,
    /// A thing of that name or identifier exists already (409).
    Exists,
    /// What was asked for makes no sense, or cannot be read (400, 413, 415, 422).
    InvalidParameter,
    /// It makes sense, but not now (409).
    InvalidState,
    /// It makes sense, but cannot be done here (405, 501).
    NotSupported,
    /// Something did not answer, or not soon enough (408, 504).
    Timeout,
    /// The caller took it back (409).
    Cancelled,
    /// The caller may not, or a web page of another origin asked (403).
    Forbidden,
    /// Nobody is known by the credentials that came, or none came (401).
    Unauthenticated,
    /// Too many ask, or try passwords; it is worth coming again (429).
    Busy,
    /// It was tried and failed (500). A kind that is not known to the reader
    /// reads as this.
    #[serde(other)]
    Failed,
}

impl From<isochron_engine::ErrorKind> for ErrorKind {
    fn from(kind: isochron_engine::ErrorKind) -> Self {
        use isochron_engine::ErrorKind as Engine;
        match kind {
            Engine::NotFound => Self::NotFound,
            Engine::Exists => Self::Exists,
            Engine::InvalidParameter | Engine::InvalidType => Self::InvalidParameter,
            Engine::InvalidState => Self::InvalidState,
            Engine::NotSupported => Self::NotSupported,
            Engine::AccessDenied => Self::Forbidden,
            Engine::Timeout => Self::Timeout,
            Engine::Cancelled => Self::Cancelled,
            Engine::Failed => Self::Failed,
        }
    }
}
