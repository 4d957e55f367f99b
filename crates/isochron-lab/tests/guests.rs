//! The lab's guests on real QEMU: without these, nothing that is judged by them
//! would prove anything.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

use isochron_lab::disk::Format;
use isochron_lab::guest::Guest;
use isochron_lab::kit::Kit;
use isochron_lab::oracle::{Image, Verdict};
use isochron_lab::ring::{Options, Ring, agent_machine};
use isochron_lab::{filesystem, oracle, serial};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Far beyond what a guest needs: it boots in a few seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// A line-wise JSON conversation, as with the monitor or the agent.
struct Talk {
    stream: BufReader<UnixStream>,
}

impl Talk {
    fn with(socket: &Path) -> Talk {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Talk {
            stream: BufReader::new(stream),
        }
    }

    fn monitor(socket: &Path) -> Talk {
        let mut talk = Talk::with(socket);
        talk.ask("qmp_capabilities", json!({}));
        talk
    }

    /// Sends a command and gives its return value; other lines are passed over.
    fn ask(&mut self, command: &str, arguments: Value) -> Value {
        let request = json!({"execute": command, "arguments": arguments});
        writeln!(self.stream.get_mut(), "{request}").unwrap();
        loop {
            let mut line = String::new();
            assert!(self.stream.read_line(&mut line).unwrap() > 0, "{command}");
            let mut reply: Value = serde_json::from_str(&line).unwrap();
            assert!(reply.get("error").is_none(), "{command}: {reply}");
            if let Some(value) = reply.get_mut("return") {
                return value.take();
            }
        }
    }
}

/// The ring goes round, stands with a member that is killed, goes on when that is
/// started again, and comes up from its disks; the oracle agrees throughout.
#[test]
fn a_ring_counts_and_survives_the_death_of_a_member() {
    let kit = Kit::load().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        disks: 2,
        dirty_mbps: 4,
        ..Options::default()
    };
    let ring = Ring::create(&kit, dir.path(), &options).unwrap();
    let mut guests = ring.spawn().unwrap();
    ring.wait_alive(LIMIT).unwrap();
    ring.wait_progress(50, LIMIT).unwrap();

    guests.remove(1).kill();
    // One datagram may still be under way to member 2.
    std::thread::sleep(Duration::from_secs(1));
    let stood_at = ring.counter_now(0).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    assert!(ring.counter_now(0).unwrap() <= stood_at + 1);
    let verdict = oracle::judge(&ring.images()).unwrap();
    assert!(verdict.is_consistent(), "{verdict}");

    guests.insert(
        1,
        Guest::start(&ring.members[1].definition, dir.path()).unwrap(),
    );
    ring.wait_progress(20, LIMIT).unwrap();
    assert!(ring.counter_now(1).unwrap() > stood_at);

    guests.into_iter().for_each(Guest::kill);
    let Verdict::Consistent { counters } = oracle::judge(&ring.images()).unwrap() else {
        panic!("{}", oracle::judge(&ring.images()).unwrap());
    };
    let highest = counters[0][0];
    assert!(highest >= ring.counter_now(0).unwrap());

    // All of them again, as after a power cut: they go on, and not from 0.
    let guests = ring.spawn().unwrap();
    let start = Instant::now();
    while ring.counter_now(2).unwrap() <= highest {
        assert!(start.elapsed() < LIMIT, "the ring does not go on");
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(guests);
    let verdict = oracle::judge(&ring.images()).unwrap();
    assert!(verdict.is_consistent(), "{verdict}");
}

/// Images copied while all members stand still are an instant; copied one after
/// the other while the ring runs they are none, and the oracle says so. Were it
/// silent here, its word elsewhere would mean nothing.
#[test]
fn only_what_was_caught_together_is_consistent() {
    let kit = Kit::load().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        format: Format::Raw,
        ..Options::default()
    };
    let ring = Ring::create(&kit, dir.path(), &options).unwrap();
    let guests = ring.spawn().unwrap();
    ring.wait_alive(LIMIT).unwrap();
    let copy = |index: usize| -> Vec<Image> {
        let from = &ring.members[index].definition.disks[0].path;
        let to = dir.path().join(format!("copy-{index}"));
        std::fs::copy(from, &to).unwrap();
        vec![Image::new(to, Format::Raw)]
    };
    for _ in 0..3 {
        let mut monitors: Vec<Talk> = guests.iter().map(|g| Talk::monitor(&g.qmp)).collect();
        let mut all = |command: &str| {
            monitors
                .iter_mut()
                .for_each(|m| _ = m.ask(command, json!({})))
        };
        all("stop");
        let images: Vec<_> = (0..3).map(copy).collect();
        all("cont");
        let verdict = oracle::judge(&images).unwrap();
        assert!(verdict.is_consistent(), "{verdict}");
        ring.wait_progress(20, LIMIT).unwrap();
    }

    let mut images = vec![copy(0)];
    ring.wait_progress(20, LIMIT).unwrap();
    images.extend([copy(1), copy(2)]);
    drop(guests);
    let verdict = oracle::judge(&images).unwrap();
    assert!(!verdict.is_consistent(), "{verdict}");
}

