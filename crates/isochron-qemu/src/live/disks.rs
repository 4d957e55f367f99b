//! What disks a machine has, as its QEMU says (`query-block`), and which node
//! holds which file (`query-named-block-nodes`).

use std::path::{Path, PathBuf};

use isochron_engine::model::ImageFormat;
use isochron_engine::ports::{HypervisorError, LayerFile, LiveDisk};
use qapi::{Enum, qmp};

use super::LiveQemu;
use crate::args::disk_device;
use crate::nodes::{self, Access, Place, true_names};
use crate::qmp::{BlockDevice, NamedNode};

/// A disk and the nodes that it is made of.
pub(super) struct QemuDisk {
    pub(super) live: LiveDisk,
    /// The node that the device sits on.
    pub(super) root: String,
    /// How its nodes are opened.
    pub(super) access: Access,
}

/// A format node and its file's true name.
pub(super) struct FileNode {
    name: String,
    format: ImageFormat,
    /// It is a bare file node, which formats sit on too.
    bare: bool,
    path: PathBuf,
}

/// The file nodes of a machine.
pub(super) struct FileNodes(Vec<FileNode>);

impl FileNodes {
    /// The node that holds a file in that format.
    pub(super) fn find(&self, true_name: &Path, format: ImageFormat) -> Option<&str> {
        let mut found = self
            .0
            .iter()
            .filter(|n| n.path == true_name && n.format == format);
        // A raw node before the file node that it sits on.
        let first = found.next()?;
        let best = if first.bare {
            found.find(|n| !n.bare).unwrap_or(first)
        } else {
            first
        };
        Some(&best.name)
    }
}

impl LiveQemu {
    /// The disks, in QEMU's order. Drives without a medium are none.
    pub(super) async fn disk_list(&self) -> Result<Vec<QemuDisk>, HypervisorError> {
        self.settle().await?;
        let devices: Vec<BlockDevice> = self.qmp.ask(&qmp::query_block {}).await?;
        let mut disks = Vec::with_capacity(devices.len());
        for device in devices {
            if let Some(disk) = self.disk(device).await {
                disks.push(disk);
            }
        }
        Ok(disks)
    }

    /// The disk of that name.
    pub(super) async fn disk_named(&self, name: &str) -> Result<QemuDisk, HypervisorError> {
        let disks = self.disk_list().await?;
        disks
            .into_iter()
            .find(|disk| disk.live.name == name)
            .ok_or_else(|| HypervisorError::Invalid(format!("the machine has no disk {name}")))
    }

    async fn disk(&self, device: BlockDevice) -> Option<QemuDisk> {
        let name = self.disk_name(&device);
        let node = device.inserted?;
        let directory = self.identity.directory.as_deref();
        let mut chain = Vec::new();
        let mut excluded = None;
        for image in nodes::chain(&node.image) {
            match Place::of(&image.filename, directory) {
                Place::Path(path) => chain.push(path),
                Place::Elsewhere(what) => {
                    // What a file stands on is its owner's affair.
                    if chain.is_empty() {
                        excluded = Some(what);
                    }
                    break;
                }
            }
        }
        let active = nodes::chain(&node.image).next().unwrap_or(&node.image);
        let format = nodes::format_of(&active.format);
        if excluded.is_none() {
            excluded = match chain.first() {
                _ if active.format == "host_device" => Some("a passed-through device".to_owned()),
                _ if format.is_none() => Some(format!("an image of the kind {}", active.format)),
                _ if node.encrypted => Some("an encrypted image".to_owned()),
                Some(path) if nodes::is_block_device(path).await => {
                    Some(format!("a passed-through device ({})", path.display()))
                }
                Some(_) => None,
                None => Some(format!("not a file ({})", node.drv)),
            };
        }
        let detect_zeroes = node.detect_zeroes.as_deref().and_then(Enum::from_name);
        Some(QemuDisk {
            live: LiveDisk {
                name,
                path: chain.first().cloned().unwrap_or_default(),
                format: format.unwrap_or(ImageFormat::Raw),
                chain,
                virtual_size: active.virtual_size,
                read_only: node.ro,
                excluded,
            },
            root: node.name.unwrap_or_default(),
            access: Access {
                read_only: false,
                direct: node.cache.direct,
                no_flush: node.cache.no_flush,
                detect_zeroes,
            },
        })
    }

    /// Of a launched machine, the definition's name. Else what stays the same for
    /// as long as the device is there: its own identifier, the drive's, its path.
    /// A node's name changes with every snapshot.
    fn disk_name(&self, device: &BlockDevice) -> String {
        let path = device.qdev.as_deref().unwrap_or_default();
        let id = path
            .strip_prefix("/machine/peripheral/")
            .and_then(|rest| rest.split('/').next());
        if let (Some(id), Some(names)) = (id, &self.identity.disk_names) {
            let index = (0..names.len()).find(|index| disk_device(*index) == id);
            if let Some(index) = index {
                return names[index].clone();
            }
        }
        match id {
            Some(id) => id.to_owned(),
            None if !device.device.is_empty() => device.device.clone(),
            None => path.to_owned(),
        }
    }

    /// All nodes that hold a file.
    pub(super) async fn file_nodes(&self) -> Result<FileNodes, HypervisorError> {
        self.settle().await?;
        let query = qmp::query_named_block_nodes { flat: Some(true) };
        let nodes: Vec<NamedNode> = self.qmp.ask(&query).await?;
        let directory = self.identity.directory.as_deref();
        let (mut found, mut paths) = (Vec::new(), Vec::new());
        for node in nodes {
            let place = Place::of(&node.file, directory);
            if let (Some(format), Place::Path(path), Some(name)) =
                (nodes::format_of(&node.drv), place, node.name)
            {
                found.push((name, format, node.drv == "file"));
                paths.push(path);
            }
        }
        let paths = true_names(paths).await?;
        let nodes = found
            .into_iter()
            .zip(paths)
            .map(|((name, format, bare), path)| FileNode {
                name,
                format,
                bare,
                path,
            });
        Ok(FileNodes(nodes.collect()))
    }

    /// The nodes that hold these layers, where they are open.
    pub(super) async fn nodes_of<const N: usize>(
        &self,
        layers: [&LayerFile; N],
    ) -> Result<[Option<String>; N], HypervisorError> {
        let nodes = self.file_nodes().await?;
        let names = true_names(layers.iter().map(|layer| layer.path.clone()).collect()).await?;
        let mut names = names.into_iter();
        Ok(layers.map(|layer| {
            let name = names.next()?;
            nodes.find(&name, layer.format).map(str::to_owned)
        }))
    }
}
