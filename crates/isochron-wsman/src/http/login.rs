//! Who sends a request, and what that leaves behind on its connection.
//!
//! Basic, a certificate, or nobody in particular are the [`Authenticator`]'s business and
//! leave nothing. Negotiate logs a connection in: its further requests bring no header,
//! and are of whoever proved who they are on it, as long as their password is the same,
//! or, where that was a Kerberos ticket, as long as they are a user.
//! Without TLS, such requests are encrypted, or are refused: else whoever is on the way
//! could put in requests of their own.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use isochron_cim::Principal;
use isochron_net::{Denied, Peer, Proof, ProofAuthenticator, TicketAuthenticator};

use super::Config;
use super::refusal::Refusal;
use crate::negotiate::{self, Answer, Answered, Handshake, Session, Step};

/// What a connection remembers.
#[derive(Default)]
pub struct Login(Mutex<State>);

#[derive(Default)]
struct State {
    handshake: Handshake,
    logged_in: Option<LoggedIn>,
}

enum LoggedIn {
    /// By NTLM.
    Proof {
        proved: Proved,
        session: Box<Session>,
    },
    /// By Kerberos.
    Ticket(Principal),
}

/// A proof that was brought, and the session key that follows from it if it holds.
struct Proved {
    answer: Answer,
    key: OnceLock<[u8; 16]>,
}

impl Proof for Proved {
    fn user(&self) -> &str {
        &self.answer.user
    }

    fn holds(&self, nt_hash: &[u8; 16]) -> bool {
        match self.answer.session_key(nt_hash) {
            Some(key) => *self.key.get_or_init(|| key) == key,
            None => false,
        }
    }
}

/// Who sends a request.
pub(super) struct Caller {
    pub principal: Principal,
    /// Whether it is the connection that is logged in.
    pub by_connection: bool,
    /// The last token of a handshake, which goes back with the reply.
    pub token: Option<HeaderValue>,
}

impl Login {
    fn state(&self) -> MutexGuard<'_, State> {
        // A session that a panic left half way is none that anything can be read with.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the session, if there is one; one that fails is over.
    pub(super) fn with_session<T, E>(
        &self,
        work: impl FnOnce(&mut Session) -> Result<T, E>,
    ) -> Option<Result<T, E>> {
        let mut state = self.state();
        let Some(LoggedIn::Proof { session, .. }) = &mut state.logged_in else {
            return None;
        };
        let done = work(session);
        if done.is_err() {
            state.logged_in = None;
        }
        Some(done)
    }

    /// Who sends a request.
    pub(super) async fn caller(
        &self,
        config: &Config,
        parts: &Parts,
        peer: &Peer,
    ) -> Result<Caller, Refusal> {
        let said = parts.headers.get(AUTHORIZATION);
        // What is no text is no credentials either, and not none.
        let said = said.map(|value| value.to_str().unwrap_or("?"));
        // The certificate proves it, not this header.
        let by_certificate = peer.certificate.is_some() && said.is_some_and(names_certificate);
        let said = said.filter(|_| !by_certificate);
        if let Some(authority) = &config.negotiate {
            if let Some((scheme, token)) = said.and_then(token) {
                if let Some(tickets) = &config.tickets
                    && let Some(ticket) = negotiate::ticket(token)
                {
                    return self
                        .by_ticket(config, &**tickets, scheme, ticket, peer)
                        .await;
                }
                return self
                    .handshake(config, &**authority, scheme, token, peer)
                    .await;
            }
            if said.is_none()
                && !by_certificate
                && let Some(principal) = self.still(config, &**authority, peer)
            {
                let principal = principal.map_err(|denied| refusal(denied, config))?;
                return Ok(Caller {
                    principal,
                    by_connection: true,
                    token: None,
                });
            }
        }
        let principal = config.authenticator.authenticate(said, peer).await;
        Ok(Caller {
            principal: principal.map_err(|denied| refusal(denied, config))?,
            by_connection: false,
            token: None,
        })
    }

    /// Who is logged in on the connection, if anybody is.
    fn still(
        &self,
        config: &Config,
        authority: &dyn ProofAuthenticator,
        peer: &Peer,
    ) -> Option<Result<Principal, Denied>> {
        let mut state = self.state();
        let principal = match state.logged_in.as_ref()? {
            LoggedIn::Proof { proved, .. } => authority.proved(proved, peer),
            LoggedIn::Ticket(principal) => match config.authenticator.role_now(principal) {
                Some(role) => Ok(Principal {
                    role,
                    ..principal.clone()
                }),
                None => Err(Denied::Unknown),
            },
        };
        if principal.is_err() {
            state.logged_in = None;
        }
        Some(principal)
    }

