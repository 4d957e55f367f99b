//! Where the layers' files hold the data of a disk, as `qemu-img map` tells it: what
//! lies there as it is can be read without going through QEMU, which halves the work.
//!
//! It is told while the disk is copied, from its start to its end, in step with the
//! copy. Layers beneath the instant's may be merged meanwhile: that writes into a lower
//! file only what a higher one covers, and what is covered is never read from below.
//! All files are open when [`Map::start`] returns. Data that does not lie in a file as
//! it is (compressed, encrypted) is read through QEMU.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

use isochron_engine::model::ImageFormat;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Deserialize;

use crate::control::{Control, LOOK};
use crate::digest::BLOCK;
use crate::server::{Image, PATIENCE, node};

/// The longest line that is taken.
const LINE: u64 = 4096;
/// qcow2's incompatible feature of data in another file.
const EXTERNAL_DATA: u64 = 1 << 2;

/// Data of a disk in a layer's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Which of the chain's files, and where in it; `None` is zeroes.
    pub(crate) at: Option<(usize, u64)>,
    pub(crate) bytes: u64,
}

/// What blocks are, from some block on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Blocks {
    /// So many are zero.
    Zero(u64),
    /// So many lie in files.
    Direct(u64, Vec<Segment>),
    /// So many are to be read through QEMU.
    Through(u64),
}

/// A running `qemu-img map`.
#[derive(Debug)]
pub(crate) struct Map {
    process: Child,
    extents: Extents<BufReader<Words>>,
    complaints: File,
}

