//! What the engine tells those who watch: everything that happens, in order, with
//! what was before.

use std::time::Duration;

use isochron_engine::model::*;
use isochron_engine::*;
use isochron_sim::*;
use tokio::sync::broadcast::Receiver;

use crate::scene::*;
use crate::semantics::host::*;

/// All that was told since the last time.
fn told(events: &mut Receiver<Event>) -> Vec<Event> {
    std::iter::from_fn(|| events.try_recv().ok()).collect()
}

fn change<T>(what: &str, change: &Change<T>, name: impl Fn(&T) -> String) -> String {
    match change {
        Change::Created(now) => format!("{what} {} created", name(now)),
        Change::Changed { before, now } => {
            format!("{what} {} changed to {}", name(before), name(now))
        }
        Change::Gone(before) => format!("{what} {} gone", name(before)),
    }
}

/// The events in words, without those of jobs.
fn words(events: &[Event]) -> Vec<String> {
    let words = events.iter().filter_map(|event| match event {
        Event::Job(_) => None,
        Event::Snapshot(c) => Some(change("snapshot", c, |s| {
            format!("{}/{:?}", s.name, s.parent.is_some())
        })),
        Event::ReferencePoint(c) => Some(change("point", c, |p| {
            format!("{} keeps data: {}", p.name, p.keeps_data)
        })),
        Event::Collection(c) => Some(change("collection", c, |c| {
            format!("{}/{}", c.name, c.machines.len())
        })),
        Event::Machine(c) => Some(change("machine", c, |m| {
            format!("{}/{}", m.name, m.current.is_some())
        })),
        Event::Power {
            machine,
            before,
            now,
        } => Some(format!("{} from {before:?} to {now:?}", machine.name)),
    });
    words.collect()
}

/// The changes of jobs.
fn jobs(events: Vec<Event>) -> Vec<Change<Job>> {
    let jobs = events.into_iter().filter_map(|event| match event {
        Event::Job(change) => Some(change),
        _ => None,
    });
    jobs.collect()
}

