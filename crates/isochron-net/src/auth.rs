//! Who a client is: the hook that a listener asks before it reads a request's body.

use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use isochron_cim::{Principal, Role};

use crate::Peer;

/// Why a request's sender is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Nobody is proved. The client is asked for credentials (401, Basic).
    Unknown,
    /// Too many try; after so long it is worth coming again (429).
    Busy(Duration),
}

impl Denied {
    /// The seconds of a `Retry-After` header, if there is to be one.
    pub fn retry_after(self) -> Option<u64> {
        match self {
            Self::Unknown => None,
            Self::Busy(later) => Some(later.as_secs().saturating_add(1)),
        }
    }

    /// What a person is told.
    pub fn message(self) -> &'static str {
        match self {
            Self::Unknown => "this server needs a user and a password",
            Self::Busy(_) => "too many logins are tried from there; try again later",
        }
    }
}

/// Decides who the sender of a request is.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// The caller whom the `Authorization` header's value (if there is one) or the
    /// connection proves. May take its time to answer a wrong one.
    ///
    /// # Errors
    /// Whoever it is, they are not let in.
    async fn authenticate(
        &self,
        authorization: Option<&str>,
        peer: &Peer,
    ) -> Result<Principal, Denied>;

    /// What somebody who was let in may do now, without a request: for what goes on in
    /// their name. `None` where they would not be let in any more.
    fn role_now(&self, principal: &Principal) -> Option<Role>;
}

/// A proof that somebody knows a user's password, from which the password does not
/// follow: what NTLM sends.
pub trait Proof: Send + Sync {
    /// Whose password.
    fn user(&self) -> &str;
    /// Whether it is the password of this NT hash (MS-NLMP §3.3.1, NTOWFv1).
    fn holds(&self, nt_hash: &[u8; 16]) -> bool;
}

/// Decides who the sender of a proof is.
#[async_trait]
pub trait ProofAuthenticator: Send + Sync + 'static {
    /// The caller whom a proof that is brought for the first time proves: a try, as one
    /// with a password is.
    ///
    /// # Errors
    /// Whoever it is, they are not let in.
    async fn prove(&self, proof: &dyn Proof, peer: &Peer) -> Result<Principal, Denied>;

    /// The caller of a further request on the connection on which the proof was brought:
    /// with what they may do now, if their password is still the same.
    ///
    /// # Errors
    /// They are not let in any more.
    fn proved(&self, proof: &dyn Proof, peer: &Peer) -> Result<Principal, Denied>;
}

/// Decides who the sender of a Kerberos ticket is.
#[async_trait]
pub trait TicketAuthenticator: Send + Sync + 'static {
    /// The caller whose ticket the token brings, as GSS-API frames it, and the token that
    /// goes back to them.
    ///
    /// # Errors
    /// Whoever it is, they are not let in.
    async fn ticket(&self, token: Vec<u8>, peer: &Peer) -> Result<(Principal, Vec<u8>), Denied>;
}

/// Lets everyone in as [`Principal::anonymous`] administrators, whatever credentials
/// they send: for tests, and servers that nobody but their owner reaches.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

#[async_trait]
impl Authenticator for AllowAll {
    async fn authenticate(
        &self,
        _authorization: Option<&str>,
        peer: &Peer,
    ) -> Result<Principal, Denied> {
        Ok(Principal::anonymous(Role::Administrator).through(peer.face, peer.address))
    }

    fn role_now(&self, _principal: &Principal) -> Option<Role> {
        Some(Role::Administrator)
    }
}

/// User and password of an `Authorization: Basic` header's value (RFC 7617,
/// UTF-8).
///
/// ```
/// use isochron_net::basic_credentials;
/// assert_eq!(basic_credentials("Basic dTpwOnE="), Some(("u".into(), "p:q".into())));
/// ```
pub fn basic_credentials(authorization: &str) -> Option<(String, String)> {
    let (scheme, encoded) = authorization.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// An `Authorization` header's value for a user and a password, the other way round.
pub fn basic_authorization(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}
