//! A disk's leaves: the digest of each of its blocks, in a file of an export.
//!
//! ```text
//!   8 bytes   "isoleaf1"
//!   8 bytes   the disk's size in bytes
//!   records until all blocks are told, each
//!     4 bytes   how many blocks, 1 to 2^31 - 1; the highest bit is set if all of
//!               them are zero
//!     and otherwise 32 bytes for each of them: its BLAKE3
//! ```
//!
//! Numbers are little-endian. A difference needs its parent's leaves to have a digest
//! of the whole disk without reading it, and to know a block that was written with
//! what was there before.

use std::io::{self, Read, Write};

use blake3::Hasher;

use crate::digest::{Content, Leaf, blocks};

const MAGIC: &[u8; 8] = b"isoleaf1";
const ZERO: u32 = 1 << 31;
/// The most leaves that one record holds when we write it.
const RECORD: usize = 2048;

/// Blocks that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// So many of zeroes.
    Zero(u64),
    /// Of data.
    Data(Vec<Leaf>),
}

impl Run {
    /// How many.
    pub fn blocks(&self) -> u64 {
        match self {
            Self::Zero(count) => *count,
            Self::Data(leaves) => leaves.len() as u64,
        }
    }
}

/// Writes leaves, and makes the disk's content digest of them.
pub(crate) struct LeafWriter<W: Write> {
    out: Counting<W>,
    content: Content,
    zero: u64,
    data: Vec<Leaf>,
}

struct Counting<W> {
    inner: W,
    hasher: Hasher,
    bytes: u64,
}

impl<W: Write> Counting<W> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.inner.write_all(bytes)?;
        self.hasher.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }
}

/// What was written.
pub(crate) struct Written {
    pub(crate) bytes: u64,
    pub(crate) digest: Leaf,
    /// The disk's content digest.
    pub(crate) content: Leaf,
}

impl<W: Write> LeafWriter<W> {
    pub(crate) fn new(inner: W, size: u64) -> io::Result<Self> {
        let mut out = Counting {
            inner,
            hasher: Hasher::new(),
            bytes: 0,
        };
        out.put(MAGIC)?;
        out.put(&size.to_le_bytes())?;
        Ok(Self {
            out,
            content: Content::new(size),
            zero: 0,
            data: Vec::new(),
        })
    }

    pub(crate) fn zero(&mut self, count: u64) -> io::Result<()> {
        self.flush_data()?;
        self.zero += count;
        self.content.zero(count);
        Ok(())
    }

    pub(crate) fn data(&mut self, leaf: &Leaf) -> io::Result<()> {
        self.flush_zero()?;
        self.content.data(leaf);
        self.data.push(*leaf);
        match self.data.len() {
            RECORD => self.flush_data(),
            _ => Ok(()),
        }
    }

    pub(crate) fn run(&mut self, run: &Run) -> io::Result<()> {
        match run {
            Run::Zero(count) => self.zero(*count),
            Run::Data(leaves) => leaves.iter().try_for_each(|leaf| self.data(leaf)),
        }
    }

    fn flush_zero(&mut self) -> io::Result<()> {
        while self.zero > 0 {
            let now = self.zero.min(u64::from(ZERO - 1)) as u32;
            self.out.put(&(now | ZERO).to_le_bytes())?;
            self.zero -= u64::from(now);
        }
        Ok(())
    }

    fn flush_data(&mut self) -> io::Result<()> {
        if self.data.is_empty() {
            return Ok(());
        }
        // No more than RECORD.
        self.out.put(&(self.data.len() as u32).to_le_bytes())?;
        self.out.put(self.data.as_flattened())?;
        self.data.clear();
        Ok(())
    }

    pub(crate) fn finish(mut self) -> io::Result<Written> {
        self.flush_zero()?;
        self.flush_data()?;
        self.out.inner.flush()?;
        Ok(Written {
            bytes: self.out.bytes,
            digest: *self.out.hasher.finalize().as_bytes(),
            content: self.content.finish(),
        })
    }
}

/// Reads leaves in their order. An error of kind `InvalidData` means that the file is
/// not as described above.
pub struct LeafReader<R> {
    inner: R,
    hasher: Hasher,
    /// Blocks that no record has told yet.
    untold: u64,
    /// Of the present record.
    rest: u64,
    zero: bool,
}

