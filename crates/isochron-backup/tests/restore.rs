//! What is exported comes back, by us and by `qemu-img` alone; what is damaged is
//! named and does not.

#![allow(clippy::unwrap_used)] // tests end at the first surprise

mod common;

use std::path::{Path, PathBuf};

use common::{Rig, export, run};
use isochron_backup::{Restore, Restored, Verified, restore, verify};
use isochron_engine::model::{Definition, ImageFormat, MemoryState};
use isochron_engine::ports::{ArchiveError, Content, Go};

fn check(directory: &Path, bases: &[PathBuf]) -> Result<Verified, ArchiveError> {
    verify(Path::new("qemu-nbd"), directory, bases, &|_| Go::On)
}

fn bring_back(
    directory: &Path,
    bases: &[PathBuf],
    target: &Path,
    format: ImageFormat,
) -> Result<Restored, ArchiveError> {
    let order = Restore {
        qemu_nbd: "qemu-nbd".into(),
        directory: directory.to_owned(),
        bases: bases.to_vec(),
        target: target.to_owned(),
        format,
        memory: true,
    };
    restore(&order, &|_| Go::On)
}

/// A full export with memory, and two differences in a row.
fn three() -> Rig {
    let mut rig = Rig::new((2 << 20) + 512, ImageFormat::Raw);
    rig.io(&["write -P 1 0 1M", "write -P 2 2M 512"]);
    let memory = rig.path("memory");
    std::fs::write(&memory, [7; 5000]).unwrap();
    let mut order = rig.order("full", Content::Full { reason: None });
    order.members[0].memory = Some(MemoryState {
        path: memory,
        bytes: 5000,
    });
    export(order).unwrap();
    rig.overlay();
    rig.io(&["write -P 3 100k 1k", "write -z 512k 64k"]);
    rig.since("second", "full", 1, false);
    rig.overlay();
    rig.io(&["write -P 4 1536k 64k"]);
    rig.since("third", "second", 1, false);
    rig
}

#[test]
fn every_export_of_a_chain_comes_back() {
    let rig = three();
    for (count, name) in ["full", "second", "third"].into_iter().enumerate() {
        let verified = check(&rig.path(name), &[]).unwrap();
        assert!(verified.damages.is_empty(), "{:?}", verified.damages);
        assert_eq!(
            (verified.exports.len(), verified.disks),
            (count + 1, count + 1)
        );
        for format in [ImageFormat::Raw, ImageFormat::Qcow2] {
            let target = rig.path(&format!("{name}-{}", format.as_str()));
            let restored = bring_back(&rig.path(name), &[], &target, format).unwrap();
            let member = &restored.members[0];
            let image = target.join(format!("web/disk0.{}", format.as_str()));
            assert_eq!(member.disks, [("disk0".to_owned(), image.clone())]);
            assert_eq!(member.definition.disks[0].path, image);
            assert_eq!(member.definition.disks[0].format, format);
            assert!(member.not_held.is_empty());
            let layer = &rig.layers[count];
            let (image, layer_path) = (image.to_str().unwrap(), layer.path.to_str().unwrap());
            let (one, other) = (format.as_str(), layer.format.as_str());
            run(
                "qemu-img",
                ["compare", "-q", "-f", one, "-F", other, image, layer_path],
            );
            assert!(!run("qemu-img", ["info", image]).contains("backing"));
            let text = std::fs::read_to_string(target.join("web/definition.toml")).unwrap();
            let definition: Definition = toml::from_str(&text).unwrap();
            let relative = format!("disk0.{}", format.as_str());
            assert_eq!(definition.disks[0].path, Path::new(&relative));
            match name {
                "full" => {
                    let memory = member.memory.as_ref().unwrap();
                    assert_eq!(std::fs::read(&memory.path).unwrap(), [7; 5000]);
                }
                _ => assert!(member.memory.is_none()),
            }
        }
    }
    assert!(rig.leftovers().is_empty());
}

