//! Destroy: a snapshot's record goes first and at once; then its layers are
//! merged while guests run, and its files deleted. A tree of a single machine's
//! snapshots goes the same way, in one transaction. So does a snapshot that becomes a
//! reference point: the same transaction brings the point.
//!
//! It cannot be taken back, only forward: what a failure leaves undone is done at
//! the next occasion, and until then costs space and nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::engine::Inner;
use crate::gate::Pass;
use crate::jobs::Progress;
use crate::layers::{chain, collect};
use crate::model::{
    Affected, Collection, CollectionId, DiskPoint, Layer, Machine, MachineId, MemberPoint,
    MemberPointId, MemberSnapshotId, ReferencePoint, ReferencePointId, Snapshot, SnapshotId,
    SnapshotKind, random,
};
use crate::records::{collection_key, machine_key, point_key, snapshot_key};
use crate::tracking::identified;
use crate::{EngineError, ErrorKind};

/// A checked request.
pub(crate) struct Plan {
    /// What is destroyed: the first, and what grew from it.
    snapshots: Vec<Snapshot>,
    /// What the snapshot becomes, and layers whose files are known from now on.
    becomes: Option<(ReferencePoint, Vec<Layer>)>,
    /// Members and collections, and the snapshots themselves.
    passes: Vec<Pass>,
}

impl Plan {
    /// The snapshot that was asked for.
    pub(crate) fn root(&self) -> &Snapshot {
        &self.snapshots[0]
    }

    fn machines(&self) -> BTreeSet<MachineId> {
        let members = self.snapshots.iter().flat_map(|s| &s.members);
        members.map(|member| member.machine).collect()
    }
}

/// Checks that a snapshot can be destroyed; touches nothing.
pub(crate) async fn plan(inner: &Inner, id: SnapshotId) -> Result<Plan, EngineError> {
    plan_end(inner, id, "a snapshot is being destroyed").await
}

async fn plan_end(inner: &Inner, id: SnapshotId, what: &str) -> Result<Plan, EngineError> {
    let snapshot = inner.snapshot(id).await?;
    let members = inner.enter_snapshot(what, &snapshot)?;
    let own = inner.hold_snapshot(what, &snapshot)?;
    let snapshot = inner.snapshot(id).await?; // it may have gone before the pass was got
    for member in &snapshot.members {
        let machine = inner.machine(member.machine).await?;
        let describe =
            |error| EngineError::from(error).of(format!("member {}", member.machine_name));
        if let Some(live) = inner.hypervisor.live(&machine).await.map_err(describe)? {
            live.power().await.map_err(describe)?;
        }
    }
    Ok(Plan {
        snapshots: vec![snapshot],
        becomes: None,
        passes: vec![members, own],
    })
}

/// Checks that a snapshot can become a reference point; touches nothing.
pub(crate) async fn plan_conversion(
    inner: &Inner,
    id: SnapshotId,
    point: ReferencePointId,
) -> Result<Plan, EngineError> {
    let found = inner.snapshot(id).await?;
    if found.kind != SnapshotKind::Recovery {
        return Err(EngineError::new(
            ErrorKind::NotSupported,
            format!(
                "{} is a standard snapshot; only recovery snapshots become reference points",
                found.name
            ),
        ));
    }
    let mut plan = plan_end(inner, id, "a snapshot is becoming a reference point").await?;
    let taken: Option<ReferencePoint> = inner.records.get(&point_key(point)).await?;
    if taken.is_some() {
        return Err(EngineError::invalid(format!(
            "a reference point {point} exists already; leave the reference out or name an unused \
             identifier"
        )));
    }
    let snapshot = plan.root();
    let mut members = Vec::with_capacity(snapshot.members.len());
    let mut known = Vec::new();
    for member in &snapshot.members {
        let layers = inner.records.layers(member.machine).await?;
        let mut disks = Vec::with_capacity(member.disks.len());
        for disk in &member.disks {
            let chain = chain(&layers, disk.layer);
            let (Some(layer), Some(root)) = (chain.first(), chain.last()) else {
                return Err(EngineError::failed(format!(
                    "member {}: disk {} has lost its layer",
                    member.machine_name, disk.disk
                )));
            };
            let size = inner.hypervisor.virtual_size(&layer.file()).await;
            disks.push(DiskPoint {
                disk: disk.disk.clone(),
                tracking: random(),
                root: root.id,
                layer: layer.id,
                path: layer.path.clone(),
                format: layer.format,
                virtual_size: size.map_err(|error| {
                    EngineError::from(error).of(format!("member {}", member.machine_name))
                })?,
                lost: disk.lost.clone(),
            });
            let unknown = chain.into_iter().filter(|layer| layer.identity.is_none());
            known.extend(identified(inner, unknown.collect()).await?);
        }
        members.push(MemberPoint {
            id: match snapshot.of_machine() {
                Some(_) => MemberPointId(point.0),
                None => MemberPointId::new(),
            },
            machine: member.machine,
            machine_name: member.machine_name.clone(),
            definition: member.definition.clone(),
            power: member.power,
            machine_type: member.machine_type.clone(),
            disks,
            left_out: member.left_out.clone(),
        });
    }
    let point = ReferencePoint {
        id: point,
        name: snapshot.name.clone(),
        collection: snapshot.collection,
        collection_name: snapshot.collection_name.clone(),
        consistency: snapshot.consistency,
        created_at: snapshot.created_at,
        cut: snapshot.cut.clone(),
        members,
        keeps_data: false,
        notes: snapshot.notes.clone(),
        exports: snapshot.exports.clone(),
    };
    plan.becomes = Some((point, known));
    Ok(plan)
}

