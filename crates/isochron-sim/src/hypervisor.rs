//! The [`Hypervisor`] of one life of the daemon.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use isochron_engine::model::{
    Changes, Definition, FileIdentity, Machine, MachineId, MemoryState, Origin, SavedState,
};
use isochron_engine::ports::{
    Guard, Guarded, Hypervisor, HypervisorError, LayerFile, LiveMachine, Overlay, Start,
};

use crate::daemon::At;
use crate::files::{Image, failed};
use crate::guard::SimGuard;
use crate::machine::SimMachine;
use crate::process::MACHINE_TYPE;
use crate::{Daemon, Point};

/// The hypervisor of one life of the daemon.
pub struct SimHypervisor {
    daemon: Daemon,
}

fn on_file(point: Point, file: &Path) -> At<'_> {
    At {
        point,
        machine: None,
        file: Some(file),
    }
}

fn on_machine(point: Point, machine: MachineId) -> At<'static> {
    At {
        point,
        machine: Some(machine),
        file: None,
    }
}

impl SimHypervisor {
    pub(crate) fn new(daemon: Daemon) -> Self {
        Self { daemon }
    }

    fn machine(&self, machine: MachineId, process: u32) -> Arc<dyn LiveMachine> {
        Arc::new(SimMachine {
            daemon: self.daemon.clone(),
            machine,
            process,
        })
    }
}

#[async_trait]
impl Hypervisor for SimHypervisor {
    async fn check(&self, definition: &Definition) -> Result<Vec<Option<String>>, HypervisorError> {
        let at = At {
            point: Point::Check,
            machine: definition.id,
            file: None,
        };
        self.daemon
            .call(at, |state| {
                let mut reasons = Vec::new();
                for disk in &definition.disks {
                    let image = state.files.image(&disk.path)?;
                    if image.format != disk.format {
                        return Err(HypervisorError::Invalid(format!(
                            "{} is no {} image",
                            disk.path.display(),
                            disk.format.as_str()
                        )));
                    }
                    reasons.push(state.excluded(&disk.path, disk.read_only)?);
                }
                Ok(reasons)
            })
            .await
    }

    async fn live(
        &self,
        machine: &Machine,
    ) -> Result<Option<Arc<dyn LiveMachine>>, HypervisorError> {
        let process = self
            .daemon
            .call(on_machine(Point::Live, machine.id), |state| {
                if let Origin::Attached { qmp, .. } = &machine.origin {
                    let mut processes = state.processes.values_mut();
                    if let Some(process) = processes.find(|p| p.socket.as_ref() == Some(qmp)) {
                        process.machine = Some(machine.id);
                    }
                }
                Ok::<_, HypervisorError>(state.process_of(machine.id))
            })
            .await?;
        Ok(process.map(|process| self.machine(machine.id, process)))
    }

    async fn start(&self, start: Start<'_>) -> Result<Arc<dyn LiveMachine>, HypervisorError> {
        let background = self.daemon.world().background_save(start.id);
        let mut started = None;
        let outcome = self
            .daemon
            .call(on_machine(Point::Start, start.id), |state| {
                started = Some(state.start(&start, background)?);
                Ok(())
            })
            .await;
        match (outcome, started) {
            (Ok(()), Some(process)) => Ok(self.machine(start.id, process)),
            (Err(error), Some(process)) if !self.daemon.crashed() => {
                self.daemon.world().state().processes.remove(&process);
                Err(error)
            }
            (Err(error), _) => Err(error),
            (Ok(()), None) => Err(failed("nothing was started")),
        }
    }

    async fn kill(&self, machine: &Machine) -> Result<(), HypervisorError> {
        self.daemon
            .call(on_machine(Point::Kill, machine.id), |state| {
                let Some(process) = state.process_of(machine.id) else {
                    return Ok(());
                };
                if machine.origin != Origin::Launched {
                    return Err(HypervisorError::NotSupported(
                        "the process is its owner's".to_owned(),
                    ));
                }
                state.processes.remove(&process);
                Ok(())
            })
            .await
    }

    async fn saved_state(&self, memory: &Path) -> Result<SavedState, HypervisorError> {
        self.daemon
            .call(on_file(Point::SavedState, memory), |state| {
                let invalid = |error: HypervisorError| HypervisorError::Invalid(error.to_string());
                state.files.read_memory(memory).map_err(invalid)?;
                Ok(SavedState {
                    memory: MemoryState {
                        path: memory.to_owned(),
                        bytes: state.files.size(memory).unwrap_or_default(),
                    },
                    machine_type: Some(MACHINE_TYPE.to_owned()),
                })
            })
            .await
    }

    async fn create_overlay(
        &self,
        overlay: &Overlay,
        virtual_size: Option<u64>,
    ) -> Result<(), HypervisorError> {
        self.daemon
            .call(
                on_file(Point::CreateOverlay, &overlay.layer.path),
                |state| {
                    let virtual_size = match virtual_size {
                        Some(bytes) => bytes,
                        None => state.files.image(&overlay.base.path)?.virtual_size,
                    };
                    let image = Image {
                        format: overlay.layer.format,
                        backing: Some(overlay.base.path.clone()),
                        blocks: BTreeMap::new(),
                        virtual_size,
                        complete: true,
                        device: false,
                        inode: 0,
                        changed: 0,
                    };
                    state.files.create(&overlay.layer.path, image)
                },
            )
            .await
    }

