//! Apply: the whole collection returns to a snapshot, or stays as it is.
//!
//! ```text
//!   plan      every member, layer and file is checked; nothing is touched
//!   prepare   new overlays on the snapshot's frozen layers
//!   ---- the caller may cancel up to here ----
//!   save      members stand; the memory of each is saved, so that all can go on
//!             from where they were if one does not come up
//!   switch    old processes end, new ones come up standing on the new overlays,
//!             with the snapshot's memory if it has one
//!   commit    one transaction: the new overlays are the active layers
//!   resume    all together; what nobody needs any more is deleted
//! ```
//!
//! Two processes of one machine never live at the same time: they would need
//! twice the memory and fight for the same ports and sockets.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use tokio::time::timeout;

use crate::cut::{dismiss, overlay_on, resume, stop};
use crate::engine::Inner;
use crate::gate::Pass;
use crate::jobs::Progress;
use crate::journal::{Journal, JournalMember, Operation, Phase};
use crate::layers::{chain, collect};
use crate::model::{
    Affected, Collection, Job, Layer, Machine, MachineId, MemberSnapshot, Power, SavedState,
    Snapshot, SnapshotId, SnapshotKind,
};
use crate::ports::{Guarded, LiveMachine, Overlay, Start};
use crate::records::{collection_key, journal_key, machine_key};
use crate::recovery::files;
use crate::{EngineError, ErrorKind};

/// A member's process, if it has one.
type Process = Option<Arc<dyn LiveMachine>>;

/// How long the guard waits while memory is saved.
const SAVING: Duration = Duration::from_secs(600);

/// A checked request.
pub(crate) struct Plan {
    pub(crate) snapshot: Snapshot,
    members: Vec<Member>,
    /// All members are returned, not one.
    whole: bool,
    pass: Pass,
}

struct Member {
    machine: Machine,
    power: Power,
    live: Process,
    saved: MemberSnapshot,
    /// A new layer on each frozen one.
    overlays: Vec<Layer>,
    layers: Vec<Layer>,
    /// Where its present memory is kept meanwhile.
    rescue: Option<PathBuf>,
    machine_type: Option<String>,
    /// Whether it comes up, and whether it runs then.
    comes_up: bool,
    runs: bool,
}

impl Member {
    fn error(&self, error: impl Into<EngineError>) -> EngineError {
        error.into().of(format!("member {}", self.machine.name))
    }
}

/// Checks that a snapshot can be applied, to all members or to one; touches nothing.
pub(crate) async fn plan(
    inner: &Inner,
    id: SnapshotId,
    only: Option<MachineId>,
) -> Result<Plan, EngineError> {
    let snapshot = inner.snapshot(id).await?;
    let pass = inner.enter_snapshot("a snapshot is being applied", &snapshot)?;
    let snapshot = inner.snapshot(id).await?; // it may have gone before the pass was got
    let mut members = Vec::with_capacity(snapshot.members.len());
    let wanted = |saved: &&MemberSnapshot| only.is_none_or(|only| saved.machine == only);
    for saved in snapshot.members.iter().filter(wanted) {
        let member = Member::plan(inner, &snapshot, saved)
            .await
            .map_err(|error| error.of(format!("member {}", saved.machine_name)))?;
        members.push(member);
    }
    if let Some(only) = only
        && members.is_empty()
    {
        return Err(EngineError::not_found(format!(
            "machine {only} is no member of snapshot {}",
            snapshot.name
        )));
    }
    Ok(Plan {
        whole: members.len() == snapshot.members.len(),
        snapshot,
        members,
        pass,
    })
}

