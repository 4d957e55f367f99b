//! What every TCP listener needs below its protocol, whichever that is.
//!
//! - [`Listener`] accepts connections, does TLS and keeps to [`Limits`]: neither
//!   slow handshakes nor thousands of idle connections keep others from being
//!   served.
//! - [`Tls`] is a certificate with its key, made at first start if there is none,
//!   and read anew while connections go on.
//! - [`TlsClient`] is the other side, which believes a CA or a fingerprint.
//! - [`serve`] has requests answered, by HTTP/1.1; [`Server`] is that for the protocols
//!   that carry CIM.
//! - [`Authenticator`] is asked who a request's sender is.
//! - [`outgoing`] is the other direction: messages that are sent to who asked for them.

mod auth;
mod listener;
pub mod outgoing;
mod places;
mod serve;
mod server;
mod stream;
mod tls;
mod trust;

pub use auth::{
    AllowAll, Authenticator, Denied, Proof, ProofAuthenticator, TicketAuthenticator,
    basic_authorization, basic_credentials,
};
pub use listener::{Arrival, Connection, Listener, Peer};
pub use places::{Busy, Limits, Place, one_peer};
pub use serve::{Patience, serve};
pub use server::{Protocol, Requester, Responder, Server};
pub use stream::Stream;
pub use tls::{Certificate, Files, Tls, TlsError, make_self_signed};
pub use trust::{Fingerprint, TlsClient, TlsStream, Trust};
