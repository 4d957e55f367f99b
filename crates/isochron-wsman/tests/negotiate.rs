//! Logging in by NTLM on a connection, and all that must not get in that way: each ends
//! before the provider (RFC 4559, MS-NLMP 3.3.2, MS-SPNG 3.2.5, MS-WSMV 2.2.9.1).

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::ntlm::{self, Session};
use common::{Running, TRANSFER, WMI, envelope};
use isochron_cim::{Principal, Role};
use isochron_net::{Authenticator, Denied, Peer, Proof, ProofAuthenticator, TicketAuthenticator};
use isochron_wsman::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The NT hash of "Password".
const NT_HASH: [u8; 16] = [
    0xa4, 0xf4, 0x9c, 0x40, 0x65, 0x10, 0xbd, 0xca, 0xb6, 0x82, 0x4e, 0xe7, 0xc3, 0x0f, 0xd8, 0x52,
];

/// Lets in Ada with her password, as long as she is there, and nobody else.
#[derive(Default)]
struct OnlyAda {
    gone: AtomicBool,
}

#[async_trait::async_trait]
impl Authenticator for OnlyAda {
    async fn authenticate(&self, _: Option<&str>, _: &Peer) -> Result<Principal, Denied> {
        Err(Denied::Unknown)
    }

    fn role_now(&self, _: &Principal) -> Option<Role> {
        None
    }
}

#[async_trait::async_trait]
impl ProofAuthenticator for OnlyAda {
    async fn prove(&self, proof: &dyn Proof, peer: &Peer) -> Result<Principal, Denied> {
        self.proved(proof, peer)
    }

    fn proved(&self, proof: &dyn Proof, _peer: &Peer) -> Result<Principal, Denied> {
        let gone = self.gone.load(Ordering::SeqCst);
        match !gone && proof.user() == "ada" && proof.holds(&NT_HASH) {
            true => Ok(Principal::user("ada", Role::Administrator)),
            false => Err(Denied::Unknown),
        }
    }
}

async fn start() -> (Running, Arc<OnlyAda>) {
    let ada = Arc::new(OnlyAda::default());
    let config = Config {
        authenticator: ada.clone(),
        negotiate: Some(ada.clone()),
        ..Config::default()
    };
    (Running::start(config).await, ada)
}

/// A connection that stays open.
struct Line(TcpStream);

struct Reply {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Reply {
    /// The token that comes with it.
    fn token(&self) -> Option<Vec<u8>> {
        let beginning = "www-authenticate: negotiate ";
        let mut lines = self.head.lines();
        let line = lines.find(|line| line.to_lowercase().starts_with(beginning))?;
        Some(STANDARD.decode(&line[beginning.len()..]).unwrap())
    }
}

impl Line {
    async fn to(server: &Running) -> Self {
        Self(TcpStream::connect(server.address).await.unwrap())
    }

    async fn send(&mut self, headers: &[String], body: &[u8]) -> Reply {
        let headers: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
        let head = format!(
            "POST /wsman HTTP/1.1\r\nHost: here\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        self.0
            .write_all(&[head.as_bytes(), body].concat())
            .await
            .unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse().unwrap())
        });
        let mut body = vec![0; length.unwrap_or(0)];
        self.0.read_exact(&mut body).await.unwrap();
        Reply {
            status: head.split(' ').nth(1).unwrap().parse().unwrap(),
            head,
            body,
        }
    }

    async fn token(&mut self, token: &[u8]) -> Reply {
        self.send(&[authorization(token)], b"").await
    }

    /// Logs in; the session.
    async fn log_in(&mut self) -> Session {
        let challenge = self.token(&ntlm::negotiate()).await;
        assert_eq!(challenge.status, 401);
        let challenge = challenge.token().unwrap();
        let (answer, key) = ntlm::authenticate(&challenge, "ada", &NT_HASH);
        assert_eq!(self.token(&answer).await.status, 200);
        Session::new(&key)
    }
}

fn authorization(token: &[u8]) -> String {
    format!("Authorization: Negotiate {}", STANDARD.encode(token))
}

fn get() -> String {
    envelope(&format!("{TRANSFER}/Get"), &format!("{WMI}/T_Only"), "", "")
}

fn content_type(kind: &str) -> String {
    format!("Content-Type: {kind}")
}

fn reached(server: &Running) -> usize {
    server.server.reached.load(Ordering::SeqCst)
}

