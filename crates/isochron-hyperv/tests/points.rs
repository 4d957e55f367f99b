//! Reference points and exports: every method of the services that have them, their
//! jobs, what is then seen, and what is refused how.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, dead_code)]

mod world;

use std::path::Path;

use isochron_cim::{Instance, ObjectPath, Principal, Role, Status, Value};
use isochron_sim::{Fault, Point, When};
use world::{Reply, SNAPSHOTS, Setup, VIRTUALIZATION, machine_path, number, text};

const POINTS: &str = "Msvm_CollectionReferencePointService";
const SINGLE: &str = "Msvm_VirtualSystemReferencePointService";

fn array(values: &[Value]) -> Value {
    Value::Array(values.iter().cloned().map(Some).collect())
}

fn texts(instance: &Instance, name: &str) -> Vec<String> {
    let Some(Value::Array(values)) = instance.get(name) else {
        return Vec::new();
    };
    let values = values.iter().flatten();
    values
        .map(|value| value.as_str().unwrap().to_owned())
        .collect()
}

fn settings(class: &str, properties: &[(&'static str, Value)]) -> Value {
    let mut instance = Instance::new(class);
    for (name, value) in properties {
        instance.set(*name, value.clone());
    }
    instance.into()
}

impl Setup {
    fn directory(&self, name: &str) -> String {
        self.state.path().join(name).display().to_string()
    }

    /// Calls, expects a job, and returns it when it has completed.
    async fn done(&self, service: &str, method: &str, parameters: &[(&str, Value)]) -> Instance {
        let reply = self.client.call(service, method, parameters).await;
        assert_eq!(reply.code, 4096, "{method}: {}", self.why(&reply).await);
        let job = self.client.ended(&reply.reference("Job").unwrap()).await;
        let why = text(&job, "ErrorDescription");
        assert_eq!(number(&job, "JobState"), 7, "{method}: {why}");
        job
    }

    /// What the job of a refusal says.
    async fn why(&self, reply: &Reply) -> String {
        let Some(job) = reply.reference("Job") else {
            return String::new();
        };
        let job = self.client.get(&job).await.unwrap();
        text(&job, "ErrorDescription")
    }

    /// A reference point of a collection.
    async fn point(&self, collection: &ObjectPath, name: &str) -> ObjectPath {
        let how = settings(
            "Msvm_CollectionReferencePointSettingData",
            &[
                ("ElementName", name.into()),
                ("ConsistencyLevel", 2_u16.into()),
            ],
        );
        let parameters = [
            ("Collection", collection.clone().into()),
            ("ReferencePointSettings", how),
            ("ReferencePointType", Value::Uint16(2)),
        ];
        let reply = self
            .client
            .call(POINTS, "CreateReferencePoint", &parameters);
        let reply = reply.await;
        assert_eq!(reply.code, 4096, "{}", self.why(&reply).await);
        let job = self.client.ended(&reply.reference("Job").unwrap()).await;
        assert_eq!(
            (number(&job, "JobState"), number(&job, "JobType")),
            (7, 205)
        );
        let point = reply
            .reference("ResultingReferencePointCollection")
            .unwrap();
        let affected = self
            .client
            .associators(job.path.as_ref().unwrap(), None, None);
        assert_eq!(affected.await[0].path, Some(point.clone()));
        point
    }
}

#[tokio::test(start_paused = true)]
async fn a_collection_is_backed_up_in_full_and_then_as_what_changed() {
    let setup = Setup::new().await;
    let client = &setup.client;
    let shop = setup.collection("shop", &["web", "db"]).await;
    let snapshot = setup.snapshot(&shop, 2).await;
    let full = setup.directory("full");
    let export = [
        ("SnapshotCollection", snapshot.clone().into()),
        ("ExportDirectory", full.as_str().into()),
    ];
    let job = setup.done(SNAPSHOTS, "ExportSnapshot", &export).await;
    assert_eq!(
        (number(&job, "JobType"), job.class.as_str()),
        (62, "Msvm_ConcreteJob")
    );
    assert!(setup.world.export(Path::new(&full)).is_some());

    // The snapshot becomes a reference point of the key that the caller chose.
    let id = "1f1b6c0e-7a38-4a5b-b3a5-0a0d3cf0b7c1";
    let wanted = ObjectPath::class("Msvm_ReferencePointCollection")
        .with_key("CollectionID", id)
        .with_key(
            "VirtualSystemCollectionId",
            shop.key_str("CollectionID").unwrap(),
        );
    let convert = [
        ("AffectedSnapshotCollection", snapshot.clone().into()),
        ("ResultingReferencePointCollection", wanted.clone().into()),
    ];
    let job = setup
        .done(SNAPSHOTS, "ConvertToReferencePoint", &convert)
        .await;
    assert_eq!(number(&job, "JobType"), 200);
    assert!(client.get(&snapshot).await.is_err(), "the snapshot is gone");
    let base = client.get(&wanted).await.unwrap();
    assert_eq!(number(&base, "ReferencePointType"), 2);
    assert_eq!(number(&base, "ConsistencyLevel"), 1, "crash, in this class");
    assert_eq!(base.get("HasAssociatedLog"), Some(&Value::Boolean(false)));
    let report: serde_json::Value = serde_json::from_str(&text(&base, "Description")).unwrap();
    assert!(report["cut"]["common_window_us"].as_i64().unwrap() >= 0);
    let parts = client
        .associators(&wanted, Some("Msvm_CollectedReferencePoints"), None)
        .await;
    assert_eq!(parts.len(), 2);
    for part in &parts {
        assert_eq!(number(part, "ConsistencyLevel"), 2, "crash, in this class");
        assert_eq!(part.get("HasAssociatedData"), Some(&Value::Boolean(false)));
        assert_eq!(texts(part, "VirtualDiskIdentifiers").len(), 1);
    }

    // A later one, of which only what changed is written.
    let later = setup.point(&shop, "later").await;
    let parts_later = client
        .associators(&later, Some("Msvm_CollectedReferencePoints"), None)
        .await;
    let (part, part_later) = (&parts[0], &parts_later[0]);
    let name = "VirtualDiskIdentifiers";
    assert_eq!(texts(part, name), texts(part_later, name), "the same disk");
    let name = "ResilientChangeTrackingIdentifiers";
    assert_ne!(
        texts(part, name),
        texts(part_later, name),
        "another instant"
    );
    assert_eq!(
        part_later.get("HasAssociatedData"),
        Some(&Value::Boolean(true))
    );
    let directory = setup.directory("difference");
    let how = settings(
        "Msvm_CollectionReferencePointExportSettingData",
        &[("BaseReferencePointCollection", wanted.to_string().into())],
    );
    let export = [
        ("ReferencePointCollection", later.clone().into()),
        ("ExportDirectory", directory.as_str().into()),
        ("ExportSettingData", how),
    ];
    let job = setup.done(POINTS, "ExportReferencePoint", &export).await;
    assert_eq!(job.class.as_str(), "Msvm_CollectionReferencePointExportJob");
    assert_eq!(
        text(&job, "CollectionId"),
        shop.key_str("CollectionID").unwrap()
    );
    assert_eq!(
        text(&job, "ReferencePointGroupId"),
        later.key_str("CollectionID").unwrap()
    );
    assert_eq!(text(&job, "BaseReferencePointGroupId"), id);
    assert_eq!(text(&job, "ExportDirectory"), directory);
    assert_eq!(texts(&job, "VirtualMachineId").len(), 2);
    let written: Vec<_> = ["ExportedDisks", "ExportedConfigFilePaths"]
        .iter()
        .flat_map(|name| texts(&job, name))
        .collect();
    assert!(!written.is_empty());
    assert!(written.iter().all(|path| path.starts_with(&directory)));
    let stored = setup.world.export(Path::new(&directory)).unwrap();
    assert!(stored.parent.is_some());

    // A snapshot, as a full export made of that difference.
    let third = setup.snapshot(&shop, 2).await;
    let merged = setup.directory("merged");
    let how = settings(
        "Msvm_CollectionSnapshotExportSettingData",
        &[
            ("CopyVmStorage", true.into()),
            ("DifferentialBackupBase", later.to_string().into()),
            ("BackupIntent", 2_u16.into()),
        ],
    );
    let export = [
        ("SnapshotCollection", third.into()),
        ("ExportDirectory", merged.as_str().into()),
        ("ExportSettingData", how),
    ];
    setup.done(SNAPSHOTS, "ExportSnapshot", &export).await;
    let stored = setup.world.export(Path::new(&merged)).unwrap();
    assert_eq!((stored.parent, stored.order.merge), (None, true));

    let named = [("AffectedReferencePointCollection", later.clone().into())];
    let job = setup.done(POINTS, "RemoveAssociatedData", &named).await;
    assert_eq!(number(&job, "JobType"), 207);
    let export = [
        ("ReferencePointCollection", later.clone().into()),
        ("ExportDirectory", setup.directory("no").into()),
    ];
    let reply = client.call(POINTS, "ExportReferencePoint", &export).await;
    assert_eq!(reply.code, 5);
    let job = setup.done(POINTS, "DestroyReferencePoint", &named).await;
    assert_eq!(number(&job, "JobType"), 208);
    assert!(client.get(&later).await.is_err());
    assert_eq!(client.all("Msvm_ReferencePointCollection").await.len(), 1);
    // The other namespace sees the same.
    let other = client.at(VIRTUALIZATION);
    assert_eq!(other.all("Msvm_VirtualSystemReferencePoint").await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn disks_are_chosen_by_machine_and_by_identifier() {
    let setup = Setup::new().await;
    let shop = setup.collection("shop", &["web", "db"]).await;
    let point = setup.point(&shop, "now").await;
    let parts = setup
        .client
        .associators(&point, Some("Msvm_CollectedReferencePoints"), None)
        .await;
    let disk = texts(&parts[0], "VirtualDiskIdentifiers").remove(0);
    let machine = text(&parts[0], "VirtualSystemIdentifier");
    for (directory, disk, code) in [("a", "disk0", 4096), ("b", &disk, 4096), ("c", "x", 4)] {
        let chosen = settings(
            "Msvm_VirtualMachineToDisks",
            &[
                ("VirtualMachineId", machine.as_str().into()),
                ("DisksToExport", array(&[disk.into()])),
            ],
        );
        let how = settings(
            "Msvm_CollectionReferencePointExportSettingData",
            &[("VirtualMachinesToDisksToExport", array(&[chosen]))],
        );
        let directory = setup.directory(directory);
        let export = [
            ("ReferencePointCollection", point.clone().into()),
            ("ExportDirectory", directory.as_str().into()),
            ("ExportSettingData", how),
        ];
        let reply = setup.client.call(POINTS, "ExportReferencePoint", &export);
        let reply = reply.await;
        assert_eq!(reply.code, code, "{disk}: {}", setup.why(&reply).await);
        setup.client.ended(&reply.reference("Job").unwrap()).await;
        let stored = setup.world.export(Path::new(&directory));
        assert_eq!(
            stored.map(|stored| stored.disks.len()),
            (code == 4096).then_some(1)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_makes_no_sense_is_refused_and_says_why() {
    let setup = Setup::new().await;
    let shop = setup.collection("shop", &["web"]).await;
    let standard = setup.snapshot(&shop, 1).await;
    let point = Value::from(setup.point(&shop, "now").await);
    let directory = || ("ExportDirectory", Value::from(setup.directory("x")));
    let of_snapshot = ("SnapshotCollection", Value::from(standard.clone()));
    let export = |properties: &[(&'static str, Value)]| {
        let class = "Msvm_CollectionSnapshotExportSettingData";
        let how = settings(class, properties);
        vec![of_snapshot.clone(), directory(), ("ExportSettingData", how)]
    };
    let create = |kind: u16| {
        vec![
            ("Collection", shop.clone().into()),
            ("ReferencePointType", Value::Uint16(kind)),
        ]
    };
    let base = |path: &ObjectPath| ("DifferentialBackupBase", Value::from(path.to_string()));
    let relative = vec![of_snapshot.clone(), ("ExportDirectory", "backups".into())];
    let converted = vec![("AffectedSnapshotCollection", standard.clone().into())];
    let named_wrongly = vec![
        ("AffectedSnapshotCollection", standard.clone().into()),
        ("ResultingReferencePointCollection", shop.clone().into()),
    ];
    let point_to = vec![("ReferencePointCollection", point.clone())];
    for (service, method, parameters, code, says) in [
        (
            SNAPSHOTS,
            "ExportSnapshot",
            vec![of_snapshot.clone()],
            4,
            "ExportDirectory",
        ),
        (SNAPSHOTS, "ExportSnapshot", relative, 4, "not absolute"),
        (
            SNAPSHOTS,
            "ExportSnapshot",
            vec![directory()],
            4,
            "SnapshotCollection",
        ),
        (
            SNAPSHOTS,
            "ExportSnapshot",
            export(&[("BackupIntent", 0_u16.into())]),
            4,
            "BackupIntent 0",
        ),
        (
            SNAPSHOTS,
            "ExportSnapshot",
            export(&[("BackupIntent", 2_u16.into())]),
            4,
            "base",
        ),
        (
            SNAPSHOTS,
            "ExportSnapshot",
            export(&[base(&shop)]),
            4,
            "no difference",
        ),
        (
            SNAPSHOTS,
            "ExportSnapshot",
            export(&[base(&standard)]),
            4,
            "itself",
        ),
        (
            SNAPSHOTS,
            "ConvertToReferencePoint",
            converted,
            1,
            "standard",
        ),
        (
            SNAPSHOTS,
            "ConvertToReferencePoint",
            named_wrongly,
            4,
            "ResultingReferencePointCollection",
        ),
        (POINTS, "CreateReferencePoint", create(1), 1, "log based"),
        (POINTS, "CreateReferencePoint", create(0), 6, "no type"),
        (POINTS, "CreateReferencePoint", create(40000), 1, "vendor"),
        (
            POINTS,
            "CreateReferencePoint",
            vec![],
            4,
            "ReferencePointType",
        ),
        (
            POINTS,
            "ExportReferencePoint",
            point_to,
            4,
            "ExportDirectory",
        ),
        (POINTS, "DestroyReferencePoint", vec![], 4, "missing"),
        (
            POINTS,
            "RemoveAssociatedData",
            vec![("AffectedReferencePointCollection", standard.into())],
            4,
            "not a reference point",
        ),
    ] {
        let reply = setup.client.call(service, method, &parameters).await;
        let why = setup.why(&reply).await;
        assert_eq!(reply.code, code, "{method}: {why}");
        assert!(
            why.contains(says),
            "{method}: {why:?} says nothing of {says:?}"
        );
    }
    assert!(
        setup
            .world
            .export(Path::new(&setup.directory("x")))
            .is_none()
    );
}

/// Whatever the directory is, it lies below those that are open to clients; and who
/// only reads has nothing exported at all.
#[tokio::test(start_paused = true)]
async fn exports_are_confined_and_take_an_operator() {
    let setup = Setup::new().await;
    let shop = setup.collection("shop", &["web"]).await;
    let snapshot = setup.snapshot(&shop, 2).await;
    let service = setup.client.the(SNAPSHOTS).await;
    let inside = setup.directory("x");
    let around = setup.directory("../outside");
    for (role, directory) in [
        (Role::Administrator, "/etc/backups"),
        (Role::Administrator, around.as_str()),
        (Role::Reader, inside.as_str()),
    ] {
        let mut client = setup.client.at(world::CLUSTER);
        client.cx.principal = Principal::user("ada", role);
        let export = [
            ("SnapshotCollection", snapshot.clone().into()),
            ("ExportDirectory", directory.into()),
        ];
        let refused = client.try_call(&service, "ExportSnapshot", &export).await;
        let refused = refused.unwrap_err();
        assert_eq!(
            refused.status,
            Status::AccessDenied,
            "{directory}: {refused}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_export_is_cancelled_and_leaves_nothing() {
    let setup = Setup::new().await;
    let shop = setup.collection("shop", &["web"]).await;
    let point = setup.point(&shop, "now").await;
    setup
        .world
        .fail_next(Point::CopyDisk, None, When::Before, Fault::Hang);
    let directory = setup.directory("x");
    let export = [
        ("ReferencePointCollection", point.clone().into()),
        ("ExportDirectory", directory.as_str().into()),
    ];
    let reply = setup.client.call(POINTS, "ExportReferencePoint", &export);
    let job = reply.await.reference("Job").unwrap();
    let destroy = [("AffectedReferencePointCollection", point.into())];
    let reply = setup.client.call(POINTS, "DestroyReferencePoint", &destroy);
    assert_eq!(reply.await.code, 5, "it is being exported");
    let state = [("RequestedState", Value::Uint16(4))];
    let reply = setup.client.try_call(&job, "RequestStateChange", &state);
    assert_eq!(reply.await.unwrap().code, 0);
    setup.world.release();
    let ended = setup.client.ended(&job).await;
    assert_eq!(number(&ended, "JobState"), 8);
    let reply = setup.client.try_call(&job, "GetError", &[]).await.unwrap();
    assert!(matches!(reply.value("Error"), Some(Value::Instance(_))));
    assert!(setup.world.export(Path::new(&directory)).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_single_machine_is_a_collection_of_one() {
    let setup = Setup::new().await;
    let client = &setup.client;
    let machine = setup.running("web").await;
    let web = machine_path(machine);
    let take = [
        ("AffectedSystem", web.clone().into()),
        ("SnapshotType", Value::Uint16(32768)),
    ];
    let reply = client
        .call("Msvm_VirtualSystemSnapshotService", "CreateSnapshot", &take)
        .await;
    client.ended(&reply.reference("Job").unwrap()).await;
    let snapshot = reply.reference("ResultingSnapshot").unwrap();
    let convert = [("AffectedSnapshot", snapshot.clone().into())];
    let reply = client
        .call(
            "Msvm_VirtualSystemSnapshotService",
            "ConvertToReferencePoint",
            &convert,
        )
        .await;
    assert_eq!(reply.code, 4096, "{}", setup.why(&reply).await);
    client.ended(&reply.reference("Job").unwrap()).await;
    let first = reply.reference("ResultingReferencePoint").unwrap();
    assert!(client.get(&snapshot).await.is_err());
    assert!(client.get(&first).await.is_ok());

    let create = |kind: u16| {
        [
            ("AffectedSystem", Value::from(web.clone())),
            ("ReferencePointType", Value::Uint16(kind)),
        ]
    };
    // 0 is what is 1 of collections.
    let reply = client
        .call(SINGLE, "CreateReferencePoint", &create(0))
        .await;
    assert_eq!(reply.code, 1);
    let reply = client
        .call(SINGLE, "CreateReferencePoint", &create(1))
        .await;
    let job = client.ended(&reply.reference("Job").unwrap()).await;
    assert_eq!(
        (number(&job, "JobState"), number(&job, "JobType")),
        (7, 201)
    );
    let second = reply.reference("ResultingReferencePoint").unwrap();
    let affected = client
        .associators(job.path.as_ref().unwrap(), None, None)
        .await;
    assert_eq!(affected[0].path, Some(second.clone()));
    let seen = client
        .associators(&web, Some("Msvm_ReferencePointOfVirtualSystem"), None)
        .await;
    assert_eq!(seen.len(), 2);
    assert!(client.all("Msvm_ReferencePointCollection").await.is_empty());

    let how = settings(
        "Msvm_VirtualSystemReferencePointExportSettingData",
        &[("DisksToExport", array(&["disk0".into()]))],
    );
    let export = [
        ("ReferencePoint", second.clone().into()),
        ("ExportDirectory", setup.directory("web").into()),
        ("ExportSettingData", how),
    ];
    let job = setup.done(SINGLE, "ExportReferencePoint", &export).await;
    assert_eq!(number(&job, "JobType"), 203);
    let named = |path: &ObjectPath| [("AffectedReferencePoint", Value::from(path.clone()))];
    setup
        .done(SINGLE, "RemoveAssociatedData", &named(&second))
        .await;
    // Refusals are of the other family.
    let export = [
        ("ReferencePoint", second.clone().into()),
        ("ExportDirectory", setup.directory("again").into()),
    ];
    let reply = client.call(SINGLE, "ExportReferencePoint", &export).await;
    assert_eq!(reply.code, 32775, "{}", setup.why(&reply).await);
    for point in [&first, &second] {
        setup
            .done(SINGLE, "DestroyReferencePoint", &named(point))
            .await;
    }
    let reply = client
        .call(SINGLE, "DestroyReferencePoint", &named(&first))
        .await;
    assert_eq!(reply.code, 32773);
    let reply = client
        .call(SINGLE, "ImportReferencePointMetadata", &[])
        .await;
    assert_eq!(reply.code, 32770);

    // A part of a collection's is not its machine's own.
    let shop = setup.collection("shop", &["db"]).await;
    let point = setup.point(&shop, "now").await;
    let parts = client
        .associators(&point, Some("Msvm_CollectedReferencePoints"), None)
        .await;
    let part = parts[0].path.clone().unwrap();
    let reply = client
        .call(SINGLE, "DestroyReferencePoint", &named(&part))
        .await;
    assert_eq!(reply.code, 32775);
    assert!(setup.why(&reply).await.contains("shop"));
}
