//! Writes a qcow2 image, version 3, from its start to its end
//! (<https://github.com/qemu/qemu/blob/master/docs/interop/qcow2.txt>).
//!
//! ```text
//!   cluster 0      header, the name of the backing file
//!   1 ..           L1 table
//!   then           data clusters and L2 tables, as they come
//!   at the end     refcount blocks, refcount table
//! ```
//!
//! Every cluster is used once, so all refcounts are 1 and known at the end. Data may
//! come from several threads and in any order; which cluster holds which block is
//! told in rising order, so that one L2 table is kept at a time. The file's digest is
//! made of what is written.

use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Advice, fadvise};

use crate::digest::{BLOCK, BLOCK_LEN, FileTree, Leaf, blocks, subtree};

const MAGIC: &[u8; 4] = b"QFI\xfb";
const HEADER_LENGTH: u32 = 104;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
/// 16 bits.
const REFCOUNT_ORDER: u32 = 4;
/// The cluster is used once.
const COPIED: u64 = 1 << 63;
/// The cluster reads as zeroes.
const ZERO: u64 = 1;
/// Entries of an L2 table, and of a block of the refcount table.
const ENTRIES: u64 = BLOCK / 8;
/// Refcounts of a refcount block.
const REFCOUNTS: u64 = BLOCK / 2;
/// Clusters that are sent to the disk at once while further ones come: 64 MiB. Fewer
/// cost more time than they save.
const EARLY: u64 = 1024;
/// The longest name of a backing file.
pub(crate) const NAME: usize = 1023;

/// An image that is being written.
#[derive(Debug)]
pub(crate) struct Writer {
    file: File,
    size: u64,
    backing: Option<String>,
    l1_clusters: u64,
    next: AtomicU64,
    tree: Mutex<FileTree>,
    tables: Mutex<Tables>,
}

#[derive(Debug)]
struct Tables {
    l1: Vec<u64>,
    l2: Vec<u64>,
    /// Which L2 table it is.
    number: u64,
    used: bool,
}

/// What a block of the disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Zeroes.
    Zero,
    /// This cluster.
    Data(u64),
}

/// A finished image.
pub(crate) struct Finished {
    pub(crate) bytes: u64,
    pub(crate) digest: Leaf,
}

impl Writer {
    /// An image of that size in an empty file. A backing file is a qcow2 image, its
    /// name no longer than [`NAME`].
    pub(crate) fn new(file: File, size: u64, backing: Option<String>) -> Self {
        let tables = blocks(size).div_ceil(ENTRIES);
        let l1_clusters = tables.div_ceil(ENTRIES).max(1);
        Self {
            file,
            size,
            backing,
            l1_clusters,
            next: AtomicU64::new(1 + l1_clusters),
            tree: Mutex::default(),
            tables: Mutex::new(Tables {
                l1: vec![0; tables as usize],
                l2: vec![0; ENTRIES as usize],
                number: 0,
                used: false,
            }),
        }
    }

    /// Writes clusters of data, which may end in a part of one, and says which the
    /// first is; the others follow it.
    pub(crate) fn write(&self, data: &[u8]) -> io::Result<u64> {
        let count = (data.len() as u64).div_ceil(BLOCK);
        let first = self.next.fetch_add(count, Ordering::Relaxed);
        self.write_at(first, data)?;
        // Begins to write to the disk what came before, so that little is left to wait
        // for at the end.
        if (first + count) / EARLY > first / EARLY {
            let from = (first / EARLY) * EARLY * BLOCK;
            let bytes = NonZeroU64::new(EARLY * BLOCK);
            let _ = fadvise(&self.file, from, bytes, Advice::DontNeed);
        }
        Ok(first)
    }

    fn write_at(&self, first: u64, data: &[u8]) -> io::Result<()> {
        self.file.write_all_at(data, first * BLOCK)?;
        let mut padded = Vec::new();
        for (number, cluster) in (first..).zip(data.chunks(BLOCK_LEN)) {
            let cluster = match cluster.len() {
                BLOCK_LEN => cluster,
                _ => {
                    padded.extend_from_slice(cluster);
                    padded.resize(BLOCK_LEN, 0);
                    self.file.write_all_at(&padded, number * BLOCK)?;
                    &padded
                }
            };
            let value = subtree(number, cluster);
            lock(&self.tree).add(number, value);
        }
        Ok(())
    }

    /// Says what a block is. Blocks come in rising order; those of which nothing is
    /// said are what the backing file says, or zeroes.
    pub(crate) fn map(&self, block: u64, entry: Entry) -> io::Result<()> {
        let entry = match entry {
            Entry::Zero => ZERO,
            Entry::Data(cluster) => (cluster * BLOCK) | COPIED,
        };
        let tables = &mut *lock(&self.tables);
        if tables.number != block / ENTRIES {
            self.flush(tables)?;
            tables.number = block / ENTRIES;
        }
        tables.l2[(block % ENTRIES) as usize] = entry;
        tables.used = true;
        Ok(())
    }

    fn flush(&self, tables: &mut Tables) -> io::Result<()> {
        if tables.used {
            let cluster = self.write(&big_endian(&tables.l2))?;
            tables.l1[tables.number as usize] = (cluster * BLOCK) | COPIED;
            tables.l2.fill(0);
            tables.used = false;
        }
        Ok(())
    }

