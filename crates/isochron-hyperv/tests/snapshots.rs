//! Msvm_CollectionSnapshotService, its jobs and what becomes of them: every
//! method, every return code, on an engine over simulated machines.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, dead_code)]

mod world;

use isochron_cim::{ObjectPath, Value};
use isochron_engine::model::{Power, SnapshotId};
use isochron_sim::{Fault, Point, When};
use world::{Reply, SNAPSHOTS, Setup, VIRTUALIZATION, machine_path, number, text};

fn snapshot_named(id: SnapshotId) -> Value {
    ObjectPath::class("Msvm_SnapshotCollection")
        .with_key("CollectionID", id.to_string())
        .into()
}

/// A refusal: this code, and a job that has failed and says why.
async fn refused(setup: &Setup, reply: &Reply, code: u64, says: &str) {
    assert_eq!(reply.code, code, "{says}: {reply:?}");
    assert_eq!(reply.value("ResultingSnapshotCollection"), None);
    let path = reply.reference("Job").expect("a refusal leaves a job");
    let job = setup.client.get(&path).await.unwrap();
    assert_eq!(number(&job, "JobState"), 10);
    assert_ne!(number(&job, "ErrorCode"), 0);
    let message = text(&job, "ErrorDescription");
    assert!(
        message.contains(says),
        "{message:?} says nothing of {says:?}"
    );
    assert_eq!(text(&job, "ErrorSummaryDescription"), message);
    let reply = setup
        .client
        .try_call(&path, "GetErrorEx", &[])
        .await
        .unwrap();
    let Some(Value::Array(errors)) = reply.value("Errors") else {
        panic!("no errors: {reply:?}")
    };
    let [Some(Value::Instance(error))] = errors.as_slice() else {
        panic!("{errors:?}")
    };
    assert!(error.class.is("Msvm_Error"));
    assert_eq!(text(error, "Message"), message);
    let reply = setup.client.try_call(&path, "GetError", &[]).await.unwrap();
    assert!(matches!(reply.value("Error"), Some(Value::Instance(_))));
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_taken_found_applied_and_destroyed() {
    let setup = Setup::new().await;
    let client = &setup.client;
    let collection = setup.collection("shop", &["web", "db"]).await;
    let settings = "Msvm_VirtualSystemSnapshotSettingData ElementName=Friday ConsistencyLevel=2";
    let reply = setup
        .create(&collection, 2, &[("SnapshotSettings", settings.into())])
        .await;
    assert_eq!(reply.code, 4096);
    let (snapshot, job) = (
        reply.reference("ResultingSnapshotCollection").unwrap(),
        reply.reference("Job").unwrap(),
    );
    assert_eq!(job.namespace.as_deref(), Some(world::CLUSTER));
    // Handed out while it runs, which is what clients wait for.
    let started = client.get(&job).await.unwrap();
    assert_eq!(number(&started, "JobState"), 4);
    assert_eq!(number(&started, "JobType"), 198);
    let ended = client.ended(&job).await;
    assert_eq!(
        number(&ended, "JobState"),
        7,
        "{}",
        text(&ended, "ErrorDescription")
    );
    assert_eq!(number(&ended, "PercentComplete"), 100);
    assert_eq!(number(&ended, "ErrorCode"), 0);
    assert_eq!(ended.get("ErrorDescription"), None);

    // The job leads to exactly one element: the new snapshot collection.
    let affected = client.associators(&job, None, None).await;
    assert_eq!(affected.len(), 1);
    assert_eq!(affected[0].path.as_ref(), Some(&snapshot));
    let links = client.references(&job, "Msvm_AffectedJobElement").await;
    let effects = links[0].get("ElementEffects");
    assert_eq!(effects, Some(&Value::Array(vec![Some(Value::Uint16(5))])));

    // Its name, and the evidence for the instant.
    let shown = client.get(&snapshot).await.unwrap();
    assert_eq!(text(&shown, "ElementName"), "Friday");
    let report: serde_json::Value = serde_json::from_str(&text(&shown, "Description")).unwrap();
    assert_eq!(report["cut"]["members"].as_array().unwrap().len(), 2);
    assert!(report["cut"]["common_window_us"].as_i64().unwrap() >= 0);

    // Its members' snapshots, each with its part of the evidence.
    let members = client
        .associators(&snapshot, Some("Msvm_CollectedSnapshots"), None)
        .await;
    assert_eq!(members.len(), 2);
    for member in &members {
        assert_eq!(
            text(member, "VirtualSystemType"),
            "Microsoft:Hyper-V:Snapshot:Recovery"
        );
        let Some(Value::Array(notes)) = member.get("Notes") else {
            panic!("no notes")
        };
        let note = notes[0].as_ref().unwrap().as_str().unwrap();
        let note: serde_json::Value = serde_json::from_str(note).unwrap();
        assert_eq!(note["vm"], text(member, "VirtualSystemIdentifier"));
        assert!(note["stopped_at_us"].is_u64());
    }

    // The next one grows from it, member by member.
    let standard = setup.snapshot(&collection, 1).await;
    for member in client
        .associators(&standard, Some("Msvm_CollectedSnapshots"), None)
        .await
    {
        assert_eq!(
            text(&member, "VirtualSystemType"),
            "Microsoft:Hyper-V:Snapshot:Realized"
        );
        let parent: ObjectPath = text(&member, "Parent").parse().unwrap();
        let parent = client.get(&parent).await.unwrap();
        assert_eq!(
            text(&parent, "VirtualSystemIdentifier"),
            text(&member, "VirtualSystemIdentifier")
        );
        assert!(members.contains(&parent));
    }
    assert_eq!(
        client
            .associators(&collection, None, Some("Msvm_SnapshotCollection"))
            .await
            .len(),
        2
    );

    // Back to the first.
    let parameters = [("SnapshotCollection", snapshot.clone().into())];
    let reply = client.call(SNAPSHOTS, "ApplySnapshot", &parameters).await;
    assert_eq!(reply.code, 4096);
    let job = client.ended(&reply.reference("Job").unwrap()).await;
    assert_eq!(
        number(&job, "JobState"),
        7,
        "{}",
        text(&job, "ErrorDescription")
    );
    assert_eq!(number(&job, "JobType"), 71);
    for machine in client
        .associators(&collection, None, Some("Msvm_ComputerSystem"))
        .await
    {
        let path = machine.path.unwrap();
        for association in [
            "Msvm_LastAppliedSnapshot",
            "Msvm_MostCurrentSnapshotInBranch",
        ] {
            let stands = client.associators(&path, Some(association), None).await;
            assert_eq!(stands.len(), 1, "{association}");
            assert!(
                members.iter().any(|member| member.path == stands[0].path),
                "{association}"
            );
        }
    }

    // And the second is destroyed.
    let parameters = [("AffectedSnapshotCollection", standard.clone().into())];
    let reply = client.call(SNAPSHOTS, "DestroySnapshot", &parameters).await;
    assert_eq!(reply.code, 4096);
    let job = client.ended(&reply.reference("Job").unwrap()).await;
    assert_eq!(
        number(&job, "JobState"),
        7,
        "{}",
        text(&job, "ErrorDescription")
    );
    assert_eq!(number(&job, "JobType"), 72);
    assert!(client.get(&standard).await.is_err());
    assert_eq!(
        client
            .associators(job.path.as_ref().unwrap(), None, None)
            .await
            .len(),
        1
    );
    assert_eq!(client.all("Msvm_SnapshotCollection").await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unused_key_names_the_new_snapshot_and_a_used_one_is_refused() {
    let setup = Setup::new().await;
    let collection = setup.collection("shop", &["web"]).await;
    let id = SnapshotId::new();
    let wanted = ("ResultingSnapshotCollection", snapshot_named(id));
    let reply = setup
        .create(&collection, 2, std::slice::from_ref(&wanted))
        .await;
    assert_eq!(reply.code, 4096);
    let path = reply.reference("ResultingSnapshotCollection").unwrap();
    assert_eq!(path.key_str("CollectionID"), Some(id.to_string().as_str()));
    setup.client.ended(&reply.reference("Job").unwrap()).await;
    let reply = setup.create(&collection, 2, &[wanted]).await;
    refused(&setup, &reply, 4, "exists already").await;
    // Left out, in the way of untyped clients.
    let reply = setup
        .create(
            &collection,
            2,
            &[("ResultingSnapshotCollection", "".into())],
        )
        .await;
    assert_eq!(reply.code, 4096);
}

#[tokio::test(start_paused = true)]
async fn references_and_settings_come_in_every_dialect() {
    let setup = Setup::new().await;
    let collection = setup.collection("shop", &["web"]).await;
    let id = collection.key_str("CollectionID").unwrap();
    for reference in [
        format!("Msvm_VirtualSystemCollection.CollectionID=\"{id}\""),
        format!("msvm_virtualsystemcollection='{}'", id.to_uppercase()),
        format!(r#"\\.\ROOT\virtualization\v2:Msvm_VirtualSystemCollection.CollectionID="{id}""#),
        format!(
            r#"//any.host/root/hypervcluster/V2:Msvm_VirtualSystemCollection.CollectionID="{id}""#
        ),
    ] {
        for settings in [
            Value::from(""),
            "Msvm_VirtualSystemSettingData ElementName=x".into(),
        ] {
            let parameters = [
                ("Collection", reference.as_str().into()),
                ("SnapshotType", "32768".into()),
                ("SnapshotSettings", settings),
            ];
            let client = setup.client.at(r"root\virtualization\v2");
            let reply = client.call(SNAPSHOTS, "CreateSnapshot", &parameters).await;
            assert_eq!(reply.code, 4096, "{reference}");
            let job = reply.reference("Job").unwrap();
            assert_eq!(job.namespace.as_deref(), Some(VIRTUALIZATION));
            assert_eq!(number(&client.ended(&job).await, "JobState"), 7);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn types_and_parameters_that_make_no_sense_are_refused() {
    let setup = Setup::new().await;
    let collection = setup.collection("shop", &["web"]).await;
    for (kind, code) in [(0, 6), (3, 6), (32767, 6), (32769, 1), (65535, 1)] {
        let reply = setup.create(&collection, kind, &[]).await;
        refused(&setup, &reply, code, &format!("SnapshotType {kind}")).await;
    }
    let client = &setup.client;
    let parameters = [("Collection", collection.clone().into())];
    let reply = client.call(SNAPSHOTS, "CreateSnapshot", &parameters).await;
    refused(&setup, &reply, 4, "SnapshotType is missing").await;
    let reply = client
        .call(
            SNAPSHOTS,
            "CreateSnapshot",
            &[("SnapshotType", Value::Uint16(2))],
        )
        .await;
    refused(&setup, &reply, 4, "Collection is missing").await;

    let web = setup.engine.machines().await.unwrap()[0].id;
    let unknown = "8f6c1a52-6f9d-4a7e-9a41-2f5f1f0f0a11";
    let other = |class: &str| ObjectPath::class(class).with_key("CollectionID", unknown);
    for (reference, says) in [
        (other("Msvm_VirtualSystemCollection"), "there is no"),
        (other("Msvm_SnapshotCollection"), "there is no"),
        (
            other("Msvm_VirtualSystemCollection").in_namespace("root/cimv2"),
            "not in the namespace",
        ),
        (
            collection.clone().in_namespace("interop"),
            "not in the namespace",
        ),
        (machine_path(web), "Msvm_ComputerSystem"),
        (
            ObjectPath::class("Msvm_VirtualSystemCollection"),
            "lacks the key",
        ),
        (
            ObjectPath::class("No_Such").with_key("Id", "1"),
            "no class No_Such",
        ),
    ] {
        let reply = setup.create(&reference, 2, &[]).await;
        refused(&setup, &reply, 4, says).await;
    }
    for (parameter, value, says) in [
        ("SnapshotSettings", "nonsense".into(), "cannot be read"),
        (
            "SnapshotSettings",
            "Msvm_ProcessorSettingData".into(),
            "Msvm_ProcessorSettingData",
        ),
        (
            "SnapshotSettings",
            "Msvm_VirtualSystemSnapshotSettingData ConsistencyLevel=9".into(),
            "ConsistencyLevel 9",
        ),
        (
            "ResultingSnapshotCollection",
            machine_path(web).into(),
            "not a snapshot collection",
        ),
        (
            "ResultingSnapshotCollection",
            ObjectPath::class("Msvm_SnapshotCollection")
                .with_key("CollectionID", "mine")
                .into(),
            "no GUID",
        ),
    ] {
        let reply = setup.create(&collection, 2, &[(parameter, value)]).await;
        refused(&setup, &reply, 4, says).await;
    }
    // A standard snapshot cannot be application-consistent.
    let settings = "Msvm_VirtualSystemSnapshotSettingData ConsistencyLevel=1".into();
    let reply = setup
        .create(&collection, 1, &[("SnapshotSettings", settings)])
        .await;
    refused(&setup, &reply, 4, "application consistency").await;
    for method in ["ApplySnapshot", "DestroySnapshot"] {
        let name = if method == "ApplySnapshot" {
            "SnapshotCollection"
        } else {
            "AffectedSnapshotCollection"
        };
        for given in [
            None,
            Some(other("Msvm_SnapshotCollection")),
            Some(collection.clone()),
        ] {
            let parameters: Vec<_> = given
                .into_iter()
                .map(|path| (name, Value::from(path)))
                .collect();
            let reply = client.call(SNAPSHOTS, method, &parameters).await;
            refused(&setup, &reply, 4, name).await;
        }
    }
    assert_eq!(setup.engine.snapshots(None).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn states_that_do_not_allow_it_are_refused() {
    let setup = Setup::new().await;
    let empty = setup.collection("empty", &[]).await;
    let reply = setup.create(&empty, 2, &[]).await;
    refused(&setup, &reply, 5, "no members").await;

    let collection = setup.collection("shop", &["web"]).await;
    let first = setup.snapshot(&collection, 2).await;
    setup
        .world
        .fail_next(Point::Flush, None, When::Before, Fault::Hang);
    let under_way = setup.create(&collection, 2, &[]).await;
    assert_eq!(under_way.code, 4096);
    let reply = setup.create(&collection, 2, &[]).await;
    refused(&setup, &reply, 5, "").await;
    let apply = [("SnapshotCollection", first.clone().into())];
    let reply = setup.client.call(SNAPSHOTS, "ApplySnapshot", &apply).await;
    refused(&setup, &reply, 5, "").await;
    let destroy = [("AffectedSnapshotCollection", first.into())];
    let reply = setup
        .client
        .call(SNAPSHOTS, "DestroySnapshot", &destroy)
        .await;
    refused(&setup, &reply, 5, "").await;
    setup.world.release();
    let job = setup
        .client
        .ended(&under_way.reference("Job").unwrap())
        .await;
    assert_eq!(number(&job, "JobState"), 7);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_done_times_out_or_fails_has_its_code() {
    let setup = Setup::new().await;
    let collection = setup.collection("shop", &["web"]).await;
    let web = setup.engine.machines().await.unwrap()[0].id;
    // A disk of the host's own: Not Supported, unless it may be left out.
    let device = std::path::Path::new("/dev/sim");
    setup.world.add_device(device).unwrap();
    let mut definition = setup.world.definition("nas", &["disk0"]);
    let raw = serde_json::json!({ "name": "raw", "path": device, "format": "raw" });
    definition.disks.push(serde_json::from_value(raw).unwrap());
    let nas = setup.engine.define_machine(definition).await.unwrap().id;
    let id = collection.key_str("CollectionID").unwrap().parse().unwrap();
    setup.engine.add_machine(id, nas).await.unwrap();
    let reply = setup.create(&collection, 2, &[]).await;
    refused(&setup, &reply, 1, "cannot be snapshotted").await;
    let settings: Value =
        "Msvm_VirtualSystemSnapshotSettingData IgnoreNonSnapshottableDisks=true".into();
    let reply = setup
        .create(&collection, 2, &[("SnapshotSettings", settings)])
        .await;
    assert_eq!(reply.code, 4096);
    setup.client.ended(&reply.reference("Job").unwrap()).await;
    setup.engine.remove_machine(id, nas).await.unwrap();

    // A member that does not answer before anything is touched.
    for (fault, code) in [(Fault::Timeout, 3), (Fault::Error, 2)] {
        setup
            .world
            .fail_next(Point::Power, Some(web), When::Before, fault);
        let reply = setup.create(&collection, 2, &[]).await;
        refused(&setup, &reply, code, "web").await;
    }
    // One that does not stop in time: the job fails with Timeout; it runs on.
    setup
        .world
        .fail_next(Point::Stop, Some(web), When::Before, Fault::Timeout);
    let reply = setup.create(&collection, 2, &[]).await;
    assert_eq!(reply.code, 4096);
    let job = setup.client.ended(&reply.reference("Job").unwrap()).await;
    assert_eq!(number(&job, "JobState"), 10);
    assert_eq!(number(&job, "ErrorCode"), 3);
    assert!(text(&job, "ErrorDescription").contains("web"));
    assert_eq!(setup.world.power(web), Power::Running);
    assert!(
        setup
            .client
            .associators(job.path.as_ref().unwrap(), None, None)
            .await
            .is_empty()
    );
}

#[tokio::test(start_paused = true)]
async fn a_job_is_cancelled_while_it_can_be() {
    let setup = Setup::new().await;
    let collection = setup.collection("shop", &["web"]).await;
    setup
        .world
        .fail_next(Point::Flush, None, When::Before, Fault::Hang);
    let reply = setup.create(&collection, 2, &[]).await;
    let job = reply.reference("Job").unwrap();
    let shown = setup.client.get(&job).await.unwrap();
    assert_eq!(shown.get("Cancellable"), Some(&Value::Boolean(true)));
    let request = async |parameters: &[(&str, Value)]| {
        setup
            .client
            .try_call(&job, "RequestStateChange", parameters)
            .await
            .unwrap()
            .code
    };
    let state = |number: u16| ("RequestedState", Value::Uint16(number));
    let minute = ("TimeoutPeriod", "00000000000100.000000:000".into());
    assert_eq!(request(&[state(2)]).await, 1);
    assert_eq!(request(&[state(3)]).await, 1);
    assert_eq!(request(&[state(7)]).await, 5);
    assert_eq!(request(&[]).await, 5);
    assert_eq!(request(&[state(4), minute]).await, 4098);
    assert_eq!(request(&[state(4)]).await, 0);
    setup.world.release();
    let ended = setup.client.ended(&job).await;
    assert_eq!(number(&ended, "JobState"), 8);
    assert_eq!(ended.get("Cancellable"), Some(&Value::Boolean(false)));
    assert_ne!(number(&ended, "ErrorCode"), 0);
    assert_eq!(request(&[state(5)]).await, 4097);
    assert!(setup.client.all("Msvm_SnapshotCollection").await.is_empty());
    let killed = setup.client.try_call(&job, "KillJob", &[]).await.unwrap();
    assert_eq!(killed.code, 1);
}

#[tokio::test(start_paused = true)]
async fn services_do_not_change_their_state() {
    let setup = Setup::new().await;
    let client = &setup.client;
    let points = "Msvm_CollectionReferencePointService";
    for (service, method, parameters) in [
        (points, "StartService", vec![]),
        (SNAPSHOTS, "StopService", vec![]),
        (
            SNAPSHOTS,
            "RequestStateChange",
            vec![("RequestedState", Value::Uint16(3))],
        ),
    ] {
        let reply = client.call(service, method, &parameters).await;
        assert_eq!(reply.code, 1, "{method}");
    }
}
