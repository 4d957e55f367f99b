//! What waits for one destination, and the task that delivers it.
//!
//! Every destination has a queue and a task of its own, so that one which is slow
//! or dead holds up nobody else. Indications leave in the order in which they came;
//! the next one waits until the one before was taken or given up. A full queue drops
//! its oldest. Numbers are given on entry: a listener sees what it lost by the gap
//! (DSP1054, "sequence identifier").

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use isochron_cim::{Instance, Value};
use tokio::sync::Notify;

use super::listener::{ExportError, Listener};

/// How indications are delivered (the properties of `CIM_IndicationService`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// How often one indication is sent again before it is given up
    /// (DeliveryRetryAttempts).
    pub retry_attempts: u16,
    /// The time before it is sent again (DeliveryRetryInterval); doubled with every
    /// attempt, until the destination answers.
    pub retry_interval: Duration,
    /// The longest that this time gets.
    pub retry_interval_max: Duration,
    /// For how long a destination may fail before a transient one is deleted with
    /// its subscriptions, and before a subscription's OnFatalErrorPolicy holds that
    /// has no FailureTriggerTimeInterval (SubscriptionRemovalTimeInterval).
    pub removal_interval: Duration,
}

impl Default for Delivery {
    /// 10 attempts, after 1 s at first and after a minute at last; 24 h.
    fn default() -> Self {
        Self {
            retry_attempts: 10,
            retry_interval: Duration::from_secs(1),
            retry_interval_max: Duration::from_secs(60),
            removal_interval: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// The queue of one destination.
#[derive(Debug)]
pub(super) struct Queue {
    /// The destination, for the log.
    name: String,
    /// SequenceContext: this destination in this run of the server.
    context: String,
    limit: usize,
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    indications: VecDeque<Numbered>,
    /// The next SequenceNumber.
    next: i64,
    /// How many were dropped since one was taken last.
    dropped: u64,
}

/// An indication, shared by all destinations that it goes to, with its number in
/// the sequence of this one.
#[derive(Debug)]
struct Numbered {
    indication: Arc<Instance>,
    number: i64,
}

impl Queue {
    /// An empty queue that holds as many.
    pub(super) fn new(name: String, limit: usize) -> Self {
        Self {
            name,
            context: uuid::Uuid::new_v4().to_string(),
            limit: limit.max(1),
            waiting: Mutex::default(),
            arrived: Notify::new(),
        }
    }

    /// Puts an indication at the end. Never waits.
    pub(super) fn push(&self, indication: Arc<Instance>) {
        {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            let number = waiting.next;
            waiting.next = number.checked_add(1).unwrap_or(0);
            if waiting.indications.len() >= self.limit {
                waiting.indications.pop_front();
                if waiting.dropped == 0 {
                    let (destination, limit) = (&self.name, self.limit);
                    tracing::warn!(
                        destination,
                        limit,
                        "its queue is full: the oldest are dropped"
                    );
                }
                waiting.dropped += 1;
            }
            let numbered = Numbered { indication, number };
            waiting.indications.push_back(numbered);
        }
        self.arrived.notify_one();
    }

    /// Takes the oldest; waits for one.
    async fn take(&self) -> Numbered {
        loop {
            {
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(first) = waiting.indications.pop_front() {
                    waiting.dropped = 0;
                    return first;
                }
            }
            self.arrived.notified().await;
        }
    }

    /// The indication as it is sent.
    fn message(&self, numbered: &Numbered) -> Instance {
        let mut message = Instance::clone(&numbered.indication);
        message
            .set("SequenceContext", &*self.context)
            .set("SequenceNumber", Value::Sint64(numbered.number));
        message
    }
}

/// What becomes of a destination that fails.
pub(super) enum Verdict {
    /// It is tried again.
    Kept,
    /// It is deleted.
    Gone,
}

/// Is told after every failure for how long nothing could be delivered.
pub(super) type Failing = Box<dyn Fn(Duration) -> BoxFuture<'static, Verdict> + Send + Sync>;

/// Delivers what is in the queue until the destination is gone.
pub(super) async fn deliver(
    queue: Arc<Queue>,
    mut listener: Box<dyn Listener>,
    delivery: Delivery,
    failing: Failing,
) {
    let destination = &queue.name;
    let mut since: Option<Instant> = None;
    let mut pause = delivery.retry_interval;
    loop {
        let numbered = queue.take().await;
        let message = queue.message(&numbered);
        let mut attempts = 0;
        loop {
            let answer = listener.export(&message).await;
            let Err(ExportError::Unreachable(error)) = answer else {
                if let Err(error) = answer {
                    tracing::warn!(destination, %error, "it does not want an indication");
                }
                if let Some(since) = since.take() {
                    let after = since.elapsed();
                    tracing::info!(destination, ?after, "it answers again");
                }
                pause = delivery.retry_interval;
                break;
            };
            let began = *since.get_or_insert_with(|| {
                tracing::warn!(destination, error, "indications cannot be delivered");
                Instant::now()
            });
            if let Verdict::Gone = failing(began.elapsed()).await {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(delivery.retry_interval_max);
            if attempts == delivery.retry_attempts {
                tracing::warn!(destination, error, "an indication is given up");
                break;
            }
            attempts += 1;
        }
    }
}
