//! What the demo prints, and what it sees of guests on their serial ports.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use isochron_engine::model::MemorySave;
use isochron_lab::ring::Ring;

use super::Cut;
use super::script::Script;
use crate::output::{self, Table, micros, micros_of};
use crate::stage::{ALIVE_LIMIT, Stage};

/// For how long the ring is watched to tell its pace.
const PACE: Duration = Duration::from_secs(2);

/// Prints a line.
pub fn say(line: impl Display) -> Result<()> {
    output::text(&format!("{line}\n")).map_err(|failure| anyhow::anyhow!(failure.message))
}

/// Prints a table, indented.
fn table(table: &Table) -> Result<()> {
    let text = table.to_string();
    text.lines()
        .try_for_each(|line| say(format_args!("   {line}")))
}

/// The ring that runs, and its pace.
pub async fn alive(stage: &Stage, ring: &Ring) -> Result<()> {
    let count = || {
        ring.counter_now(0)
            .context("a guest says nothing on its serial port")
    };
    let (began, before) = (Instant::now(), count()?);
    tokio::time::sleep(PACE).await;
    let rounds = count()?.saturating_sub(before) as f64 / began.elapsed().as_secs_f64();
    let daemon = stage
        .daemon_id()
        .map_or_else(String::new, |id| format!(", process {id}"));
    say(format_args!(
        "   {rounds:.0} rounds a second, seen from the host"
    ))?;
    say(format_args!(
        "   daemon{daemon}; CIM-XML on {}",
        stage.cimxml
    ))
}

/// A cut report and the oracle's verdict.
pub fn cut(name: &str, cut: &Cut) -> Result<()> {
    say(format_args!(
        "   {name} snapshot, from the first member's STOP"
    ))?;
    let first = cut
        .report
        .members
        .iter()
        .filter_map(|m| m.stopped_at_us)
        .min()
        .unwrap_or(0);
    let since = |stamp: Option<u64>| stamp.map_or_else(|| "-".into(), |us| micros(us - first));
    let mut rows = Table::new(["", "member", "STOP", "RESUME", "pause", "memory", "counter"]);
    for (member, counter) in cut.report.members.iter().zip(cut.counters()) {
        rows.row([
            " ".into(),
            member.name.clone(),
            since(member.stopped_at_us),
            since(member.resumed_at_us),
            member.pause_us.map_or_else(|| "-".into(), micros),
            match member.memory {
                MemorySave::None => "-",
                MemorySave::Background => "background",
                MemorySave::Plain => "plain",
            }
            .into(),
            counter.to_string(),
        ]);
    }
    table(&rows)?;
    let (skew, window) = (micros(cut.figures.skew_us), window(cut));
    say(format_args!(
        "     skew {skew}, all stood still for {window}"
    ))?;
    for member in &cut.report.members {
        if let Some(note) = &member.memory_note {
            say(format_args!("     {}: {note}", member.name))?;
        }
    }
    say(format_args!(
        "     oracle, from the frozen layers: {}",
        cut.verdict
    ))
}

fn window(cut: &Cut) -> String {
    match cut.figures.has_instant() {
        true => micros_of(cut.figures.window_us),
        false => format!("none ({})", micros_of(cut.figures.window_us)),
    }
}

