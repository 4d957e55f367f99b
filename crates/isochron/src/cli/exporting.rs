//! What `snapshot export` and `refpoint export` have in common: what can be asked for,
//! and what is printed at the end.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use indicatif::BinaryBytes;
use isochron_api::dto::{ExportDisks, ExportIntent, Job, JobExport, NewExport};

use super::Session;
use super::wait::{print_started, wait};
use crate::exit::Failure;
use crate::output::{facts, micros};

/// What is exported, where to, and how.
#[derive(Args, Debug)]
pub struct Options {
    /// Identifier, or a name that only one has
    id: String,
    /// The directory that the export becomes, on the daemon's host: missing or empty
    directory: PathBuf,
    /// Write only what changed since this snapshot or reference point, by identifier or
    /// name, or since the one whose export is in this directory (a path has a `/`)
    #[arg(long, value_name = "ID|PATH")]
    base: Option<String>,
    /// What becomes of what changed
    #[arg(long, value_enum, default_value = "chain")]
    intent: Intent,
    /// Write definitions and a record of the layers only, no disks and no memory
    #[arg(long)]
    no_storage: bool,
    /// Bytes a second at most, such as 500K, 20M or 1G (powers of 1024)
    #[arg(long, value_name = "RATE", value_parser = rate)]
    limit: Option<u64>,
    /// Only this machine, or only this disk of it. Can be given again
    #[arg(long = "disk", value_name = "VM[/DISK]")]
    disks: Vec<String>,
    /// Fail where a disk would have to be copied whole because what changed since the
    /// base cannot be told
    #[arg(long)]
    require_difference: bool,
    /// Print the job instead of waiting
    #[arg(long)]
    no_wait: bool,
}

/// What becomes of what changed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Intent {
    /// A difference, which needs the base's export
    Chain,
    /// A full export, made of the base's export and what changed
    Merge,
}

/// What an export is made of.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// A snapshot.
    Snapshot,
    /// A reference point.
    ReferencePoint,
}

impl Options {
    /// Has it exported, and shows how far that is and what came of it.
    pub async fn run(self, what: What, session: &Session) -> Result<(), Failure> {
        let absolute = |path: &str| {
            let path = std::path::absolute(path).map_err(Failure::usage)?;
            let text = path.to_str().map(str::to_owned);
            text.ok_or_else(|| Failure::usage(format!("{} is no text", path.display())))
        };
        let new = NewExport {
            directory: std::path::absolute(&self.directory).map_err(Failure::usage)?,
            base: match self.base {
                Some(path) if path.contains('/') => Some(absolute(&path)?),
                base => base,
            },
            intent: match self.intent {
                Intent::Chain => ExportIntent::Chain,
                Intent::Merge => ExportIntent::Merge,
            },
            storage: !self.no_storage,
            limit: self.limit,
            disks: choice(&self.disks),
            require_difference: self.require_difference,
        };
        let client = &session.client;
        let job = match what {
            What::Snapshot => client.export_snapshot(&self.id, &new).await?,
            What::ReferencePoint => client.export_reference_point(&self.id, &new).await?,
        };
        if self.no_wait {
            return print_started(session, &job);
        }
        let job = wait(session, &job.id.to_string(), None).await?;
        session.print(&job, exported)
    }
}

/// Machines and their disks of `VM` and `VM/DISK`.
fn choice(texts: &[String]) -> Option<Vec<ExportDisks>> {
    let mut chosen: Vec<ExportDisks> = Vec::new();
    for text in texts {
        let (vm, disk) = match text.rsplit_once('/') {
            Some((vm, disk)) => (vm, Some(disk.to_owned())),
            None => (text.as_str(), None),
        };
        match chosen.iter_mut().find(|machine| machine.vm == vm) {
            // A machine without disks is all of it.
            Some(machine) if machine.disks.is_empty() || disk.is_none() => machine.disks.clear(),
            Some(machine) => machine.disks.extend(disk),
            None => chosen.push(ExportDisks {
                vm: vm.to_owned(),
                disks: disk.into_iter().collect(),
            }),
        }
    }
    Some(chosen).filter(|chosen| !chosen.is_empty())
}

/// Bytes a second: a number, and K, M, G or T for powers of 1024.
fn rate(text: &str) -> Result<u64, String> {
    let bad = || format!("{text:?} is no rate, such as 500K, 20M or 1G");
    let (number, factor) = match text.char_indices().next_back() {
        Some((at, unit)) if unit.is_ascii_alphabetic() => {
            let power = "KMGT".find(unit.to_ascii_uppercase()).ok_or_else(bad)?;
            (&text[..at], 1_u64 << (10 * (power + 1)))
        }
        _ => (text, 1),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    match number.checked_mul(factor) {
        Some(rate) if rate > 0 => Ok(rate),
        _ => Err(bad()),
    }
}

fn exported(job: &Job) -> String {
    let Some(export) = &job.export else {
        return String::new();
    };
    let took = job.ended_at.map(|ended| ended - job.started_at);
    let took = took.and_then(|took| u64::try_from(took.whole_microseconds()).ok());
    let mut text = facts(&[
        ("export", Some(export.id.to_string())),
        ("directory", Some(export.directory.display().to_string())),
        ("difference to", export.base.map(|id| id.to_string())),
        ("files", Some(export.files.len().to_string())),
        ("disks and memory", Some(amounts(export))),
        ("took", took.map(micros)),
    ]);
    for whole in &export.whole {
        let (vm, disk, reason) = (whole.vm_id, &whole.disk, &whole.reason);
        let _ = writeln!(text, "disk {disk} of {vm} was copied whole: {reason}");
    }
    text
}

/// How much was to be dealt with, and how much of it was written.
pub fn amounts(export: &JobExport) -> String {
    format!(
        "{} of {}, {} written",
        BinaryBytes(export.done_bytes),
        BinaryBytes(export.total_bytes),
        BinaryBytes(export.written_bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        for (text, expected) in [
            ("1", Some(1)),
            ("500k", Some(500 << 10)),
            ("20M", Some(20 << 20)),
            ("1G", Some(1 << 30)),
            ("2T", Some(2 << 40)),
            ("0", None),
            ("", None),
            ("M", None),
            ("-1", None),
            ("1.5M", None),
            ("20X", None),
            ("5é", None),
            ("99999999999T", None),
        ] {
            assert_eq!(rate(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn machines_and_disks_are_chosen() {
        let chosen = |texts: &[&str]| {
            let texts: Vec<_> = texts.iter().map(ToString::to_string).collect();
            let chosen = choice(&texts)?;
            Some(
                chosen
                    .into_iter()
                    .map(|c| (c.vm, c.disks.join(" ")))
                    .collect::<Vec<_>>(),
            )
        };
        let pair = |vm: &str, disks: &str| (vm.to_owned(), disks.to_owned());
        assert_eq!(chosen(&[]), None);
        assert_eq!(
            chosen(&["a/x", "b", "a/y"]),
            Some(vec![pair("a", "x y"), pair("b", "")])
        );
        assert_eq!(chosen(&["a/x", "a"]), Some(vec![pair("a", "")]));
        assert_eq!(chosen(&["a", "a/x"]), Some(vec![pair("a", "")]));
    }
}
