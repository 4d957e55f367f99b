//! What clients keep: namespaces, and the classes, qualifier types and instances in
//! them, beside the provider's own, over a restart and up to the limits. The
//! provider is the one over the engine, on the simulator.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod world;

use isochron_cim::{
    AssociationFilter, CimServer, ClassQuery, Instance, Name, ObjectPath, Repository, Status, Value,
};
use isochron_cimom::Limits;
use world::{ADMINISTRATOR, Client, READER, World};

const MOF: &str = r#"
Qualifier Abstract : boolean = false, Scope(class), Flavor(Restricted);
Qualifier Association : boolean = false, Scope(association), Flavor(DisableOverride);
Qualifier Description : string, Scope(any), Flavor(Translatable);
Qualifier Key : boolean = false, Scope(property, reference), Flavor(DisableOverride);
Qualifier Override : string, Scope(property), Flavor(Restricted);
[Abstract] class EX_Element { string Caption; };
[Description("A thing \"so\"\n")] class EX_Thing : EX_Element {
    [Key] string Id;
    uint8 Size = 7;
    real64 Weights[] = { 1.5, -2.0e300 };
    datetime Made;
    EX_Thing REF Above;
    uint32 Turn([Description("d")] sint8 Steps);
};
class EX_Box : EX_Thing { [Override("Size")] uint8 Size = 9; };
[Association] class EX_Holds { [Key] EX_Box REF Box; [Key] EX_Thing REF Thing; };
"#;

/// Writes the classes of [`MOF`] one by one, as a client would.
async fn fill(client: &Client) {
    let schema = Repository::from_mof(&[("test.mof", MOF)]).unwrap();
    for decl in schema.qualifiers().values() {
        client
            .server
            .set_qualifier(&client.cx, decl.clone())
            .await
            .unwrap();
    }
    // Whole, with what they inherit: it does not count.
    for class in schema.classes() {
        client
            .server
            .create_class(&client.cx, class.clone())
            .await
            .unwrap();
    }
}

fn thing(class: &str, id: &str) -> Instance {
    let mut instance = Instance::new(class);
    instance.set("Id", id);
    instance
}

