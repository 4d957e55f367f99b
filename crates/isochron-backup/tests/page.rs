//! The page on exports and the README say how to restore with `qemu-img` alone: exactly
//! those commands are carried out.

#![allow(clippy::unwrap_used)] // tests end at the first surprise

mod common;

use std::path::Path;

use common::{Rig, run};
use isochron_engine::model::ImageFormat;

/// The blocks of a page with these words behind the opening fence.
fn blocks(page: &str, words: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(page);
    let text = std::fs::read_to_string(path).unwrap();
    let fence = format!("```{words}\n");
    let mut blocks = Vec::new();
    let mut rest = text.as_str();
    while let Some((_, after)) = rest.split_once(&fence) {
        let (block, after) = after.split_once("```").unwrap();
        blocks.push(block.to_owned());
        rest = after;
    }
    blocks
}

fn carry_out(rig: &Rig, blocks: &[String]) {
    for block in blocks {
        let script = format!("set -eu; cd '{}'\n{block}", rig.directory.path().display());
        run("sh", ["-c", &script]);
    }
}

fn reads_as_the_disk(rig: &Rig, name: &str, format: &str) {
    let image = rig.path(name);
    let layer = &rig.layers.last().unwrap().path;
    let (image, layer) = (image.to_str().unwrap(), layer.to_str().unwrap());
    run(
        "qemu-img",
        ["compare", "-q", "-f", format, "-F", "qcow2", image, layer],
    );
}

#[test]
fn qemu_img_alone_restores_an_export() {
    let mut rig = Rig::new((3 << 20) + 512, ImageFormat::Raw);
    rig.io(&["write -P 1 0 2M"]);
    rig.full("shop-monday");
    rig.overlay();
    rig.io(&["write -P 2 1M 64k", "write -z 0 64k", "write -P 3 3M 512"]);
    rig.since("shop-tuesday", "shop-monday", 1, false);

    for (page, count) in [("docs/export.md", 2), ("README.md", 1)] {
        let found = blocks(page, "sh restore");
        assert_eq!(found.len(), count, "{page}");
        carry_out(&rig, &found);
        reads_as_the_disk(&rig, "web.raw", "raw");
        std::fs::remove_file(rig.path("web.raw")).unwrap();
    }
    reads_as_the_disk(&rig, "look.qcow2", "qcow2");

    std::fs::create_dir(rig.path("archive")).unwrap();
    std::fs::rename(rig.path("shop-monday"), rig.path("archive/shop-monday")).unwrap();
    let found = blocks("docs/export.md", "sh restore moved");
    assert_eq!(found.len(), 1);
    carry_out(&rig, &found);
    reads_as_the_disk(&rig, "web.qcow2", "qcow2");
}
