//! The copy of one disk: several threads read, digest and write, each one piece at a
//! time; what became of the pieces is put in order and noted.
//!
//! ```text
//!   plan ──piece──> lane: read ─> digest ─> write clusters ──outcome──┐
//!   (one at a    ├> lane                                              ├─> notes, in order:
//!    time, in    └> lane                                              ┘   leaves, content
//!    order)                                                               digest, L2 tables
//! ```
//!
//! While one lane waits for the server, another digests and a third one writes.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::thread;

use isochron_engine::ports::ArchiveError;

use crate::control::Control;
use crate::digest::{BLOCK, BLOCK_LEN, Leaf, leaf};
use crate::leaves::{LeafWriter, Run, Written};
use crate::manifest::cannot;
use crate::map;
use crate::nbd::Client;
use crate::plan::{AT_ONCE, Leaves, Plan, What, Wrong};
use crate::qcow2;
use crate::server::{Server, Stream};

/// Threads for one disk.
pub(crate) const LANES: usize = 3;

/// Where a disk goes.
pub(crate) enum Sink {
    /// Into an image, which may stand on another.
    Qcow2 {
        writer: qcow2::Writer,
        on_another: bool,
    },
    /// Into a file of holes.
    Raw(File),
    /// Nowhere: it is only read.
    Nowhere,
}

/// A disk to be copied.
pub(crate) struct Disk<'a> {
    pub(crate) size: u64,
    pub(crate) plan: Plan,
    /// Reads the layers.
    pub(crate) layers: &'a mut Server,
    /// The layers' files, for what lies in them as it is.
    pub(crate) files: Vec<File>,
    /// Reads the images from which unchanged blocks are reused.
    pub(crate) base: Option<&'a mut Server>,
    pub(crate) sink: Sink,
    /// For error messages.
    pub(crate) sink_path: PathBuf,
    /// Takes the leaves.
    pub(crate) leaves: Box<dyn Write + Send>,
    pub(crate) leaves_path: PathBuf,
    /// Leaves that are known from elsewhere.
    pub(crate) known: Known,
}

/// What leaves that are known are good for.
pub(crate) enum Known {
    /// There are none.
    Nothing,
    /// They are the parent's: of blocks that are as before.
    Before(Box<Other>),
    /// They must be the same as those that are found.
    Same(Box<Other>),
}

/// Another file of leaves.
pub(crate) struct Other {
    pub(crate) leaves: Leaves,
    pub(crate) path: PathBuf,
    /// The image whose leaves they are, for error messages.
    pub(crate) image: PathBuf,
    /// Its digest, as the manifest has it.
    pub(crate) digest: Leaf,
}

/// What came of it.
pub(crate) struct Copied {
    /// Bytes and digest of the image, if it is one.
    pub(crate) image: Option<qcow2::Finished>,
    /// The leaves' file, and the disk's digest.
    pub(crate) leaves: Written,
}

/// What became of a block.
enum Block {
    Zero,
    Kept,
    /// Its digest, and where it was written.
    Data(Leaf, u64),
}

enum Outcome {
    Zero,
    Kept,
    Blocks(Vec<Block>),
}

/// Copies a disk to its end.
///
/// # Errors
/// `Cancelled`, `Damaged` (leaves are not what is read), `Failed`. Nothing is removed.
pub(crate) fn copy(disk: Disk<'_>, control: &Control) -> Result<Copied, ArchiveError> {
    let Disk {
        size,
        plan,
        layers,
        files,
        mut base,
        sink,
        sink_path,
        leaves,
        leaves_path,
        known,
    } = disk;
    let lanes: Vec<_> = (0..LANES)
        .map(|_| {
            let base = base.as_mut().map(|base| base.take_reader());
            (layers.take_reader(), base.flatten())
        })
        .collect();
    let leaves =
        LeafWriter::new(leaves, size).map_err(|error| cannot("write", &leaves_path, &error))?;
    let copying = Copying {
        size,
        plan: Mutex::new((0, plan)),
        layers,
        files,
        base: base.as_deref(),
        sink: &sink,
        sink_path: &sink_path,
        leaves_path: &leaves_path,
        notes: Mutex::new(Notes {
            next: 0,
            waiting: BTreeMap::new(),
            leaves,
            known,
        }),
        control,
    };
    thread::scope(|scope| {
        for (layers, base) in lanes {
            scope.spawn(|| {
                if let Err(error) = copying.lane(layers, base) {
                    control.fail(error);
                }
            });
        }
    });
    control.check()?;
    let notes = copying
        .notes
        .into_inner()
        .unwrap_or_else(|broken| broken.into_inner());
    let leaves = notes
        .leaves
        .finish()
        .map_err(|error| cannot("write", &leaves_path, &error))?;
    match notes.known {
        Known::Nothing => (),
        Known::Before(other) | Known::Same(other) => other.finish()?,
    }
    let finished = match sink {
        Sink::Qcow2 { writer, .. } => writer.finish().map(Some),
        Sink::Raw(file) => file.sync_all().map(|()| None),
        Sink::Nowhere => Ok(None),
    };
    Ok(Copied {
        image: finished.map_err(|error| cannot("write", &sink_path, &error))?,
        leaves,
    })
}

