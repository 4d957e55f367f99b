//! Save and restore: a machine's memory goes to a file and its process ends;
//! started again, it goes on from there.
//!
//! ```text
//!   save      the machine stands; its memory is written
//!   forfeit   from here on the guard empties that memory before it lets it run
//!   journal   all is there but the end of the guard        taken back up to here
//!   disarm    nobody lets it run any more                  forward from here
//!   commit    one transaction: it is saved
//!   end       its process ends
//!
//!   load      a new process stands, with the memory        taken back up to here
//!   commit    one transaction: it is not saved any more
//!   resume    it runs                                      forward from here
//! ```
//!
//! Memory and disks belong together: between the commit of a save and the next
//! load nothing may run on the disks, and a guest that has run on is never started
//! from that memory again. So the guard watches until all but its own end is on
//! record, and what it leaves tells, after our death too, which way to go: memory that
//! is whole, and that no guard can empty any more, is of a guest that has not run since.
//!
//! A snapshot that a saved machine takes part in holds the
//! same file; it is deleted when neither needs it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::cut::{dismiss, resume, stop};
use crate::engine::Inner;
use crate::gate::Pass;
use crate::jobs::Progress;
use crate::journal::{Journal, JournalMember, Operation, Phase};
use crate::layers::chain;
use crate::model::{
    Affected, Job, JobId, Machine, MachineId, MemoryState, Power, SavedState, Snapshot,
};
use crate::ports::{Guarded, LiveMachine, Start};
use crate::records::{Transaction, journal_key, machine_key};
use crate::recovery::files;
use crate::{EngineError, ErrorKind};

/// How long the guard waits while memory is saved.
const SAVING: Duration = Duration::from_secs(600);

/// A machine that can be saved.
pub(crate) struct Saving {
    machine: Machine,
    live: Arc<dyn LiveMachine>,
    power: Power,
    machine_type: Option<String>,
    memory: PathBuf,
    pass: Pass,
}

/// A machine that can be restored.
pub(crate) struct Restoring {
    machine: Machine,
    saved: SavedState,
    pass: Pass,
}

/// Checks that a machine can be saved; touches nothing.
pub(crate) async fn plan(inner: &Inner, id: MachineId) -> Result<Saving, EngineError> {
    let pass = inner.enter_machines("it is being saved", [id])?;
    let machine = inner.machine(id).await?;
    let of = |error: EngineError| error.of(format!("machine {}", machine.name));
    if machine.attached() {
        return Err(of(EngineError::new(
            ErrorKind::NotSupported,
            "it is attached: its process is its owner's, and cannot be started anew",
        )));
    }
    let live = inner.hypervisor.live(&machine).await?;
    let live = live.ok_or_else(|| of(EngineError::state("it is off or saved already")))?;
    Ok(Saving {
        power: live.power().await?,
        machine_type: live.machine_type().await?,
        memory: inner.saved_file(id),
        live,
        machine,
        pass,
    })
}

/// Saves the machine. On error it goes on from where it was.
pub(crate) async fn run(inner: &Arc<Inner>, plan: Saving, progress: &Progress) {
    let mut journal = Journal {
        job: progress.id(),
        operation: Operation::Save(plan.machine.id),
        phase: Phase::Preparing,
        members: vec![JournalMember {
            machine: plan.machine.id,
            power: plan.power,
            freeze: false,
            overlays: Vec::new(),
            memory: Some(plan.memory.clone()),
            machine_type: plan.machine_type.clone(),
            run: false,
        }],
    };
    let outcome = save(inner, &plan, &mut journal, progress).await;
    inner.conclude(journal, plan.pass, outcome, progress).await;
}

