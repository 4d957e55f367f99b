//! WS-Management's operations over a [`CimServer`] (DSP0226 and its CIM binding,
//! DSP0227).

mod classes;
mod enumerate;
mod eventing;
mod filter;
mod identify;
mod invoke;
mod transfer;

use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use isochron_cim::{
    CimError, CimServer, Class, EnumerationLimits, Enumerations, Instance, ObjectPath, Principal,
    RequestContext, Status,
};
use isochron_net::Authenticator;
use isochron_net::outgoing::Outgoing;

use crate::http::Config;
use crate::names::{ENUMERATION, EVENTING, TRANSFER};
use crate::resource::{Resource, ResourceKind};
use crate::soap::{Fault, Kind, Request, Selector, SelectorValue, close_envelope, open_envelope};
use crate::values::{Decoder, Encoder};

use enumerate::Shape;
use eventing::Subscriptions;
pub(crate) use identify::{asks_to_identify, identified};

/// What carries out operations: a server, and what is open at it.
#[derive(Clone)]
pub struct Operations {
    server: Arc<dyn CimServer>,
    enumerations: Arc<Enumerations<Arc<Shape>>>,
    subscriptions: Arc<Subscriptions>,
    limits: EnumerationLimits,
    /// The longest that an operation is waited for.
    patience: Duration,
    /// Where events are delivered to.
    outgoing: Outgoing,
    authenticator: Arc<dyn Authenticator>,
}

/// One operation on its way.
pub(crate) struct Operation {
    server: Arc<dyn CimServer>,
    enumerations: Arc<Enumerations<Arc<Shape>>>,
    subscriptions: Arc<Subscriptions>,
    limits: EnumerationLimits,
    outgoing: Outgoing,
    authenticator: Arc<dyn Authenticator>,
    principal: Principal,
    request: Request,
    /// Where this server is, as its client sees it.
    address: String,
}

/// A reply: its action, and what is in its body.
pub(crate) struct Answer {
    action: String,
    body: String,
    /// Headers beside the usual ones.
    headers: String,
}

impl Answer {
    fn new(action: impl Into<String>, body: String) -> Self {
        Self {
            action: action.into(),
            body,
            headers: String::new(),
        }
    }
}

impl Operations {
    /// On this server, with nothing open yet.
    pub fn new(server: Arc<dyn CimServer>, config: &Config) -> Self {
        let limits = config.enumerations;
        Self {
            server,
            enumerations: Arc::new(Enumerations::new(limits)),
            subscriptions: Arc::default(),
            limits,
            patience: config.operation_timeout,
            outgoing: config.outgoing.clone(),
            authenticator: config.authenticator.clone(),
        }
    }

    /// Lets go of what nobody has used for its timeout.
    pub fn expire(&self) {
        self.enumerations.expire(Instant::now());
        self.subscriptions.expire(Instant::now());
    }

    /// Ends what is open beside requests, and tells those who asked for that.
    pub async fn shut_down(&self) {
        self.subscriptions.shut_down().await;
    }

    /// Carries out a request for a caller; the reply's envelope. `address` is where
    /// this server is, as the client sees it.
    ///
    /// An operation that takes longer than its client waits goes on; but for a Pull, which
    /// would take what nobody reads.
    ///
    /// # Errors
    /// The fault that is the reply.
    pub async fn answer(
        &self,
        principal: Principal,
        request: Request,
        address: String,
    ) -> Result<String, Fault> {
        let header = &request.header;
        let relates_to = match (&header.message_id, header.action.is_empty()) {
            (Some(id), false) => id.clone(),
            // As one that is empty (DSP0226 §5.4.4, MS-WSMV §3.1.4.1.5).
            (None, _) => return Err(missing(Kind::INVALID_HEADER, "wsa:MessageID")),
            (_, true) => return Err(missing(Kind::HEADER_REQUIRED, "wsa:Action")),
        };
        let patience = header
            .timeout
            .map_or(self.patience, |t| t.min(self.patience));
        // Who says nothing gets what there is: DSP0226 R13.1-3 advises 32,767 bytes, MS-WSMV
        // §3.1.4.1.7 hundreds of thousands.
        let most = header.max_envelope.unwrap_or(usize::MAX);
        let reads =
            header.action == format!("{TRANSFER}/Get") || header.action.starts_with(ENUMERATION);
        let operation = Operation {
            server: self.server.clone(),
            enumerations: self.enumerations.clone(),
            subscriptions: self.subscriptions.clone(),
            limits: self.limits,
            outgoing: self.outgoing.clone(),
            authenticator: self.authenticator.clone(),
            principal,
            request,
            address,
        };
        let answer = async {
            if operation.request.header.action == format!("{ENUMERATION}/Pull") {
                return operation.run().await;
            }
            let running = tokio::spawn(async move { operation.run().await });
            running.await.unwrap_or_else(|panicked| {
                tracing::error!(%panicked, "an operation failed inside the server");
                Err(Fault::new(
                    Kind::INTERNAL_ERROR,
                    "the operation failed inside the server; its log says more",
                ))
            })
        };
        let answer = match tokio::time::timeout(patience, answer).await {
            Ok(answer) => answer?,
            Err(_) => {
                return Err(Fault::new(
                    Kind::TIMED_OUT,
                    format!(
                        "the operation did not end within {} s, and this reply does not wait",
                        patience.as_secs_f64()
                    ),
                ));
            }
        };
        let mut out = String::with_capacity(answer.body.len() + 2048);
        open_envelope(&mut out, &answer.action, Some(&relates_to), |header| {
            header.push_str(&answer.headers);
        });
        out.push_str(&answer.body);
        close_envelope(&mut out);
        if out.len() > most {
            let mut fault = too_large(most);
            if !reads {
                // DSP0226 R6.2-2.
                fault = fault.detailed("UnreportableSuccess");
                fault.reason.push_str("; the operation was carried out");
            }
            return Err(fault);
        }
        Ok(out)
    }
}

