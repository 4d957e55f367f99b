//! The client's side of NTLM, version 2, for tests: what a client would do, and what one
//! would that means no good. Written from MS-NLMP without a look at ours.

#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use rc4::{Rc4, StreamCipher};

/// What the client asks for: Unicode, signing, sealing, NTLM, extended session security,
/// 128 bits, key exchange.
const FLAGS: u32 = 0x6008_8235;

pub fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

fn hmac(key: &[u8], data: &[u8]) -> [u8; 16] {
    let mut mac = Hmac::<Md5>::new_from_slice(key).unwrap();
    mac.update(data);
    mac.finalize().into_bytes().into()
}

fn md5(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = Md5::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// The first message.
pub fn negotiate() -> Vec<u8> {
    let mut message = b"NTLMSSP\0\x01\0\0\0".to_vec();
    message.extend(FLAGS.to_le_bytes());
    message.extend([0; 16]);
    message
}

/// The third, to a challenge.
pub fn authenticate(challenge: &[u8], user: &str, nt_hash: &[u8; 16]) -> (Vec<u8>, [u8; 16]) {
    assert!(challenge.starts_with(b"NTLMSSP\0\x02\0\0\0"));
    let at = u32::from_le_bytes(challenge[44..48].try_into().unwrap()) as usize;
    let length = u16::from_le_bytes(challenge[40..42].try_into().unwrap()) as usize;
    let info = &challenge[at..at + length];
    let mut blob = vec![1, 1, 0, 0, 0, 0, 0, 0];
    blob.extend([0; 8]);
    blob.extend([0xaa; 8]);
    blob.extend([0; 4]);
    blob.extend_from_slice(info);
    blob.extend([0; 4]);
    let owf = hmac(nt_hash, &utf16(&user.to_uppercase()));
    let proof = hmac(&owf, &[&challenge[24..32], &blob].concat());
    let session = [0x37; 16];
    let mut key = session;
    let base = hmac(&owf, &proof);
    Rc4::new_from_slice(&base)
        .unwrap()
        .apply_keystream(&mut key);
    let parts = [
        Vec::new(),
        [&proof[..], &blob].concat(),
        Vec::new(),
        utf16(user),
        Vec::new(),
        key.to_vec(),
    ];
    let mut message = b"NTLMSSP\0\x03\0\0\0".to_vec();
    let mut at = 64_u32;
    for part in &parts {
        let length = u16::try_from(part.len()).unwrap();
        message.extend(length.to_le_bytes());
        message.extend(length.to_le_bytes());
        message.extend(at.to_le_bytes());
        at += u32::from(length);
    }
    message.extend(FLAGS.to_le_bytes());
    message.extend(parts.concat());
    (message, session)
}

/// A session's encryption, from the client.
pub struct Session {
    keys: [[u8; 16]; 4],
    ciphers: [Rc4; 2],
    numbers: [u32; 2],
}

impl Session {
    pub fn new(key: &[u8; 16]) -> Self {
        let derive = |text: &str| md5(&[key, text.as_bytes(), b"\0"]);
        let keys = [
            derive("session key to client-to-server signing key magic constant"),
            derive("session key to server-to-client signing key magic constant"),
            derive("session key to client-to-server sealing key magic constant"),
            derive("session key to server-to-client sealing key magic constant"),
        ];
        let ciphers = [2, 3].map(|at: usize| Rc4::new_from_slice(&keys[at]).unwrap());
        Self {
            keys,
            ciphers,
            numbers: [0, 0],
        }
    }

    fn signature(&mut self, side: usize, plain: &[u8]) -> Vec<u8> {
        let number = self.numbers[side].to_le_bytes();
        self.numbers[side] += 1;
        let digest = hmac(&self.keys[side], &[&number[..], plain].concat());
        let mut sum = digest[..8].to_vec();
        self.ciphers[side].apply_keystream(&mut sum);
        [&1_u32.to_le_bytes()[..], &sum, &number].concat()
    }

    /// A frame with the message, and its Content-Type.
    pub fn frame(&mut self, message: &str) -> (String, Vec<u8>) {
        let mut sealed = message.as_bytes().to_vec();
        self.ciphers[0].apply_keystream(&mut sealed);
        let signature = self.signature(0, message.as_bytes());
        let protocol = "application/HTTP-SPNEGO-session-encrypted";
        let mut frame = format!(
            "--B\r\n\tContent-Type: {protocol}\r\n\tOriginalContent: \
             type=application/soap+xml;charset=UTF-8;Length={}\r\n--B\r\n\
             \tContent-Type: application/octet-stream\r\n",
            message.len()
        )
        .into_bytes();
        frame.extend(16_u32.to_le_bytes());
        frame.extend(signature);
        frame.extend(sealed);
        frame.extend(b"--B--\r\n");
        let kind = format!("multipart/encrypted;protocol=\"{protocol}\";boundary=\"B\"");
        (kind, frame)
    }

    /// What a reply's frame holds; its signature has to be right.
    pub fn open(&mut self, body: &[u8]) -> String {
        let head = b"application/octet-stream\r\n";
        let at = body.windows(head.len()).position(|w| w == head).unwrap() + head.len();
        let end = body.len() - b"--Encrypted Boundary--\r\n".len();
        let (signature, mut message) = (&body[at + 4..at + 20], body[at + 20..end].to_vec());
        self.ciphers[1].apply_keystream(&mut message);
        assert_eq!(signature, self.signature(1, &message));
        String::from_utf8(message).unwrap()
    }
}
