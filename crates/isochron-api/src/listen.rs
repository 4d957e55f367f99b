//! The listeners: a unix socket and HTTP.
//!
//! The unix socket is guarded by its mode (0660); HTTP has no login, so it
//! belongs on loopback, and requests that a web page of another origin makes
//! through a browser are refused there. HTTP's connections are `isochron-net`'s.

use std::fs::Permissions;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use http::header::{HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use isochron_engine::{Caller, Role};
use isochron_net::{Listener, Patience, Peer, Place};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ApiError;
use crate::dto::ErrorKind;

/// The name of the face on HTTP, in logs and in what callers are known by.
pub const FACE: &str = "http";

/// Connections served at once on the unix socket; further ones wait.
const CONNECTIONS: usize = 256;

/// For how long a request's head may be on its way, and a connection idle.
const HEADER_TIME: Duration = Duration::from_secs(60);

/// For how long requests under way are waited for at the end. What changes
/// something goes on behind them to its end in any case.
const GRACE: Duration = Duration::from_secs(2);

/// A local process: whoever the socket's mode lets in may do everything. Only root
/// and who the daemon runs as could reach every path by themselves.
fn local(uid: u32) -> Caller {
    Caller {
        name: Some(format!("uid {uid}")),
        role: Role::Administrator,
        face: "unix",
        address: None,
        unconfined: uid == 0 || uid == rustix::process::geteuid().as_raw(),
    }
}

/// Someone at this address.
fn remote(peer: &Peer) -> Caller {
    Caller {
        name: Some(peer.address.ip().to_string()),
        role: Role::Administrator,
        face: peer.face,
        address: Some(peer.address.to_string()),
        unconfined: false,
    }
}

/// A bound unix socket. Its file is removed when this is dropped.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Binds, with mode 0660 from the first moment. A socket file that nobody
    /// answers on is replaced; missing directories are made.
    ///
    /// # Errors
    /// `AddrInUse` when someone answers there, `AlreadyExists` when the path is
    /// something else than a socket, and what the system says.
    pub async fn bind(path: &Path) -> io::Result<Self> {
        match tokio::fs::symlink_metadata(path).await {
            Ok(there) if !there.file_type().is_socket() => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    format!("{} exists and is not a socket", path.display()),
                ));
            }
            Ok(_) => match UnixStream::connect(path).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error),
                Ok(_) => {
                    return Err(io::Error::new(
                        io::ErrorKind::AddrInUse,
                        format!("another daemon answers on {}", path.display()),
                    ));
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if let Some(directory) = path.parent() {
            tokio::fs::create_dir_all(directory).await?;
        }
        // Under another name first, so that nobody meets it with a wider mode.
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}", std::process::id()));
        let fresh = path.with_file_name(name);
        let listener = UnixListener::bind(&fresh)?;
        let placed = async {
            tokio::fs::set_permissions(&fresh, Permissions::from_mode(0o660)).await?;
            tokio::fs::rename(&fresh, path).await
        };
        if let Err(error) = placed.await {
            let _ = std::fs::remove_file(&fresh);
            return Err(error);
        }
        Ok(Self {
            listener,
            path: path.to_owned(),
        })
    }

    /// Serves until `shutdown` is ready, then lets requests end within a bound.
    pub async fn serve(self, router: Router, shutdown: impl Future<Output = ()>) {
        serve(&self.listener, router, shutdown).await;
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Serves on a TCP listener until `shutdown` is ready, then lets requests end
/// within a bound. Names of this host other than loopback's are accepted in
/// `Host` only if the listener is not on loopback.
pub async fn serve_http(
    listener: Listener,
    router: Router,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let local = listener.local_addr()?;
    let router = router
        .layer(middleware::from_fn(admit))
        .layer(middleware::from_fn_with_state(local, refuse_foreign_pages));
    let patience = Patience {
        headers: HEADER_TIME,
        shutdown: GRACE,
    };
    let answering = move |peer: &Peer, place: &Arc<Place>| {
        let router = router.clone().layer(Extension(peer.clone()));
        TowerToHyperService::new(router.layer(Extension(Arc::clone(place))))
    };
    isochron_net::serve(listener, patience, answering, shutdown).await;
    Ok(())
}

/// Says who asks, and keeps the connection for them until they are answered.
async fn admit(
    Extension(peer): Extension<Peer>,
    Extension(place): Extension<Arc<Place>>,
    mut request: Request,
    next: Next,
) -> Response {
    let _busy = place.busy();
    request.extensions_mut().insert(remote(&peer));
    next.run(request).await
}

/// Refuses what a browser sends for a page that is not ours.
async fn refuse_foreign_pages(
    State(local): State<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if is_ours(local, request.headers()) {
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
fn is_ours(local: SocketAddr, headers: &HeaderMap) -> bool {
    let text = |name| {
        headers
            .get(name)
            .map(|value: &HeaderValue| value.to_str().unwrap_or("?"))
    };
    let host = text(HOST);
    let host_fits = !local.ip().is_loopback() || host.is_none_or(is_loopback_name);
    let origin_fits =
        text(ORIGIN).is_none_or(|origin| origin.strip_prefix("http://") == host && host.is_some());
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

/// The next connection, and who is at its other end.
async fn accept(listener: &UnixListener) -> io::Result<(UnixStream, Caller)> {
    let (stream, _) = listener.accept().await?;
    let caller = stream.peer_cred().map(|peer| local(peer.uid()))?;
    Ok((stream, caller))
}

/// Accepts and serves connections until `shutdown` is ready.
async fn serve(listener: &UnixListener, router: Router, shutdown: impl Future<Output = ()>) {
    let connections = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut shutdown = pin!(shutdown);
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, accept(listener).await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = &mut shutdown => break,
        };
        match (place, accepted) {
            (Ok(place), Ok((stream, caller))) => {
                answer(stream, caller, &router, &connections, place);
            }
            (_, Err(error)) => {
                // Out of descriptors, or the peer is gone already.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            // Nobody closes the semaphore.
            (Err(_), Ok(_)) => break,
        }
    }
    if tokio::time::timeout(GRACE, connections.shutdown())
        .await
        .is_err()
    {
        tracing::info!("requests that were still under way are given up");
    }
}

/// Serves one connection in a task of its own.
fn answer(
    stream: UnixStream,
    caller: Caller,
    router: &Router,
    connections: &GracefulShutdown,
    place: OwnedSemaphorePermit,
) {
    let service = TowerToHyperService::new(router.clone().layer(Extension(caller)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .serve_connection(TokioIo::new(stream), service);
    let connection = connections.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended early");
        }
        drop(place);
    });
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

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/api.sock");
        let first = Socket::bind(&path).await.unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o660
        );
        let error = Socket::bind(&path).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());

        // As a killed daemon leaves it: the file without a listener.
        let stale = directory.path().join("stale.sock");
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
        assert!(stale.exists());
        let second = Socket::bind(&stale).await.unwrap();
        UnixStream::connect(&stale).await.unwrap();

        drop((first, second));
        assert!(!path.exists() && !stale.exists());
        let left = std::fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(left, 0);
    }

    #[tokio::test]
    async fn what_is_not_a_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "precious").unwrap();
        assert!(Socket::bind(&path).await.is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
