//! The schema that the provider ships, `crates/isochron-hyperv/mof`: it compiles,
//! what clients rely on is in it as they expect it, and it survives the way through
//! the MOF writer.

use isochron_cim::{CimType, Class, Name, Repository, Value, mof};

/// The files in the order in which they are compiled.
const FILES: [&str; 17] = [
    "qualifiers.mof",
    "cim_core.mof",
    "cim_collections.mof",
    "cim_jobs.mof",
    "cim_capabilities.mof",
    "cim_indications.mof",
    "cim_profiles.mof",
    "cim_virtualization.mof",
    "msvm_system.mof",
    "msvm_settings.mof",
    "msvm_collection.mof",
    "msvm_jobs.mof",
    "msvm_services.mof",
    "msvm_virtualization.mof",
    "msvm_resources.mof",
    "interop.mof",
    "interop_indications.mof",
];

/// Those of the namespace that is of another CIM.
const HOST_FILES: [&str; 2] = ["qualifiers.mof", "win32.mof"];

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../isochron-hyperv/mof/");

fn repository() -> Repository {
    compiled(&FILES)
}

fn compiled(files: &[&str]) -> Repository {
    let read = |file: &&str| std::fs::read_to_string(format!("{DIRECTORY}{file}"));
    let texts: std::io::Result<Vec<String>> = files.iter().map(read).collect();
    let texts = texts.unwrap_or_else(|error| panic!("the schema's files: {error}"));
    let sources: Vec<_> = files
        .iter()
        .zip(&texts)
        .map(|(file, text)| (*file, &**text))
        .collect();
    Repository::from_mof(&sources).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_file_is_listed() {
    let listed = std::fs::read_dir(DIRECTORY).map(|listed| {
        let names = listed.flatten().map(|entry| entry.file_name());
        names.collect::<std::collections::HashSet<_>>()
    });
    let files = FILES.iter().chain(&HOST_FILES);
    let files = files.map(std::ffi::OsString::from).collect();
    assert_eq!(listed.ok(), Some(files));
}

fn class<'r>(repository: &'r Repository, name: &'static str) -> &'r Class {
    repository
        .get(&Name::fixed(name))
        .unwrap_or_else(|| panic!("no class {name}"))
}

fn strings(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::Array(items)) => items.iter().flatten().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn keys_are_those_that_clients_write_in_paths() {
    let repository = repository();
    let service = [
        "SystemCreationClassName",
        "SystemName",
        "CreationClassName",
        "Name",
    ];
    let table: &[(&'static str, &[&str])] = &[
        ("Msvm_VirtualSystemCollection", &["CollectionID"]),
        ("Msvm_ManagementCollection", &["CollectionID"]),
        ("Msvm_SnapshotCollection", &["CollectionID"]),
        (
            "Msvm_ReferencePointCollection",
            &["CollectionID", "VirtualSystemCollectionId"],
        ),
        (
            "Msvm_VirtualSystemReferencePoint",
            &["InstanceID", "VirtualSystemIdentifier"],
        ),
        // Name comes from further up than CreationClassName.
        ("Msvm_ComputerSystem", &["Name", "CreationClassName"]),
        ("Msvm_VirtualSystemSettingData", &["InstanceID"]),
        ("Msvm_ConcreteJob", &["InstanceID"]),
        ("Msvm_CollectionReferencePointExportJob", &["InstanceID"]),
        ("Msvm_CollectedVirtualSystems", &["Collection", "Member"]),
        (
            "Msvm_SnapshotOfVirtualSystemCollection",
            &["Antecedent", "Dependent"],
        ),
        (
            "Msvm_AffectedJobElement",
            &["AffectedElement", "AffectingElement"],
        ),
        ("CIM_RegisteredProfile", &["InstanceID"]),
        ("Msvm_VirtualMachineToDisks", &[]),
    ];
    for (name, keys) in table {
        let found: Vec<_> = repository
            .key_names(&class(&repository, name).name)
            .iter()
            .map(Name::as_str)
            .collect();
        assert_eq!(found, *keys, "{name}");
    }
    for name in [
        "Msvm_CollectionSnapshotService",
        "Msvm_CollectionManagementService",
        "Msvm_CollectionReferencePointService",
        "CIM_ObjectManager",
    ] {
        let mut found: Vec<_> = repository
            .key_names(&Name::fixed(name))
            .iter()
            .map(Name::as_str)
            .collect();
        let mut expected = service.to_vec();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn create_snapshot_has_the_signature_of_the_reference() {
    let repository = repository();
    let service = class(&repository, "Msvm_CollectionSnapshotService");
    assert_eq!(service.superclass, Some(Name::fixed("CIM_Service")));
    let method = &service.methods[&Name::fixed("CreateSnapshot")];
    assert_eq!(method.return_type, CimType::Uint32);
    let reference = |class| CimType::Reference(Some(Name::fixed(class)));
    let found: Vec<_> = method
        .parameters
        .iter()
        .map(|(name, p)| {
            (
                name.as_str(),
                p.ty.clone(),
                p.is_array,
                p.is_in(),
                p.is_out(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            (
                "Collection",
                reference("CIM_CollectionOfMSEs"),
                false,
                true,
                false
            ),
            ("SnapshotSettings", CimType::String, false, true, false),
            ("SnapshotType", CimType::Uint16, false, true, false),
            (
                "ResultingSnapshotCollection",
                reference("CIM_Collection"),
                false,
                true,
                true
            ),
            ("Job", reference("CIM_ConcreteJob"), false, false, true),
        ]
    );
    let types = &method.parameters[&Name::fixed("SnapshotType")].qualifiers;
    let list = |name| strings(types[&Name::fixed(name)].value.value.as_ref());
    assert_eq!(
        list("ValueMap"),
        ["0", "1", "2", "3..32767", "32768..65535"]
    );
    assert_eq!(
        list("Values")[1..3],
        ["Standard Snapshot", "Recovery Snapshot"]
    );
}

#[test]
fn the_services_return_values_of_two_families() {
    let repository = repository();
    let snapshot = [
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "7..4095",
        "4096",
        "4097..32767",
        "32768..65535",
    ];
    let management = [
        "0", "4096", "32768", "32769", "32770", "32771", "32772", "32773", "32774", "32775",
        "32776", "32777", "32778", "32779",
    ];
    let families: [(&str, &[&str], usize); 3] = [
        ("Msvm_CollectionSnapshotService", &snapshot, 5),
        ("Msvm_CollectionReferencePointService", &snapshot, 4),
        ("Msvm_CollectionManagementService", &management, 6),
    ];
    for (name, family, count) in families {
        let service = class(&repository, name);
        let own: Vec<_> = service.methods.values().filter(|m| !m.propagated).collect();
        assert_eq!(own.len(), count, "{name}");
        for method in own {
            let map = strings(
                method.qualifiers[&Name::fixed("ValueMap")]
                    .value
                    .value
                    .as_ref(),
            );
            assert_eq!(map, family, "{name}");
            let job = &method.parameters[&Name::fixed("Job")];
            assert!(job.is_out() && !job.is_in(), "{name}");
        }
        for inherited in ["StartService", "StopService", "RequestStateChange"] {
            assert!(
                service.methods[&Name::fixed(inherited)].propagated,
                "{name}.{inherited}"
            );
        }
    }
}

#[test]
fn every_value_map_has_as_many_values() {
    let (repository, host) = (repository(), compiled(&HOST_FILES));
    let mut maps = 0;
    for class in repository.classes().chain(host.classes()) {
        let properties = class
            .properties
            .iter()
            .map(|(name, p)| (name.to_string(), &p.qualifiers));
        let methods = class.methods.iter().flat_map(|(name, m)| {
            let parameters = m
                .parameters
                .iter()
                .map(move |(parameter, p)| (format!("{name}({parameter})"), &p.qualifiers));
            std::iter::once((name.to_string(), &m.qualifiers)).chain(parameters)
        });
        for (element, qualifiers) in properties.chain(methods) {
            let list = |name| {
                let qualifier = qualifiers.get(&Name::fixed(name));
                strings(qualifier.and_then(|q| q.value.value.as_ref()))
            };
            let (map, values) = (list("ValueMap"), list("Values"));
            assert_eq!(map.len(), values.len(), "{}.{element}", class.name);
            let unique: std::collections::HashSet<_> = map.iter().collect();
            assert_eq!(unique.len(), map.len(), "{}.{element}", class.name);
            maps += usize::from(!map.is_empty());
        }
    }
    assert!(maps > 100, "{maps}");
}

#[test]
fn associations_are_known_by_what_they_can_refer_to() {
    let repository = repository();
    let through = |name: &'static str| -> Vec<String> {
        repository
            .association_ends(&Name::fixed(name))
            .iter()
            .filter(|end| end.association.as_str().starts_with("Msvm_"))
            .map(|end| format!("{}.{}", end.association, end.role))
            .collect()
    };
    let job = through("Msvm_ConcreteJob");
    assert!(job.contains(&"Msvm_AffectedJobElement.AffectingElement".to_owned()));
    assert!(
        !job.iter()
            .any(|end| end.starts_with("Msvm_Collected") && end.ends_with(".Collection"))
    );
    let snapshots = through("Msvm_SnapshotCollection");
    for end in [
        "Msvm_CollectedSnapshots.Collection",
        "Msvm_SnapshotOfVirtualSystemCollection.Dependent",
        "Msvm_AffectedJobElement.AffectedElement",
    ] {
        assert!(
            snapshots.contains(&end.to_owned()),
            "{end} in {snapshots:?}"
        );
    }
    assert!(!snapshots.contains(&"Msvm_SnapshotOfVirtualSystemCollection.Antecedent".to_owned()));
}

#[test]
fn instances_can_exist_only_of_classes_that_are_whole() {
    let repository = repository();
    for class in repository.classes() {
        // Embedded in others, or told and not kept.
        let keyless = ["Msvm_VirtualMachineToDisks", "Msvm_Error"].contains(&class.name.as_str())
            || class.flag("Indication");
        let concrete = !class.flag("Abstract") && !keyless;
        assert!(
            !concrete || class.keys().next().is_some(),
            "{} has no key",
            class.name
        );
        for (name, property) in &class.properties {
            let embedded = property.qualifiers.get(&Name::fixed("EmbeddedInstance"));
            if let Some(target) = embedded.and_then(|q| q.value.value.as_ref()?.as_str()) {
                assert!(
                    repository.get(&target.into()).is_some(),
                    "{}.{name}",
                    class.name
                );
            }
        }
    }
    let default = &class(&repository, "Msvm_ConcreteJob").properties
        [&Name::fixed("TimeBeforeRemoval")]
        .value
        .value;
    let Some(Value::DateTime(five_minutes)) = default else {
        panic!("{default:?}")
    };
    assert_eq!(
        five_minutes.as_duration(),
        Some(std::time::Duration::from_secs(300))
    );
}

#[test]
fn the_whole_schema_survives_writing_and_reading() {
    survives(&repository());
    survives(&compiled(&HOST_FILES));
}

fn survives(repository: &Repository) {
    let mut text = String::new();
    for decl in repository.qualifiers().values() {
        text.push_str(&mof::write_qualifier(decl));
    }
    for class in repository.classes() {
        text.push_str(&mof::write_class(class, repository.qualifiers()));
    }
    let again =
        Repository::from_mof(&[("written.mof", &text)]).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(again.qualifiers(), repository.qualifiers());
    for (a, b) in again.classes().zip(repository.classes()) {
        assert_eq!(a, b);
    }
    assert_eq!(again.classes().count(), repository.classes().count());
}
