//! What a client logs in with, and the frame of what it encrypts: tokens of SPNEGO and
//! NTLM, one after the other on a connection, and then a body. Nothing of a stranger's is
//! ever a proof.
#![no_main]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use isochron_wsman::negotiate::{Framing, Handshake, Step};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|parts: Vec<&[u8]>| {
    let mut handshake = Handshake::default();
    for part in &parts {
        if let Ok(Step::Answered(answered)) = handshake.step(&STANDARD.encode(part), "host") {
            assert_eq!(answered.answer.session_key(&[7; 16]), None);
        }
    }
    let kind = "multipart/encrypted;protocol=\"application/HTTP-SPNEGO-session-encrypted\";\
        boundary=\"B\"";
    if let Ok(Some(framing)) = Framing::read(kind)
        && let Some(body) = parts.last()
    {
        let _ = framing.parse(body);
    }
});
