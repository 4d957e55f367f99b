//! CIM identifiers compare without regard to case (DSP0004, Unicode
//! default caseless match for the letters that identifiers may hold), and keep
//! the spelling that they were written in.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};

/// A CIM name: of a class, property, method, parameter, qualifier or key.
///
/// ```
/// use isochron_cim::Name;
/// assert_eq!(Name::from("JobState"), Name::from("jobstate"));
/// assert_eq!(Name::from("JobState").as_str(), "JobState");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Name(Cow<'static, str>);

impl Name {
    /// A name from text known at compile time, without allocation.
    pub const fn fixed(text: &'static str) -> Self {
        Self(Cow::Borrowed(text))
    }

    /// The name as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the name equals `other` without regard to case.
    pub fn is(&self, other: &str) -> bool {
        eq(&self.0, other)
    }
}

fn fold(text: &str) -> impl Iterator<Item = char> + '_ {
    text.chars().flat_map(char::to_lowercase)
}

fn eq(a: &str, b: &str) -> bool {
    if a.is_ascii() && b.is_ascii() {
        a.eq_ignore_ascii_case(b)
    } else {
        fold(a).eq(fold(b))
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        eq(&self.0, &other.0)
    }
}

impl Eq for Name {}

impl PartialEq<str> for Name {
    fn eq(&self, other: &str) -> bool {
        eq(&self.0, other)
    }
}

impl PartialEq<&str> for Name {
    fn eq(&self, other: &&str) -> bool {
        eq(&self.0, other)
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for c in fold(&self.0) {
            c.hash(state);
        }
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        fold(&self.0).cmp(fold(&other.0))
    }
}

impl From<&str> for Name {
    fn from(text: &str) -> Self {
        Self(Cow::Owned(text.to_owned()))
    }
}

impl From<String> for Name {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
