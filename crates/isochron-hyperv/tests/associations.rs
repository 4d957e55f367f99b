//! Associations, walked as a client walks them. All links that are enumerated are the
//! oracle: from every object, with and without every filter, exactly what they say is
//! found. Then the ways that matter: from the host over services, collections and
//! machines to snapshots and back, and snapshots of collections of collections.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, dead_code)]

mod world;

use std::collections::{BTreeSet, HashMap};

use futures::TryStreamExt;
use isochron_cim::{AssociationFilter, CimServer, ClassQuery, Instance, Name, ObjectPath, Value};
use world::{CLUSTER, Client, INTEROP, SNAPSHOTS, Setup, VIRTUALIZATION, machine_path, number};

const MANAGEMENT: &str = "Msvm_CollectionManagementService";
const MACHINE_SNAPSHOTS: &str = "Msvm_VirtualSystemSnapshotService";
const POINTS: &str = "Msvm_CollectionReferencePointService";
const MACHINE_POINTS: &str = "Msvm_VirtualSystemReferencePointService";

/// A collection of collections.
async fn collections(client: &Client, name: &str, members: &[&ObjectPath]) -> ObjectPath {
    let parameters = [("Name", name.into()), ("Type", Value::Uint16(1))];
    let reply = client
        .call(MANAGEMENT, "DefineCollection", &parameters)
        .await;
    let collection = reply.reference("DefinedCollection").unwrap();
    for member in members {
        add(client, &collection, member).await;
    }
    collection
}

async fn add(client: &Client, collection: &ObjectPath, member: &ObjectPath) {
    let parameters = [
        ("Member", member.clone().into()),
        ("Collection", collection.clone().into()),
    ];
    let reply = client.call(MANAGEMENT, "AddMember", &parameters).await;
    assert_eq!(reply.code, 0, "{member} into {collection}");
}

/// Calls a method that has a job, and waits for it to succeed.
async fn done(client: &Client, service: &str, method: &str, parameters: &[(&str, Value)]) {
    let reply = client.call(service, method, parameters).await;
    assert_eq!(reply.code, 4096, "{method}");
    let job = client.ended(&reply.reference("Job").unwrap()).await;
    assert_eq!(number(&job, "JobState"), 7, "{method}: {job:?}");
}

struct Nested {
    setup: Setup,
    /// web and db.
    shop: ObjectPath,
    /// db and mail.
    office: ObjectPath,
    /// shop and office.
    both: ObjectPath,
    /// both, and nothing else.
    top: ObjectPath,
}

impl Nested {
    async fn new() -> Self {
        let setup = Setup::new().await;
        let client = &setup.client;
        let shop = setup.collection("shop", &["web", "db"]).await;
        let office = setup.collection("office", &["mail"]).await;
        let members = client
            .associators(&shop, Some("Msvm_CollectedVirtualSystems"), None)
            .await;
        let db = members
            .iter()
            .find(|m| world::text(m, "ElementName") == "db");
        let db = db.unwrap().path.clone().unwrap();
        add(client, &office, &db).await;
        let both = collections(client, "both", &[&shop, &office]).await;
        let top = collections(client, "top", &[&both]).await;
        Self {
            setup,
            shop,
            office,
            both,
            top,
        }
    }

    /// The machines by name.
    async fn machines(&self) -> HashMap<String, ObjectPath> {
        let all = self.setup.client.all("Msvm_ComputerSystem").await;
        all.iter()
            .map(|m| (world::text(m, "ElementName"), m.path.clone().unwrap()))
            .collect()
    }
}

/// A world in which every association has links, and some objects several of one kind.
async fn populated() -> Nested {
    let nested = Nested::new().await;
    let (setup, client) = (&nested.setup, &nested.setup.client);
    setup.machine("idle").await;
    let first = setup.snapshot(&nested.shop, 1).await;
    setup.snapshot(&nested.shop, 2).await;
    setup.snapshot(&nested.top, 1).await;
    let apply = [("SnapshotCollection", first.into())];
    done(client, SNAPSHOTS, "ApplySnapshot", &apply).await;
    setup.snapshot(&nested.office, 2).await;
    let web = nested.machines().await["web"].clone();
    let single = [
        ("AffectedSystem", web.clone().into()),
        ("SnapshotType", Value::Uint16(2)),
    ];
    done(client, MACHINE_SNAPSHOTS, "CreateSnapshot", &single).await;
    for (of, service, tracked) in [
        (("Collection", nested.shop.clone()), POINTS, 2),
        (("Collection", nested.office.clone()), POINTS, 2),
        (("AffectedSystem", web), MACHINE_POINTS, 1),
    ] {
        let parameters = [
            (of.0, of.1.into()),
            ("ReferencePointType", Value::Uint16(tracked)),
        ];
        done(client, service, "CreateReferencePoint", &parameters).await;
    }
    nested
}

