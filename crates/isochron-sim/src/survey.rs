//! What a test asserts in the end: that nothing is left over, and that records,
//! files and processes agree.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use isochron_engine::MachineView;
use isochron_engine::model::{MachineId, Power, ReferencePoint, Snapshot};

use crate::World;
use crate::process::{Process, Save};

/// All files and all processes: two that are equal, before and after an operation
/// that failed, prove that it left nothing behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey {
    /// All files, by name.
    pub files: BTreeSet<PathBuf>,
    /// All processes, the oldest first.
    pub processes: Vec<MachineState>,
    /// Guards that live.
    pub guards: usize,
}

/// A machine's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineState {
    /// The machine, where it is known.
    pub machine: Option<MachineId>,
    /// Running or paused.
    pub power: Power,
    /// By disk, the chain, the active layer first.
    pub chains: BTreeMap<String, Vec<PathBuf>>,
    /// Overlays opened and not in a chain.
    pub opened: BTreeSet<PathBuf>,
    /// File systems frozen.
    pub frozen: u32,
    /// Whether saving of memory is set up or under way.
    pub saving: bool,
    /// Disks whose active layer is being merged.
    pub merging: BTreeSet<String>,
}

impl From<&Process> for MachineState {
    fn from(process: &Process) -> Self {
        let chain = |disk: &crate::process::Attachment| (disk.name.clone(), disk.chain.clone());
        Self {
            machine: process.machine,
            power: process.power,
            chains: process.disks.iter().map(chain).collect(),
            opened: process.opened.clone(),
            frozen: process.frozen,
            saving: matches!(process.save, Some(Save::Prepared | Save::Writing(..))),
            merging: process.merges.keys().cloned().collect(),
        }
    }
}

impl World {
    /// All files and processes as they are now.
    pub fn survey(&self) -> Survey {
        let state = self.state();
        Survey {
            files: state
                .files
                .paths()
                .cloned()
                .chain(state.exports.partial())
                .collect(),
            processes: state.processes.values().map(MachineState::from).collect(),
            guards: state.guards.len(),
        }
    }

    /// In sentences, where the world is not at rest or the engine's records are
    /// not the truth about it: files that no chain, snapshot, reference point or
    /// memory accounts for, files that are missing, chains that differ between records, headers
    /// and processes, operations left half done. Empty when all is well.
    pub fn disagreements(
        &self,
        machines: &[MachineView],
        snapshots: &[Snapshot],
        points: &[ReferencePoint],
    ) -> Vec<String> {
        let mut found = self.unrest();
        let survey = self.survey();
        let state = self.state();
        let mut accounted = BTreeSet::new();
        for view in machines {
            let name = &view.machine.name;
            let off = match &view.machine.saved {
                Some(saved) => {
                    accounted.insert(saved.memory.path.clone());
                    Power::Saved
                }
                None => Power::Off,
            };
            let power = state.process_of(view.machine.id).map_or(off, |process| {
                state
                    .processes
                    .get(&process)
                    .map_or(Power::Off, |process| process.power)
            });
            if view.power != power {
                found.push(format!(
                    "{name} is said to be {:?} and is {power:?}",
                    view.power
                ));
            }
            let process = survey
                .processes
                .iter()
                .find(|state| state.machine == Some(view.machine.id));
            for disk in &view.disks {
                let chain: Vec<_> = disk.chain.iter().map(|layer| layer.path.clone()).collect();
                accounted.extend(chain.iter().cloned());
                if let Some(active) = chain.first()
                    && state.files.chain(active).as_ref() != Ok(&chain)
                {
                    found.push(format!("{name}: the files' headers do not say {chain:?}"));
                }
                if let Some(process) = process
                    && process.chains.get(&disk.name) != Some(&chain)
                {
                    found.push(format!(
                        "{name}: the records say {chain:?}, the process has {:?}",
                        process.chains.get(&disk.name)
                    ));
                }
            }
        }
        for member in snapshots.iter().flat_map(|snapshot| &snapshot.members) {
            for disk in &member.disks {
                match state.files.chain(&disk.path) {
                    Ok(chain) => accounted.extend(chain),
                    Err(error) => {
                        found.push(format!("snapshot of {}: {error}", member.machine_name))
                    }
                }
            }
            accounted.extend(member.memory.iter().map(|memory| memory.path.clone()));
        }
        for member in points.iter().flat_map(|point| &point.members) {
            for disk in &member.disks {
                match state.files.chain(&disk.path) {
                    Ok(chain) => accounted.extend(chain),
                    Err(error) => {
                        found.push(format!("point of {}: {error}", member.machine_name));
                    }
                }
            }
        }
        let difference = |a: &BTreeSet<PathBuf>, b: &BTreeSet<PathBuf>, what: &str| {
            a.difference(b)
                .map(|path| format!("{what}: {}", path.display()))
                .collect::<Vec<_>>()
        };
        found.extend(difference(&survey.files, &accounted, "left over"));
        found.extend(difference(&accounted, &survey.files, "missing"));
        found
    }

    /// Where a process or a guard is in the middle of something, or a process does
    /// not have the chain that its files' headers say.
    fn unrest(&self) -> Vec<String> {
        let state = self.state();
        let mut found = Vec::new();
        for (id, process) in &state.processes {
            let at = MachineState::from(process);
            if !at.opened.is_empty() {
                found.push(format!("process {id} has {:?} open", at.opened));
            }
            if at.frozen > 0 {
                found.push(format!("the guest of process {id} is frozen"));
            }
            if at.saving {
                found.push(format!("process {id} is saving memory"));
            }
            if !at.merging.is_empty() {
                found.push(format!("process {id} is merging {:?}", at.merging));
            }
            for chain in at.chains.values() {
                if let Some(active) = chain.first()
                    && state.files.chain(active).as_ref() != Ok(chain)
                {
                    found.push(format!(
                        "process {id} has {chain:?}, which its files do not say"
                    ));
                }
            }
        }
        if !state.guards.is_empty() {
            found.push(format!("{} guards live", state.guards.len()));
        }
        found
    }
}
