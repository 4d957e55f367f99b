//! Filters, destinations and subscriptions as clients write and read them: keys
//! that are filled in, what is refused and how, who may, what is associated, limits.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod world;

use isochron_cim::{AssociationFilter, Instance, Name, ObjectPath, Status, Value};
use isochron_cimom::Limits;
use world::{ADMINISTRATOR, Client, READER, World};

const FILTER: &str = "CIM_IndicationFilter";
const DESTINATION: &str = "CIM_ListenerDestinationCIMXML";
const SUBSCRIPTION: &str = "CIM_IndicationSubscription";

fn filter(query: &str) -> Instance {
    let mut filter = Instance::new(FILTER);
    filter
        .set("SourceNamespaces", vec!["root/virtualization/v2"])
        .set("QueryLanguage", "DMTF:CQL")
        .set("Query", query);
    filter
}

fn destination(url: &str) -> Instance {
    let mut destination = Instance::new(DESTINATION);
    destination.set("Destination", url);
    destination
}

fn subscription(filter: &ObjectPath, destination: &ObjectPath) -> Instance {
    let mut subscription = Instance::new(SUBSCRIPTION);
    subscription
        .set("Filter", filter.clone())
        .set("Handler", destination.clone());
    subscription
}

const QUERY: &str = "SELECT * FROM CIM_InstCreation";
const URL: &str = "http://127.0.0.1:9";

/// One of each.
async fn three(interop: &Client) -> [ObjectPath; 3] {
    let filter = interop.create(filter(QUERY)).await.unwrap();
    let destination = interop.create(destination(URL)).await.unwrap();
    let subscription = interop.create(subscription(&filter, &destination));
    let subscription = subscription.await.unwrap();
    [filter, destination, subscription]
}

fn number(instance: &Instance, name: &str) -> Option<i128> {
    instance.get(name).and_then(Value::as_integer)
}

