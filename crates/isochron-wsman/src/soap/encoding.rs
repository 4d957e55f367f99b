//! Characters on the wire: UTF-8 and UTF-16. A reply is in what its request was in, and
//! in UTF-8 where that is not read (DSP0226 R13.1-5).

use super::{Fault, Kind};

/// How a message's characters are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Charset {
    /// UTF-8.
    #[default]
    Utf8,
    /// UTF-16, little-endian unless a byte order mark says otherwise.
    Utf16,
}

impl Charset {
    /// The one of this name.
    ///
    /// # Errors
    /// `EncodingLimit` with `CharacterSet` for any other.
    pub fn named(name: &str) -> Result<Self, Fault> {
        match name.to_ascii_lowercase().as_str() {
            "utf-8" | "utf8" | "us-ascii" => Ok(Self::Utf8),
            "utf-16" | "utf-16le" | "utf-16be" => Ok(Self::Utf16),
            _ => Err(limit(format!(
                "the charset {name:?} is not UTF-8 or UTF-16"
            ))),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Utf8 => "UTF-8",
            Self::Utf16 => "UTF-16",
        }
    }

    /// A message's bytes.
    pub fn encode(self, text: String) -> Vec<u8> {
        match self {
            Self::Utf8 => text.into_bytes(),
            Self::Utf16 => {
                let mark = std::iter::once(0xfeff);
                let units = mark.chain(text.encode_utf16());
                units.flat_map(u16::to_le_bytes).collect()
            }
        }
    }
}

/// A message's text, and in what it was written. A byte order mark goes before what the
/// headers say.
///
/// # Errors
/// `EncodingLimit` with `CharacterSet`.
pub fn decoded(bytes: &[u8], said: Charset) -> Result<(String, Charset), Fault> {
    let broken = || limit("the text is not in the charset that it is said to be in".into());
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let units: Vec<u16> = pairs.iter().map(|pair| unit(*pair)).collect();
        match rest {
            [] => String::from_utf16(&units).map_err(|_| broken()),
            _ => Err(broken()),
        }
    };
    match (bytes, said) {
        ([0xff, 0xfe, rest @ ..], _) => Ok((utf16(rest, u16::from_le_bytes)?, Charset::Utf16)),
        ([0xfe, 0xff, rest @ ..], _) => Ok((utf16(rest, u16::from_be_bytes)?, Charset::Utf16)),
        (_, Charset::Utf16) => Ok((utf16(bytes, u16::from_le_bytes)?, Charset::Utf16)),
        (_, Charset::Utf8) => {
            let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
            let text = std::str::from_utf8(bytes).map_err(|_| broken())?;
            Ok((text.to_owned(), Charset::Utf8))
        }
    }
}

fn limit(reason: String) -> Fault {
    Fault::new(Kind::ENCODING_LIMIT, reason).detailed("CharacterSet")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for charset in [Charset::Utf8, Charset::Utf16] {
            let text = "<a>\u{e4}\u{1f600}</a>".to_owned();
            let bytes = charset.encode(text.clone());
            // The mark says enough.
            assert_eq!(decoded(&bytes, charset).unwrap(), (text, charset));
        }
        let big: Vec<u8> = [0xfeff_u16, 0x3c]
            .iter()
            .flat_map(|u| u.to_be_bytes())
            .collect();
        assert_eq!(decoded(&big, Charset::Utf8).unwrap().0, "<");
        for (bytes, said) in [
            (&b"\xff"[..], Charset::Utf8),
            (b"a", Charset::Utf16),
            (b"\x00\xd8", Charset::Utf16),
        ] {
            assert!(decoded(bytes, said).is_err(), "{bytes:?}");
        }
    }
}
