//! Who may do what: every method that changes something, as each role; what the
//! audit is told; and whose paths go where.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use isochron_engine::model::{
    CollectionId, CollectionKind, Definition, JobId, JobKind, MachineId, ReferencePointId,
    SnapshotId, SnapshotKind,
};
use isochron_engine::{
    Act, Audit, Caller, Config, CreateReferencePoint, CreateSnapshot, Engine, EngineError,
    ErrorKind, ExportRequest, Exports, Operation, Role,
};
use isochron_sim::World;

type Try = BoxFuture<'static, Result<(), EngineError>>;

async fn open(world: &World, config: Config) -> Engine {
    let daemon = world.daemon();
    Engine::open(
        daemon.hypervisor(),
        daemon.store(),
        daemon.archive(),
        world.clock(),
        config,
    )
    .await
    .unwrap()
}

/// Every method that changes something, of things that are not there: who may is
/// told so.
fn attempts(definition: &Definition, engine: &Engine) -> Vec<(&'static str, Role, Try)> {
    use Role::{Administrator, Operator};
    let (machine, collection) = (MachineId::new(), CollectionId::new());
    let (snapshot, job) = (SnapshotId::new(), JobId::new());
    let (member, point) = (CollectionId::new(), ReferencePointId::new());
    let mut definition = definition.clone();
    definition.name = String::new();
    let saved = definition.clone();
    macro_rules! attempt {
        ($name:literal, $role:ident, $engine:ident => $call:expr) => {{
            let $engine = engine.clone();
            let call = async move { $call.await.map(drop) };
            ($name, $role, call.boxed())
        }};
    }
    vec![
        attempt!("create", Operator, e => e.create_snapshot(CreateSnapshot {
            collection,
            id: None,
            name: None,
            kind: SnapshotKind::Standard,
            consistency: None,
            ignore_excluded_disks: false,
            owner: None,
        })),
        attempt!("apply", Operator, e => e.apply_snapshot(snapshot, None)),
        attempt!("destroy", Operator, e => e.destroy_snapshot(snapshot, None)),
        attempt!("convert", Operator, e => e.convert_snapshot(snapshot, None, None)),
        attempt!("create point", Operator, e => e.create_reference_point(CreateReferencePoint {
            collection,
            id: None,
            name: None,
            consistency: None,
            ignore_excluded_disks: false,
            owner: None,
        })),
        attempt!("remove data", Operator, e => e.remove_reference_point_data(point, None)),
        attempt!("destroy point", Operator, e => e.destroy_reference_point(point, None)),
        attempt!("export", Operator, e => e.export(ExportRequest {
            what: Exports::Point(point),
            directory: "/nowhere".into(),
            base: None,
            merge: false,
            copy_storage: true,
            limit: None,
            disks: None,
            require_difference: false,
            owner: None,
        })),
        attempt!("cancel", Operator, e => e.cancel_job(job)),
        attempt!("start", Operator, e => e.start_machine(machine)),
        attempt!("shut down", Operator, e => e.shut_down_machine(machine, Duration::ZERO)),
        attempt!("kill", Operator, e => e.kill_machine(machine)),
        attempt!("pause", Operator, e => e.pause_machine(machine)),
        attempt!("resume", Operator, e => e.resume_machine(machine)),
        attempt!("define", Administrator, e => e.define_machine(definition)),
        attempt!("define saved", Administrator,
            e => e.define_saved_machine(saved, "/nowhere".into())),
        attempt!("attach", Administrator, e => e.attach_machine("x", "/nowhere".into(), None)),
        attempt!("undefine", Administrator, e => e.undefine_machine(machine)),
        attempt!("rename", Administrator, e => e.rename_machine(machine, "y")),
        attempt!("collect", Administrator, e => e.create_collection("", None,
            CollectionKind::Machines)),
        attempt!("rename collection", Administrator, e => e.rename_collection(collection, "z")),
        attempt!("destroy collection", Administrator, e => e.destroy_collection(collection)),
        attempt!("add machine", Administrator, e => e.add_machine(collection, machine)),
        attempt!("remove machine", Administrator, e => e.remove_machine(collection, machine)),
        attempt!("remove collection", Administrator,
            e => e.remove_collection(collection, member)),
    ]
}

