//! The engine's [`Hypervisor`]: machines' processes, one kept connection to each,
//! and images that no process has open.
//!
//! A machine's slot holds its connection. Whoever needs it first makes it while
//! others wait; one that broke is made anew. A launched machine is found by its
//! run directory, so that a new daemon finds what an old one started.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use isochron_engine::model::{
    Accelerator, Changes, Definition, Machine, MachineId, MemoryState, Origin, SavedState,
};
use isochron_engine::ports::{
    Guard, Guarded, Hypervisor, HypervisorError, LayerFile, LiveMachine, Overlay, Start,
};
use qapi::qmp;
use tokio::join;
use tokio::sync::{Mutex, OnceCell};

use crate::accel;
use crate::args::disk_name;
use crate::config::QemuConfig;
use crate::error::{file_error, lost_task};
use crate::guard::{Charge, Guardian, kept_memory};
use crate::image::QemuImg;
use crate::launch::{self, RunFiles};
use crate::live::{self, Identity, LiveQemu, Trigger};
use crate::nodes;
use crate::process::QemuProcess;
use crate::qmp::Connection;
use crate::stream;

/// A machine's connection, if there is one.
type Slot = Arc<Mutex<Option<Arc<LiveQemu>>>>;

/// QEMU on this host.
pub struct QemuHypervisor {
    config: QemuConfig,
    images: QemuImg,
    slots: std::sync::Mutex<HashMap<MachineId, Slot>>,
    kvm_runs: OnceCell<bool>,
}

impl QemuHypervisor {
    /// Nothing is started or connected yet.
    pub fn new(config: QemuConfig) -> Self {
        Self {
            images: QemuImg(config.qemu_img.clone()),
            config,
            slots: std::sync::Mutex::default(),
            kvm_runs: OnceCell::new(),
        }
    }

    fn slot(&self, machine: MachineId) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry(machine).or_default().clone()
    }

    /// What `auto` means here, found out once.
    async fn accelerator(&self, wanted: Accelerator) -> Accelerator {
        if wanted != Accelerator::Auto {
            return wanted;
        }
        let proof = async || {
            let directory = &self.config.run_dir;
            if !Path::new("/dev/kvm").exists()
                || tokio::fs::create_dir_all(directory).await.is_err()
            {
                return false;
            }
            accel::runs(&self.config.qemu_binary, directory, "kvm").await
        };
        if *self.kvm_runs.get_or_init(proof).await {
            Accelerator::Kvm
        } else {
            tracing::info!("KVM runs no guest here; machines are emulated");
            Accelerator::Tcg
        }
    }

    async fn connect_launched(
        &self,
        id: MachineId,
        definition: &Definition,
        process: &Arc<QemuProcess>,
    ) -> Result<Arc<LiveQemu>, HypervisorError> {
        let files = RunFiles::new(&self.config, id);
        let (name, answer) = (&*definition.name, self.config.answer);
        let cut = files.cut();
        let trigger = async {
            match Connection::negotiate(&cut, name, answer).await {
                Ok(qmp) => Some(Trigger::new(qmp)),
                // A machine from before there was one, or somebody holds it: all is said
                // on the first monitor then.
                Err(error) => {
                    tracing::debug!(machine = name, %error, "pauses will be longer");
                    None
                }
            }
        };
        let qmp = files.qmp();
        let (qmp, trigger) = join!(Connection::open(&qmp, name, answer), trigger);
        let qmp = qmp.map_err(unreachable)?;
        let agent = definition.guest_agent.then(|| files.agent());
        let names = (0..definition.disks.len()).map(|index| disk_name(definition, index));
        let identity = Identity {
            disk_names: Some(names.collect()),
            files,
            process: Some(process.id),
            launched: Some(process.clone()),
            directory: None,
            config: self.config.clone(),
        };
        Ok(Arc::new(LiveQemu::new(qmp, trigger, agent, identity)))
    }

    async fn connect_attached(
        &self,
        id: MachineId,
        name: &str,
        socket: &Path,
        agent: Option<&PathBuf>,
    ) -> Result<Option<Arc<LiveQemu>>, HypervisorError> {
        let qmp = match Connection::open(socket, name, self.config.answer).await {
            Err(error) if is_absence(&error) => return Ok(None),
            opened => opened.map_err(unreachable)?,
        };
        let (process, directory) = live::peer(&qmp).await;
        let identity = Identity {
            disk_names: None,
            files: RunFiles::new(&self.config, id),
            process,
            launched: None,
            directory,
            config: self.config.clone(),
        };
        Ok(Some(Arc::new(LiveQemu::new(
            qmp,
            None,
            agent.cloned(),
            identity,
        ))))
    }

    /// The machine's connection, made anew if there is none that works.
    async fn connected(&self, machine: &Machine) -> Result<Option<Arc<LiveQemu>>, HypervisorError> {
        let slot = self.slot(machine.id);
        let mut slot = slot.lock().await;
        if let Some(live) = slot.as_ref().filter(|live| !live.is_closed()) {
            return Ok(Some(live.clone()));
        }
        *slot = None;
        let live = match &machine.origin {
            Origin::Attached { qmp, guest_agent } => {
                self.connect_attached(machine.id, &machine.name, qmp, guest_agent.as_ref())
                    .await?
            }
            Origin::Launched => {
                let files = RunFiles::new(&self.config, machine.id);
                let process = QemuProcess::find(&files.pid(), machine.id)
                    .await
                    .map(Arc::new);
                let Some(process) = process else {
                    return Ok(None);
                };
                match self
                    .connect_launched(machine.id, &machine.definition, &process)
                    .await
                {
                    Ok(live) => Some(live),
                    // It was ending meanwhile.
                    Err(_) if process.ended_within(self.config.answer).await => None,
                    Err(error) => return Err(error),
                }
            }
        };
        slot.clone_from(&live);
        Ok(live)
    }

    /// What comes after the process is there; on error it is killed.
    async fn bring_up(
        &self,
        start: &Start<'_>,
        process: &Arc<QemuProcess>,
    ) -> Result<Arc<LiveQemu>, HypervisorError> {
        let live = self
            .connect_launched(start.id, start.definition, process)
            .await?;
        if let Some(memory) = &start.memory {
            live::load(&live, memory).await.map_err(|error| {
                HypervisorError::Failed(format!(
                    "the memory {} could not be loaded: {error}",
                    memory.display()
                ))
            })?;
        }
        Ok(live)
    }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

