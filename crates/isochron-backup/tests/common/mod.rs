//! Disks made by `qemu-img` and `qemu-io`, exports of them, and what `qemu-img` says
//! of the exports.

#![allow(dead_code)] // each test uses its part
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests end at the first surprise

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use isochron_backup::DirectoryArchive;
use isochron_backup::digest::BLOCK;
use isochron_backup::manifest::{Disk, Manifest};
use isochron_engine::model::{
    Changes, CollectionId, Consistency, CutReport, Definition, ExportId, ImageFormat, LayerId,
    MachineId, Power, SnapshotKind,
};
use isochron_engine::ports::{
    Archive, ArchiveError, Content, Copied, Exported, Go, Instant, LayerFile, Order, OrderDisk,
    OrderMember,
};

/// Runs a program to its end, which must be a good one; what it wrote.
pub fn run<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> String {
    let arguments: Vec<_> = arguments
        .into_iter()
        .map(|argument| argument.as_ref().to_owned())
        .collect();
    let output = Command::new(program).args(&arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// A machine with one disk, whose layers are in a directory of its own.
pub struct Rig {
    pub directory: tempfile::TempDir,
    pub machine: MachineId,
    pub collection: CollectionId,
    pub size: u64,
    /// The instant's layer last.
    pub layers: Vec<LayerFile>,
}

impl Rig {
    /// With a first layer of that size in bytes.
    pub fn new(size: u64, format: ImageFormat) -> Self {
        let mut rig = Self {
            directory: tempfile::tempdir().unwrap(),
            machine: MachineId::new(),
            collection: CollectionId::new(),
            size,
            layers: Vec::new(),
        };
        let path = rig.path("base.img");
        let size = size.to_string();
        let path_text = path.to_str().unwrap();
        run(
            "qemu-img",
            ["create", "-q", "-f", format.as_str(), path_text, &size],
        );
        rig.layers.push(LayerFile {
            id: LayerId::new(),
            path,
            format,
        });
        rig
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A new layer on the last, as after a snapshot.
    pub fn overlay(&mut self) {
        let below = self.layers.last().unwrap();
        let path = self.path(&format!("layer{}.qcow2", self.layers.len()));
        let (size, format) = (self.size.to_string(), below.format.as_str());
        // Every other one names what it stands on relatively.
        let name = match self.layers.len() % 2 {
            0 => below.path.file_name().unwrap().to_str().unwrap(),
            _ => below.path.to_str().unwrap(),
        };
        let path_text = path.to_str().unwrap();
        run(
            "qemu-img",
            [
                "create", "-q", "-f", "qcow2", "-u", "-b", name, "-F", format, path_text, &size,
            ],
        );
        self.layers.push(LayerFile {
            id: LayerId::new(),
            path,
            format: ImageFormat::Qcow2,
        });
    }

    /// Makes the first layer anew from its own content, with these options of
    /// `qemu-img convert`; it is a qcow2 image afterwards.
    pub fn convert(&mut self, options: &[&str]) {
        let path = self.path("converted.qcow2");
        let base = &mut self.layers[0];
        let mut arguments = vec!["convert", "-f", base.format.as_str(), "-O", "qcow2"];
        arguments.extend(options);
        arguments.extend([base.path.to_str().unwrap(), path.to_str().unwrap()]);
        run("qemu-img", arguments);
        std::fs::rename(&path, &base.path).unwrap();
        base.format = ImageFormat::Qcow2;
    }

    /// Has `qemu-io` do this to the last layer, such as `write -P 1 0 64k`.
    pub fn io(&self, commands: &[&str]) {
        let layer = self.layers.last().unwrap();
        let mut arguments = vec!["-d", "unmap", "-f", layer.format.as_str()];
        for command in commands {
            arguments.extend(["-c", command]);
        }
        arguments.push(layer.path.to_str().unwrap());
        run("qemu-io", arguments);
    }

    /// What `qemu-img` says is allocated in the last so many layers.
    pub fn changes(&self, layers: usize) -> Changes {
        let mut changes = Changes::none();
        for layer in self.layers.iter().rev().take(layers) {
            let map = run(
                "qemu-img",
                ["map", "-U", "--output=json", layer.path.to_str().unwrap()],
            );
            let map: serde_json::Value = serde_json::from_str(&map).unwrap();
            for extent in map.as_array().unwrap() {
                if extent["depth"] == 0 && extent["present"] == true {
                    let start = extent["start"].as_u64().unwrap();
                    changes.touch(start..start + extent["length"].as_u64().unwrap());
                }
            }
        }
        changes
    }

    /// An order of the present content.
    pub fn order(&self, name: &str, content: Content) -> Order {
        let instant = Instant {
            id: uuid::Uuid::new_v4(),
            name: name.to_owned(),
            collection: self.collection,
            collection_name: "shop".to_owned(),
            kind: SnapshotKind::Recovery,
            consistency: Consistency::Crash,
            created_at: time::OffsetDateTime::now_utc(),
            cut: CutReport::default(),
            notes: String::new(),
        };
        let definition = serde_json::json!({
            "name": "web",
            "disks": [{"name": "disk0", "path": self.layers[0].path, "format": "qcow2"}],
        });
        let definition: Definition = serde_json::from_value(definition).unwrap();
        Order {
            id: ExportId::new(),
            directory: self.path(name),
            instant,
            members: vec![OrderMember {
                machine: self.machine,
                machine_name: "web".to_owned(),
                power: Power::Running,
                definition,
                machine_type: Some("pc-q35-7.2".to_owned()),
                memory: None,
                disks: vec![OrderDisk {
                    name: "disk0".to_owned(),
                    chain: self.layers.iter().rev().cloned().collect(),
                    virtual_size: self.size,
                    content,
                }],
                left_out: Vec::new(),
            }],
            base: None,
            merge: false,
            copy_storage: true,
            limit: None,
        }
    }

    /// Exports all of the present content.
    pub fn full(&self, name: &str) -> Manifest {
        let order = self.order(name, Content::Full { reason: None });
        export(order).unwrap();
        self.check(name)
    }

    /// Exports what changed in the last layers.
    pub fn since(&self, name: &str, base: &str, layers: usize, merge: bool) -> Manifest {
        let mut order = self.order(name, Content::Since(self.changes(layers)));
        order.base = Some(self.path(base));
        order.merge = merge;
        export(order).unwrap();
        self.check(name)
    }

    /// Has `qemu-img` say that the exported image is whole and reads as the layers do,
    /// and makes the content's digest anew.
    pub fn check(&self, name: &str) -> Manifest {
        let directory = self.path(name);
        let (manifest, _) = Manifest::read(&directory).unwrap();
        let disk = disk(&manifest);
        let content = disk.content.as_ref().unwrap();
        let image = directory.join(&content.image.file);
        let image_text = image.to_str().unwrap();
        run("qemu-img", ["check", "-q", "-f", "qcow2", image_text]);
        let top = self.layers.last().unwrap();
        run(
            "qemu-img",
            [
                "compare",
                "-q",
                "-U",
                "-f",
                "qcow2",
                "-F",
                top.format.as_str(),
                image_text,
                top.path.to_str().unwrap(),
            ],
        );
        for file in manifest.files() {
            let bytes = std::fs::read(directory.join(&file.file)).unwrap();
            assert_eq!(bytes.len() as u64, file.bytes, "{}", file.file);
            assert_eq!(
                file.blake3.0,
                *blake3::hash(&bytes).as_bytes(),
                "{}",
                file.file
            );
        }
        // A digest of holes by the terabyte takes a while to make plainly.
        if self.size <= 1 << 30 {
            let raw = self.path("plain.raw");
            let raw_text = raw.to_str().unwrap();
            run(
                "qemu-img",
                ["convert", "-f", "qcow2", "-O", "raw", image_text, raw_text],
            );
            let content_digest = content_digest(&raw);
            assert_eq!(content.blake3.0, content_digest, "content of {name}");
            std::fs::remove_file(raw).unwrap();
        }
        manifest
    }

    /// Which names there are in the directory but for images.
    pub fn leftovers(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with('.'))
            .collect();
        names.sort();
        names
    }
}

/// The only disk.
pub fn disk(manifest: &Manifest) -> &Disk {
    &manifest.members[0].disks[0]
}

/// What is allocated in the file of the only disk's image: data and zeroes, in blocks.
pub fn held(rig: &Rig, name: &str) -> (u64, u64) {
    let (manifest, _) = Manifest::read(&rig.path(name)).unwrap();
    let image = rig
        .path(name)
        .join(&disk(&manifest).content.as_ref().unwrap().image.file);
    let map = run(
        "qemu-img",
        ["map", "--output=json", image.to_str().unwrap()],
    );
    let map: serde_json::Value = serde_json::from_str(&map).unwrap();
    let (mut data, mut zero) = (0, 0);
    for extent in map.as_array().unwrap() {
        if extent["depth"] == 0 && extent["present"] == true {
            let blocks = extent["length"].as_u64().unwrap().div_ceil(BLOCK);
            match extent["zero"] == true {
                true => zero += blocks,
                false => data += blocks,
            }
        }
    }
    (data, zero)
}

/// The digest of a raw image's content, made plainly.
pub fn content_digest(raw: &Path) -> [u8; 32] {
    let disk = std::fs::read(raw).unwrap();
    let leaves: Vec<u8> = disk
        .chunks(BLOCK as usize)
        .flat_map(|block| *blake3::hash(block).as_bytes())
        .collect();
    *blake3::hash(&leaves).as_bytes()
}

/// Carries out an order.
pub fn export(order: Order) -> Result<Exported, ArchiveError> {
    export_with(order, |_| Go::On)
}

/// Carries out an order that is watched.
pub fn export_with(
    order: Order,
    progress: impl Fn(Copied) -> Go + Send + Sync,
) -> Result<Exported, ArchiveError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let export = DirectoryArchive::default().open(order).await?;
        export.run(&progress).await
    })
}
