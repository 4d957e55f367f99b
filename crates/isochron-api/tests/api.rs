//! The API over the engine, on its listeners: what every resource answers, and
//! what is refused how. The machines are simulated; everything else is real.

#![allow(clippy::unwrap_used)] // tests end at the first surprise

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use isochron_access::{AuditLog, LoginConfig, Logins, Users};
use isochron_api::client::{Client, ClientError, Server};
use isochron_api::dto::*;
use isochron_api::listen::{FACE, Socket, serve_http};
use isochron_api::{Limits, Served};
use isochron_engine::Engine;
use isochron_engine::model;
use isochron_net::Listener;
use isochron_sim::{Fault, Point, When, World};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A daemon in this process.
struct Api {
    world: World,
    engine: Engine,
    client: Client,
    http: String,
    stop: Option<(oneshot::Sender<()>, oneshot::Sender<()>)>,
    tasks: Vec<JoinHandle<()>>,
    directory: tempfile::TempDir,
}

impl Api {
    async fn start() -> Self {
        Self::start_for(Some(isochron_engine::Role::Administrator)).await
    }

    /// A daemon where those who do not say who they are have this role on TCP.
    async fn start_for(anonymous: Option<isochron_engine::Role>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let world = World::new();
        let daemon = world.daemon();
        let config = isochron_engine::Config::new(directory.path());
        let engine = Engine::open(
            daemon.hypervisor(),
            daemon.store(),
            daemon.archive(),
            world.clock(),
            config,
        )
        .await
        .unwrap();
        let audit = Arc::new(AuditLog::open(&directory.path().join("audit.log")).unwrap());
        let users = Arc::new(Users::open(daemon.store()).await.unwrap());
        let logins = LoginConfig {
            anonymous,
            ..LoginConfig::default()
        };
        let logins = Logins::new(users.clone(), logins, audit.clone());
        let logins = Arc::new(logins.await.unwrap());
        let router = isochron_api::router(Served {
            engine: engine.audited(audit.clone()),
            users,
            tls: None,
            limits: Limits::default(),
        });
        let path = directory.path().join("api.sock");
        let socket = Socket::bind(&path, None).await.unwrap();
        let listener = Listener::bind("127.0.0.1:0", FACE).await.unwrap();
        let http = listener.local_addr().unwrap().to_string();
        let (stop_socket, stopped_socket) = oneshot::channel::<()>();
        let (stop_http, stopped_http) = oneshot::channel::<()>();
        let tasks = vec![
            tokio::spawn(socket.serve(router.clone(), Some(audit), async {
                let _ = stopped_socket.await;
            })),
            tokio::spawn(async {
                let stopped = async {
                    let _ = stopped_http.await;
                };
                let minute = Duration::from_secs(60);
                let served = serve_http(listener, logins, minute, router, stopped);
                served.await.unwrap();
            }),
        ];
        let client = Client::new(Server::Unix(path));
        Self {
            world,
            engine,
            client,
            http,
            stop: Some((stop_socket, stop_http)),
            tasks,
            directory,
        }
    }

    async fn define(&self, name: &str) -> Machine {
        let definition = self.world.definition(name, &["root"]).into();
        self.client
            .create_machine(&NewMachine::Define(definition))
            .await
            .unwrap()
    }

    /// A collection of running machines.
    async fn shop(&self, members: &[&str]) -> Collection {
        for name in members {
            self.define(name).await;
            self.client.start_machine(name).await.unwrap();
        }
        let new = NewCollection {
            name: "shop".to_owned(),
            id: None,
            kind: CollectionKind::Machines,
            members: members.iter().map(ToString::to_string).collect(),
        };
        self.client.create_collection(&new).await.unwrap()
    }

    async fn ended(&self, job: &Job) -> Job {
        self.client
            .job(&job.id.to_string(), Duration::from_secs(30))
            .await
            .unwrap()
    }

