//! CIM status codes and the error that carries one to a client.

use std::fmt;

/// A CIM status code (DSP0200 §5.2.2, "Status codes returned by operations").
#[allow(missing_docs)] // The names are the specification's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Status {
    Failed = 1,
    AccessDenied = 2,
    InvalidNamespace = 3,
    InvalidParameter = 4,
    InvalidClass = 5,
    NotFound = 6,
    NotSupported = 7,
    ClassHasChildren = 8,
    ClassHasInstances = 9,
    InvalidSuperclass = 10,
    AlreadyExists = 11,
    NoSuchProperty = 12,
    TypeMismatch = 13,
    QueryLanguageNotSupported = 14,
    InvalidQuery = 15,
    MethodNotAvailable = 16,
    MethodNotFound = 17,
    NamespaceNotEmpty = 20,
    InvalidEnumerationContext = 21,
    InvalidOperationTimeout = 22,
    PullHasBeenAbandoned = 23,
    PullCannotBeAbandoned = 24,
    FilteredEnumerationNotSupported = 25,
    ContinuationOnErrorNotSupported = 26,
    ServerLimitsExceeded = 27,
    ServerIsShuttingDown = 28,
}

impl Status {
    /// The number on the wire.
    pub fn code(self) -> u32 {
        self as u32
    }

    /// The specification's symbol, such as `CIM_ERR_NOT_FOUND`.
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Failed => "CIM_ERR_FAILED",
            Self::AccessDenied => "CIM_ERR_ACCESS_DENIED",
            Self::InvalidNamespace => "CIM_ERR_INVALID_NAMESPACE",
            Self::InvalidParameter => "CIM_ERR_INVALID_PARAMETER",
            Self::InvalidClass => "CIM_ERR_INVALID_CLASS",
            Self::NotFound => "CIM_ERR_NOT_FOUND",
            Self::NotSupported => "CIM_ERR_NOT_SUPPORTED",
            Self::ClassHasChildren => "CIM_ERR_CLASS_HAS_CHILDREN",
            Self::ClassHasInstances => "CIM_ERR_CLASS_HAS_INSTANCES",
            Self::InvalidSuperclass => "CIM_ERR_INVALID_SUPERCLASS",
            Self::AlreadyExists => "CIM_ERR_ALREADY_EXISTS",
            Self::NoSuchProperty => "CIM_ERR_NO_SUCH_PROPERTY",
            Self::TypeMismatch => "CIM_ERR_TYPE_MISMATCH",
            Self::QueryLanguageNotSupported => "CIM_ERR_QUERY_LANGUAGE_NOT_SUPPORTED",
            Self::InvalidQuery => "CIM_ERR_INVALID_QUERY",
            Self::MethodNotAvailable => "CIM_ERR_METHOD_NOT_AVAILABLE",
            Self::MethodNotFound => "CIM_ERR_METHOD_NOT_FOUND",
            Self::NamespaceNotEmpty => "CIM_ERR_NAMESPACE_NOT_EMPTY",
            Self::InvalidEnumerationContext => "CIM_ERR_INVALID_ENUMERATION_CONTEXT",
            Self::InvalidOperationTimeout => "CIM_ERR_INVALID_OPERATION_TIMEOUT",
            Self::PullHasBeenAbandoned => "CIM_ERR_PULL_HAS_BEEN_ABANDONED",
            Self::PullCannotBeAbandoned => "CIM_ERR_PULL_CANNOT_BE_ABANDONED",
            Self::FilteredEnumerationNotSupported => "CIM_ERR_FILTERED_ENUMERATION_NOT_SUPPORTED",
            Self::ContinuationOnErrorNotSupported => "CIM_ERR_CONTINUATION_ON_ERROR_NOT_SUPPORTED",
            Self::ServerLimitsExceeded => "CIM_ERR_SERVER_LIMITS_EXCEEDED",
            Self::ServerIsShuttingDown => "CIM_ERR_SERVER_IS_SHUTTING_DOWN",
        }
    }
}

/// An operation's failure: a status code and a sentence for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", status.symbol())]
pub struct CimError {
    /// The code that programs act on.
    pub status: Status,
    /// What went wrong and what to do about it.
    pub message: String,
}

impl CimError {
    /// An error of this status with this message.
    pub fn new(status: Status, message: impl fmt::Display) -> Self {
        Self {
            status,
            message: message.to_string(),
        }
    }

    /// `CIM_ERR_NOT_FOUND` (6).
    pub fn not_found(message: impl fmt::Display) -> Self {
        Self::new(Status::NotFound, message)
    }

    /// `CIM_ERR_NOT_SUPPORTED` (7): the one status that clients take as
    /// "this server cannot do that".
    pub fn not_supported(message: impl fmt::Display) -> Self {
        Self::new(Status::NotSupported, message)
    }

    /// `CIM_ERR_INVALID_PARAMETER` (4).
    pub fn invalid_parameter(message: impl fmt::Display) -> Self {
        Self::new(Status::InvalidParameter, message)
    }

    /// `CIM_ERR_FAILED` (1).
    pub fn failed(message: impl fmt::Display) -> Self {
        Self::new(Status::Failed, message)
    }
}
