//! `isochron serve --trace FILE`: what the daemon did when, for people with an eye
//! on a cut: every step of the engine's and every QMP command, per machine, on one
//! time line with QEMU's own stamps.
//!
//! What holds:
//! - While guests stand still for a cut nothing is written. Spans go to memory; a
//!   thread of its own writes them once no window is open.
//! - The file is whole after every write, also if we are killed later.
//! - Memory is bounded: what exceeds [`MOST`] between two writes is counted and
//!   dropped.

mod chrome;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

/// The most that is kept between two writes.
const MOST: usize = 1 << 20;

/// Room that is there from the beginning, so that a window need not make it.
const ROOM: usize = 1 << 14;

/// Between two writes.
const EVERY: Duration = Duration::from_millis(300);

/// The engine's span for the time in which guests stand still.
const WINDOW: &str = "window";

/// The driver's span for a command.
const COMMAND: &str = "qmp";

/// Whose line something is on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Line {
    /// The machine's name; the engine's own lines have none.
    machine: Option<String>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
enum Kind {
    /// A step of the engine's.
    #[default]
    Step,
    /// A QMP command, from its sending to its answer.
    Command,
    /// An event of QEMU's, by its own stamp.
    Event,
}

/// Something that was, in nanoseconds since the recorder began.
#[derive(Debug)]
struct Record {
    line: Line,
    /// Of the line's rows, none of which holds two things at once.
    row: usize,
    name: String,
    began: i64,
    /// `None`: it has no duration.
    took: Option<u64>,
}

#[derive(Default)]
struct State {
    records: Vec<Record>,
    dropped: u64,
    /// Which rows of a line are in use.
    rows: HashMap<Line, Vec<bool>>,
    windows: usize,
    ending: bool,
}

struct Shared {
    began: Instant,
    /// The same moment in microseconds since 1970, as QEMU counts.
    began_us: u64,
    state: Mutex<State>,
    ending: Condvar,
}

impl Shared {
    /// Locks for a moment; nothing that holds this lock can panic half way.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> i64 {
        i64::try_from(self.began.elapsed().as_nanos()).unwrap_or(i64::MAX)
    }
}

/// Takes spans and events of [`isochron_engine::TIMELINE`] down.
pub struct Timeline(Arc<Shared>);

/// Writes what was taken down; [`finish`](Self::finish) writes the rest.
pub struct Recorder {
    shared: Arc<Shared>,
    thread: JoinHandle<io::Result<()>>,
}

impl Recorder {
    /// Begins a new trace in this file.
    pub fn begin(path: &Path) -> io::Result<(Self, Timeline)> {
        let file = File::create(path)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let shared = Arc::new(Shared {
            began: Instant::now(),
            began_us: now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(u64::MAX)),
            state: Mutex::new(State {
                records: Vec::with_capacity(ROOM),
                ..State::default()
            }),
            ending: Condvar::new(),
        });
        let mut trace = chrome::Trace::begin(file, shared.began_us)?;
        let writer = shared.clone();
        let thread = std::thread::Builder::new()
            .name("trace".to_owned())
            .spawn(move || {
                loop {
                    let (records, dropped, ending) = next(&writer);
                    trace.write(&records, dropped)?;
                    if ending {
                        return Ok(());
                    }
                }
            })?;
        Ok((
            Self {
                shared: shared.clone(),
                thread,
            },
            Timeline(shared),
        ))
    }

    /// Writes what is left.
    pub fn finish(self) -> io::Result<()> {
        self.shared.state().ending = true;
        self.shared.ending.notify_all();
        self.thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the trace's writer failed")))
    }
}

