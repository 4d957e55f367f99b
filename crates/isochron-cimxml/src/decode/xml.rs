//! A pull reader of XML 1.0 for documents from strangers: elements and text,
//! with every check that well-formedness needs and quick-xml leaves to its
//! user, and with limits on what a document may hold.
//!
//! A DOCTYPE is passed over and nothing in it is expanded; the only entities
//! known are XML's own five and numeric references. Comments and processing
//! instructions are passed over.

use std::borrow::Cow;

use isochron_cim::Value;
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

use super::{DecodeError, Decoded};

/// What a document may hold at most, embedded documents counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the document.
    pub bytes: usize,
    /// Elements nested in one another.
    pub depth: usize,
    /// Elements altogether.
    pub elements: usize,
}

impl Default for Limits {
    /// 16 MiB, 64 deep, one million elements.
    fn default() -> Self {
        Self {
            bytes: 16 << 20,
            depth: 64,
            elements: 1_000_000,
        }
    }
}

/// No element of DSP0201 has more than ten; the bound keeps the check for
/// duplicates cheap.
const ATTRIBUTES_MAX: usize = 32;

/// Whether XML 1.0 can carry the character (XML 1.0 §2.2).
pub(crate) fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// A start tag.
#[derive(Debug)]
pub struct Element {
    /// The name without its prefix: DSP0201's elements are in no namespace.
    pub name: String,
    /// The prefix; empty where there is none.
    pub prefix: String,
    attributes: Vec<(String, String)>,
}

impl Element {
    /// The attributes as they are written, those that declare namespaces too.
    pub fn attributes(&self) -> impl Iterator<Item = (&str, &str)> {
        let attributes = self.attributes.iter();
        attributes.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The attribute's value.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The value of an attribute that must be there and not be empty.
    pub(crate) fn required(&self, name: &str) -> Decoded<&str> {
        self.attribute(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| {
                DecodeError::NotLooselyValid(format!("{} needs the attribute {name}", self.name))
            })
    }

    /// A boolean attribute, or what it is by default.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Decoded<bool> {
        match self.attribute(name) {
            None => Ok(default),
            Some(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Some(text) => Err(DecodeError::NotLooselyValid(format!(
                "{} of {} is true or false, not {text:?}",
                name, self.name
            ))),
        }
    }

    /// The error for this element where it has no place.
    pub(crate) fn unexpected(&self, parent: &str) -> DecodeError {
        DecodeError::NotLooselyValid(format!("{} has no place in {parent}", self.name))
    }
}

/// What a document consists of.
#[derive(Debug)]
pub enum Token<'a> {
    /// An element begins.
    Open(Element),
    /// The element that was opened last and not closed ends.
    Close,
    /// Some of the text of an element.
    Text(Cow<'a, str>),
    /// The document is over.
    End,
}

/// The reader. Its methods named after elements are in the sibling files.
pub struct Pull<'a> {
    reader: Reader<&'a [u8]>,
    /// What is left of the limits.
    depth_left: usize,
    elements_left: usize,
    open: usize,
    root: Root,
    /// Whether there was a document type declaration.
    typed: bool,
    /// Whether the document is an embedded one, read with tolerance.
    pub(crate) lenient: bool,
}

#[derive(PartialEq)]
enum Root {
    Start,
    Prolog,
    Inside,
    Over,
}

impl<'a> Pull<'a> {
    /// A reader of a request's bytes.
    ///
    /// # Errors
    /// They are no UTF-8, hold what XML cannot, or are more than allowed.
    pub fn document(bytes: &'a [u8], limits: Limits) -> Decoded<Self> {
        const MARK: &[u8] = b"\xef\xbb\xbf";
        let bytes = bytes.strip_prefix(MARK).unwrap_or(bytes);
        // The reader would pass over another one.
        if bytes.starts_with(MARK) {
            return Err(ill_formed("it begins with two byte order marks"));
        }
        let text = std::str::from_utf8(bytes).map_err(|e| {
            ill_formed(format!(
                "it is no UTF-8 text (byte {} and on)",
                e.valid_up_to()
            ))
        })?;
        Self::text(text, limits)
    }

    /// A reader of text that was in whatever encoding: what the document says of its
    /// encoding is of no account.
    ///
    /// # Errors
    /// As of [`Pull::document`].
    pub fn transcoded(text: &'a str, limits: Limits) -> Decoded<Self> {
        let mut pull = Self::text(text, limits)?;
        pull.lenient = true;
        Ok(pull)
    }

