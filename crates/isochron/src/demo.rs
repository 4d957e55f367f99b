//! `isochron demo`: a ring of guests, driven through CIM-XML by a client that
//! other people wrote, and judged from outside.
//!
//! Everything that is shown is also checked: the demo succeeds only if every
//! claim held, the negative control's included. What is seen of the guests comes
//! from the host (serial ports, frozen layers read with `qemu-img`), what is
//! asked for goes through pywbem (`demo/demo.py`).

mod script;
mod view;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use isochron_api::dto::Snapshot;
use isochron_lab::kit::Kit;
use isochron_lab::oracle::Verdict;
use isochron_lab::ring::Ring;

use self::script::Script;
use self::view::say;
use crate::exit::Failure;
use crate::judge::{self, Figures};
use crate::stage::{self, Stage};

/// The collection, and what its members' names begin with.
const RING: &str = "ring";

/// How often the loop over the members is tried until the oracle catches it. One
/// that does not violate the oracle still has no common window.
const ATTEMPTS: usize = 5;

/// How to show it.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  isochron demo
  isochron demo --members 8
  isochron demo --keep

It needs the guests that `make guest` prepares and the Python environment of `make venv`.")]
pub struct DemoOptions {
    /// Guests in the ring
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=16))]
    members: u8,
    /// Where to make the temporary directory [default: TMPDIR, else /var/tmp]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// A Python that has pywbem [default: target/venv, which `make venv` prepares]
    #[arg(
        long,
        value_name = "PATH",
        env = "ISOCHRON_PYTHON",
        hide_env_values = true
    )]
    python: Option<PathBuf>,
    /// Leave guests and daemon running, and say how to explore
    #[arg(long)]
    keep: bool,
}

/// Runs the demo.
pub fn run(options: &DemoOptions) -> Result<(), Failure> {
    let python = script::python(options.python.as_deref()).map_err(Failure::usage)?;
    let kit = Kit::load().map_err(Failure::usage)?;
    stage::perform(async {
        let stage = Stage::open(options.dir.as_deref()).await?;
        let script = Script::new(python, &stage)?;
        let shown = show(&stage, &script, &kit, options.members.into()).await;
        if options.keep {
            view::explore(&stage, &script, options.members.into())?;
            stage.keep();
            return shown;
        }
        shown?;
        stage.close().await?;
        say("\nGuests and daemon are ended, the directory is removed. With --keep they stay.")
    })
}

async fn show(stage: &Stage, script: &Script, kit: &Kit, members: usize) -> Result<()> {
    say(format_args!("1  A ring of {members} guests on QEMU"))?;
    say("   Each hears a counter from its left, writes it to its disk, then passes it on.")?;
    let ring = stage.ring(kit, RING, members).await?;
    view::alive(stage, &ring).await?;

    say("\n2  Two snapshots of the running ring, through pywbem")?;
    let names: Vec<&str> = ring
        .members
        .iter()
        .map(|m| m.definition.name.as_str())
        .collect();
    script.define(RING, &names).await?;
    let standard = barrier(stage, script, &ring, "standard").await?;
    let recovery = barrier(stage, script, &ring, "recovery").await?;

    say("\n3  The evidence: QEMU's own stamps, and what the frozen layers hold")?;
    view::cut("standard", &standard)?;
    view::cut("recovery", &recovery)?;
    for cut in [&standard, &recovery] {
        ensure!(
            cut.figures.has_instant(),
            "a snapshot has no moment at which all stood still"
        );
        ensure!(
            cut.verdict.is_consistent(),
            "the oracle says: {}",
            cut.verdict
        );
    }

    say("\n4  The negative control: the same guests, snapshotted one after the other")?;
    control(stage, script, &ring, &names, &recovery).await?;

    say("\n5  Back to the standard snapshot, through pywbem")?;
    returned(stage, script, &ring, &standard).await?;
    say("\nEvery claim held.")
}

/// A cut and what it was judged to be.
struct Cut {
    report: isochron_engine::model::CutReport,
    figures: Figures,
    verdict: Verdict,
}

impl Cut {
    /// Each member's counter on the frozen layers.
    fn counters(&self) -> Vec<u64> {
        match &self.verdict {
            Verdict::Consistent { counters } | Verdict::Violated { counters, .. } => counters
                .iter()
                .map(|disks| disks.first().copied().unwrap_or(0))
                .collect(),
        }
    }
}

