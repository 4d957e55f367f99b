//! `isochron job ...`

use std::time::Duration;

use clap::Subcommand;
use isochron_api::dto::{Job, JobState};

use super::Session;
use super::exporting::amounts;
use super::wait::{title, wait};
use crate::exit::Failure;
use crate::output::{Table, facts, time};

/// What can be done to jobs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List jobs: those under way, and those that ended not long ago
    #[command(after_help = "Example:\n  isochron job list")]
    List,
    /// Show a job
    #[command(after_help = "Example:\n  isochron job show 5bd0c5c6-6a94-4c2e-a1e3-3c1f6a3a1f00")]
    Show {
        /// Identifier
        id: String,
    },
    /// Wait until a job has ended; fails if the job failed
    #[command(after_help = "Example:\n  isochron job wait \
        5bd0c5c6-6a94-4c2e-a1e3-3c1f6a3a1f00 --timeout 300")]
    Wait {
        /// Identifier
        id: String,
        /// Give up waiting after so long
        #[arg(long, value_name = "SECONDS")]
        timeout: Option<u64>,
    },
    /// Ask a job to stop, which it does until its instant
    #[command(after_help = "Example:\n  isochron job cancel 5bd0c5c6-6a94-4c2e-a1e3-3c1f6a3a1f00")]
    Cancel {
        /// Identifier
        id: String,
    },
}

impl Verb {
    /// Carries it out.
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        let client = &session.client;
        match self {
            Self::List => session.print(&client.jobs().await?, |jobs| list(jobs)),
            Self::Show { id } => session.print(&client.job(&id, Duration::ZERO).await?, show),
            Self::Wait { id, timeout } => {
                let job = wait(session, &id, timeout.map(Duration::from_secs)).await?;
                session.print(&job, show)
            }
            Self::Cancel { id } => session.print(&client.cancel_job(&id).await?, show),
        }
    }
}

fn state(state: JobState) -> &'static str {
    match state {
        JobState::Running => "running",
        JobState::Completed => "completed",
        JobState::Cancelled => "cancelled",
        JobState::Failed => "failed",
    }
}

fn list(jobs: &[Job]) -> String {
    let mut table = Table::new(["ID", "JOB", "STATE", "DONE", "STARTED", "STEP"]);
    for job in jobs {
        table.row([
            job.id.to_string(),
            title(job.kind).to_owned(),
            state(job.state).to_owned(),
            format!("{}%", job.percent),
            time(job.started_at),
            job.error
                .as_ref()
                .map_or(&job.step, |error| &error.message)
                .clone(),
        ]);
    }
    table.to_string()
}

fn show(job: &Job) -> String {
    facts(&[
        ("id", Some(job.id.to_string())),
        ("job", Some(title(job.kind).to_owned())),
        ("state", Some(state(job.state).to_owned())),
        ("done", Some(format!("{}%", job.percent))),
        (
            "step",
            Some(job.step.clone()).filter(|step| !step.is_empty()),
        ),
        (
            "directory",
            job.export
                .as_ref()
                .map(|export| export.directory.display().to_string()),
        ),
        ("disks and memory", job.export.as_ref().map(amounts)),
        (
            "error",
            job.error.as_ref().map(|error| error.message.clone()),
        ),
        ("snapshot", job.snapshot_id.map(|id| id.to_string())),
        ("reference point", job.point_id.map(|id| id.to_string())),
        ("collection", job.collection_id.map(|id| id.to_string())),
        ("asked for by", job.owner.clone()),
        ("started", Some(time(job.started_at))),
        ("ended", job.ended_at.map(time)),
        ("cancellable", job.cancellable.then(|| "yes".to_owned())),
    ])
}
