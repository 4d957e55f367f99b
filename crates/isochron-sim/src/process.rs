//! A machine's process: the truth about its chains, whatever files and records
//! say, and its guest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use isochron_engine::model::{MachineId, Power};
use isochron_engine::ports::{HypervisorError, LayerFile, LiveDisk, SaveMode, Stamp, Swap};

use crate::files::{Files, failed};

/// The machine type of every process that is not told another.
pub(crate) const MACHINE_TYPE: &str = "sim-1.0";

/// A process and its guest.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// Whose; of an attached one known once someone asks for it.
    pub(crate) machine: Option<MachineId>,
    /// Where its owner made it answer, if it is attached.
    pub(crate) socket: Option<PathBuf>,
    /// Running or paused.
    pub(crate) power: Power,
    pub(crate) disks: Vec<Attachment>,
    /// Rises with every write of the guest.
    pub(crate) memory: u64,
    /// Whether the guest runs an agent.
    pub(crate) agent: bool,
    /// File systems frozen.
    pub(crate) frozen: u32,
    /// Whether memory can be saved while it runs.
    pub(crate) background: bool,
    /// Overlays opened and not in a chain.
    pub(crate) opened: BTreeSet<PathBuf>,
    pub(crate) save: Option<Save>,
    /// Disks whose active layer is being merged: base by disk.
    pub(crate) merges: BTreeMap<String, PathBuf>,
    /// Layers whose merge has not been seen to its end: nobody else can read them.
    pub(crate) unseen: BTreeSet<PathBuf>,
    pub(crate) machine_type: String,
}

/// A disk of a process.
#[derive(Clone, Debug)]
pub(crate) struct Attachment {
    pub(crate) name: String,
    /// The active layer first.
    pub(crate) chain: Vec<PathBuf>,
    pub(crate) read_only: bool,
    pub(crate) excluded: Option<String>,
}

/// Saving of memory, once it is prepared.
#[derive(Clone, Debug)]
pub(crate) enum Save {
    Prepared,
    /// The memory as it was at the beginning, on its way to a file.
    Writing(PathBuf, u64),
}

fn invalid(sentence: impl Into<String>) -> HypervisorError {
    HypervisorError::Invalid(sentence.into())
}

impl Process {
    /// Whether it has the file open.
    pub(crate) fn uses(&self, path: &Path) -> bool {
        // Names are compared as they are: that is quick, and all are made alike.
        let is_it = |layer: &PathBuf| layer.as_os_str() == path.as_os_str();
        self.opened.iter().any(is_it)
            || self.disks.iter().any(|disk| disk.chain.iter().any(is_it))
            || matches!(&self.save, Some(Save::Writing(file, _)) if file == path)
    }

    pub(crate) fn disk(&self, name: &str) -> Result<&Attachment, HypervisorError> {
        let disk = self.disks.iter().find(|disk| disk.name == name);
        disk.ok_or_else(|| invalid(format!("there is no disk {name}")))
    }

    fn disk_mut(&mut self, name: &str) -> Result<&mut Attachment, HypervisorError> {
        let disk = self.disks.iter_mut().find(|disk| disk.name == name);
        disk.ok_or_else(|| invalid(format!("there is no disk {name}")))
    }

    fn standing(&self) -> Result<(), HypervisorError> {
        match self.power {
            Power::Paused => Ok(()),
            _ => Err(invalid("the machine does not stand")),
        }
    }

    pub(crate) fn write(
        &mut self,
        files: &mut Files,
        disk: &str,
        block: u64,
        value: u64,
    ) -> Result<(), HypervisorError> {
        if self.power != Power::Running {
            return Err(invalid("the guest stands"));
        }
        if self.frozen > 0 {
            return Err(invalid("the guest's file systems are frozen"));
        }
        let disk = self.disk(disk)?;
        let active = disk.chain.first().filter(|_| !disk.read_only);
        let active = active.ok_or_else(|| invalid("the disk is read-only"))?;
        files.image_mut(active)?.blocks.insert(block, value);
        self.memory += 1;
        Ok(())
    }

    pub(crate) fn live_disks(&self, files: &Files) -> Result<Vec<LiveDisk>, HypervisorError> {
        let disk = |disk: &Attachment| {
            let path = disk.chain.first().cloned().unwrap_or_default();
            let image = files.image(&path)?;
            Ok(LiveDisk {
                name: disk.name.clone(),
                path,
                format: image.format,
                chain: disk.chain.clone(),
                virtual_size: image.virtual_size,
                read_only: disk.read_only,
                excluded: disk.excluded.clone(),
            })
        };
        self.disks.iter().map(disk).collect()
    }

    pub(crate) fn open_overlays(
        &mut self,
        files: &Files,
        swaps: &[Swap],
    ) -> Result<(), HypervisorError> {
        for swap in swaps {
            self.disk(&swap.disk)?;
            let path = &swap.overlay.path;
            if files.image(path)?.format != swap.overlay.format {
                return Err(invalid(format!("{} has another format", path.display())));
            }
            if self.uses(path) {
                return Err(failed(format!("{} is open already", path.display())));
            }
            self.opened.insert(path.clone());
        }
        Ok(())
    }

    pub(crate) fn close_layers(&mut self, layers: &[LayerFile]) -> Result<(), HypervisorError> {
        for layer in layers {
            if !self.opened.remove(&layer.path) && self.uses(&layer.path) {
                return Err(failed(format!("{} is in a chain", layer.path.display())));
            }
        }
        Ok(())
    }

