//! A member of the ring: hears a counter from its left, writes it down, passes
//! it to its right.
//!
//! ```text
//!     member 0 --c--> member 1 --c--> ... --c--> member N-1
//!        ^                                           |
//!        +---------------------- c ------------------+   0 goes on with c + 1
//! ```
//!
//! Own counter: the highest that is on all own disks; 0 on empty disks.
//!
//! - Member 0 hears `c` from the last: when `c` is its own counter, the round is
//!   complete; it writes `c + 1` and sends it. Others hear `c`: when `c` is their
//!   own counter plus one, they write it and send it.
//! - Writing means: `O_DIRECT|O_DSYNC`, on every disk, in their order, before
//!   anything is sent. So of the chain (member 0 disk 0, member 0 disk 1, ...,
//!   member 1 disk 0, ...) no link is ever above the one before it, and the first
//!   never leads the last by more than one. This is what the oracle checks.
//! - Anything else that is heard (a duplicate, something old, something from a
//!   time that was undone) changes nothing: no member writes backwards or skips.
//! - Nothing new for 100 ms: the own counter is sent again, then after 200, 400 and
//!   so on. Hence any state that obeys the chain goes on by itself whatever
//!   datagrams were lost: where the counter steps down from `c` to `c - 1`, the
//!   right side hears `c` and takes it; when all hold `c`, member 0 hears it from
//!   the last and starts the next round. That covers a member that was killed and
//!   restarted, and a whole ring restored to a common instant. A ring restored to
//!   *no* common instant does not obey the chain, and stands still: nobody hears
//!   the counter that it could take.
//! - The pauses double because a neighbour that stands still keeps what it is sent
//!   in a queue of ten, and QEMU spins once that is full. A member that starts
//!   therefore calls to its left, which sends its counter at once.
//! - At the start the disks are read. A kill between two disks leaves the later
//!   ones one behind; they are brought up before anything is sent.
//!
//! A ring of one has nobody to hear from, and with `ring.pace` no member listens:
//! then each writes its next counter by itself, at that pace. What members wrote
//! that way says nothing about an instant.
//!
//! Datagrams go to the broadcast address of a /30 that has just two ends, so no
//! address resolution stands between a restarted member and its neighbours.

use crate::{Options, Sign, say};
use isochron_ring::record::{AREA, Page, Record, SIZE, SLOTS};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::{Duration, Instant};

const PORT: u16 = 7777;
const CALL_PORT: u16 = 7778;
const RESEND: Duration = Duration::from_millis(100);
const RESEND_MAX: Duration = Duration::from_secs(3600);
const MAX_DISKS: u8 = 8;
/// Between two writes of a ring of one: about what a ring of three reaches.
const ALONE_MS: u32 = 5;
/// Where each write is told.
const PULSE: &str = "/dev/ttyS1";

/// Runs the member until something fails; it never ends by itself.
pub(crate) fn run(options: &Options) -> Result<(), String> {
    let mut disks = Disks::open(options)?;
    let mut counter = disks.recover()?;
    say(&format!(
        "ring {} starts at {counter} with {} disk(s)",
        options.index,
        disks.files.len()
    ));
    if options.dirty > 0 {
        let rate = options.dirty;
        std::thread::spawn(move || {
            if let Err(error) = dirty(rate) {
                say(&format!("isochron-ring: load on /dev/vda: {error}"));
            }
        });
    }

    let mut sign = Sign::new(options.index);
    let alone = match (options.pace, options.count) {
        (0, 1) => Some(ALONE_MS),
        (0, _) => None,
        (pace, _) => Some(pace),
    };
    if let Some(pace) = alone {
        let pace = Duration::from_millis(pace.into());
        loop {
            counter += 1;
            disks.write(counter)?;
            sign.show(counter);
            std::thread::sleep(pace);
        }
    }

    let link = Link::open(options).map_err(|e| format!("network: {e}"))?;
    let mut pause = RESEND;
    let mut sent = link.send(counter);
    link.call();
    loop {
        let heard = link.hear().map_err(|e| format!("network: {e}"))?;
        let next = match heard {
            Some(c) if options.index == 0 && c == counter => Some(c + 1),
            Some(c) if options.index != 0 && c == counter + 1 => Some(c),
            _ => None,
        };
        if let Some(next) = next {
            disks.write(next)?;
            counter = next;
            pause = RESEND;
            sent = link.send(counter);
        } else if link.called() {
            sent = link.send(counter);
        } else if sent.elapsed() >= pause {
            pause = RESEND_MAX.min(pause * 2);
            sent = link.send(counter);
        }
        sign.show(counter);
    }
}