/// The guest with the agent: it answers, its file system freezes and holds the
/// writer up, and a copy from that moment is clean where one in use is not.
#[test]
fn the_agent_answers_and_a_frozen_file_system_is_clean() {
    let kit = Kit::load().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let machine = agent_machine(&kit, dir.path(), "app", Format::Raw).unwrap();
    let disk = machine.definition.disks[0].path.clone();
    let guest = Guest::start(&machine.definition, dir.path()).unwrap();
    let logs = [machine.definition.serial_log.clone()];
    serial::wait_progress(&logs, 20, LIMIT).unwrap();

    let copy = |name: &str| -> Image {
        let to = dir.path().join(name);
        let mut monitor = Talk::monitor(&guest.qmp);
        monitor.ask("stop", json!({}));
        std::fs::copy(&disk, &to).unwrap();
        monitor.ask("cont", json!({}));
        Image::new(to, Format::Raw)
    };
    let crash = copy("crash");
    let shown = machine.counter_now().unwrap();

    let mut agent = Talk::with(guest.agent.as_deref().unwrap());
    assert_eq!(agent.ask("guest-ping", json!({})), json!({}));
    assert_eq!(agent.ask("guest-fsfreeze-status", json!({})), "thawed");
    assert_eq!(agent.ask("guest-fsfreeze-freeze", json!({})), 1);
    assert_eq!(agent.ask("guest-fsfreeze-status", json!({})), "frozen");
    let frozen = copy("frozen");
    // What was written before the freeze may yet appear on the console.
    std::thread::sleep(Duration::from_millis(500));
    let held = machine.counter_now();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(machine.counter_now(), held, "the writer is not held up");
    assert_eq!(agent.ask("guest-fsfreeze-thaw", json!({})), 1);
    serial::wait_progress(&logs, 20, LIMIT).unwrap();

    let crash = filesystem::inspect(&crash).unwrap();
    assert!(!crash.clean && crash.counter > 0, "{crash:?}");
    let frozen = filesystem::inspect(&frozen).unwrap();
    assert!(frozen.clean && frozen.counter >= shown, "{frozen:?}");

    // The power button ends it in an orderly way.
    Talk::monitor(&guest.qmp).ask("system_powerdown", json!({}));
    let start = Instant::now();
    while std::fs::exists(format!("/proc/{}/exe", guest.pid())).unwrap() {
        assert!(start.elapsed() < LIMIT, "the power button does nothing");
        std::thread::sleep(Duration::from_millis(100));
    }
    let left = filesystem::inspect(&Image::new(&disk, Format::Raw)).unwrap();
    assert!(left.clean && left.counter > frozen.counter, "{left:?}");
}

/// A ring of one goes on by itself, and so does a member that is idle; each write
/// is told on the second serial port.
#[test]
fn a_member_alone_writes_and_tells_each_write() {
    let kit = Kit::load().unwrap();
    for (count, idle) in [(1, false), (2, true)] {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            count,
            idle,
            pulse: true,
            sync: false,
            ..Options::default()
        };
        let ring = Ring::create(&kit, dir.path(), &options).unwrap();
        let _guests = ring.spawn().unwrap();
        for (member, port) in ring.pulses().iter().enumerate() {
            let mut port = UnixStream::connect(port).unwrap();
            port.set_read_timeout(Some(LIMIT)).unwrap();
            ring.wait_alive(LIMIT).unwrap();
            let before = ring.counter_now(member).unwrap();
            let mut told = [0; 50];
            port.read_exact(&mut told).unwrap();
            assert_eq!(told, [b'.'; 50]);
            ring.wait_progress(1, LIMIT).unwrap();
            assert!(ring.counter_now(member).unwrap() > before);
        }
    }
}
