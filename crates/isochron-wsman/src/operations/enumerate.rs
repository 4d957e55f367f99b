//! Enumerate, Pull and Release (DSP0226 §8, DSP0227 §9).
//!
//! A page ends where the client's MaxEnvelopeSize does; the item that did not fit is the
//! next page's first. A context belongs to the caller who opened it, in whichever
//! namespace: a Pull need not name the resource that Enumerate named.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use isochron_cim::{
    CimError, Class, DateTime, Instance, InstanceStream, ObjectPath, Page, RequestContext,
};

use super::{Answer, Operation, classes, filter, too_large};
use crate::names::{BINDING, ENUMERATION, WSMAN};
use crate::resource::{Resource, ResourceKind};
use crate::soap::{Fault, Kind, Node, close, duration_text, element, parse_duration};
use crate::values::{Encoder, fragment};

/// What of a reply is not items, at most, in bytes.
pub(super) const FRAME: usize = 3_000;

/// What the items of an enumeration are (DSP0226 §8.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Instances.
    Objects,
    /// Endpoint references.
    References,
    /// Both.
    ObjectsAndReferences,
}

/// How subclasses are seen (DSP0227 §9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Polymorphism {
    /// As what they are.
    IncludeSubClassProperties,
    /// As instances of the class that was asked for.
    ExcludeSubClassProperties,
    /// Not at all.
    None,
}

/// What an open enumeration consists of.
#[derive(Debug)]
pub(crate) struct Shape {
    mode: Mode,
    resource: Resource,
    /// Whether a query selected some properties alone.
    fragments: bool,
}

impl Shape {
    /// Of whole instances, and nothing else.
    pub(super) fn objects(resource: Resource) -> Self {
        Self {
            mode: Mode::Objects,
            resource,
            fragments: false,
        }
    }

    /// Appends an item.
    pub(super) fn item(&self, out: &mut String, address: &str, instance: &Instance) {
        let encoder = Encoder {
            naming: &self.resource.naming,
            address,
        };
        if self.resource.kind == ResourceKind::Classes {
            return classes::carried(out, instance);
        }
        let object = |out: &mut String| match self.fragments {
            true => fragment(out, &encoder, instance),
            false => encoder.instance(out, instance),
        };
        let reference = |out: &mut String| {
            if let Some(path) = &instance.path {
                let path = ObjectPath {
                    host: None,
                    ..path.clone()
                };
                encoder.endpoint(out, "a:EndpointReference", &path);
            }
        };
        match self.mode {
            Mode::Objects => object(out),
            Mode::References => reference(out),
            Mode::ObjectsAndReferences => {
                out.push_str("<w:Item>");
                object(out);
                reference(out);
                close(out, "w:Item");
            }
        }
    }
}

/// The items of a page, as far as they fit.
pub(super) struct Items<'a> {
    shape: Arc<Shape>,
    address: &'a str,
    pub(super) out: String,
    pub(super) most: usize,
}

impl Items<'_> {
    /// Appends an item; false, and nothing is appended, if it does not fit.
    pub(super) fn push(&mut self, instance: &Instance) -> bool {
        let before = self.out.len();
        self.shape.item(&mut self.out, self.address, instance);
        let fits = self.out.len() <= self.most;
        if !fits {
            self.out.truncate(before);
        }
        fits
    }
}

impl Operation {
    pub(super) async fn enumerate(&self) -> Result<Answer, Fault> {
        let resource = self.resource()?;
        let body = self.request.body(ENUMERATION, "Enumerate")?;
        let timeout = self.expiry(body)?;
        if body.child(ENUMERATION, "EndTo").is_some() {
            return Err(Fault::unsupported(
                "AddressingMode",
                "the end of an enumeration is not told to another address",
            ));
        }
        let mode = mode(body)?;
        let (found, fragments) = match resource.kind {
            ResourceKind::Classes => (self.classes(&resource).await?, false),
            ResourceKind::Instances => self.instances(&resource, body).await?,
        };
        let shape = Arc::new(Shape {
            mode,
            resource,
            fragments,
        });
        let optimized = body.child(WSMAN, "OptimizeEnumeration").is_some();
        let most = match optimized {
            true => max_elements(body, WSMAN)?,
            false => 0,
        };
        let mut items = self.items(shape.clone(), None);
        let push = |instance: &Instance| items.push(instance);
        let page = self
            .enumerations
            .open_fitting(&self.owner(), found, shape, timeout, most, push)
            .await?;
        let mut body_out = String::from("<n:EnumerateResponse>");
        if let Some(context) = &page.context {
            let expires = SystemTime::now() + timeout;
            self.expires(&mut body_out, body, timeout, expires);
            element(&mut body_out, "n:EnumerationContext", context);
        } else {
            body_out.push_str("<n:EnumerationContext/>");
        }
        if optimized {
            body_out.push_str("<w:Items>");
            body_out.push_str(&items.out);
            close(&mut body_out, "w:Items");
            if page.context.is_none() {
                body_out.push_str("<w:EndOfSequence/>");
            }
        }
        close(&mut body_out, "n:EnumerateResponse");
        Ok(self.counted(Answer::new(
            format!("{ENUMERATION}/EnumerateResponse"),
            body_out,
        )))
    }

