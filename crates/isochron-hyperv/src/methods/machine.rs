//! Msvm_ComputerSystem: RequestStateChange starts, resumes, pauses, saves, shuts
//! down and turns off a virtual machine, in a job (4096) as Hyper-V does.
//!
//! The reference gives a state that cannot be asked for the same code as one that
//! cannot be asked for now: 32775. The job says which it was.

use std::time::Duration;

use isochron_cim::{CimError, Outcome};
use isochron_engine::model::{JobKind, MachineId, Power};
use isochron_engine::{EngineError, ErrorKind, PowerChange};

use super::{Call, invalid};
use crate::codes::ManagementReturn;
use crate::object::job_path;

/// How long a guest is given to shut down.
const SHUTDOWN: Duration = Duration::from_secs(30);

/// Calls a method; `None` if it cannot be called.
pub(super) async fn invoke(
    call: &Call<'_>,
    id: MachineId,
    method: &str,
) -> Result<Option<Outcome>, CimError> {
    Ok(match method {
        "RequestStateChange" => Some(request_state_change(call, id).await?),
        "SetPowerState"
        | "RequestReplicationStateChange"
        | "RequestReplicationStateChangeEx"
        | "InjectNonMaskableInterrupt"
        | "InjectNonMaskableInterruptEx"
        | "RequestCustomRestore" => Some(call.reply(
            match method {
                // Of CIM's own family.
                "SetPowerState" => 1,
                _ => u32::from(ManagementReturn::NotSupported),
            },
            [],
        )),
        _ => None,
    })
}

/// RequestedState (CIM_EnabledLogicalElement, with Hyper-V's own numbers).
async fn request_state_change(call: &Call<'_>, id: MachineId) -> Result<Outcome, CimError> {
    let engine = &call.engine;
    let asked = call.number("RequestedState");
    let change = match asked {
        // Enabled; Reboot, which the reference has for "from off or saved to running".
        Some(2 | 10) => PowerChange::Run,
        // Resuming: from paused only.
        Some(32777) => match engine.power(id).await {
            Ok(Power::Paused) => PowerChange::Run,
            Ok(power) => {
                let message = format!("the machine is {power}, so it cannot be resumed");
                let error = EngineError::new(ErrorKind::InvalidState, message);
                return refuse(call, JobKind::ResumeMachine, &error).await;
            }
            Err(error) => return refuse(call, JobKind::ResumeMachine, &error).await,
        },
        Some(3) => PowerChange::TurnOff,
        Some(4) => PowerChange::ShutDown(SHUTDOWN),
        // Offline; Saved, Saving, FastSaved and FastSaving.
        Some(6 | 32769 | 32773 | 32779 | 32780) => PowerChange::Save,
        // Quiesce; Paused, Pausing.
        Some(9 | 32768 | 32776) => PowerChange::Pause,
        Some(other) => {
            let message = format!(
                "RequestedState {other} cannot be asked for; 2 runs it, 3 turns it off, 4 shuts \
                 it down, 6 saves it, 9 pauses it"
            );
            let error = EngineError::new(ErrorKind::InvalidState, message);
            return refuse(call, JobKind::ResumeMachine, &error).await;
        }
        None => {
            let error = invalid("RequestedState is missing");
            return refuse(call, JobKind::ResumeMachine, &error).await;
        }
    };
    match engine.change_power(id, change, call.owner.clone()).await {
        Ok(job) => {
            let job = call.path(job_path(job));
            Ok(call.reply(ManagementReturn::JobStarted, [("Job", job)]))
        }
        Err(error) => refuse(call, kind(change), &error).await,
    }
}

fn kind(change: PowerChange) -> JobKind {
    match change {
        PowerChange::Run => JobKind::StartMachine,
        PowerChange::TurnOff => JobKind::TurnOffMachine,
        PowerChange::ShutDown(_) => JobKind::ShutDownMachine,
        PowerChange::Pause => JobKind::PauseMachine,
        PowerChange::Save => JobKind::SaveMachine,
    }
}

async fn refuse(call: &Call<'_>, kind: JobKind, error: &EngineError) -> Result<Outcome, CimError> {
    let code = ManagementReturn::from(error.kind);
    call.refuse_as(kind, error, code).await
}
