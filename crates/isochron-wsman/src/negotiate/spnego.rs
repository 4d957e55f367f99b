//! SPNEGO's tokens (RFC 4178), as far as NTLM is what is agreed on; those that bring a
//! Kerberos ticket are only told from them.

use super::NegotiateError;
use super::der::{element, only, take};

/// The object identifier of SPNEGO, 1.3.6.1.5.5.2.
const SPNEGO: &[u8] = b"\x2b\x06\x01\x05\x05\x02";
/// That of NTLM, 1.3.6.1.4.1.311.2.2.10 (MS-NLMP §1.9).
const NTLM: &[u8] = b"\x2b\x06\x01\x04\x01\x82\x37\x02\x02\x0a";

/// Those of Kerberos, 1.2.840.113554.1.2.2, and 1.2.840.48018.1.2.2 (MS-SPNG §3.1.5.2,
/// §3.2.5).
const KERBEROS: [&[u8]; 2] = [
    b"\x2a\x86\x48\x86\xf7\x12\x01\x02\x02",
    b"\x2a\x86\x48\x82\xf7\x12\x01\x02\x02",
];

const OID: u8 = 0x06;
const OCTETS: u8 = 0x04;
const ENUMERATED: u8 = 0x0a;
const SEQUENCE: u8 = 0x30;

/// The states of a negotiation (RFC 4178 §4.2.2).
const ACCEPT_COMPLETED: u8 = 0;
const ACCEPT_INCOMPLETE: u8 = 1;
const REQUEST_MIC: u8 = 3;

/// Whether a client's first token brings a Kerberos ticket (RFC 4121), as it is or as
/// SPNEGO's first choice.
pub(super) fn brings_ticket(token: &[u8]) -> bool {
    let kerberos = |oid: &[u8]| KERBEROS.contains(&oid);
    let first = || {
        let mut framed = only(token, 0x60).ok()?;
        let oid = take(&mut framed).ok().filter(|oid| oid.tag == OID)?;
        if oid.content != SPNEGO {
            return Some(kerberos(oid.content));
        }
        let mut fields = only(only(framed, 0xa0).ok()?, SEQUENCE).ok()?;
        let mechanisms = take(&mut fields).ok().filter(|field| field.tag == 0xa0)?;
        let mut oids = only(mechanisms.content, SEQUENCE).ok()?;
        Some(kerberos(take(&mut oids).ok()?.content))
    };
    first().unwrap_or_default()
}

/// A negotiation on its way.
pub(super) struct Spnego {
    /// The list of mechanisms that the client named, to the letter.
    mechanisms: Vec<u8>,
    /// Whether NTLM is the first of them.
    first: bool,
}

/// A token of a client.
pub(super) enum Token {
    /// The first: what it would like, and its mechanism's first message.
    Init {
        spnego: Spnego,
        token: Option<Vec<u8>>,
    },
    /// One that follows.
    Response {
        token: Vec<u8>,
        mic: Option<Vec<u8>>,
    },
}

/// Reads a token.
pub(super) fn read(token: &[u8]) -> Result<Token, NegotiateError> {
    match token.first() {
        Some(0x60) => init(token),
        Some(0xa1) => response(token),
        _ => Err(NegotiateError::Malformed("it begins with no such message")),
    }
}

/// NegTokenInit within GSS-API's frame (RFC 4178 §4.2.1, RFC 2743 §3.1).
fn init(token: &[u8]) -> Result<Token, NegotiateError> {
    let mut framed = only(token, 0x60)?;
    let oid = take(&mut framed)?;
    if oid.tag != OID || oid.content != SPNEGO {
        return Err(NegotiateError::Malformed(
            "it is of another mechanism than SPNEGO",
        ));
    }
    let mut fields = only(only(framed, 0xa0)?, SEQUENCE)?;
    let (mut mechanisms, mut first_message) = (None, None);
    while !fields.is_empty() {
        let field = take(&mut fields)?;
        match field.tag {
            0xa0 => mechanisms = Some(field.content),
            0xa2 => first_message = Some(only(field.content, OCTETS)?.to_vec()),
            _ => {}
        }
    }
    let list = mechanisms.ok_or(NegotiateError::Malformed("it names no mechanisms"))?;
    let mut oids = only(list, SEQUENCE)?;
    let mut place = None;
    for at in 0.. {
        if oids.is_empty() {
            break;
        }
        let oid = take(&mut oids)?;
        if oid.tag == OID && oid.content == NTLM {
            place.get_or_insert(at);
        }
    }
    let place = place.ok_or(NegotiateError::Unsupported(
        "NTLM is not among its mechanisms",
    ))?;
    let first = place == 0;
    Ok(Token::Init {
        spnego: Spnego {
            mechanisms: list.to_vec(),
            first,
        },
        token: first_message.filter(|_| first),
    })
}

/// NegTokenResp (RFC 4178 §4.2.2).
fn response(token: &[u8]) -> Result<Token, NegotiateError> {
    let mut fields = only(only(token, 0xa1)?, SEQUENCE)?;
    let (mut message, mut mic) = (None, None);
    while !fields.is_empty() {
        let field = take(&mut fields)?;
        match field.tag {
            0xa2 => message = Some(only(field.content, OCTETS)?.to_vec()),
            0xa3 => mic = Some(only(field.content, OCTETS)?.to_vec()),
            _ => {}
        }
    }
    let token = message.ok_or(NegotiateError::Malformed("it holds no message"))?;
    Ok(Token::Response { token, mic })
}

impl Spnego {
    /// The list of mechanisms, as a signature covers it (RFC 4178 §5).
    pub(super) fn mechanisms(&self) -> &[u8] {
        &self.mechanisms
    }

    /// Whether the list has to be signed.
    pub(super) fn needs_mic(&self) -> bool {
        !self.first
    }

    /// Says that NTLM is what is spoken.
    pub(super) fn choice(&self) -> Vec<u8> {
        reply(REQUEST_MIC, true, None, None)
    }

    /// Carries NTLM's challenge.
    pub(super) fn challenge(&self, message: &[u8]) -> Vec<u8> {
        reply(ACCEPT_INCOMPLETE, true, Some(message), None)
    }
}

/// The last token.
pub(super) fn accepted(mic: Option<&[u8]>) -> Vec<u8> {
    reply(ACCEPT_COMPLETED, false, None, mic)
}

fn reply(state: u8, mechanism: bool, message: Option<&[u8]>, mic: Option<&[u8]>) -> Vec<u8> {
    let mut fields = element(0xa0, &element(ENUMERATED, &[state]));
    if mechanism {
        fields.extend(element(0xa1, &element(OID, NTLM)));
    }
    for (tag, octets) in [(0xa2, message), (0xa3, mic)] {
        if let Some(octets) = octets {
            fields.extend(element(tag, &element(OCTETS, octets)));
        }
    }
    element(0xa1, &element(SEQUENCE, &fields))
}
