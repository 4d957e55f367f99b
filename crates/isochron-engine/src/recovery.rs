//! Recovery: takes an operation back by its journal, after its failure or after
//! our death, and makes records, files and processes agree.
//!
//! ```text
//!   create, any phase   resume and thaw who ran  ->  overlays that are active are
//!                       adopted as layers of their own, others discarded  ->
//!                       collected: adopted layers merge back (see layers)
//!   apply, Preparing    overlays discarded
//!   apply, Saving       resume who ran, overlays and saved memory discarded
//!   apply, Switching    new processes ended, old ones started again from their
//!                       saved memory, resumed if they ran; from their disks where
//!                       the guard had let them run, and so emptied it
//!   apply, Resuming     forward: resume who shall run
//!   save, Saving        resume it, saved memory discarded
//!   save, Ending        forward: it is saved, its process is ended; but where the
//!                       guard let it run, and so emptied its memory, as in Saving
//!   restore, Preparing  the new process is ended; it is still saved
//!   restore, Resuming   forward: resume it
//!   start               forward: resume it, if it has a process
//! ```
//!
//! Whether an overlay is active is asked of the process. Where the process is gone
//! and may have written to it, it counts as active: empty or not, it reads as the
//! disk read last. Every step can be repeated.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use crate::EngineError;
use crate::cut::{resume, thaw};
use crate::engine::Inner;
use crate::gate::Pass;
use crate::jobs::Progress;
use crate::journal::{Journal, JournalMember, Operation, Phase};
use crate::layers::{chain, collect};
use crate::model::{
    Affected, Job, JobId, JobKind, JobState, Layer, Machine, MachineId, Power, ReferencePoint,
    Snapshot,
};
use crate::ports::{HypervisorError, Start};
use crate::records::{Trash, journal_key, layer_key, machine_key, point_key, snapshot_key};

impl Inner {
    /// Ends an operation: shows its success, or takes it back and shows its
    /// failure. Where a member does not answer, its places stay held and taking
    /// back goes on until it does.
    pub(crate) async fn conclude(
        self: &Arc<Self>,
        journal: Journal,
        pass: Pass,
        outcome: Result<Job, EngineError>,
        progress: &Progress,
    ) {
        let error = match outcome {
            Ok(ended) => {
                drop(pass);
                progress.shown(ended);
                self.collect_later(journal.members.iter().map(|member| member.machine));
                return;
            }
            Err(error) => error,
        };
        tracing::warn!(job = %journal.job, %error, "taking the operation back");
        let unsettled = match settle(self, journal.job).await {
            Ok(settled) => {
                self.settled(journal, pass, settled, Some(error), progress)
                    .await;
                return;
            }
            Err(unsettled) => unsettled,
        };
        let recorded = self.records.get(&journal_key(journal.job)).await;
        let failed = matches!(&recorded, Ok(Some(Journal { phase, .. })) if !phase.goes_forward());
        let error = if failed {
            let error = EngineError::new(
                error.kind,
                format!("{error}; taking it back is not finished yet and goes on ({unsettled})"),
            );
            progress.finish(&self.records, None, Some(error)).await;
            None
        } else {
            // It goes forward, or the store does not say which way: how it ends is
            // not known yet.
            Some(error)
        };
        let (inner, progress) = (Arc::clone(self), progress.clone());
        tokio::spawn(settle_until_done(inner, journal, pass, error, progress));
    }

    /// After an operation is settled: its layers are collected, its places are
    /// free, and its job ends, unless it has ended before (`error` is `None`).
    async fn settled(
        self: &Arc<Self>,
        journal: Journal,
        pass: Pass,
        settled: Settled,
        error: Option<EngineError>,
        progress: &Progress,
    ) {
        for member in &journal.members {
            if let Err(error) = collect(self, member.machine, &|_| {}).await {
                tracing::warn!(machine = %member.machine, %error, "layers are not merged yet");
                tokio::spawn(collect_until_done(Arc::clone(self), member.machine));
            }
        }
        let affected = match journal.operation {
            Operation::Create(id) | Operation::Apply(id) => Affected::Snapshot(id),
            Operation::CreatePoint(id) => Affected::ReferencePoint(id),
            Operation::Save(id) | Operation::Restore(id) => Affected::Machine(id),
        };
        if let (Operation::Create(id), Settled::Back) = (journal.operation, &settled) {
            self.remove_memory_directory(id).await;
        }
        drop(pass);
        match (settled, error) {
            (Settled::Done, _) => {
                if let Ok(ended) = progress.ending(Some(affected), None) {
                    progress.shown(ended);
                }
            }
            (Settled::Back, Some(error)) => {
                progress.finish(&self.records, None, Some(error)).await;
            }
            (Settled::Back, None) => {}
        }
    }