/// One instant and a loop over the members, side by side.
pub fn compare(barrier: &Cut, looped: &Cut) -> Result<()> {
    let mut rows = Table::new(["", "one instant", "loop over members"]);
    let mut row = |what: &str, of: &dyn Fn(&Cut) -> String| {
        rows.row([what.to_owned(), of(barrier), of(looped)]);
    };
    row("last STOP after the first", &|cut| {
        micros(cut.figures.skew_us)
    });
    row("all stood still for", &window);
    row("first STOP to last RESUME", &|cut| {
        micros(cut.figures.group_us)
    });
    row("counters on the layers", &|cut| {
        cut.counters()
            .iter()
            .map(u64::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    });
    row("oracle", &|cut| {
        if cut.verdict.is_consistent() {
            "consistent".into()
        } else {
            "violated".into()
        }
    });
    table(&rows)?;
    match looped.verdict.is_consistent() {
        true => Ok(()),
        false => say(format_args!("   {}", looped.verdict)),
    }
}

/// Serial ports watched from before an apply.
pub struct Watch {
    /// For every member: its log, and where that ended.
    logs: Vec<(PathBuf, u64)>,
    /// Every member's counter then.
    before: Vec<u64>,
}

impl Watch {
    /// Begins to watch.
    pub fn begin(ring: &Ring) -> Result<Self> {
        let log = |path: &Path| anyhow::Ok((path.to_owned(), std::fs::metadata(path)?.len()));
        let logs = ring
            .members
            .iter()
            .map(|member| log(&member.definition.serial_log));
        let counters = (0..ring.members.len()).map(|index| ring.counter_now(index));
        Ok(Self {
            logs: logs.collect::<Result<_>>()?,
            before: counters
                .collect::<Option<_>>()
                .context("a guest says nothing on its serial port")?,
        })
    }

    /// Waits until every member has shown a counter from before; returns the first
    /// such counter of each.
    pub async fn restored(&self, ring: &Ring) -> Result<Vec<u64>> {
        let began = Instant::now();
        let mut restored = Vec::new();
        for (member, ((log, from), before)) in
            ring.members.iter().zip(self.logs.iter().zip(&self.before))
        {
            loop {
                let text = std::fs::read(log)?;
                // A log that was begun anew is shorter.
                let new = text.get(usize::try_from(*from)?..).unwrap_or(&text);
                if let Some(counter) = stepped_back(&String::from_utf8_lossy(new), *before) {
                    restored.push(counter);
                    break;
                }
                if began.elapsed() > ALIVE_LIMIT {
                    bail!("{} does not come back", member.definition.name);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(restored)
    }
}

/// The first counter below `before` in the lines `ring INDEX COUNTER` of a log,
/// but for the very first: that line may have been begun by the guest as it was
/// and ended by the guest as it came back.
fn stepped_back(log: &str, before: u64) -> Option<u64> {
    let (whole, _unfinished) = log.rsplit_once('\n')?;
    whole
        .lines()
        .filter_map(|line| {
            let mut words = line.trim().strip_prefix("ring ")?.split(' ').skip(1);
            let counter = words.next()?.parse().ok()?;
            (words.next().is_none() && counter < before).then_some(counter)
        })
        .nth(1)
}

/// The counters on the way back: before, in the snapshot, after.
pub fn way_back(watch: &Watch, snapshot: &Cut, restored: &[u64], after: &Cut) -> Result<()> {
    let mut rows = Table::new([
        "member",
        "before apply",
        "in the snapshot",
        "seen after apply",
        "later",
    ]);
    for (index, member) in snapshot.report.members.iter().enumerate() {
        let of = |counters: &[u64]| counters.get(index).map_or_else(String::new, u64::to_string);
        rows.row([
            member.name.clone(),
            of(&watch.before),
            of(&snapshot.counters()),
            of(restored),
            of(&after.counters()),
        ]);
    }
    table(&rows)
}

/// How to explore what was left running.
pub fn explore(stage: &Stage, script: &Script, members: usize) -> Result<()> {
    let program = std::env::current_exe()?;
    let program = program.display();
    let machines: Vec<String> = (0..members)
        .map(|index| format!("{}-{index}", super::RING))
        .collect();
    let machines = machines.join(" ");
    let daemon = stage
        .daemon_id()
        .map_or_else(|| "DAEMON".to_owned(), |id| id.to_string());
    let (directory, script) = (stage.path().display(), script.command());
    say(format_args!(
        "
Explore. All of it is in {directory} and goes on running:

  export ISOCHRON_SERVER={server}
  {program} vm list
  {program} snapshot list
  {program} snapshot show standard
  {program} snapshot apply standard
  {script} snapshot --type recovery --name mine ring
  tail -f {directory}/ring/ring-0.log

End it:

  {program} vm stop --force {machines}
  kill {daemon}
  rm -r {directory}",
        server = stage.client.server(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_guest_is_told_from_the_one_before_it() {
        let log = "g 0 9\nring 0 900\nring 0 9ring 0 31\nring 0 305\nring 0 330\nring 0 34";
        assert_eq!(stepped_back(log, 899), Some(330));
        assert_eq!(stepped_back("ring 0 900\nring 0 905\n", 899), None);
        assert_eq!(stepped_back("ring 0 305\n", 899), None);
    }
}
