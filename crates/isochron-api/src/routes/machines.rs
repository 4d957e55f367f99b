//! `/v1/machines`

use std::time::Duration;

use axum::Json;
use futures::future::join_all;
use http::StatusCode;
use isochron_engine::Engine;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Asked, Body, Named, Query, Refusal, to_end};
use crate::ApiError;
use crate::dto::{Machine, MachineChange, MachineSummary, NewMachine};

/// The longest wait for a guest's shutdown, in seconds.
const STOP_WAIT_MAX: f64 = 3600.0;

/// All machines.
///
/// A machine that does not answer has no `power` but a `problem`.
#[utoipa::path(get, path = "/v1/machines", operation_id = "list_machines", tag = "machines",
    responses((status = 200, description = "Machines", body = [MachineSummary]), Refusal))]
pub(super) async fn list(Asked(engine): Asked) -> Result<Json<Vec<MachineSummary>>, ApiError> {
    let machines = engine.machines().await?;
    let summaries = join_all(machines.into_iter().map(|machine| async {
        let power = engine.power(machine.id).await;
        MachineSummary::new(machine, power)
    }));
    Ok(Json(summaries.await))
}

/// Makes a machine known: defines one that the daemon will start, from its disks or
/// from saved memory, or attaches to one that its owner has started.
#[utoipa::path(post, path = "/v1/machines", operation_id = "create_machine", tag = "machines",
    request_body = NewMachine,
    responses((status = 201, description = "The machine", body = Machine), Refusal))]
pub(super) async fn create(
    Asked(engine): Asked,
    Body(new): Body<NewMachine>,
) -> Result<(StatusCode, Json<Machine>), ApiError> {
    let view = to_end(async move {
        let machine = match new {
            NewMachine::Define(definition) => engine.define_machine(definition.into()).await?,
            NewMachine::DefineSaved(saved) => {
                engine
                    .define_saved_machine(saved.definition.into(), saved.memory)
                    .await?
            }
            NewMachine::Attach(attach) => {
                engine
                    .attach_machine(&attach.name, attach.qmp, attach.guest_agent)
                    .await?
            }
        };
        engine.machine_view(machine.id).await
    })
    .await?;
    Ok((StatusCode::CREATED, Json(view.into())))
}

/// A machine as it is now.
#[utoipa::path(get, path = "/v1/machines/{machine}", operation_id = "show_machine",
    tag = "machines", params(("machine" = String, Path, description = "Name or identifier")),
    responses((status = 200, description = "The machine", body = Machine), Refusal))]
pub(super) async fn show(
    Asked(engine): Asked,
    Named(machine): Named<String>,
) -> Result<Json<Machine>, ApiError> {
    let machine = engine.find_machine(&machine).await?;
    Ok(Json(engine.machine_view(machine.id).await?.into()))
}

/// Gives a machine another name, or other notes.
#[utoipa::path(patch, path = "/v1/machines/{machine}", operation_id = "change_machine",
    tag = "machines", params(("machine" = String, Path, description = "Name or identifier")),
    request_body = MachineChange,
    responses((status = 200, description = "The machine", body = Machine), Refusal))]
pub(super) async fn change(
    Asked(engine): Asked,
    Named(machine): Named<String>,
    Body(change): Body<MachineChange>,
) -> Result<Json<Machine>, ApiError> {
    let view = to_end(async move {
        let machine = engine.find_machine(&machine).await?;
        if let Some(name) = &change.name {
            engine.rename_machine(machine.id, name).await?;
        }
        if let Some(notes) = &change.notes {
            engine.note_machine(machine.id, notes).await?;
        }
        engine.machine_view(machine.id).await
    })
    .await?;
    Ok(Json(view.into()))
}

/// Forgets a machine. Its images stay.
///
/// Refused while it runs (unless it is attached), is in a collection or has
/// snapshots.
#[utoipa::path(delete, path = "/v1/machines/{machine}", operation_id = "undefine_machine",
    tag = "machines", params(("machine" = String, Path, description = "Name or identifier")),
    responses((status = 204, description = "Forgotten"), Refusal))]