    /// Goes on collecting those of these machines that are not done.
    pub(crate) fn collect_later(self: &Arc<Self>, machines: impl IntoIterator<Item = MachineId>) {
        for machine in machines {
            tokio::spawn(collect_until_done(Arc::clone(self), machine));
        }
    }

    pub(crate) async fn write_journal(&self, journal: &Journal) -> Result<(), EngineError> {
        let mut transaction = self.records.begin().await;
        transaction.put(journal)?;
        transaction.commit().await
    }

    /// Deletes files that nobody needs, after closing them where a process has
    /// them open. What cannot be deleted now is tried again with the next call;
    /// nobody waits for it.
    pub(crate) async fn empty_trash(&self) {
        let trash = match self.records.trash().await {
            Ok(trash) => trash,
            Err(error) => {
                tracing::warn!(%error, "which files nobody needs is not known now");
                return;
            }
        };
        for trash in trash {
            if let Err(error) = self.dispose(&trash).await {
                tracing::warn!(file = %trash.path.display(), %error, "not deleted yet");
            }
        }
    }

    async fn dispose(&self, trash: &Trash) -> Result<(), EngineError> {
        if let Some(layer) = &trash.layer
            && let Ok(machine) = self.machine(layer.machine).await
            && let Some(live) = self.hypervisor.live(&machine).await?
        {
            live.close_layers(&[layer.file()]).await?;
        }
        self.hypervisor.delete_file(&trash.path).await?;
        let mut transaction = self.records.begin().await;
        transaction.discarded(&trash.path);
        transaction.commit().await
    }
}

/// How an operation ended in the end.
pub(crate) enum Settled {
    /// It was done after all.
    Done,
    /// It was taken back.
    Back,
}

/// Takes an operation back, or forward where that is nearer.
pub(crate) async fn settle(inner: &Inner, job: JobId) -> Result<Settled, EngineError> {
    let Some(mut journal) = inner.records.get::<Journal>(&journal_key(job)).await? else {
        let job: Option<Job> = inner.records.get(&crate::records::job_key(job)).await?;
        return Ok(match job.map(|job| job.state) {
            Some(JobState::Completed) => Settled::Done,
            _ => Settled::Back,
        });
    };
    // First of all, guests run.
    wake_all(inner, &journal).await?;
    Ok(match (journal.operation, journal.phase) {
        (Operation::Save(_), Phase::Ending) => {
            if crate::save::finish(inner, &journal, None).await?.is_some() {
                return Ok(Settled::Done);
            }
            journal.phase = Phase::Saving;
            inner.write_journal(&journal).await?;
            wake_all(inner, &journal).await?;
            take_back(inner, &journal).await?;
            Settled::Back
        }
        (Operation::Restore(_), Phase::Resuming) => {
            crate::save::finish_restore(inner, &journal, None).await?;
            Settled::Done
        }
        (Operation::Restore(_), _) => {
            crate::save::take_back_restore(inner, &journal).await?;
            Settled::Back
        }
        (Operation::Create(_) | Operation::CreatePoint(_) | Operation::Save(_), _)
        | (Operation::Apply(_), Phase::Preparing | Phase::Saving) => {
            take_back(inner, &journal).await?;
            Settled::Back
        }
        (Operation::Apply(_), Phase::Switching | Phase::Cutting | Phase::Ending) => {
            let switched = join_all(
                journal
                    .members
                    .iter()
                    .map(|member| switch_back(inner, member)),
            )
            .await;
            switched.into_iter().collect::<Result<Vec<_>, _>>()?;
            // All stand where they were. Written before any of them runs: a guest
            // that has run on must never be started from that memory again.
            journal.phase = Phase::Saving;
            inner.write_journal(&journal).await?;
            wake_all(inner, &journal).await?;
            take_back(inner, &journal).await?;
            Settled::Back
        }
        (Operation::Apply(id), Phase::Resuming) => {
            crate::apply::finish(inner, &journal, id, None).await?;
            Settled::Done
        }
    })
}

