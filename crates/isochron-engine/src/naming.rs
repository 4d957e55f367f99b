//! Names and notes of what there is already: nothing about these is needed to
//! restore anything, so they can be changed while an operation is under way.

use crate::access::Operation;
use crate::collections::check_name;
use crate::model::{Machine, MachineId, Snapshot, SnapshotId};
use crate::records::{machine_key, snapshot_key};
use crate::{Engine, EngineError};

/// The longest notes, in bytes: they are read with every description.
const LONGEST_NOTES: usize = 64 * 1024;

fn check_notes(notes: &str) -> Result<(), EngineError> {
    if notes.len() > LONGEST_NOTES {
        return Err(EngineError::invalid(format!(
            "the notes are longer than {LONGEST_NOTES} bytes"
        )));
    }
    Ok(())
}

impl Engine {
    /// Gives a snapshot another name. Names of snapshots need not be unique.
    ///
    /// # Errors
    /// `NotFound`; `InvalidParameter` name.
    pub async fn rename_snapshot(&self, id: SnapshotId, name: &str) -> Result<(), EngineError> {
        let change = async {
            check_name(name)?;
            self.change_snapshot(id, |snapshot| name.clone_into(&mut snapshot.name))
                .await
        };
        let target = self.snapshot_target(id).await;
        self.perform(Operation::ModifySnapshot, target, change)
            .await
    }

    /// Writes down what its owner notes about a snapshot.
    ///
    /// # Errors
    /// `NotFound`; `InvalidParameter` longer than 64 KiB.
    pub async fn note_snapshot(&self, id: SnapshotId, notes: &str) -> Result<(), EngineError> {
        let change = async {
            check_notes(notes)?;
            self.change_snapshot(id, |snapshot| notes.clone_into(&mut snapshot.notes))
                .await
        };
        let target = self.snapshot_target(id).await;
        self.perform(Operation::ModifySnapshot, target, change)
            .await
    }

    async fn change_snapshot(
        &self,
        id: SnapshotId,
        change: impl FnOnce(&mut Snapshot),
    ) -> Result<(), EngineError> {
        let mut transaction = self.inner.records.begin().await;
        let snapshot: Option<Snapshot> = transaction.get(&snapshot_key(id)).await?;
        let mut snapshot =
            snapshot.ok_or_else(|| EngineError::not_found(format!("there is no snapshot {id}")))?;
        change(&mut snapshot);
        transaction.put(&snapshot)?;
        transaction.commit().await
    }

    /// Writes down what its owner notes about a machine.
    ///
    /// # Errors
    /// `NotFound`; `InvalidParameter` longer than 64 KiB.
    pub async fn note_machine(&self, id: MachineId, notes: &str) -> Result<(), EngineError> {
        let target = self.machine_target(id).await;
        self.perform(Operation::ModifyMachine, target, self.note_on(id, notes))
            .await
    }

    async fn note_on(&self, id: MachineId, notes: &str) -> Result<(), EngineError> {
        check_notes(notes)?;
        let mut transaction = self.inner.records.begin().await;
        let machine: Option<Machine> = transaction.get(&machine_key(id)).await?;
        let mut machine =
            machine.ok_or_else(|| EngineError::not_found(format!("there is no machine {id}")))?;
        notes.clone_into(&mut machine.notes);
        transaction.put(&machine)?;
        transaction.commit().await
    }

    /// Takes the saved memory out of a snapshot: its members are off in it then,
    /// and its disks stay. `Ok` where there is none.
    ///
    /// # Errors
    /// `NotFound`; `InvalidState` in use.
    pub async fn clear_snapshot_memory(&self, id: SnapshotId) -> Result<(), EngineError> {
        let target = self.snapshot_target(id).await;
        self.perform(Operation::ModifySnapshot, target, self.clear_memory(id))
            .await
    }

    async fn clear_memory(&self, id: SnapshotId) -> Result<(), EngineError> {
        let snapshot = self.snapshot(id).await?;
        let what = "a snapshot's memory is being removed";
        let _own = self.inner.hold_snapshot(what, &snapshot)?;
        let pass = self.inner.enter_snapshot(what, &snapshot)?;
        let mut transaction = self.inner.records.begin().await;
        let mut snapshot: Snapshot = transaction.require(&snapshot_key(id)).await?;
        for member in &mut snapshot.members {
            if let Some(memory) = member.memory.take() {
                let machine: Machine = transaction.require(&machine_key(member.machine)).await?;
                if machine.saved.is_none_or(|saved| saved.memory != memory) {
                    transaction.discard(&memory.path)?;
                }
                member.power = crate::model::Power::Off;
            }
        }
        transaction.put(&snapshot)?;
        transaction.commit().await?;
        drop(pass);
        self.inner.empty_trash().await;
        self.inner.remove_memory_directory(id).await;
        Ok(())
    }
}