impl Member {
    async fn plan(
        inner: &Inner,
        snapshot: &Snapshot,
        saved: &MemberSnapshot,
    ) -> Result<Self, EngineError> {
        let machine = inner.machine(saved.machine).await?;
        if machine.attached() {
            return Err(EngineError::new(
                ErrorKind::NotSupported,
                "it is attached: its process is its owner's, and cannot be started anew; define \
                 it instead, or start it from the snapshot's layers by hand (see `vm show`)",
            ));
        }
        let live = inner.hypervisor.live(&machine).await?;
        let power = match &live {
            Some(live) => live.power().await?,
            None => machine.power(None).await?,
        };
        let machine_type = match &live {
            Some(live) => live.machine_type().await?,
            None => None,
        };
        let layers = inner.records.layers(machine.id).await?;
        let mut overlays = Vec::new();
        for disk in &saved.disks {
            let frozen = layers
                .iter()
                .find(|layer| layer.id == disk.layer)
                .ok_or_else(|| {
                    EngineError::failed(format!("disk {} has lost its layer", disk.disk))
                })?;
            if !inner.hypervisor.is_image(&frozen.file()).await? {
                return Err(EngineError::failed(format!(
                    "the layer {} is missing or damaged",
                    frozen.path.display()
                )));
            }
            overlays.push(overlay_on(frozen, &layers));
        }
        if let Some(memory) = &saved.memory
            && inner.hypervisor.file_size(&memory.path).await? != Some(memory.bytes)
        {
            return Err(EngineError::failed(format!(
                "the saved memory {} is missing or damaged",
                memory.path.display()
            )));
        }
        let (comes_up, runs) = match snapshot.kind {
            SnapshotKind::Standard => (
                matches!(saved.power, Power::Running | Power::Paused),
                saved.power == Power::Running,
            ),
            SnapshotKind::Recovery => (power == Power::Running, power == Power::Running),
        };
        let rescue = live.is_some().then(|| inner.rescue_file());
        Ok(Self {
            machine,
            power,
            live,
            saved: saved.clone(),
            overlays,
            layers,
            rescue,
            machine_type,
            comes_up,
            runs,
        })
    }

    /// The machine as it is after the apply.
    fn applied(&self, mut machine: Machine, id: SnapshotId) -> Machine {
        machine.definition = self.saved.definition.clone();
        machine.definition.name.clone_from(&machine.name);
        for overlay in &self.overlays {
            machine.set_active(overlay);
        }
        machine.current = Some(id);
        machine.last_applied = Some(id);
        // What was saved is given up before; a snapshot of a saved machine has it.
        if let (Power::Saved, Some(memory)) = (self.saved.power, &self.saved.memory) {
            machine.saved = Some(SavedState {
                memory: memory.clone(),
                machine_type: self.saved.machine_type.clone(),
            });
        }
        machine
    }

    /// What the machine does after the apply.
    fn power_after(&self) -> Power {
        match (self.comes_up, self.runs) {
            (true, true) => Power::Running,
            (true, false) => Power::Paused,
            (false, _) if self.saved.power == Power::Saved && self.saved.memory.is_some() => {
                Power::Saved
            }
            (false, _) => Power::Off,
        }
    }
}

/// Applies the snapshot. On error every member goes on from where it was.
pub(crate) async fn run(inner: &Arc<Inner>, plan: Plan, progress: &Progress) {
    let mut journal = Journal {
        job: progress.id(),
        operation: Operation::Apply(plan.snapshot.id),
        phase: Phase::Preparing,
        members: plan
            .members
            .iter()
            .map(|member| JournalMember {
                machine: member.machine.id,
                power: member.power,
                freeze: false,
                overlays: member.overlays.clone(),
                memory: member.rescue.clone(),
                machine_type: member.machine_type.clone(),
                run: member.runs,
            })
            .collect(),
    };
    let outcome = attempt(inner, &plan, &mut journal, progress).await;
    inner.conclude(journal, plan.pass, outcome, progress).await;
}

