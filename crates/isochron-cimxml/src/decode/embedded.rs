//! Embedded instances: text that is an INSTANCE element, as method parameters
//! and string properties carry it.
//!
//! Senders write it in several dialects: .NET's CIM and WMI DTD 2.0 texts and
//! the scripting API's (system properties, TYPE'd qualifiers, CLASSORIGIN,
//! PROPAGATED), the MI serializer's (MODIFIED, a UTF-16 declaration), CDATA,
//! and any of them inside CIM, DECLGROUP or VALUE.NAMEDINSTANCE. All of them
//! are read; what is not a property's value is passed over.

use isochron_cim::{Instance, Value};

use super::xml::{Element, Limits, Pull};
use super::{DecodeError, Decoded};

/// Reads an embedded instance; `None` for a blank text, which is no instance.
///
/// # Errors
/// The text is neither blank nor holds an INSTANCE element that can be read.
///
/// ```
/// use isochron_cimxml::decode_embedded;
/// let text = r#"<INSTANCE CLASSNAME="T"><PROPERTY NAME="N" TYPE="uint8"><VALUE>7</VALUE></PROPERTY></INSTANCE>"#;
/// let instance = decode_embedded(text).unwrap().unwrap();
/// assert_eq!(instance.get("N"), Some(&isochron_cim::Value::Uint8(7)));
/// assert_eq!(decode_embedded("  ").unwrap(), None);
/// ```
pub fn decode_embedded(text: &str) -> Result<Option<Instance>, DecodeError> {
    let text = strip(text);
    if text.is_empty() {
        return Ok(None);
    }
    let mut pull = Pull::text(text, Limits::default())?;
    pull.lenient = true;
    match pull.embedded()? {
        Value::Instance(instance) => Ok(Some(*instance)),
        _ => Err(DecodeError::NotLooselyValid(
            "an INSTANCE element is needed, and this is a CLASS".into(),
        )),
    }
}

/// The text without what may stand around it: a byte order mark, NULs at the
/// end of a C string, a CDATA section.
fn strip(text: &str) -> &str {
    let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}' || c == '\0');
    match text
        .strip_prefix("<![CDATA[")
        .and_then(|rest| rest.strip_suffix("]]>"))
    {
        Some(inner) => strip(inner),
        None => text,
    }
}

impl Pull<'_> {
    /// The value of an element marked EmbeddedObject; blank is null.
    pub(super) fn embedded_value(&mut self, text: &str) -> Decoded<Option<Value>> {
        let text = strip(text);
        if text.is_empty() {
            return Ok(None);
        }
        self.nested(text).map(Some).map_err(|error| match error {
            DecodeError::TooLarge(_) => error,
            other => DecodeError::BadValue(format!("the embedded object cannot be read: {other}")),
        })
    }

    /// The document's one INSTANCE or CLASS, inside whatever it is wrapped in.
    pub(super) fn embedded(&mut self) -> Decoded<Value> {
        let root = self.root()?;
        let value = self.unwrapped(root)?;
        self.drain()?;
        value.ok_or_else(|| DecodeError::NotLooselyValid("there is no INSTANCE element".into()))
    }

    fn unwrapped(&mut self, e: Element) -> Decoded<Option<Value>> {
        match e.name.as_str() {
            "INSTANCE" => Ok(Some(self.instance(&e)?.into())),
            "CLASS" => Ok(Some(Value::Class(Box::new(self.class(&e)?)))),
            "CIM"
            | "DECLARATION"
            | "DECLGROUP"
            | "DECLGROUP.WITHNAME"
            | "DECLGROUP.WITHPATH"
            | "VALUE.NAMEDINSTANCE"
            | "VALUE.NAMEDOBJECT"
            | "VALUE.OBJECT"
            | "VALUE.OBJECTWITHPATH"
            | "VALUE.OBJECTWITHLOCALPATH"
            | "VALUE.INSTANCEWITHPATH" => {
                let mut found = None;
                while let Some(child) = self.child()? {
                    match found {
                        None => found = self.unwrapped(child)?,
                        Some(_) => self.skip()?,
                    }
                }
                Ok(found)
            }
            _ => {
                self.skip()?;
                Ok(None)
            }
        }
    }
}