#[tokio::test]
async fn a_connection_is_logged_in_and_its_messages_are_encrypted() {
    let (server, ada) = start().await;
    let mut line = Line::to(&server).await;
    let offered = line.send(&[], b"").await;
    assert_eq!(offered.status, 401);
    let head = offered.head.to_lowercase();
    assert!(head.contains("www-authenticate: negotiate\r\n"), "{head}");
    assert!(head.contains("www-authenticate: basic realm="), "{head}");
    let mut session = line.log_in().await;
    for _ in 0..3 {
        let (kind, frame) = session.frame(&get());
        let reply = line.send(&[content_type(&kind)], &frame).await;
        assert_eq!(reply.status, 200, "{}", reply.head);
        let opened = session.open(&reply.body);
        assert!(opened.contains("<p:Number>5</p:Number>"), "{opened}");
    }
    // A fault is encrypted as well.
    let (kind, frame) = session.frame("<x/>");
    let reply = line.send(&[content_type(&kind)], &frame).await;
    assert_eq!(reply.status, 500);
    assert!(session.open(&reply.body).contains("SchemaValidationError"));
    // Whose password is another now is out, on this connection too.
    ada.gone.store(true, Ordering::SeqCst);
    let before = reached(&server);
    let (kind, frame) = session.frame(&get());
    let reply = line.send(&[content_type(&kind)], &frame).await;
    assert_eq!(reply.status, 401);
    assert_eq!(reached(&server), before);
    server.stop().await;
}

#[tokio::test]
async fn the_last_message_of_a_handshake_may_bring_the_first_request() {
    let (server, _) = start().await;
    let mut line = Line::to(&server).await;
    // A body at the first message is passed over.
    let headers = [
        authorization(&ntlm::negotiate()),
        content_type("application/soap+xml"),
    ];
    let challenge = line.send(&headers, get().as_bytes()).await;
    assert_eq!((challenge.status, reached(&server)), (401, 0));
    let challenge = challenge.token().unwrap();
    let (answer, key) = ntlm::authenticate(&challenge, "ada", &NT_HASH);
    let mut session = Session::new(&key);
    let (kind, frame) = session.frame(&get());
    let headers = [authorization(&answer), content_type(&kind)];
    let reply = line.send(&headers, &frame).await;
    assert_eq!(reply.status, 200);
    assert!(session.open(&reply.body).contains("<p:Number>5</p:Number>"));
    server.stop().await;
}

/// Sends a last message of a handshake with a request, which must not get in.
async fn is_refused(server: &Running, line: &mut Line, answer: &[u8], what: &str) {
    let headers = [authorization(answer), content_type("application/soap+xml")];
    let reply = line.send(&headers, get().as_bytes()).await;
    assert_eq!(reply.status, 401, "{what}");
    // Nor is the connection logged in by it.
    let headers = [content_type("application/soap+xml")];
    let mut again = Line::to(server).await;
    let line = match reply.head.to_lowercase().contains("connection: close") {
        true => &mut again,
        false => line,
    };
    assert_eq!(
        line.send(&headers, get().as_bytes()).await.status,
        401,
        "{what}"
    );
    assert_eq!(reached(server), 0, "{what}");
}

#[tokio::test]
async fn no_broken_handshake_gets_in() {
    let (server, _) = start().await;
    let challenged = async || {
        let mut line = Line::to(&server).await;
        let reply = line.token(&ntlm::negotiate()).await;
        (line, reply.token().unwrap())
    };
    // Half of one: a challenge, and then a request as if it had been answered.
    let (mut line, _) = challenged().await;
    let headers = [content_type("application/soap+xml")];
    let reply = line.send(&headers, get().as_bytes()).await;
    assert_eq!((reply.status, reached(&server)), (401, 0));

    let (mut line, challenge) = challenged().await;
    let (right, _) = ntlm::authenticate(&challenge, "ada", &NT_HASH);
    let (wrong, _) = ntlm::authenticate(&challenge, "ada", &[0; 16]);
    is_refused(&server, &mut line, &wrong, "a wrong password").await;
    // A challenge is answered once: what is right comes too late.
    let mut line = Line::to(&server).await;
    is_refused(&server, &mut line, &right, "without a challenge").await;
    let (mut line, _) = challenged().await;
    is_refused(&server, &mut line, &right, "an answer to another challenge").await;
    let (mut line, challenge) = challenged().await;
    let (somebody, _) = ntlm::authenticate(&challenge, "eve", &NT_HASH);
    is_refused(&server, &mut line, &somebody, "another user").await;
    let (mut line, challenge) = challenged().await;
    let (nobody, _) = ntlm::authenticate(&challenge, "", &NT_HASH);
    is_refused(&server, &mut line, &nobody, "nobody").await;
    for cut in [1, 11, 40, 63, 64, 100] {
        let (mut line, challenge) = challenged().await;
        let (answer, _) = ntlm::authenticate(&challenge, "ada", &NT_HASH);
        let cut = answer.len().min(cut);
        is_refused(&server, &mut line, &answer[..cut], "a cut message").await;
    }
    for token in [
        &b"NTLMSSP\0\x02\0\0\0"[..],
        b"NTLMSSP\0",
        b"\x60\x02\x06\x00",
        b"\xa1\0",
        b"",
    ] {
        let (mut line, _) = challenged().await;
        is_refused(&server, &mut line, token, "no message").await;
    }
    let long = vec![b'x'; 20_000];
    let (mut line, _) = challenged().await;
    is_refused(&server, &mut line, &long, "a long message").await;
    server.stop().await;
}

