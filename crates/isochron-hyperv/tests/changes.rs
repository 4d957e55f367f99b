//! What changes is told as instances, with what they were before, in both
//! namespaces.

#![allow(clippy::unwrap_used)]

#[allow(dead_code)] // not every test asks everything
mod world;

use futures::{FutureExt, StreamExt};
use isochron_cim::{Change, ChangeKind, ChangeStream, CimServer, Value};
use isochron_engine::model::CollectionKind;
use world::*;

use ChangeKind::{Created, Deleted, Modified};

/// The changes told until now.
async fn told(changes: &mut ChangeStream) -> Vec<Change> {
    let mut told = Vec::new();
    loop {
        match changes.next().now_or_never() {
            Some(Some(change)) => told.push(change),
            Some(None) => return told,
            // Describing may wait for a port; what is still coming comes now.
            None => {
                match tokio::time::timeout(std::time::Duration::from_millis(200), changes.next())
                    .await
                {
                    Ok(Some(change)) => told.push(change),
                    _ => return told,
                }
            }
        }
    }
}

fn words(changes: &[Change]) -> Vec<(String, ChangeKind)> {
    let words = changes.iter().map(|change| {
        let name = text(&change.instance, "ElementName");
        (format!("{} {name}", change.instance.class), change.kind)
    });
    words.collect()
}

/// The changes in a namespace, whose paths must be in it.
fn seen_in(changes: &[Change], namespace: &str) -> Vec<Change> {
    let seen: Vec<_> = changes
        .iter()
        .filter(|change| change.namespace == namespace)
        .cloned()
        .collect();
    for change in &seen {
        for instance in std::iter::once(&change.instance).chain(&change.previous) {
            let path = instance.path.as_ref().unwrap();
            assert_eq!(path.namespace.as_deref(), Some(namespace));
        }
        assert_eq!(change.previous.is_some(), change.kind == Modified);
    }
    seen
}

fn pairs(expected: &[(&str, ChangeKind)]) -> Vec<(String, ChangeKind)> {
    expected
        .iter()
        .map(|(w, k)| ((*w).to_owned(), *k))
        .collect()
}

#[tokio::test]
async fn machines_and_collections() {
    let setup = Setup::new().await;
    let mut changes = setup.client.server.changes();
    let a = setup.running("a").await;
    let engine = &setup.engine;
    let kind = CollectionKind::Machines;
    let all = engine
        .create_collection("all", None, kind)
        .await
        .unwrap()
        .id;
    engine.add_machine(all, a).await.unwrap(); // no property shows it
    engine.rename_collection(all, "each").await.unwrap();
    engine.rename_machine(a, "b").await.unwrap();
    engine.pause_machine(a).await.unwrap();
    engine.kill_machine(a).await.unwrap();
    engine.remove_machine(all, a).await.unwrap();
    engine.destroy_collection(all).await.unwrap();
    engine.undefine_machine(a).await.unwrap();

    let told = told(&mut changes).await;
    let expected = pairs(&[
        ("Msvm_ComputerSystem a", Created),
        ("Msvm_VirtualSystemSettingData a", Created),
        ("Msvm_ComputerSystem a", Modified),
        ("Msvm_VirtualSystemCollection all", Created),
        ("Msvm_VirtualSystemCollection each", Modified),
        ("Msvm_ComputerSystem b", Modified),
        ("Msvm_VirtualSystemSettingData b", Modified),
        ("Msvm_ComputerSystem b", Modified),
        ("Msvm_ComputerSystem b", Modified),
        ("Msvm_VirtualSystemCollection each", Deleted),
        ("Msvm_VirtualSystemSettingData b", Deleted),
        ("Msvm_ComputerSystem b", Deleted),
    ]);
    for namespace in [CLUSTER, VIRTUALIZATION] {
        let told = seen_in(&told, namespace);
        assert_eq!(words(&told), expected);
        let states = |which: usize| {
            let previous = told[which].previous.as_ref().unwrap();
            (
                number(previous, "EnabledState"),
                number(&told[which].instance, "EnabledState"),
            )
        };
        assert_eq!(states(2), (3, 2), "started");
        assert_eq!(states(5), (2, 2), "renamed");
        assert_eq!(states(7), (2, 9), "paused");
        assert_eq!(states(8), (9, 3), "killed");
        let previous = told[4].previous.as_ref().unwrap();
        assert_eq!(text(previous, "ElementName"), "all");
    }
    assert_eq!(told.len(), 2 * expected.len());
}

