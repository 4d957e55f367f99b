//! Subscriptions: Subscribe, Renew, GetStatus and Unsubscribe, the Pull that waits for
//! events, and their delivery by us (DSP0226 §10, MS-WSMV §3.1.4.6).
//!
//! A subscription has a queue, which a task fills. Either its client asks for what came: a
//! Pull waits for the first event as long as the client's OperationTimeout, and takes along
//! what else is there. Or we send it, by another task ([`push`]). A subscription belongs
//! to the caller who made it and ends with its time, by Unsubscribe or Release, with this
//! server, or where delivery fails; an end that its client did not ask for is told to
//! EndTo. A client that does not come, or take, loses the oldest events, and the log says
//! so.

mod delivery;
mod endpoint;
mod push;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures::stream::StreamExt;
use isochron_cim::{EnumerationLimits, EventStream, Instance, Role};
use isochron_net::outgoing::Queue;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::enumerate::{Shape, context, max_elements};
use super::filter::Filter;
use super::{Answer, Operation};
use crate::names::{ENUMERATION, EVENTING, WSMAN};
use crate::soap::{Fault, Kind, Node, close, duration_text, element};
use delivery::{Delivery, is_pulled};
use endpoint::Endpoint;
use push::{Push, Subscriber};

/// The action of an acknowledgement (DSP0226 §10.7).
const ACK: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/Ack";

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
    queue: Arc<Queue<Instance>>,
    until: Instant,
    end_to: Option<EndTo>,
    /// What fills the queue, and what delivers from it. They end with this.
    _tasks: JoinSet<()>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        // Who waits for an event learns that there will be none.
        self.queue.clear();
    }
}

/// Why a subscription ends that should not have yet, as WS-Eventing names it (§3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    DeliveryFailure,
    SourceShuttingDown,
    SourceCancelling,
}

/// That end.
struct End {
    status: Status,
    reason: String,
}

impl End {
    fn new(status: Status, reason: String) -> Self {
        Self { status, reason }
    }
}

/// Whom the end of a subscription is told.
struct EndTo {
    endpoint: Endpoint,
    /// The subscription as its subscriber knows it: the SubscriptionManager.
    manager: String,
}

impl EndTo {
    async fn tell(mut self, end: &End) {
        let mut body = String::from("<e:SubscriptionEnd>");
        body.push_str(&self.manager);
        let status = format!("{EVENTING}/{:?}", end.status);
        element(&mut body, "e:Status", &status);
        body.push_str("<e:Reason xml:lang=\"en-US\">");
        isochron_cimxml::encode::text(&mut body, &end.reason);
        close(&mut body, "e:Reason");
        close(&mut body, "e:SubscriptionEnd");
        let action = format!("{EVENTING}/SubscriptionEnd");
        let message = self.endpoint.message(&action, "", &body);
        if let Err(error) = self.endpoint.send(&message, false).await {
            let destination = self.endpoint.destination();
            tracing::debug!(%destination, %error, "the end of a subscription cannot be told");
        }
    }
}

/// Puts events into a queue until there are no more.
async fn fill(queue: Arc<Queue<Instance>>, mut events: EventStream) {
    while let Some(event) = events.next().await {
        if queue.push(event) {
            let limit = queue.limit();
            tracing::warn!(
                limit,
                "a subscription's queue is full: its oldest events are dropped"
            );
        }
    }
    queue.close();
}

