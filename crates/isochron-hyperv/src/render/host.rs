//! This host in Windows' classes. What Linux has no word for is null.

use isochron_cim::{DateTime, Instance};
use time::OffsetDateTime;

use super::set_some;
use crate::host::{Fact, Facts, Package};
use crate::object::class;

/// Architecture, SystemType and the width of addresses, in Windows' words and numbers.
const ARCHITECTURE: Option<(u16, &str, u16)> = match std::env::consts::ARCH.as_bytes() {
    b"x86_64" => Some((9, "x64-based PC", 64)),
    b"aarch64" => Some((12, "ARM64-based PC", 64)),
    _ => None,
};

/// A thing told of a host of this name.
pub(super) fn fact(facts: &Facts, fact: Fact, host: &str, instance: &mut Instance) {
    match fact {
        Fact::System => system(facts, host, instance),
        Fact::Product => product(facts, instance),
        Fact::OperatingSystem => operating_system(facts, host, instance),
        Fact::Processor(index) => {
            if let Some(package) = facts.processors.get(index) {
                processor(package, host, instance);
            }
        }
    }
}

fn system(facts: &Facts, host: &str, instance: &mut Instance) {
    let packages = u32::try_from(facts.processors.len()).ok();
    let logical: u32 = facts.processors.iter().map(|p| p.logical).sum();
    let memory = facts.memory.total.map(|kib| kib << 10);
    instance
        .set("CreationClassName", class::HOST_SYSTEM)
        .set("Caption", host)
        .set("DNSHostName", host)
        .set("PartOfDomain", false)
        .set("Status", "OK")
        .set("NumberOfLogicalProcessors", logical);
    set_some(instance, "NumberOfProcessors", packages);
    set_some(instance, "TotalPhysicalMemory", memory);
    set_some(instance, "Manufacturer", facts.product.vendor.as_deref());
    set_some(instance, "Model", facts.product.name.as_deref());
    let kind = ARCHITECTURE.map(|(_, kind, _)| kind);
    set_some(instance, "SystemType", kind);
}

fn product(facts: &Facts, instance: &mut Instance) {
    instance
        .set("Caption", "Computer System Product")
        .set("Description", "Computer System Product");
    set_some(instance, "Vendor", facts.product.vendor.as_deref());
    // In capitals, as Windows has it.
    let uuid = facts.product.uuid.map(|uuid| uuid.to_string());
    set_some(instance, "UUID", uuid.map(|uuid| uuid.to_uppercase()));
}

fn operating_system(facts: &Facts, host: &str, instance: &mut Instance) {
    let (system, memory) = (&facts.system, &facts.memory);
    let sum = |one: Option<u64>, other: Option<u64>| Some(one? + other?);
    instance
        .set("CreationClassName", class::OPERATING_SYSTEM)
        .set("CSCreationClassName", class::HOST_SYSTEM)
        .set("CSName", host)
        .set("Caption", system.name.as_str())
        .set("Distributed", false)
        // CIM's number of Linux.
        .set("OSType", 36_u16)
        .set("Primary", true)
        .set("Status", "OK")
        .set("NumberOfProcesses", system.processes)
        .set("LocalDateTime", DateTime::from(OffsetDateTime::now_utc()));
    set_some(instance, "Version", system.version.as_deref());
    set_some(
        instance,
        "LastBootUpTime",
        system.booted.map(DateTime::from),
    );
    let width = ARCHITECTURE.map(|(_, _, width)| format!("{width}-bit"));
    set_some(instance, "OSArchitecture", width);
    for (name, kib) in [
        ("TotalVisibleMemorySize", memory.total),
        ("FreePhysicalMemory", memory.available),
        ("SizeStoredInPagingFiles", memory.swap),
        ("TotalSwapSpaceSize", memory.swap),
        ("FreeSpaceInPagingFiles", memory.swap_free),
        ("TotalVirtualMemorySize", sum(memory.total, memory.swap)),
        ("FreeVirtualMemory", sum(memory.available, memory.swap_free)),
    ] {
        set_some(instance, name, kib);
    }
}

fn processor(package: &Package, host: &str, instance: &mut Instance) {
    instance
        .set("CreationClassName", class::HOST_PROCESSOR)
        .set("SystemCreationClassName", class::HOST_SYSTEM)
        .set("SystemName", host)
        .set("Name", package.name.as_str())
        .set("Role", "CPU")
        .set("Status", "OK")
        // 3: in full use; enabled; a central processor. 1: enabled.
        .set("Availability", 3_u16)
        .set("StatusInfo", 3_u16)
        .set("ProcessorType", 3_u16)
        .set("CpuStatus", 1_u16)
        .set("NumberOfCores", package.cores)
        .set("NumberOfLogicalProcessors", package.logical);
    set_some(instance, "Manufacturer", package.vendor.as_deref());
    set_some(instance, "CurrentClockSpeed", package.speed);
    set_some(instance, "MaxClockSpeed", package.top_speed);
    if let Some((architecture, _, width)) = ARCHITECTURE {
        instance
            .set("Architecture", architecture)
            .set("AddressWidth", width)
            .set("DataWidth", width);
    }
    let (family, model, stepping) = (package.family, package.model, package.stepping);
    set_some(instance, "Level", family.map(u16::from));
    set_some(instance, "Stepping", stepping.map(|s| s.to_string()));
    if let (Some(family), Some(model), Some(stepping)) = (family, model, stepping) {
        let caption = format!("x86 Family {family} Model {model} Stepping {stepping}");
        instance
            .set("Revision", u16::from_be_bytes([model, stepping]))
            .set("Caption", caption.as_str())
            .set("Description", caption);
    }
}
