//! The guardian, with a daemon that ends, is killed, hangs or keeps its word.

#![allow(clippy::unwrap_used)] // functions of tests

mod common;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::*;
use isochron_engine::model::{Machine, Power};
use isochron_engine::ports::*;
use isochron_qemu::{QemuConfig, QemuHypervisor};
use rustix::process::Signal;
use serde_json::json;

const LONG: Duration = Duration::from_secs(60);

fn guarded(vm: &Vm) -> Guarded {
    Guarded {
        machine: vm.machine.id,
        resume: true,
        thaw: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_acts_when_its_line_closes_and_only_when_armed() {
    let host = Host::new();
    let (one, two) = (host.machine(&[]), host.machine(&[]));
    let mut monitors = Vec::new();
    let mut lives = Vec::new();
    for vm in [&one, &two] {
        let live = host.qemu.start(vm.start()).await.unwrap();
        live.resume().await.unwrap();
        monitors.push(Monitor::open(&host.observe(vm)));
        lives.push(live);
    }
    let members = [
        guarded(&one),
        Guarded {
            resume: false,
            ..guarded(&two)
        },
    ];

    // Unarmed, and disarmed.
    for armed in [false, true] {
        let guard = host.qemu.guard(&members).await.unwrap();
        if armed {
            guard.arm(LONG).await.unwrap();
        }
        lives[0].stop().await.unwrap();
        if armed {
            assert!(guard.disarm().await.unwrap());
        }
        drop(guard);
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert_eq!(monitors[0].status(), "paused");
        lives[0].resume().await.unwrap();
    }

    // Armed.
    let guard = host.qemu.guard(&members).await.unwrap();
    guard.arm(LONG).await.unwrap();
    lives[0].stop().await.unwrap();
    lives[1].stop().await.unwrap();
    drop(guard);
    eventually("the resume", || monitors[0].status() == "running").await;
    assert_eq!(monitors[1].status(), "paused");
    // The connection that it spoke on is still good: it takes none of our answers.
    for _ in 0..20 {
        lives[0].stop().await.unwrap();
        lives[0].resume().await.unwrap();
    }
    for vm in [&one, &two] {
        host.qemu.kill(&vm.machine).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_acts_at_the_deadline_and_says_so() {
    let host = Host::new();
    let vm = host.machine(&[]);
    let live = host.qemu.start(vm.start()).await.unwrap();
    live.resume().await.unwrap();
    let guard = host.qemu.guard(&[guarded(&vm)]).await.unwrap();
    guard.arm(LONG).await.unwrap();
    guard.arm(Duration::from_millis(100)).await.unwrap();
    live.stop().await.unwrap();
    let mut monitor = Monitor::open(&host.observe(&vm));
    eventually("the resume", || monitor.status() == "running").await;
    assert!(!guard.disarm().await.unwrap());
    assert!(guard.arm(LONG).await.is_err());
    live.stop().await.unwrap();
    drop(guard);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(monitor.status(), "paused");
    host.qemu.kill(&vm.machine).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_empties_memory_that_a_resume_forfeits() {
    let host = Host::new();
    let vm = host.machine(&[]);
    let live = host.qemu.start(vm.start()).await.unwrap();
    live.resume().await.unwrap();
    let memory = host.path("memory");
    let bytes = || std::fs::metadata(&memory).unwrap().len();
    let mut monitor = Monitor::open(&host.observe(&vm));
    for disarmed in [true, false] {
        std::fs::write(&memory, "memory").unwrap();
        let guard = host.qemu.guard(&[guarded(&vm)]).await.unwrap();
        guard.arm(LONG).await.unwrap();
        live.stop().await.unwrap();
        guard.forfeits(&memory).await.unwrap();
        if disarmed {
            assert!(guard.disarm().await.unwrap());
            assert_eq!(host.qemu.kept_memory(&memory).await.unwrap(), Some(6));
            drop(guard);
            live.resume().await.unwrap();
            continue;
        }
        // Who asks while it may be emptied waits until that is known.
        let asked = host.qemu.kept_memory(&memory);
        let acts = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            assert_eq!((bytes(), monitor.status()), (6, "paused".into()));
            drop(guard);
        };
        assert_eq!(tokio::join!(asked, acts).0.unwrap(), None);
        eventually("the resume", || monitor.status() == "running").await;
        assert_eq!(bytes(), 0);
    }
    host.qemu.kill(&vm.machine).await.unwrap();
}

/// A guest is not let run where that would leave it memory to be started from again.
#[tokio::test(flavor = "multi_thread")]
async fn it_resumes_nobody_whose_memory_it_cannot_empty() {
    let host = Host::new();
    let vm = host.machine(&[]);
    let live = host.qemu.start(vm.start()).await.unwrap();
    live.resume().await.unwrap();
    let guard = host.qemu.guard(&[guarded(&vm)]).await.unwrap();
    guard.arm(LONG).await.unwrap();
    live.stop().await.unwrap();
    // A file that takes no other length.
    guard.forfeits("/dev/full".as_ref()).await.unwrap();
    drop(guard);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut monitor = Monitor::open(&host.observe(&vm));
    assert_eq!(monitor.status(), "paused");
    host.qemu.kill(&vm.machine).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn its_resume_comes_after_a_stop_that_hangs() {
    let mut host = Host::new();
    host.config.answer = Duration::from_millis(200);
    host.new_daemon();
    let vm = host.machine(&[]);
    let live = host.qemu.start(vm.start()).await.unwrap();
    live.resume().await.unwrap();
    let guard = host.qemu.guard(&[guarded(&vm)]).await.unwrap();
    guard.arm(LONG).await.unwrap();
    let pid = host.pid(&vm).unwrap();
    signal(pid, Signal::STOP);
    assert!(live.stop().await.is_err());
    drop(guard);
    tokio::time::sleep(Duration::from_millis(100)).await;
    signal(pid, Signal::CONT);
    let mut monitor = Monitor::open(&host.observe(&vm));
    eventually("the resume", || monitor.status() == "running").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(monitor.status(), "running");
    host.qemu.kill(&vm.machine).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_leaves_no_process() {
    let mut host = Host::new();
    let own = host.path("guardian-of-this-test");
    std::os::unix::fs::symlink(&host.config.guardian_exe, &own).unwrap();
    host.config.guardian_exe = own.clone();
    host.new_daemon();
    let processes = || {
        let own = own.to_str().unwrap().as_bytes();
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        all.filter(|entry| {
            std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| line.starts_with(own))
        })
        .count()
    };
    let zombies = || {
        let me = std::process::id().to_string();
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        all.filter(|entry| {
            let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
            let mut fields = stat
                .rsplit(')')
                .next()
                .unwrap_or_default()
                .split_whitespace();
            fields.next() == Some("Z") && fields.next() == Some(&me)
        })
        .count()
    };
    let guard = host.qemu.guard(&[]).await.unwrap();
    guard.arm(LONG).await.unwrap();
    assert_eq!(processes(), 1);
    assert!(guard.disarm().await.unwrap());
    drop(guard);
    eventually("the guardian's end", || processes() == 0 && zombies() == 0).await;
}

/// The daemon of the tests below, in a process of its own: finds the machine,
/// guards it, stops it, and then does nothing any more.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "is run by others as their daemon"]
async fn daemon() {
    let Ok(run_dir) = std::env::var("DAEMON_RUN_DIR") else {
        return;
    };
    let qemu_dir = PathBuf::from(&run_dir);
    let mut config = QemuConfig::new(run_dir);
    config.guardian_exe = env!("CARGO_BIN_EXE_isochron-guardian").into();
    config.guardian_args = vec![];
    let qemu = QemuHypervisor::new(config);
    let vm: Machine = serde_json::from_str(&std::env::var("DAEMON_MACHINE").unwrap()).unwrap();
    let live = live(&qemu, &vm).await;
    let member = Guarded {
        machine: vm.id,
        resume: true,
        thaw: false,
    };
    let guard = qemu.guard(&[member]).await.unwrap();
    let deadline = std::env::var("DAEMON_DEADLINE_MS")
        .unwrap()
        .parse()
        .unwrap();
    guard.arm(Duration::from_millis(deadline)).await.unwrap();
    let save = std::env::var("DAEMON_SAVE").ok();
    let mode = match &save {
        Some(_) => live.prepare_save(Power::Paused).await.ok(),
        None => None,
    };
    live.stop().await.unwrap();
    if let Some((path, mode)) = save.zip(mode) {
        let mut monitor = Monitor::open(&qemu_dir.join(vm.id.to_string()).join("observe.sock"));
        let slow = json!({ "max-bandwidth": 20_000 });
        monitor.run("migrate-set-parameters", slow).unwrap();
        tokio::spawn(async move { live.save(path.as_ref(), &mode).await });
        eventually("the save", || {
            let migration = monitor.run("query-migrate", json!({})).unwrap();
            migration["status"] == "active"
        })
        .await;
    }
    println!("\nstopped");
    std::future::pending().await
}

fn spawn_daemon(host: &Host, vm: &Vm, deadline: Duration, save: Option<&Path>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    if let Some(save) = save {
        command.env("DAEMON_SAVE", save);
    }
    let mut child = command
        .args(["--ignored", "--exact", "daemon", "--nocapture"])
        .env("DAEMON_RUN_DIR", &host.config.run_dir)
        .env(
            "DAEMON_MACHINE",
            serde_json::to_string(&vm.machine).unwrap(),
        )
        .env("DAEMON_DEADLINE_MS", deadline.as_millis().to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(
        lines.any(|line| line.unwrap() == "stopped"),
        "the daemon ended"
    );
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_or_stopped_daemon_leaves_no_guest_standing() {
    let mut host = Host::new();
    let vm = host.machine(&[]);
    host.qemu
        .start(vm.start())
        .await
        .unwrap()
        .resume()
        .await
        .unwrap();
    let mut monitor = Monitor::open(&host.observe(&vm));
    // One connection to the monitor at a time: this process gives up its own.
    host.new_daemon();

    let mut daemon = spawn_daemon(&host, &vm, LONG, None);
    assert_eq!(monitor.status(), "paused");
    daemon.kill().unwrap();
    eventually("the resume", || monitor.status() == "running").await;
    daemon.wait().unwrap();

    let mut daemon = spawn_daemon(&host, &vm, Duration::from_millis(1500), None);
    signal(i32::try_from(daemon.id()).unwrap(), Signal::STOP);
    assert_eq!(monitor.status(), "paused");
    eventually("the resume", || monitor.status() == "running").await;
    daemon.kill().unwrap();
    daemon.wait().unwrap();

    // A new daemon has the machine at once.
    let live = live(&host.qemu, &vm.machine).await;
    live.stop().await.unwrap();
    live.resume().await.unwrap();
    host.qemu.kill(&vm.machine).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_save_that_the_daemon_left_does_not_stop_the_guest_again() {
    let mut host = Host::new();
    let vm = host.machine(&[]);
    let live = host.qemu.start(vm.start()).await.unwrap();
    live.resume().await.unwrap();
    drop(live);
    host.new_daemon();
    let mut daemon = spawn_daemon(&host, &vm, LONG, Some(&host.path("memory")));
    // The other process has had the second monitor until now.
    let mut monitor = Monitor::open(&host.observe(&vm));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    eventually("the resume", || monitor.status() == "running").await;
    eventually("the end of the save", || {
        let migration = monitor.run("query-migrate", json!({})).unwrap();
        migration["status"] == "cancelled"
    })
    .await;
    assert_eq!(monitor.status(), "running");
    let live = common::live(&host.qemu, &vm.machine).await;
    live.cancel_save().await.unwrap();
    assert_eq!(live.power().await.unwrap(), Power::Running);
    host.qemu.kill(&vm.machine).await.unwrap();
}
