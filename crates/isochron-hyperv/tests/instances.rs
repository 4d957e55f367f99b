//! What is served: every instance is found again by its path, superclasses have their
//! subclasses' instances, and what is not there has the status that DSP0200 gives it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, dead_code)]

mod world;

use std::collections::HashSet;

use isochron_cim::{
    AssociationFilter, CimServer, ClassQuery, Instance, Name, ObjectPath, Status, Value,
};
use isochron_sim::{Fault, Point, When};
use world::{CLUSTER, Client, HOST, INTEROP, Setup, VIRTUALIZATION, machine_path, number, text};

/// A world in which every class served has an instance.
async fn full() -> Setup {
    let setup = Setup::new().await;
    let shop = setup.collection("shop", &["web", "db"]).await;
    let service = "Msvm_CollectionManagementService";
    let all = [("Name", "all".into()), ("Type", Value::Uint16(1))];
    let reply = setup.client.call(service, "DefineCollection", &all).await;
    let all = reply.reference("DefinedCollection").unwrap();
    let member = [("Member", shop.clone().into()), ("Collection", all.into())];
    assert_eq!(
        setup.client.call(service, "AddMember", &member).await.code,
        0
    );
    let first = setup.snapshot(&shop, 1).await;
    setup.snapshot(&shop, 2).await;
    let apply = [("SnapshotCollection", first.into())];
    let reply = setup
        .client
        .call(world::SNAPSHOTS, "ApplySnapshot", &apply)
        .await;
    setup.client.ended(&reply.reference("Job").unwrap()).await;
    let points = "Msvm_CollectionReferencePointService";
    let create = [
        ("Collection", shop.into()),
        ("ReferencePointType", Value::Uint16(2)),
    ];
    let client = &setup.client;
    let reply = client.call(points, "CreateReferencePoint", &create).await;
    client.ended(&reply.reference("Job").unwrap()).await;
    let point = reply
        .reference("ResultingReferencePointCollection")
        .unwrap();
    let directory = setup.state.path().join("export");
    let export = [
        ("ReferencePointCollection", point.into()),
        ("ExportDirectory", directory.to_str().unwrap().into()),
    ];
    let reply = client.call(points, "ExportReferencePoint", &export).await;
    client.ended(&reply.reference("Job").unwrap()).await;
    setup
}

/// The concrete classes of a namespace, associations or others.
async fn classes(client: &Client, associations: bool) -> Vec<Name> {
    let query = ClassQuery {
        below: None,
        deep: true,
    };
    let classes = client
        .server
        .enumerate_classes(&client.cx, &query)
        .await
        .unwrap();
    let wanted = classes
        .into_iter()
        .filter(|c| c.is_association() == associations);
    wanted.map(|c| c.name).collect()
}

#[tokio::test(start_paused = true)]
async fn every_instance_is_found_again_by_its_path() {
    let setup = full().await;
    let mut served = HashSet::new();
    for namespace in [CLUSTER, VIRTUALIZATION, INTEROP] {
        let client = setup.client.at(namespace);
        for association in [false, true] {
            for class in classes(&client, association).await {
                for instance in client.all(class.as_str()).await {
                    served.insert(instance.class.to_string());
                    let path = instance.path.clone().unwrap();
                    assert_eq!(path.namespace.as_deref(), Some(namespace));
                    let again = client
                        .get(&path)
                        .await
                        .unwrap_or_else(|e| panic!("{path}: {e}"));
                    assert_eq!(without_times(again), without_times(instance));
                    // Also by its text.
                    let text: ObjectPath = path.to_string().parse().unwrap();
                    assert_eq!(client.get(&text).await.unwrap().path, Some(path));
                }
            }
        }
    }
    for class in [
        "Msvm_ComputerSystem",
        "Msvm_VirtualSystemSettingData",
        "Msvm_ProcessorSettingData",
        "Msvm_MemorySettingData",
        "Msvm_ResourceAllocationSettingData",
        "Msvm_StorageAllocationSettingData",
        "Msvm_VirtualSystemSettingDataComponent",
        "Msvm_VirtualSystemCollection",
        "Msvm_ManagementCollection",
        "Msvm_SnapshotCollection",
        "Msvm_ConcreteJob",
        "Msvm_ReferencePointCollection",
        "Msvm_VirtualSystemReferencePoint",
        "Msvm_CollectionReferencePointExportJob",
        "Msvm_CollectedReferencePoints",
        "Msvm_ReferencePointOfVirtualSystemCollection",
        "Msvm_ReferencePointOfVirtualSystem",
        "Msvm_CollectionSnapshotService",
        "Msvm_CollectionManagementService",
        "Msvm_CollectionReferencePointService",
        "Msvm_VirtualSystemSnapshotService",
        "Msvm_VirtualSystemManagementService",
        "Msvm_VirtualSystemReferencePointService",
        "Msvm_VirtualSystemManagementCapabilities",
        "Msvm_VirtualSystemSnapshotServiceCapabilities",
        "Msvm_ElementCapabilities",
        "Msvm_ServiceAffectsElement",
        "Msvm_ParentChildSettingData",
        "Msvm_CollectedVirtualSystems",
        "Msvm_CollectedCollections",
        "Msvm_CollectedSnapshots",
        "Msvm_SnapshotOfVirtualSystemCollection",
        "Msvm_SnapshotOfVirtualSystem",
        "Msvm_LastAppliedSnapshot",
        "Msvm_MostCurrentSnapshotInBranch",
        "Msvm_SettingsDefineState",
        "Msvm_AffectedJobElement",
        "Msvm_HostedService",
        "Msvm_HostedDependency",
        "CIM_ObjectManager",
        "CIM_Namespace",
        "CIM_RegisteredProfile",
        "CIM_CIMXMLCommunicationMechanism",
        "CIM_NamespaceInManager",
        "CIM_CommMechanismForManager",
        "CIM_ElementConformsToProfile",
    ] {
        assert!(served.contains(class), "{class} has no instance");
    }
}