#[tokio::test]
async fn no_message_that_was_changed_or_taken_before_gets_in() {
    let (server, _) = start().await;
    for (what, change) in [
        ("a signature that does not match", 0),
        ("a changed message", 1),
        ("a replayed message", 2),
        ("a message out of order", 3),
        ("a cut frame", 4),
        ("a longer length", 5),
        ("no encryption", 6),
        ("another protocol", 7),
    ] {
        let before = reached(&server);
        let mut line = Line::to(&server).await;
        let mut session = line.log_in().await;
        let (kind, mut frame) = session.frame(&get());
        let mut kind = content_type(&kind);
        let at = frame.windows(7).rposition(|w| w == b"stream\r").unwrap() + 8;
        let mut expected = 401;
        match change {
            0 => frame[at + 4 + 6] ^= 1,
            1 => frame[at + 4 + 16 + 30] ^= 1,
            2 => {
                let first = line.send(&[kind.clone()], &frame).await;
                assert_eq!(first.status, 200);
            }
            3 => frame = session.frame(&get()).1,
            4 => frame.truncate(frame.len() - 20),
            5 => {
                let text = String::from_utf8_lossy(&frame[..at]).replace("Length=", "Length=1");
                frame = [text.as_bytes(), &frame[at..]].concat();
            }
            6 => {
                kind = content_type("application/soap+xml");
                frame = get().into_bytes();
                expected = 403;
            }
            _ => {
                kind = kind.replace("SPNEGO", "CredSSP");
                expected = 415;
            }
        }
        let came = reached(&server);
        let reply = line.send(&[kind], &frame).await;
        assert_eq!(reply.status, expected, "{what}");
        assert_eq!(reached(&server), came, "{what}");
        assert!(came >= before);
    }
    // What is encrypted on one connection is nothing on another.
    let mut line = Line::to(&server).await;
    let mut session = line.log_in().await;
    let (kind, frame) = session.frame(&get());
    let mut other = Line::to(&server).await;
    let before = reached(&server);
    let reply = other.send(&[content_type(&kind)], &frame).await;
    assert_eq!((reply.status, reached(&server)), (401, before));
    server.stop().await;
}

/// The beginning of SPNEGO that brings a Kerberos ticket.
const TICKET: &[u8] = b"\x60\x1d\x06\x06\x2b\x06\x01\x05\x05\x02\xa0\x13\x30\x11\xa0\x0d\x30\x0b\
    \x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02\xa2\x00";

#[async_trait::async_trait]
impl TicketAuthenticator for OnlyAda {
    async fn ticket(&self, token: Vec<u8>, _: &Peer) -> Result<(Principal, Vec<u8>), Denied> {
        assert_eq!(token, TICKET);
        Ok((
            Principal::user("ada", Role::Administrator),
            b"taken".to_vec(),
        ))
    }
}

#[tokio::test]
async fn a_ticket_is_not_enough_where_others_can_put_requests_in() {
    let ada = Arc::new(OnlyAda::default());
    let server = Running::start(Config {
        authenticator: ada.clone(),
        negotiate: Some(ada.clone()),
        tickets: Some(ada),
        ..Config::default()
    })
    .await;
    let mut line = Line::to(&server).await;
    let reply = line.token(TICKET).await;
    assert_eq!(
        (reply.status, reply.token()),
        (200, Some(b"taken".to_vec()))
    );
    // Without TLS, and not encrypted.
    let get = envelope(&format!("{TRANSFER}/Get"), &format!("{WMI}/T_Only"), "", "");
    let kind = "Content-Type: application/soap+xml".to_owned();
    let headers = [kind, authorization(TICKET)];
    let reply = line.send(&headers, get.as_bytes()).await;
    assert_eq!(reply.status, 403);
    // Whoever is gone is not logged in any more.
    let reply = line.send(&headers[..1], get.as_bytes()).await;
    assert_eq!(reply.status, 401);
    assert_eq!(server.server.reached.load(Ordering::SeqCst), 0);
    server.stop().await;
}
