//! What frozen layers say of themselves while a real QEMU has them open.

#![allow(clippy::unwrap_used)] // functions of tests

mod common;

use std::path::Path;

use common::*;
use isochron_engine::model::*;
use isochron_engine::ports::*;
use rustix::process::Signal;

const QCOW2: ImageFormat = ImageFormat::Qcow2;
const RAW: ImageFormat = ImageFormat::Raw;
const KIB: u64 = 1024;

fn device(disk: usize) -> String {
    format!("/machine/peripheral/isochron-disk{disk}/virtio-backend")
}

fn of(changes: &Changes) -> Vec<(u64, u64)> {
    let ranges = changes.ranges(16 * MIB);
    ranges.map(|r| (r.start / KIB, r.end / KIB)).collect()
}

async fn identity(host: &Host, path: &Path) -> FileIdentity {
    host.qemu.identity(path).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_layer_says_what_was_written_to_it() {
    let host = Host::new();
    let mut vm = host.machine(&[("root", QCOW2), ("data", RAW)]);
    let live = host.qemu.start(vm.start()).await.unwrap();
    live.resume().await.unwrap();
    for disk in 0..2 {
        host.guest_write(&vm, disk, 1, "0", "1M");
    }
    let first = host.snapshot(&mut vm, &*live).await;
    for disk in 0..2 {
        // A part of a block, the same content again, zeroes, and what is given up.
        host.guest_write(&vm, disk, 2, "70k", "4k");
        host.guest_write(&vm, disk, 1, "256k", "64k");
        let observe = host.observe(&vm);
        qemu_io(&observe, &device(disk), "write -z 512k 64k");
        qemu_io(&observe, &device(disk), "discard 768k 64k");
        qemu_io(&observe, &device(disk), "write -P 3 16776704 512");
    }
    let second = host.snapshot(&mut vm, &*live).await;
    for disk in 0..2 {
        host.guest_write(&vm, disk, 4, "4M", "64k"); // is of the next one
    }
    for (first, second) in first.iter().zip(&second) {
        let changes = host.qemu.allocated(second, first).await.unwrap();
        let expected = [
            (64, 128),
            (256, 320),
            (512, 576),
            (768, 832),
            (16 * 1024 - 64, 16 * 1024),
        ];
        assert_eq!(of(&changes), expected, "{}", second.path.display());
        assert_eq!(host.qemu.virtual_size(second).await.unwrap(), 16 * MIB);
        let other = LayerFile {
            path: host.path("another"),
            ..first.clone()
        };
        let refused = host.qemu.allocated(second, &other).await;
        assert!(
            matches!(refused, Err(HypervisorError::Invalid(_))),
            "{refused:?}"
        );
    }
    // Of a raw one nothing is known.
    let whole = host.qemu.allocated(&first[1], &first[0]).await.unwrap();
    assert_eq!(of(&whole), [(0, 16 * KIB)]);

    // The same when QEMU has died, and another one runs.
    signal(host.pid(&vm).unwrap(), Signal::KILL);
    let machine = vm.machine.clone();
    while host.qemu.live(&machine).await.unwrap().is_some() {}
    let changes = host.qemu.allocated(&second[0], &first[0]).await.unwrap();
    assert_eq!(of(&changes).len(), 5);
    host.qemu.start(vm.start()).await.unwrap();
    let changes = host.qemu.allocated(&second[0], &first[0]).await.unwrap();
    assert_eq!(of(&changes).len(), 5);
    host.qemu.kill(&vm.machine).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_layer_stays_the_file_that_it_was_until_it_is_changed() {
    let host = Host::new();
    let mut vm = host.machine(&[("root", QCOW2), ("data", RAW)]);
    let live = host.qemu.start(vm.start()).await.unwrap();
    live.resume().await.unwrap();
    for disk in 0..2 {
        host.guest_write(&vm, disk, 1, "0", "4M");
    }
    let first = host.snapshot(&mut vm, &*live).await;
    let mut known = Vec::new();
    for layer in &first {
        known.push(identity(&host, &layer.path).await);
    }
    let unchanged = async |when: &str| {
        for (layer, known) in first.iter().zip(&known) {
            assert_eq!(identity(&host, &layer.path).await, *known, "{when}");
        }
    };
    for disk in 0..2 {
        host.guest_write(&vm, disk, 2, "2M", "4M");
    }
    unchanged("the guest wrote on").await;
    host.snapshot(&mut vm, &*live).await;
    for disk in 0..2 {
        host.guest_write(&vm, disk, 3, "3M", "4M");
    }
    unchanged("another snapshot was taken").await;
    host.qemu.kill(&vm.machine).await.unwrap();
    unchanged("the machine was turned off").await;
    let live = host.qemu.start(vm.start()).await.unwrap();
    live.resume().await.unwrap();
    unchanged("it was started").await;
    signal(host.pid(&vm).unwrap(), Signal::KILL);
    while host.qemu.live(&vm.machine).await.unwrap().is_some() {}
    unchanged("it was killed").await;

    // What we merge ourselves is another afterwards, and stays that.
    let live = host.qemu.start(vm.start()).await.unwrap();
    live.resume().await.unwrap();
    for (index, disk) in ["root", "data"].iter().enumerate() {
        let chain = &mut vm.chains[index];
        live.merge(disk, &chain[1], &chain[2], &chain[0], &|_| {})
            .await
            .unwrap();
        chain.remove(1);
    }
    let mut merged = Vec::new();
    for (layer, known) in first.iter().zip(&known) {
        let now = identity(&host, &layer.path).await;
        assert_eq!((now.inode, now.born), (known.inode, known.born));
        assert_ne!(now, *known, "a merge changes it");
        merged.push(now);
    }
    for disk in 0..2 {
        host.guest_write(&vm, disk, 4, "5M", "1M");
    }
    host.qemu.kill(&vm.machine).await.unwrap();
    for (layer, merged) in first.iter().zip(&merged) {
        assert_eq!(identity(&host, &layer.path).await, *merged);
    }

    // Another file of the same name and content is another.
    let copy = host.path("copy");
    std::fs::copy(&first[0].path, &copy).unwrap();
    std::fs::rename(&copy, &first[0].path).unwrap();
    let now = identity(&host, &first[0].path).await;
    assert_ne!((now.inode, now.born), (merged[0].inode, merged[0].born));
    std::fs::remove_file(&first[0].path).unwrap();
    assert_eq!(host.qemu.identity(&first[0].path).await.unwrap(), None);
}
