//! Virtual machines and their settings, and the host.
//!
//! Caption and Description are Hyper-V's own words, because clients tell virtual
//! machines from the host by them.

use std::path::Path;

use isochron_cim::{DateTime, Instance};
use isochron_engine::model::{Definition, JobKind, Machine, Power};
use isochron_engine::{EngineError, MachineView};

use super::{healthy, set_some, status};

/// EnabledState of a machine, as the second version of Hyper-V's namespace has it: 9
/// (Quiesce) paused, 6 (Enabled but Offline) saved. Those of RequestStateChange are the
/// same. The first version's were 32768 and 32769.
pub(super) fn enabled_state(power: Power) -> u16 {
    match power {
        Power::Running => 2,
        Power::Off => 3,
        Power::Paused => 9,
        Power::Saved => 6,
    }
}

/// What RequestStateChange may be asked for: 2 run, 3 turn off, 4 shut down, 6 save,
/// 9 pause.
fn available(power: Power, attached: bool) -> Vec<u16> {
    match (power, attached) {
        (Power::Running, false) => vec![3, 4, 6, 9],
        (Power::Running, true) => vec![4, 9],
        (Power::Paused, false) => vec![2, 3, 6],
        (Power::Paused, true) => vec![2],
        (Power::Off, false) => vec![2],
        (Power::Off | Power::Saved, true) => Vec::new(),
        (Power::Saved, false) => vec![2, 3],
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
        .set("RequestedState", NOT_APPLICABLE)
        .set("Dedicated", vec![0_u16]);
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
        .set("Dedicated", vec![0_u16])
        .set("ReplicationMode", 0_u16)
        .set("ReplicationState", 0_u16)
        .set("ReplicationHealth", 0_u16)
        .set("FailedOverReplicationType", 0_u16);
    match view {
        Ok(view) => {
            instance.set("EnabledState", enabled_state(view.power)).set(
                "AvailableRequestedStates",
                available(view.power, machine.attached()),
            );
            set_some(instance, "ProcessID", view.process_id);
            let since = view.since.map(DateTime::from);
            set_some(instance, "TimeOfLastStateChange", since);
            let on = view.on_time.map(|time| time.as_millis());
            let on = on.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX));
            set_some(instance, "OnTimeInMilliseconds", on);
            healthy(instance);
        }
        Err(error) => {
            instance.set("EnabledState", 0_u16);
            // 13: Lost Communication.
            status(instance, &[(13, &error.message)], 20);
        }
    }
}

/// What a job under way makes of it. Hyper-V says 11 (In Service) first where no
/// other request would be accepted, and which one it is second.
pub(super) fn busy(job: JobKind, instance: &mut Instance) {
    let (operation, requested): (Option<(u16, &str)>, u16) = match job {
        JobKind::CreateSnapshot => (Some((32768, "Creating Snapshot")), NOT_APPLICABLE),
        JobKind::ApplySnapshot => (Some((32769, "Applying Snapshot")), NOT_APPLICABLE),
        JobKind::DestroySnapshot => (Some((32770, "Deleting Snapshot")), NOT_APPLICABLE),
        JobKind::ExportSnapshot => (Some((32773, "Exporting Virtual Machine")), NOT_APPLICABLE),
        JobKind::StartMachine | JobKind::ResumeMachine | JobKind::RestoreMachine => (None, 2),
        JobKind::TurnOffMachine => (None, 3),
        JobKind::ShutDownMachine => (None, 4),
        JobKind::SaveMachine => (None, 6),
        JobKind::PauseMachine => (None, 9),
        _ => return,
    };
    instance.set("RequestedState", requested);
    let mut states = vec![(11, "In Service")];
    states.extend(operation);
    status(instance, &states, 5);
}

/// The generation of virtual hardware, in Hyper-V's words: 1 with a BIOS, 2 with a
/// firmware of its own. Of an attached machine it is not known.
pub(super) fn sub_type(definition: &Definition, attached: bool) -> Option<&'static str> {
    match (attached, &definition.firmware) {
        (true, _) => None,
        (false, None) => Some("Microsoft:Hyper-V:SubType:1"),
        (false, Some(_)) => Some("Microsoft:Hyper-V:SubType:2"),
    }
}

/// What the settings in force and those of a snapshot say alike.
pub(super) fn common(definition: &Definition, state: &Path, instance: &mut Instance) {
    instance
        .set("ConfigurationDataRoot", state.display().to_string())
        .set(
            "SnapshotDataRoot",
            state.join("memory").display().to_string(),
        )
        .set("SuspendDataRoot", state.join("saved").display().to_string())
        // 2: what is not asked for is not done.
        .set("AutomaticStartupAction", 2_u16)
        .set("AutomaticShutdownAction", 2_u16)
        .set("AutomaticRecoveryAction", 2_u16)
        .set("IsAutomaticSnapshot", false)
        .set("AutomaticSnapshotsEnabled", false);
    let attached = definition.memory_mib == 0;
    set_some(
        instance,
        "VirtualSystemSubType",
        sub_type(definition, attached),
    );
}

/// The settings in force of a virtual machine. `state` is the daemon's directory.
pub(super) fn settings(machine: &Machine, state: &Path, instance: &mut Instance) {
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
        .set("IsSaved", machine.saved.is_some());
    common(&machine.definition, state, instance);
    if !machine.notes.is_empty() {
        instance.set("Notes", vec![machine.notes.as_str()]);
    }
}