/// An export whose files are all what its manifest says, and whose disk is not; the ones
/// above it do not read the block.
#[test]
fn the_content_of_a_parent_is_checked() {
    let rig = three();
    let image = rig.path("full/web.disk0.qcow2");
    run(
        "qemu-io",
        [
            "-f",
            "qcow2",
            "-c",
            "write -P 9 100k 512",
            image.to_str().unwrap(),
        ],
    );
    let digest = |path: &Path| blake3::hash(&std::fs::read(path).unwrap()).to_string();
    let mut parent: Option<String> = None;
    for name in ["full", "second", "third"] {
        let path = rig.path(name).join("manifest.json");
        let text = std::fs::read(&path).unwrap();
        let mut manifest: serde_json::Value = serde_json::from_slice(&text).unwrap();
        match parent {
            None => {
                let told = &mut manifest["members"][0]["disks"][0]["content"]["image"];
                told["blake3"] = digest(&image).into();
                told["bytes"] = std::fs::metadata(&image).unwrap().len().into();
            }
            Some(parent) => manifest["parent"]["manifest_blake3"] = parent.into(),
        }
        std::fs::write(&path, manifest.to_string()).unwrap();
        let sums = std::fs::read_to_string(rig.path(name).join("B3SUMS")).unwrap();
        let files = sums.lines().map(|line| line.split_once("  ").unwrap().1);
        let sums = files.map(|file| format!("{}  {file}\n", digest(&rig.path(name).join(file))));
        std::fs::write(rig.path(name).join("B3SUMS"), sums.collect::<String>()).unwrap();
        parent = Some(digest(&path));
    }
    for name in ["second", "third"] {
        match check(&rig.path(name), &[]) {
            Err(ArchiveError::Damaged(error)) => assert!(
                error.contains("full/web.disk0.qcow2 does not read as its leaves say"),
                "{error}"
            ),
            other => panic!("{other:?}"),
        }
        // What it holds itself is whole.
        let target = rig.path(&format!("{name}-out"));
        bring_back(&rig.path(name), &[], &target, ImageFormat::Raw).unwrap();
    }
}

#[test]
fn a_chain_that_was_moved_is_found_again() {
    let rig = three();
    std::fs::create_dir(rig.path("archive")).unwrap();
    std::fs::rename(rig.path("second"), rig.path("archive/second")).unwrap();
    match check(&rig.path("third"), &[]) {
        Err(ArchiveError::Invalid(error)) => {
            let expected = rig.path("second").display().to_string();
            let expected = expected.rsplit('/').next().unwrap();
            assert!(error.contains(expected), "where it looked: {error}");
            assert!(error.contains("--base DIR"), "what to do: {error}");
        }
        other => panic!("{other:?}"),
    }
    // `second` names `../full`, which is not beside it any more.
    for bases in [
        vec![rig.path("archive/second"), rig.path("full")],
        vec![rig.path("archive"), rig.directory.path().to_owned()],
    ] {
        let verified = check(&rig.path("third"), &bases).unwrap();
        assert!(verified.damages.is_empty());
        assert_eq!(verified.exports.len(), 3);
    }
    // Another export in the parent's place is not taken for it.
    std::fs::rename(rig.path("full"), rig.path("second")).unwrap();
    match check(&rig.path("third"), &[]) {
        Err(ArchiveError::Invalid(error)) => assert!(error.contains("is the export"), "{error}"),
        other => panic!("{other:?}"),
    }
}

/// Every file of an export is damaged in every way: `verify` names it, `restore` leaves
/// nothing.
#[test]
fn damage_is_named_and_not_restored() {
    let rig = three();
    let target = rig.path("out");
    let noticed = |file: &Path, what: &str| {
        let name = file.file_name().unwrap().to_str().unwrap();
        let text = match check(&rig.path("third"), &[]) {
            Ok(verified) => format!("{:?}", verified.damages),
            Err(ArchiveError::Damaged(error) | ArchiveError::Invalid(error)) => error,
            other => panic!("{name} {what}: {other:?}"),
        };
        // Of a manifest and its digest, it cannot be known which one is wrong.
        let directory = file.parent().unwrap().to_str().unwrap();
        let named = text.contains(name) || (name == "B3SUMS" && text.contains("manifest.json"));
        assert!(named && text.contains(directory), "{file:?} {what}: {text}");
        match bring_back(&rig.path("third"), &[], &target, ImageFormat::Raw) {
            Err(ArchiveError::Damaged(_) | ArchiveError::Invalid(_)) => (),
            other => panic!("{name} {what}: {other:?}"),
        }
        assert!(
            !target.exists() && rig.leftovers().is_empty(),
            "{name} {what}"
        );
    };
    let mut files = 0;
    for export in ["full", "second", "third"] {
        for entry in std::fs::read_dir(rig.path(export)).unwrap() {
            let file = entry.unwrap().path();
            let good = std::fs::read(&file).unwrap();
            let last = good.len() - 1;
            // At its ends, and here and there in between.
            let between = (1..8).map(|part| (part * last / 8) ^ (part * 7919 % 64));
            for at in [0, 7, last].into_iter().chain(between) {
                let mut bad = good.clone();
                bad[at] ^= 1 << (at % 8);
                std::fs::write(&file, &bad).unwrap();
                noticed(&file, &format!("with a bit flipped at {at}"));
            }
            for length in [0, last] {
                std::fs::write(&file, &good[..length]).unwrap();
                noticed(&file, &format!("cut to {length}"));
            }
            std::fs::write(&file, [&good[..], b"x"].concat()).unwrap();
            noticed(&file, "made longer");
            std::fs::remove_file(&file).unwrap();
            noticed(&file, "removed");
            std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
            if !file.ends_with("manifest.json") && !file.ends_with("B3SUMS") {
                noticed(&file, "a link elsewhere");
            }
            std::fs::remove_file(&file).unwrap();
            std::fs::write(&file, &good).unwrap();
            files += 1;
        }
        let added = rig.path(export).join("added");
        std::fs::write(&added, "").unwrap();
        noticed(&added, "added");
        std::fs::remove_file(&added).unwrap();
    }
    assert_eq!(files, 5 + 4 + 4);
    assert!(
        check(&rig.path("third"), &[]).unwrap().damages.is_empty(),
        "as it was"
    );
}

