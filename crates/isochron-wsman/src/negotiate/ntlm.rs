//! NTLM's three messages (MS-NLMP §2.2.1), from the server's side, version 2 alone.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;
use rc4::{Rc4, StreamCipher};
use ring::rand::{SecureRandom, SystemRandom};

use super::NegotiateError;

const SIGNATURE: &[u8] = b"NTLMSSP\0";

/// The flags that matter here (MS-NLMP §2.2.2.5).
mod flag {
    pub const UNICODE: u32 = 0x0000_0001;
    pub const REQUEST_TARGET: u32 = 0x0000_0004;
    pub const SIGN: u32 = 0x0000_0010;
    pub const SEAL: u32 = 0x0000_0020;
    pub const NTLM: u32 = 0x0000_0200;
    pub const ALWAYS_SIGN: u32 = 0x0000_8000;
    pub const TARGET_TYPE_SERVER: u32 = 0x0002_0000;
    pub const EXTENDED_SESSION_SECURITY: u32 = 0x0008_0000;
    pub const TARGET_INFO: u32 = 0x0080_0000;
    pub const VERSION: u32 = 0x0200_0000;
    pub const KEY_128: u32 = 0x2000_0000;
    pub const KEY_EXCHANGE: u32 = 0x4000_0000;
}

/// What a client has to speak for its messages to be safe.
const REQUIRED: u32 = flag::UNICODE
    | flag::NTLM
    | flag::SIGN
    | flag::EXTENDED_SESSION_SECURITY
    | flag::KEY_128
    | flag::KEY_EXCHANGE;

/// What is spoken here besides, where the client does.
const SPOKEN: u32 = REQUIRED | flag::SEAL | flag::ALWAYS_SIGN | flag::REQUEST_TARGET;

/// A version as Windows has one (MS-NLMP §2.2.2.10): what is read of it is its last
/// byte, the revision of NTLM.
const VERSION: [u8; 8] = [10, 0, 0, 0, 0, 0, 0, 15];

/// The seconds from Windows' epoch, 1601, to Unix'.
const WINDOWS_EPOCH: u64 = 11_644_473_600;

/// Where the check of a whole message stands in it, and how long it is (§2.2.1.3).
const MIC: std::ops::Range<usize> = 72..88;

/// The longest name of a user or a domain, in bytes.
const NAME_MAX: usize = 512;

fn hmac(key: &[u8], parts: &[&[u8]]) -> Hmac<Md5> {
    // A key may have any length; none is refused.
    let mut mac = match Hmac::<Md5>::new_from_slice(key) {
        Ok(mac) => mac,
        Err(_) => unreachable!("HMAC takes keys of every length"),
    };
    for part in parts {
        mac.update(part);
    }
    mac
}

pub(super) fn hmac_md5(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    hmac(key, parts).finalize().into_bytes().into()
}

/// Which of NTLM's messages it is, if it is one.
pub(super) fn kind(token: &[u8]) -> Option<u32> {
    token.starts_with(SIGNATURE).then(|| number(token, 8))?
}

