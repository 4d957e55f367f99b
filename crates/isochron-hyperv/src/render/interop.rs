//! What discovery finds in `interop`: this server, its namespaces, the protocol
//! that it speaks, and the one profile that is implemented.

use isochron_cim::Instance;

use super::healthy;

/// The WBEM server.
pub(super) fn object_manager(instance: &mut Instance) {
    instance
        .set("ElementName", "Isochron")
        .set("Caption", "Isochron")
        .set(
            "Description",
            concat!("Isochron version ", env!("CARGO_PKG_VERSION")),
        )
        .set("GatherStatisticalData", false)
        .set("EnabledState", 2_u16)
        .set("EnabledDefault", 2_u16)
        .set("RequestedState", 12_u16)
        .set("Started", true)
        .set("StartMode", "Automatic");
    healthy(instance);
}

/// A namespace.
pub(super) fn namespace(name: &str, instance: &mut Instance) {
    let classes = "CIM 2, and Hyper-V's extensions where the namespace is Hyper-V's";
    instance
        .set("ElementName", name)
        // 1: Other.
        .set("ClassInfo", 1_u16)
        .set("DescriptionOfClassInfo", classes)
        .set("ClassType", 1_u16)
        .set("DescriptionOfClassType", classes);
}

/// CIM-XML, as DSP0200 has its server describe it.
pub(super) fn cimxml(instance: &mut Instance) {
    instance
        .set("ElementName", "CIM-XML over HTTP")
        // 2: CIM-XML.
        .set("CommunicationMechanism", 2_u16)
        .set("Version", "1.0")
        // 1: CIM-XML 1.0.
        .set("CIMXMLProtocolVersion", 1_u16)
        .set("CIMValidated", false)
        // All: 2 basic read, 3 basic write, 4 schema manipulation, 5 instance
        // manipulation, 6 association traversal, 7 query execution, 8 qualifier
        // declaration, 9 indications.
        .set(
            "FunctionalProfilesSupported",
            (2_u16..=9).collect::<Vec<_>>(),
        )
        .set("MultipleOperationsSupported", false)
        // 3: basic.
        .set("AuthenticationMechanismsSupported", vec![3_u16])
        .set("EnabledState", 2_u16);
    healthy(instance);
}

/// DSP1033, by which profiles are found.
pub(super) fn profile(instance: &mut Instance) {
    instance
        .set("ElementName", "Profile Registration")
        // 2: DMTF.
        .set("RegisteredOrganization", 2_u16)
        .set("RegisteredName", "Profile Registration")
        .set("RegisteredVersion", "1.0.0")
        // 2: not advertised elsewhere.
        .set("AdvertiseTypes", vec![2_u16]);
}