async fn wake_all(inner: &Inner, journal: &Journal) -> Result<(), EngineError> {
    let members = journal.members.iter();
    let woken = join_all(members.map(|member| wake(inner, journal, member))).await;
    woken.into_iter().collect()
}

/// Lets a member run that ran before, thaws it, and gives up saving its memory.
async fn wake(inner: &Inner, journal: &Journal, member: &JournalMember) -> Result<(), EngineError> {
    let stood = match (journal.operation, journal.phase) {
        (Operation::Create(_) | Operation::CreatePoint(_), Phase::Cutting)
        | (Operation::Apply(_) | Operation::Save(_), Phase::Saving) => true,
        (Operation::Create(_) | Operation::CreatePoint(_), _)
        | (Operation::Save(_), Phase::Preparing) => false,
        (Operation::Apply(_) | Operation::Save(_) | Operation::Restore(_), _) => return Ok(()),
    };
    let machine = inner.machine(member.machine).await?;
    let Some(live) = inner.hypervisor.live(&machine).await? else {
        return Ok(());
    };
    let wake = async {
        let run = async || {
            if stood && member.power == Power::Running && live.power().await? == Power::Paused {
                resume(live.as_ref(), inner.config.deadlines.stop).await?;
            }
            Ok(())
        };
        run().await?;
        if stood && member.freeze {
            thaw(live.as_ref(), inner.config.deadlines.freeze).await?;
        }
        if member.memory.is_some() {
            live.cancel_save().await?;
            // A plain save that came to its end before that has stopped it again.
            run().await?;
        }
        Ok(())
    };
    wake.await.map_err(|error: HypervisorError| {
        EngineError::from(error).of(format!("machine {}", machine.name))
    })
}

/// Adopts overlays that are active, discards the others, and ends the journal.
async fn take_back(inner: &Inner, journal: &Journal) -> Result<(), EngineError> {
    let mut adopted = Vec::new();
    for member in &journal.members {
        let machine = inner.machine(member.machine).await?;
        let truth = match inner.hypervisor.live(&machine).await? {
            Some(live) => Some(live.disks().await?),
            None => None,
        };
        for overlay in &member.overlays {
            let active = match &truth {
                Some(disks) => disks.iter().any(|disk| disk.path == overlay.path),
                None => {
                    matches!(
                        journal.operation,
                        Operation::Create(_) | Operation::CreatePoint(_)
                    ) && journal.phase == Phase::Cutting
                        && !matches!(member.power, Power::Off | Power::Saved)
                        && inner.hypervisor.is_image(&overlay.file()).await?
                }
            };
            if active {
                adopted.push(overlay.id);
            }
        }
    }
    // At once: what it takes up may be what the store lacks to be written at all.
    for memory in journal.members.iter().filter_map(|m| m.memory.as_ref()) {
        if let Err(error) = inner.hypervisor.delete_file(memory).await {
            tracing::warn!(file = %memory.display(), %error, "not deleted yet");
        }
    }
    let mut transaction = inner.records.begin().await;
    for member in &journal.members {
        let mut machine: Machine = transaction.require(&machine_key(member.machine)).await?;
        for overlay in &member.overlays {
            if adopted.contains(&overlay.id) {
                machine.set_active(overlay);
                transaction.put(overlay)?;
            } else {
                transaction.delete(layer_key(overlay.machine, overlay.id));
                transaction.discard_layer(overlay)?;
            }
        }
        transaction.put(&machine)?;
        if let Some(memory) = &member.memory {
            transaction.discard(memory)?;
        }
        transaction.needs_collecting(member.machine)?;
    }
    transaction.delete(journal_key(journal.job));
    transaction.commit().await
}

