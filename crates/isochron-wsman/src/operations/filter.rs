//! Filters of enumerations: queries in WQL and CQL, selectors, and associations
//! (DSP0226 §8.3, DSP0227 §8).

use futures::stream::{StreamExt, TryStreamExt};
use isochron_cim::query::Query;
use isochron_cim::{
    AssociationFilter, Class, Instance, InstanceStream, Name, RequestContext, Value,
};

use super::Operation;
use crate::names::{BINDING, ENUMERATION, EVENTING, WSMAN, dialect};
use crate::resource::Resource;
use crate::soap::{Fault, Kind, Node, SelectorValue, Selectors};

/// A filter.
pub(super) enum Filter<'a> {
    /// A query, in a language by its name.
    Query(&'static str, &'a str),
    /// Instances whose properties have these values.
    Selectors(Selectors),
    /// What associations lead to from an instance, or the associations themselves.
    Associations(&'a Node),
}

impl<'a> Filter<'a> {
    /// The filter of an Enumerate or a Subscribe, if it has one.
    ///
    /// # Errors
    /// `FilterDialectRequestedUnavailable`, `CannotProcessFilter`.
    pub(super) fn read(body: &'a Node) -> Result<Option<Self>, Fault> {
        let node = body
            .child(WSMAN, "Filter")
            .or_else(|| body.child(ENUMERATION, "Filter"))
            .or_else(|| body.child(EVENTING, "Filter"));
        let Some(node) = node else { return Ok(None) };
        // Without a dialect it is XPath (DSP0226 §8.3), which is not here.
        let said = node.attribute("Dialect").unwrap_or("XPath").trim();
        let is = |known: &str| said.eq_ignore_ascii_case(known);
        if is(dialect::WQL) {
            return Ok(Some(Self::Query("WQL", query(node)?)));
        }
        if is(dialect::CQL) || is("http://schemas.dmtf.org/wbem/cql/1") {
            return Ok(Some(Self::Query("DMTF:CQL", query(node)?)));
        }
        if is(dialect::SELECTORS) || is(dialect::SELECTORS_OTHER) {
            return match single(node)? {
                set if set.is(WSMAN, "SelectorSet") => {
                    Ok(Some(Self::Selectors(Selectors::read(set)?)))
                }
                _ => Err(unusable("it has no SelectorSet")),
            };
        }
        if is(dialect::ASSOCIATIONS) {
            return Ok(Some(Self::Associations(single(node)?)));
        }
        Err(Fault::new(
            Kind::FILTER_DIALECT,
            format!(
                "there is no filter dialect {said:?}; there are {}, {}, {} and {}",
                dialect::WQL,
                dialect::CQL,
                dialect::SELECTORS,
                dialect::ASSOCIATIONS
            ),
        ))
    }

    /// What it lets through of a resource, and whether that is parts of instances.
    pub(super) async fn run(
        self,
        operation: &Operation,
        cx: &RequestContext,
        resource: &Resource,
    ) -> Result<(InstanceStream, bool), Fault> {
        match self {
            Self::Query(language, text) => {
                let query = Query::parse(language, text)?;
                if query.asks_for_classes() {
                    return Err(unusable(
                        "it asks for classes, and instances are enumerated",
                    ));
                }
                let parts = matches!(&query, Query::Select(select) if select.columns.is_some());
                Ok((query.run(operation.server.clone(), cx).await?, parts))
            }
            Self::Selectors(selectors) => {
                let class = operation.decoder(cx).class(resource.class()?).await?;
                let wanted = wanted(operation, cx, &class, &selectors).await?;
                let found = operation
                    .server
                    .enumerate_instances(cx, &class.name)
                    .await?;
                let matching = move |instance: &Instance| {
                    let has = |(name, value): &(Name, Value)| {
                        instance.get(name.as_str()).is_some_and(|v| same(v, value))
                    };
                    std::future::ready(wanted.iter().all(has))
                };
                Ok((found.try_filter(matching).boxed(), false))
            }
            Self::Associations(walk) => {
                let found = associations(operation, cx, walk).await?;
                Ok((found, properties(walk).is_some()))
            }
        }
    }
}

