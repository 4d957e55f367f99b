//! Death while an export is written: of the daemon at each step, of a member, of what
//! reads the disks; a disk that is full, a caller who has changed their mind. An
//! export is whole or not there, and guests have nothing of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use isochron_api::client::{Client, ClientError};
use isochron_api::dto::{
    ConvertSnapshot, ErrorKind, ExportIntent, FinishedExport, ImageFormat, Job, JobKind, JobState,
    NewExport, NewReferencePoint, ReferencePoint, Snapshot, SnapshotKind,
};
use isochron_backup::verify;
use isochron_engine::ports::Go;
use rustix::process::Signal;
use uuid::Uuid;

use crate::common::Mount;
use crate::hold::HeldStore;
use crate::member::{OTHERS, VICTIM, come_back};
use crate::points;
use crate::space::free;
use crate::stage::{COLLECTION, Stage, signal};

const ALL: [usize; 3] = [0, 1, 2];

/// So slow that there is time for something in the middle.
const SLOW: u64 = 256 << 10;

/// When the daemon is killed.
#[derive(Clone, Copy, Debug)]
enum When {
    /// So long after the request.
    Asked(Duration),
    /// The request is not on record.
    Recording,
    /// A process opens layers.
    Opening,
    /// The directory is there under its first name.
    Made,
    /// So long after that, of a slow one.
    Copying(Duration),
    /// All is written and not yet final.
    Sealing,
    /// It is final, and that is not on record.
    Renamed,
    /// The job has ended.
    Done,
}

impl When {
    fn limit(self) -> Option<u64> {
        matches!(self, Self::Copying(_) | Self::Renamed).then_some(SLOW)
    }
}

/// What is exported: a snapshot, or a reference point that keeps its data.
pub struct Subject {
    id: Uuid,
    job: JobKind,
    /// Of each disk its image in an export, its frozen layer, and the layer's format.
    disks: Vec<(String, PathBuf, ImageFormat)>,
}

impl From<&Snapshot> for Subject {
    fn from(snapshot: &Snapshot) -> Self {
        let disks = snapshot.members.iter().flat_map(|member| {
            let disks = member.disks.iter();
            disks.map(|d| (image(&member.vm, &d.disk), d.layer.clone(), d.format))
        });
        Self {
            id: snapshot.id,
            job: JobKind::ExportSnapshot,
            disks: disks.collect(),
        }
    }
}

impl From<&ReferencePoint> for Subject {
    fn from(point: &ReferencePoint) -> Self {
        let disks = point.members.iter().flat_map(|member| {
            let disks = member.disks.iter();
            disks.map(|d| (image(&member.vm, &d.disk), d.layer.clone(), d.format))
        });
        Self {
            id: point.id,
            job: JobKind::ExportReferencePoint,
            disks: disks.collect(),
        }
    }
}

/// The name of a disk's image in an export.
fn image(machine: &str, disk: &str) -> String {
    format!("{machine}.{disk}.qcow2")
}

async fn ask(
    client: &Client,
    job: JobKind,
    id: Uuid,
    order: &NewExport,
) -> Result<Job, ClientError> {
    match job {
        JobKind::ExportSnapshot => client.export_snapshot(&id.to_string(), order).await,
        _ => client.export_reference_point(&id.to_string(), order).await,
    }
}

/// An order for an export to this directory.
pub fn order(directory: PathBuf, base: Option<Uuid>) -> NewExport {
    NewExport {
        directory,
        base: base.map(|base| base.to_string()),
        intent: ExportIntent::Chain,
        storage: true,
        limit: None,
        disks: None,
        require_difference: base.is_some(),
    }
}

impl Subject {
    /// Exports it, which must succeed, and holds the result against the layers.
    pub fn export(&self, stage: &Stage, order: &NewExport) {
        let job = stage.complete(async |client| ask(client, self.job, self.id, order).await);
        self.is_whole(&order.directory);
        assert!(self.is_known(stage, &job));
    }