/// Puts a member of a failed apply back where it was: the new process is ended,
/// the old one started again from its saved memory. It stands then; an old process
/// that lives is left alone.
async fn switch_back(inner: &Inner, member: &JournalMember) -> Result<(), EngineError> {
    let machine = inner.machine(member.machine).await?;
    let layers = inner.records.layers(machine.id).await?;
    if let Some(live) = inner.hypervisor.live(&machine).await? {
        let disks = live.disks().await?;
        let on_overlay = |overlay: &Layer| disks.iter().any(|disk| disk.path == overlay.path);
        // Without a disk that tells them apart, ending either is right.
        if !member.overlays.is_empty() && !member.overlays.iter().any(on_overlay) {
            return Ok(());
        }
        inner.hypervisor.kill(&machine).await?;
    }
    if matches!(member.power, Power::Off | Power::Saved) {
        return Ok(());
    }
    // Emptied where the guard let it run: its disks have gone on from there.
    let mut memory = member.memory.clone();
    if let Some(file) = &memory
        && inner.hypervisor.kept_memory(file).await?.is_none()
    {
        memory = None;
    }
    let mut start = Start {
        id: machine.id,
        definition: &machine.definition,
        chains: machine
            .disks
            .iter()
            .map(|disk| files(&chain(&layers, disk.active)))
            .collect(),
        machine_type: member.machine_type.clone(),
        memory,
    };
    let mut outcome = inner.hypervisor.start(start.clone()).await;
    if let Err(error) = outcome {
        tracing::warn!(machine = %machine.name, %error, "starting it where it was is tried again");
        outcome = inner.hypervisor.start(start.clone()).await;
    }
    if let Err(error) = outcome {
        // Better after a loss of power than not at all.
        tracing::error!(
            machine = %machine.name, %error,
            "cannot go on from its saved memory; it is started from its disks"
        );
        start.memory = None;
        outcome = inner.hypervisor.start(start).await;
    }
    outcome
        .map(drop)
        .map_err(|error| EngineError::from(error).of(format!("machine {}", machine.name)))
}

pub(crate) fn files(chain: &[crate::model::Layer]) -> Vec<crate::ports::LayerFile> {
    chain.iter().map(crate::model::Layer::file).collect()
}

/// Tries again until it is done, ever more slowly.
async fn settle_until_done(
    inner: Arc<Inner>,
    journal: Journal,
    pass: Pass,
    error: Option<EngineError>,
    progress: Progress,
) {
    let mut pause = Duration::from_millis(500);
    let settled = loop {
        inner.clock.sleep(pause).await;
        match settle(&inner, journal.job).await {
            Ok(settled) => break settled,
            Err(error) => {
                tracing::warn!(job = %journal.job, %error, "the operation is not settled yet");
            }
        }
        pause = (pause * 2).min(Duration::from_secs(30));
    };
    tracing::info!(job = %journal.job, "the operation is settled");
    inner
        .settled(journal, pass, settled, error, &progress)
        .await;
}

/// At start: every operation under way is settled, records follow processes,
/// jobs that nobody carries out any more have ended, files that nobody needs go.
pub(crate) async fn recover(inner: &Arc<Inner>) -> Result<(), EngineError> {
    let journals = inner.records.list::<Journal>().await?;
    // Guests first, in every operation, before anything that takes time.
    for journal in &journals {
        join_all(journal.members.iter().map(|member| async move {
            if let Err(error) = wake(inner, journal, member).await {
                tracing::error!(machine = %member.machine, %error, "cannot be resumed yet");
            }
        }))
        .await;
    }
    for machine in inner.records.starting().await? {
        // What an operation was doing with it is the journal's to say.
        let mut members = journals.iter().flat_map(|journal| &journal.members);
        if members.any(|member| member.machine == machine) {
            continue;
        }
        if let Err(error) = finish_start(inner, machine).await {
            tracing::error!(%machine, %error, "it was being started and does not run yet");
        }
    }
    let mut unsettled = HashMap::new();
    for journal in journals {
        let places = journal.members.iter().map(|m| m.machine);
        let pass = inner.enter_machines("an interrupted operation is being taken back", places)?;
        if let Err(error) = settle(inner, journal.job).await {
            tracing::error!(job = %journal.job, %error, "an interrupted operation is not taken back yet");
            unsettled.insert(journal.job, (journal, pass));
        }
    }
    let mut exported = crate::export::recover(inner).await?;
    for mut job in inner.records.list::<Job>().await? {
        let before = exported.remove(&job.id).unwrap_or_else(|| job.clone());
        let waiting = unsettled.remove(&job.id);
        let forward = matches!(&waiting, Some((journal, _)) if journal.phase.goes_forward());
        let mut error = match job.ended() {
            true => None,
            false => Some(interrupted(inner, &job).await?),
        };
        // What goes forward may still be taken back, and ends its job then.
        if error.is_some() && !forward {
            crate::jobs::end(&mut job, None, error.take(), inner.clock.as_ref());
            crate::jobs::record(&inner.records, &job).await?;
        }
        let progress = inner.jobs.publish(Some(before), job);
        if let Some((journal, pass)) = waiting {
            let inner = Arc::clone(inner);
            tokio::spawn(settle_until_done(inner, journal, pass, error, progress));
        }
    }
    let mut pending = Vec::new();
    for machine in inner.records.to_collect().await? {
        let inner = Arc::clone(inner);
        pending.push(tokio::spawn(async move {
            if !try_to_collect(&inner, machine).await {
                tokio::spawn(collect_until_done(inner, machine));
            }
        }));
    }
    // Mostly they are done at once; a long one goes on while requests are served.
    let _ = tokio::time::timeout(Duration::from_secs(30), join_all(pending)).await;
    inner.empty_trash().await;
    inner.remove_stray_memory().await;
    Ok(())
}