async fn classes(client: &Client) -> Vec<isochron_cim::Class> {
    let query = ClassQuery {
        below: None,
        deep: true,
    };
    client
        .server
        .enumerate_classes(&client.cx, &query)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_namespace_comes_and_goes_with_its_cim_namespace() {
    let world = World::new().await;
    let interop = world.client("interop", ADMINISTRATOR);
    let mine = world.client("root/Mine", ADMINISTRATOR);
    assert_eq!(
        mine.error(mine.all("EX_Thing")).await,
        Status::InvalidNamespace
    );
    let before = interop.all("CIM_Namespace").await.unwrap();

    let mut instance = Instance::new("CIM_Namespace");
    instance
        .set("Name", "/root/Mine/")
        .set("SystemName", "elsewhere");
    let path = interop.create(instance.clone()).await.unwrap();
    assert_eq!(path.key_str("Name"), Some("root/Mine"));
    assert_eq!(path.namespace.as_deref(), Some("interop"));
    // The other keys are this server's.
    let system = before[0].get("SystemName").unwrap().as_str();
    assert_eq!(path.key_str("SystemName"), system);
    assert_eq!(
        interop.get(&path).await.unwrap().get("ElementName"),
        Some(&"root/Mine".into())
    );
    assert!(mine.server.namespaces().contains(&"root/Mine".to_owned()));
    let all = interop.all("CIM_ManagedElement").await.unwrap();
    assert!(all.iter().any(|found| found.path.as_ref() == Some(&path)));
    assert_eq!(
        interop.all("CIM_Namespace").await.unwrap().len(),
        before.len() + 1
    );

    // It is associated with the one object manager, from both sides.
    let managers = interop
        .associators(&path, &AssociationFilter::default())
        .await
        .unwrap();
    assert_eq!(managers.len(), 1);
    let manager = managers[0].path.clone().unwrap();
    let filter = AssociationFilter {
        association: Some("CIM_NamespaceInManager".into()),
        role: Some("Antecedent".into()),
        ..AssociationFilter::default()
    };
    let found = interop.associators(&manager, &filter).await.unwrap();
    assert_eq!(found.len(), before.len() + 1);
    let links = interop
        .references(&path, &AssociationFilter::default())
        .await
        .unwrap();
    let link = links[0].path.clone().unwrap();
    assert_eq!(interop.get(&link).await.unwrap().path, Some(link.clone()));

    for (name, status) in [
        ("ROOT/mine", Status::AlreadyExists),
        ("root/HyperVCluster/V2", Status::AlreadyExists),
        ("Root/Interop", Status::AlreadyExists),
        ("", Status::InvalidParameter),
        ("a//b", Status::InvalidParameter),
        ("a b", Status::InvalidParameter),
        ("1", Status::InvalidParameter),
        (&"n".repeat(257), Status::InvalidParameter),
    ] {
        instance.set("Name", name);
        assert_eq!(
            interop.error(interop.create(instance.clone())).await,
            status,
            "{name}"
        );
    }
    let reader = world.client("interop", READER);
    instance.set("Name", "root/other");
    assert_eq!(
        reader.error(reader.create(instance)).await,
        Status::AccessDenied
    );

    fill(&mine).await;
    assert_eq!(
        interop.error(interop.delete(&path)).await,
        Status::NamespaceNotEmpty
    );
    for class in classes(&mine).await.iter().rev() {
        mine.server
            .delete_class(&mine.cx, &class.name)
            .await
            .unwrap();
    }
    assert_eq!(
        interop.error(interop.delete(&path)).await,
        Status::NamespaceNotEmpty
    );
    for decl in mine.server.enumerate_qualifiers(&mine.cx).await.unwrap() {
        mine.server
            .delete_qualifier(&mine.cx, &decl.name)
            .await
            .unwrap();
    }
    assert_eq!(
        reader.error(reader.delete(&path)).await,
        Status::AccessDenied
    );
    interop.delete(&path).await.unwrap();
    assert_eq!(
        mine.error(mine.all("EX_Thing")).await,
        Status::InvalidNamespace
    );
    assert_eq!(interop.error(interop.get(&path)).await, Status::NotFound);
    assert_eq!(interop.error(interop.get(&link)).await, Status::NotFound);
    assert_eq!(
        interop.all("CIM_Namespace").await.unwrap().len(),
        before.len()
    );
    // The provider's own stay.
    let own = before[0].path.clone().unwrap();
    assert_eq!(
        interop.error(interop.delete(&own)).await,
        Status::NotSupported
    );
    assert_eq!(interop.all("CIM_ObjectManager").await.unwrap().len(), 1);
}

/// A version of this server that has no namespace of this name left one of clients.
#[tokio::test]
async fn a_namespace_stays_its_clients_until_they_delete_it() {
    let mut world = World::new().await;
    world.namespace("root/CIMV2").await;
    fill(&world.client("root/cimv2", ADMINISTRATOR)).await;
    world.root = Some("/".into());
    world.restart().await;
    let theirs = world.client("root/cimv2", ADMINISTRATOR);
    let made = theirs.create(thing("EX_Thing", "1")).await.unwrap();
    assert_eq!(theirs.all("EX_Thing").await.unwrap().len(), 1);
    let of_host = theirs.all("Win32_ComputerSystem");
    assert_eq!(theirs.error(of_host).await, Status::InvalidClass);
    let interop = world.client("interop", ADMINISTRATOR);
    let called = |name: &&String| name.eq_ignore_ascii_case("root/cimv2");
    assert_eq!(interop.server.namespaces().iter().filter(called).count(), 1);
    let namespaces = interop.all("CIM_Namespace").await.unwrap();
    let mut of_name = namespaces.iter().filter(|namespace| {
        let name = namespace.get("Name").and_then(|name| name.as_str());
        name.is_some_and(|name| name.eq_ignore_ascii_case("root/cimv2"))
    });
    let path = of_name.next().unwrap().path.clone().unwrap();
    assert_eq!(of_name.next(), None);
    assert_eq!(
        interop.error(interop.delete(&path)).await,
        Status::NamespaceNotEmpty
    );
    theirs.delete(&made).await.unwrap();
    for class in ["EX_Holds", "EX_Box", "EX_Thing", "EX_Element"] {
        let class = Name::from(class);
        let deleted = theirs.server.delete_class(&theirs.cx, &class);
        deleted.await.unwrap();
    }
    let types = theirs.server.enumerate_qualifiers(&theirs.cx);
    for decl in types.await.unwrap() {
        let deleted = theirs.server.delete_qualifier(&theirs.cx, &decl.name);
        deleted.await.unwrap();
    }
    interop.delete(&path).await.unwrap();
    assert_eq!(theirs.all("Win32_ComputerSystem").await.unwrap().len(), 1);
    // What is ours is not deleted.
    assert_eq!(
        interop.error(interop.delete(&path)).await,
        Status::NotSupported
    );
}

#[tokio::test]
async fn all_of_it_is_there_after_a_restart() {
    let mut world = World::new().await;
    world.namespace("root/mine").await;
    let client = world.client("root/mine", ADMINISTRATOR);
    fill(&client).await;
    let above = client.create(thing("EX_Thing", "a\"b\\")).await.unwrap();
    let mut boxed = thing("EX_Box", "b");
    boxed.set("Above", above.clone()).set(
        "Weights",
        Value::Array(vec![Some(Value::Real64(0.1)), None]),
    );
    let boxed = client.create(boxed).await.unwrap();
    let mut holds = Instance::new("EX_Holds");
    holds.set("Box", boxed.clone()).set("Thing", above.clone());
    client.create(holds).await.unwrap();
    let gone = client.create(thing("EX_Thing", "gone")).await.unwrap();
    client.delete(&gone).await.unwrap();
    let mut other = Instance::new("EX_Thing");
    other.set("Caption", "c");
    client.modify(&above, other).await.unwrap();

    let name = |class: &isochron_cim::Class| class.name.clone();
    let (mut before, things) = (
        classes(&client).await,
        client.all("EX_Thing").await.unwrap(),
    );
    before.sort_by_key(name);
    let qualifiers = client
        .server
        .enumerate_qualifiers(&client.cx)
        .await
        .unwrap();
    world.restart().await;
    let client = world.client("ROOT\\MINE", ADMINISTRATOR);
    let mut after = classes(&client).await;
    after.sort_by_key(name);
    assert_eq!(after, before);
    let mut read = client
        .server
        .enumerate_qualifiers(&client.cx)
        .await
        .unwrap();
    read.sort_by_key(|decl| decl.name.clone());
    assert_eq!(read, qualifiers);
    assert_eq!(client.all("EX_Thing").await.unwrap(), things);
    assert_eq!(things.len(), 2);
    let held = client
        .associators(&boxed, &AssociationFilter::default())
        .await
        .unwrap();
    assert_eq!(held, [client.get(&above).await.unwrap()]);
    assert_eq!(held[0].get("Caption"), Some(&"c".into()));
    // It goes on from there.
    client.create(thing("EX_Thing", "new")).await.unwrap();
    assert_eq!(client.all("EX_Thing").await.unwrap().len(), 3);
    let interop = world.client("interop", READER);
    let all = interop.all("CIM_Namespace").await.unwrap();
    assert!(
        all.iter()
            .any(|n| n.get("Name") == Some(&"root/mine".into()))
    );
}

#[tokio::test]
async fn instances_keep_to_their_classes() {
    let world = World::new().await;
    world.namespace("root/mine").await;
    let client = world.client("root/mine", ADMINISTRATOR);
    fill(&client).await;

    let path = client.create(thing("ex_box", "1")).await.unwrap();
    assert_eq!(path.to_string(), r#"root/mine:EX_Box.Id="1""#);
    let instance = client.get(&path).await.unwrap();
    assert_eq!(
        instance.get("Size"),
        Some(&Value::Uint8(9)),
        "the class's default"
    );
    assert_eq!(instance.get("Caption"), None);
    assert_eq!(instance.properties.len(), 6);

    let mut wrong = thing("EX_Box", "2");
    wrong.set("Colour", "red");
    assert_eq!(
        client.error(client.create(wrong)).await,
        Status::NoSuchProperty
    );
    let mut wrong = thing("EX_Box", "2");
    wrong.set("Size", 256_u16);
    assert_eq!(
        client.error(client.create(wrong)).await,
        Status::TypeMismatch
    );
    for (instance, status) in [
        (thing("EX_Box", "1"), Status::AlreadyExists),
        (thing("EX_Crate", "1"), Status::InvalidClass),
        (thing("EX_Element", "1"), Status::InvalidClass),
        (Instance::new("EX_Box"), Status::InvalidParameter),
    ] {
        assert_eq!(client.error(client.create(instance)).await, status);
    }

    let mut change = Instance::new("EX_Box");
    change.set("Size", 3_u8);
    client.modify(&path, change.clone()).await.unwrap();
    assert_eq!(
        client.get(&path).await.unwrap().get("Size"),
        Some(&Value::Uint8(3))
    );
    // The same key is no change; another is none that can be made.
    client.modify(&path, thing("EX_Box", "1")).await.unwrap();
    assert_eq!(
        client
            .error(client.modify(&path, thing("EX_Box", "2")))
            .await,
        Status::NotSupported
    );
    let mut wrong = Instance::new("EX_Box");
    wrong.set("Colour", "red");
    assert_eq!(
        client.error(client.modify(&path, wrong)).await,
        Status::NoSuchProperty
    );
    let other = ObjectPath::class("EX_Box").with_key("Id", "2");
    assert_eq!(
        client.error(client.modify(&other, change)).await,
        Status::NotFound
    );
    assert_eq!(client.error(client.delete(&other)).await, Status::NotFound);
    assert_eq!(client.error(client.get(&other)).await, Status::NotFound);
    let wrong = ObjectPath::class("EX_Box").with_key("Name", "2");
    assert_eq!(
        client.error(client.get(&wrong)).await,
        Status::InvalidParameter
    );

    // Associations are found from both ends, by every filter, and only there.
    let held = client.create(thing("EX_Thing", "held")).await.unwrap();
    let mut holds = Instance::new("EX_Holds");
    // As clients write it: without the namespace.
    holds.set("Box", path.relative()).set("Thing", held.clone());
    let holds = client.create(holds).await.unwrap();
    let filter = |role: &str, result: &str| AssociationFilter {
        association: Some("EX_Holds".into()),
        role: Some(role.into()),
        result_class: Some(result.into()),
        result_role: None,
    };
    for (source, filter, found) in [
        (&path, filter("Box", "EX_Element"), vec![&held]),
        (&path, filter("Thing", "EX_Element"), vec![]),
        (&path, filter("Box", "EX_Box"), vec![]),
        (&held, filter("thing", "ex_box"), vec![&path]),
    ] {
        let all = client.associators(source, &filter).await.unwrap();
        let paths: Vec<_> = all.iter().map(|i| i.path.as_ref().unwrap()).collect();
        assert_eq!(paths, found, "{source} {filter:?}");
    }
    let links = client
        .references(&held, &AssociationFilter::default())
        .await
        .unwrap();
    assert_eq!(links[0].path.as_ref(), Some(&holds));
    let unknown = filter("Box", "EX_Crate");
    assert_eq!(
        client.error(client.associators(&path, &unknown)).await,
        Status::InvalidParameter
    );
    client.delete(&held).await.unwrap();
    let all = client
        .associators(&path, &AssociationFilter::default())
        .await
        .unwrap();
    assert_eq!(all, [], "what is gone is not found");

    let reader = world.client("root/mine", READER);
    assert_eq!(
        reader.get(&path).await.unwrap().get("Size"),
        Some(&Value::Uint8(3))
    );
    assert_eq!(
        reader.error(reader.create(thing("EX_Box", "9"))).await,
        Status::AccessDenied
    );
    assert_eq!(
        reader
            .error(reader.modify(&path, thing("EX_Box", "1")))
            .await,
        Status::AccessDenied
    );
    assert_eq!(
        reader.error(reader.delete(&path)).await,
        Status::AccessDenied
    );
    assert_eq!(client.call(&path, "Turn").await, Status::MethodNotAvailable);
}

#[tokio::test]
async fn a_class_changes_only_while_nothing_depends_on_it() {
    let world = World::new().await;
    world.namespace("root/mine").await;
    let client = world.client("root/mine", ADMINISTRATOR);
    let (server, cx) = (&*client.server, &client.cx);
    fill(&client).await;
    let status = |result: Result<(), isochron_cim::CimError>| result.unwrap_err().status;
    let class = |text: &str| {
        let text = format!("{} {text}", &MOF[..MOF.find("[Abstract] class").unwrap()]);
        let schema = Repository::from_mof(&[("test.mof", &text)]).unwrap();
        schema.classes().last().unwrap().clone()
    };

    let new = class("class EX_Box { [Key] string Id; };");
    assert_eq!(
        status(server.create_class(cx, new.clone()).await),
        Status::AlreadyExists
    );
    assert_eq!(
        status(server.modify_class(cx, new).await),
        Status::InvalidSuperclass
    );
    let mut orphan = class("class EX_Orphan { [Key] string Id; };");
    orphan.superclass = Some("EX_None".into());
    assert_eq!(
        status(server.create_class(cx, orphan.clone()).await),
        Status::InvalidSuperclass
    );
    orphan.superclass = None;
    assert_eq!(
        status(server.modify_class(cx, orphan.clone()).await),
        Status::InvalidClass
    );
    orphan.name = "EX Orphan".into();
    assert_eq!(
        status(server.create_class(cx, orphan.clone()).await),
        Status::InvalidParameter
    );
    let refers = class("class EX_X { [Key] string Id; }; class EX_Ref { EX_X REF X; };");
    assert_eq!(
        status(server.create_class(cx, refers).await),
        Status::InvalidParameter
    );

    let thing_class = Name::fixed("EX_Thing");
    assert_eq!(
        status(server.delete_class(cx, &thing_class).await),
        Status::ClassHasChildren
    );
    let path = client.create(thing("EX_Box", "1")).await.unwrap();
    let boxes = Name::fixed("EX_Box");
    assert_eq!(
        status(server.delete_class(cx, &boxes).await),
        Status::ClassHasInstances
    );
    let mut wider = server.get_class(cx, &boxes).await.unwrap();
    let more = class("class EX_More { uint32 Depth = 4; };");
    wider.properties.extend(more.properties);
    assert_eq!(
        status(server.modify_class(cx, wider.clone()).await),
        Status::ClassHasInstances
    );
    client.delete(&path).await.unwrap();
    server.modify_class(cx, wider).await.unwrap();
    let path = client.create(thing("EX_Box", "1")).await.unwrap();
    assert_eq!(
        client.get(&path).await.unwrap().get("Depth"),
        Some(&Value::Uint32(4))
    );
    client.delete(&path).await.unwrap();

    let key = Name::fixed("Key");
    assert_eq!(
        status(server.delete_qualifier(cx, &key).await),
        Status::Failed
    );
    let mut decl = server.get_qualifier(cx, &key).await.unwrap();
    server.set_qualifier(cx, decl.clone()).await.unwrap();
    decl.flavor.to_subclass = false;
    assert_eq!(status(server.set_qualifier(cx, decl).await), Status::Failed);
    for class in ["EX_Holds", "EX_Box", "EX_Thing"] {
        server.delete_class(cx, &class.into()).await.unwrap();
    }
    server.delete_qualifier(cx, &key).await.unwrap();
    assert_eq!(
        status(server.delete_qualifier(cx, &key).await),
        Status::NotFound
    );
    assert_eq!(
        status(server.delete_class(cx, &boxes).await),
        Status::NotFound
    );
    let keyed = class("class EX_Again { [Key] string Id; };");
    assert_eq!(
        status(server.create_class(cx, keyed).await),
        Status::NotFound
    );

    let reader = world.client("root/mine", READER);
    let element = Name::fixed("EX_Element");
    let refused = reader.server.delete_class(&reader.cx, &element).await;
    assert_eq!(status(refused), Status::AccessDenied);
    // The provider's own classes are fixed, for an administrator too.
    let theirs = world.client("root/HyperVCluster/v2", ADMINISTRATOR);
    let fixed = theirs
        .server
        .delete_class(&theirs.cx, &"Msvm_ConcreteJob".into())
        .await;
    assert_eq!(status(fixed), Status::NotSupported);
}

#[tokio::test]
async fn no_more_is_kept_than_the_limits_say() {
    let limits = Limits {
        namespaces: 1,
        classes: 4,
        qualifiers: 5,
        instances: 1,
        record: 600,
        ..Limits::default()
    };
    let world = World::with(limits).await;
    world.namespace("root/mine").await;
    let interop = world.client("interop", ADMINISTRATOR);
    let mut instance = Instance::new("CIM_Namespace");
    instance.set("Name", "more");
    let limited = Status::ServerLimitsExceeded;
    assert_eq!(interop.error(interop.create(instance)).await, limited);

    let client = world.client("root/mine", ADMINISTRATOR);
    let (server, cx) = (&*client.server, &client.cx);
    fill(&client).await;
    let mut decl = server
        .get_qualifier(cx, &"Description".into())
        .await
        .unwrap();
    decl.name = "More".into();
    assert_eq!(
        server.set_qualifier(cx, decl).await.unwrap_err().status,
        limited
    );
    let mut class = server.get_class(cx, &"EX_Element".into()).await.unwrap();
    class.name = "EX_More".into();
    assert_eq!(
        server.create_class(cx, class).await.unwrap_err().status,
        limited
    );
    let long = thing("EX_Thing", &"x".repeat(600));
    assert_eq!(client.error(client.create(long)).await, limited);
    client.create(thing("EX_Thing", "1")).await.unwrap();
    assert_eq!(
        client.error(client.create(thing("EX_Thing", "2"))).await,
        limited
    );
    assert_eq!(client.all("EX_Thing").await.unwrap().len(), 1);
}
