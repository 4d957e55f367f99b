//! Refusals of the API: a status and `{kind, message}`, whatever refused, the
//! engine, a handler, or the reading of the request.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use isochron_engine::EngineError;

use crate::dto::{Error, ErrorKind};

/// A refusal, as it is answered.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    body: Error,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            status,
            body: Error {
                kind,
                message: message.into(),
            },
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            ErrorKind::InvalidParameter,
            message,
        )
    }

    fn unreadable(status: StatusCode, message: String) -> Self {
        Self::new(status, ErrorKind::InvalidParameter, message)
    }
}

/// The status of the engine's refusals.
fn status(kind: isochron_engine::ErrorKind) -> StatusCode {
    use isochron_engine::ErrorKind::*;
    match kind {
        NotFound => StatusCode::NOT_FOUND,
        Exists | InvalidState | Cancelled => StatusCode::CONFLICT,
        InvalidParameter | InvalidType => StatusCode::UNPROCESSABLE_ENTITY,
        NotSupported => StatusCode::NOT_IMPLEMENTED,
        AccessDenied => StatusCode::FORBIDDEN,
        Timeout => StatusCode::GATEWAY_TIMEOUT,
        Failed => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        Self::new(status(error.kind), error.kind.into(), error.message)
    }
}

impl From<JsonRejection> for ApiError {
    fn from(rejection: JsonRejection) -> Self {
        Self::unreadable(rejection.status(), rejection.body_text())
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::unreadable(rejection.status(), rejection.body_text())
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::unreadable(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}
