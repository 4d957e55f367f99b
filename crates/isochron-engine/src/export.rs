//! Exports: an instant written to a directory, in full or as what changed since
//! another, while guests run.
//!
//! ```text
//!   plan     what, where to, from which base: checked, nothing is touched
//!   record   what the export may leave is known from here on
//!   open     members are held: what changed is asked, the archive opens what it reads
//!   ---- members are free again; only what is exported must stay ----
//!   run      the archive copies, makes digests, and ends with one rename
//!   commit   one transaction: the export is remembered, the job ends
//! ```
//!
//! The caller may cancel until the rename. What fails or is interrupted is cleared away
//! by the record, at once or at the next start; where the rename was made, the export
//! is whole, and it is committed instead.

mod finish;
mod plan;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::access::Operation;
use crate::engine::Inner;
use crate::jobs::{NewJob, Progress};
use crate::model::{
    ExportId, JobExport, JobId, JobKind, MachineId, ReferencePointId, SnapshotId, WholeDisk,
};
use crate::ports::{Content, Copied, Exported, Go};
use crate::records::Exporting;
use crate::{Engine, EngineError};

use plan::Plan;

pub(crate) use finish::recover;

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exports {
    /// A snapshot.
    Snapshot(SnapshotId),
    /// A reference point that keeps its data.
    Point(ReferencePointId),
}

/// From where a difference is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportBase {
    /// A snapshot that was exported.
    Snapshot(SnapshotId),
    /// A reference point that was exported, as itself or as the snapshot that it was.
    Point(ReferencePointId),
    /// The finished export in this directory, of a snapshot or reference point that is
    /// there still.
    Directory(PathBuf),
}

/// Which disks of a machine are exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportDisks {
    /// The machine.
    pub machine: MachineId,
    /// Its disks, by name; all where empty.
    pub disks: Vec<String>,
}

/// A request for an export.
#[derive(Clone, Debug)]
pub struct ExportRequest {
    /// Of what.
    pub what: Exports,
    /// The directory that it becomes, absolute; missing or empty.
    pub directory: PathBuf,
    /// Write what changed since this; everything where absent.
    pub base: Option<ExportBase>,
    /// Make a full export of the base's and the changes, instead of a difference.
    pub merge: bool,
    /// Write disks and memory; if not, only definitions and a record of the layers.
    pub copy_storage: bool,
    /// Bytes a second at most.
    pub limit: Option<u64>,
    /// Only these machines and disks; all where absent.
    pub disks: Option<Vec<ExportDisks>>,
    /// Fail where a disk would have to be copied whole because what changed since the
    /// base cannot be told.
    pub require_difference: bool,
    /// Who asks.
    pub owner: Option<String>,
}

/// An export's job was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportStarted {
    /// The job; its [`export`](crate::model::Job::export) tells how far it is.
    pub job: JobId,
    /// The export.
    pub export: ExportId,
}

impl Engine {
    /// Exports a snapshot or a reference point. Everything that can be checked without
    /// reading disks is checked before this returns; the rest is the job's.
    ///
    /// # Errors
    /// `NotFound`; `InvalidParameter` directory, base, choice of disks; `AccessDenied`
    /// a directory that is not open to the caller; `InvalidState` in use, a reference
    /// point without data, a base of which no export can be read; `Failed` a base that
    /// is damaged.
    pub async fn export(&self, request: ExportRequest) -> Result<ExportStarted, EngineError> {
        let target = match request.what {
            Exports::Snapshot(id) => self.snapshot_target(id).await,
            Exports::Point(id) => self.point_target(id).await,
        };
        let target = format!("{target} to {}", request.directory.display());
        let export = async {
            let inner = Arc::clone(&self.inner);
            let plan = self.plan_export(request).await?;
            let export = plan.id;
            let progress = inner.begin_job(plan.job()).await?;
            let job = progress.id();
            tokio::spawn(async move { run(&inner, plan, &progress).await });
            Ok(ExportStarted { job, export })
        };
        self.perform(Operation::Export, target, export).await
    }
}

