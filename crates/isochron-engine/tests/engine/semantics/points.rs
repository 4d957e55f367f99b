//! Reference points, and exports in full and as differences.

use std::path::Path;

use isochron_engine::model::*;
use isochron_engine::ports::Content as Read;
use isochron_engine::*;
use isochron_sim::*;

use super::host::*;
use crate::scene::*;

fn difference(what: Exports, base: ExportBase, directory: &str) -> ExportRequest {
    ExportRequest {
        base: Some(base),
        ..full(what, directory.into())
    }
}

impl Host {
    async fn job(&self, started: Result<JobId, EngineError>) -> Job {
        self.engine.wait_job(started.unwrap()).await.unwrap()
    }

    async fn point(&self, collection: CollectionId) -> ReferencePoint {
        let request = point_request(collection, Consistency::Crash);
        let started = self.engine.create_reference_point(request).await.unwrap();
        let job = self.job(Ok(started.job)).await;
        assert_eq!(job.state, JobState::Completed, "{job:?}");
        assert_eq!(job.affected, Some(Affected::ReferencePoint(started.point)));
        self.sound().await;
        self.engine.reference_point(started.point).await.unwrap()
    }

    async fn converted(&self, snapshot: SnapshotId) -> ReferencePoint {
        let started = self.engine.convert_snapshot(snapshot, None, None).await;
        let started = started.unwrap();
        let job = self.job(Ok(started.job)).await;
        assert_eq!(job.state, JobState::Completed, "{job:?}");
        self.sound().await;
        self.engine.reference_point(started.point).await.unwrap()
    }

    /// Exports, which must succeed; the job, when it has ended.
    async fn exported(&self, request: ExportRequest) -> Job {
        let started = self.engine.export(request).await.unwrap();
        let job = self.job(Ok(started.job)).await;
        assert_eq!(job.state, JobState::Completed, "{job:?}");
        self.sound().await;
        job
    }

    /// Exports a snapshot as a difference, which must restore to what it holds; the
    /// disks that were copied whole, with why.
    async fn differs(&self, snapshot: &Snapshot, base: ExportBase, to: &str) -> Vec<String> {
        let request = difference(Exports::Snapshot(snapshot.id), base, to);
        let job = self.exported(request).await;
        let now = self.engine.snapshot(snapshot.id).await.unwrap(); // its layers move
        let held = content(&self.world, &now).unwrap();
        assert_eq!(content_of_export(&self.world, to.as_ref()).unwrap(), held);
        let whole = job.export.unwrap().whole.into_iter();
        whole.map(|whole| whole.reason).collect()
    }

    fn put(&self, machine: MachineId, block: u64) {
        self.world
            .guest_write(machine, "disk0", block, block)
            .unwrap();
    }

    /// The blocks that were read for a machine's disk.
    fn read(&self, directory: &str, machine: MachineId) -> Option<Vec<u64>> {
        let export = self.world.export(Path::new(directory)).unwrap();
        let members = &export.order.members;
        let member = members.iter().find(|m| m.machine == machine).unwrap();
        let Read::Since(changes) = &member.disks[0].content else {
            return None;
        };
        let blocks = (0..200).filter(|block| changes.contains(block * Changes::BLOCK));
        Some(blocks.collect())
    }

    async fn chain(&self, machine: MachineId) -> usize {
        let view = self.engine.machine_view(machine).await.unwrap();
        view.disks[0].chain.len()
    }
}

fn point(point: &ReferencePoint) -> ExportBase {
    ExportBase::Point(point.id)
}

