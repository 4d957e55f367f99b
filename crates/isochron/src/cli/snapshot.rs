//! `isochron snapshot ...`

use std::fmt::Write;

use clap::{Subcommand, ValueEnum};
use isochron_api::dto::{
    Consistency, ConvertSnapshot, MemorySave, NewSnapshot, Power, Snapshot, SnapshotKind,
};

use super::Session;
use super::exporting::{self, What};
use super::refpoint::made;
use super::wait::{ended, print_started, wait};
use crate::exit::Failure;
use crate::output::{Table, facts, micros, micros_of, time};

/// What can be done to snapshots.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Snapshot all members of a collection at one instant
    #[command(after_help = "Examples:
  isochron snapshot create shop --name before-upgrade
  isochron snapshot create shop --type recovery --consistency application
  isochron snapshot create shop --no-wait --json")]
    Create {
        /// The collection, by name or identifier; or a single machine
        collection: String,
        /// The snapshot's name [default: COLLECTION - (DATE)]
        #[arg(long)]
        name: Option<String>,
        /// What it holds
        #[arg(long = "type", value_enum, default_value = "standard")]
        kind: Type,
        /// What the guests find when they come back; fails if it cannot be
        /// reached [default: crash]
        #[arg(long, value_enum)]
        consistency: Option<Level>,
        /// Leave out disks that cannot be snapshotted instead of refusing
        #[arg(long)]
        ignore_excluded_disks: bool,
        /// The snapshot's identifier, so that a repeated call makes no second
        /// one [default: a new one]
        #[arg(long, value_name = "UUID")]
        id: Option<uuid::Uuid>,
        /// Print the job and the snapshot to be instead of waiting
        #[arg(long)]
        no_wait: bool,
    },
    /// List snapshots as the trees that they form
    #[command(after_help = "Example:\n  isochron snapshot list shop")]
    List {
        /// Only this collection's, or this single machine's
        collection: Option<String>,
    },
    /// Show a snapshot: its layers and the evidence for its instant
    #[command(after_help = "Examples:\n  isochron snapshot show before-upgrade\n  \
        isochron snapshot show before-upgrade --json | jq .cut")]
    Show {
        /// Identifier, or a name that only one has
        id: String,
    },
    /// Return a whole collection to a snapshot
    #[command(after_help = "Example:\n  isochron snapshot apply before-upgrade")]
    Apply {
        /// Identifier, or a name that only one has
        id: String,
        /// Print the job instead of waiting
        #[arg(long)]
        no_wait: bool,
    },
    /// Export a snapshot into a directory, in full or as what changed since another
    #[command(after_help = "Examples:
  isochron snapshot export before-upgrade /backups/shop-monday
  isochron snapshot export tuesday /backups/shop-tuesday --base before-upgrade
  isochron snapshot export tuesday /backups/shop-full --base before-upgrade --intent merge
  isochron snapshot export tuesday /backups/web --disk web --disk db/root --limit 50M")]
    Export(exporting::Options),
    /// Turn a recovery snapshot into a reference point: its layers are merged while guests
    /// run, and differences can still be told from it
    #[command(after_help = "Example:\n  isochron snapshot convert before-upgrade")]
    Convert {
        /// Identifier, or a name that only one has
        id: String,
        /// The reference point's identifier [default: a new one]
        #[arg(long, value_name = "UUID")]
        to: Option<uuid::Uuid>,
        /// Print the job and the reference point to be instead of waiting
        #[arg(long)]
        no_wait: bool,
    },
    /// Destroy a snapshot: merge its layers while guests run, free the space
    #[command(after_help = "Example:\n  isochron snapshot destroy before-upgrade")]
    Destroy {
        /// Identifier, or a name that only one has
        id: String,
        /// Print the job instead of waiting
        #[arg(long)]
        no_wait: bool,
    },
}

/// What a snapshot holds.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Type {
    /// Disks, memory and devices: members continue from the instant
    Standard,
    /// Disks, for backup: members come up as after a loss of power
    Recovery,
}

/// What the guests find when they come back.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Level {
    /// File systems frozen by the guest agent around the instant
    Application,
    /// The disks as after a loss of power
    Crash,
}

