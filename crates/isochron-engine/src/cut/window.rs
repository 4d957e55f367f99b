//! The window: from the first freeze to the last thaw. Nothing slow belongs here.

use std::time::Duration;

use futures::future::join_all;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Evidence, each};
use crate::cut::plan::{Member, Plan};
use crate::engine::Inner;
use crate::jobs::Progress;
use crate::model::{Consistency, Power, SnapshotKind};
use crate::ports::{Guard, HypervisorError, LiveMachine, SaveMode, Stamp};
use crate::timeline::step;
use crate::{EngineError, ErrorKind};

/// Proof that every member stands: only this lets layers be exchanged.
struct Stopped<'a>(&'a [Member]);

fn too_slow(what: &str, limit: Duration) -> HypervisorError {
    HypervisorError::Timeout(format!("{what} took longer than {limit:?}"))
}

/// From the first freeze to the last thaw.
pub(super) async fn stand_still(
    inner: &Inner,
    plan: &Plan,
    guard: Option<&dyn Guard>,
    evidence: &mut [Evidence],
    progress: &Progress,
) -> Result<(), EngineError> {
    let deadlines = inner.config.deadlines;
    if plan.consistency == Consistency::Application {
        if let Some(guard) = guard {
            guard.arm(deadlines.freeze + deadlines.window).await?;
        }
        let frozen = each(&plan.members, |_, member| member.freeze(deadlines.freeze)).await?;
        for (evidence, frozen) in evidence.iter_mut().zip(frozen) {
            evidence.frozen = frozen;
        }
    }
    progress.commit()?;
    if let Some(guard) = guard {
        guard.arm(deadlines.window).await?;
    }
    // Costs a look at files.
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    // We give up ourselves before the guard would.
    let until = Instant::now() + deadlines.window.mul_f32(0.75);
    let window = step!("window");
    let stopped = Stopped::stop(&plan.members, deadlines.stop, evidence).await?;
    let late = || {
        EngineError::new(
            ErrorKind::Timeout,
            format!(
                "the guests would have stood still for longer than the deadline of {:?}",
                deadlines.window
            ),
        )
    };
    timeout_at(until, stopped.swap())
        .await
        .map_err(|_| late())??;
    match plan.kind {
        SnapshotKind::Recovery => {}
        SnapshotKind::Standard => {
            timeout_at(until, stopped.save(inner, processors, evidence))
                .await
                .map_err(|_| late())??;
        }
    }
    stopped.resume(deadlines.stop, evidence).await?;
    drop(window);
    if plan.consistency == Consistency::Application {
        let thawed = each(&plan.members, |_, member| member.thaw(deadlines.freeze)).await?;
        for ((member, evidence), thawed) in plan.members.iter().zip(evidence).zip(thawed) {
            if thawed < evidence.frozen {
                return Err(member.error(EngineError::failed(
                    "the guest thawed its file systems before the instant, so that the snapshot \
                     would not be application-consistent",
                )));
            }
        }
    }
    Ok(())
}

impl Member {
    async fn freeze(&self, limit: Duration) -> Result<u32, EngineError> {
        let Some(live) = self.running() else {
            return Ok(0);
        };
        let _step = step!("freeze", self.machine.name);
        let frozen = match timeout(limit, live.freeze(limit)).await {
            Ok(frozen) => frozen,
            Err(_) => Err(too_slow("freezing its file systems", limit)),
        };
        match frozen.map_err(|error| self.error(error))? {
            0 => Err(self.error(EngineError::failed(
                "the guest has no file system that can be frozen; ask for crash consistency",
            ))),
            frozen => Ok(frozen),
        }
    }

    async fn thaw(&self, limit: Duration) -> Result<u32, EngineError> {
        let Some(live) = self.running() else {
            return Ok(0);
        };
        let _step = step!("thaw", self.machine.name);
        thaw(live.as_ref(), limit)
            .await
            .map_err(|error| self.error(error))
    }
}

impl<'a> Stopped<'a> {
    /// Stops all members that run. When this returns `Ok`, all stand.
    async fn stop(
        members: &'a [Member],
        limit: Duration,
        evidence: &mut [Evidence],
    ) -> Result<Self, EngineError> {
        let _step = step!("stop");
        let stamps = each(members, |_, member| async move {
            let Some(live) = member.running() else {
                return Ok(None);
            };
            let _step = step!("stop", member.machine.name);
            stop(live.as_ref(), limit)
                .await
                .map(Some)
                .map_err(|error| member.error(error))
        })
        .await?;
        for (evidence, stamp) in evidence.iter_mut().zip(stamps) {
            evidence.stopped = stamp;
        }
        Ok(Self(members))
    }