async fn save(
    inner: &Inner,
    plan: &Saving,
    journal: &mut Journal,
    progress: &Progress,
) -> Result<Job, EngineError> {
    inner.write_journal(journal).await?;
    if let Some(directory) = plan.memory.parent() {
        inner.hypervisor.create_directory(directory).await?;
    }
    let guarded = Guarded {
        machine: plan.machine.id,
        resume: true,
        thaw: false,
    };
    let guard = match plan.power {
        Power::Running => Some(inner.hypervisor.guard(&[guarded]).await?),
        _ => None,
    };
    progress.commit()?;
    journal.phase = Phase::Saving;
    inner.write_journal(journal).await?;
    if let Some(guard) = &guard {
        guard.arm(SAVING).await?;
    }
    progress.step(5, "its memory is being written");
    let told = |percent: u8| {
        let percent = 5 + u32::from(percent.min(100)) * 85 / 100;
        progress.step(
            percent.try_into().unwrap_or(90),
            "its memory is being written",
        );
    };
    let deadline = inner.config.deadlines.stop;
    let saving = async {
        if plan.power == Power::Running {
            stop(plan.live.as_ref(), deadline).await?;
        }
        let mode = plan.live.prepare_save(Power::Paused).await?;
        plan.live.save(&plan.memory, &mode).await?;
        plan.live.finish_save(&plan.memory, &told).await?;
        Ok::<_, EngineError>(())
    };
    let too_long = || {
        EngineError::new(
            ErrorKind::Timeout,
            format!("saving its memory took longer than {SAVING:?}"),
        )
    };
    // We give up ourselves before the guard would act.
    let saved = timeout(SAVING.mul_f32(0.75), saving)
        .await
        .unwrap_or_else(|_| Err(too_long()));
    if let Err(error) = saved {
        let running = plan.power == Power::Running;
        let runs = !running || resume(plan.live.as_ref(), deadline).await.is_ok();
        let _ = dismiss(guard, runs).await;
        return Err(error);
    }
    // From here to the end of the guard's watch only the guard lets it run: dropped
    // with an error, it does so at once.
    if let Some(guard) = &guard {
        guard.forfeits(&plan.memory).await?;
    }
    progress.step(92, "it is being recorded");
    journal.phase = Phase::Ending;
    inner.write_journal(journal).await?;
    if !dismiss(guard, true).await? {
        return Err(too_long());
    }
    progress.step(95, "its process is being ended");
    match finish(inner, journal, Some(progress)).await? {
        Some(ended) => Ok(ended),
        None => Err(EngineError::failed("its saved memory is gone")),
    }
}

/// After the guard's watch: it is saved, and its process ends. Also the way forward of
/// an interrupted save, which then has no progress to tell. `None`, and nothing is
/// done, where the guard let it run.
///
/// # Errors
/// `Timeout` a guard still can.
pub(crate) async fn finish(
    inner: &Inner,
    journal: &Journal,
    progress: Option<&Progress>,
) -> Result<Option<Job>, EngineError> {
    for member in &journal.members {
        let mut machine = inner.machine(member.machine).await?;
        if machine.saved.is_none() {
            let Some(memory) = kept(inner, member).await? else {
                return Ok(None);
            };
            let mut transaction = inner.records.begin().await;
            machine = transaction.require(&machine_key(machine.id)).await?;
            machine.saved = Some(SavedState {
                memory,
                machine_type: member.machine_type.clone(),
            });
            let power = Power::Saved;
            inner.note(&mut transaction, machine.id, power).await?;
            transaction.put(&machine)?;
            transaction.commit().await?;
        }
        inner.hypervisor.kill(&machine).await?;
        inner.saw_power(&machine, Power::Saved);
    }
    end(inner, journal, progress).await.map(Some)
}

/// A member's memory, which no guard can empty any more; `None` if one did.
async fn kept(inner: &Inner, member: &JournalMember) -> Result<Option<MemoryState>, EngineError> {
    let Some(path) = member.memory.clone() else {
        return Ok(None);
    };
    let bytes = inner.hypervisor.kept_memory(&path).await?;
    Ok(bytes.map(|bytes| MemoryState { path, bytes }))
}

/// The journal and the job end.
async fn end(
    inner: &Inner,
    journal: &Journal,
    progress: Option<&Progress>,
) -> Result<Job, EngineError> {
    let affected = journal
        .members
        .first()
        .map(|m| Affected::Machine(m.machine));
    let mut transaction = inner.records.begin().await;
    transaction.delete(journal_key(journal.job));
    let ended = match progress {
        Some(progress) => progress.ending(affected, None)?,
        None => {
            let key = crate::records::job_key(journal.job);
            let mut job: Job = transaction.require(&key).await?;
            crate::jobs::end(&mut job, affected, None, inner.clock.as_ref());
            job
        }
    };
    transaction.put(&ended)?;
    transaction.commit().await?;
    Ok(ended)
}

/// Checks that a machine can be restored; touches nothing.
pub(crate) async fn plan_restore(inner: &Inner, id: MachineId) -> Result<Restoring, EngineError> {
    let pass = inner.enter_machines("it is being restored", [id])?;
    let machine = inner.machine(id).await?;
    let of = |error: EngineError| error.of(format!("machine {}", machine.name));
    if inner.hypervisor.live(&machine).await?.is_some() {
        return Err(of(EngineError::state("it is on already")));
    }
    let Some(saved) = machine.saved.clone() else {
        return Err(of(EngineError::state("it is not saved")));
    };
    if inner.hypervisor.file_size(&saved.memory.path).await? != Some(saved.memory.bytes) {
        return Err(of(EngineError::failed(format!(
            "its saved memory {} is missing or damaged; turn it off to give the memory up, and \
             start it from its disks",
            saved.memory.path.display()
        ))));
    }
    Ok(Restoring {
        machine,
        saved,
        pass,
    })
}