impl From<Level> for Consistency {
    fn from(level: Level) -> Self {
        match level {
            Level::Application => Self::Application,
            Level::Crash => Self::Crash,
        }
    }
}

impl Verb {
    /// Carries it out.
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        let client = &session.client;
        match self {
            Self::Create {
                collection,
                name,
                kind,
                consistency,
                ignore_excluded_disks,
                id,
                no_wait,
            } => {
                let new = NewSnapshot {
                    collection,
                    name,
                    kind: match kind {
                        Type::Standard => SnapshotKind::Standard,
                        Type::Recovery => SnapshotKind::Recovery,
                    },
                    consistency: consistency.map(Into::into),
                    ignore_excluded_disks,
                    id,
                };
                let job = client.create_snapshot(&new).await?;
                if no_wait {
                    return print_started(session, &job);
                }
                let job = wait(session, &job.id.to_string(), None).await?;
                let Some(id) = job.snapshot_id else {
                    return Err(Failure::failed(format!(
                        "the job {} names no snapshot",
                        job.id
                    )));
                };
                session.print(&client.snapshot(&id.to_string()).await?, created)
            }
            Self::List { collection } => {
                let snapshots = client.snapshots(collection.as_deref()).await?;
                session.print(&snapshots, |all| trees(all))
            }
            Self::Show { id } => session.print(&client.snapshot(&id).await?, show),
            Self::Apply { id, no_wait } => {
                let job = client.apply_snapshot(&id).await?;
                ended(
                    session,
                    job,
                    no_wait,
                    &format!("the collection stands on {id} again"),
                )
                .await
            }
            Self::Export(options) => options.run(What::Snapshot, session).await,
            Self::Convert { id, to, no_wait } => {
                let convert = ConvertSnapshot { id: to };
                let job = client.convert_snapshot(&id, &convert).await?;
                if no_wait {
                    return print_started(session, &job);
                }
                let job = wait(session, &job.id.to_string(), None).await?;
                let Some(id) = job.point_id else {
                    let message = format!("the job {} names no reference point", job.id);
                    return Err(Failure::failed(message));
                };
                session.print(&client.reference_point(&id.to_string()).await?, made)
            }
            Self::Destroy { id, no_wait } => {
                let job = client.destroy_snapshot(&id).await?;
                ended(session, job, no_wait, &format!("{id} is destroyed")).await
            }
        }
    }
}

fn kind(kind: SnapshotKind) -> &'static str {
    match kind {
        SnapshotKind::Standard => "standard",
        SnapshotKind::Recovery => "recovery",
    }
}

pub fn consistency(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Application => "application",
        Consistency::Crash => "crash",
    }
}

fn created(snapshot: &Snapshot) -> String {
    let pause = snapshot
        .cut
        .members
        .iter()
        .filter_map(|member| member.pause_us)
        .max();
    let mut text = facts(&[
        (
            "snapshot",
            Some(format!("{}  {}", snapshot.id, snapshot.name)),
        ),
        ("members", Some(snapshot.members.len().to_string())),
        ("stop skew", snapshot.cut.skew_us.map(micros)),
        (
            "all stood still",
            snapshot.cut.common_window_us.map(micros_of),
        ),
        ("longest pause", pause.map(micros)),
    ]);
    for member in &snapshot.cut.members {
        if let Some(note) = &member.memory_note {
            let _ = writeln!(text, "{}: memory saved while it stood: {note}", member.vm);
        }
    }
    text
}

/// The snapshots of each collection, as a tree. What grew from a snapshot that
/// is gone stands at the root.
fn trees(snapshots: &[Snapshot]) -> String {
    let mut collections: Vec<_> = snapshots
        .iter()
        .map(|one| (one.collection_id, one.collection.as_str()))
        .collect();
    collections.sort_by_key(|(id, name)| (*name, *id));
    collections.dedup_by_key(|(id, _)| *id);
    let mut table = Table::new([
        "SNAPSHOT",
        "",
        "TYPE",
        "CONSISTENCY",
        "TAKEN",
        "WINDOW",
        "ID",
    ]);
    for (collection, name) in collections {
        table.row([name.to_owned()]);
        let own: Vec<_> = snapshots
            .iter()
            .filter(|one| one.collection_id == collection)
            .collect();
        let roots = own
            .iter()
            .filter(|one| !own.iter().any(|other| Some(other.id) == one.parent))
            .copied()
            .collect();
        branches(&own, roots, "", &mut table);
    }
    table.to_string()
}

