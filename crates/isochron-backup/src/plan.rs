//! What is done with each block of a disk, in rising order: read, known to be zero, or
//! as before.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufReader};

use isochron_engine::model::Changes;

use crate::digest::{BLOCK, Leaf, blocks};
use crate::leaves::{LeafReader, Run};
use crate::map::{Blocks, Map, Segment};
use crate::nbd::{Client, Extent};
use crate::server::Stream;

/// The most blocks that are read at once: 1 MiB.
pub(crate) const AT_ONCE: u64 = 16;

/// The most bytes of one question for zeroes.
const QUESTION: u64 = 1 << 30;

/// A file of leaves.
pub(crate) type Leaves = LeafReader<BufReader<File>>;

/// Blocks that follow each other, and what is done with them.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) first: u64,
    pub(crate) blocks: u64,
    pub(crate) what: What,
}

/// What is done with blocks.
#[derive(Debug)]
pub(crate) enum What {
    /// They are zero.
    Zero,
    /// They are what they were in the parent.
    Kept,
    /// They are read from the layers.
    Read,
    /// They lie in these places of the layers' files.
    Direct(Vec<Segment>),
    /// They are read from the layers; these are the parent's leaves, so that a block
    /// that is the same can be left out. `None` is a block of zeroes.
    Compare(Vec<Option<Leaf>>),
    /// They are read from the base's images, and must have these leaves.
    Reuse(Vec<Leaf>),
}

/// Where a failure came from.
#[derive(Debug)]
pub(crate) enum Wrong {
    /// The layers' server.
    Layers(io::Error),
    /// The base's leaves.
    Leaves(io::Error),
}

/// A plan for one disk.
pub(crate) struct Plan {
    blocks: u64,
    next: u64,
    status: Status,
    kind: Kind,
}

enum Kind {
    Full,
    Mapped(Map),
    Difference(Changes, Leaves),
    Merge(Changes, Leaves),
}

impl Plan {
    /// All is read from the layers.
    pub(crate) fn full(size: u64, status: Client<Stream>) -> Self {
        Self::new(size, status, Kind::Full)
    }

    /// All is read from the layers, directly where the map says that it can be.
    pub(crate) fn mapped(size: u64, status: Client<Stream>, map: Map) -> Self {
        Self::new(size, status, Kind::Mapped(map))
    }

    /// What changed is read from the layers, the rest is as the parent's leaves say.
    pub(crate) fn difference(
        size: u64,
        status: Client<Stream>,
        changes: Changes,
        parent: Leaves,
    ) -> Self {
        Self::new(size, status, Kind::Difference(changes, parent))
    }

    /// What changed is read from the layers, the rest from the base's images.
    pub(crate) fn merge(size: u64, status: Client<Stream>, changes: Changes, base: Leaves) -> Self {
        Self::new(size, status, Kind::Merge(changes, base))
    }

    fn new(size: u64, client: Client<Stream>, kind: Kind) -> Self {
        Self {
            blocks: blocks(size),
            next: 0,
            status: Status {
                client,
                size,
                at: 0,
                extents: VecDeque::new(),
            },
            kind,
        }
    }