#[tokio::test]
async fn what_a_client_leaves_out_is_filled_in() {
    let world = World::new().await;
    let interop = world.client("interop", ADMINISTRATOR);
    let [filter, destination, subscription] = three(&interop).await;
    for path in [&filter, &destination] {
        assert_eq!(path.key_str("SystemName"), Some("host.example"));
        assert_eq!(
            path.key_str("SystemCreationClassName"),
            Some("Msvm_ComputerSystem")
        );
        assert_eq!(path.key_str("CreationClassName"), Some(path.class.as_str()));
        assert!(path.key_str("Name").unwrap().starts_with("Isochron:"));
        assert_eq!(path.namespace.as_deref(), Some("interop"));
    }
    let found = interop.get(&destination).await.unwrap();
    assert_eq!(number(&found, "PersistenceType"), Some(2));
    assert_eq!(number(&found, "Protocol"), Some(2));
    let found = interop.get(&subscription).await.unwrap();
    for name in [
        "OnFatalErrorPolicy",
        "RepeatNotificationPolicy",
        "SubscriptionState",
    ] {
        assert_eq!(number(&found, name), Some(2), "{name}");
    }
    assert!(found.get("SubscriptionStartTime").is_some());
    // As WBEMSubscriptionManager of pywbem gives them: its own system and names.
    let mut named = self::destination(URL);
    named
        .set("SystemCreationClassName", "CIM_ComputerSystem")
        .set("SystemName", "elsewhere")
        .set("CreationClassName", DESTINATION)
        .set("Name", "pywbemdestination:me:1")
        .set("PersistenceType", 3_u16);
    let path = interop.create(named.clone()).await.unwrap();
    assert_eq!(path.key_str("Name"), Some("pywbemdestination:me:1"));
    assert_eq!(path.key_str("SystemName"), Some("elsewhere"));
    let again = interop.create(named);
    assert_eq!(interop.error(again).await, Status::AlreadyExists);
    assert_eq!(
        interop.all("CIM_ListenerDestination").await.unwrap().len(),
        2
    );
    assert_eq!(interop.all(FILTER).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_its_own_status() {
    let world = World::new().await;
    let interop = world.client("root/interop", ADMINISTRATOR);
    let with = |mut instance: Instance, name: &'static str, value: Value| {
        instance.set(name, value);
        instance
    };
    let text = |text: &str| Value::String(text.to_owned());
    let query = || filter(QUERY);
    let mut none = query();
    none.properties.shift_remove(&Name::fixed("Query"));
    let [good, to, _] = three(&interop).await;
    let mut dangling = good.clone();
    dangling.keys.insert("Name".into(), text("nobody"));
    let mut half = Instance::new(SUBSCRIPTION);
    half.set("Filter", good.clone());
    let fresh = interop.create(query()).await.unwrap();
    let new = || subscription(&fresh, &to);
    for (what, instance, status) in [
        ("no query", none, Status::InvalidParameter),
        (
            "no language",
            with(query(), "QueryLanguage", text("SQL")),
            Status::QueryLanguageNotSupported,
        ),
        (
            "a filter's language",
            with(query(), "QueryLanguage", text("DMTF:FQL")),
            Status::QueryLanguageNotSupported,
        ),
        ("no grammar", filter("SELECT FROM"), Status::InvalidQuery),
        (
            "no indication",
            filter("SELECT * FROM Msvm_ConcreteJob"),
            Status::InvalidQuery,
        ),
        (
            "no class",
            filter("SELECT * FROM EX_Nothing"),
            Status::InvalidQuery,
        ),
        (
            "no property",
            filter("SELECT Nothing FROM CIM_InstCreation"),
            Status::InvalidQuery,
        ),
        (
            "no namespace",
            with(query(), "SourceNamespaces", vec!["root/nowhere"].into()),
            Status::InvalidParameter,
        ),
        (
            "another class",
            with(query(), "CreationClassName", text("CIM_Other")),
            Status::InvalidParameter,
        ),
        (
            "no such property",
            with(query(), "Nothing", text("")),
            Status::NoSuchProperty,
        ),
        (
            "no URL",
            Instance::new(DESTINATION),
            Status::InvalidParameter,
        ),
        (
            "a bad URL",
            destination("127.0.0.1"),
            Status::InvalidParameter,
        ),
        (
            "another host",
            destination("http://192.0.2.1:1"),
            Status::InvalidParameter,
        ),
        (
            "a bad kind",
            with(destination(URL), "PersistenceType", Value::Uint16(4)),
            Status::InvalidParameter,
        ),
        (
            "another protocol",
            with(destination(URL), "Protocol", Value::Uint16(3)),
            Status::NotSupported,
        ),
        ("no handler", half, Status::InvalidParameter),
        (
            "a dangling filter",
            subscription(&dangling, &to),
            Status::InvalidParameter,
        ),
        (
            "two filters",
            subscription(&good, &good),
            Status::InvalidParameter,
        ),
        (
            "the same again",
            subscription(&good, &to),
            Status::AlreadyExists,
        ),
        (
            "an end",
            with(new(), "SubscriptionDuration", Value::Uint64(60)),
            Status::NotSupported,
        ),
        (
            "a suppression",
            with(new(), "RepeatNotificationPolicy", Value::Uint16(3)),
            Status::NotSupported,
        ),
        (
            "a policy",
            with(new(), "OnFatalErrorPolicy", Value::Uint16(1)),
            Status::NotSupported,
        ),
        (
            "an abstract class",
            Instance::new("CIM_Indication"),
            Status::NotSupported,
        ),
    ] {
        let refused = interop.create(instance).await;
        assert_eq!(refused.unwrap_err().status, status, "{what}");
    }
    assert_eq!(interop.all(FILTER).await.unwrap().len(), 2);
    assert_eq!(interop.all(SUBSCRIPTION).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_is_subscribed_to_stays_and_what_is_ours_is_not_changed() {
    let world = World::new().await;
    let interop = world.client("interop", ADMINISTRATOR);
    let [filter, destination, subscription] = three(&interop).await;
    for path in [&filter, &destination] {
        assert_eq!(interop.error(interop.delete(path)).await, Status::Failed);
    }
    let change = |class: &str, name: &'static str, value: Value| {
        let mut changes = Instance::new(class);
        changes.set(name, value);
        changes
    };
    let text = |text: &str| Value::String(text.to_owned());
    for (path, name, value, status) in [
        (&filter, "Name", text("other"), Status::NotSupported),
        (&filter, "Query", text("SELECT"), Status::InvalidQuery),
        (
            &filter,
            "IndividualSubscriptionSupported",
            Value::Boolean(false),
            Status::NotSupported,
        ),
        (
            &destination,
            "Destination",
            text("nowhere"),
            Status::InvalidParameter,
        ),
        (
            &destination,
            "Protocol",
            Value::Uint16(3),
            Status::NotSupported,
        ),
        (
            &subscription,
            "SubscriptionState",
            Value::Uint16(3),
            Status::NotSupported,
        ),
        (
            &subscription,
            "SubscriptionDuration",
            Value::Uint64(3),
            Status::NotSupported,
        ),
        (
            &subscription,
            "Nothing",
            Value::Uint64(3),
            Status::NoSuchProperty,
        ),
    ] {
        let before = interop.get(path).await.unwrap();
        let changes = change(path.class.as_str(), name, value);
        let refused = interop.modify(path, changes).await.unwrap_err();
        assert_eq!(refused.status, status, "{name}");
        assert_eq!(interop.get(path).await.unwrap(), before);
    }
    // All of an instance as it was read may be sent back, with one change.
    let mut whole = interop.get(&subscription).await.unwrap();
    whole.set("OnFatalErrorPolicy", 4_u16);
    interop.modify(&subscription, whole).await.unwrap();
    let found = interop.get(&subscription).await.unwrap();
    assert_eq!(number(&found, "OnFatalErrorPolicy"), Some(4));

    // A path is found however its references are written.
    let mut spelt = subscription.clone();
    for value in spelt.keys.values_mut() {
        let mut reference = value.as_reference().unwrap().clone();
        reference.namespace = None;
        reference.host = Some("other:5988".into());
        *value = reference.into();
    }
    interop.get(&spelt).await.unwrap();
    interop.delete(&spelt).await.unwrap();
    assert_eq!(
        interop.error(interop.get(&subscription)).await,
        Status::NotFound
    );
    assert_eq!(
        interop.error(interop.delete(&subscription)).await,
        Status::NotFound
    );
    interop.delete(&filter).await.unwrap();
    interop.delete(&destination).await.unwrap();
}

#[tokio::test]
async fn readers_look_and_administrators_write() {
    let world = World::new().await;
    let interop = world.client("interop", ADMINISTRATOR);
    let reader = world.client("interop", READER);
    let [filter, destination, subscription] = three(&interop).await;
    for path in [&filter, &destination, &subscription] {
        reader.get(path).await.unwrap();
        let denied = reader.modify(path, Instance::new(path.class.clone()));
        assert_eq!(reader.error(denied).await, Status::AccessDenied);
        assert_eq!(
            reader.error(reader.delete(path)).await,
            Status::AccessDenied
        );
        let copy = reader.get(path).await.unwrap();
        assert_eq!(
            reader.error(reader.create(copy)).await,
            Status::AccessDenied
        );
    }
}

#[tokio::test]
async fn the_service_leads_to_everything() {
    let mut world = World::new().await;
    let interop = world.client("interop", ADMINISTRATOR);
    let [filter, destination, subscription] = three(&interop).await;
    drop(interop);
    world.restart().await;
    let interop = world.client("interop", READER);
    let service = interop.all("CIM_IndicationService").await.unwrap();
    let [service] = &service[..] else {
        panic!("{service:?}");
    };
    let service = service.path.clone().unwrap();
    let through = |class: &'static str| AssociationFilter {
        association: Some(Name::fixed(class)),
        ..AssociationFilter::default()
    };
    let paths = async |source: &ObjectPath, class: &'static str| -> Vec<ObjectPath> {
        let found = interop.associators(source, &through(class)).await.unwrap();
        found.into_iter().filter_map(|found| found.path).collect()
    };
    let affected = paths(&service, "CIM_ServiceAffectsElement").await;
    assert_eq!(affected, [filter.clone(), destination.clone()]);
    for (from, class, to) in [
        (&filter, "CIM_ServiceAffectsElement", &service),
        (&filter, SUBSCRIPTION, &destination),
        (&destination, SUBSCRIPTION, &filter),
    ] {
        assert_eq!(
            paths(from, class).await,
            std::slice::from_ref(to),
            "{class}"
        );
    }
    let links = interop.references(&filter, &through(SUBSCRIPTION)).await;
    assert_eq!(links.unwrap()[0].path, Some(subscription));
    let [capabilities] = &paths(&service, "CIM_ElementCapabilities").await[..] else {
        panic!("no capabilities");
    };
    let capabilities = interop.get(capabilities).await.unwrap();
    let limits = Limits::default();
    assert_eq!(
        number(&capabilities, "MaxActiveSubscriptions"),
        Some(limits.subscriptions as i128)
    );
    let mut versions = Vec::new();
    for profile in paths(&service, "CIM_ElementConformsToProfile").await {
        let profile = interop.get(&profile).await.unwrap();
        let text = |name| profile.get(name).and_then(Value::as_str).unwrap();
        assert_eq!(text("RegisteredName"), "Indications");
        versions.push(text("RegisteredVersion").to_owned());
    }
    assert_eq!(versions, ["1.2.2", "1.1.0"]);
    let [host] = &paths(&service, "CIM_HostedService").await[..] else {
        panic!("no host");
    };
    assert_eq!(host.key_str("Name"), Some("host.example"));
    // Nobody else's word on the service counts.
    let admin = world.client("interop", ADMINISTRATOR);
    let mut changes = Instance::new("CIM_IndicationService");
    changes.set("DeliveryRetryAttempts", 1_u16);
    let changed = admin.modify(&service, changes);
    assert_eq!(admin.error(changed).await, Status::NotSupported);
    assert_eq!(
        admin.error(admin.delete(&service)).await,
        Status::NotSupported
    );
}

#[tokio::test]
async fn there_is_a_most_of_everything() {
    let world = World::with(Limits {
        filters: 2,
        destinations: 2,
        subscriptions: 1,
        ..Limits::default()
    })
    .await;
    let interop = world.client("interop", ADMINISTRATOR);
    let [first, ..] = three(&interop).await;
    let second = interop.create(filter(QUERY)).await.unwrap();
    let other = interop.create(destination(URL)).await.unwrap();
    for instance in [
        filter(QUERY),
        destination(URL),
        subscription(&first, &other),
    ] {
        let full = interop.create(instance);
        assert_eq!(interop.error(full).await, Status::ServerLimitsExceeded);
    }
    interop.delete(&second).await.unwrap();
    interop.create(filter(QUERY)).await.unwrap();
}
