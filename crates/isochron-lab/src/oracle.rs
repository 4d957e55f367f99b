//! The oracle: whether what the disks of a ring hold can be one instant.
//!
//! For a write A that happened before a write B anywhere in the ring, one instant
//! holds neither, both, or only A: never only B. The ring's protocol orders its
//! writes, so this comes down to four rules on the counters (a member's disks are
//! written in order before it passes the counter on):
//!
//! 1. along the chain of disks (member 0 disk 0, member 0 disk 1, ..., member 1
//!    disk 0, ...) no counter is above the one before it;
//! 2. the first never leads the last by more than one;
//! 3. a disk's history has no gap: it was written one counter after the other;
//! 4. a disk holds records of its own member and place only.
//!
//! Images are read with `qemu-img` and nothing of the product's: frozen layers
//! with their backing chain, also while a running QEMU has them open.

use crate::disk::{Format, run};
use anyhow::{Context, Result, bail};
use isochron_ring::record::{AREA, Record, SIZE, SLOTS};
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

/// An image file to be read.
#[derive(Debug, Clone)]
pub struct Image {
    /// The file: the upper end of its chain of layers.
    pub path: PathBuf,
    /// Its format.
    pub format: Format,
}

impl Image {
    /// An image at `path`.
    pub fn new(path: impl Into<PathBuf>, format: Format) -> Image {
        Image {
            path: path.into(),
            format,
        }
    }
}

/// What the oracle says. Counters are per member, per disk; 0 is an empty disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The disks can be one instant.
    Consistent {
        /// Highest counter of every disk.
        counters: Vec<Vec<u64>>,
    },
    /// No instant of the ring looks like this.
    Violated {
        /// Highest counter of every disk.
        counters: Vec<Vec<u64>>,
        /// The first rule that is broken, as a sentence.
        why: String,
    },
}

impl Verdict {
    /// Whether the disks can be one instant.
    pub fn is_consistent(&self) -> bool {
        matches!(self, Verdict::Consistent { .. })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (counters, why) = match self {
            Verdict::Consistent { counters } => (counters, None),
            Verdict::Violated { counters, why } => (counters, Some(why)),
        };
        f.write_str(if why.is_some() {
            "violated:"
        } else {
            "consistent:"
        })?;
        for member in counters {
            let disks: Vec<String> = member.iter().map(u64::to_string).collect();
            write!(f, " {}", disks.join("/"))?;
        }
        match why {
            Some(why) => write!(f, " ({why})"),
            None => Ok(()),
        }
    }
}

/// Reads the images of every member (outer index: member, inner: disk) and judges
/// them.
///
/// # Errors
/// When an image cannot be read, or none holds a record yet: nothing was written,
/// so nothing can be judged.
pub fn judge(members: &[Vec<Image>]) -> Result<Verdict> {
    let areas = members
        .iter()
        .map(|disks| disks.iter().map(record_area).collect())
        .collect::<Result<Vec<Vec<_>>>>()?;
    judge_areas(&areas)
}

fn record_area(image: &Image) -> Result<Vec<u8>> {
    read(&image.path, image.format, 0, AREA)
}

/// Reads `length` bytes at `offset` (both multiples of 512) of the disk that an
/// image and its backing chain make up, through `qemu-img` and without a lock.
///
/// # Errors
/// When the image cannot be read or ends before.
pub fn read(path: &Path, format: Format, offset: u64, length: u64) -> Result<Vec<u8>> {
    const BLOCK: u64 = 512;
    let out = tempfile::NamedTempFile::new().context("creating a temporary file")?;
    let pair = |key: &str, path: &Path| {
        let mut text = OsString::from(key);
        text.push(path);
        text
    };
    let args = [
        "dd".into(),
        "-U".into(),
        "-f".into(),
        format.name().into(),
        "-O".into(),
        "raw".into(),
        format!("bs={BLOCK}").into(),
        format!("skip={}", offset / BLOCK).into(),
        // QEMU counts from the start of the input, not from what was skipped.
        format!("count={}", (offset + length) / BLOCK).into(),
        pair("if=", path),
        pair("of=", out.path()),
    ];
    run("qemu-img", args.iter().map(OsString::as_os_str))
        .with_context(|| format!("reading {}", path.display()))?;
    let bytes = std::fs::read(out.path())?;
    if bytes.len() as u64 != length {
        bail!("{} ends before byte {}", path.display(), offset + length);
    }
    Ok(bytes)
}

