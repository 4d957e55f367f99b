//! The guardian: a process that resumes and thaws guests when the daemon does
//! not, because it was killed, hangs or was stopped.
//!
//! ```text
//!             Ready            Arm                deadline, or end of the daemon
//!   receiving ----> watching <------> armed -------------------------------> fired
//!                      |     Disarm                                            |
//!                      +--- end of the daemon ---> exit <--- end of the daemon +
//! ```
//!
//! Where resuming a guest forfeits its memory in a file, it empties that first: a
//! guest that has run on is never started from there.
//!
//! A process of the same kind carries a guest's memory to its file ([`drain`]):
//! that, too, must not end with the daemon.
//!
//! It needs nothing but the sockets it was handed: no file, no configuration. It
//! is in a session of its own and does not end on SIGINT, SIGTERM or SIGHUP; it
//! ends when the daemon's end of its socket closes and nothing is left to do.

mod drain;
mod resume;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recvmsg};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep_until, timeout};

use self::drain::Drain;
use self::resume::resume;
use crate::agent;
use crate::guard::{Answer, Order};
use crate::qmp::Lines;

/// How long QEMU, and then the agent, may take to answer. Until then the sockets
/// stay open, so that nothing that was sent is lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// The guardian's main. Standard input is the daemon's socket pair; it returns
/// when the daemon has closed its end and nothing is left to do.
///
/// # Errors
/// When standard input is not such a socket, or the system refuses the basics.
pub fn run() -> io::Result<()> {
    // Refused only if it leads a session already.
    let _ = rustix::process::setsid();
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // A handler that nobody listens to: the signal no longer ends us.
        let _handlers = [
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        ];
        let stream = StdStream::from(stdin);
        stream.set_nonblocking(true)?;
        Watch::new(UnixStream::from_std(stream)?).keep().await
    })
}

/// A machine and the sockets through which it is helped.
struct Charge {
    name: String,
    resume: Option<UnixStream>,
    thaw: Option<UnixStream>,
}

struct Watch {
    daemon: UnixStream,
    lines: Lines,
    orders: VecDeque<Order>,
    descriptors: VecDeque<OwnedFd>,
    charges: Vec<Charge>,
    armed: Option<Instant>,
    /// What is done once it has fired.
    fired: Option<JoinHandle<()>>,
    drain: Option<Drain>,
    /// Memory that is forfeit once anyone is resumed.
    forfeit: Vec<File>,
}

impl Watch {
    fn new(daemon: UnixStream) -> Self {
        Self {
            daemon,
            lines: Lines::default(),
            orders: VecDeque::new(),
            descriptors: VecDeque::new(),
            charges: Vec::new(),
            armed: None,
            fired: None,
            drain: None,
            forfeit: Vec::new(),
        }
    }

    async fn keep(mut self) -> io::Result<()> {
        loop {
            let deadline = self.armed;
            let order = tokio::select! {
                biased;
                order = self.next_order() => order,
                () = wait_for(deadline) => {
                    self.fire("the deadline passed");
                    continue;
                }
            };
            let answer = match order {
                // An unreadable order is as good as the daemon's end.
                Ok(None) | Err(_) => {
                    if self.armed.is_some() {
                        self.fire("the daemon is gone");
                    }
                    if let Some(work) = self.fired {
                        work.await?;
                    }
                    if let Some(drain) = self.drain {
                        drain.end().await;
                    }
                    return Ok(());
                }
                Ok(Some(Order::Resume(name))) => {
                    let socket = self.descriptor()?;
                    self.charge(name).resume = Some(socket);
                    continue;
                }
                Ok(Some(Order::Thaw(name))) => {
                    let socket = self.descriptor()?;
                    self.charge(name).thaw = Some(socket);
                    continue;
                }
                Ok(Some(Order::Pipe)) => {
                    self.drain = Some(Drain::new(self.any_descriptor()?));
                    continue;
                }
                Ok(Some(Order::File)) => {
                    let file = self.any_descriptor()?;
                    if let Some(drain) = &mut self.drain {
                        drain.start(file)?;
                    }
                    continue;
                }
                Ok(Some(Order::Flow)) => {
                    if let Some(drain) = &mut self.drain {
                        drain.flow();
                    }
                    continue;
                }
                Ok(Some(Order::Discard)) => {
                    if let Some(drain) = &mut self.drain {
                        drain.discard();
                    }
                    continue;
                }
                Ok(Some(Order::Report)) => match self.drain.take() {
                    Some(drain) => drain.end().await,
                    None => Answer::Unwritten("there is no pipe".to_owned()),
                },
                Ok(Some(Order::Forfeit)) => {
                    let memory = self.any_descriptor()?;
                    self.forfeit.push(memory.into());
                    continue;
                }
                Ok(Some(_)) if self.fired.is_some() => Answer::Fired,
                Ok(Some(Order::Ready)) => Answer::Ready,
                Ok(Some(Order::Arm(millis))) => {
                    self.armed = Some(Instant::now() + Duration::from_millis(millis));
                    Answer::Armed
                }
                Ok(Some(Order::Disarm)) => {
                    self.armed = None;
                    self.forfeit.clear();
                    Answer::Disarmed
                }
            };
            let mut line = serde_json::to_vec(&answer)?;
            line.push(b'\n');
            // A daemon that is gone is seen at the next read.
            let _ = self.daemon.write_all(&line).await;
        }
    }

