//! After the window: the evidence is judged, memory comes to stable storage, and
//! one transaction makes the snapshot, or the reference point, real.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use time::OffsetDateTime;

use super::{Evidence, each};
use crate::EngineError;
use crate::cut::plan::{Makes, Member, Plan};
use crate::engine::Inner;
use crate::jobs::Progress;
use crate::journal::Journal;
use crate::model::{
    Affected, Collection, CutMember, CutReport, DiskPoint, DiskSnapshot, Job, Machine, MemberPoint,
    MemberPointId, MemberSnapshot, MemberSnapshotId, MemorySave, MemoryState, ReferencePoint,
    ReferencePointId, Snapshot, SnapshotId, random,
};
use crate::ports::{SaveMode, Stamp};
use crate::records::{
    Transaction, collection_key, journal_key, machine_key, point_key, snapshot_key,
};
use crate::timeline::step;
use crate::tracking::identified;

pub(super) fn report(plan: &Plan, evidence: &[Evidence]) -> Result<CutReport, EngineError> {
    let mut report = CutReport {
        members: plan
            .members
            .iter()
            .zip(evidence)
            .map(|(member, evidence)| CutMember {
                vm: member.machine.id,
                name: member.machine.name.clone(),
                power: member.power,
                stopped_at_us: evidence.stopped,
                resumed_at_us: evidence.resumed,
                pause_us: None,
                memory: match &evidence.save {
                    None => MemorySave::None,
                    Some(SaveMode::Background) => MemorySave::Background,
                    Some(SaveMode::Plain(_)) => MemorySave::Plain,
                },
                memory_note: match &evidence.save {
                    Some(SaveMode::Plain(reason)) => Some(reason.clone()),
                    None if member.saved.is_some() => {
                        Some("it was saved before, and the snapshot holds that".to_owned())
                    }
                    _ => None,
                },
                frozen_filesystems: evidence.frozen,
            })
            .collect(),
        consistency: Some(plan.consistency),
        ..CutReport::default()
    };
    report.conclude();
    match report.common_window_us {
        Some(window) if window < 0 => Err(EngineError::failed(format!(
            "a member ran again {} µs before the last one stood: there was no common instant",
            -window
        ))),
        _ => Ok(report),
    }
}

pub(super) async fn finish_saves(
    plan: &Plan,
    progress: &Progress,
) -> Result<Vec<Option<MemoryState>>, EngineError> {
    let _step = step!("memory");
    let share = std::sync::Mutex::new(vec![0_u8; plan.members.len()]);
    let share = &share;
    each(&plan.members, |index, member| async move {
        let (Some(live), Some(path)) = (&member.live, &member.memory) else {
            return Ok(None);
        };
        let _step = step!("memory", member.machine.name);
        let told = move |percent: u8| {
            let Ok(mut share) = share.lock() else { return };
            share[index] = percent;
            let sum: usize = share.iter().map(|&p| usize::from(p)).sum();
            let percent = 40 + sum * 55 / (100 * share.len());
            progress.step(percent.try_into().unwrap_or(95), "memory is being written");
        };
        let bytes = live
            .finish_save(path, &told)
            .await
            .map_err(|error| member.error(error))?;
        Ok(Some(MemoryState {
            path: path.clone(),
            bytes,
        }))
    })
    .await
}

/// One transaction makes the snapshot or the reference point real: itself, layers,
/// active layers, the job's end, and the journal's.
pub(super) async fn commit(
    inner: &Inner,
    plan: &Plan,
    evidence: Vec<Evidence>,
    memory: Vec<Option<MemoryState>>,
    report: CutReport,
    journal: &Journal,
    progress: &Progress,
) -> Result<Job, EngineError> {
    progress.step(96, "what was cut is being recorded");
    let _step = step!("commit");
    let identified = each(&plan.members, |_, member| async move {
        let unknown = member.disks.iter().map(|disk| disk.unidentified.clone());
        identified(inner, unknown.collect::<Vec<_>>().concat())
            .await
            .map_err(|error| member.error(error))
    })
    .await?;
    let instant = report
        .members
        .iter()
        .filter_map(|member| member.stopped_at_us)
        .max();
    let instant = Instant {
        created_at: instant
            .and_then(from_stamp)
            .unwrap_or_else(|| inner.clock.now()),
        report,
    };
    let mut transaction = inner.records.begin().await;
    for layer in identified.iter().flatten() {
        transaction.put(layer)?;
    }
    let affected = match plan.makes {
        Makes::Snapshot(id) => {
            put_snapshot(&mut transaction, id, plan, evidence, memory, instant).await?;
            Affected::Snapshot(id)
        }
        Makes::Point(id) => {
            put_point(&mut transaction, id, plan, evidence, instant).await?;
            Affected::ReferencePoint(id)
        }
    };
    transaction.delete(journal_key(journal.job));
    let ended = progress.ending(Some(affected), None)?;
    transaction.put(&ended)?;
    transaction.commit().await?;
    Ok(ended)
}

/// When it was, and the evidence.
struct Instant {
    created_at: OffsetDateTime,
    report: CutReport,
}

impl Member {
    /// The machine, writing to its overlays.
    async fn switched(&self, transaction: &mut Transaction<'_>) -> Result<Machine, EngineError> {
        let mut machine: Machine = transaction.require(&machine_key(self.machine.id)).await?;
        for disk in &self.disks {
            transaction.put(&disk.overlay)?;
            machine.set_active(&disk.overlay);
        }
        Ok(machine)
    }
}

