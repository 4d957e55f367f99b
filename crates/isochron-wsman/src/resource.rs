//! Resource URIs, in both families: the DMTF's, where a selector names the namespace
//! (DSP0227 §6), and Microsoft's, where the URI does (MS-WSMV §3.1.4.1.1).

use isochron_cim::Name;

use crate::names::{ALL_CLASSES, CIM_SCHEMA, CIM_XML, WMI};
use crate::soap::{Fault, Kind, Selectors};

/// The selector that names the namespace.
pub(crate) const NAMESPACE_SELECTOR: &str = "__cimnamespace";

/// The namespace where neither the URI nor a selector names one.
pub(crate) const DEFAULT_NAMESPACE: &str = "root/cimv2";

/// What a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Instances, or the declarations of classes.
    pub kind: ResourceKind,
    /// How its classes are named.
    pub naming: Naming,
    /// The class; `None` for all (`*`).
    pub class: Option<Name>,
}

/// Of what there is a representation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceKind {
    /// Instances.
    Instances,
    /// Classes, as CIM-XML declares them.
    Classes,
}

/// How classes and instances are named in a request and its reply: as the client does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// What the class's name follows in URIs, behind a slash.
    prefix: String,
    /// The namespace.
    pub namespace: String,
    /// Whether the URI names the namespace.
    in_uri: bool,
}

impl Naming {
    /// The URI of a class of this namespace, which is also the XML namespace of its
    /// elements (DSP0230 §9).
    pub fn class_uri(&self, class: &str) -> String {
        format!("{}/{class}", self.prefix)
    }

    /// The same way to name, in another namespace.
    #[must_use]
    pub fn within(&self, namespace: Option<&str>) -> Self {
        let Some(namespace) = namespace.filter(|other| !same(other, &self.namespace)) else {
            return self.clone();
        };
        let prefix = match self.in_uri {
            true => format!("{WMI}/{namespace}"),
            false => self.prefix.clone(),
        };
        Self {
            prefix,
            namespace: namespace.to_owned(),
            in_uri: self.in_uri,
        }
    }
}

fn same(a: &str, b: &str) -> bool {
    normal(a).eq_ignore_ascii_case(&normal(b))
}

/// A namespace with slashes, none at its ends.
fn normal(namespace: &str) -> String {
    namespace
        .trim()
        .replace('\\', "/")
        .trim_matches('/')
        .to_owned()
}

/// The rest of the URI behind this beginning, in any case.
fn behind<'a>(uri: &'a str, beginning: &str) -> Option<&'a str> {
    let start = uri.get(..beginning.len())?;
    start
        .eq_ignore_ascii_case(beginning)
        .then(|| &uri[beginning.len()..])
}

impl Resource {
    /// Reads a resource's URI, with the selectors that come with it.
    ///
    /// # Errors
    /// `DestinationUnreachable` with `InvalidResourceURI`; `InvalidSelectors` where the
    /// URI and a selector name different namespaces.
    pub fn read(uri: &str, selectors: &Selectors) -> Result<Self, Fault> {
        let uri = uri.trim();
        let invalid = || {
            let start: String = uri.chars().take(200).collect();
            Fault::new(
                Kind::DESTINATION_UNREACHABLE,
                format!("{start:?} is the URI of no resource here"),
            )
            .detailed("InvalidResourceURI")
        };
        let selected = selectors.text(NAMESPACE_SELECTOR).map(normal);
        let selected = selected.filter(|namespace| !namespace.is_empty());
        let by_selector = |prefix: String| Naming {
            prefix,
            namespace: selected.clone().unwrap_or(DEFAULT_NAMESPACE.to_owned()),
            in_uri: false,
        };
        let (kind, naming, class) = if let Some(rest) = behind(uri, WMI) {
            let rest = normal(rest);
            let (namespace, class) = rest.rsplit_once('/').ok_or_else(invalid)?;
            if selected
                .as_deref()
                .is_some_and(|other| !same(other, namespace))
            {
                return Err(Fault::new(
                    Kind::INVALID_SELECTORS,
                    format!("the URI names another namespace than {NAMESPACE_SELECTOR}"),
                )
                .detailed("InvalidValue"));
            }
            let end = uri.len() - class.len();
            let naming = Naming {
                prefix: uri[..end].trim_end_matches(['/', '\\']).to_owned(),
                namespace: namespace.to_owned(),
                in_uri: true,
            };
            (ResourceKind::Instances, naming, class.to_owned())
        } else if let Some(class) = behind(uri, CIM_XML).and_then(|rest| rest.strip_prefix('/')) {
            let naming = by_selector(CIM_SCHEMA.to_owned());
            (ResourceKind::Classes, naming, class.to_owned())
        } else if uri.eq_ignore_ascii_case(ALL_CLASSES) {
            let naming = by_selector(CIM_SCHEMA.to_owned());
            (ResourceKind::Instances, naming, "*".to_owned())
        } else {
            // Other organizations than the DMTF put their host before the same path.
            let (prefix, class) = uri.rsplit_once('/').ok_or_else(invalid)?;
            let ends = prefix.to_ascii_lowercase();
            if !ends.ends_with("/wbem/wscim/1/cim-schema/2") || !ends.starts_with("http://") {
                return Err(invalid());
            }
            let naming = by_selector(prefix.to_owned());
            (ResourceKind::Instances, naming, class.to_owned())
        };
        let is_name = |c: char| c == '_' || c.is_alphanumeric();
        let class = match class.as_str() {
            "*" => None,
            name if !name.is_empty() && name.chars().all(is_name) => Some(Name::from(name)),
            _ => return Err(invalid()),
        };
        Ok(Self {
            kind,
            naming,
            class,
        })
    }

