//! CIM-XML over HTTP/1.1 (DSP0200 §6, §7).
//!
//! Any path is served (clients use `/cimom`), with POST and M-POST. What holds:
//! a client cannot hold a connection without using it, nor more of them than
//! the listener allows, nor send more than the limits; short responses leave in one
//! write and long ones as they are made; shutting down lets running requests finish.

mod answering;
mod exchange;
mod headers;
mod refusal;
mod reply;

use std::sync::Arc;
use std::time::Duration;

use isochron_cim::{CimServer, EnumerationLimits};
use isochron_net::{AllowAll, Authenticator, Patience, Protocol};

use answering::Sending;
use exchange::Service;

use crate::decode::Limits;
use crate::operations::Operations;

/// The name of this face, in logs and in what callers are known by.
pub const FACE: &str = "cim-xml";

/// How a listener behaves.
#[derive(Clone)]
pub struct Config {
    /// Who callers are.
    pub authenticator: Arc<dyn Authenticator>,
    /// The realm that clients show when they ask for a password.
    pub realm: String,
    /// Bytes of a request's body.
    pub max_body: usize,
    /// Elements of a request that are nested in one another.
    pub max_depth: usize,
    /// Elements of a request.
    pub max_elements: usize,
    /// From a connection's start, or its last response, to the end of the next
    /// request's headers.
    pub header_timeout: Duration,
    /// For a request's body.
    pub body_timeout: Duration,
    /// For an operation; afterwards the client gets an error, and the operation
    /// runs on. In a long response, for each instance.
    pub operation_timeout: Duration,
    /// For the client to take a piece of a long response; afterwards it gets no more.
    pub sending_timeout: Duration,
    /// What clients may have open at a time.
    pub enumerations: EnumerationLimits,
    /// For requests under way when the server is told to stop.
    pub shutdown_timeout: Duration,
}

impl Default for Config {
    /// Everyone is let in; 16 MiB, 64 levels, a million elements, 30 s for headers and for a body, five minutes for
    /// an operation, one for a piece of a response, 5 s at shutdown.
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            authenticator: Arc::new(AllowAll),
            realm: "isochron".into(),
            max_body: limits.bytes,
            max_depth: limits.depth,
            max_elements: limits.elements,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            operation_timeout: Duration::from_secs(300),
            sending_timeout: Duration::from_secs(60),
            enumerations: EnumerationLimits::default(),
            shutdown_timeout: Duration::from_secs(5),
        }
    }
}

impl Config {
    fn limits(&self) -> Limits {
        Limits {
            bytes: self.max_body,
            depth: self.max_depth,
            elements: self.max_elements,
        }
    }

    fn sending(&self) -> Sending {
        Sending {
            next: self.operation_timeout,
            taken: self.sending_timeout,
        }
    }
}

/// A CIM-XML server that is bound and not yet serving.
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
            operations: Operations::new(server, self.enumerations),
            config: self,
            address,
        }
    }
}