    pub(super) async fn pull(&self) -> Result<Answer, Fault> {
        let body = self.request.body(ENUMERATION, "Pull")?;
        if let Some(events) = self.pull_events(body).await? {
            return Ok(events);
        }
        let context = context(body)?;
        if let Some(time) = body.child(ENUMERATION, "MaxTime") {
            crate::soap::duration("MaxTime", &time.text)?;
        }
        let most = max_elements(body, ENUMERATION)?;
        let characters = match body.child(ENUMERATION, "MaxCharacters") {
            None => None,
            Some(node) => Some(number("MaxCharacters", node)?),
        };
        let owner = self.owner();
        let shape = self.enumerations.kind(&owner, context)?;
        let mut items = self.items(shape, characters);
        let push = |instance: &Instance| items.push(instance);
        let page = self
            .enumerations
            .pull_fitting(&owner, context, |_| true, most, push)
            .await?;
        if let Page {
            context: Some(_), ..
        } = &page
            && page.instances.is_empty()
        {
            return Err(too_large(
                self.request.header.max_envelope.unwrap_or(items.most),
            ));
        }
        let mut out = String::from("<n:PullResponse>");
        if let Some(context) = &page.context {
            element(&mut out, "n:EnumerationContext", context);
        }
        out.push_str("<n:Items>");
        out.push_str(&items.out);
        close(&mut out, "n:Items");
        if page.context.is_none() {
            out.push_str("<n:EndOfSequence/>");
        }
        close(&mut out, "n:PullResponse");
        Ok(self.counted(Answer::new(format!("{ENUMERATION}/PullResponse"), out)))
    }

    pub(super) fn release(&self) -> Result<Answer, Fault> {
        let body = self.request.body(ENUMERATION, "Release")?;
        if !self.release_subscription(context(body)?) {
            self.enumerations.close(&self.owner(), context(body)?)?;
        }
        Ok(Answer::new(
            format!("{ENUMERATION}/ReleaseResponse"),
            String::new(),
        ))
    }

    /// What is enumerated, and whether it is parts of instances.
    async fn instances(
        &self,
        resource: &Resource,
        body: &Node,
    ) -> Result<(InstanceStream, bool), Fault> {
        let cx = self.context(resource)?;
        let selectors = &self.request.header.selectors;
        let namespace = crate::resource::NAMESPACE_SELECTOR;
        let mut selected = selectors.0.iter();
        if let Some(other) = selected.find(|s| !s.name.eq_ignore_ascii_case(namespace)) {
            // DSP0226 §8.2.1: what is enumerated is no instance.
            return Err(Fault::new(
                Kind::INVALID_SELECTORS,
                format!("{} selects an instance, and all are enumerated", other.name),
            )
            .detailed("UnexpectedSelectors"));
        }
        if let Some(filter) = filter::Filter::read(body)? {
            return filter.run(self, &cx, resource).await;
        }
        let name = resource.class()?;
        let class = self.decoder(&cx).class(name).await?;
        let found = self.server.enumerate_instances(&cx, &class.name).await?;
        Ok((polymorphic(found, class, polymorphism(body)?), false))
    }

    /// Who may pull: this caller, wherever.
    fn owner(&self) -> RequestContext {
        RequestContext {
            namespace: String::new(),
            principal: self.principal.clone(),
        }
    }