/// Judges the record areas of every disk.
fn judge_areas(members: &[Vec<Vec<u8>>]) -> Result<Verdict> {
    let mut counters = Vec::new();
    let mut why = None;
    let mut chain: Vec<(usize, usize, u64)> = Vec::new();
    for (member, disks) in members.iter().enumerate() {
        let mut tops = Vec::new();
        for (disk, area) in disks.iter().enumerate() {
            let (top, fault) = history(area, member, disk);
            why = why.or(fault);
            chain.push((member, disk, top));
            tops.push(top);
        }
        counters.push(tops);
    }
    let (Some(first), Some(last)) = (chain.first(), chain.last()) else {
        bail!("the oracle was given no image");
    };
    if chain.iter().all(|link| link.2 == 0) {
        bail!("no image holds a record: the ring has not written yet");
    }
    let broken = chain.windows(2).find(|pair| pair[1].2 > pair[0].2);
    if let Some([before, after]) = broken {
        why = why.or(Some(format!(
            "{} has {}, and {}, from which it came, only {}",
            place(after),
            after.2,
            place(before),
            before.2
        )));
    }
    if first.2 > last.2 + 1 {
        why = why.or(Some(format!(
            "{} has {}, which follows {} at {}, and that has only {}",
            place(first),
            first.2,
            first.2 - 1,
            place(last),
            last.2
        )));
    }
    Ok(match why {
        Some(why) => Verdict::Violated { counters, why },
        None => Verdict::Consistent { counters },
    })
}

fn place((member, disk, _): &(usize, usize, u64)) -> String {
    format!("member {member} disk {disk}")
}

/// The highest counter in a record area, and what is wrong with its history.
fn history(area: &[u8], member: usize, disk: usize) -> (u64, Option<String>) {
    let at = place(&(member, disk, 0));
    let slots: Vec<Option<Record>> = area.chunks(SIZE).map(Record::decode).collect();
    let top = slots.iter().flatten().map(|r| r.counter).max().unwrap_or(0);
    let foreign = slots
        .iter()
        .flatten()
        .find(|r| (r.member as usize, r.disk as usize) != (member, disk));
    if let Some(record) = foreign {
        let other = place(&(record.member as usize, record.disk as usize, 0));
        return (top, Some(format!("{at} holds a record of {other}")));
    }
    // The write after the highest may be under way, over the oldest of them.
    let oldest = (top + 2).saturating_sub(SLOTS).max(1);
    let gap = (oldest..=top).find(|counter| {
        let slot = slots.get((counter % SLOTS) as usize).copied().flatten();
        slot.is_none_or(|record| record.counter != *counter)
    });
    let fault = gap.map(|gap| format!("{at} has {top} but lost {gap}, which it wrote before"));
    (top, fault)
}

#[cfg(test)]
mod tests {
    use super::*;
    use isochron_ring::record::Page;
    use std::ffi::OsStr;

    /// The area of a disk that was written up to `top`.
    fn area(member: usize, disk: usize, top: u64) -> Vec<u8> {
        let mut area = vec![0; AREA as usize];
        for counter in 1..=top {
            put(&mut area, member, disk, counter);
        }
        area
    }

    fn put(area: &mut [u8], member: usize, disk: usize, counter: u64) {
        let mut page = Page::default();
        let record = Record {
            member: member as u32,
            disk: disk as u32,
            counter,
        };
        record.encode(&mut page);
        let at = record.offset() as usize;
        area[at..at + SIZE].copy_from_slice(&page.0);
    }

    fn ring(tops: &[&[u64]]) -> Vec<Vec<Vec<u8>>> {
        let disks = |(member, tops): (usize, &&[u64])| {
            let each = tops.iter().enumerate();
            each.map(|(disk, top)| area(member, disk, *top)).collect()
        };
        tops.iter().enumerate().map(disks).collect()
    }

