//! Merging layers while the guest runs (`block-commit`).
//!
//! Jobs are made so that they stay, ended, until dismissed: their outcome is read
//! from the list of jobs, not caught as an event, and a daemon that comes later
//! finds it too. A job's identifier says what it merges, so that it is never
//! mistaken for another.

use std::time::Duration;

use isochron_engine::model::LayerId;
use isochron_engine::ports::{HypervisorError, LayerFile};
use qapi::qmp;
use tokio::time::{Instant, timeout};

use super::LiveQemu;
use crate::error::QmpError;
use crate::image::sync_file;
use crate::nodes::{short, true_names};
use crate::qmp::Job;

/// Between two looks at a job while the guest runs.
const LOOK: Duration = Duration::from_millis(50);
/// Between two looks while the guest stands.
const SHORT_LOOK: Duration = Duration::from_millis(1);
/// How long a job may take to end once all is copied, or to give up.
const ENDING: Duration = Duration::from_secs(30);

/// The job that merges a frozen layer.
fn frozen_job(top: LayerId) -> String {
    format!("isochron-merge-{}", short(top))
}

/// What the jobs that merge a disk's active layer begin with. A disk's name may
/// hold anything, a job's may not: FNV-1a of it.
fn active_prefix(disk: &str) -> String {
    let hash = disk.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("isochron-active-{hash:016x}-")
}

impl LiveQemu {
    async fn jobs(&self) -> Result<Vec<Job>, QmpError> {
        self.qmp.ask(&qmp::query_jobs {}).await
    }

    async fn job(&self, id: &str) -> Result<Option<Job>, QmpError> {
        Ok(self.jobs().await?.into_iter().find(|job| job.id == id))
    }

    /// The job of that identifier if it still works or is ready. One that ended
    /// is dismissed: what it did is in the chain, what it did not is done again.
    async fn adopt(&self, id: &str) -> Result<bool, HypervisorError> {
        match self.job(id).await? {
            None => Ok(false),
            Some(job) if job.status == "concluded" => {
                self.qmp
                    .run(&qmp::job_dismiss { id: id.to_owned() })
                    .await?;
                Ok(false)
            }
            Some(_) => Ok(true),
        }
    }

    /// Waits until a job is ready, if `ready` is asked for, or has ended; then it
    /// is dismissed. Its error is QEMU's text.
    async fn follow(
        &self,
        id: &str,
        ready: bool,
        look: Duration,
        progress: &(dyn Fn(u8) + Send + Sync),
    ) -> Result<(), HypervisorError> {
        let mut pulse = self.qmp.pulse();
        loop {
            pulse.mark_unchanged();
            let Some(job) = self.job(id).await? else {
                return Err(HypervisorError::Failed(
                    "the merge was ended by somebody else".to_owned(),
                ));
            };
            match &*job.status {
                "ready" if ready => return Ok(()),
                "concluded" => {
                    self.qmp
                        .run(&qmp::job_dismiss { id: id.to_owned() })
                        .await?;
                    return match job.error {
                        None if ready => Err(HypervisorError::Failed(
                            "the merge was ended by somebody else".to_owned(),
                        )),
                        None => Ok(()),
                        Some(error) => Err(HypervisorError::Failed(format!(
                            "the merge failed: {error}"
                        ))),
                    };
                }
                _ => {
                    let total = u128::from(job.total_progress.max(1));
                    let done = u128::from(job.current_progress).min(total);
                    progress(u8::try_from(done * 100 / total).unwrap_or(99).min(99));
                }
            }
            // Events wake us; the look is for what happened between them.
            let _ = timeout(look, pulse.changed()).await;
        }
    }

    pub(super) async fn merge_frozen(
        &self,
        disk: &str,
        top: &LayerFile,
        base: &LayerFile,
        above: &LayerFile,
        progress: &(dyn Fn(u8) + Send + Sync),
    ) -> Result<(), HypervisorError> {
        let id = frozen_job(top.id);
        if !self.adopt(&id).await? {
            let root = self.disk_named(disk).await?.root;
            let [top_node, base_node, above_node] = self.nodes_of([top, base, above]).await?;
            let in_chain = self.stands_on(disk, above, top).await?;
            match (top_node, base_node, above_node) {
                (Some(top_node), Some(base_node), Some(_)) if in_chain => {
                    self.commit(&id, root, Some(top_node), base_node, base)
                        .await?;
                }
                // Merged by a call that was interrupted.
                _ if self.stands_on(disk, above, base).await? => {
                    self.close_all(std::slice::from_ref(top)).await?;
                    sync_file(&base.path).await?;
                    sync_file(&above.path).await?;
                    progress(100);
                    return Ok(());
                }
                _ => {
                    return Err(HypervisorError::Invalid(format!(
                        "{} does not stand on {} in the disk {disk}",
                        above.path.display(),
                        top.path.display()
                    )));
                }
            }
        }
        self.follow(&id, false, LOOK, progress).await?;
        self.close_all(std::slice::from_ref(top)).await?;
        sync_file(&base.path).await?;
        sync_file(&above.path).await?;
        progress(100);
        Ok(())
    }

    /// Whether one layer stands directly on another in a disk's chain.
    async fn stands_on(
        &self,
        disk: &str,
        upper: &LayerFile,
        lower: &LayerFile,
    ) -> Result<bool, HypervisorError> {
        let chain = true_names(self.disk_named(disk).await?.live.chain).await?;
        let pair = true_names(vec![upper.path.clone(), lower.path.clone()]).await?;
        Ok(chain.windows(2).any(|window| window == pair))
    }