#[tokio::test]
async fn reference_points_come_and_go() {
    let setup = Setup::new().await;
    let collection = setup.collection("all", &["a", "b"]).await;
    let mut changes = setup.client.server.changes();
    told(&mut changes).await;
    let service = "Msvm_CollectionReferencePointService";
    let create = [
        ("Collection", collection.into()),
        ("ReferencePointType", Value::Uint16(2)),
    ];
    let client = &setup.client;
    let reply = client.call(service, "CreateReferencePoint", &create).await;
    client.ended(&reply.reference("Job").unwrap()).await;
    let point = reply.reference("ResultingReferencePointCollection");
    let point = point.unwrap();
    for method in ["RemoveAssociatedData", "DestroyReferencePoint"] {
        let named = [("AffectedReferencePointCollection", point.clone().into())];
        let reply = client.call(service, method, &named).await;
        client.ended(&reply.reference("Job").unwrap()).await;
    }
    let told = told(&mut changes).await;
    for namespace in [CLUSTER, VIRTUALIZATION] {
        let mut seen = seen_in(&told, namespace);
        seen.retain(|change| change.instance.class.as_str().contains("ReferencePoint"));
        let seen: Vec<_> = seen
            .iter()
            .map(|change| (change.instance.class.as_str(), change.kind))
            .collect();
        let (whole, part) = (
            "Msvm_ReferencePointCollection",
            "Msvm_VirtualSystemReferencePoint",
        );
        assert_eq!(
            seen,
            [
                (whole, Created),
                (part, Created),
                (part, Created),
                // Its data is gone.
                (whole, Modified),
                (part, Modified),
                (part, Modified),
                (part, Deleted),
                (part, Deleted),
                (whole, Deleted),
            ]
        );
    }
}

#[tokio::test]
async fn snapshots_and_every_step_of_their_jobs() {
    let setup = Setup::new().await;
    let collection = setup.collection("all", &["a", "b"]).await;
    let mut changes = setup.client.server.changes();
    told(&mut changes).await;
    let snapshot = setup.snapshot(&collection, 2).await;

    let mut told_now = told(&mut changes).await;
    let jobs: Vec<_> = seen_in(&told_now, CLUSTER)
        .into_iter()
        .filter(|change| change.instance.class.is("Msvm_ConcreteJob"))
        .collect();
    assert_eq!(jobs[0].kind, Created);
    assert_eq!(number(&jobs[0].instance, "JobState"), 4);
    for (step, next) in jobs.iter().zip(&jobs[1..]) {
        assert_eq!(next.kind, Modified);
        // What was is what was told last, but for the time that has passed.
        let previous = next.previous.as_ref().unwrap();
        for property in ["JobState", "JobStatus", "PercentComplete", "Cancellable"] {
            assert_eq!(previous.get(property), step.instance.get(property));
        }
    }
    let last = jobs.last().unwrap();
    assert_eq!(number(&last.instance, "JobState"), 7);
    assert_eq!(number(last.previous.as_ref().unwrap(), "JobState"), 4);

    told_now
        .retain(|change| change.kind == Created && !change.instance.class.is("Msvm_ConcreteJob"));
    let created = seen_in(&told_now, VIRTUALIZATION);
    let classes: Vec<_> = created.iter().map(|c| c.instance.class.as_str()).collect();
    assert_eq!(
        classes,
        [
            "Msvm_SnapshotCollection",
            "Msvm_VirtualSystemSettingData",
            "Msvm_VirtualSystemSettingData"
        ]
    );
    // As it is told, so it is read.
    let client = setup.client.at(VIRTUALIZATION);
    for change in &created {
        let path = change.instance.path.clone().unwrap();
        assert_eq!(client.get(&path).await.unwrap(), change.instance);
    }

    let parameters = [("AffectedSnapshotCollection", Value::from(snapshot.clone()))];
    let reply = setup
        .client
        .call(SNAPSHOTS, "DestroySnapshot", &parameters)
        .await;
    setup.client.ended(&reply.reference("Job").unwrap()).await;
    let mut told_now = told(&mut changes).await;
    told_now.retain(|change| change.kind == Deleted);
    let deleted = seen_in(&told_now, CLUSTER);
    assert_eq!(deleted.len(), 3);
    assert_eq!(deleted[2].instance.path, Some(snapshot));
}
