//! `multipart/encrypted`: the frame of messages that a session encrypts (MS-WSMV
//! §2.2.9.1.1).
//!
//! ```text
//! --BOUNDARY
//!         Content-Type: application/HTTP-SPNEGO-session-encrypted
//!         OriginalContent: type=application/soap+xml;charset=UTF-8;Length=1234
//! --BOUNDARY
//!         Content-Type: application/octet-stream
//! <length of the signature, 4 bytes><signature><encrypted message>--BOUNDARY--
//! ```
//!
//! The lines begin with a tab and end with CR LF; nothing stands between the last of
//! them and the length. How long the message is follows from `Length`: the boundary is
//! never looked for in what is encrypted.

use super::NegotiateError;
use super::seal::{SIGNATURE, Session};
use crate::soap::Charset;

/// The media type of what is in the frame.
pub(crate) const PROTOCOL: &str = "application/HTTP-SPNEGO-session-encrypted";

/// What our frames are divided by: what Windows uses.
const BOUNDARY: &str = "Encrypted Boundary";

/// A frame's head: what its Content-Type says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Framing {
    boundary: String,
}

/// A frame that is read.
#[derive(Debug, PartialEq, Eq)]
pub struct Encrypted<'a> {
    signature: &'a [u8],
    message: &'a [u8],
    /// The charset of the message.
    pub charset: Charset,
}

fn malformed(why: &'static str) -> NegotiateError {
    NegotiateError::Malformed(why)
}

impl Framing {
    /// Reads a Content-Type; `None` if it is that of no frame.
    ///
    /// # Errors
    /// It is one of another protocol, or has no boundary.
    pub fn read(content_type: &str) -> Result<Option<Self>, NegotiateError> {
        let mut fields = content_type.split(';').map(str::trim);
        let media_type = fields.next().unwrap_or_default();
        if !media_type.eq_ignore_ascii_case("multipart/encrypted") {
            return Ok(None);
        }
        let (mut protocol, mut boundary) = (None, None);
        for field in fields {
            let Some((key, value)) = field.split_once('=') else {
                continue;
            };
            let value = value.trim().trim_matches('"');
            match key.trim().to_ascii_lowercase().as_str() {
                "protocol" => protocol = Some(value),
                "boundary" => boundary = Some(value),
                _ => {}
            }
        }
        if !protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case(PROTOCOL)) {
            return Err(NegotiateError::Unsupported(
                "its messages are encrypted otherwise",
            ));
        }
        let boundary = boundary.filter(|boundary| (1..=70).contains(&boundary.len()));
        let boundary = boundary.ok_or(malformed("it has no boundary"))?.to_owned();
        Ok(Some(Self { boundary }))
    }

    /// Reads a frame.
    ///
    /// # Errors
    /// It is none.
    pub fn parse<'a>(&self, body: &'a [u8]) -> Result<Encrypted<'a>, NegotiateError> {
        let divider = format!("--{}\r\n", self.boundary);
        let rest = body
            .strip_prefix(divider.as_bytes())
            .ok_or(malformed("it does not begin with its boundary"))?;
        let mut rest = rest;
        let (mut length, mut charset) = (None, Charset::default());
        loop {
            let line = line(&mut rest)?;
            if line == divider.trim_end() {
                break;
            }
            let Some((key, value)) = line.trim().split_once(':') else {
                return Err(malformed("a line of its head is none"));
            };
            if key.eq_ignore_ascii_case("OriginalContent") {
                (length, charset) = original(value)?;
            }
        }
        let kind = line(&mut rest)?.trim().to_ascii_lowercase();
        if kind.replace(' ', "") != "content-type:application/octet-stream" {
            return Err(malformed("its second part is no octets"));
        }
        let length: usize = length.ok_or(malformed("it does not say its length"))?;
        let (size, rest) = rest
            .split_first_chunk::<4>()
            .ok_or(malformed("it is cut short"))?;
        if u32::from_le_bytes(*size) as usize != SIGNATURE {
            return Err(malformed("its signature has not 16 bytes"));
        }
        let short = malformed("it is cut short");
        let (signature, rest) = rest.split_at_checked(SIGNATURE).ok_or(short)?;
        let (message, rest) = rest.split_at_checked(length).ok_or(short)?;
        let end = format!("--{}--", self.boundary);
        let over = rest.strip_prefix(end.as_bytes());
        match over {
            Some([] | b"\r\n") => Ok(Encrypted {
                signature,
                message,
                charset,
            }),
            _ => Err(malformed("it does not end where it says")),
        }
    }
}

/// Takes a line, without its end; in a head there are no long ones.
fn line<'a>(rest: &mut &'a [u8]) -> Result<&'a str, NegotiateError> {
    let start = &rest[..rest.len().min(512)];
    let at = start.windows(2).position(|pair| pair == b"\r\n");
    let at = at.ok_or(malformed("a line of its head does not end"))?;
    let line = std::str::from_utf8(&rest[..at]).map_err(|_| malformed("its head is no text"))?;
    *rest = &rest[at + 2..];
    Ok(line)
}

/// Reads `type=application/soap+xml;charset=UTF-8;Length=1234`.
fn original(value: &str) -> Result<(Option<usize>, Charset), NegotiateError> {
    let (mut length, mut charset) = (None, Charset::default());
    for field in value.split(';') {
        let Some((key, value)) = field.split_once('=') else {
            continue;
        };
        match key.trim().to_ascii_lowercase().as_str() {
            "length" => {
                let number = value.trim().parse();
                length = Some(number.map_err(|_| malformed("its length is no number"))?);
            }
            "charset" => {
                charset = Charset::named(value.trim())
                    .map_err(|_| NegotiateError::Unsupported("its charset"))?;
            }
            _ => {}
        }
    }
    Ok((length, charset))
}

impl Encrypted<'_> {
    /// Decrypts the message.
    ///
    /// # Errors
    /// `Signature`.
    pub fn open(&self, session: &mut Session) -> Result<Vec<u8>, NegotiateError> {
        let mut message = self.message.to_vec();
        session.unseal(self.signature, &mut message)?;
        Ok(message)
    }
}

/// Encrypts a reply; its Content-Type and its frame.
pub(crate) fn seal(
    session: &mut Session,
    mut message: Vec<u8>,
    charset: Charset,
) -> (String, Vec<u8>) {
    let signature = session.seal(&mut message);
    let mut frame = format!(
        "--{BOUNDARY}\r\n\tContent-Type: {PROTOCOL}\r\n\
         \tOriginalContent: type=application/soap+xml;charset={};Length={}\r\n\
         --{BOUNDARY}\r\n\tContent-Type: application/octet-stream\r\n",
        charset.name(),
        message.len()
    )
    .into_bytes();
    frame.extend((SIGNATURE as u32).to_le_bytes());
    frame.extend(signature);
    frame.extend(message);
    frame.extend(format!("--{BOUNDARY}--\r\n").as_bytes());
    let content_type =
        format!("multipart/encrypted;protocol=\"{PROTOCOL}\";boundary=\"{BOUNDARY}\"");
    (content_type, frame)
}