/// Waits until it is time to write and no window is open, or for the end.
fn next(shared: &Shared) -> (Vec<Record>, u64, bool) {
    let mut state = shared.state();
    let began = Instant::now();
    while !state.ending && (began.elapsed() < EVERY || state.windows > 0) {
        let waited = shared.ending.wait_timeout(state, EVERY);
        state = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
    let records = std::mem::replace(&mut state.records, Vec::with_capacity(ROOM));
    (records, std::mem::take(&mut state.dropped), state.ending)
}

/// A span that is open.
struct Open {
    line: Line,
    row: usize,
    name: String,
    began: i64,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Timeline {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let name = attributes.metadata().name();
        let line = Line {
            machine: fields.machine,
            kind: match name {
                COMMAND => Kind::Command,
                _ => Kind::Step,
            },
        };
        let mut state = self.0.state();
        if name == WINDOW {
            state.windows += 1;
        }
        let rows = state.rows.entry(line.clone()).or_default();
        let row = rows.iter().position(|used| !used).unwrap_or(rows.len());
        match rows.get_mut(row) {
            Some(used) => *used = true,
            None => rows.push(true),
        }
        drop(state);
        span.extensions_mut().insert(Open {
            line,
            row,
            name: fields.what.unwrap_or_else(|| name.to_owned()),
            began: self.0.now(),
        });
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let now = self.0.now();
        let Some(span) = context.span(&id) else {
            return;
        };
        let Some(open) = span.extensions_mut().remove::<Open>() else {
            return;
        };
        let mut state = self.0.state();
        if span.metadata().name() == WINDOW {
            state.windows -= 1;
        }
        if let Some(used) = state
            .rows
            .get_mut(&open.line)
            .and_then(|rows| rows.get_mut(open.row))
        {
            *used = false;
        }
        state.keep(Record {
            line: open.line,
            row: open.row,
            name: open.name,
            began: open.began,
            took: Some(now.abs_diff(open.began)),
        });
    }

    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let (Some(name), Some(stamp)) = (fields.what, fields.stamp) else {
            return;
        };
        let since = stamp.cast_signed() - self.0.began_us.cast_signed();
        self.0.state().keep(Record {
            line: Line {
                machine: fields.machine,
                kind: Kind::Event,
            },
            row: 0,
            name,
            began: since.saturating_mul(1000),
            took: None,
        });
    }
}

impl State {
    fn keep(&mut self, record: Record) {
        match self.records.len() < MOST {
            true => self.records.push(record),
            false => self.dropped += 1,
        }
    }
}

/// The fields that the timeline's spans and events have.
#[derive(Default)]
struct Fields {
    machine: Option<String>,
    /// A command or an event.
    what: Option<String>,
    stamp: Option<u64>,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "machine" {
            self.machine = Some(format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "machine" => self.machine = Some(value.to_owned()),
            "command" | "event" => self.what = Some(value.to_owned()),
            _ => {}
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "stamp" {
            self.stamp = Some(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use isochron_engine::TIMELINE;
    use serde_json::Value;
    use tracing::subscriber::with_default;
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    fn events(path: &Path) -> Vec<Value> {
        let trace: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        trace["traceEvents"].as_array().unwrap().clone()
    }

    /// The file holds what was, is whole at every moment, and what is at the same
    /// time on the same line has a row of its own.
    #[test]
    fn spans_and_events_are_taken_down() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace.json");
        let (recorder, timeline) = Recorder::begin(&path).unwrap();
        let began_us = timeline.0.began_us;
        assert_eq!(events(&path).len(), 0);
        with_default(tracing_subscriber::registry().with(timeline), || {
            let window = tracing::trace_span!(target: TIMELINE, parent: None, "window");
            let command = |name: &str| tracing::trace_span!(target: TIMELINE, "qmp", machine = "web", command = name);
            let (a, b) = (command("a"), command("b"));
            drop(a);
            let c = command("c");
            drop((b, c));
            tracing::trace!(target: TIMELINE, machine = "web", event = "STOP", stamp = began_us + 5);
            std::thread::sleep(EVERY * 3);
            assert_eq!(events(&path).len(), 0, "nothing while a window is open");
            drop(window);
        });
        recorder.finish().unwrap();
        let events = events(&path);
        let of = |name: &str| events.iter().find(|event| event["name"] == name).unwrap();
        assert_eq!(of("window")["ph"], "X");
        assert_eq!(of("STOP")["ts"], 5.0);
        assert_eq!(of("a")["tid"], of("c")["tid"]);
        assert_ne!(of("a")["tid"], of("b")["tid"]);
        assert_eq!(of("a")["pid"], of("STOP")["pid"]);
        assert_ne!(of("a")["pid"], of("window")["pid"]);
        let named = events
            .iter()
            .filter(|event| event["name"] == "process_name");
        let names: Vec<_> = named.map(|event| &event["args"]["name"]).collect();
        assert!(
            names.contains(&&"web".into()) && names.len() == 2,
            "{names:?}"
        );
    }
}
