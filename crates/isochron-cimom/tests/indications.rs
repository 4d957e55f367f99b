//! What is told to whom: filters of both languages over changes of clients' own
//! instances and of the provider's, delivered to listeners on real sockets, in
//! order, over failures and a restart, and up to the limits.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod world;

use std::time::{Duration, Instant};

use futures::stream::StreamExt;
use isochron_cim::mof::{self, Declaration};
use isochron_cim::{CimServer, Instance, Name, ObjectPath, Status, Value};
use isochron_cimom::{Delivery, Limits};
use world::listener::{Answer, TestListener, sequence};
use world::{ADMINISTRATOR, Client, FAST, World};

const MOF: &str = r#"
Qualifier Key : boolean = false, Scope(property, reference), Flavor(DisableOverride);
class EX_Thing { [Key] string Id; uint32 Size; };
class EX_Box : EX_Thing { };
class EX_Other { [Key] string Id; };
"#;

const NEW: &str = "SELECT * FROM CIM_InstCreation WHERE SourceInstance ISA EX_Thing";

/// A world with a namespace `root/Mine` for [`MOF`].
struct Test {
    world: World,
    mine: Client,
    interop: Client,
}

impl Test {
    async fn new() -> Self {
        Self::with(Limits::default(), FAST).await
    }

    async fn with(limits: Limits, delivery: Delivery) -> Self {
        let world = World::delivering(limits, delivery).await;
        world.namespace("root/Mine").await;
        let mine = world.client("root/mine", ADMINISTRATOR);
        let mut qualifiers = Default::default();
        let found = mof::parse("test.mof", MOF, &mut qualifiers, &mut |_| None).unwrap();
        for decl in qualifiers.into_values() {
            mine.server.set_qualifier(&mine.cx, decl).await.unwrap();
        }
        for (_, declaration) in found {
            let Declaration::Class(class) = declaration else {
                panic!("{declaration:?}");
            };
            mine.server.create_class(&mine.cx, *class).await.unwrap();
        }
        let interop = world.client("interop", ADMINISTRATOR);
        Self {
            world,
            mine,
            interop,
        }
    }

    async fn restart(self) -> Self {
        let Self {
            mut world,
            mine,
            interop,
        } = self;
        drop((mine, interop));
        world.restart().await;
        let mine = world.client("root/mine", ADMINISTRATOR);
        let interop = world.client("interop", ADMINISTRATOR);
        Self {
            world,
            mine,
            interop,
        }
    }

    async fn filter(&self, namespace: &str, language: &str, query: &str) -> ObjectPath {
        let mut filter = Instance::new("CIM_IndicationFilter");
        filter
            .set("SourceNamespaces", vec![namespace])
            .set("QueryLanguage", language)
            .set("Query", query);
        self.interop.create(filter).await.unwrap()
    }

    async fn destination(&self, url: &str, persistence: u16) -> ObjectPath {
        let mut destination = Instance::new("CIM_ListenerDestinationCIMXML");
        destination
            .set("Destination", url)
            .set("PersistenceType", persistence);
        self.interop.create(destination).await.unwrap()
    }

    async fn subscribe(&self, filter: &ObjectPath, destination: &ObjectPath) -> ObjectPath {
        self.subscribe_with(filter, destination, &[]).await
    }