    /// A reader of text.
    pub(crate) fn text(text: &'a str, limits: Limits) -> Decoded<Self> {
        if text.len() > limits.bytes {
            let allowed = limits.bytes;
            return Err(DecodeError::TooLarge(format!("more than {allowed} bytes")));
        }
        if let Some(c) = text.chars().find(|c| !is_xml_char(*c)) {
            return Err(ill_formed(format!(
                "it holds the character U+{:04X}",
                u32::from(c)
            )));
        }
        let mut reader = Reader::from_str(text);
        reader.config_mut().expand_empty_elements = true;
        reader.config_mut().check_comments = true;
        Ok(Self {
            reader,
            depth_left: limits.depth,
            elements_left: limits.elements,
            open: 0,
            root: Root::Start,
            typed: false,
            lenient: false,
        })
    }

    /// Reads the object in a document embedded in this one, with what is left of
    /// the limits.
    pub(crate) fn nested(&mut self, text: &str) -> Decoded<Value> {
        let limits = Limits {
            bytes: text.len(),
            depth: self.depth_left,
            elements: self.elements_left,
        };
        let mut inner = Pull::text(text, limits)?;
        inner.lenient = true;
        let object = inner.embedded();
        self.elements_left = inner.elements_left;
        object
    }

    /// The document's root element.
    pub(crate) fn root(&mut self) -> Decoded<Element> {
        match self.token()? {
            Token::Open(element) => Ok(element),
            _ => Err(ill_formed("it has no element")),
        }
    }

    /// The next child of the element that was read last; `None` at its end.
    pub(crate) fn child(&mut self) -> Decoded<Option<Element>> {
        loop {
            match self.token()? {
                Token::Open(element) => return Ok(Some(element)),
                Token::Close => return Ok(None),
                Token::Text(text) if text.trim().is_empty() => {}
                Token::Text(_) => {
                    return Err(DecodeError::NotLooselyValid(
                        "there is text where only elements may stand".into(),
                    ));
                }
                Token::End => return Err(ill_formed("it ends within an element")),
            }
        }
    }

    /// The text of the element that was read last, to its end.
    pub(crate) fn content(&mut self) -> Decoded<String> {
        let mut content = String::new();
        loop {
            match self.token()? {
                Token::Text(text) => content.push_str(&text),
                Token::Close => return Ok(content),
                Token::Open(element) => return Err(element.unexpected("text")),
                Token::End => return Err(ill_formed("it ends within an element")),
            }
        }
    }

    /// How many elements are open.
    pub(crate) fn depth(&self) -> usize {
        self.open
    }

    /// Passes over the rest of the element that was read last.
    pub(crate) fn skip(&mut self) -> Decoded<()> {
        self.leave(self.open.saturating_sub(1))
    }

    /// Passes over what follows until no more than this many elements are open.
    pub(crate) fn leave(&mut self, depth: usize) -> Decoded<()> {
        while self.open > depth {
            if let Token::End = self.token()? {
                return Err(ill_formed("it ends within an element"));
            }
        }
        Ok(())
    }

    /// Ends the element that was read last, in which nothing more may stand.
    pub(crate) fn close(&mut self, name: &str) -> Decoded<()> {
        match self.child()? {
            None => Ok(()),
            Some(element) => Err(element.unexpected(name)),
        }
    }

    /// Passes over the rest of the document, which must be well-formed.
    pub(crate) fn drain(&mut self) -> Decoded<()> {
        while !matches!(self.token()?, Token::End) {}
        Ok(())
    }