    /// Fails unless an export verifies and holds, byte for byte, what was frozen.
    fn is_whole(&self, export: &Path) {
        let verified = verify("qemu-nbd".as_ref(), export, &[], &|_| Go::On).unwrap();
        assert_eq!(verified.damages, []);
        assert_eq!(verified.disks, self.disks.len() * verified.exports.len());
        for (image, layer, format) in &self.disks {
            let format = match format {
                ImageFormat::Raw => "raw",
                ImageFormat::Qcow2 => "qcow2",
            };
            let compared = Command::new("qemu-img")
                .args(["compare", "-U", "-f", "qcow2", "-F", format])
                .args([&export.join(image), layer])
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&compared.stdout);
            assert!(compared.status.success(), "{image}: {said}{compared:?}");
        }
    }

    /// Whether the records have the export that a job was to write.
    fn is_known(&self, stage: &Stage, job: &Job) -> bool {
        let id = self.id.to_string();
        let exports: Vec<FinishedExport> = match self.job {
            JobKind::ExportSnapshot => stage.find(self.id).unwrap().exports,
            _ => {
                let point = stage.call(async |client| client.reference_point(&id).await);
                point.unwrap().exports
            }
        };
        let written = job.export.as_ref().unwrap();
        exports.iter().any(|export| export.id == written.id)
    }

    /// One kill and what must hold after it; whether the export is there.
    fn killed(&self, stage: &mut Stage, order: &NewExport, when: When) -> bool {
        let exports = order.directory.parent().unwrap().to_owned();
        let before = entries(&exports);
        let jobs = stage.jobs_of(self.job);
        let mut store = None;
        if let When::Recording = when {
            store = Some(HeldStore::new(stage.path()));
        }
        let (job, id) = (self.job, self.id);
        let asked = NewExport {
            limit: when.limit(),
            ..order.clone()
        };
        let asked = stage.begin(async move |client| ask(client, job, id, &asked).await);
        match when {
            When::Asked(delay) => std::thread::sleep(delay),
            When::Recording => std::thread::sleep(Duration::from_millis(100)),
            When::Opening => soon(stage, "a reader", || !stage.programs("qemu-nbd").is_empty()),
            When::Made => soon(stage, "a directory", || partial(&exports).is_some()),
            When::Copying(delay) => {
                soon(stage, "a directory", || partial(&exports).is_some());
                std::thread::sleep(delay);
            }
            When::Sealing => soon(stage, "a manifest", || {
                order.directory.exists()
                    || partial(&exports).is_some_and(|made| made.join("manifest.json").exists())
            }),
            When::Renamed => {
                soon(stage, "a directory", || partial(&exports).is_some());
                store = Some(HeldStore::new(stage.path()));
                soon(stage, "the export", || order.directory.exists());
            }
            When::Done => stage.until("it is done", || {
                let jobs = stage.jobs_since(job, &jobs);
                jobs.iter().any(Job::ended)
            }),
        }
        stage.kill_daemon();
        if let Some(store) = store {
            store.release();
        }
        let answered = asked.join().unwrap();
        // Nobody has anything of it, and what is there is whole, while no daemon is.
        stage.nobody_stood_too_long(&ALL);
        stage.goes_round();
        no_reader_is_left(stage);
        let is_there = order.directory.exists();
        if is_there {
            self.is_whole(&order.directory);
        }

        stage.start_daemon();
        let mut expected = before.clone();
        expected.extend(is_there.then(|| order.directory.clone()));
        assert_eq!(entries(&exports), expected, "{}", stage.log());
        match &stage.jobs_since(self.job, &jobs)[..] {
            [job] => {
                let expected = match is_there {
                    true => JobState::Completed,
                    false => JobState::Failed,
                };
                assert_eq!(job.state, expected, "{job:?}");
                assert_eq!(job.error.is_some(), !is_there, "{job:?}");
                assert_eq!(self.is_known(stage, job), is_there);
            }
            [] => assert!(answered.is_err() && !is_there),
            jobs => panic!("{jobs:?}"),
        }
        // What its owner removed can be written again.
        if is_there {
            self.is_whole(&order.directory);
            std::fs::remove_dir_all(&order.directory).unwrap();
        }
        self.export(stage, order);
        std::fs::remove_dir_all(&order.directory).unwrap();
        assert_eq!(entries(&exports), before);
        stage.nobody_stood_too_long(&ALL);
        is_there
    }

    fn ask(&self, stage: &Stage, order: &NewExport) -> Result<Job, ClientError> {
        stage.call(async |client| ask(client, self.job, self.id, order).await)
    }

    /// Begins a slow export; returns when it is being written.
    fn begin(&self, stage: &Stage, order: &NewExport) -> Job {
        let slow = NewExport {
            limit: Some(SLOW),
            ..order.clone()
        };
        let asked = self.ask(stage, &slow);
        let exports = order.directory.parent().unwrap();
        soon(stage, "a directory", || partial(exports).is_some());
        asked.unwrap()
    }
}

