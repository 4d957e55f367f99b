//! WS-Management over HTTP/1.1 (DSP0226 annex C): a listener and its connections.
//!
//! What holds: a client cannot hold a connection without using it, nor more of them than
//! the listener allows, nor send more than the limits; a reply leaves in one write;
//! shutting down lets running requests finish.

mod exchange;
mod login;
mod refusal;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use isochron_cim::{CimServer, EnumerationLimits};
use isochron_cimxml::decode::Limits;
use isochron_net::{AllowAll, Authenticator, Listener, Patience, ProofAuthenticator};
use tokio::net::ToSocketAddrs;
use tokio::task::JoinSet;

use crate::operations::Operations;
use exchange::{Sender, Service};

/// The name of this face, in logs and in what callers are known by.
pub const FACE: &str = "ws-man";

/// How often enumerations that nobody uses are looked for.
const EXPIRY: Duration = Duration::from_secs(5);

/// How a listener behaves.
#[derive(Clone)]
pub struct Config {
    /// Who callers are.
    pub authenticator: Arc<dyn Authenticator>,
    /// Who they are that prove it by NTLM; `None`, and Negotiate is not offered.
    pub negotiate: Option<Arc<dyn ProofAuthenticator>>,
    /// What this host is called in NTLM's challenges.
    pub host: String,
    /// The realm that clients show when they ask for a password.
    pub realm: String,
    /// Bytes of a request's body.
    pub max_body: usize,
    /// From a connection's start, or its last response, to the end of the next
    /// request's headers.
    pub header_timeout: Duration,
    /// For a request's body.
    pub body_timeout: Duration,
    /// The longest that an operation is waited for, whatever its client asks.
    pub operation_timeout: Duration,
    /// What clients may have open at a time.
    pub enumerations: EnumerationLimits,
    /// For requests under way when the server is told to stop.
    pub shutdown_timeout: Duration,
}

impl Default for Config {
    /// Everyone is let in; 4 MiB, 30 s for headers and for a body, five minutes for an
    /// operation, 5 s at shutdown.
    fn default() -> Self {
        Self {
            authenticator: Arc::new(AllowAll),
            negotiate: None,
            host: "localhost".into(),
            realm: "isochron".into(),
            max_body: 4 << 20,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            operation_timeout: Duration::from_secs(300),
            enumerations: EnumerationLimits::default(),
            shutdown_timeout: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// What a request's document may hold: far less than one of CIM-XML, whose classes
    /// and instances clients write.
    fn limits(&self) -> Limits {
        Limits {
            bytes: self.max_body,
            depth: 64,
            elements: 100_000,
        }
    }
}

/// A WS-Management server that is bound and not yet serving.
pub struct Server {
    listener: Listener,
    config: Config,
}

impl Server {
    /// Binds a TCP address, without TLS.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(address: impl ToSocketAddrs, config: Config) -> io::Result<Self> {
        Ok(Self::new(Listener::bind(address, FACE).await?, config))
    }

    /// Serves on a listener that someone else bound.
    pub fn new(listener: Listener, config: Config) -> Self {
        Self { listener, config }
    }

    /// The address that is bound.
    ///
    /// # Errors
    /// The operating system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` completes, then lets requests under way finish for as long
    /// as the configuration says.
    ///
    /// # Errors
    /// The operating system does not tell the listener's address. A connection that fails
    /// is logged and ends nothing else.
    pub async fn serve(
        self,
        server: Arc<dyn CimServer>,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let address = self.local_addr()?.to_string();
        let patience = Patience {
            headers: self.config.header_timeout,
            shutdown: self.config.shutdown_timeout,
        };
        let config = self.config;
        let operations = Operations::new(server, config.enumerations, config.operation_timeout);
        // Dropped, and so ended, with this function.
        let mut beside = JoinSet::new();
        beside.spawn(expire(operations.clone()));
        let service = Arc::new(Service {
            config,
            operations,
            address,
        });
        let answering = move |peer: &isochron_net::Peer, place: &Arc<isochron_net::Place>| {
            let service = Arc::clone(&service);
            let sender = Sender {
                peer: peer.clone(),
                place: Arc::clone(place),
                login: Arc::default(),
            };
            service_fn(move |request| {
                let (service, sender) = (Arc::clone(&service), sender.clone());
                async move { Ok::<_, Infallible>(service.respond(request, sender).await) }
            })
        };
        isochron_net::serve(self.listener, patience, answering, shutdown).await;
        Ok(())
    }
}

/// Frees what is open and nobody has used for its timeout.
async fn expire(operations: Operations) {
    loop {
        tokio::time::sleep(EXPIRY).await;
        operations.expire();
    }
}
