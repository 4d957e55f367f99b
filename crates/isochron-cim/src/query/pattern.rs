//! What `LIKE` compares with. Both dialects become one regular expression for the
//! `regex` crate, whose matching takes linear time.
//!
//! WQL: `%` any text, `_` any character, `[a-f]` and `[^a-f]` one of a set; no
//! escapes but sets. CQL and FQL: `.`, `*`, `+`, `?`, `{m,n}`, `|`, groups and sets,
//! where a backslash makes the next character ordinary (DSP0202's and DSP0212's
//! annexes on regular expressions); the whole text must match.

use regex::{Regex, RegexBuilder};

use super::Language;

/// Bytes that a compiled pattern may take.
const MAX_COMPILED: usize = 256 * 1024;

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Regex);

impl Pattern {
    /// # Errors
    /// What is wrong with the pattern.
    pub fn new(language: Language, text: &str) -> Result<Self, String> {
        let inner = match language {
            Language::Wql => wildcards(text)?,
            Language::Cql | Language::Fql => expression(text)?,
        };
        RegexBuilder::new(&format!("^(?:{inner})$"))
            .dot_matches_new_line(true)
            .case_insensitive(!language.regards_case())
            .size_limit(MAX_COMPILED)
            .nest_limit(32)
            .build()
            .map(Self)
            .map_err(|_| format!("the pattern {text:?} cannot be used: it is broken or too large"))
    }

    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

type Chars<'a> = std::iter::Peekable<std::str::Chars<'a>>;

fn wildcards(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '%' => out.push_str(".*"),
            '_' => out.push('.'),
            '[' => set(&mut chars, false, &mut out)?,
            c => ordinary(c, &mut out),
        }
    }
    Ok(out)
}

fn expression(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next) => ordinary(next, &mut out),
                None => return Err("the pattern ends in a backslash".to_owned()),
            },
            '[' => set(&mut chars, true, &mut out)?,
            // What follows is another language's extension.
            '(' if chars.peek() == Some(&'?') => {
                return Err("the pattern has a group that starts with ?".to_owned());
            }
            '.' | '*' | '+' | '?' | '|' | '(' | ')' | '{' | '}' | '^' | '$' => out.push(c),
            c => ordinary(c, &mut out),
        }
    }
    Ok(out)
}

/// The rest of a set after its `[`. A `]` that comes first is an ordinary one.
fn set(chars: &mut Chars<'_>, escapes: bool, out: &mut String) -> Result<(), String> {
    let open = || "a set in the pattern is not closed with ]".to_owned();
    out.push('[');
    if chars.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    let mut first = true;
    loop {
        let c = chars.next().ok_or_else(open)?;
        match c {
            ']' if !first => {
                out.push(']');
                return Ok(());
            }
            '\\' if escapes => ordinary(chars.next().ok_or_else(open)?, out),
            // A range, where it stands between two characters.
            '-' if !first && chars.peek().is_some_and(|next| *next != ']') => out.push('-'),
            c => ordinary(c, out),
        }
        first = false;
    }
}

fn ordinary(c: char, out: &mut String) {
    out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_texts() {
        let table = [
            (Language::Wql, "Win%", "windows", true),
            (Language::Wql, "%in_ow%", "WINDOWS", true),
            (Language::Wql, "in", "windows", false),
            (Language::Wql, "%[_][_]%", "a__b", true),
            (Language::Wql, "%[_][_]%", "abcd", false),
            (Language::Wql, "[a-f]x", "Dx", true),
            (Language::Wql, "[^a-f]x", "dx", false),
            (Language::Wql, "[]]", "]", true),
            (Language::Wql, "[a-]", "-", true),
            (Language::Wql, "[&&~~]%", "&", true),
            (Language::Wql, "a.c*(\\d)", "a.c*(\\d)", true),
            (Language::Wql, "a%", "a\nb", true),
            (Language::Wql, "100<%>", "100<x>", true),
            (Language::Wql, "\u{c4}%", "\u{e4}x", true),
            (Language::Wql, "", "", true),
            (Language::Wql, "%", "", true),
            (Language::Cql, "a.c", "abc", true),
            (Language::Cql, "a.c", "ABC", false),
            (Language::Cql, "a\\.c", "abc", false),
            (Language::Cql, "(ab)+|x{2,3}", "abab", true),
            (Language::Cql, "(ab)+|x{2,3}", "xxx", true),
            (Language::Cql, ".*%_", "any%_", true),
            (Language::Cql, "[\\]a]*", "]a]", true),
            (Language::Fql, "\\d", "d", true),
        ];
        for (language, pattern, text, matches) in table {
            let compiled = Pattern::new(language, pattern).unwrap();
            assert_eq!(compiled.matches(text), matches, "{pattern:?} {text:?}");
        }
    }

    #[test]
    fn broken_and_large_patterns_are_refused() {
        for (language, pattern) in [
            (Language::Wql, "[a"),
            (Language::Wql, "[z-a]"),
            (Language::Cql, "a\\"),
            (Language::Cql, "(?i)a"),
            (Language::Cql, "(a"),
            (Language::Cql, "*"),
            (Language::Cql, "(((a{1,999}){1,999}){1,999})"),
        ] {
            assert!(Pattern::new(language, pattern).is_err(), "{pattern}");
        }
    }
}
