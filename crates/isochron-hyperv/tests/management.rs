//! Msvm_CollectionManagementService and Msvm_ComputerSystem.RequestStateChange:
//! every method, with the return codes of their family.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, dead_code)]

mod world;

use isochron_cim::{ObjectPath, Value};
use isochron_engine::model::{MachineId, Power};
use isochron_sim::{Fault, Point, When};
use world::{Client, Setup, machine_path, text};

const SERVICE: &str = "Msvm_CollectionManagementService";

async fn code(client: &Client, method: &str, parameters: &[(&str, Value)]) -> u64 {
    client.call(SERVICE, method, parameters).await.code
}

async fn define(client: &Client, name: &str, kind: u16) -> ObjectPath {
    let parameters = [("Name", name.into()), ("Type", Value::Uint16(kind))];
    let reply = client.call(SERVICE, "DefineCollection", &parameters).await;
    assert_eq!(reply.code, 0);
    assert_eq!(reply.reference("Job"), None);
    reply.reference("DefinedCollection").unwrap()
}

fn pair(member: &ObjectPath, collection: &ObjectPath) -> [(&'static str, Value); 2] {
    [
        ("Member", member.clone().into()),
        ("Collection", collection.clone().into()),
    ]
}

#[tokio::test(start_paused = true)]
async fn collections_are_defined_renamed_and_destroyed() {
    let setup = Setup::new().await;
    let client = &setup.client;
    let id = "1f1b6c0e-7a38-4a5b-b3a5-0a0d3cf0b7c1";
    let given = [
        ("Name", "shop".into()),
        ("Id", id.to_uppercase().into()),
        ("Type", "0".into()),
    ];
    let reply = client.call(SERVICE, "DefineCollection", &given).await;
    assert_eq!(reply.code, 0);
    let shop = reply.reference("DefinedCollection").unwrap();
    assert_eq!(shop.class.as_str(), "Msvm_VirtualSystemCollection");
    assert_eq!(shop.key_str("CollectionID"), Some(id));
    let all = define(client, "all", 1).await;
    assert_eq!(all.class.as_str(), "Msvm_ManagementCollection");

    for parameters in [
        given.to_vec(),
        vec![("Name", "shop".into()), ("Type", Value::Uint16(0))],
        vec![("Name", "".into()), ("Type", Value::Uint16(0))],
        vec![("Name", "new".into()), ("Type", Value::Uint16(2))],
        vec![("Name", "new".into())],
        vec![("Type", Value::Uint16(0))],
        vec![
            ("Name", "new".into()),
            ("Id", "seven".into()),
            ("Type", Value::Uint16(0)),
        ],
    ] {
        let reply = client.call(SERVICE, "DefineCollection", &parameters).await;
        assert_eq!(reply.code, 32773, "{parameters:?}");
        assert_eq!(reply.reference("DefinedCollection"), None);
    }

    let rename = |name: &str| {
        [
            ("Collection", shop.clone().into()),
            ("NewName", name.into()),
        ]
    };
    assert_eq!(code(client, "RenameCollection", &rename("store")).await, 0);
    assert_eq!(
        text(&client.get(&shop).await.unwrap(), "ElementName"),
        "store"
    );
    assert_eq!(
        code(client, "RenameCollection", &rename("all")).await,
        32773
    );
    assert_eq!(code(client, "RenameCollection", &rename(" ")).await, 32773);

    assert_eq!(code(client, "AddMember", &pair(&shop, &all)).await, 0);
    let destroy = |path: &ObjectPath| [("Collection", path.clone().into())];
    assert_eq!(
        code(client, "DestroyCollection", &destroy(&shop)).await,
        32775
    );
    assert_eq!(code(client, "DestroyCollection", &destroy(&all)).await, 0);
    assert_eq!(code(client, "DestroyCollection", &destroy(&shop)).await, 0);
    assert_eq!(
        code(client, "DestroyCollection", &destroy(&shop)).await,
        32773
    );
    assert_eq!(code(client, "DestroyCollection", &[]).await, 32773);
    assert!(client.all("CIM_CollectionOfMSEs").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn members_come_and_go() {
    let setup = Setup::new().await;
    let client = &setup.client;
    let (shop, all) = (
        define(client, "shop", 0).await,
        define(client, "all", 1).await,
    );
    let web = machine_path(setup.running("web").await);
    let host = client.all("Msvm_ComputerSystem").await[0]
        .path
        .clone()
        .unwrap();
    let unknown = machine_path(MachineId::new());
    for (member, collection, expected) in [
        (&web, &shop, 0),
        (&shop, &all, 0),
        (&all, &all, 32773),
        (&web, &all, 32776),
        (&shop, &shop, 32776),
        (&host, &shop, 32776),
        (&unknown, &shop, 32773),
        (&web, &unknown, 32773),
    ] {
        let got = code(client, "AddMember", &pair(member, collection)).await;
        assert_eq!(got, expected, "{member} into {collection}");
    }
    let members = client
        .associators(&shop, Some("Msvm_CollectedVirtualSystems"), None)
        .await;
    assert_eq!(members.len(), 1);
    assert_eq!(text(&members[0], "ElementName"), "web");
    let above = client
        .associators(&shop, Some("Msvm_CollectedCollections"), None)
        .await;
    assert_eq!(text(&above[0], "ElementName"), "all");

    // Not while its snapshot is being taken.
    setup
        .world
        .fail_next(Point::Flush, None, When::Before, Fault::Hang);
    let under_way = setup.create(&shop, 2, &[]).await;
    assert_eq!(
        code(client, "RemoveMember", &pair(&web, &shop)).await,
        32775
    );
    setup.world.release();
    client.ended(&under_way.reference("Job").unwrap()).await;

    assert_eq!(code(client, "RemoveMember", &pair(&web, &shop)).await, 0);
    assert_eq!(
        code(client, "RemoveMember", &pair(&web, &shop)).await,
        32773
    );
    assert_eq!(code(client, "RemoveMember", &pair(&shop, &all)).await, 0);
}

#[tokio::test(start_paused = true)]
async fn removing_by_id_succeeds_where_nothing_has_that_id() {
    let setup = Setup::new().await;
    let client = &setup.client;
    let shop = setup.collection("shop", &["web"]).await;
    let id = shop.key_str("CollectionID").unwrap();
    let web = machine_path(setup.engine.machines().await.unwrap()[0].id);
    let nobody = machine_path(MachineId::new());
    let nowhere = "8f6c1a52-6f9d-4a7e-9a41-2f5f1f0f0a11";
    let call = async |member: Option<&ObjectPath>, id: &str| {
        let mut parameters = vec![("CollectionId", id.into())];
        parameters.extend(member.map(|path| ("Member", path.clone().into())));
        code(client, "RemoveMemberById", &parameters).await
    };
    assert_eq!(call(Some(&nobody), id).await, 0);
    assert_eq!(call(Some(&web), nowhere).await, 0);
    assert_eq!(call(Some(&web), "seven").await, 32773);
    assert_eq!(call(None, id).await, 32773);
    let job = ObjectPath::class("Msvm_ConcreteJob").with_key("InstanceID", nowhere);
    assert_eq!(call(Some(&job), id).await, 32776);
    let members = "Msvm_CollectedVirtualSystems";
    assert_eq!(client.all(members).await.len(), 1);
    assert_eq!(call(Some(&web), &id.to_uppercase()).await, 0);
    assert_eq!(client.all(members).await.len(), 0);
    assert_eq!(call(Some(&web), id).await, 0);
}

#[tokio::test(start_paused = true)]
async fn machines_change_their_state() {
    let setup = Setup::new().await;
    let web = setup.machine("web").await;
    let path = machine_path(web);
    for (requested, code, power, shown) in [
        (2, 4096, Power::Running, 2),
        (9, 4096, Power::Paused, 9),
        (2, 4096, Power::Running, 2),
        (2, 4096, Power::Running, 2),
        (32768, 4096, Power::Paused, 9),
        (32777, 4096, Power::Running, 2),
        (32777, 32775, Power::Running, 2),
        (6, 4096, Power::Off, 6),
        (9, 32775, Power::Off, 6),
        (2, 4096, Power::Running, 2),
        (32769, 4096, Power::Off, 6),
        // What was saved is given up.
        (3, 4096, Power::Off, 3),
        (9, 32775, Power::Off, 3),
        (6, 32775, Power::Off, 3),
        (11, 32775, Power::Off, 3),
        (7, 32775, Power::Off, 3),
    ] {
        let parameters = [("RequestedState", Value::Uint16(requested))];
        let reply = setup
            .client
            .try_call(&path, "RequestStateChange", &parameters)
            .await
            .unwrap();
        assert_eq!(reply.code, code, "{requested}");
        let job = setup.client.ended(&reply.reference("Job").unwrap()).await;
        let well = world::number(&job, "JobState") == 7;
        assert_eq!(well, code == 4096, "{}", text(&job, "ErrorDescription"));
        assert_eq!(setup.world.power(web), power);
        let instance = setup.client.get(&path).await.unwrap();
        assert_eq!(world::number(&instance, "EnabledState"), shown);
    }
    let reply = setup
        .client
        .try_call(&path, "RequestStateChange", &[])
        .await
        .unwrap();
    assert_eq!(reply.code, 32773);
}
