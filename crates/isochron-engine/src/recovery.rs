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
//!                       saved memory, resumed if they ran
//!   apply, Resuming     forward: resume who shall run
//! ```
//!
//! Whether an overlay is active is asked of the process. Where the process is gone
//! and may have written to it, it counts as active: empty or not, it reads as the
//! disk read last. Every step can be repeated.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use crate::cut::resume;
use crate::engine::Inner;
use crate::gate::Pass;
use crate::jobs::Progress;
use crate::journal::{Journal, JournalMember, Operation, Phase};
use crate::layers::{chain, collect, reconcile};
use crate::model::{Job, JobId, JobState, Machine, MachineId, Power, Snapshot};
use crate::ports::{HypervisorError, LiveMachine, Start};
use crate::records::{journal_key, layer_key, machine_key, snapshot_key};
use crate::{EngineError, ErrorKind, Event};

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
                self.completed(&journal);
                drop(pass);
                progress.shown(ended);
                self.collect_later(journal.members.iter().map(|member| member.machine))
                    .await;
                return;
            }
            Err(error) => error,
        };
        tracing::warn!(job = %journal.job, %error, "taking the operation back");
        match settle(self, journal.job).await {
            Ok(Settled::Back) => {
                drop(pass);
                progress.finish(&self.records, None, Some(error)).await;
            }
            // The last transaction was made although the store reported an error.
            Ok(Settled::Done) => {
                self.completed(&journal);
                drop(pass);
                if let Ok(Some(ended)) = self
                    .records
                    .get(&crate::records::job_key(journal.job))
                    .await
                {
                    progress.shown(ended);
                }
            }
            Err(unsettled) => {
                let error = EngineError::new(
                    error.kind,
                    format!(
                        "{error}; taking it back is not finished yet and goes on ({unsettled})"
                    ),
                );
                progress.finish(&self.records, None, Some(error)).await;
                tokio::spawn(settle_until_done(Arc::clone(self), journal.job, pass));
            }
        }
    }

    /// Goes on collecting those of these machines that are not done.
    pub(crate) async fn collect_later(
        self: &Arc<Self>,
        machines: impl IntoIterator<Item = MachineId>,
    ) {
        let Ok(pending) = self.records.to_collect().await else {
            return;
        };
        for machine in machines
            .into_iter()
            .filter(|machine| pending.contains(machine))
        {
            tokio::spawn(collect_until_done(Arc::clone(self), machine));
        }
    }

    fn completed(&self, journal: &Journal) {
        if let Operation::Create(id) = journal.operation {
            self.tell(Event::SnapshotCreated(id));
        }
    }

    pub(crate) async fn write_journal(&self, journal: &Journal) -> Result<(), EngineError> {
        let mut transaction = self.records.begin().await;
        transaction.put(journal)?;
        transaction.commit().await
    }

    /// Deletes files that nobody needs, after closing them where a process has
    /// them open.
    pub(crate) async fn empty_trash(&self) -> Result<(), EngineError> {
        for trash in self.records.trash().await? {
            if let Some(layer) = &trash.layer
                && let Ok(machine) = self.machine(layer.machine).await
                && let Some(live) = self.hypervisor.live(&machine).await?
            {
                live.close_layers(&[layer.file()]).await?;
            }
            self.hypervisor.delete_file(&trash.path).await?;
            let mut transaction = self.records.begin().await;
            transaction.discarded(&trash.path);
            transaction.commit().await?;
        }
        Ok(())
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
    let Some(journal) = inner.records.get::<Journal>(&journal_key(job)).await? else {
        let job: Option<Job> = inner.records.get(&crate::records::job_key(job)).await?;
        return Ok(match job.map(|job| job.state) {
            Some(JobState::Completed) => Settled::Done,
            _ => Settled::Back,
        });
    };
    // First of all, guests run.
    let woken = join_all(
        journal
            .members
            .iter()
            .map(|member| wake(inner, &journal, member)),
    )
    .await;
    woken.into_iter().collect::<Result<Vec<_>, _>>()?;
    let settled = match (journal.operation, journal.phase) {
        (Operation::Create(_), _) | (Operation::Apply(_), Phase::Preparing | Phase::Saving) => {
            take_back(inner, &journal).await?;
            Settled::Back
        }
        (Operation::Apply(_), Phase::Switching | Phase::Cutting) => {
            let switched = join_all(
                journal
                    .members
                    .iter()
                    .map(|member| switch_back(inner, member)),
            )
            .await;
            switched.into_iter().collect::<Result<Vec<_>, _>>()?;
            take_back(inner, &journal).await?;
            Settled::Back
        }
        (Operation::Apply(id), Phase::Resuming) => {
            crate::apply::finish(inner, &journal, id, None).await?;
            Settled::Done
        }
    };
    for member in &journal.members {
        collect(inner, member.machine, &|_| {}).await?;
    }
    inner.empty_trash().await?;
    if let Operation::Create(id) = journal.operation {
        inner.remove_memory_directory(id).await;
    }
    Ok(settled)
}

