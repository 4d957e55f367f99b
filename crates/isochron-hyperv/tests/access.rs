//! What each role is answered over CIM, in the codes that each family has.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, dead_code)]

mod world;

use isochron_cim::{CimError, Principal, Role, Status, Value};
use world::{Client, Reply, SNAPSHOTS, Setup, machine_path, number};

const MANAGEMENT: &str = "Msvm_CollectionManagementService";

impl Client {
    fn with(&self, role: Role) -> Self {
        let mut client = self.at(world::CLUSTER);
        client.cx.principal = Principal::user("ada", role);
        client
    }
}

fn denied(answer: Result<Reply, CimError>) -> bool {
    match answer {
        Ok(reply) => reply.code == 32769,
        Err(error) => error.status == Status::AccessDenied,
    }
}

#[tokio::test(start_paused = true)]
async fn each_role_may_what_it_may_in_every_family() {
    use Role::{Administrator, Operator, Reader};
    let setup = Setup::new().await;
    let collection = setup.collection("shop", &["web"]).await;
    let snapshot = setup.snapshot(&collection, 2).await;
    let web = machine_path(setup.engine.find_machine("web").await.unwrap().id);
    let jobs = setup.client.all("Msvm_ConcreteJob").await;
    let job = jobs[0].path.clone().unwrap();
    let management = setup.client.the(MANAGEMENT).await;
    let service = setup.client.the(SNAPSHOTS).await;

    let create = [
        ("Collection", collection.clone().into()),
        ("SnapshotType", Value::Uint16(2)),
    ];
    let apply = [("SnapshotCollection", snapshot.clone().into())];
    let destroy = [("AffectedSnapshotCollection", snapshot.into())];
    // Makes no sense to anyone, but that is for operators to know.
    let no_type = [("Collection", collection.clone().into())];
    let define = [("Name", "new".into()), ("Type", Value::Uint16(0))];
    let rename = [
        ("Collection", collection.clone().into()),
        ("NewName", "store".into()),
    ];
    let remove = [
        ("Member", web.clone().into()),
        ("Collection", collection.into()),
    ];
    let pause = [("RequestedState", Value::Uint16(9))];
    let cancel = [("RequestedState", Value::Uint16(4))];
    let calls = [
        (&service, "CreateSnapshot", &create[..], Operator, false),
        (&service, "CreateSnapshot", &no_type, Operator, false),
        (&service, "ApplySnapshot", &apply, Operator, false),
        (&service, "DestroySnapshot", &destroy, Operator, false),
        (
            &management,
            "DefineCollection",
            &define,
            Administrator,
            true,
        ),
        (
            &management,
            "RenameCollection",
            &rename,
            Administrator,
            true,
        ),
        (&management, "RemoveMember", &remove, Administrator, true),
        (&web, "RequestStateChange", &pause, Operator, true),
        (&job, "RequestStateChange", &cancel, Operator, false),
    ];
    for role in [Reader, Operator, Administrator] {
        let client = setup.client.with(role);
        for (target, method, parameters, least, as_code) in &calls {
            let answer = client.try_call(target, method, parameters).await;
            if let Ok(reply) = &answer
                && let Some(job) = reply.reference("Job")
            {
                client.ended(&job).await;
            }
            // Where the family has a code for it, it is that; else CIM's error.
            assert!(role >= *least || answer.is_ok() == *as_code, "{method}");
            assert_eq!(denied(answer), role < *least, "{method} as {role}");
        }
        // Looking is everyone's.
        let seen = client.all("Msvm_ComputerSystem").await;
        assert_eq!(seen.len(), 2, "{role}");
    }
    // What readers tried left no job behind: the others left what they did.
    let jobs = setup.client.all("Msvm_ConcreteJob").await;
    assert!(jobs.iter().all(|job| number(job, "JobState") != 4));
    let owners: Vec<_> = jobs.iter().map(|job| world::text(job, "Owner")).collect();
    assert!(owners.iter().any(|owner| owner == "ada"), "{owners:?}");
}
