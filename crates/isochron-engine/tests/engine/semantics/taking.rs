//! Who and what takes part in a snapshot, and what is refused.

use std::path::Path;
use std::time::Duration;

use isochron_engine::model::*;
use isochron_engine::*;
use isochron_sim::*;

use super::host::*;
use crate::scene::*;

answers! {
    the_last_stop_precedes_the_first_resume_and_the_report_says_so(host) {
        let (a, b) = (host.running("a").await, host.running("b").await);
        host.world.set_background_save(b, false);
        let all = host.collection("all", &[a, b]).await;
        let taken = snapshot(&host.engine, standard(all)).await;
        let cut = &taken.cut;
        let stops: Vec<_> = cut.members.iter().map(|m| m.stopped_at_us.unwrap()).collect();
        let resumes: Vec<_> = cut.members.iter().map(|m| m.resumed_at_us.unwrap()).collect();
        let (last, first) = (stops.iter().max().unwrap(), stops.iter().min().unwrap());
        assert_eq!(cut.skew_us, Some(last - first));
        let window = resumes.iter().min().unwrap() - last;
        assert_eq!(cut.common_window_us, Some(i64::try_from(window).unwrap()));
        assert_eq!(cut.members[0].memory, MemorySave::Background);
        assert_eq!(cut.members[0].memory_note, None);
        assert_eq!(cut.members[1].memory, MemorySave::Plain);
        assert!(cut.members[1].memory_note.is_some());
        assert_eq!(cut.consistency, Some(CRASH));
        assert!(taken.members.iter().all(|member| member.memory.is_some()));
        assert!(host.recovery(all).await.members.iter().all(|member| member.memory.is_none()));
    }

    application_consistency_is_reached_or_the_snapshot_fails(host) {
        let (a, off) = (host.running("a").await, host.off("off").await);
        let all = host.collection("all", &[a, off]).await;
        let taken = snapshot(&host.engine, application(all)).await;
        assert_eq!(taken.consistency, Consistency::Application);
        assert_eq!(taken.cut.members[0].frozen_filesystems, 1);
        let both = request(all, SnapshotKind::Standard, Consistency::Application);
        host.snapshot_refused(ErrorKind::InvalidParameter, both).await;

        host.engine.pause_machine(a).await.unwrap();
        host.snapshot_refused(ErrorKind::InvalidState, application(all)).await;
        host.engine.resume_machine(a).await.unwrap();

        let mut definition = host.world.definition("mute", &["disk0"]);
        definition.guest_agent = false;
        let mute = host.engine.define_machine(definition).await.unwrap().id;
        host.engine.start_machine(mute).await.unwrap();
        let mutes = host.collection("mutes", &[mute]).await;
        host.snapshot_refused(ErrorKind::NotSupported, application(mutes)).await;

        let nothing = host.world.definition("nothing", &[]);
        let nothing = host.engine.define_machine(nothing).await.unwrap().id;
        host.engine.start_machine(nothing).await.unwrap();
        let nothings = host.collection("nothings", &[a, nothing]).await;
        let before = host.world.survey();
        let job = host.ended(host.engine.create_snapshot(application(nothings)).await).await;
        assert_eq!(job.state, JobState::Failed, "{job:?}");
        assert_eq!(host.world.survey(), before);
    }

    a_guest_that_thaws_before_the_instant_fails_the_snapshot(host) {
        let a = host.running("a").await;
        let all = host.collection("all", &[a]).await;
        let machine = host.engine.machine(a).await.unwrap();
        let live = host.daemon.hypervisor().live(&machine).await.unwrap().unwrap();
        let before = host.world.survey();
        host.world.on(Point::Freeze, When::After, move |_, _| {
            let live = live.clone();
            tokio::spawn(async move { live.thaw(Duration::from_secs(1)).await.unwrap() });
        });
        let job = host.ended(host.engine.create_snapshot(application(all)).await).await;
        assert_eq!(job.state, JobState::Failed, "{job:?}");
        assert!(job.error.unwrap().message.contains("thawed"));
        assert_eq!(host.world.survey(), before);
    }

    members_that_are_off_or_paused_take_part_and_stay_so(host) {
        let (off, paused) = (host.off("off").await, host.running("paused").await);
        host.engine.pause_machine(paused).await.unwrap();
        let all = host.collection("all", &[off, paused]).await;
        let taken = snapshot(&host.engine, standard(all)).await;
        assert_eq!(taken.members[0].power, Power::Off);
        assert!(taken.members[0].memory.is_none());
        assert_eq!(taken.members[1].power, Power::Paused);
        assert_eq!(taken.cut.members[1].memory, MemorySave::Plain);
        assert_eq!(host.world.power(off), Power::Off);
        assert_eq!(host.world.power(paused), Power::Paused);
        // Applied, they are so again, whatever they were.
        host.engine.start_machine(off).await.unwrap();
        host.engine.resume_machine(paused).await.unwrap();
        host.completed(host.engine.apply_snapshot(taken.id, None).await).await;
        assert_eq!(host.world.power(off), Power::Off);
        assert_eq!(host.world.power(paused), Power::Paused);
    }

    an_attached_machine_takes_part_while_it_answers(host) {
        let (socket, image) = (Path::new("/run/vm.sock"), Path::new("/images/foreign.qcow2"));
        host.world.add_image(image, ImageFormat::Qcow2).unwrap();
        let attach = || host.engine.attach_machine("foreign", socket.into(), None);
        host.refused(ErrorKind::InvalidState, attach()).await;
        host.world.start_foreign(socket, &[("disk0", image)]).unwrap();
        let foreign = attach().await.unwrap().id;
        let all = host.collection("all", &[foreign]).await;
        let taken = host.recovery(all).await;
        let view = host.engine.machine_view(foreign).await.unwrap();
        let top = view.disks[0].chain[0].path.clone();
        assert_eq!(top, host.world.disks(foreign).unwrap()[0].path);
        assert_ne!(top, image);

        let apply = host.engine.apply_snapshot(taken.id, None);
        host.refused(ErrorKind::NotSupported, apply).await;
        host.refused(ErrorKind::NotSupported, host.engine.kill_machine(foreign)).await;
        host.world.kill_process(foreign);
        host.snapshot_refused(ErrorKind::InvalidState, recovery(all)).await;
        host.refused(ErrorKind::NotSupported, host.engine.start_machine(foreign)).await;
        // Started from a file that has become a frozen layer.
        host.world.start_foreign(socket, &[("disk0", image)]).unwrap();
        assert_eq!(host.engine.power(foreign).await.unwrap(), Power::Running);
        let sentence = host.snapshot_refused(ErrorKind::InvalidState, recovery(all)).await;
        assert!(sentence.contains(top.to_str().unwrap()), "{sentence}");
        host.world.kill_process(foreign);
        host.world.start_foreign(socket, &[("disk0", &top)]).unwrap();
        host.recovery(all).await;
    }

    one_operation_at_a_time_on_a_machine(host) {
        let a = host.running("a").await;
        let one = host.collection("one", &[a]).await;
        let other = host.collection("other", &[a]).await;
        let third = host.collection("third", &[]).await;
        let taken = host.recovery(one).await;
        host.world.fail_next(Point::Flush, Some(a), When::Before, Fault::Hang);
        let under_way = host.engine.create_snapshot(recovery(one)).await;
        while host.world.calls().last().map(|call| call.point) != Some(Point::Flush) {
            tokio::task::yield_now().await;
        }
        let engine = &host.engine;
        let busy = ErrorKind::InvalidState;
        host.snapshot_refused(busy, recovery(one)).await;
        host.snapshot_refused(busy, recovery(other)).await;
        host.refused(busy, engine.apply_snapshot(taken.id, None)).await;
        host.refused(busy, engine.destroy_snapshot(taken.id, None)).await;
        host.refused(busy, engine.remove_machine(one, a)).await;
        host.refused(busy, engine.destroy_collection(one)).await;
        host.refused(busy, engine.pause_machine(a)).await;
        host.refused(busy, engine.shut_down_machine(a, Duration::ZERO)).await;
        engine.add_machine(third, a).await.unwrap();
        host.world.release();
        host.completed(under_way).await;
        host.recovery(other).await;
    }

    apply_returns_the_members_of_then(host) {
        let (a, later) = (host.running("a").await, host.running("later").await);
        let all = host.collection("all", &[a]).await;
        host.write(a, 1);
        let taken = host.recovery(all).await;
        host.engine.remove_machine(all, a).await.unwrap();
        host.engine.add_machine(all, later).await.unwrap();
        host.write(a, 2);
        host.write(later, 2);
        host.engine.rename_machine(a, "renamed").await.unwrap();
        host.completed(host.engine.apply_snapshot(taken.id, None).await).await;
        assert_eq!((host.reads(a), host.reads(later)), (Some(1), Some(2)));
        assert_eq!(host.world.guest_memory(a), Ok(0));
        assert_eq!(host.world.guest_memory(later), Ok(1));
        assert_eq!(host.engine.machine(a).await.unwrap().definition.name, "renamed");
    }

    a_collection_of_collections_is_one_cut_through_each_machine_once(host) {
        let (a, b) = (host.running("a").await, host.running("b").await);
        let left = host.collection("left", &[a, b]).await;
        let right = host.collection("right", &[b]).await;
        let all = host.above("all", &[left, right]).await;
        let taken = host.recovery(all).await;
        let members: Vec<_> = taken.members.iter().map(|member| member.machine).collect();
        assert_eq!(members, [a, b]);
        assert!(taken.cut.common_window_us.unwrap() >= 0);
        let engine = &host.engine;
        let invalid = ErrorKind::InvalidParameter;
        host.refused(invalid, engine.add_collection(all, all)).await;
        host.refused(invalid, engine.add_machine(all, a)).await;
        host.refused(invalid, engine.add_collection(left, right)).await;
        host.refused(ErrorKind::InvalidState, engine.destroy_collection(left)).await;
        let empty = host.above("empty", &[host.collection("none", &[]).await]).await;
        host.snapshot_refused(ErrorKind::InvalidState, recovery(empty)).await;
    }

    what_is_in_use_cannot_be_forgotten(host) {
        let a = host.off("a").await;
        let all = host.collection("all", &[a]).await;
        let taken = host.recovery(all).await;
        let engine = &host.engine;
        let state = ErrorKind::InvalidState;
        host.refused(state, engine.undefine_machine(a)).await;
        engine.remove_machine(all, a).await.unwrap();
        host.refused(state, engine.undefine_machine(a)).await;
        host.refused(state, engine.destroy_collection(all)).await;
        host.completed(engine.destroy_snapshot(taken.id, None).await).await;
        engine.start_machine(a).await.unwrap();
        host.refused(state, engine.undefine_machine(a)).await;
        engine.kill_machine(a).await.unwrap();
        engine.undefine_machine(a).await.unwrap();
        engine.destroy_collection(all).await.unwrap();
        host.refused(ErrorKind::NotFound, engine.undefine_machine(a)).await;
        host.refused(ErrorKind::NotFound, engine.destroy_collection(all)).await;
        host.refused(ErrorKind::NotFound, engine.destroy_snapshot(taken.id, None)).await;
        host.refused(ErrorKind::NotFound, engine.apply_snapshot(taken.id, None)).await;
    }

    disks_that_cannot_be_snapshotted_are_refused_or_left_out(host) {
        let mut definition = host.world.definition("a", &["disk0", "fixed"]);
        definition.disks[1].read_only = true;
        let raw = Path::new("/images/disk.raw");
        let device = Path::new("/dev/vg/lv");
        host.world.add_image(raw, ImageFormat::Raw).unwrap();
        host.world.add_device(device).unwrap();
        for (name, path) in [("raw", raw), ("passed", device)] {
            let mut disk = definition.disks[0].clone();
            disk.name = name.to_owned();
            disk.path = path.to_owned();
            disk.format = ImageFormat::Raw;
            definition.disks.push(disk);
        }
        let a = host.engine.define_machine(definition).await.unwrap().id;
        host.engine.start_machine(a).await.unwrap();
        let all = host.collection("all", &[a]).await;
        host.snapshot_refused(ErrorKind::NotSupported, recovery(all)).await;

        let ignoring = CreateSnapshot { ignore_excluded_disks: true, ..recovery(all) };
        for disk in ["disk0", "raw", "passed"] {
            host.world.guest_write(a, disk, 0, 1).unwrap();
        }
        let taken = snapshot(&host.engine, ignoring).await;
        let member = &taken.members[0];
        assert_eq!(member.left_out, ["passed"]);
        let held: Vec<_> = member.disks.iter().map(|disk| disk.disk.as_str()).collect();
        assert_eq!(held, ["disk0", "raw"]);
        let view = host.engine.machine_view(a).await.unwrap();
        let layer = &view.disks[2].chain[0];
        assert_eq!(layer.format, ImageFormat::Qcow2);
        assert_eq!(layer.path.parent(), raw.parent());
        for disk in ["disk0", "raw", "passed"] {
            host.world.guest_write(a, disk, 0, 2).unwrap();
        }
        host.completed(host.engine.apply_snapshot(taken.id, None).await).await;
        let reads = |disk| host.world.guest_view(a, disk).unwrap()[&0];
        assert_eq!([reads("disk0"), reads("raw"), reads("passed")], [1, 1, 2]);
    }

    an_apply_that_fails_returns_a_machine_with_a_read_only_disk_too(host) {
        let mut definition = host.world.definition("a", &["disk0", "fixed"]);
        definition.disks[1].read_only = true;
        let a = host.engine.define_machine(definition).await.unwrap().id;
        host.engine.start_machine(a).await.unwrap();
        let b = host.running("b").await;
        let all = host.collection("all", &[a, b]).await;
        host.write(a, 1);
        let taken = host.recovery(all).await;
        host.write(a, 2);
        // a has come up in the snapshot's state, b does not.
        host.world.fail_next(Point::Start, Some(b), When::Before, Fault::Error);
        let job = host.ended(host.engine.apply_snapshot(taken.id, None).await).await;
        assert_eq!(job.state, JobState::Failed, "{job:?}");
        assert_eq!((host.reads(a), host.world.guest_memory(a)), (Some(2), Ok(2)));
        host.sound().await;
    }

    identifiers_and_names(host) {
        let a = host.off("a").await;
        let all = host.collection("all", &[a]).await;
        let engine = &host.engine;
        let missing = recovery(CollectionId::new());
        host.snapshot_refused(ErrorKind::NotFound, missing).await;
        let id = SnapshotId::new();
        let named = CreateSnapshot { id: Some(id), name: Some("twin".to_owned()), ..recovery(all) };
        assert_eq!(snapshot(engine, named.clone()).await.id, id);
        host.snapshot_refused(ErrorKind::InvalidParameter, named.clone()).await;
        let second = snapshot(engine, CreateSnapshot { id: None, ..named.clone() }).await;
        assert_ne!(second.id, id);
        host.refused(ErrorKind::InvalidParameter, engine.find_snapshot("twin")).await;
        assert_eq!(engine.find_snapshot(&id.to_string()).await.unwrap().id, id);
        host.refused(ErrorKind::NotFound, engine.find_snapshot("nobody")).await;
        let unnamed = host.recovery(all).await.name;
        assert!(unnamed.starts_with("all - (2024-01-01 "), "{unnamed}");
        // An identifier whose snapshot is gone can be used again.
        host.completed(engine.destroy_snapshot(id, None).await).await;
        assert_eq!(snapshot(engine, named).await.id, id);

        let kind = CollectionKind::Machines;
        let taken = ErrorKind::Exists;
        host.refused(taken, engine.create_collection("all", None, kind)).await;
        host.refused(taken, engine.create_collection("new", Some(all), kind)).await;
        let invalid = ErrorKind::InvalidParameter;
        for name in ["", "  ", "a\nb", &"x".repeat(201)] {
            host.refused(invalid, engine.create_collection(name, None, kind)).await;
            host.refused(invalid, engine.rename_machine(a, name)).await;
        }
        let mut again = engine.machine(a).await.unwrap().definition;
        host.refused(taken, engine.define_machine(again.clone())).await;
        again.name = "other".to_owned();
        again.id = None;
        host.refused(taken, engine.define_machine(again)).await; // its image
    }

    two_snapshots_of_one_identifier_at_once_are_one(host) {
        let (a, b) = (host.running("a").await, host.running("b").await);
        let (one, other) = (host.collection("one", &[a]).await, host.collection("other", &[b]).await);
        let id = Some(SnapshotId::new());
        let first = host.engine.create_snapshot(CreateSnapshot { id, ..standard(one) }).await;
        let second = host.engine.create_snapshot(CreateSnapshot { id, ..standard(other) }).await;
        let ends = [host.ended(first).await.state, host.ended(second).await.state];
        assert!(ends.contains(&JobState::Completed) && ends.contains(&JobState::Failed), "{ends:?}");
        assert_eq!(host.engine.snapshots(None).await.unwrap().len(), 1);
        host.sound().await;
    }
}