    /// The class.
    ///
    /// # Errors
    /// `ActionNotSupported`: the URI is that of all classes (DSP0227 §7).
    pub fn class(&self) -> Result<&Name, Fault> {
        self.class.as_ref().ok_or_else(|| {
            Fault::new(
                Kind::ACTION_NOT_SUPPORTED,
                "the resource's URI is that of all classes, and one is needed here",
            )
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]
mod tests {
    use super::*;
    use crate::soap::{Selector, SelectorValue};

    fn selecting(namespace: Option<&str>) -> Selectors {
        let selector = |text: &str| Selector {
            name: "__CIMNamespace".into(),
            value: SelectorValue::Text(text.into()),
        };
        Selectors(namespace.map(selector).into_iter().collect())
    }

    #[test]
    fn both_families_are_read() {
        let dmtf = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2";
        let wmi = "http://schemas.microsoft.com/wbem/wsman/1/wmi";
        for (uri, selector, namespace, class, class_uri) in [
            (
                format!("{dmtf}/A_B"),
                Some(r"\root\x"),
                "root/x",
                Some("A_B"),
                format!("{dmtf}/C"),
            ),
            (
                format!("{dmtf}/A_B"),
                None,
                "root/cimv2",
                Some("A_B"),
                format!("{dmtf}/C"),
            ),
            (
                "http://schemas.dmtf.org/wbem/wscim/1/*".into(),
                Some("root/x"),
                "root/x",
                None,
                format!("{dmtf}/C"),
            ),
            (
                "http://example.org/wbem/wscim/1/cim-schema/2/EX_A".into(),
                Some("root/x"),
                "root/x",
                Some("EX_A"),
                "http://example.org/wbem/wscim/1/cim-schema/2/C".into(),
            ),
            (
                format!("{wmi}/root/x/v2/A_B"),
                None,
                "root/x/v2",
                Some("A_B"),
                format!("{wmi}/root/x/v2/C"),
            ),
            (
                format!(r"{wmi}\ROOT\X\*"),
                Some("root/x"),
                "ROOT/X",
                None,
                format!(r"{wmi}\ROOT\X/C"),
            ),
            (
                "HTTP://Schemas.Microsoft.com/WBEM/WSMAN/1/WMI/root/x/A".into(),
                None,
                "root/x",
                Some("A"),
                "HTTP://Schemas.Microsoft.com/WBEM/WSMAN/1/WMI/root/x/C".into(),
            ),
        ] {
            let read = Resource::read(&uri, &selecting(selector)).unwrap();
            assert_eq!(read.kind, ResourceKind::Instances, "{uri}");
            assert_eq!(read.naming.namespace, namespace, "{uri}");
            assert_eq!(read.class.as_ref().map(Name::as_str), class, "{uri}");
            assert_eq!(read.naming.class_uri("C"), class_uri, "{uri}");
        }
        let classes = "http://schemas.dmtf.org/wbem/cim-xml/2/cim-schema/2/*";
        let read = Resource::read(classes, &selecting(Some("a/b"))).unwrap();
        assert_eq!((read.kind, read.class), (ResourceKind::Classes, None));
    }

    #[test]
    fn other_uris_are_no_resources() {
        for uri in [
            "",
            "A_B",
            "http://schemas.microsoft.com/wbem/wsman/1/wmi",
            "http://schemas.microsoft.com/wbem/wsman/1/wmi/A_B",
            "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/x/A-B",
            "http://schemas.microsoft.com/wbem/wsman/1/config",
            "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/",
            "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2",
            "ftp://x/wbem/wscim/1/cim-schema/2/A",
        ] {
            let fault = Resource::read(uri, &selecting(None)).unwrap_err();
            assert_eq!(fault.kind, Kind::DESTINATION_UNREACHABLE, "{uri}");
        }
        let uri = "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/x/A";
        let fault = Resource::read(uri, &selecting(Some("root/y"))).unwrap_err();
        assert_eq!(fault.kind, Kind::INVALID_SELECTORS);
    }

    #[test]
    fn what_is_elsewhere_is_named_there() {
        let uri = format!("{WMI}/Root/X/A");
        let naming = Resource::read(&uri, &selecting(None)).unwrap().naming;
        let class_uri = |namespace| naming.within(namespace).class_uri("C");
        assert_eq!(class_uri(None), format!("{WMI}/Root/X/C"));
        assert_eq!(class_uri(Some(r"root\x")), format!("{WMI}/Root/X/C"));
        assert_eq!(class_uri(Some("root/y")), format!("{WMI}/root/y/C"));
    }
}
