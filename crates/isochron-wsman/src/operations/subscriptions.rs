//! Subscriptions: Subscribe, Renew, GetStatus and Unsubscribe, and the Pull that waits for
//! events (DSP0226 §10, MS-WSMV §3.1.4.13).
//!
//! Events are pulled: a subscription has a queue, which a task fills, and a context by
//! which its client asks for what came. A Pull waits for the first event as long as the
//! client's OperationTimeout, and takes along what else is there. A subscription belongs
//! to the caller who made it and ends with its time, by Unsubscribe or Release, or with
//! this server. A client that does not come loses the oldest events, and the log says so.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::stream::StreamExt;
use isochron_cim::{EnumerationLimits, EventStream, Instance};
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use uuid::Uuid;

use super::enumerate::{Shape, context, max_elements};
use super::filter::Filter;
use super::{Answer, Operation};
use crate::names::{ENUMERATION, EVENTING};
use crate::soap::{Fault, Kind, Node, close, duration_text, element};

/// The delivery modes of DSP0226 §10.2.9.
const PULL: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/Pull";

/// How long a subscription lasts where its client does not say, and at most.
const LASTS: Duration = Duration::from_secs(600);
const LASTS_MOST: Duration = Duration::from_secs(24 * 3600);

/// How many events wait for a client.
const QUEUE: usize = 4096;

/// The subscriptions.
#[derive(Default)]
pub(crate) struct Subscriptions {
    open: Mutex<HashMap<String, Subscription>>,
}

struct Subscription {
    owner: Option<String>,
    shape: Arc<Shape>,
    queue: Arc<Queue>,
    until: Instant,
    filling: AbortHandle,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.filling.abort();
        // Who waits for an event learns that there will be none.
        self.queue.arrived.notify_waiters();
    }
}

/// Events that wait.
#[derive(Default)]
struct Queue {
    waiting: Mutex<VecDeque<Instance>>,
    arrived: Notify,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Instance>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn fill(self: Arc<Self>, mut events: EventStream) {
        while let Some(event) = events.next().await {
            {
                let mut waiting = self.waiting();
                if waiting.len() == QUEUE {
                    waiting.pop_front();
                    tracing::warn!("a subscription's queue is full: its oldest event is dropped");
                }
                waiting.push_back(event);
            }
            self.arrived.notify_one();
        }
    }
}

impl Subscriptions {
    fn open(&self) -> MutexGuard<'_, HashMap<String, Subscription>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends those whose time is over.
    pub(super) fn expire(&self, now: Instant) {
        self.open()
            .retain(|_, subscription| subscription.until > now);
    }

    /// Does something with a caller's subscription, if there is one of this name.
    fn with<T>(
        &self,
        name: &str,
        caller: &Option<String>,
        work: impl FnOnce(&mut Subscription) -> T,
    ) -> Option<T> {
        self.expire(Instant::now());
        let mut open = self.open();
        let found = open.get_mut(name).filter(|found| found.owner == *caller)?;
        Some(work(found))
    }

    /// Ends a caller's subscription; false if there is none of this name.
    fn end(&self, name: &str, caller: &Option<String>) -> bool {
        let there = self.with(name, caller, |_| ()).is_some();
        let ended = there.then(|| self.open().remove(name));
        ended.is_some()
    }

    fn add(&self, subscription: Subscription, limits: EnumerationLimits) -> Result<String, Fault> {
        self.expire(Instant::now());
        let mut open = self.open();
        let own = open.values().filter(|s| s.owner == subscription.owner);
        if open.len() >= limits.open || own.count() >= limits.by_caller {
            return Err(Fault::new(
                Kind::QUOTA_LIMIT,
                "there are too many subscriptions: end those that are not needed",
            ));
        }
        let name = format!("uuid:{}", Uuid::new_v4());
        open.insert(name.clone(), subscription);
        Ok(name)
    }
}

impl Operation {
    pub(super) async fn subscribe(&self) -> Result<Answer, Fault> {
        let resource = self.resource()?;
        let cx = self.context(&resource)?;
        let body = self.request.body(EVENTING, "Subscribe")?;
        let delivery = body.child(EVENTING, "Delivery");
        let mode = delivery.and_then(|delivery| delivery.attribute("Mode"));
        if mode.map(str::trim) != Some(PULL) {
            return Err(Fault::new(
                Kind::DELIVERY_MODE,
                format!("events are delivered by {PULL} alone"),
            ));
        }
        if body.child(EVENTING, "EndTo").is_some() {
            return Err(Fault::unsupported(
                "AddressingMode",
                "the end of a subscription is not told to another address",
            ));
        }
        let lasting = lasting(body)?;
        let (language, query) = match (Filter::read(body)?, &resource.class) {
            (Some(Filter::Query(language, query)), _) => (language, query.to_owned()),
            (None, Some(class)) => ("WQL", format!("SELECT * FROM {class}")),
            _ => {
                return Err(Fault::new(
                    Kind::EVENT_FILTER,
                    "what events are wanted is said by a query in WQL or CQL, or by their class",
                ));
            }
        };
        let events = self.server.events(&cx, language, &query).await?;
        let queue = Arc::new(Queue::default());
        let filling = tokio::spawn(queue.clone().fill(events)).abort_handle();
        let subscription = Subscription {
            owner: self.principal.name.clone(),
            shape: Arc::new(Shape::objects(resource.clone())),
            queue,
            until: Instant::now() + lasting,
            filling,
        };
        let name = self.subscriptions.add(subscription, self.limits)?;
        let mut out = String::from("<e:SubscribeResponse><e:SubscriptionManager>");
        element(&mut out, "a:Address", &self.address);
        out.push_str("<a:ReferenceParameters>");
        let uri = resource.naming.class_uri("*");
        element(&mut out, "w:ResourceURI", &uri);
        element(&mut out, "e:Identifier", &name);
        out.push_str("</a:ReferenceParameters></e:SubscriptionManager>");
        element(&mut out, "e:Expires", &duration_text(lasting));
        element(&mut out, "n:EnumerationContext", &name);
        close(&mut out, "e:SubscribeResponse");
        Ok(Answer::new(format!("{EVENTING}/SubscribeResponse"), out))
    }