answers! {
    what_is_defined_changed_and_forgotten_is_told(host) {
        let mut events = host.engine.events();
        let a = host.off("a").await;
        let all = host.collection("all", &[a]).await;
        host.engine.add_machine(all, a).await.unwrap(); // changes nothing
        host.engine.rename_collection(all, "each").await.unwrap();
        host.engine.rename_collection(all, "each").await.unwrap();
        assert!(host.engine.create_collection("each", None, CollectionKind::Machines).await.is_err());
        host.engine.rename_machine(a, "b").await.unwrap();
        host.engine.remove_machine(all, a).await.unwrap();
        host.engine.destroy_collection(all).await.unwrap();
        host.engine.undefine_machine(a).await.unwrap();
        assert_eq!(words(&told(&mut events)), [
            "machine a/false created",
            "collection all/0 created",
            "collection all/0 changed to all/1",
            "collection all/1 changed to each/1",
            "machine a/false changed to b/false",
            "collection each/1 changed to each/0",
            "collection each/0 gone",
            "machine b/false gone",
        ]);
    }

    what_machines_do_is_told_but_not_the_cut(host) {
        let mut events = host.engine.events();
        let a = host.running("a").await;
        let all = host.collection("all", &[a]).await;
        told(&mut events);
        host.recovery(all).await;
        assert!(!words(&told(&mut events)).iter().any(|event| event.contains("Paused")));
        host.engine.pause_machine(a).await.unwrap();
        host.engine.pause_machine(a).await.unwrap();
        host.engine.resume_machine(a).await.unwrap();
        assert_eq!(words(&told(&mut events)), ["a from Running to Paused", "a from Paused to Running"]);
        // The guest ends by itself.
        host.world.kill_process(a);
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(words(&told(&mut events)), ["a from Running to Off"]);
        assert_eq!(host.engine.last_power(a), Some(Power::Off));
        host.engine.start_machine(a).await.unwrap();
        host.engine.kill_machine(a).await.unwrap();
        assert_eq!(words(&told(&mut events)), ["a from Off to Running", "a from Running to Off"]);
    }

    a_snapshot_is_told_before_the_end_of_its_job(host) {
        let a = host.running("a").await;
        let all = host.collection("all", &[a]).await;
        let mut events = host.engine.events();
        told(&mut events);
        let taken = host.recovery(all).await;
        let all_told = told(&mut events);
        let at = |wanted: &dyn Fn(&Event) -> bool| all_told.iter().position(wanted).unwrap();
        let created = at(&|event| matches!(event, Event::Snapshot(Change::Created(s)) if **s == taken));
        let ended = at(&|event| matches!(event, Event::Job(Change::Changed { now, .. }) if now.ended()));
        assert!(created < ended);

        // Every step of the job, each with the one before it.
        let steps = jobs(all_told);
        let Change::Created(mut last) = steps[0].clone() else { panic!("{steps:?}") };
        assert_eq!(last.percent, 0);
        for step in &steps[1..] {
            let Change::Changed { before, now } = step else { panic!("{step:?}") };
            assert_eq!(before, &last);
            assert!(now.percent >= last.percent && now != &last);
            last = now.clone();
        }
        assert_eq!((last.state, last.percent), (JobState::Completed, 100));
        assert!(steps.len() > 4, "{steps:?}");
    }

    a_destroyed_snapshot_and_those_that_grew_from_it_are_told(host) {
        let a = host.running("a").await;
        let all = host.collection("all", &[a]).await;
        let first = host.recovery(all).await;
        host.recovery(all).await;
        let mut events = host.engine.events();
        told(&mut events);
        host.completed(host.engine.destroy_snapshot(first.id, None).await).await;
        let told = told(&mut events);
        let gone = told.iter().filter_map(|event| match event {
            Event::Snapshot(Change::Gone(gone)) => Some(gone.as_ref()),
            _ => None,
        });
        assert_eq!(gone.collect::<Vec<_>>(), [&first]);
        assert!(told.iter().any(|event| matches!(
            event,
            Event::Snapshot(Change::Changed { before, now })
                if before.parent == Some(first.id) && now.parent.is_none()
        )), "{told:?}");
    }

    what_the_store_wrote_before_it_failed_is_told(host) {
        let mut events = host.engine.events();
        host.world.fail_next(Point::Commit, None, When::After, Fault::Error);
        let create = || host.engine.create_collection("all", None, CollectionKind::Machines);
        create().await.unwrap_err();
        assert_eq!(words(&told(&mut events)), ["collection all/0 created"]);
        host.world.fail_next(Point::Commit, None, When::Before, Fault::Error);
        host.engine.create_collection("other", None, CollectionKind::Machines).await.unwrap_err();
        assert_eq!(words(&told(&mut events)), [""; 0]);
    }

    // Found by a random history: what referred to what was wrong from then on.
    what_the_store_wrote_is_told_when_it_can_be_read_again(host) {
        let a = host.off("a").await;
        let mut events = host.engine.events();
        told(&mut events);
        let world = host.world.clone();
        host.world.on(Point::Commit, When::After, {
            let mut once = Some(());
            move |_, _| if once.take().is_some() {
                world.fail_next(Point::Commit, None, When::After, Fault::Error);
                world.fail_next(Point::Get, None, When::Before, Fault::Error);
            }
        });
        let kind = CollectionKind::Machines;
        host.engine.create_collection("all", None, kind).await.unwrap_err();
        assert_eq!(words(&told(&mut events)), [""; 0]);
        // The next one who asks, or writes, brings it to light.
        assert!(host.engine.collections_with(a).await.unwrap().is_empty());
        assert_eq!(words(&told(&mut events)), ["collection all/0 created"]);
    }

    what_recovery_changed_is_told_to_the_first_who_asks(host) {
        let a = host.running("a").await;
        let all = host.collection("all", &[a]).await;
        host.recovery(all).await;
        host.world.on(Point::CreateOverlay, When::After, |daemon, _| daemon.crash());
        let started = host.engine.create_snapshot(recovery(all)).await.unwrap();
        while !host.daemon.crashed() {
            tokio::task::yield_now().await;
        }
        let engine = host.reopened().await;
        let told = jobs(told(&mut engine.events()));
        let [Change::Changed { before, now }] = &told[..] else { panic!("{told:?}") };
        assert_eq!((before.id, before.state), (started.job, JobState::Running));
        assert_eq!((now.id, now.state), (started.job, JobState::Failed));
        assert!(engine.events().try_recv().is_err());
    }

    a_job_that_is_kept_no_longer_is_told(host) {
        let a = host.running("a").await;
        let all = host.collection("all", &[a]).await;
        host.recovery(all).await;
        let mut events = host.engine.events();
        told(&mut events);
        // What counts is the world's own clock.
        host.world.clock().advance(Duration::from_secs(1_000));
        tokio::time::sleep(Duration::from_secs(10)).await;
        let told = jobs(told(&mut events));
        assert!(matches!(&told[..], [Change::Gone(job)] if job.ended()), "{told:?}");
    }
}
