//! What must hold when an operation is over, whatever happened to it.

use std::collections::BTreeMap;
use std::time::Duration;

use isochron_engine::Engine;
use isochron_engine::model::{
    Consistency, CutReport, Job, JobKind, JobState, MachineId, Power, Snapshot, SnapshotKind,
};
use isochron_engine::{ExportBase, ExportRequest, Exports};
use isochron_sim::{MachineState, Survey};

use crate::scene::{
    BASE, Content, EXPORT, Op, Scene, content, content_of_export, content_of_point, disagreements,
    full, request,
};

/// What happened to the world besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// Processes and their memory lived on, wherever the operation did not end them.
    Nothing,
    /// A second fault, so that a member may have come back without its memory.
    Twice,
    /// All processes ended.
    PowerLoss,
}

macro_rules! ensure {
    ($holds:expr, $($sentence:tt)*) => {
        if !$holds {
            return Err(format!($($sentence)*));
        }
    };
}

/// Files and processes, in an order that does not depend on who was started when.
fn sorted(mut survey: Survey) -> Survey {
    survey
        .processes
        .sort_by_key(|process: &MachineState| process.machine);
    survey
}

/// How many files there are, and how long each disk's chain is.
fn shape(survey: &Survey) -> (usize, Vec<Vec<usize>>) {
    let chains = survey.processes.iter().map(|process| {
        let chains = process.chains.values();
        chains.map(Vec::len).collect()
    });
    (survey.files.len(), chains.collect())
}

impl Scene {
    /// Judges the world after the operation, seen by an engine that lives.
    /// `true` if the operation was done.
    pub async fn verdict(&self, engine: &Engine, happened: Happened) -> Result<bool, String> {
        self.at_rest(engine).await?;
        let stood = *self.stood.lock().unwrap();
        let limit = match self.op {
            Op::Apply(_) | Op::Save | Op::Restore => Duration::from_secs(600),
            Op::Create(_, Consistency::Application) | Op::CreatePoint(Consistency::Application) => {
                Duration::from_secs(21)
            }
            _ => Duration::from_secs(11),
        };
        ensure!(stood <= limit, "a guest stood for {stood:?}");

        let snapshots = engine.snapshots(None).await.map_err(|e| e.to_string())?;
        let done = self.done(engine, &snapshots).await?;
        self.points_are_true(engine).await?;
        self.job_is_true(engine, done).await?;
        if happened == Happened::PowerLoss {
            for member in &self.machines {
                if self.world.power(member.id) == Power::Off {
                    let started = engine.start_machine(member.id).await;
                    started.map_err(|error| format!("does not start: {error}"))?;
                }
            }
        } else {
            for member in &self.machines {
                let is = engine.power(member.id).await.map_err(|e| e.to_string())?;
                let shall = self.power(member, done);
                ensure!(is == shall, "is {is:?} and shall be {shall:?}");
            }
        }
        self.nothing_lost(engine, &snapshots, done, happened)
            .await?;
        if !done && !self.op.goes_forward() && happened != Happened::PowerLoss {
            let (now, before) = (sorted(self.world.survey()), sorted(self.before.clone()));
            ensure!(now == before, "it was {before:#?} and is {now:#?}");
        }
        let memory = snapshots
            .iter()
            .filter(|s| s.kind == SnapshotKind::Standard);
        let directories = self.world.directories(&self.state.path().join("memory"));
        let directories = directories.len();
        ensure!(
            directories == memory.count(),
            "{directories} directories of memory"
        );
        self.goes_on(engine).await?;
        if happened == Happened::Nothing {
            self.saved_goes_on(engine).await?;
        }
        Ok(done)
    }

    /// Whoever is saved goes on from where its disks are.
    async fn saved_goes_on(&self, engine: &Engine) -> Result<(), String> {
        for member in &self.machines {
            let power = engine.power(member.id).await.map_err(|e| e.to_string())?;
            if power == Power::Saved {
                let started = engine.start_machine(member.id).await;
                started.map_err(|error| format!("it is not restored: {error}"))?;
                let memory = self.world.guest_memory(member.id);
                let memory = memory.map_err(|error| error.to_string())?;
                let holds = self.holds(engine, member.id).await?.len();
                ensure!(
                    memory == holds as u64,
                    "restored memory of {memory} writes with disks of {holds}"
                );
            }
        }
        self.at_rest(engine).await
    }