    fn why(areas: &[Vec<Vec<u8>>]) -> String {
        match judge_areas(areas).unwrap() {
            Verdict::Violated { why, .. } => why,
            consistent => panic!("{consistent}"),
        }
    }

    #[test]
    fn every_state_that_the_protocol_reaches_is_consistent() {
        // The order in which two disks of three members are written, from empty.
        let mut tops = vec![vec![0u64; 2]; 3];
        for counter in 1..=300 {
            for member in 0..3 {
                for disk in 0..2 {
                    tops[member][disk] = counter;
                    if (1..3).contains(&counter) || (254..259).contains(&counter) {
                        let slices: Vec<&[u64]> = tops.iter().map(Vec::as_slice).collect();
                        let verdict = judge_areas(&ring(&slices)).unwrap();
                        let counters = tops.clone();
                        assert_eq!(verdict, Verdict::Consistent { counters });
                    }
                }
            }
        }
    }

    #[test]
    fn an_effect_without_its_cause_is_found() {
        assert!(why(&ring(&[&[10], &[11], &[10]])).contains("member 1 disk 0 has 11"));
        assert!(why(&ring(&[&[10], &[9], &[10]])).contains("member 2"));
        assert!(why(&ring(&[&[12], &[11], &[10]])).contains("that has only 10"));
        // A second disk ahead of the first, and one left behind.
        assert!(why(&ring(&[&[10, 11], &[10, 10]])).contains("member 0 disk 1"));
        assert!(why(&ring(&[&[11, 10], &[11, 10]])).contains("member 1 disk 0"));
        assert!(why(&ring(&[&[11, 11], &[11, 9]])).contains("that has only 9"));
        // One disk blank: its guest's writes were lost.
        assert!(why(&ring(&[&[10], &[0], &[0]])).contains("that has only 0"));
    }

    #[test]
    fn a_lost_write_in_the_middle_of_a_history_is_found() {
        for lost in [2, 299, 255] {
            let mut areas = ring(&[&[300], &[300]]);
            let at = (lost % SLOTS) as usize * SIZE;
            areas[1][0][at + 100] ^= 1;
            let expected = if lost == 2 { 258 } else { lost };
            assert!(why(&areas).contains(&format!("lost {expected}")));
        }
    }

    #[test]
    fn a_write_under_way_is_no_loss() {
        let mut areas = ring(&[&[300], &[300]]);
        let at = (301 % SLOTS) as usize * SIZE;
        areas[0][0][at..at + SIZE].fill(0xaa);
        assert!(judge_areas(&areas).unwrap().is_consistent());
    }

    #[test]
    fn images_in_each_others_place_are_found() {
        let mut areas = ring(&[&[10], &[10], &[10]]);
        areas.swap(1, 2);
        assert!(why(&areas).contains("holds a record of member 2"));
    }

    #[test]
    fn empty_images_are_no_proof_of_anything() {
        assert!(judge_areas(&ring(&[&[0], &[0]])).is_err());
        assert!(judge_areas(&[]).is_err());
    }

    /// The same through image files: layers on a raw base, with `qemu-img`.
    #[test]
    fn a_layer_is_read_with_what_is_below_it() {
        let dir = tempfile::tempdir().unwrap();
        let members: Vec<Vec<Image>> = (0..2)
            .map(|member| {
                let base = dir.path().join(format!("{member}.raw"));
                std::fs::write(&base, area(member, 0, 20)).unwrap();
                let layer = dir.path().join(format!("{member}.qcow2"));
                let args = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b"];
                let args = args.iter().map(OsStr::new);
                run(
                    "qemu-img",
                    args.chain([base.as_os_str(), layer.as_os_str()]),
                )
                .unwrap();
                vec![Image::new(layer, Format::Qcow2)]
            })
            .collect();
        let counters = vec![vec![20], vec![20]];
        assert_eq!(judge(&members).unwrap(), Verdict::Consistent { counters });
        std::fs::write(dir.path().join("0.raw"), area(0, 0, 19)).unwrap();
        let verdict = judge(&members).unwrap();
        assert!(!verdict.is_consistent());
        assert!(verdict.to_string().starts_with("violated: 19 20 ("));
        assert!(judge(&[vec![Image::new("/no/such", Format::Raw)]]).is_err());
    }
}
