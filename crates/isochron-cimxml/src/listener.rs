//! The client's side of CIM-XML that a server needs: sending indications to
//! listeners (DSP0200, "Export messages").

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use isochron_cim::Instance;
use isochron_net::outgoing::{Destination, Outgoing, SendError, Sender};

use crate::decode::{Limits, export_response};
use crate::encode::export_indication;

/// The port of CIM-XML (DSP0200 §7).
const HTTP_PORT: u16 = 5988;

/// A listener, to which indications are sent one after the other.
#[derive(Debug)]
pub struct Listener {
    sender: Sender,
    sent: u64,
}

impl Listener {
    /// The listener at a destination's URL; nothing is connected yet.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the URL.
    pub fn at(url: &str, config: Outgoing) -> Result<Self, String> {
        let destination = Destination::parse(url, HTTP_PORT, &config)?;
        Ok(Self {
            sender: Sender::new(destination, config),
            sent: 0,
        })
    }

    /// Sends an indication and waits until the listener has taken it.
    ///
    /// # Errors
    /// It may not have arrived, or the listener does not want it. After
    /// [`Unreachable`](SendError::Unreachable) it may have arrived nevertheless.
    pub async fn export(&mut self, indication: &Instance) -> Result<(), SendError> {
        self.sent += 1;
        let id = self.sent.to_string();
        let message = Bytes::from(export_indication(&id, indication));
        let headers = [
            (CONTENT_TYPE, "application/xml; charset=\"utf-8\""),
            (HeaderName::from_static("cimexport"), "MethodRequest"),
            (
                HeaderName::from_static("cimexportmethod"),
                "ExportIndication",
            ),
        ];
        let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
        let answer = self.sender.post(HeaderMap::from_iter(headers), message);
        judge(answer.await?, &id)
    }
}

/// Whether the answer says that the indication was taken.
fn judge((status, body): (StatusCode, Bytes), id: &str) -> Result<(), SendError> {
    if status != StatusCode::OK {
        let what = format!("the listener answered with HTTP {status}");
        return Err(match status.is_client_error() {
            true => SendError::Refused(what),
            false => SendError::Unreachable(what),
        });
    }
    // The sender reads no large one.
    match export_response(&body, id, Limits::default()) {
        Ok(None) => Ok(()),
        Ok(Some(error)) => {
            let what = format!("the listener says {}: {}", error.code, error.description);
            // 1 (failed) is what a listener says that is full; 27 and 28: limits, shutting down.
            Err(match error.code.as_str() {
                "1" | "27" | "28" => SendError::Unreachable(what),
                _ => SendError::Refused(what),
            })
        }
        Err(error) => Err(SendError::Unreachable(format!(
            "the listener's answer is none: {error}"
        ))),
    }
}
