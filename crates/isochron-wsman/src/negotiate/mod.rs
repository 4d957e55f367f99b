//! Negotiate: logging in with NTLM, as it is or within SPNEGO, and the encryption of
//! messages that follows from it (RFC 4559, MS-NLMP, MS-SPNG, MS-WSMV §2.2.9.1).
//!
//! ```text
//!   New -- Type 1 --> Challenged -- Type 3, proved --> the connection's session
//!    ^                    |
//!    +---- anything else -+
//! ```
//!
//! A handshake belongs to one connection, and each challenge is answered once: what is
//! not the next message of it ends it. The proof is the NT response itself, whether the
//! message has a check of its own (MIC) or not. Only NTLMv2 with 128 bits, extended
//! session security and key exchange is spoken.

mod der;
mod multipart;
mod ntlm;
mod seal;
mod spnego;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

pub(crate) use multipart::seal;
pub use multipart::{Encrypted, Framing};
pub use ntlm::Answer;
use ntlm::Challenge;
pub use seal::Session;
use spnego::Spnego;

/// The longest token, in bytes; those of NTLM have some hundred.
const TOKEN_MAX: usize = 8 * 1024;

/// The longest one that brings a ticket: one with thousands of groups.
const TICKET_MAX: usize = 88 * 1024;

/// The token of a header, where it brings a Kerberos ticket.
pub(crate) fn ticket(token: &str) -> Option<Vec<u8>> {
    let short = token.len() <= TICKET_MAX;
    let token = short.then(|| STANDARD.decode(token.trim()).ok())??;
    spnego::brings_ticket(&token).then_some(token)
}

/// Why a message of a handshake is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NegotiateError {
    /// It is longer than any such message.
    #[error("the token is too long")]
    TooLong,
    /// It is none.
    #[error("the token is no message of SPNEGO or NTLM: {0}")]
    Malformed(&'static str),
    /// It is not what comes next.
    #[error("the token is not what comes next")]
    OutOfSequence,
    /// It asks for what is not spoken here.
    #[error("the token asks for what is not spoken here: {0}")]
    Unsupported(&'static str),
    /// Its signature is not that of its content.
    #[error("the signature is wrong")]
    Signature,
}

/// How far a connection's handshake has come.
#[derive(Default)]
pub struct Handshake {
    challenged: Option<Challenged>,
}

struct Challenged {
    challenge: Option<Challenge>,
    /// Where NTLM comes within SPNEGO.
    spnego: Option<Spnego>,
}

/// What follows from a client's token.
pub enum Step {
    /// It gets this token back, with another 401.
    Continue(String),
    /// It has answered the challenge, rightly or not.
    Answered(Box<Answered>),
}

/// A challenge's answer.
pub struct Answered {
    /// Who answers, and with what proof.
    pub answer: Answer,
    /// What follows if it holds.
    pub after: After,
}

/// What is left to do when a proof holds.
pub struct After(Option<(Spnego, Option<Vec<u8>>)>);

impl Handshake {
    /// Takes the token of an `Authorization: Negotiate` (or `NTLM`) header. `host` is
    /// this server's name.
    ///
    /// # Errors
    /// The handshake begins anew.
    pub fn step(&mut self, token: &str, host: &str) -> Result<Step, NegotiateError> {
        let before = self.challenged.take();
        if token.len() > TOKEN_MAX {
            return Err(NegotiateError::TooLong);
        }
        let token = STANDARD
            .decode(token.trim())
            .map_err(|_| NegotiateError::Malformed("it is no base64"))?;
        match ntlm::kind(&token) {
            // NTLM as it is.
            Some(1) => self.challenge(&token, None, host),
            Some(3) => answered(before, &token, None),
            Some(_) => Err(NegotiateError::OutOfSequence),
            None => match spnego::read(&token)? {
                spnego::Token::Init { spnego, token } => match token {
                    Some(token) if ntlm::kind(&token) == Some(1) => {
                        self.challenge(&token, Some(spnego), host)
                    }
                    // Its first choice is another: NTLM's first message comes next.
                    _ => {
                        let choice = spnego.choice();
                        self.challenged = Some(Challenged {
                            challenge: None,
                            spnego: Some(spnego),
                        });
                        Ok(Step::Continue(STANDARD.encode(choice)))
                    }
                },
                spnego::Token::Response { token, mic } => match ntlm::kind(&token) {
                    Some(1) => match before {
                        Some(Challenged {
                            challenge: None,
                            spnego: Some(spnego),
                        }) => self.challenge(&token, Some(spnego), host),
                        _ => Err(NegotiateError::OutOfSequence),
                    },
                    Some(3) => answered(before, &token, mic),
                    _ => Err(NegotiateError::OutOfSequence),
                },
            },
        }
    }

    fn challenge(
        &mut self,
        negotiate: &[u8],
        spnego: Option<Spnego>,
        host: &str,
    ) -> Result<Step, NegotiateError> {
        let challenge = Challenge::to(negotiate, host)?;
        let token = match &spnego {
            Some(spnego) => spnego.challenge(challenge.message()),
            None => challenge.message().to_vec(),
        };
        self.challenged = Some(Challenged {
            challenge: Some(challenge),
            spnego,
        });
        Ok(Step::Continue(STANDARD.encode(token)))
    }
}

fn answered(
    before: Option<Challenged>,
    token: &[u8],
    mic: Option<Vec<u8>>,
) -> Result<Step, NegotiateError> {
    let Some(Challenged {
        challenge: Some(challenge),
        spnego,
    }) = before
    else {
        return Err(NegotiateError::OutOfSequence);
    };
    Ok(Step::Answered(Box::new(Answered {
        answer: Answer::read(challenge, token)?,
        after: After(spnego.map(|spnego| (spnego, mic))),
    })))
}

impl After {
    /// What follows from the session key that the proof gives: the session, and the last
    /// token for the client, if there is one.
    ///
    /// # Errors
    /// The list of mechanisms was changed on the way (RFC 4178 §5).
    pub fn establish(&self, key: &[u8; 16]) -> Result<(Session, Option<String>), NegotiateError> {
        let mut session = Session::new(key);
        let Some((spnego, mic)) = &self.0 else {
            return Ok((session, None));
        };
        let ours = match mic {
            Some(mic) => {
                session.verify_list(spnego.mechanisms(), mic)?;
                Some(session.sign_list(spnego.mechanisms()))
            }
            // Needed where the client's first choice was not taken.
            None if spnego.needs_mic() => return Err(NegotiateError::Signature),
            None => None,
        };
        let last = spnego::accepted(ours.as_ref().map(|mic| &mic[..]));
        Ok((session, Some(STANDARD.encode(last))))
    }
}
