//! The [`Archive`] of one life of the daemon: exports are the world's, block by block.
//!
//! An export is copied disk by disk, each in a call of its own, and sealed by another.
//! What it reads it has open: when a layer's file goes meanwhile, it reads on, as a
//! process does that has the file open; when it reads something else than it would
//! have when it was opened, it fails and says so, for that must not happen.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use isochron_engine::model::{Changes, ExportId, MachineId};
use isochron_engine::ports::{
    Archive, ArchiveError, Content, Copied, Described, Export, Exported, Go, Order, OrderDisk,
};

use crate::daemon::At;
use crate::files::bytes_of;
use crate::state::State;
use crate::{Daemon, Point, World};

/// The archive of one life of the daemon.
pub struct SimArchive {
    daemon: Daemon,
}

/// A finished export.
#[derive(Clone, Debug)]
pub struct StoredExport {
    /// What it was ordered to be.
    pub order: Order,
    /// Its disks.
    pub disks: BTreeMap<(MachineId, String), StoredDisk>,
    /// The export to which it is a difference.
    pub parent: Option<ExportId>,
}

impl StoredExport {
    /// Its files, relative to its directory.
    fn files(&self) -> Vec<PathBuf> {
        let disks = self.disks.keys();
        let files = disks.map(|(machine, disk)| PathBuf::from(format!("{machine}/{disk}.qcow2")));
        files.collect()
    }
}

/// A disk in an export.
#[derive(Clone, Debug, Default)]
pub struct StoredDisk {
    /// The blocks that it has, by what they hold; of those that it says something of,
    /// the others are zero.
    pub blocks: BTreeMap<u64, u64>,
    /// What it says something of; all where absent.
    pub covered: Option<Changes>,
}

/// All exports.
#[derive(Debug, Default)]
pub(crate) struct Exports {
    whole: BTreeMap<PathBuf, StoredExport>,
    /// Those that are not whole, by their directory.
    partial: BTreeMap<(PathBuf, ExportId), ()>,
}

impl Exports {
    /// What exports that are not whole left.
    pub(crate) fn partial(&self) -> impl Iterator<Item = PathBuf> + '_ {
        let partial = self.partial.keys();
        partial.map(|(directory, id)| directory.with_extension(format!("{id}.partial")))
    }

    /// What a disk of a finished export holds, its parents' taken together.
    fn restored(
        &self,
        export: &StoredExport,
        key: &(MachineId, String),
    ) -> Result<BTreeMap<u64, u64>, ArchiveError> {
        let damaged = |sentence: &str| ArchiveError::Damaged(sentence.to_owned());
        let disk = export
            .disks
            .get(key)
            .ok_or_else(|| damaged("it does not have the disk"))?;
        let Some(covered) = &disk.covered else {
            return Ok(disk.blocks.clone());
        };
        let parent = export.parent;
        let parent = self
            .whole
            .values()
            .find(|other| Some(other.order.id) == parent);
        let parent = parent.ok_or_else(|| damaged("its parent is gone"))?;
        let mut blocks = self.restored(parent, key)?;
        blocks.retain(|block, _| !covered.contains(bytes_of(*block).start));
        blocks.extend(&disk.blocks);
        Ok(blocks)
    }
}

impl World {
    /// The finished export in a directory.
    pub fn export(&self, directory: &Path) -> Option<StoredExport> {
        self.state().exports.whole.get(directory).cloned()
    }

    /// All finished exports, by their directories.
    pub fn exports(&self) -> BTreeMap<PathBuf, StoredExport> {
        self.state().exports.whole.clone()
    }

    /// What a disk of the finished export in a directory restores to: its written
    /// blocks.
    ///
    /// # Errors
    /// `Invalid` no export; `Damaged` no such disk, or a parent that is gone.
    pub fn restored(
        &self,
        directory: &Path,
        machine: MachineId,
        disk: &str,
    ) -> Result<BTreeMap<u64, u64>, ArchiveError> {
        let state = self.state();
        let export = state.exports.whole.get(directory);
        let export = export.ok_or_else(|| not_there(directory))?;
        state.exports.restored(export, &(machine, disk.to_owned()))
    }

    /// Its owner moves an export, or removes it.
    pub fn move_export(&self, directory: &Path, to: Option<&Path>) {
        let mut state = self.state();
        let export = state.exports.whole.remove(directory);
        if let (Some(export), Some(to)) = (export, to) {
            state.exports.whole.insert(to.to_owned(), export);
        }
    }
}

fn not_there(directory: &Path) -> ArchiveError {
    ArchiveError::Invalid(format!("{} is no export", directory.display()))
}

fn at(point: Point, file: &Path) -> At<'_> {
    At {
        point,
        machine: None,
        file: Some(file),
    }
}

impl SimArchive {
    pub(crate) fn new(daemon: Daemon) -> Self {
        Self { daemon }
    }
}

#[async_trait]
impl Archive for SimArchive {
    async fn describe(&self, directory: &Path) -> Result<Described, ArchiveError> {
        self.daemon
            .call(at(Point::Describe, directory), |state| {
                let export = state.exports.whole.get(directory);
                let export = export.ok_or_else(|| not_there(directory))?;
                let members = export.order.members.iter();
                let disks = members.flat_map(|member| {
                    let disks = member.disks.iter();
                    disks.map(|disk| (member.machine, disk.name.clone(), disk.virtual_size))
                });
                Ok(Described {
                    id: export.order.id,
                    instant: export.order.instant.id,
                    collection: export.order.instant.collection,
                    disks: disks.collect(),
                    files: export.files(),
                })
            })
            .await
    }