/// Checks that a single machine's snapshot can be destroyed with all that grew
/// from it; touches nothing.
pub(crate) async fn plan_tree(inner: &Inner, id: SnapshotId) -> Result<Plan, EngineError> {
    let mut plan = plan(inner, id).await?;
    let all: Vec<Snapshot> = inner.records.list().await?;
    let mut next = 0;
    while let Some(snapshot) = plan.snapshots.get(next) {
        if snapshot.of_machine().is_none() {
            return Err(EngineError::state(format!(
                "{} ({}) is a snapshot of the collection {}; destroy that one first",
                snapshot.name, snapshot.id, snapshot.collection_name
            )));
        }
        let parents: Vec<_> = snapshot.members.iter().map(|m| Some(m.id)).collect();
        let grew = |s: &&Snapshot| s.members.iter().any(|m| parents.contains(&m.parent));
        let children: Vec<_> = all.iter().filter(grew).cloned().collect();
        for child in &children {
            let pass = inner.hold_snapshot("a snapshot is being destroyed", child)?;
            plan.passes.push(pass);
        }
        plan.snapshots.extend(children);
        next += 1;
    }
    Ok(plan)
}

/// Destroys the snapshots.
pub(crate) async fn run(inner: &Arc<Inner>, plan: Plan, progress: &Progress) {
    let (collection, machines) = (plan.root().collection, plan.machines());
    let error = attempt(inner, &plan, progress).await.err();
    drop(plan.passes);
    if let Some(error) = &error {
        tracing::warn!(job = %progress.id(), %error, "destroying left something to do");
        inner.collect_later(machines);
    }
    let affected = match &plan.becomes {
        Some((point, _)) => Affected::ReferencePoint(point.id),
        None => inner.affected_by_destroying(collection).await,
    };
    progress.finish(&inner.records, Some(affected), error).await;
}

impl Inner {
    /// What a destroyed snapshot was taken of.
    pub(crate) async fn affected_by_destroying(&self, collection: CollectionId) -> Affected {
        match self.collection_or_machine(collection).await {
            Ok(found) if found.machines == [MachineId(collection.0)] => {
                Affected::Machine(MachineId(collection.0))
            }
            _ => Affected::Collection(collection),
        }
    }
}

async fn attempt(inner: &Inner, plan: &Plan, progress: &Progress) -> Result<(), EngineError> {
    if let Err(error) = forget(inner, &plan.snapshots, plan.becomes.as_ref()).await {
        // The store may have failed after it wrote: what it says now holds.
        let key = snapshot_key(plan.root().id);
        match inner.records.get::<Snapshot>(&key).await {
            Ok(None) => {}
            _ => return Err(error),
        }
    }
    let undone = "it is done, but its layers are not all merged yet; this is tried again";
    let collected = collect_all(inner, &plan.machines(), progress).await;
    inner.empty_trash().await;
    for snapshot in &plan.snapshots {
        inner.remove_memory_directory(snapshot.id).await;
    }
    collected.map_err(|error| error.of(undone))
}

