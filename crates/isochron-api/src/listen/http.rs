//! TCP, with TLS or without: every request is somebody's, by its credentials or its
//! connection's certificate, and none is a browser's for a page that is not ours.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use http::header::{AUTHORIZATION, HOST, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper_util::service::TowerToHyperService;
use isochron_access::caller;
use isochron_net::{Authenticator, Denied, Listener, Patience, Peer, Place};

use super::GRACE;
use crate::ApiError;
use crate::dto::ErrorKind;

/// The name of the face on TCP, in logs and in what callers are known by.
pub const FACE: &str = "http";

/// Serves on a TCP listener until `shutdown` is ready, then lets requests end
/// within a bound. `headers` is for how long a request's head may be on its way, and a
/// connection idle. Names of this host other than loopback's are accepted in `Host`
/// only if the listener is not on loopback.
///
/// # Errors
/// The operating system does not tell the listener's address.
pub async fn serve_http(
    listener: Listener,
    authenticator: Arc<dyn Authenticator>,
    headers: Duration,
    router: Router,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let local = listener.local_addr()?;
    let router = router
        .layer(middleware::from_fn_with_state(authenticator, admit))
        .layer(middleware::from_fn_with_state(local, refuse_foreign_pages));
    let patience = Patience {
        headers,
        shutdown: GRACE,
    };
    let answering = move |peer: &Peer, place: &Arc<Place>| {
        let router = router.clone().layer(Extension(peer.clone()));
        TowerToHyperService::new(router.layer(Extension(Arc::clone(place))))
    };
    isochron_net::serve(listener, patience, answering, shutdown).await;
    Ok(())
}

/// Finds out who asks, and keeps the connection for them until they are answered.
async fn admit(
    State(authenticator): State<Arc<dyn Authenticator>>,
    Extension(peer): Extension<Peer>,
    Extension(place): Extension<Arc<Place>>,
    mut request: Request,
    next: Next,
) -> Response {
    let authorization = request.headers().get(AUTHORIZATION);
    // One that is no text is one that is wrong.
    let authorization = authorization.map(|value| value.to_str().unwrap_or_default());
    let principal = match authenticator.authenticate(authorization, &peer).await {
        Ok(principal) => principal,
        Err(denied) => return refused(denied),
    };
    let _busy = place.busy();
    request.extensions_mut().insert(caller(&principal));
    next.run(request).await
}

fn refused(denied: Denied) -> Response {
    let (status, kind, name, value) = match denied.retry_after() {
        None => (
            StatusCode::UNAUTHORIZED,
            ErrorKind::Unauthenticated,
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"isochron\", charset=\"UTF-8\""),
        ),
        Some(seconds) => (
            StatusCode::TOO_MANY_REQUESTS,
            ErrorKind::Busy,
            RETRY_AFTER,
            HeaderValue::from(seconds),
        ),
    };
    let mut response = ApiError::new(status, kind, denied.message()).into_response();
    response.headers_mut().insert(name, value);
    response
}

/// Refuses what a browser sends for a page that is not ours.
async fn refuse_foreign_pages(
    State(local): State<SocketAddr>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if is_ours(local, peer.encrypted, request.headers()) {
        return next.run(request).await;
    }
    ApiError::new(
        StatusCode::FORBIDDEN,
        ErrorKind::Forbidden,
        "pages of other origins may not call this API",
    )
    .into_response()
}

/// Whether a request's headers fit a listener's address: no page of another
/// origin made it (`Origin`), nor one whose host name was pointed at loopback
/// (`Host`).
fn is_ours(local: SocketAddr, encrypted: bool, headers: &HeaderMap) -> bool {
    let text = |name| {
        headers
            .get(name)
            .map(|value: &HeaderValue| value.to_str().unwrap_or("?"))
    };
    let host = text(HOST);
    let host_fits = !local.ip().is_loopback() || host.is_none_or(is_loopback_name);
    let scheme = if encrypted { "https://" } else { "http://" };
    let origin_fits =
        text(ORIGIN).is_none_or(|origin| origin.strip_prefix(scheme) == host && host.is_some());
    host_fits && origin_fits
}

/// Whether the text of a `Host` header means this host itself.
fn is_loopback_name(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let name = authority.host();
    let literal = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || literal
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_names() {
        for (host, expected) in [
            ("127.0.0.1:80", true),
            ("127.0.0.1", true),
            ("localhost:5990", true),
            ("LOCALHOST", true),
            ("[::1]:5990", true),
            ("evil.example:5990", false),
            ("127.0.0.1.evil.example", false),
            ("10.0.0.1:5990", false),
            ("", false),
        ] {
            assert_eq!(is_loopback_name(host), expected, "{host}");
        }
    }

    #[test]
    fn pages_of_other_origins_are_not_ours() {
        let loopback: SocketAddr = "127.0.0.1:80".parse().unwrap();
        let anywhere: SocketAddr = "10.0.0.1:80".parse().unwrap();
        for (local, encrypted, host, origin, expected) in [
            (loopback, false, "localhost", None, true),
            (
                loopback,
                false,
                "localhost:80",
                Some("http://localhost:80"),
                true,
            ),
            (
                loopback,
                true,
                "localhost:80",
                Some("https://localhost:80"),
                true,
            ),
            (
                loopback,
                true,
                "localhost:80",
                Some("http://localhost:80"),
                false,
            ),
            (
                loopback,
                false,
                "localhost:80",
                Some("http://evil.example"),
                false,
            ),
            (loopback, false, "localhost:80", Some("null"), false),
            (loopback, true, "evil.example", None, false),
            (anywhere, true, "here.example", None, true),
            (
                anywhere,
                true,
                "here.example",
                Some("https://here.example"),
                true,
            ),
            (
                anywhere,
                true,
                "here.example",
                Some("https://evil.example"),
                false,
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                headers.insert(ORIGIN, origin.parse().unwrap());
            }
            let found = is_ours(local, encrypted, &headers);
            assert_eq!(found, expected, "{host} {origin:?}");
        }
    }
}
