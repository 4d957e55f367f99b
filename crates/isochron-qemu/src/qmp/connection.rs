//! One QMP connection: a task reads, a task writes, and everyone else sends
//! numbered commands and awaits their answers.
//!
//! What holds:
//! - Commands are written whole (but for one that is [loaded](Connection::load)) and
//!   in the order of [`Connection::send`], also when their answers are not awaited any
//!   more.
//! - QEMU writes an event before the answer to the command that caused it, and
//!   the reader takes both in that order: when an answer is there, the
//!   [`Pulse`] already shows its events.
//! - An answer that nobody awaits is dropped. A torn line is skipped.

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isochron_engine::TIMELINE;
use qapi::{Command, ErrorClass, qmp};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::io::Interest;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::Span;

use super::Features;
use super::wire::{Lines, Message, parse};
use crate::error::QmpError;

/// The number under which the greeting is awaited.
const GREETING: u64 = 0;

/// What QEMU said of itself last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pulse {
    /// Stamp of the last STOP event; 0 if there was none on this connection.
    pub(crate) stop: u64,
    /// Stamp of the last RESUME event; 0 if there was none on this connection.
    pub(crate) resume: u64,
    /// Events of any kind so far.
    pub(crate) events: u64,
}

type Outcome = Result<Result<Box<RawValue>, (ErrorClass, String)>, QmpError>;

struct Outgoing {
    line: Vec<u8>,
    descriptor: Option<OwnedFd>,
}

impl Outgoing {
    fn of(bytes: &[u8]) -> Self {
        Self {
            line: bytes.to_vec(),
            descriptor: None,
        }
    }
}

struct Shared {
    /// The machine's name, for the timeline.
    machine: String,
    /// Who awaits which answer; `Err` once the connection is of no use.
    pending: Mutex<Result<HashMap<u64, oneshot::Sender<Outcome>>, QmpError>>,
    pulse: watch::Sender<Pulse>,
}

impl Shared {
    /// Locks for a moment; no code that holds this lock can panic half way.
    fn pending(&self) -> MutexGuard<'_, Result<HashMap<u64, oneshot::Sender<Outcome>>, QmpError>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self, why: QmpError) {
        let mut pending = self.pending();
        if let Ok(waiting) = std::mem::replace(&mut *pending, Err(why.clone())) {
            drop(pending);
            for waiter in waiting.into_values() {
                // Whoever does not await any more need not hear of it.
                let _ = waiter.send(Err(why.clone()));
            }
            self.pulse.send_modify(|_| ());
        }
    }

    fn take(&self, line: &[u8]) {
        let (id, outcome) = match parse(line) {
            Message::Event { name, stamp } => {
                tracing::trace!(target: TIMELINE, machine = &*self.machine, event = &*name, stamp);
                self.pulse.send_modify(|pulse| {
                    match &*name {
                        "STOP" => pulse.stop = stamp,
                        "RESUME" => pulse.resume = stamp,
                        _ => (),
                    }
                    pulse.events += 1;
                });
                return;
            }
            Message::Greeting => (GREETING, Ok(RawValue::NULL.to_owned())),
            Message::Answer { id, outcome } => (id, outcome),
            Message::Foreign => return,
        };
        let waiter = self
            .pending()
            .as_mut()
            .ok()
            .and_then(|waiting| waiting.remove(&id));
        if let Some(waiter) = waiter {
            // Whoever does not await any more need not hear of it.
            let _ = waiter.send(Ok(outcome));
        }
    }
}

/// A connection to a QEMU, past the greeting.
pub(crate) struct Connection {
    stream: Arc<UnixStream>,
    shared: Arc<Shared>,
    outgoing: mpsc::UnboundedSender<Outgoing>,
    next: AtomicU64,
    answer: Duration,
    tasks: [JoinHandle<()>; 2],
    features: Features,
}

impl Drop for Connection {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Connection {
    /// Connects, negotiates and asks what QEMU can do. `NotFound` and
    /// `ConnectionRefused` are the system's words for "no QEMU is there"; a socket that
    /// somebody else holds is a timeout, since a QMP socket serves one client at a time.
    pub(crate) async fn open(path: &Path, machine: &str, answer: Duration) -> io::Result<Self> {
        let mut connection = Self::negotiate(path, machine, answer).await?;
        let features = Features::ask(&connection).await;
        connection.features = features.map_err(|error| not_served(path, &error))?;
        Ok(connection)
    }