    /// Writes the rest and brings all to stable storage.
    pub(crate) fn finish(self) -> io::Result<Finished> {
        let mut tables = lock(&self.tables);
        self.flush(&mut tables)?;
        let used = self.next.load(Ordering::Relaxed);
        // The refcounts' own clusters are counted as well.
        let (mut refcount_blocks, mut refcount_tables) = (0, 0);
        let all = loop {
            let all = used + refcount_blocks + refcount_tables;
            let need = all.div_ceil(REFCOUNTS);
            let need_tables = need.div_ceil(ENTRIES);
            if (need, need_tables) == (refcount_blocks, refcount_tables) {
                break all;
            }
            (refcount_blocks, refcount_tables) = (need, need_tables);
        };
        for number in 0..refcount_blocks {
            let here = (all - number * REFCOUNTS).min(REFCOUNTS) as usize;
            let mut block = [0, 1].repeat(here);
            block.resize(BLOCK_LEN, 0);
            self.write_at(used + number, &block)?;
        }
        let table: Vec<_> = (0..refcount_blocks)
            .map(|number| (used + number) * BLOCK)
            .collect();
        let refcount_table = used + refcount_blocks;
        self.write_whole(refcount_table, refcount_tables, big_endian(&table))?;
        self.write_whole(1, self.l1_clusters, big_endian(&tables.l1))?;
        let header = self.header(&tables, refcount_table * BLOCK, refcount_tables as u32);
        self.write_whole(0, 1, header)?;
        self.file.sync_all()?;
        let digest = lock(&self.tree)
            .finish()
            .ok_or_else(|| io::Error::other("a cluster was not written"))?;
        Ok(Finished {
            bytes: all * BLOCK,
            digest,
        })
    }

    /// Writes so many clusters, zeroes after the data.
    fn write_whole(&self, first: u64, clusters: u64, mut data: Vec<u8>) -> io::Result<()> {
        data.resize(clusters as usize * BLOCK_LEN, 0);
        self.write_at(first, &data)
    }

    fn header(&self, tables: &Tables, refcount_table: u64, refcount_clusters: u32) -> Vec<u8> {
        let name = self.backing.as_deref().unwrap_or_default().as_bytes();
        let format = b"qcow2";
        let mut extensions = Vec::new();
        if !name.is_empty() {
            extensions.extend_from_slice(&EXTENSION_BACKING_FORMAT.to_be_bytes());
            extensions.extend_from_slice(&(format.len() as u32).to_be_bytes());
            extensions.extend_from_slice(format);
            extensions.resize(extensions.len().next_multiple_of(8), 0);
        }
        // The end of the extensions.
        extensions.extend_from_slice(&[0; 8]);
        let name_offset = match name.is_empty() {
            true => 0,
            false => u64::from(HEADER_LENGTH) + extensions.len() as u64,
        };
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&3_u32.to_be_bytes());
        header.extend_from_slice(&name_offset.to_be_bytes());
        header.extend_from_slice(&(name.len() as u32).to_be_bytes());
        header.extend_from_slice(&BLOCK.ilog2().to_be_bytes());
        header.extend_from_slice(&self.size.to_be_bytes());
        // No encryption.
        header.extend_from_slice(&0_u32.to_be_bytes());
        header.extend_from_slice(&(tables.l1.len() as u32).to_be_bytes());
        header.extend_from_slice(&BLOCK.to_be_bytes());
        header.extend_from_slice(&refcount_table.to_be_bytes());
        header.extend_from_slice(&refcount_clusters.to_be_bytes());
        // No snapshots; no features.
        header.extend_from_slice(&[0; 4 + 8 + 3 * 8]);
        header.extend_from_slice(&REFCOUNT_ORDER.to_be_bytes());
        header.extend_from_slice(&HEADER_LENGTH.to_be_bytes());
        header.extend_from_slice(&extensions);
        header.extend_from_slice(name);
        header
    }
}

/// Whether a file is an image as this module writes it: one that leads QEMU to no
/// other file than the backing file, which we name ourselves, and needs nothing else.
///
/// # Errors
/// It is not (`InvalidData`), or cannot be read.
pub(crate) fn check_header(file: &File, size: u64) -> io::Result<()> {
    let mut header = [0; HEADER_LENGTH as usize];
    file.read_exact_at(&mut header, 0)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => invalid("it is too short for an image"),
            _ => error,
        })?;
    let is = |at: usize, bytes: &[u8]| header[at..].starts_with(bytes);
    if !is(0, MAGIC) || !is(4, &3_u32.to_be_bytes()) {
        return Err(invalid("it is no qcow2 image of version 3"));
    }
    if !is(24, &size.to_be_bytes()) {
        return Err(invalid("it is an image of another size"));
    }
    if !is(20, &BLOCK.ilog2().to_be_bytes()) || !is(32, &[0; 4]) || !is(72, &[0; 8]) {
        return Err(invalid("it is an image of a kind that exports do not have"));
    }
    Ok(())
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn big_endian(entries: &[u64]) -> Vec<u8> {
    entries
        .iter()
        .flat_map(|entry| entry.to_be_bytes())
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|broken| broken.into_inner())
}