fn branches(all: &[&Snapshot], level: Vec<&Snapshot>, indent: &str, table: &mut Table) {
    let last = level.len().saturating_sub(1);
    for (index, snapshot) in level.into_iter().enumerate() {
        let (branch, below) = if index == last {
            ("└─ ", "   ")
        } else {
            ("├─ ", "│  ")
        };
        table.row([
            format!("{indent}{branch}{}", snapshot.name),
            (if snapshot.current { "<- current" } else { "" }).to_owned(),
            kind(snapshot.kind).to_owned(),
            consistency(snapshot.consistency).to_owned(),
            time(snapshot.created_at),
            snapshot
                .cut
                .common_window_us
                .map_or_else(|| "-".to_owned(), micros_of),
            snapshot.id.to_string(),
        ]);
        let children = all
            .iter()
            .filter(|one| one.parent == Some(snapshot.id))
            .copied()
            .collect();
        branches(all, children, &format!("{indent}{below}"), table);
    }
}

fn show(snapshot: &Snapshot) -> String {
    let mut text = facts(&[
        ("name", Some(snapshot.name.clone())),
        ("id", Some(snapshot.id.to_string())),
        (
            "collection",
            Some(format!(
                "{}  {}",
                snapshot.collection, snapshot.collection_id
            )),
        ),
        ("type", Some(kind(snapshot.kind).to_owned())),
        (
            "consistency",
            Some(consistency(snapshot.consistency).to_owned()),
        ),
        ("taken", Some(time(snapshot.created_at))),
        ("parent", snapshot.parent.map(|id| id.to_string())),
        (
            "current",
            snapshot
                .current
                .then(|| "the collection stands on it".to_owned()),
        ),
        ("stop skew", snapshot.cut.skew_us.map(micros)),
        (
            "all stood still",
            snapshot.cut.common_window_us.map(micros_of),
        ),
    ]);
    text.push('\n');
    let first = snapshot
        .cut
        .members
        .iter()
        .filter_map(|member| member.stopped_at_us)
        .min();
    let since = |stamp: Option<u64>| match (stamp, first) {
        (Some(stamp), Some(first)) => format!("+{}", micros(stamp.saturating_sub(first))),
        _ => "-".to_owned(),
    };
    let mut table = Table::new([
        "MEMBER", "WAS", "STOPPED", "RESUMED", "PAUSE", "MEMORY", "FROZEN",
    ]);
    for member in &snapshot.cut.members {
        table.row([
            member.vm.clone(),
            match member.power {
                Power::Running => "running",
                Power::Paused => "paused",
                Power::Off => "off",
                Power::Saved => "saved",
            }
            .to_owned(),
            since(member.stopped_at_us),
            since(member.resumed_at_us),
            member.pause_us.map_or_else(|| "-".to_owned(), micros),
            match member.memory {
                MemorySave::None => "-",
                MemorySave::Background => "background",
                MemorySave::Plain => "plain",
            }
            .to_owned(),
            member.frozen_filesystems.to_string(),
        ]);
    }
    text.push_str(&table.to_string());
    for member in &snapshot.cut.members {
        if let Some(note) = &member.memory_note {
            let _ = writeln!(text, "{}: memory saved while it stood: {note}", member.vm);
        }
    }
    text.push_str("\nfrozen layers\n");
    for member in &snapshot.members {
        for disk in &member.disks {
            let (vm, name, format) = (&member.vm, &disk.disk, disk.format.as_str());
            let _ = writeln!(text, "  {vm} {name}: {} ({format})", disk.layer.display());
        }
        if let Some(memory) = &member.memory {
            let _ = writeln!(text, "  {} memory: {}", member.vm, memory.display());
        }
        for disk in &member.left_out {
            let _ = writeln!(text, "  {} {disk}: left out", member.vm);
        }
    }
    if !snapshot.exports.is_empty() {
        text.push_str("\nexports\n");
    }
    for export in &snapshot.exports {
        let (when, directory) = (time(export.finished_at), export.directory.display());
        let _ = writeln!(text, "  {when}  {directory}");
    }
    text
}
