//! Everything in a world that changes: files, processes, guards, records.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use isochron_engine::model::{MachineId, Power};
use isochron_engine::ports::{Guarded, HypervisorError, LayerFile, Record, Revision, Stamp, Start};

use crate::archive::Exports;
use crate::clock::micros;
use crate::files::{Files, failed};
use crate::process::{Attachment, MACHINE_TYPE, Process};

#[derive(Debug, Default)]
pub(crate) struct State {
    /// The time of the call that is being carried out.
    pub(crate) now: Stamp,
    pub(crate) files: Files,
    /// By process identifier.
    pub(crate) processes: BTreeMap<u32, Process>,
    last_process: u32,
    /// Which process a machine was started with last; it may have ended since.
    started: HashMap<MachineId, u32>,
    pub(crate) guards: BTreeMap<u64, Watch>,
    last_guard: u64,
    pub(crate) directories: BTreeSet<PathBuf>,
    pub(crate) records: BTreeMap<String, Record>,
    pub(crate) revision: Revision,
    pub(crate) exports: Exports,
}

/// A guard's process.
#[derive(Debug)]
pub(crate) struct Watch {
    /// The life of the daemon that started it.
    pub(crate) life: u64,
    members: Vec<Guarded>,
    /// When it acts; `None` while it is not armed.
    pub(crate) deadline: Option<Stamp>,
    /// Memory that it empties before it acts.
    forfeits: Vec<PathBuf>,
    fired: bool,
}

impl State {
    /// Lets guards act whose time has come.
    pub(crate) fn settle(&mut self, now: Stamp) {
        self.now = now;
        let due = |watch: &Watch| watch.deadline.is_some_and(|deadline| deadline <= now);
        let due: Vec<_> = self
            .guards
            .iter()
            .filter(|(_, watch)| due(watch))
            .map(|(id, _)| *id)
            .collect();
        for guard in due {
            self.fire(guard);
        }
    }

    pub(crate) fn process_of(&self, machine: MachineId) -> Option<u32> {
        if let Some(id) = self.started.get(&machine)
            && self.processes.contains_key(id)
        {
            return Some(*id);
        }
        let mut processes = self.processes.iter();
        processes
            .find(|(_, process)| process.machine == Some(machine))
            .map(|(id, _)| *id)
    }

    pub(crate) fn guest(&mut self, machine: MachineId) -> Result<&mut Process, HypervisorError> {
        let process = self.process_of(machine).ok_or(HypervisorError::Off)?;
        self.processes.get_mut(&process).ok_or(HypervisorError::Off)
    }

    pub(crate) fn not_used(&self, path: &Path) -> Result<(), HypervisorError> {
        match self
            .processes
            .iter()
            .find(|(_, process)| process.uses(path))
        {
            Some((id, _)) => Err(failed(format!(
                "{} is open in process {id}",
                path.display()
            ))),
            None => Ok(()),
        }
    }

    /// Why the disk cannot be snapshotted, if it cannot.
    pub(crate) fn excluded(
        &self,
        path: &Path,
        read_only: bool,
    ) -> Result<Option<String>, HypervisorError> {
        Ok(match (self.files.image(path)?.device, read_only) {
            (true, _) => Some(format!("{} is a device of the host", path.display())),
            (false, true) => Some("it is read-only".to_owned()),
            (false, false) => None,
        })
    }

    pub(crate) fn add_process(&mut self, process: Process) -> u32 {
        self.last_process += 1;
        let id = 1000 + self.last_process;
        if let Some(machine) = process.machine {
            self.started.insert(machine, id);
        }
        self.processes.insert(id, process);
        id
    }

    pub(crate) fn start(
        &mut self,
        start: &Start<'_>,
        background: bool,
    ) -> Result<u32, HypervisorError> {
        if self.process_of(start.id).is_some() {
            return Err(failed("the machine has a process already"));
        }
        if start.chains.len() != start.definition.disks.len() {
            return Err(HypervisorError::Invalid(
                "there is not one chain per disk".to_owned(),
            ));
        }
        let memory = start
            .memory
            .as_deref()
            .map(|file| self.files.read_memory(file))
            .transpose()?;
        let mut disks = Vec::new();
        for (index, (disk, chain)) in start.definition.disks.iter().zip(&start.chains).enumerate() {
            let name = match disk.name.as_str() {
                "" => format!("disk{index}"),
                name => name.to_owned(),
            };
            disks.push(self.attach(name, chain, disk.read_only)?);
        }
        Ok(self.add_process(Process {
            machine: Some(start.id),
            socket: None,
            power: Power::Paused,
            disks,
            memory: memory.unwrap_or(0),
            agent: start.definition.guest_agent,
            frozen: 0,
            background,
            opened: Default::default(),
            save: None,
            merges: Default::default(),
            unseen: Default::default(),
            machine_type: start
                .machine_type
                .clone()
                .unwrap_or_else(|| MACHINE_TYPE.to_owned()),
        }))
    }