    async fn open(&self, order: Order) -> Result<Box<dyn Export>, ArchiveError> {
        let opened = self
            .daemon
            .call(at(Point::OpenExport, &order.directory), |state| {
                if state.exports.whole.contains_key(&order.directory) {
                    return Err(ArchiveError::Invalid(format!(
                        "{} is there already",
                        order.directory.display()
                    )));
                }
                if let Some(base) = &order.base
                    && !state.exports.whole.contains_key(base)
                {
                    return Err(not_there(base));
                }
                let mut views = BTreeMap::new();
                for member in &order.members {
                    for disk in &member.disks {
                        views.insert((member.machine, disk.name.clone()), view(state, disk)?);
                    }
                }
                Ok(views)
            })
            .await?;
        Ok(Box::new(SimExport {
            daemon: self.daemon.clone(),
            order,
            opened,
        }))
    }

    async fn clear(&self, directory: &Path, export: ExportId) -> Result<(), ArchiveError> {
        self.daemon
            .call(at(Point::ClearExport, directory), |state| {
                let key = (directory.to_owned(), export);
                state.exports.partial.remove(&key);
                Ok(())
            })
            .await
    }
}

type View = BTreeMap<u64, u64>;

/// What a disk's chain reads as, which must be what the files' headers say.
fn view(state: &State, disk: &OrderDisk) -> Result<View, ArchiveError> {
    let paths: Vec<_> = disk.chain.iter().map(|layer| layer.path.clone()).collect();
    let failed = |error: &dyn std::fmt::Display| ArchiveError::Failed(error.to_string());
    let first = paths
        .first()
        .ok_or_else(|| failed(&"a disk without layers"))?;
    if state.files.chain(first).map_err(|error| failed(&error))? != paths {
        return Err(failed(&"the files' headers say another chain"));
    }
    state.files.view(&paths).map_err(|error| failed(&error))
}

struct SimExport {
    daemon: Daemon,
    order: Order,
    /// What was read when it was opened.
    opened: BTreeMap<(MachineId, String), View>,
}

impl SimExport {
    fn key(&self) -> (PathBuf, ExportId) {
        (self.order.directory.clone(), self.order.id)
    }

    async fn write(
        &self,
        progress: &(dyn Fn(Copied) -> Go + Send + Sync),
    ) -> Result<Exported, ArchiveError> {
        let order = &self.order;
        let mut copied = Copied {
            total: order
                .members
                .iter()
                .flat_map(|member| &member.disks)
                .map(|disk| disk.virtual_size)
                .sum(),
            ..Copied::default()
        };
        let mut disks = BTreeMap::new();
        for member in order.members.iter().filter(|_| order.copy_storage) {
            for disk in &member.disks {
                let key = (member.machine, disk.name.clone());
                let call = At {
                    point: Point::CopyDisk,
                    machine: Some(member.machine),
                    file: Some(&order.directory),
                };
                let stored = self
                    .daemon
                    .call(call, |state| {
                        state.exports.partial.insert(self.key(), ());
                        self.copy(state, disk, &key)
                    })
                    .await?;
                copied.done += disk.virtual_size;
                copied.written += stored.blocks.len() as u64 * Changes::BLOCK;
                disks.insert(key, stored);
                if progress(copied) == Go::Stop {
                    return Err(ArchiveError::Cancelled);
                }
            }
        }
        let mut stored = StoredExport {
            order: order.clone(),
            disks,
            parent: None,
        };
        self.daemon
            .call(at(Point::SealExport, &order.directory), |state| {
                let parent = order.base.as_ref().filter(|_| !order.merge);
                let parent = parent.and_then(|base| state.exports.whole.get(base));
                stored.parent = parent.map(|parent| parent.order.id);
                state.exports.partial.remove(&self.key());
                let whole = &mut state.exports.whole;
                whole.insert(order.directory.clone(), stored.clone());
                Ok::<_, ArchiveError>(())
            })
            .await?;
        Ok(Exported {
            files: stored.files(),
            bytes: copied.written,
        })
    }

    fn copy(
        &self,
        state: &State,
        disk: &OrderDisk,
        key: &(MachineId, String),
    ) -> Result<StoredDisk, ArchiveError> {
        let opened = self.opened.get(key).cloned().unwrap_or_default();
        // A file that is gone is read on as it was.
        if let Ok(now) = view(state, disk)
            && now != opened
        {
            return Err(ArchiveError::Failed(format!(
                "disk {} read {opened:?} when it was opened, and reads {now:?}",
                disk.name
            )));
        }
        let changes = match &disk.content {
            Content::Full { .. } => {
                return Ok(StoredDisk {
                    blocks: opened,
                    covered: None,
                });
            }
            Content::Since(changes) => changes,
        };
        let changed = |block: &u64| changes.contains(bytes_of(*block).start);
        let mut blocks = opened;
        blocks.retain(|block, _| changed(block));
        if !self.order.merge {
            return Ok(StoredDisk {
                blocks,
                covered: Some(changes.clone()),
            });
        }
        let base = self.order.base.as_ref();
        let base = base.and_then(|base| state.exports.whole.get(base));
        let base = base.ok_or_else(|| ArchiveError::Damaged("the base is gone".to_owned()))?;
        let mut whole = state.exports.restored(base, key)?;
        whole.retain(|block, _| !changed(block));
        whole.extend(blocks);
        Ok(StoredDisk {
            blocks: whole,
            covered: None,
        })
    }
}

#[async_trait]
impl Export for SimExport {
    async fn run(
        self: Box<Self>,
        progress: &(dyn Fn(Copied) -> Go + Send + Sync),
    ) -> Result<Exported, ArchiveError> {
        let outcome = self.write(progress).await;
        if outcome.is_err() && !self.daemon.crashed() {
            let mut state = self.daemon.world().state();
            state.exports.partial.remove(&self.key());
        }
        outcome
    }
}