struct Copying<'a> {
    size: u64,
    /// How many pieces were taken, and the plan.
    plan: Mutex<(u64, Plan)>,
    layers: &'a Server,
    files: Vec<File>,
    base: Option<&'a Server>,
    sink: &'a Sink,
    sink_path: &'a PathBuf,
    leaves_path: &'a PathBuf,
    notes: Mutex<Notes>,
    control: &'a Control,
}

/// What was found, in the order of blocks.
struct Notes {
    /// The number of the piece that comes next.
    next: u64,
    /// Pieces that came too early.
    waiting: BTreeMap<u64, (u64, u64, Outcome)>,
    leaves: LeafWriter<Box<dyn Write + Send>>,
    known: Known,
}

impl Copying<'_> {
    fn lane(
        &self,
        layers: Option<Client<Stream>>,
        base: Option<Client<Stream>>,
    ) -> Result<(), ArchiveError> {
        let gone = || ArchiveError::Failed("a connection is missing".to_owned());
        let mut layers = layers.ok_or_else(gone)?;
        let mut base = base;
        let mut buffer = vec![0; AT_ONCE as usize * BLOCK_LEN];
        loop {
            self.control.check()?;
            let (number, piece) = {
                let (count, plan) = &mut *lock(&self.plan);
                let piece = plan.next().map_err(|wrong| self.wrong(wrong))?;
                let Some(piece) = piece else {
                    return Ok(());
                };
                *count += 1;
                (*count - 1, piece)
            };
            let offset = piece.first * BLOCK;
            let bytes = (piece.blocks * BLOCK).min(self.size - offset);
            let outcome =
                match &piece.what {
                    What::Zero => Outcome::Zero,
                    What::Kept => Outcome::Kept,
                    what => {
                        self.control.wait_for(bytes)?;
                        let data = &mut buffer[..bytes as usize];
                        match (what, &mut base, self.base) {
                            (What::Reuse(_), Some(client), Some(server)) => client
                                .read(offset, data)
                                .map_err(|error| server.failed("read", &error))?,
                            (What::Reuse(_), ..) => return Err(gone()),
                            (What::Direct(segments), ..) => map::read(&self.files, segments, data)
                                .map_err(|error| self.layers.failed("read", &error))?,
                            _ => layers
                                .read(offset, data)
                                .map_err(|error| self.layers.failed("read", &error))?,
                        }
                        Outcome::Blocks(self.deal_with(what, offset, data)?)
                    }
                };
            self.note(number, (piece.first, piece.blocks, outcome))?;
            self.control.done(bytes);
        }
    }

    fn wrong(&self, wrong: Wrong) -> ArchiveError {
        match wrong {
            Wrong::Layers(error) => self.layers.failed("read", &error),
            Wrong::Leaves(error) => match &lock(&self.notes).known {
                Known::Before(other) | Known::Same(other) => other.damaged(&error),
                Known::Nothing => ArchiveError::Failed(error.to_string()),
            },
        }
    }

    /// Digests what was read, and writes what has to be.
    fn deal_with(&self, what: &What, offset: u64, data: &[u8]) -> Result<Vec<Block>, ArchiveError> {
        let mut blocks = Vec::with_capacity(AT_ONCE as usize);
        for (index, block) in data.chunks(BLOCK_LEN).enumerate() {
            let found = leaf(block);
            blocks.push(match (what, found) {
                (What::Compare(before), found) if before.get(index) == Some(&found) => Block::Kept,
                (What::Reuse(leaves), found) if leaves.get(index).copied() != found => {
                    return Err(self.not_the_same(offset + index as u64 * BLOCK));
                }
                (_, None) => Block::Zero,
                (_, Some(leaf)) => Block::Data(leaf, 0),
            });
        }
        // Data that follows each other is written at once.
        let mut index = 0;
        while index < blocks.len() {
            let run = blocks[index..]
                .iter()
                .take_while(|block| matches!(block, Block::Data(..)))
                .count();
            if run > 0 {
                let from = index * BLOCK_LEN;
                let to = ((index + run) * BLOCK_LEN).min(data.len());
                let first = self.write(offset + from as u64, &data[from..to])?;
                for (block, cluster) in blocks[index..index + run].iter_mut().zip(first..) {
                    if let Block::Data(_, at) = block {
                        *at = cluster;
                    }
                }
            }
            index += run.max(1);
        }
        Ok(blocks)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<u64, ArchiveError> {
        let written = match self.sink {
            Sink::Qcow2 { writer, .. } => writer.write(data),
            Sink::Raw(file) => file.write_all_at(data, offset).map(|()| 0),
            Sink::Nowhere => return Ok(0),
        };
        let cluster = written.map_err(|error| cannot("write", self.sink_path, &error))?;
        self.control.written(data.len() as u64);
        Ok(cluster)
    }

    fn not_the_same(&self, offset: u64) -> ArchiveError {
        let image = match &lock(&self.notes).known {
            Known::Before(other) | Known::Same(other) => other.image.display().to_string(),
            Known::Nothing => "the base".to_owned(),
        };
        ArchiveError::Damaged(format!(
            "{image} does not read as its leaves say, at byte {offset} of the disk"
        ))
    }

    fn note(&self, number: u64, piece: (u64, u64, Outcome)) -> Result<(), ArchiveError> {
        let notes = &mut *lock(&self.notes);
        notes.waiting.insert(number, piece);
        while let Some((first, blocks, outcome)) = notes.waiting.remove(&notes.next) {
            notes.next += 1;
            let noted = notes.note(first, blocks, &outcome, self.sink);
            noted.map_err(|wrong| match wrong {
                Fault::Leaves(error) => cannot("write", self.leaves_path, &error),
                Fault::Image(error) => cannot("write", self.sink_path, &error),
                Fault::Known(error) => error,
            })?;
        }
        Ok(())
    }
}