/// A link with its two ends: role and path each.
struct Link {
    class: Name,
    path: ObjectPath,
    ends: [(Name, ObjectPath); 2],
}

/// A namespace as an oracle sees it: all links, and which class derives from which.
struct Oracle {
    client: Client,
    links: Vec<Link>,
    above: HashMap<Name, Name>,
}

impl Oracle {
    async fn new(setup: &Setup, namespace: &str) -> Self {
        let client = setup.client.at(namespace);
        let query = ClassQuery {
            below: None,
            deep: true,
        };
        let classes = client.server.enumerate_classes(&client.cx, &query).await;
        let (mut links, mut above) = (Vec::new(), HashMap::new());
        for class in classes.unwrap() {
            if class.is_association() {
                let all = client.all(class.name.as_str()).await;
                let own = all.into_iter().filter(|link| link.class == class.name);
                links.extend(own.map(|link| Link {
                    ends: ends(&link),
                    class: link.class,
                    path: link.path.unwrap(),
                }));
            }
            above.extend(class.superclass.map(|above| (class.name, above)));
        }
        Self {
            client,
            links,
            above,
        }
    }

    fn is_a(&self, class: &Name, wanted: Option<&Name>) -> bool {
        let mut next = Some(class);
        while let Some(class) = next {
            if wanted.is_none_or(|wanted| class == wanted) {
                return true;
            }
            next = self.above.get(class);
        }
        false
    }

    /// What the links say that the filter leaves: paths of links, and of far ends.
    fn expected(
        &self,
        source: &ObjectPath,
        filter: &AssociationFilter,
    ) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut references, mut associators) = (BTreeSet::new(), BTreeSet::new());
        let is = |wanted: &Option<Name>, role: &Name| wanted.as_ref().is_none_or(|w| w == role);
        for link in &self.links {
            if !self.is_a(&link.class, filter.association.as_ref()) {
                continue;
            }
            for near in [0, 1] {
                let ((role, end), (far_role, far)) = (&link.ends[near], &link.ends[1 - near]);
                if end == source && is(&filter.role, role) {
                    references.insert(link.path.to_string());
                    if is(&filter.result_role, far_role)
                        && self.is_a(&far.class, filter.result_class.as_ref())
                    {
                        associators.insert(far.to_string());
                    }
                }
            }
        }
        (references, associators)
    }

    /// Asks both operations and compares.
    async fn ask(&self, source: &ObjectPath, filter: &AssociationFilter) {
        let (server, cx) = (&self.client.server, &self.client.cx);
        let (references, associators) = self.expected(source, filter);
        let found = server.associators(cx, source, filter).await.unwrap();
        let found: Vec<Instance> = found.try_collect().await.unwrap();
        assert_eq!(each_once(&found), associators, "{source} {filter:?}");
        if filter.result_role.is_none() && filter.result_class.is_none() {
            let found = server.references(cx, source, filter).await.unwrap();
            let found: Vec<Instance> = found.try_collect().await.unwrap();
            assert_eq!(each_once(&found), references, "{source} {filter:?}");
        }
    }
}

fn ends(link: &Instance) -> [(Name, ObjectPath); 2] {
    let ends = link.properties.iter().filter_map(|(name, property)| {
        let path = property.value.value.as_ref()?.as_reference()?;
        Some((name.clone(), path.clone()))
    });
    ends.collect::<Vec<_>>().try_into().unwrap()
}

/// The paths, of which none may come twice.
fn each_once(instances: &[Instance]) -> BTreeSet<String> {
    let paths: BTreeSet<_> = instances
        .iter()
        .map(|i| i.path.as_ref().unwrap().to_string())
        .collect();
    assert_eq!(paths.len(), instances.len(), "something comes twice");
    paths
}

