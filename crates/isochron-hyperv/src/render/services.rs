//! The services: always there, always running.

use isochron_cim::Instance;

use super::healthy;
use crate::object::Service;

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
