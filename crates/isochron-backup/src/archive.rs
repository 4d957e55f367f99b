//! [`DirectoryArchive`]: the engine's port `Archive`, over directories.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use isochron_engine::model::ExportId;
use isochron_engine::ports::{
    Archive, ArchiveError, Copied, Described, Export, Exported, Go, Order,
};
use tokio::task::{JoinError, spawn_blocking};

use crate::control::Control;
use crate::directory::Target;
use crate::export::Opened;
use crate::manifest::Manifest;

/// Between two words on how far an export is.
const TELL: Duration = Duration::from_millis(200);

/// Writes exports into directories.
#[derive(Clone, Debug)]
pub struct DirectoryArchive {
    programs: Programs,
}

/// The programs that read images, by name or path.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) qemu_nbd: PathBuf,
    pub(crate) qemu_img: PathBuf,
}

impl DirectoryArchive {
    /// With the programs `qemu-nbd` and `qemu-img`, by name or path.
    pub fn new(qemu_nbd: impl Into<PathBuf>, qemu_img: impl Into<PathBuf>) -> Self {
        Self {
            programs: Programs {
                qemu_nbd: qemu_nbd.into(),
                qemu_img: qemu_img.into(),
            },
        }
    }
}

impl Default for DirectoryArchive {
    fn default() -> Self {
        Self::new("qemu-nbd", "qemu-img")
    }
}

#[async_trait]
impl Archive for DirectoryArchive {
    async fn describe(&self, directory: &Path) -> Result<Described, ArchiveError> {
        let directory = directory.to_owned();
        blocking(move || {
            let (manifest, _) = Manifest::read(&directory)?;
            let disks = manifest.members.iter().flat_map(|member| {
                let held = member.disks.iter().filter(|disk| disk.content.is_some());
                held.map(|disk| (member.machine, disk.name.clone(), disk.virtual_size))
            });
            Ok(Described {
                id: manifest.id,
                instant: manifest.instant.id,
                collection: manifest.instant.collection,
                disks: disks.collect(),
                files: manifest.names().collect(),
            })
        })
        .await
    }

    async fn open(&self, order: Order) -> Result<Box<dyn Export>, ArchiveError> {
        let programs = self.programs.clone();
        let control = Arc::new(Control::new(order.limit));
        let stop = StopOnDrop(control.clone());
        let opened = blocking(move || Opened::new(programs, order, control)).await?;
        Ok(Box::new(Running { opened, stop }))
    }

    async fn clear(&self, directory: &Path, export: ExportId) -> Result<(), ArchiveError> {
        let target = Target::of(directory, export)?;
        blocking(move || target.remove()).await
    }
}

/// An export that was opened.
struct Running {
    opened: Opened,
    stop: StopOnDrop,
}

/// Nobody waits for the threads any more: they end, and remove what they wrote.
struct StopOnDrop(Arc<Control>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

#[async_trait]
impl Export for Running {
    async fn run(
        self: Box<Self>,
        progress: &(dyn Fn(Copied) -> Go + Send + Sync),
    ) -> Result<Exported, ArchiveError> {
        let Self { opened, stop } = *self;
        let mut work = spawn_blocking(move || opened.run());
        loop {
            tokio::select! {
                ended = &mut work => {
                    let ended = ended.map_err(|error| lost(&error))?;
                    progress(stop.0.copied());
                    return ended;
                }
                () = tokio::time::sleep(TELL) => {
                    if progress(stop.0.copied()) == Go::Stop {
                        stop.0.stop();
                    }
                }
            }
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ArchiveError> + Send + 'static,
) -> Result<T, ArchiveError> {
    spawn_blocking(work).await.map_err(|error| lost(&error))?
}

fn lost(error: &JoinError) -> ArchiveError {
    ArchiveError::Failed(format!("a thread of the export ended: {error}"))
}