impl<R: Read> LeafReader<R> {
    /// Reads the leaves of a disk of that size.
    ///
    /// # Errors
    /// The file is none of leaves, or of another size; it cannot be read.
    pub fn new(inner: R, size: u64) -> io::Result<Self> {
        let mut reader = Self {
            inner,
            hasher: Hasher::new(),
            untold: blocks(size),
            rest: 0,
            zero: false,
        };
        if &reader.take::<8>()? != MAGIC {
            return Err(invalid("it is no file of leaves"));
        }
        if u64::from_le_bytes(reader.take()?) != size {
            return Err(invalid("it is of a disk of another size"));
        }
        Ok(reader)
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.inner
            .read_exact(bytes)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => invalid("it is cut off"),
                _ => error,
            })?;
        self.hasher.update(bytes);
        Ok(())
    }

    /// The next blocks, at least one and no more than `most` (of data, no more than
    /// some thousands). `None` at the end.
    ///
    /// # Errors
    /// The file is damaged or cannot be read.
    pub fn next(&mut self, most: u64) -> io::Result<Option<Run>> {
        self.begin_record()?;
        if self.rest == 0 {
            return Ok(None);
        }
        let now = self.rest.min(most.max(1));
        if self.zero {
            self.rest -= now;
            return Ok(Some(Run::Zero(now)));
        }
        let now = now.min(RECORD as u64);
        let mut leaves = vec![[0; 32]; now as usize];
        self.fill(leaves.as_flattened_mut())?;
        self.rest -= now;
        Ok(Some(Run::Data(leaves)))
    }

    /// Begins the next record, if one is needed and there is one.
    fn begin_record(&mut self) -> io::Result<()> {
        if self.rest > 0 || self.untold == 0 {
            return Ok(());
        }
        let word = u32::from_le_bytes(self.take()?);
        self.zero = word & ZERO != 0;
        self.rest = u64::from(word & !ZERO);
        if self.rest == 0 || self.rest > self.untold {
            return Err(invalid("it tells of another number of blocks"));
        }
        self.untold -= self.rest;
        Ok(())
    }

    /// As [`next`](Self::next), of data no more than `most_data`.
    pub(crate) fn next_bounded(&mut self, most: u64, most_data: u64) -> io::Result<Option<Run>> {
        self.begin_record()?;
        match self.zero {
            true => self.next(most),
            false => self.next(most.min(most_data)),
        }
    }

    /// Passes so many blocks to `each`, run by run.
    ///
    /// # Errors
    /// As for [`next`](Self::next), and there are not so many.
    pub fn forward(
        &mut self,
        mut count: u64,
        mut each: impl FnMut(Run) -> io::Result<()>,
    ) -> io::Result<()> {
        while count > 0 {
            let run = self
                .next(count)?
                .ok_or_else(|| invalid("it has too few blocks"))?;
            count -= run.blocks();
            each(run)?;
        }
        Ok(())
    }

    /// The digest of the file, when all blocks were read.
    ///
    /// # Errors
    /// There is more than there should be; it cannot be read.
    pub fn finish(mut self) -> io::Result<Leaf> {
        while self.next(u64::MAX)?.is_some() {}
        match self.inner.read(&mut [0])? {
            0 => Ok(*self.hasher.finalize().as_bytes()),
            _ => Err(invalid("something follows after its end")),
        }
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::BLOCK;

    fn leaves(count: u8) -> Vec<Leaf> {
        (1..=count).map(|number| [number; 32]).collect()
    }

    /// A file of leaves, of 3 + 5000 + 2 blocks.
    fn file() -> (Vec<u8>, u64) {
        let size = 5004 * BLOCK + 512;
        let mut file = Vec::new();
        let mut writer = LeafWriter::new(&mut file, size).unwrap();
        writer.run(&Run::Data(leaves(3))).unwrap();
        writer.run(&Run::Zero(1000)).unwrap();
        writer.run(&Run::Zero(4000)).unwrap();
        writer.run(&Run::Data(leaves(2))).unwrap();
        let written = writer.finish().unwrap();
        assert_eq!(written.bytes, file.len() as u64);
        assert_eq!(written.digest, *blake3::hash(&file).as_bytes());
        (file, size)
    }

    #[test]
    fn what_was_written_is_read() {
        let (file, size) = file();
        assert_eq!(file.len(), 16 + 4 + 96 + 4 + 4 + 64, "zeroes take no room");
        let mut reader = LeafReader::new(file.as_slice(), size).unwrap();
        assert_eq!(reader.next(2).unwrap(), Some(Run::Data(leaves(2))));
        let mut runs = Vec::new();
        reader
            .forward(5003, |run| {
                runs.push(run);
                Ok(())
            })
            .unwrap();
        let expected = [
            Run::Data(vec![[3; 32]]),
            Run::Zero(5000),
            Run::Data(leaves(2)),
        ];
        assert_eq!(runs, expected);
        assert_eq!(reader.next(1).unwrap(), None);
        assert_eq!(reader.finish().unwrap(), *blake3::hash(&file).as_bytes());
    }

    #[test]
    fn what_is_no_file_of_leaves_is_refused() {
        let (file, size) = file();
        let read = |file: &[u8], size| LeafReader::new(file, size)?.finish();
        read(&file, size).unwrap();
        assert!(read(&file, size + BLOCK).is_err(), "of another size");
        for length in 0..file.len() {
            assert!(read(&file[..length], size).is_err(), "cut at {length}");
        }
        let longer = [&file[..], &[0]].concat();
        assert!(read(&longer, size).is_err(), "with something behind it");
        for at in [0, 8, 16, 16 + 4 + 96] {
            let mut other = file.clone();
            other[at] ^= 0x40;
            assert!(read(&other, size).is_err(), "changed at {at}");
        }
    }

    #[test]
    fn a_disk_of_nothing() {
        let mut file = Vec::new();
        LeafWriter::new(&mut file, 0).unwrap().finish().unwrap();
        let mut reader = LeafReader::new(file.as_slice(), 0).unwrap();
        assert_eq!(reader.next(9).unwrap(), None);
        reader.finish().unwrap();
    }
}
