//! The cut: every member of a collection caught at one instant.
//!
//! ```text
//!   plan       every member, disk and setting is checked; nothing is touched
//!   prepare    journal, overlays created and opened, caches flushed, guard ready,
//!              caches flushed once more
//!   freeze     application consistency: guest file systems, members in parallel
//!   ---- the caller may cancel up to here ----
//!   stop       members in parallel, until each has said that it stands
//!   ==== the common instant ====
//!   swap       per member one exchange of all its active layers, in parallel
//!   save       standard: memory; resumes each member as soon as it may run
//!   resume     members in parallel
//!   thaw       members in parallel
//!   ---- guests run; what is left takes its time ----
//!   finish     memory on stable storage, one transaction makes the snapshot real
//! ```
//!
//! A failure between stop and thaw lets all members run again before anything
//! else is done; [`crate::recovery`] then takes the rest back by the journal, as
//! it would after our own death.

mod finish;
mod plan;
mod window;

use std::sync::Arc;

use futures::future::join_all;

use crate::engine::Inner;
use crate::jobs::Progress;
use crate::journal::{Journal, JournalMember, Operation, Phase};
use crate::model::{Consistency, Job, Power, SnapshotKind};
use crate::ports::{Guard, Guarded, HypervisorError, LiveMachine, Overlay, SaveMode, Stamp};
use crate::timeline::step;
use crate::{EngineError, ErrorKind};

pub(crate) use plan::{Makes, Plan, Request, overlay_on, plan};
pub(crate) use window::{resume, stop, thaw};

use finish::{commit, finish_saves, report};
use plan::Member;
use window::{release, stand_still};

/// What is known of a member after the cut.
#[derive(Clone, Default)]
struct Evidence {
    stopped: Option<Stamp>,
    resumed: Option<Stamp>,
    frozen: u32,
    save: Option<SaveMode>,
    machine_type: Option<String>,
}