impl Map {
    /// Opens a chain and its files. `None` if its data does not lie in them.
    pub(crate) fn start(
        qemu_img: &Path,
        chain: &[Image],
        size: u64,
        control: &Arc<Control>,
    ) -> io::Result<Option<(Self, Vec<File>)>> {
        let mut files = Vec::new();
        for image in chain {
            let file = File::open(&image.path)?;
            if image.format == ImageFormat::Qcow2 && !plain(&file)? {
                return Ok(None);
            }
            files.push(file);
        }
        let node = node(chain).map_err(io::Error::other)?;
        let complaints = tempfile::tempfile()?;
        // It ends when nobody reads what it writes.
        let mut process = Command::new(qemu_img)
            .args(["map", "--output=json"])
            .arg(format!("json:{node}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(complaints.try_clone()?)
            .spawn()?;
        let Some(stdout) = process.stdout.take() else {
            return Err(io::Error::other("no standard output"));
        };
        let words = Words {
            inner: stdout,
            control: control.clone(),
        };
        let mut map = Self {
            process,
            extents: Extents::new(BufReader::new(words), files.len(), size),
            complaints,
        };
        // The first line comes after all files are open.
        if let Err(error) = map.extents.advance() {
            return Err(map.explain(error));
        }
        Ok(Some((map, files)))
    }

    /// What the blocks from `first` on are: no more than `most` that are read.
    pub(crate) fn blocks(&mut self, first: u64, end: u64, most: u64) -> io::Result<Blocks> {
        let blocks = self.extents.blocks(first, end, most);
        blocks.map_err(|error| self.explain(error))
    }

    /// What the process said, if it said something.
    fn explain(&mut self, error: io::Error) -> io::Error {
        let mut said = String::new();
        let _ = self.complaints.rewind();
        let _ = (&self.complaints).take(LINE).read_to_string(&mut said);
        match said.trim() {
            "" => error,
            said => io::Error::other(format!("qemu-img map: {said}")),
        }
    }
}

/// What the process writes; given up when the work is stopped, or nothing comes.
#[derive(Debug)]
struct Words {
    inner: ChildStdout,
    control: Arc<Control>,
}

impl Read for Words {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let began = Instant::now();
        let wait = Timespec::try_from(LOOK).map_err(io::Error::other)?;
        loop {
            let mut watched = [PollFd::new(&self.inner, PollFlags::IN)];
            if poll(&mut watched, Some(&wait))? > 0 {
                return self.inner.read(into);
            }
            if self.control.check().is_err() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if began.elapsed() > PATIENCE {
                let why = "qemu-img map does not answer";
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether a qcow2 image's data lies in its own file as it is.
fn plain(file: &File) -> io::Result<bool> {
    let mut header = [0; 80];
    file.read_exact_at(&mut header, 0)?;
    let number = |at: usize, bytes: usize| {
        let number = header[at..at + bytes].iter();
        number.fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let (version, encrypted, features) = (number(4, 4), number(32, 4), number(72, 8));
    Ok(encrypted == 0 && (version < 3 || features & EXTERNAL_DATA == 0))
}

/// One extent, as `qemu-img map` writes it.
#[derive(Clone, Debug, Deserialize)]
struct Extent {
    start: u64,
    length: u64,
    depth: usize,
    zero: bool,
    data: bool,
    offset: Option<u64>,
}

/// The extents of a disk, in their order.
#[derive(Debug)]
struct Extents<R> {
    lines: R,
    files: usize,
    size: u64,
    now: Option<Extent>,
}

impl<R: BufRead> Extents<R> {
    fn new(lines: R, files: usize, size: u64) -> Self {
        Self {
            lines,
            files,
            size,
            now: None,
        }
    }

    fn blocks(&mut self, first: u64, end: u64, most: u64) -> io::Result<Blocks> {
        let zero = self.zero_blocks(first, end)?;
        if zero > 0 {
            return Ok(Blocks::Zero(zero));
        }
        let mut segments: Vec<Segment> = Vec::new();
        let mut through = false;
        let mut block = first;
        while block < end && block - first < most {
            if block > first && self.zero_blocks(block, end)? > 0 {
                break;
            }
            let mut at = block * BLOCK;
            let to = (at + BLOCK).min(self.size);
            while at < to {
                let extent = self.at(at)?;
                let bytes = (extent.start + extent.length).min(to) - at;
                let place = match (extent.zero, extent.data, extent.offset) {
                    (true, ..) => None,
                    (false, true, Some(offset)) => {
                        Some((extent.depth, offset + (at - extent.start)))
                    }
                    _ => {
                        through = true;
                        None
                    }
                };
                let follows = match (segments.last(), place) {
                    (Some(last), Some((file, offset))) => last
                        .at
                        .is_some_and(|(of, from)| of == file && from + last.bytes == offset),
                    (Some(last), None) => last.at.is_none(),
                    (None, _) => false,
                };
                match segments.last_mut() {
                    Some(last) if follows => last.bytes += bytes,
                    _ => segments.push(Segment { at: place, bytes }),
                }
                at += bytes;
            }
            block += 1;
        }
        Ok(match through {
            true => Blocks::Through(block - first),
            false => Blocks::Direct(block - first, segments),
        })
    }

    /// How many whole blocks from this one on are zero by one extent.
    fn zero_blocks(&mut self, block: u64, end: u64) -> io::Result<u64> {
        let size = self.size;
        let extent = self.at(block * BLOCK)?;
        if !extent.zero {
            return Ok(0);
        }
        let to = extent.start + extent.length;
        let last = if to >= size {
            end
        } else {
            (to / BLOCK).min(end)
        };
        Ok(last.saturating_sub(block))
    }

    /// The extent that holds a byte, which is never before one that was asked for.
    fn at(&mut self, byte: u64) -> io::Result<&Extent> {
        while self
            .now
            .as_ref()
            .is_none_or(|extent| extent.start + extent.length <= byte)
        {
            self.advance()?;
        }
        self.now.as_ref().ok_or_else(|| invalid("nothing"))
    }

    /// Reads the next extent.
    fn advance(&mut self) -> io::Result<()> {
        let begin = self.now.as_ref().map_or(0, |last| last.start + last.length);
        if begin >= self.size {
            return Ok(());
        }
        let mut line = String::new();
        (&mut self.lines).take(LINE).read_line(&mut line)?;
        let text = line
            .trim()
            .trim_start_matches('[')
            .trim_end_matches([',', ']']);
        let extent: Extent =
            serde_json::from_str(text).map_err(|_| invalid("qemu-img map says something else"))?;
        let end = extent.start.checked_add(extent.length);
        let fits = extent.start == begin
            && extent.length > 0
            && extent.depth < self.files
            && end.is_some_and(|end| end <= self.size)
            && extent
                .offset
                .is_none_or(|offset| offset.checked_add(extent.length).is_some());
        if !fits {
            return Err(invalid("qemu-img map tells of another disk"));
        }
        self.now = Some(extent);
        Ok(())
    }
}

/// Reads segments into a buffer of their length. What a file does not have is zero, as
/// QEMU has it.
pub(crate) fn read(files: &[File], segments: &[Segment], mut into: &mut [u8]) -> io::Result<()> {
    for segment in segments {
        let length = (segment.bytes as usize).min(into.len());
        let (now, rest) = into.split_at_mut(length);
        into = rest;
        let Some((file, offset)) = segment.at else {
            now.fill(0);
            continue;
        };
        let file = files.get(file).ok_or_else(|| invalid("no such file"))?;
        let mut done = 0;
        while done < now.len() {
            match file.read_at(&mut now[done..], offset + done as u64) {
                Ok(0) => {
                    now[done..].fill(0);
                    break;
                }
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => (),
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extents(size: u64, text: &str) -> Extents<&[u8]> {
        Extents::new(text.as_bytes(), 2, size)
    }

    #[test]
    fn extents_become_blocks() {
        let b = BLOCK;
        let size = 10 * b + 512;
        let text = format!(
            r#"[{{ "start": 0, "length": {}, "depth": 0, "present": true, "zero": false, "data": true, "offset": 4096}},
{{ "start": {}, "length": {}, "depth": 1, "present": true, "zero": false, "data": true, "offset": 8192}},
{{ "start": {}, "length": {}, "depth": 0, "present": false, "zero": true, "data": false}},
{{ "start": {}, "length": {}, "depth": 0, "present": true, "zero": false, "data": true, "compressed": true}},
{{ "start": {}, "length": {}, "depth": 0, "present": false, "zero": true, "data": false}}]
"#,
            b + 512,
            b + 512,
            b,
            2 * b + 512,
            4 * b,
            6 * b + 512,
            b,
            7 * b + 512,
            3 * b
        );
        let segment = |at, bytes| Segment { at, bytes };
        let mut map = extents(size, &text);
        assert_eq!(
            map.blocks(0, 11, 2).unwrap(),
            Blocks::Direct(
                2,
                vec![
                    segment(Some((0, 4096)), b + 512),
                    segment(Some((1, 8192)), b - 512)
                ]
            )
        );
        assert_eq!(
            map.blocks(2, 11, 16).unwrap(),
            Blocks::Direct(
                1,
                vec![
                    segment(Some((1, 8192 + b - 512)), 512),
                    segment(None, b - 512)
                ]
            ),
            "up to where whole blocks are zero"
        );
        assert_eq!(map.blocks(3, 11, 16).unwrap(), Blocks::Zero(3));
        assert_eq!(map.blocks(6, 11, 16).unwrap(), Blocks::Through(2));
        assert_eq!(
            map.blocks(8, 11, 16).unwrap(),
            Blocks::Zero(3),
            "a part at the end"
        );
    }

    #[test]
    fn other_words_are_refused() {
        let one = |start: u64, length: u64, depth: u64| {
            format!(
                r#"[{{ "start": {start}, "length": {length}, "depth": {depth}, "zero": true, "data": false}}]"#
            )
        };
        extents(9, &one(0, 9, 1)).blocks(0, 1, 1).unwrap();
        for text in [
            String::new(),
            "[]".to_owned(),
            "qemu-img: an error".to_owned(),
            one(1, 8, 0),
            one(0, 0, 0),
            one(0, 10, 0),
            one(0, 9, 2),
            "[".repeat(10_000),
        ] {
            assert!(extents(9, &text).blocks(0, 1, 1).is_err(), "{text}");
        }
    }
}
