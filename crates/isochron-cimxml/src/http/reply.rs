//! The body of a response: whole, or in pieces as they are made.
//!
//! An error after the first piece cannot be the response any more. A client that
//! takes trailers is told by `CIMStatusCode` and `CIMStatusCodeDescription`, and
//! discards what it has; for others the connection is cut before the body's end.

use bytes::Bytes;
use futures::stream;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, Version, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use isochron_cim::CimError;
use tokio::sync::mpsc;

use super::headers::percent_encoded;

/// A response's body.
pub type Body = UnsyncBoxBody<Bytes, BrokenOff>;

/// Why a response was cut.
#[derive(Debug, thiserror::Error)]
#[error("the response was broken off: {0}")]
pub struct BrokenOff(String);

/// A response's content.
pub(super) enum Reply {
    /// All of it.
    Whole(Bytes),
    /// The beginning, and what follows.
    Pieces(Bytes, mpsc::Receiver<Piece>),
}

/// What follows in a response.
pub(super) enum Piece {
    /// More of it.
    Data(Bytes),
    /// It is complete.
    End,
    /// The rest cannot be had.
    Failed(CimError),
}

impl Reply {
    /// Makes this the content of the response to a request.
    pub fn put_into(self, response: &mut Response<Body>, request: &Parts) {
        *response.body_mut() = match self {
            Self::Whole(content) => whole(content),
            Self::Pieces(first, rest) => {
                let trailers = takes_trailers(request);
                if trailers {
                    let names = HeaderValue::from_static("CIMStatusCode, CIMStatusCodeDescription");
                    response.headers_mut().insert(header::TRAILER, names);
                }
                pieces(first, rest, trailers)
            }
        };
    }
}

/// A body that is there already.
pub(super) fn whole(content: impl Into<Bytes>) -> Body {
    Full::new(content.into())
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Whether a client understands trailers (RFC 9110 §10.1.4, `TE`).
fn takes_trailers(request: &Parts) -> bool {
    let said = request.headers.get_all(header::TE).iter();
    let mut codings = said
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    request.version >= Version::HTTP_11
        && codings.any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

fn pieces(first: Bytes, rest: mpsc::Receiver<Piece>, trailers: bool) -> Body {
    let frames = stream::try_unfold((Some(first), Some(rest)), move |(first, rest)| async move {
        if let Some(first) = first {
            return Ok(Some((Frame::data(first), (None, rest))));
        }
        let Some(mut rest) = rest else {
            return Ok(None);
        };
        match rest.recv().await {
            Some(Piece::Data(data)) => Ok(Some((Frame::data(data), (None, Some(rest))))),
            Some(Piece::End) => Ok(None),
            Some(Piece::Failed(error)) if trailers => {
                Ok(Some((Frame::trailers(status(&error)), (None, None))))
            }
            Some(Piece::Failed(error)) => Err(BrokenOff(error.to_string())),
            None => Err(BrokenOff("it was not written to its end".into())),
        }
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}

/// The trailers that tell of an error.
fn status(error: &CimError) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("cimstatuscode", HeaderValue::from(error.status.code()));
    if let Ok(message) = HeaderValue::from_str(&percent_encoded(&error.message)) {
        trailers.insert("cimstatuscodedescription", message);
    }
    trailers
}