/// Waits for something that does not last.
fn soon(stage: &Stage, what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        let in_time = began.elapsed() < crate::common::LIMIT;
        assert!(in_time, "not there: {what}\n{}", stage.log());
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn entries(directory: &Path) -> BTreeSet<PathBuf> {
    let entries = directory.read_dir().unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// The directory of an export that is not whole.
fn partial(exports: &Path) -> Option<PathBuf> {
    entries(exports).into_iter().find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with('.') && name.ends_with(".partial")
    })
}

fn no_reader_is_left(stage: &Stage) {
    stage.until("no reader is left", || {
        let programs = ["qemu-nbd", "qemu-img", "sh"];
        programs.iter().all(|name| stage.programs(name).is_empty())
    });
}

/// A reference point of now that keeps its data.
pub fn reference_point(stage: &Stage) -> ReferencePoint {
    let new = NewReferencePoint {
        collection: COLLECTION.to_owned(),
        name: None,
        consistency: None,
        ignore_excluded_disks: false,
        id: None,
    };
    let job = stage.complete(async |client| client.create_reference_point(&new).await);
    let id = job.point_id.unwrap().to_string();
    let point = stage.call(async |client| client.reference_point(&id).await);
    point.unwrap()
}

/// The snapshot becomes a reference point; its identifier.
pub fn convert(stage: &Stage, snapshot: Uuid) -> Uuid {
    let (name, new) = (snapshot.to_string(), ConvertSnapshot::default());
    let job = stage.complete(async |client| client.convert_snapshot(&name, &new).await);
    job.point_id.unwrap()
}

/// Destroys a reference point. What a busy host did not merge in time is merged later.
pub fn forget(stage: &Stage, point: Uuid) {
    let name = point.to_string();
    stage.until("the point is gone", || {
        match stage.call(async |client| client.destroy_reference_point(&name).await) {
            Ok(job) => {
                let job = stage.ended(job);
                let late = |error: &isochron_api::dto::Error| error.kind == ErrorKind::Timeout;
                assert!(job.error.as_ref().is_none_or(late), "{job:?}");
                true
            }
            Err(ClientError::Refused(error)) => {
                let later = [ErrorKind::InvalidState, ErrorKind::Timeout];
                assert!(later.contains(&error.kind), "{error:?}");
                false
            }
            Err(error) => panic!("{error}\n{}", stage.log()),
        }
    });
}

#[test]
fn a_killed_daemon_leaves_a_whole_export_or_none() {
    let mut stage = Stage::open();
    let exports = stage.path().join("exports");
    std::fs::create_dir(&exports).unwrap();
    let before = stage.picture();
    let monday = stage.snapshot(SnapshotKind::Recovery);
    let full = Subject::from(&monday);
    let to_monday = order(exports.join("monday"), None);
    let began = Instant::now();
    full.export(&stage, &to_monday);
    let length = began.elapsed();
    std::fs::remove_dir_all(&to_monday.directory).unwrap();

    let spread = points(2);
    let mut moments: Vec<_> = (0..spread)
        .map(|point| When::Asked(length * point / spread))
        .collect();
    let some = Duration::from_millis(100);
    moments.extend([
        When::Recording,
        When::Opening,
        When::Made,
        When::Copying(some),
        When::Sealing,
        When::Renamed,
        When::Done,
    ]);
    for when in moments {
        let is_there = full.killed(&mut stage, &to_monday, when);
        println!(
            "full, {when:?}: {}",
            if is_there { "whole" } else { "none" }
        );
        match when {
            When::Recording | When::Copying(_) => assert!(!is_there),
            When::Renamed | When::Done => assert!(is_there),
            _ => {}
        }
    }
    // The same of what changed since, to a reference point that keeps its data.
    full.export(&stage, &to_monday);
    let base = convert(&stage, monday.id);
    stage.goes_round();
    let tuesday = reference_point(&stage);
    let difference = Subject::from(&tuesday);
    let to_tuesday = order(exports.join("tuesday"), Some(base));
    for when in [
        When::Opening,
        When::Copying(some),
        When::Sealing,
        When::Renamed,
    ] {
        let is_there = difference.killed(&mut stage, &to_tuesday, when);
        println!("difference, {when:?}: {is_there}");
    }
    forget(&stage, tuesday.id);
    forget(&stage, base);
    std::fs::remove_dir_all(&to_monday.directory).unwrap();
    stage.looks_like(&before);
    stage.close(false);
}

