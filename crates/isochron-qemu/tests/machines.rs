//! Starting, finding again, attaching and ending machines.

#![allow(clippy::unwrap_used)] // functions of tests

mod common;

use std::time::Duration;

use common::*;
use isochron_engine::model::*;
use isochron_engine::ports::*;
use rustix::process::Signal;
use serde_json::json;

const QCOW2: ImageFormat = ImageFormat::Qcow2;
const RAW: ImageFormat = ImageFormat::Raw;

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_outlives_its_daemon_and_is_found_again() {
    let mut host = Host::new();
    let mut vm = host.machine(&[("root", QCOW2), ("a disk with a very long, odd name", RAW)]);
    vm.machine.definition.serial_log = Some(host.path("serial, log"));
    vm.machine.definition.guest_agent = true;
    vm.machine.definition.nics = vec![Nic {
        netdev: "hubport,hubid=0".to_owned(),
        mac: None,
    }];
    assert!(host.qemu.live(&vm.machine).await.unwrap().is_none());
    let started = host.qemu.start(vm.start()).await.unwrap();
    assert_eq!(started.power().await.unwrap(), Power::Paused);
    assert!(
        started
            .machine_type()
            .await
            .unwrap()
            .unwrap()
            .starts_with("pc-q35-")
    );
    let pid = host.pid(&vm).unwrap();
    assert_eq!(started.process_id(), u32::try_from(pid).ok());
    assert!(started.resume().await.unwrap() > 1_600_000_000_000_000);
    let again = host.qemu.start(vm.start()).await;
    assert!(matches!(again, Err(HypervisorError::Invalid(_))));

    drop(started);
    host.new_daemon();
    let live = live(&host.qemu, &vm.machine).await;
    assert_eq!(live.power().await.unwrap(), Power::Running);
    assert_eq!(live.process_id(), u32::try_from(pid).ok());
    let disks = live.disks().await.unwrap();
    assert_eq!(disks.len(), 2);
    for (disk, chain) in disks.iter().zip(&vm.chains) {
        assert_eq!(disk.path, chain[0].path);
        assert_eq!(disk.chain, [chain[0].path.clone()]);
        assert_eq!(disk.format, chain[0].format);
        assert_eq!((disk.virtual_size, disk.read_only), (16 * MIB, false));
        assert_eq!(disk.excluded, None);
    }
    assert_eq!(disks[1].name, "a disk with a very long, odd name");
    assert!(!live.agent_answers().await);

    let begin = std::fs::read(host.path("serial, log"));
    assert!(begin.is_ok());
    host.qemu.kill(&vm.machine).await.unwrap();
    assert!(!runs(pid));
    assert!(host.qemu.live(&vm.machine).await.unwrap().is_none());
    host.qemu.kill(&vm.machine).await.unwrap();
    assert_eq!(std::fs::read_dir(&host.config.run_dir).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_ended_by_itself_is_off() {
    let host = Host::new();
    let vm = host.machine(&[]);
    let live = host.qemu.start(vm.start()).await.unwrap();
    let pid = host.pid(&vm).unwrap();
    signal(pid, Signal::KILL);
    // Its threads and its socket end one after the other.
    let begin = std::time::Instant::now();
    while host.qemu.live(&vm.machine).await.unwrap().is_some() {
        assert!(begin.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(live.stop().await, Err(HypervisorError::Off));
    host.qemu.start(vm.start()).await.unwrap();
    host.qemu.kill(&vm.machine).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_machine_is_killed_too() {
    let mut host = Host::new();
    host.config.answer = Duration::from_millis(300);
    host.new_daemon();
    let vm = host.machine(&[]);
    host.qemu.start(vm.start()).await.unwrap();
    let pid = host.pid(&vm).unwrap();
    signal(pid, Signal::STOP);
    host.new_daemon();
    assert!(matches!(
        host.qemu.live(&vm.machine).await,
        Err(HypervisorError::Timeout(_))
    ));
    host.qemu.kill(&vm.machine).await.unwrap();
    assert!(!runs(pid));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_start_tells_why_and_leaves_nothing() {
    let host = Host::new();
    let mut vm = host.machine(&[("root", QCOW2)]);
    vm.machine.definition.extra_args = vec!["-device".to_owned(), "flux-capacitor".to_owned()];
    let Err(HypervisorError::Failed(text)) = host.qemu.start(vm.start()).await else {
        panic!()
    };
    assert!(text.contains("flux-capacitor"), "{text}");
    assert_eq!(std::fs::read_dir(&host.config.run_dir).unwrap().count(), 0);

    vm.machine.definition.extra_args.clear();
    std::fs::write(host.path("memory"), "no memory at all").unwrap();
    let start = Start {
        memory: Some(host.path("memory")),
        ..vm.start()
    };
    let Err(HypervisorError::Failed(text)) = host.qemu.start(start).await else {
        panic!()
    };
    assert!(text.contains("Not a migration stream"), "{text}");
    assert_eq!(std::fs::read_dir(&host.config.run_dir).unwrap().count(), 0);

    let start = Start {
        machine_type: Some("pc-q35-0.1".to_owned()),
        ..vm.start()
    };
    let Err(HypervisorError::Failed(text)) = host.qemu.start(start).await else {
        panic!()
    };
    assert!(text.contains("machine type"), "{text}");

    // Nothing of the three attempts holds the image.
    host.qemu.start(vm.start()).await.unwrap();
    host.qemu.kill(&vm.machine).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_directory_too_deep_for_sockets_is_refused_with_words() {
    let mut host = Host::new();
    host.config.run_dir = host.path(&"deep/".repeat(20));
    host.new_daemon();
    let vm = host.machine(&[]);
    let Err(HypervisorError::Invalid(text)) = host.qemu.start(vm.start()).await else {
        panic!()
    };
    assert!(text.contains("too long"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn kvm_is_not_believed_before_a_guest_ran() {
    let mut host = Host::new();
    // A QEMU whose guests hang under KVM, as far as anyone can see.
    let script = host.path("qemu");
    let text = format!(
        "#!/bin/sh\ncase \"$*\" in *'-accel kvm'*) exec sleep 60;; esac\nexec {} \"$@\"\n",
        qemu_binary().display()
    );
    std::fs::write(&script, text).unwrap();
    run("chmod", &["+x", script.to_str().unwrap()]);
    host.config.qemu_binary = script;
    host.new_daemon();
    let mut vm = host.machine(&[]);
    vm.machine.definition.accel = Accelerator::Auto;
    host.qemu.start(vm.start()).await.unwrap();
    let pid = host.pid(&vm).unwrap();
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(String::from_utf8_lossy(&command).contains("accel=tcg"));
    host.qemu.kill(&vm.machine).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_checked_against_the_files() {
    let host = Host::new();
    let mut vm = host.machine(&[("root", QCOW2), ("data", RAW)]);
    assert_eq!(
        host.qemu.check(&vm.machine.definition).await.unwrap(),
        [None, None]
    );
    vm.machine.definition.disks[1].format = QCOW2;
    let Err(HypervisorError::Invalid(text)) = host.qemu.check(&vm.machine.definition).await else {
        panic!()
    };
    assert!(text.contains("data.raw is not a qcow2 image"), "{text}");
    vm.machine.definition.disks[1].path = host.path("nowhere");
    let Err(HypervisorError::Invalid(text)) = host.qemu.check(&vm.machine.definition).await else {
        panic!()
    };
    assert!(text.contains("nowhere"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attached_machine_is_snapshotted_and_merged_like_ours() {
    let host = Host::new();
    host.image("base.raw", RAW);
    run(
        "qemu-img",
        &[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-b",
            "base.raw",
            "-F",
            "raw",
            host.path("root.qcow2").to_str().unwrap(),
        ],
    );
    host.image("throttled.qcow2", QCOW2);
    let owned = owned(
        &host,
        &[
            "-drive",
            "file=root.qcow2,if=none,id=drive0,cache=none",
            "-device",
            "virtio-blk-pci,drive=drive0",
            "-object",
            "throttle-group,id=limits",
            "-blockdev",
            r#"{"driver":"throttle","node-name":"t0","throttle-group":"limits","file":{"driver":"qcow2","file":{"driver":"file","filename":"throttled.qcow2"}}}"#,
            "-device",
            "virtio-blk-pci,drive=t0,id=second",
            "-blockdev",
            r#"{"driver":"null-co","read-zeroes":true,"size":1048576,"node-name":"n0"}"#,
            "-device",
            "virtio-blk-pci,drive=n0,id=third",
            "-device",
            "ide-cd,id=empty",
        ],
    );
    let live = live(&host.qemu, &owned.machine).await;
    assert_eq!(live.process_id(), Some(owned.child.id()));
    let disks = live.disks().await.unwrap();
    let names: Vec<_> = disks.iter().map(|disk| &*disk.name).collect();
    assert_eq!(names, ["drive0", "second", "third"]);
    assert_eq!(
        disks[0].chain,
        [host.path("root.qcow2"), host.path("base.raw")]
    );
    assert_eq!(disks[1].chain, [host.path("throttled.qcow2")]);
    assert_eq!(disks[0].format, QCOW2);
    assert!(disks[0].excluded.is_none() && disks[1].excluded.is_none());
    assert!(
        disks[2].excluded.as_ref().unwrap().contains("null-co"),
        "{:?}",
        disks[2]
    );

    // A snapshot of the two that can be.
    let mut vm = Vm {
        machine: owned.machine.clone(),
        chains: vec![],
    };
    for disk in &disks[..2] {
        let layer = LayerFile {
            id: LayerId::new(),
            path: disk.path.clone(),
            format: disk.format,
        };
        vm.chains.push(vec![layer]);
        vm.machine.definition.disks.push(DiskDefinition {
            name: disk.name.clone(),
            path: disk.path.clone(),
            format: disk.format,
            cache: Cache::None,
            read_only: false,
        });
    }
    let other = host.path("other");
    let second = "/machine/peripheral/second/virtio-backend";
    qemu_io(&other, second, "write -P 1 0 64k");
    let frozen = host.snapshot(&mut vm, &*live).await;
    qemu_io(&other, second, "write -P 2 0 64k");
    image_reads(&frozen[1].path, QCOW2, 1, "0", "64k");
    let after = live.disks().await.unwrap();
    assert_eq!(after[0].name, "drive0");
    assert_eq!(after[0].path, vm.chains[0][0].path);
    assert_eq!(after[1].path, vm.chains[1][0].path);
    // The overlay is used as the image was: past the host's cache.
    let block = Monitor::open(&other).run("query-block", json!({})).unwrap();
    assert_eq!(block[0]["inserted"]["cache"]["direct"], true);

    for (disk, chain) in names[..2].iter().zip(&vm.chains) {
        live.begin_merge_active(disk, &chain[0], &chain[1], &|_| ())
            .await
            .unwrap();
        live.stop().await.unwrap();
        live.end_merge_active(disk, &chain[1]).await.unwrap();
        live.resume().await.unwrap();
    }
    qemu_io(&other, second, "read -P 2 0 64k");
    qemu_io(&other, second, "write -P 3 64k 64k");
    assert_eq!(live.disks().await.unwrap()[1].path, frozen[1].path);

    assert!(matches!(
        host.qemu.kill(&owned.machine).await,
        Err(HypervisorError::NotSupported(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_somebody_holds_is_told_and_one_without_qemu_is_off() {
    let mut host = Host::new();
    host.config.answer = Duration::from_secs(1);
    host.new_daemon();
    let owned = owned(&host, &[]);
    let holder = Monitor::open(&host.path("qmp"));
    let Err(HypervisorError::Timeout(text)) = host.qemu.live(&owned.machine).await else {
        panic!()
    };
    assert!(text.contains("another client"), "{text}");
    drop(holder);
    let live = live(&host.qemu, &owned.machine).await;
    assert_eq!(live.power().await.unwrap(), Power::Running);
    let machine = owned.machine.clone();
    drop(owned);
    assert!(host.qemu.live(&machine).await.unwrap().is_none());
    assert_eq!(live.power().await, Err(HypervisorError::Off));
}