    /// Exchanges the active layers of every member that has a process.
    async fn swap(&self) -> Result<(), EngineError> {
        let _step = step!("swap");
        each(self.0, |_, member| async move {
            let _step = step!("swap", member.machine.name);
            match &member.live {
                Some(live) if !member.disks.is_empty() => live.swap(&member.swaps).await,
                _ => Ok(()),
            }
            .map_err(|error| member.error(error))
        })
        .await?;
        Ok(())
    }

    /// Saves the memory of every member that has one. Those that are saved in the
    /// background run again when this returns. Arming costs processor time, so no
    /// more members than the host has processors arm at once.
    async fn save(
        &self,
        inner: &Inner,
        processors: usize,
        evidence: &mut [Evidence],
    ) -> Result<(), EngineError> {
        let wave = Semaphore::new(processors);
        let before: &[Evidence] = evidence;
        let _step = step!("save");
        let saved = each(self.0, |index, member| {
            let wave = &wave;
            async move {
                let (Some(live), Some(file), Some(mode)) =
                    (&member.live, &member.memory, &before[index].save)
                else {
                    return Ok((None, None));
                };
                // The semaphore is never closed; without a permit we only arm more at once.
                let _permit = wave.acquire().await.ok();
                let _step = step!("save", member.machine.name);
                let failed = match (live.save(file, mode).await, mode) {
                    (Ok(stamp), _) => return Ok((stamp, Some(mode.clone()))),
                    (Err(error), SaveMode::Plain(_)) => return Err(member.error(error)),
                    (Err(error), SaveMode::Background) => error,
                };
                // Still standing, so the instant still holds: save it the plain way.
                let _ = live.cancel_save().await;
                let stands = live.power().await.is_ok_and(|power| power == Power::Paused);
                if !stands {
                    return Err(member.error(failed));
                }
                let mode = SaveMode::Plain(failed.to_string());
                let again = async {
                    inner.hypervisor.delete_file(file).await?;
                    live.save(file, &mode).await
                };
                let stamp = again.await.map_err(|error| member.error(error))?;
                Ok((stamp, Some(mode)))
            }
        })
        .await?;
        for (evidence, (resumed, mode)) in evidence.iter_mut().zip(saved) {
            evidence.resumed = resumed;
            evidence.save = mode;
        }
        Ok(())
    }

    /// Lets all members run that ran before and do not run yet.
    async fn resume(self, limit: Duration, evidence: &mut [Evidence]) -> Result<(), EngineError> {
        let before: &[Evidence] = evidence;
        let _step = step!("resume");
        let stamps = each(self.0, |index, member| async move {
            if before[index].resumed.is_some() {
                return Ok(before[index].resumed);
            }
            let Some(live) = member.running() else {
                return Ok(None);
            };
            let _step = step!("resume", member.machine.name);
            resume(live.as_ref(), limit)
                .await
                .map(Some)
                .map_err(|error| member.error(error))
        })
        .await?;
        for (evidence, stamp) in evidence.iter_mut().zip(stamps) {
            evidence.resumed = stamp;
        }
        Ok(())
    }
}

/// Stops a machine, within a limit.
pub(crate) async fn stop(
    live: &dyn LiveMachine,
    limit: Duration,
) -> Result<Stamp, HypervisorError> {
    match timeout(limit, live.stop()).await {
        Ok(stamp) => stamp,
        Err(_) => Err(too_slow("stopping it", limit)),
    }
}

/// Thaws a guest's file systems, within a limit; how many.
pub(crate) async fn thaw(live: &dyn LiveMachine, limit: Duration) -> Result<u32, HypervisorError> {
    match timeout(limit, live.thaw(limit)).await {
        Ok(thawed) => thawed,
        Err(_) => Err(too_slow("thawing its file systems", limit)),
    }
}

/// Lets a machine run, within a limit.
pub(crate) async fn resume(
    live: &dyn LiveMachine,
    limit: Duration,
) -> Result<Stamp, HypervisorError> {
    match timeout(limit, live.resume()).await {
        Ok(stamp) => stamp,
        Err(_) => Err(too_slow("letting it run again", limit)),
    }
}

/// After a failure: everyone runs again and is thawed, before anything else.
/// `true` if all are.
pub(super) async fn release(inner: &Inner, plan: &Plan) -> bool {
    let deadlines = inner.config.deadlines;
    let released = join_all(plan.members.iter().map(|member| async move {
        let Some(live) = member.running() else {
            return true;
        };
        let mut released = true;
        if let Err(error) = resume(live.as_ref(), deadlines.stop).await {
            tracing::error!(machine = %member.machine.name, %error, "cannot be resumed yet");
            released = false;
        }
        if plan.consistency == Consistency::Application
            && let Err(error) = member.thaw(deadlines.freeze).await
        {
            tracing::error!(machine = %member.machine.name, %error, "cannot be thawed yet");
            released = false;
        }
        released
    }))
    .await;
    released.into_iter().all(|released| released)
}
