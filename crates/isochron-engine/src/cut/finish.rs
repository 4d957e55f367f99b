//! After the window: the evidence is judged, memory comes to stable storage, and
//! one transaction makes the snapshot real.

use super::{Evidence, each};
use crate::EngineError;
use crate::cut::plan::Plan;
use crate::engine::Inner;
use crate::jobs::Progress;
use crate::journal::Journal;
use crate::model::{
    Affected, Collection, CutMember, CutReport, DiskSnapshot, Job, Machine, MemberSnapshot,
    MemberSnapshotId, MemorySave, MemoryState, Snapshot,
};
use crate::ports::{SaveMode, Stamp};
use crate::records::{collection_key, journal_key, machine_key, snapshot_key};
use crate::timeline::step;

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

/// One transaction makes the snapshot real: snapshot, layers, active layers, the
/// job's end, and the journal's.
pub(super) async fn commit(
    inner: &Inner,
    plan: &Plan,
    evidence: Vec<Evidence>,
    memory: Vec<Option<MemoryState>>,
    report: CutReport,
    journal: &Journal,
    progress: &Progress,
) -> Result<Job, EngineError> {
    progress.step(96, "the snapshot is being recorded");
    let _step = step!("commit");
    let instant = report
        .members
        .iter()
        .filter_map(|member| member.stopped_at_us)
        .max();
    let created_at = instant
        .and_then(from_stamp)
        .unwrap_or_else(|| inner.clock.now());
    let single = plan.collection.id.0 == plan.members[0].machine.id.0;
    let mut transaction = inner.records.begin().await;
    if transaction.exists(&snapshot_key(plan.id)).await? {
        return Err(EngineError::invalid(format!(
            "a snapshot collection {} was taken meanwhile",
            plan.id
        )));
    }
    let mut members = Vec::with_capacity(plan.members.len());
    for ((member, evidence), memory) in plan.members.iter().zip(evidence).zip(memory) {
        let key = machine_key(member.machine.id);
        let mut machine: Machine = transaction.require(&key).await?;
        let parent = match machine.current {
            Some(parent) => transaction.get::<Snapshot>(&snapshot_key(parent)).await?,
            None => None,
        };
        for disk in &member.disks {
            transaction.put(&disk.overlay)?;
            machine.set_active(&disk.overlay);
        }
        machine.current = Some(plan.id);
        transaction.put(&machine)?;
        members.push(MemberSnapshot {
            // Whoever asks for a single machine's snapshot can name it beforehand.
            id: match single {
                true => MemberSnapshotId(plan.id.0),
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
                })
                .collect(),
            left_out: member.left_out.clone(),
            memory: memory.or_else(|| member.saved.as_ref().map(|saved| saved.memory.clone())),
            parent: parent.and_then(|parent| {
                parent
                    .members
                    .iter()
                    .find(|m| m.machine == machine.id)
                    .map(|m| m.id)
            }),
        });
    }
    // There is no record of the collection of one that a machine is: the plan has
    // what it needs, and the pass has kept others from changing it.
    let key = collection_key(plan.collection.id);
    let recorded: Option<Collection> = transaction.get(&key).await?;
    if recorded.is_none() && !single {
        return Err(EngineError::not_found(format!(
            "there is no {key} any more"
        )));
    }
    let mut collection = recorded.unwrap_or_else(|| plan.collection.clone());
    let snapshot = Snapshot {
        id: plan.id,
        name: plan.name.clone(),
        collection: collection.id,
        collection_name: collection.name.clone(),
        kind: plan.kind,
        consistency: plan.consistency,
        parent: collection.current,
        created_at,
        members,
        cut: report,
        notes: String::new(),
    };
    if !single {
        collection.current = Some(plan.id);
        transaction.put(&collection)?;
    }
    transaction.put(&snapshot)?;
    transaction.delete(journal_key(journal.job));
    let ended = progress.ending(Some(Affected::Snapshot(plan.id)), None)?;
    transaction.put(&ended)?;
    transaction.commit().await?;
    Ok(ended)
}

fn from_stamp(stamp: Stamp) -> Option<time::OffsetDateTime> {
    time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(stamp) * 1000).ok()
}