/// Delivers a subscription's events, and ends it where that fails.
async fn deliver(subscriptions: Weak<Subscriptions>, name: String, push: Push) {
    let end = push.run().await;
    let (status, reason) = (end.status, &end.reason);
    tracing::warn!(name, ?status, reason, "a subscription ends");
    let Some(subscriptions) = subscriptions.upgrade() else {
        return;
    };
    // Kept until its end is told: this task ends with it.
    let mut ended = subscriptions.open().remove(&name);
    let end_to = ended.as_mut().and_then(|ended| ended.end_to.take());
    if let Some(end_to) = end_to {
        end_to.tell(&end).await;
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

    /// Ends all, as this server does.
    pub(super) async fn shut_down(&self) {
        let all = std::mem::take(&mut *self.open());
        let reason = "this server is shutting down".into();
        let end = End::new(Status::SourceShuttingDown, reason);
        let told = all.into_values().filter_map(|mut one| one.end_to.take());
        futures::future::join_all(told.map(|end_to| end_to.tell(&end))).await;
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

    /// Adds the subscription of this name that is made, unless its owner has too many.
    fn add(
        &self,
        name: &str,
        owner: &Option<String>,
        limits: EnumerationLimits,
        make: impl FnOnce() -> Subscription,
    ) -> Result<(), Fault> {
        self.expire(Instant::now());
        let mut open = self.open();
        let own = open.values().filter(|s| s.owner == *owner);
        if open.len() >= limits.open || own.count() >= limits.by_caller {
            return Err(Fault::new(
                Kind::QUOTA_LIMIT,
                "there are too many subscriptions: end those that are not needed",
            ));
        }
        open.insert(name.to_owned(), make());
        Ok(())
    }
}

impl Operation {
    pub(super) async fn subscribe(&self) -> Result<Answer, Fault> {
        let resource = self.resource()?;
        let cx = self.context(&resource)?;
        let body = self.request.body(EVENTING, "Subscribe")?;
        let delivery = body.child(EVENTING, "Delivery");
        let delivery = delivery.ok_or_else(|| Fault::schema("Delivery is missing"))?;
        let (pulled, end_to) = (is_pulled(delivery)?, body.child(EVENTING, "EndTo"));
        if !pulled || end_to.is_some() {
            // As of the destinations of indications: who may say where we connect to.
            self.principal.require(Role::Administrator)?;
        }
        for bookmark in ["SendBookmarks", "Bookmark"] {
            if body.child(WSMAN, bookmark).is_some() {
                return Err(Fault::unsupported(
                    "Bookmarks",
                    "events have no bookmarks: what is over is not told again",
                ));
            }
        }
        let credentials = self.request.header.credentials.as_ref();
        let delivery = match pulled {
            true => None,
            false => Some(Delivery::read(delivery, credentials, &self.outgoing)?),
        };
        let mut end_to = end_to
            .map(|end_to| Endpoint::read("EndTo", end_to, &self.outgoing))
            .transpose()?;
        if let (Some(end_to), Some(delivery)) = (&mut end_to, &delivery) {
            end_to.charset = delivery.to.charset;
            // The password is for that receiver alone.
            if end_to.destination().is_beside(delivery.to.destination()) {
                end_to.authorization.clone_from(&delivery.to.authorization);
            }
        }
        let lasting = lasting(body)?;
        if [WSMAN, EVENTING].map(|of| body.child(of, "Filter").is_some()) == [true, true] {
            // DSP0226 1.2 R10.2.2-52.
            let reason = "there are both a wsman:Filter and a wse:Filter";
            return Err(Fault::new(Kind::EVENT_MESSAGE, reason));
        }
        // Eventing has a fault of its own for dialects (DSP0226 §14.6, MS-WSMV §3.1.4.1.30.5).
        let unavailable = || {
            let reason =
                "what events are wanted is said by a query in WQL or CQL, or by their class";
            Fault::new(Kind::EVENT_FILTER, reason)
        };
        let filter = match Filter::read(body) {
            Err(fault) if fault.kind == Kind::FILTER_DIALECT => return Err(unavailable()),
            filter => filter?,
        };
        let (language, query) = match (filter, &resource.class) {
            (Some(Filter::Query(language, query)), _) => (language, query.to_owned()),
            (None, Some(class)) => ("WQL", format!("SELECT * FROM {class}")),
            (Some(_), _) => return Err(unavailable()),
            (None, None) => return Err(unavailable().detailed("FilteringRequired")),
        };
        let events = self.server.events(&cx, language, &query).await?;
        let name = format!("uuid:{}", Uuid::new_v4());
        let mut manager = String::from("<e:SubscriptionManager>");
        element(&mut manager, "a:Address", &self.address);
        manager.push_str("<a:ReferenceParameters>");
        let uri = resource.naming.class_uri("*");
        element(&mut manager, "w:ResourceURI", &uri);
        element(&mut manager, "e:Identifier", &name);
        manager.push_str("</a:ReferenceParameters></e:SubscriptionManager>");
        let end_to = end_to.map(|endpoint| EndTo {
            endpoint,
            manager: manager.clone(),
        });
        let owner = &self.principal.name;
        self.subscriptions.add(&name, owner, self.limits, || {
            let shape = Arc::new(Shape::objects(resource));
            let queue = Arc::new(Queue::new(QUEUE));
            let mut tasks = JoinSet::new();
            tasks.spawn(fill(queue.clone(), events));
            if let Some(delivery) = delivery {
                let (queue, shape) = (queue.clone(), shape.clone());
                let subscriber = Subscriber {
                    principal: self.principal.clone(),
                    authenticator: self.authenticator.clone(),
                };
                let address = self.address.clone();
                let push = Push::new(delivery, queue, shape, address, subscriber);
                let subscriptions = Arc::downgrade(&self.subscriptions);
                tasks.spawn(deliver(subscriptions, name.clone(), push));
            }
            Subscription {
                owner: owner.clone(),
                shape,
                queue,
                until: Instant::now() + lasting,
                end_to,
                _tasks: tasks,
            }
        })?;
        let mut out = String::from("<e:SubscribeResponse>");
        out.push_str(&manager);
        element(&mut out, "e:Expires", &duration_text(lasting));
        if pulled {
            element(&mut out, "n:EnumerationContext", &name);
        }
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
        let owner = &self.principal.name;
        let of_caller = self.subscriptions.with(context, owner, |subscription| {
            (subscription.queue.clone(), subscription.shape.clone())
        });
        let Some((queue, shape)) = of_caller else {
            return Ok(None);
        };
        let wait = match body.child(ENUMERATION, "MaxTime") {
            Some(time) => crate::soap::duration("MaxTime", &time.text)?,
            None => Duration::MAX,
        };
        let there = match tokio::time::timeout(wait, queue.ready()).await {
            Ok(there) => there,
            Err(_) => {
                let reason = "no event came in the time that the Pull waits";
                return Err(Fault::new(Kind::TIMED_OUT, reason));
            }
        };
        if !there {
            return Err(unknown_context());
        }
        let mut items = self.items(shape, None);
        let (mut taken, mut fits) = (0, true);
        while taken < most {
            let wanted = |event: &Instance| {
                fits = items.push(event);
                fits
            };
            if queue.take_if(wanted).is_none() {
                break;
            }
            taken += 1;
        }
        if taken == 0 && !fits {
            // One that is too large for any reply would be in the way for ever.
            queue.take();
            return Err(super::too_large(items.most));
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
