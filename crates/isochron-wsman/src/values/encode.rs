//! Instances, references and the results of methods, as elements.

use isochron_cim::{Instance, Name, ObjectPath, TypedValue, Value};
use isochron_cimxml::encode::{attribute, class, text};

use super::{key_text, time};
use crate::names::ANONYMOUS;
use crate::resource::{NAMESPACE_SELECTOR, Naming};
use crate::soap::{close, element, element_with};

/// Writes what is named in one way.
pub(crate) struct Encoder<'a> {
    /// The way.
    pub naming: &'a Naming,
    /// Where this server is, as its client sees it: the address of references.
    pub address: &'a str,
}

/// Appends the start tag of an element of a class, whose namespace gets a prefix.
fn open_typed(out: &mut String, tag: &str, prefix: &str, uri: &str, class: &str) {
    out.push('<');
    out.push_str(tag);
    attribute(out, &format!("xmlns:{prefix}"), uri);
    attribute(out, "xsi:type", &format!("{prefix}:{class}_Type"));
    out.push('>');
}

/// Appends `wsman:XmlFragment` around some properties of a class: what a query selects.
pub(crate) fn fragment(out: &mut String, encoder: &Encoder<'_>, instance: &Instance) {
    let class = instance.class.as_str();
    let uri = encoder.naming.class_uri(class);
    open_typed(out, "w:XmlFragment", "p", &uri, class);
    encoder.properties(out, "p", instance, 0);
    close(out, "w:XmlFragment");
}

impl Encoder<'_> {
    /// Appends an instance.
    pub(crate) fn instance(&self, out: &mut String, instance: &Instance) {
        let class = instance.class.as_str();
        let tag = format!("p:{class}");
        let uri = self.naming.class_uri(class);
        open_typed(out, &tag, "p", &uri, class);
        self.properties(out, "p", instance, 0);
        close(out, &tag);
    }

    /// Appends the result of a method, `Method_OUTPUT` (DSP0227 §11).
    pub(crate) fn output(
        &self,
        out: &mut String,
        class: &str,
        method: &str,
        values: &[(&Name, &TypedValue)],
    ) {
        let tag = format!("p:{method}_OUTPUT");
        out.push('<');
        out.push_str(&tag);
        attribute(out, "xmlns:p", &self.naming.class_uri(class));
        out.push('>');
        for (name, value) in values {
            self.value(out, &format!("p:{name}"), value, 0);
        }
        close(out, &tag);
    }

    fn properties(&self, out: &mut String, prefix: &str, instance: &Instance, depth: usize) {
        for (name, property) in &instance.properties {
            self.value(out, &format!("{prefix}:{name}"), &property.value, depth);
        }
    }

    /// Appends an element for a value, or one for each of an array's.
    fn value(&self, out: &mut String, tag: &str, typed: &TypedValue, depth: usize) {
        match &typed.value {
            Some(Value::Array(items)) => {
                for item in items {
                    self.scalar(out, tag, item.as_ref(), depth);
                }
            }
            value => self.scalar(out, tag, value.as_ref(), depth),
        }
    }

    fn scalar(&self, out: &mut String, tag: &str, value: Option<&Value>, depth: usize) {
        let Some(value) = value else {
            out.push('<');
            out.push_str(tag);
            out.push_str(" xsi:nil=\"true\"/>");
            return;
        };
        if let Value::Instance(instance) = value {
            // Its own element's prefix must not be declared anew on it.
            let prefix = format!("p{depth}");
            let class = instance.class.as_str();
            let uri = self.naming.class_uri(class);
            open_typed(out, tag, &prefix, &uri, class);
            self.properties(out, &prefix, instance, depth + 1);
            return close(out, tag);
        }
        out.push('<');
        out.push_str(tag);
        out.push('>');
        match value {
            Value::DateTime(value) => time::datetime(out, value),
            Value::Reference(path) => self.reference(out, path),
            Value::Class(declared) => {
                let mut xml = String::new();
                class(&mut xml, declared);
                text(out, &xml);
            }
            Value::Real32(value) => text(out, &real(f64::from(*value), value.to_string())),
            Value::Real64(value) => text(out, &real(*value, value.to_string())),
            value => text(out, &key_text(value)),
        }
        close(out, tag);
    }

    /// Appends the content of an endpoint reference to an instance (DSP0226 §5.1.2).
    pub(crate) fn reference(&self, out: &mut String, path: &ObjectPath) {
        let naming = self.naming.within(path.namespace.as_deref());
        let address = match self.address {
            "" => ANONYMOUS,
            address => address,
        };
        element(out, "a:Address", address);
        out.push_str("<a:ReferenceParameters>");
        let uri = naming.class_uri(path.class.as_str());
        element(out, "w:ResourceURI", &uri);
        out.push_str("<w:SelectorSet>");
        let selector = "w:Selector";
        element_with(out, selector, "Name", NAMESPACE_SELECTOR, &naming.namespace);
        for (name, value) in &path.keys {
            match value {
                Value::Reference(inner) => {
                    out.push_str("<w:Selector");
                    attribute(out, "Name", name.as_str());
                    out.push_str("><a:EndpointReference>");
                    self.reference(out, inner);
                    out.push_str("</a:EndpointReference></w:Selector>");
                }
                value => element_with(out, selector, "Name", name.as_str(), &key_text(value)),
            }
        }
        out.push_str("</w:SelectorSet></a:ReferenceParameters>");
    }

    /// Appends a whole endpoint reference.
    pub(crate) fn endpoint(&self, out: &mut String, tag: &str, path: &ObjectPath) {
        out.push('<');
        out.push_str(tag);
        out.push('>');
        self.reference(out, path);
        close(out, tag);
    }
}

/// A number as XML Schema writes it, which has words of its own for what is none.
fn real(value: f64, text: String) -> String {
    match value {
        v if v.is_nan() => "NaN".into(),
        f64::INFINITY => "INF".into(),
        f64::NEG_INFINITY => "-INF".into(),
        _ => text,
    }
}
