//! Values from a request's elements, of the types that classes declare.
//!
//! What is sent as a reference may be an endpoint reference, a whole instance, or the
//! text of an object path; what is sent as an embedded instance may be an element with
//! the type of its class, or text, which stays text for who knows how to read it.

use std::collections::HashMap;

use futures::future::BoxFuture;
use indexmap::IndexMap;
use isochron_cim::{
    CimError, CimServer, CimType, Class, Embedded, Instance, Name, ObjectPath, Property,
    PropertyDecl, RequestContext, Status, TypedValue, Value,
};

use super::{selected_path, time};
use crate::names::{ADDRESSING, WSMAN};
use crate::resource::Resource;
use crate::soap::{Fault, Kind, Node, SelectorValue, Selectors};

/// Reads values in a namespace.
pub(crate) struct Decoder<'a> {
    /// Whose classes.
    pub server: &'a dyn CimServer,
    /// Who asks, and in which namespace.
    pub cx: &'a RequestContext,
}

impl Decoder<'_> {
    /// A class.
    ///
    /// # Errors
    /// `DestinationUnreachable` with `InvalidResourceURI` where there is none.
    pub(crate) async fn class(&self, name: &Name) -> Result<Class, Fault> {
        self.class_in(self.cx, name).await
    }

    async fn class_in(&self, cx: &RequestContext, name: &Name) -> Result<Class, Fault> {
        let found = self.server.get_class(cx, name).await;
        found.map_err(|error| match error.status {
            Status::NotFound => CimError::new(Status::InvalidClass, error.message).into(),
            _ => Fault::from(error),
        })
    }

    /// The instance of a class that selectors name.
    pub(crate) async fn path(
        &self,
        class: &Class,
        selectors: &Selectors,
    ) -> Result<ObjectPath, Fault> {
        let mut references = HashMap::new();
        for selector in &selectors.0 {
            if let SelectorValue::Reference(node) = &selector.value {
                let path = self.reference(node).await?;
                references.insert(Name::from(selector.name.as_str()), path);
            }
        }
        let mut reference = |name: &Name| {
            let text = || selectors.text(name.as_str())?.parse().ok();
            let named = references.remove(name).or_else(text);
            named.filter(|path: &ObjectPath| !path.keys.is_empty())
        };
        Ok(ObjectPath {
            host: None,
            namespace: Some(self.cx.namespace.clone()),
            class: class.name.clone(),
            keys: selected_path(class, selectors, &mut reference)?,
        })
    }

    /// The instance that an endpoint reference names: an element with an address and
    /// `ReferenceParameters`, or one that holds such an element.
    pub(crate) fn reference<'b>(
        &'b self,
        node: &'b Node,
    ) -> BoxFuture<'b, Result<ObjectPath, Fault>> {
        Box::pin(async move {
            let node = node.child(ADDRESSING, "EndpointReference").unwrap_or(node);
            let parameters = ["ReferenceParameters", "ReferenceProperties"];
            let mut parameters = parameters.iter().filter_map(|n| node.child(ADDRESSING, n));
            let parameters = parameters
                .next()
                .ok_or_else(|| not_a_reference(&node.name, "it has no ReferenceParameters"))?;
            let uri = parameters.child(WSMAN, "ResourceURI");
            let uri = uri.ok_or_else(|| not_a_reference(&node.name, "it has no ResourceURI"))?;
            let set = parameters.child(WSMAN, "SelectorSet");
            let selectors = set.map(Selectors::read).transpose()?.unwrap_or_default();
            let resource = Resource::read(uri.value(), &selectors)?;
            let named = selectors
                .text(crate::resource::NAMESPACE_SELECTOR)
                .is_some();
            let wmi = uri.value().to_ascii_lowercase().contains("/wsman/1/wmi/");
            // A reference that names no namespace is to what is in this one.
            let namespace = match named || wmi {
                true => resource.naming.namespace.clone(),
                false => self.cx.namespace.clone(),
            };
            let cx = RequestContext {
                namespace,
                principal: self.cx.principal.clone(),
            };
            let there = Decoder {
                server: self.server,
                cx: &cx,
            };
            let class = there.class(resource.class()?).await?;
            there.path(&class, &selectors).await
        })
    }

    /// The value of a parameter or a property, from the elements of its name.
    pub(crate) fn value<'b>(
        &'b self,
        ty: &'b CimType,
        is_array: bool,
        nodes: &'b [&'b Node],
    ) -> BoxFuture<'b, Result<TypedValue, Fault>> {
        Box::pin(async move {
            let value = match (is_array, nodes) {
                (_, []) => None,
                (true, [one]) if one.is_nil() => None,
                (true, nodes) => {
                    let mut items = Vec::with_capacity(nodes.len());
                    for node in nodes {
                        items.push(self.scalar(ty, node).await?);
                    }
                    Some(Value::Array(items))
                }
                (false, [one]) => self.scalar(ty, one).await?,
                (false, [one, ..]) => {
                    return Err(wrong(&one.name, "it is there more than once"));
                }
            };
            Ok(TypedValue {
                ty: ty.clone(),
                is_array,
                value,
            })
        })
    }

    async fn scalar(&self, ty: &CimType, node: &Node) -> Result<Option<Value>, Fault> {
        if node.is_nil() {
            return Ok(None);
        }
        let mismatch = || wrong(&node.name, &format!("it is no {} value", ty.name()));
        Ok(Some(match ty {
            CimType::Reference(_) => Value::from(self.target(node).await?),
            CimType::DateTime => time::parse(node).map(Value::from).ok_or_else(mismatch)?,
            CimType::String if !node.children.is_empty() => Value::from(self.embedded(node).await?),
            CimType::Boolean if node.value() == "1" => Value::Boolean(true),
            CimType::Boolean if node.value() == "0" => Value::Boolean(false),
            _ if !node.children.is_empty() => return Err(mismatch()),
            ty => ty.parse(&node.text).map_err(|_| mismatch())?,
        }))
    }

    /// What a reference's element names, in whichever way.
    async fn target(&self, node: &Node) -> Result<ObjectPath, Fault> {
        if node.children.is_empty() {
            let text = node.value();
            let mut path: ObjectPath =
                text.parse()
                    .map_err(|error: isochron_cim::ParsePathError| {
                        wrong(&node.name, &error.to_string())
                    })?;
            path.namespace
                .get_or_insert_with(|| self.cx.namespace.clone());
            return Ok(path);
        }
        if node
            .children
            .iter()
            .any(|child| *child.namespace == *ADDRESSING)
        {
            return self.reference(node).await;
        }
        // A whole instance: its keys are its name.
        let instance = self.embedded(node).await?;
        let class = self.class(&instance.class).await?;
        let mut keys = IndexMap::new();
        for name in class.keys() {
            let Some(value) = instance.get(name.as_str()) else {
                return Err(wrong(&node.name, &format!("its key {name} is missing")));
            };
            keys.insert(name.clone(), value.clone());
        }
        Ok(ObjectPath {
            host: None,
            namespace: Some(self.cx.namespace.clone()),
            class: class.name,
            keys,
        })
    }

    /// An embedded instance: the element has the type of its class, or holds one
    /// element that is named after it.
    async fn embedded(&self, node: &Node) -> Result<Instance, Fault> {
        let (node, class) = match (node.class_type(), &*node.children) {
            (Some(class), _) => (node, class),
            (None, [one]) if !one.children.is_empty() || one.class_type().is_some() => {
                (one, one.class_type().unwrap_or(&one.name))
            }
            _ => {
                return Err(wrong(
                    &node.name,
                    "its content does not say of which class it is",
                ));
            }
        };
        let class = self.class(&Name::from(class)).await?;
        self.instance(&class, node, false).await
    }

    /// An instance of a class from its element. Properties that the class lacks are
    /// passed over unless this is `strict`.
    pub(crate) async fn instance(
        &self,
        class: &Class,
        node: &Node,
        strict: bool,
    ) -> Result<Instance, Fault> {
        let mut instance = Instance::new(class.name.clone());
        let mut given: IndexMap<Name, Vec<&Node>> = IndexMap::new();
        for child in &node.children {
            given
                .entry(Name::from(child.name.as_str()))
                .or_default()
                .push(child);
        }
        for (name, nodes) in &given {
            let Some((name, declared)) = class.properties.get_key_value(name) else {
                if strict {
                    return Err(Fault::new(
                        Kind::INVALID_REPRESENTATION,
                        format!("{} has no property {name}", class.name),
                    )
                    .detailed("InvalidValues"));
                }
                continue;
            };
            let TypedValue { ty, is_array, .. } = &declared.value;
            let value = self.value(ty, *is_array, nodes).await;
            let value = value.map_err(|fault| match strict {
                true => {
                    Fault::new(Kind::INVALID_REPRESENTATION, fault.reason).detailed("InvalidValues")
                }
                false => fault,
            })?;
            let property = Property {
                embedded: embedded(declared),
                value,
                class_origin: None,
            };
            instance.properties.insert(name.clone(), property);
        }
        Ok(instance)
    }
}

/// What a property's qualifiers say of the text in it.
fn embedded(declared: &PropertyDecl) -> Option<Embedded> {
    let qualifier = |name: &'static str| {
        let found = declared.qualifiers.get(&Name::fixed(name))?;
        found.value.value.as_ref()
    };
    if let Some(class) = qualifier("EmbeddedInstance").and_then(Value::as_str) {
        return Some(Embedded::Instance(class.into()));
    }
    let object = qualifier("EmbeddedObject").and_then(Value::as_bool);
    (object == Some(true)).then_some(Embedded::Object)
}

fn wrong(name: &str, why: &str) -> Fault {
    let reason = format!("{name} cannot be read: {why}");
    Fault::new(Kind::INVALID_PARAMETER, reason).detailed("TypeMismatch")
}

fn not_a_reference(name: &str, why: &str) -> Fault {
    let reason = format!("{name} is no endpoint reference: {why}");
    Fault::new(Kind::INVALID_PARAMETER, reason).detailed("InvalidValue")
}
