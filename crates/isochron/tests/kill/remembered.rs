//! The daemon dies while a snapshot becomes a reference point, and while a reference
//! point gives up what it keeps or is destroyed: it happened or it did not, layers come
//! to be merged all the same, and differences told from the point are true.

use std::time::Duration;

use isochron_api::client::{Client, ClientError};
use isochron_api::dto::{ConvertSnapshot, Job, JobKind, JobState, ReferencePoint, SnapshotKind};
use rustix::process::Signal;
use uuid::Uuid;

use crate::exported::{Subject, convert, forget, order, reference_point};
use crate::hold::HeldStore;
use crate::stage::{Picture, Stage, signal};

const ALL: [usize; 3] = [0, 1, 2];

/// What is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    /// The older of two snapshots becomes a point: a frozen layer is merged.
    Convert,
    /// A point with a snapshot above it gives up its data: the same.
    GiveUp,
    /// The only point is destroyed: the layer that the guest writes to is merged.
    Destroy,
}

/// When the daemon is killed.
#[derive(Clone, Copy, Debug)]
enum When {
    /// The request is not on record.
    Recording,
    /// QEMU tells this.
    Event(&'static str),
    /// QEMU told this, and nothing is recorded since.
    Unrecorded(&'static str),
}

impl Act {
    async fn ask(self, client: &Client, subject: Uuid) -> Result<Job, ClientError> {
        let name = subject.to_string();
        match self {
            Self::Convert => {
                let new = ConvertSnapshot::default();
                client.convert_snapshot(&name, &new).await
            }
            Self::GiveUp => client.forget_reference_point_data(&name).await,
            Self::Destroy => client.destroy_reference_point(&name).await,
        }
    }

    fn job(self) -> JobKind {
        match self {
            Self::Convert => JobKind::ConvertSnapshot,
            Self::GiveUp => JobKind::RemoveReferencePointData,
            Self::Destroy => JobKind::DestroyReferencePoint,
        }
    }
}

#[test]
fn a_killed_daemon_has_remembered_an_instant_or_not() {
    let mut stage = Stage::open();
    std::fs::create_dir(stage.path().join("exports")).unwrap();
    let before = stage.picture();
    let moments = [
        (Act::Convert, When::Recording),
        (Act::Convert, When::Event("JOB_STATUS_CHANGE")),
        (Act::Convert, When::Event("BLOCK_JOB_COMPLETED")),
        (Act::Convert, When::Unrecorded("BLOCK_JOB_COMPLETED")),
        (Act::GiveUp, When::Event("BLOCK_JOB_COMPLETED")),
        (Act::GiveUp, When::Unrecorded("BLOCK_JOB_COMPLETED")),
        (Act::Destroy, When::Recording),
        (Act::Destroy, When::Event("BLOCK_JOB_READY")),
        (Act::Destroy, When::Event("STOP")),
        (Act::Destroy, When::Event("BLOCK_JOB_COMPLETED")),
        (Act::Destroy, When::Unrecorded("STOP")),
    ];
    for (act, when) in moments {
        let done = interrupted(&mut stage, act, when, &before);
        println!("{act:?} {when:?}: {}", if done { "done" } else { "not" });
        assert_eq!(done, !matches!(when, When::Recording));
    }
    stage.close(false);
}

/// One kill and what must hold after it; whether it was done.
fn interrupted(stage: &mut Stage, act: Act, when: When, before: &Picture) -> bool {
    let exports = stage.path().join("exports");
    let [to_base, to_next] = ["base", "next"].map(|name| exports.join(name));
    // What it is done to, which was exported, and what came after it.
    let subject = match act {
        Act::Convert => {
            let snapshot = stage.snapshot(SnapshotKind::Recovery);
            Subject::from(&snapshot).export(stage, &order(to_base.clone(), None));
            snapshot.id
        }
        Act::GiveUp => {
            let point = reference_point(stage);
            Subject::from(&point).export(stage, &order(to_base.clone(), None));
            point.id
        }
        Act::Destroy => {
            let snapshot = stage.snapshot(SnapshotKind::Recovery);
            convert(stage, snapshot.id)
        }
    };
    stage.goes_round();
    let upper = (act != Act::Destroy).then(|| stage.snapshot(SnapshotKind::Recovery));

    let (daemon, path) = (stage.daemon(), stage.path().to_owned());
    let jobs = stage.jobs_of(act.job());
    let mut store = None;
    let (sender, held) = std::sync::mpsc::channel();
    match when {
        When::Recording => store = Some(HeldStore::new(&path)),
        When::Event(event) => stage.on(event, move || signal(daemon, Signal::KILL)),
        When::Unrecorded(event) => {
            stage.on(event, move || sender.send(HeldStore::new(&path)).unwrap());
        }
    }
    let asked = stage.begin(async move |client| act.ask(client, subject).await);
    match when {
        When::Recording => std::thread::sleep(Duration::from_millis(100)),
        When::Event(_) => stage.happens(),
        When::Unrecorded(_) => {
            store = Some(held.recv().unwrap());
            std::thread::sleep(Duration::from_millis(300));
        }
    }
    stage.kill_daemon();
    if let Some(store) = store {
        store.release();
    }
    let answered = asked.join().unwrap();
    stage.nobody_stood_too_long(&ALL);
    stage.goes_round();

    stage.start_daemon();
    stage.nobody_stood_too_long(&ALL);
    let points = stage.call(async |client| client.reference_points(None).await);
    let points = points.unwrap();
    let done = match act {
        Act::Convert => {
            assert_eq!(
                stage.find(subject).is_none(),
                points.len() == 1,
                "{points:?}"
            );
            points.len() == 1
        }
        Act::GiveUp => !points[0].keeps_data,
        Act::Destroy => points.is_empty(),
    };
    let found = stage.jobs_since(act.job(), &jobs);
    assert!(answered.is_err() || found.len() == 1, "{found:?}");
    assert!(done || found.is_empty(), "{found:?}");
    let ended = |job: &Job| job.state != JobState::Running;
    assert!(found.len() < 2 && found.iter().all(ended), "{found:?}");
    if !done {
        stage.complete(async |client| act.ask(client, subject).await);
    }
    if let Some(upper) = upper {
        let point = only_point(stage);
        assert!(!point.keeps_data);
        // Its layers come to be merged, and are others then: for each disk there is
        // one beneath the one that its guest writes to.
        stage.until("layers are merged", || images(stage) == 2 * ALL.len());
        let upper = stage.find(upper.id).unwrap();
        stage.is_whole(&upper);
        let to_next = order(to_next.clone(), Some(point.id));
        Subject::from(&upper).export(stage, &to_next);
        forget(stage, point.id);
        stage.destroy(upper.id);
        std::fs::remove_dir_all(&to_next.directory).unwrap();
        std::fs::remove_dir_all(&to_base).unwrap();
    }
    stage.looks_like(before);
    stage.goes_round();
    done
}

/// How many images of disks there are.
fn images(stage: &Stage) -> usize {
    let entries = stage.path().join("ring").read_dir().unwrap().flatten();
    let is_image = |path: &std::path::Path| path.extension().is_some_and(|e| e == "qcow2");
    entries.filter(|entry| is_image(&entry.path())).count()
}

fn only_point(stage: &Stage) -> ReferencePoint {
    let points = stage.call(async |client| client.reference_points(None).await);
    let mut points = points.unwrap();
    assert_eq!(points.len(), 1, "{points:?}");
    points.remove(0)
}