/// Collects the machines' layers, one machine after the other; the first error, after
/// all were tried.
pub(crate) async fn collect_all(
    inner: &Inner,
    machines: &BTreeSet<MachineId>,
    progress: &Progress,
) -> Result<(), EngineError> {
    let mut first = None;
    for (index, machine) in machines.iter().enumerate() {
        let told = |percent: u8| {
            let percent = (index * 100 + usize::from(percent)) / machines.len();
            progress.step(percent.try_into().unwrap_or(99), "layers are being merged");
        };
        told(0);
        if let Err(error) = collect(inner, *machine, &told).await {
            first.get_or_insert(error);
        }
    }
    first.map_or(Ok(()), Err)
}

/// What the snapshots that go leave behind them.
struct Gone<'a>(&'a [Snapshot]);

impl Gone<'_> {
    /// The snapshot that stays, from which one that goes grew.
    fn snapshot(&self, mut id: Option<SnapshotId>) -> Option<SnapshotId> {
        while let Some(gone) = self.0.iter().find(|gone| Some(gone.id) == id) {
            id = gone.parent;
        }
        id
    }

    /// The same for a member's part.
    fn member(&self, mut id: Option<MemberSnapshotId>) -> Option<MemberSnapshotId> {
        let members = || self.0.iter().flat_map(|gone| &gone.members);
        while let Some(gone) = members().find(|gone| Some(gone.id) == id) {
            id = gone.parent;
        }
        id
    }

    fn holds(&self, id: Option<SnapshotId>) -> bool {
        self.0.iter().any(|gone| Some(gone.id) == id)
    }
}

/// Takes the snapshots out of all records that name them, and brings what one becomes.
async fn forget(
    inner: &Inner,
    snapshots: &[Snapshot],
    becomes: Option<&(ReferencePoint, Vec<Layer>)>,
) -> Result<(), EngineError> {
    let gone = Gone(snapshots);
    // Begun first: others change snapshots too.
    let mut transaction = inner.records.begin().await;
    if let Some((point, known)) = becomes {
        let mut point = point.clone();
        if let Some(snapshot) = snapshots.first() {
            // It may have got another name or other notes meanwhile.
            let now: Snapshot = transaction.require(&snapshot_key(snapshot.id)).await?;
            (point.name, point.notes) = (now.name, now.notes);
        }
        transaction.put(&point)?;
        for layer in known {
            transaction.put(layer)?;
        }
    }
    let all: Vec<Snapshot> = inner.records.list().await?;
    for mut child in all.iter().cloned() {
        let before = child.clone();
        child.parent = gone.snapshot(child.parent);
        for member in &mut child.members {
            member.parent = gone.member(member.parent);
        }
        if child != before && !gone.holds(Some(child.id)) {
            transaction.put(&child)?;
        }
    }
    for snapshot in snapshots {
        let key = collection_key(snapshot.collection);
        let collection: Option<Collection> = transaction.get(&key).await?;
        if let Some(mut collection) = collection
            && gone.holds(collection.current)
        {
            collection.current = gone.snapshot(collection.current);
            transaction.put(&collection)?;
        }
        for member in &snapshot.members {
            let mut machine: Machine = transaction.require(&machine_key(member.machine)).await?;
            if gone.holds(machine.current) {
                // A machine may have stood on a snapshot of another collection before.
                let stood = snapshots.iter().find(|s| Some(s.id) == machine.current);
                let part = stood.and_then(|s| s.members.iter().find(|m| m.machine == machine.id));
                let parent = part.and_then(|part| gone.member(Some(part.id)));
                let holds = |s: &&Snapshot| s.members.iter().any(|m| Some(m.id) == parent);
                machine.current = all.iter().find(holds).map(|s| s.id);
            }
            if gone.holds(machine.last_applied) {
                machine.last_applied = None;
            }
            transaction.put(&machine)?;
            transaction.needs_collecting(member.machine)?;
            if let Some(memory) = &member.memory {
                let machine: Option<Machine> =
                    transaction.get(&machine_key(member.machine)).await?;
                let saved = machine.and_then(|machine| machine.saved);
                if saved.is_none_or(|saved| saved.memory != *memory) {
                    transaction.discard(&memory.path)?;
                }
            }
        }
        transaction.delete(snapshot_key(snapshot.id));
    }
    transaction.commit().await
}
