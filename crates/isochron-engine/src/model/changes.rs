//! Which blocks of a disk may differ between two instants.

use std::ops::{BitOrAssign, Range};

use roaring::RoaringBitmap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Blocks of a disk, [`Changes::BLOCK`] bytes each, counted from its start. A block
/// that is in it may differ; one that is not does not.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes(RoaringBitmap);

impl Changes {
    /// Bytes of a block: a cluster of the overlays that we create (qcow2's default).
    pub const BLOCK: u64 = 64 * 1024;

    /// No block.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds every block that a range of bytes touches. A disk has up to 256 TiB; what
    /// lies beyond is taken as the last block.
    pub fn touch(&mut self, bytes: Range<u64>) {
        if bytes.is_empty() {
            return;
        }
        let block = |byte: u64| u32::try_from(byte / Self::BLOCK).unwrap_or(u32::MAX);
        self.0
            .insert_range(block(bytes.start)..=block(bytes.end - 1));
    }

    /// Whether the block that holds this byte is in it.
    pub fn contains(&self, byte: u64) -> bool {
        u32::try_from(byte / Self::BLOCK).is_ok_and(|block| self.0.contains(block))
    }

    /// Whether no block is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of all blocks in it.
    pub fn bytes(&self) -> u64 {
        self.0.len() * Self::BLOCK
    }

    /// The first range of bytes that ends after this byte, cut to begin no earlier
    /// than the byte's block; its end is a block's.
    pub fn next_range(&self, byte: u64) -> Option<Range<u64>> {
        let from = u32::try_from(byte / Self::BLOCK).ok()?;
        let mut range = self.0.iter();
        range.advance_to(from);
        let all = range.next_range()?;
        let (first, last) = (u64::from(*all.start()), u64::from(*all.end()));
        Some(first * Self::BLOCK..(last + 1) * Self::BLOCK)
    }

    /// The ranges of bytes, rising, none touching the next, cut at the disk's size.
    pub fn ranges(&self, size: u64) -> impl Iterator<Item = Range<u64>> + '_ {
        let mut blocks = self.0.iter().peekable();
        std::iter::from_fn(move || {
            let first = blocks.next()?;
            let mut last = first;
            while blocks.next_if(|next| *next == last + 1).is_some() {
                last += 1;
            }
            let start = u64::from(first) * Self::BLOCK;
            let end = (u64::from(last) + 1) * Self::BLOCK;
            (start < size).then(|| start..end.min(size))
        })
    }
}

impl BitOrAssign<&Changes> for Changes {
    fn bitor_assign(&mut self, other: &Changes) {
        self.0 |= &other.0;
    }
}

/// In a record: roaring's portable form, in base64.
impl Serialize for Changes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut bytes = Vec::with_capacity(self.0.serialized_size());
        self.0
            .serialize_into(&mut bytes)
            .map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            bytes,
        ))
    }
}

impl<'de> Deserialize<'de> for Changes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text)
            .map_err(serde::de::Error::custom)?;
        RoaringBitmap::deserialize_from(bytes.as_slice())
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_whole_blocks_cut_at_the_end() {
        let mut changes = Changes::none();
        changes.touch(1..2);
        changes.touch(Changes::BLOCK..Changes::BLOCK + 1);
        changes.touch(Changes::BLOCK * 5 - 1..Changes::BLOCK * 6 + 1);
        changes.touch(7..7);
        let size = Changes::BLOCK * 6 + 512;
        let ranges: Vec<_> = changes.ranges(size).collect();
        assert_eq!(
            ranges,
            [0..Changes::BLOCK * 2, Changes::BLOCK * 4..size],
            "joined, and the last one is cut"
        );
        assert!(changes.contains(Changes::BLOCK) && !changes.contains(Changes::BLOCK * 2));
    }

    #[test]
    fn a_record_holds_the_same_blocks() {
        let mut changes = Changes::none();
        for at in [0, 3, 900, 1 << 24] {
            changes.touch(at * Changes::BLOCK..at * Changes::BLOCK + 1);
        }
        let text = serde_json::to_string(&changes).unwrap();
        assert_eq!(serde_json::from_str::<Changes>(&text).unwrap(), changes);
    }
}
