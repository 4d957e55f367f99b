//! Guests that write and remember which of their writes were acknowledged: each
//! write goes to a block of its own, so that what a disk holds tells which
//! writes it has seen.
//!
//! Two of them tell each other: the second writes only after the first one's
//! write was acknowledged. A snapshot that holds the effect and not its cause is
//! no instant.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use isochron_engine::model::MachineId;
use isochron_sim::World;

/// What the guests remember, wherever they were returned to.
#[derive(Clone, Default)]
pub struct Guests(Arc<Mutex<Notes>>);

#[derive(Default)]
struct Notes {
    next: u64,
    /// Acknowledged writes that the machine's disks must hold, the oldest first.
    written: BTreeMap<MachineId, Vec<u64>>,
    /// Of each effect, its cause and who wrote that.
    causes: BTreeMap<u64, (u64, MachineId)>,
}

impl Guests {
    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap()
    }

    /// A machine's guest writes to one of its disks, if it runs.
    pub fn write(&self, world: &World, machine: MachineId, disks: &[&str]) -> Option<u64> {
        let mut notes = self.notes();
        notes.next += 1;
        let block = notes.next;
        let disk = disks[block as usize % disks.len()];
        world.guest_write(machine, disk, block, block).ok()?;
        notes.written.entry(machine).or_default().push(block);
        Some(block)
    }

    /// The first writes and tells the second, which writes then.
    pub fn exchange(&self, world: &World, [first, second]: [MachineId; 2]) {
        self.tell(world, (first, &["disk0", "disk1"]), (second, &["disk0"]));
    }

    /// The first writes to one of its disks and tells the second, which writes then.
    pub fn tell(&self, world: &World, first: (MachineId, &[&str]), second: (MachineId, &[&str])) {
        if let Some(cause) = self.write(world, first.0, first.1)
            && let Some(effect) = self.write(world, second.0, second.1)
        {
            self.notes().causes.insert(effect, (cause, first.0));
        }
    }

    /// What a machine's disks must hold.
    pub fn written(&self, machine: MachineId) -> Vec<u64> {
        self.notes()
            .written
            .get(&machine)
            .cloned()
            .unwrap_or_default()
    }

    /// A machine was returned to where its disks hold this. What it wrote besides is
    /// no cause of anything any more: it never happened.
    pub fn returned(&self, machine: MachineId, holds: Vec<u64>) {
        let mut notes = self.notes();
        notes
            .causes
            .retain(|_, (cause, of)| *of != machine || holds.contains(cause));
        notes.written.insert(machine, holds);
    }

    /// An effect in this content whose cause is not in that one, which is this
    /// machine's.
    pub fn without_cause(
        &self,
        effects: &BTreeSet<u64>,
        machine: MachineId,
        causes: &BTreeSet<u64>,
    ) -> Option<(u64, u64)> {
        let notes = self.notes();
        effects.iter().find_map(|effect| {
            let (cause, of) = *notes.causes.get(effect)?;
            (of == machine && !causes.contains(&cause)).then_some((cause, *effect))
        })
    }
}
