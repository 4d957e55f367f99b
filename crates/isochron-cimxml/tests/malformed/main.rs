//! Malformed HTTP and XML, byte by byte: each row with the exact status and `CIMError`
//! that DSP0200 §7.3 gives it, or the CIM status where the request could be read. What
//! XML 1.0 or RFC 9110 and 9112 forbid is refused as these say.

#![allow(clippy::expect_used)] // A test fails by panicking.

#[path = "../common/mod.rs"]
mod common;
mod http;
mod xml;

use common::{Running, wrap};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// DSP0200 §7.3: it cannot be parsed as XML.
const ILL: Expected = (400, Some("request-not-well-formed"));
/// DSP0200 §7.3: it is XML, but not what DSP0201 says.
const INVALID: Expected = (400, Some("request-not-loosely-valid"));
/// DSP0200 §6.3.6 and §6.3.7: headers and body differ.
const MISMATCH: Expected = (400, Some("header-mismatch"));
/// HTTP's own error, of which CIM knows nothing.
const BAD: Expected = (400, None);
/// RFC 9110 §15.5.14.
const LARGE: Expected = (413, None);
/// RFC 9110 §15.5.16.
const MEDIA: Expected = (415, None);
const FINE: Expected = (200, None);

/// Closed without a word.
const CLOSED: Expected = (0, None);

/// HTTP's status, and CIMError.
type Expected = (u16, Option<&'static str>);

const HEADERS: &str = "Host: here\r\nContent-Type: application/xml; charset=\"utf-8\"\r\n\
    CIMOperation: MethodCall\r\nCIMMethod: EnumerateClassNames\r\nCIMObject: root%2Ftest\r\n";

fn good() -> String {
    wrap("root/test", "EnumerateClassNames", "")
}

/// A request with the headers that fit `good`.
fn post(headers: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST /cimom HTTP/1.1\r\n{headers}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

/// The response, or what there is of it when the server closes.
async fn exchange(server: &Running, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).await.expect("connect");
    stream.write_all(bytes).await.ok();
    response(&mut stream).await
}

async fn response(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let (mut response, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut piece).await.unwrap_or_default();
        response.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&response).into_owned();
        let length = header(&text, "Content-Length").and_then(|length| length.parse().ok());
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.len());
        if read == 0 || body.is_some() && body >= length {
            return text;
        }
    }
}

fn header<'a>(response: &'a str, name: &str) -> Option<&'a str> {
    let head = response.split("\r\n\r\n").next()?;
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn status(response: &str) -> Option<u16> {
    response.split(' ').nth(1)?.parse().ok()
}

/// Sends each row; all that are answered otherwise are told at once.
async fn check(server: &Running, rows: Vec<(&str, Vec<u8>, Expected)>) {
    let mut wrong = Vec::new();
    for (name, bytes, (code, error)) in rows {
        let response = exchange(server, &bytes).await;
        let head = response.split("\r\n\r\n").next().unwrap_or_default();
        if status(&response).unwrap_or(0) != code || header(&response, "CIMError") != error {
            wrong.push(format!("{name}: {code} {error:?} expected\n{head}\n"));
        } else if code == 200 && !response.contains("T_Base") {
            wrong.push(format!("{name}: no answer in {response}\n"));
        }
        // DSP0200 §6.3.11: the word comes with a sentence for people.
        if error.is_some() && header(&response, "PGErrorDetail").is_none() {
            wrong.push(format!("{name}: no detail\n{head}\n"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
