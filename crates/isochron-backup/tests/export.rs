//! Exports of disks that `qemu-img` made, judged by `qemu-img`: whole images that read
//! as the layers do, digests that can be made again, nothing more than what changed.

#![allow(clippy::unwrap_used)] // tests end at the first surprise

mod common;

use common::{Rig, disk, held};
use isochron_backup::digest::BLOCK;
use isochron_backup::manifest::{Kind, Mode};
use isochron_engine::model::ImageFormat;

#[test]
fn all_of_a_disk_in_raw_and_in_layers() {
    for format in [ImageFormat::Raw, ImageFormat::Qcow2] {
        // Neither whole blocks nor a whole number of them.
        let mut rig = Rig::new(37 * BLOCK + 1536, format);
        rig.io(&[
            "write -P 1 0 200k",
            "write -P 2 1M 64k",
            "write -P 3 2424832 1536",
        ]);
        let manifest = rig.full("one");
        assert_eq!(
            (manifest.kind, disk(&manifest).mode),
            (Kind::Full, Mode::Full)
        );
        assert_eq!(held(&rig, "one"), (4 + 1 + 1, 0), "what is not zero");
        rig.overlay();
        rig.io(&[
            "write -P 4 100k 4k",
            "write -z 1M 64k",
            "write -P 5 2000k 7k",
        ]);
        rig.overlay();
        rig.io(&["write -P 6 2001k 1k"]);
        let manifest = rig.full("two");
        assert_eq!(disk(&manifest).layers.len(), 3);
        assert_eq!(
            held(&rig, "two"),
            (4 + 1 + 1, 0),
            "zeroes and holes are left out"
        );
        assert!(rig.leftovers().is_empty());
    }
}

#[test]
fn a_difference_says_data_zero_or_as_before() {
    let mut rig = Rig::new(64 * BLOCK + 512, ImageFormat::Qcow2);
    rig.io(&["write -P 1 0 4M", "write -P 1 4M 512"]);
    rig.full("full");
    rig.overlay();
    rig.io(&[
        // Changed.
        "write -P 2 65536 64k",
        // A part of a block.
        "write -P 2 200k 512",
        // Became zero, by data and by a flag; then discarded.
        "write -P 0 256k 64k",
        "write -z 320k 64k",
        "discard 384k 64k",
        // The same as before.
        "write -P 1 1M 128k",
        // The last part of a block.
        "write -P 7 4M 512",
    ]);
    let manifest = rig.since("since", "full", 1, false);
    assert_eq!(
        (manifest.kind, disk(&manifest).mode),
        (Kind::Difference, Mode::Difference)
    );
    let parent = manifest.parent.as_ref().unwrap();
    assert_eq!(parent.path, std::path::Path::new("../full"));
    assert_eq!(held(&rig, "since"), (3, 3));
    // On it another, with zeroes that become data again, and a zero that stays one.
    rig.overlay();
    rig.io(&[
        "write -P 9 256k 64k",
        "write -P 0 320k 64k",
        "write -P 1 65536 64k",
    ]);
    rig.since("third", "since", 1, false);
    assert_eq!(held(&rig, "third"), (2, 0));
    // And one of nothing.
    rig.overlay();
    rig.since("fourth", "third", 1, false);
    assert_eq!(held(&rig, "fourth"), (0, 0));
}

#[test]
fn a_merge_is_a_full_export_made_of_its_base() {
    let mut rig = Rig::new(64 * BLOCK + 512, ImageFormat::Raw);
    rig.io(&["write -P 1 0 2M", "write -P 1 4M 512"]);
    rig.full("full");
    rig.overlay();
    rig.io(&["write -P 2 65536 64k", "write -z 1M 64k"]);
    rig.since("since", "full", 1, false);
    rig.overlay();
    rig.io(&["write -P 3 512k 64k"]);
    let merged = rig.since("merged", "since", 1, true);
    assert_eq!(
        (merged.kind, disk(&merged).mode),
        (Kind::Merged, Mode::Full)
    );
    assert!(merged.parent.is_none() && merged.merged_from.is_some());
    // It stands alone, and so does what stands on it.
    for name in ["full", "since"] {
        std::fs::remove_dir_all(rig.path(name)).unwrap();
    }
    rig.check("merged");
    rig.overlay();
    rig.io(&["write -P 4 0 1k"]);
    rig.since("next", "merged", 1, false);
    assert_eq!(held(&rig, "next"), (1, 0));
}

/// Images that others made: data compressed, in clusters of another size, with tables of
/// parts of clusters, in another file.
#[test]
fn layers_of_every_kind_are_read() {
    let data_file = "data_file=DATA,data_file_raw=on";
    for options in [
        &["-c"][..],
        &["-c", "-o", "compression_type=zstd,cluster_size=4k"],
        &["-o", "cluster_size=512"],
        &["-o", "cluster_size=2M"],
        &["-o", "extended_l2=on"],
        &["-o", "compat=0.10"],
        &["-o", data_file],
    ] {
        let mut rig = Rig::new(40 * BLOCK + 512, ImageFormat::Raw);
        rig.io(&[
            "write -P 1 3k 1M",
            "write -P 2 2M 5k",
            "write -P 3 2621440 512",
        ]);
        let data = rig.path("data");
        let options = options.iter();
        let options: Vec<_> = options
            .map(|option| option.replace("DATA", data.to_str().unwrap()))
            .collect();
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        rig.convert(&options);
        rig.full("one");
        rig.overlay();
        rig.io(&["write -P 4 100k 3k", "write -z 512k 128k"]);
        rig.full("two");
        rig.since("since", "one", 1, false);
    }
}

#[test]
fn a_terabyte_of_holes() {
    let mut rig = Rig::new(1 << 40, ImageFormat::Qcow2);
    rig.io(&[
        "write -P 1 0 64k",
        "write -P 2 700G 1M",
        "write -P 3 1099511562240 64k",
    ]);
    let full = rig.full("full");
    assert_eq!(held(&rig, "full"), (1 + 16 + 1, 0));
    let content = disk(&full).content.as_ref().unwrap();
    assert!(content.leaves.bytes < 4096, "{}", content.leaves.bytes);
    rig.overlay();
    rig.io(&["write -P 2 300G 64k", "write -z 700G 1M"]);
    rig.since("since", "full", 1, false);
    assert_eq!(held(&rig, "since"), (1, 16));
    rig.overlay();
    rig.io(&["write -P 2 900G 64k"]);
    rig.since("merged", "since", 1, true);
    assert_eq!(held(&rig, "merged"), (4, 0));
}
