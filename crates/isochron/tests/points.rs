//! Backups of real guests that write: a full export, then differences, each to the
//! reference point that the one before became; guests killed, snapshots applied and
//! the engine begun anew in between. Each is restored and compared, byte for byte, with
//! the frozen layers of its instant.

#![allow(clippy::unwrap_used)] // functions of tests

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use isochron_backup::{DirectoryArchive, Restore, restore, verify};
use isochron_engine::model::{
    CollectionId, CollectionKind, Definition, ImageFormat, JobState, MachineId, ReferencePoint,
    Snapshot, SnapshotKind,
};
use isochron_engine::ports::{Go, SystemClock};
use isochron_engine::{
    Config, CreateSnapshot, Engine, ExportBase, ExportRequest, ExportStarted, Exports,
};
use isochron_lab::disk::Format;
use isochron_lab::kit::Kit;
use isochron_lab::oracle::{self, Image};
use isochron_lab::ring::{Options, Ring};
use isochron_qemu::{QemuConfig, QemuHypervisor};
use isochron_store::SqliteStore;
use rustix::process::{Pid, Signal, kill_process};
use tokio::runtime::Runtime;

const LIMIT: Duration = Duration::from_secs(120);

/// An engine that lives until its runtime goes, with all that it was doing.
struct Life {
    runtime: Runtime,
    engine: Engine,
}

impl Life {
    fn begin(directory: &Path) -> Self {
        let runtime = Runtime::new().unwrap();
        let engine = runtime.block_on(async {
            let hypervisor = QemuHypervisor::new(QemuConfig {
                guardian_exe: env!("CARGO_BIN_EXE_isochron").into(),
                ..QemuConfig::new(directory.join("run"))
            });
            let store = SqliteStore::open(directory.join("isochron.db"))
                .await
                .unwrap();
            Engine::open(
                Arc::new(hypervisor),
                Arc::new(store),
                Arc::new(DirectoryArchive::default()),
                Arc::new(SystemClock),
                Config::new(directory.join("state")),
            )
            .await
            .unwrap()
        });
        Self { runtime, engine }
    }

    /// It ends at once, as by a signal; machines run on. The next one begins.
    fn die(self, directory: &Path) -> Self {
        drop(self.engine);
        self.runtime.shutdown_timeout(LIMIT);
        Self::begin(directory)
    }

    fn snapshot(&self, collection: CollectionId) -> Snapshot {
        self.runtime.block_on(async {
            let request = CreateSnapshot {
                collection,
                id: None,
                name: None,
                kind: SnapshotKind::Recovery,
                consistency: None,
                ignore_excluded_disks: false,
                owner: None,
            };
            let started = self
                .patiently(|| self.engine.create_snapshot(request.clone()))
                .await;
            let job = self.engine.wait_job(started.job).await.unwrap();
            assert_eq!(job.state, JobState::Completed, "{job:?}");
            self.engine.snapshot(started.snapshot).await.unwrap()
        })
    }

