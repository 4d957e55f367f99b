//! The lines that QEMU sends: greeting, events, answers (docs/interop/qmp-spec).
//! A stranger's bytes: a line is at most [`MAX_LINE`] long, its depth is bounded
//! by serde_json, and one that is not understood is skipped.

use std::borrow::Cow;

use qapi::ErrorClass;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// The longest line taken. The schema, the longest regular answer, has 0.3 MB.
pub(crate) const MAX_LINE: usize = 16 << 20;

/// What a line says.
#[derive(Debug)]
pub(crate) enum Message<'a> {
    /// The first line of a connection.
    Greeting,
    /// An event with QEMU's stamp in microseconds since 1970.
    Event {
        /// Its name.
        name: Cow<'a, str>,
        /// When.
        stamp: u64,
    },
    /// An answer to one of our numbered commands.
    Answer {
        /// The command's number.
        id: u64,
        /// What it returned, or QEMU's refusal.
        outcome: Result<Box<RawValue>, (ErrorClass, String)>,
    },
    /// An answer to someone else, or nothing that we know.
    Foreign,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "QMP", borrow)]
    greeting: Option<&'a RawValue>,
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    timestamp: Option<Timestamp>,
    #[serde(rename = "return", borrow)]
    result: Option<&'a RawValue>,
    error: Option<Refusal>,
    id: Option<Value>,
}

#[derive(Deserialize)]
struct Timestamp {
    seconds: i64,
    microseconds: i64,
}

#[derive(Deserialize)]
struct Refusal {
    class: ErrorClass,
    desc: String,
}

/// Reads a line.
pub(crate) fn parse(line: &[u8]) -> Message<'_> {
    let Ok(line) = serde_json::from_slice::<Line<'_>>(line) else {
        return Message::Foreign;
    };
    if let Some(name) = line.event {
        let stamp = line.timestamp.map_or(0, |t| {
            let seconds = u64::try_from(t.seconds).unwrap_or(0);
            let micros = u64::try_from(t.microseconds).unwrap_or(0);
            seconds.saturating_mul(1_000_000).saturating_add(micros)
        });
        return Message::Event { name, stamp };
    }
    if line.greeting.is_some() {
        return Message::Greeting;
    }
    let Some(id) = line.id.as_ref().and_then(Value::as_u64) else {
        return Message::Foreign;
    };
    match (line.result, line.error) {
        (Some(result), None) => Message::Answer {
            id,
            outcome: Ok(result.to_owned()),
        },
        (None, Some(refusal)) => Message::Answer {
            id,
            outcome: Err((refusal.class, refusal.desc)),
        },
        _ => Message::Foreign,
    }
}

/// Bytes as they come in, cut into lines.
#[derive(Default)]
pub(crate) struct Lines {
    bytes: Vec<u8>,
    /// How far it was looked through for the end of a line.
    seen: usize,
}

impl Lines {
    /// Adds what was read. An error if a line grows too long.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > MAX_LINE {
            return Err(format!("a line of more than {MAX_LINE} bytes"));
        }
        Ok(())
    }

    /// Gives each whole line to `take` and forgets it.
    pub(crate) fn drain(&mut self, mut take: impl FnMut(&[u8])) {
        let mut start = 0;
        while let Some(found) = self.bytes[self.seen..].iter().position(|b| *b == b'\n') {
            let end = self.seen + found;
            take(&self.bytes[start..end]);
            start = end + 1;
            self.seen = start;
        }
        self.bytes.drain(..start);
        self.seen = self.bytes.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_every_kind_are_told_apart() {
        assert!(matches!(
            parse(br#"{"QMP":{"version":{},"capabilities":[]}}"#),
            Message::Greeting
        ));
        assert!(matches!(
            parse(br#"{"timestamp":{"seconds":2,"microseconds":7},"event":"STOP"}"#),
            Message::Event { name, stamp: 2_000_007 } if name == "STOP"
        ));
        assert!(matches!(
            parse(br#"{"return":{"a":1},"id":3}"#),
            Message::Answer { id: 3, outcome: Ok(raw) } if raw.get() == r#"{"a":1}"#
        ));
        assert!(matches!(
            parse(br#"{"id":4,"error":{"class":"GenericError","desc":"no"}}"#),
            Message::Answer { id: 4, outcome: Err((ErrorClass::GenericError, text)) } if text == "no"
        ));
        for foreign in [
            &br#"{"return":{},"id":"guardian"}"#[..],
            br#"{"error":{"class":"GenericError","desc":"JSON parse error"}}"#,
            br#"{"return":{},"id":-1}"#,
            br#"urn":{},"id":5}"#,
            b"\xff\xfe",
            b"",
        ] {
            assert!(matches!(parse(foreign), Message::Foreign));
        }
        let deep = [b"{\"return\":".as_slice(), &b"[".repeat(100_000)].concat();
        assert!(matches!(parse(&deep), Message::Foreign));
    }

    #[test]
    fn lines_are_cut_wherever_reads_end() {
        let mut lines = Lines::default();
        let mut got = Vec::new();
        for chunk in ["a", "b\nc", "d\n\n", "e"] {
            lines.push(chunk.as_bytes()).unwrap();
            lines.drain(|line| got.push(String::from_utf8_lossy(line).into_owned()));
        }
        assert_eq!(got, ["ab", "cd", ""]);
        assert!(lines.push(&vec![b'x'; MAX_LINE]).is_err());
    }
}