    /// Whether a layer is the one that the guest writes to.
    async fn is_active(&self, disk: &str, layer: &LayerFile) -> Result<bool, HypervisorError> {
        let names = true_names(vec![
            self.disk_named(disk).await?.live.path,
            layer.path.clone(),
        ])
        .await?;
        Ok(names[0] == names[1])
    }

    /// Starts a merge; of the active layer where there is no `top_node`.
    async fn commit(
        &self,
        id: &str,
        root: String,
        top_node: Option<String>,
        base_node: String,
        base: &LayerFile,
    ) -> Result<(), HypervisorError> {
        // QEMU writes the name into the header of what stood on top.
        let backing_file = match &top_node {
            Some(_) => Some(base.path.to_str().map(str::to_owned).ok_or_else(|| {
                HypervisorError::Invalid(format!("{} is not UTF-8", base.path.display()))
            })?),
            None => None,
        };
        // The crate's struct also has what QEMU calls deprecated.
        let arguments = serde_json::json!({
            "job-id": id,
            "device": root,
            "base-node": base_node,
            "auto-dismiss": false,
        });
        let garbled = |error: serde_json::Error| QmpError::Garbled {
            command: "block-commit",
            detail: error.to_string(),
        };
        let mut command: qmp::block_commit = serde_json::from_value(arguments).map_err(garbled)?;
        command.top_node = top_node;
        command.backing_file = backing_file;
        self.qmp.run(&command).await?;
        Ok(())
    }

    pub(super) async fn begin_active(
        &self,
        disk: &str,
        top: &LayerFile,
        base: &LayerFile,
        progress: &(dyn Fn(u8) + Send + Sync),
    ) -> Result<(), HypervisorError> {
        let id = active_prefix(disk) + &short(top.id);
        if !self.adopt(&id).await? {
            if self.is_active(disk, base).await? {
                // Ended by a call that was interrupted.
                progress(100);
                return Ok(());
            }
            if !self.stands_on(disk, top, base).await? || !self.is_active(disk, top).await? {
                return Err(HypervisorError::Invalid(format!(
                    "{} is not the active layer of the disk {disk} on {}",
                    top.path.display(),
                    base.path.display()
                )));
            }
            let root = self.disk_named(disk).await?.root;
            let [base_node] = self.nodes_of([base]).await?;
            let base_node = base_node.ok_or_else(|| {
                HypervisorError::Invalid(format!("{} is not open", base.path.display()))
            })?;
            self.commit(&id, root, None, base_node, base).await?;
        }
        self.follow(&id, true, LOOK, progress).await?;
        progress(100);
        Ok(())
    }

    async fn active_jobs(&self, disk: &str) -> Result<Vec<Job>, QmpError> {
        let prefix = active_prefix(disk);
        let jobs = self.jobs().await?;
        Ok(jobs
            .into_iter()
            .filter(|job| job.id.starts_with(&prefix))
            .collect())
    }

    pub(super) async fn end_active(
        &self,
        disk: &str,
        base: &LayerFile,
    ) -> Result<(), HypervisorError> {
        let before = self.disk_named(disk).await?;
        if let Some(job) = self.active_jobs(disk).await?.into_iter().next() {
            let work = async {
                // What the guest wrote last is copied first.
                if job.status != "concluded" {
                    self.follow(&job.id, true, SHORT_LOOK, &|_| ()).await?;
                    self.qmp
                        .run(&qmp::job_complete { id: job.id.clone() })
                        .await?;
                }
                self.follow(&job.id, false, SHORT_LOOK, &|_| ()).await
            };
            timeout(ENDING, work).await.unwrap_or_else(|_| {
                Err(HypervisorError::Timeout(format!(
                    "the merge did not end within {} s",
                    ENDING.as_secs()
                )))
            })?;
        }
        if !self.is_active(disk, base).await? {
            return Err(HypervisorError::Failed(format!(
                "{} did not become the active layer of the disk {disk}",
                base.path.display()
            )));
        }
        sync_file(&base.path).await?;
        // The layer that was on top, if QEMU did not close it by itself.
        if before.root != self.disk_named(disk).await?.root {
            self.delete_node(&before.root).await?;
        }
        Ok(())
    }

    pub(super) async fn cancel_active(&self, disk: &str) -> Result<(), HypervisorError> {
        let started = Instant::now();
        loop {
            let jobs = self.active_jobs(disk).await?;
            if jobs.is_empty() {
                return Ok(());
            }
            for job in jobs {
                let id = job.id;
                if job.status == "concluded" {
                    self.qmp.run(&qmp::job_dismiss { id }).await?;
                } else {
                    // Refused while it is ending already.
                    let cancel = qmp::block_job_cancel {
                        force: Some(true),
                        device: id,
                    };
                    if let Err(error @ (QmpError::Gone | QmpError::Timeout { .. })) =
                        self.qmp.run(&cancel).await
                    {
                        return Err(error.into());
                    }
                }
            }
            if started.elapsed() > ENDING {
                return Err(HypervisorError::Timeout(
                    "the merge does not give up".to_owned(),
                ));
            }
            tokio::time::sleep(SHORT_LOOK).await;
        }
    }
}
