//! The task that delivers what waits for one destination.
//!
//! Every destination has a queue and a task of its own, so that one which is slow
//! or dead holds up nobody else. Indications leave in the order in which they came;
//! the next one waits until the one before was taken or given up. A listener sees what
//! it lost by the gap in their numbers (DSP1054, "sequence identifier").

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use isochron_cim::{Instance, Value};
use isochron_net::outgoing::{Queued, Retries, Retrying};

use super::listener::Listener;

/// How indications are delivered (the properties of `CIM_IndicationService`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// How often, and when, one is sent again (DeliveryRetryAttempts,
    /// DeliveryRetryInterval).
    pub retries: Retries,
    /// For how long a destination may fail before a transient one is deleted with
    /// its subscriptions, and before a subscription's OnFatalErrorPolicy holds that
    /// has no FailureTriggerTimeInterval (SubscriptionRemovalTimeInterval).
    pub removal_interval: Duration,
}

impl Default for Delivery {
    /// The usual retries; 24 h.
    fn default() -> Self {
        Self {
            retries: Retries::default(),
            removal_interval: Duration::from_secs(24 * 60 * 60),
        }
    }
}

/// Indications that wait, each shared by all destinations that it goes to.
pub(super) type Queue = isochron_net::outgoing::Queue<Arc<Instance>>;

/// An indication as it is sent: with its number in the sequence of this destination in
/// this run of the server, which is the context.
fn message(queued: &Queued<Arc<Instance>>, context: &str) -> Instance {
    let number = i64::try_from(queued.number).unwrap_or_default();
    let mut message = Instance::clone(&queued.item);
    message
        .set("SequenceContext", context)
        .set("SequenceNumber", Value::Sint64(number));
    message
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

/// Delivers what is in the queue until the destination is gone. `name` is the
/// destination's, for the log.
pub(super) async fn deliver(
    name: String,
    queue: Arc<Queue>,
    mut listener: Box<dyn Listener>,
    delivery: Delivery,
    failing: Failing,
) {
    let context = uuid::Uuid::new_v4().to_string();
    let mut retrying = Retrying::new(name, delivery.retries);
    while queue.ready().await {
        let Some(queued) = queue.take() else { continue };
        let message = message(&queued, &context);
        while let Some(failure) = retrying.note(&listener.export(&message).await) {
            if let Verdict::Gone = failing(failure.lasting).await {
                return;
            }
            tokio::time::sleep(failure.pause).await;
            if failure.given_up {
                break;
            }
        }
    }
}
