//! Msvm_ComputerSystem.RequestStateChange: starts, resumes, pauses and ends a
//! virtual machine. It completes before it returns, without a job.

use std::time::Duration;

use isochron_cim::Outcome;
use isochron_engine::EngineError;
use isochron_engine::model::{MachineId, Power};

use super::Call;
use crate::codes::ManagementReturn;

/// How long a guest is given to shut down.
const SHUTDOWN: Duration = Duration::from_secs(30);

/// RequestedState (CIM_EnabledLogicalElement, with Hyper-V's own numbers).
pub(super) async fn request_state_change(call: &Call<'_>, id: MachineId) -> Outcome {
    let engine = &call.engine;
    let done = match call.number("RequestedState") {
        // Enabled; Resuming.
        Some(2 | 32777) => run(call, id).await,
        // Disabled: the power is cut.
        Some(3) => engine.kill_machine(id).await,
        // Shut Down: the guest is asked to.
        Some(4) => engine.shut_down_machine(id, SHUTDOWN).await,
        // Quiesce; Paused; Pausing.
        Some(9 | 32768 | 32776) => engine.pause_machine(id).await,
        Some(_) => return call.reply(ManagementReturn::NotSupported, []),
        None => return call.reply(ManagementReturn::InvalidParameter, []),
    };
    match done {
        Ok(()) => call.reply(ManagementReturn::Completed, []),
        Err(error) => {
            tracing::info!(machine = %id, %error, "state change refused");
            call.reply(ManagementReturn::from(error.kind), [])
        }
    }
}

/// Starts the machine or lets it go on.
async fn run(call: &Call<'_>, id: MachineId) -> Result<(), EngineError> {
    let engine = &call.engine;
    match engine.power(id).await? {
        Power::Running => Ok(()),
        Power::Paused => engine.resume_machine(id).await,
        Power::Off => engine.start_machine(id).await,
    }
}
