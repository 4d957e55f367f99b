//! What each role is answered over CIM, in the codes that each family has.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, dead_code)]

mod world;

use std::sync::{Arc, Mutex};

use isochron_cim::{CimError, Principal, Role, Status, Value};
use isochron_engine::{Act, Audit, ErrorKind};
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

/// Operation, object, and why it was refused.
type Told = (String, String, Option<ErrorKind>, String);

#[derive(Default)]
struct Heard(Mutex<Vec<Told>>);

impl Audit for Heard {
    fn record(&self, act: Act<'_>) {
        let error = act.error.map(|error| error.message.clone());
        self.0.lock().unwrap().push((
            act.operation.to_string(),
            act.target.to_owned(),
            act.error.map(|error| error.kind),
            error.unwrap_or_default(),
        ));
    }
}

/// Whether a call is refused by us or by the engine, and whatever it is answered, the
/// audit is told of it, and once.
#[tokio::test(start_paused = true)]
async fn every_refused_call_is_told_once() {
    use Role::{Operator, Reader};
    let setup = Setup::new().await;
    let heard = Arc::new(Heard::default());
    let collection = setup.collection("shop", &["web"]).await;
    let web = machine_path(setup.engine.find_machine("web").await.unwrap().id);
    let snapshot = setup.snapshot(&collection, 2).await;
    let job = setup.client.all("Msvm_ConcreteJob").await[0].path.clone();
    let job = job.unwrap();
    let audited = Client::new(setup.engine.audited(heard.clone()), world::CLUSTER);
    let service = |class: &'static str| {
        let client = &audited;
        async move { client.the(class).await }
    };
    let snapshots = service(SNAPSHOTS).await;
    let management = service(MANAGEMENT).await;
    let single = service("Msvm_VirtualSystemSnapshotService").await;
    let machines = service("Msvm_VirtualSystemManagementService").await;
    let nobody = setup.client.the(SNAPSHOTS).await;
    let mut nobody = nobody;
    nobody.keys.insert("Name".into(), "another".into());

    let shop = ("Collection", Value::from(collection.clone()));
    let nowhere = ("Collection", Value::from(snapshot.clone()));
    let no_type = ("SnapshotType", Value::Uint16(0));
    let recovery = ("SnapshotType", Value::Uint16(2));
    let wrong_type = ("SnapshotType", Value::from("many"));
    let short = ("NewName", Value::from(" "));
    let state = ("RequestedState", Value::Uint16(5000));
    let call_method = "call-method";
    let no_job = "there is no";
    #[rustfmt::skip]
    let calls = [
        (&snapshots, "CreateSnapshot", vec![shop.clone(), no_type], Operator, call_method, "SnapshotType 0"),
        (&snapshots, "CreateSnapshot", vec![shop.clone(), wrong_type], Operator, call_method, "SnapshotType"),
        (&snapshots, "CreateSnapshot", vec![nowhere, recovery], Operator, call_method, "not a collection"),
        (&snapshots, "CreateSnapshot", vec![shop.clone()], Reader, call_method, "operator"),
        (&snapshots, "ApplySnapshot", vec![], Operator, call_method, "SnapshotCollection is missing"),
        (&snapshots, "DestroySnapshot", vec![], Operator, call_method, "is missing"),
        (&snapshots, "StopService", vec![], Operator, call_method, "it returned 1"),
        (&nobody, "CreateSnapshot", vec![], Operator, call_method, no_job),
        (&management, "DefineCollection", vec![], Operator, call_method, "Name is missing"),
        (&management, "RenameCollection", vec![shop.clone(), short], Operator, call_method, "NewName"),
        (&single, "DestroySnapshotTree", vec![], Operator, call_method, "is missing"),
        (&machines, "DefineSystem", vec![], Operator, call_method, "DefineSystem"),
        (&machines, "ModifySystemSettings", vec![], Operator, call_method, "is missing"),
        (&web, "RequestStateChange", vec![state.clone()], Operator, call_method, "5000"),
        (&job, "RequestStateChange", vec![state], Operator, call_method, "it returned 5"),
        // By the engine, which tells of it as what it is.
        (&management, "DestroyCollection", vec![shop], Operator, "destroy-collection", "administrator"),
    ];
    for (target, method, parameters, role, operation, why) in calls {
        let answer = audited
            .with(role)
            .try_call(target, method, &parameters)
            .await;
        let refused = !matches!(&answer, Ok(reply) if [0, 4096].contains(&reply.code));
        assert!(refused, "{method}: {answer:?}");
        let told = std::mem::take(&mut *heard.0.lock().unwrap());
        let [(what, of, kind, error)] = &told[..] else {
            panic!("{method}: {told:?}")
        };
        assert_eq!(what, operation, "{method}");
        assert!(error.contains(why), "{method}: {error}");
        if operation == call_method {
            assert_eq!(*of, format!("{}.{method}", target.class));
        }
        let denied = role == Reader || operation != call_method;
        assert_eq!(*kind == Some(ErrorKind::AccessDenied), denied, "{method}");
    }
    // What only tells is not told of, nor what there is not.
    let operator = audited.with(Operator);
    let bad = [("Errors", Value::Array(vec![Some("?".into())]))];
    let reading = operator.try_call(&machines, "FormatError", &bad).await;
    assert_ne!(reading.unwrap().code, 0);
    let nothing = operator.try_call(&machines, "Nothing", &[]).await;
    assert_eq!(nothing.unwrap_err().status, Status::MethodNotFound);
    assert!(heard.0.lock().unwrap().is_empty());
    // A call that is accepted is told as what it is.
    let take = [
        ("Collection", collection.into()),
        ("SnapshotType", Value::Uint16(2)),
    ];
    let reply = operator.try_call(&snapshots, "CreateSnapshot", &take).await;
    assert_eq!(reply.unwrap().code, 4096);
    let told = std::mem::take(&mut *heard.0.lock().unwrap());
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&*told[0].0, told[0].2), ("create-snapshot", None));
}