fn unreachable(error: io::Error) -> HypervisorError {
    match error.kind() {
        io::ErrorKind::TimedOut => HypervisorError::Timeout(error.to_string()),
        _ => HypervisorError::Failed(format!("QEMU cannot be reached: {error}")),
    }
}

#[async_trait]
impl Hypervisor for QemuHypervisor {
    async fn check(&self, definition: &Definition) -> Result<Vec<Option<String>>, HypervisorError> {
        for file in [&definition.kernel, &definition.initrd, &definition.firmware]
            .into_iter()
            .flatten()
        {
            needs_file(file).await?;
        }
        if let Some(log) = &definition.serial_log {
            needs_absolute(log)?;
        }
        let mut excluded = Vec::with_capacity(definition.disks.len());
        for disk in &definition.disks {
            needs_file(&disk.path).await?;
            if nodes::is_block_device(&disk.path).await {
                excluded.push(Some("a passed-through device".to_owned()));
                continue;
            }
            if !self.images.is_image(&disk.path, disk.format).await {
                return Err(HypervisorError::Invalid(format!(
                    "{} is not a {} image",
                    disk.path.display(),
                    disk.format.as_str()
                )));
            }
            excluded.push(None);
        }
        Ok(excluded)
    }

    async fn live(
        &self,
        machine: &Machine,
    ) -> Result<Option<Arc<dyn LiveMachine>>, HypervisorError> {
        Ok(self
            .connected(machine)
            .await?
            .map(|live| live as Arc<dyn LiveMachine>))
    }

    async fn start(&self, start: Start<'_>) -> Result<Arc<dyn LiveMachine>, HypervisorError> {
        let slot = self.slot(start.id);
        let mut slot = slot.lock().await;
        let files = RunFiles::new(&self.config, start.id);
        if QemuProcess::find(&files.pid(), start.id).await.is_some() {
            return Err(HypervisorError::Invalid(
                "the machine runs already".to_owned(),
            ));
        }
        *slot = None;
        let accelerator = self.accelerator(start.definition.accel).await;
        let process = launch::launch(&self.config, &start, &files, accelerator).await?;
        let process = Arc::new(process);
        match self.bring_up(&start, &process).await {
            Ok(live) => {
                *slot = Some(live.clone());
                Ok(live)
            }
            Err(error) => {
                process.kill().await?;
                let log = files.log_text().await;
                files.remove().await?;
                Err(match log.is_empty() {
                    true => error,
                    false => HypervisorError::Failed(format!("{error}: {log}")),
                })
            }
        }
    }