    async fn subscribe_with(
        &self,
        filter: &ObjectPath,
        destination: &ObjectPath,
        properties: &[(&'static str, Value)],
    ) -> ObjectPath {
        let mut subscription = Instance::new("CIM_IndicationSubscription");
        subscription
            .set("Filter", filter.clone())
            .set("Handler", destination.clone());
        for (name, value) in properties {
            subscription.set(*name, value.clone());
        }
        self.interop.create(subscription).await.unwrap()
    }

    /// A listener that is told of new things, and what was made for it.
    async fn listening(&self, persistence: u16) -> (TestListener, [ObjectPath; 3]) {
        let listener = TestListener::start().await;
        let filter = self.filter("root/Mine", "DMTF:CQL", NEW).await;
        let destination = self.destination(&listener.url, persistence).await;
        let subscription = self.subscribe(&filter, &destination).await;
        (listener, [filter, destination, subscription])
    }

    async fn thing(&self, class: &str, id: &str) -> ObjectPath {
        let mut thing = Instance::new(class);
        thing.set("Id", id).set("Size", 1_u32);
        self.mine.create(thing).await.unwrap()
    }

    async fn things(&self, ids: impl IntoIterator<Item = usize>) {
        for id in ids {
            self.thing("EX_Thing", &id.to_string()).await;
        }
    }

    async fn resize(&self, path: &ObjectPath, size: u32) {
        let mut changes = Instance::new(path.class.clone());
        changes.set("Size", size);
        self.mine.modify(path, changes).await.unwrap();
    }

    /// Waits until that is so of `interop`.
    async fn until(&self, what: &str, so: impl AsyncFn(&Client) -> bool) {
        let began = Instant::now();
        while !so(&self.interop).await {
            assert!(began.elapsed() < Duration::from_secs(60), "not so: {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

fn embedded<'a>(indication: &'a Instance, name: &str) -> &'a Instance {
    match indication.get(name) {
        Some(Value::Instance(instance)) => instance,
        other => panic!("{name}: {other:?}"),
    }
}

fn ids(indications: &[Instance]) -> Vec<String> {
    let id = |indication| {
        let thing: &Instance = embedded(indication, "SourceInstance");
        thing.get("Id").unwrap().as_str().unwrap().to_owned()
    };
    indications.iter().map(id).collect()
}

fn named(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|id| id.to_string()).collect()
}

#[tokio::test]
async fn both_languages_tell_of_what_their_filter_lets_through() {
    let test = Test::new().await;
    let listener = TestListener::start().await;
    let destination = test.destination(&listener.url, 2).await;
    let mut filters = Vec::new();
    for (language, query) in [
        (
            "DMTF:CQL",
            "SELECT * FROM CIM_InstIndication WHERE SourceInstance ISA EX_Box",
        ),
        (
            "WQL",
            "SELECT * FROM __InstanceModificationEvent WITHIN 60 WHERE TargetInstance ISA \
             'EX_Thing' AND TargetInstance.Size > 5 AND PreviousInstance.Size < 5",
        ),
        (
            "DMTF:CQL",
            "SELECT SourceInstance.Id FROM CIM_InstDeletion WHERE SourceInstance ISA EX_Other",
        ),
    ] {
        let filter = test.filter(r"root\MINE", language, query).await;
        test.subscribe(&filter, &destination).await;
        filters.push(filter);
    }
    // Nothing of another namespace.
    let other = test.filter("root/virtualization/v2", "DMTF:CQL", NEW).await;
    test.subscribe(&other, &destination).await;

    let thing = test.thing("EX_Thing", "thing").await;
    test.resize(&thing, 4).await;
    test.resize(&thing, 6).await;
    test.resize(&thing, 7).await;
    let mut gone = Instance::new("EX_Other");
    gone.set("Id", "gone");
    let gone = test.mine.create(gone).await.unwrap();
    test.mine.delete(&gone).await.unwrap();
    let boxed = test.thing("EX_Box", "box").await;
    test.resize(&boxed, 2).await;
    test.mine.delete(&boxed).await.unwrap();

    let told = listener.wait(5).await;
    let classes: Vec<&str> = told.iter().map(|told| told.class.as_str()).collect();
    let expected = [
        "__InstanceModificationEvent",
        "CIM_InstDeletion",
        "CIM_InstCreation",
        "CIM_InstModification",
        "CIM_InstDeletion",
    ];
    assert_eq!(classes, expected);
    let size = |told: &Instance, name: &str| {
        let size = embedded(told, name).get("Size");
        size.and_then(Value::as_integer)
    };
    assert_eq!(size(&told[0], "TargetInstance"), Some(6));
    assert_eq!(size(&told[0], "PreviousInstance"), Some(4));
    // What was not selected is not sent, but for the sequence.
    let sent: Vec<&str> = told[1].properties.keys().map(Name::as_str).collect();
    assert_eq!(
        sent,
        ["SourceInstance", "SequenceContext", "SequenceNumber"]
    );
    let sent = &embedded(&told[1], "SourceInstance").properties;
    assert_eq!(sent.len(), 1);
    assert_eq!(size(&told[3], "SourceInstance"), Some(2));
    assert_eq!(size(&told[3], "PreviousInstance"), Some(1));
    let path = told[2].get("SourceInstanceModelPath").unwrap();
    assert_eq!(path.as_str(), Some(r#"root/Mine:EX_Box.Id="box""#));
    assert_eq!(
        told[2].get("IndicationFilterName"),
        filters[0].key("Name"),
        "{told:?}"
    );
    let numbers: Vec<i128> = told.iter().map(|told| sequence(told).1).collect();
    assert_eq!(numbers, [0, 1, 2, 3, 4]);
}

#[tokio::test]
async fn who_reads_events_needs_no_filter() {
    let test = Test::new().await;
    let refused = |language: &'static str, query: &'static str| {
        let mine = &test.mine;
        async move { mine.server.events(&mine.cx, language, query).await.err() }
    };
    for (language, query, status) in [
        ("Esperanto", NEW, Status::QueryLanguageNotSupported),
        ("DMTF:CQL", "SELECT", Status::InvalidQuery),
    ] {
        assert_eq!(refused(language, query).await.unwrap().status, status);
    }
    let query = "SELECT * FROM __InstanceCreationEvent WHERE TargetInstance ISA 'EX_Box'";
    let mine = &test.mine;
    let mut events = mine.server.events(&mine.cx, "WQL", query).await.unwrap();
    test.thing("EX_Thing", "thing").await;
    test.thing("EX_Box", "box").await;
    let event = tokio::time::timeout(Duration::from_secs(30), events.next());
    let event = event.await.unwrap().unwrap();
    assert_eq!(event.class.as_str(), "__InstanceCreationEvent");
    let id = embedded(&event, "TargetInstance").get("Id");
    assert_eq!(id, Some(&Value::from("box")));
    let filters = test.interop.all("CIM_IndicationFilter").await.unwrap();
    assert!(filters.is_empty(), "{filters:?}");
}

#[tokio::test]
async fn what_the_provider_changes_is_told_in_each_of_its_namespaces() {
    let test = Test::new().await;
    let listener = TestListener::start().await;
    let destination = test.destination(&listener.url, 2).await;
    let query = "SELECT * FROM __InstanceOperationEvent WITHIN 1 WHERE TargetInstance ISA \
                 'CIM_CollectionOfMSEs'";
    for namespace in ["root/HyperVCluster/v2", "root/virtualization/v2"] {
        let filter = test.filter(namespace, "WQL", query).await;
        test.subscribe(&filter, &destination).await;
    }
    let engine = test.world.engine();
    let kind = isochron_engine::model::CollectionKind::Machines;
    let made = engine.create_collection("shop", None, kind).await.unwrap();
    engine.destroy_collection(made.id).await.unwrap();
    let told = listener.wait(4).await;
    let mut classes: Vec<&str> = told.iter().map(|told| told.class.as_str()).collect();
    classes.sort_unstable();
    let (new, gone) = ("__InstanceCreationEvent", "__InstanceDeletionEvent");
    assert_eq!(classes, [new, new, gone, gone]);
    for told in &told {
        let collection = embedded(told, "TargetInstance");
        assert!(collection.class.is("Msvm_VirtualSystemCollection"));
        assert_eq!(
            collection.get("ElementName").and_then(Value::as_str),
            Some("shop")
        );
    }
}

#[tokio::test]
async fn failures_are_retried_and_nothing_changes_its_place() {
    let test = Test::new().await;
    let (listener, _) = test.listening(2).await;
    // A full listener, a crash, a proxy's excuse, and one that is never wanted.
    listener.answers([
        Answer::Status(1),
        Answer::Taken,
        Answer::Close,
        Answer::Http(503),
        Answer::Taken,
        Answer::Http(400),
        Answer::Status(4),
    ]);
    test.things(0..20).await;
    let told = listener.wait(18).await;
    let mut expected = named(0..20);
    expected.drain(2..4);
    assert_eq!(ids(&told), expected);
    // The numbers of what was refused are missing, so that it can be seen.
    let numbers: Vec<i128> = told.iter().map(|told| sequence(told).1).collect();
    assert_eq!(
        numbers,
        [[0, 1].as_slice(), &Vec::from_iter(4..20)].concat()
    );
    let context = sequence(&told[0]).0;
    assert!(told.iter().all(|told| sequence(told).0 == context));
}

#[tokio::test]
async fn a_dead_and_a_silent_destination_hold_up_nobody() {
    let test = Test::new().await;
    let (listener, [filter, ..]) = test.listening(2).await;
    let silent = TestListener::start().await;
    silent.always(Answer::Never);
    let port = TestListener::start().await.stop().await;
    for url in [silent.url.clone(), format!("http://127.0.0.1:{port}")] {
        let destination = test.destination(&url, 2).await;
        test.subscribe(&filter, &destination).await;
    }
    // The silent one is being waited for.
    test.thing("EX_Thing", "first").await;
    silent.wait_messages(1).await;
    test.things(0..200).await;
    // Waiting for the silent one before each would take far longer than this waits.
    let told = listener.wait(201).await;
    assert_eq!(ids(&told)[1..], named(0..200));
    assert!(silent.taken().is_empty());

    // Both come to life, and get everything, in order.
    let revived = TestListener::at(port).await;
    silent.always(Answer::Taken);
    for late in [&revived, &silent] {
        assert_eq!(ids(&late.wait(201).await)[1..], named(0..200));
    }
    // The sequence of each is its own.
    assert_ne!(sequence(&revived.taken()[0]).0, sequence(&told[0]).0);
    assert_eq!(sequence(&revived.taken()[0]).1, 0);
}

#[tokio::test]
async fn an_indication_is_given_up_after_so_many_attempts() {
    let mut delivery = FAST;
    delivery.retries.attempts = 2;
    let test = Test::with(Limits::default(), delivery).await;
    let (listener, _) = test.listening(2).await;
    listener.answers([Answer::Status(1); 4]);
    test.things(0..3).await;
    let told = listener.wait(2).await;
    // Three attempts for the first, two for the second.
    assert_eq!(ids(&told), ["1", "2"]);
    assert_eq!(listener.messages(), 6);
    assert_eq!(sequence(&told[0]).1, 1);
}

#[tokio::test]
async fn a_full_queue_drops_the_oldest_and_the_gap_is_seen() {
    let limits = Limits {
        queue: 10,
        ..Limits::default()
    };
    let test = Test::with(limits, FAST).await;
    let (listener, _) = test.listening(2).await;
    listener.answers([Answer::Never]);
    test.things(0..1).await;
    // One is under way and does not wait any more.
    listener.wait_messages(1).await;
    test.things(1..41).await;
    let told = listener.wait(11).await;
    let mut expected = named(31..41);
    expected.insert(0, "0".into());
    assert_eq!(ids(&told), expected);
    let numbers: Vec<i128> = told.iter().map(|told| sequence(told).1).collect();
    assert_eq!(numbers, [[0].as_slice(), &Vec::from_iter(31..41)].concat());
}

#[tokio::test]
async fn subscriptions_go_on_after_a_restart_in_a_new_sequence() {
    let test = Test::new().await;
    let (listener, [filter, destination, subscription]) = test.listening(3).await;
    test.things(0..3).await;
    listener.wait(3).await;
    let test = test.restart().await;
    for path in [&filter, &destination, &subscription] {
        test.interop.get(path).await.unwrap();
    }
    test.things(3..5).await;
    let told = listener.wait(5).await;
    assert_eq!(ids(&told), named(0..5));
    let numbers: Vec<i128> = told.iter().map(|told| sequence(told).1).collect();
    assert_eq!(numbers, [0, 1, 2, 0, 1]);
    assert_ne!(sequence(&told[2]).0, sequence(&told[3]).0);
    // And it ends when it is deleted.
    test.interop.delete(&subscription).await.unwrap();
    test.things(5..8).await;
    let again = test.subscribe(&filter, &destination).await;
    test.things(8..9).await;
    assert_eq!(ids(&listener.wait(6).await)[5..], ["8"]);
    assert_eq!(again, subscription);
}

#[tokio::test]
async fn a_transient_destination_that_stays_dead_is_deleted_and_a_permanent_one_kept() {
    let delivery = Delivery {
        removal_interval: Duration::from_millis(200),
        ..FAST
    };
    let test = Test::with(Limits::default(), delivery).await;
    let (transient, lost) = test.listening(3).await;
    let (permanent, kept) = test.listening(2).await;
    let port = transient.stop().await;
    let other = permanent.stop().await;
    test.things(0..2).await;
    test.until("the transient destination is gone", async |interop| {
        interop.get(&lost[1]).await.is_err()
    })
    .await;
    assert!(test.interop.get(&lost[2]).await.is_err());
    // Filters are not a destination's.
    test.interop.get(&lost[0]).await.unwrap();
    for path in &kept {
        test.interop.get(path).await.unwrap();
    }
    let listener = TestListener::at(other).await;
    assert_eq!(ids(&listener.wait(2).await), named(0..2));
    // So it is after a restart.
    let test = test.restart().await;
    let listener = TestListener::at(port).await;
    test.things(2..3).await;
    assert!(test.interop.get(&lost[1]).await.is_err());
    assert_eq!(listener.messages(), 0);
}

#[tokio::test]
async fn a_subscription_says_what_becomes_of_it() {
    let test = Test::new().await;
    let filter = test.filter("root/Mine", "DMTF:CQL", NEW).await;
    let port = TestListener::start().await.stop().await;
    let dead = format!("http://127.0.0.1:{port}");
    let destination = test.destination(&dead, 2).await;
    let policy = |number: u16| {
        vec![
            ("OnFatalErrorPolicy", Value::Uint16(number)),
            ("FailureTriggerTimeInterval", Value::Uint64(0)),
        ]
    };
    let ignore = test.subscribe_with(&filter, &destination, &policy(2)).await;
    let other = test.filter("root/Mine", "DMTF:CQL", NEW).await;
    let disable = test.subscribe_with(&other, &destination, &policy(3)).await;
    let third = test.filter("root/Mine", "DMTF:CQL", NEW).await;
    let remove = test.subscribe_with(&third, &destination, &policy(4)).await;
    test.things(0..1).await;
    let state = async |path: &ObjectPath, interop: &Client| {
        let found = interop.get(path).await.ok()?;
        found.get("SubscriptionState")?.as_integer()
    };
    test.until("one is disabled, one is removed", async |interop| {
        state(&disable, interop).await == Some(4) && state(&remove, interop).await.is_none()
    })
    .await;
    assert_eq!(state(&ignore, &test.interop).await, Some(2));
    // What is disabled tells nothing until it is enabled.
    let listener = TestListener::at(port).await;
    let first = listener.wait(3).await;
    assert_eq!(ids(&first), ["0", "0", "0"]);
    test.things(1..2).await;
    listener.wait(4).await;
    let mut changes = Instance::new("CIM_IndicationSubscription");
    changes.set("SubscriptionState", 2_u16);
    test.interop.modify(&disable, changes).await.unwrap();
    test.things(2..3).await;
    let told = listener.wait(6).await;
    assert_eq!(ids(&told)[3..], ["1", "2", "2"]);
}

#[tokio::test]
async fn what_is_changed_holds_from_then_on() {
    let test = Test::new().await;
    let (listener, [filter, destination, _]) = test.listening(2).await;
    test.things(0..1).await;
    listener.wait(1).await;
    let mut changes = Instance::new("CIM_IndicationFilter");
    changes.set(
        "Query",
        "SELECT * FROM CIM_InstCreation WHERE SourceInstance.Id = '2'",
    );
    test.interop.modify(&filter, changes).await.unwrap();
    test.things(1..4).await;
    assert_eq!(ids(&listener.wait(2).await), ["0", "2"]);
    let elsewhere = TestListener::start().await;
    let mut changes = Instance::new("CIM_ListenerDestinationCIMXML");
    changes.set("Destination", &*elsewhere.url);
    test.interop.modify(&destination, changes).await.unwrap();
    let mut changes = Instance::new("CIM_IndicationFilter");
    changes.set("Query", NEW);
    test.interop.modify(&filter, changes).await.unwrap();
    test.things(4..5).await;
    let told = elsewhere.wait(1).await;
    assert_eq!(ids(&told), ["4"]);
    assert_ne!(sequence(&told[0]).0, sequence(&listener.taken()[0]).0);
    assert_eq!(listener.taken().len(), 2);
}
