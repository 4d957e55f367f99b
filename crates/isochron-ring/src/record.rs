//! One record of the ring: 4096 bytes, written whole and aligned.
//!
//! ```text
//! offset  size  content
//!      0     8  magic "ISORING1"
//!      8     4  member, little endian
//!     12     4  disk of the member, little endian
//!     16     8  counter, little endian, from 1
//!     24  4064  filler: a byte sequence that depends on the counter, so that a
//!               torn write mixes two fillers and fails the checksum
//!   4088     8  FNV-1a (64 bit) of the bytes before it, little endian
//! ```
//!
//! Record `n` lies at `(n mod SLOTS) * SIZE`: a new record destroys only the
//! oldest one, and a disk carries the last [`SLOTS`] counters as its history.

/// Bytes of one record; also the alignment that `O_DIRECT` gets.
pub const SIZE: usize = 4096;

/// Records kept per disk. Together they fill the first [`AREA`] bytes.
pub const SLOTS: u64 = 256;

/// Records per file of the writer in a file system; it keeps two such files.
pub const SEGMENT: u64 = 4096;

/// Bytes at the start of a disk that records occupy: 1 MiB.
pub const AREA: u64 = SLOTS * SIZE as u64;

const MAGIC: [u8; 8] = *b"ISORING1";
const CHECKSUM_AT: usize = SIZE - 8;

/// A memory page that holds one record, aligned as `O_DIRECT` demands.
#[repr(C, align(4096))]
#[derive(Clone)]
pub struct Page(pub [u8; SIZE]);

impl Default for Page {
    fn default() -> Self {
        Page([0; SIZE])
    }
}

/// What one valid record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// Index of the ring member that wrote it, from 0.
    pub member: u32,
    /// Index of the disk within the member, from 0.
    pub disk: u32,
    /// The counter, from 1.
    pub counter: u64,
}

impl Record {
    /// Byte offset on the disk at which this record belongs.
    pub fn offset(&self) -> u64 {
        self.counter % SLOTS * SIZE as u64
    }

    /// Writes the record into `page`, whose former content is lost.
    pub fn encode(&self, page: &mut Page) {
        let bytes = &mut page.0;
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&self.member.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.disk.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.counter.to_le_bytes());
        for (at, byte) in bytes[24..CHECKSUM_AT].iter_mut().enumerate() {
            *byte = (at as u64).wrapping_mul(31).wrapping_add(self.counter) as u8;
        }
        let sum = checksum(&bytes[..CHECKSUM_AT]);
        bytes[CHECKSUM_AT..].copy_from_slice(&sum.to_le_bytes());
    }

    /// Reads a record; `None` for anything that is not one whole valid record
    /// (an empty slot, a torn write, foreign data).
    pub fn decode(bytes: &[u8]) -> Option<Record> {
        let bytes: &[u8; SIZE] = bytes.try_into().ok()?;
        let (body, sum) = bytes.split_at(CHECKSUM_AT);
        if body[..8] != MAGIC || sum != checksum(body).to_le_bytes() {
            return None;
        }
        let word = |at: usize| Some(u32::from_le_bytes(body[at..at + 4].try_into().ok()?));
        let record = Record {
            member: word(8)?,
            disk: word(12)?,
            counter: u64::from_le_bytes(body[16..24].try_into().ok()?),
        };
        (record.counter > 0).then_some(record)
    }
}

/// FNV-1a with 64 bits: one multiplication per byte, and enough to notice that
/// a page is not the one that was written.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: Record = Record {
        member: 2,
        disk: 1,
        counter: 70_001,
    };

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        let mut page = Page::default();
        RECORD.encode(&mut page);
        assert_eq!(Record::decode(&page.0), Some(RECORD));
        assert_eq!(RECORD.offset(), 70_001 % 256 * 4096);
    }

    #[test]
    fn any_flipped_bit_and_every_torn_write_is_noticed() {
        let (mut old, mut new) = (Page::default(), Page::default());
        Record {
            counter: RECORD.counter - SLOTS,
            ..RECORD
        }
        .encode(&mut old);
        RECORD.encode(&mut new);
        for at in 0..SIZE {
            let mut page = new.clone();
            page.0[at] ^= 0x10;
            assert_eq!(Record::decode(&page.0), None, "byte {at}");
        }
        for sectors in 1..8 {
            let mut page = old.clone();
            page.0[..sectors * 512].copy_from_slice(&new.0[..sectors * 512]);
            assert_eq!(Record::decode(&page.0), None, "{sectors} sectors");
        }
    }

    #[test]
    fn an_empty_disk_holds_no_record() {
        assert_eq!(Record::decode(&[0; SIZE]), None);
        assert_eq!(Record::decode(&[]), None);
    }
}
