//! Jobs and their ends, applying, destroying, and what survives the daemon.

use std::time::Duration;

use isochron_engine::model::*;
use isochron_engine::*;
use isochron_sim::*;

use super::host::*;
use crate::scene::*;

answers! {
    a_job_can_be_cancelled_until_the_instant(host) {
        let a = host.running("a").await;
        let all = host.collection("all", &[a]).await;
        let before = host.world.survey();
        for (point, cancelled) in [
            (Point::CreateOverlay, true),
            (Point::Flush, true),
            (Point::Freeze, true),
            (Point::Stop, false),
            (Point::Thaw, false),
        ] {
            host.world.fail_next(point, None, When::Before, Fault::Hang);
            let started = host.engine.create_snapshot(application(all)).await.unwrap();
            while host.world.calls().last().map(|call| call.point) != Some(point) {
                tokio::task::yield_now().await;
            }
            let job = host.engine.job(started.job).await.unwrap();
            assert_eq!((job.state, job.cancellable), (JobState::Running, cancelled), "{point:?}");
            let asked = host.engine.cancel_job(started.job).await;
            assert_eq!(asked.err().map(|e| e.kind), (!cancelled).then_some(ErrorKind::InvalidState));
            host.world.release();
            let job = host.engine.wait_job(started.job).await.unwrap();
            if cancelled {
                assert_eq!(job.state, JobState::Cancelled, "{point:?}: {job:?}");
                assert_eq!(host.world.survey(), before, "{point:?}");
            } else {
                assert_eq!(job.state, JobState::Completed, "{point:?}: {job:?}");
                host.completed(host.engine.destroy_snapshot(started.snapshot, None).await).await;
            }
            let late = host.engine.cancel_job(started.job);
            host.refused(ErrorKind::InvalidState, late).await;
        }
    }

    an_ended_job_is_kept_for_five_minutes(host) {
        let a = host.off("a").await;
        let all = host.collection("all", &[a]).await;
        let started = host.engine.create_snapshot(recovery(all)).await.unwrap();
        let job = host.engine.wait_job(started.job).await.unwrap();
        assert_eq!((job.percent, job.snapshot), (100, Some(started.snapshot)));
        assert!(job.affected.is_some() && job.ended_at.is_some());
        let refusal = EngineError::new(ErrorKind::InvalidState, "it has no members");
        let kind = JobKind::CreateSnapshot;
        let refused = host.engine.record_refusal(kind, None, &refusal).await.unwrap();
        let job = host.engine.job(refused).await.unwrap();
        assert_eq!(job.state, JobState::Failed);
        assert_eq!(job.error.unwrap().message, "it has no members");
        tokio::time::sleep(Duration::from_secs(295)).await;
        assert_eq!(host.engine.jobs().await.unwrap().len(), 2);
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert_eq!(host.engine.jobs().await.unwrap(), []);
        host.refused(ErrorKind::NotFound, host.engine.wait_job(started.job)).await;
    }

    a_member_that_ran_on_does_not_go_back_to_its_rescued_memory(host) {
        let (a, b) = (host.running("a").await, host.running("b").await);
        let all = host.collection("all", &[a, b]).await;
        let taken = snapshot(&host.engine, standard(all)).await;
        host.write(a, 1);
        // All is saved and about to be switched; then we die, the guard lets both run,
        // they write, and one of them dies as well.
        let mut lives = true;
        host.world.on(Point::Disarm, When::Before, move |daemon, _| {
            if std::mem::take(&mut lives) {
                daemon.crash();
            }
        });
        let started = host.engine.apply_snapshot(taken.id, None).await.unwrap();
        while !host.daemon.crashed() {
            tokio::task::yield_now().await;
        }
        for id in [a, b] {
            assert_eq!(host.world.power(id), Power::Running);
            host.write(id, 2);
        }
        host.world.kill_process(a);
        let engine = host.reopened().await;
        let job = engine.wait_job(started.job).await.unwrap();
        assert_eq!(job.state, JobState::Failed, "{job:?}");
        for (id, memory) in [(a, 0), (b, 1)] {
            assert_eq!(engine.power(id).await.unwrap(), Power::Running);
            assert_eq!(host.reads(id), Some(2));
            assert_eq!(host.world.guest_memory(id).unwrap(), memory);
        }
    }

    a_member_that_does_not_stop_in_time_fails_with_timeout_and_everyone_runs(host) {
        let (a, b) = (host.running("a").await, host.running("b").await);
        let all = host.collection("all", &[a, b]).await;
        let before = host.world.survey();
        host.world.fail_next(Point::Stop, Some(b), When::After, Fault::Hang);
        let job = host.ended(host.engine.create_snapshot(recovery(all)).await).await;
        assert_eq!(job.error.unwrap().kind, ErrorKind::Timeout);
        assert_eq!(host.world.survey(), before);
    }

    a_collection_stays_closed_until_it_is_taken_back(host) {
        let a = host.running("a").await;
        let all = host.collection("all", &[a]).await;
        let before = host.world.survey();
        host.world.fail_next(Point::Swap, Some(a), When::Before, Fault::Error);
        for _ in 0..3 {
            host.world.fail_next(Point::CancelSave, Some(a), When::Before, Fault::Timeout);
        }
        let job = host.ended(host.engine.create_snapshot(standard(all)).await).await;
        assert_eq!(job.state, JobState::Failed);
        assert_eq!(host.world.power(a), Power::Running);
        host.snapshot_refused(ErrorKind::InvalidState, standard(all)).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(host.world.survey(), before);
        snapshot(&host.engine, standard(all)).await;
    }

    merging_that_fails_is_tried_again_and_closes_nothing_meanwhile(host) {
        let a = host.running("a").await;
        let all = host.collection("all", &[a]).await;
        let before = host.world.survey();
        let (first, second) = (host.recovery(all).await, host.recovery(all).await);
        host.write(a, 1);
        for _ in 0..3 {
            host.world.fail_next(Point::Merge, Some(a), When::Before, Fault::Error);
        }
        let job = host.ended(host.engine.destroy_snapshot(first.id, None).await).await;
        assert_eq!(job.state, JobState::Failed, "{job:?}");
        assert_eq!(host.engine.snapshots(None).await.unwrap().len(), 1);
        tokio::time::sleep(Duration::from_millis(100)).await;
        host.ended(host.engine.destroy_snapshot(second.id, None).await).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(host.world.survey(), before);
        assert_eq!(host.reads(a), Some(1));
    }

    a_store_that_fails_after_it_wrote_is_believed_what_it_holds(host) {
        let a = host.running("a").await;
        let all = host.collection("all", &[a]).await;
        let before = host.world.survey();
        let taken = host.recovery(all).await;
        let started = host.engine.destroy_snapshot(taken.id, None).await;
        host.world.fail_next(Point::Commit, None, When::After, Fault::Error);
        host.completed(started).await;
        assert_eq!(host.world.survey(), before);
    }

    a_destroyed_snapshot_leaves_its_children_to_its_parent(host) {
        let a = host.running("a").await;
        let all = host.collection("all", &[a]).await;
        let before = host.world.survey();
        let mut taken = Vec::new();
        for value in 1..=3 {
            host.write(a, value);
            taken.push(host.recovery(all).await);
        }
        host.write(a, 4);
        host.completed(host.engine.destroy_snapshot(taken[1].id, None).await).await;
        let left = host.engine.snapshots(Some(all)).await.unwrap();
        assert_eq!(left.iter().map(|s| s.id).collect::<Vec<_>>(), [taken[0].id, taken[2].id]);
        assert_eq!(left[1].parent, Some(taken[0].id));
        assert_eq!(left[1].members[0].parent, Some(taken[0].members[0].id));
        for (snapshot, value) in left.iter().zip([1, 3]) {
            let path = &snapshot.members[0].disks[0].path;
            assert_eq!(host.world.read_view(path).unwrap()[&0], value);
        }
        assert_eq!(host.stands_on(all).await, Some(taken[2].id));
        host.completed(host.engine.destroy_snapshot(taken[2].id, None).await).await;
        assert_eq!(host.stands_on(all).await, Some(taken[0].id));
        host.completed(host.engine.destroy_snapshot(taken[0].id, None).await).await;
        // The guest writes to its first image again.
        assert_eq!(host.world.survey(), before);
        assert_eq!(host.reads(a), Some(4));
    }

    a_snapshot_is_applied_again_and_again_and_new_ones_grow_from_it(host) {
        let a = host.running("a").await;
        let all = host.collection("all", &[a]).await;
        let before = host.world.survey();
        host.write(a, 1);
        let root = snapshot(&host.engine, standard(all)).await;
        let mut branches = Vec::new();
        for value in [2, 3] {
            host.completed(host.engine.apply_snapshot(root.id, None).await).await;
            assert_eq!((host.reads(a), host.world.guest_memory(a)), (Some(1), Ok(1)));
            host.write(a, value);
            let branch = snapshot(&host.engine, standard(all)).await;
            assert_eq!(branch.parent, Some(root.id));
            branches.push(branch);
        }
        host.write(a, 9);
        for (branch, value) in branches.iter().zip([2, 3]) {
            host.completed(host.engine.apply_snapshot(branch.id, None).await).await;
            assert_eq!((host.reads(a), host.world.guest_memory(a)), (Some(value), Ok(2)));
            assert_eq!(host.stands_on(all).await, Some(branch.id));
        }
        host.completed(host.engine.destroy_snapshot(root.id, None).await).await;
        for branch in &branches {
            assert_eq!(host.engine.snapshot(branch.id).await.unwrap().parent, None);
            host.completed(host.engine.destroy_snapshot(branch.id, None).await).await;
        }
        assert_eq!(host.reads(a), Some(3));
        assert_eq!(host.world.survey().files, before.files);
    }

    a_committed_apply_goes_forward_and_its_job_says_so(host) {
        let a = host.running("a").await;
        let all = host.collection("all", &[a]).await;
        host.write(a, 1);
        let taken = host.recovery(all).await;
        host.write(a, 2);
        for _ in 0..3 {
            host.world.fail_next(Point::Resume, Some(a), When::Before, Fault::Timeout);
        }
        let started = host.engine.apply_snapshot(taken.id, None).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        let job = host.engine.job(started.as_ref().unwrap().job).await.unwrap();
        assert_eq!(job.state, JobState::Running, "{job:?}");
        host.completed(started).await;
        assert_eq!((host.world.power(a), host.reads(a)), (Power::Running, Some(1)));
    }

    a_guest_that_has_run_on_is_never_started_from_its_old_memory(host) {
        let (a, b) = (host.running("a").await, host.running("b").await);
        let all = host.collection("all", &[a, b]).await;
        let taken = host.recovery(all).await;
        host.write(a, 1);
        // b does not come up; a goes on from where it was, writes, and power is lost
        // before the records say that the apply is taken back.
        host.world.fail_next(Point::Start, Some(b), When::Before, Fault::Error);
        let died = std::sync::Arc::new(tokio::sync::Notify::new());
        let dying = died.clone();
        host.world.on(Point::Resume, When::After, move |daemon, call| {
            if call.machine == Some(a) {
                daemon.world().guest_write(a, "disk0", 0, 2).unwrap();
                daemon.crash();
                daemon.world().kill_process(a);
                daemon.world().kill_process(b);
                dying.notify_one();
            }
        });
        host.engine.apply_snapshot(taken.id, None).await.unwrap();
        died.notified().await;
        let engine = host.reopened().await;
        let view = engine.machine_view(a).await.unwrap();
        let held = host.world.read_view(&view.disks[0].chain[0].path).unwrap();
        assert_eq!((view.power, held[&0]), (Power::Off, 2));
        assert_eq!(disagreements(&host.world, &engine).await.unwrap(), [""; 0]);
    }

    a_new_daemon_takes_machines_over_and_an_unfinished_job_has_failed(host) {
        let a = host.running("a").await;
        let all = host.collection("all", &[a]).await;
        let before = host.world.survey();
        host.world.fail_next(Point::Stop, Some(a), When::After, Fault::Hang);
        let started = host.engine.create_snapshot(recovery(all)).await.unwrap();
        while host.world.power(a) == Power::Running {
            tokio::task::yield_now().await;
        }
        host.daemon.crash();
        assert_eq!(host.world.power(a), Power::Running, "the guard acts");
        let engine = host.reopened().await;
        let job = engine.job(started.job).await.unwrap();
        assert_eq!((job.state, job.cancellable), (JobState::Failed, false));
        assert_eq!(host.world.survey(), before);
        assert_eq!(engine.power(a).await.unwrap(), Power::Running);
    }
}

