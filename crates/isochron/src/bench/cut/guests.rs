//! The guests whose cuts are measured: what they do, and who watches their writes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use isochron_lab::ring::{Options as RingOptions, Ring};

use super::pulse::{Gaps, Pulses, now_us};
use super::report::{Measured, Round};
use super::{Load, PageCache};
use crate::judge::Figures;

/// Each quiet time is at least this long.
const QUIET: Duration = Duration::from_millis(300);

/// After so long without a write a guest is given up.
const WRITTEN: Duration = Duration::from_secs(60);

/// For so long the page cache fills before a cut that is to find it dirty.
const DIRTYING: Duration = Duration::from_secs(2);

/// What all guests together write into the host's page cache, in MB/s.
const DIRTY_MBPS: u32 = 64;

/// What guests there are, and what they do.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub members: u8,
    pub load: Load,
    pub cache: PageCache,
}

impl Scenario {
    /// The ring of them.
    pub fn ring(self, memory_mib: u32) -> RingOptions {
        let dirty = self.cache == PageCache::Dirty;
        RingOptions {
            name: "cut".to_owned(),
            count: self.members.into(),
            memory_mib,
            cache: if dirty { "writeback" } else { "none" }.to_owned(),
            dirty_mbps: match dirty {
                true => (DIRTY_MBPS / u32::from(self.members)).clamp(1, 16),
                false => 0,
            },
            sync: !dirty,
            idle: self.load == Load::Idle,
            pulse: true,
            ..RingOptions::default()
        }
    }

    /// What was measured of them.
    pub fn measured(self, how: &'static str, kind: &'static str, rounds: Vec<Round>) -> Measured {
        eprintln!(
            "bench: {} guests, {}, page cache {}, {kind}, {how}: {} rounds",
            self.members,
            self.load.name(),
            self.cache.name(),
            rounds.len()
        );
        Measured {
            members: self.members,
            load: self.load.name(),
            page_cache: self.cache.name(),
            kind,
            how,
            rounds,
        }
    }
}

/// Guests that run, and who watches their writes.
pub struct Guests {
    pub scenario: Scenario,
    ring: Ring,
    pulses: Pulses,
}

impl Guests {
    /// Returns when each has written.
    pub async fn watch(ring: Ring, scenario: Scenario) -> Result<Self> {
        let guests = Self {
            pulses: Pulses::listen(&ring.pulses())?,
            ring,
            scenario,
        };
        guests.written_since(0).await?;
        Ok(guests)
    }

    /// Does something while the guests' writes are watched, after a quiet time in
    /// which they were watched too.
    pub async fn watched(&self, work: impl Future<Output = Result<Figures>>) -> Result<Round> {
        let quiet = match self.scenario.cache {
            PageCache::Clean => QUIET,
            PageCache::Dirty => DIRTYING,
        };
        self.pulses.clear();
        let before = now_us();
        tokio::time::sleep(quiet).await;
        self.written_since(before).await?;
        let (from, began) = (now_us(), Instant::now());
        let usual = self.pulses.gaps(before, from);
        let figures = work.await?;
        let create = began.elapsed();
        let to = now_us();
        self.written_since(to).await?;
        let gaps = self.pulses.gaps(from, to);
        let (usual, gaps) = usual.zip(gaps).context("a guest wrote nothing")?;
        let Gaps { longest_us, .. } = gaps;
        Ok(Round {
            figures,
            create,
            gap_us: longest_us,
            usual_us: usual.median_us,
            usual_longest_us: usual.longest_us,
        })
    }

    /// Does not watch them any more.
    pub fn end(self) -> Ring {
        self.ring
    }

    /// Waits until every member has written again.
    async fn written_since(&self, since_us: u64) -> Result<()> {
        let began = Instant::now();
        while !self.pulses.all_since(since_us) {
            ensure!(
                began.elapsed() < WRITTEN,
                "a guest does not tell of its writes any more; if none ever did, their image is \
                 old: make guest"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}