/// A machine that was being started when we ended: if it has a process, it runs. What
/// cannot be done now is tried at the next start.
async fn finish_start(inner: &Inner, id: MachineId) -> Result<(), EngineError> {
    if let Some(machine) = inner.records.get::<Machine>(&machine_key(id)).await?
        && let Some(live) = inner.hypervisor.live(&machine).await?
        && live.power().await? == Power::Paused
    {
        resume(live.as_ref(), inner.config.deadlines.stop).await?;
    }
    let mut transaction = inner.records.begin().await;
    transaction.started(id);
    transaction.commit().await
}

/// What became of a job that was under way when we ended.
async fn interrupted(inner: &Inner, job: &Job) -> Result<EngineError, EngineError> {
    let done = match (job.kind, job.snapshot) {
        (JobKind::DestroySnapshot | JobKind::ConvertSnapshot, Some(id)) => {
            let snapshot = inner.records.get::<Snapshot>(&snapshot_key(id)).await?;
            snapshot.is_none()
        }
        (JobKind::DestroyReferencePoint | JobKind::RemoveReferencePointData, _) => {
            let point = match job.point {
                Some(id) => inner.records.get::<ReferencePoint>(&point_key(id)).await?,
                None => None,
            };
            let keeps = |point: ReferencePoint| point.keeps_data;
            match job.kind {
                JobKind::DestroyReferencePoint => point.is_none(),
                _ => !point.is_some_and(keeps),
            }
        }
        (
            JobKind::StartMachine
            | JobKind::ResumeMachine
            | JobKind::PauseMachine
            | JobKind::ShutDownMachine
            | JobKind::TurnOffMachine,
            _,
        ) => {
            return Ok(EngineError::failed(
                "the service ended while the job was under way; the machine shows what became of it",
            ));
        }
        _ => false,
    };
    Ok(EngineError::failed(if done {
        "the service ended while the job was under way; what was asked for is done, and layers are \
         merged now"
    } else {
        "the service ended while the job was under way; everything was taken back"
    }))
}

/// Collects a machine's layers, again and again, ever more slowly, until it is
/// done. The machine is held only while that is tried.
async fn collect_until_done(inner: Arc<Inner>, machine: MachineId) {
    let mut pause = Duration::from_secs(1);
    while !try_to_collect(&inner, machine).await {
        inner.clock.sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(60));
    }
}

/// `true` if there is nothing more to collect.
async fn try_to_collect(inner: &Inner, machine: MachineId) -> bool {
    let attempt = async {
        // Somebody else may have done it, or the machine may be gone.
        if !inner.records.is_to_collect(machine).await? {
            return Ok(());
        }
        let _pass = inner.enter_machines("layers are being merged", [machine])?;
        collect(inner, machine, &|_| {}).await
    };
    attempt
        .await
        .inspect_err(|error| tracing::warn!(%machine, %error, "layers are not merged yet"))
        .is_ok()
}

impl Inner {
    /// Removes memory directories that belong to no snapshot.
    async fn remove_stray_memory(&self) {
        for name in self.hypervisor.list_directory(&self.memory_root()).await {
            let Ok(id) = name.parse() else { continue };
            if matches!(
                self.records.get::<Snapshot>(&snapshot_key(id)).await,
                Ok(None)
            ) {
                self.remove_memory_directory(id).await;
            }
        }
    }
}