answers! {
    a_recovery_snapshot_becomes_a_reference_point(host) {
        let a = host.running("a").await;
        let all = host.collection("all", &[a]).await;
        let started = host.engine.create_snapshot(standard(all)).await;
        host.completed(started.clone()).await;
        let standard = started.unwrap().snapshot;
        host.refused(
            ErrorKind::NotSupported,
            host.engine.convert_snapshot(standard, None, None),
        )
        .await;
        host.completed(host.engine.destroy_snapshot(standard, None).await).await;
        let snapshot = host.recovery(all).await;
        let later = host.recovery(all).await;
        host.exported(full(Exports::Snapshot(snapshot.id), "/exports/1".into())).await;
        let exported = host.engine.snapshot(snapshot.id).await.unwrap();
        let point = host.converted(snapshot.id).await;
        assert_eq!(
            (&point.name, point.created_at, &point.cut, point.consistency),
            (&snapshot.name, snapshot.created_at, &snapshot.cut, snapshot.consistency)
        );
        assert_eq!((&point.exports, point.exports.len()), (&exported.exports, 1));
        assert!(!point.keeps_data);
        assert!(host.engine.snapshot(snapshot.id).await.is_err());
        assert_eq!(host.engine.snapshot(later.id).await.unwrap().parent, None);
        let taken = host.engine.convert_snapshot(later.id, Some(point.id), None);
        host.refused(ErrorKind::InvalidParameter, taken).await;
        host.refused(
            ErrorKind::InvalidState,
            host.engine.export(full(Exports::Point(point.id), "/exports/2".into())),
        )
        .await;
        assert_eq!(host.engine.reference_points(Some(all)).await.unwrap().len(), 1);
        assert_eq!(host.engine.find_reference_point(&point.name).await.unwrap().id, point.id);
    }

    however_many_points_there_are_one_overlay_is_left(host) {
        let a = host.running("a").await;
        let all = host.collection("all", &[a]).await;
        let mut points = Vec::new();
        for block in 0..5 {
            host.put(a, block);
            let snapshot = host.recovery(all).await;
            points.push(host.converted(snapshot.id).await);
            assert_eq!(host.chain(a).await, 2);
        }
        host.engine.kill_machine(a).await.unwrap();
        host.engine.start_machine(a).await.unwrap();
        for point in &points {
            let started = host.engine.destroy_reference_point(point.id, None).await.unwrap();
            assert_eq!(host.job(Ok(started.job)).await.state, JobState::Completed);
            host.sound().await;
        }
        // With the last of them the guest writes to its first image again.
        assert_eq!(host.chain(a).await, 1);
        let gone = host.engine.destroy_reference_point(points[0].id, None);
        host.refused(ErrorKind::NotFound, gone).await;
    }

    a_point_of_now_keeps_its_data_until_that_is_removed(host) {
        let (a, off, paused) = (
            host.running("a").await,
            host.off("off").await,
            host.running("paused").await,
        );
        host.engine.pause_machine(paused).await.unwrap();
        let all = host.collection("all", &[a, off, paused]).await;
        host.put(a, 1);
        let point = host.point(all).await;
        let powers: Vec<_> = point.members.iter().map(|m| m.power).collect();
        assert_eq!(powers, [Power::Running, Power::Off, Power::Paused]);
        assert!(point.keeps_data);
        assert_eq!(host.stands_on(all).await, None, "it is no snapshot");
        let held = content_of_point(&host.world, &point).unwrap();
        host.put(a, 2);
        host.exported(full(Exports::Point(point.id), "/exports/1".into())).await;
        assert_eq!(content_of_export(&host.world, "/exports/1".as_ref()).unwrap(), held);
        for _ in 0..2 {
            let removed = host.engine.remove_reference_point_data(point.id, None).await;
            assert_eq!(host.job(removed.map(|s| s.job)).await.state, JobState::Completed);
            host.sound().await;
        }
        let again = host.engine.export(full(Exports::Point(point.id), "/exports/2".into()));
        let why = host.refused(ErrorKind::InvalidState, again).await;
        assert!(why.contains("was removed"), "{why}");
        let next = host.point(all).await;
        let request = difference(Exports::Point(next.id), self::point(&point), "/exports/2");
        host.exported(request).await;
        assert_eq!(host.read("/exports/2", a), Some(vec![2]));
        let held = content_of_point(&host.world, &next).unwrap();
        assert_eq!(content_of_export(&host.world, "/exports/2".as_ref()).unwrap(), held);
    }

    a_difference_is_what_was_written_since_and_nothing_else(host) {
        let a = host.running("a").await;
        let all = host.collection("all", &[a]).await;
        host.put(a, 1);
        let first = host.recovery(all).await;
        host.exported(full(Exports::Snapshot(first.id), "/exports/0".into())).await;
        let base = host.converted(first.id).await;
        host.put(a, 2);
        let older = host.recovery(all).await;
        host.put(a, 3);
        let second = host.recovery(all).await;
        // Neighbours go, the guest is killed, the daemon is another.
        host.completed(host.engine.destroy_snapshot(second.id, None).await).await;
        host.world.kill_process(a);
        host.engine.start_machine(a).await.unwrap();
        host.put(a, 4);
        let third = host.recovery(all).await;
        assert_eq!(host.differs(&third, point(&base), "/exports/1").await, [""; 0]);
        assert_eq!(host.read("/exports/1", a), Some(vec![2, 3, 4]));
        // Another branch: what the present had and the older one lacks differs, too.
        host.completed(host.engine.apply_snapshot(older.id, None).await).await;
        host.put(a, 5);
        let fourth = host.recovery(all).await;
        assert_eq!(host.differs(&fourth, point(&base), "/exports/2").await, [""; 0]);
        assert_eq!(host.read("/exports/2", a), Some(vec![2, 5]));
        let third_base = ExportBase::Snapshot(third.id);
        assert_eq!(host.differs(&fourth, third_base, "/exports/3").await, [""; 0]);
        assert_eq!(host.read("/exports/3", a), Some(vec![3, 4, 5]));
        // The branch of the base goes with its last snapshot, and the point knows it.
        let on_third = host.converted(third.id).await;
        assert_eq!(host.differs(&fourth, point(&on_third), "/exports/4").await, [""; 0]);
        assert_eq!(host.read("/exports/4", a), Some(vec![3, 4, 5]));
    }

    merging_makes_a_full_export_of_the_changes(host) {
        let a = host.running("a").await;
        let all = host.collection("all", &[a]).await;
        host.put(a, 1);
        let first = host.recovery(all).await;
        host.exported(full(Exports::Snapshot(first.id), "/exports/0".into())).await;
        host.put(a, 2);
        let second = host.recovery(all).await;
        let base = ExportBase::Snapshot(first.id);
        let request = ExportRequest {
            merge: true,
            ..difference(Exports::Snapshot(second.id), base, "/exports/1")
        };
        host.exported(request.clone()).await;
        host.world.move_export("/exports/0".as_ref(), None);
        let held = content(&host.world, &second).unwrap();
        assert_eq!(content_of_export(&host.world, "/exports/1".as_ref()).unwrap(), held);
        let alone = ExportRequest { base: None, directory: "/exports/2".into(), ..request };
        host.refused(ErrorKind::InvalidParameter, host.engine.export(alone)).await;
    }

    several_chains_of_points_share_a_machine(host) {
        let (a, b) = (host.running("a").await, host.running("b").await);
        let (both, one) = (host.collection("both", &[a, b]).await, host.collection("one", &[a]).await);
        let mut bases = Vec::new();
        for (n, collection) in [both, one, a.into(), both].into_iter().enumerate() {
            host.put(a, 10 + n as u64);
            let snapshot = host.recovery(collection).await;
            let to = format!("/exports/base-{n}");
            host.exported(full(Exports::Snapshot(snapshot.id), to.into())).await;
            bases.push((collection, host.converted(snapshot.id).await));
        }
        host.put(b, 30);
        for (n, (collection, base)) in bases.iter().enumerate() {
            let snapshot = host.recovery(*collection).await;
            let to = format!("/exports/{n}");
            assert_eq!(host.differs(&snapshot, point(base), &to).await, [""; 0]);
            let since: Vec<u64> = (11 + n as u64..14).collect();
            assert_eq!(host.read(&to, a), Some(since), "{n}");
        }
        // A base of another collection is none.
        let snapshot = host.recovery(one).await;
        let request = difference(Exports::Snapshot(snapshot.id), point(&bases[0].1), "/exports/x");
        host.refused(ErrorKind::InvalidParameter, host.engine.export(request)).await;
    }

    what_was_changed_outside_our_sight_is_copied_whole(host) {
        let a = host.running("a").await;
        let all = host.collection("all", &[a]).await;
        host.put(a, 1);
        let first = host.recovery(all).await;
        host.exported(full(Exports::Snapshot(first.id), "/exports/0".into())).await;
        let kept = host.recovery(all).await;
        let base = host.converted(first.id).await;
        host.put(a, 2);
        let second = host.recovery(all).await;
        assert_eq!(host.differs(&second, point(&base), "/exports/1").await, [""; 0]);
        host.world.touch("/images/a-disk0.qcow2".as_ref()).unwrap();
        let why = host.differs(&second, point(&base), "/exports/2").await;
        assert!(why[0].contains("was changed by somebody else"), "{why:?}");
        let strict = ExportRequest {
            require_difference: true,
            ..difference(Exports::Snapshot(second.id), point(&base), "/exports/3")
        };
        let started = host.engine.export(strict).await.unwrap();
        let job = host.job(Ok(started.job)).await;
        assert_eq!(job.state, JobState::Failed);
        let error = job.error.unwrap();
        assert_eq!(error.kind, ErrorKind::InvalidState);
        assert!(error.message.contains("somebody else"), "{}", error.message);
        assert!(host.world.export("/exports/3".as_ref()).is_none());
        // Our own merges do not make it forgotten, neither for points nor for snapshots.
        host.completed(host.engine.destroy_snapshot(kept.id, None).await).await;
        let third = host.recovery(all).await;
        host.converted(second.id).await;
        assert_eq!(host.chain(a).await, 2);
        let why = host.differs(&third, point(&base), "/exports/4").await;
        assert!(why[0].contains("was changed by somebody else"), "{why:?}");
        // From now on it is what we know.
        let fourth = host.recovery(all).await;
        let since_third = ExportBase::Snapshot(third.id);
        let whole = host.differs(&fourth, since_third, "/exports/5").await;
        assert!(whole.is_empty() || whole[0].contains("somebody else"), "{whole:?}");
    }

    a_disk_of_another_size_or_that_was_not_there_is_copied_whole(host) {
        let (a, b) = (host.running("a").await, host.running("b").await);
        let all = host.collection("all", &[a]).await;
        host.put(a, 1);
        let first = host.recovery(all).await;
        host.exported(full(Exports::Snapshot(first.id), "/exports/0".into())).await;
        let base = host.converted(first.id).await;
        host.engine.add_machine(all, b).await.unwrap();
        host.put(b, 2);
        let second = host.recovery(all).await;
        let why = host.differs(&second, point(&base), "/exports/1").await;
        assert_eq!(why, ["the machine takes no part in the base"]);
        host.engine.remove_machine(all, b).await.unwrap();
        host.engine.kill_machine(a).await.unwrap();
        let view = host.engine.machine_view(a).await.unwrap();
        host.world.resize(&view.disks[0].chain[0].path, 1 << 31).unwrap();
        host.engine.start_machine(a).await.unwrap();
        host.put(a, 3);
        let third = host.recovery(all).await;
        let why = host.differs(&third, point(&base), "/exports/2").await;
        assert!(why[0].contains("size"), "{why:?}");
        // Removed disks are not missed.
        let second_base = ExportBase::Snapshot(second.id);
        assert_eq!(host.differs(&third, second_base, "/exports/3").await.len(), 1);
    }

    a_base_needs_an_export_that_can_be_read(host) {
        let a = host.running("a").await;
        let all = host.collection("all", &[a]).await;
        let (first, second) = (host.recovery(all).await, host.recovery(all).await);
        let to = |base| difference(Exports::Snapshot(second.id), base, "/exports/1");
        let base = ExportBase::Snapshot(first.id);
        let why = host.refused(ErrorKind::InvalidState, host.engine.export(to(base.clone()))).await;
        assert!(why.contains("export it first"), "{why}");
        host.exported(full(Exports::Snapshot(first.id), "/exports/0".into())).await;
        host.world.move_export("/exports/0".as_ref(), Some("/moved".as_ref()));
        let asked = host.engine.export(to(base.clone())).await;
        let why = asked.unwrap_err().message;
        assert!(why.contains("the newest was /exports/0"), "{why}");
        let itself = difference(Exports::Snapshot(first.id), base, "/exports/1");
        host.refused(ErrorKind::InvalidParameter, host.engine.export(itself)).await;
        let nowhere = ExportBase::Directory("/nowhere".into());
        host.refused(ErrorKind::InvalidParameter, host.engine.export(to(nowhere))).await;
        let moved = ExportBase::Directory("/moved".into());
        let started = host.engine.export(to(moved.clone())).await.unwrap();
        assert_eq!(host.job(Ok(started.job)).await.state, JobState::Completed);
        // What it is of is there as long as a point is.
        let base = host.engine.convert_snapshot(first.id, None, None).await.unwrap();
        assert_eq!(host.job(Ok(base.job)).await.state, JobState::Completed);
        let request = difference(Exports::Snapshot(second.id), moved.clone(), "/exports/2");
        let started = host.engine.export(request.clone()).await.unwrap();
        assert_eq!(host.job(Ok(started.job)).await.state, JobState::Completed);
        let gone = host.engine.destroy_reference_point(base.point, None).await.unwrap();
        host.job(Ok(gone.job)).await;
        let request = ExportRequest { directory: "/exports/3".into(), ..request };
        host.refused(ErrorKind::InvalidState, host.engine.export(request)).await;
    }

    while_it_is_exported_only_that_must_stay(host) {
        let a = host.running("a").await;
        let all = host.collection("all", &[a]).await;
        host.put(a, 1);
        let (snapshot, other) = (host.recovery(all).await, host.recovery(all).await);
        let held = content(&host.world, &snapshot).unwrap();
        host.world.fail_next(Point::CopyDisk, None, When::Before, Fault::Hang);
        let started = host.engine.export(full(Exports::Snapshot(snapshot.id), "/exports/1".into()));
        let started = started.await.unwrap();
        while host.world.calls().last().map(|call| call.point) != Some(Point::CopyDisk) {
            tokio::task::yield_now().await;
        }
        let engine = &host.engine;
        host.refused(ErrorKind::InvalidState, engine.destroy_snapshot(snapshot.id, None)).await;
        host.refused(ErrorKind::InvalidState, engine.convert_snapshot(snapshot.id, None, None)).await;
        host.refused(ErrorKind::InvalidState, engine.clear_snapshot_memory(snapshot.id)).await;
        let same = engine.export(full(Exports::Snapshot(other.id), "/exports/1".into()));
        host.refused(ErrorKind::InvalidState, same).await;
        // All else goes on: guests write, snapshots come, are applied and go.
        host.put(a, 2);
        let ended = engine.wait_job(engine.destroy_snapshot(other.id, None).await.unwrap().job);
        assert_eq!(ended.await.unwrap().state, JobState::Completed);
        let later = host.recovery(all).await;
        let applied = engine.apply_snapshot(snapshot.id, None).await.unwrap();
        let job = engine.wait_job(applied.job).await.unwrap();
        assert_eq!(job.state, JobState::Completed, "{job:?}");
        let destroyed = engine.destroy_snapshot(later.id, None).await.unwrap();
        let job = engine.wait_job(destroyed.job).await.unwrap();
        assert_eq!(job.state, JobState::Completed, "{job:?}");
        host.world.release();
        let job = host.job(Ok(started.job)).await;
        assert_eq!(job.state, JobState::Completed, "{job:?}");
        assert_eq!(job.affected, Some(Affected::Snapshot(snapshot.id)));
        let export = job.export.unwrap();
        assert_eq!((export.id, export.files.len()), (started.export, 1));
        assert!(export.total > 0 && export.done == export.total);
        assert_eq!(content_of_export(&host.world, "/exports/1".as_ref()).unwrap(), held);
        host.sound().await;
    }

    an_export_can_be_cancelled(host) {
        let a = host.running("a").await;
        let all = host.collection("all", &[a]).await;
        let snapshot = host.recovery(all).await;
        let before = host.world.survey();
        for point in [Point::OpenExport, Point::CopyDisk] {
            host.world.fail_next(point, None, When::Before, Fault::Hang);
            let request = full(Exports::Snapshot(snapshot.id), "/exports/1".into());
            let started = host.engine.export(request).await.unwrap();
            while host.world.calls().last().map(|call| call.point) != Some(point) {
                tokio::task::yield_now().await;
            }
            host.engine.cancel_job(started.job).await.unwrap();
            host.world.release();
            let job = host.job(Ok(started.job)).await;
            assert_eq!(job.state, JobState::Cancelled, "{job:?}");
            assert!(host.world.export("/exports/1".as_ref()).is_none());
            assert_eq!(host.world.survey(), before);
            host.sound().await;
        }
        host.exported(full(Exports::Snapshot(snapshot.id), "/exports/1".into())).await;
    }

    only_the_chosen_disks_are_exported(host) {
        let a = host.engine.define_machine(host.world.definition("a", &["disk0", "data"])).await;
        let (a, b) = (a.unwrap().id, host.off("b").await);
        let all = host.collection("all", &[a, b]).await;
        let snapshot = host.recovery(all).await;
        let choose = |machine, disks: &[&str], to: &str| ExportRequest {
            disks: Some(vec![ExportDisks {
                machine,
                disks: disks.iter().map(|disk| (*disk).to_owned()).collect(),
            }]),
            ..full(Exports::Snapshot(snapshot.id), to.into())
        };
        host.exported(choose(a, &["data"], "/exports/1")).await;
        let export = host.world.export("/exports/1".as_ref()).unwrap();
        assert_eq!(export.disks.keys().collect::<Vec<_>>(), [&(a, "data".to_owned())]);
        host.exported(choose(a, &[], "/exports/2")).await;
        assert_eq!(host.world.export("/exports/2".as_ref()).unwrap().disks.len(), 2);
        for wrong in [choose(a, &["no"], "/exports/3"), choose(MachineId::new(), &[], "/exports/3")] {
            host.refused(ErrorKind::InvalidParameter, host.engine.export(wrong)).await;
        }
        // What the base's export lacks is copied whole.
        let later = host.recovery(all).await;
        let directory = ExportBase::Directory("/exports/1".into());
        let why = host.differs(&later, directory, "/exports/4").await;
        assert_eq!(why, ["the base's export does not have it"; 2]);
    }

    what_makes_no_sense_is_refused(host) {
        let a = host.off("a").await;
        let all = host.collection("all", &[a]).await;
        let snapshot = host.recovery(all).await;
        let base = host.recovery(all).await;
        host.exported(full(Exports::Snapshot(base.id), "/exports/0".into())).await;
        let right = full(Exports::Snapshot(snapshot.id), "/exports/1".into());
        let since = Some(ExportBase::Snapshot(base.id));
        for wrong in [
            ExportRequest { directory: "relative".into(), ..right.clone() },
            ExportRequest { limit: Some(0), ..right.clone() },
            ExportRequest { copy_storage: false, base: since, ..right.clone() },
            ExportRequest { disks: Some(Vec::new()), ..right.clone() },
        ] {
            host.refused(ErrorKind::InvalidParameter, host.engine.export(wrong)).await;
        }
        let nobody = full(Exports::Snapshot(SnapshotId::new()), "/exports/1".into());
        host.refused(ErrorKind::NotFound, host.engine.export(nobody)).await;
        // Only a record of the layers is no base.
        host.exported(ExportRequest { copy_storage: false, ..right }).await;
        assert_eq!(host.engine.snapshot(snapshot.id).await.unwrap().exports, []);
    }

    a_machine_comes_back_saved_from_what_was_exported(host) {
        let a = host.running("a").await;
        let all = host.collection("all", &[a]).await;
        host.put(a, 1);
        host.put(a, 2);
        let started = host.engine.create_snapshot(standard(all)).await;
        host.completed(started.clone()).await;
        let snapshot = host.engine.snapshot(started.unwrap().snapshot).await.unwrap();
        let held = snapshot.members[0].memory.clone().unwrap().path;
        let copy = Path::new("/restored/memory");
        let copied = || host.world.copy_memory(&held, copy).unwrap();
        let b = host.world.definition("b", &["disk0"]);
        let c = host.world.definition("c", &[]);
        let define = |definition: &Definition, memory: &Path| {
            host.engine.define_saved_machine(definition.clone(), memory.to_owned())
        };
        // It is the snapshot's; nothing else is a memory.
        host.refused(ErrorKind::Exists, define(&b, &held)).await;
        copied();
        host.world.tear(copy);
        for none in [copy, "/nowhere".as_ref(), &b.disks[0].path] {
            host.refused(ErrorKind::InvalidParameter, define(&b, none)).await;
        }
        copied();
        let b = define(&b, copy).await.unwrap().id;
        host.sound().await;
        host.refused(ErrorKind::Exists, define(&c, copy)).await;
        let view = host.engine.machine_view(b).await.unwrap();
        assert_eq!((view.power, view.since.is_some()), (Power::Saved, true));
        host.engine.start_machine(b).await.unwrap();
        assert_eq!(host.engine.power(b).await.unwrap(), Power::Running);
        assert_eq!(host.world.guest_memory(b).unwrap(), 2, "it goes on with two writes");
        assert_eq!(host.engine.machine(b).await.unwrap().saved, None);
        host.sound().await;

        copied();
        let c = define(&c, copy).await.unwrap().id;
        host.refused(ErrorKind::InvalidState, host.engine.undefine_machine(c)).await;
        host.engine.kill_machine(c).await.unwrap();
        assert_eq!(host.engine.power(c).await.unwrap(), Power::Off);
        host.sound().await;
    }

    what_has_reference_points_stays(host) {
        let a = host.off("a").await;
        let all = host.collection("all", &[a]).await;
        let point = host.point(all).await;
        host.refused(ErrorKind::InvalidState, host.engine.destroy_collection(all)).await;
        host.engine.remove_machine(all, a).await.unwrap();
        host.refused(ErrorKind::InvalidState, host.engine.undefine_machine(a)).await;
        let started = host.engine.destroy_reference_point(point.id, None).await.unwrap();
        assert_eq!(host.job(Ok(started.job)).await.state, JobState::Completed);
        host.engine.undefine_machine(a).await.unwrap();
        host.engine.destroy_collection(all).await.unwrap();
    }
}