    pub(crate) fn swap(&mut self, swaps: &[Swap]) -> Result<(), HypervisorError> {
        self.standing()?;
        for swap in swaps {
            self.disk(&swap.disk)?;
            if self.merges.contains_key(&swap.disk) {
                return Err(failed(format!("disk {} is being merged", swap.disk)));
            }
            if !self.opened.contains(&swap.overlay.path) {
                return Err(invalid(format!(
                    "{} is not open",
                    swap.overlay.path.display()
                )));
            }
        }
        for swap in swaps {
            self.opened.remove(&swap.overlay.path);
            self.disk_mut(&swap.disk)?
                .chain
                .insert(0, swap.overlay.path.clone());
        }
        Ok(())
    }

    pub(crate) fn prepare_save(&mut self, power: Power) -> Result<SaveMode, HypervisorError> {
        if matches!(self.save, Some(Save::Writing(..))) {
            return Err(failed("memory is being saved already"));
        }
        self.save = Some(Save::Prepared);
        Ok(match (power, self.background) {
            (Power::Running, true) => SaveMode::Background,
            (Power::Running, false) => {
                SaveMode::Plain("its memory cannot be write-protected".to_owned())
            }
            _ => SaveMode::Plain("it is paused".to_owned()),
        })
    }

    pub(crate) fn save(
        &mut self,
        files: &mut Files,
        file: &Path,
        mode: &SaveMode,
        now: Stamp,
    ) -> Result<Option<Stamp>, HypervisorError> {
        self.standing()?;
        match (&self.save, mode) {
            (Some(Save::Writing(..)), _) => return Err(failed("memory is being saved already")),
            (None, SaveMode::Background) => return Err(invalid("saving was not prepared")),
            _ => {}
        }
        files.create_memory(file)?;
        self.save = Some(Save::Writing(file.to_owned(), self.memory));
        match mode {
            SaveMode::Plain(_) => files.write_memory(file, self.memory).map(|_| None),
            SaveMode::Background => {
                self.power = Power::Running;
                Ok(Some(now))
            }
        }
    }

    pub(crate) fn finish_save(
        &mut self,
        files: &mut Files,
        file: &Path,
    ) -> Result<u64, HypervisorError> {
        let memory = match &self.save {
            Some(Save::Writing(writing, memory)) if writing == file => *memory,
            _ => return Err(invalid(format!("{} is not being written", file.display()))),
        };
        let bytes = files.write_memory(file, memory)?;
        self.save = None;
        Ok(bytes)
    }

    pub(crate) fn freeze(&mut self) -> Result<u32, HypervisorError> {
        self.agent_reached()?;
        self.frozen = self.disks.iter().filter(|disk| !disk.read_only).count() as u32;
        Ok(self.frozen)
    }

    pub(crate) fn thaw(&mut self) -> Result<u32, HypervisorError> {
        self.agent_reached()?;
        Ok(std::mem::take(&mut self.frozen))
    }

    fn agent_reached(&self) -> Result<(), HypervisorError> {
        match (self.agent, self.power) {
            (false, _) => Err(HypervisorError::NotSupported(
                "the guest has no agent".to_owned(),
            )),
            (true, Power::Running) => Ok(()),
            (true, _) => Err(HypervisorError::Timeout(
                "the agent does not answer".to_owned(),
            )),
        }
    }

    pub(crate) fn merge(
        &mut self,
        files: &mut Files,
        disk: &str,
        [above, top, base]: [&Path; 3],
    ) -> Result<(), HypervisorError> {
        self.unseen.insert(top.to_owned());
        let chain = &mut self.disk_mut(disk)?.chain;
        if chain.windows(2).any(|layers| layers == [above, base]) {
            return Ok(()); // by a call that was interrupted
        }
        let place = chain
            .windows(3)
            .position(|layers| layers == [above, top, base]);
        let place = place.ok_or_else(|| {
            invalid(format!(
                "{}, {} and {} do not follow each other in the chain of {disk}",
                above.display(),
                top.display(),
                base.display()
            ))
        })?;
        files.merge(top, base)?;
        files.image_mut(above)?.backing = Some(base.to_owned());
        chain.remove(place + 1);
        Ok(())
    }

    pub(crate) fn begin_merge_active(
        &mut self,
        files: &mut Files,
        name: &str,
        top: &Path,
        base: &Path,
    ) -> Result<(), HypervisorError> {
        let disk = self.disk(name)?;
        if !disk.chain.starts_with(&[top.to_owned(), base.to_owned()]) {
            return Err(invalid(format!(
                "{} is not the active layer of {name} on {}",
                top.display(),
                base.display()
            )));
        }
        files.merge(top, base)?;
        self.merges.insert(name.to_owned(), base.to_owned());
        Ok(())
    }

    pub(crate) fn end_merge_active(
        &mut self,
        files: &mut Files,
        name: &str,
        base: &Path,
    ) -> Result<(), HypervisorError> {
        self.standing()?;
        if self.merges.get(name).is_none_or(|merging| merging != base) {
            return Err(invalid(format!(
                "{name} is not being merged into {}",
                base.display()
            )));
        }
        let disk = self.disk_mut(name)?;
        // what the guest wrote since the merge began
        files.merge(&disk.chain[0], base)?;
        disk.chain.remove(0);
        self.merges.remove(name);
        Ok(())
    }
}