/// The two ends of this member: it hears on its left and sends to its right.
struct Link {
    left: UdpSocket,
    right: UdpSocket,
    caller: UdpSocket,
    calls: UdpSocket,
    left_to: Ipv4Addr,
    right_to: Ipv4Addr,
    index: u32,
    left_index: u32,
}

impl Link {
    /// Link `i` is between member `i` (10.77.i.1) and the next (10.77.i.2).
    fn open(options: &Options) -> io::Result<Link> {
        let address = |link: u32, host: u8| match u8::try_from(link) {
            Ok(link) => Ok(Ipv4Addr::new(10, 77, link, host)),
            Err(_) => Err(io::Error::other("a ring has at most 256 members")),
        };
        let left_index = (options.index + options.count - 1) % options.count;
        let left_to = address(left_index, 3)?;
        let right_to = address(options.index, 3)?;
        let left = UdpSocket::bind((left_to, PORT))?;
        left.set_read_timeout(Some(RESEND))?;
        let right = UdpSocket::bind((address(options.index, 1)?, 0))?;
        let caller = UdpSocket::bind((address(left_index, 2)?, 0))?;
        let calls = UdpSocket::bind((right_to, CALL_PORT))?;
        // A queue that is full must not hold up the member: the datagram is lost.
        for socket in [&right, &caller, &calls] {
            socket.set_broadcast(true)?;
            socket.set_nonblocking(true)?;
        }
        Ok(Link {
            left,
            right,
            caller,
            calls,
            left_to,
            right_to,
            index: options.index,
            left_index,
        })
    }

    /// Asks the left neighbour for its counter.
    fn call(&self) {
        let _ = self.caller.send_to(&[1], (self.left_to, CALL_PORT));
    }

    /// Whether the right neighbour has asked since this was last looked at.
    fn called(&self) -> bool {
        self.calls.recv(&mut [0; 1]).is_ok()
    }

    /// Sends the counter; a datagram that cannot be sent is a lost datagram.
    fn send(&self, counter: u64) -> Instant {
        let mut datagram = [0; 12];
        datagram[..4].copy_from_slice(&self.index.to_le_bytes());
        datagram[4..].copy_from_slice(&counter.to_le_bytes());
        let _ = self.right.send_to(&datagram, (self.right_to, PORT));
        Instant::now()
    }

    /// The next counter from the left, or `None` when none came within 100 ms.
    fn hear(&self) -> io::Result<Option<u64>> {
        let mut datagram = [0; 13];
        match self.left.recv(&mut datagram) {
            Ok(12) => {
                let (from, counter) = datagram[..12].split_at(4);
                let from_left = from == self.left_index.to_le_bytes();
                Ok(counter
                    .try_into()
                    .ok()
                    .filter(|_| from_left)
                    .map(u64::from_le_bytes))
            }
            Ok(_) => Ok(None),
            Err(e) => match e.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(None),
                _ => Err(e),
            },
        }
    }
}

/// The member's data disks: /dev/vda, /dev/vdb and so on, as many as there are.
struct Disks {
    member: u32,
    files: Vec<File>,
    page: Page,
    /// Takes a byte for each counter that is on all disks.
    pulse: Option<File>,
}

