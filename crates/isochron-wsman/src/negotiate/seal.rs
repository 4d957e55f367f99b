//! What a session key is good for: messages that are encrypted and signed, in their
//! order (MS-NLMP §3.4, with extended session security, 128 bits and key exchange).

use md5::{Digest, Md5};
use rc4::{KeyInit, Rc4, StreamCipher};

use super::NegotiateError;
use super::ntlm::hmac_md5;

/// Bytes of a signature: version, checksum, number.
pub(crate) const SIGNATURE: usize = 16;

/// A session.
pub struct Session {
    ours: Direction,
    theirs: Direction,
}

/// One of its two directions.
struct Direction {
    signing: [u8; 16],
    sealing: [u8; 16],
    cipher: Rc4,
    /// The number of the next message.
    next: u32,
}

fn derived(key: &[u8; 16], magic: &str) -> [u8; 16] {
    let mut hash = Md5::new();
    hash.update(key);
    hash.update(magic);
    hash.update([0]);
    hash.finalize().into()
}

fn cipher(key: &[u8; 16]) -> Rc4 {
    match Rc4::new_from_slice(key) {
        Ok(cipher) => cipher,
        Err(_) => unreachable!("RC4 takes keys of 16 bytes"),
    }
}

impl Direction {
    fn new(key: &[u8; 16], from: &str) -> Self {
        let magic = |what: &str| format!("session key to {from} {what} key magic constant");
        let sealing = derived(key, &magic("sealing"));
        Self {
            signing: derived(key, &magic("signing")),
            cipher: cipher(&sealing),
            sealing,
            next: 0,
        }
    }

    /// The signature of the next message, whose checksum goes through this cipher.
    fn signature(
        &mut self,
        message: &[u8],
        mut through: impl FnMut(&mut Self, &mut [u8]),
    ) -> [u8; 16] {
        let number = self.next.to_le_bytes();
        self.next = self.next.wrapping_add(1);
        let digest = hmac_md5(&self.signing, &[&number, message]);
        let mut signature = [0; SIGNATURE];
        signature[..4].copy_from_slice(&1_u32.to_le_bytes());
        signature[4..12].copy_from_slice(&digest[..8]);
        signature[12..].copy_from_slice(&number);
        through(self, &mut signature[4..12]);
        signature
    }

    fn sealed(&mut self, message: &[u8]) -> [u8; 16] {
        self.signature(message, |this, sum| this.cipher.apply_keystream(sum))
    }

    /// The signature of SPNEGO's list, which leaves the cipher as it is (MS-SPNG
    /// §3.2.5.1).
    fn beside(&mut self, message: &[u8]) -> [u8; 16] {
        self.signature(message, |this, sum| {
            cipher(&this.sealing).apply_keystream(sum)
        })
    }
}

impl Session {
    /// The server's end of a session with this key.
    pub(super) fn new(key: &[u8; 16]) -> Self {
        Self {
            ours: Direction::new(key, "server-to-client"),
            theirs: Direction::new(key, "client-to-server"),
        }
    }

    /// Encrypts a message; its signature.
    pub(crate) fn seal(&mut self, message: &mut [u8]) -> [u8; SIGNATURE] {
        let plain = message.to_vec();
        self.ours.cipher.apply_keystream(message);
        self.ours.sealed(&plain)
    }

    /// Decrypts a message. After an error the session is of no use any more.
    ///
    /// # Errors
    /// `Signature`: it was changed, or is not the next.
    pub(crate) fn unseal(
        &mut self,
        signature: &[u8],
        message: &mut [u8],
    ) -> Result<(), NegotiateError> {
        self.theirs.cipher.apply_keystream(message);
        same(signature, &self.theirs.sealed(message))
    }

    pub(super) fn verify_list(&mut self, list: &[u8], mic: &[u8]) -> Result<(), NegotiateError> {
        same(mic, &self.theirs.beside(list))
    }

    pub(super) fn sign_list(&mut self, list: &[u8]) -> [u8; SIGNATURE] {
        self.ours.beside(list)
    }
}

/// Compares in a time that does not depend on where they differ.
fn same(given: &[u8], expected: &[u8; SIGNATURE]) -> Result<(), NegotiateError> {
    let differ = given.iter().zip(expected).fold(0, |d, (a, b)| d | (a ^ b));
    match given.len() == SIGNATURE && differ == 0 {
        true => Ok(()),
        false => Err(NegotiateError::Signature),
    }
}

#[cfg(test)]
impl Session {
    /// The client's end.
    pub(super) fn of_client(key: &[u8; 16]) -> Self {
        Self {
            ours: Direction::new(key, "client-to-server"),
            theirs: Direction::new(key, "server-to-client"),
        }
    }
}
