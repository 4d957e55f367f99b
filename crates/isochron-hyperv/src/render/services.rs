//! The services: always there, always running.

use isochron_cim::Instance;

use super::healthy;
use crate::object::Service;

/// What a service can do.
pub(super) fn capabilities(service: Service, instance: &mut Instance) {
    let name = match service {
        Service::MachineSnapshots => "Isochron Virtual System Snapshot Service Capabilities",
        _ => "Isochron Virtual System Management Service Capabilities",
    };
    instance.set("ElementName", name).set("Caption", name);
    match service {
        // 2 create, 3 destroy, 4 apply; 2 memory and disks, 3 disks, 32768 recovery.
        Service::MachineSnapshots => instance
            .set("AsynchronousMethodsSupported", vec![2_u16, 3, 4])
            .set("SnapshotTypesSupported", vec![2_u16, 3, 32768]),
        // 3 destroy system, 6 modify system settings; 3 jobs, 4 virtual systems.
        _ => instance
            .set("ElementNameEditSupported", true)
            .set("MaxElementNameLen", 200_u16)
            .set("RequestedStatesSupported", vec![2_u16, 3, 4, 6, 9])
            .set(
                "VirtualSystemTypesSupported",
                vec!["Microsoft:Hyper-V:System:Realized"],
            )
            .set("SynchronousMethodsSupported", vec![3_u16, 6])
            .set("IndicationsSupported", vec![3_u16, 4]),
    };
}

/// A service.
pub(super) fn service(service: Service, instance: &mut Instance) {
    let (name, description) = match service {
        Service::Snapshots => (
            "Isochron Collection Snapshot Service",
            "Takes, applies and destroys snapshots of collections of virtual machines",
        ),
        Service::Management => (
            "Isochron Collection Management Service",
            "Defines collections and their members",
        ),
        Service::ReferencePoints => (
            "Isochron Collection Reference Point Service",
            "Remembers instants of collections of virtual machines",
        ),
        Service::MachineSnapshots => (
            "Isochron Virtual System Snapshot Service",
            "Takes, applies and destroys snapshots of single virtual machines",
        ),
        Service::Machines => (
            "Isochron Virtual System Management Service",
            "Manages virtual machines and names their snapshots",
        ),
        Service::MachineReferencePoints => (
            "Isochron Virtual System Reference Point Service",
            "Remembers instants of single virtual machines",
        ),
    };
    instance
        .set("ElementName", name)
        .set("Caption", name)
        .set("Description", description)
        .set("EnabledState", 2_u16)
        .set("EnabledDefault", 2_u16)
        // 12: no change of state is under way.
        .set("RequestedState", 12_u16)
        .set("Started", true)
        .set("StartMode", "Automatic");
    healthy(instance);
}
