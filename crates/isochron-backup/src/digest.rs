//! Digests: BLAKE3 of a disk's content in blocks, and of a file that is written out
//! of order.
//!
//! A disk's *content digest* is the BLAKE3 of its blocks' BLAKE3s, in their order: of
//! each [`BLOCK`] bytes, and of what is left at the end. Anyone can make it of a raw
//! image:
//!
//! ```text
//!   split -b 65536 --filter='b3sum --raw' disk.raw | b3sum
//! ```
//!
//! It is not the plain BLAKE3 of the image, because that depends on every byte's
//! place: a terabyte of holes would have to be hashed, again for each difference.
//! Here, a block of zeroes is known by its digest wherever it is.
//!
//! A file's digest is the plain BLAKE3, what `b3sum` says.

use std::collections::HashMap;

use blake3::Hasher;
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};

/// Bytes of a block: of a disk's digest, of an exported image's cluster, and of
/// [`Changes`](isochron_engine::model::Changes).
pub const BLOCK: u64 = isochron_engine::model::Changes::BLOCK;

/// [`BLOCK`], as a length in memory.
pub(crate) const BLOCK_LEN: usize = BLOCK as usize;

/// A block's BLAKE3.
pub type Leaf = [u8; 32];

/// A block's digest; `None` if all of it is zero.
pub(crate) fn leaf(block: &[u8]) -> Option<Leaf> {
    // The second comparison is memcmp: all bytes are equal, and so zero.
    if block.first() == Some(&0) && block[1..] == block[..block.len() - 1] {
        return None;
    }
    Some(*blake3::hash(block).as_bytes())
}

/// How many blocks a disk of that size has.
pub(crate) fn blocks(size: u64) -> u64 {
    size.div_ceil(BLOCK)
}

/// A disk's content digest, made of its blocks in their order.
pub(crate) struct Content {
    hasher: Hasher,
    zero: Leaf,
    /// The digest of zeroes as long as the last block.
    last_zero: Leaf,
    left: u64,
}

impl Content {
    pub(crate) fn new(size: u64) -> Self {
        let zeroes = [0; BLOCK_LEN];
        let last = match (size % BLOCK) as usize {
            0 => BLOCK_LEN,
            rest => rest,
        };
        Self {
            hasher: Hasher::new(),
            zero: *blake3::hash(&zeroes).as_bytes(),
            last_zero: *blake3::hash(&zeroes[..last]).as_bytes(),
            left: blocks(size),
        }
    }

    pub(crate) fn data(&mut self, leaf: &Leaf) {
        self.left = self.left.saturating_sub(1);
        self.hasher.update(leaf);
    }

    pub(crate) fn zero(&mut self, count: u64) {
        const TIMES: usize = 512;
        let many = self.zero.repeat(TIMES);
        let mut whole = count.min(self.left.saturating_sub(1));
        let last = count - whole;
        self.left = self.left.saturating_sub(count);
        while whole > 0 {
            let now = whole.min(TIMES as u64);
            self.hasher.update(&many[..now as usize * self.zero.len()]);
            whole -= now;
        }
        if last > 0 {
            self.hasher.update(&self.last_zero);
        }
    }

    pub(crate) fn finish(self) -> Leaf {
        *self.hasher.finalize().as_bytes()
    }
}

/// The BLAKE3 of a file that consists of whole blocks and is written in any order:
/// subtrees are merged as soon as both halves are there. While a file is written
/// nearly from its start to its end, few are kept.
#[derive(Debug, Default)]
pub(crate) struct FileTree {
    /// By height above a block, and number at that height.
    subtrees: HashMap<(u32, u64), Leaf>,
    blocks: u64,
}

/// A block's place in the tree of its file.
pub(crate) fn subtree(number: u64, block: &[u8]) -> Leaf {
    let mut hasher = Hasher::new();
    hasher.set_input_offset(number * BLOCK);
    hasher.update(block);
    hasher.finalize_non_root()
}

