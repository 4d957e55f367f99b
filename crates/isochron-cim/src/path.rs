//! Object paths: the names of namespaces, classes and instances, in the
//! spellings that clients send (WBEM URIs after DSP0207, Windows' own).
//!
//! Text does not tell a key's type: whole numbers are read as 64 bits wide,
//! everything in quotes as a string unless it is an instance path, which is taken
//! for a reference. [`crate::Repository::complete_path`] gives keys the types that
//! their class declares.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use indexmap::IndexMap;

use crate::{CimType, Name, Value};

/// The longest path read, in bytes.
const MAX_LENGTH: usize = 64 * 1024;
/// The most keys read in one path.
const MAX_KEYS: usize = 64;
/// How deep paths may stand in the reference keys of paths.
const MAX_DEPTH: usize = 8;

/// The path of an instance, or, without keys, of a class (DSP0004 §8.2).
///
/// Keys are compared without regard to order; the class, the namespace, the host
/// and the keys' names without regard to case; a backslash in a namespace is a
/// slash. Integers of different width but the same number are equal, and so are
/// a datetime or a character and the string of the same text, because paths as
/// text do not tell them apart.
///
/// A key whose name is empty stands for the class's only key
/// (`Win32_LogicalDisk="C:"`).
///
/// ```
/// use isochron_cim::ObjectPath;
/// let ours: ObjectPath = r#"root/virtualization/v2:Msvm_ConcreteJob.InstanceID="42""#.parse()?;
/// let theirs: ObjectPath = r#"\\.\ROOT\virtualization\v2:msvm_concretejob.instanceid="42""#.parse()?;
/// assert_eq!(ours, theirs);
/// assert_eq!(ours.key_str("InstanceID"), Some("42"));
/// # Ok::<(), isochron_cim::ParsePathError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct ObjectPath {
    /// `host[:port]`, where the path says it.
    pub host: Option<String>,
    /// The namespace, with slashes and none at its ends; `None` where the
    /// context tells it.
    pub namespace: Option<String>,
    /// The class.
    pub class: Name,
    /// Key bindings.
    pub keys: IndexMap<Name, Value>,
}

impl ObjectPath {
    /// The path of a class, without namespace.
    pub fn class(class: impl Into<Name>) -> Self {
        Self {
            class: class.into(),
            ..Self::default()
        }
    }

    /// Adds a key binding.
    #[must_use]
    pub fn with_key(mut self, name: impl Into<Name>, value: impl Into<Value>) -> Self {
        self.keys.insert(name.into(), value.into());
        self
    }

    /// Sets the namespace.
    #[must_use]
    pub fn in_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// A key's value.
    pub fn key(&self, name: &str) -> Option<&Value> {
        self.keys.get(&Name::from(name))
    }

    /// A key's text.
    pub fn key_str(&self, name: &str) -> Option<&str> {
        self.key(name).and_then(Value::as_str)
    }

    /// The same object, named without host and namespace.
    #[must_use]
    pub fn relative(&self) -> Self {
        Self {
            host: None,
            namespace: None,
            class: self.class.clone(),
            keys: self.keys.clone(),
        }
    }
}

/// Why text is no object path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no object path, at character {at}: {reason}")]
pub struct ParsePathError {
    /// Where, counted in characters from 0.
    pub at: usize,
    /// What was found or expected there.
    pub reason: &'static str,
}

/// A namespace with slashes, none at its ends.
pub(crate) fn normal_namespace(text: &str) -> String {
    text.replace('\\', "/").trim_matches('/').to_owned()
}

