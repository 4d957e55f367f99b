//! Virtual machines and their settings, and the host.
//!
//! Caption and Description are Hyper-V's own words, because clients tell virtual
//! machines from the host by them.

use isochron_cim::{DateTime, Instance};
use isochron_engine::model::{Machine, Power};
use isochron_engine::{EngineError, MachineView};

use super::{healthy, status};

/// EnabledState of a machine (CIM_EnabledLogicalElement; 32768 is Hyper-V's).
fn enabled_state(power: Power) -> u16 {
    match power {
        Power::Running => 2,
        Power::Off => 3,
        Power::Paused => 32768,
    }
}

/// RequestedState: no change of state is under way.
const NOT_APPLICABLE: u16 = 12;

/// The host.
pub(super) fn host(name: &str, instance: &mut Instance) {
    instance
        .set("Caption", "Hosting Computer System")
        .set("Description", "Microsoft Hosting Computer System")
        .set("ElementName", name)
        .set("EnabledState", 2_u16)
        .set("EnabledDefault", 2_u16)
        .set("RequestedState", NOT_APPLICABLE);
    healthy(instance);
}

/// A virtual machine, as it is now; a machine that does not answer is shown with
/// the reason.
pub(super) fn machine(
    machine: &Machine,
    view: Result<MachineView, EngineError>,
    instance: &mut Instance,
) {
    instance
        .set("Caption", "Virtual Machine")
        .set("Description", "Microsoft Virtual Machine")
        .set("ElementName", machine.name.as_str())
        .set("InstallDate", DateTime::from(machine.created_at))
        .set("EnabledDefault", 3_u16)
        .set("RequestedState", NOT_APPLICABLE)
        .set("AvailableRequestedStates", vec![2_u16, 3, 4, 9])
        .set("ReplicationMode", 0_u16)
        .set("ReplicationState", 0_u16)
        .set("ReplicationHealth", 0_u16)
        .set("FailedOverReplicationType", 0_u16);
    match view {
        Ok(view) => {
            instance.set("EnabledState", enabled_state(view.power));
            super::set_some(instance, "ProcessID", view.process_id);
            healthy(instance);
        }
        Err(error) => {
            instance.set("EnabledState", 0_u16);
            // 13: Lost Communication.
            status(instance, &[(13, &error.message)], 20);
        }
    }
}

/// The settings in force of a virtual machine.
pub(super) fn settings(machine: &Machine, instance: &mut Instance) {
    let id = machine.id.to_string();
    instance
        .set("Caption", "Virtual Machine Settings")
        .set("Description", "Active settings for the virtual machine")
        .set("ElementName", machine.name.as_str())
        .set("VirtualSystemIdentifier", id.as_str())
        .set("VirtualSystemType", "Microsoft:Hyper-V:System:Realized")
        .set("ConfigurationID", id.as_str())
        .set("BIOSGUID", id)
        .set("CreationTime", DateTime::from(machine.created_at))
        .set("IsSaved", false)
        .set("IsAutomaticSnapshot", false)
        .set("AutomaticSnapshotsEnabled", false);
    if !machine.notes.is_empty() {
        instance.set("Notes", vec![machine.notes.as_str()]);
    }
}
