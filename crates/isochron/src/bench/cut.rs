//! `isochron bench cut`: how much guests notice of a snapshot.
//!
//! Rings of real guests, idle or under load, are snapshotted; what counts is for
//! how long each stood still and the group did not work, by QEMU's own stamps, and
//! what the guests' users saw, from the host. Beside them, in the same run and with
//! the same guests: the *floor*, one member alone with everything prepared, and
//! what scripts reach, on QEMU's monitors and through libvirt. Times are never judged
//! by themselves, only as ratios within one run; a snapshot that is no one instant
//! fails the run.

mod goals;
mod guests;
mod libvirt;
mod monitor;
mod plot;
pub mod pulse;
mod report;
mod scripted;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use isochron_api::dto::{NewCollection, SnapshotKind};
use isochron_lab::kit::Kit;
use isochron_lab::ring::Ring;

use crate::exit::Failure;
use crate::judge::{self, Figures};
use crate::stage::{self, Stage};
use guests::{Guests, Scenario};
use libvirt::Libvirt;
use report::{Measured, Round};
use scripted::{Member, Script, Way};

pub const EXAMPLES: &str = "\
Examples:
  isochron bench cut                                      # the whole matrix: an hour
  isochron bench cut --members 1,8 --load ring --types recovery --page-cache clean
  isochron bench cut --members 1,3,8 --plot cut.svg --json > cut.json
  isochron bench cut --members 8 --rounds 3 --trace cut-trace.json
  isochron bench cut --members 8 --types recovery --libvirt

It needs the guests that `make guest` prepares. Nothing else should run meanwhile.
--libvirt needs libvirt with its QEMU driver and its Python, on Debian 12 and Ubuntu
24.04 the packages libvirt-daemon and python3-libvirt; no service of it has to run.";

/// Scripts are slow and vary little.
const SCRIPTED_ROUNDS: u32 = 5;

/// A busy host shows long pauses, not failures.
const DEADLINES: &str = "\n[deadlines]\nstop = \"20s\"\nwindow = \"120s\"\n";

/// What to measure.
#[derive(Args, Debug)]
pub struct CutOptions {
    /// Numbers of guests
    #[arg(long, value_name = "COUNT,...", value_delimiter = ',',
        default_values_t = [1, 3, 8, 16, 32], value_parser = clap::value_parser!(u8).range(1..=64))]
    members: Vec<u8>,
    /// What guests do
    #[arg(long, value_name = "LOAD,...", value_enum, value_delimiter = ',',
        default_values_t = [Load::Idle, Load::Ring])]
    load: Vec<Load>,
    /// Types of snapshots
    #[arg(long, value_name = "TYPE,...", value_enum, value_delimiter = ',',
        default_values_t = [Type::Recovery, Type::Standard])]
    types: Vec<Type>,
    /// Whether the host's page cache holds writes of the guests'
    #[arg(long, value_name = "CACHE,...", value_enum, value_delimiter = ',',
        default_values_t = [PageCache::Clean, PageCache::Dirty])]
    page_cache: Vec<PageCache>,
    /// Snapshots of every combination
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Memory of each guest in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256,
        value_parser = clap::value_parser!(u32).range(64..=65536))]
    memory: u32,
    /// Leave out what is measured without us: floor and scripts
    #[arg(long)]
    only_us: bool,
    /// Measure a script that uses libvirt, too (recovery)
    #[arg(long, conflicts_with = "only_us")]
    libvirt: bool,
    /// Draw the group's pause over the number of guests
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Write a timeline of every cut, for ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Where to make the temporary directory [default: TMPDIR, else /var/tmp]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What guests do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
enum Load {
    /// A write now and then
    Idle,
    /// A counter goes round and is written at every stop
    Ring,
}

/// A type of snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Type {
    /// Disks
    Recovery,
    /// Memory, devices and disks
    Standard,
}

/// What the host's page cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
enum PageCache {
    /// Nothing: disks are opened past it
    Clean,
    /// What guests wrote in the last seconds
    Dirty,
}

impl Load {
    fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Ring => "ring",
        }
    }
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::Recovery => "recovery",
            Self::Standard => "standard",
        }
    }
}

impl PageCache {
    fn name(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Dirty => "dirty",
        }
    }
}

