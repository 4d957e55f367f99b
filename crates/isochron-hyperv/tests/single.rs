//! Hyper-V's services for single machines: snapshots, names, notes, summaries.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, dead_code)]

mod world;

use isochron_cim::{Instance, ObjectPath, Value};
use isochron_engine::model::Power;
use world::{Reply, Setup, machine_path, number, text};

const SNAPSHOTS: &str = "Msvm_VirtualSystemSnapshotService";
const MACHINES: &str = "Msvm_VirtualSystemManagementService";

async fn take(setup: &Setup, machine: &ObjectPath, kind: u16) -> Reply {
    let parameters = [
        ("AffectedSystem", machine.clone().into()),
        ("SnapshotType", Value::Uint16(kind)),
    ];
    setup
        .client
        .call(SNAPSHOTS, "CreateSnapshot", &parameters)
        .await
}

async fn taken(setup: &Setup, machine: &ObjectPath, kind: u16) -> ObjectPath {
    let reply = take(setup, machine, kind).await;
    assert_eq!(reply.code, 4096, "{reply:?}");
    let job = setup.client.ended(&reply.reference("Job").unwrap()).await;
    assert_eq!(
        number(&job, "JobState"),
        7,
        "{}",
        text(&job, "ErrorDescription")
    );
    assert_eq!(number(&job, "JobType"), 70);
    // The job leads to the snapshot, and to nothing else.
    let found = setup
        .client
        .associators(job.path.as_ref().unwrap(), None, None)
        .await;
    assert_eq!(found.len(), 1);
    let snapshot = reply.reference("ResultingSnapshot").unwrap();
    assert_eq!(found[0].path, Some(snapshot.clone()));
    snapshot
}

async fn done(setup: &Setup, method: &str, name: &str, snapshot: &ObjectPath) -> u64 {
    let parameters = [(name, snapshot.clone().into())];
    let reply = setup.client.call(SNAPSHOTS, method, &parameters).await;
    if let Some(job) = reply.reference("Job") {
        let job = setup.client.ended(&job).await;
        let well = number(&job, "JobState") == 7;
        assert_eq!(
            well,
            reply.code == 4096,
            "{}",
            text(&job, "ErrorDescription")
        );
    }
    reply.code
}

