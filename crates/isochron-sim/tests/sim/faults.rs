//! Faults meet the call that they are meant for, before or after its effect; a
//! dead daemon does nothing more, and its guards act; time is virtual.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{machine, run};
use isochron_engine::model::Power;
use isochron_engine::ports::{
    Batch, Clock, Guarded, Hypervisor, HypervisorError, Store, StoreError, Write,
};
use isochron_sim::{Fault, Point, SimClock, When, World};

const A: &str = "/images/a-disk0.qcow2";
const B: &str = "/images/b-disk0.qcow2";

fn put(key: &str) -> Batch {
    Batch {
        checks: vec![],
        writes: vec![Write::Put(key.to_owned(), b"{}".to_vec())],
    }
}

#[tokio::test]
async fn a_fault_meets_its_call_and_no_other() {
    let world = World::new();
    let daemon = world.daemon();
    let (a, b) = (machine(&world, "a"), machine(&world, "b"));
    let (live_a, live_b) = (run(&daemon, &a, &[A]).await, run(&daemon, &b, &[B]).await);

    world.fail_next(Point::Stop, Some(b.id), When::Before, Fault::Timeout);
    live_a.stop().await.unwrap();
    assert!(matches!(
        live_b.stop().await,
        Err(HypervisorError::Timeout(_))
    ));
    assert_eq!(
        (world.power(a.id), world.power(b.id)),
        (Power::Paused, Power::Running)
    );
    live_b.stop().await.unwrap();

    world.fail_next(Point::Resume, None, When::After, Fault::Error);
    assert!(matches!(
        live_a.resume().await,
        Err(HypervisorError::Failed(_))
    ));
    assert_eq!(world.power(a.id), Power::Running, "the effect was lost");
    live_b.resume().await.unwrap();

    // what the port promises on error holds: no process, file systems thawed
    world.fail_next(Point::Freeze, None, When::After, Fault::Error);
    assert!(live_a.freeze(Duration::from_secs(1)).await.is_err());
    world.guest_write(a.id, "disk0", 0, 1).unwrap();
    daemon.hypervisor().kill(&a).await.unwrap();
    world.fail_next(Point::Start, None, When::After, Fault::Error);
    assert!(
        daemon
            .hypervisor()
            .start(crate::common::start(&a, &[A]))
            .await
            .is_err()
    );
    assert_eq!(world.power(a.id), Power::Off);
}

#[tokio::test]
async fn a_call_hangs_until_it_is_released() {
    let world = World::new();
    let daemon = world.daemon();
    let a = machine(&world, "a");
    let live = run(&daemon, &a, &[A]).await;
    for (when, meanwhile) in [(When::Before, Power::Running), (When::After, Power::Paused)] {
        live.resume().await.unwrap();
        world.fail_next(Point::Stop, None, when, Fault::Hang);
        let stop = tokio::spawn({
            let live = Arc::clone(&live);
            async move { live.stop().await }
        });
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!stop.is_finished());
        assert_eq!(world.power(a.id), meanwhile);
        world.release();
        stop.await.unwrap().unwrap();
        assert_eq!(world.power(a.id), Power::Paused);
    }
}

#[tokio::test]
async fn a_hook_acts_between_a_call_and_its_answer() {
    let world = World::new();
    let daemon = world.daemon();
    let a = machine(&world, "a");
    let live = run(&daemon, &a, &[A]).await;
    world.on(Point::Stop, When::Before, |daemon, call| {
        daemon
            .world()
            .guest_write(call.machine.unwrap(), "disk0", 0, 5)
            .unwrap();
    });
    live.stop().await.unwrap();
    assert_eq!(world.guest_view(a.id, "disk0").unwrap().get(&0), Some(&5));
    let points: Vec<_> = world.calls().iter().map(|call| call.point).collect();
    assert_eq!(points, [Point::Start, Point::Resume, Point::Stop]);
}

