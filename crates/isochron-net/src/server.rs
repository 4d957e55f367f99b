//! A protocol that carries CIM over HTTP/1.1: bound, and then served.

use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use isochron_cim::CimServer;
use tokio::net::ToSocketAddrs;
use tokio::task::JoinSet;

use crate::{Listener, Patience, Peer, Place, serve};

/// How often what nobody uses is looked for.
const EXPIRY: Duration = Duration::from_secs(5);

/// A protocol, by its configuration.
pub trait Protocol: Send + 'static {
    /// The name of its face, in logs and in what callers are known by.
    const FACE: &'static str;
    /// What answers its requests.
    type Responder: Responder;

    /// For how long what is waited for.
    fn patience(&self) -> Patience;

    /// What answers requests to `server`. `address` is where it is bound.
    fn responder(self, server: Arc<dyn CimServer>, address: String) -> Self::Responder;
}

/// Answers the requests of all connections.
pub trait Responder: Send + Sync + 'static {
    /// What a response consists of.
    type Body: Body<Data: Send, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static;
    /// What a connection remembers from one request to the next.
    type Memory: Default + Send + Sync;

    /// Answers a request.
    fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
        requester: Requester<Self::Memory>,
    ) -> impl Future<Output = Response<Self::Body>> + Send;

    /// Lets go of what nobody has used for its time.
    fn expire(&self);

    /// Ends what goes on beside requests, after the last of them.
    fn end(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// The other end of the connection on which a request comes.
#[derive(Debug)]
pub struct Requester<M> {
    /// Who it is.
    pub peer: Peer,
    /// The connection's place, to be marked as busy.
    pub place: Arc<Place>,
    /// What the connection remembers.
    pub memory: Arc<M>,
}

impl<M> Clone for Requester<M> {
    fn clone(&self) -> Self {
        Self {
            peer: self.peer.clone(),
            place: self.place.clone(),
            memory: self.memory.clone(),
        }
    }
}

/// A server that is bound and not yet serving.
#[derive(Debug)]
pub struct Server<P> {
    listener: Listener,
    protocol: P,
}

impl<P: Protocol> Server<P> {
    /// Binds a TCP address, without TLS.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(address: impl ToSocketAddrs, protocol: P) -> io::Result<Self> {
        Ok(Self::new(Listener::bind(address, P::FACE).await?, protocol))
    }

    /// Serves on a listener that someone else bound.
    pub fn new(listener: Listener, protocol: P) -> Self {
        Self { listener, protocol }
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
        let patience = self.protocol.patience();
        let responder = Arc::new(self.protocol.responder(server, address));
        // Dropped, and so ended, with this function.
        let mut beside = JoinSet::new();
        beside.spawn(expire(responder.clone()));
        let of_connections = responder.clone();
        let of_connection = move |peer: &Peer, place: &Arc<Place>| {
            let responder = of_connections.clone();
            let requester = Requester {
                peer: peer.clone(),
                place: place.clone(),
                memory: Arc::default(),
            };
            service_fn(move |request| {
                let response = responder.clone().respond(request, requester.clone());
                async move { Ok::<_, Infallible>(response.await) }
            })
        };
        serve(self.listener, patience, of_connection, shutdown).await;
        let _ = tokio::time::timeout(patience.shutdown, responder.end()).await;
        Ok(())
    }
}

async fn expire<R: Responder>(responder: Arc<R>) {
    loop {
        tokio::time::sleep(EXPIRY).await;
        responder.expire();
    }
}