impl FileTree {
    /// Adds a block, by its [`subtree`].
    pub(crate) fn add(&mut self, number: u64, mut value: Leaf) {
        self.blocks = self.blocks.max(number + 1);
        let (mut height, mut number) = (0, number);
        // Along the left edge nothing is merged before the end: the last merge of
        // all is another one.
        while number > 1 {
            let Some(other) = self.subtrees.remove(&(height, number ^ 1)) else {
                break;
            };
            value = match number & 1 {
                0 => merge_subtrees_non_root(&value, &other, Mode::Hash),
                _ => merge_subtrees_non_root(&other, &value, Mode::Hash),
            };
            (height, number) = (height + 1, number / 2);
        }
        self.subtrees.insert((height, number), value);
    }

    /// The file's digest; `None` if a block is missing or there are fewer than two.
    pub(crate) fn finish(&self) -> Option<Leaf> {
        if self.blocks < 2 {
            return None;
        }
        let left = left_blocks(self.blocks);
        let (left, right) = (self.value(0, left)?, self.value(left, self.blocks - left)?);
        Some(*merge_subtrees_root(&left, &right, Mode::Hash).as_bytes())
    }

    fn value(&self, first: u64, blocks: u64) -> Option<Leaf> {
        if blocks.is_power_of_two() {
            let height = blocks.trailing_zeros();
            if let Some(value) = self.subtrees.get(&(height, first >> height)) {
                return Some(*value);
            }
        }
        if blocks < 2 {
            return None;
        }
        let left = left_blocks(blocks);
        let (left, right) = (
            self.value(first, left)?,
            self.value(first + left, blocks - left)?,
        );
        Some(merge_subtrees_non_root(&left, &right, Mode::Hash))
    }
}

/// How many of that many blocks are in the left half of their tree: the largest
/// power of two below it (BLAKE3 specification, section 2.1).
fn left_blocks(blocks: u64) -> u64 {
    1 << (blocks - 1).ilog2()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pseudo-random bytes, the same every time.
    fn bytes(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    fn plainly(disk: &[u8]) -> Leaf {
        let leaves: Vec<u8> = disk
            .chunks(BLOCK_LEN)
            .flat_map(|block| *blake3::hash(block).as_bytes())
            .collect();
        *blake3::hash(&leaves).as_bytes()
    }

    #[test]
    fn content_is_the_digest_of_the_blocks_digests() {
        let b = BLOCK_LEN;
        for size in [0, 1, 512, b - 1, b, b + 512, 5 * b, 7 * b + 1536] {
            let mut disk = bytes(size);
            // Zero blocks in the middle and at the end.
            for range in [2 * b..4 * b, 6 * b..size.max(6 * b)] {
                if range.end <= size {
                    disk[range].fill(0);
                }
            }
            let mut content = Content::new(size as u64);
            for block in disk.chunks(b) {
                match leaf(block) {
                    Some(leaf) => content.data(&leaf),
                    None => content.zero(1),
                }
            }
            assert_eq!(content.finish(), plainly(&disk), "{size} bytes");
        }
    }

    #[test]
    fn runs_of_zeroes_are_as_many_zeroes() {
        for size in [1, BLOCK_LEN, 1000 * BLOCK_LEN, 1700 * BLOCK_LEN + 512] {
            let mut content = Content::new(size as u64);
            content.zero(blocks(size as u64));
            assert_eq!(content.finish(), plainly(&vec![0; size]), "{size} bytes");
        }
    }

    #[test]
    fn a_file_in_any_order_has_its_plain_digest() {
        for count in (2..70).chain([128, 129, 255]) {
            let file = bytes(count * BLOCK_LEN);
            let values: Vec<_> = file
                .chunks(BLOCK_LEN)
                .enumerate()
                .map(|(number, block)| (number as u64, subtree(number as u64, block)))
                .collect();
            let mut mixed = values.clone();
            mixed.sort_by_key(|(_, value)| *value);
            for order in [values.iter().collect::<Vec<_>>(), mixed.iter().collect()] {
                let mut tree = FileTree::default();
                for (number, value) in order {
                    tree.add(*number, *value);
                }
                let digest = tree.finish().unwrap();
                assert_eq!(digest, *blake3::hash(&file).as_bytes(), "{count} blocks");
            }
        }
    }

    #[test]
    fn a_file_written_in_order_is_kept_as_few_subtrees() {
        let mut tree = FileTree::default();
        for number in 1..10_000 {
            tree.add(number, [0; 32]);
        }
        assert!(tree.subtrees.len() < 40, "{}", tree.subtrees.len());
        assert_eq!(tree.finish(), None, "the first block is missing");
    }
}