impl Plan {
    /// Whether it is of a single machine.
    fn single(&self) -> bool {
        self.collection.id.0 == self.members[0].machine.id.0
    }

    /// The collection's record. There is none of the collection of one that a machine
    /// is: the plan has what it needs, and the pass has kept others from changing it.
    async fn recorded(&self, transaction: &mut Transaction<'_>) -> Result<Collection, EngineError> {
        let key = collection_key(self.collection.id);
        match transaction.get::<Collection>(&key).await? {
            Some(collection) => Ok(collection),
            None if self.single() => Ok(self.collection.clone()),
            None => Err(EngineError::not_found(format!(
                "there is no {key} any more"
            ))),
        }
    }
}

async fn put_snapshot(
    transaction: &mut Transaction<'_>,
    id: SnapshotId,
    plan: &Plan,
    evidence: Vec<Evidence>,
    memory: Vec<Option<MemoryState>>,
    instant: Instant,
) -> Result<(), EngineError> {
    if transaction.exists(&snapshot_key(id)).await? {
        return Err(EngineError::invalid(format!(
            "a snapshot collection {id} was taken meanwhile"
        )));
    }
    let mut members = Vec::with_capacity(plan.members.len());
    // Of each snapshot on which members stand: it is long where they are many.
    let mut parents = HashMap::new();
    for ((member, evidence), memory) in plan.members.iter().zip(evidence).zip(memory) {
        let mut machine = member.switched(transaction).await?;
        if let Some(parent) = machine.current
            && let Entry::Vacant(unread) = parents.entry(parent)
        {
            let read: Option<Snapshot> = transaction.get(&snapshot_key(parent)).await?;
            let parts = read.into_iter().flat_map(|snapshot| snapshot.members);
            unread.insert(parts.map(|part| (part.machine, part.id)).collect());
        }
        let parent: Option<&HashMap<_, _>> = machine.current.and_then(|at| parents.get(&at));
        let parent = parent.and_then(|parts| parts.get(&machine.id)).copied();
        machine.current = Some(id);
        transaction.put(&machine)?;
        members.push(MemberSnapshot {
            // Whoever asks for a single machine's snapshot can name it beforehand.
            id: match plan.single() {
                true => MemberSnapshotId(id.0),
                false => MemberSnapshotId::new(),
            },
            machine: machine.id,
            machine_name: machine.name.clone(),
            power: member.power,
            definition: machine.definition.clone(),
            machine_type: match &member.saved {
                Some(saved) => saved.machine_type.clone(),
                None => evidence.machine_type,
            },
            disks: member
                .disks
                .iter()
                .map(|disk| DiskSnapshot {
                    disk: disk.old.disk.clone(),
                    layer: disk.old.id,
                    path: disk.old.path.clone(),
                    format: disk.old.format,
                    lost: None,
                })
                .collect(),
            left_out: member.left_out.clone(),
            memory: memory.or_else(|| member.saved.as_ref().map(|saved| saved.memory.clone())),
            parent,
        });
    }
    let mut collection = plan.recorded(transaction).await?;
    let snapshot = Snapshot {
        id,
        name: plan.name.clone(),
        collection: collection.id,
        collection_name: collection.name.clone(),
        kind: plan.kind,
        consistency: plan.consistency,
        parent: collection.current,
        created_at: instant.created_at,
        members,
        cut: instant.report,
        notes: String::new(),
        exports: Vec::new(),
    };
    if !plan.single() {
        collection.current = Some(id);
        transaction.put(&collection)?;
    }
    transaction.put(&snapshot)
}

async fn put_point(
    transaction: &mut Transaction<'_>,
    id: ReferencePointId,
    plan: &Plan,
    evidence: Vec<Evidence>,
    instant: Instant,
) -> Result<(), EngineError> {
    if transaction.exists(&point_key(id)).await? {
        return Err(EngineError::invalid(format!(
            "a reference point {id} was created meanwhile"
        )));
    }
    let mut members = Vec::with_capacity(plan.members.len());
    for (member, evidence) in plan.members.iter().zip(evidence) {
        let machine = member.switched(transaction).await?;
        transaction.put(&machine)?;
        let disks = member.disks.iter().map(|disk| {
            Ok(DiskPoint {
                disk: disk.old.disk.clone(),
                tracking: random(),
                root: disk.root,
                layer: disk.old.id,
                path: disk.old.path.clone(),
                format: disk.old.format,
                virtual_size: disk.virtual_size.ok_or_else(|| {
                    EngineError::failed(format!("the size of disk {} is not known", disk.old.disk))
                })?,
                lost: None,
            })
        });
        members.push(MemberPoint {
            id: match plan.single() {
                true => MemberPointId(id.0),
                false => MemberPointId::new(),
            },
            machine: machine.id,
            machine_name: machine.name.clone(),
            definition: machine.definition.clone(),
            power: member.power,
            machine_type: evidence.machine_type,
            disks: disks.collect::<Result<_, EngineError>>()?,
            left_out: member.left_out.clone(),
        });
    }
    let collection = plan.recorded(transaction).await?;
    transaction.put(&ReferencePoint {
        id,
        name: plan.name.clone(),
        collection: collection.id,
        collection_name: collection.name,
        consistency: plan.consistency,
        created_at: instant.created_at,
        cut: instant.report,
        members,
        keeps_data: true,
        notes: String::new(),
        exports: Vec::new(),
    })
}

fn from_stamp(stamp: Stamp) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(stamp) * 1000).ok()
}
