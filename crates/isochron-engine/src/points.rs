//! Reference points: making them of a snapshot or of now, removing what they keep,
//! their end, and questions about them.
//!
//! ```text
//!   convert   one transaction: the snapshot goes, the point comes; layers are merged
//!   create    a cut as for a recovery snapshot (see `cut`); its commit makes a point
//!             that keeps its data: its layers stay, so that it can be exported
//!   remove    it keeps nothing any more; layers are merged
//!   destroy   the point goes; layers are merged
//! ```
//!
//! All but create go forward only, as destroying a snapshot does.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::access::Operation;
use crate::cut::{Makes, Request};
use crate::destroy::collect_all;
use crate::engine::Inner;
use crate::gate::Pass;
use crate::jobs::{NewJob, Progress};
use crate::model::{
    Affected, CollectionId, Consistency, JobId, JobKind, MachineId, ReferencePoint,
    ReferencePointId, SnapshotId, SnapshotKind,
};
use crate::records::point_key;
use crate::relations::Of;
use crate::{Engine, EngineError, cut, destroy, tracking};

/// A request for a reference point of now.
#[derive(Clone, Debug)]
pub struct CreateReferencePoint {
    /// Of which collection; or, by its identifier, of which single machine.
    pub collection: CollectionId,
    /// The new point's identifier; chosen where absent. One that is in use is
    /// `InvalidParameter`.
    pub id: Option<ReferencePointId>,
    /// Its name; `COLLECTION - (DATE)` where absent.
    pub name: Option<String>,
    /// The consistency asked for; crash where absent.
    pub consistency: Option<Consistency>,
    /// Leave out disks that cannot be snapshotted instead of refusing.
    pub ignore_excluded_disks: bool,
    /// Who asks.
    pub owner: Option<String>,
}

/// A job on a reference point was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PointStarted {
    /// The job.
    pub job: JobId,
    /// The reference point that it makes, changes or destroys.
    pub point: ReferencePointId,
}

impl Engine {
    /// Turns a recovery snapshot into a reference point: the snapshot is gone when the
    /// job starts, the point is there, and layers are merged by the job while guests
    /// run. The point can be the base of differences, and cannot be exported.
    ///
    /// # Errors
    /// `NotFound`; `NotSupported` a standard snapshot; `InvalidParameter` the point's
    /// identifier is in use; `InvalidState` in use; `Timeout` a member that does not
    /// answer.
    pub async fn convert_snapshot(
        &self,
        snapshot: SnapshotId,
        point: Option<ReferencePointId>,
        owner: Option<String>,
    ) -> Result<PointStarted, EngineError> {
        let target = self.snapshot_target(snapshot).await;
        let point = point.unwrap_or_else(ReferencePointId::new);
        let convert = async {
            let inner = Arc::clone(&self.inner);
            let plan = destroy::plan_conversion(&inner, snapshot, point).await?;
            let progress = inner
                .begin_job(NewJob {
                    collection: Some(plan.root().collection),
                    snapshot: Some(snapshot),
                    point: Some(point),
                    ..NewJob::new(JobKind::ConvertSnapshot, owner)
                })
                .await?;
            let job = progress.id();
            tokio::spawn(async move { destroy::run(&inner, plan, &progress).await });
            Ok(PointStarted { job, point })
        };
        self.perform(Operation::CreateReferencePoint, target, convert)
            .await
    }

    /// Makes a reference point of now, which keeps its data until
    /// [`remove_reference_point_data`](Self::remove_reference_point_data).
    ///
    /// # Errors
    /// As [`create_snapshot`](Self::create_snapshot).
    pub async fn create_reference_point(
        &self,
        request: CreateReferencePoint,
    ) -> Result<PointStarted, EngineError> {
        let target = self.collection_target(request.collection).await;
        let point = request.id.unwrap_or_else(ReferencePointId::new);
        let create = async {
            let inner = Arc::clone(&self.inner);
            let cut = Request {
                makes: Makes::Point(point),
                collection: request.collection,
                name: request.name,
                kind: SnapshotKind::Recovery,
                consistency: request.consistency,
                ignore_excluded_disks: request.ignore_excluded_disks,
            };
            let plan = cut::plan(&inner, cut).await?;
            let progress = inner
                .begin_job(NewJob {
                    collection: Some(plan.collection.id),
                    point: Some(point),
                    cancellable: true,
                    ..NewJob::new(JobKind::CreateReferencePoint, request.owner)
                })
                .await?;
            let job = progress.id();
            tokio::spawn(async move { cut::run(&inner, plan, &progress).await });
            Ok(PointStarted { job, point })
        };
        self.perform(Operation::CreateReferencePoint, target, create)
            .await
    }

    /// Removes what a reference point keeps: it can be the base of differences, and
    /// cannot be exported any more. Done at once where there is nothing.
    ///
    /// # Errors
    /// `NotFound`; `InvalidState` in use, or being exported; `Timeout` a member that
    /// does not answer.
    pub async fn remove_reference_point_data(
        &self,
        id: ReferencePointId,
        owner: Option<String>,
    ) -> Result<PointStarted, EngineError> {
        self.end(id, End::Data, owner).await
    }

    /// Destroys a reference point: it is gone when the job starts, its layers are
    /// merged by the job while guests run.
    ///
    /// # Errors
    /// `NotFound`; `InvalidState` in use, or being exported; `Timeout` a member that
    /// does not answer.
    pub async fn destroy_reference_point(
        &self,
        id: ReferencePointId,
        owner: Option<String>,
    ) -> Result<PointStarted, EngineError> {
        self.end(id, End::Point, owner).await
    }

