//! Destroy: a snapshot's record goes first and at once; then its layers are
//! merged while guests run, and its files deleted.
//!
//! It cannot be taken back, only forward: what a failure leaves undone is done at
//! the next occasion, and until then costs space and nothing else.

use std::sync::Arc;

use crate::EngineError;
use crate::engine::Inner;
use crate::gate::Pass;
use crate::jobs::Progress;
use crate::layers::collect;
use crate::model::{Affected, Collection, Machine, MemberSnapshot, Snapshot, SnapshotId};
use crate::records::{collection_key, machine_key, snapshot_key};

/// A checked request.
pub(crate) struct Plan {
    pub(crate) snapshot: Snapshot,
    pass: Pass,
}

/// Checks that a snapshot can be destroyed; touches nothing.
pub(crate) async fn plan(inner: &Inner, id: SnapshotId) -> Result<Plan, EngineError> {
    let snapshot = inner.snapshot(id).await?;
    let pass = inner.enter_snapshot("a snapshot is being destroyed", &snapshot)?;
    let snapshot = inner.snapshot(id).await?; // it may have gone before the pass was got
    for member in &snapshot.members {
        let machine = inner.machine(member.machine).await?;
        let describe =
            |error| EngineError::from(error).of(format!("member {}", member.machine_name));
        if let Some(live) = inner.hypervisor.live(&machine).await.map_err(describe)? {
            live.power().await.map_err(describe)?;
        }
    }
    Ok(Plan { snapshot, pass })
}

/// Destroys the snapshot.
pub(crate) async fn run(inner: &Arc<Inner>, plan: Plan, progress: &Progress) {
    let snapshot = &plan.snapshot;
    let error = attempt(inner, snapshot, progress).await.err();
    drop(plan.pass);
    if let Some(error) = &error {
        tracing::warn!(snapshot = %snapshot.id, %error, "destroying left something to do");
        inner.collect_later(snapshot.members.iter().map(|member| member.machine));
    }
    progress
        .finish(
            &inner.records,
            Some(Affected::Collection(snapshot.collection)),
            error,
        )
        .await;
}

async fn attempt(
    inner: &Inner,
    snapshot: &Snapshot,
    progress: &Progress,
) -> Result<(), EngineError> {
    if let Err(error) = forget(inner, snapshot).await {
        // The store may have failed after it wrote: what it says now holds.
        let key = snapshot_key(snapshot.id);
        match inner.records.get::<Snapshot>(&key).await {
            Ok(None) => {}
            _ => return Err(error),
        }
    }
    let members = snapshot.members.len().max(1);
    let mut first = None;
    for (index, member) in snapshot.members.iter().enumerate() {
        let told = |percent: u8| {
            let percent = (index * 100 + usize::from(percent)) / members;
            progress.step(percent.try_into().unwrap_or(99), "layers are being merged");
        };
        told(0);
        if let Err(error) = collect(inner, member.machine, &told).await {
            first.get_or_insert(error.of(
                "the snapshot is destroyed, but its layers are not all merged yet; this is tried \
                 again",
            ));
        }
    }
    inner.empty_trash().await;
    inner.remove_memory_directory(snapshot.id).await;
    first.map_or(Ok(()), Err)
}

/// Takes the snapshot out of all records that name it.
async fn forget(inner: &Inner, snapshot: &Snapshot) -> Result<(), EngineError> {
    // Begun first: others change snapshots too.
    let mut transaction = inner.records.begin().await;
    let snapshots: Vec<Snapshot> = inner.records.list().await?;
    // A machine may have stood on a snapshot of another collection before.
    let grew_from = |member: &MemberSnapshot| {
        let holds = |s: &&Snapshot| s.members.iter().any(|m| Some(m.id) == member.parent);
        snapshots.iter().find(holds).map(|s| s.id)
    };
    for mut child in snapshots.iter().cloned() {
        let mut changed = false;
        if child.parent == Some(snapshot.id) {
            child.parent = snapshot.parent;
            changed = true;
        }
        for member in &mut child.members {
            let gone = snapshot
                .members
                .iter()
                .find(|gone| Some(gone.id) == member.parent);
            if let Some(gone) = gone {
                member.parent = gone.parent;
                changed = true;
            }
        }
        if changed && child.id != snapshot.id {
            transaction.put(&child)?;
        }
    }
    let collection: Option<Collection> = transaction
        .get(&collection_key(snapshot.collection))
        .await?;
    if let Some(mut collection) = collection
        && collection.current == Some(snapshot.id)
    {
        collection.current = snapshot.parent;
        transaction.put(&collection)?;
    }
    for member in &snapshot.members {
        let mut machine: Machine = transaction.require(&machine_key(member.machine)).await?;
        if machine.current == Some(snapshot.id) {
            machine.current = grew_from(member);
        }
        if machine.last_applied == Some(snapshot.id) {
            machine.last_applied = None;
        }
        transaction.put(&machine)?;
        transaction.needs_collecting(member.machine)?;
        if let Some(memory) = &member.memory {
            transaction.discard(&memory.path)?;
        }
    }
    transaction.delete(snapshot_key(snapshot.id));
    transaction.commit().await
}