pub(super) async fn remove(
    Asked(engine): Asked,
    Named(machine): Named<String>,
) -> Result<StatusCode, ApiError> {
    to_end(async move {
        let machine = engine.find_machine(&machine).await?;
        engine.undefine_machine(machine.id).await
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Starts a machine; one that is saved goes on from its memory.
#[utoipa::path(post, path = "/v1/machines/{machine}/start", operation_id = "start_machine",
    tag = "machines", params(("machine" = String, Path, description = "Name or identifier")),
    responses((status = 200, description = "The machine", body = Machine), Refusal))]
pub(super) async fn start(
    Asked(engine): Asked,
    Named(machine): Named<String>,
) -> Result<Json<Machine>, ApiError> {
    act(engine, machine, Action::Start).await
}

/// How to stop a machine.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Stop {
    /// End the process without asking the guest.
    #[serde(default)]
    force: bool,
    /// Seconds to wait for the guest's shutdown; 60 where absent, at most 3600.
    wait: Option<f64>,
}

/// Stops a machine: asks the guest to shut down and waits for it, or ends its
/// process.
#[utoipa::path(post, path = "/v1/machines/{machine}/stop", operation_id = "stop_machine",
    tag = "machines",
    params(("machine" = String, Path, description = "Name or identifier"), Stop),
    responses((status = 200, description = "The machine", body = Machine), Refusal))]
pub(super) async fn stop(
    Asked(engine): Asked,
    Named(machine): Named<String>,
    Query(stop): Query<Stop>,
) -> Result<Json<Machine>, ApiError> {
    let wait = stop.wait.unwrap_or(60.0);
    if !(0.0..=STOP_WAIT_MAX).contains(&wait) {
        return Err(ApiError::invalid(format!(
            "wait is 0 to {STOP_WAIT_MAX} seconds, not {wait}"
        )));
    }
    let action = match stop.force {
        true => Action::Kill,
        false => Action::ShutDown(Duration::from_secs_f64(wait)),
    };
    act(engine, machine, action).await
}

/// Pauses a machine: its processors stand.
#[utoipa::path(post, path = "/v1/machines/{machine}/pause", operation_id = "pause_machine",
    tag = "machines", params(("machine" = String, Path, description = "Name or identifier")),
    responses((status = 200, description = "The machine", body = Machine), Refusal))]
pub(super) async fn pause(
    Asked(engine): Asked,
    Named(machine): Named<String>,
) -> Result<Json<Machine>, ApiError> {
    act(engine, machine, Action::Pause).await
}

/// Lets a paused machine run.
#[utoipa::path(post, path = "/v1/machines/{machine}/resume", operation_id = "resume_machine",
    tag = "machines", params(("machine" = String, Path, description = "Name or identifier")),
    responses((status = 200, description = "The machine", body = Machine), Refusal))]
pub(super) async fn resume(
    Asked(engine): Asked,
    Named(machine): Named<String>,
) -> Result<Json<Machine>, ApiError> {
    act(engine, machine, Action::Resume).await
}

/// Saves a machine: its memory goes to a file and its process ends.
#[utoipa::path(post, path = "/v1/machines/{machine}/save", operation_id = "save_machine",
    tag = "machines", params(("machine" = String, Path, description = "Name or identifier")),
    responses((status = 200, description = "The machine", body = Machine), Refusal))]
pub(super) async fn save(
    Asked(engine): Asked,
    Named(machine): Named<String>,
) -> Result<Json<Machine>, ApiError> {
    act(engine, machine, Action::Save).await
}

/// What is done to a machine.
enum Action {
    Start,
    ShutDown(Duration),
    Kill,
    Pause,
    Resume,
    Save,
}

/// Does something to a machine and answers with the machine as it is then.
async fn act(engine: Engine, name: String, action: Action) -> Result<Json<Machine>, ApiError> {
    let view = to_end(async move {
        let id = engine.find_machine(&name).await?.id;
        match action {
            Action::Start => engine.start_machine(id).await?,
            Action::ShutDown(wait) => engine.shut_down_machine(id, wait).await?,
            Action::Kill => engine.kill_machine(id).await?,
            Action::Pause => engine.pause_machine(id).await?,
            Action::Resume => engine.resume_machine(id).await?,
            Action::Save => engine.save_machine(id).await?,
        }
        engine.machine_view(id).await
    })
    .await?;
    Ok(Json(view.into()))
}
