//! A writer in a file system: appends records to a file, one `fsync` each.
//!
//! For guests with the guest agent: a frozen file system holds the writer up,
//! and what it had on the console before is in every later snapshot.
//!
//! Record `n` belongs to segment `(n - 1) / SEGMENT`, at `(n - 1) mod SEGMENT`
//! times 4096. Segments alternate between /data/writes.0 and /data/writes.1, and
//! a new one truncates the file it takes: /data never fills, and the last
//! [`SEGMENT`] records are always there.

use crate::{Options, Sign, say};
use isochron_ring::record::{Page, Record, SEGMENT, SIZE};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::time::Duration;

/// Leaves the machine time to breathe: at most about 50 writes a second.
const PAUSE: Duration = Duration::from_millis(20);

/// Appends until something fails; it never ends by itself.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    append(options).map_err(|e| format!("/data: {e}"))
}

fn append(options: &Options) -> io::Result<()> {
    let mut page = Page::default();
    let mut sign = Sign::new(options.index);
    let mut counter = highest()?;
    say(&format!(
        "ring {} starts at {counter} in /data",
        options.index
    ));
    let mut file = None;
    loop {
        let next = counter + 1;
        let mut out = match file.take() {
            Some(out) if counter % SEGMENT != 0 => out,
            _ => open(counter)?,
        };
        let record = Record {
            member: options.index,
            disk: 0,
            counter: next,
        };
        record.encode(&mut page);
        out.write_all(&page.0)?;
        out.sync_all()?;
        file = Some(out);
        counter = next;
        sign.show(counter);
        std::thread::sleep(PAUSE);
    }
}

fn path(segment: u64) -> String {
    format!("/data/writes.{}", segment % 2)
}

/// Opens the file for the record after `counter`, which ends at `counter`: what
/// a crash left behind it (half a record) goes.
fn open(counter: u64) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(path(counter / SEGMENT))?;
    file.set_len(counter % SEGMENT * SIZE as u64)?;
    Ok(file)
}

/// The highest counter in the two files; 0 when there is none.
fn highest() -> io::Result<u64> {
    let mut highest = 0;
    for segment in 0..2 {
        let bytes = match std::fs::read(path(segment)) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        let counters = bytes.chunks(SIZE).filter_map(Record::decode);
        highest = counters.map(|r| r.counter).fold(highest, u64::max);
    }
    Ok(highest)
}