    /// The same, without the questions.
    pub(crate) async fn negotiate(
        path: &Path,
        machine: &str,
        answer: Duration,
    ) -> io::Result<Self> {
        let busy = || {
            io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "no greeting from the QMP socket {} within {} ms: another client holds it, \
                     or QEMU does not answer",
                    path.display(),
                    answer.as_millis()
                ),
            )
        };
        let stream = match timeout(answer, UnixStream::connect(path)).await {
            Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => return Err(busy()),
            Ok(connected) => Arc::new(connected?),
            Err(_) => return Err(busy()),
        };
        let (greeted, greeting) = oneshot::channel();
        let shared = Arc::new(Shared {
            machine: machine.to_owned(),
            pending: Mutex::new(Ok(HashMap::from([(GREETING, greeted)]))),
            pulse: watch::Sender::new(Pulse::default()),
        });
        let (outgoing, queue) = mpsc::unbounded_channel();
        let tasks = [
            tokio::spawn(read(stream.clone(), shared.clone())),
            tokio::spawn(write(stream.clone(), queue, shared.clone())),
        ];
        let connection = Self {
            stream,
            shared,
            outgoing,
            next: AtomicU64::new(GREETING + 1),
            answer,
            tasks,
            features: Features::default(),
        };
        match timeout(answer, greeting).await {
            Ok(Ok(Ok(_))) => (),
            Ok(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::ConnectionRefused,
                    format!("{} was closed before it greeted", path.display()),
                ));
            }
            Err(_) => return Err(busy()),
        }
        let negotiated = connection
            .run(&qmp::qmp_capabilities { enable: None })
            .await;
        negotiated.map_err(|error| not_served(path, &error))?;
        Ok(connection)
    }

    /// What this QEMU can do.
    pub(crate) fn features(&self) -> Features {
        self.features
    }

    /// Whether it is of no use any more: also where the reader has not come to
    /// its end yet.
    pub(crate) fn is_closed(&self) -> bool {
        let mut watched = [PollFd::new(&*self.stream, PollFlags::RDHUP)];
        let hung_up = poll(&mut watched, Some(&Timespec::default())).is_ok_and(|ready| ready > 0);
        hung_up || self.shared.pending().is_err()
    }

    /// The last stop, the last resume, and a way to wait for any event.
    pub(crate) fn pulse(&self) -> watch::Receiver<Pulse> {
        self.shared.pulse.subscribe()
    }

    /// The socket itself, for the guardian and for the peer's identity.
    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Sends a command and waits for its answer within the usual time.
    pub(crate) async fn run<C: Command>(&self, command: &C) -> Result<C::Ok, QmpError> {
        self.send(command).answer(self.answer).await
    }

    /// Sends a command and reads its answer into a type that asks for less than
    /// the schema's.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        command: &impl Command,
    ) -> Result<T, QmpError> {
        self.send(command).answer(self.answer).await
    }

    /// The same for an answer of unusual size.
    pub(crate) async fn ask_much<T: DeserializeOwned>(
        &self,
        command: &impl Command,
    ) -> Result<T, QmpError> {
        self.send(command).answer(self.answer * 5).await
    }

    /// Sends a command together with a descriptor.
    pub(crate) async fn run_with<C: Command>(
        &self,
        command: &C,
        descriptor: OwnedFd,
    ) -> Result<C::Ok, QmpError> {
        self.queue(command, Some(descriptor))
            .answer(self.answer)
            .await
    }

    /// Sends a command at once; its answer may be awaited.
    pub(crate) fn send(&self, command: &impl Command) -> Pending<'_> {
        self.queue(command, None)
    }

    fn queue<C: Command>(&self, command: &C, descriptor: Option<OwnedFd>) -> Pending<'_> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let line = line(command, id);
        self.expect(id, C::NAME, line.map(|line| Outgoing { line, descriptor }))
    }

    fn put(&self, outgoing: Outgoing) -> Result<(), QmpError> {
        let ended = |_| QmpError::Broken("its writer ended".to_owned());
        self.outgoing.send(outgoing).map_err(ended)
    }

    /// Sends a command but for its end, which is left to [`fire`](Self::fire): QEMU
    /// has read the rest by then. Nothing else may be sent meanwhile.
    pub(crate) fn load<C: Command>(&self, command: &C) -> Result<Loaded, QmpError> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let loaded = Loaded {
            id,
            line: line(command, id)?,
        };
        self.put(Outgoing::of(loaded.halves().0))?;
        Ok(loaded)
    }

    /// Sends the end of a command.
    pub(crate) fn fire<C: Command>(&self, loaded: &Loaded) -> Pending<'_> {
        self.expect(loaded.id, C::NAME, Ok(Outgoing::of(loaded.halves().1)))
    }

    /// Takes back the beginning of a command: QEMU's parser starts afresh on this
    /// byte, and complains to nobody.
    pub(crate) fn unload(&self) {
        // Without a writer nobody reads on either.
        let _ = self.put(Outgoing::of(&[0xff]));
    }

    fn expect(
        &self,
        id: u64,
        command: &'static str,
        outgoing: Result<Outgoing, QmpError>,
    ) -> Pending<'_> {
        let step = tracing::trace_span!(
            target: TIMELINE,
            parent: None,
            "qmp",
            machine = &*self.shared.machine,
            command
        );
        let (waiter, outcome) = oneshot::channel();
        let sent = outgoing.and_then(|outgoing| {
            match &mut *self.shared.pending() {
                Ok(waiting) => waiting.insert(id, waiter),
                Err(why) => return Err(why.clone()),
            };
            self.put(outgoing)
        });
        Pending {
            connection: self,
            id,
            command,
            _step: if sent.is_ok() { step } else { Span::none() },
            outcome: sent.map(|()| outcome),
        }
    }
}

