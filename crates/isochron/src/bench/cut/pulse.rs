//! What a guest's users see: when each of its writes was done, by the host's clock.
//!
//! A guest's own clock stops with it and cannot tell. So the guest program sends a
//! byte on a serial port as soon as a write is on its disks, and a thread here
//! stamps it on arrival. Gaps between two bytes are what somebody waits who waits
//! for the next write.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Now, in microseconds since 1970: QEMU's stamps are on the same clock.
pub fn now_us() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// The writes of all members since it was last cleared.
pub struct Pulses {
    told: Arc<Told>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Default)]
struct Told {
    /// Per member, the stamps of its writes, rising.
    stamps: Mutex<Vec<Vec<u64>>>,
    ending: AtomicBool,
}

impl Told {
    /// Locks for a moment; nothing that holds this lock can panic half way.
    fn stamps(&self) -> MutexGuard<'_, Vec<Vec<u64>>> {
        self.stamps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gaps between writes, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gaps {
    /// The longest of any member.
    pub longest_us: u64,
    /// The median of all.
    pub median_us: u64,
}

impl Pulses {
    /// Listens to these ports, one per member.
    pub fn listen(ports: &[PathBuf]) -> Result<Self> {
        let streams = ports
            .iter()
            .map(|port| {
                let stream = UnixStream::connect(port);
                let stream = stream.with_context(|| format!("the port {}", port.display()))?;
                stream.set_nonblocking(true)?;
                Ok(stream)
            })
            .collect::<Result<Vec<_>>>()?;
        let told = Arc::new(Told {
            stamps: Mutex::new(vec![Vec::new(); streams.len()]),
            ending: AtomicBool::new(false),
        });
        let telling = told.clone();
        let thread = std::thread::Builder::new()
            .name("pulses".to_owned())
            .spawn(move || take_down(streams, &telling))?;
        Ok(Self {
            told,
            thread: Some(thread),
        })
    }

    /// Forgets all but each member's last write.
    pub fn clear(&self) {
        for stamps in self.told.stamps().iter_mut() {
            stamps.drain(..stamps.len().saturating_sub(1));
        }
    }

    /// Whether every member has written since.
    pub fn all_since(&self, since_us: u64) -> bool {
        let stamps = self.told.stamps();
        stamps
            .iter()
            .all(|stamps| stamps.last().is_some_and(|last| *last > since_us))
    }

    /// The gaps that have a part in this time. `None` if a member wrote nothing.
    pub fn gaps(&self, from_us: u64, to_us: u64) -> Option<Gaps> {
        gaps(&self.told.stamps(), from_us, to_us)
    }
}

impl Drop for Pulses {
    fn drop(&mut self) {
        self.told.ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its error is that a guest ended, which is seen elsewhere.
            let _ = thread.join();
        }
    }
}

fn gaps(members: &[Vec<u64>], from_us: u64, to_us: u64) -> Option<Gaps> {
    let mut all = Vec::new();
    for stamps in members {
        let pairs = stamps.windows(2).filter_map(|pair| match pair {
            [a, b] if *b >= from_us && *a <= to_us => Some(b - a),
            _ => None,
        });
        let before = all.len();
        all.extend(pairs);
        if all.len() == before {
            return None;
        }
    }
    all.sort_unstable();
    Some(Gaps {
        longest_us: *all.last()?,
        median_us: *all.get(all.len() / 2)?,
    })
}

fn take_down(mut streams: Vec<UnixStream>, told: &Told) -> io::Result<()> {
    let mut bytes = [0; 4096];
    let wait = Timespec {
        tv_sec: 0,
        tv_nsec: 100_000_000,
    };
    while !told.ending.load(Ordering::Relaxed) {
        let mut watched: Vec<_> = streams
            .iter()
            .map(|stream| PollFd::new(stream, PollFlags::IN))
            .collect();
        poll(&mut watched, Some(&wait))?;
        let now = now_us();
        let ready: Vec<_> = watched.iter().map(|port| port.revents()).collect();
        let mut members = told.stamps();
        for ((stream, ready), stamps) in streams.iter_mut().zip(ready).zip(members.iter_mut()) {
            if ready.is_empty() {
                continue;
            }
            match stream.read(&mut bytes) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                // Bytes that come together were written together, as far as
                // anybody outside can tell.
                Ok(_) => stamps.push(now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_counts_if_a_part_of_it_is_in_the_time() {
        let members = [vec![10, 20, 90, 95], vec![15, 25, 60, 100]];
        let found = gaps(&members, 30, 50).unwrap();
        assert_eq!((found.longest_us, found.median_us), (70, 70));
        let found = gaps(&members, 91, 92).unwrap();
        assert_eq!((found.longest_us, found.median_us), (40, 40));
        assert_eq!(gaps(&[vec![10, 20], vec![]], 0, 100), None);
        assert_eq!(gaps(&members, 200, 300), None);
    }
}
