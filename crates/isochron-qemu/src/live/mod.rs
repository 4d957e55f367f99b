//! A machine that has a QEMU: the engine's [`LiveMachine`].
//!
//! This file holds the machine and says which part of it answers which call; the
//! parts are the cut ([`cut`]), memory ([`memory`], [`standing`]), merging layers
//! ([`merge`]) and what its disks are ([`disks`]).

mod cut;
mod disks;
mod memory;
mod merge;
mod standing;
mod trigger;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use isochron_engine::LiveMachine;
use isochron_engine::model::{LayerId, Power};
use isochron_engine::ports::{HypervisorError, LayerFile, LiveDisk, SaveMode, Stamp, Swap};
use qapi::qmp;

use crate::agent::Agent;
use crate::config::QemuConfig;
use crate::error::QmpError;
use crate::launch::RunFiles;
use crate::process::QemuProcess;
use crate::qmp::{Connection, Status};

pub(crate) use memory::load;
pub(crate) use trigger::Trigger;

/// What a connection's maker knows of the machine.
pub(crate) struct Identity {
    /// The disks' names in the definition's order; `None` for an attached machine.
    pub(crate) disk_names: Option<Vec<String>>,
    /// Its directory.
    pub(crate) files: RunFiles,
    /// Its process' identifier, where it is known.
    pub(crate) process: Option<u32>,
    /// Its process, if we started it.
    pub(crate) launched: Option<Arc<QemuProcess>>,
    /// That process' directory, to which relative names refer.
    pub(crate) directory: Option<PathBuf>,
    /// How QEMU is reached.
    pub(crate) config: QemuConfig,
}

/// A machine's QEMU.
pub(crate) struct LiveQemu {
    qmp: Connection,
    /// A second monitor, where it is ours.
    trigger: Option<Trigger>,
    agent: Option<Agent>,
    identity: Identity,
    /// Overlays that were opened and not yet swapped in.
    opened: Mutex<HashMap<LayerId, cut::Opened>>,
    saving: Mutex<memory::Saving>,
}

impl LiveQemu {
    pub(crate) fn new(
        qmp: Connection,
        trigger: Option<Trigger>,
        agent: Option<PathBuf>,
        identity: Identity,
    ) -> Self {
        Self {
            qmp,
            trigger,
            agent: agent.map(Agent::new),
            identity,
            opened: Mutex::default(),
            saving: Mutex::default(),
        }
    }

    pub(crate) fn qmp(&self) -> &Connection {
        &self.qmp
    }

    pub(crate) fn agent(&self) -> Option<&Agent> {
        self.agent.as_ref()
    }

    /// Whether this side of the machine is of no use any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.qmp.is_closed()
            || self.trigger.as_ref().is_some_and(Trigger::is_closed)
            || self
                .identity
                .launched
                .as_ref()
                .is_some_and(|p| p.has_ended())
    }

    async fn status(&self) -> Result<Status, HypervisorError> {
        Ok(self.qmp.ask(&qmp::query_status {}).await?)
    }

    /// Waits until what was said on the second monitor has ended.
    async fn settle(&self) -> Result<(), QmpError> {
        match &self.trigger {
            Some(trigger) => trigger.settle().await,
            None => Ok(()),
        }
    }

    fn agent_or_refuse(&self) -> Result<&Agent, HypervisorError> {
        self.agent.as_ref().ok_or_else(|| {
            HypervisorError::NotSupported("the machine has no guest agent".to_owned())
        })
    }
}