    pub(super) fn items(&self, shape: Arc<Shape>, characters: Option<usize>) -> Items<'_> {
        let envelope = self.request.header.max_envelope.unwrap_or(usize::MAX);
        let envelope = envelope.saturating_sub(FRAME);
        Items {
            shape,
            address: &self.address,
            out: String::new(),
            most: envelope.min(characters.unwrap_or(usize::MAX)),
        }
    }

    /// For how long what is enumerated stays unused (DSP0226 §8.2.1).
    fn expiry(&self, body: &Node) -> Result<Duration, Fault> {
        let Some(node) = body.child(ENUMERATION, "Expires") else {
            return Ok(self.enumerations.timeout(None)?);
        };
        let invalid = || {
            let reason = "Expires is neither a length of time nor a point in the future";
            Fault::new(Kind::INVALID_EXPIRATION, reason)
        };
        let asked = lasting(node.value()).ok_or_else(invalid)?;
        // Less may be granted than is asked for, and the reply says so.
        let seconds = asked.as_secs().max(1);
        match self.enumerations.timeout(Some(seconds)) {
            Ok(granted) => Ok(granted),
            Err(_) => Ok(self.enumerations.longest()),
        }
    }

    /// Says until when, in the words of who asked.
    fn expires(&self, out: &mut String, body: &Node, length: Duration, at: SystemTime) {
        let Some(node) = body.child(ENUMERATION, "Expires") else {
            return;
        };
        match parse_duration(node.value()) {
            Some(_) => element(out, "n:Expires", &duration_text(length)),
            None => {
                let at = humantime::format_rfc3339_seconds(at);
                element(out, "n:Expires", &at.to_string());
            }
        }
    }

    /// Answers the question how many there are, where it is asked: nobody knows
    /// (DSP0226 §8.2.2).
    fn counted(&self, mut answer: Answer) -> Answer {
        if self.request.header.wants_count {
            answer.headers = "<w:TotalItemsCountEstimate xsi:nil=\"true\"/>".into();
        }
        answer
    }
}

/// How long it is to what text says: a length of time or a point in the future.
pub(super) fn lasting(said: &str) -> Option<Duration> {
    if let Some(length) = parse_duration(said) {
        return (!length.is_zero()).then_some(length);
    }
    let at = humantime::parse_rfc3339_weak(said).ok().or_else(|| {
        let at: DateTime = said.parse().ok()?;
        at.as_offset_date_time().map(SystemTime::from)
    })?;
    at.duration_since(SystemTime::now()).ok()
}

pub(super) fn context(body: &Node) -> Result<&str, Fault> {
    let node = body.child(ENUMERATION, "EnumerationContext");
    let node = node.ok_or_else(|| Fault::schema("the EnumerationContext is missing"))?;
    Ok(node.value())
}

/// The most items; one where nothing is said (DSP0226 §8.4).
pub(super) fn max_elements(body: &Node, namespace: &str) -> Result<usize, Fault> {
    // Some put WS-Management's element where WS-Enumeration's belongs.
    let node = body
        .child(namespace, "MaxElements")
        .or_else(|| body.child_named("MaxElements"));
    match node {
        None => Ok(1),
        Some(node) => match number("MaxElements", node)? {
            0 => Err(Fault::schema("MaxElements is 0, and at least one is given")),
            most => Ok(most),
        },
    }
}

fn number(name: &str, node: &Node) -> Result<usize, Fault> {
    let number: u64 = node
        .value()
        .parse()
        .map_err(|_| Fault::schema(format!("{name} is no number")))?;
    Ok(usize::try_from(number).unwrap_or(usize::MAX))
}

fn mode(body: &Node) -> Result<Mode, Fault> {
    let node = body.child(WSMAN, "EnumerationMode");
    match node.map(Node::value) {
        None | Some("EnumerateObject") => Ok(Mode::Objects),
        Some("EnumerateEPR") => Ok(Mode::References),
        Some("EnumerateObjectAndEPR") => Ok(Mode::ObjectsAndReferences),
        // DSP0226 §8.7.
        Some(other) => Err(Fault::unsupported(
            "EnumerationMode",
            format!("there is no EnumerationMode {other:?}"),
        )),
    }
}

fn polymorphism(body: &Node) -> Result<Polymorphism, Fault> {
    match body.child(BINDING, "PolymorphismMode").map(Node::value) {
        None | Some("IncludeSubClassProperties") => Ok(Polymorphism::IncludeSubClassProperties),
        Some("ExcludeSubClassProperties") => Ok(Polymorphism::ExcludeSubClassProperties),
        Some("None") => Ok(Polymorphism::None),
        Some(other) => Err(Fault::new(
            Kind::POLYMORPHISM,
            format!("there is no PolymorphismMode {other:?}"),
        )),
    }
}

fn polymorphic(found: InstanceStream, class: Class, mode: Polymorphism) -> InstanceStream {
    use futures::StreamExt;
    use futures::stream::TryStreamExt;
    match mode {
        Polymorphism::IncludeSubClassProperties => found,
        Polymorphism::None => {
            let of_class = move |instance: &Instance| {
                let same = instance.class == class.name;
                std::future::ready(same)
            };
            found.try_filter(of_class).boxed()
        }
        Polymorphism::ExcludeSubClassProperties => {
            let seen = move |mut instance: Instance| {
                let properties = &mut instance.properties;
                properties.retain(|name, _| class.properties.contains_key(name));
                instance.class = class.name.clone();
                Ok::<_, CimError>(instance)
            };
            found.and_then(move |i| std::future::ready(seen(i))).boxed()
        }
    }
}
