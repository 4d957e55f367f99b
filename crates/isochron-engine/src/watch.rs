//! What machines do, for those who watch: what we make them do is seen at once,
//! what guests and owners do is looked for every [`WATCH`], and only while there
//! is someone to tell.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::stream::{self, StreamExt};

use crate::engine::Inner;
use crate::model::{Machine, MachineId, Power};
use crate::{Engine, Event};

/// How often machines are looked at.
const WATCH: Duration = Duration::from_secs(2);
/// How many are asked at a time.
const ASKED_AT_ONCE: usize = 16;

/// What machines were last seen to do.
#[derive(Default)]
pub(crate) struct Powers {
    seen: Mutex<HashMap<MachineId, Power>>,
}

impl Powers {
    fn seen(&self) -> MutexGuard<'_, HashMap<MachineId, Power>> {
        // A panic between two map operations leaves the map whole.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// What a machine was last seen to do, without asking it; `None` if it was
    /// never looked at.
    pub fn last_power(&self, id: MachineId) -> Option<Power> {
        self.inner.powers.seen().get(&id).copied()
    }
}

impl Inner {
    /// Remembers what a machine does now, and tells it if that is new.
    pub(crate) fn saw_power(&self, machine: &Machine, now: Power) {
        let mut seen = self.powers.seen();
        let before = seen.insert(machine.id, now);
        // Told before another can see what comes next.
        if let Some(before) = before
            && before != now
        {
            let machine = Arc::new(machine.clone());
            self.events.tell(Event::Power {
                machine,
                before,
                now,
            });
        }
    }

    /// Looks at every machine that no operation holds, again and again, as long as
    /// the engine is there.
    pub(crate) fn watch_power(self: &Arc<Self>) {
        let watcher = Arc::downgrade(self);
        tokio::spawn(async move {
            while let Some(inner) = watcher.upgrade() {
                if inner.events.watched() {
                    inner.look().await;
                }
                let clock = Arc::clone(&inner.clock);
                drop(inner);
                clock.sleep(WATCH).await;
            }
        });
    }

    async fn look(&self) {
        let Ok(machines) = self.records.list::<Machine>().await else {
            return;
        };
        let known: Vec<_> = machines.iter().map(|machine| machine.id).collect();
        self.powers.seen().retain(|id, _| known.contains(id));
        stream::iter(machines)
            .for_each_concurrent(ASKED_AT_ONCE, async |machine| {
                // What an operation does to a machine for a moment is its own.
                if self.gate.holds(machine.id) {
                    return;
                }
                let power = match self.hypervisor.live(&machine).await {
                    Ok(Some(live)) => live.power().await,
                    Ok(None) => machine.power(None).await,
                    Err(error) => Err(error),
                };
                // One that does not answer does what it did, for all we know.
                if let Ok(power) = power
                    && !self.gate.holds(machine.id)
                {
                    self.saw_power(&machine, power);
                }
            })
            .await;
    }
}