#[test]
fn an_export_that_fails_leaves_nothing_and_is_written_again() {
    let mut stage = Stage::open();
    let exports = stage.path().join("exports");
    std::fs::create_dir(&exports).unwrap();
    let monday = stage.snapshot(SnapshotKind::Recovery);
    let full = Subject::from(&monday);
    let to_monday = order(exports.join("monday"), None);
    full.export(&stage, &to_monday);
    let base = convert(&stage, monday.id);
    stage.goes_round();
    let tuesday = stage.snapshot(SnapshotKind::Recovery);
    let difference = Subject::from(&tuesday);
    let to_tuesday = order(exports.join("tuesday"), Some(base));
    let before = entries(&exports);
    let failed = |stage: &mut Stage, exports: &Path, before: &BTreeSet<PathBuf>, job: &Job| {
        no_reader_is_left(stage);
        assert_eq!(&entries(exports), before, "{job:?}");
        stage.nobody_stood_too_long(&ALL);
        stage.goes_round();
    };

    // A member's process is not what is exported.
    let job = difference.begin(&stage, &to_tuesday);
    signal(stage.process(VICTIM), Signal::KILL);
    let job = stage.ended(job);
    assert_eq!(job.state, JobState::Completed, "{job:?}");
    difference.is_whole(&to_tuesday.directory);
    std::fs::remove_dir_all(&to_tuesday.directory).unwrap();
    stage.nobody_stood_too_long(&OTHERS);
    come_back(&mut stage);

    // Who reads the layers is.
    let job = difference.begin(&stage, &to_tuesday);
    signal(stage.programs("qemu-nbd")[0], Signal::KILL);
    let job = stage.ended(job);
    assert_eq!(job.state, JobState::Failed, "{job:?}");
    println!("{}", job.error.as_ref().unwrap().message);
    failed(&mut stage, &exports, &before, &job);
    difference.export(&stage, &to_tuesday);
    std::fs::remove_dir_all(&to_tuesday.directory).unwrap();

    // Its caller may end it, and kill the daemon right then.
    for dies in [false, true] {
        let job = difference.begin(&stage, &to_tuesday);
        let id = job.id.to_string();
        stage
            .call(async |client| client.cancel_job(&id).await)
            .unwrap();
        let job = match dies {
            true => {
                stage.kill_daemon();
                no_reader_is_left(&stage);
                stage.start_daemon();
                let jobs = stage.jobs_of(difference.job);
                jobs.into_iter().find(|found| found.id == job.id).unwrap()
            }
            false => stage.ended(job),
        };
        let ended: &[JobState] = match dies {
            true => &[JobState::Cancelled, JobState::Failed],
            false => &[JobState::Cancelled],
        };
        assert!(ended.contains(&job.state), "{job:?}");
        failed(&mut stage, &exports, &before, &job);
    }
    difference.export(&stage, &to_tuesday);

    // No space: for the first file, in the middle, for the last.
    let small = exports.join("small");
    match Mount::new(&small, 16 << 10) {
        Err(why) => {
            println!("skipped: a file system of a given size cannot be mounted here: {why}");
            std::fs::remove_dir(&small).unwrap();
        }
        Ok(mount) => {
            let to_small = order(small.join("tuesday"), None);
            let all = free(&small);
            difference.export(&stage, &to_small);
            let needed = all - free(&small);
            std::fs::remove_dir_all(&to_small.directory).unwrap();
            let filler = small.join("filler");
            for room in [0, needed / 2, needed - 8192] {
                let filled = free(&small) - room;
                std::fs::write(&filler, vec![1; filled.try_into().unwrap()]).unwrap();
                let before = entries(&small);
                let asked = difference.ask(&stage, &to_small);
                let job = stage.ended(asked.unwrap());
                assert_eq!(job.state, JobState::Failed, "{room}: {job:?}");
                println!("room for {room}: {}", job.error.as_ref().unwrap().message);
                failed(&mut stage, &small, &before, &job);
                std::fs::remove_file(&filler).unwrap();
            }
            difference.export(&stage, &to_small);
            drop(mount);
            std::fs::remove_dir(&small).unwrap();
        }
    }
    stage.close(true);
}