/// A key's value as equality sees it.
#[derive(PartialEq, Hash)]
enum KeyForm<'a> {
    Integer(i128),
    Boolean(bool),
    Real(u64),
    Text(std::borrow::Cow<'a, str>),
    Path(&'a ObjectPath),
    /// Not a key's value: only ever equal to its own text for debugging.
    Other(String),
}

impl<'a> KeyForm<'a> {
    fn of(value: &'a Value) -> Self {
        match value {
            Value::Boolean(v) => Self::Boolean(*v),
            Value::Real32(v) => Self::Real(f64::from(*v).to_bits()),
            Value::Real64(v) => Self::Real(v.to_bits()),
            Value::Char16(v) => Self::Text(String::from_utf16_lossy(&[*v]).into()),
            Value::String(v) => Self::Text(v.into()),
            Value::DateTime(v) => Self::Text(v.as_str().into()),
            Value::Reference(v) => Self::Path(v),
            Value::Instance(_) | Value::Class(_) | Value::Array(_) => {
                Self::Other(format!("{value:?}"))
            }
            _ => Self::Integer(value.as_integer().unwrap_or_default()),
        }
    }
}

impl PartialEq for ObjectPath {
    fn eq(&self, other: &Self) -> bool {
        let namespaces = match (&self.namespace, &other.namespace) {
            (None, None) => true,
            (Some(a), Some(b)) => {
                Name::from(normal_namespace(a)) == Name::from(normal_namespace(b))
            }
            _ => false,
        };
        let hosts = match (&self.host, &other.host) {
            (None, None) => true,
            (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
            _ => false,
        };
        self.class == other.class
            && namespaces
            && hosts
            && self.keys.len() == other.keys.len()
            && self.keys.iter().all(|(name, value)| {
                other
                    .keys
                    .get(name)
                    .is_some_and(|v| KeyForm::of(v) == KeyForm::of(value))
            })
    }
}

impl Eq for ObjectPath {}

impl Hash for ObjectPath {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.host
            .as_ref()
            .map(|host| host.to_ascii_lowercase())
            .hash(state);
        self.namespace
            .as_ref()
            .map(|text| Name::from(normal_namespace(text)))
            .hash(state);
        self.class.hash(state);
        let mut keys: Vec<_> = self.keys.iter().collect();
        keys.sort_by_key(|(name, _)| *name);
        for (name, value) in keys {
            name.hash(state);
            KeyForm::of(value).hash(state);
        }
    }
}

impl fmt::Display for ObjectPath {
    /// As an untyped WBEM URI: `//host/ns:Class.k="v",n=1`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(host) = &self.host {
            write!(f, "//{host}/")?;
        }
        if let Some(namespace) = &self.namespace {
            write!(f, "{}:", normal_namespace(namespace))?;
        } else if self.host.is_some() {
            f.write_str(":")?;
        }
        write!(f, "{}", self.class)?;
        for (i, (name, value)) in self.keys.iter().enumerate() {
            if name.as_str().is_empty() {
                f.write_str("=")?;
            } else {
                write!(f, "{}{name}=", if i == 0 { '.' } else { ',' })?;
            }
            write_key(f, value)?;
        }
        Ok(())
    }
}

fn write_key(f: &mut fmt::Formatter<'_>, value: &Value) -> fmt::Result {
    let text = match value {
        Value::Boolean(v) => return write!(f, "{}", if *v { "TRUE" } else { "FALSE" }),
        Value::Real32(v) => return write!(f, "{v:e}"),
        Value::Real64(v) => return write!(f, "{v:e}"),
        Value::String(v) => v.clone(),
        Value::Char16(v) => String::from_utf16_lossy(&[*v]),
        Value::DateTime(v) => v.to_string(),
        Value::Reference(v) => v.to_string(),
        Value::Instance(_) | Value::Class(_) | Value::Array(_) => String::new(),
        _ => return write!(f, "{}", value.as_integer().unwrap_or_default()),
    };
    write!(f, "\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
}

impl FromStr for ObjectPath {
    type Err = ParsePathError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_LENGTH {
            return Err(ParsePathError {
                at: MAX_LENGTH,
                reason: "the path is too long",
            });
        }
        parse(text, 0)
    }
}

fn parse(text: &str, depth: usize) -> Result<ObjectPath, ParsePathError> {
    let mut at = Cursor {
        text,
        at: text.len() - text.trim_start().len(),
    };
    if depth > MAX_DEPTH {
        return at.fail("paths stand too deep in the keys of paths");
    }
    let host = at.host()?;
    let namespace = at.namespace()?;
    if host.is_some() && namespace.is_none() {
        return at.fail("a path with a host names a namespace, a colon and a class");
    }
    let class = at.identifier()?;
    let keys = at.keys(depth)?;
    Ok(ObjectPath {
        host: host.filter(|host| host != "."),
        namespace: namespace.filter(|namespace| !namespace.is_empty()),
        class: class.into(),
        keys,
    })
}

/// What no name holds: around a path it means nothing.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || c.is_control()
}