fn number(message: &[u8], at: usize) -> Option<u32> {
    let bytes = message.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

/// The part of a message that a field (length, room, offset) points to (§2.2.1).
fn field(message: &[u8], at: usize) -> Result<&[u8], NegotiateError> {
    let short = NegotiateError::Malformed("a field points out of the message");
    let length = message.get(at..at + 2).ok_or(short)?;
    let length = usize::from(u16::from_le_bytes([length[0], length[1]]));
    let offset = number(message, at + 4).ok_or(short)?;
    let offset = usize::try_from(offset).map_err(|_| short)?;
    let end = offset.checked_add(length).ok_or(short)?;
    message.get(offset..end).ok_or(short)
}

/// A challenge, and the message that asked for it.
pub(super) struct Challenge {
    negotiate: Vec<u8>,
    message: Vec<u8>,
    challenge: [u8; 8],
}

impl Challenge {
    /// Answers a NEGOTIATE_MESSAGE.
    pub(super) fn to(negotiate: &[u8], host: &str) -> Result<Self, NegotiateError> {
        let asked = number(negotiate, 12).ok_or(NegotiateError::Malformed("it has no flags"))?;
        if asked & (flag::UNICODE | flag::NTLM) != flag::UNICODE | flag::NTLM {
            return Err(NegotiateError::Unsupported("names that are not Unicode"));
        }
        let mut challenge = [0; 8];
        SystemRandom::new()
            .fill(&mut challenge)
            .map_err(|_| NegotiateError::Unsupported("there is no randomness"))?;
        let flags = asked & SPOKEN
            | flag::TARGET_TYPE_SERVER
            | flag::TARGET_INFO
            | flag::REQUEST_TARGET
            | flag::VERSION;
        let target: Vec<u8> = utf16(&short_name(host).to_uppercase());
        let info = target_info(host);
        let (target_at, info_at) = (56, 56 + target.len());
        let mut message = Vec::with_capacity(info_at + info.len());
        message.extend_from_slice(SIGNATURE);
        message.extend(2_u32.to_le_bytes());
        push_field(&mut message, target.len(), target_at);
        message.extend(flags.to_le_bytes());
        message.extend(challenge);
        message.extend([0; 8]);
        push_field(&mut message, info.len(), info_at);
        message.extend(VERSION);
        message.extend(target);
        message.extend(info);
        Ok(Self {
            negotiate: negotiate.to_vec(),
            message,
            challenge,
        })
    }

    /// The CHALLENGE_MESSAGE.
    pub(super) fn message(&self) -> &[u8] {
        &self.message
    }
}

fn push_field(message: &mut Vec<u8>, length: usize, offset: usize) {
    // Names of hosts are short.
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    message.extend(length.to_le_bytes());
    message.extend(length.to_le_bytes());
    message.extend(u32::try_from(offset).unwrap_or(u32::MAX).to_le_bytes());
}

/// The pairs that name this server, and the time (MS-NLMP §2.2.2.1).
fn target_info(host: &str) -> Vec<u8> {
    let short = short_name(host).to_uppercase();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let ticks = (now.as_secs() + WINDOWS_EPOCH) * 10_000_000 + u64::from(now.subsec_nanos() / 100);
    let pairs = [
        (2_u16, utf16(&short)),
        (1, utf16(&short)),
        (4, utf16(host)),
        (3, utf16(host)),
        (7, ticks.to_le_bytes().to_vec()),
        (0, Vec::new()),
    ];
    let mut info = Vec::new();
    for (id, value) in pairs {
        info.extend(id.to_le_bytes());
        info.extend(u16::try_from(value.len()).unwrap_or(0).to_le_bytes());
        info.extend(value);
    }
    info
}

/// A host's name without its domain, as long as NetBIOS has them.
fn short_name(host: &str) -> String {
    let name = host.split('.').next().unwrap_or_default();
    name.chars().take(15).collect()
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16()
        .take(255)
        .flat_map(u16::to_le_bytes)
        .collect()
}

fn from_utf16(bytes: &[u8]) -> Result<String, NegotiateError> {
    let malformed = NegotiateError::Malformed("a name is no UTF-16");
    if bytes.len() > NAME_MAX {
        return Err(NegotiateError::Malformed("a name is too long"));
    }
    let (pairs, rest) = bytes.as_chunks::<2>();
    let units: Vec<u16> = pairs.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
    match rest {
        [] => String::from_utf16(&units).map_err(|_| malformed),
        _ => Err(malformed),
    }
}

/// The answer to a challenge: who it is that answers, and the proof that they know
/// their password (MS-NLMP §2.2.1.3, §3.3.2).
pub struct Answer {
    /// The user's name.
    pub user: String,
    domain: String,
    /// NTProofStr.
    proof: [u8; 16],
    /// What the proof is over: the challenge, and what the client adds to it.
    proved: Vec<u8>,
    encrypted_key: [u8; 16],
    /// What the check of all three messages is over, and it.
    check: Option<(Vec<u8>, [u8; 16])>,
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Answer {
    /// Reads an AUTHENTICATE_MESSAGE.
    pub(super) fn read(challenge: Challenge, message: &[u8]) -> Result<Self, NegotiateError> {
        let flags = number(message, 60).ok_or(NegotiateError::Malformed("it has no flags"))?;
        if flags & REQUIRED != REQUIRED {
            return Err(NegotiateError::Unsupported("its sessions are not safe"));
        }
        let domain = from_utf16(field(message, 28)?)?;
        let user = from_utf16(field(message, 36)?)?;
        let response = field(message, 20)?;
        let key = field(message, 52)?;
        let encrypted_key = key
            .try_into()
            .map_err(|_| NegotiateError::Malformed("its key has not 16 bytes"))?;
        // Version 1 has 24 bytes; version 2 at least the proof and an empty blob.
        let Some((proof, blob)) = response.split_first_chunk::<16>() else {
            return Err(NegotiateError::Unsupported(
                "there is no response of version 2",
            ));
        };
        if blob.len() < 28 || !blob.starts_with(&[1, 1]) {
            return Err(NegotiateError::Unsupported(
                "the response is not of version 2",
            ));
        }
        let check = match says_checked(&blob[28..]) {
            false => None,
            true => {
                let mic = message.get(MIC).and_then(|mic| mic.try_into().ok());
                let mic = mic.ok_or(NegotiateError::Malformed("its check is missing"))?;
                let mut whole = [&*challenge.negotiate, &*challenge.message].concat();
                let start = whole.len();
                whole.extend_from_slice(message);
                whole[start + MIC.start..start + MIC.end].fill(0);
                Some((whole, mic))
            }
        };
        Ok(Self {
            user,
            domain,
            proof: *proof,
            proved: [&challenge.challenge[..], blob].concat(),
            encrypted_key,
            check,
        })
    }

    /// The session key, if whoever answered knows the password of this NT hash.
    pub fn session_key(&self, nt_hash: &[u8; 16]) -> Option<[u8; 16]> {
        // NTOWFv2.
        let name = format!("{}{}", self.user.to_uppercase(), self.domain);
        let name: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let owf = hmac_md5(nt_hash, &[&name]);
        let proved = hmac(&owf, &[&self.proved]);
        // In a time that does not depend on where they differ.
        proved.verify_slice(&self.proof).ok()?;
        let base = hmac_md5(&owf, &[&self.proof]);
        let mut key = self.encrypted_key;
        Rc4::new_from_slice(&base).ok()?.apply_keystream(&mut key);
        if let Some((whole, mic)) = &self.check {
            hmac(&key, &[whole]).verify_slice(mic).ok()?;
        }
        Some(key)
    }
}

/// Whether the pairs say that the message has a check (MsvAvFlags, bit 1).
fn says_checked(mut pairs: &[u8]) -> bool {
    while let Some((head, rest)) = pairs.split_first_chunk::<4>() {
        let id = u16::from_le_bytes([head[0], head[1]]);
        let length = usize::from(u16::from_le_bytes([head[2], head[3]]));
        let Some((value, rest)) = rest.split_at_checked(length) else {
            return false;
        };
        match (id, value) {
            (0, _) => return false,
            (6, [flags, ..]) => return flags & 2 != 0,
            _ => pairs = rest,
        }
    }
    false
}

#[cfg(test)]
mod tests;