/// Measures, prints, and fails if a snapshot was no one instant.
pub fn run(options: &CutOptions, json: bool) -> Result<(), Failure> {
    let kit = Kit::load().map_err(Failure::usage)?;
    for file in [&options.plot, &options.trace].into_iter().flatten() {
        let file = std::path::absolute(file).map_err(Failure::usage)?;
        if !file.parent().is_some_and(Path::is_dir) {
            let directory = file.parent().unwrap_or(&file).display();
            return Err(Failure::usage(format!("there is no directory {directory}")));
        }
    }
    if options.libvirt && !options.types.contains(&Type::Recovery) {
        return Err(Failure::usage(
            "--libvirt is measured for recovery snapshots: add --types recovery",
        ));
    }
    if options.libvirt && !Libvirt::is_installed() {
        return Err(Failure::usage(
            "libvirt's QEMU driver or its Python is not installed: apt-get install \
             libvirt-daemon python3-libvirt",
        ));
    }
    let mut measured = Vec::new();
    let ended = stage::perform(measure(options, &kit, &mut measured));
    // What was measured until a failure took its time, too.
    if measured.is_empty() {
        return ended;
    }
    if let Some(file) = &options.plot {
        plot::draw(&measured, file).map_err(|error| Failure::failed(format!("{error:#}")))?;
    }
    report::print(&measured, options.memory, json)?;
    ended?;
    report::judge(&measured)
}

async fn measure(options: &CutOptions, kit: &Kit, measured: &mut Vec<Measured>) -> Result<()> {
    let mut arguments = Vec::new();
    if let Some(file) = &options.trace {
        arguments = vec!["--trace".into(), std::path::absolute(file)?.into()];
    }
    let stage = Stage::open_with(options.dir.as_deref(), DEADLINES, &arguments).await?;
    let mut sizes = options.members.clone();
    sizes.sort_unstable();
    sizes.dedup();
    for &load in &options.load {
        for &cache in &options.page_cache {
            // The floor needs one guest that is alone, whatever was asked for.
            let alone = !options.only_us && sizes.first() != Some(&1);
            for &members in alone.then_some(&1).into_iter().chain(&sizes) {
                let scenario = Scenario {
                    members,
                    load,
                    cache,
                };
                let bench = Bench::open(&stage, kit, options, scenario).await?;
                if members == 1 && !options.only_us {
                    measured.push(bench.scripted(Way::Floor, options.rounds).await?);
                }
                if sizes.contains(&members) {
                    bench.all(options, measured).await?;
                }
                bench.close().await?;
                if options.libvirt && sizes.contains(&members) {
                    measured.push(under_libvirt(&stage, kit, options, scenario).await?);
                }
            }
        }
    }
    stage.close().await
}

/// Guests that are a collection of ours.
struct Bench<'a> {
    stage: &'a Stage,
    guests: Guests,
    directory: PathBuf,
    scripted: Vec<Member>,
}

impl<'a> Bench<'a> {
    async fn open(
        stage: &'a Stage,
        kit: &Kit,
        options: &CutOptions,
        scenario: Scenario,
    ) -> Result<Self> {
        let (load, cache) = (scenario.load.name(), scenario.cache.name());
        eprintln!(
            "bench: starting {} guests ({load}, page cache {cache})",
            scenario.members
        );
        let ring = stage.ring_of(kit, scenario.ring(options.memory)).await?;
        let mut scripted = Vec::new();
        for member in &ring.members {
            let name = member.definition.name.clone();
            let id = stage.client.machine(&name).await?.id;
            let socket = stage.path().join(format!("run/{id}/observe.sock"));
            scripted.push(Member {
                name,
                socket,
                direct: scenario.cache == PageCache::Clean,
            });
        }
        let new = NewCollection {
            name: "cut".to_owned(),
            id: None,
            kind: Default::default(),
            members: scripted.iter().map(|member| member.name.clone()).collect(),
        };
        stage.client.create_collection(&new).await?;
        Ok(Self {
            directory: stage.path().join("cut"),
            guests: Guests::watch(ring, scenario).await?,
            stage,
            scripted,
        })
    }

