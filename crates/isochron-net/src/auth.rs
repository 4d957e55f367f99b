//! Who a client is: the hook that a listener asks before it reads a request's body.

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use isochron_cim::{Principal, Role};

use crate::Peer;

/// Decides who the sender of a request is.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// The caller whom the `Authorization` header's value (if there is one) or the
    /// connection proves, or `None`: the client is asked for credentials (401,
    /// Basic). May take its time to answer a wrong one.
    async fn authenticate(&self, authorization: Option<&str>, peer: &Peer) -> Option<Principal>;
}

/// Lets everyone in as [`Principal::anonymous`] administrators, whatever credentials
/// they send: for tests, and servers that nobody but their owner reaches.
#[derive(Clone, Copy, Debug, Default)]
pub struct AllowAll;

#[async_trait]
impl Authenticator for AllowAll {
    async fn authenticate(&self, _authorization: Option<&str>, peer: &Peer) -> Option<Principal> {
        Some(Principal::anonymous(Role::Administrator).through(peer.face, peer.address))
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