    async fn kill(&self, machine: &Machine) -> Result<(), HypervisorError> {
        if machine.origin != Origin::Launched {
            return Err(HypervisorError::NotSupported(
                "the machine's process belongs to its owner".to_owned(),
            ));
        }
        let files = RunFiles::new(&self.config, machine.id);
        let process = QemuProcess::find(&files.pid(), machine.id)
            .await
            .map(Arc::new);
        let Some(process) = process else {
            return files.remove().await;
        };
        // Whoever holds the slot is waiting for a QEMU that does not answer: the
        // end of the process ends that, too.
        let live = match self.slot(machine.id).try_lock() {
            Ok(mut slot) => slot.take(),
            Err(_) => None,
        };
        let live = match live {
            Some(live) => Some(live),
            None => self
                .connect_launched(machine.id, &machine.definition, &process)
                .await
                .ok(),
        };
        let asked = match &live {
            Some(live) => live.qmp().run(&qmp::quit {}).await.is_ok(),
            None => false,
        };
        if !asked || !process.ended_within(self.config.answer).await {
            process.end(self.config.answer).await?;
        }
        files.remove().await
    }

    async fn saved_state(&self, memory: &Path) -> Result<SavedState, HypervisorError> {
        needs_absolute(memory)?;
        let path = memory.to_owned();
        let read = tokio::task::spawn_blocking(move || {
            // Nothing else is opened: a pipe would have us wait.
            if !std::fs::metadata(&path)?.is_file() {
                return Err(io::Error::other("it is no file"));
            }
            let file = std::fs::File::open(&path)?;
            let bytes = file.metadata()?.len();
            Ok((bytes, stream::machine_type(file)?))
        });
        let read = read.await.map_err(|error| lost_task(&error))?;
        let (bytes, machine_type) = read.map_err(|error| {
            HypervisorError::Invalid(format!(
                "the memory {} cannot be used: {error}",
                memory.display()
            ))
        })?;
        Ok(SavedState {
            memory: MemoryState {
                path: memory.to_owned(),
                bytes,
            },
            machine_type: Some(machine_type),
        })
    }

    async fn create_overlay(
        &self,
        overlay: &Overlay,
        virtual_size: Option<u64>,
    ) -> Result<(), HypervisorError> {
        self.images.create_overlay(overlay, virtual_size).await
    }

    async fn merge_offline(
        &self,
        top: &LayerFile,
        base: &LayerFile,
    ) -> Result<(), HypervisorError> {
        self.images.merge(top, base).await
    }

    async fn rebase(&self, layer: &LayerFile, base: &LayerFile) -> Result<(), HypervisorError> {
        self.images.rebase(layer, base).await
    }

    async fn is_image(&self, layer: &LayerFile) -> Result<bool, HypervisorError> {
        Ok(self.images.is_image(&layer.path, layer.format).await)
    }

    async fn allocated(
        &self,
        layer: &LayerFile,
        base: &LayerFile,
    ) -> Result<Changes, HypervisorError> {
        self.images.allocated(layer, base).await
    }

    async fn virtual_size(&self, layer: &LayerFile) -> Result<u64, HypervisorError> {
        self.images.virtual_size(layer).await
    }

    async fn kept_memory(&self, path: &Path) -> Result<Option<u64>, HypervisorError> {
        kept_memory(path).await
    }

    async fn delete_file(&self, path: &Path) -> Result<(), HypervisorError> {
        match tokio::fs::remove_file(path).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(file_error("deleting", path, &error))
            }
            _ => Ok(()),
        }
    }

    async fn guard(&self, members: &[Guarded]) -> Result<Box<dyn Guard>, HypervisorError> {
        let mut charges = Vec::with_capacity(members.len());
        for member in members {
            let slot = self.slot(member.machine);
            let live = slot.lock().await.clone().filter(|live| !live.is_closed());
            let live = live.ok_or(HypervisorError::Off)?;
            let resume = match member.resume {
                true => Some(
                    live.qmp()
                        .socket()
                        .try_clone_to_owned()
                        .map_err(unreachable)?,
                ),
                false => None,
            };
            let thaw = match (member.thaw, live.agent()) {
                (false, _) => None,
                (true, Some(agent)) => Some(agent.socket().await?),
                (true, None) => {
                    return Err(HypervisorError::NotSupported(
                        "the machine has no guest agent".to_owned(),
                    ));
                }
            };
            charges.push(Charge {
                name: member.machine.to_string(),
                resume,
                thaw,
            });
        }
        Ok(Box::new(Guardian::start(&self.config, charges).await?))
    }
}

fn needs_absolute(path: &Path) -> Result<(), HypervisorError> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(HypervisorError::Invalid(format!(
        "{} is not an absolute path",
        path.display()
    )))
}

async fn needs_file(path: &Path) -> Result<(), HypervisorError> {
    needs_absolute(path)?;
    tokio::fs::metadata(path).await.map(drop).map_err(|error| {
        HypervisorError::Invalid(format!("{} cannot be used: {error}", path.display()))
    })
}