/// Lets a member run that ran before, thaws it, and gives up saving its memory.
async fn wake(inner: &Inner, journal: &Journal, member: &JournalMember) -> Result<(), EngineError> {
    let stood = match (journal.operation, journal.phase) {
        (Operation::Create(_), Phase::Cutting) | (Operation::Apply(_), Phase::Saving) => true,
        (Operation::Create(_), _) => false,
        (Operation::Apply(_), _) => return Ok(()),
    };
    let machine = inner.machine(member.machine).await?;
    let Some(live) = inner.hypervisor.live(&machine).await? else {
        return Ok(());
    };
    let wake = async {
        if stood && member.power == Power::Running && live.power().await? == Power::Paused {
            resume(live.as_ref(), inner.config.deadlines.stop).await?;
        }
        if stood && member.freeze {
            live.thaw(inner.config.deadlines.freeze).await?;
        }
        if member.memory.is_some() {
            live.cancel_save().await?;
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
                    matches!(journal.operation, Operation::Create(_))
                        && journal.phase == Phase::Cutting
                        && member.power != Power::Off
                        && inner.hypervisor.is_image(&overlay.file()).await?
                }
            };
            if active {
                adopted.push(overlay.id);
            }
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
/// the old one started again from its saved memory.
async fn switch_back(inner: &Inner, member: &JournalMember) -> Result<(), EngineError> {
    let machine = inner.machine(member.machine).await?;
    let describe = |error: EngineError| error.of(format!("machine {}", machine.name));
    let layers = inner.records.layers(machine.id).await?;
    let was_running = member.power == Power::Running;
    if let Some(live) = inner.hypervisor.live(&machine).await? {
        let disks = live.disks().await?;
        let old = layers
            .iter()
            .any(|layer| disks.iter().any(|disk| disk.path == layer.path));
        if old {
            return if was_running {
                run(inner, live.as_ref()).await.map_err(describe)
            } else {
                Ok(())
            };
        }
        inner.hypervisor.kill(&machine).await?;
    }
    if member.power == Power::Off {
        return Ok(());
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
        memory: member.memory.clone(),
    };
    let live = match inner.hypervisor.start(start.clone()).await {
        Ok(live) => live,
        Err(error) => {
            // Better after a loss of power than not at all.
            tracing::error!(
                machine = %machine.name, %error,
                "cannot go on from its saved memory; it is started from its disks"
            );
            start.memory = None;
            inner.hypervisor.start(start).await?
        }
    };
    if was_running {
        run(inner, live.as_ref()).await.map_err(describe)?;
    }
    Ok(())
}

async fn run(inner: &Inner, live: &dyn LiveMachine) -> Result<(), EngineError> {
    resume(live, inner.config.deadlines.stop).await?;
    Ok(())
}

pub(crate) fn files(chain: &[crate::model::Layer]) -> Vec<crate::ports::LayerFile> {
    chain.iter().map(crate::model::Layer::file).collect()
}

/// Tries again until it is done, ever more slowly.
async fn settle_until_done(inner: Arc<Inner>, job: JobId, pass: Pass) {
    let mut pause = Duration::from_millis(500);
    loop {
        inner.clock.sleep(pause).await;
        match settle(&inner, job).await {
            Ok(_) => break,
            Err(error) => tracing::warn!(%job, %error, "the operation is not taken back yet"),
        }
        pause = (pause * 2).min(Duration::from_secs(30));
    }
    drop(pass);
    tracing::info!(%job, "the operation is taken back");
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
    for journal in &journals {
        let places = journal.members.iter().map(|m| m.machine);
        let pass = inner.enter_machines("an interrupted operation is being taken back", places)?;
        if let Err(error) = settle(inner, journal.job).await {
            tracing::error!(job = %journal.job, %error, "an interrupted operation is not taken back yet");
            tokio::spawn(settle_until_done(Arc::clone(inner), journal.job, pass));
        }
    }
    for job in inner.records.list::<Job>().await? {
        let mut job = job;
        if !job.ended() {
            let error = EngineError::new(
                ErrorKind::Failed,
                "the service ended while the job was under way; everything was taken back",
            );
            crate::jobs::end(&mut job, None, Some(error), inner.clock.as_ref());
            let mut transaction = inner.records.begin().await;
            transaction.put(&job)?;
            transaction.commit().await?;
        }
        inner.jobs.publish(job);
    }
    for machine in inner.records.list::<Machine>().await? {
        match inner.hypervisor.live(&machine).await {
            Ok(Some(live)) => {
                if let Err(error) = reconcile(inner, machine.id, live.as_ref()).await {
                    tracing::error!(machine = %machine.name, %error, "its layers are not known");
                }
            }
            Ok(None) => {}
            Err(error) => tracing::error!(machine = %machine.name, %error, "cannot be reached"),
        }
    }
    let mut pending = Vec::new();
    for machine in inner.records.to_collect().await? {
        pending.push(tokio::spawn(collect_until_done(Arc::clone(inner), machine)));
    }
    // Mostly they are done at once; a long one goes on while requests are served.
    let _ = tokio::time::timeout(Duration::from_secs(30), join_all(pending)).await;
    if let Err(error) = inner.empty_trash().await {
        tracing::error!(%error, "some files that nobody needs are not deleted yet");
    }
    inner.remove_stray_memory().await;
    Ok(())
}

/// Collects a machine's layers, again and again, ever more slowly, until it is
/// done. The machine is held only while that is tried.
async fn collect_until_done(inner: Arc<Inner>, machine: MachineId) {
    let mut pause = Duration::from_secs(1);
    loop {
        let outcome = match inner.enter_machines("layers are being merged", [machine]) {
            Ok(_pass) => collect(&inner, machine, &|_| {}).await,
            Err(busy) => Err(busy),
        };
        match outcome {
            Ok(()) => return,
            Err(error) => tracing::warn!(%machine, %error, "layers are not merged yet"),
        }
        inner.clock.sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(60));
    }
}

impl Inner {
    /// Removes memory directories that belong to no snapshot.
    async fn remove_stray_memory(&self) {
        let Ok(mut entries) = tokio::fs::read_dir(self.memory_root()).await else {
            return;
        };
        while let Ok(Some(entry)) = entries.next_entry().await {
            let Some(id) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            if matches!(
                self.records.get::<Snapshot>(&snapshot_key(id)).await,
                Ok(None)
            ) {
                self.remove_memory_directory(id).await;
            }
        }
    }
}