impl Disks {
    fn open(options: &Options) -> Result<Disks, String> {
        let sync = if options.sync { libc::O_DSYNC } else { 0 };
        let mut files = Vec::new();
        for letter in (b'a'..).take(usize::from(MAX_DISKS)) {
            let path = format!("/dev/vd{}", char::from(letter));
            let opened = OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(libc::O_DIRECT | sync)
                .open(&path);
            match opened {
                Ok(file) => files.push(file),
                Err(e) if e.kind() == ErrorKind::NotFound => break,
                Err(e) => return Err(format!("{path}: {e}")),
            }
        }
        if files.is_empty() {
            return Err("there is no /dev/vda to write to".into());
        }
        let pulse = match options.pulse {
            true => {
                let port = OpenOptions::new()
                    .write(true)
                    .custom_flags(libc::O_NOCTTY)
                    .open(PULSE);
                Some(port.map_err(|e| format!("{PULSE}: {e}"))?)
            }
            false => None,
        };
        Ok(Disks {
            member: options.index,
            files,
            page: Page::default(),
            pulse,
        })
    }

    /// Finds the highest counter on any disk and brings every disk up to it.
    fn recover(&mut self) -> Result<u64, String> {
        let mut tops = Vec::new();
        for (disk, file) in self.files.iter().enumerate() {
            let mut top = 0;
            for slot in 0..SLOTS {
                file.read_exact_at(&mut self.page.0, slot * SIZE as u64)
                    .map_err(|e| format!("disk {disk}: {e}"))?;
                if let Some(record) = Record::decode(&self.page.0) {
                    top = record.counter.max(top);
                }
            }
            tops.push(top);
        }
        let highest = tops.iter().copied().max().unwrap_or(0);
        for (disk, top) in tops.into_iter().enumerate() {
            if top < highest {
                self.write_on(disk, highest)?;
            }
        }
        Ok(highest)
    }

    /// Writes the counter to all disks, in order; on return it is on all of them.
    fn write(&mut self, counter: u64) -> Result<(), String> {
        (0..self.files.len()).try_for_each(|disk| self.write_on(disk, counter))?;
        if let Some(port) = &mut self.pulse {
            // A port that cannot be written stops nobody.
            let _ = port.write_all(b".");
        }
        Ok(())
    }

    fn write_on(&mut self, disk: usize, counter: u64) -> Result<(), String> {
        let record = Record {
            member: self.member,
            // At most MAX_DISKS are open.
            disk: disk as u32,
            counter,
        };
        record.encode(&mut self.page);
        self.files[disk]
            .write_all_at(&self.page.0, record.offset())
            .map_err(|e| format!("disk {disk}: writing counter {counter}: {e}"))
    }
}

/// The extra load: buffered writes of `rate` MB/s round and round the part of
/// /dev/vda that no record occupies, so that the page cache is always dirty.
fn dirty(rate: u32) -> io::Result<()> {
    const PIECE: u64 = 256 * 1024;
    let file = OpenOptions::new().write(true).open("/dev/vda")?;
    let mut end = &file;
    let size = io::Seek::seek(&mut end, io::SeekFrom::End(0))?;
    let pause = Duration::from_secs_f64(PIECE as f64 / (f64::from(rate) * 1e6));
    let mut piece = vec![0u8; PIECE as usize];
    let mut due = Instant::now();
    loop {
        let mut at = AREA;
        while at + PIECE <= size {
            let content = piece[0].wrapping_add(1);
            piece.fill(content);
            file.write_all_at(&piece, at)?;
            at += PIECE;
            due += pause;
            match due.checked_duration_since(Instant::now()) {
                Some(early) => std::thread::sleep(early),
                None => due = Instant::now(),
            }
        }
        if at == AREA {
            return Err(io::Error::other("the disk has no room beside the records"));
        }
    }
}
