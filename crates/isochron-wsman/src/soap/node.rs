//! A request's elements with their namespaces resolved, from the reader that all our
//! XML goes through and within its limits.

use std::sync::Arc;

use isochron_cimxml::decode::{DecodeError, Limits, Pull, Token};
use isochron_cimxml::encode::{attribute, text};

use crate::names::{XML, XSI};

/// An element.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its namespace; empty where it is in none.
    pub namespace: Arc<str>,
    /// Its name without prefix.
    pub name: String,
    /// Its attributes: namespace (empty for none), name, value.
    attributes: Vec<(Arc<str>, String, String)>,
    /// The elements in it.
    pub children: Vec<Node>,
    /// The text that stands directly in it, in one piece.
    pub text: String,
}

impl Node {
    /// Reads a document.
    ///
    /// # Errors
    /// It is no XML with namespaces, or exceeds a limit.
    pub fn read(text: &str, limits: Limits) -> Result<Self, DecodeError> {
        let mut pull = Pull::transcoded(text, limits)?;
        let mut scope = Scope::new();
        let mut open: Vec<Self> = Vec::new();
        let mut root = None;
        loop {
            match pull.token()? {
                Token::Open(element) => {
                    scope.enter(element.attributes());
                    open.push(scope.node(&element)?);
                }
                Token::Close => {
                    scope.leave();
                    let Some(node) = open.pop() else { continue };
                    match open.last_mut() {
                        Some(parent) => parent.children.push(node),
                        None => root = Some(node),
                    }
                }
                Token::Text(text) => {
                    if let Some(node) = open.last_mut() {
                        node.text.push_str(&text);
                    }
                }
                Token::End => break,
            }
        }
        root.ok_or_else(|| DecodeError::NotWellFormed("it has no element".into()))
    }

    /// Whether this is the element of that name.
    pub fn is(&self, namespace: &str, name: &str) -> bool {
        self.name == name && *self.namespace == *namespace
    }

    /// The first child of that name.
    pub fn child(&self, namespace: &str, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.is(namespace, name))
    }

    /// The first child of that name, in whatever namespace.
    pub fn child_named(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The text without the white space around it.
    pub fn value(&self) -> &str {
        self.text.trim()
    }

    /// An attribute without a namespace.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attribute_in("", name)
    }

    /// An attribute of a namespace.
    pub fn attribute_in(&self, namespace: &str, name: &str) -> Option<&str> {
        let found = self
            .attributes
            .iter()
            .find(|(ns, key, _)| **ns == *namespace && key == name);
        found.map(|(_, _, value)| value.as_str())
    }

    /// Whether it says that it has no value (`xsi:nil`).
    pub fn is_nil(&self) -> bool {
        let nil = self.attribute_in(XSI, "nil").map(str::trim);
        matches!(nil, Some("true" | "1"))
    }

    /// Appends it as it was read: prefixes are others, and declared where they are used.
    pub fn write(&self, out: &mut String) {
        let mut tag = self.name.clone();
        if !self.namespace.is_empty() {
            tag.insert_str(0, "q:");
        }
        out.push('<');
        out.push_str(&tag);
        if !self.namespace.is_empty() {
            attribute(out, "xmlns:q", &self.namespace);
        }
        for (at, (namespace, name, value)) in self.attributes.iter().enumerate() {
            match &**namespace {
                "" => attribute(out, name, value),
                XML => attribute(out, &format!("xml:{name}"), value),
                namespace => {
                    attribute(out, &format!("xmlns:q{at}"), namespace);
                    attribute(out, &format!("q{at}:{name}"), value);
                }
            }
        }
        out.push('>');
        text(out, &self.text);
        for child in &self.children {
            child.write(out);
        }
        out.push_str("</");
        out.push_str(&tag);
        out.push('>');
    }

    /// The class that `xsi:type="p:Class_Type"` names (DSP0230 §9); some leave out the
    /// prefix.
    pub fn class_type(&self) -> Option<&str> {
        let named = self.attribute_in(XSI, "type")?.trim();
        let local = named.rsplit_once(':').map_or(named, |(_, local)| local);
        local.strip_suffix("_Type")
    }
}

/// The declarations of namespaces that hold at a place.
struct Scope {
    declared: Vec<(String, Arc<str>)>,
    /// How many were declared at each open element.
    counts: Vec<usize>,
    none: Arc<str>,
}

