//! One HTTP request and its response.
//!
//! A request is refused as early as possible: path, method, caller, headers, body. Only
//! who is known reaches an operation; `/wsman-anon/identify` alone asks nobody, and
//! answers Identify and nothing else.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use isochron_cim::Principal;
use isochron_net::{Denied, Responder};

use super::Config;
use super::login::{Caller, Login, refusal};
use super::refusal::Refusal;
use crate::negotiate::{self, Framing, NegotiateError};
use crate::operations::{Operations, asks_to_identify, identified};
use crate::soap::{self, Charset, Fault};

/// Where requests are sent.
const PATH: &str = "/wsman";
/// Where anyone may ask who this is (DSP0226 §11).
const ANONYMOUS_PATH: &str = "/wsman-anon/identify";
/// Bytes of a body of nobody in particular: Identify has a few hundred.
const ANONYMOUS_BODY: usize = 16 << 10;
/// Bytes of a body that is passed over between two messages of a handshake.
const UNREAD_BODY: usize = 64 << 10;
/// What a request and its reply are.
const MEDIA_TYPE: &str = "application/soap+xml";

/// What every exchange of a listener shares.
pub struct Service {
    pub(super) config: Config,
    pub(super) operations: Operations,
    /// The name of the server where a request has no Host header.
    pub(super) address: String,
}

/// The other end of a connection, which remembers who logged in on it.
type Requester = isochron_net::Requester<Login>;

/// A reply before it is on the wire.
struct Reply {
    status: StatusCode,
    envelope: String,
    charset: Charset,
}

impl Responder for Service {
    type Body = Full<Bytes>;
    type Memory = Login;

    async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
        requester: Requester,
    ) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let mut body = Some(body);
        match self.exchange(&parts, &mut body, &requester).await {
            Ok(response) => response,
            Err(refusal) => {
                tracing::debug!(?refusal, method = %parts.method, "request refused");
                // The connection has to live on for the handshake's next message.
                if refusal.goes_on()
                    && let Some(body) = body
                {
                    let _ = self.read(body, UNREAD_BODY).await;
                }
                refusal.into_response()
            }
        }
    }

    fn expire(&self) {
        self.operations.expire();
    }

    async fn end(&self) {
        self.operations.shut_down().await;
    }
}