#[tokio::test(start_paused = true)]
async fn every_change_takes_its_role_and_the_audit_is_told() {
    let world = World::new();
    let state = tempfile::tempdir().unwrap();
    let engine = open(&world, Config::new(state.path())).await;
    let definition = world.definition("web", &["root"]);
    for role in Role::ALL {
        let heard = Arc::new(Heard::default());
        let caller = Caller::user("ada", role, "test");
        let engine = engine.audited(heard.clone()).on_behalf_of(caller);
        for (name, least, attempt) in attempts(&definition, &engine) {
            let error = attempt.await.unwrap_err();
            let denied = error.kind == ErrorKind::AccessDenied;
            // Of paths of their own, only root may name any.
            let confined = ["define", "define saved", "attach", "export"].contains(&name);
            assert_eq!(
                denied,
                role < least || confined,
                "{name} as {role}: {error}"
            );
            let told = heard.0.lock().unwrap().pop().unwrap();
            assert_eq!(told, format!("ada {role}: {:?}", error.kind), "{name}");
            assert!(heard.0.lock().unwrap().is_empty(), "{name} is told once");
        }
        // What changes nothing is anyone's, and is not told.
        engine.machines().await.unwrap();
        engine.jobs().await.unwrap();
        assert!(heard.0.lock().unwrap().is_empty());
        // A refusal is kept for those who might have succeeded.
        let kept = engine
            .record_refusal(
                JobKind::CreateSnapshot,
                None,
                &EngineError::new(ErrorKind::Failed, ""),
            )
            .await;
        assert_eq!(kept.is_ok(), role >= Role::Operator, "{role}");
    }
    assert!(engine.machines().await.unwrap().is_empty());
    assert!(engine.collections().await.unwrap().is_empty());
}

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Audit for Heard {
    fn record(&self, act: Act<'_>) {
        let who = act.caller.name.as_deref().unwrap_or("?");
        let error = act.error.map(|error| error.kind).unwrap();
        let line = format!("{who} {}: {error:?}", act.caller.role);
        self.0.lock().unwrap().push(line);
    }
}

#[test]
fn readers_change_nothing_and_operators_define_nothing() {
    for operation in Operation::ALL {
        assert!(operation.role() > Role::Reader, "{operation}");
        let defines = ["define", "attach", "undefine", "add", "remove"]
            .iter()
            .any(|word| operation.as_str().starts_with(word));
        if defines {
            assert_eq!(operation.role(), Role::Administrator, "{operation}");
        }
    }
}

/// Of a definition, every path and every way to name one.
#[tokio::test]
async fn a_confined_administrator_defines_only_what_lies_below_a_root() {
    let world = World::new();
    let directory = tempfile::tempdir().unwrap();
    let open_to_all = directory.path().canonicalize().unwrap().join("open");
    std::fs::create_dir(&open_to_all).unwrap();
    let config = Config {
        roots: vec![open_to_all.clone()],
        ..Config::new(directory.path().join("state"))
    };
    let engine = open(&world, config).await;
    let admin = engine.on_behalf_of(Caller::user("ada", Role::Administrator, "test"));
    let image = world.definition("web", &["root"]);
    let definition = || {
        let mut definition = image.clone();
        for disk in &mut definition.disks {
            disk.path = open_to_all.join("web.qcow2");
        }
        definition
    };
    let outside = directory.path().join("elsewhere");
    let mut refused = Vec::new();
    for field in 0..7 {
        let mut definition = definition();
        match field {
            0 => definition.disks[0].path.clone_from(&outside),
            1 => definition.kernel = Some(outside.clone()),
            2 => definition.initrd = Some(outside.clone()),
            3 => definition.firmware = Some(outside.clone()),
            4 => definition.serial_log = Some(outside.clone()),
            5 => definition.extra_args = vec!["-version".into()],
            _ => definition.disks[0].path = open_to_all.join("../elsewhere"),
        }
        refused.push(admin.define_machine(definition).await.unwrap_err());
    }
    for (field, error) in refused.iter().enumerate() {
        assert_eq!(error.kind, ErrorKind::AccessDenied, "{field}: {error}");
    }
    let memory = admin.define_saved_machine(definition(), outside.clone());
    assert_eq!(memory.await.unwrap_err().kind, ErrorKind::AccessDenied);
    let qmp = admin.attach_machine("a", outside.clone(), None).await;
    assert_eq!(qmp.unwrap_err().kind, ErrorKind::AccessDenied);
    // What is below a root is a matter of the hypervisor, as everything is of root.
    let other = |result: Result<_, EngineError>| match result {
        Ok(_) => true,
        Err(error) => error.kind != ErrorKind::AccessDenied,
    };
    assert!(other(admin.define_machine(definition()).await));
    let mut anywhere = definition();
    anywhere.disks[0].path = outside;
    assert!(other(engine.define_machine(anywhere).await));
}