/// Its start could not be recorded as done; what its owner asked for since holds.
#[tokio::test(start_paused = true)]
async fn a_machine_that_was_paused_after_a_start_with_a_failing_store_stays_paused() {
    let host = Host::new().await;
    let machine = host.off("a").await;
    let world = host.world.clone();
    host.world.on(Point::Resume, When::After, move |_, _| {
        for _ in 0..8 {
            world.fail_next(Point::Commit, None, When::Before, Fault::Error);
        }
    });
    host.engine.start_machine(machine).await.unwrap();
    host.world.forgive();
    host.engine.pause_machine(machine).await.unwrap();
    let engine = host.reopened().await;
    assert_eq!(engine.power(machine).await.unwrap(), Power::Paused);
}

/// Found by a random history: its process stood, and nobody resumed it.
#[tokio::test(start_paused = true)]
async fn a_machine_that_was_being_started_when_the_daemon_died_runs() {
    for when in [When::Before, When::After] {
        let host = Host::new().await;
        let machine = host.off("a").await;
        let first = host.daemon.clone();
        host.world
            .on(Point::Resume, when, move |_, _| first.crash());
        assert!(host.engine.start_machine(machine).await.is_err());
        let engine = host.reopened().await;
        assert_eq!(engine.power(machine).await.unwrap(), Power::Running);
        // And one that is paused afterwards stays so.
        engine.pause_machine(machine).await.unwrap();
        let engine = host.reopened().await;
        assert_eq!(engine.power(machine).await.unwrap(), Power::Paused);
    }
}