/// Locks for a moment; no code that holds one of these locks can panic half way.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl LiveMachine for LiveQemu {
    async fn power(&self) -> Result<Power, HypervisorError> {
        Ok(if self.status().await?.running {
            Power::Running
        } else {
            Power::Paused
        })
    }

    fn process_id(&self) -> Option<u32> {
        self.identity.process
    }

    async fn machine_type(&self) -> Result<Option<String>, HypervisorError> {
        let query = qmp::qom_get {
            path: "/machine".to_owned(),
            property: "type".to_owned(),
        };
        let class: String = self.qmp.ask(&query).await?;
        Ok(Some(
            class.strip_suffix("-machine").unwrap_or(&class).to_owned(),
        ))
    }

    async fn disks(&self) -> Result<Vec<LiveDisk>, HypervisorError> {
        Ok(self
            .disk_list()
            .await?
            .into_iter()
            .map(|disk| disk.live)
            .collect())
    }

    async fn agent_answers(&self) -> bool {
        match &self.agent {
            Some(agent) => agent.answers(self.identity.config.answer).await,
            None => false,
        }
    }

    async fn open_overlays(&self, swaps: &[Swap]) -> Result<(), HypervisorError> {
        self.open_all(swaps).await
    }

    async fn close_layers(&self, layers: &[LayerFile]) -> Result<(), HypervisorError> {
        self.close_all(layers).await
    }

    async fn flush(&self) -> Result<(), HypervisorError> {
        self.flush_active().await
    }

    async fn prepare_save(&self, power: Power) -> Result<SaveMode, HypervisorError> {
        self.prepare(power).await
    }

    async fn freeze(&self, limit: Duration) -> Result<u32, HypervisorError> {
        self.agent_or_refuse()?.freeze(limit).await
    }

    async fn thaw(&self, limit: Duration) -> Result<u32, HypervisorError> {
        self.agent_or_refuse()?.thaw(limit).await
    }

    async fn stop(&self) -> Result<Stamp, HypervisorError> {
        self.stop_and_wait().await
    }

    async fn swap(&self, swaps: &[Swap]) -> Result<(), HypervisorError> {
        self.swap_all(swaps).await
    }

    async fn save(&self, file: &Path, mode: &SaveMode) -> Result<Option<Stamp>, HypervisorError> {
        self.save_to(file, mode).await
    }

    async fn finish_save(
        &self,
        file: &Path,
        progress: &(dyn Fn(u8) + Send + Sync),
    ) -> Result<u64, HypervisorError> {
        self.finish(file, progress).await
    }

    async fn cancel_save(&self) -> Result<(), HypervisorError> {
        self.cancel().await
    }

    async fn resume(&self) -> Result<Stamp, HypervisorError> {
        self.resume_and_wait().await
    }

    async fn ask_shutdown(&self) -> Result<(), HypervisorError> {
        self.qmp.run(&qmp::system_powerdown {}).await?;
        Ok(())
    }

    async fn merge(
        &self,
        disk: &str,
        top: &LayerFile,
        base: &LayerFile,
        above: &LayerFile,
        progress: &(dyn Fn(u8) + Send + Sync),
    ) -> Result<(), HypervisorError> {
        self.merge_frozen(disk, top, base, above, progress).await
    }

    async fn begin_merge_active(
        &self,
        disk: &str,
        top: &LayerFile,
        base: &LayerFile,
        progress: &(dyn Fn(u8) + Send + Sync),
    ) -> Result<(), HypervisorError> {
        self.begin_active(disk, top, base, progress).await
    }

    async fn end_merge_active(&self, disk: &str, base: &LayerFile) -> Result<(), HypervisorError> {
        self.end_active(disk, base).await
    }

    async fn cancel_merge_active(&self, disk: &str) -> Result<(), HypervisorError> {
        self.cancel_active(disk).await
    }
}

/// Turns to the process at the other end of a socket: who it is and which
/// directory is its own.
pub(crate) async fn peer(qmp: &Connection) -> (Option<u32>, Option<PathBuf>) {
    let Ok(peer) = rustix::net::sockopt::socket_peercred(qmp.socket()) else {
        return (None, None);
    };
    let id = peer.pid.as_raw_nonzero().get();
    let directory = tokio::fs::read_link(format!("/proc/{id}/cwd")).await.ok();
    (u32::try_from(id).ok(), directory)
}
