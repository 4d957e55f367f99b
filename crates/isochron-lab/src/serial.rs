//! What a guest says on its serial port, seen from the host.
//!
//! A guest's own clock stops with it, so whether it lives is judged here: by the
//! lines `ring INDEX COUNTER` that the guest program writes about five times a
//! second into the serial log.

use anyhow::{Result, bail};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The last bytes of a log that are looked at.
const TAIL: u64 = 16 * 1024;

/// How often a log is looked at.
const EVERY: Duration = Duration::from_millis(50);

/// The counter in the last whole line `ring INDEX COUNTER` of a serial log;
/// `None` when there is none (yet).
pub fn counter(log: &Path) -> Option<u64> {
    let mut file = File::open(log).ok()?;
    let size = file.seek(SeekFrom::End(0)).ok()?;
    file.seek(SeekFrom::Start(size.saturating_sub(TAIL))).ok()?;
    let mut tail = Vec::new();
    file.take(TAIL).read_to_end(&mut tail).ok()?;
    last_counter(&String::from_utf8_lossy(&tail))
}

fn last_counter(text: &str) -> Option<u64> {
    let (whole, _unfinished) = text.rsplit_once('\n')?;
    whole.lines().rev().find_map(|line| {
        let mut words = line.trim().strip_prefix("ring ")?.split(' ');
        let (_index, counter) = (words.next()?, words.next()?.parse().ok()?);
        words.next().is_none().then_some(counter)
    })
}

/// Waits until every log has shown the counter go up by at least `by` from what
/// it is now. A log that steps back (its guest was restored) counts from the
/// lowest value seen.
///
/// # Errors
/// When a guest has not come so far within `limit`; the message has the end of
/// its log.
pub fn wait_progress(logs: &[PathBuf], by: u64, limit: Duration) -> Result<()> {
    let start = Instant::now();
    let mut lowest: Vec<Option<u64>> = logs.iter().map(|log| counter(log)).collect();
    let mut done = vec![false; logs.len()];
    loop {
        for ((log, lowest), done) in logs.iter().zip(&mut lowest).zip(&mut done) {
            let Some(now) = counter(log) else { continue };
            let base = lowest.map_or(now, |seen| seen.min(now));
            *lowest = Some(base);
            *done |= now >= base + by;
        }
        if done.iter().all(|done| *done) {
            return Ok(());
        }
        if start.elapsed() > limit {
            break;
        }
        std::thread::sleep(EVERY);
    }
    let late: Vec<String> = logs
        .iter()
        .zip(done)
        .filter(|(_, done)| !done)
        .map(|(log, _)| format!("{} ends with {:?}", log.display(), end(log)))
        .collect();
    bail!(
        "no progress by {by} within {} s: {}",
        limit.as_secs(),
        late.join("; ")
    )
}

/// The last lines of a log, for messages.
fn end(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(3)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn only_whole_lines_of_the_guest_program_count() {
        assert_eq!(last_counter(""), None);
        assert_eq!(last_counter("ring 0 12"), None);
        assert_eq!(last_counter("ring 0 12\r\nring 0 1"), Some(12));
        assert_eq!(last_counter("ring 0 12\nring 0 starts at 13\n"), Some(12));
        assert_eq!(last_counter("ring 0 12\nkernel: x\n"), Some(12));
    }

    #[test]
    fn progress_is_counted_from_where_a_restored_guest_begins() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let mut file = File::create(&log).unwrap();
        writeln!(file, "ring 0 900").unwrap();
        let logs = [log];
        let still = wait_progress(&logs, 1, Duration::from_millis(120)).unwrap_err();
        assert!(still.to_string().contains("ring 0 900"), "{still}");
        let watcher = std::thread::spawn(move || {
            wait_progress(&logs, 5, Duration::from_secs(20)).map(|()| logs)
        });
        for counter in [300, 302, 306] {
            std::thread::sleep(EVERY * 4);
            writeln!(file, "ring 0 {counter}").unwrap();
        }
        watcher.join().unwrap().unwrap();
    }
}
