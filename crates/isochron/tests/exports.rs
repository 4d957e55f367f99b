//! `isochron export ...` and `isochron restore --files-only` on directories of exports:
//! what is printed, how they exit. No daemon runs.

#![allow(clippy::unwrap_used)] // tests end at the first surprise

use std::path::Path;
use std::process::{Command, Output};

use isochron_backup::DirectoryArchive;
use isochron_engine::model::{
    Changes, CollectionId, Consistency, CutReport, Definition, ExportId, ImageFormat, LayerId,
    MachineId, MemoryState, Power, SnapshotKind,
};
use isochron_engine::ports::{
    Archive, Content, Go, Instant, LayerFile, Order, OrderDisk, OrderMember,
};
use serde_json::Value;

fn program(program: &str, arguments: &[&str], directory: &Path) -> Output {
    Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .env("HOME", directory)
        .env_remove("ISOCHRON_CONFIG")
        .output()
        .unwrap()
}

fn isochron(arguments: &[&str], directory: &Path) -> (i32, String, String) {
    let output = program(env!("CARGO_BIN_EXE_isochron"), arguments, directory);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// The order of a full export `monday` of a disk of 1 MiB.
fn order(directory: &Path) -> Order {
    let disk = directory.join("disk.raw");
    std::fs::write(&disk, vec![1; 1 << 20]).unwrap();
    let definition = serde_json::json!({
        "name": "web",
        "disks": [{"name": "disk0", "path": disk, "format": "raw"}],
    });
    let definition: Definition = serde_json::from_value(definition).unwrap();
    Order {
        id: ExportId::new(),
        directory: directory.join("monday"),
        instant: Instant {
            id: uuid::Uuid::new_v4(),
            name: "before-upgrade".to_owned(),
            collection: CollectionId::new(),
            collection_name: "shop".to_owned(),
            kind: SnapshotKind::Recovery,
            consistency: Consistency::Crash,
            created_at: time::OffsetDateTime::now_utc(),
            cut: CutReport::default(),
            notes: String::new(),
        },
        members: vec![OrderMember {
            machine: MachineId::new(),
            machine_name: "web".to_owned(),
            power: Power::Running,
            definition,
            machine_type: None,
            memory: None,
            disks: vec![OrderDisk {
                name: "disk0".to_owned(),
                chain: vec![LayerFile {
                    id: LayerId::new(),
                    path: disk.clone(),
                    format: ImageFormat::Raw,
                }],
                virtual_size: 1 << 20,
                content: Content::Full { reason: None },
            }],
            left_out: Vec::new(),
        }],
        base: None,
        merge: false,
        copy_storage: true,
        limit: None,
    }
}

fn export(order: Order) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let archive = DirectoryArchive::default();
        let export = archive.open(order).await.unwrap();
        export.run(&|_| Go::On).await.unwrap();
    });
}

/// A full export `monday` of a disk of 1 MiB, and the difference `tuesday`.
fn exports(directory: &Path) {
    let mut order = order(directory);
    let disk = directory.join("disk.raw");
    export(order.clone());
    let mut content = std::fs::read(&disk).unwrap();
    content[70_000] = 9;
    std::fs::write(&disk, content).unwrap();
    let mut changes = Changes::none();
    changes.touch(70_000..70_001);
    (order.id, order.directory) = (ExportId::new(), directory.join("tuesday"));
    order.base = Some(directory.join("monday"));
    order.members[0].disks[0].content = Content::Since(changes);
    export(order);
}