/// Two exports of the same disk, each good, with files exchanged.
#[test]
fn mixed_exports_are_noticed() {
    let mut rig = Rig::new(1 << 20, ImageFormat::Qcow2);
    rig.io(&["write -P 1 0 256k"]);
    rig.full("one");
    rig.io(&["write -P 2 0 64k"]);
    rig.full("two");
    rig.overlay();
    rig.io(&["write -P 3 128k 64k"]);
    rig.since("next", "two", 1, false);
    let files = [
        "web.disk0.qcow2",
        "web.disk0.leaves",
        "manifest.json",
        "B3SUMS",
    ];
    let good: Vec<_> = files
        .iter()
        .map(|file| std::fs::read(rig.path("two").join(file)).unwrap())
        .collect();
    for mixed in 1_usize..15 {
        for (index, file) in files.iter().enumerate() {
            let mine = rig.path("two").join(file);
            match mixed >> index & 1 {
                1 => drop(std::fs::copy(rig.path("one").join(file), mine).unwrap()),
                _ => std::fs::write(mine, &good[index]).unwrap(),
            }
        }
        for export in ["two", "next"] {
            let verified = check(&rig.path(export), &[]);
            let good = verified.is_ok_and(|verified| verified.damages.is_empty());
            assert!(!good, "{mixed:04b} of {export}");
            let target = rig.path("out");
            let restored = bring_back(&rig.path(export), &[], &target, ImageFormat::Raw);
            assert!(restored.is_err() && !target.exists(), "{mixed:04b}");
        }
    }
    // All of them: a good export, but not the one that the next stands on.
    for file in files {
        std::fs::copy(rig.path("one").join(file), rig.path("two").join(file)).unwrap();
    }
    assert!(check(&rig.path("two"), &[]).unwrap().damages.is_empty());
    assert!(check(&rig.path("next"), &[]).is_err());
}

#[test]
fn memory_is_left_out_where_it_is_not_wanted() {
    let rig = three();
    let target = rig.path("out");
    let order = Restore {
        qemu_nbd: "qemu-nbd".into(),
        directory: rig.path("full"),
        bases: Vec::new(),
        target: target.clone(),
        format: ImageFormat::Qcow2,
        memory: false,
    };
    let restored = restore(&order, &|_| Go::On).unwrap();
    assert_eq!(restored.members[0].memory, None);
    assert!(target.join("web/disk0.qcow2").exists() && !target.join("web/memory").exists());
}

#[test]
fn a_target_that_is_in_use_is_refused() {
    let rig = three();
    match bring_back(&rig.path("third"), &[], &rig.path("full"), ImageFormat::Raw) {
        Err(ArchiveError::Invalid(error)) => assert!(error.contains("not empty"), "{error}"),
        other => panic!("{other:?}"),
    }
    let mut order = rig.order("record", Content::Full { reason: None });
    order.copy_storage = false;
    export(order).unwrap();
    match bring_back(&rig.path("record"), &[], &rig.path("out"), ImageFormat::Raw) {
        Err(ArchiveError::Invalid(error)) => assert!(error.contains("no disk"), "{error}"),
        other => panic!("{other:?}"),
    }
    let cancelled = restore(
        &Restore {
            qemu_nbd: "qemu-nbd".into(),
            directory: rig.path("third"),
            bases: vec![],
            target: rig.path("out"),
            format: ImageFormat::Raw,
            memory: true,
        },
        &|_| Go::Stop,
    );
    // It may have come to its end before anybody was asked.
    assert_eq!(rig.path("out").exists(), cancelled.is_ok());
    assert!(rig.leftovers().is_empty());
}
