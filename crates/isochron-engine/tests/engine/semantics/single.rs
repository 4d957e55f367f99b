//! A single machine: its snapshots, which are those of a collection of one, its
//! saved state, its names and notes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use isochron_engine::model::*;
use isochron_engine::*;
use isochron_sim::{Fault, Point, When};

use super::host::*;
use crate::scene::*;

answers! {
    a_machine_is_a_collection_of_one(host) {
        let a = host.running("a").await;
        host.write(a, 1);
        let taken = snapshot(&host.engine, standard(a.into())).await;
        assert_eq!(taken.of_machine(), Some(a));
        assert_eq!((taken.collection_name.as_str(), taken.parent), ("a", None));
        assert!(taken.name.starts_with("a - ("), "{}", taken.name);
        // Nobody sees a collection for it.
        assert_eq!(host.engine.collections().await.unwrap(), []);
        assert_eq!(host.engine.snapshots(Some(a.into())).await.unwrap(), std::slice::from_ref(&taken));
        host.write(a, 2);
        let second = snapshot(&host.engine, recovery(a.into())).await;
        assert_eq!(second.parent, Some(taken.id));
        assert_eq!(second.members[0].parent, Some(taken.members[0].id));
        host.completed(host.engine.apply_snapshot(taken.id, None).await).await;
        assert_eq!(host.reads(a), Some(1));
        assert_eq!(host.engine.machine(a).await.unwrap().last_applied, Some(taken.id));
        host.completed(host.engine.destroy_snapshot(taken.id, None).await).await;
        host.completed(host.engine.destroy_snapshot(second.id, None).await).await;
        assert_eq!(host.reads(a), Some(1));
        assert_eq!(host.engine.machine(a).await.unwrap().current, None);
    }

    what_refers_to_what_is_known_of_each_object(host) {
        let (a, b) = (host.running("a").await, host.running("b").await);
        let all = host.collection("all", &[a, b]).await;
        let above = host.above("above", &[all]).await;
        let first = host.recovery(all).await;
        let second = snapshot(&host.engine, recovery(a.into())).await;
        let member = first.members.iter().find(|m| m.machine == a).unwrap().id;
        for engine in [host.engine.clone(), host.reopened().await] {
            let names = |found: Vec<Collection>| found.into_iter().map(|c| c.name).collect::<Vec<_>>();
            assert_eq!(names(engine.collections_with(a).await.unwrap()), ["all"]);
            assert_eq!(names(engine.collections_above(all).await.unwrap()), ["above"]);
            assert_eq!(names(engine.collections_above(above).await.unwrap()), [""; 0]);
            let both = [first.clone(), second.clone()];
            assert_eq!(engine.snapshots_of_machine(a).await.unwrap(), both);
            assert_eq!(engine.snapshots_of_machine(b).await.unwrap(), both[..1]);
            assert_eq!(engine.snapshots_grown_from(member).await.unwrap(), both[1..]);
            assert_eq!(engine.snapshot_with(member).await.unwrap(), Some(first.clone()));
        }
    }

    a_machines_identifier_is_no_collections(host) {
        let a = host.off("a").await;
        let kind = CollectionKind::Machines;
        let id = Some(a.into());
        host.refused(ErrorKind::Exists, host.engine.create_collection("a", id, kind)).await;
        let all = host.collection("all", &[a]).await;
        let definition = Definition {
            id: Some(MachineId(all.0)),
            ..host.world.definition("b", &["disk0"])
        };
        assert_eq!(
            host.engine.define_machine(definition).await.unwrap_err().kind,
            ErrorKind::Exists
        );
        // A machine that is the only member of a collection is not that collection.
        let taken = host.recovery(all).await;
        assert_eq!(taken.of_machine(), None);
        host.snapshot_refused(ErrorKind::NotFound, recovery(CollectionId::new())).await;
    }

    single_and_collection_snapshots_form_one_tree(host) {
        let (a, b) = (host.running("a").await, host.running("b").await);
        let all = host.collection("all", &[a, b]).await;
        let first = host.recovery(all).await;
        let single = snapshot(&host.engine, recovery(a.into())).await;
        assert_eq!(single.parent, Some(first.id));
        let part = first.members.iter().find(|m| m.machine == a).unwrap().id;
        assert_eq!(single.members[0].parent, Some(part));
        assert_eq!(host.stands_on(all).await, Some(first.id));
        let third = host.recovery(all).await;
        let on_a = third.members.iter().find(|m| m.machine == a).unwrap();
        assert_eq!(on_a.parent, Some(single.members[0].id));
        // What grew from it is part of more than this machine's tree.
        let why = host
            .refused(ErrorKind::InvalidState, host.engine.destroy_snapshot_tree(single.id, None))
            .await;
        assert!(why.contains("all"), "{why}");
        host.completed(host.engine.destroy_snapshot(single.id, None).await).await;
        let third = host.engine.snapshot(third.id).await.unwrap();
        let on_a = third.members.iter().find(|m| m.machine == a).unwrap();
        assert_eq!(on_a.parent, Some(part));
    }

    a_tree_goes_at_once_and_leaves_what_it_grew_from(host) {
        let a = host.running("a").await;
        let before = host.world.survey();
        let mut taken = Vec::new();
        for value in 1..=4 {
            host.write(a, value);
            taken.push(snapshot(&host.engine, recovery(a.into())).await);
        }
        // Two branches: on the second one stands a fifth.
        host.completed(host.engine.apply_snapshot(taken[1].id, None).await).await;
        taken.push(snapshot(&host.engine, standard(a.into())).await);
        assert_eq!(taken[4].members[0].parent, Some(taken[1].members[0].id));
        host.completed(host.engine.destroy_snapshot_tree(taken[1].id, None).await).await;
        let left = host.engine.snapshots(None).await.unwrap();
        assert_eq!(left, taken[..1]);
        let machine = host.engine.machine(a).await.unwrap();
        assert_eq!((machine.current, machine.last_applied), (Some(taken[0].id), None));
        assert_eq!(host.reads(a), Some(2));
        host.completed(host.engine.destroy_snapshot_tree(taken[0].id, None).await).await;
        assert_eq!(host.reads(a), Some(2));
        assert_eq!(host.world.survey().files, before.files);
    }

    one_member_returns_and_the_others_stay(host) {
        let (a, b) = (host.running("a").await, host.running("b").await);
        let all = host.collection("all", &[a, b]).await;
        host.write(a, 1);
        host.write(b, 1);
        let first = host.recovery(all).await;
        let second = host.recovery(all).await;
        host.write(a, 2);
        host.write(b, 2);
        host.completed(host.engine.apply_snapshot_to(first.id, a, None).await).await;
        assert_eq!((host.reads(a), host.reads(b)), (Some(1), Some(2)));
        assert_eq!(host.stands_on(all).await, Some(second.id));
        assert_eq!(host.engine.machine(a).await.unwrap().current, Some(first.id));
        assert_eq!(host.engine.machine(b).await.unwrap().current, Some(second.id));
        let stranger = host.off("stranger").await;
        let wrong = host.engine.apply_snapshot_to(first.id, stranger, None);
        host.refused(ErrorKind::NotFound, wrong).await;
    }

    a_snapshots_memory_can_be_cleared(host) {
        let a = host.running("a").await;
        host.write(a, 1);
        let taken = snapshot(&host.engine, standard(a.into())).await;
        let file = taken.members[0].memory.clone().unwrap().path;
        host.engine.clear_snapshot_memory(taken.id).await.unwrap();
        assert!(!host.world.survey().files.contains(&file));
        host.write(a, 2);
        host.completed(host.engine.apply_snapshot(taken.id, None).await).await;
        assert_eq!(host.world.power(a), Power::Off);
        host.engine.start_machine(a).await.unwrap();
        assert_eq!(host.reads(a), Some(1));
        host.engine.clear_snapshot_memory(taken.id).await.unwrap();
    }

    snapshots_and_machines_have_names_and_notes(host) {
        let a = host.off("a").await;
        let taken = snapshot(&host.engine, recovery(a.into())).await;
        host.engine.rename_snapshot(taken.id, "before").await.unwrap();
        host.engine.note_snapshot(taken.id, "for Friday").await.unwrap();
        host.engine.note_machine(a, "the shop's").await.unwrap();
        let engine = host.reopened().await;
        let again = engine.snapshot(taken.id).await.unwrap();
        assert_eq!((again.name.as_str(), again.notes.as_str()), ("before", "for Friday"));
        assert_eq!(engine.machine(a).await.unwrap().notes, "the shop's");
        let long = "n".repeat(70_000);
        host.refused(ErrorKind::InvalidParameter, engine.note_machine(a, &long)).await;
        host.refused(ErrorKind::InvalidParameter, engine.rename_snapshot(taken.id, " ")).await;
        let nothing = SnapshotId::new();
        host.refused(ErrorKind::NotFound, engine.rename_snapshot(nothing, "x")).await;
    }

    a_saved_machine_goes_on_from_where_it_was(host) {
        let a = host.running("a").await;
        host.write(a, 7);
        let memory = host.world.guest_memory(a).unwrap();
        let before = host.world.survey().files;
        host.engine.save_machine(a).await.unwrap();
        assert_eq!(host.engine.power(a).await.unwrap(), Power::Saved);
        assert_eq!(host.world.power(a), Power::Off);
        host.sound().await;
        host.refused(ErrorKind::InvalidState, host.engine.save_machine(a)).await;
        host.refused(ErrorKind::InvalidState, host.engine.pause_machine(a)).await;
        host.refused(ErrorKind::InvalidState, host.engine.undefine_machine(a)).await;
        // The next life of the daemon knows it too.
        let engine = host.reopened().await;
        assert_eq!(engine.power(a).await.unwrap(), Power::Saved);
        engine.start_machine(a).await.unwrap();
        assert_eq!(host.world.guest_memory(a).unwrap(), memory);
        assert_eq!(host.world.power(a), Power::Running);
        assert_eq!(engine.machine(a).await.unwrap().saved, None);
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(host.world.survey().files, before);
    }

    turning_off_gives_up_what_was_saved(host) {
        let a = host.running("a").await;
        let before = host.world.survey().files;
        host.engine.save_machine(a).await.unwrap();
        host.engine.kill_machine(a).await.unwrap();
        assert_eq!(host.engine.power(a).await.unwrap(), Power::Off);
        assert_eq!(host.world.survey().files, before);
        host.engine.start_machine(a).await.unwrap();
        assert_eq!(host.world.guest_memory(a).unwrap(), 0);
    }

    saved_memory_that_is_damaged_stays_until_it_is_given_up(host) {
        let a = host.running("a").await;
        host.engine.save_machine(a).await.unwrap();
        let file = host.engine.machine(a).await.unwrap().saved.unwrap().memory.path;
        host.world.tear(&file);
        assert!(host.engine.start_machine(a).await.is_err());
        assert_eq!(host.engine.power(a).await.unwrap(), Power::Saved);
        host.engine.kill_machine(a).await.unwrap();
        host.engine.start_machine(a).await.unwrap();
    }

    a_saved_member_takes_part_with_its_memory(host) {
        let (a, b) = (host.running("a").await, host.running("b").await);
        let all = host.collection("all", &[a, b]).await;
        host.write(a, 1);
        let memory = host.world.guest_memory(a).unwrap();
        host.engine.save_machine(a).await.unwrap();
        host.snapshot_refused(ErrorKind::InvalidState, application(all)).await;
        let taken = snapshot(&host.engine, standard(all)).await;
        let part = taken.members.iter().find(|m| m.machine == a).unwrap();
        assert_eq!(part.power, Power::Saved);
        assert_eq!(
            part.memory,
            host.engine.machine(a).await.unwrap().saved.map(|saved| saved.memory)
        );
        host.sound().await;
        // The snapshot keeps what the machine used up.
        host.engine.start_machine(a).await.unwrap();
        host.write(a, 2);
        host.sound().await;
        host.completed(host.engine.apply_snapshot(taken.id, None).await).await;
        assert_eq!(host.engine.power(a).await.unwrap(), Power::Saved);
        host.engine.start_machine(a).await.unwrap();
        assert_eq!((host.world.guest_memory(a).unwrap(), host.reads(a)), (memory, Some(1)));
        // Saved again, and the snapshot goes: each file has one owner then.
        host.completed(host.engine.apply_snapshot(taken.id, None).await).await;
        host.completed(host.engine.destroy_snapshot(taken.id, None).await).await;
        host.engine.start_machine(a).await.unwrap();
        assert_eq!(host.world.guest_memory(a).unwrap(), memory);
        tokio::time::sleep(Duration::from_secs(10)).await;
        host.sound().await;
    }

    a_recovery_snapshot_of_a_saved_member_has_its_disks(host) {
        let a = host.running("a").await;
        host.write(a, 1);
        host.engine.save_machine(a).await.unwrap();
        let taken = snapshot(&host.engine, recovery(a.into())).await;
        assert_eq!(taken.members[0].memory, None);
        assert_eq!(host.engine.power(a).await.unwrap(), Power::Saved);
        host.completed(host.engine.apply_snapshot(taken.id, None).await).await;
        // The present state is lost, what was saved of it too.
        assert_eq!(host.engine.power(a).await.unwrap(), Power::Off);
        tokio::time::sleep(Duration::from_secs(10)).await;
        host.sound().await;
    }

    a_machine_that_the_guard_let_run_is_not_saved(host) {
        // The guard's deadline passes when the memory is there; once before that is on
        // record, once after it.
        for point in [Point::Commit, Point::Disarm] {
            let a = host.running(&format!("{point:?}")).await;
            host.write(a, 1);
            let (world, armed) = (host.world.clone(), Arc::new(AtomicBool::new(false)));
            let seen = armed.clone();
            host.world.on(Point::Forfeits, When::After, move |_, _| {
                if !seen.swap(true, Ordering::Relaxed) {
                    world.fail_next(point, None, When::Before, Fault::Hang);
                }
            });
            let job = host.engine.change_power(a, PowerChange::Save, None).await.unwrap();
            tokio::time::sleep(Duration::from_secs(599)).await;
            assert_eq!(host.world.power(a), Power::Paused);
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_eq!(host.world.power(a), Power::Running);
            host.write(a, 2);
            host.world.release();
            let job = host.engine.wait_job(job).await.unwrap();
            assert_eq!(job.state, JobState::Failed, "{job:?}");
            assert_eq!(host.engine.power(a).await.unwrap(), Power::Running);
            assert_eq!((host.engine.machine(a).await.unwrap().saved, host.reads(a)), (None, Some(2)));
            host.sound().await;
            host.engine.save_machine(a).await.unwrap();
        }
    }

    attached_machines_are_not_saved(host) {
        let definition = host.world.definition("theirs", &["disk0"]);
        let (socket, image) = (Path::new("/theirs.qmp"), &definition.disks[0].path);
        host.world.start_foreign(socket, &[("disk0", image)]).unwrap();
        let theirs = host.engine.attach_machine("theirs", socket.to_owned(), None).await.unwrap();
        host.refused(ErrorKind::NotSupported, host.engine.save_machine(theirs.id)).await;
    }

    changes_of_power_are_jobs(host) {
        use PowerChange::*;
        let a = host.off("a").await;
        for (change, kind, then) in [
            (Run, JobKind::StartMachine, Power::Running),
            (Run, JobKind::ResumeMachine, Power::Running),
            (Pause, JobKind::PauseMachine, Power::Paused),
            (Run, JobKind::ResumeMachine, Power::Running),
            (Save, JobKind::SaveMachine, Power::Saved),
            (Run, JobKind::RestoreMachine, Power::Running),
            (ShutDown(Duration::from_secs(5)), JobKind::ShutDownMachine, Power::Off),
            (TurnOff, JobKind::TurnOffMachine, Power::Off),
        ] {
            let job = host.engine.change_power(a, change, Some("ann".into())).await.unwrap();
            let job = host.engine.wait_job(job).await.unwrap();
            assert_eq!((job.kind, job.state), (kind, JobState::Completed), "{job:?}");
            assert_eq!(job.affected, Some(Affected::Machine(a)));
            assert_eq!(job.owner.as_deref(), Some("ann"));
            assert_eq!(host.engine.power(a).await.unwrap(), then, "{change:?}");
        }
        for change in [Pause, Save, ShutDown(Duration::ZERO)] {
            let refused = host.engine.change_power(a, change, None);
            host.refused(ErrorKind::InvalidState, refused).await;
        }
    }

    a_machine_tells_since_when_it_does_what_it_does(host) {
        let a = host.off("a").await;
        let view = async || host.engine.machine_view(a).await.unwrap();
        assert_eq!((view().await.since, view().await.on_time), (None, None));
        host.engine.start_machine(a).await.unwrap();
        let started = view().await.since.unwrap();
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(view().await.since, Some(started));
        let on = view().await.on_time.unwrap();
        assert!((30..32).contains(&on.as_secs()), "{on:?}");
        host.engine.pause_machine(a).await.unwrap();
        let paused = view().await.since.unwrap();
        assert!(paused > started);
        tokio::time::sleep(Duration::from_secs(100)).await;
        host.engine.resume_machine(a).await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let on = view().await.on_time.unwrap();
        assert!((40..43).contains(&on.as_secs()), "{on:?}");
        // Ended by its own guest: nobody has seen when.
        host.world.kill_process(a);
        assert_eq!((view().await.since, view().await.on_time), (None, None));
        host.engine.start_machine(a).await.unwrap();
        assert!(view().await.on_time.unwrap() < Duration::from_secs(2));
    }
}