/// The reply does not fit where the client wants it to (DSP0226 §6.2).
fn too_large(most: usize) -> Fault {
    let reason = format!("the reply is larger than MaxEnvelopeSize, {most} bytes");
    Fault::new(Kind::ENCODING_LIMIT, reason).detailed("MaxEnvelopeSizeExceeded")
}

fn missing(kind: Kind, header: &str) -> Fault {
    Fault::new(kind, format!("the header {header} is missing"))
}

impl Operation {
    async fn run(&self) -> Result<Answer, Fault> {
        self.check_options()?;
        let action = self.request.header.action.as_str();
        let step = |of: &str| {
            let rest = action.strip_prefix(of)?;
            rest.strip_prefix('/').map(str::to_owned)
        };
        if let Some(verb) = step(TRANSFER) {
            return match (verb.as_str(), self.resource()?.kind) {
                ("Get", ResourceKind::Classes) => self.get_class().await,
                ("Get", _) => self.get().await,
                ("Put", ResourceKind::Instances) => self.put().await,
                ("Create", ResourceKind::Instances) => self.create().await,
                ("Delete", ResourceKind::Instances) => self.delete().await,
                _ => Err(not_there(action)),
            };
        }
        if let Some(verb) = step(ENUMERATION) {
            return match verb.as_str() {
                "Enumerate" => self.enumerate().await,
                "Pull" => self.pull().await,
                "Release" => self.release(),
                _ => Err(not_there(action)),
            };
        }
        if let Some(verb) = step(EVENTING) {
            return match verb.as_str() {
                "Subscribe" => self.subscribe().await,
                "Renew" => self.renew(),
                "GetStatus" => self.subscription_status(),
                "Unsubscribe" => self.unsubscribe(),
                _ => Err(not_there(action)),
            };
        }
        self.invoke().await
    }

    /// No option is known here, so none can be complied with (DSP0226 §6.4); MI's
    /// own are for its other end.
    fn check_options(&self) -> Result<(), Fault> {
        let mut options = self.request.header.options.iter();
        let unknown = options.find(|option| {
            let known = ["wmi:", "wmiarray:", "msftwinrm:", "Include", "__MI_"];
            option.must_comply && !known.iter().any(|start| option.name.starts_with(start))
        });
        match unknown {
            None => Ok(()),
            Some(option) => Err(Fault::new(
                Kind::INVALID_OPTIONS,
                format!("the option {} is not known", option.name),
            )
            .detailed("NotSupported")),
        }
    }

    fn resource(&self) -> Result<Resource, Fault> {
        let header = &self.request.header;
        Resource::read(header.resource()?, &header.selectors)
    }

    /// The context of an operation on a resource, whose namespace has to be there.
    fn context(&self, resource: &Resource) -> Result<RequestContext, Fault> {
        let namespace = &resource.naming.namespace;
        let same = |ours: &String| ours.trim_matches('/').eq_ignore_ascii_case(namespace);
        if !self.server.namespaces().iter().any(same) {
            return Err(CimError::new(
                Status::InvalidNamespace,
                format!("there is no namespace {namespace} on this server"),
            )
            .into());
        }
        Ok(RequestContext {
            namespace: namespace.clone(),
            principal: self.principal.clone(),
        })
    }

    fn encoder<'a>(&'a self, resource: &'a Resource) -> Encoder<'a> {
        Encoder {
            naming: &resource.naming,
            address: &self.address,
        }
    }

    fn decoder<'a>(&'a self, cx: &'a RequestContext) -> Decoder<'a> {
        Decoder {
            server: &*self.server,
            cx,
        }
    }

    /// The instance that the request is for. Keys of text that are not selected are those
    /// of the only instance that has the rest: of a class that has one alone, none need be.
    async fn target(&self, cx: &RequestContext, class: &Class) -> Result<ObjectPath, Fault> {
        let selectors = &self.request.header.selectors;
        let given = selectors.0.iter().filter(|selector| {
            let namespace = crate::resource::NAMESPACE_SELECTOR;
            !selector.name.eq_ignore_ascii_case(namespace)
        });
        let given: Vec<&Selector> = given.collect();
        let is_key = |selector: &&Selector| class.keys().any(|key| key.is(&selector.name));
        if given.len() < class.keys().count() && given.iter().all(is_key) {
            let found = self.server.enumerate_instances(cx, &class.name).await?;
            let fits = |instance: &Instance| instance.path.as_ref().is_some_and(|p| fit(&given, p));
            let mut found = found.try_filter(|instance| ready(fits(instance)));
            if let (Some(one), None) = (found.try_next().await?, found.try_next().await?) {
                let pathless = || Fault::new(Kind::INTERNAL_ERROR, "an instance has no path");
                return one.path.ok_or_else(pathless);
            }
        }
        self.decoder(cx).path(class, selectors).await
    }
}

/// Whether a path has the keys that these selectors select.
fn fit(selectors: &[&Selector], path: &ObjectPath) -> bool {
    selectors.iter().all(|selector| match &selector.value {
        SelectorValue::Text(text) => path
            .key_str(&selector.name)
            .is_some_and(|key| key.eq_ignore_ascii_case(text)),
        SelectorValue::Reference(_) => false,
    })
}

fn not_there(action: &str) -> Fault {
    let start: String = action.chars().take(200).collect();
    Fault::new(
        Kind::ACTION_NOT_SUPPORTED,
        format!("there is no action {start:?} on this resource"),
    )
}
