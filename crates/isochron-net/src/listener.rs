//! Accepts connections: a place for each, and TLS, which is done on the
//! connection's own task so that nobody waits for another's handshake.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, ToSocketAddrs};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::places::Places;
use crate::tls::common_name;
use crate::{Limits, Place, Stream, Tls};

/// How many connections are told at a time that there is no place for them.
const REFUSED_AT_ONCE: usize = 16;

/// What they are told.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n\
    Retry-After: 1\r\nContent-Type: text/plain\r\nContent-Length: 36\r\n\r\n\
    all connections are busy; try again\n";

/// A TCP listener of one face.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    face: &'static str,
    tls: Option<Arc<Tls>>,
    places: Arc<Places>,
    limits: Limits,
    refusing: Arc<Semaphore>,
}

/// The other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Through which face it came: `cim-xml`, `http`, ...
    pub face: &'static str,
    /// Whether nobody between can read along.
    pub encrypted: bool,
    /// The common name of its certificate's subject, where it showed one that the
    /// listener's CA signed.
    pub certificate: Option<String>,
}

/// A connection that was accepted, before any byte of it was read.
#[derive(Debug)]
pub struct Arrival {
    stream: TcpStream,
    peer: Peer,
    place: Place,
    tls: Option<Arc<Tls>>,
    handshake: Duration,
}

/// A connection that can be served.
#[derive(Debug)]
pub struct Connection {
    /// Its bytes.
    pub stream: Stream,
    /// Its other end.
    pub peer: Peer,
    /// Its place. Whoever serves it stops when it is
    /// [evicted](Place::evicted), and says when it is [busy](Place::busy).
    pub place: Arc<Place>,
}

impl Listener {
    /// A listener of a face, with TLS where `tls` is given.
    pub fn new(
        tcp: TcpListener,
        face: &'static str,
        tls: Option<Arc<Tls>>,
        limits: Limits,
    ) -> Self {
        Self {
            tcp,
            face,
            tls,
            places: Arc::new(Places::new(limits)),
            limits,
            refusing: Arc::new(Semaphore::new(REFUSED_AT_ONCE)),
        }
    }

    /// Binds an address for a face, without TLS and with the default limits.
    ///
    /// # Errors
    /// The address cannot be bound.
    pub async fn bind(address: impl ToSocketAddrs, face: &'static str) -> io::Result<Self> {
        let tcp = TcpListener::bind(address).await?;
        Ok(Self::new(tcp, face, None, Limits::default()))
    }

    /// The address that is bound.
    ///
    /// # Errors
    /// The operating system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Whether nobody between can read along.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// The next connection. Nothing is lost if this is dropped before it is ready.
    pub async fn accept(&self) -> Arrival {
        loop {
            let (stream, address) = match self.tcp.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: let some go first.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Some(place) = self.places.admit(address.ip()) else {
                tracing::debug!(%address, face = self.face, "no place for a connection");
                self.refuse(stream);
                continue;
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY could not be set");
            }
            return Arrival {
                stream,
                peer: Peer {
                    address,
                    face: self.face,
                    encrypted: self.tls.is_some(),
                    certificate: None,
                },
                place,
                tls: self.tls.clone(),
                handshake: self.limits.handshake,
            };
        }
    }

    /// Says that there is no place, as far as that costs little.
    fn refuse(&self, mut stream: TcpStream) {
        if self.tls.is_some() {
            return;
        }
        let Ok(permit) = Arc::clone(&self.refusing).try_acquire_owned() else {
            return;
        };
        tokio::spawn(async move {
            let _permit = permit;
            let say = async {
                stream.write_all(REFUSAL).await?;
                stream.shutdown().await?;
                // Closed with its request unread, the client might not see the answer.
                let mut unread = [0; 4096];
                while stream.read(&mut unread).await? > 0 {}
                io::Result::Ok(())
            };
            let _ = timeout(Duration::from_secs(1), say).await;
        });
    }
}

impl Arrival {
    /// Where it comes from.
    pub fn address(&self) -> SocketAddr {
        self.peer.address
    }

    /// Makes it ready to be served: does the TLS handshake, if there is one.
    ///
    /// # Errors
    /// The handshake failed, took too long, or the place was needed.
    pub async fn open(self) -> io::Result<Connection> {
        let Self {
            stream,
            mut peer,
            place,
            tls,
            handshake,
        } = self;
        let Some(tls) = tls else {
            return Ok(Connection {
                stream: Stream::Plain(stream),
                peer,
                place: Arc::new(place),
            });
        };
        let accept = TlsAcceptor::from(tls.current()).accept(stream);
        let stream = tokio::select! {
            done = timeout(handshake, accept) => done.map_err(|_| {
                io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake took too long")
            })??,
            () = place.evicted() => return Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "the place was needed before the TLS handshake was done",
            )),
        };
        let certificates = stream.get_ref().1.peer_certificates();
        peer.certificate = certificates
            .and_then(|chain| chain.first())
            .and_then(|certificate| common_name(certificate));
        Ok(Connection {
            stream: Stream::Tls(Box::new(stream)),
            peer,
            place: Arc::new(place),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_has_the_length_that_it_says() {
        let text = std::str::from_utf8(REFUSAL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
    }
}