/// The rest of the text.
struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn fail<T>(&self, reason: &'static str) -> Result<T, ParsePathError> {
        Err(ParsePathError {
            at: self.text[..self.at].chars().count(),
            reason,
        })
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    /// `//host/`, `\\\\host\\`, `http://host/`; leaves the separator.
    fn host(&mut self) -> Result<Option<String>, ParsePathError> {
        let rest = self.rest();
        let scheme = ["https://", "http://"].into_iter().find(|scheme| {
            rest.get(..scheme.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(scheme))
        });
        match scheme {
            Some(scheme) => self.at += scheme.len(),
            None if self.eat("//") || self.eat(r"\\") => {}
            None => return Ok(None),
        }
        let rest = self.rest();
        let Some(end) = rest.find(['/', '\\']) else {
            return self.fail("no slash after the host");
        };
        if end == 0 || rest[..end].contains(|c| is_blank(c) || ['"', '\'', '=', ','].contains(&c)) {
            return self.fail("no host");
        }
        self.at += end;
        Ok(Some(rest[..end].to_owned()))
    }

    /// What stands before the colon, if one comes before any key.
    fn namespace(&mut self) -> Result<Option<String>, ParsePathError> {
        let rest = self.rest();
        let Some(end) = rest.find([':', '=', '"', '\'']) else {
            return Ok(None);
        };
        if !rest[end..].starts_with(':') {
            return Ok(None);
        }
        if rest[..end].contains(is_blank) {
            return self.fail("spaces and control characters are in no namespace");
        }
        self.at += end + 1;
        Ok(Some(normal_namespace(&rest[..end])))
    }

    fn identifier(&mut self) -> Result<&'a str, ParsePathError> {
        let rest = self.rest();
        let letter = |c: char| c == '_' || c.is_alphabetic() || !(c.is_ascii() || is_blank(c));
        let end = rest
            .find(|c: char| !(letter(c) || c.is_ascii_digit()))
            .unwrap_or(rest.len());
        if end == 0 || rest.starts_with(|c: char| c.is_ascii_digit()) {
            return self.fail("expected a name of letters, digits and underscores");
        }
        self.at += end;
        Ok(&rest[..end])
    }

    fn keys(&mut self, depth: usize) -> Result<IndexMap<Name, Value>, ParsePathError> {
        let mut keys = IndexMap::new();
        self.skip_space();
        if self.rest().is_empty() || self.eat("=@") {
            return self.end(keys);
        }
        if self.eat("=") {
            keys.insert(Name::default(), self.value(depth)?);
            return self.end(keys);
        }
        if !self.eat(".") {
            return self.fail("expected a period and keys, or the path's end");
        }
        loop {
            self.skip_space();
            let name = Name::from(self.identifier()?);
            self.skip_space();
            if !self.eat("=") {
                return self.fail("expected = after a key's name");
            }
            self.skip_space();
            let value = self.value(depth)?;
            if keys.insert(name, value).is_some() {
                return self.fail("a key is given twice");
            }
            if keys.len() > MAX_KEYS {
                return self.fail("too many keys");
            }
            self.skip_space();
            if !self.eat(",") {
                return self.end(keys);
            }
        }
    }

    fn end<T>(&mut self, result: T) -> Result<T, ParsePathError> {
        self.skip_space();
        if self.rest().is_empty() {
            Ok(result)
        } else {
            self.fail("expected a comma or the path's end")
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, ParsePathError> {
        match self.rest().chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let text = self.quoted(quote)?;
                Ok(match reference(&text, depth)? {
                    Some(path) => Value::Reference(Box::new(path)),
                    None => Value::String(text),
                })
            }
            _ => self.bare(),
        }
    }

    /// A quoted text; a backslash that escapes neither a quote nor a backslash is
    /// meant as itself (clients forget to double it in Windows' file names).
    fn quoted(&mut self, quote: char) -> Result<String, ParsePathError> {
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1).peekable();
        while let Some((i, c)) = chars.next() {
            if c == quote {
                self.at += i + 1;
                return Ok(text);
            }
            match (c, chars.peek()) {
                ('\\', Some((_, next @ ('"' | '\'' | '\\')))) => {
                    text.push(*next);
                    chars.next();
                }
                _ => text.push(c),
            }
        }
        self.fail("a quote is not closed")
    }

    fn bare(&mut self) -> Result<Value, ParsePathError> {
        let rest = self.rest();
        let end = rest.find([',', ' ', '\t']).unwrap_or(rest.len());
        let word = &rest[..end];
        let types = [
            CimType::Boolean,
            CimType::Uint64,
            CimType::Sint64,
            CimType::Real64,
        ];
        let number = word.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
        let found = types
            .into_iter()
            .filter(|ty| *ty == CimType::Boolean || number)
            .find_map(|ty| ty.parse(word).ok())
            // Beyond all numbers it could not be written again.
            .filter(|value| !matches!(value, Value::Real64(number) if !number.is_finite()));
        match found {
            Some(value) => {
                self.at += end;
                Ok(value)
            }
            None => self.fail("expected a quoted text, a number, TRUE or FALSE"),
        }
    }
}

/// The path that a quoted key holds, if it is one: with keys, and of a class whose
/// name has a schema prefix (DSP0004 §5.1.2.1 demands one). A path that is one
/// but stands too deep is an error.
fn reference(text: &str, depth: usize) -> Result<Option<ObjectPath>, ParsePathError> {
    if !text.contains('=') || !text.contains('_') {
        return Ok(None);
    }
    match parse(text, depth + 1) {
        Ok(path) if !path.keys.is_empty() && path.class.as_str().contains('_') => Ok(Some(path)),
        Err(error) if error.reason.contains("too deep") => Err(error),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests;
