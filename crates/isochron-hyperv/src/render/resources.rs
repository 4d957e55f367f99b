//! What virtual machines are made of, in the units and words of Hyper-V's settings.

use isochron_cim::Instance;
use isochron_engine::model::Machine;

use super::set_some;
use crate::resources::Resource;

/// A MiB, in the units of DSP0004 annex C.
const MEBIBYTE: &str = "byte * 2^20";

/// A resource of a machine. Of one that we attached to, processors and memory are not
/// known.
pub(super) fn resource(machine: &Machine, resource: &Resource, instance: &mut Instance) {
    let definition = (!machine.attached()).then_some(&machine.definition);
    // CIM's ResourceType, Hyper-V's ResourceSubType.
    let (kind, sub_type, name): (u16, _, _) = match resource {
        Resource::Processors => (3, "Microsoft:Hyper-V:Processor", "Processor"),
        Resource::Memory => (4, "Microsoft:Hyper-V:Memory", "Memory"),
        Resource::Controller(_) => (
            6,
            "Microsoft:Hyper-V:Synthetic SCSI Controller",
            "SCSI Controller",
        ),
        Resource::Drive(_) => (17, "Microsoft:Hyper-V:Synthetic Disk Drive", "Hard Drive"),
        Resource::Disk { drive, .. } => (
            31,
            "Microsoft:Hyper-V:Virtual Hard Disk",
            machine.disks.get(*drive).map_or("", |disk| &disk.name),
        ),
    };
    instance
        .set("ElementName", name)
        .set("ResourceType", kind)
        .set("ResourceSubType", sub_type);
    let address = resource.address().map(|address| address.to_string());
    set_some(instance, "AddressOnParent", address);
    match resource {
        Resource::Processors => {
            let cpus = definition.map(|definition| u64::from(definition.cpus));
            instance.set("VirtualQuantityUnits", "count");
            set_some(instance, "VirtualQuantity", cpus);
        }
        Resource::Memory => {
            let memory = definition.map(|definition| definition.memory_mib);
            instance
                .set("AllocationUnits", MEBIBYTE)
                .set("VirtualQuantityUnits", MEBIBYTE)
                .set("DynamicMemoryEnabled", false);
            set_some(instance, "VirtualQuantity", memory);
            set_some(instance, "Limit", memory);
        }
        Resource::Controller(_) => {}
        // Empty and not null: it is known that no disk of the host is passed through.
        Resource::Drive(_) => {
            instance.set("HostResource", Vec::<&str>::new());
        }
        Resource::Disk { drive, image } => {
            let read_only = machine.disks.get(*drive).map(|disk| disk.read_only);
            // 1: readable, 3: writable too.
            let access = read_only.map(|only| if only { 1_u16 } else { 3 });
            instance.set("HostResource", vec![image.display().to_string()]);
            set_some(instance, "Access", access);
        }
    }
}
