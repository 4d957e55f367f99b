//! What `isochron bench cut` found: figures per combination, as a table or as JSON.

use serde::Serialize;
use std::time::Duration;

use super::goals::{self, Goal};
use crate::bench::summary::Spread;
use crate::exit::Failure;
use crate::judge::Figures;
use crate::output::{self, Table};

/// One cut.
pub struct Round {
    /// What the stamps amount to.
    pub figures: Figures,
    /// From the request to the end of the job; of a script, of all that it does.
    pub create: Duration,
    /// The longest time in which some guest's users saw no write of it, of those
    /// that have a part in that.
    pub gap_us: u64,
    /// The median between two writes in a quiet time before.
    pub usual_us: u64,
    /// And the longest.
    pub usual_longest_us: u64,
}

/// The rounds of one combination.
pub struct Measured {
    pub members: u8,
    pub load: &'static str,
    pub page_cache: &'static str,
    pub kind: &'static str,
    /// `isochron`, or a [`Way`](super::scripted::Way).
    pub how: &'static str,
    pub rounds: Vec<Round>,
}

impl Measured {
    /// The median of the group's pauses, in microseconds.
    pub fn group_us(&self) -> Option<u64> {
        let groups = self.rounds.iter().map(|round| round.figures.group_us);
        Some(Spread::of(groups)?.median)
    }
}

/// What goes out as JSON. Microseconds throughout.
#[derive(Debug, Serialize)]
struct Summary {
    members: u8,
    load: &'static str,
    page_cache: &'static str,
    r#type: &'static str,
    how: &'static str,
    rounds: usize,
    /// Rounds without a moment at which all stood still.
    without_window: usize,
    /// Every member's, by QEMU's stamps.
    pause_us: Spread<u64>,
    /// First STOP to last RESUME.
    group_pause_us: Spread<u64>,
    /// First STOP to last STOP.
    skew_us: Spread<u64>,
    /// Last STOP to first RESUME; its worst is the shortest.
    common_window_us: Spread<i64>,
    /// The longest time without a write of some guest, seen from the host.
    gap_us: Spread<u64>,
    /// Between two writes when nothing is done.
    usual_gap_us: Spread<u64>,
    /// Request to the end of the job.
    create_us: Spread<u64>,
}

/// Where it was measured.
#[derive(Debug, Serialize)]
struct Host {
    processors: usize,
    memory_mib_per_guest: u32,
    kernel: String,
}

impl Summary {
    fn of(measured: &Measured) -> Option<Self> {
        let rounds = || measured.rounds.iter();
        let figures = || rounds().map(|round| &round.figures);
        let window = Spread::of(figures().map(|figures| -figures.window_us))?;
        let create = rounds().map(|round| round.create.as_micros());
        let usual = Spread::of(rounds().map(|round| round.usual_us))?;
        let usual_longest = Spread::of(rounds().map(|round| round.usual_longest_us))?;
        Some(Self {
            members: measured.members,
            load: measured.load,
            page_cache: measured.page_cache,
            r#type: measured.kind,
            how: measured.how,
            rounds: measured.rounds.len(),
            without_window: figures().filter(|figures| !figures.has_instant()).count(),
            pause_us: Spread::of(figures().flat_map(|f| f.pauses_us.iter().copied()))?,
            group_pause_us: Spread::of(figures().map(|figures| figures.group_us))?,
            skew_us: Spread::of(figures().map(|figures| figures.skew_us))?,
            common_window_us: Spread {
                median: -window.median,
                worst: -window.worst,
            },
            gap_us: Spread::of(rounds().map(|round| round.gap_us))?,
            usual_gap_us: Spread {
                median: usual.median,
                worst: usual_longest.median,
            },
            create_us: Spread::of(create.map(|us| u64::try_from(us).unwrap_or(u64::MAX)))?,
        })
    }
}

/// Prints what was found.
pub fn print(measured: &[Measured], memory_mib: u32, json: bool) -> Result<(), Failure> {
    let summaries: Vec<Summary> = measured.iter().filter_map(Summary::of).collect();
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let goals = goals::of(measured, processors, memory_mib);
    if json {
        let host = Host {
            processors,
            memory_mib_per_guest: memory_mib,
            kernel: rustix::system::uname()
                .release()
                .to_string_lossy()
                .into_owned(),
        };
        return output::json(&serde_json::json!({
            "host": host, "combinations": summaries, "goals": goals,
        }));
    }
    output::text(&format!("{}\n{}", table(&summaries), said(&goals)))
}

fn table(summaries: &[Summary]) -> String {
    let mut table = Table::new([
        "GUESTS", "LOAD", "CACHE", "TYPE", "HOW", "PAUSE", "", "GROUP", "", "SKEW", "", "WINDOW",
        "", "GAP", "", "USUAL", "", "CREATE", "",
    ]);
    let ms = |us: u64| format!("{:.1}", us as f64 / 1e3);
    let signed = |us: i64| format!("{:.1}", us as f64 / 1e3);
    for summary in summaries {
        let window = &summary.common_window_us;
        table.row([
            summary.members.to_string(),
            summary.load.to_owned(),
            summary.page_cache.to_owned(),
            summary.r#type.to_owned(),
            summary.how.to_owned(),
            ms(summary.pause_us.median),
            ms(summary.pause_us.worst),
            ms(summary.group_pause_us.median),
            ms(summary.group_pause_us.worst),
            ms(summary.skew_us.median),
            ms(summary.skew_us.worst),
            signed(window.median),
            signed(window.worst),
            ms(summary.gap_us.median),
            ms(summary.gap_us.worst),
            ms(summary.usual_gap_us.median),
            ms(summary.usual_gap_us.worst),
            ms(summary.create_us.median),
            ms(summary.create_us.worst),
        ]);
    }
    format!(
        "{table}Milliseconds, median and worst (the shortest window). PAUSE is each guest's, GROUP \
         from the\nfirst STOP to the last RESUME, GAP the longest time that some guest's users saw \
         no write of\nit, USUAL that between two writes when nothing is done (median and longest), \
         CREATE from\nrequest to job's end.\n"
    )
}

fn said(goals: &[Goal]) -> String {
    goals.iter().map(|goal| format!("{goal}\n")).collect()
}

/// Whether each of our snapshots was one instant.
pub fn judge(measured: &[Measured]) -> Result<(), Failure> {
    let ours = measured.iter().filter(|m| m.how == "isochron");
    let rounds: Vec<_> = ours.flat_map(|measured| &measured.rounds).collect();
    let others = rounds.iter().filter(|r| !r.figures.has_instant()).count();
    match others {
        0 => Ok(()),
        others => Err(Failure::failed(format!(
            "{others} of {} snapshots are not one instant",
            rounds.len()
        ))),
    }
}