    /// Waits until records, files and processes agree.
    async fn at_rest(&self, engine: &Engine) -> Result<(), String> {
        let mut found = Vec::new();
        for _ in 0..120 {
            found = match disagreements(&self.world, engine).await {
                Ok(found) => found,
                Err(error) => vec![error.to_string()],
            };
            let jobs = engine.jobs().await.map_err(|error| error.to_string())?;
            if jobs.iter().any(|job| !job.ended()) {
                found.push("a job has not ended".to_owned());
            }
            if found.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Err(format!("no rest: {found:?}"))
    }

    /// Whether the operation was done; it must not be done in part.
    async fn done(&self, engine: &Engine, snapshots: &[Snapshot]) -> Result<bool, String> {
        let is_old = |s: &&Snapshot| self.snapshots.iter().any(|(id, _)| *id == s.id);
        let old = snapshots.iter().filter(is_old).count();
        let new = snapshots.len() - old;
        let points = engine.reference_points(None).await;
        let points = points.map_err(|e| e.to_string())?;
        match self.op {
            Op::Create(..) => {
                ensure!(new <= 1, "{new} new snapshots");
                if let Some(snapshot) = snapshots.iter().find(|s| !is_old(s)) {
                    let content = content(&self.world, snapshot)?;
                    self.is_one_instant(&snapshot.cut, content)?;
                }
                Ok(new == 1)
            }
            Op::CreatePoint(_) => {
                ensure!(points.len() <= 1, "{} new points", points.len());
                if let Some(point) = points.first() {
                    ensure!(point.keeps_data, "it does not keep its data");
                    let content = content_of_point(&self.world, point)?;
                    self.is_one_instant(&point.cut, content)?;
                }
                Ok(points.len() == 1)
            }
            Op::Convert(_) => {
                let done = old + 1 == self.snapshots.len();
                ensure!(
                    points.len() == usize::from(done) && (done || old == self.snapshots.len()),
                    "{old} snapshots and {} points",
                    points.len()
                );
                Ok(done)
            }
            Op::RemoveData => {
                ensure!(points.len() == 1, "{} points", points.len());
                Ok(!points[0].keeps_data)
            }
            Op::DestroyPoint => Ok(points.is_empty()),
            Op::Export(_) => Ok(self.world.export(EXPORT.as_ref()).is_some()),
            Op::Destroy(_) => Ok(old + 1 == self.snapshots.len()),
            Op::Save | Op::Restore => {
                let machine = engine.machine(self.pair()[0]).await;
                let saved = machine.map_err(|e| e.to_string())?.saved.is_some();
                Ok(saved == (self.op == Op::Save))
            }
            Op::Apply(_) => {
                ensure!(
                    old == self.snapshots.len() && new == 0,
                    "snapshots come and go"
                );
                let mut applied = 0;
                for member in &self.machines {
                    let machine = engine.machine(member.id).await.map_err(|e| e.to_string())?;
                    applied += usize::from(machine.last_applied == Some(self.snapshots[0].0));
                }
                ensure!(
                    applied == 0 || applied == self.machines.len(),
                    "{applied} members were returned"
                );
                Ok(applied > 0)
            }
        }
    }

    /// Reference points keep what they kept, exports restore to what was there, and
    /// from every point that is left a true difference can be told.
    async fn points_are_true(&self, engine: &Engine) -> Result<(), String> {
        for (id, held) in &self.points {
            match engine.reference_point(*id).await {
                Ok(point) if point.keeps_data => {
                    let holds = content_of_point(&self.world, &point)?;
                    ensure!(holds == *held, "a point held {held:?} and holds {holds:?}");
                }
                Ok(_) => {}
                Err(error) => ensure!(self.op == Op::DestroyPoint, "a point is gone: {error}"),
            }
        }
        if let Op::Export(_) = self.op {
            let base = content_of_export(&self.world, BASE.as_ref())?;
            ensure!(base == self.points[0].1, "the base restores to {base:?}");
            if self.world.export(EXPORT.as_ref()).is_some() {
                let holds = content_of_export(&self.world, EXPORT.as_ref())?;
                let held = &self.snapshots[0].1;
                ensure!(
                    holds == *held,
                    "it restores to {holds:?}, and there was {held:?}"
                );
            }
        }
        Ok(())
    }

    /// The next backup works: a snapshot is exported in full and as a difference to
    /// every point that was exported, and restores to what it holds.
    async fn is_exported(&self, engine: &Engine, taken: &Snapshot) -> Result<(), String> {
        let held = content(&self.world, taken)?;
        let points = engine.reference_points(None).await;
        let mut bases = vec![None];
        for point in points.map_err(|e| e.to_string())? {
            if !point.exports.is_empty() {
                bases.push(Some(ExportBase::Point(point.id)));
            }
        }
        for (index, base) in bases.into_iter().enumerate() {
            let directory = format!("/exports/next-{index}");
            let request = ExportRequest {
                require_difference: base.is_some(),
                base,
                ..full(Exports::Snapshot(taken.id), directory.clone().into())
            };
            let mut started = engine.export(request.clone()).await;
            for _ in 0..60 {
                if started.is_ok() {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                started = engine.export(request.clone()).await;
            }
            let started = started.map_err(|error| format!("the next export: {error}"))?;
            let job = engine.wait_job(started.job).await;
            let job = job.map_err(|error| error.to_string())?;
            ensure!(job.state == JobState::Completed, "the next export: {job:?}");
            let holds = content_of_export(&self.world, directory.as_ref())?;
            ensure!(
                holds == held,
                "the next export restores to {holds:?} of {held:?}"
            );
        }
        Ok(())
    }

    fn is_one_instant(
        &self,
        cut: &CutReport,
        content: BTreeMap<MachineId, Content>,
    ) -> Result<(), String> {
        ensure!(
            content.len() == self.machines.len(),
            "it has {} members",
            content.len()
        );
        let window = cut.common_window_us;
        ensure!(
            window.is_some_and(|window| window >= 0),
            "the window is {window:?}"
        );
        for (machine, holds) in &content {
            let written = self.guests.written(*machine);
            let until: Content = written[..holds.len().min(written.len())]
                .iter()
                .copied()
                .collect();
            ensure!(*holds == until, "a snapshot holds {holds:?} of {written:?}");
            let before = self.written_before.get(machine).copied().unwrap_or(0);
            ensure!(
                holds.len() >= before,
                "a snapshot lacks what was written before it"
            );
        }
        let [first, second] = self.pair();
        let without = self
            .guests
            .without_cause(&content[&second], first, &content[&first]);
        ensure!(
            without.is_none(),
            "an effect without its cause: {without:?}"
        );
        Ok(())
    }

    async fn job_is_true(&self, engine: &Engine, done: bool) -> Result<(), String> {
        let jobs: Vec<Job> = engine.jobs().await.map_err(|error| error.to_string())?;
        let kind = match self.op {
            Op::Create(..) => JobKind::CreateSnapshot,
            Op::Apply(_) => JobKind::ApplySnapshot,
            Op::Destroy(_) => JobKind::DestroySnapshot,
            Op::CreatePoint(_) => JobKind::CreateReferencePoint,
            Op::Convert(_) => JobKind::ConvertSnapshot,
            Op::RemoveData => JobKind::RemoveReferencePointData,
            Op::DestroyPoint => JobKind::DestroyReferencePoint,
            Op::Export(_) => JobKind::ExportSnapshot,
            Op::Save => JobKind::SaveMachine,
            Op::Restore => JobKind::RestoreMachine,
        };
        let mut new = jobs
            .iter()
            .filter(|job| job.kind == kind && !self.jobs_before.contains(&job.id));
        let Some(job) = new.next() else {
            ensure!(!done, "done without a job");
            return Ok(());
        };
        let completed = job.state == JobState::Completed;
        // Destroying goes forward: a job that failed may have destroyed.
        let forward = self.op.goes_forward() && done;
        ensure!(completed == done || forward, "done: {done}, but {job:?}");
        ensure!(completed || job.error.is_some(), "no reason: {job:?}");
        if let (true, Some(told)) = (completed, &job.export) {
            let export = self.world.export(EXPORT.as_ref());
            let files = export.ok_or("the export is gone")?.disks.len();
            ensure!(told.files.len() == files, "{files} files, but {job:?}");
        }
        Ok(())
    }

    /// What a member shall do now.
    fn power(&self, member: &crate::scene::Member, done: bool) -> Power {
        match (self.op, member.power) {
            (Op::Save | Op::Restore, _) if member.id == self.pair()[0] => {
                match done == (self.op == Op::Save) {
                    true => Power::Saved,
                    false => Power::Running,
                }
            }
            (Op::Apply(SnapshotKind::Recovery), Power::Paused) if done => Power::Off,
            (_, power) => power,
        }
    }

    /// Disks hold all that was acknowledged, snapshots what they held, and memory
    /// goes on where the disks do.
    async fn nothing_lost(
        &self,
        engine: &Engine,
        snapshots: &[Snapshot],
        done: bool,
        happened: Happened,
    ) -> Result<(), String> {
        for snapshot in snapshots {
            if let Some((_, held)) = self.snapshots.iter().find(|(id, _)| *id == snapshot.id) {
                let holds = content(&self.world, snapshot)?;
                ensure!(
                    holds == *held,
                    "a snapshot held {held:?} and holds {holds:?}"
                );
            }
        }
        for member in &self.machines {
            let holds = self.holds(engine, member.id).await?;
            let written = self.guests.written(member.id);
            if let (Op::Apply(_), true) = (self.op, done) {
                let held = &self.snapshots[0].1[&member.id];
                ensure!(
                    held.is_subset(&holds),
                    "returned to {held:?}, it holds {holds:?}"
                );
                // What it wrote since it came up is all there.
                let since: Vec<u64> = holds.difference(held).copied().collect();
                ensure!(
                    written.ends_with(&since),
                    "{since:?} since it came up, of {written:?}"
                );
                self.guests
                    .returned(member.id, holds.iter().copied().collect());
            } else {
                let expected: Content = written.iter().copied().collect();
                ensure!(holds == expected, "it holds {holds:?} of {expected:?}");
            }
            let memory = self.world.guest_memory(member.id);
            let restarted = matches!((self.op, done), (Op::Apply(SnapshotKind::Recovery), true));
            if let (Happened::Nothing, false, Ok(memory)) = (happened, restarted, memory) {
                ensure!(
                    memory == holds.len() as u64,
                    "memory of {memory} writes with disks of {}",
                    holds.len()
                );
            }
        }
        Ok(())
    }

    /// What a machine's disks hold.
    async fn holds(&self, engine: &Engine, id: MachineId) -> Result<Content, String> {
        let view = engine.machine_view(id).await.map_err(|e| e.to_string())?;
        let mut holds = Content::new();
        for disk in &view.disks {
            let read = match view.power {
                Power::Off | Power::Saved => self.world.read_view(&disk.chain[0].path),
                _ => self.world.guest_view(id, &disk.name),
            };
            holds.extend(read.map_err(|error| error.to_string())?.into_keys());
        }
        Ok(holds)
    }

    /// The next operations work: a snapshot is taken, and destroyed.
    async fn goes_on(&self, engine: &Engine) -> Result<(), String> {
        let before = sorted(self.world.survey());
        let mut held = BTreeMap::new();
        for member in &self.machines {
            held.insert(member.id, self.holds(engine, member.id).await?);
        }
        let request = request(self.collection, SnapshotKind::Recovery, Consistency::Crash);
        let mut started = engine.create_snapshot(request.clone()).await;
        for _ in 0..60 {
            if started.is_ok() {
                break;
            }
            // Layers may still be merged in the background.
            tokio::time::sleep(Duration::from_secs(1)).await;
            started = engine.create_snapshot(request.clone()).await;
        }
        let started = started.map_err(|error| format!("the next one: {error}"))?;
        let job = engine
            .wait_job(started.job)
            .await
            .map_err(|e| e.to_string())?;
        ensure!(job.state == JobState::Completed, "the next one: {job:?}");
        let taken = engine
            .snapshot(started.snapshot)
            .await
            .map_err(|e| e.to_string())?;
        let holds = content(&self.world, &taken)?;
        ensure!(holds == held, "the next one holds {holds:?} of {held:?}");
        self.is_exported(engine, &taken).await?;
        self.guests.exchange(&self.world, self.pair());
        let started = engine.destroy_snapshot(started.snapshot, None).await;
        let started = started.map_err(|error| format!("destroying the next one: {error}"))?;
        let job = engine
            .wait_job(started.job)
            .await
            .map_err(|e| e.to_string())?;
        ensure!(
            job.state == JobState::Completed,
            "destroying the next one: {job:?}"
        );
        self.at_rest(engine).await?;
        let after = sorted(self.world.survey());
        let points = engine.reference_points(None).await;
        let points = points.map_err(|error| error.to_string())?;
        if points.is_empty() {
            ensure!(before == after, "it was {before:#?} and is {after:#?}");
        }
        // Above a point it may be another overlay that is left, but not one more.
        let (before, after) = (shape(&before), shape(&after));
        ensure!(before == after, "it was {before:?} and is {after:?}");
        for member in &self.machines {
            let written: Content = self.guests.written(member.id).into_iter().collect();
            let holds = self.holds(engine, member.id).await?;
            ensure!(
                holds == written,
                "in the end it holds {holds:?} of {written:?}"
            );
        }
        Ok(())
    }
}
