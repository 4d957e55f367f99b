//! One HTTP request and its response.
//!
//! A request is refused as early as possible: method, caller, headers, body,
//! headers against body. An operation that was started runs to its end in a
//! task of its own ([`Answering`]), whether its client waits for it or not: half an
//! operation is worse than one nobody saw end.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use isochron_cim::{CimError, Principal};
use isochron_net::{Peer, Place, Requester, Responder};
use tokio::sync::oneshot;

use super::Config;
use super::answering::Answering;
use super::headers::{Extension, MAPPING};
use super::refusal::Refusal;
use super::reply::{Body, Reply};
use crate::decode::{self, Call};
use crate::encode;
use crate::operations::Operations;

/// What every exchange of a listener shares.
pub struct Service {
    pub(super) config: Config,
    pub(super) operations: Operations,
    /// The name of the server where a request has no Host header.
    pub(super) address: String,
}

impl Responder for Service {
    type Body = Body;
    type Memory = ();

    async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
        requester: Requester<()>,
    ) -> Response<Body> {
        let started = Instant::now();
        let (parts, body) = request.into_parts();
        match self.exchange(&parts, body, &requester, started).await {
            Ok(response) => response,
            Err(refusal) => {
                tracing::debug!(?refusal, method = %parts.method, "request refused");
                refusal.into_response()
            }
        }
    }

    fn expire(&self) {
        self.operations.expire();
    }
}

impl Service {
    async fn exchange(
        &self,
        parts: &Parts,
        body: Incoming,
        requester: &Requester<()>,
        started: Instant,
    ) -> Result<Response<Body>, Refusal> {
        let method = &parts.method;
        // RFC 9112 §3.2.
        let hosts = parts.headers.get_all(header::HOST).iter().count();
        if hosts > 1 || hosts == 0 && parts.version == Version::HTTP_11 {
            let message = "the header Host is needed, and once";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, message));
        }
        if *method == Method::OPTIONS {
            return Ok(options());
        }
        if *method != Method::POST && method.as_str() != "M-POST" {
            let allowed = HeaderValue::from_static("POST, M-POST, OPTIONS");
            return Err(Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "this is a CIM-XML server: operations are sent to it with POST or M-POST",
            )
            .with(header::ALLOW, allowed));
        }
        let principal = self.authenticate(parts, &requester.peer).await?;
        // From here on nobody's new connection takes this one's place.
        let _busy = requester.place.busy();
        check_content_type(parts)?;
        let extension = Extension::of(method, &parts.headers)?;
        extension.check_before_body()?;
        let body = self.read(body).await?;
        let request = decode::request(&body, self.config.limits())?;
        drop(body);
        extension.check_against(&request)?;

        let host = parts
            .headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .filter(|host| !host.is_empty())
            .unwrap_or(&self.address)
            .to_owned();
        let reply = self.run(request, principal, host, &requester.place).await;
        let mut response = success(&extension, started);
        reply.put_into(&mut response, parts);
        Ok(response)
    }

    async fn authenticate(&self, parts: &Parts, peer: &Peer) -> Result<Principal, Refusal> {
        let authorization = parts
            .headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let authenticator = &self.config.authenticator;
        let principal = authenticator.authenticate(authorization, peer).await;
        principal.map_err(|denied| {
            if let Some(seconds) = denied.retry_after() {
                return Refusal::new(StatusCode::TOO_MANY_REQUESTS, denied.message())
                    .with(header::RETRY_AFTER, HeaderValue::from(seconds));
            }
            let realm = self.config.realm.replace(['"', '\\'], "");
            let challenge = HeaderValue::try_from(format!("Basic realm=\"{realm}\""))
                .unwrap_or(HeaderValue::from_static("Basic realm=\"CIM\""));
            Refusal::new(StatusCode::UNAUTHORIZED, denied.message())
                .with(header::WWW_AUTHENTICATE, challenge)
        })
    }

    async fn read(&self, body: Incoming) -> Result<Bytes, Refusal> {
        let limit = self.config.max_body;
        if body.size_hint().lower() > limit as u64 {
            return Err(Refusal::too_large(limit));
        }
        let reading = Limited::new(body, limit).collect();
        match tokio::time::timeout(self.config.body_timeout, reading).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Refusal::too_large(limit)),
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

    /// Runs the call; the response, or as much of it as is there first.
    async fn run(
        &self,
        request: decode::Request,
        principal: Principal,
        host: String,
        place: &Arc<Place>,
    ) -> Reply {
        let decode::Request {
            id, method, call, ..
        } = request;
        let intrinsic = matches!(call, Call::Intrinsic { .. });
        let (reply, replied) = oneshot::channel();
        let answering = Answering {
            operations: self.operations.clone(),
            principal,
            id: id.clone(),
            method: method.clone(),
            host,
            patience: self.config.sending(),
            place: Arc::downgrade(place),
        };
        let running = tokio::spawn(answering.answer(call, reply));
        let error = match tokio::time::timeout(self.config.operation_timeout, replied).await {
            Ok(Ok(Ok(reply))) => return reply,
            Ok(Ok(Err(error))) => error,
            Ok(Err(_)) => {
                let panicked = running.await.err();
                tracing::error!(method, ?panicked, "an operation failed inside the server");
                CimError::failed("the operation failed inside the server; its log says more")
            }
            Err(_) => CimError::failed(format!(
                "{method} did not end within {} s; it goes on, and this response does not wait",
                self.config.operation_timeout.as_secs()
            )),
        };
        tracing::debug!(method, %error, "operation failed");
        let error = encode::error_response(&id, &method, intrinsic, &error);
        Reply::Whole(error.into())
    }
}