    pub(super) fn renew(&self) -> Result<Answer, Fault> {
        let body = self.request.body(EVENTING, "Renew")?;
        let lasting = lasting(body)?;
        self.subscriptions
            .with(self.identifier()?, &self.principal.name, |subscription| {
                subscription.until = Instant::now() + lasting;
            })
            .ok_or_else(unknown)?;
        self.still_for(lasting, "RenewResponse")
    }

    pub(super) fn subscription_status(&self) -> Result<Answer, Fault> {
        let left = self
            .subscriptions
            .with(self.identifier()?, &self.principal.name, |subscription| {
                subscription.until.saturating_duration_since(Instant::now())
            })
            .ok_or_else(unknown)?;
        self.still_for(left, "GetStatusResponse")
    }

    fn still_for(&self, length: Duration, response: &str) -> Result<Answer, Fault> {
        let tag = format!("e:{response}");
        let mut out = format!("<{tag}>");
        element(&mut out, "e:Expires", &duration_text(length));
        close(&mut out, &tag);
        Ok(Answer::new(format!("{EVENTING}/{response}"), out))
    }

    pub(super) fn unsubscribe(&self) -> Result<Answer, Fault> {
        if !self
            .subscriptions
            .end(self.identifier()?, &self.principal.name)
        {
            return Err(unknown());
        }
        let action = format!("{EVENTING}/UnsubscribeResponse");
        Ok(Answer::new(action, String::new()))
    }

    fn identifier(&self) -> Result<&str, Fault> {
        let said = self.request.header.identifier.as_deref();
        said.ok_or_else(|| {
            let reason = "the header wse:Identifier is missing: which subscription is meant";
            Fault::new(Kind::EVENT_MESSAGE, reason)
        })
    }

    /// Ends the subscription whose context is released; false if there is none.
    pub(super) fn release_subscription(&self, context: &str) -> bool {
        self.subscriptions.end(context, &self.principal.name)
    }

    /// Waits for events, if the context is that of a subscription. Whoever waits longer
    /// than the client does is stopped by its time-out.
    pub(super) async fn pull_events(&self, body: &Node) -> Result<Option<Answer>, Fault> {
        let (context, most) = (context(body)?, max_elements(body, ENUMERATION)?);
        let of_caller = || {
            self.subscriptions
                .with(context, &self.principal.name, |subscription| {
                    (subscription.queue.clone(), subscription.shape.clone())
                })
        };
        let Some((queue, shape)) = of_caller() else {
            return Ok(None);
        };
        let wait = match body.child(ENUMERATION, "MaxTime") {
            Some(time) => crate::soap::duration("MaxTime", &time.text)?,
            None => Duration::MAX,
        };
        let arrived = async {
            loop {
                // Before it is looked, so that nothing is missed in between.
                let arrived = queue.arrived.notified();
                // The subscription may have ended.
                if of_caller().is_none() {
                    return Err(unknown_context());
                }
                if !queue.waiting().is_empty() {
                    return Ok(());
                }
                arrived.await;
            }
        };
        match wait {
            Duration::MAX => arrived.await?,
            wait => match tokio::time::timeout(wait, arrived).await {
                Ok(arrived) => arrived?,
                Err(_) => {
                    let reason = "no event came in the time that the Pull waits";
                    return Err(Fault::new(Kind::TIMED_OUT, reason));
                }
            },
        }
        let mut items = self.items(shape, None);
        {
            let mut waiting = queue.waiting();
            let mut taken = 0;
            while taken < most
                && let Some(event) = waiting.pop_front()
            {
                if !items.push(&event) {
                    // One that is too large for any reply would be in the way for ever.
                    if taken == 0 {
                        return Err(super::too_large(items.most));
                    }
                    waiting.push_front(event);
                    break;
                }
                taken += 1;
            }
        }
        let mut out = String::from("<n:PullResponse>");
        element(&mut out, "n:EnumerationContext", context);
        out.push_str("<n:Items>");
        out.push_str(&items.out);
        close(&mut out, "n:Items");
        close(&mut out, "n:PullResponse");
        let action = format!("{ENUMERATION}/PullResponse");
        Ok(Some(Answer::new(action, out)))
    }
}

/// How long a subscription is to last; less may be granted than is asked for.
fn lasting(body: &Node) -> Result<Duration, Fault> {
    let Some(node) = body.child(EVENTING, "Expires") else {
        return Ok(LASTS);
    };
    let asked = super::enumerate::lasting(node.value()).ok_or_else(|| {
        let reason = "Expires is neither a length of time nor a point in the future";
        Fault::new(Kind::EVENT_EXPIRATION, reason)
    })?;
    Ok(asked.min(LASTS_MOST))
}

fn unknown() -> Fault {
    let reason = "there is no such subscription: it ended, or its time is over";
    Fault::new(Kind::EVENT_MESSAGE, reason)
}

fn unknown_context() -> Fault {
    let reason = "the subscription has ended";
    Fault::new(Kind::INVALID_CONTEXT, reason)
}
