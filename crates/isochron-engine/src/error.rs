//! The engine's refusals: a kind that faces map to their own codes, and a
//! sentence for a person.

use std::fmt;

use crate::ports::{ArchiveError, HypervisorError, StoreError};

/// What kind of refusal it is. The faces turn it into return codes, HTTP status
/// and exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The thing named does not exist.
    NotFound,
    /// A thing of that name or identifier exists already.
    Exists,
    /// What was asked for makes no sense.
    InvalidParameter,
    /// There is no such type of snapshot.
    InvalidType,
    /// It makes sense, but not now.
    InvalidState,
    /// It makes sense, but cannot be done here.
    NotSupported,
    /// The caller may not.
    AccessDenied,
    /// Something did not answer, or not soon enough.
    Timeout,
    /// The caller took it back.
    Cancelled,
    /// It was tried and failed.
    Failed,
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct EngineError {
    /// Its kind.
    pub kind: ErrorKind,
    /// What went wrong, with names, and what to do about it.
    pub message: String,
}

impl EngineError {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, message: impl fmt::Display) -> Self {
        Self {
            kind,
            message: message.to_string(),
        }
    }

    pub(crate) fn not_found(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    pub(crate) fn invalid(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::InvalidParameter, message)
    }

    pub(crate) fn state(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::InvalidState, message)
    }

    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Failed, message)
    }

    /// The same error, said of something (`member "web": ...`).
    #[must_use]
    pub fn of(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }
}

impl From<HypervisorError> for EngineError {
    fn from(error: HypervisorError) -> Self {
        let kind = match &error {
            HypervisorError::Timeout(_) => ErrorKind::Timeout,
            HypervisorError::NotSupported(_) => ErrorKind::NotSupported,
            HypervisorError::Off => ErrorKind::InvalidState,
            HypervisorError::Invalid(_) => ErrorKind::InvalidParameter,
            HypervisorError::Failed(_) => ErrorKind::Failed,
        };
        Self::new(kind, error)
    }
}

impl From<StoreError> for EngineError {
    fn from(error: StoreError) -> Self {
        Self::new(ErrorKind::Failed, error)
    }
}

impl From<ArchiveError> for EngineError {
    fn from(error: ArchiveError) -> Self {
        let kind = match &error {
            ArchiveError::Invalid(_) => ErrorKind::InvalidParameter,
            ArchiveError::NotSupported(_) => ErrorKind::NotSupported,
            ArchiveError::Cancelled => ErrorKind::Cancelled,
            ArchiveError::Damaged(_) | ArchiveError::Failed(_) => ErrorKind::Failed,
        };
        Self::new(kind, error)
    }
}
