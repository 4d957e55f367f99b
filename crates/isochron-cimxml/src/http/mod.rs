//! CIM-XML over HTTP/1.1 (DSP0200 §6, §7): a listener and its connections.
//!
//! Any path is served (clients use `/cimom`), with POST and M-POST. What holds:
//! a client cannot hold a connection without using it, nor more of them than
//! the listener allows, nor send more than the limits; responses leave in one
//! write where they fit; shutting down lets running requests finish.

mod auth;
mod exchange;
mod headers;
mod refusal;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use isochron_cim::CimServer;
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

pub use auth::{AllowAll, Authenticator, basic_credentials};
use exchange::Service;

use crate::decode::Limits;

/// How a listener behaves.
#[derive(Clone)]
pub struct Config {
    /// Who callers are.
    pub authenticator: Arc<dyn Authenticator>,
    /// The realm that clients show when they ask for a password.
    pub realm: String,
    /// Bytes of a request's body.
    pub max_body: usize,
    /// Connections at a time; further ones wait to be accepted.
    pub max_connections: usize,
    /// From a connection's start, or its last response, to the end of the next
    /// request's headers.
    pub header_timeout: Duration,
    /// For a request's body.
    pub body_timeout: Duration,
    /// For an operation; afterwards the client gets an error, and the operation
    /// runs on.
    pub operation_timeout: Duration,
    /// For requests under way when the server is told to stop.
    pub shutdown_timeout: Duration,
}

impl Default for Config {
    /// Everyone is let in; 16 MiB, 256 connections, 30 s for headers and for a
    /// body, five minutes for an operation, 5 s at shutdown.
    fn default() -> Self {
        Self {
            authenticator: Arc::new(AllowAll),
            realm: "isochron".into(),
            max_body: 16 << 20,
            max_connections: 256,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            operation_timeout: Duration::from_secs(300),
            shutdown_timeout: Duration::from_secs(5),
        }
    }
}

impl Config {
    fn limits(&self) -> Limits {
        Limits {
            bytes: self.max_body,
            ..Limits::default()
        }
    }
}

/// A CIM-XML server that is bound and not yet serving.
pub struct Server {
    listener: TcpListener,
    config: Config,
}

impl Server {
    /// Binds a TCP address.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(address: impl ToSocketAddrs, config: Config) -> io::Result<Self> {
        Ok(Self::new(TcpListener::bind(address).await?, config))
    }

    /// Serves on a listener that someone else bound.
    pub fn new(listener: TcpListener, config: Config) -> Self {
        Self { listener, config }
    }

    /// The address that is bound.
    ///
    /// # Errors
    /// The operating system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` completes, then lets requests under way finish
    /// for as long as the configuration says.
    ///
    /// # Errors
    /// The operating system does not tell the listener's address. A connection
    /// that fails is logged and ends nothing else.
    pub async fn serve(
        self,
        server: Arc<dyn CimServer>,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let address = self.local_addr()?.to_string();
        let places = Arc::new(Semaphore::new(self.config.max_connections.max(1)));
        let grace = self.config.shutdown_timeout;
        let service = Arc::new(Service {
            config: self.config,
            server,
            address,
        });
        let (stop, stopping) = watch::channel(());
        let mut connections = JoinSet::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            // A semaphore that is never closed always gives a permit.
            let accept = async {
                let place = Arc::clone(&places).acquire_owned().await.ok();
                (place, self.listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                () = &mut shutdown => break,
                accepted = accept => accepted,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok((stream, _)) => {
                    let connection = connection(stream, Arc::clone(&service), stopping.clone());
                    connections.spawn(async move {
                        let _place = place;
                        connection.await;
                    });
                }
                Err(error) => {
                    // Out of descriptors, most likely: let some go first.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
        drop(self.listener);
        drop(stop);
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, all).await.is_err() {
            tracing::warn!("connections still busy at shutdown were cut off");
        }
        Ok(())
    }
}

async fn connection(stream: TcpStream, service: Arc<Service>, mut stopping: watch::Receiver<()>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let header_timeout = service.config.header_timeout;
    let respond = service_fn(move |request| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.respond(request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(header_timeout)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), respond);
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        // The sender is dropped to stop everyone.
        _ = stopping.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended early");
    }
}
