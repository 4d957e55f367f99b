//! Requests that get no CIM response: HTTP's status, the reason in DSP0200's
//! `CIMError` header (§6.3.11) where it has a word for it, and a sentence for
//! a person in the body and in `PGErrorDetail`, which clients show.

use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::headers::percent_encoded;
use super::reply::{self, Body};
use crate::decode::DecodeError;

/// Why there is no CIM response.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    cim_error: Option<&'static str>,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            cim_error: None,
            message: message.into(),
            headers: Vec::new(),
        }
    }

    fn cim(status: StatusCode, cim_error: &'static str, message: String) -> Self {
        Self {
            cim_error: Some(cim_error),
            ..Self::new(status, message)
        }
    }

    pub fn mismatch(message: String) -> Self {
        Self::cim(StatusCode::BAD_REQUEST, "header-mismatch", message)
    }

    pub fn unsupported_operation(message: String) -> Self {
        Self::cim(StatusCode::BAD_REQUEST, "unsupported-operation", message)
    }

    pub fn multiple_requests() -> Self {
        DecodeError::MultipleRequests.into()
    }

    pub fn protocol_version(version: &str) -> Self {
        DecodeError::ProtocolVersion(version.to_owned()).into()
    }

    /// RFC 2774's 510: mandatory extensions were announced and not declared.
    pub fn not_extended() -> Self {
        Self::new(
            StatusCode::NOT_EXTENDED,
            "M-POST needs a Man header that declares http://www.dmtf.org/cim/mapping/http/v1.0",
        )
    }

    pub fn too_large(limit: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request is larger than this server takes ({limit} bytes)"),
        )
    }

    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub fn into_response(self) -> Response<Body> {
        let detail = percent_encoded(&self.message);
        let mut response = Response::new(reply::whole(format!("{}\n", self.message)));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=\"utf-8\""),
        );
        if let Some(cim_error) = self.cim_error {
            headers.insert("cimerror", HeaderValue::from_static(cim_error));
        }
        if let Ok(detail) = HeaderValue::from_str(&detail) {
            headers.insert("pgerrordetail", detail);
        }
        headers.extend(self.headers);
        response
    }
}

impl From<DecodeError> for Refusal {
    fn from(error: DecodeError) -> Self {
        let message = error.to_string();
        match error {
            DecodeError::NotWellFormed(_) => {
                Self::cim(StatusCode::BAD_REQUEST, "request-not-well-formed", message)
            }
            DecodeError::NotLooselyValid(_) | DecodeError::BadValue(_) => Self::cim(
                StatusCode::BAD_REQUEST,
                "request-not-loosely-valid",
                message,
            ),
            DecodeError::TooLarge(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, message),
            DecodeError::CimVersion(_) => Self::cim(
                StatusCode::NOT_IMPLEMENTED,
                "unsupported-cim-version",
                message,
            ),
            DecodeError::DtdVersion(_) => Self::cim(
                StatusCode::NOT_IMPLEMENTED,
                "unsupported-dtd-version",
                message,
            ),
            DecodeError::ProtocolVersion(_) => Self::cim(
                StatusCode::NOT_IMPLEMENTED,
                "unsupported-protocol-version",
                message,
            ),
            DecodeError::MultipleRequests => Self::cim(
                StatusCode::NOT_IMPLEMENTED,
                "multiple-requests-unsupported",
                message,
            ),
        }
    }
}