    /// A disk on this chain, which must be what the files' headers say.
    fn attach(
        &self,
        name: String,
        chain: &[LayerFile],
        read_only: bool,
    ) -> Result<Attachment, HypervisorError> {
        let active = chain
            .first()
            .ok_or_else(|| HypervisorError::Invalid(format!("disk {name} has no layer")))?;
        for layer in chain {
            if self.files.image(&layer.path)?.format != layer.format {
                return Err(failed(format!(
                    "{} has another format",
                    layer.path.display()
                )));
            }
        }
        let paths: Vec<_> = chain.iter().map(|layer| layer.path.clone()).collect();
        if self.files.chain(&active.path)? != paths {
            return Err(failed(format!(
                "{} stands on other files than is said",
                active.path.display()
            )));
        }
        if !read_only {
            self.not_used(&active.path)?;
        }
        let excluded = self.excluded(&active.path, read_only)?;
        Ok(Attachment {
            name,
            chain: paths,
            read_only,
            excluded,
        })
    }

    pub(crate) fn add_guard(
        &mut self,
        life: u64,
        members: &[Guarded],
    ) -> Result<u64, HypervisorError> {
        for member in members {
            self.guest(member.machine)?;
        }
        self.last_guard += 1;
        let watch = Watch {
            life,
            members: members.to_vec(),
            deadline: None,
            forfeits: Vec::new(),
            fired: false,
        };
        self.guards.insert(self.last_guard, watch);
        Ok(self.last_guard)
    }

    pub(crate) fn arm(&mut self, guard: u64, deadline: Duration) -> Result<(), HypervisorError> {
        let watch = self.guards.get_mut(&guard).filter(|watch| !watch.fired);
        let watch = watch.ok_or_else(|| failed("the guard has acted already"))?;
        watch.deadline = Some(self.now + micros(deadline));
        Ok(())
    }

    pub(crate) fn forfeits(&mut self, guard: u64, memory: &Path) -> Result<(), HypervisorError> {
        let watch = self.guards.get_mut(&guard).filter(|watch| !watch.fired);
        let watch = watch.ok_or_else(|| failed("the guard has acted already"))?;
        watch.forfeits.push(memory.to_owned());
        Ok(())
    }

    /// The bytes of memory that no guard can empty any more.
    pub(crate) fn kept_memory(&self, memory: &Path) -> Result<Option<u64>, HypervisorError> {
        let mut guards = self.guards.values();
        match guards.any(|watch| watch.forfeits.iter().any(|file| file == memory)) {
            true => Err(HypervisorError::Timeout(format!(
                "a guard can still empty {}",
                memory.display()
            ))),
            false => Ok(self.files.size(memory).filter(|bytes| *bytes > 0)),
        }
    }

    /// Whether the watch was kept in time.
    pub(crate) fn disarm(&mut self, guard: u64) -> bool {
        let watch = self.guards.get_mut(&guard).filter(|watch| !watch.fired);
        let kept = |watch: &mut Watch| {
            watch.deadline = None;
            watch.forfeits.clear();
        };
        watch.map(kept).is_some()
    }

    /// The guard resumes and thaws its members.
    fn fire(&mut self, guard: u64) {
        let Some(watch) = self.guards.get_mut(&guard) else {
            return;
        };
        watch.deadline = None;
        watch.fired = true;
        let members = watch.members.clone();
        for memory in std::mem::take(&mut watch.forfeits) {
            self.files.tear(&memory);
        }
        for member in members {
            let Ok(guest) = self.guest(member.machine) else {
                continue;
            };
            if member.resume {
                guest.power = Power::Running;
            }
            if member.thaw {
                guest.frozen = 0;
            }
        }
    }

    /// The guard sees that nobody is there any more; armed, it acts. Then it ends.
    pub(crate) fn abandon(&mut self, guard: u64) {
        if self
            .guards
            .get(&guard)
            .is_some_and(|watch| watch.deadline.is_some())
        {
            self.fire(guard);
        }
        self.guards.remove(&guard);
    }
}
