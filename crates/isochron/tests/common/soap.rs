//! One connection to a daemon's WS-Management, on which messages are sent as they are.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{Host, LIMIT};

/// A connection, with the headers that its client sends beside the usual ones.
pub struct Connection {
    stream: TcpStream,
    headers: &'static str,
}

impl Connection {
    pub fn new(host: &Host, headers: &'static str) -> Self {
        let url = host.said("listening for WS-Management on http://").unwrap();
        let address = url.strip_suffix("/wsman").unwrap();
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Self { stream, headers }
    }

    /// Posts an envelope; status and envelope of the reply.
    pub fn post(&mut self, envelope: &str) -> (u16, String) {
        let head = format!(
            "POST /wsman HTTP/1.1\r\n{}Content-Type: application/soap+xml;charset=UTF-8\r\n\
             Content-Length: {}\r\nHost: localhost:5985\r\n\r\n",
            self.headers,
            envelope.len()
        );
        self.stream
            .write_all(&[head.as_bytes(), envelope.as_bytes()].concat())
            .unwrap();
        let mut read = Vec::new();
        let mut buffer = [0; 16_384];
        loop {
            let count = self.stream.read(&mut buffer).unwrap();
            assert_ne!(count, 0, "closed");
            read.extend_from_slice(&buffer[..count]);
            let text = String::from_utf8_lossy(&read);
            let Some((head, body)) = text.split_once("\r\n\r\n") else {
                continue;
            };
            let length = head.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case("content-length")
                    .then(|| value.trim().parse().unwrap())
            });
            if body.len() == length.unwrap_or(0) {
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                return (status, body.to_owned());
            }
        }
    }
}

/// What is between the first of these texts and the next of those.
pub fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let at = text
        .find(from)
        .unwrap_or_else(|| panic!("no {from} in {text}"))
        + from.len();
    &text[at..at + text[at..].find(to).unwrap()]
}