    /// Everything that was asked for of these guests.
    async fn all(&self, options: &CutOptions, measured: &mut Vec<Measured>) -> Result<()> {
        for &kind in &options.types {
            let mut rounds = Vec::new();
            // The first is not counted: whatever is done once is done in it.
            for number in 0..=options.rounds {
                let round = self.cut(kind).await.with_context(|| {
                    let members = self.guests.scenario.members;
                    format!("{members} guests, {}, round {number}", kind.name())
                })?;
                if number > 0 {
                    rounds.push(round);
                }
            }
            measured.push(
                self.guests
                    .scenario
                    .measured("isochron", kind.name(), rounds),
            );
            if options.only_us {
                continue;
            }
            let ways: &[Way] = match kind {
                Type::Recovery => &[Way::Loop, Way::Threads],
                Type::Standard => &[Way::StoppedSave],
            };
            for &way in ways {
                let rounds = options.rounds.min(SCRIPTED_ROUNDS);
                measured.push(self.scripted(way, rounds).await?);
            }
        }
        Ok(())
    }

    async fn cut(&self, kind: Type) -> Result<Round> {
        let kind = match kind {
            Type::Recovery => SnapshotKind::Recovery,
            Type::Standard => SnapshotKind::Standard,
        };
        let members = self.guests.scenario.members;
        let mut snapshot = None;
        let round = self
            .guests
            .watched(async {
                let taken = self.stage.take_snapshot("cut", kind).await?;
                let stands = judge::stands_of(std::slice::from_ref(&taken))?;
                ensure!(
                    stands.len() == usize::from(members),
                    "the cut report names {} of {members} members",
                    stands.len(),
                );
                snapshot = Some(taken);
                Figures::of(&stands).context("no member ran")
            })
            .await?;
        if let Some(snapshot) = snapshot {
            self.stage.destroy_snapshot(&snapshot).await?;
        }
        Ok(round)
    }

    async fn scripted(&self, way: Way, rounds: u32) -> Result<Measured> {
        let members = self.guests.scenario.members;
        let mut all = Vec::new();
        for number in 0..=rounds {
            // It blocks this thread, which has nothing else to do.
            let prepare = || Script::prepare(way, &self.scripted, &self.directory);
            let script = tokio::task::block_in_place(prepare)?;
            let mut done = None;
            let round = self
                .guests
                .watched(async {
                    let performed = tokio::task::block_in_place(|| script.perform())?;
                    Figures::of(&done.insert(performed).stands).context("no member ran")
                })
                .await
                .with_context(|| format!("{members} guests, {}", way.name()))?;
            if let Some(done) = done {
                tokio::task::block_in_place(|| done.undo())?;
            }
            if number > 0 {
                all.push(round);
            }
        }
        let kind = match way {
            Way::StoppedSave => "standard",
            _ => "recovery",
        };
        Ok(self.guests.scenario.measured(way.name(), kind, all))
    }

    /// Ends the guests and clears away what they were on.
    async fn close(self) -> Result<()> {
        let ring = self.guests.end();
        let client = &self.stage.client;
        client.destroy_collection("cut").await?;
        for member in &ring.members {
            let name = &member.definition.name;
            client.kill_machine(name).await?;
            client.undefine_machine(name).await?;
        }
        std::fs::remove_dir_all(&self.directory)?;
        Ok(())
    }
}

/// Such guests once more, run and snapshotted by libvirt.
async fn under_libvirt(
    stage: &Stage,
    kit: &Kit,
    options: &CutOptions,
    scenario: Scenario,
) -> Result<Measured> {
    eprintln!("bench: starting {} guests under libvirt", scenario.members);
    let directory = stage.path().join("cut");
    std::fs::create_dir(&directory)?;
    let ring = Ring::create(kit, &directory, &scenario.ring(options.memory))?;
    let mut libvirt = Libvirt::start(stage, &ring, &directory).await?;
    stage::progress(&ring, 2).await?;
    let guests = Guests::watch(ring, scenario).await?;
    let mut rounds = Vec::new();
    for number in 0..=options.rounds.min(SCRIPTED_ROUNDS) {
        libvirt.prepare().await?;
        let cut = async { Figures::of(&libvirt.cut().await?).context("no member ran") };
        let round = guests.watched(cut).await?;
        libvirt.undo().await?;
        if number > 0 {
            rounds.push(round);
        }
    }
    drop(guests);
    libvirt.end().await?;
    std::fs::remove_dir_all(&directory)?;
    Ok(scenario.measured("libvirt", "recovery", rounds))
}
