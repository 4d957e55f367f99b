//! `isochron bench soak`: an hour of snapshots taken, applied and destroyed at random,
//! of several collections at once, under load.
//!
//! Every snapshot of a ring of guests is judged by the oracle, and after every
//! operation the ring must go on. Now and then everything stands back: a snapshot of
//! all rings at one instant is judged, all snapshots are destroyed, and what there is
//! is counted. Files, records, descriptors and processes must be what they were at the
//! first count, and the daemon's memory may not have grown by more than
//! [`MEMORY_KIB`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use futures::future::try_join_all;
use isochron_api::dto::{NewCollection, Snapshot, SnapshotKind};
use isochron_engine::ports::Store;
use isochron_lab::kit::Kit;
use isochron_lab::ring::Ring;
use isochron_store::SqliteStore;
use serde::Serialize;

use crate::exit::Failure;
use crate::judge::{self, Figures};
use crate::output::{self, Table};
use crate::stage::{self, Stage, blocking};

pub const EXAMPLES: &str = "\
Examples:
  isochron bench soak                       # an hour, of two rings
  isochron bench soak --minutes 5 --rings 2,2 --seed 7
  isochron bench soak --minutes 480 --json > soak.json

It needs the guests that `make guest` prepares. It fails at the first snapshot that is
no one instant, guest that does not go on, or thing that is left over.";

/// What to do.
#[derive(Args, Debug)]
pub struct SoakOptions {
    /// For how long
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    minutes: u64,
    /// Rings, by their number of guests
    #[arg(long, value_name = "COUNT,...", value_delimiter = ',', default_values_t = [3, 2],
        value_parser = clap::value_parser!(u8).range(2..=16))]
    rings: Vec<u8>,
    /// What the choices follow from [default: the time]
    #[arg(long)]
    seed: Option<u64>,
    /// Where to make the temporary directory [default: TMPDIR, else /var/tmp]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// By how much the daemon's memory may grow between the first count and any later.
const MEMORY_KIB: u64 = 16 * 1024;

/// Operations of each ring between two counts.
const BETWEEN: u32 = 12;

/// Snapshots that a ring has at most.
const KEPT: usize = 3;

/// How long what is left of an operation may take to go.
const REST: Duration = Duration::from_secs(60);

/// What was done.
#[derive(Debug, Default, Serialize)]
struct Done {
    taken: u64,
    applied: u64,
    destroyed: u64,
    /// Longest pause of a guest, by QEMU's stamps.
    longest_pause_us: u64,
}

/// What there is when nothing is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Count {
    /// Files and directories of the stage, logs left out.
    files: usize,
    /// Records by the first part of their keys, jobs left out: they end by themselves.
    records: BTreeMap<String, usize>,
    /// The daemon's open descriptors.
    descriptors: usize,
    /// The daemon's threads and other processes' of the stage.
    processes: usize,
}

/// One count.
#[derive(Debug, Serialize)]
struct Milestone {
    minute: f64,
    #[serde(flatten)]
    count: Count,
    /// The daemon's resident memory.
    memory_kib: u64,
}

#[derive(Debug, Serialize)]
struct Summary {
    seed: u64,
    minutes: f64,
    #[serde(flatten)]
    done: Done,
    counts: Vec<Milestone>,
}

/// Does it, prints, and fails if what must hold did not.
pub fn run(options: &SoakOptions, json: bool) -> Result<(), Failure> {
    let kit = Kit::load().map_err(Failure::usage)?;
    let seed = options.seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(1, |now| now.as_secs())
    });
    eprintln!("bench: seed {seed}");
    let summary = stage::perform(soak(options, &kit, seed))?;
    if json {
        return output::json(&summary);
    }
    let mut table = Table::new([
        "minute",
        "files",
        "records",
        "descriptors",
        "processes",
        "memory",
    ]);
    for milestone in &summary.counts {
        let count = &milestone.count;
        table.row([
            format!("{:.1}", milestone.minute),
            count.files.to_string(),
            count.records.values().sum::<usize>().to_string(),
            count.descriptors.to_string(),
            count.processes.to_string(),
            format!("{:.1} MiB", milestone.memory_kib as f64 / 1024.0),
        ]);
    }
    output::text(&format!("{table}\n"))?;
    let Done {
        taken,
        applied,
        destroyed,
        longest_pause_us,
    } = summary.done;
    output::text(&format!(
        "In {:.1} minutes {taken} snapshots were taken and judged, {applied} applied, \
         {destroyed} destroyed; the longest pause of a guest was {:.1} ms.\n\
         Nothing was lost, nothing is left over.\n",
        summary.minutes,
        longest_pause_us as f64 / 1000.0
    ))
}

