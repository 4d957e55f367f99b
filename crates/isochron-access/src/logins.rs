//! Decides who the sender of a request is: by Basic credentials (RFC 7617) of one of
//! our users, by a proof that NTLM brings of a user who is allowed that, by a Kerberos
//! ticket that was accepted, else by the certificate that the connection showed, else
//! nobody in particular, where the configuration gives nobody a role.
//!
//! Credentials that are sent have to be right, also where none are needed. A password
//! is verified once for all requests that bring it at the same time, in a task of its
//! own: a client that hangs up takes its try with it no more than its result.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use isochron_cim::Principal;
use isochron_engine::{Caller, EngineError, Role};
use isochron_net::{Authenticator, Denied, Peer, Proof, ProofAuthenticator, basic_credentials};
use tokio::sync::watch;

use crate::AuditLog;
use crate::password::{self, PASSWORD_MAX, Password};
use crate::remembered::Remembered;
use crate::throttle::Throttle;
use crate::users::{Kept, Users, is_name};

/// How many passwords are waited for at a time.
const AT_ONCE: usize = 1024;

/// When to come again if there are more.
const LATER: Duration = Duration::from_secs(5);

/// Who gets in beside users with their passwords.
#[derive(Clone, Debug, Default)]
pub struct LoginConfig {
    /// The role of those who bring neither credentials nor a certificate.
    pub anonymous: Option<Role>,
    /// The users whom common names of client certificates mean, where they are not the
    /// names themselves.
    pub certificates: BTreeMap<String, String>,
    /// The users whom Kerberos principals mean, by their names with the realm.
    pub principals: BTreeMap<String, String>,
}

/// Decides who the sender of a request is.
pub struct Logins(Arc<Inner>);

struct Inner {
    users: Arc<Users>,
    config: LoginConfig,
    audit: Arc<AuditLog>,
    remembered: Remembered,
    throttle: Throttle,
    /// What is being verified, and where its result will be.
    pending: Mutex<HashMap<Attempt, watch::Receiver<Verdict>>>,
    /// The hash of a password that nobody knows: a name that is nobody's takes as long
    /// as any other.
    nobody: String,
}

/// `None` as long as it is not known.
type Verdict = Option<Result<(), Denied>>;

/// Who says which password where.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Attempt {
    address: IpAddr,
    name: String,
    password: Vec<u8>,
}

impl Logins {
    /// Lets in these users.
    ///
    /// # Errors
    /// `Failed`: there is no randomness.
    pub async fn new(
        users: Arc<Users>,
        config: LoginConfig,
        audit: Arc<AuditLog>,
    ) -> Result<Self, EngineError> {
        let nobody = users.hashing.hash(password::unknown()?).await?;
        Ok(Self(Arc::new(Inner {
            users,
            config,
            audit,
            remembered: Remembered::new()?,
            throttle: Throttle::default(),
            pending: Mutex::default(),
            nobody,
        })))
    }

    /// The user whose Kerberos ticket was accepted.
    ///
    /// # Errors
    /// The principal is no user's.
    pub fn by_principal(&self, name: &str, peer: &Peer) -> Result<Principal, Denied> {
        let inner = &self.0;
        let user = inner.config.principals.get(name);
        let Some(user) = user.and_then(|user| inner.users.get(user)) else {
            let why = "the Kerberos principal is no user's";
            inner.audit.refused(Some(name), peer, why);
            return Err(Denied::Unknown);
        };
        inner.audit.came(&user, peer);
        Ok(principal(&user, peer))
    }

    /// A Kerberos ticket was not accepted.
    pub fn refused_ticket(&self, why: &str, peer: &Peer) -> Denied {
        self.0.audit.refused(None, peer, why);
        Denied::Unknown
    }
}

#[async_trait]
impl Authenticator for Logins {
    async fn authenticate(
        &self,
        authorization: Option<&str>,
        peer: &Peer,
    ) -> Result<Principal, Denied> {
        let inner = &self.0;
        let Some(authorization) = authorization else {
            return match &peer.certificate {
                Some(common_name) => inner.by_certificate(common_name, peer),
                None => inner.anonymous(peer),
            };
        };
        let Some((name, password)) = basic_credentials(authorization) else {
            inner.audit.refused(None, peer, "no Basic credentials");
            return Err(Denied::Unknown);
        };
        let password = Password::new(password);
        if let Some(user) = inner.users.get(&name)
            && inner.remembered.knows(&user, &password)
        {
            return Ok(principal(&user, peer));
        }
        inner.verified(&name, password, peer).await?;
        // The role that they have now; and they may be gone again.
        match inner.users.get(&name) {
            Some(user) => Ok(principal(&user, peer)),
            None => Err(Denied::Unknown),
        }
    }

    fn role_now(&self, principal: &Principal) -> Option<isochron_cim::Role> {
        let inner = &self.0;
        let role = match &principal.name {
            Some(name) => inner.users.get(name)?.role,
            None => inner.config.anonymous?,
        };
        Some(cim_role(role))
    }
}