    /// The head of the answer to a request by hand.
    async fn head(&self, head: &str) -> String {
        let mut stream = TcpStream::connect(&self.http).await.unwrap();
        let request = format!("{head}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// One request by hand on HTTP: status and body.
    async fn raw(&self, head: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(&self.http).await.unwrap();
        let request = format!(
            "{head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        // The other side may refuse before it has read everything.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        let status = answer
            .split(' ')
            .nth(1)
            .unwrap_or_default()
            .parse()
            .unwrap_or(0);
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }
}

fn snapshot_of(collection: &str, name: &str) -> NewSnapshot {
    serde_json::from_value(json!({ "collection": collection, "name": name })).unwrap()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, ClientError>) -> Error {
    match result {
        Err(ClientError::Refused(error)) => error,
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_machine_from_definition_to_oblivion() {
    let api = Api::start().await;
    let (client, id) = (&api.client, api.define("web").await.id.to_string());
    let machine = client.machine("web").await.unwrap();
    assert_eq!(
        (machine.power, machine.origin),
        (Power::Off, Origin::Launched)
    );
    assert_eq!(
        machine.disks[0].active.as_ref(),
        machine.disks[0].chain.first().map(|l| &l.path)
    );
    assert_eq!(client.machine(&id).await.unwrap(), machine);

    assert_eq!(
        client.start_machine("web").await.unwrap().power,
        Power::Running
    );
    assert_eq!(
        client.pause_machine(&id).await.unwrap().power,
        Power::Paused
    );
    assert_eq!(
        client.machines().await.unwrap()[0].power,
        Some(Power::Paused)
    );
    assert_eq!(
        client.resume_machine("web").await.unwrap().power,
        Power::Running
    );
    assert_eq!(
        refusal(client.undefine_machine("web").await).kind,
        ErrorKind::InvalidState
    );
    assert_eq!(client.kill_machine("web").await.unwrap().power, Power::Off);

    let renamed = MachineChange {
        name: Some("a web/server?".to_owned()),
        notes: None,
    };
    client.change_machine("web", &renamed).await.unwrap();
    // A name that a path has to escape.
    assert_eq!(
        client
            .machine("a web/server?")
            .await
            .unwrap()
            .id
            .to_string(),
        id
    );
    assert_eq!(
        refusal(client.machine("web").await).kind,
        ErrorKind::NotFound
    );
    client.undefine_machine("a web/server?").await.unwrap();
    assert_eq!(client.machines().await.unwrap(), []);
}

#[tokio::test]
async fn a_machine_is_defined_with_the_memory_that_it_goes_on_from() {
    let api = Api::start().await;
    let client = &api.client;
    api.shop(&["web"]).await;
    let job = client.create_snapshot(&snapshot_of("shop", "one")).await;
    api.ended(&job.unwrap()).await;
    let held = api.engine.snapshots(None).await.unwrap().remove(0);
    let held = held.members[0].memory.clone().unwrap().path;
    let define = |name: &str, memory: &Path| {
        let definition = api.world.definition(name, &["root"]).into();
        let memory = memory.to_owned();
        let new = NewMachine::DefineSaved(DefineSaved { definition, memory });
        async move { client.create_machine(&new).await }
    };
    let memory = Path::new("/restored/memory");
    let none = refusal(define("none", memory).await);
    assert_eq!(none.kind, ErrorKind::InvalidParameter);
    let taken = refusal(define("taken", &held).await);
    assert_eq!(taken.kind, ErrorKind::Exists);
    api.world.copy_memory(&held, memory).unwrap();
    let copy = define("copy", memory).await.unwrap();
    assert_eq!(copy.power, Power::Saved);
    assert_eq!(client.machines().await.unwrap().len(), 2);
    let started = client.start_machine("copy").await.unwrap();
    assert_eq!(started.power, Power::Running);

    for (role, says) in [
        (isochron_engine::Role::Operator, "role administrator"),
        (isochron_engine::Role::Administrator, "paths.roots"),
    ] {
        let api = Api::start_for(Some(role)).await;
        let client = Client::new(format!("http://{}", api.http).parse().unwrap());
        let mut definition = api.world.definition("web", &["root"]);
        definition.disks.clear();
        let new = NewMachine::DefineSaved(DefineSaved {
            definition: definition.into(),
            memory: memory.to_owned(),
        });
        let refused = refusal(client.create_machine(&new).await);
        assert_eq!(refused.kind, ErrorKind::Forbidden);
        assert!(refused.message.contains(says), "{}", refused.message);
    }
}

#[tokio::test]
async fn a_collection_takes_all_its_members_or_none() {
    let api = Api::start().await;
    let client = &api.client;
    let collection = api.shop(&["web", "db"]).await;
    let names = |collection: &Collection| {
        collection
            .members
            .iter()
            .map(|member| member.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(&collection), ["web", "db"]);

    let bad = NewCollection {
        name: "other".to_owned(),
        id: None,
        kind: CollectionKind::Machines,
        members: vec!["web".to_owned(), "nobody".to_owned()],
    };
    assert_eq!(
        refusal(client.create_collection(&bad).await).kind,
        ErrorKind::NotFound
    );
    assert_eq!(client.collections().await.unwrap().len(), 1);
    let same = NewCollection {
        name: "shop".to_owned(),
        members: vec![],
        ..bad
    };
    assert_eq!(
        refusal(client.create_collection(&same).await).kind,
        ErrorKind::Exists
    );

    api.define("queue").await;
    let change = |add: &[&str], remove: &[&str]| CollectionChange {
        add: add.iter().map(ToString::to_string).collect(),
        remove: remove.iter().map(ToString::to_string).collect(),
        ..CollectionChange::default()
    };
    let refused = refusal(
        client
            .change_collection("shop", &change(&["queue"], &["x"]))
            .await,
    );
    assert_eq!(refused.kind, ErrorKind::NotFound);
    assert_eq!(
        names(&client.collection("shop").await.unwrap()),
        ["web", "db"]
    );
    let refused = refusal(
        client
            .change_collection("shop", &change(&[], &["web", "queue"]))
            .await,
    );
    assert!(refused.message.contains("queue"), "{}", refused.message);
    let changed = client
        .change_collection("shop", &change(&["queue"], &["db"]))
        .await
        .unwrap();
    assert_eq!(names(&changed), ["web", "queue"]);

    let rename = CollectionChange {
        name: Some("store".to_owned()),
        ..Default::default()
    };
    assert_eq!(
        client.change_collection("shop", &rename).await.unwrap().id,
        collection.id
    );
    client.destroy_collection("store").await.unwrap();
    assert_eq!(
        refusal(client.collection("store").await).kind,
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn a_snapshot_is_a_job_and_then_a_tree() {
    let api = Api::start().await;
    let client = &api.client;
    api.shop(&["web", "db"]).await;
    let job = client
        .create_snapshot(&snapshot_of("shop", "one"))
        .await
        .unwrap();
    assert_eq!(job.kind, JobKind::CreateSnapshot);
    assert!(job.owner.as_deref().is_some_and(|owner| !owner.is_empty()));
    let job = api.ended(&job).await;
    assert_eq!(
        (job.state, job.percent, job.error),
        (JobState::Completed, 100, None)
    );

    let one = client.snapshot("one").await.unwrap();
    assert_eq!(Some(one.id), job.snapshot_id);
    assert!(one.current && one.parent.is_none());
    assert!(one.members.iter().all(|member| member.memory.is_some()));
    assert!(one.cut.common_window_us.is_some_and(|window| window >= 0));
    let mut vms: Vec<_> = one
        .cut
        .members
        .iter()
        .map(|member| member.vm.as_str())
        .collect();
    vms.sort();
    assert_eq!(vms, ["db", "web"]);

    let recovery = NewSnapshot {
        kind: SnapshotKind::Recovery,
        ..snapshot_of("shop", "two")
    };
    let job = client.create_snapshot(&recovery).await.unwrap();
    assert_eq!(api.ended(&job).await.state, JobState::Completed);
    let all = client.snapshots(Some("shop")).await.unwrap();
    assert_eq!(
        all.iter().map(|s| s.current).collect::<Vec<_>>(),
        [false, true]
    );
    assert_eq!(all[1].parent, Some(one.id));

    let job = client.apply_snapshot("one").await.unwrap();
    assert_eq!(api.ended(&job).await.state, JobState::Completed);
    assert!(client.snapshot("one").await.unwrap().current);

    assert_eq!(
        refusal(client.destroy_collection("shop").await).kind,
        ErrorKind::InvalidState
    );
    for name in ["two", "one"] {
        let job = client.destroy_snapshot(name).await.unwrap();
        assert_eq!(api.ended(&job).await.state, JobState::Completed);
    }
    assert_eq!(client.snapshots(None).await.unwrap(), []);
    assert_eq!(client.jobs().await.unwrap().len(), 5);
}

fn export_to(directory: &Path, base: Option<&str>) -> NewExport {
    serde_json::from_value(json!({ "directory": directory, "base": base })).unwrap()
}

#[tokio::test]
async fn an_instant_is_exported_remembered_and_forgotten() {
    let api = Api::start().await;
    let client = &api.client;
    api.shop(&["web", "db"]).await;
    let recovery = NewSnapshot {
        kind: SnapshotKind::Recovery,
        ..snapshot_of("shop", "monday")
    };
    let job = client.create_snapshot(&recovery).await.unwrap();
    api.ended(&job).await;
    let (full, next) = (
        api.directory.path().join("full"),
        api.directory.path().join("next"),
    );
    let job = client
        .export_snapshot("monday", &export_to(&full, None))
        .await
        .unwrap();
    assert_eq!(job.kind, JobKind::ExportSnapshot);
    let job = api.ended(&job).await;
    assert_eq!((job.state, job.error), (JobState::Completed, None));
    let export = job.export.unwrap();
    assert_eq!((export.base, &export.directory), (None, &full));
    assert_eq!(export.vm_ids.len(), 2);
    assert!(export.total_bytes > 0 && export.done_bytes == export.total_bytes);
    let exports = client.snapshot("monday").await.unwrap().exports;
    assert_eq!((exports[0].id, &exports[0].directory), (export.id, &full));

    let id = uuid::Uuid::new_v4();
    let convert = ConvertSnapshot { id: Some(id) };
    let job = client.convert_snapshot("monday", &convert).await.unwrap();
    assert_eq!(job.point_id, Some(id));
    let job = api.ended(&job).await;
    assert_eq!(job.affected, Some(Affected::ReferencePoint(id)));
    let monday = client.reference_point("monday").await.unwrap();
    assert_eq!((monday.id, monday.keeps_data), (id, false));
    assert_eq!(monday.exports, exports, "what was exported is known still");
    assert_eq!(client.snapshots(None).await.unwrap(), []);
    let new = export_to(&next, None);
    let refused = refusal(client.export_reference_point("monday", &new).await);
    assert_eq!(refused.kind, ErrorKind::InvalidState);

    let new: NewReferencePoint =
        serde_json::from_value(json!({ "collection": "shop", "name": "tuesday" })).unwrap();
    let job = client.create_reference_point(&new).await.unwrap();
    assert_eq!(api.ended(&job).await.state, JobState::Completed);
    let tuesday = client.reference_point("tuesday").await.unwrap();
    assert!(tuesday.keeps_data && tuesday.cut.common_window_us.is_some());
    assert_eq!(
        tuesday.members[0].disks[0].disk_id,
        monday.members[0].disks[0].disk_id
    );
    let one_disk = NewExport {
        disks: Some(vec![ExportDisks {
            vm: "web".to_owned(),
            disks: vec!["root".to_owned()],
        }]),
        ..export_to(&next, full.to_str())
    };
    let job = client
        .export_reference_point("tuesday", &one_disk)
        .await
        .unwrap();
    let job = api.ended(&job).await;
    assert_eq!((job.state, job.error), (JobState::Completed, None));
    let export = job.export.unwrap();
    assert_eq!((export.base, export.vm_ids.len()), (Some(id), 1));

    for (new, kind) in [
        (export_to(&next, Some("nothing")), ErrorKind::NotFound),
        (
            export_to(&next, Some("tuesday")),
            ErrorKind::InvalidParameter,
        ),
        (
            export_to(Path::new("relative"), None),
            ErrorKind::InvalidParameter,
        ),
        (
            NewExport {
                intent: ExportIntent::Merge,
                ..export_to(&next, None)
            },
            ErrorKind::InvalidParameter,
        ),
        (
            NewExport {
                disks: Some(vec![ExportDisks {
                    vm: "nobody".to_owned(),
                    disks: vec![],
                }]),
                ..export_to(&next, None)
            },
            ErrorKind::NotFound,
        ),
    ] {
        let refused = refusal(client.export_reference_point("tuesday", &new).await);
        assert_eq!(refused.kind, kind, "{}", refused.message);
    }

    let job = client.forget_reference_point_data("tuesday").await.unwrap();
    assert_eq!(job.kind, JobKind::RemoveReferencePointData);
    assert_eq!(api.ended(&job).await.state, JobState::Completed);
    assert!(!client.reference_point("tuesday").await.unwrap().keeps_data);
    for name in ["monday", "tuesday"] {
        let job = client.destroy_reference_point(name).await.unwrap();
        assert_eq!(api.ended(&job).await.state, JobState::Completed);
    }
    assert_eq!(client.reference_points(Some("shop")).await.unwrap(), []);
}

/// Users on TCP export below the open directories only, and readers not at all.
#[tokio::test]
async fn exports_are_confined_and_take_an_operator() {
    for (role, message) in [
        (isochron_engine::Role::Operator, "paths.roots"),
        (isochron_engine::Role::Reader, "role"),
    ] {
        let api = Api::start_for(Some(role)).await;
        api.shop(&["web"]).await;
        let new = snapshot_of("shop", "one");
        let job = api.client.create_snapshot(&new).await.unwrap();
        api.ended(&job).await;
        let post = "POST /v1/snapshots/one/export HTTP/1.1\r\nHost: localhost\r\n\
                    Content-Type: application/json";
        let (status, answer) = api.raw(post, r#"{"directory": "/etc/shop"}"#).await;
        assert_eq!((status, &answer["kind"]), (403, &json!("forbidden")));
        let said = answer["message"].as_str().unwrap();
        assert!(said.contains(message), "{said}");
        assert!(api.client.snapshot("one").await.unwrap().exports.is_empty());
    }
}

#[tokio::test]
async fn what_fails_says_so() {
    let api = Api::start().await;
    let client = &api.client;
    api.shop(&["web"]).await;
    for (refused, kind) in [
        (
            client.create_snapshot(&snapshot_of("nothing", "x")).await,
            ErrorKind::NotFound,
        ),
        (client.apply_snapshot("nothing").await, ErrorKind::NotFound),
        (
            client.job("nonsense", Duration::ZERO).await,
            ErrorKind::InvalidParameter,
        ),
        (
            client
                .job(&model::JobId::new().to_string(), Duration::from_secs(1))
                .await,
            ErrorKind::NotFound,
        ),
    ] {
        let error = refusal(refused);
        assert_eq!(error.kind, kind, "{}", error.message);
    }
    // A job that fails carries the sentence.
    api.world
        .fail_next(Point::Swap, None, When::Before, Fault::Error);
    let job = client
        .create_snapshot(&snapshot_of("shop", "x"))
        .await
        .unwrap();
    let job = api.ended(&job).await;
    assert_eq!(job.state, JobState::Failed);
    assert!(!job.error.unwrap().message.is_empty());
    assert_eq!(client.snapshots(None).await.unwrap(), []);
    assert_eq!(
        refusal(client.cancel_job(&job.id.to_string()).await).kind,
        ErrorKind::InvalidState
    );
}

/// What is no request of ours gets a status and a sentence, never a silence.
#[tokio::test]
async fn bad_requests() {
    let api = Api::start().await;
    let big = format!("{{\"name\": \"{}\"}}", "x".repeat(2 << 20));
    let post = "POST /v1/collections HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
    for (head, body, status, kind) in [
        (
            "GET /v1/nothing HTTP/1.1\r\nHost: localhost",
            "",
            404,
            "not_found",
        ),
        (
            "PUT /v1/machines HTTP/1.1\r\nHost: localhost",
            "",
            405,
            "not_supported",
        ),
        (
            "GET /v1/machines/none HTTP/1.1\r\nHost: localhost",
            "",
            404,
            "not_found",
        ),
        (
            "GET /v1/machines/%ff HTTP/1.1\r\nHost: localhost",
            "",
            400,
            "invalid_parameter",
        ),
        (
            "GET /v1/snapshots?colection=x HTTP/1.1\r\nHost: localhost",
            "",
            400,
            "invalid_parameter",
        ),
        (
            "POST /v1/machines/x/stop?wait=-1 HTTP/1.1\r\nHost: localhost",
            "",
            422,
            "invalid_parameter",
        ),
        (
            "POST /v1/machines/x/stop?wait=NaN HTTP/1.1\r\nHost: localhost",
            "",
            422,
            "invalid_parameter",
        ),
        (
            "POST /v1/collections HTTP/1.1\r\nHost: localhost",
            "{}",
            415,
            "invalid_parameter",
        ),
        (post, "{", 400, "invalid_parameter"),
        (post, "{}", 422, "invalid_parameter"),
        (
            post,
            "{\"name\": \"a\", \"nmae\": \"b\"}",
            422,
            "invalid_parameter",
        ),
        (post, big.as_str(), 413, "invalid_parameter"),
        (
            "GET /v1/version HTTP/1.1\r\nHost: evil.example",
            "",
            403,
            "forbidden",
        ),
        (
            "GET /v1/version HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example",
            "",
            403,
            "forbidden",
        ),
        (
            "GET /v1/version HTTP/1.1\r\nHost: localhost\r\nOrigin: null",
            "",
            403,
            "forbidden",
        ),
    ] {
        let (got, answer) = api.raw(head, body).await;
        assert_eq!(
            (got, &answer["kind"]),
            (status, &json!(kind)),
            "{head}: {answer}"
        );
        assert!(
            !answer["message"].as_str().unwrap_or_default().is_empty(),
            "{head}: {answer}"
        );
    }
    let own = format!(
        "GET /v1/version HTTP/1.1\r\nHost: {0}\r\nOrigin: http://{0}",
        api.http
    );
    assert_eq!(api.raw(&own, "").await.0, 200);
    let (status, document) = api
        .raw("GET /openapi.json HTTP/1.1\r\nHost: localhost", "")
        .await;
    assert_eq!(status, 200);
    assert_eq!(
        document,
        serde_json::to_value(isochron_api::openapi()).unwrap()
    );
    assert_eq!(api.client.collections().await.unwrap(), []);
}

#[tokio::test]
async fn both_listeners_serve_and_stop() {
    let mut api = Api::start().await;
    let over_http = Client::new(format!("http://{}", api.http).parse().unwrap());
    assert_eq!(
        over_http.version().await.unwrap(),
        api.client.version().await.unwrap()
    );

    // A request that waits for long does not hold the daemon up for long.
    api.shop(&["web"]).await;
    api.world
        .fail_next(Point::Stop, None, When::Before, Fault::Hang);
    let job = api
        .client
        .create_snapshot(&snapshot_of("shop", "x"))
        .await
        .unwrap();
    let waiting = tokio::spawn({
        let (client, id) = (api.client.clone(), job.id.to_string());
        async move { client.job(&id, Duration::from_secs(60)).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let began = Instant::now();
    drop(api.stop.take());
    for task in api.tasks.drain(..) {
        task.await.unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(10));
    let _ = waiting.await.unwrap();
    // The job is the engine's, not the listeners'. It ends before its directory.
    api.world.release();
    api.engine.wait_job(model::JobId(job.id)).await.unwrap();
    let socket: PathBuf = api.directory.path().join("api.sock");
    assert!(!socket.exists());
    match api.client.version().await {
        Err(ClientError::Unreachable { .. }) => {}
        other => panic!("somebody answers: {other:?}"),
    }
}

#[tokio::test]
async fn clients_are_told_when_nobody_answers() {
    let nowhere = Client::new(Server::Unix("/nonexistent/isochron.sock".into()));
    let error = nowhere.machines().await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("/nonexistent/isochron.sock"));
}

/// What each role is answered, whoever has it.
#[tokio::test]
async fn users_get_in_with_their_role_and_nobody_else() {
    let api = Api::start_for(None).await;
    let at = || Client::new(format!("http://{}", api.http).parse().unwrap());
    let kind = |error: ClientError| match error {
        ClientError::Refused(refusal) => refusal.kind,
        other => panic!("{other}"),
    };
    // The one who owns the daemon makes users on the socket.
    for role in [Role::Reader, Role::Operator, Role::Administrator] {
        let new = NewUser {
            name: format!("{role:?}"),
            role,
            password: format!("password of {role:?}"),
            ntlm: role == Role::Reader,
        };
        assert_eq!(api.client.add_user(&new).await.unwrap().role, role);
    }
    api.shop(&["web"]).await;
    let unknown = [
        at(),
        at().with_user("Reader", "password of Operator"),
        at().with_user("Nobody", "password of Nobody"),
    ];
    for client in unknown {
        let refused = client.version().await.unwrap_err();
        assert_eq!(kind(refused), ErrorKind::Unauthenticated);
    }
    let challenge = api
        .head("GET /v1/machines HTTP/1.1\r\nHost: localhost")
        .await;
    assert!(challenge.starts_with("HTTP/1.1 401 "), "{challenge}");
    assert!(
        challenge
            .to_lowercase()
            .contains("www-authenticate: basic realm=")
    );
    // A page of somebody else's is refused before it can make a browser ask.
    let page = "GET /v1/machines HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example";
    assert!(api.head(page).await.starts_with("HTTP/1.1 403 "));

    for role in [Role::Reader, Role::Operator, Role::Administrator] {
        let (name, password) = (format!("{role:?}"), format!("password of {role:?}"));
        let client = at().with_user(&name, &password);
        assert_eq!(client.machines().await.unwrap().len(), 1, "{name}");
        let snapshot = client.create_snapshot(&snapshot_of("shop", &name)).await;
        let allowed = role != Role::Reader;
        match snapshot {
            Ok(job) => {
                assert!(allowed);
                assert_eq!(job.owner.as_deref(), Some(&*name));
                assert_eq!(api.ended(&job).await.state, JobState::Completed);
            }
            Err(error) => {
                assert!(!allowed);
                assert_eq!(kind(error), ErrorKind::Forbidden);
            }
        }
        let new = NewCollection {
            name: format!("of {name}"),
            id: None,
            kind: CollectionKind::Machines,
            members: vec![],
        };
        let allowed = role == Role::Administrator;
        let defined = client.create_collection(&new).await;
        assert_eq!(defined.is_ok(), allowed, "{name}");
        assert_eq!(client.users().await.is_ok(), allowed, "{name}");
        let promoted = UserChange {
            role: Some(Role::Administrator),
            ..UserChange::default()
        };
        let promoted = client.change_user("Reader", &promoted).await;
        assert_eq!(promoted.is_ok(), allowed, "{name}");
        // An administrator from elsewhere is not root: files are not theirs to name.
        let outside = api
            .world
            .definition(&format!("of-{name}"), &["root"])
            .into();
        let defined = client.create_machine(&NewMachine::Define(outside)).await;
        assert_eq!(kind(defined.unwrap_err()), ErrorKind::Forbidden, "{name}");
    }
    let users = api.client.users().await.unwrap();
    assert!(
        users
            .iter()
            .any(|user| user.name == "Reader" && user.role == Role::Administrator)
    );
    api.client.remove_user("Operator").await.unwrap();
    let gone = at().with_user("Operator", "password of Operator");
    assert_eq!(
        kind(gone.version().await.unwrap_err()),
        ErrorKind::Unauthenticated
    );
    assert!(
        users.iter().all(|u| u.ntlm == (u.name == "Reader")),
        "{users:?}"
    );
    // Another password is one without NTLM, unless it is asked for again.
    let new = UserChange {
        password: Some("a new password".into()),
        role: Some(Role::Operator),
        ntlm: false,
    };
    let changed = api.client.change_user("Reader", &new).await.unwrap();
    assert_eq!((changed.role, changed.ntlm), (Role::Operator, false));
    let hash_of_nothing = UserChange {
        ntlm: true,
        role: Some(Role::Operator),
        ..UserChange::default()
    };
    let refused = api.client.change_user("Reader", &hash_of_nothing).await;
    assert_eq!(kind(refused.unwrap_err()), ErrorKind::InvalidParameter);
    let reader = at().with_user("Reader", "a new password");
    assert!(reader.version().await.is_ok() && reader.users().await.is_err());
    let nothing = api
        .client
        .change_user("Reader", &UserChange::default())
        .await;
    assert_eq!(kind(nothing.unwrap_err()), ErrorKind::InvalidParameter);
    let nobody = api.client.remove_user("Nobody").await.unwrap_err();
    assert_eq!(kind(nobody), ErrorKind::NotFound);
    let no_tls = api.client.tls().await.unwrap_err();
    assert_eq!(kind(no_tls), ErrorKind::NotFound);
}

/// Guesses are slowed down, then sent away with a word on when to come again; whoever
/// was here before is not.
#[tokio::test]
async fn guessing_is_answered_by_too_many_requests() {
    let api = Api::start_for(None).await;
    let new = NewUser {
        name: "ada".into(),
        role: Role::Reader,
        password: "correct horse".into(),
        ntlm: false,
    };
    api.client.add_user(&new).await.unwrap();
    let at = || Client::new(format!("http://{}", api.http).parse().unwrap());
    let ada = at().with_user("ada", "correct horse");
    ada.version().await.unwrap();
    let guesses = (0..40).map(|number| {
        let guesser = at().with_user("ada", &format!("guess {number}"));
        async move { guesser.version().await.unwrap_err() }
    });
    let guessing = futures::future::join_all(guesses);
    let meanwhile = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let began = Instant::now();
        ada.version().await.unwrap();
        began.elapsed()
    };
    let (refused, waited) = futures::future::join(guessing, meanwhile).await;
    assert!(waited < Duration::from_secs(1), "{waited:?}");
    let busy = |error: &ClientError| match error {
        ClientError::Refused(refusal) => refusal.kind == ErrorKind::Busy,
        _ => false,
    };
    assert!(refused.iter().filter(|error| busy(error)).count() >= 20);
}
