//! `/v1/jobs`

use std::time::Duration;

use axum::Json;
use isochron_engine::model::JobId;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Asked, Named, Query, Refusal, to_end};
use crate::ApiError;
use crate::dto::Job;

/// The longest that a request waits for a job's end, in seconds.
const WAIT_MAX: f64 = 60.0;

/// All jobs: those under way, and those that ended not long ago.
#[utoipa::path(get, path = "/v1/jobs", operation_id = "list_jobs", tag = "jobs",
    responses((status = 200, description = "Jobs", body = [Job]), Refusal))]
pub(super) async fn list(Asked(engine): Asked) -> Result<Json<Vec<Job>>, ApiError> {
    Ok(Json(
        engine.jobs().await?.into_iter().map(Into::into).collect(),
    ))
}

/// Whether to wait for the job's end.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wait {
    /// Answer when the job has ended, or after so many seconds with the job as
    /// it is then; 0 where absent, 60 at most.
    wait: Option<f64>,
}

/// A job, now or when it has ended.
#[utoipa::path(get, path = "/v1/jobs/{job}", operation_id = "show_job", tag = "jobs",
    params(("job" = String, Path, description = "Identifier"), Wait),
    responses((status = 200, description = "The job", body = Job), Refusal))]
pub(super) async fn show(
    Asked(engine): Asked,
    Named(job): Named<String>,
    Query(Wait { wait }): Query<Wait>,
) -> Result<Json<Job>, ApiError> {
    let id = parse(&job)?;
    let wait = wait.unwrap_or(0.0);
    if !(0.0..=f64::MAX).contains(&wait) {
        return Err(ApiError::invalid(format!(
            "wait is a number of seconds, not {wait}"
        )));
    }
    let wait = Duration::from_secs_f64(wait.min(WAIT_MAX));
    let job = if wait.is_zero() {
        engine.job(id).await?
    } else {
        match tokio::time::timeout(wait, engine.wait_job(id)).await {
            Ok(ended) => ended?,
            Err(_) => engine.job(id).await?,
        }
    };
    Ok(Json(job.into()))
}

/// Asks a job to stop.
///
/// Refused once its instant has passed: from there it goes to its end. The job
/// ends by itself; wait for it to see how.
#[utoipa::path(post, path = "/v1/jobs/{job}/cancel", operation_id = "cancel_job", tag = "jobs",
    params(("job" = String, Path, description = "Identifier")),
    responses((status = 200, description = "The job", body = Job), Refusal))]
pub(super) async fn cancel(
    Asked(engine): Asked,
    Named(job): Named<String>,
) -> Result<Json<Job>, ApiError> {
    let id = parse(&job)?;
    let job = to_end(async move {
        engine.cancel_job(id).await?;
        engine.job(id).await
    })
    .await?;
    Ok(Json(job.into()))
}

fn parse(text: &str) -> Result<JobId, ApiError> {
    text.parse()
        .map_err(|_| ApiError::invalid(format!("\"{text}\" is no job's identifier")))
}
