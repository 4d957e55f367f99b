//! `isochron refpoint ...`

use std::fmt::Write;

use clap::Subcommand;
use isochron_api::dto::{NewReferencePoint, ReferencePoint};

use super::Session;
use super::exporting::{self, What};
use super::snapshot::{Level, consistency};
use super::wait::{ended, print_started, wait};
use crate::exit::Failure;
use crate::output::{Table, facts, micros, micros_of, time};

/// What can be done with reference points.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Remember this instant of a collection, and keep its data so that it can be exported
    #[command(after_help = "Examples:
  isochron refpoint create shop --name monday
  isochron refpoint create shop --consistency application --json")]
    Create {
        /// The collection, by name or identifier; or a single machine
        collection: String,
        /// The reference point's name [default: COLLECTION - (DATE)]
        #[arg(long)]
        name: Option<String>,
        /// What the guests would find; fails if it cannot be reached [default: crash]
        #[arg(long, value_enum)]
        consistency: Option<Level>,
        /// Leave out disks that cannot be snapshotted instead of refusing
        #[arg(long)]
        ignore_excluded_disks: bool,
        /// The reference point's identifier, so that a repeated call makes no second one
        /// [default: a new one]
        #[arg(long, value_name = "UUID")]
        id: Option<uuid::Uuid>,
        /// Print the job and the reference point to be instead of waiting
        #[arg(long)]
        no_wait: bool,
    },
    /// List reference points, the oldest first
    #[command(after_help = "Example:\n  isochron refpoint list shop")]
    List {
        /// Only this collection's, or this single machine's
        collection: Option<String>,
    },
    /// Show a reference point: its disks, its exports and the evidence for its instant
    #[command(after_help = "Examples:\n  isochron refpoint show monday\n  \
        isochron refpoint show monday --json | jq .exports")]
    Show {
        /// Identifier, or a name that only one has
        id: String,
    },
    /// Export a reference point that keeps its data into a directory
    #[command(after_help = "Examples:
  isochron refpoint export monday /backups/shop-monday
  isochron refpoint export tuesday /backups/shop-tuesday --base monday
  isochron refpoint export tuesday /backups/shop-tuesday --base /mnt/shop-monday --limit 50M")]
    Export(exporting::Options),
    /// Free what a reference point keeps; it stays as the base of differences
    #[command(after_help = "Example:\n  isochron refpoint forget-data monday")]
    ForgetData {
        /// Identifier, or a name that only one has
        id: String,
        /// Print the job instead of waiting
        #[arg(long)]
        no_wait: bool,
    },
    /// Destroy a reference point: no difference can be told from it any more
    #[command(after_help = "Example:\n  isochron refpoint destroy monday")]
    Destroy {
        /// Identifier, or a name that only one has
        id: String,
        /// Print the job instead of waiting
        #[arg(long)]
        no_wait: bool,
    },
}

impl Verb {
    /// Carries it out.
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        let client = &session.client;
        match self {
            Self::Create {
                collection,
                name,
                consistency,
                ignore_excluded_disks,
                id,
                no_wait,
            } => {
                let new = NewReferencePoint {
                    collection,
                    name,
                    consistency: consistency.map(Into::into),
                    ignore_excluded_disks,
                    id,
                };
                let job = client.create_reference_point(&new).await?;
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
            Self::List { collection } => {
                let points = client.reference_points(collection.as_deref()).await?;
                session.print(&points, |points| list(points))
            }
            Self::Show { id } => session.print(&client.reference_point(&id).await?, show),
            Self::Export(options) => options.run(What::ReferencePoint, session).await,
            Self::ForgetData { id, no_wait } => {
                let job = client.forget_reference_point_data(&id).await?;
                let sentence = format!("{id} keeps no data; differences can be told from it");
                ended(session, job, no_wait, &sentence).await
            }
            Self::Destroy { id, no_wait } => {
                let job = client.destroy_reference_point(&id).await?;
                ended(session, job, no_wait, &format!("{id} is destroyed")).await
            }
        }
    }
}

/// A reference point that has just been made.
pub fn made(point: &ReferencePoint) -> String {
    facts(&[
        (
            "reference point",
            Some(format!("{}  {}", point.id, point.name)),
        ),
        ("members", Some(point.members.len().to_string())),
        ("stop skew", point.cut.skew_us.map(micros)),
        ("all stood still", point.cut.common_window_us.map(micros_of)),
        ("data", Some(data(point).to_owned())),
    ])
}

fn data(point: &ReferencePoint) -> &'static str {
    match point.keeps_data {
        true => "kept: it can be exported",
        false => "not kept: it can be the base of differences",
    }
}

fn list(points: &[ReferencePoint]) -> String {
    let mut table = Table::new([
        "REFERENCE POINT",
        "COLLECTION",
        "CONSISTENCY",
        "TAKEN",
        "DATA",
        "EXPORTS",
        "ID",
    ]);
    for point in points {
        table.row([
            point.name.clone(),
            point.collection.clone(),
            consistency(point.consistency).to_owned(),
            time(point.created_at),
            (if point.keeps_data { "kept" } else { "-" }).to_owned(),
            point.exports.len().to_string(),
            point.id.to_string(),
        ]);
    }
    table.to_string()
}

fn show(point: &ReferencePoint) -> String {
    let mut text = facts(&[
        ("name", Some(point.name.clone())),
        ("id", Some(point.id.to_string())),
        (
            "collection",
            Some(format!("{}  {}", point.collection, point.collection_id)),
        ),
        (
            "consistency",
            Some(consistency(point.consistency).to_owned()),
        ),
        ("taken", Some(time(point.created_at))),
        ("stop skew", point.cut.skew_us.map(micros)),
        ("all stood still", point.cut.common_window_us.map(micros_of)),
        ("data", Some(data(point).to_owned())),
        (
            "notes",
            Some(point.notes.clone()).filter(|notes| !notes.is_empty()),
        ),
    ]);
    text.push('\n');
    let mut table = Table::new(["MEMBER", "DISK", "SIZE", "DIFFERENCES ARE TOLD FROM"]);
    for member in &point.members {
        for disk in &member.disks {
            table.row([
                member.vm.clone(),
                disk.disk.clone(),
                indicatif::BinaryBytes(disk.virtual_size).to_string(),
                match &disk.lost {
                    Some(reason) => format!("nothing any more: {reason}"),
                    None => disk.layer.display().to_string(),
                },
            ]);
        }
        for disk in &member.left_out {
            let (vm, disk) = (member.vm.clone(), disk.clone());
            table.row([vm, disk, String::new(), "left out".to_owned()]);
        }
    }
    text.push_str(&table.to_string());
    if !point.exports.is_empty() {
        text.push_str("\nexports\n");
    }
    for export in &point.exports {
        let (when, directory) = (time(export.finished_at), export.directory.display());
        let _ = writeln!(text, "  {when}  {directory}");
    }
    text
}
