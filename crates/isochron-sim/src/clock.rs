//! Virtual time. Every call of a port takes a few microseconds of it, so that
//! stamps differ and rise.
//!
//! What waits is woken in one of two ways. A manual clock moves when the test says
//! so. An automatic one follows tokio's own clock: in a test with `start_paused`
//! time jumps to the next timer as soon as nobody has anything else to do, so that
//! deadlines of minutes pass at once, and timers of the engine's own, set with
//! `tokio::time`, agree with this clock.

use std::time::Duration;

use async_trait::async_trait;
use isochron_engine::Clock;
use isochron_engine::ports::Stamp;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::Instant;

/// What one call takes, in microseconds.
const CALL_US: u64 = 10;

/// 2024-01-01T00:00:00Z, in microseconds since 1970.
const START_US: u64 = 1_704_067_200_000_000;

/// The simulated clock.
#[derive(Debug)]
pub struct SimClock {
    /// Microseconds beyond `START_US`, not counting tokio's.
    moved: watch::Sender<u64>,
    /// Tokio's time at the beginning; `None`: manual.
    tokio: Option<Instant>,
}

impl SimClock {
    /// A clock that moves by [`advance`](Self::advance).
    pub fn manual() -> Self {
        Self {
            moved: watch::Sender::new(0),
            tokio: None,
        }
    }

    /// A clock that follows tokio's.
    pub fn auto() -> Self {
        Self {
            tokio: Some(Instant::now()),
            ..Self::manual()
        }
    }

    /// Now, in microseconds since 1970.
    pub fn stamp(&self) -> Stamp {
        let tokio = self.tokio.map_or(Duration::ZERO, |start| start.elapsed());
        START_US + *self.moved.borrow() + micros(tokio)
    }

    /// Moves the time forward and wakes who waited for it.
    pub fn advance(&self, time: Duration) {
        self.moved.send_modify(|moved| *moved += micros(time));
    }

    /// One call's time passes.
    pub(crate) fn tick(&self) {
        self.advance(Duration::from_micros(CALL_US));
    }
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX / 4)
}

#[async_trait]
impl Clock for SimClock {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.stamp()) * 1000)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    async fn sleep(&self, time: Duration) {
        if self.tokio.is_some() {
            return tokio::time::sleep(time).await;
        }
        let mut moved = self.moved.subscribe();
        let until = *moved.borrow() + micros(time);
        // the sender is `self`, so it cannot be gone
        let _ = moved.wait_for(|now| *now >= until).await;
    }
}