enum Fault {
    Leaves(io::Error),
    Image(io::Error),
    Known(ArchiveError),
}

impl Notes {
    fn note(
        &mut self,
        first: u64,
        blocks: u64,
        outcome: &Outcome,
        sink: &Sink,
    ) -> Result<(), Fault> {
        match outcome {
            Outcome::Zero => self.zero(first, blocks, sink),
            Outcome::Kept => self.kept(blocks),
            Outcome::Blocks(found) => {
                for (block, found) in (first..).zip(found) {
                    match found {
                        Block::Zero => self.zero(block, 1, sink)?,
                        Block::Kept => self.kept(1)?,
                        Block::Data(leaf, cluster) => {
                            self.known.pass(block, Run::Data(vec![*leaf]))?;
                            self.leaves.data(leaf).map_err(Fault::Leaves)?;
                            map(sink, block, qcow2::Entry::Data(*cluster))?;
                        }
                    }
                }
                Ok(())
            }
        }
    }

    fn zero(&mut self, first: u64, blocks: u64, sink: &Sink) -> Result<(), Fault> {
        self.known.pass(first, Run::Zero(blocks))?;
        self.leaves.zero(blocks).map_err(Fault::Leaves)?;
        if let Sink::Qcow2 {
            on_another: true, ..
        } = sink
        {
            for block in first..first + blocks {
                map(sink, block, qcow2::Entry::Zero)?;
            }
        }
        Ok(())
    }

    /// As before: the parent's leaves are this one's.
    fn kept(&mut self, blocks: u64) -> Result<(), Fault> {
        let Known::Before(other) = &mut self.known else {
            return Ok(());
        };
        let mut written = Ok(());
        let read = other.leaves.forward(blocks, |run| {
            if written.is_ok() {
                written = self.leaves.run(&run);
            }
            Ok(())
        });
        read.map_err(|error| Fault::Known(other.damaged(&error)))?;
        written.map_err(Fault::Leaves)
    }
}

fn map(sink: &Sink, block: u64, entry: qcow2::Entry) -> Result<(), Fault> {
    match sink {
        Sink::Qcow2 { writer, .. } => writer.map(block, entry).map_err(Fault::Image),
        _ => Ok(()),
    }
}

impl Known {
    /// Blocks were found to be this: passes over the parent's leaves, or sees that
    /// these are the same.
    fn pass(&mut self, first: u64, run: Run) -> Result<(), Fault> {
        let (other, same) = match self {
            Self::Nothing => return Ok(()),
            Self::Before(other) => (other, false),
            Self::Same(other) => (other, true),
        };
        let mut differs = false;
        let read = other.leaves.forward(run.blocks(), |told| {
            differs |= same
                && match (&told, &run) {
                    (Run::Zero(_), Run::Zero(_)) => false,
                    (told, run) => told != run,
                };
            Ok(())
        });
        read.map_err(|error| Fault::Known(other.damaged(&error)))?;
        match differs {
            false => Ok(()),
            true => Err(Fault::Known(ArchiveError::Damaged(format!(
                "{} does not read as its leaves say, from byte {} of the disk on",
                other.image.display(),
                first * BLOCK
            )))),
        }
    }
}

impl Other {
    fn damaged(&self, error: &io::Error) -> ArchiveError {
        match error.kind() {
            io::ErrorKind::InvalidData => ArchiveError::Damaged(format!(
                "{} is not what its manifest says: {error}",
                self.path.display()
            )),
            _ => cannot("read", &self.path, error),
        }
    }

    /// All of it was read: sees that it was what the manifest says.
    fn finish(self: Box<Self>) -> Result<(), ArchiveError> {
        let Self {
            leaves,
            path,
            digest,
            ..
        } = *self;
        match leaves.finish() {
            Ok(found) if found == digest => Ok(()),
            Ok(_) => Err(ArchiveError::Damaged(format!(
                "{} is not what its manifest says",
                path.display()
            ))),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let path = path.display();
                Err(ArchiveError::Damaged(format!("{path} is damaged: {error}")))
            }
            Err(error) => Err(cannot("read", &path, &error)),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|broken| broken.into_inner())
}
