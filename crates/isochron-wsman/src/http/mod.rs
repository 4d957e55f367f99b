//! WS-Management over HTTP/1.1 (DSP0226 annex C).
//!
//! What holds: a client cannot hold a connection without using it, nor more of them than
//! the listener allows, nor send more than the limits; a reply leaves in one write;
//! shutting down lets running requests finish.

mod exchange;
mod login;
mod refusal;

use std::sync::Arc;
use std::time::Duration;

use isochron_cim::{CimServer, EnumerationLimits};
use isochron_cimxml::decode::Limits;
use isochron_net::outgoing::Outgoing;
use isochron_net::{
    AllowAll, Authenticator, Patience, ProofAuthenticator, Protocol, TicketAuthenticator,
};

use crate::operations::Operations;
use exchange::Service;

/// The name of this face, in logs and in what callers are known by.
pub const FACE: &str = "ws-man";

/// How a listener behaves.
#[derive(Clone)]
pub struct Config {
    /// Who callers are.
    pub authenticator: Arc<dyn Authenticator>,
    /// Who they are that prove it by NTLM; `None`, and Negotiate is not offered.
    pub negotiate: Option<Arc<dyn ProofAuthenticator>>,
    /// Who they are that bring a Kerberos ticket; `None`, and none is taken.
    pub tickets: Option<Arc<dyn TicketAuthenticator>>,
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
    /// Where events may be delivered to, and how.
    pub outgoing: Outgoing,
    /// For requests under way when the server is told to stop, and then for telling of
    /// subscriptions that end with it.
    pub shutdown_timeout: Duration,
}

impl Default for Config {
    /// Everyone is let in; 4 MiB, 30 s for headers and for a body, five minutes for an
    /// operation, 5 s at shutdown.
    fn default() -> Self {
        Self {
            authenticator: Arc::new(AllowAll),
            negotiate: None,
            tickets: None,
            host: "localhost".into(),
            realm: "isochron".into(),
            max_body: 4 << 20,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            operation_timeout: Duration::from_secs(300),
            enumerations: EnumerationLimits::default(),
            outgoing: Outgoing::default(),
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
pub type Server = isochron_net::Server<Config>;

impl Protocol for Config {
    const FACE: &'static str = FACE;
    type Responder = Service;

    fn patience(&self) -> Patience {
        Patience {
            headers: self.header_timeout,
            shutdown: self.shutdown_timeout,
        }
    }

    fn responder(self, server: Arc<dyn CimServer>, address: String) -> Service {
        Service {
            operations: Operations::new(server, &self),
            config: self,
            address,
        }
    }
}