    async fn end(
        &self,
        id: ReferencePointId,
        end: End,
        owner: Option<String>,
    ) -> Result<PointStarted, EngineError> {
        let target = match end {
            End::Data => format!("the data of {}", self.point_target(id).await),
            End::Point => self.point_target(id).await,
        };
        let work = async {
            let inner = Arc::clone(&self.inner);
            let plan = plan(&inner, id, end).await?;
            let progress = inner
                .begin_job(NewJob {
                    collection: Some(plan.point.collection),
                    point: Some(id),
                    ..NewJob::new(end.kind(), owner)
                })
                .await?;
            let job = progress.id();
            tokio::spawn(async move { run(&inner, plan, &progress).await });
            Ok(PointStarted { job, point: id })
        };
        self.perform(Operation::DestroyReferencePoint, target, work)
            .await
    }

    /// All reference points, or one collection's, oldest first.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn reference_points(
        &self,
        collection: Option<CollectionId>,
    ) -> Result<Vec<ReferencePoint>, EngineError> {
        if let Some(collection) = collection {
            let of = Of::PointsOfCollection(collection);
            return self.inner.points_that(of).await;
        }
        let mut points: Vec<ReferencePoint> = self.inner.records.list().await?;
        points.sort_by_key(|point| (point.created_at, point.id));
        Ok(points)
    }

    /// A reference point.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn reference_point(
        &self,
        id: ReferencePointId,
    ) -> Result<ReferencePoint, EngineError> {
        self.inner.point(id).await
    }

    /// A reference point by identifier, or by name where only one has it.
    ///
    /// # Errors
    /// `NotFound`; `InvalidParameter` where several have the name.
    pub async fn find_reference_point(&self, text: &str) -> Result<ReferencePoint, EngineError> {
        if let Ok(id) = text.parse() {
            return self.reference_point(id).await;
        }
        let mut named = self.reference_points(None).await?;
        named.retain(|point| point.name == text);
        match named.len() {
            0 => Err(EngineError::not_found(format!(
                "there is no reference point {text}"
            ))),
            1 => Ok(named.remove(0)),
            count => Err(EngineError::invalid(format!(
                "{count} reference points are named {text}; name one by its identifier"
            ))),
        }
    }
}

/// What of a reference point ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// What it keeps.
    Data,
    /// Itself.
    Point,
}

impl End {
    fn kind(self) -> JobKind {
        match self {
            Self::Data => JobKind::RemoveReferencePointData,
            Self::Point => JobKind::DestroyReferencePoint,
        }
    }
}

/// A checked request.
struct Plan {
    point: ReferencePoint,
    end: End,
    passes: Vec<Pass>,
}

impl Plan {
    fn machines(&self) -> BTreeSet<MachineId> {
        let members = self.point.members.iter();
        members.map(|member| member.machine).collect()
    }
}

async fn plan(inner: &Inner, id: ReferencePointId, end: End) -> Result<Plan, EngineError> {
    let what = match end {
        End::Data => "a reference point's data is being removed",
        End::Point => "a reference point is being destroyed",
    };
    let point = inner.point(id).await?;
    let passes = vec![
        inner.enter_point(what, &point)?,
        inner.hold_point(what, &point)?,
    ];
    let point = inner.point(id).await?; // it may have gone before the pass was got
    for member in &point.members {
        let machine = inner.machine(member.machine).await?;
        let describe =
            |error| EngineError::from(error).of(format!("member {}", member.machine_name));
        if let Some(live) = inner.hypervisor.live(&machine).await.map_err(describe)? {
            live.power().await.map_err(describe)?;
        }
    }
    Ok(Plan { point, end, passes })
}

async fn run(inner: &Arc<Inner>, plan: Plan, progress: &Progress) {
    let error = attempt(inner, &plan, progress).await.err();
    let machines = plan.machines();
    drop(plan.passes);
    if let Some(error) = &error {
        tracing::warn!(job = %progress.id(), %error, "a reference point left something to do");
        inner.collect_later(machines);
    }
    let affected = match plan.end {
        End::Data => Affected::ReferencePoint(plan.point.id),
        End::Point => inner.affected_by_destroying(plan.point.collection).await,
    };
    progress.finish(&inner.records, Some(affected), error).await;
}

async fn attempt(inner: &Inner, plan: &Plan, progress: &Progress) -> Result<(), EngineError> {
    if let Err(error) = record(inner, plan).await {
        // The store may have failed after it wrote: what it says now holds.
        let now = inner
            .records
            .get::<ReferencePoint>(&point_key(plan.point.id))
            .await;
        match (now, plan.end) {
            (Ok(None), End::Point) => {}
            (Ok(Some(point)), End::Data) if !point.keeps_data => {}
            _ => return Err(error),
        }
    }
    let undone = "it is done, but its layers are not all merged yet; this is tried again";
    let collected = collect_all(inner, &plan.machines(), progress).await;
    inner.empty_trash().await;
    collected.map_err(|error| error.of(undone))
}

async fn record(inner: &Inner, plan: &Plan) -> Result<(), EngineError> {
    let mut transaction = inner.records.begin().await;
    let mut point: ReferencePoint = transaction.require(&point_key(plan.point.id)).await?;
    match plan.end {
        End::Point => tracking::forget(&mut transaction, &point)?,
        End::Data => {
            point.keeps_data = false;
            for member in &point.members {
                transaction.needs_collecting(member.machine)?;
            }
            transaction.put(&point)?;
        }
    }
    transaction.commit().await
}