async fn soak(options: &SoakOptions, kit: &Kit, seed: u64) -> Result<Summary> {
    let stage = Stage::open(options.dir.as_deref()).await?;
    let mut rings = Vec::new();
    for (index, count) in options.rings.iter().enumerate() {
        let name = format!("ring{index}");
        eprintln!("bench: starting {name} of {count} guests");
        let ring = stage.ring(kit, &name, (*count).into()).await?;
        let members = ring.members.iter().map(|m| m.definition.name.clone());
        collect(&stage, &name, members.collect()).await?;
        rings.push(Soaked {
            stage: &stage,
            name,
            ring,
            kept: Vec::new(),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index as u64 | 1,
            done: Done::default(),
        });
    }
    let all = rings.iter().flat_map(|soaked| &soaked.ring.members);
    collect(
        &stage,
        "all",
        all.map(|m| m.definition.name.clone()).collect(),
    )
    .await?;

    let began = Instant::now();
    let limit = Duration::from_secs(options.minutes * 60);
    let mut counts: Vec<Milestone> = Vec::new();
    let mut done = Done::default();
    while counts.len() < 2 || began.elapsed() < limit {
        try_join_all(rings.iter_mut().map(Soaked::some)).await?;
        whole(&stage, &rings, &mut done)
            .await
            .context("a snapshot of all rings")?;
        for soaked in &mut rings {
            soaked.clear().await?;
        }
        let first = counts.first().map(|milestone| &milestone.count);
        let mut milestone = count(&stage, first).await?;
        milestone.minute = began.elapsed().as_secs_f64() / 60.0;
        eprintln!(
            "bench: minute {:.1}: {} snapshots, {} KiB",
            milestone.minute,
            done.taken + rings.iter().map(|soaked| soaked.done.taken).sum::<u64>(),
            milestone.memory_kib
        );
        if let Some(first) = counts.first() {
            let growth = milestone.memory_kib.saturating_sub(first.memory_kib);
            ensure!(
                growth <= MEMORY_KIB,
                "the daemon's memory grew by {growth} KiB"
            );
        }
        counts.push(milestone);
    }
    for soaked in &rings {
        done.taken += soaked.done.taken;
        done.applied += soaked.done.applied;
        done.destroyed += soaked.done.destroyed;
        done.longest_pause_us = done.longest_pause_us.max(soaked.done.longest_pause_us);
    }
    drop(rings);
    stage.close().await?;
    Ok(Summary {
        seed,
        minutes: began.elapsed().as_secs_f64() / 60.0,
        done,
        counts,
    })
}

async fn collect(stage: &Stage, name: &str, members: Vec<String>) -> Result<()> {
    let new = NewCollection {
        name: name.to_owned(),
        id: None,
        kind: Default::default(),
        members,
    };
    stage.client.create_collection(&new).await?;
    Ok(())
}

/// A snapshot of all rings at one instant, judged and destroyed.
async fn whole(stage: &Stage, rings: &[Soaked<'_>], done: &mut Done) -> Result<()> {
    let snapshot = take(stage, "all", SnapshotKind::Recovery, done).await?;
    for soaked in rings {
        is_one_instant(&soaked.ring, &snapshot).await?;
    }
    destroy(stage, &snapshot, done).await
}

async fn take(
    stage: &Stage,
    collection: &str,
    kind: SnapshotKind,
    done: &mut Done,
) -> Result<Snapshot> {
    let snapshot = stage.take_snapshot(collection, kind).await?;
    let stands = judge::stands_of(std::slice::from_ref(&snapshot))?;
    let figures = Figures::of(&stands).context("no member ran")?;
    ensure!(
        figures.has_instant(),
        "there was no common instant: {:?}",
        snapshot.cut
    );
    done.taken += 1;
    let longest = figures.pauses_us.iter().copied().max().unwrap_or(0);
    done.longest_pause_us = done.longest_pause_us.max(longest);
    Ok(snapshot)
}

async fn is_one_instant(ring: &Ring, snapshot: &Snapshot) -> Result<()> {
    let verdict = judge::oracle(ring, std::slice::from_ref(snapshot)).await?;
    ensure!(verdict.is_consistent(), "{}: {verdict}", snapshot.name);
    Ok(())
}

async fn destroy(stage: &Stage, snapshot: &Snapshot, done: &mut Done) -> Result<()> {
    stage.destroy_snapshot(snapshot).await?;
    done.destroyed += 1;
    Ok(())
}

/// A ring to which things are done.
struct Soaked<'a> {
    stage: &'a Stage,
    name: String,
    ring: Ring,
    kept: Vec<Snapshot>,
    random: u64,
    done: Done,
}