/// A filter's text, in which no elements stand (DSP0226 R8.2.1-3).
fn query(node: &Node) -> Result<&str, Fault> {
    match node.children.is_empty() {
        true => Ok(node.value()),
        false => Err(unusable("elements stand in the query")),
    }
}

/// A filter's only element, beside which no text stands (DSP0226 R8.2.1-3).
fn single(node: &Node) -> Result<&Node, Fault> {
    match (&*node.children, node.value()) {
        ([one], "") => Ok(one),
        _ => Err(unusable("it is not one element")),
    }
}

/// The values that a selector filter asks for, of the types of their properties.
async fn wanted(
    operation: &Operation,
    cx: &RequestContext,
    class: &Class,
    selectors: &Selectors,
) -> Result<Vec<(Name, Value)>, Fault> {
    let mut wanted = Vec::new();
    for selector in &selectors.0 {
        let name = Name::from(selector.name.as_str());
        if name.is(crate::resource::NAMESPACE_SELECTOR) {
            continue;
        }
        let Some(declared) = class.properties.get(&name) else {
            return Err(unusable(&format!("{} has no property {name}", class.name)));
        };
        let value = match &selector.value {
            SelectorValue::Reference(node) => {
                Some(Value::from(operation.decoder(cx).reference(node).await?))
            }
            SelectorValue::Text(text) => declared.value.ty.parse(text).ok(),
        };
        let wrong = || unusable(&format!("{name} cannot have that value"));
        wanted.push((name.clone(), value.ok_or_else(wrong)?));
    }
    Ok(wanted)
}

/// Whether a property's value is the one asked for. Text is compared as WQL does.
fn same(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::String(found), Value::String(wanted)) => found.eq_ignore_ascii_case(wanted),
        (Value::Reference(found), Value::Reference(wanted)) => {
            found.relative() == wanted.relative()
        }
        (found, wanted) => found == wanted,
    }
}

/// What a walk leads to: `AssociatedInstances` to objects, `AssociationInstances` to the
/// associations (DSP0227 §8.2).
async fn associations(
    operation: &Operation,
    cx: &RequestContext,
    walk: &Node,
) -> Result<InstanceStream, Fault> {
    let object = walk.child(BINDING, "Object");
    let object = object.ok_or_else(|| unusable("it names no Object to start from"))?;
    let source = operation.decoder(cx).reference(object).await?;
    let name = |tag: &str| {
        let text = walk.child(BINDING, tag).map(Node::value);
        text.filter(|text| !text.is_empty()).map(Name::from)
    };
    let result = name("ResultClassName");
    let found = if walk.is(BINDING, "AssociatedInstances") {
        let filter = AssociationFilter {
            association: name("AssociationClassName"),
            result_class: result,
            role: name("Role"),
            result_role: name("ResultRole"),
        };
        operation.server.associators(cx, &source, &filter).await?
    } else if walk.is(BINDING, "AssociationInstances") {
        let filter = AssociationFilter {
            association: result,
            role: name("Role"),
            ..AssociationFilter::default()
        };
        operation.server.references(cx, &source, &filter).await?
    } else {
        return Err(unusable(&format!(
            "{} is no walk along associations",
            walk.name
        )));
    };
    let Some(wanted) = properties(walk) else {
        return Ok(found);
    };
    let seen = move |mut instance: Instance| {
        instance.properties.retain(|name, _| wanted.contains(name));
        instance
    };
    Ok(found.map_ok(seen).boxed())
}

/// The properties that alone are asked for (`IncludeResultProperty`).
fn properties(walk: &Node) -> Option<Vec<Name>> {
    let named = walk.children.iter();
    let named = named.filter(|child| child.is(BINDING, "IncludeResultProperty"));
    let names: Vec<Name> = named.map(|child| child.value().into()).collect();
    (!names.is_empty()).then_some(names)
}

fn unusable(why: &str) -> Fault {
    let reason = format!("the filter cannot be used: {why}");
    Fault::new(Kind::CANNOT_PROCESS_FILTER, reason)
}