/// XML, in UTF-8 (DSP0200 §7, "Content-Type").
fn check_content_type(parts: &Parts) -> Result<(), Refusal> {
    let unsupported =
        |message: &str| Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    let encoded = parts.headers.get_all(header::CONTENT_ENCODING);
    if encoded.iter().any(|coding| coding != "identity") {
        return unsupported("the body is taken as it is, without Content-Encoding");
    }
    let mut given = parts.headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (given.next(), given.next()) else {
        return unsupported("the header Content-Type is needed once; it is application/xml");
    };
    let mut fields = value.to_str().unwrap_or_default().split(';').map(str::trim);
    let media_type = fields.next().unwrap_or_default();
    if !["application/xml", "text/xml"]
        .iter()
        .any(|known| media_type.eq_ignore_ascii_case(known))
    {
        return unsupported("Content-Type is application/xml or text/xml");
    }
    let mut charsets = fields.filter_map(|field| {
        let (key, value) = field.split_once('=')?;
        let charset = key.trim().eq_ignore_ascii_case("charset");
        charset.then(|| value.trim().trim_matches('"'))
    });
    let known = ["utf-8", "utf8", "us-ascii"];
    if charsets.all(|name| known.iter().any(|k| name.eq_ignore_ascii_case(k))) {
        Ok(())
    } else {
        unsupported("the charset is utf-8")
    }
}

fn success(extension: &Extension<'_>, started: Instant) -> Response<Body> {
    let mut response = Response::new(Body::default());
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/xml; charset=\"utf-8\""),
    );
    let operation = match extension.prefix() {
        Some(prefix) => format!("{prefix}-cimoperation"),
        None => "cimoperation".into(),
    };
    if let Ok(name) = HeaderName::try_from(operation) {
        headers.insert(name, HeaderValue::from_static("MethodResponse"));
    }
    if let Some(prefix) = extension.prefix()
        && let Ok(declaration) = HeaderValue::try_from(format!("{MAPPING} ; ns={prefix}"))
    {
        headers.insert("ext", HeaderValue::from_static(""));
        headers.insert("man", declaration);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    }
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    headers.insert("wbemserverresponsetime", HeaderValue::from(micros));
    response
}

/// What this server can do (DSP0200 §7, "Discovering CIM server functions").
fn options() -> Response<Body> {
    let mut response = Response::new(Body::default());
    let headers = response.headers_mut();
    headers.insert(
        header::ALLOW,
        HeaderValue::from_static("POST, M-POST, OPTIONS"),
    );
    for (name, value) in [
        ("opt", "http://www.dmtf.org/cim/mapping/http/v1.0 ; ns=77"),
        ("77-cimprotocolversion", "1.0"),
        (
            "77-cimsupportedfunctionalgroups",
            "basic-read, basic-write, instance-manipulation, schema-manipulation, \
             association-traversal, query-execution, qualifier-declaration",
        ),
        ("77-cimsupportedquerylanguages", "WQL, DMTF:CQL"),
        ("77-cimvalidation", "loosely-validating"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
