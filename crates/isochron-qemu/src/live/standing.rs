//! A machine that stands after its memory was saved plainly, or loaded.
//!
//! - After a plain save QEMU is in "postmigrate" and has given its images away: a
//!   write would end it. `blockdev-set-active` takes them back; where that is
//!   missing (7.2), `block-export-add` does so before it looks at anything else,
//!   also when the export itself is then refused.
//! - After loading, 10.0 leaves the images of a paused machine given away, too.
//! - In "postmigrate" QEMU refuses to save again until it has run. Since it has
//!   not run, what it saved last is still its state: the file is copied.

use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use isochron_engine::ports::HypervisorError;
use qapi::qmp;
use serde::{Deserialize, Serialize};

use super::memory::create;
use super::{LiveQemu, locked};
use crate::error::{QmpError, file_error, lost_task};
use crate::qmp::Migration;

/// What QEMU tells of its last save: no two saves are alike in all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trace {
    total_time: u64,
    transferred: u64,
    normal: u64,
    duplicate: u64,
    length: u64,
}

/// The record of the last save for a daemon that comes after us.
#[derive(Serialize, Deserialize)]
struct LastSave {
    file: PathBuf,
    trace: Trace,
}

impl Migration {
    fn trace(&self, length: u64) -> Trace {
        let ram = self.ram.as_ref();
        Trace {
            total_time: self.total_time,
            transferred: self.transferred(),
            normal: ram.map_or(0, |ram| ram.normal),
            duplicate: ram.map_or(0, |ram| ram.duplicate),
            length,
        }
    }
}

impl LiveQemu {
    /// Takes the images back that QEMU gave away when it had saved its memory or
    /// that it has not taken since it loaded it. The guest does not run.
    pub(super) async fn activate(&self) -> Result<(), HypervisorError> {
        if self.qmp.features().set_active {
            // Not in the crate's schema, which is of QEMU 9.
            #[derive(Serialize)]
            struct SetActive {
                active: bool,
            }
            impl qapi::Command for SetActive {
                type Ok = qapi::Empty;
                const NAME: &'static str = "blockdev-set-active";
                const ALLOW_OOB: bool = false;
            }
            self.qmp.run(&SetActive { active: true }).await?;
            return Ok(());
        }
        for disk in self
            .disk_list()
            .await?
            .into_iter()
            .filter(|disk| !disk.root.is_empty())
        {
            let id = "isochron-activate".to_owned();
            let export = qmp::BlockExportOptions::nbd {
                base: qmp::BlockExportOptionsBase {
                    fixed_iothread: None,
                    iothread: None,
                    writable: None,
                    writethrough: None,
                    id: id.clone(),
                    node_name: disk.root,
                },
                nbd: qmp::BlockExportOptionsNbd {
                    base: qmp::BlockExportOptionsNbdBase {
                        description: None,
                        name: None,
                    },
                    allocation_depth: None,
                    bitmaps: None,
                },
            };
            match self.qmp.run(&qmp::block_export_add(export)).await {
                // Somebody runs an NBD server: the export is taken away again.
                Ok(_) => {
                    let mode = Some(qmp::BlockExportRemoveMode::hard);
                    self.qmp.run(&qmp::block_export_del { mode, id }).await?;
                }
                Err(QmpError::Refused { .. }) => (),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Lets go of the last save: the machine runs on. It may be the last to hold
    /// a large file that was deleted, so nobody waits for it.
    pub(super) fn forget_save(&self) {
        let last = locked(&self.saving).last.take();
        if last.is_some() {
            tokio::task::spawn_blocking(|| drop(last));
        }
    }

    /// Keeps in mind what was saved while the machine stands.
    pub(super) async fn remember(
        &self,
        path: &Path,
        saved: &Migration,
    ) -> Result<(), HypervisorError> {
        let failed = |error: io::Error| file_error("reading", path, &error);
        let file = tokio::fs::File::open(path).await.map_err(failed)?;
        let trace = saved.trace(file.metadata().await.map_err(failed)?.len());
        let record = LastSave {
            file: path.to_owned(),
            trace: trace.clone(),
        };
        locked(&self.saving).last = Some((file.into_std().await, trace));
        let files = &self.identity.files;
        let record = serde_json::to_vec(&record)
            .map_err(|error| HypervisorError::Failed(error.to_string()))?;
        files.create().await?;
        let record_path = files.saved();
        tokio::fs::write(&record_path, record)
            .await
            .map_err(|error| file_error("writing", &record_path, &error))
    }

    /// Saves a machine that stands as it was last saved.
    pub(super) async fn save_again(&self, path: &Path) -> Result<(), HypervisorError> {
        let migration = self.migration().await?;
        let same = |trace: &Trace| migration.trace(trace.length) == *trace;
        let kept = {
            let saving = locked(&self.saving);
            let last = saving.last.as_ref().filter(|(_, trace)| same(trace));
            last.map(|(file, trace)| file.try_clone().map(|file| (file, trace.length)))
        };
        let (mut source, length) = match kept {
            Some(kept) => kept.map_err(|error| file_error("reading", path, &error))?,
            None => {
                let record = tokio::fs::read(self.identity.files.saved()).await.ok();
                let record = record.and_then(|record| serde_json::from_slice(&record).ok());
                let record = record.filter(|record: &LastSave| same(&record.trace));
                let file = match &record {
                    Some(record) => tokio::fs::File::open(&record.file).await.ok(),
                    None => None,
                };
                match (file, record) {
                    (Some(file), Some(record)) => (file.into_std().await, record.trace.length),
                    _ => {
                        return Err(HypervisorError::Failed(
                            "the machine stands since it was saved by somebody else, and QEMU \
                             does not save twice: let it run first"
                                .to_owned(),
                        ));
                    }
                }
            }
        };
        let mut target = create(path).await?;
        let copy = tokio::task::spawn_blocking(move || {
            source.rewind()?;
            io::copy(&mut source.by_ref().take(length), &mut target)
        });
        let copied = copy
            .await
            .map_err(|error| lost_task(&error))?
            .map_err(|error| file_error("writing", path, &error))?;
        if copied != length {
            return Err(HypervisorError::Failed(
                "the memory saved last has been changed since".to_owned(),
            ));
        }
        self.remember(path, &migration).await
    }
}