impl Soaked<'_> {
    /// From 0 to below this (xorshift64*, Vigna 2016).
    fn below(&mut self, below: usize) -> usize {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below
    }

    /// Some operations, one after the other.
    async fn some(&mut self) -> Result<()> {
        for _ in 0..BETWEEN {
            let name = self.name.clone();
            self.one().await.with_context(|| name.clone())?;
            stage::progress(&self.ring, 1)
                .await
                .with_context(|| format!("{name} does not go on"))?;
        }
        Ok(())
    }

    async fn one(&mut self) -> Result<()> {
        let choice = self.below(10);
        if self.kept.is_empty() || (choice < 5 && self.kept.len() < KEPT) {
            let kind = match self.below(2) {
                0 => SnapshotKind::Standard,
                _ => SnapshotKind::Recovery,
            };
            let snapshot = take(self.stage, &self.name, kind, &mut self.done).await?;
            is_one_instant(&self.ring, &snapshot).await?;
            self.kept.push(snapshot);
            return Ok(());
        }
        let index = self.below(self.kept.len());
        if choice.is_multiple_of(2) {
            let id = self.kept[index].id.to_string();
            let job = self.stage.client.apply_snapshot(&id).await?;
            self.stage
                .completed(job)
                .await
                .context("applying a snapshot")?;
            self.done.applied += 1;
            return Ok(());
        }
        let snapshot = self.kept.swap_remove(index);
        // What it froze is where it was, or has moved with a merge.
        let snapshot = self.stage.snapshot(&snapshot.id.to_string()).await?;
        is_one_instant(&self.ring, &snapshot).await?;
        destroy(self.stage, &snapshot, &mut self.done).await
    }

    /// Destroys what is left.
    async fn clear(&mut self) -> Result<()> {
        for snapshot in std::mem::take(&mut self.kept) {
            destroy(self.stage, &snapshot, &mut self.done).await?;
        }
        Ok(())
    }
}

/// Counts what there is, and waits until it is what it was at first.
async fn count(stage: &Stage, first: Option<&Count>) -> Result<Milestone> {
    let began = Instant::now();
    let daemon = stage.daemon_id().context("the daemon has ended")?;
    loop {
        // A connection of ours is one more descriptor of the daemon's.
        stage.client.machines().await?;
        let path = stage.path().to_owned();
        let files = blocking(move || files(&path)).await?;
        let found = Count {
            files,
            records: records(stage.path()).await?,
            descriptors: std::fs::read_dir(format!("/proc/{daemon}/fd"))?.count(),
            processes: stage.processes(),
        };
        if first.is_none_or(|first| *first == found) {
            return Ok(Milestone {
                minute: 0.0,
                count: found,
                memory_kib: memory(daemon)?,
            });
        }
        if began.elapsed() > REST {
            bail!("at first there was {first:?}, and now {found:?}");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn files(directory: &Path) -> Result<usize> {
    let mut count = 0;
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            count += files(&entry.path())?;
        } else if !name.ends_with(".log") && !name.contains(".db-") {
            count += 1;
        }
    }
    Ok(count)
}

/// The records in a copy of the store, which the daemon has to itself.
async fn records(stage: &Path) -> Result<BTreeMap<String, usize>> {
    let copy = tempfile::tempdir()?;
    for name in ["isochron.db", "isochron.db-wal"] {
        let from = stage.join("state").join(name);
        if from.exists() {
            std::fs::copy(from, copy.path().join(name))?;
        }
    }
    let store = SqliteStore::open(copy.path().join("isochron.db")).await?;
    let mut records = BTreeMap::new();
    for record in store.list("").await? {
        let kind = record.key.split('/').next().unwrap_or_default().to_owned();
        if kind != "job" {
            *records.entry(kind).or_default() += 1;
        }
    }
    Ok(records)
}

/// Resident memory of a process in KiB (proc(5)).
fn memory(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let value = line.and_then(|line| line.split_whitespace().next());
    let value = value.context("the daemon's memory is not told")?;
    Ok(value.parse()?)
}