fn not_served(path: &Path, error: &QmpError) -> io::Error {
    let kind = match error {
        QmpError::Timeout { .. } => io::ErrorKind::TimedOut,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(
        kind,
        format!("{} does not serve QMP: {error}", path.display()),
    )
}

/// A command of which QEMU has all but the end.
pub(crate) struct Loaded {
    id: u64,
    line: Vec<u8>,
}

impl Loaded {
    /// Whether it is this command.
    pub(crate) fn is(&self, command: &impl Command) -> bool {
        line(command, self.id).is_ok_and(|line| line == self.line)
    }

    /// What is sent before, and the last brace and the end of the line.
    fn halves(&self) -> (&[u8], &[u8]) {
        self.line.split_at(self.line.len().saturating_sub(2))
    }
}

#[derive(Serialize)]
struct Execute<'a, C> {
    execute: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<&'a C>,
    id: u64,
}

/// A command's line. QEMU reads its monitor byte by byte, so that short is fast: of a
/// command without arguments not even their absence is told.
fn line<C: Command>(command: &C, id: u64) -> Result<Vec<u8>, QmpError> {
    let said = Execute {
        execute: C::NAME,
        arguments: (size_of::<C>() > 0).then_some(command),
        id,
    };
    let mut line = Vec::with_capacity(128);
    serde_json::to_writer(&mut line, &said).map_err(|error| QmpError::Broken(error.to_string()))?;
    line.push(b'\n');
    Ok(line)
}

/// A command that was sent.
pub(crate) struct Pending<'a> {
    connection: &'a Connection,
    id: u64,
    command: &'static str,
    outcome: Result<oneshot::Receiver<Outcome>, QmpError>,
    /// On the timeline, until it is answered or not awaited any more.
    _step: Span,
}

impl Pending<'_> {
    /// Waits for the answer.
    pub(crate) async fn answer<T: DeserializeOwned>(
        mut self,
        limit: Duration,
    ) -> Result<T, QmpError> {
        let command = self.command;
        let outcome = self.outcome.as_mut().map_err(|why| why.clone())?;
        let outcome = match timeout(limit, outcome).await {
            Ok(Ok(outcome)) => outcome?,
            Ok(Err(_)) => return Err(QmpError::Broken("its reader ended".to_owned())),
            Err(_) => {
                return Err(QmpError::Timeout {
                    command,
                    after: limit,
                });
            }
        };
        match outcome {
            Ok(result) => serde_json::from_str(result.get()).map_err(|error| QmpError::Garbled {
                command,
                detail: error.to_string(),
            }),
            Err((class, text)) => Err(QmpError::Refused {
                command,
                class,
                text,
            }),
        }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Ok(waiting) = &mut *self.connection.shared.pending() {
            waiting.remove(&self.id);
        }
    }
}

async fn read(stream: Arc<UnixStream>, shared: Arc<Shared>) {
    let mut lines = Lines::default();
    let mut chunk = vec![0; 64 << 10];
    let why = loop {
        if let Err(error) = stream.readable().await {
            break QmpError::Broken(error.to_string());
        }
        match stream.try_read(&mut chunk) {
            Ok(0) => break QmpError::Gone,
            Ok(count) => {
                if let Err(error) = lines.push(&chunk[..count]) {
                    break QmpError::Broken(error);
                }
                lines.drain(|line| shared.take(line));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => (),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => break QmpError::Gone,
            Err(error) => break QmpError::Broken(error.to_string()),
        }
    };
    shared.close(why);
}

async fn write(
    stream: Arc<UnixStream>,
    mut queue: mpsc::UnboundedReceiver<Outgoing>,
    shared: Arc<Shared>,
) {
    while let Some(Outgoing {
        line,
        mut descriptor,
    }) = queue.recv().await
    {
        let mut rest = &line[..];
        while !rest.is_empty() {
            let sent = stream
                .async_io(Interest::WRITABLE, || match &descriptor {
                    Some(descriptor) => send_with(&stream, rest, descriptor.as_fd()),
                    None => stream.try_write(rest),
                })
                .await;
            match sent {
                Ok(count) => {
                    rest = &rest[count..];
                    descriptor = None;
                }
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    return shared.close(QmpError::Gone);
                }
                Err(error) => return shared.close(QmpError::Broken(error.to_string())),
            }
        }
    }
}

/// Sends bytes with a descriptor as ancillary data, without waiting.
pub(crate) fn send_with(
    socket: impl AsFd,
    bytes: &[u8],
    descriptor: BorrowedFd<'_>,
) -> io::Result<usize> {
    let descriptors = [descriptor];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    Ok(sendmsg(
        socket,
        &[io::IoSlice::new(bytes)],
        &mut ancillary,
        flags,
    )?)
}
