//! From CIM's types to DSP0201's XML.
//!
//! One function per element, named after it, each appending to a `String`.
//! What is appended is well-formed whatever the values hold: markup is
//! escaped, line ends and tabs survive a parser's normalization, and a
//! character that XML 1.0 cannot carry (a control character, a lone surrogate,
//! U+FFFE, U+FFFF) becomes U+FFFD, the replacement character.

mod class;
mod export;
mod object;
mod response;

pub use class::{class, qualifier_declaration};
pub use export::export_indication;
pub use object::{instance, instancename};
pub use response::{
    EnumerationState, Origin, begin_imethodresponse, empty_imethodresponse, end_imethodresponse,
    error_response, imethodresponse, item, methodresponse,
};

use crate::decode::is_xml_char;

/// Appends character data.
pub fn text(out: &mut String, text: &str) {
    escape(out, text, |_| None);
}

/// Appends ` NAME="value"`.
pub fn attribute(out: &mut String, name: &str, value: &str) {
    out.push(' ');
    out.push_str(name);
    out.push_str("=\"");
    // A parser makes these white space in attributes blanks (XML 1.0 §3.3.3).
    escape(out, value, |c| match c {
        '\t' => Some("&#9;"),
        '\n' => Some("&#10;"),
        '"' => Some("&quot;"),
        _ => None,
    });
    out.push('"');
}

/// Appends ` NAME="true"` or `"false"`.
fn flag(out: &mut String, name: &str, value: bool) {
    attribute(out, name, if value { "true" } else { "false" });
}

fn escape(out: &mut String, text: &str, special: impl Fn(char) -> Option<&'static str>) {
    out.reserve(text.len());
    let mut plain = 0;
    for (at, c) in text.char_indices() {
        let replacement = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            // A parser makes a bare carriage return a line feed (§2.11).
            '\r' => "&#13;",
            c if !is_xml_char(c) => "\u{fffd}",
            c => match special(c) {
                Some(replacement) => replacement,
                None => continue,
            },
        };
        out.push_str(&text[plain..at]);
        out.push_str(replacement);
        plain = at + c.len_utf8();
    }
    out.push_str(&text[plain..]);
}
