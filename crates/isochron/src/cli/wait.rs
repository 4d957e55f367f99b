//! Waiting for a job, with progress for a person who looks.
//!
//! Interrupting the wait does not cancel the job: it goes on in the daemon.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, ProgressBar, ProgressStyle};
use isochron_api::client::ClientError;
use isochron_api::dto::{Job, JobExport, JobKind, JobState};

use super::Session;
use crate::exit::{Exit, Failure};
use crate::output::{self, facts};

/// How long one request waits for the job's end before progress is shown anew.
const STEP: Duration = Duration::from_millis(200);

/// Waits until the job has ended, or for `limit`. A job that failed or was
/// cancelled is a failure.
pub async fn wait(session: &Session, id: &str, limit: Option<Duration>) -> Result<Job, Failure> {
    let bar = bar();
    let ended = tokio::select! {
        ended = follow(session, id, limit, &bar) => ended,
        _ = tokio::signal::ctrl_c() => Err(Failure::new(
            Exit::Interrupted,
            format!(
                "no longer waiting; the job goes on. Look with `isochron job show {id}`, \
                 wait with `isochron job wait {id}`, stop it with `isochron job cancel {id}`."
            ),
        )),
    };
    bar.finish_and_clear();
    let job = ended?;
    match (job.state, &job.error) {
        (JobState::Completed, _) => Ok(job),
        (_, Some(error)) => Err(error.clone().into()),
        (JobState::Cancelled, None) => Err(Failure::new(
            Exit::Cancelled,
            format!("the job {id} was cancelled"),
        )),
        (_, None) => Err(Failure::failed(format!("the job {id} failed"))),
    }
}

/// Waits for a job that leaves nothing to show but the job, unless told not to.
pub async fn ended(
    session: &Session,
    job: Job,
    no_wait: bool,
    sentence: &str,
) -> Result<(), Failure> {
    if no_wait {
        return print_started(session, &job);
    }
    let job = wait(session, &job.id.to_string(), None).await?;
    session.print(&job, |_| format!("{sentence}\n"))
}

/// Prints a job that was started, and what it makes or changes.
pub fn print_started(session: &Session, job: &Job) -> Result<(), Failure> {
    if session.json {
        let mut started = serde_json::json!({ "job": job.id, "snapshot": job.snapshot_id });
        if let Some(point) = job.point_id {
            started["reference_point"] = serde_json::json!(point);
        }
        return output::json(&started);
    }
    output::text(&facts(&[
        ("job", Some(job.id.to_string())),
        ("snapshot", job.snapshot_id.map(|id| id.to_string())),
        ("reference point", job.point_id.map(|id| id.to_string())),
    ]))
}

async fn follow(
    session: &Session,
    id: &str,
    limit: Option<Duration>,
    bar: &ProgressBar,
) -> Result<Job, Failure> {
    let began = Instant::now();
    loop {
        let rest = limit.map(|limit| limit.saturating_sub(began.elapsed()));
        let step = rest.map_or(STEP, |rest| rest.min(STEP));
        let job = session
            .client
            .job(id, step)
            .await
            .map_err(|error| gone(error, id))?;
        if job.ended() {
            return Ok(job);
        }
        if rest.is_some_and(|rest| rest.is_zero()) {
            let message = format!(
                "the job {id} has not ended yet ({}%: {})",
                job.percent, job.step
            );
            return Err(Failure::new(Exit::Timeout, message));
        }
        match &job.export {
            Some(export) if export.total_bytes > 0 => bytes(bar, export),
            _ => bar.set_position(job.percent.into()),
        }
        bar.set_message(format!("{}: {}", title(job.kind), job.step));
    }
}

/// The daemon went away while the job ran: say how to find the job again.
fn gone(error: ClientError, id: &str) -> Failure {
    match error {
        ClientError::Unreachable { .. } | ClientError::BadAnswer { .. } => Failure::new(
            Exit::Unreachable,
            format!(
                "{error}\n\
                 The daemon went away while the job ran. When it is back, it has brought the \
                 job to an end: `isochron job show {id}`."
            ),
        ),
        error => error.into(),
    }
}

/// A bar on stderr; nothing where nobody looks.
fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(100);
    if let Ok(style) = ProgressStyle::with_template("{spinner} [{bar:30}] {percent:>3}%  {msg}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Has a bar show bytes, how fast they are written, and the time left.
fn bytes(bar: &ProgressBar, export: &JobExport) {
    if bar.length() != Some(export.total_bytes) {
        let template = "{spinner} [{bar:30}] {binary_bytes} of {binary_total_bytes}, {prefix}/s, \
                        {eta} left  {msg}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_length(export.total_bytes);
        // What was shown before counts nothing for the time left.
        bar.set_position(0);
        bar.reset_eta();
    }
    bar.set_position(export.done_bytes);
    bar.set_prefix(BinaryBytes(export.bytes_per_second).to_string());
}

/// What a job does, for people.
pub fn title(kind: JobKind) -> &'static str {
    match kind {
        JobKind::StartMachine => "start machine",
        JobKind::RestoreMachine => "restore machine",
        JobKind::ResumeMachine => "resume machine",
        JobKind::PauseMachine => "pause machine",
        JobKind::SaveMachine => "save machine",
        JobKind::ShutDownMachine => "shut down machine",
        JobKind::TurnOffMachine => "turn off machine",
        JobKind::ModifyMachine => "modify machine",
        JobKind::DestroyMachine => "destroy machine",
        JobKind::CreateSnapshot => "create snapshot",
        JobKind::ApplySnapshot => "apply snapshot",
        JobKind::DestroySnapshot => "destroy snapshot",
        JobKind::ExportSnapshot => "export snapshot",
        JobKind::ConvertSnapshot => "convert snapshot",
        JobKind::CreateReferencePoint => "create reference point",
        JobKind::DestroyReferencePoint => "destroy reference point",
        JobKind::ExportReferencePoint => "export reference point",
        JobKind::RemoveReferencePointData => "remove reference point data",
    }
}
