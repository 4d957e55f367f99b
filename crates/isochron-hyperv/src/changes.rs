//! Turns what the engine tells into changes of instances, in every namespace in
//! which they are seen.
//!
//! An event carries what was and what is, so an instance is described as it was at
//! that moment however late this runs. What machines do is remembered from the
//! events; only one of which nothing was told yet is asked, and a machine's parent
//! snapshot is looked up. A change of a record that no property shows (layers that
//! move) is no change here.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use isochron_cim::{Change, ChangeKind, ChangeStream, CimError, Instance};
use isochron_engine::model::{Machine, MachineId, Power, ReferencePoint, Snapshot};
use isochron_engine::{self as engine, EngineError, ErrorKind, Event, MachineView};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::lookup::Provider;
use crate::object::{Member, Object, PointPart};
use crate::schema::Space;

/// What became of an object.
struct Turn {
    before: Option<Seen>,
    now: Option<Seen>,
}

/// An object as it is seen at a moment.
enum Seen {
    /// From its record alone.
    Record(Object),
    /// A machine that does this; `None`: that is not known.
    Machine(Arc<Machine>, Option<Power>),
}

/// What the changes are made from.
struct Source {
    provider: Arc<Provider>,
    events: Receiver<Event>,
    /// What machines do, by what was told so far.
    powers: HashMap<MachineId, Power>,
    /// Changes of the last event.
    waiting: VecDeque<Change>,
}

/// The changes that the engine tells from now on.
pub(crate) fn changes(provider: Arc<Provider>) -> ChangeStream {
    let source = Source {
        events: provider.engine.events(),
        provider,
        powers: HashMap::new(),
        waiting: VecDeque::new(),
    };
    stream::unfold(source, |mut source| async move {
        let change = source.next().await?;
        Some((change, source))
    })
    .boxed()
}

impl Source {
    async fn next(&mut self) -> Option<Change> {
        loop {
            if let Some(change) = self.waiting.pop_front() {
                return Some(change);
            }
            match self.events.recv().await {
                Ok(event) => {
                    let turns = self.turns(&event).await;
                    self.waiting.extend(self.provider.describe(&turns).await);
                }
                Err(RecvError::Lagged(lost)) => {
                    tracing::warn!(lost, "changes were not told: more happened than was read");
                    // What machines do may have been among it.
                    self.powers.clear();
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// What an event says became of objects.
    async fn turns(&mut self, event: &Event) -> Vec<Turn> {
        let record = |object: Object| vec![Seen::Record(object)];
        match event {
            Event::Job(change) => turns(change, |job| record(Object::Job(Arc::clone(job)))),
            Event::Snapshot(change) => turns(change, snapshot),
            Event::ReferencePoint(change) => turns(change, point),
            Event::Collection(change) => {
                turns(change, |c| record(Object::Collection(Arc::clone(c))))
            }
            Event::Machine(change) => {
                let power = self.power(change).await;
                turns(change, |machine| {
                    vec![
                        Seen::Machine(Arc::clone(machine), power),
                        Seen::Record(Object::MachineSettings(Arc::clone(machine))),
                    ]
                })
            }
            Event::Power {
                machine,
                before,
                now,
            } => {
                self.powers.insert(machine.id, *now);
                let seen = |power| Some(Seen::Machine(Arc::clone(machine), Some(power)));
                vec![Turn {
                    before: seen(*before),
                    now: seen(*now),
                }]
            }
        }
    }

    /// What a machine did when its record changed.
    async fn power(&mut self, change: &engine::Change<Machine>) -> Option<Power> {
        let id = match change {
            // What we start does not run before.
            engine::Change::Created(now) if !now.attached() => {
                self.powers.insert(now.id, Power::Off);
                now.id
            }
            engine::Change::Created(now) | engine::Change::Changed { now, .. } => now.id,
            engine::Change::Gone(before) => return self.powers.remove(&before.id),
        };
        if let Some(power) = self.powers.get(&id) {
            return Some(*power);
        }
        let engine = &self.provider.engine;
        let power = match engine.last_power(id) {
            Some(power) => power,
            None => engine.power(id).await.ok()?,
        };
        self.powers.insert(id, power);
        Some(power)
    }
}

/// Splits a record's change by what it is seen as.
fn turns<T>(change: &engine::Change<T>, seen: impl Fn(&Arc<T>) -> Vec<Seen>) -> Vec<Turn> {
    let one = |before, now| Turn { before, now };
    match change {
        engine::Change::Created(now) => {
            let now = seen(now).into_iter();
            now.map(|now| one(None, Some(now))).collect()
        }
        engine::Change::Changed { before, now } => {
            // What a record is seen as is the same at all times.
            let both = seen(before).into_iter().zip(seen(now));
            both.map(|(before, now)| one(Some(before), Some(now)))
                .collect()
        }
        engine::Change::Gone(before) => {
            // Parts go before the whole.
            let before = seen(before).into_iter().rev();
            before.map(|before| one(Some(before), None)).collect()
        }
    }
}

fn snapshot(snapshot: &Arc<Snapshot>) -> Vec<Seen> {
    let whole = match snapshot.of_machine() {
        Some(_) => None,
        None => Some(Object::SnapshotCollection(Arc::clone(snapshot))),
    };
    let members = Member::all(snapshot).map(Object::MemberSettings);
    whole.into_iter().chain(members).map(Seen::Record).collect()
}

fn point(point: &Arc<ReferencePoint>) -> Vec<Seen> {
    let whole = match point.of_machine() {
        Some(_) => None,
        None => Some(Object::PointCollection(Arc::clone(point))),
    };
    let parts = PointPart::all(point).map(Object::Point);
    whole.into_iter().chain(parts).map(Seen::Record).collect()
}

impl Provider {
    /// What became of objects, as it is seen in each namespace.
    async fn describe(&self, turns: &[Turn]) -> Vec<Change> {
        let mut changes = Vec::new();
        for space in self.schema.hyperv() {
            for turn in turns {
                match self.change(space, turn).await {
                    Ok(change) => changes.extend(change),
                    Err(error) => tracing::warn!(%error, "a change was not told"),
                }
            }
        }
        changes
    }

    async fn change(&self, space: &Space, turn: &Turn) -> Result<Option<Change>, CimError> {
        let before = match &turn.before {
            Some(seen) => Some(self.seen(space, seen).await?),
            None => None,
        };
        let now = match &turn.now {
            Some(seen) => Some(self.seen(space, seen).await?),
            None => None,
        };
        let (kind, instance, previous) = match (before, now) {
            (None, Some(now)) => (ChangeKind::Created, now, None),
            (Some(before), Some(now)) if before != now => (ChangeKind::Modified, now, Some(before)),
            (Some(before), None) => (ChangeKind::Deleted, before, None),
            _ => return Ok(None),
        };
        Ok(Some(Change {
            namespace: space.name.to_owned(),
            kind,
            instance,
            previous,
        }))
    }

    async fn seen(&self, space: &Space, seen: &Seen) -> Result<Instance, CimError> {
        match seen {
            Seen::Record(object) => self.render(space, object).await,
            Seen::Machine(machine, power) => {
                let view = power.map(|power| MachineView {
                    machine: machine.as_ref().clone(),
                    power,
                    process_id: None,
                    since: None,
                    on_time: None,
                    disks: Vec::new(),
                });
                let unknown =
                    || EngineError::new(ErrorKind::Failed, "what the machine does is not known");
                self.render_machine(space, machine, view.ok_or_else(unknown))
            }
        }
    }
}
