//! The cut, saving memory and merging layers, on a real QEMU.

#![allow(clippy::unwrap_used)] // functions of tests

mod common;

use std::io::Write;
use std::time::Duration;

use common::*;
use isochron_engine::LiveMachine;
use isochron_engine::model::*;
use isochron_engine::ports::*;
use rustix::process::Signal;
use serde_json::{Value, json};

const QCOW2: ImageFormat = ImageFormat::Qcow2;
const RAW: ImageFormat = ImageFormat::Raw;

fn nothing(_: u8) {}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_taken_and_merged_while_the_guest_writes() {
    let host = Host::new();
    let mut vm = host.machine(&[("root", QCOW2), ("data", RAW)]);
    let live = host.qemu.start(vm.start()).await.unwrap();
    live.resume().await.unwrap();
    for disk in 0..2 {
        host.guest_write(&vm, disk, 1, "0", "192k");
    }
    let first = host.snapshot(&mut vm, &*live).await;
    for disk in 0..2 {
        host.guest_write(&vm, disk, 2, "64k", "128k");
    }
    let second = host.snapshot(&mut vm, &*live).await;
    for disk in 0..2 {
        host.guest_write(&vm, disk, 3, "128k", "64k");
    }
    // Each frozen layer holds its instant.
    for (first, second) in first.iter().zip(&second) {
        image_reads(&first.path, first.format, 1, "0", "192k");
        image_reads(&second.path, QCOW2, 1, "0", "64k");
        image_reads(&second.path, QCOW2, 2, "64k", "128k");
    }
    for (disk, chain) in live.disks().await.unwrap().iter().zip(&vm.chains) {
        assert_eq!(
            disk.chain,
            chain.iter().map(|l| l.path.clone()).collect::<Vec<_>>()
        );
    }

    // The layer in the middle goes.
    for (index, disk) in ["root", "data"].iter().enumerate() {
        let chain = &mut vm.chains[index];
        live.merge(disk, &chain[1], &chain[2], &chain[0], &nothing)
            .await
            .unwrap();
        // A call that was interrupted is made again.
        live.merge(disk, &chain[1], &chain[2], &chain[0], &nothing)
            .await
            .unwrap();
        let merged = chain.remove(1);
        assert_eq!(
            backing_of(&chain[0].path).unwrap(),
            chain[1].path.to_str().unwrap()
        );
        live.close_layers(std::slice::from_ref(&merged))
            .await
            .unwrap();
        std::fs::remove_file(&merged.path).unwrap();
        image_reads(&chain[1].path, chain[1].format, 2, "64k", "128k");
        host.guest_reads(&vm, index, 3, "128k", "64k");
    }

    // Then the active one.
    for (index, disk) in ["root", "data"].iter().enumerate() {
        let (top, base) = (vm.chains[index][0].clone(), vm.chains[index][1].clone());
        live.begin_merge_active(disk, &top, &base, &nothing)
            .await
            .unwrap();
        host.guest_write(&vm, index, 4, "0", "64k");
        live.begin_merge_active(disk, &top, &base, &nothing)
            .await
            .unwrap();
        live.stop().await.unwrap();
        live.end_merge_active(disk, &base).await.unwrap();
        live.end_merge_active(disk, &base).await.unwrap();
        assert_eq!(live.power().await.unwrap(), Power::Paused);
        live.resume().await.unwrap();
        vm.chains[index].remove(0);
        std::fs::remove_file(&top.path).unwrap();
        host.guest_write(&vm, index, 5, "192k", "64k");
        image_reads(&base.path, base.format, 4, "0", "64k");
        image_reads(&base.path, base.format, 2, "64k", "64k");
        image_reads(&base.path, base.format, 3, "128k", "64k");
        image_reads(&base.path, base.format, 5, "192k", "64k");
        let again = live.begin_merge_active(disk, &top, &base, &nothing).await;
        again.unwrap();
    }
    for (disk, chain) in live.disks().await.unwrap().iter().zip(&vm.chains) {
        assert_eq!(disk.chain, [chain[0].path.clone()]);
    }
    // And so it goes on, also in a new process.
    host.snapshot(&mut vm, &*live).await;
    host.qemu.kill(&vm.machine).await.unwrap();
    host.qemu.start(vm.start()).await.unwrap();
    host.guest_reads(&vm, 0, 4, "0", "64k");
    host.qemu.kill(&vm.machine).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_of_a_machine_that_is_off_are_merged_by_the_tool() {
    let host = Host::new();
    let mut vm = host.machine(&[("data", RAW)]);
    let live = host.qemu.start(vm.start()).await.unwrap();
    host.guest_write(&vm, 0, 1, "0", "64k");
    host.snapshot(&mut vm, &*live).await;
    host.guest_write(&vm, 0, 2, "64k", "64k");
    host.snapshot(&mut vm, &*live).await;
    host.guest_write(&vm, 0, 3, "128k", "64k");
    host.qemu.kill(&vm.machine).await.unwrap();
    let chain = vm.chains[0].clone();
    for layer in &chain {
        assert!(host.qemu.is_image(layer).await.unwrap());
    }
    // What stands on the merged layer is told so afterwards.
    host.qemu.merge_offline(&chain[1], &chain[2]).await.unwrap();
    host.qemu.merge_offline(&chain[1], &chain[2]).await.unwrap();
    host.qemu.rebase(&chain[0], &chain[2]).await.unwrap();
    host.qemu.delete_file(&chain[1].path).await.unwrap();
    host.qemu.delete_file(&chain[1].path).await.unwrap();
    assert!(!host.qemu.is_image(&chain[1]).await.unwrap());
    image_reads(&chain[2].path, RAW, 2, "64k", "64k");
    image_reads(&chain[0].path, QCOW2, 3, "128k", "64k");
    image_reads(&chain[0].path, QCOW2, 2, "64k", "64k");
    // The size is asked of the base where nobody says it.
    let overlay = Overlay {
        layer: LayerFile {
            id: LayerId::new(),
            path: host.path("o.qcow2"),
            format: QCOW2,
        },
        base: chain[0].clone(),
    };
    host.qemu.create_overlay(&overlay, None).await.unwrap();
    assert_eq!(
        backing_of(&overlay.layer.path).unwrap(),
        chain[0].path.to_str().unwrap()
    );
    std::fs::write(&overlay.layer.path, "half an imag").unwrap();
    assert!(!host.qemu.is_image(&overlay.layer).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_takes_all_disks_or_none() {
    let host = Host::new();
    let mut vm = host.machine(&[("root", QCOW2), ("data", RAW)]);
    let live = host.qemu.start(vm.start()).await.unwrap();
    live.resume().await.unwrap();
    let swaps = host.overlays(&vm, "fail").await;
    live.open_overlays(&swaps).await.unwrap();
    // One of the two is taken away behind our back.
    let nodes = Monitor::open(&host.observe(&vm))
        .run("query-named-block-nodes", json!({ "flat": true }))
        .unwrap();
    let path = swaps[1].overlay.path.to_str().unwrap();
    let node = nodes
        .as_array()
        .unwrap()
        .iter()
        .find(|node| node["file"].as_str().unwrap().contains(path) && node["drv"] == "qcow2")
        .unwrap();
    Monitor::open(&host.observe(&vm))
        .run("blockdev-del", json!({ "node-name": node["node-name"] }))
        .unwrap();
    live.stop().await.unwrap();
    let Err(HypervisorError::Failed(text)) = live.swap(&swaps).await else {
        panic!()
    };
    assert!(text.contains("QEMU refused transaction"), "{text}");
    live.resume().await.unwrap();
    for (disk, chain) in live.disks().await.unwrap().iter().zip(&vm.chains) {
        assert_eq!(disk.chain, [chain[0].path.clone()]);
    }
    let overlays: Vec<_> = swaps.iter().map(|swap| swap.overlay.clone()).collect();
    live.close_layers(&overlays).await.unwrap();
    live.close_layers(&overlays).await.unwrap();
    for overlay in &overlays {
        host.qemu.delete_file(&overlay.path).await.unwrap();
    }
    // An overlay that cannot be opened leaves the others closed.
    let swaps = host.overlays(&vm, "missing").await;
    std::fs::remove_file(&swaps[1].overlay.path).unwrap();
    let Err(HypervisorError::Failed(text)) = live.open_overlays(&swaps).await else {
        panic!()
    };
    assert!(text.contains("No such file"), "{text}");
    let nodes = Monitor::open(&host.observe(&vm))
        .run("query-named-block-nodes", json!({ "flat": true }))
        .unwrap();
    assert!(!nodes.to_string().contains("missing-"));
    host.snapshot(&mut vm, &*live).await;
    host.qemu.kill(&vm.machine).await.unwrap();
}

/// All but the end of the exchange is said beforehand, on a monitor of its own.
#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_was_begun_is_taken_back_or_seen_to_its_end() {
    let mut host = Host::new();
    let mut vm = host.machine(&[("root", QCOW2), ("data", RAW)]);
    let live = host.qemu.start(vm.start()).await.unwrap();
    live.resume().await.unwrap();
    let swaps = host.overlays(&vm, "begun").await;
    live.open_overlays(&swaps).await.unwrap();
    let overlays: Vec<_> = swaps.iter().map(|swap| swap.overlay.clone()).collect();
    live.close_layers(&overlays).await.unwrap();
    host.snapshot(&mut vm, &*live).await;

    // QEMU carries it out when nobody waits for it any more.
    let swaps = host.overlays(&vm, "late").await;
    live.open_overlays(&swaps).await.unwrap();
    live.stop().await.unwrap();
    let pid = host.pid(&vm).unwrap();
    signal(pid, Signal::STOP);
    let late = tokio::time::timeout(Duration::from_millis(100), live.swap(&swaps)).await;
    assert!(late.is_err());
    signal(pid, Signal::CONT);
    live.resume().await.unwrap();
    vm.swapped(&swaps);
    for (disk, chain) in live.disks().await.unwrap().iter().zip(&vm.chains) {
        assert_eq!(disk.chain[0], chain[0].path);
    }
    drop(live);

    // Another daemon; one that finds the monitor taken; and a machine that was started
    // before there was one.
    host.new_daemon();
    let live = common::live(&host.qemu, &vm.machine).await;
    host.snapshot(&mut vm, &*live).await;
    drop(live);
    let socket = host.observe(&vm).with_file_name("cut.sock");
    host.new_daemon();
    let taken = Monitor::open(&socket);
    let live = common::live(&host.qemu, &vm.machine).await;
    host.snapshot(&mut vm, &*live).await;
    drop((live, taken));
    std::fs::remove_file(&socket).unwrap();
    host.new_daemon();
    let live = common::live(&host.qemu, &vm.machine).await;
    host.snapshot(&mut vm, &*live).await;
    host.guest_write(&vm, 0, 1, "0", "64k");
    host.guest_reads(&vm, 0, 1, "0", "64k");
    host.qemu.kill(&vm.machine).await.unwrap();
}

async fn save(live: &dyn LiveMachine, path: &std::path::Path, mode: &SaveMode) -> Option<Stamp> {
    let running = live.save(path, mode).await.unwrap();
    let length = live.finish_save(path, &nothing).await.unwrap();
    assert_eq!(length, std::fs::metadata(path).unwrap().len());
    assert!(length > 100_000);
    running
}

async fn load(host: &Host, vm: &Vm, path: &std::path::Path) -> std::sync::Arc<dyn LiveMachine> {
    let start = Start {
        memory: Some(path.to_owned()),
        ..vm.start()
    };
    let live = host.qemu.start(start).await.unwrap();
    assert_eq!(live.power().await.unwrap(), Power::Paused);
    live
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_saved_behind_a_running_guest_and_loads() {
    let host = Host::new();
    let mut vm = host.machine(&[("root", QCOW2), ("data", RAW)]);
    let live = host.qemu.start(vm.start()).await.unwrap();
    live.resume().await.unwrap();
    let mode = live.prepare_save(Power::Running).await.unwrap();
    assert_eq!(mode, SaveMode::Background);
    let swaps = host.overlays(&vm, "snap").await;
    live.open_overlays(&swaps).await.unwrap();
    let stopped = live.stop().await.unwrap();
    live.swap(&swaps).await.unwrap();
    let path = host.path("memory");
    let resumed = live.save(&path, &mode).await.unwrap().unwrap();
    assert!(resumed > stopped);
    assert_eq!(live.power().await.unwrap(), Power::Running);
    live.resume().await.unwrap();
    live.finish_save(&path, &nothing).await.unwrap();
    vm.swapped(&swaps);
    host.guest_write(&vm, 1, 1, "0", "64k");

    // Settings of others are as before; and it can be done again.
    let capabilities = Monitor::open(&host.observe(&vm))
        .run("query-migrate-capabilities", json!({}))
        .unwrap();
    assert!(
        capabilities
            .as_array()
            .unwrap()
            .iter()
            .all(|c| c["state"] == false)
    );
    let parameters = Monitor::open(&host.observe(&vm))
        .run("query-migrate-parameters", json!({}))
        .unwrap();
    assert_eq!(parameters["max-bandwidth"], 128 * MIB);
    let mode = live.prepare_save(Power::Running).await.unwrap();
    live.stop().await.unwrap();
    save(&*live, &host.path("again"), &mode).await.unwrap();
    host.qemu.kill(&vm.machine).await.unwrap();

    for memory in [path, host.path("again")] {
        let live = load(&host, &vm, &memory).await;
        host.guest_write(&vm, 0, 2, "0", "64k");
        live.resume().await.unwrap();
        assert_eq!(live.power().await.unwrap(), Power::Running);
        host.guest_reads(&vm, 1, 1, "0", "64k");
        host.qemu.kill(&vm.machine).await.unwrap();
    }
}

/// What QEMU says of a save or a load.
fn migration(observer: &std::path::Path) -> Value {
    let migration = Monitor::open(observer).run("query-migrate", json!({}));
    migration.unwrap()["status"].take()
}

/// QEMU reads much of a file at a time without listening; on a slow disk that takes long.
#[tokio::test(flavor = "multi_thread")]
async fn memory_loads_while_qemu_does_not_listen() {
    let host = Host::new();
    let vm = host.machine(&[("root", QCOW2)]);
    let live = host.qemu.start(vm.start()).await.unwrap();
    live.resume().await.unwrap();
    let mode = live.prepare_save(Power::Running).await.unwrap();
    live.stop().await.unwrap();
    let path = host.path("memory");
    save(&*live, &path, &mode).await;
    host.qemu.kill(&vm.machine).await.unwrap();

    // A pipe that is filled half: QEMU is in the middle of it.
    let pipe = host.path("pipe");
    run("mkfifo", &[pipe.to_str().unwrap()]);
    let (go, gone) = std::sync::mpsc::channel();
    let writer = std::thread::spawn({
        let (pipe, memory) = (pipe.clone(), std::fs::read(&path).unwrap());
        move || {
            let mut pipe = std::fs::OpenOptions::new().write(true).open(pipe).unwrap();
            let (first, rest) = memory.split_at(memory.len() / 2);
            pipe.write_all(first).unwrap();
            gone.recv().unwrap();
            pipe.write_all(rest).unwrap();
        }
    });
    let hanging = async {
        eventually("memory is being loaded", || {
            let observer = host.observe(&vm);
            observer.exists() && migration(&observer) == "active"
        })
        .await;
        let pid = host.pid(&vm).unwrap();
        signal(pid, Signal::STOP);
        tokio::time::sleep(host.config.answer + Duration::from_millis(500)).await;
        signal(pid, Signal::CONT);
        go.send(()).unwrap();
    };
    let (live, ()) = tokio::join!(load(&host, &vm, &pipe), hanging);
    writer.join().unwrap();
    live.resume().await.unwrap();
    assert_eq!(live.power().await.unwrap(), Power::Running);
    host.qemu.kill(&vm.machine).await.unwrap();
}

/// Memory is held back until all members run, but no guest waits for a daemon that hangs.
#[tokio::test(flavor = "multi_thread")]
async fn memory_flows_by_itself_when_nobody_lets_it() {
    let host = Host::new();
    let vm = host.machine(&[("root", QCOW2)]);
    let live = host.qemu.start(vm.start()).await.unwrap();
    live.resume().await.unwrap();
    let mode = live.prepare_save(Power::Running).await.unwrap();
    assert_eq!(mode, SaveMode::Background);
    live.stop().await.unwrap();
    let path = host.path("memory");
    live.save(&path, &mode).await.unwrap();
    let observer = host.observe(&vm);
    eventually("the memory is saved", || {
        migration(&observer) == "completed"
    })
    .await;
    live.finish_save(&path, &nothing).await.unwrap();
    host.qemu.kill(&vm.machine).await.unwrap();
    let live = load(&host, &vm, &path).await;
    live.resume().await.unwrap();
    assert_eq!(live.power().await.unwrap(), Power::Running);
    host.qemu.kill(&vm.machine).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_machine_is_saved_and_remains_usable_and_paused() {
    let mut host = Host::new();
    let mut vm = host.machine(&[("root", QCOW2), ("data", RAW)]);
    let mut live = host.qemu.start(vm.start()).await.unwrap();
    live.resume().await.unwrap();
    live.stop().await.unwrap();
    for round in 0..3 {
        let mode = live.prepare_save(Power::Paused).await.unwrap();
        assert!(matches!(mode, SaveMode::Plain(_)));
        let swaps = host.overlays(&vm, &format!("snap{round}")).await;
        live.open_overlays(&swaps).await.unwrap();
        live.swap(&swaps).await.unwrap();
        vm.swapped(&swaps);
        let path = host.path(&format!("memory{round}"));
        assert_eq!(save(&*live, &path, &mode).await, None);
        assert_eq!(live.power().await.unwrap(), Power::Paused);
        host.guest_write(&vm, 0, round + 1, "0", "64k");
        match round {
            // The file that the machine equals may be destroyed meanwhile, or the
            // daemon restarted.
            0 => std::fs::remove_file(&path).unwrap(),
            _ => {
                drop(live);
                host.new_daemon();
                live = common::live(&host.qemu, &vm.machine).await;
            }
        }
    }
    let same = std::fs::read(host.path("memory1")).unwrap();
    assert!(same == std::fs::read(host.path("memory2")).unwrap());
    // Merging works.
    let chain = vm.chains[0].clone();
    live.merge("root", &chain[1], &chain[2], &chain[0], &nothing)
        .await
        .unwrap();
    vm.chains[0].remove(1);
    let chain = vm.chains[0].clone();
    live.begin_merge_active("root", &chain[0], &chain[1], &nothing)
        .await
        .unwrap();
    live.end_merge_active("root", &chain[1]).await.unwrap();
    vm.chains[0].remove(0);
    host.guest_reads(&vm, 0, 3, "0", "64k");
    assert_eq!(live.power().await.unwrap(), Power::Paused);
    // It goes on when it is told to, and can then be saved anew.
    live.resume().await.unwrap();
    assert_eq!(live.power().await.unwrap(), Power::Running);
    live.stop().await.unwrap();
    let mode = live.prepare_save(Power::Paused).await.unwrap();
    save(&*live, &host.path("later"), &mode).await;
    assert!(same != std::fs::read(host.path("later")).unwrap());
    host.qemu.kill(&vm.machine).await.unwrap();
    for memory in ["memory2", "later"] {
        let live = load(&host, &vm, &host.path(memory)).await;
        host.guest_write(&vm, 1, 9, "0", "64k");
        live.resume().await.unwrap();
        host.qemu.kill(&vm.machine).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_balloon_is_saved_around_and_a_save_can_be_given_up() {
    let host = Host::new();
    let mut vm = host.machine(&[("root", QCOW2)]);
    vm.machine.definition.extra_args = vec!["-device".to_owned(), "virtio-balloon".to_owned()];
    let live = host.qemu.start(vm.start()).await.unwrap();
    live.resume().await.unwrap();
    let mode = live.prepare_save(Power::Running).await.unwrap();
    let SaveMode::Plain(why) = &mode else {
        panic!()
    };
    assert!(why.contains("balloon"), "{why}");
    live.stop().await.unwrap();
    assert_eq!(save(&*live, &host.path("memory"), &mode).await, None);
    assert_eq!(live.power().await.unwrap(), Power::Paused);
    live.resume().await.unwrap();
    host.guest_write(&vm, 0, 1, "0", "64k");

    live.cancel_save().await.unwrap();
    let mode = live.prepare_save(Power::Running).await.unwrap();
    live.stop().await.unwrap();
    // A file that is there is not written over.
    let Err(HypervisorError::Failed(text)) = live.save(&host.path("memory"), &mode).await else {
        panic!()
    };
    assert!(text.contains("exists"), "{text}");
    live.cancel_save().await.unwrap();
    live.resume().await.unwrap();
    host.guest_write(&vm, 0, 2, "0", "64k");
    host.qemu.kill(&vm.machine).await.unwrap();

    vm.machine.definition.extra_args.clear();
    let live = host.qemu.start(vm.start()).await.unwrap();
    live.resume().await.unwrap();
    let mode = live.prepare_save(Power::Running).await.unwrap();
    live.stop().await.unwrap();
    live.save(&host.path("given up"), &mode)
        .await
        .unwrap()
        .unwrap();
    live.cancel_save().await.unwrap();
    assert_eq!(live.power().await.unwrap(), Power::Running);
    host.guest_write(&vm, 0, 3, "0", "64k");
    host.snapshot(&mut vm, &*live).await;
    // Prepared and never begun.
    assert_eq!(
        live.prepare_save(Power::Running).await.unwrap(),
        SaveMode::Background
    );
    live.cancel_save().await.unwrap();
    live.stop().await.unwrap();
    live.resume().await.unwrap();
    host.qemu.kill(&vm.machine).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_or_a_dead_daemon_does_not_hang_the_guest() {
    let mut host = Host::new();
    let limited = host.path("guardian");
    let text = format!(
        "#!/bin/sh\ntrap '' XFSZ\nexec prlimit --fsize=65536 {}\n",
        host.config.guardian_exe.display()
    );
    std::fs::write(&limited, text).unwrap();
    run("chmod", &["+x", limited.to_str().unwrap()]);
    let unlimited = std::mem::replace(&mut host.config.guardian_exe, limited);
    host.new_daemon();
    let vm = host.machine(&[]);
    let live = host.qemu.start(vm.start()).await.unwrap();
    live.resume().await.unwrap();
    let mode = live.prepare_save(Power::Running).await.unwrap();
    live.stop().await.unwrap();
    live.save(&host.path("memory"), &mode)
        .await
        .unwrap()
        .unwrap();
    let Err(HypervisorError::Failed(text)) = live.finish_save(&host.path("memory"), &nothing).await
    else {
        panic!()
    };
    assert!(text.contains("File too large"), "{text}");
    // A guest whose memory is still protected could not be stopped.
    tokio::time::sleep(Duration::from_millis(200)).await;
    live.stop().await.unwrap();
    live.resume().await.unwrap();

    // The daemon's end, right behind the beginning.
    host.config.guardian_exe = unlimited;
    drop(live);
    host.new_daemon();
    let live = common::live(&host.qemu, &vm.machine).await;
    let mode = live.prepare_save(Power::Running).await.unwrap();
    live.stop().await.unwrap();
    live.save(&host.path("left"), &mode).await.unwrap().unwrap();
    drop(live);
    host.new_daemon();
    let live = common::live(&host.qemu, &vm.machine).await;
    live.cancel_save().await.unwrap();
    let capabilities = Monitor::open(&host.observe(&vm))
        .run("query-migrate-capabilities", json!({}))
        .unwrap();
    assert!(
        capabilities
            .as_array()
            .unwrap()
            .iter()
            .all(|c| c["state"] == false)
    );
    tokio::time::sleep(Duration::from_millis(200)).await;
    live.stop().await.unwrap();
    live.resume().await.unwrap();
    let mode = live.prepare_save(Power::Running).await.unwrap();
    assert_eq!(mode, SaveMode::Background);
    live.stop().await.unwrap();
    save(&*live, &host.path("whole"), &mode).await.unwrap();
    host.qemu.kill(&vm.machine).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_does_not_stop_is_told_in_time_and_runs_again() {
    let mut host = Host::new();
    host.config.answer = Duration::from_millis(400);
    host.new_daemon();
    let vm = host.machine(&[("root", QCOW2)]);
    let live = host.qemu.start(vm.start()).await.unwrap();
    live.resume().await.unwrap();
    let pid = host.pid(&vm).unwrap();
    signal(pid, Signal::STOP);
    let Err(HypervisorError::Timeout(text)) = live.stop().await else {
        panic!()
    };
    assert!(text.contains("did not answer stop"), "{text}");
    assert!(matches!(
        live.resume().await,
        Err(HypervisorError::Timeout(_))
    ));
    signal(pid, Signal::CONT);
    let mut monitor = Monitor::open(&host.observe(&vm));
    // Both were sent, in order: it stops and runs.
    eventually("the resume", || monitor.status() == "running").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(monitor.status(), "running");
    // The connection is as good as before.
    let stopped = live.stop().await.unwrap();
    assert!(live.stop().await.unwrap() > stopped);
    let resumed = live.resume().await.unwrap();
    assert!(resumed > stopped);
    assert!(live.resume().await.unwrap() > resumed);
    host.qemu.kill(&vm.machine).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_that_fails_tells_qemus_words_and_the_guest_goes_on() {
    let host = Host::new();
    let mut vm = host.machine(&[("root", QCOW2)]);
    let live = host.qemu.start(vm.start()).await.unwrap();
    live.resume().await.unwrap();
    host.snapshot(&mut vm, &*live).await;
    host.guest_write(&vm, 0, 1, "0", "8M");
    host.qemu.kill(&vm.machine).await.unwrap();
    // From now on every file of this QEMU ends at 4 MiB.
    let script = host.path("limited");
    let text = format!(
        "#!/bin/sh\ntrap '' XFSZ\nexec prlimit --fsize={}: {} \"$@\"\n",
        4 * MIB,
        qemu_binary().display()
    );
    std::fs::write(&script, text).unwrap();
    run("chmod", &["+x", script.to_str().unwrap()]);
    let mut host = host;
    host.config.qemu_binary = script;
    host.new_daemon();
    let live = host.qemu.start(vm.start()).await.unwrap();
    live.resume().await.unwrap();
    let chain = vm.chains[0].clone();
    let merge = live
        .begin_merge_active("root", &chain[0], &chain[1], &nothing)
        .await;
    let Err(HypervisorError::Failed(text)) = merge else {
        panic!("{merge:?}")
    };
    assert!(text.contains("File too large"), "{text}");
    assert_eq!(live.power().await.unwrap(), Power::Running);
    host.guest_reads(&vm, 0, 1, "0", "8M");
    assert_eq!(live.disks().await.unwrap()[0].path, chain[0].path);
    live.cancel_merge_active("root").await.unwrap();
    // Room was made; the same again.
    let pid = host.pid(&vm).unwrap().to_string();
    run("prlimit", &["--fsize=unlimited:", "--pid", &pid]);
    live.begin_merge_active("root", &chain[0], &chain[1], &nothing)
        .await
        .unwrap();
    live.cancel_merge_active("root").await.unwrap();
    live.cancel_merge_active("root").await.unwrap();
    assert_eq!(live.disks().await.unwrap()[0].path, chain[0].path);
    live.begin_merge_active("root", &chain[0], &chain[1], &nothing)
        .await
        .unwrap();
    live.stop().await.unwrap();
    live.end_merge_active("root", &chain[1]).await.unwrap();
    live.resume().await.unwrap();
    host.guest_reads(&vm, 0, 1, "0", "8M");
    image_reads(&chain[1].path, QCOW2, 1, "0", "8M");
    host.qemu.kill(&vm.machine).await.unwrap();
}