#[async_trait]
impl ProofAuthenticator for Logins {
    async fn prove(&self, proof: &dyn Proof, peer: &Peer) -> Result<Principal, Denied> {
        let (inner, address) = (&self.0, peer.address.ip());
        // What is no name is nobody's, and as long as a client likes.
        let name = if is_name(proof.user()) {
            proof.user()
        } else {
            ""
        };
        let said = (!name.is_empty()).then_some(name);
        let turn = inner.throttle.turn(address, name).map_err(|later| {
            inner.audit.refused(said, peer, "too many tries");
            Denied::Busy(later)
        })?;
        tokio::time::sleep_until(turn).await;
        match inner.by_proof(proof) {
            Some(user) => {
                inner.throttle.succeeded(address, name);
                inner.audit.came(&user, peer);
                Ok(principal(&user, peer))
            }
            None => {
                let why = "wrong name or password, or one without NTLM";
                inner.audit.refused(said, peer, why);
                Err(Denied::Unknown)
            }
        }
    }

    fn proved(&self, proof: &dyn Proof, peer: &Peer) -> Result<Principal, Denied> {
        let user = self.0.by_proof(proof).ok_or(Denied::Unknown)?;
        Ok(principal(&user, peer))
    }
}

fn principal(user: &Kept, peer: &Peer) -> Principal {
    Principal::user(&user.name, cim_role(user.role)).through(peer.face, peer.address)
}

/// The engine's word for whom a listener let in.
pub fn caller(principal: &Principal) -> Caller {
    let role = match principal.role {
        isochron_cim::Role::Reader => Role::Reader,
        isochron_cim::Role::Operator => Role::Operator,
        isochron_cim::Role::Administrator => Role::Administrator,
    };
    Caller {
        name: principal.name.clone(),
        role,
        face: principal.face,
        address: principal.address.map(|address| address.to_string()),
        unconfined: false,
    }
}

fn cim_role(role: Role) -> isochron_cim::Role {
    match role {
        Role::Reader => isochron_cim::Role::Reader,
        Role::Operator => isochron_cim::Role::Operator,
        Role::Administrator => isochron_cim::Role::Administrator,
    }
}

impl Inner {
    fn anonymous(&self, peer: &Peer) -> Result<Principal, Denied> {
        let role = self.config.anonymous.ok_or(Denied::Unknown)?;
        Ok(Principal::anonymous(cim_role(role)).through(peer.face, peer.address))
    }

    /// The user whose password the proof is of.
    fn by_proof(&self, proof: &dyn Proof) -> Option<Arc<Kept>> {
        let user = self.users.get(proof.user())?;
        let hash = password::nt_hash_of(user.nt_hash.as_deref()?)?;
        proof.holds(&hash).then_some(user)
    }

    fn by_certificate(&self, common_name: &str, peer: &Peer) -> Result<Principal, Denied> {
        let mapped = self.config.certificates.get(common_name);
        let name = mapped.map_or(common_name, String::as_str);
        match self.users.get(name) {
            Some(user) => Ok(principal(&user, peer)),
            None => {
                let why = "the certificate's common name is no user's";
                self.audit.refused(Some(common_name), peer, why);
                Err(Denied::Unknown)
            }
        }
    }

    /// Waits until it is known whether this is the user's password.
    async fn verified(
        self: &Arc<Self>,
        name: &str,
        password: Password,
        peer: &Peer,
    ) -> Result<(), Denied> {
        let attempt = Attempt {
            address: peer.address.ip(),
            // What is no name is nobody's, and as long as a client likes.
            name: if is_name(name) {
                name.to_owned()
            } else {
                String::new()
            },
            password: self.remembered.tag(&password).as_ref().to_vec(),
        };
        let mut verdict = {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            match pending.get(&attempt) {
                Some(verdict) => verdict.clone(),
                None if pending.len() >= AT_ONCE => return Err(Denied::Busy(LATER)),
                None => {
                    let (tell, verdict) = watch::channel(None);
                    pending.insert(attempt.clone(), verdict.clone());
                    let (inner, peer) = (Arc::clone(self), peer.clone());
                    tokio::spawn(async move {
                        let result = inner.verify(&attempt, password, &peer).await;
                        let pending = inner.pending.lock();
                        let mut pending = pending.unwrap_or_else(PoisonError::into_inner);
                        pending.remove(&attempt);
                        tell.send_replace(Some(result));
                    });
                    verdict
                }
            }
        };
        // The task sends in any case, unless it panics.
        match verdict.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(result)) => *result,
            _ => Err(Denied::Unknown),
        }
    }

    /// Verifies a password when its turn comes.
    async fn verify(
        &self,
        attempt: &Attempt,
        password: Password,
        peer: &Peer,
    ) -> Result<(), Denied> {
        let Attempt { address, name, .. } = attempt;
        let said = (!name.is_empty()).then_some(name.as_str());
        let turn = self.throttle.turn(*address, name).map_err(|later| {
            self.audit.refused(said, peer, "too many tries");
            Denied::Busy(later)
        })?;
        tokio::time::sleep_until(turn).await;
        let user = self.users.get(name);
        let hash = user.as_ref().map_or(&self.nobody, |user| &user.hash);
        let right = match password.len() {
            0..=PASSWORD_MAX => {
                let verifying = self.users.hashing.verify(password.clone(), hash.clone());
                verifying.await.unwrap_or_else(|error| {
                    tracing::error!(%error, user = ?said, "a password could not be verified");
                    false
                })
            }
            _ => false,
        };
        match user {
            Some(user) if right => {
                self.throttle.succeeded(*address, name);
                self.remembered.remember(&user, &password);
                self.audit.came(&user, peer);
                Ok(())
            }
            _ => {
                self.audit.refused(said, peer, "wrong name or password");
                Err(Denied::Unknown)
            }
        }
    }
}

#[cfg(test)]
mod tests;