/// Snapshots collections in turn through CIM and judges them together. The report
/// is what the CIM client read; the layers' paths are the JSON API's.
async fn cut(
    stage: &Stage,
    script: &Script,
    ring: &Ring,
    kind: &str,
    name: &str,
    collections: &[String],
) -> Result<Cut> {
    let reports = script.snapshot(kind, name, collections).await?;
    let mut snapshots: Vec<Snapshot> = Vec::new();
    for report in &reports {
        snapshots.push(stage.snapshot(&report.id).await?);
    }
    let cuts: Vec<_> = reports.into_iter().map(|report| report.cut).collect();
    let stands = judge::stands(&cuts)?;
    ensure!(
        stands.len() == ring.members.len(),
        "the cut reports do not have every member once"
    );
    let figures = Figures::of(&stands).context("no member ran")?;
    let verdict = judge::oracle(ring, &snapshots).await?;
    let members = cuts.into_iter().flat_map(|cut| cut.members).collect();
    let mut report = isochron_engine::model::CutReport {
        members,
        ..Default::default()
    };
    report.conclude();
    Ok(Cut {
        report,
        figures,
        verdict,
    })
}

/// A snapshot of the whole ring at one instant.
async fn barrier(stage: &Stage, script: &Script, ring: &Ring, kind: &str) -> Result<Cut> {
    cut(stage, script, ring, kind, kind, &[RING.to_owned()]).await
}

/// What a loop over the members does: a collection for each, and a snapshot of one
/// after the other.
async fn control(
    stage: &Stage,
    script: &Script,
    ring: &Ring,
    names: &[&str],
    barrier: &Cut,
) -> Result<()> {
    let single = |name: &&str| format!("only-{name}");
    for name in names {
        script.quiet().define(&single(name), &[name]).await?;
    }
    let collections: Vec<String> = names.iter().map(single).collect();
    say(format_args!(
        "   CreateSnapshot (recovery) of {}",
        collections.join(", then of ")
    ))?;
    for attempt in 1..=ATTEMPTS {
        let name = format!("loop {attempt} of {{collection}}");
        let looped = cut(
            stage,
            &script.quiet(),
            ring,
            "recovery",
            &name,
            &collections,
        )
        .await?;
        ensure!(
            !looped.figures.has_instant(),
            "a loop over the members found a moment at which all stood still"
        );
        let violated = !looped.verdict.is_consistent();
        if violated || attempt == ATTEMPTS {
            view::compare(barrier, &looped)?;
            return say(format_args!(
                "   the oracle was violated in {} of {attempt} attempt{}, and none had a moment at \
                 which all stood still",
                u8::from(violated),
                if attempt == 1 { "" } else { "s" },
            ));
        }
    }
    Ok(())
}

/// Applies the snapshot and shows that all members are back together, and alive.
async fn returned(stage: &Stage, script: &Script, ring: &Ring, snapshot: &Cut) -> Result<()> {
    let watch = view::Watch::begin(ring)?;
    script.apply("standard").await?;
    let restored = watch.restored(ring).await?;
    stage::progress(ring, 20).await?;
    let after = barrier_after(stage, script, ring).await?;
    say("")?;
    view::way_back(&watch, snapshot, &restored, &after)?;
    for ((restored, at), after) in restored
        .iter()
        .zip(snapshot.counters())
        .zip(after.counters())
    {
        ensure!(
            *restored >= at,
            "a member came back with a counter older than the snapshot's"
        );
        ensure!(after > at, "a member did not go on from the snapshot");
    }
    ensure!(
        after.figures.has_instant(),
        "the new snapshot has no instant"
    );
    ensure!(
        after.verdict.is_consistent(),
        "after apply the oracle says: {}",
        after.verdict
    );
    say(format_args!(
        "   the ring goes round again; a new recovery snapshot is {}",
        after.verdict
    ))
}

async fn barrier_after(stage: &Stage, script: &Script, ring: &Ring) -> Result<Cut> {
    cut(
        stage,
        &script.quiet(),
        ring,
        "recovery",
        "after apply",
        &[RING.to_owned()],
    )
    .await
}