    async fn merge_offline(
        &self,
        top: &LayerFile,
        base: &LayerFile,
    ) -> Result<(), HypervisorError> {
        self.daemon
            .call(on_file(Point::MergeOffline, &top.path), |state| {
                state.not_used(&top.path)?;
                state.not_used(&base.path)?;
                if state.files.image(&top.path)?.backing.as_ref() != Some(&base.path) {
                    return Err(HypervisorError::Invalid(format!(
                        "{} does not stand on {}",
                        top.path.display(),
                        base.path.display()
                    )));
                }
                state.files.merge(&top.path, &base.path)
            })
            .await
    }

    async fn rebase(&self, layer: &LayerFile, base: &LayerFile) -> Result<(), HypervisorError> {
        self.daemon
            .call(on_file(Point::Rebase, &layer.path), |state| {
                state.not_used(&layer.path)?;
                state.files.image(&base.path)?;
                state.files.image_mut(&layer.path)?.backing = Some(base.path.clone());
                Ok(())
            })
            .await
    }

    async fn is_image(&self, layer: &LayerFile) -> Result<bool, HypervisorError> {
        self.daemon
            .call(on_file(Point::IsImage, &layer.path), |state| {
                Ok(state
                    .files
                    .image(&layer.path)
                    .is_ok_and(|image| image.format == layer.format))
            })
            .await
    }

    async fn allocated(
        &self,
        layer: &LayerFile,
        base: &LayerFile,
    ) -> Result<Changes, HypervisorError> {
        self.daemon
            .call(on_file(Point::Allocated, &layer.path), |state| {
                if state
                    .processes
                    .values()
                    .any(|p| p.unseen.contains(&layer.path))
                {
                    let path = layer.path.display();
                    return Err(failed(format!("{path} is being merged")));
                }
                state.files.allocated(&layer.path, &base.path)
            })
            .await
    }

    async fn virtual_size(&self, layer: &LayerFile) -> Result<u64, HypervisorError> {
        self.daemon
            .call(on_file(Point::VirtualSize, &layer.path), |state| {
                Ok(state.files.image(&layer.path)?.virtual_size)
            })
            .await
    }

    async fn identity(&self, path: &Path) -> Result<Option<FileIdentity>, HypervisorError> {
        self.daemon
            .call(on_file(Point::Identity, path), |state| {
                Ok(state.files.identity(path))
            })
            .await
    }

    async fn file_size(&self, path: &Path) -> Result<Option<u64>, HypervisorError> {
        self.daemon
            .call(on_file(Point::FileSize, path), |state| {
                Ok(state.files.size(path))
            })
            .await
    }

    async fn kept_memory(&self, path: &Path) -> Result<Option<u64>, HypervisorError> {
        self.daemon
            .call(on_file(Point::KeptMemory, path), |state| {
                state.kept_memory(path)
            })
            .await
    }

    async fn create_directory(&self, path: &Path) -> Result<(), HypervisorError> {
        let mut state = self.daemon.world().state();
        state.directories.insert(path.to_owned());
        Ok(())
    }

    async fn remove_directory(&self, path: &Path) {
        let mut state = self.daemon.world().state();
        let is_within = |other: &std::path::PathBuf| other.starts_with(path) && other != path;
        if !state.files.paths().any(is_within) && !state.directories.iter().any(is_within) {
            state.directories.remove(path);
        }
    }

    async fn list_directory(&self, path: &Path) -> Vec<String> {
        let state = self.daemon.world().state();
        let within = state
            .directories
            .iter()
            .filter(|d| d.parent() == Some(path));
        within
            .filter_map(|directory| Some(directory.file_name()?.to_str()?.to_owned()))
            .collect()
    }

    async fn delete_file(&self, path: &Path) -> Result<(), HypervisorError> {
        self.daemon
            .call(on_file(Point::DeleteFile, path), |state| {
                // a real one would let it happen, and the guest would lose its disk
                state.not_used(path)?;
                state.files.delete(path);
                Ok(())
            })
            .await
    }

    async fn guard(&self, members: &[Guarded]) -> Result<Box<dyn Guard>, HypervisorError> {
        let mut started = None;
        let at = At {
            point: Point::Guard,
            machine: None,
            file: None,
        };
        let life = self.daemon.id();
        let outcome = self
            .daemon
            .call(at, |state| {
                started = Some(state.add_guard(life, members)?);
                Ok::<_, HypervisorError>(())
            })
            .await;
        // dropped with the error, it ends
        let guard = started.map(|id| SimGuard {
            daemon: self.daemon.clone(),
            id,
        });
        outcome?;
        match guard {
            Some(guard) => Ok(Box::new(guard)),
            None => Err(failed("no guard was started")),
        }
    }
}