    /// Layers may be merged in the background for a moment.
    async fn patiently<T, F>(&self, ask: impl Fn() -> F) -> T
    where
        F: Future<Output = Result<T, isochron_engine::EngineError>>,
    {
        for _ in 0..100 {
            if let Ok(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        ask().await.unwrap()
    }

    fn convert(&self, snapshot: &Snapshot) -> ReferencePoint {
        self.runtime.block_on(async {
            let convert = || self.engine.convert_snapshot(snapshot.id, None, None);
            let started = self.patiently(convert).await;
            let job = self.engine.wait_job(started.job).await.unwrap();
            assert_eq!(job.state, JobState::Completed, "{job:?}");
            self.engine.reference_point(started.point).await.unwrap()
        })
    }

    fn begin_export(&self, request: &ExportRequest) -> ExportStarted {
        let export = || self.engine.export(request.clone());
        self.runtime.block_on(self.patiently(export))
    }

    fn export(&self, request: &ExportRequest) {
        let started = self.begin_export(request);
        let job = self.runtime.block_on(self.engine.wait_job(started.job));
        let job = job.unwrap();
        assert_eq!(job.state, JobState::Completed, "{job:?}");
    }
}

fn request(snapshot: &Snapshot, directory: PathBuf, base: Option<ExportBase>) -> ExportRequest {
    ExportRequest {
        what: Exports::Snapshot(snapshot.id),
        directory,
        require_difference: base.is_some(),
        base,
        merge: false,
        copy_storage: true,
        limit: None,
        disks: None,
        owner: None,
    }
}

/// Restores an export and compares each disk with the frozen layer of its instant; the
/// restored disks.
fn restores(export: &Path, snapshot: &Snapshot, to: PathBuf) -> Vec<Vec<Image>> {
    let order = Restore {
        qemu_nbd: "qemu-nbd".into(),
        directory: export.to_owned(),
        bases: Vec::new(),
        target: to,
        format: ImageFormat::Qcow2,
        memory: true,
    };
    let restored = restore(&order, &|_| Go::On).unwrap();
    let mut images = Vec::new();
    for member in &snapshot.members {
        let held = restored
            .members
            .iter()
            .find(|m| m.machine == member.machine);
        let mut disks = Vec::new();
        for disk in &member.disks {
            let held = held.unwrap().disks.iter();
            let (_, path) = held.clone().find(|(name, _)| *name == disk.disk).unwrap();
            let compared = std::process::Command::new("qemu-img")
                .args(["compare", "-U", "-f", "qcow2", "-F", disk.format.as_str()])
                .args([path, &disk.path])
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&compared.stdout);
            assert!(compared.status.success(), "{}: {said}", export.display());
            disks.push(Image::new(path, Format::Qcow2));
        }
        images.push(disks);
    }
    images
}

fn backup(format: Format, differences: usize) {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let kit = Kit::load().unwrap();
    std::fs::create_dir(at.join("ring")).unwrap();
    let options = Options {
        count: 2,
        format,
        dirty_mbps: 1,
        ..Options::default()
    };
    let ring = Ring::create(&kit, &at.join("ring"), &options).unwrap();
    let mut life = Life::begin(at);
    let (collection, machines) = life.runtime.block_on(async {
        let engine = &life.engine;
        let kind = CollectionKind::Machines;
        let collection = engine.create_collection("ring", None, kind).await.unwrap();
        let mut machines: Vec<MachineId> = Vec::new();
        for member in &ring.members {
            let text = std::fs::read_to_string(&member.file).unwrap();
            let definition: Definition = toml::from_str(&text).unwrap();
            let machine = engine.define_machine(definition).await.unwrap();
            engine.add_machine(collection.id, machine.id).await.unwrap();
            engine.start_machine(machine.id).await.unwrap();
            machines.push(machine.id);
        }
        (collection.id, machines)
    });
    ring.wait_alive(LIMIT).unwrap();
    let mut snapshot = life.snapshot(collection);
    let full = at.join("export-0");
    life.export(&request(&snapshot, full.clone(), None));
    let images = restores(&full, &snapshot, at.join("restored-0"));
    assert!(oracle::judge(&images).unwrap().is_consistent());
    let mut older: Option<ReferencePoint> = None;
    for n in 1..=differences {
        // The base is converted while the guests write.
        let base = life.convert(&snapshot);
        if let Some(older) = older.take() {
            life.runtime.block_on(async {
                let destroy = || life.engine.destroy_reference_point(older.id, None);
                let started = life.patiently(destroy).await;
                let job = life.engine.wait_job(started.job).await.unwrap();
                assert_eq!(job.state, JobState::Completed, "{job:?}");
            });
        }
        ring.wait_progress(5, LIMIT).unwrap();
        match n % 3 {
            1 => {
                let machine = machines[n % 2];
                life.runtime.block_on(async {
                    let view = life.engine.machine_view(machine).await.unwrap();
                    let process = i32::try_from(view.process_id.unwrap()).unwrap();
                    kill_process(Pid::from_raw(process).unwrap(), Signal::KILL).unwrap();
                    let start = || life.engine.start_machine(machine);
                    life.patiently(start).await;
                });
            }
            2 => life = life.die(at),
            _ => {}
        }
        ring.wait_progress(3, LIMIT).unwrap();
        snapshot = life.snapshot(collection);
        let export = at.join(format!("export-{n}"));
        let order = request(&snapshot, export.clone(), Some(ExportBase::Point(base.id)));
        if n % 3 == 2 {
            // It is interrupted, by the end of all; what it left is no export, or a
            // whole one.
            let slowly = ExportRequest {
                limit: Some(256 << 10),
                ..order.clone()
            };
            life.begin_export(&slowly);
            std::thread::sleep(Duration::from_millis(300));
            life = life.die(at);
        }
        if !export.exists() {
            life.export(&order);
        }
        let images = restores(&export, &snapshot, at.join(format!("restored-{n}")));
        let verdict = oracle::judge(&images).unwrap();
        assert!(verdict.is_consistent(), "{verdict}");
        older = Some(base);
    }
    // Nothing but exports is where exports are.
    let strays: Vec<_> = std::fs::read_dir(at)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(strays.is_empty(), "{strays:?}");
    let last = at.join(format!("export-{differences}"));
    let verified = verify("qemu-nbd".as_ref(), &last, &[], &|_| Go::On).unwrap();
    assert_eq!(verified.damages, []);
    assert_eq!(verified.exports.len(), differences + 1);
    life.runtime.block_on(async {
        for machine in machines {
            life.engine.kill_machine(machine).await.unwrap();
        }
    });
}

#[test]
fn ten_differences_of_guests_that_are_killed_in_between() {
    backup(Format::Qcow2, 10);
}

#[test]
fn differences_of_raw_images() {
    backup(Format::Raw, 4);
}
