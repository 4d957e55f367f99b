//! The guest program: one member of the ring, or a writer in a file system.
//!
//! Started by the initramfs once devices and network are up; what it does is on
//! the kernel's command line:
//!
//! | word            | meaning                                                    |
//! |-----------------|------------------------------------------------------------|
//! | `ring.index=I`  | this member's index, from 0 (default 0)                     |
//! | `ring.count=N`  | members in the ring, at least 1                             |
//! | `ring.pace=MS`  | no ring: write the next counter by itself every MS ms       |
//! | `ring.dirty=M`  | also keep dirtying the page cache with M MB/s (default 0)   |
//! | `ring.sync=0`   | write without O_DSYNC: the host may keep it in its cache    |
//! | `ring.pulse=1`  | tell each write with a byte on the second serial port       |
//! | `ring.agent=1`  | no ring: append records to a file in /data, see [`writer`]  |
//!
//! Either way it prints `ring INDEX COUNTER` on the console about five times a
//! second, the counter being the last one that is safely on every disk.

mod member;
mod writer;

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What the kernel's command line asks for.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    index: u32,
    count: u32,
    pace: u32,
    dirty: u32,
    sync: bool,
    pulse: bool,
    agent: bool,
}

impl Options {
    fn parse(command_line: &str) -> Result<Options, String> {
        let mut options = Options {
            index: 0,
            count: 0,
            pace: 0,
            dirty: 0,
            sync: true,
            pulse: false,
            agent: false,
        };
        for word in command_line.split_whitespace() {
            let Some((key, value)) = word.split_once('=') else {
                continue;
            };
            let target = match key {
                "ring.index" => &mut options.index,
                "ring.count" => &mut options.count,
                "ring.pace" => &mut options.pace,
                "ring.dirty" => &mut options.dirty,
                "ring.agent" | "ring.pulse" | "ring.sync" => {
                    let yes = value == "1";
                    match key {
                        "ring.agent" => options.agent = yes,
                        "ring.pulse" => options.pulse = yes,
                        _ => options.sync = yes,
                    }
                    continue;
                }
                _ => continue,
            };
            *target = value
                .parse()
                .map_err(|_| format!("{word}: a whole number is needed after ="))?;
        }
        if !options.agent && (options.count < 1 || options.index >= options.count) {
            return Err(format!(
                "ring.count must be at least 1 and ring.index below it, not {} and {}",
                options.count, options.index
            ));
        }
        Ok(options)
    }
}

/// Says on the console how far this guest has come, five times a second.
struct Sign {
    index: u32,
    last: Option<Instant>,
}

impl Sign {
    const EVERY: Duration = Duration::from_millis(200);

    fn new(index: u32) -> Sign {
        Sign { index, last: None }
    }

    fn show(&mut self, counter: u64) {
        if self.last.is_some_and(|last| last.elapsed() < Self::EVERY) {
            return;
        }
        self.last = Some(Instant::now());
        say(&format!("ring {} {counter}", self.index));
    }
}

/// One line on the console. A console that cannot be written stops nobody.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn run() -> Result<(), String> {
    let command_line =
        std::fs::read_to_string("/proc/cmdline").map_err(|e| format!("/proc/cmdline: {e}"))?;
    let options = Options::parse(&command_line)?;
    if options.agent {
        writer::run(&options)
    } else {
        member::run(&options)
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            say(&format!("isochron-ring: {reason}"));
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_from_the_kernel_command_line() {
        let options = Options::parse("console=ttyS0 quiet ring.index=2 ring.count=3 ring.dirty=8");
        let expected = Options {
            index: 2,
            count: 3,
            pace: 0,
            dirty: 8,
            sync: true,
            pulse: false,
            agent: false,
        };
        assert_eq!(options, Ok(expected));
        let options = Options::parse("ring.count=1 ring.pace=25 ring.sync=0 ring.pulse=1");
        assert!(
            options.is_ok_and(|o| (o.count, o.pace, o.sync, o.pulse) == (1, 25, false, true)),
            "a member by itself"
        );
        assert!(Options::parse("quiet").is_err());
        assert!(Options::parse("ring.index=3 ring.count=3").is_err());
        assert!(Options::parse("ring.count=0").is_err());
        assert!(Options::parse("ring.index=x ring.count=3").is_err());
        assert!(Options::parse("ring.agent=1").is_ok_and(|o| o.agent));
    }
}