    /// The charge of that name; the orders for one machine follow each other.
    fn charge(&mut self, name: String) -> &mut Charge {
        let at = match self.charges.iter().position(|charge| charge.name == name) {
            Some(at) => at,
            None => {
                self.charges.push(Charge {
                    name,
                    resume: None,
                    thaw: None,
                });
                self.charges.len() - 1
            }
        };
        &mut self.charges[at]
    }

    fn descriptor(&mut self) -> io::Result<UnixStream> {
        UnixStream::from_std(StdStream::from(self.any_descriptor()?))
    }

    fn any_descriptor(&mut self) -> io::Result<OwnedFd> {
        let descriptor = self.descriptors.pop_front();
        descriptor.ok_or_else(|| io::Error::other("a descriptor did not come"))
    }

    /// The daemon's next order; `None` at its end. May be dropped and called
    /// again without losing anything.
    async fn next_order(&mut self) -> io::Result<Option<Order>> {
        loop {
            if let Some(order) = self.orders.pop_front() {
                return Ok(Some(order));
            }
            let (daemon, descriptors) = (&self.daemon, &mut self.descriptors);
            let mut chunk = [0; 4096];
            let count = daemon
                .async_io(Interest::READABLE, || {
                    receive(daemon, &mut chunk, descriptors)
                })
                .await?;
            if count == 0 {
                return Ok(None);
            }
            self.lines.push(&chunk[..count]).map_err(io::Error::other)?;
            let mut wrong = None;
            self.lines.drain(|line| match serde_json::from_slice(line) {
                Ok(order) => self.orders.push_back(order),
                Err(error) => wrong = Some(error),
            });
            if let Some(error) = wrong {
                return Err(error.into());
            }
        }
    }

    /// Resumes and thaws each machine, all in parallel: one that does not
    /// answer keeps no other waiting, nor the daemon's questions.
    fn fire(&mut self, why: &str) {
        self.armed = None;
        eprintln!("isochron guardian: {why}: resuming and thawing guests");
        let charges = std::mem::take(&mut self.charges);
        let forfeit = std::mem::take(&mut self.forfeit);
        self.fired = Some(tokio::spawn(async {
            if !forfeit.is_empty()
                && let Err(error) = empty(forfeit).await
            {
                eprintln!("isochron guardian: memory is not emptied, nobody is resumed: {error}");
                return;
            }
            futures::future::join_all(charges.into_iter().map(help)).await;
        }));
    }
}

/// Empties files on stable storage, and lets them go.
async fn empty(files: Vec<File>) -> io::Result<()> {
    spawn_blocking(move || {
        files.iter().try_for_each(|file| {
            file.set_len(0)?;
            file.sync_all()
        })
    })
    .await?
}

async fn help(charge: Charge) {
    // The sockets are kept open to the end, answered or not.
    let Charge {
        name,
        resume: mut qmp,
        thaw: mut agent,
    } = charge;
    let resumed = async {
        if let Some(qmp) = &mut qmp {
            report(&name, "resume", timeout(PATIENCE, resume(qmp)).await);
        }
    };
    // In the line already when the guest runs again.
    let thawed = async {
        if let Some(agent) = &mut agent {
            let thawed = timeout(PATIENCE, agent::thaw(agent)).await;
            report(&name, "thaw", thawed.map(|done| done.map(|_| Helped::Seen)));
        }
    };
    tokio::join!(resumed, thawed);
}

async fn wait_for(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// What is known of a guest that was told to do something.
enum Helped {
    /// It did.
    Seen,
    /// Its answer went to the daemon, which lives.
    Told,
}

fn report(name: &str, what: &str, outcome: Result<io::Result<Helped>, Elapsed>) {
    match outcome {
        Ok(Ok(Helped::Seen)) => eprintln!("isochron guardian: {name}: {what}: done"),
        Ok(Ok(Helped::Told)) => eprintln!("isochron guardian: {name}: {what}: it was told"),
        Ok(Err(error)) => eprintln!("isochron guardian: {name}: {what}: {error}"),
        Err(_) => eprintln!(
            "isochron guardian: {name}: {what}: no answer within {} s",
            PATIENCE.as_secs()
        ),
    }
}

/// Reads bytes and the descriptors that came with them.
fn receive(
    socket: &UnixStream,
    chunk: &mut [u8],
    descriptors: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    // The kernel does not join what was sent with different descriptors.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(
        socket,
        &mut [io::IoSliceMut::new(chunk)],
        &mut ancillary,
        flags,
    )?;
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::Error::other("a descriptor was lost on its way"));
    }
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    Ok(received.bytes)
}