    /// The next piece.
    pub(crate) fn next(&mut self) -> Result<Option<Piece>, Wrong> {
        let (first, end) = (self.next, self.blocks);
        if first == end {
            return Ok(None);
        }
        // Up to where all is in, or out of, what changed.
        let (changed, end) = match &self.kind {
            Kind::Full | Kind::Mapped(_) => (true, end),
            Kind::Difference(changes, _) | Kind::Merge(changes, _) => {
                match changes.next_range(first * BLOCK) {
                    Some(range) if range.start == first * BLOCK => {
                        (true, end.min(range.end / BLOCK))
                    }
                    Some(range) => (false, end.min(range.start / BLOCK)),
                    None => (false, end),
                }
            }
        };
        let (count, what) = match (&mut self.kind, changed) {
            (Kind::Full, _) | (Kind::Merge(..), true) => {
                let (zero, count) = self.status.run(first, end).map_err(Wrong::Layers)?;
                match zero {
                    true => (count, What::Zero),
                    false => (count.min(AT_ONCE), What::Read),
                }
            }
            (Kind::Mapped(map), _) => {
                match map.blocks(first, end, AT_ONCE).map_err(Wrong::Layers)? {
                    Blocks::Zero(count) => (count, What::Zero),
                    Blocks::Direct(count, segments) => (count, What::Direct(segments)),
                    Blocks::Through(count) => (count, What::Read),
                }
            }
            (Kind::Difference(..), false) => (end - first, What::Kept),
            (Kind::Difference(_, parent), true) => {
                let (zero, count) = self.status.run(first, end).map_err(Wrong::Layers)?;
                match zero {
                    true => {
                        let run = next_run(parent, count)?;
                        match run {
                            Run::Zero(count) => (count, What::Kept),
                            Run::Data(leaves) => (leaves.len() as u64, What::Zero),
                        }
                    }
                    false => {
                        let count = count.min(AT_ONCE);
                        let mut before = Vec::with_capacity(count as usize);
                        while (before.len() as u64) < count {
                            match next_run(parent, count - before.len() as u64)? {
                                Run::Zero(zeroes) => {
                                    before.resize(before.len() + zeroes as usize, None);
                                }
                                Run::Data(leaves) => before.extend(leaves.into_iter().map(Some)),
                            }
                        }
                        (count, What::Compare(before))
                    }
                }
            }
            (Kind::Merge(_, base), false) => match next_run(base, end - first)? {
                Run::Zero(count) => (count, What::Zero),
                Run::Data(leaves) => (leaves.len() as u64, What::Reuse(leaves)),
            },
        };
        // Leaves are read in step with the blocks.
        let passed = match (&mut self.kind, changed, &what) {
            (Kind::Difference(_, parent), false, _) | (Kind::Merge(_, parent), true, _) => {
                Some(parent)
            }
            _ => None,
        };
        if let Some(parent) = passed {
            parent.forward(count, |_| Ok(())).map_err(Wrong::Leaves)?;
        }
        self.next += count;
        Ok(Some(Piece {
            first,
            blocks: count,
            what,
        }))
    }
}

fn next_run(leaves: &mut Leaves, most: u64) -> Result<Run, Wrong> {
    // Data is never taken in larger pieces than are read at once.
    leaves
        .next_bounded(most, AT_ONCE)
        .map_err(Wrong::Leaves)?
        .ok_or_else(|| Wrong::Leaves(io::ErrorKind::InvalidData.into()))
}

/// Where the layers are zero.
struct Status {
    client: Client<Stream>,
    size: u64,
    /// Where the first of the extents begins.
    at: u64,
    extents: VecDeque<Extent>,
}

impl Status {
    /// Whether the blocks from `first` on are zero, and how many are alike, before
    /// `end`. A block of which a part is not zero is not.
    fn run(&mut self, first: u64, end: u64) -> io::Result<(bool, u64)> {
        let from = first * BLOCK;
        let to = (end * BLOCK).min(self.size);
        let extent = self.extent(from, to)?;
        let extent_end = self.at + extent.bytes;
        if !extent.zero {
            return Ok((false, extent_end.div_ceil(BLOCK).min(end) - first));
        }
        let last = match extent_end >= self.size {
            true => end,
            false => (extent_end / BLOCK).min(end),
        };
        match last.saturating_sub(first) {
            0 => Ok((false, 1)),
            count => Ok((true, count)),
        }
    }

    /// The extent that holds a byte; asks, no further than `to`, if it is not known.
    fn extent(&mut self, from: u64, to: u64) -> io::Result<Extent> {
        loop {
            match self.extents.front() {
                Some(extent) if self.at + extent.bytes > from => return Ok(*extent),
                Some(extent) => {
                    self.at += extent.bytes;
                    self.extents.pop_front();
                }
                None => {
                    // No more than QUESTION.
                    let length = (to - from).min(QUESTION) as u32;
                    self.at = from;
                    self.extents = self.client.status(from, length)?.into();
                }
            }
        }
    }
}
