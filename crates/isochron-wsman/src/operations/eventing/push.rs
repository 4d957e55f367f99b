//! Delivers a subscription's events: in the order in which they came, each message when
//! the one before was taken. One that is not taken is sent again, with the same ID, and
//! the subscription ends where that is of no use.

use std::sync::Arc;
use std::time::Instant;

use isochron_cim::{Instance, Principal, Role};
use isochron_cimxml::encode::attribute;
use isochron_net::Authenticator;
use isochron_net::outgoing::{Queue, Retrying, SendError};

use super::delivery::{Delivery, Mode, TooLarge};
use super::endpoint::Message;
use super::{End, Status};
use crate::operations::enumerate::Shape;
use crate::soap::{close, element};

/// Actions of messages, and of events in one (DSP0226 §10.2.8, §10.2.5, §10.9).
const EVENT: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/Event";
const EVENTS: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/Events";
const HEARTBEAT: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/Heartbeat";
const DROPPED: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/DroppedEvents";

/// Bytes of the element around an event among several.
const AROUND: usize = 128;

/// What delivers a subscription's events.
pub(super) struct Push {
    delivery: Delivery,
    queue: Arc<Queue<Instance>>,
    shape: Arc<Shape>,
    /// Where this server is, as the subscriber sees it.
    address: String,
    subscriber: Subscriber,
    /// The number of the event that follows the last one.
    expected: u64,
    /// What comes next, if it was taken out of the queue already.
    pending: Option<Item>,
}

/// In whose name events are delivered.
pub(super) struct Subscriber {
    pub(super) principal: Principal,
    pub(super) authenticator: Arc<dyn Authenticator>,
}

impl Subscriber {
    /// Whether they may still say where we send to.
    fn may(&self) -> bool {
        self.authenticator.role_now(&self.principal) >= Some(Role::Administrator)
    }
}

/// An event, or what is told like one.
struct Item {
    action: &'static str,
    content: String,
}

impl Push {
    pub(super) fn new(
        delivery: Delivery,
        queue: Arc<Queue<Instance>>,
        shape: Arc<Shape>,
        address: String,
        subscriber: Subscriber,
    ) -> Self {
        Self {
            delivery,
            queue,
            shape,
            address,
            subscriber,
            expected: 0,
            pending: None,
        }
    }

    /// Delivers events until the subscription has to end; why it has to.
    pub(super) async fn run(mut self) -> End {
        let name = self.delivery.to.destination().to_string();
        let mut retrying = Retrying::new(name, self.delivery.retries);
        let acknowledged = self.delivery.is_acknowledged();
        loop {
            let message = match self.next().await {
                Ok(message) => message,
                Err(end) => return end,
            };
            loop {
                if !self.subscriber.may() {
                    let reason = "its subscriber is no administrator any more".into();
                    return End::new(Status::SourceCancelling, reason);
                }
                let outcome = self.delivery.to.send(&message, acknowledged).await;
                let failure = retrying.note(&outcome);
                let Err(error) = outcome else { break };
                match (error, failure) {
                    (SendError::Unreachable(_), Some(failure)) if !failure.given_up => {
                        tokio::time::sleep(failure.pause).await;
                    }
                    (error, _) => return End::new(Status::DeliveryFailure, error.to_string()),
                }
            }
        }
    }

    /// The next message, when there is one.
    async fn next(&mut self) -> Result<Message, End> {
        loop {
            if let Some(first) = self.item()? {
                return match self.delivery.mode {
                    Mode::Events { most, time } => {
                        self.several(first, most, Instant::now() + time).await
                    }
                    _ => Ok(self.message(first.action, &first.content)),
                };
            }
            let ready = self.queue.ready();
            let more = match self.delivery.heartbeats {
                None => ready.await,
                Some(interval) => match tokio::time::timeout(interval, ready).await {
                    Ok(more) => more,
                    Err(_) => return Ok(self.message(HEARTBEAT, "")),
                },
            };
            if !more {
                let reason = "there are no more events".into();
                return Err(End::new(Status::SourceCancelling, reason));
            }
        }
    }

    /// A message of several events: of what is there, and what comes until then.
    async fn several(&mut self, first: Item, most: usize, until: Instant) -> Result<Message, End> {
        let mut body = String::from("<w:Events>");
        let append = |body: &mut String, item: &Item| {
            body.push_str("<w:Event");
            attribute(body, "Action", item.action);
            body.push('>');
            body.push_str(&item.content);
            close(body, "w:Event");
        };
        append(&mut body, &first);
        let mut count = 1;
        while count < most {
            match self.item()? {
                Some(item) if body.len() + item.content.len() + AROUND > self.room() => {
                    self.pending = Some(item);
                    break;
                }
                Some(item) => {
                    append(&mut body, &item);
                    count += 1;
                }
                None => {
                    let ready = self.queue.ready();
                    match tokio::time::timeout_at(until.into(), ready).await {
                        Ok(true) => {}
                        _ => break,
                    }
                }
            }
        }
        close(&mut body, "w:Events");
        Ok(self.message(EVENTS, &body))
    }

    /// What is to be told next, if it is there. Events that were lost are told of before
    /// the one that follows them (DSP0226 §10.9).
    fn item(&mut self) -> Result<Option<Item>, End> {
        loop {
            if let Some(item) = self.pending.take() {
                return Ok(Some(item));
            }
            let Some(queued) = self.queue.take() else {
                return Ok(None);
            };
            let mut lost = queued.number - self.expected;
            self.expected = queued.number + 1;
            let mut content = String::new();
            self.shape.item(&mut content, &self.address, &queued.item);
            if content.len() + AROUND <= self.room() {
                self.pending = Some(Item {
                    action: EVENT,
                    content,
                });
            } else {
                match self.delivery.too_large {
                    TooLarge::CancelSubscription => {
                        let reason = "an event is larger than MaxEnvelopeSize";
                        return Err(End::new(Status::SourceCancelling, reason.into()));
                    }
                    TooLarge::Skip => {}
                    TooLarge::Notify => lost += 1,
                }
            }
            if lost > 0 {
                let mut content = String::new();
                element(&mut content, "w:DroppedEvents", &lost.to_string());
                return Ok(Some(Item {
                    action: DROPPED,
                    content,
                }));
            }
        }
    }

    /// Bytes of a message's body.
    fn room(&self) -> usize {
        let envelope = match self.delivery.to.charset {
            crate::soap::Charset::Utf8 => self.delivery.envelope,
            crate::soap::Charset::Utf16 => self.delivery.envelope / 2,
        };
        envelope.saturating_sub(self.delivery.to.frame())
    }

    fn message(&self, action: &str, body: &str) -> Message {
        let headers = match self.delivery.is_acknowledged() {
            true => "<w:AckRequested/>",
            false => "",
        };
        self.delivery.to.message(action, headers, body)
    }
}