impl Plan {
    fn job(&self) -> NewJob {
        let (kind, snapshot, point) = match self.request.what {
            Exports::Snapshot(id) => (JobKind::ExportSnapshot, Some(id), None),
            Exports::Point(id) => (JobKind::ExportReferencePoint, None, Some(id)),
        };
        NewJob {
            collection: Some(self.source.instant.collection),
            snapshot,
            point,
            cancellable: true,
            export: Some(JobExport {
                id: self.id,
                directory: self.request.directory.clone(),
                base: self.base.as_ref().map(|base| base.instant),
                machines: self.chosen.iter().map(|member| member.machine).collect(),
                done: 0,
                total: 0,
                written: 0,
                rate: 0,
                whole: Vec::new(),
                files: Vec::new(),
            }),
            ..NewJob::new(kind, self.request.owner.clone())
        }
    }
}

/// Writes the export. On error nothing is left of it.
async fn run(inner: &Arc<Inner>, mut plan: Plan, progress: &Progress) {
    let exporting = Exporting {
        job: progress.id(),
        export: plan.id,
        directory: plan.request.directory.clone(),
        with_storage: plan.request.copy_storage,
        what: plan.request.what,
    };
    let outcome = attempt(inner, &mut plan, &exporting, progress).await;
    // Whatever is to be cleared away, the members need not wait for it.
    drop(plan.members.take());
    finish::conclude(inner, exporting, plan.own, outcome, progress).await;
}

async fn attempt(
    inner: &Inner,
    plan: &mut Plan,
    exporting: &Exporting,
    progress: &Progress,
) -> Result<Exported, EngineError> {
    let mut transaction = inner.records.begin().await;
    transaction.put(exporting)?;
    transaction.commit().await?;
    progress.step(1, "what changed is being asked");
    let order = plan.order(inner).await?;
    let mut whole = Vec::new();
    for member in &order.members {
        for disk in &member.disks {
            if let Content::Full {
                reason: Some(reason),
            } = &disk.content
            {
                whole.push(WholeDisk {
                    machine: member.machine,
                    disk: disk.name.clone(),
                    reason: reason.clone(),
                });
            }
        }
    }
    if plan.request.require_difference
        && let Some(first) = whole.first()
    {
        return Err(EngineError::state(format!(
            "disk {} of machine {} would have to be copied whole: {}",
            first.disk, first.machine, first.reason
        )));
    }
    progress.exporting(1, |export| export.whole = whole);
    progress.checkpoint()?;
    let export = inner.archive.open(order).await?;
    drop(plan.members.take());
    progress.step(2, "disks are being copied");
    let rate = Rate::new(inner.clock.now());
    let told = |copied: Copied| {
        if let Some(rate) = rate.told(inner.clock.now(), copied) {
            let percent = copied.done.saturating_mul(96) / copied.total.max(1);
            let percent = 2 + u8::try_from(percent).unwrap_or(96).min(96);
            progress.exporting(percent, |export| {
                (export.done, export.total) = (copied.done, copied.total);
                (export.written, export.rate) = (copied.written, rate);
            });
        }
        match progress.checkpoint() {
            Ok(()) => Go::On,
            Err(_) => Go::Stop,
        }
    };
    let exported = export.run(&told).await?;
    Ok(exported)
}

/// How fast it goes, told twice a second at most: jobs tell everybody of each step.
struct Rate {
    began: OffsetDateTime,
    told: Mutex<Option<OffsetDateTime>>,
}

impl Rate {
    fn new(began: OffsetDateTime) -> Self {
        Self {
            began,
            told: Mutex::new(None),
        }
    }

    /// Bytes a second since it began; `None` where it was told just now.
    fn told(&self, now: OffsetDateTime, copied: Copied) -> Option<u64> {
        // A panic cannot leave an option half written.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let over = copied.done >= copied.total;
        if !over && told.is_some_and(|told| now - told < time::Duration::milliseconds(500)) {
            return None;
        }
        *told = Some(now);
        let milliseconds = (now - self.began).whole_milliseconds().max(1);
        let rate = u128::from(copied.written) * 1000 / milliseconds.unsigned_abs();
        Some(u64::try_from(rate).unwrap_or(u64::MAX))
    }
}
