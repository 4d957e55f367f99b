//! A member's part in the cut: overlays opened beforehand, the stop, the swap,
//! the resume.
//!
//! Between [`stop_and_wait`](LiveQemu::stop_and_wait) and
//! [`resume_and_wait`](LiveQemu::resume_and_wait) a guest stands: what runs there
//! sends one command and waits for one answer, with what it needs found out
//! before.

use std::time::{SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use isochron_engine::ports::{HypervisorError, LayerFile, Stamp, Swap};
use qapi::{Empty, qmp};

use super::{LiveQemu, locked};
use crate::error::QmpError;
use crate::image::sync_file;
use crate::nodes::{self, Backing, true_names};

/// An overlay that is open and stands on nothing yet.
#[derive(Clone)]
pub(super) struct Opened {
    /// Its node.
    overlay: String,
    /// The node of the layer that it will stand on.
    active: String,
}

impl LiveQemu {
    pub(super) async fn open_all(&self, swaps: &[Swap]) -> Result<(), HypervisorError> {
        if !self.status().await?.running {
            self.activate().await?;
        }
        let disks = self.disk_list().await?;
        let file_nodes = self.file_nodes().await?;
        let mut opened = Vec::with_capacity(swaps.len());
        let mut commands = Vec::with_capacity(swaps.len());
        for swap in swaps {
            let disk = disks
                .iter()
                .find(|disk| disk.live.name == swap.disk)
                .ok_or_else(|| {
                    HypervisorError::Invalid(format!("the machine has no disk {}", swap.disk))
                })?;
            if let Some(why) = &disk.live.excluded {
                return Err(HypervisorError::NotSupported(format!(
                    "the disk {} cannot be snapshotted: {why}",
                    swap.disk
                )));
            }
            let path = true_names(vec![disk.live.path.clone()]).await?.remove(0);
            let active = file_nodes
                .find(&path, disk.live.format)
                .unwrap_or(&disk.root)
                .to_owned();
            let overlay = nodes::format_node(swap.overlay.id);
            let options = nodes::options(&swap.overlay, Backing::None, disk.access, false)?;
            commands.push(qmp::blockdev_add(options));
            opened.push((swap.overlay.id, Opened { overlay, active }));
        }
        let added = join_all(commands.iter().map(|command| self.qmp.run(command))).await;
        if let Some(error) = added.iter().find_map(|outcome| outcome.as_ref().err()) {
            let error = error.clone();
            for ((_, opened), _) in opened.iter().zip(&added).filter(|(_, added)| added.is_ok()) {
                self.delete_node(&opened.overlay).await?;
            }
            return Err(error.into());
        }
        locked(&self.opened).extend(opened);
        if let Some(trigger) = &self.trigger
            && !swaps.is_empty()
        {
            trigger.load(&self.exchange(swaps)?)?;
        }
        Ok(())
    }

    pub(super) async fn close_all(&self, layers: &[LayerFile]) -> Result<(), HypervisorError> {
        if let Some(trigger) = &self.trigger {
            trigger.unload();
        }
        let file_nodes = self.file_nodes().await?;
        let paths = true_names(layers.iter().map(|layer| layer.path.clone()).collect()).await?;
        for (layer, path) in layers.iter().zip(paths) {
            locked(&self.opened).remove(&layer.id);
            if let Some(node) = file_nodes.find(&path, layer.format) {
                self.delete_node(node).await?;
            }
        }
        Ok(())
    }

    /// Deletes a node; `Ok` if there is none of that name.
    pub(super) async fn delete_node(&self, name: &str) -> Result<(), HypervisorError> {
        let deleted = self
            .qmp
            .run(&qmp::blockdev_del {
                node_name: name.to_owned(),
            })
            .await;
        match deleted {
            Err(QmpError::Refused { text, .. }) if text.starts_with("Failed to find node") => {
                Ok(())
            }
            Err(error) => Err(error.into()),
            Ok(Empty {}) => Ok(()),
        }
    }

    pub(super) async fn flush_active(&self) -> Result<(), HypervisorError> {
        let disks = self.disk_list().await?;
        let written = disks
            .iter()
            .filter(|d| d.live.excluded.is_none() && !d.live.read_only);
        join_all(written.map(|disk| sync_file(&disk.live.path)))
            .await
            .into_iter()
            .collect()
    }

    pub(super) async fn stop_and_wait(&self) -> Result<Stamp, HypervisorError> {
        let pulse = self.qmp.pulse();
        let before = pulse.borrow().stop;
        let stopped: Result<Empty, _> = self
            .qmp
            .send(&qmp::stop {})
            .answer(self.identity.config.answer)
            .await;
        stopped.map_err(|error| self.about(error))?;
        // QEMU tells STOP before it answers; without one it stood already.
        let after = pulse.borrow().stop;
        Ok(if after == before { now() } else { after })
    }

    pub(super) async fn resume_and_wait(&self) -> Result<Stamp, HypervisorError> {
        let pulse = self.qmp.pulse();
        let before = pulse.borrow().resume;
        let resumed: Result<Empty, _> = self
            .qmp
            .send(&qmp::cont {})
            .answer(self.identity.config.answer)
            .await;
        resumed.map_err(|error| self.about(error))?;
        self.forget_save();
        // QEMU tells RESUME before it answers; without one it ran already.
        let after = pulse.borrow().resume;
        Ok(if after == before { now() } else { after })
    }

    /// The command that exchanges the active layers.
    fn exchange(&self, swaps: &[Swap]) -> Result<qmp::transaction, HypervisorError> {
        let opened = locked(&self.opened);
        let actions = swaps.iter().map(|swap| {
            let Some(Opened { overlay, active }) = opened.get(&swap.overlay.id) else {
                return Err(HypervisorError::Invalid(format!(
                    "the overlay {} of the disk {} was not opened",
                    swap.overlay.path.display(),
                    swap.disk
                )));
            };
            Ok(qmp::TransactionAction::blockdev_snapshot(
                qmp::BlockdevSnapshotWrapper {
                    data: qmp::BlockdevSnapshot {
                        node: active.clone(),
                        overlay: overlay.clone(),
                    },
                },
            ))
        });
        Ok(qmp::transaction {
            properties: None,
            actions: actions.collect::<Result<_, _>>()?,
        })
    }

    pub(super) async fn swap_all(&self, swaps: &[Swap]) -> Result<(), HypervisorError> {
        let exchange = self.exchange(swaps)?;
        let limit = self.identity.config.answer;
        let fired = match &self.trigger {
            Some(trigger) => trigger.fire(&exchange, limit).await,
            None => None,
        };
        let exchanged = match fired {
            Some(answer) => answer,
            None => self.qmp.run(&exchange).await,
        };
        exchanged.map_err(|error| self.about(error))?;
        let mut opened = locked(&self.opened);
        for swap in swaps {
            opened.remove(&swap.overlay.id);
        }
        Ok(())
    }

    /// Says which machine an error of the window is about.
    fn about(&self, error: QmpError) -> HypervisorError {
        match HypervisorError::from(error) {
            HypervisorError::Timeout(text) => match self.identity.process {
                Some(process) => HypervisorError::Timeout(format!("{text} (process {process})")),
                None => HypervisorError::Timeout(text),
            },
            other => other,
        }
    }
}

/// Now, in the stamps' unit and on their clock.
fn now() -> Stamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Stamp::try_from(since.as_micros()).unwrap_or(Stamp::MAX)
}