/// Restores the machine. On error it stays saved.
pub(crate) async fn run_restore(inner: &Arc<Inner>, plan: Restoring, progress: &Progress) {
    let mut journal = Journal {
        job: progress.id(),
        operation: Operation::Restore(plan.machine.id),
        phase: Phase::Preparing,
        members: vec![JournalMember {
            machine: plan.machine.id,
            power: Power::Saved,
            freeze: false,
            overlays: Vec::new(),
            memory: None,
            machine_type: None,
            run: true,
        }],
    };
    let outcome = restore(inner, &plan, &mut journal, progress).await;
    inner.conclude(journal, plan.pass, outcome, progress).await;
}

async fn restore(
    inner: &Inner,
    plan: &Restoring,
    journal: &mut Journal,
    progress: &Progress,
) -> Result<Job, EngineError> {
    inner.write_journal(journal).await?;
    progress.step(5, "its memory is being loaded");
    let machine = &plan.machine;
    let layers = inner.records.layers(machine.id).await?;
    let start = Start {
        id: machine.id,
        definition: &machine.definition,
        chains: machine
            .disks
            .iter()
            .map(|disk| files(&chain(&layers, disk.active)))
            .collect(),
        machine_type: plan.saved.machine_type.clone(),
        memory: Some(plan.saved.memory.path.clone()),
    };
    let live = inner
        .hypervisor
        .start(start)
        .await
        .map_err(|error| EngineError::from(error).of(format!("machine {}", machine.name)))?;
    progress.step(90, "it is being resumed");
    // Written before it runs: a guest that has run on must never be started from
    // that memory again.
    journal.phase = Phase::Resuming;
    let mut transaction = inner.records.begin().await;
    let mut machine: Machine = transaction.require(&machine_key(machine.id)).await?;
    inner.give_up_saved(&mut transaction, &mut machine).await?;
    inner.note(&mut transaction, machine.id, Power::Off).await?;
    inner
        .note(&mut transaction, machine.id, Power::Running)
        .await?;
    transaction.put(&machine)?;
    transaction.put(journal)?;
    transaction.commit().await?;
    finish_restore(inner, journal, Some((live, progress))).await
}

/// After the commit of a restore: it runs. Also the way forward of an interrupted
/// one.
pub(crate) async fn finish_restore(
    inner: &Inner,
    journal: &Journal,
    at_hand: Option<(Arc<dyn LiveMachine>, &Progress)>,
) -> Result<Job, EngineError> {
    let (live, progress) = match at_hand {
        Some((live, progress)) => (vec![live], Some(progress)),
        None => {
            let mut live = Vec::new();
            for member in &journal.members {
                let machine = inner.machine(member.machine).await?;
                live.extend(inner.hypervisor.live(&machine).await?);
            }
            (live, None)
        }
    };
    for live in live {
        resume(live.as_ref(), inner.config.deadlines.stop).await?;
    }
    for member in &journal.members {
        if let Ok(machine) = inner.machine(member.machine).await {
            inner.saw_power(&machine, Power::Running);
        }
    }
    let ended = end(inner, journal, progress).await?;
    inner.empty_trash().await;
    Ok(ended)
}

/// Takes a restore back: the new process, which stands, ends.
pub(crate) async fn take_back_restore(inner: &Inner, journal: &Journal) -> Result<(), EngineError> {
    for member in &journal.members {
        let machine = inner.machine(member.machine).await?;
        inner.hypervisor.kill(&machine).await?;
    }
    let mut transaction = inner.records.begin().await;
    transaction.delete(journal_key(journal.job));
    transaction.commit().await
}

impl Inner {
    /// A new file for a machine's memory while it is saved.
    fn saved_file(&self, machine: MachineId) -> PathBuf {
        let unique = JobId::new().0.simple().to_string();
        self.config
            .state
            .join("saved")
            .join(format!("{machine}.{unique}.memory"))
    }

    /// The machine is not saved any more. The file goes if no snapshot holds it.
    pub(crate) async fn give_up_saved(
        &self,
        transaction: &mut Transaction<'_>,
        machine: &mut Machine,
    ) -> Result<(), EngineError> {
        let Some(saved) = machine.saved.take() else {
            return Ok(());
        };
        let snapshots: Vec<Snapshot> = self.records.list().await?;
        let mut members = snapshots.iter().flat_map(|snapshot| &snapshot.members);
        if !members.any(|member| member.memory.as_ref() == Some(&saved.memory)) {
            transaction.discard(&saved.memory.path)?;
        }
        Ok(())
    }
}