#[tokio::test(start_paused = true)]
async fn from_each_end_exactly_the_others_are_found() {
    let nested = populated().await;
    for namespace in [CLUSTER, INTEROP] {
        let oracle = Oracle::new(&nested.setup, namespace).await;
        let objects: BTreeSet<String> = oracle
            .links
            .iter()
            .flat_map(|link| link.ends.iter().map(|(_, path)| path.to_string()))
            .collect();
        assert!(objects.len() > 4 && oracle.links.len() >= objects.len() - 1);
        for source in objects {
            let source: ObjectPath = source.parse().unwrap();
            // Every association class and those above, and one that leads nowhere.
            let mut associations: BTreeSet<Option<Name>> =
                oracle.links.iter().map(|l| Some(l.class.clone())).collect();
            let above: Vec<_> = associations
                .iter()
                .flatten()
                .filter_map(|class| oracle.above.get(class).cloned())
                .collect();
            associations.extend(above.into_iter().map(Some));
            associations.insert(None);
            for association in associations {
                oracle
                    .ask(
                        &source,
                        &AssociationFilter {
                            association,
                            ..AssociationFilter::default()
                        },
                    )
                    .await;
            }
            // Every way that leads on, by each of its names and by all of them.
            let mut asked = BTreeSet::new();
            for link in &oracle.links {
                for near in [0, 1] {
                    let ((role, end), (far_role, far)) = (&link.ends[near], &link.ends[1 - near]);
                    let way = (link.class.clone(), role.clone(), far.class.clone());
                    if *end != source || !asked.insert(way) {
                        continue;
                    }
                    for (association, role, result_role) in [
                        (None, Some(role), None),
                        (None, None, Some(far_role)),
                        (Some(&link.class), Some(far_role), None),
                        (Some(&link.class), Some(role), Some(far_role)),
                        (Some(&link.class), Some(role), Some(&Name::fixed("Nobody"))),
                        (None, Some(&Name::fixed("Nobody")), None),
                    ] {
                        for class in [
                            None,
                            Some(&far.class),
                            oracle.above.get(&far.class),
                            Some(&source.class),
                        ] {
                            let filter = AssociationFilter {
                                association: association.cloned(),
                                result_class: class.cloned(),
                                role: role.cloned(),
                                result_role: result_role.cloned(),
                            };
                            oracle.ask(&source, &filter).await;
                        }
                    }
                }
            }
        }
    }
}

/// Every association class that is served links something in this world: what is not
/// is named, with why.
#[tokio::test(start_paused = true)]
async fn every_association_that_is_served_has_links() {
    let nested = populated().await;
    let oracle = Oracle::new(&nested.setup, CLUSTER).await;
    let linked: BTreeSet<&str> = oracle.links.iter().map(|l| l.class.as_str()).collect();
    let query = ClassQuery {
        below: None,
        deep: true,
    };
    let (server, cx) = (&oracle.client.server, &oracle.client.cx);
    let classes = server.enumerate_classes(cx, &query).await.unwrap();
    let without: BTreeSet<&str> = classes
        .iter()
        .filter(|class| class.is_association() && class.name.as_str().starts_with("Msvm_"))
        .map(|class| class.name.as_str())
        .filter(|name| !linked.contains(name))
        .collect();
    let expected = [
        // No profile of virtual systems is claimed.
        "Msvm_ElementConformsToProfile",
        // A job's only associator is what it affects.
        "Msvm_OwningJobElement",
    ];
    assert_eq!(without, expected.into());
}

