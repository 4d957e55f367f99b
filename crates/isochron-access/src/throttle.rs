//! The pace of logins that may be guesses.
//!
//! A few are free; from then on those of one address for one user come one after the
//! other, and so do all of one address, a little faster. What is counted is tries that
//! began, not failures: tries that are sent at once would all come before the first
//! failure. Whoever comes from elsewhere is not slowed by any of it, so that nobody is
//! locked out by who guesses at their name.
//!
//! A client whose password is [remembered](crate::remembered) is not slowed at all.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The longest that a try waits for its turn; what would wait longer is refused.
const PATIENCE: Duration = Duration::from_secs(10);

/// When tries are forgotten after the last one.
const FORGET: Duration = Duration::from_secs(15 * 60);

/// Of so many whose tries are counted.
const COUNTED: usize = 4096;

/// Whose tries are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Source {
    Address(IpAddr),
    User(IpAddr, String),
}

impl Source {
    /// How many tries are free, and how far apart the others are.
    fn pace(&self) -> (u32, Duration) {
        match self {
            Self::Address(_) => (20, Duration::from_millis(200)),
            Self::User(..) => (5, Duration::from_secs(1)),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Tries {
    count: u32,
    last: Instant,
    /// Before this no other.
    next: Instant,
}

impl Tries {
    fn is_old(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) >= FORGET
    }
}

/// Counts tries.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    tries: Mutex<HashMap<Source, Tries>>,
}

impl Throttle {
    /// When a try from this address for this user may be made; it counts as made.
    ///
    /// # Errors
    /// Not soon; after so long it is worth coming again.
    pub(crate) fn turn(&self, address: IpAddr, user: &str) -> Result<Instant, Duration> {
        let now = Instant::now();
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        let sources = sources(address, user);
        for source in &sources {
            if tries.get(source).is_some_and(|made| made.is_old(now)) {
                tries.remove(source);
            }
        }
        let free_at = |source| match tries.get(source) {
            Some(made) if made.count >= source.pace().0 => made.next.max(now),
            _ => now,
        };
        let turn = sources.iter().map(free_at).fold(now, Instant::max);
        if turn - now > PATIENCE {
            return Err(turn - now - PATIENCE);
        }
        for source in sources {
            make_room(&mut tries, now);
            let next = turn + source.pace().1;
            let made = tries.entry(source).or_insert(Tries {
                count: 0,
                last: now,
                next,
            });
            made.count = made.count.saturating_add(1);
            (made.last, made.next) = (turn, next);
        }
        Ok(turn)
    }

    /// The try was right: the user's are forgotten, the address' others are not.
    pub(crate) fn succeeded(&self, address: IpAddr, user: &str) {
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        let [of_address, of_user] = sources(address, user);
        tries.remove(&of_user);
        if let Some(made) = tries.get_mut(&of_address) {
            made.count = made.count.saturating_sub(1);
        }
    }
}

fn sources(address: IpAddr, user: &str) -> [Source; 2] {
    let address = isochron_net::one_peer(address);
    [
        Source::Address(address),
        Source::User(address, user.to_owned()),
    ]
}

/// Forgets what is old, and when all is new, the older half.
fn make_room(tries: &mut HashMap<Source, Tries>, now: Instant) {
    if tries.len() < COUNTED {
        return;
    }
    tries.retain(|_, made| !made.is_old(now));
    if tries.len() < COUNTED {
        return;
    }
    let mut ages: Vec<_> = tries.values().map(|made| made.last).collect();
    let (_, middle, _) = ages.select_nth_unstable(COUNTED / 2);
    let middle = *middle;
    tries.retain(|_, made| made.last > middle);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]
mod tests {
    use super::*;

    fn at(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    /// How long the next tries wait, in milliseconds.
    fn waits(throttle: &Throttle, address: IpAddr, user: &str, count: usize) -> Vec<u128> {
        let now = Instant::now();
        (0..count)
            .map(|_| throttle.turn(address, user))
            .map(|turn| turn.map_or(u128::MAX, |turn| (turn - now).as_millis()))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_at_one_user_come_one_a_second_and_not_without_end() {
        let throttle = Throttle::default();
        let found = waits(&throttle, at(1), "ada", 17);
        assert_eq!(found[..5], [0; 5]);
        let paced: Vec<_> = (1..=10).map(|s| s * 1000).collect();
        assert_eq!(found[5..15], paced);
        assert_eq!(found[15..], [u128::MAX; 2]);
        let later = throttle.turn(at(1), "ada").unwrap_err();
        assert_eq!(later, Duration::from_secs(1));
        // Neither others here nor she elsewhere.
        assert_eq!(waits(&throttle, at(1), "bob", 1), [0]);
        assert_eq!(waits(&throttle, at(2), "ada", 1), [0]);
        // She was there: it begins anew.
        throttle.succeeded(at(1), "ada");
        assert_eq!(waits(&throttle, at(1), "ada", 1), [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn many_users_of_one_address_are_paced_too() {
        let throttle = Throttle::default();
        for number in 0..20 {
            let user = number.to_string();
            assert_eq!(waits(&throttle, at(1), &user, 1), [0]);
        }
        assert_eq!(waits(&throttle, at(1), "next", 3), [200, 400, 600]);
        assert_eq!(waits(&throttle, at(2), "next", 1), [0]);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(waits(&throttle, at(1), "later", 2), [0, 200]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_counted_is_bounded_and_forgotten() {
        let throttle = Throttle::default();
        for number in 0..u16::MAX {
            let [high, low] = number.to_be_bytes();
            let _ = throttle.turn([10, 1, high, low].into(), "ada");
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert!(throttle.tries.lock().unwrap().len() <= COUNTED);
        // Those who tried last are the last to be forgotten.
        let last = [10, 1, 255, 254].into();
        assert_eq!(waits(&throttle, last, "ada", 6)[5], 2000);
        tokio::time::advance(FORGET + PATIENCE).await;
        assert_eq!(waits(&throttle, last, "ada", 5), [0; 5]);
    }
}
