//! The engine on the simulated world: what it does there is what it would do on
//! real machines, and a daemon that dies at any call leaves all or nothing.

use std::path::Path;

use isochron_engine::model::{
    CollectionId, CollectionKind, JobState, MachineId, Power, SnapshotKind,
};
use isochron_engine::ports::Stamp;
use isochron_engine::{Config, CreateSnapshot, Engine};
use isochron_sim::{Daemon, When, World};

/// Two machines that run, in one collection.
struct Setup {
    world: World,
    daemon: Daemon,
    engine: Engine,
    machines: [MachineId; 2],
    collection: CollectionId,
    state: tempfile::TempDir,
}

async fn open(daemon: &Daemon, state: &Path) -> Engine {
    let clock = daemon.world().clock();
    let config = Config::new(state);
    Engine::open(
        daemon.hypervisor(),
        daemon.store(),
        daemon.archive(),
        clock,
        config,
    )
    .await
    .unwrap()
}

async fn setup() -> Setup {
    let world = World::new();
    let daemon = world.daemon();
    let state = tempfile::tempdir().unwrap();
    let engine = open(&daemon, state.path()).await;
    let collection = engine
        .create_collection("ring", None, CollectionKind::Machines)
        .await
        .unwrap()
        .id;
    let mut machines = Vec::new();
    for name in ["a", "b"] {
        let definition = world.definition(name, &["disk0", "disk1"]);
        let id = engine.define_machine(definition).await.unwrap().id;
        engine.start_machine(id).await.unwrap();
        engine.add_machine(collection, id).await.unwrap();
        world.guest_write(id, "disk0", 0, 1).unwrap();
        machines.push(id);
    }
    Setup {
        world,
        daemon,
        engine,
        machines: machines.try_into().unwrap(),
        collection,
        state,
    }
}

fn request(collection: CollectionId, kind: SnapshotKind) -> CreateSnapshot {
    CreateSnapshot {
        collection,
        id: None,
        name: None,
        kind,
        consistency: None,
        ignore_excluded_disks: false,
        owner: None,
    }
}

async fn disagreements(world: &World, engine: &Engine) -> Vec<String> {
    let mut views = Vec::new();
    for machine in engine.machines().await.unwrap() {
        views.push(engine.machine_view(machine.id).await.unwrap());
    }
    let snapshots = engine.snapshots(None).await.unwrap();
    let points = engine.reference_points(None).await.unwrap();
    world.disagreements(&views, &snapshots, &points)
}

#[tokio::test(start_paused = true)]
async fn a_collection_is_snapshotted_applied_and_its_snapshot_destroyed() {
    let Setup {
        world,
        engine,
        machines,
        collection,
        daemon: _daemon,
        state: _state,
    } = setup().await;
    let before = world.survey();
    let started = engine
        .create_snapshot(request(collection, SnapshotKind::Standard))
        .await
        .unwrap();
    let job = engine.wait_job(started.job).await.unwrap();
    assert_eq!(job.state, JobState::Completed, "{job:?}");
    assert_eq!(disagreements(&world, &engine).await, [""; 0]);
    let snapshot = engine.snapshot(started.snapshot).await.unwrap();
    let stamps = |stamp: fn(&isochron_engine::model::CutMember) -> Option<Stamp>| {
        snapshot.cut.members.iter().map(move |m| stamp(m).unwrap())
    };
    assert!(
        stamps(|m| m.stopped_at_us).max() < stamps(|m| m.resumed_at_us).min(),
        "{:?}",
        snapshot.cut
    );

    for id in machines {
        world.guest_write(id, "disk0", 0, 2).unwrap();
    }
    let apply = engine.apply_snapshot(started.snapshot, None).await.unwrap();
    let job = engine.wait_job(apply.job).await.unwrap();
    assert_eq!(job.state, JobState::Completed, "{job:?}");
    for id in machines {
        assert_eq!(world.power(id), Power::Running);
        assert_eq!(world.guest_memory(id).unwrap(), 1);
        assert_eq!(world.guest_view(id, "disk0").unwrap().get(&0), Some(&1));
    }
    assert_eq!(disagreements(&world, &engine).await, [""; 0]);

    let destroy = engine
        .destroy_snapshot(started.snapshot, None)
        .await
        .unwrap();
    let job = engine.wait_job(destroy.job).await.unwrap();
    assert_eq!(job.state, JobState::Completed, "{job:?}");
    assert_eq!(disagreements(&world, &engine).await, [""; 0]);
    assert_eq!(world.survey(), before, "more than before the snapshot");
}

/// Waits without letting time pass: what the guard does, it does at once.
async fn death(daemon: &Daemon) {
    while !daemon.crashed() {
        tokio::task::yield_now().await;
    }
}

/// The daemon dies before the effect of its nth call, or after it, for every n.
#[tokio::test(start_paused = true)]
async fn a_daemon_that_dies_at_any_call_of_a_snapshot_leaves_all_or_nothing() {
    for when in [When::Before, When::After] {
        let (mut nothing, mut all) = (0, 0);
        for n in 1.. {
            let Setup {
                world,
                daemon,
                engine,
                machines,
                collection,
                state,
            } = setup().await;
            let mut calls = 0;
            let dying = daemon.clone();
            world.on_every(when, move |daemon, _| {
                // the next life makes calls as well
                if !dying.crashed() {
                    calls += 1;
                    if calls == n {
                        daemon.crash();
                    }
                }
            });
            let started = engine
                .create_snapshot(request(collection, SnapshotKind::Standard))
                .await;
            if let Ok(started) = started {
                tokio::select! {
                    _ = engine.wait_job(started.job) => {}
                    () = death(&daemon) => {}
                }
            }
            let died = daemon.crashed();
            if !died {
                daemon.crash();
            }
            for id in machines {
                assert_eq!(
                    world.power(id),
                    Power::Running,
                    "{when:?} call {n}: it stands"
                );
                world.guest_write(id, "disk0", 0, 2).unwrap();
            }

            let engine = open(&world.daemon(), state.path()).await;
            let found = disagreements(&world, &engine).await;
            assert_eq!(found, [""; 0], "{when:?} call {n}");
            match engine.snapshots(None).await.unwrap().as_slice() {
                [] => nothing += 1,
                [snapshot] => {
                    assert_eq!(snapshot.members.len(), 2);
                    for disk in snapshot.members.iter().flat_map(|member| &member.disks) {
                        let expected = (disk.disk == "disk0").then_some(1);
                        let view = world.read_view(&disk.path).unwrap();
                        assert_eq!(view.get(&0).copied(), expected, "{when:?} call {n}");
                    }
                    all += 1;
                }
                more => panic!("{when:?} call {n}: {more:?}"),
            }
            for id in machines {
                assert_eq!(world.guest_view(id, "disk0").unwrap().get(&0), Some(&2));
            }
            if !died {
                break;
            }
        }
        assert!(nothing > 20 && all > 0, "{nothing} {all}");
    }
}
