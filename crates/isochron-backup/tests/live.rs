//! Layers are exported while others have them open, and merge those beneath.

#![allow(clippy::unwrap_used)] // tests end at the first surprise

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use common::{Rig, run};
use isochron_backup::DirectoryArchive;
use isochron_engine::model::ImageFormat;
use isochron_engine::ports::{Archive, Content, Go};

/// A process that has the whole chain open as a guest's QEMU has: the last layer for
/// writing, all with locks.
struct Holder(Child);

impl Holder {
    fn start(rig: &Rig) -> Self {
        let top = rig.layers.last().unwrap();
        let node = format!(
            r#"{{"driver":"qcow2","node-name":"disk","read-only":false,
                "file":{{"driver":"file","filename":"{}","locking":"on"}}}}"#,
            top.path.display()
        );
        let mut process = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &node])
            .args(["--chardev", "stdio,id=c", "--monitor", "chardev=c"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // The monitor's greeting comes after the images are open.
        let mut greeting = String::new();
        let stdout = process.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut greeting).unwrap();
        assert!(greeting.contains("QMP"), "{greeting}");
        Self(process)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn layers_that_a_guest_has_open_are_read() {
    for format in [ImageFormat::Raw, ImageFormat::Qcow2] {
        let mut rig = Rig::new(1 << 20, format);
        rig.io(&["write -P 1 0 256k"]);
        rig.overlay();
        rig.io(&["write -P 2 64k 64k"]);
        rig.overlay();
        let holder = Holder::start(&rig);
        let active = rig.layers.pop().unwrap();
        rig.full("full");
        drop(holder);
        // What the guest wrote since is not in it.
        rig.layers.push(active);
        rig.io(&["write -P 3 0 1M"]);
        rig.layers.pop();
        rig.check("full");
    }
}

/// From the moment that an export is open, layers beneath the instant's may be merged
/// and deleted.
#[test]
fn layers_beneath_are_merged_meanwhile() {
    for format in [ImageFormat::Raw, ImageFormat::Qcow2] {
        for step in 0..2 {
            let mut rig = Rig::new(1100 << 20, format);
            rig.io(&["write -P 1 0 4M", "write -P 2 600M 1M"]);
            rig.overlay();
            // Over data, over holes, in a part of the disk that the base's tables do not
            // know yet, and zeroes.
            rig.io(&[
                "write -P 3 1M 192k",
                "write -P 4 8M 1M",
                "write -P 5 300M 64k",
                "write -z 2M 128k",
            ]);
            rig.overlay();
            rig.io(&["write -P 6 3M 64k", "write -P 7 8M 64k"]);

            let mut order = rig.order("full", Content::Full { reason: None });
            order.limit = Some(4 << 20);
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let archive = DirectoryArchive::default();
                let export = archive.open(order).await.unwrap();
                if step == 0 {
                    merge(&mut rig);
                    export.run(&|_| Go::On).await.unwrap();
                } else {
                    // While it is under way.
                    let rig = std::sync::Mutex::new(&mut rig);
                    let merged = std::sync::Once::new();
                    let watch = |_| {
                        merged.call_once(|| merge(&mut rig.lock().unwrap()));
                        Go::On
                    };
                    export.run(&watch).await.unwrap();
                }
            });
            assert_eq!(rig.layers.len(), 2);
            rig.check("full");
        }
    }
}

/// Takes the middle one of three layers down into the first, as destroying a snapshot
/// does.
fn merge(rig: &mut Rig) {
    let middle = rig.layers.remove(1);
    let (base, top) = (&rig.layers[0], &rig.layers[1]);
    let text = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    run(
        "qemu-img",
        [
            "commit",
            "-q",
            "-d",
            "-f",
            "qcow2",
            "-b",
            &text(&base.path),
            &text(&middle.path),
        ],
    );
    run(
        "qemu-img",
        [
            "rebase",
            "-q",
            "-u",
            "-f",
            "qcow2",
            "-b",
            &text(&base.path),
            "-F",
            base.format.as_str(),
            &text(&top.path),
        ],
    );
    std::fs::remove_file(&middle.path).unwrap();
}