#[tokio::test]
async fn a_dead_daemon_does_nothing_more_and_its_armed_guard_acts() {
    let world = World::new();
    let daemon = world.daemon();
    let (a, b) = (machine(&world, "a"), machine(&world, "b"));
    let (live_a, live_b) = (run(&daemon, &a, &[A]).await, run(&daemon, &b, &[B]).await);
    let guarded = |machine| Guarded {
        machine,
        resume: true,
        thaw: true,
    };
    let armed = daemon.hypervisor().guard(&[guarded(a.id)]).await.unwrap();
    let unarmed = daemon.hypervisor().guard(&[guarded(b.id)]).await.unwrap();
    armed.arm(Duration::from_secs(5)).await.unwrap();
    live_a.freeze(Duration::from_secs(1)).await.unwrap();
    live_b.stop().await.unwrap();
    daemon.store().commit(put("kept")).await.unwrap();

    world.on(Point::Stop, When::After, |daemon, _| {
        let world = daemon.world();
        assert_eq!(world.survey().guards, 2);
        daemon.crash();
    });
    assert!(live_a.stop().await.is_err());
    assert!(daemon.crashed());
    assert_eq!(
        world.power(a.id),
        Power::Running,
        "the guard did not resume it"
    );
    world.guest_write(a.id, "disk0", 0, 1).unwrap(); // and thawed it
    assert_eq!(
        world.power(b.id),
        Power::Paused,
        "a guard that was not armed acted"
    );
    assert_eq!(world.survey().guards, 0);

    assert!(live_b.resume().await.is_err());
    assert!(daemon.hypervisor().kill(&b).await.is_err());
    assert!(daemon.store().commit(put("lost")).await.is_err());
    assert!(armed.disarm().await.is_err());
    drop((armed, unarmed));
    assert_eq!(world.power(b.id), Power::Paused);

    let next = world.daemon();
    let live = next.hypervisor().live(&b).await.unwrap().unwrap();
    live.resume().await.unwrap();
    let keys: Vec<_> = next
        .store()
        .list("")
        .await
        .unwrap()
        .into_iter()
        .map(|r| r.key)
        .collect();
    assert_eq!(keys, ["kept"]);
}

#[tokio::test]
async fn a_crash_before_the_effect_leaves_none() {
    let world = World::new();
    let daemon = world.daemon();
    world.on(Point::Commit, When::Before, |daemon, _| daemon.crash());
    assert!(daemon.store().commit(put("a")).await.is_err());
    assert_eq!(world.daemon().store().get("a").await, Ok(None));
}

#[tokio::test]
async fn a_commit_fails_before_or_after_it_is_made() {
    let world = World::new();
    let store = world.daemon().store();
    for (key, when, made) in [("a", When::Before, false), ("b", When::After, true)] {
        world.fail_next(Point::Commit, None, when, Fault::Error);
        assert!(matches!(
            store.commit(put(key)).await,
            Err(StoreError::Failed(_))
        ));
        assert_eq!(store.get(key).await.unwrap().is_some(), made);
    }
}

#[tokio::test(start_paused = true)]
async fn a_guard_acts_when_its_time_has_come() {
    let world = World::new();
    let daemon = world.daemon();
    let a = machine(&world, "a");
    let live = run(&daemon, &a, &[A]).await;
    let member = Guarded {
        machine: a.id,
        resume: true,
        thaw: false,
    };
    let guard = daemon.hypervisor().guard(&[member]).await.unwrap();

    // in time; armed again, the new deadline counts
    guard.arm(Duration::from_secs(1)).await.unwrap();
    guard.arm(Duration::from_secs(60)).await.unwrap();
    live.stop().await.unwrap();
    world.clock().sleep(Duration::from_secs(30)).await;
    assert_eq!(world.power(a.id), Power::Paused);
    assert_eq!(guard.disarm().await, Ok(true));
    world.clock().sleep(Duration::from_secs(60)).await;
    assert_eq!(world.power(a.id), Power::Paused, "a disarmed guard acted");

    // late
    guard.arm(Duration::from_secs(60)).await.unwrap();
    world.clock().sleep(Duration::from_secs(61)).await;
    assert_eq!(world.power(a.id), Power::Running);
    assert_eq!(guard.disarm().await, Ok(false));
    assert!(guard.arm(Duration::from_secs(60)).await.is_err());
    drop(guard);
    assert_eq!(world.survey().guards, 0);
}

#[tokio::test(start_paused = true)]
async fn an_automatic_clock_agrees_with_tokios() {
    let clock = SimClock::auto();
    let before = clock.stamp();
    clock.sleep(Duration::from_secs(3600)).await;
    assert_eq!(clock.stamp() - before, 3_600_000_000);
    let sleep = clock.sleep(Duration::from_secs(10));
    assert!(
        tokio::time::timeout(Duration::from_secs(9), sleep)
            .await
            .is_err()
    );
    let sleep = clock.sleep(Duration::from_secs(10));
    assert!(
        tokio::time::timeout(Duration::from_secs(11), sleep)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_manual_clock_moves_when_the_test_says_so() {
    let clock = Arc::new(SimClock::manual());
    let before = clock.now();
    let sleeper = tokio::spawn({
        let clock = Arc::clone(&clock);
        async move { clock.sleep(Duration::from_secs(10)).await }
    });
    tokio::task::yield_now().await;
    clock.advance(Duration::from_secs(9));
    tokio::task::yield_now().await;
    assert!(!sleeper.is_finished());
    clock.advance(Duration::from_secs(1));
    sleeper.await.unwrap();
    assert_eq!(clock.now() - before, Duration::from_secs(10));
}