    /// What comes next.
    ///
    /// # Errors
    /// The document is not well-formed, or exceeds a limit.
    pub fn token(&mut self) -> Decoded<Token<'a>> {
        loop {
            let event = self.reader.read_event().map_err(ill_formed)?;
            let first = self.root == Root::Start;
            if first && !matches!(event, Event::Eof) {
                self.root = Root::Prolog;
            }
            match event {
                Event::Start(start) | Event::Empty(start) => {
                    if self.root == Root::Over {
                        return Err(ill_formed("there is a second root element"));
                    }
                    self.root = Root::Inside;
                    self.open += 1;
                    self.depth_left = self
                        .depth_left
                        .checked_sub(1)
                        .ok_or_else(|| DecodeError::TooLarge("elements nest too deep".into()))?;
                    self.elements_left = self
                        .elements_left
                        .checked_sub(1)
                        .ok_or_else(|| DecodeError::TooLarge("too many elements".into()))?;
                    return element(&start).map(Token::Open);
                }
                Event::End(_) => {
                    self.open -= 1;
                    self.depth_left += 1;
                    if self.open == 0 {
                        self.root = Root::Over;
                    }
                    return Ok(Token::Close);
                }
                Event::Text(text) if self.root == Root::Inside => {
                    return Ok(Token::Text(text.xml10_content()));
                }
                Event::Text(text) if text.trim().is_empty() => {}
                Event::CData(text) if self.root == Root::Inside => {
                    return Ok(Token::Text(text.xml10_content()));
                }
                Event::GeneralRef(name) if self.root == Root::Inside => {
                    let c = match name.resolve_char_ref().map_err(ill_formed)? {
                        Some(c) if is_xml_char(c) => c,
                        Some(_) => {
                            return Err(ill_formed("a reference names no XML character"));
                        }
                        None => predefined(&name)?,
                    };
                    return Ok(Token::Text(Cow::Owned(c.to_string())));
                }
                Event::Text(_) | Event::CData(_) | Event::GeneralRef(_) => {
                    return Err(ill_formed("there is text outside the root element"));
                }
                Event::Decl(declaration) => {
                    if !first {
                        return Err(ill_formed("the XML declaration is not at the start"));
                    }
                    // XML 1.0 §2.8: documents of any 1.x are read as 1.0.
                    let version = declaration.version().map_err(ill_formed)?;
                    if !version.starts_with("1.") {
                        return Err(ill_formed(format!("XML {version:?} is not known")));
                    }
                    if let Some(encoding) = declaration.encoding() {
                        let encoding = encoding.map_err(ill_formed)?;
                        let known = ["utf-8", "utf8", "us-ascii"];
                        // Embedded text was decoded with its document.
                        if !self.lenient
                            && !known.iter().any(|name| encoding.eq_ignore_ascii_case(name))
                        {
                            return Err(ill_formed(format!(
                                "the encoding {encoding:?} is not supported, only UTF-8 is"
                            )));
                        }
                    }
                }
                Event::DocType(_) if self.root == Root::Prolog && !self.typed => {
                    self.typed = true;
                }
                Event::DocType(_) => {
                    return Err(ill_formed("a document type declaration has no place there"));
                }
                Event::Comment(_) | Event::PI(_) => {}
                Event::Eof => {
                    return match self.root {
                        Root::Over => Ok(Token::End),
                        Root::Inside => Err(ill_formed("it ends within an element")),
                        Root::Start | Root::Prolog => Err(ill_formed("it has no element")),
                    };
                }
            }
        }
    }
}

/// Whether blanks stand between the attributes of a tag, which the reader does not ask
/// for (XML 1.0 §3.1).
fn are_apart(attributes: &str) -> bool {
    let (mut quote, mut ended) = (None, false);
    for byte in attributes.bytes() {
        if ended && !byte.is_ascii_whitespace() {
            return false;
        }
        ended = quote == Some(byte);
        quote = match quote {
            None if matches!(byte, b'"' | b'\'') => Some(byte),
            None => None,
            Some(_) if ended => None,
            open => open,
        };
    }
    true
}

fn element(start: &BytesStart<'_>) -> Decoded<Element> {
    if !are_apart(start.attributes_raw()) {
        return Err(ill_formed("there is no blank between two attributes"));
    }
    let mut attributes = Vec::new();
    for attribute in start.attributes() {
        let attribute = attribute.map_err(ill_formed)?;
        if attributes.len() == ATTRIBUTES_MAX {
            return Err(DecodeError::TooLarge(
                "too many attributes on an element".into(),
            ));
        }
        let value = attribute
            .normalized_value(XmlVersion::Explicit1_0)
            .map_err(ill_formed)?;
        if attribute.value.contains('<') || !value.chars().all(is_xml_char) {
            return Err(ill_formed("an attribute holds a character that it may not"));
        }
        attributes.push((attribute.key.0.to_owned(), value.into_owned()));
    }
    let prefix = start.name().prefix();
    Ok(Element {
        name: start.local_name().as_ref().to_owned(),
        prefix: prefix.map_or_else(String::new, |prefix| prefix.as_ref().to_owned()),
        attributes,
    })
}

fn predefined(name: &str) -> Decoded<char> {
    match name {
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "amp" => Ok('&'),
        "quot" => Ok('"'),
        "apos" => Ok('\''),
        _ => Err(ill_formed(format!("the entity {name:?} is not known"))),
    }
}

fn ill_formed(reason: impl std::fmt::Display) -> DecodeError {
    DecodeError::NotWellFormed(reason.to_string())
}