/// A job or a machine that runs is a moment older each time it is read.
fn without_times(mut instance: Instance) -> Instance {
    for name in ["ElapsedTime", "OnTimeInMilliseconds"] {
        instance.properties.swap_remove(&Name::from(name));
    }
    instance
}

#[tokio::test(start_paused = true)]
async fn superclasses_enumerate_their_subclasses_instances() {
    let setup = full().await;
    let client = &setup.client;
    assert_eq!(client.all("CIM_Service").await.len(), 6);
    assert_eq!(client.all("CIM_ConcreteJob").await.len(), 5);
    assert_eq!(client.all("CIM_CollectionOfMSEs").await.len(), 2);
    // Two machines, each with its settings, two snapshots, processors, memory, a
    // controller, a drive and a disk.
    assert_eq!(client.all("CIM_SettingData").await.len(), 16);
    assert_eq!(client.all("CIM_HostedDependency").await.len(), 8);
    // A class without provider.
    assert!(client.all("Msvm_Error").await.is_empty());
    assert_eq!(client.at(INTEROP).all("CIM_Namespace").await.len(), 3);
    assert_eq!(
        client
            .at("root/interop")
            .all("CIM_ObjectManager")
            .await
            .len(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn machines_are_told_from_the_host_and_show_what_they_do() {
    let setup = Setup::new().await;
    let web = setup.running("web").await;
    let client = &setup.client;
    let shown = client.get(&machine_path(web)).await.unwrap();
    assert_eq!(text(&shown, "ElementName"), "web");
    assert_eq!(text(&shown, "Caption"), "Virtual Machine");
    assert_eq!(number(&shown, "EnabledState"), 2);
    assert!(number(&shown, "ProcessID") > 0);
    let host = &client.all("Msvm_ComputerSystem").await[0];
    assert_eq!(text(host, "Caption"), "Hosting Computer System");
    assert_eq!(text(host, "Name"), HOST);
    let settings = client
        .associators(&machine_path(web), Some("Msvm_SettingsDefineState"), None)
        .await;
    assert_eq!(text(&settings[0], "InstanceID"), format!("Microsoft:{web}"));
    assert_eq!(
        text(&settings[0], "VirtualSystemType"),
        "Microsoft:Hyper-V:System:Realized"
    );
    assert_eq!(settings[0].get("Parent"), None);
    // One that does not answer is still listed, with the reason.
    setup
        .world
        .fail_next(Point::Power, Some(web), When::Before, Fault::Timeout);
    let shown = client.get(&machine_path(web)).await.unwrap();
    assert_eq!(number(&shown, "EnabledState"), 0);
    let Some(Value::Array(words)) = shown.get("StatusDescriptions") else {
        panic!()
    };
    assert!(
        words[0]
            .as_ref()
            .unwrap()
            .as_str()
            .is_some_and(|text| !text.is_empty())
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_has_its_status() {
    let setup = full().await;
    let client = &setup.client;
    let nowhere = client.at("root/cimv2");
    let service = client.the(world::SNAPSHOTS).await;
    let status =
        async |client: &Client, path: &ObjectPath| client.get(path).await.unwrap_err().status;
    assert_eq!(status(&nowhere, &service).await, Status::InvalidNamespace);
    let path = |class: &str, key: &str, value: &str| ObjectPath::class(class).with_key(key, value);
    let id = "8f6c1a52-6f9d-4a7e-9a41-2f5f1f0f0a11";
    for (path, expected) in [
        (path("No_Such", "Id", "1"), Status::InvalidClass),
        (path("Msvm_ConcreteJob", "InstanceID", id), Status::NotFound),
        (
            path("Msvm_ConcreteJob", "InstanceID", "seven"),
            Status::NotFound,
        ),
        (
            path("Msvm_ConcreteJob", "Name", id),
            Status::InvalidParameter,
        ),
        (
            ObjectPath::class("Msvm_ConcreteJob"),
            Status::InvalidParameter,
        ),
        (
            path("Msvm_VirtualSystemSettingData", "InstanceID", id),
            Status::NotFound,
        ),
        (
            path(
                "Msvm_VirtualSystemSettingData",
                "InstanceID",
                &format!("Microsoft:{id}"),
            ),
            Status::NotFound,
        ),
        (
            path(
                "Msvm_VirtualSystemSettingData",
                "InstanceID",
                &format!("Microsoft\u{e9}{id}"),
            ),
            Status::NotFound,
        ),
        (
            ObjectPath::class("Msvm_ComputerSystem")
                .with_key("CreationClassName", "CIM_ComputerSystem")
                .with_key("Name", HOST),
            Status::NotFound,
        ),
        // An abstract class has no instances, and a management collection is none of machines.
        (path("CIM_ConcreteJob", "InstanceID", id), Status::NotFound),
        (
            path(
                "Msvm_ManagementCollection",
                "CollectionID",
                client
                    .the("Msvm_VirtualSystemCollection")
                    .await
                    .key_str("CollectionID")
                    .unwrap(),
            ),
            Status::NotFound,
        ),
    ] {
        assert_eq!(status(client, &path).await, expected, "{path}");
    }
    // A link between two objects that are not linked.
    let links = client.all("Msvm_CollectedSnapshots").await;
    let (one, other) = (
        links[0].path.as_ref().unwrap(),
        links.last().unwrap().path.as_ref().unwrap(),
    );
    let mut mixed = one.clone();
    mixed
        .keys
        .insert("Member".into(), other.key("Member").unwrap().clone());
    assert_eq!(status(client, &mixed).await, Status::NotFound);

    let (server, cx) = (&client.server, &client.cx);
    let error = server.get_class(cx, &"No_Such".into()).await.unwrap_err();
    assert_eq!(error.status, Status::NotFound);
    let error = server
        .enumerate_instances(cx, &"No_Such".into())
        .await
        .err()
        .unwrap();
    assert_eq!(error.status, Status::InvalidClass);
    let below = ClassQuery {
        below: Some("No_Such".into()),
        deep: true,
    };
    let error = server.enumerate_classes(cx, &below).await.unwrap_err();
    assert_eq!(error.status, Status::InvalidClass);
    let filter = AssociationFilter {
        association: Some("No_Such".into()),
        ..Default::default()
    };
    let error = server
        .associators(cx, &service, &filter)
        .await
        .err()
        .unwrap();
    assert_eq!(error.status, Status::InvalidParameter);
    let error = server.delete_instance(cx, &service).await.unwrap_err();
    assert_eq!(error.status, Status::NotSupported);
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_no_calls_have_their_status() {
    let setup = Setup::new().await;
    let client = &setup.client;
    let service = client.the(world::SNAPSHOTS).await;
    let host = ObjectPath::class("Msvm_ComputerSystem")
        .with_key("CreationClassName", "Msvm_ComputerSystem")
        .with_key("Name", HOST);
    let gone = ObjectPath::class("Msvm_ConcreteJob").with_key("InstanceID", "1");
    for (target, method, parameters, expected) in [
        (&service, "TakeSnapshot", vec![], Status::MethodNotFound),
        (
            &host,
            "InjectNonMaskableInterrupt",
            vec![],
            Status::MethodNotAvailable,
        ),
        (&gone, "GetError", vec![], Status::NotFound),
        (
            &service,
            "CreateSnapshot",
            vec![("Colour", "red".into())],
            Status::InvalidParameter,
        ),
        (
            &service,
            "CreateSnapshot",
            vec![("SnapshotType", "two".into())],
            Status::InvalidParameter,
        ),
        (
            &service,
            "CreateSnapshot",
            vec![("SnapshotType", Value::Uint32(65536))],
            Status::InvalidParameter,
        ),
        (
            &service,
            "CreateSnapshot",
            vec![("Collection", "not a path".into())],
            Status::InvalidParameter,
        ),
    ] {
        let error = client
            .try_call(target, method, &parameters)
            .await
            .unwrap_err();
        assert_eq!(error.status, expected, "{method} {parameters:?}");
    }
    assert!(client.all("Msvm_ConcreteJob").await.is_empty());
}