impl Scope {
    fn new() -> Self {
        Self {
            declared: vec![("xml".into(), XML.into())],
            counts: Vec::new(),
            none: "".into(),
        }
    }

    fn enter<'a>(&mut self, attributes: impl Iterator<Item = (&'a str, &'a str)>) {
        let before = self.declared.len();
        for (name, uri) in attributes {
            let prefix = match name {
                "xmlns" => "",
                _ => match name.strip_prefix("xmlns:") {
                    Some(prefix) => prefix,
                    None => continue,
                },
            };
            // Requests declare the same few again and again.
            let known = self.declared.iter().find(|(_, known)| **known == *uri);
            let uri = known.map_or_else(|| uri.into(), |(_, known)| known.clone());
            self.declared.push((prefix.into(), uri));
        }
        self.counts.push(self.declared.len() - before);
    }

    fn leave(&mut self) {
        let count = self.counts.pop().unwrap_or_default();
        self.declared.truncate(self.declared.len() - count);
    }

    fn find(&self, prefix: &str) -> Result<Arc<str>, DecodeError> {
        let mut declared = self.declared.iter().rev();
        match declared.find(|(known, _)| known == prefix) {
            Some((_, uri)) => Ok(uri.clone()),
            None if prefix.is_empty() => Ok(self.none.clone()),
            None => Err(DecodeError::NotWellFormed(format!(
                "the prefix {prefix:?} is not declared"
            ))),
        }
    }

    fn node(&self, element: &isochron_cimxml::decode::Element) -> Result<Node, DecodeError> {
        let mut attributes = Vec::new();
        for (name, value) in element.attributes() {
            let (namespace, name) = match name.split_once(':') {
                _ if name == "xmlns" || name.starts_with("xmlns:") => continue,
                // The default namespace is not that of attributes.
                None => (self.none.clone(), name),
                Some((prefix, name)) => (self.find(prefix)?, name),
            };
            attributes.push((namespace, name.to_owned(), value.to_owned()));
        }
        Ok(Node {
            namespace: self.find(&element.prefix)?,
            name: element.name.clone(),
            attributes,
            children: Vec::new(),
            text: String::new(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Node, DecodeError> {
        Node::read(text, Limits::default())
    }

    #[test]
    fn names_are_of_the_nearest_declaration() {
        let root = read(
            r#"<a:r xmlns:a="u:1" xmlns="u:2" a:k="1" k="2"><c/><a:c xmlns:a="u:3">x<!-- -->y<d xmlns=""/></a:c><a:c/></a:r>"#,
        )
        .unwrap();
        assert!(root.is("u:1", "r"));
        assert_eq!(root.attribute("k"), Some("2"));
        assert_eq!(root.attribute_in("u:1", "k"), Some("1"));
        let names: Vec<_> = root.children.iter().map(|c| &*c.namespace).collect();
        assert_eq!(names, ["u:2", "u:3", "u:1"]);
        assert_eq!(root.children[1].text, "xy");
        assert!(root.children[1].children[0].is("", "d"));
    }

    #[test]
    fn what_is_written_is_what_was_read() {
        let root = read(
            r#"<a:r xmlns:a="u:1" xmlns="u:2" a:k="1" k="&lt;2"><c xml:lang="en">x&amp;y</c><d xmlns=""/></a:r>"#,
        )
        .unwrap();
        let mut written = String::new();
        root.write(&mut written);
        assert_eq!(read(&written).unwrap(), root, "{written}");
    }

    #[test]
    fn what_is_not_declared_is_refused() {
        for text in [
            "<a:r/>",
            r#"<r a:k=""/>"#,
            r#"<r><x xmlns:a="u"/><a:x/></r>"#,
        ] {
            let error = read(text).unwrap_err();
            assert!(
                error.to_string().contains("not declared"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn types_and_nil_are_read_in_either_spelling() {
        let root = read(
            r#"<r xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:q="u"><a xsi:type="q:A_B_Type"/><a xsi:type="A_B_Type"/><a xsi:nil="1"/><a xsi:nil=" true "/><a xsi:nil="false" xsi:type="q:int"/></r>"#,
        )
        .unwrap();
        let types: Vec<_> = root.children.iter().map(Node::class_type).collect();
        assert_eq!(types, [Some("A_B"), Some("A_B"), None, None, None]);
        let nil: Vec<_> = root.children.iter().map(Node::is_nil).collect();
        assert_eq!(nil, [false, false, true, true, false]);
    }
}