/// Runs a step on all members at once and returns the first error after all have
/// ended: nobody is left in the middle of a step.
async fn each<'a, T, F, G>(members: &'a [Member], step: F) -> Result<Vec<T>, EngineError>
where
    F: Fn(usize, &'a Member) -> G,
    G: Future<Output = Result<T, EngineError>>,
{
    let outcomes = join_all(members.iter().enumerate().map(|(index, m)| step(index, m))).await;
    outcomes.into_iter().collect()
}

/// Takes the snapshot. On error every member runs as before and nothing is left,
/// except where a member does not answer: then that is settled as soon as it does.
pub(crate) async fn run(inner: &Arc<Inner>, plan: Plan, progress: &Progress) {
    let mut journal = Journal {
        job: progress.id(),
        operation: match plan.makes {
            Makes::Snapshot(id) => Operation::Create(id),
            Makes::Point(id) => Operation::CreatePoint(id),
        },
        phase: Phase::Preparing,
        members: plan
            .members
            .iter()
            .map(|member| JournalMember {
                machine: member.machine.id,
                power: member.power,
                freeze: plan.consistency == Consistency::Application
                    && member.power == Power::Running,
                overlays: member
                    .disks
                    .iter()
                    .map(|disk| disk.overlay.clone())
                    .collect(),
                memory: member.memory.clone(),
                machine_type: None,
                run: false,
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
    let _whole = step!("create snapshot");
    written(inner, journal).await?;
    let mut evidence = prepare(inner, plan, progress).await?;
    let guard = guard(inner, plan).await?;
    journal.phase = Phase::Cutting;
    written(inner, journal).await?;
    progress.checkpoint()?;
    {
        // All that guests have written meanwhile would be flushed while they stand.
        let _step = step!("flush");
        each(&plan.members, |_, member| async move {
            match &member.live {
                Some(live) => member.flush(live.as_ref()).await,
                None => Ok(()),
            }
            .map_err(|error| member.error(error))
        })
        .await?;
    }

    progress.step(20, "the members are being stopped");
    let outcome = stand_still(inner, plan, guard.as_deref(), &mut evidence, progress).await;
    let all_run = match outcome {
        Ok(()) => true,
        Err(_) => release(inner, plan).await,
    };
    let disarming = step!("disarm");
    let kept = dismiss(guard, all_run).await;
    drop(disarming);
    outcome?;
    if !kept? {
        return Err(EngineError::new(
            ErrorKind::Timeout,
            "the guests stood still for so long that the guard let them run again",
        ));
    }
    let report = report(plan, &evidence)?;
    progress.step(40, "guests run again; memory is being written");
    let memory = finish_saves(plan, progress).await?;
    commit(inner, plan, evidence, memory, report, journal, progress).await
}

async fn written(inner: &Inner, journal: &Journal) -> Result<(), EngineError> {
    let _step = step!("journal");
    inner.write_journal(journal).await
}

/// Ends a guard's watch; `true` if it was kept. Where someone does not run again,
/// the guard is left armed and alone, and acts at once.
pub(crate) async fn dismiss(
    guard: Option<Box<dyn Guard>>,
    all_run: bool,
) -> Result<bool, HypervisorError> {
    match guard {
        Some(guard) if all_run => guard.disarm().await,
        guard => Ok(guard.is_none()),
    }
}

/// Everything slow, while the guests run.
async fn prepare(
    inner: &Inner,
    plan: &Plan,
    progress: &Progress,
) -> Result<Vec<Evidence>, EngineError> {
    progress.step(2, "overlays are being created");
    let overlays = step!("create overlays");
    if let Some(memory) = plan
        .members
        .iter()
        .find_map(|member| member.memory.as_ref())
        && let Some(directory) = memory.parent()
    {
        inner.hypervisor.create_directory(directory).await?;
    }
    each(&plan.members, |_, member| async move {
        let _step = step!("create overlays", member.machine.name);
        for disk in &member.disks {
            let overlay = Overlay {
                layer: disk.overlay.file(),
                base: disk.old.file(),
            };
            inner
                .hypervisor
                .create_overlay(&overlay, disk.virtual_size)
                .await
                .map_err(|error| member.error(error))?;
        }
        Ok(())
    })
    .await?;
    drop(overlays);
    progress.checkpoint()?;
    progress.step(10, "the members are being prepared");
    let _step = step!("prepare");
    let evidence = each(&plan.members, |_, member| async move {
        member
            .prepare(plan.kind)
            .await
            .map_err(|error| member.error(error))
    })
    .await?;
    progress.checkpoint()?;
    Ok(evidence)
}

impl Member {
    async fn prepare(&self, kind: SnapshotKind) -> Result<Evidence, EngineError> {
        let mut evidence = Evidence::default();
        let Some(live) = &self.live else {
            return Ok(evidence);
        };
        let _step = step!("prepare", self.machine.name);
        live.open_overlays(&self.swaps).await?;
        evidence.machine_type = live.machine_type().await?;
        if kind == SnapshotKind::Standard {
            evidence.save = Some(live.prepare_save(self.power).await?);
        }
        self.flush(live.as_ref()).await?;
        if live.power().await? != self.power {
            return Err(EngineError::state(
                "its owner paused or resumed it while the snapshot was prepared; try again",
            ));
        }
        Ok(evidence)
    }

    async fn flush(&self, live: &dyn LiveMachine) -> Result<(), HypervisorError> {
        let _step = step!("flush", self.machine.name);
        live.flush().await
    }
}

async fn guard(inner: &Inner, plan: &Plan) -> Result<Option<Box<dyn Guard>>, EngineError> {
    let members: Vec<_> = plan
        .members
        .iter()
        .filter(|member| member.running().is_some())
        .map(|member| Guarded {
            machine: member.machine.id,
            resume: true,
            thaw: plan.consistency == Consistency::Application,
        })
        .collect();
    if members.is_empty() {
        return Ok(None);
    }
    let _step = step!("guard");
    Ok(Some(inner.hypervisor.guard(&members).await?))
}