#[tokio::test(start_paused = true)]
async fn a_machine_is_snapshotted_returned_and_its_tree_destroyed() {
    let setup = Setup::new().await;
    let client = &setup.client;
    let web = machine_path(setup.running("web").await);
    let first = taken(&setup, &web, 2).await;
    let shown = client.get(&first).await.unwrap();
    assert_eq!(
        text(&shown, "VirtualSystemType"),
        "Microsoft:Hyper-V:Snapshot:Realized"
    );
    assert!(text(&shown, "ElementName").starts_with("web - ("));
    let second = taken(&setup, &web, 32768).await;
    let third = taken(&setup, &web, 3).await;
    // No collection is seen for them, and no snapshot collection.
    assert!(client.all("Msvm_SnapshotCollection").await.is_empty());
    assert!(client.all("CIM_CollectionOfMSEs").await.is_empty());
    // The tree leads from each to its parent and to its children.
    let tree = "Msvm_ParentChildSettingData";
    let around = client.associators(&second, Some(tree), None).await;
    let around: Vec<_> = around.into_iter().map(|i| i.path.unwrap()).collect();
    assert!(around.contains(&first) && around.contains(&third) && around.len() == 2);
    assert_eq!(
        done(&setup, "ApplySnapshot", "Snapshot", &first).await,
        4096
    );
    let applied = client
        .associators(&web, Some("Msvm_LastAppliedSnapshot"), None)
        .await;
    assert_eq!(applied[0].path, Some(first.clone()));
    let clear = ("ClearSnapshotState", "SnapshotSettingData");
    assert_eq!(done(&setup, clear.0, clear.1, &first).await, 0);
    let cleared = client.get(&first).await.unwrap();
    assert_eq!(cleared.get("IsSaved"), Some(&Value::Boolean(false)));
    let destroy = ("DestroySnapshot", "AffectedSnapshot");
    assert_eq!(done(&setup, destroy.0, destroy.1, &third).await, 4096);
    let tree = ("DestroySnapshotTree", "SnapshotSettingData");
    assert_eq!(done(&setup, tree.0, tree.1, &first).await, 4096);
    assert_eq!(client.all("Msvm_VirtualSystemSettingData").await.len(), 1);
    // Each family has its word for what is gone.
    assert_eq!(done(&setup, destroy.0, destroy.1, &second).await, 4);
    assert_eq!(done(&setup, tree.0, tree.1, &second).await, 32773);
    for (kind, code) in [(0, 6), (1, 6), (40000, 1)] {
        assert_eq!(take(&setup, &web, kind).await.code, code, "{kind}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_of_a_collections_snapshot_is_applied_but_not_destroyed() {
    let setup = Setup::new().await;
    let shop = setup.collection("shop", &["web", "db"]).await;
    let whole = setup.snapshot(&shop, 1).await;
    let parts = setup
        .client
        .associators(&whole, Some("Msvm_CollectedSnapshots"), None)
        .await;
    let part = parts[0].path.clone().unwrap();
    assert_eq!(done(&setup, "ApplySnapshot", "Snapshot", &part).await, 4096);
    let code = done(&setup, "DestroySnapshot", "AffectedSnapshot", &part).await;
    assert_eq!(code, 5);
    let code = done(&setup, "ClearSnapshotState", "SnapshotSettingData", &part).await;
    assert_eq!(code, 32775);
    let convert = done(&setup, "ConvertToReferencePoint", "AffectedSnapshot", &part).await;
    assert_eq!(convert, 5);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_in_use_names_no_second_snapshot() {
    let setup = Setup::new().await;
    let web = machine_path(setup.running("web").await);
    let given = ObjectPath::class("Msvm_VirtualSystemSettingData").with_key(
        "InstanceID",
        "Microsoft:1f1b6c0e-7a38-4a5b-b3a5-0a0d3cf0b7c1",
    );
    for code in [4096, 4] {
        let parameters = [
            ("AffectedSystem", web.clone().into()),
            ("SnapshotType", Value::Uint16(2)),
            ("ResultingSnapshot", given.clone().into()),
        ];
        let reply = setup
            .client
            .call(SNAPSHOTS, "CreateSnapshot", &parameters)
            .await;
        assert_eq!(reply.code, code);
        setup.client.ended(&reply.reference("Job").unwrap()).await;
    }
    assert!(setup.client.get(&given).await.is_ok());
}

async fn modify(setup: &Setup, settings: &ObjectPath, change: &[(&'static str, Value)]) -> u64 {
    let mut instance = Instance::new("Msvm_VirtualSystemSettingData");
    instance.set("InstanceID", settings.key_str("InstanceID").unwrap());
    for (name, value) in change {
        instance.set(*name, value.clone());
    }
    let parameters = [("SystemSettings", Value::from(instance))];
    let reply = setup
        .client
        .call(MACHINES, "ModifySystemSettings", &parameters)
        .await;
    reply.code
}

#[tokio::test(start_paused = true)]
async fn machines_and_snapshots_are_renamed_and_noted() {
    let setup = Setup::new().await;
    let client = &setup.client;
    let web = machine_path(setup.running("web").await);
    let snapshot = taken(&setup, &web, 2).await;
    let settings = client
        .associators(&web, Some("Msvm_SettingsDefineState"), None)
        .await;
    let settings = settings[0].path.clone().unwrap();
    let change = [
        ("ElementName", "store".into()),
        ("Notes", vec!["ours"].into()),
    ];
    assert_eq!(modify(&setup, &settings, &change).await, 0);
    assert_eq!(
        text(&client.get(&web).await.unwrap(), "ElementName"),
        "store"
    );
    assert_eq!(setup.engine.machines().await.unwrap()[0].notes, "ours");

    // A client sends back what it read, with the evidence among the notes.
    let Some(Value::Array(mut notes)) = client.get(&snapshot).await.unwrap().get("Notes").cloned()
    else {
        panic!("no evidence")
    };
    notes.push(Some("for Friday".into()));
    let change = [
        ("ElementName", "Friday".into()),
        ("Notes", Value::Array(notes)),
    ];
    assert_eq!(modify(&setup, &snapshot, &change).await, 0);
    let kept = setup.engine.snapshots(None).await.unwrap().remove(0);
    assert_eq!(
        (kept.name.as_str(), kept.notes.as_str()),
        ("Friday", "for Friday")
    );

    // Neither hardware nor what happens when the host starts is changed here, and then
    // nothing is.
    for other in [
        ("VirtualNumaEnabled", Value::Boolean(true)),
        ("AutomaticStartupAction", Value::Uint16(4)),
    ] {
        let change = [("ElementName", "other".into()), other];
        assert_eq!(modify(&setup, &settings, &change).await, 1);
        assert_eq!(
            text(&client.get(&web).await.unwrap(), "ElementName"),
            "store"
        );
    }
    let nobody = ObjectPath::class("Msvm_VirtualSystemSettingData").with_key(
        "InstanceID",
        "Microsoft:8f6c1a52-6f9d-4a7e-9a41-2f5f1f0f0a11",
    );
    assert_eq!(
        modify(&setup, &nobody, &[("ElementName", "x".into())]).await,
        4
    );
}

#[tokio::test(start_paused = true)]
async fn summaries_tell_what_is_asked_for_in_its_order() {
    let setup = Setup::new().await;
    let client = &setup.client;
    let id = setup.running("web").await;
    let web = machine_path(id);
    let snapshot = taken(&setup, &web, 2).await;
    let of = |path: &ObjectPath| Some(Value::from(path.clone()));
    let settings = ObjectPath::class("Msvm_VirtualSystemSettingData")
        .with_key("InstanceID", format!("Microsoft:{id}"));
    let nobody = ObjectPath::class("Msvm_VirtualSystemSettingData").with_key(
        "InstanceID",
        "Microsoft:8f6c1a52-6f9d-4a7e-9a41-2f5f1f0f0a11",
    );
    let parameters = [
        (
            "SettingData",
            Value::Array(vec![of(&snapshot), of(&nobody), of(&settings)]),
        ),
        ("RequestedInformation", Value::from(vec![1_u32, 100, 107])),
    ];
    let reply = client
        .call(MACHINES, "GetSummaryInformation", &parameters)
        .await;
    assert_eq!(reply.code, 0);
    let Some(Value::Array(all)) = reply.value("SummaryInformation") else {
        panic!("no summaries")
    };
    let all: Vec<&Instance> = all
        .iter()
        .map(|one| match one {
            Some(Value::Instance(instance)) => instance.as_ref(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(all.len(), 3);
    assert_eq!(number(all[0], "EnabledState"), 6);
    assert_eq!(text(all[1], "Name"), "");
    assert_eq!(text(all[2], "Name"), id.to_string());
    assert_eq!(text(all[2], "ElementName"), "web");
    assert_eq!(number(all[2], "EnabledState"), 2);
    let Some(Value::Array(snapshots)) = all[2].get("Snapshots") else {
        panic!("no snapshots")
    };
    assert_eq!(snapshots.len(), 1);
    // Not asked for.
    assert_eq!(all[2].get("MemoryUsage"), None);
    let everything = client.call(MACHINES, "GetSummaryInformation", &[]).await;
    let Some(Value::Array(all)) = everything.value("SummaryInformation") else {
        panic!("no summaries")
    };
    assert_eq!(all.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn machines_are_forgotten_and_hardware_is_not_changed() {
    let setup = Setup::new().await;
    let web = setup.running("web").await;
    let destroy = [("AffectedSystem", machine_path(web).into())];
    let reply = setup.client.call(MACHINES, "DestroySystem", &destroy).await;
    assert_eq!(reply.code, 5);
    setup.engine.kill_machine(web).await.unwrap();
    assert_eq!(setup.engine.power(web).await.unwrap(), Power::Off);
    let reply = setup.client.call(MACHINES, "DestroySystem", &destroy).await;
    assert_eq!(reply.code, 0);
    assert!(setup.engine.machines().await.unwrap().is_empty());
    assert_eq!(
        setup.client.call(MACHINES, "DefineSystem", &[]).await.code,
        1
    );
}