impl Service {
    async fn exchange(
        &self,
        parts: &Parts,
        body: &mut Option<Incoming>,
        requester: &Requester,
    ) -> Result<Response<Full<Bytes>>, Refusal> {
        let anonymous = match parts.uri.path().trim_end_matches('/') {
            PATH => false,
            ANONYMOUS_PATH => true,
            _ => {
                let message = "WS-Management is at /wsman";
                return Err(Refusal::new(StatusCode::NOT_FOUND, message));
            }
        };
        if parts.method != Method::POST {
            let message = "this is a WS-Management server: requests are sent to it with POST";
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message)
                .with(header::ALLOW, HeaderValue::from_static("POST")));
        }
        let caller = match anonymous {
            true => None,
            false => {
                let login = &requester.memory;
                Some(login.caller(&self.config, parts, &requester.peer).await?)
            }
        };
        // From here on nobody's new connection takes the place of one who is known.
        let _busy = caller.is_some().then(|| requester.place.busy());
        let limit = match anonymous {
            true => ANONYMOUS_BODY.min(self.config.max_body),
            false => self.config.max_body,
        };
        let body = match body.take() {
            Some(body) => self.read(body, limit).await?,
            None => Bytes::new(),
        };
        let token = caller.as_ref().and_then(|caller| caller.token.clone());
        // Some log in with a request of nothing, before the one that counts.
        let mut response = match caller {
            Some(_) if body.is_empty() => Response::new(Full::default()),
            caller => self.answer(parts, &body, caller, requester).await?,
        };
        if let Some(token) = token {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, token);
        }
        Ok(response)
    }

    /// Answers what a body holds, which may be encrypted.
    async fn answer(
        &self,
        parts: &Parts,
        body: &[u8],
        caller: Option<Caller>,
        requester: &Requester,
    ) -> Result<Response<Full<Bytes>>, Refusal> {
        let by_connection = caller.as_ref().is_some_and(|caller| caller.by_connection);
        let principal = caller.map(|caller| caller.principal);
        let content_type = parts.headers.get(header::CONTENT_TYPE);
        let content_type = content_type.and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default();
        let framing = Framing::read(content_type)
            .map_err(|error| Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error.to_string()))?;
        let Some(framing) = framing else {
            if by_connection && !requester.peer.encrypted {
                let message = "without TLS, messages of who logged in by Negotiate are encrypted";
                return Err(Refusal::new(StatusCode::FORBIDDEN, message));
            }
            let said = charset(content_type)?;
            let reply = self.reply(parts, body, said, principal, requester).await;
            return Ok(response(reply));
        };
        let wrong = |error: NegotiateError| {
            tracing::debug!(%error, "an encrypted message is refused");
            refusal(Denied::Unknown, &self.config)
        };
        // Only who proved it on this very connection can have encrypted it.
        let frame = framing.parse(body).map_err(wrong)?;
        let opened = match by_connection {
            true => requester.memory.with_session(|session| frame.open(session)),
            false => None,
        };
        let opened = opened.ok_or_else(|| refusal(Denied::Unknown, &self.config))?;
        let message = opened.map_err(wrong)?;
        let reply = self
            .reply(parts, &message, Ok(frame.charset), principal, requester)
            .await;
        let bytes = reply.charset.encode(reply.envelope);
        let sealed = requester.memory.with_session(|session| {
            Ok::<_, NegotiateError>(negotiate::seal(session, bytes, reply.charset))
        });
        let sealed = sealed.ok_or_else(|| refusal(Denied::Unknown, &self.config))?;
        let (content_type, frame) = sealed.map_err(wrong)?;
        let mut response = Response::new(Full::new(Bytes::from(frame)));
        *response.status_mut() = reply.status;
        let content_type = HeaderValue::try_from(content_type)
            .unwrap_or(HeaderValue::from_static("multipart/encrypted"));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, content_type);
        Ok(response)
    }

    async fn read(&self, body: Incoming, limit: usize) -> Result<Bytes, Refusal> {
        let too_large = || {
            let message = format!("the request is larger than this server takes ({limit} bytes)");
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
        };
        if body.size_hint().lower() > limit as u64 {
            return Err(too_large());
        }
        let reading = Limited::new(body, limit).collect();
        match tokio::time::timeout(self.config.body_timeout, reading).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
            Ok(Err(error)) => Err(Refusal::new(
                StatusCode::BAD_REQUEST,
                format!("the request's body could not be read: {error}"),
            )),
            Err(_) => Err(Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                "the request's body did not arrive in time",
            )),
        }
    }

    /// The reply to a message, which is `said` to be in a charset. `principal` is nobody
    /// where only Identify is answered.
    async fn reply(
        &self,
        parts: &Parts,
        body: &[u8],
        said: Result<Charset, Fault>,
        principal: Option<Principal>,
        requester: &Requester,
    ) -> Reply {
        let host = parts.headers.get(header::HOST);
        let host = host.and_then(|host| host.to_str().ok());
        let host = host
            .filter(|host| !host.is_empty())
            .unwrap_or(&self.address);
        let mut charset = said.as_ref().copied().unwrap_or_default();
        let mut relates_to = None;
        let answered = async {
            let (text, found) = soap::decoded(body, said?)?;
            charset = found;
            let request = soap::Request::read(&text, self.config.limits());
            drop(text);
            let request = request.map_err(|unreadable| {
                relates_to = unreadable.message_id;
                unreadable.fault
            })?;
            if let Some(namespace) = asks_to_identify(&request) {
                return Ok(identified(namespace, principal.is_none()));
            }
            relates_to = request.header.message_id.clone();
            let Some(principal) = principal else {
                return Err(Fault::new(
                    soap::Kind::ACCESS_DENIED,
                    "only Identify is answered here; everything else is at /wsman",
                ));
            };
            let scheme = match requester.peer.encrypted {
                true => "https",
                false => "http",
            };
            let address = format!("{scheme}://{host}{PATH}");
            self.operations.answer(principal, request, address).await
        };
        let answered: Result<String, Fault> = answered.await;
        let (status, envelope) = match answered {
            Ok(envelope) => (StatusCode::OK, envelope),
            Err(fault) => {
                tracing::debug!(?fault, "an operation failed");
                let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
                let envelope = fault.envelope(relates_to.as_deref(), name);
                (StatusCode::INTERNAL_SERVER_ERROR, envelope)
            }
        };
        Reply {
            status,
            envelope,
            charset,
        }
    }
}

/// The charset that the Content-Type says, of a media type that is read here; that another
/// charset is not read is told like what else is wrong in a message (DSP0226 R13.1-5).
fn charset(content_type: &str) -> Result<Result<Charset, Fault>, Refusal> {
    let mut fields = content_type.split(';').map(str::trim);
    let media_type = fields.next().unwrap_or_default();
    if !media_type.eq_ignore_ascii_case(MEDIA_TYPE) {
        let message = format!("Content-Type is {MEDIA_TYPE}");
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let charset = fields.find_map(|field| {
        let (key, value) = field.split_once('=')?;
        let key = key.trim().eq_ignore_ascii_case("charset");
        key.then(|| value.trim().trim_matches('"'))
    });
    Ok(charset.map_or(Ok(Charset::default()), Charset::named))
}

fn response(reply: Reply) -> Response<Full<Bytes>> {
    let body = Bytes::from(reply.charset.encode(reply.envelope));
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = reply.status;
    let media_type = match reply.charset {
        Charset::Utf8 => "application/soap+xml;charset=UTF-8",
        Charset::Utf16 => "application/soap+xml;charset=UTF-16",
    };
    let media_type = HeaderValue::from_static(media_type);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, media_type);
    response
}
