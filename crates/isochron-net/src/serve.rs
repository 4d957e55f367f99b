//! Serves HTTP/1.1 on a listener: a task per connection, which ends when its
//! client is silent for too long, its place is needed, or the server stops.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::{Arrival, Listener, Peer, Place};

/// For how long what is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// From a connection's start, or its last response, to the end of the next
    /// request's headers.
    pub headers: Duration,
    /// For requests under way when the server is told to stop.
    pub shutdown: Duration,
}

/// Serves until `shutdown` is ready, then lets requests under way end within a
/// bound. `service` makes what answers one connection's requests; it is to say
/// when the connection's place is [busy](Place::busy).
pub async fn serve<S, B>(
    listener: Listener,
    patience: Patience,
    service: impl Fn(&Peer, &Arc<Place>) -> S + Clone + Send + 'static,
    shutdown: impl Future<Output = ()>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let (stop, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let arrival = tokio::select! {
            () = &mut shutdown => break,
            arrival = listener.accept() => arrival,
            Some(_) = connections.join_next() => continue,
        };
        let (service, stopping) = (service.clone(), stopping.clone());
        connections.spawn(async move {
            let address = arrival.address();
            if let Err(error) = converse(arrival, patience, service, stopping).await {
                tracing::debug!(%address, %error, "a connection ended early");
            }
        });
    }
    drop(listener);
    drop(stop);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(patience.shutdown, all).await.is_err() {
        tracing::info!("connections still busy at shutdown were cut off");
    }
}

/// One connection, from its handshake to its end.
async fn converse<S, B>(
    arrival: Arrival,
    patience: Patience,
    service: impl Fn(&Peer, &Arc<Place>) -> S,
    mut stopping: watch::Receiver<()>,
) -> io::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: Body + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let connection = tokio::select! {
        opened = arrival.open() => opened?,
        _ = stopping.changed() => return Ok(()),
    };
    let service = service(&connection.peer, &connection.place);
    let http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.headers)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(connection.stream), service);
    let mut http = pin!(http);
    tokio::select! {
        result = http.as_mut() => result,
        () = connection.place.evicted() => return Err(io::Error::new(
            io::ErrorKind::ConnectionAborted,
            "it was idle and its place was needed",
        )),
        // The sender is dropped to stop everyone.
        _ = stopping.changed() => {
            http.as_mut().graceful_shutdown();
            http.await
        }
    }
    .map_err(io::Error::other)
}
