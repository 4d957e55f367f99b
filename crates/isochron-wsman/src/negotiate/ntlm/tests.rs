//! The example of MS-NLMP §4.2.4, NTLM version 2: User, Domain, Password, the challenge
//! 0123456789abcdef, the client's aaaaaaaaaaaaaaaa, time zero, the session key 55....

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

use super::super::seal::Session;
use super::*;

/// Bytes of hexadecimal digits.
fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

const NT_HASH: &str = "a4f49c406510bdcab6824ee7c30fd852";
const FLAGS: u32 = REQUIRED | flag::SEAL | flag::TARGET_INFO | flag::VERSION;

fn response() -> Vec<u8> {
    hex("68cd0ab851e51c96aabc927bebef6a1c
         0101000000000000 0000000000000000 aaaaaaaaaaaaaaaa 00000000
         02000c0044006f006d00610069006e00 01000c00530065007200760065007200
         00000000 00000000")
}

/// A challenge as the example has it.
fn challenge() -> Challenge {
    Challenge {
        negotiate: Vec::new(),
        message: Vec::new(),
        challenge: hex("0123456789abcdef").try_into().unwrap(),
    }
}

/// An AUTHENTICATE_MESSAGE of these parts.
fn message(user: &str, response: &[u8], key: &[u8], flags: u32) -> Vec<u8> {
    let parts = [
        Vec::new(),
        response.to_vec(),
        utf16("Domain"),
        utf16(user),
        utf16("COMPUTER"),
        key.to_vec(),
    ];
    let mut message = SIGNATURE.to_vec();
    message.extend(3_u32.to_le_bytes());
    let mut at = MIC.end;
    for part in &parts {
        push_field(&mut message, part.len(), at);
        at += part.len();
    }
    message.extend(flags.to_le_bytes());
    message.extend(VERSION);
    message.extend([0; 16]);
    message.extend(parts.concat());
    message
}

fn answer(message: &[u8]) -> Result<Answer, NegotiateError> {
    Answer::read(challenge(), message)
}

fn hash() -> [u8; 16] {
    hex(NT_HASH).try_into().unwrap()
}

#[test]
fn the_example_of_the_specification_is_proved_and_sealed() {
    let key = hex("c5dad2544fc9799094ce1ce90bc9d03e");
    let read = answer(&message("User", &response(), &key, FLAGS)).unwrap();
    let session_key = read.session_key(&hash()).unwrap();
    assert_eq!(session_key, [0x55; 16]);
    let mut plain = utf16("Plaintext");
    let signature = Session::of_client(&session_key).seal(&mut plain);
    assert_eq!(plain, hex("54e50165bf1936dc996020c1811b0f06fb5f"));
    assert_eq!(signature[..], hex("010000007fb38ec5c55d497600000000"));
    let mut server = Session::new(&session_key);
    server.unseal(&signature, &mut plain).unwrap();
    assert_eq!(plain, utf16("Plaintext"));
    // What was taken is not taken again, and nothing that was changed is.
    assert!(server.unseal(&signature, &mut plain).is_err());
    let mut other = utf16("Plaintext");
    let mut signature = Session::of_client(&session_key).seal(&mut other);
    signature[5] ^= 1;
    let unsealed = Session::new(&session_key).unseal(&signature, &mut other);
    assert_eq!(unsealed, Err(NegotiateError::Signature));
}

#[test]
fn no_other_password_user_or_challenge_is_proved() {
    let key = hex("c5dad2544fc9799094ce1ce90bc9d03e");
    let right = message("User", &response(), &key, FLAGS);
    let proves = |challenge: Challenge, message: &[u8], hash: [u8; 16]| {
        let answer = Answer::read(challenge, message).unwrap();
        answer.session_key(&hash).is_some()
    };
    assert!(proves(challenge(), &right, hash()));
    // The name in any case.
    assert!(proves(
        challenge(),
        &message("uSER", &response(), &key, FLAGS),
        hash()
    ));
    assert!(!proves(challenge(), &right, [0; 16]));
    assert!(!proves(
        challenge(),
        &message("Usher", &response(), &key, FLAGS),
        hash()
    ));
    let mut another = challenge();
    another.challenge[0] ^= 1;
    assert!(!proves(another, &right, hash()));
    for at in [0, 15, 20, 40] {
        let mut changed = response();
        changed[at] ^= 4;
        let changed = message("User", &changed, &key, FLAGS);
        if let Ok(read) = answer(&changed) {
            assert_eq!(read.session_key(&hash()), None, "{at}");
        }
    }
}

#[test]
fn a_message_that_says_it_is_checked_has_to_be() {
    // MsvAvFlags with bit 1, and a proof over it.
    let mut blob = response()[16..].to_vec();
    blob.truncate(28);
    blob.extend(hex("0600 0400 02000000 0000 0000 00000000"));
    let owf = hmac_md5(&hash(), &[&utf16("USERDomain")]);
    let proof = hmac_md5(&owf, &[&hex("0123456789abcdef"), &blob]);
    let base = hmac_md5(&owf, &[&proof]);
    let mut key = [0x55; 16];
    Rc4::new_from_slice(&base)
        .unwrap()
        .apply_keystream(&mut key);
    let mut message = message("User", &[&proof[..], &blob].concat(), &key, FLAGS);
    let unchecked = answer(&message).unwrap();
    assert_eq!(unchecked.session_key(&hash()), None);
    let mic = hmac_md5(&[0x55; 16], &[&message]);
    message[MIC].copy_from_slice(&mic);
    assert_eq!(
        answer(&message).unwrap().session_key(&hash()),
        Some([0x55; 16])
    );
    // Any bit of it counts, also those that nothing else looks at.
    message[MIC.end + 1] ^= 1;
    if let Ok(changed) = answer(&message) {
        assert_eq!(changed.session_key(&hash()), None);
    }
}

#[test]
fn what_is_cut_or_weak_is_no_answer() {
    let key = [0x55; 16];
    let whole = message("User", &response(), &key, FLAGS);
    for length in 0..whole.len() {
        // What it ends with are 16 bytes of key: no cut leaves all fields in it.
        assert!(answer(&whole[..length]).is_err(), "{length}");
    }
    for (response, key, flags) in [
        (&[][..], &key[..], FLAGS),
        // Version 1.
        (&[7; 24][..], &key[..], FLAGS),
        (&response()[..], &key[..8], FLAGS),
        (&response()[..], &key[..], FLAGS & !flag::KEY_128),
        (
            &response()[..],
            &key[..],
            FLAGS & !flag::EXTENDED_SESSION_SECURITY,
        ),
        (&response()[..], &key[..], FLAGS & !flag::KEY_EXCHANGE),
    ] {
        assert!(
            answer(&message("User", response, key, flags)).is_err(),
            "{flags:x}"
        );
    }
    // An offset that no message has.
    let mut far = whole;
    far[40..44].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(answer(&far).is_err());
}
