//! `isochron bench oracle`: rings of guests are snapshotted under load, round
//! after round, and every snapshot is judged from outside.
//!
//! A round holds if every member's STOP and RESUME is in the cut report, there was
//! a moment at which all stood still, and the oracle finds one instant on the
//! frozen layers. Then the snapshot is destroyed and every member must go on.
//!
//! `--looped` is the negative control: the same rounds by a coordinator that takes
//! the members in turn. It succeeds if no round of it looks like one instant; were
//! it otherwise, the rounds that hold would prove nothing.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use isochron_api::dto::{NewCollection, SnapshotKind};
use isochron_lab::kit::Kit;
use isochron_lab::ring::Ring;

use super::summary::{self, Combination};
use crate::exit::Failure;
use crate::judge::{self, Figures};
use crate::stage::{self, Stage};

pub const EXAMPLES: &str = "\
Examples:
  isochron bench oracle
  isochron bench oracle --rounds 20 --members 3 --types recovery
  isochron bench oracle --rounds 10 --looped --json

It needs the guests that `make guest` prepares. It fails if any round is violated;
with --looped, if any round looks like one instant.";

/// What to measure.
#[derive(Args, Debug)]
pub struct OracleOptions {
    /// Rounds of every combination of members and type
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Sizes of rings
    #[arg(long, value_name = "COUNT,...", value_delimiter = ',', default_values_t = [3, 8],
        value_parser = clap::value_parser!(u8).range(2..=64))]
    members: Vec<u8>,
    /// Types of snapshots
    #[arg(long, value_name = "TYPE,...", value_enum, value_delimiter = ',',
        default_values_t = [Type::Standard, Type::Recovery])]
    types: Vec<Type>,
    /// Take the members in turn instead: the negative control
    #[arg(long)]
    looped: bool,
    /// Where to make the temporary directory [default: TMPDIR, else /var/tmp]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// A type of snapshot.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Type {
    /// Memory, devices and disks
    Standard,
    /// Disks
    Recovery,
}

impl Type {
    fn kind(self) -> SnapshotKind {
        match self {
            Self::Standard => SnapshotKind::Standard,
            Self::Recovery => SnapshotKind::Recovery,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Recovery => "recovery",
        }
    }
}

/// One round.
pub struct Round {
    /// What the stamps amount to.
    pub figures: Figures,
    /// From the request to the end of the job; of a loop, of all of them.
    pub create: Duration,
    /// What is wrong with it, in the oracle's words.
    pub violation: Option<String>,
}

/// Measures, prints, and fails if what must hold did not.
pub fn run(options: &OracleOptions, json: bool) -> Result<(), Failure> {
    let kit = Kit::load().map_err(Failure::usage)?;
    let combinations = stage::perform(measure(options, &kit))?;
    summary::print(&combinations, options.looped, json)?;
    summary::judge(&combinations, options.looped)
}

async fn measure(options: &OracleOptions, kit: &Kit) -> Result<Vec<Combination>> {
    let mut combinations = Vec::new();
    for &members in &options.members {
        eprintln!("bench: starting a ring of {members} guests");
        let stage = Stage::open(options.dir.as_deref()).await?;
        let ring = stage.ring(kit, "ring", members.into()).await?;
        let collections = collect(&stage, &ring, options.looped).await?;
        for &kind in &options.types {
            let mut rounds = Vec::new();
            for number in 1..=options.rounds {
                let round = round(&stage, &ring, &collections, kind.kind())
                    .await
                    .with_context(|| {
                        format!("{members} members, {}, round {number}", kind.name())
                    })?;
                tell(&round, members, kind, number, options);
                rounds.push(round);
            }
            combinations.push(Combination {
                members,
                kind: kind.name(),
                rounds,
            });
        }
        stage.close().await?;
    }
    Ok(combinations)
}

/// Progress, for a person: every tenth round, and each that should not be.
fn tell(round: &Round, members: u8, kind: Type, number: u32, options: &OracleOptions) {
    let kind = kind.name();
    if let Some(violation) = &round.violation
        && !options.looped
    {
        eprintln!("bench: {members} members, {kind}, round {number}: {violation}");
    }
    if number.is_multiple_of(10) || number == options.rounds {
        eprintln!(
            "bench: {members} members, {kind}: {number} of {} rounds",
            options.rounds
        );
    }
}

/// The collections to be snapshotted in a round: one of all members, or, to take
/// them in turn, one of each.
async fn collect(stage: &Stage, ring: &Ring, looped: bool) -> Result<Vec<String>> {
    let names: Vec<String> = ring
        .members
        .iter()
        .map(|m| m.definition.name.clone())
        .collect();
    let wanted = match looped {
        false => vec![("all".to_owned(), names)],
        true => names
            .into_iter()
            .map(|name| (format!("only-{name}"), vec![name]))
            .collect(),
    };
    let mut collections = Vec::new();
    for (name, members) in wanted {
        let new = NewCollection {
            name: name.clone(),
            id: None,
            kind: Default::default(),
            members,
        };
        stage.client.create_collection(&new).await?;
        collections.push(name);
    }
    Ok(collections)
}

async fn round(
    stage: &Stage,
    ring: &Ring,
    collections: &[String],
    kind: SnapshotKind,
) -> Result<Round> {
    let began = Instant::now();
    let mut snapshots = Vec::new();
    for collection in collections {
        snapshots.push(stage.take_snapshot(collection, kind).await?);
    }
    let create = began.elapsed();
    let stands = judge::stands_of(&snapshots)?;
    ensure!(
        stands.len() == ring.members.len(),
        "the cut reports name {} members of {}",
        stands.len(),
        ring.members.len()
    );
    let figures = Figures::of(&stands).context("no member ran")?;
    // The report's own word must be what its stamps amount to.
    if let [whole] = snapshots.as_slice() {
        ensure!(
            whole.cut.common_window_us == Some(figures.window_us)
                && whole.cut.skew_us == Some(figures.skew_us),
            "the cut report does not agree with its own stamps: {:?}",
            whole.cut
        );
    }
    let verdict = judge::oracle(ring, &snapshots).await?;
    for snapshot in &snapshots {
        stage.destroy_snapshot(snapshot).await?;
    }
    stage::progress(ring, 1)
        .await
        .context("the ring does not go on")?;
    let violation = (!verdict.is_consistent()).then(|| verdict.to_string());
    Ok(Round {
        figures,
        create,
        violation,
    })
}
