//! Requests that get no envelope in reply: HTTP's status and a sentence for a person.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

/// Why there is no envelope.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    message: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    goes_on: bool,
}

impl Refusal {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            headers: Vec::new(),
            goes_on: false,
        }
    }

    /// The same where the client has more to say on this connection.
    pub fn going_on(self) -> Self {
        Self {
            goes_on: true,
            ..self
        }
    }

    /// Whether the client has more to say on this connection.
    pub fn goes_on(&self) -> bool {
        self.goes_on
    }

    pub fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(format!("{}\n", self.message))));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        response
    }
}
