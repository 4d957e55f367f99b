//! How many connections there may be, and who has to go for a new one.
//!
//! A connection is busy while a request of a known caller is carried out, and idle
//! else: before its first request, while a header dribbles in, while a password is
//! doubted. When all places are taken, or all of one peer's, the connection that
//! has been idle longest makes room. So idle connections, however many, never keep
//! anyone out; only if all are busy is a new one refused.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

/// How many and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Connections of one peer at a time: of an IPv4 address, or an IPv6 /64.
    pub per_peer: usize,
    /// For a TLS handshake.
    pub handshake: Duration,
}

impl Default for Limits {
    /// 512 connections, 256 of one peer, 10 s.
    fn default() -> Self {
        Self {
            connections: 512,
            per_peer: 256,
            handshake: Duration::from_secs(10),
        }
    }
}

/// The places of a listener.
#[derive(Debug)]
pub(crate) struct Places {
    limits: Limits,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// By number, which is also the order of arrival.
    places: BTreeMap<u64, Entry>,
}

#[derive(Debug)]
struct Entry {
    peer: IpAddr,
    /// How much is under way on it.
    busy: usize,
    /// Since when it is idle, if it is, as a number that only rises.
    idle: u64,
    evicted: Arc<Notify>,
}

impl Places {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            taken: Mutex::default(),
        }
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // A panic between two map operations leaves the map whole.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from this address; `None` if all are busy.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let peer = one_peer(address);
        let mut taken = self.taken();
        let of_peer = taken.places.values().filter(|e| e.peer == peer).count();
        if of_peer >= self.limits.per_peer.max(1) {
            taken.evict(|entry| entry.peer == peer)?;
        } else if taken.places.len() >= self.limits.connections.max(1) {
            taken.evict(|_| true)?;
        }
        let number = taken.number();
        let evicted = Arc::new(Notify::new());
        let entry = Entry {
            peer,
            busy: 0,
            idle: number,
            evicted: Arc::clone(&evicted),
        };
        taken.places.insert(number, entry);
        Some(Place {
            number,
            evicted,
            places: Arc::clone(self),
        })
    }
}

impl Taken {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Gives up the place that is idle longest among these.
    fn evict(&mut self, among: impl Fn(&Entry) -> bool) -> Option<()> {
        let idle = self
            .places
            .iter()
            .filter(|(_, entry)| entry.busy == 0 && among(entry))
            .map(|(number, entry)| (entry.idle, *number));
        let (_, longest) = idle.min()?;
        self.places.remove(&longest)?.evicted.notify_one();
        Some(())
    }
}

/// The address that stands for all that one owner has: an IPv4 address itself, of an
/// IPv6 address its /64.
pub fn one_peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & (u128::MAX << 64)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// A connection's place; dropped with the connection.
#[derive(Debug)]
pub struct Place {
    number: u64,
    evicted: Arc<Notify>,
    places: Arc<Places>,
}

impl Place {
    /// Ready when the connection has to go.
    pub async fn evicted(&self) {
        self.evicted.notified().await;
    }

    /// The connection is busy, and stays, until all that came back here is dropped.
    pub fn busy(self: &Arc<Self>) -> Busy {
        self.mark(|entry, _| entry.busy += 1);
        Busy(Arc::clone(self))
    }

    fn mark(&self, change: impl FnOnce(&mut Entry, u64)) {
        let mut taken = self.places.taken();
        let now = taken.number();
        // Not there if it is being evicted.
        if let Some(entry) = taken.places.get_mut(&self.number) {
            change(entry, now);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken().places.remove(&self.number);
    }
}

/// A request is being carried out, or its response sent.
#[derive(Debug)]
pub struct Busy(Arc<Place>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.mark(|entry, now| {
            entry.busy = entry.busy.saturating_sub(1);
            entry.idle = now;
        });
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn places(connections: usize, per_peer: usize) -> Arc<Places> {
        Arc::new(Places::new(Limits {
            connections,
            per_peer,
            ..Limits::default()
        }))
    }

    fn is_evicted(place: &Place) -> bool {
        let mut waiting = pin!(place.evicted());
        let mut context = Context::from_waker(Waker::noop());
        waiting.as_mut().poll(&mut context) == Poll::Ready(())
    }

    #[test]
    fn the_longest_idle_makes_room_and_busy_ones_stay() {
        let places = places(3, 3);
        let address = |n| IpAddr::from([10, 0, 0, n]);
        let [a, b, c] = [1, 2, 3].map(|n| Arc::new(places.admit(address(n)).unwrap()));
        // Busy with two things, of which one ends.
        let busy = a.busy();
        drop(a.busy());
        let d = Arc::new(places.admit(address(4)).unwrap());
        assert!(!is_evicted(&a) && is_evicted(&b) && !is_evicted(&c));
        drop(b);
        // A's last request is younger than C's arrival.
        drop(busy);
        let e = Arc::new(places.admit(address(5)).unwrap());
        assert!(is_evicted(&c) && !is_evicted(&a));
        drop(c);
        let busy = [a.busy(), d.busy(), e.busy()];
        assert!(places.admit(address(6)).is_none());
        drop(busy);
        drop(d);
        assert!(places.admit(address(6)).is_some());
        assert!(!is_evicted(&a) && !is_evicted(&e));
    }

    #[test]
    fn one_peer_pushes_out_only_itself() {
        let places = places(8, 2);
        let other = places.admit([10, 0, 0, 1].into()).unwrap();
        let flood: Vec<_> = (0..50u16)
            .map(|n| {
                let address: IpAddr = [0x2001, 0xdb8, 0, 7, 0, 0, 0, n].into();
                places.admit(address).unwrap()
            })
            .collect();
        assert!(!is_evicted(&other));
        let standing = flood.iter().filter(|place| !is_evicted(place)).count();
        assert_eq!(standing, 2);
        drop(flood);
        assert_eq!(places.taken().places.len(), 1);
    }
}