/// The paths of the instances of a class that are associated with an object.
async fn step(client: &Client, from: &ObjectPath, class: &str) -> Vec<ObjectPath> {
    let found = client.associators(from, None, Some(class)).await;
    found.into_iter().map(|i| i.path.unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn one_walks_from_the_host_to_the_snapshots_and_back() {
    let nested = populated().await;
    for namespace in [VIRTUALIZATION, CLUSTER] {
        walk(&nested, &nested.setup.client.at(namespace)).await;
    }
}

async fn walk(nested: &Nested, client: &Client) {
    // Paths as this namespace gives them.
    let here = |path: &ObjectPath| path.relative().in_namespace(&client.cx.namespace);
    let (shop, office) = (here(&nested.shop), here(&nested.office));
    let host = client.all("Msvm_ComputerSystem").await;
    let host = host.iter().find(|s| world::text(s, "Name") == world::HOST);
    let host = host.unwrap().path.clone().unwrap();
    for service in [SNAPSHOTS, MANAGEMENT, POINTS] {
        let services = step(client, &host, service).await;
        let [service] = &services[..] else {
            panic!("{service}: {services:?}")
        };
        let collections = step(client, service, "Msvm_VirtualSystemCollection").await;
        assert!(collections.contains(&shop) && collections.contains(&office));
        assert!(step(client, &shop, "CIM_Service").await.contains(service));
        assert_eq!(
            step(client, service, "Msvm_ComputerSystem").await,
            std::slice::from_ref(&host)
        );
    }
    let members = step(client, &shop, "Msvm_ComputerSystem").await;
    assert_eq!(members.len(), 2);
    let machines = nested.machines().await;
    let web = &here(&machines["web"]);
    assert!(members.contains(web));
    // web: two of shop, one of top, one of its own; beside its settings in force.
    let snapshots = client
        .associators(web, Some("Msvm_SnapshotOfVirtualSystem"), None)
        .await;
    assert_eq!(snapshots.len(), 4);
    let mut of_shop = 0;
    for snapshot in &snapshots {
        let path = snapshot.path.as_ref().unwrap();
        assert_eq!(
            step(client, path, "Msvm_ComputerSystem").await,
            std::slice::from_ref(web)
        );
        let wholes = step(client, path, "Msvm_SnapshotCollection").await;
        for whole in &wholes {
            let taken_of = step(client, whole, "CIM_CollectionOfMSEs").await;
            assert_eq!(taken_of.len(), 1);
            of_shop += usize::from(taken_of[0] == shop);
            let parts = step(client, whole, "Msvm_VirtualSystemSettingData").await;
            assert!(parts.contains(path));
        }
        // Only the machine's own has no whole; it has its service.
        let services = step(client, path, MACHINE_SNAPSHOTS).await;
        assert_eq!(wholes.is_empty(), services.len() == 1);
    }
    assert_eq!(of_shop, 2);
    let back = step(client, &shop, "Msvm_SnapshotCollection").await;
    assert_eq!(back.len(), 2);
    // And from the machine to the host at once, and to what manages it.
    assert_eq!(step(client, web, "Msvm_ComputerSystem").await, [host]);
    assert_eq!(step(client, web, MACHINE_SNAPSHOTS).await.len(), 1);
    assert_eq!(
        step(client, web, "Msvm_VirtualSystemManagementService")
            .await
            .len(),
        1
    );
}

#[tokio::test(start_paused = true)]
async fn a_collection_of_collections_is_cut_once_with_each_machine_once() {
    let nested = Nested::new().await;
    let (setup, client) = (&nested.setup, &nested.setup.client);
    let machines = nested.machines().await;
    for kind in [1, 2] {
        let whole = setup.snapshot(&nested.top, kind).await;
        // db is in both collections, and once in the snapshot.
        let parts = step(client, &whole, "Msvm_VirtualSystemSettingData").await;
        let mut of = BTreeSet::new();
        for part in &parts {
            let machine = step(client, part, "Msvm_ComputerSystem").await;
            of.extend(machine.iter().map(ToString::to_string));
        }
        let all = ["web", "db", "mail"].map(|name| machines[name].to_string());
        assert_eq!((parts.len(), of), (3, all.into()));
        // The report is of one cut: all stood at the same time.
        let shown = client.get(&whole).await.unwrap();
        let report = world::text(&shown, "Description");
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        let cut = report["cut"]["members"].as_array().unwrap();
        assert_eq!(cut.len(), 3, "{report}");
        // It is a snapshot of the collection that was asked for, not of those below.
        assert_eq!(
            step(client, &whole, "CIM_CollectionOfMSEs").await,
            std::slice::from_ref(&nested.top)
        );
        for below in [&nested.both, &nested.shop] {
            assert!(
                step(client, below, "Msvm_SnapshotCollection")
                    .await
                    .is_empty()
            );
        }
        let apply = [("SnapshotCollection", whole.clone().into())];
        done(client, SNAPSHOTS, "ApplySnapshot", &apply).await;
        for machine in ["web", "db", "mail"] {
            let path = &machines[machine];
            let applied = client
                .associators(path, Some("Msvm_LastAppliedSnapshot"), None)
                .await;
            assert_eq!(applied.len(), 1, "{machine}");
            assert!(parts.contains(applied[0].path.as_ref().unwrap()));
        }
        let destroy = [("AffectedSnapshotCollection", whole.clone().into())];
        done(client, SNAPSHOTS, "DestroySnapshot", &destroy).await;
        assert!(
            step(client, &nested.top, "Msvm_SnapshotCollection")
                .await
                .is_empty()
        );
    }
    // What holds itself would have no end.
    let parameters = [
        ("Member", nested.top.clone().into()),
        ("Collection", nested.both.clone().into()),
    ];
    let reply = client.call(MANAGEMENT, "AddMember", &parameters).await;
    assert_ne!(reply.code, 0);
    let machine = machine_path(setup.machine("late").await);
    let parameters = [
        ("Member", machine.into()),
        ("Collection", nested.top.clone().into()),
    ];
    let reply = client.call(MANAGEMENT, "AddMember", &parameters).await;
    assert_eq!(reply.code, 32776);
}