#[test]
fn an_export_is_shown_verified_and_restored() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    exports(at);

    let (code, text, _) = isochron(&["export", "show", "tuesday"], at);
    assert_eq!(code, 0);
    for word in [
        "before-upgrade",
        "shop",
        "difference",
        "../monday",
        "web.disk0.qcow2",
    ] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let (code, text, _) = isochron(&["export", "show", "tuesday", "--json"], at);
    let manifest: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, &manifest["kind"]), (0, &"difference".into()));

    let (code, text, error) = isochron(&["export", "verify", "tuesday"], at);
    assert_eq!(code, 0, "{error}");
    assert!(text.starts_with("good: 8 files"), "{text}");

    let (code, text, error) = isochron(&["restore", "--files-only", "tuesday", "out"], at);
    assert_eq!(code, 0, "{error}");
    assert!(text.contains("out/web/disk0.qcow2"), "{text}");
    let compare = [
        "compare",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "out/web/disk0.qcow2",
        "disk.raw",
    ];
    assert!(program("qemu-img", &compare, at).status.success());
    let raw = [
        "restore",
        "--files-only",
        "--format",
        "raw",
        "--json",
        "tuesday",
        "raw",
    ];
    let (code, text, _) = isochron(&raw, at);
    let restored: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, 0);
    let path = restored["members"][0]["disks"][0]["path"].as_str().unwrap();
    assert_eq!(
        std::fs::read(path).unwrap(),
        std::fs::read(at.join("disk.raw")).unwrap()
    );

    // What cannot be, and what it says.
    let (code, _, error) = isochron(&["restore", "--files-only", "tuesday", "out"], at);
    assert!(code == 2 && error.contains("is not empty"), "{error}");
    let (code, _, error) = isochron(&["export", "verify", "out"], at);
    assert!(code == 2 && error.contains("no finished export"), "{error}");
    std::fs::create_dir(at.join("archive")).unwrap();
    std::fs::rename(at.join("monday"), at.join("archive/monday")).unwrap();
    let (code, _, error) = isochron(&["export", "verify", "tuesday"], at);
    assert!(code == 2 && error.contains("--base DIR"), "{error}");
    let (code, ..) = isochron(&["export", "verify", "tuesday", "--base", "archive"], at);
    assert_eq!(code, 0);

    let image = at.join("tuesday/web.disk0.qcow2");
    let mut bytes = std::fs::read(&image).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&image, bytes).unwrap();
    let verify = ["export", "verify", "tuesday", "--base", "archive", "--json"];
    let (code, text, error) = isochron(&verify, at);
    let verified: Value = serde_json::from_str(&text).unwrap();
    assert!(code == 1 && error.contains("damaged"), "{error}");
    let image = std::fs::canonicalize(image).unwrap();
    assert_eq!(verified["damages"][0]["file"], image.to_str().unwrap());
    let restore = [
        "restore",
        "--files-only",
        "tuesday",
        "new",
        "--base",
        "archive",
    ];
    let (code, _, error) = isochron(&restore, at);
    assert!(code == 1 && error.contains("web.disk0.qcow2"), "{error}");
    assert!(!at.join("new").exists());
}

/// What would be no machine that goes on, or boots, as it did is refused before anybody
/// is asked.
#[test]
fn what_would_be_no_machine_is_restored_as_files_only() {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let memory = at.join("saved");
    std::fs::write(&memory, "memory").unwrap();
    let mut part = order(at);
    part.directory = at.join("part");
    part.members[0].memory = Some(MemoryState {
        path: memory,
        bytes: 6,
    });
    let mut other = part.members[0].definition.disks[0].clone();
    other.name = "disk1".to_owned();
    part.members[0].definition.disks.push(other);
    export(part);
    let mut attached = order(at);
    attached.members[0].definition.memory_mib = 0;
    export(attached);

    let (code, _, error) = isochron(&["restore", "part"], at);
    assert!(code == 2 && error.contains("disk1"), "{error}");
    assert!(error.contains("--off"), "{error}");
    let (code, _, error) = isochron(&["restore", "monday"], at);
    assert!(code == 7 && error.contains("attached"), "{error}");
    let files = ["restore", "--files-only", "part", "out"];
    let (code, text, error) = isochron(&files, at);
    assert!(code == 0 && text.contains("out/web/memory"), "{error}");
    let (code, text, _) = isochron(&["restore", "--files-only", "--off", "part", "off"], at);
    assert!(code == 0 && !text.contains("memory"), "{text}");
    assert!(!at.join("off/web/memory").exists());
}
