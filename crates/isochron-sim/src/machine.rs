//! The [`LiveMachine`]: a connection to one process. When that process has ended
//! every call says that the machine is off, also when a new one was started.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use isochron_engine::model::{MachineId, Power};
use isochron_engine::ports::{
    HypervisorError, LayerFile, LiveDisk, LiveMachine, SaveMode, Stamp, Swap,
};

use crate::daemon::At;
use crate::files::Files;
use crate::process::Process;
use crate::{Daemon, Point};

pub(crate) struct SimMachine {
    pub(crate) daemon: Daemon,
    pub(crate) machine: MachineId,
    pub(crate) process: u32,
}

impl SimMachine {
    fn at<'a>(&self, point: Point, file: Option<&'a Path>) -> At<'a> {
        At {
            point,
            machine: Some(self.machine),
            file,
        }
    }

    async fn call<T: Send>(
        &self,
        point: Point,
        effect: impl FnOnce(&mut Process, &mut Files) -> Result<T, HypervisorError> + Send,
    ) -> Result<T, HypervisorError> {
        self.call_on(point, None, |process, files, _| effect(process, files))
            .await
    }

    async fn call_on<T: Send>(
        &self,
        point: Point,
        file: Option<&Path>,
        effect: impl FnOnce(&mut Process, &mut Files, Stamp) -> Result<T, HypervisorError> + Send,
    ) -> Result<T, HypervisorError> {
        self.daemon
            .call(self.at(point, file), |state| {
                let process = state
                    .processes
                    .get_mut(&self.process)
                    .ok_or(HypervisorError::Off)?;
                effect(process, &mut state.files, state.now)
            })
            .await
    }
}

#[async_trait]
impl LiveMachine for SimMachine {
    async fn power(&self) -> Result<Power, HypervisorError> {
        self.call(Point::Power, |process, _| Ok(process.power))
            .await
    }

    fn process_id(&self) -> Option<u32> {
        Some(self.process)
    }

    async fn machine_type(&self) -> Result<Option<String>, HypervisorError> {
        self.call(Point::MachineType, |process, _| {
            Ok(Some(process.machine_type.clone()))
        })
        .await
    }

    async fn disks(&self) -> Result<Vec<LiveDisk>, HypervisorError> {
        self.call(Point::Disks, |process, files| process.live_disks(files))
            .await
    }

    async fn agent_answers(&self) -> bool {
        let answers = |process: &mut Process, _: &mut Files| {
            Ok(process.agent && process.power == Power::Running)
        };
        self.call(Point::AgentAnswers, answers)
            .await
            .unwrap_or(false)
    }

    async fn open_overlays(&self, swaps: &[Swap]) -> Result<(), HypervisorError> {
        self.call(Point::OpenOverlays, |process, files| {
            process.open_overlays(files, swaps)
        })
        .await
    }

    async fn close_layers(&self, layers: &[LayerFile]) -> Result<(), HypervisorError> {
        self.call(Point::CloseLayers, |process, _| {
            process.close_layers(layers)
        })
        .await
    }

    async fn flush(&self) -> Result<(), HypervisorError> {
        self.call(Point::Flush, |_, _| Ok(())).await
    }

    async fn prepare_save(&self, power: Power) -> Result<SaveMode, HypervisorError> {
        self.call(Point::PrepareSave, |process, _| process.prepare_save(power))
            .await
    }

    async fn freeze(&self, _limit: Duration) -> Result<u32, HypervisorError> {
        let frozen = self
            .call(Point::Freeze, |process, _| process.freeze())
            .await;
        if frozen.is_err()
            && !self.daemon.crashed()
            && let Some(process) = self.daemon.world().state().processes.get_mut(&self.process)
        {
            process.frozen = 0;
        }
        frozen
    }

    async fn thaw(&self, _limit: Duration) -> Result<u32, HypervisorError> {
        self.call(Point::Thaw, |process, _| process.thaw()).await
    }

    async fn stop(&self) -> Result<Stamp, HypervisorError> {
        self.call_on(Point::Stop, None, |process, _, now| {
            process.power = Power::Paused;
            Ok(now)
        })
        .await
    }

    async fn swap(&self, swaps: &[Swap]) -> Result<(), HypervisorError> {
        self.call(Point::Swap, |process, _| process.swap(swaps))
            .await
    }

    async fn save(&self, file: &Path, mode: &SaveMode) -> Result<Option<Stamp>, HypervisorError> {
        self.call_on(Point::Save, Some(file), |process, files, now| {
            process.save(files, file, mode, now)
        })
        .await
    }

    async fn finish_save(
        &self,
        file: &Path,
        progress: &(dyn Fn(u8) + Send + Sync),
    ) -> Result<u64, HypervisorError> {
        progress(50);
        let bytes = self
            .call_on(Point::FinishSave, Some(file), |process, files, _| {
                process.finish_save(files, file)
            })
            .await?;
        progress(100);
        Ok(bytes)
    }

    async fn cancel_save(&self) -> Result<(), HypervisorError> {
        self.call(Point::CancelSave, |process, _| {
            process.save = None;
            Ok(())
        })
        .await
    }

    async fn resume(&self) -> Result<Stamp, HypervisorError> {
        self.call_on(Point::Resume, None, |process, _, now| {
            process.power = Power::Running;
            Ok(now)
        })
        .await
    }

    /// A guest that runs is off at once; one that stands does not hear it.
    async fn ask_shutdown(&self) -> Result<(), HypervisorError> {
        self.daemon
            .call(self.at(Point::AskShutdown, None), |state| {
                let process = state
                    .processes
                    .get(&self.process)
                    .ok_or(HypervisorError::Off)?;
                if process.power == Power::Running {
                    state.processes.remove(&self.process);
                }
                Ok(())
            })
            .await
    }

    async fn merge(
        &self,
        disk: &str,
        top: &LayerFile,
        base: &LayerFile,
        above: &LayerFile,
        progress: &(dyn Fn(u8) + Send + Sync),
    ) -> Result<(), HypervisorError> {
        progress(50);
        self.call_on(Point::Merge, Some(&top.path), |process, files, _| {
            process.merge(files, disk, [&above.path, &top.path, &base.path])
        })
        .await?;
        if let Some(process) = self.daemon.world().state().processes.get_mut(&self.process) {
            process.unseen.remove(&top.path);
        }
        progress(100);
        Ok(())
    }

    async fn begin_merge_active(
        &self,
        disk: &str,
        top: &LayerFile,
        base: &LayerFile,
        progress: &(dyn Fn(u8) + Send + Sync),
    ) -> Result<(), HypervisorError> {
        progress(50);
        self.call_on(
            Point::BeginMergeActive,
            Some(&top.path),
            |process, files, _| process.begin_merge_active(files, disk, &top.path, &base.path),
        )
        .await?;
        progress(100);
        Ok(())
    }

    async fn end_merge_active(&self, disk: &str, base: &LayerFile) -> Result<(), HypervisorError> {
        self.call_on(
            Point::EndMergeActive,
            Some(&base.path),
            |process, files, _| process.end_merge_active(files, disk, &base.path),
        )
        .await
    }

    async fn cancel_merge_active(&self, disk: &str) -> Result<(), HypervisorError> {
        self.call(Point::CancelMergeActive, |process, _| {
            process.merges.remove(disk);
            Ok(())
        })
        .await
    }
}
