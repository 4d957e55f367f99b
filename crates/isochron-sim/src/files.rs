//! Image files, block by block, and files of saved memory.
//!
//! An image holds the blocks that were written to it; what it does not hold is
//! read from its backing file, by the name that its header says. Saved memory is
//! one counter; a file of it is empty until it is complete.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use isochron_engine::model::{Changes, FileIdentity, ImageFormat};
use isochron_engine::ports::HypervisorError;

/// Size of a complete file of memory, and of an image's own part, in bytes.
const FILE_BYTES: u64 = 1 << 20;

/// One image file.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) format: ImageFormat,
    pub(crate) backing: Option<PathBuf>,
    pub(crate) blocks: BTreeMap<u64, u64>,
    pub(crate) virtual_size: u64,
    /// `false` after its creation was interrupted.
    pub(crate) complete: bool,
    /// A device of the host, which cannot be snapshotted.
    pub(crate) device: bool,
    /// Its number, given when it is created.
    pub(crate) inode: u64,
    /// How often files had been changed when it was changed last.
    pub(crate) changed: u64,
}

/// All files.
#[derive(Debug, Default)]
pub(crate) struct Files {
    images: BTreeMap<PathBuf, Image>,
    /// `None` until it is complete.
    memories: BTreeMap<PathBuf, Option<u64>>,
    last_inode: u64,
    changes: u64,
}

/// The bytes of a disk that a block is.
pub(crate) fn bytes_of(block: u64) -> Range<u64> {
    block * Changes::BLOCK..(block + 1) * Changes::BLOCK
}

pub(crate) fn failed(sentence: impl Into<String>) -> HypervisorError {
    HypervisorError::Failed(sentence.into())
}

impl Files {
    pub(crate) fn create(&mut self, path: &Path, mut image: Image) -> Result<(), HypervisorError> {
        if self.size(path).is_some() {
            return Err(failed(format!("{} exists already", path.display())));
        }
        self.last_inode += 1;
        image.inode = self.last_inode;
        self.images.insert(path.to_owned(), image);
        Ok(())
    }

    /// The complete image of that name.
    pub(crate) fn image(&self, path: &Path) -> Result<&Image, HypervisorError> {
        let image = self.images.get(path);
        image
            .filter(|image| image.complete)
            .ok_or_else(|| failed(format!("{} is no image", path.display())))
    }

    pub(crate) fn image_mut(&mut self, path: &Path) -> Result<&mut Image, HypervisorError> {
        self.image(path)?;
        self.changes += 1;
        let image = self.images.get_mut(path);
        let image = image.ok_or_else(|| failed(format!("{} is gone", path.display())))?;
        image.changed = self.changes;
        Ok(image)
    }

    /// The chain as the files' headers say it, the named one first.
    pub(crate) fn chain(&self, path: &Path) -> Result<Vec<PathBuf>, HypervisorError> {
        let mut chain = vec![path.to_owned()];
        let mut next = self.image(path)?.backing.clone();
        while let Some(path) = next {
            next = self.image(&path)?.backing.clone();
            if chain.contains(&path) {
                return Err(failed(format!("{} stands on itself", path.display())));
            }
            chain.push(path);
        }
        Ok(chain)
    }

    /// What a chain of files reads as, the topmost first.
    pub(crate) fn view(&self, chain: &[PathBuf]) -> Result<BTreeMap<u64, u64>, HypervisorError> {
        let mut view = BTreeMap::new();
        for path in chain.iter().rev() {
            view.extend(&self.image(path)?.blocks);
        }
        Ok(view)
    }

    /// Which file it is and what it is now, if it is there.
    pub(crate) fn identity(&self, path: &Path) -> Option<FileIdentity> {
        let image = self.images.get(path)?;
        Some(FileIdentity {
            inode: image.inode,
            born: None,
            bytes: FILE_BYTES,
            modified: image.changed as i64,
        })
    }

    /// What an image's own part covers, if its header says that it stands on the base.
    pub(crate) fn allocated(&self, path: &Path, base: &Path) -> Result<Changes, HypervisorError> {
        let image = self.image(path)?;
        if image.backing.as_deref() != Some(base) {
            return Err(HypervisorError::Invalid(format!(
                "{} does not stand on {}",
                path.display(),
                base.display()
            )));
        }
        let mut changes = Changes::none();
        for block in image.blocks.keys() {
            changes.touch(bytes_of(*block));
        }
        Ok(changes)
    }

    /// Copies what the top holds into the base.
    pub(crate) fn merge(&mut self, top: &Path, base: &Path) -> Result<(), HypervisorError> {
        let blocks = self.image(top)?.blocks.clone();
        self.image_mut(base)?.blocks.extend(blocks);
        Ok(())
    }

    /// Deletes a file, if it is there.
    pub(crate) fn delete(&mut self, path: &Path) {
        self.images.remove(path);
        self.memories.remove(path);
    }

    /// A file's length in bytes, if it is there.
    pub(crate) fn size(&self, path: &Path) -> Option<u64> {
        match self.memories.get(path) {
            Some(memory) => Some(memory.map_or(0, |_| FILE_BYTES)),
            None => self.images.get(path).map(|_| FILE_BYTES),
        }
    }

    /// Makes the file what an interrupted creation leaves.
    pub(crate) fn tear(&mut self, path: &Path) {
        if let Some(image) = self.images.get_mut(path) {
            image.complete = false;
        }
        if let Some(memory) = self.memories.get_mut(path) {
            *memory = None;
        }
    }

    /// All files that are there.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        self.images.keys().chain(self.memories.keys())
    }

    /// Creates a file of memory, empty.
    pub(crate) fn create_memory(&mut self, path: &Path) -> Result<(), HypervisorError> {
        if self.size(path).is_some() {
            return Err(failed(format!("{} exists already", path.display())));
        }
        self.memories.insert(path.to_owned(), None);
        Ok(())
    }

    /// Completes a file of memory; its bytes.
    pub(crate) fn write_memory(
        &mut self,
        path: &Path,
        memory: u64,
    ) -> Result<u64, HypervisorError> {
        match self.memories.get_mut(path) {
            Some(file) => *file = Some(memory),
            None => return Err(failed(format!("{} is gone", path.display()))),
        }
        Ok(FILE_BYTES)
    }

    pub(crate) fn read_memory(&self, path: &Path) -> Result<u64, HypervisorError> {
        let memory = self.memories.get(path).copied().flatten();
        memory.ok_or_else(|| failed(format!("{} holds no complete memory", path.display())))
    }
}