async fn attempt(
    inner: &Inner,
    plan: &Plan,
    journal: &mut Journal,
    progress: &Progress,
) -> Result<Job, EngineError> {
    inner.write_journal(journal).await?;
    progress.step(2, "overlays are being created");
    for member in &plan.members {
        for overlay in &member.overlays {
            let base = member
                .layers
                .iter()
                .find(|layer| Some(layer.id) == overlay.parent);
            let Some(base) = base else { continue };
            let overlay = Overlay {
                layer: overlay.file(),
                base: base.file(),
            };
            inner
                .hypervisor
                .create_overlay(&overlay, None)
                .await
                .map_err(|error| member.error(error))?;
        }
    }
    progress.commit()?;
    progress.step(
        10,
        "the present state is being saved, in case a member does not come up",
    );
    save(inner, plan, journal).await?;
    progress.step(50, "the members are being started from the snapshot");
    let live = switch(inner, plan).await?;
    progress.step(90, "the members are being resumed");
    commit(inner, plan, journal).await?;
    finish(inner, journal, plan.snapshot.id, Some((live, progress))).await
}

/// All members stand, and the memory of each is on stable storage.
async fn save(inner: &Inner, plan: &Plan, journal: &mut Journal) -> Result<(), EngineError> {
    if let Some(directory) = plan
        .members
        .iter()
        .find_map(|m| m.rescue.as_ref())
        .and_then(|file| file.parent())
    {
        inner.hypervisor.create_directory(directory).await?;
    }
    let guarded: Vec<_> = plan
        .members
        .iter()
        .filter(|member| member.power == Power::Running)
        .map(|member| Guarded {
            machine: member.machine.id,
            resume: true,
            thaw: false,
        })
        .collect();
    let guard = match guarded.is_empty() {
        true => None,
        false => Some(inner.hypervisor.guard(&guarded).await?),
    };
    journal.phase = Phase::Saving;
    inner.write_journal(journal).await?;
    if let Some(guard) = &guard {
        guard.arm(SAVING).await?;
    }
    let saving = join_all(plan.members.iter().map(|member| async move {
        let (Some(live), Some(file)) = (&member.live, &member.rescue) else {
            return Ok(());
        };
        let save = async {
            if member.power == Power::Running {
                stop(live.as_ref(), inner.config.deadlines.stop).await?;
            }
            let mode = live.prepare_save(Power::Paused).await?;
            live.save(file, &mode).await?;
            live.finish_save(file, &|_| {}).await
        };
        save.await.map(drop).map_err(|error| member.error(error))
    }));
    let too_long = || {
        EngineError::new(
            ErrorKind::Timeout,
            format!("saving the present state took longer than {SAVING:?}"),
        )
    };
    // We give up ourselves before the guard would act.
    let saved = match timeout(SAVING.mul_f32(0.75), saving).await {
        Ok(saved) => saved.into_iter().collect::<Result<Vec<_>, _>>(),
        Err(_) => Err(too_long()),
    };
    if let Err(error) = saved {
        let resumed = join_all(plan.members.iter().map(|member| async move {
            match (member.power, &member.live) {
                (Power::Running, Some(live)) => resume(live.as_ref(), inner.config.deadlines.stop)
                    .await
                    .is_ok(),
                _ => true,
            }
        }))
        .await;
        let all_run = resumed.into_iter().all(|resumed| resumed);
        let _ = dismiss(guard, all_run).await;
        return Err(error);
    }
    // From here to the end of the guard's watch only the guard lets them run: dropped
    // with an error, it does so at once. Who ran on then has no memory to go back to.
    if let Some(guard) = &guard {
        for member in &plan.members {
            if let (Power::Running, Some(rescue)) = (member.power, &member.rescue) {
                guard.forfeits(rescue).await?;
            }
        }
    }
    journal.phase = Phase::Switching;
    inner.write_journal(journal).await?;
    match dismiss(guard, true).await? {
        true => Ok(()),
        false => Err(too_long()),
    }
}