    async fn by_ticket(
        &self,
        config: &Config,
        tickets: &dyn TicketAuthenticator,
        scheme: &'static str,
        ticket: Vec<u8>,
        peer: &Peer,
    ) -> Result<Caller, Refusal> {
        *self.state() = State::default();
        let accepted = tickets.ticket(ticket, peer).await;
        let (principal, reply) = accepted.map_err(|denied| refusal(denied, config))?;
        self.state().logged_in = Some(LoggedIn::Ticket(principal.clone()));
        let token = (!reply.is_empty()).then(|| with_token(scheme, &STANDARD.encode(reply)));
        Ok(Caller {
            principal,
            by_connection: true,
            token,
        })
    }

    async fn handshake(
        &self,
        config: &Config,
        authority: &dyn ProofAuthenticator,
        scheme: &'static str,
        token: &str,
        peer: &Peer,
    ) -> Result<Caller, Refusal> {
        let step = {
            let mut state = self.state();
            state.logged_in = None;
            state.handshake.step(token, &config.host)
        };
        let refused = |error| {
            tracing::debug!(%error, address = %peer.address, "a handshake is refused");
            refusal(Denied::Unknown, config)
        };
        let Answered { answer, after } = match step.map_err(refused)? {
            Step::Answered(answered) => *answered,
            Step::Continue(token) => {
                let message = "the handshake goes on";
                return Err(Refusal::new(StatusCode::UNAUTHORIZED, message)
                    .with(WWW_AUTHENTICATE, with_token(scheme, &token))
                    .going_on());
            }
        };
        let proved = Proved {
            answer,
            key: OnceLock::new(),
        };
        let principal = authority.prove(&proved, peer).await;
        let principal = principal.map_err(|denied| refusal(denied, config))?;
        // Who was let in has proved it.
        let key = proved
            .key
            .get()
            .ok_or_else(|| refusal(Denied::Unknown, config))?;
        let (session, last) = after.establish(key).map_err(refused)?;
        let session = Box::new(session);
        self.state().logged_in = Some(LoggedIn::Proof { proved, session });
        Ok(Caller {
            principal,
            by_connection: true,
            token: last.map(|token| with_token(scheme, &token)),
        })
    }
}

/// Whether the header says that the connection's certificate is who sends it (DSP0226
/// annex C): how WinRM's clients log in by one.
fn names_certificate(authorization: &str) -> bool {
    let mutual = "http://schemas.dmtf.org/wbem/wsman/1/wsman/secprofile/https/mutual";
    authorization.trim().eq_ignore_ascii_case(mutual)
}

/// The token of a handshake's header, and by which of its names it is called.
fn token(authorization: &str) -> Option<(&'static str, &str)> {
    let (scheme, token) = authorization.trim().split_once(' ')?;
    let known = ["Negotiate", "NTLM", "Kerberos"];
    let scheme = known.into_iter().find(|s| s.eq_ignore_ascii_case(scheme))?;
    Some((scheme, token))
}

fn with_token(scheme: &str, token: &str) -> HeaderValue {
    // Base64 is fit for headers.
    HeaderValue::try_from(format!("{scheme} {token}"))
        .unwrap_or(HeaderValue::from_static("Negotiate"))
}

/// Refuses somebody, and says by which ways they could get in.
pub(super) fn refusal(denied: Denied, config: &Config) -> Refusal {
    if let Some(seconds) = denied.retry_after() {
        return Refusal::new(StatusCode::TOO_MANY_REQUESTS, denied.message())
            .with(RETRY_AFTER, HeaderValue::from(seconds));
    }
    let mut refusal = Refusal::new(StatusCode::UNAUTHORIZED, denied.message());
    if config.negotiate.is_some() {
        refusal = refusal.with(WWW_AUTHENTICATE, HeaderValue::from_static("Negotiate"));
    }
    let realm = config.realm.replace(['"', '\\'], "");
    let basic = HeaderValue::try_from(format!("Basic realm=\"{realm}\""))
        .unwrap_or(HeaderValue::from_static("Basic realm=\"WSMAN\""));
    refusal.with(WWW_AUTHENTICATE, basic)
}
