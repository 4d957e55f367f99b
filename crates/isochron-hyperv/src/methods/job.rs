//! Msvm_ConcreteJob: why a job failed, and cancelling it.
//!
//! RequestStateChange has a family of return codes of its own. Terminate and Kill
//! are the same here: a job that can be cancelled always leaves everything as it
//! was.

use std::sync::Arc;
use std::time::Duration;

use isochron_cim::{CimError, Outcome, Value};
use isochron_engine::ErrorKind;
use isochron_engine::model::Job;

use super::Call;
use crate::codes::{ManagementReturn, StateChangeReturn};
use crate::lookup::cim_error;
use crate::object::Object;
use crate::render;

/// Calls a method; `None` if there is none of that name.
pub(super) async fn invoke(
    call: &Call<'_>,
    job: &Job,
    method: &str,
) -> Result<Option<Outcome>, CimError> {
    Ok(match method {
        "GetError" => Some(match error(call, job) {
            Some(error) => call.reply(ManagementReturn::Completed, [("Error", error)]),
            None => call.reply(ManagementReturn::Completed, []),
        }),
        "GetErrorEx" => Some(match error(call, job) {
            Some(error) => {
                let errors = Value::Array(vec![Some(error)]);
                call.reply(ManagementReturn::Completed, [("Errors", errors)])
            }
            None => call.reply(ManagementReturn::Completed, []),
        }),
        "RequestStateChange" => Some(call.reply(request(call, job).await?, [])),
        "KillJob" => Some(call.reply(StateChangeReturn::NotSupported, [])),
        _ => None,
    })
}

fn error(call: &Call<'_>, job: &Job) -> Option<Value> {
    let object = Object::Job(Arc::new(job.clone()));
    let path = call.provider.path(call.space, &object);
    render::errors(job, &path).map(Value::from)
}

async fn request(call: &Call<'_>, job: &Job) -> Result<StateChangeReturn, CimError> {
    let deadline = match call.value("TimeoutPeriod") {
        Some(Value::DateTime(period)) => period.as_duration(),
        Some(_) => return Ok(StateChangeReturn::InvalidParameter),
        None => Some(Duration::ZERO),
    };
    Ok(match call.number("RequestedState") {
        Some(4 | 5) if deadline != Some(Duration::ZERO) => StateChangeReturn::TimeoutNotSupported,
        Some(4 | 5) => match call.engine.cancel_job(job.id).await {
            Ok(()) => StateChangeReturn::Completed,
            // The family has no word for it.
            Err(error) if error.kind == ErrorKind::AccessDenied => return Err(cim_error(error)),
            Err(error) => error.kind.into(),
        },
        // Start, suspend, service.
        Some(2 | 3 | 6) => StateChangeReturn::NotSupported,
        _ => StateChangeReturn::InvalidParameter,
    })
}