/// Old processes end, new ones come up and stand.
async fn switch(inner: &Inner, plan: &Plan) -> Result<Vec<Process>, EngineError> {
    let started = join_all(plan.members.iter().map(|member| async move {
        inner
            .hypervisor
            .kill(&member.machine)
            .await
            .map_err(|error| member.error(error))?;
        if !member.comes_up {
            return Ok(None);
        }
        let applied = member.applied(member.machine.clone(), plan.snapshot.id);
        let mut layers = member.layers.clone();
        layers.extend(member.overlays.iter().cloned());
        let start = Start {
            id: applied.id,
            definition: &applied.definition,
            chains: applied
                .disks
                .iter()
                .map(|disk| files(&chain(&layers, disk.active)))
                .collect(),
            machine_type: member.saved.machine_type.clone(),
            memory: member
                .saved
                .memory
                .as_ref()
                .map(|memory| memory.path.clone()),
        };
        inner
            .hypervisor
            .start(start)
            .await
            .map(Some)
            .map_err(|error| member.error(error))
    }))
    .await;
    started.into_iter().collect()
}

async fn commit(inner: &Inner, plan: &Plan, journal: &mut Journal) -> Result<(), EngineError> {
    journal.phase = Phase::Resuming;
    let id = plan.snapshot.id;
    let mut transaction = inner.records.begin().await;
    for member in &plan.members {
        let mut machine: Machine = transaction.require(&machine_key(member.machine.id)).await?;
        for overlay in &member.overlays {
            transaction.put(overlay)?;
        }
        inner.give_up_saved(&mut transaction, &mut machine).await?;
        inner.note(&mut transaction, machine.id, Power::Off).await?;
        inner
            .note(&mut transaction, machine.id, member.power_after())
            .await?;
        transaction.put(&member.applied(machine, id))?;
        if let Some(rescue) = &member.rescue {
            transaction.discard(rescue)?;
        }
        transaction.needs_collecting(member.machine.id)?;
    }
    let key = collection_key(plan.snapshot.collection);
    if plan.whole
        && let Some(mut collection) = transaction.get::<Collection>(&key).await?
    {
        collection.current = Some(id);
        transaction.put(&collection)?;
    }
    transaction.put(journal)?;
    transaction.commit().await
}

/// After the commit: all members run that shall, together; then what nobody
/// needs goes. Also the way forward of an interrupted apply, which then has no
/// live sides at hand and no progress to tell.
pub(crate) async fn finish(
    inner: &Inner,
    journal: &Journal,
    id: SnapshotId,
    at_hand: Option<(Vec<Process>, &Progress)>,
) -> Result<Job, EngineError> {
    let (live, progress) = match at_hand {
        Some((live, progress)) => (live, Some(progress)),
        None => {
            let mut live = Vec::new();
            for member in &journal.members {
                let machine = inner.machine(member.machine).await?;
                live.push(inner.hypervisor.live(&machine).await?);
            }
            (live, None)
        }
    };
    let resumed = join_all(
        journal
            .members
            .iter()
            .zip(&live)
            .map(|(member, live)| async move {
                match live {
                    Some(live) if member.run => resume(live.as_ref(), inner.config.deadlines.stop)
                        .await
                        .map(drop),
                    _ => Ok(()),
                }
            }),
    )
    .await;
    for outcome in resumed {
        outcome?;
    }
    let mut transaction = inner.records.begin().await;
    transaction.delete(journal_key(journal.job));
    let affected = Some(Affected::Snapshot(id));
    let ended = match progress {
        Some(progress) => progress.ending(affected, None)?,
        None => {
            let mut job: Job = transaction
                .require(&crate::records::job_key(journal.job))
                .await?;
            crate::jobs::end(&mut job, affected, None, inner.clock.as_ref());
            job
        }
    };
    transaction.put(&ended)?;
    transaction.commit().await?;
    if progress.is_some() {
        for member in &journal.members {
            // The apply is done; what is left of the old state is retried at start.
            if let Err(error) = collect(inner, member.machine, &|_| {}).await {
                tracing::warn!(machine = %member.machine, %error, "old layers are not gone yet");
            }
        }
    }
    Ok(ended)
}
