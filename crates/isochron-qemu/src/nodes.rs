//! QEMU's block nodes and the files behind them.
//!
//! A layer is found by its file, never by a node's name alone: nodes that QEMU
//! made itself, or that an attached machine's owner named, have other names than
//! ours. A file is given by QEMU as a path, as `PROTOCOL:...` or as `json:{...}`.

use std::path::{Path, PathBuf};

use isochron_engine::model::{ImageFormat, LayerId};
use isochron_engine::ports::{HypervisorError, LayerFile};
use qapi::qmp;
use serde_json::Value;

use crate::error::lost_task;
use crate::qmp::Image;

/// Drivers that change nothing about which file holds the data.
const FILTERS: [&str; 5] = [
    "throttle",
    "copy-on-read",
    "compress",
    "preallocate",
    "copy-before-write",
];

/// Where a node's data is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A path of the host, absolute where the process' directory is known.
    Path(PathBuf),
    /// Not a file of the host; in words.
    Elsewhere(String),
}

impl Place {
    /// Reads QEMU's name of a file. `directory` is the process' own.
    pub(crate) fn of(name: &str, directory: Option<&Path>) -> Self {
        if let Some(json) = name.strip_prefix("json:") {
            return match serde_json::from_str(json) {
                Ok(options) => Self::of_options(&options, directory),
                Err(_) => Self::Elsewhere("an image of unreadable options".to_owned()),
            };
        }
        let path = match name.strip_prefix("file:") {
            Some(path) => path,
            None if has_protocol(name) => {
                let protocol = name.split(':').next().unwrap_or(name);
                return Self::Elsewhere(format!("not a file ({protocol})"));
            }
            None => name,
        };
        Self::local(path, directory)
    }

    fn local(path: &str, directory: Option<&Path>) -> Self {
        Self::Path(directory.map_or_else(|| path.into(), |directory| directory.join(path)))
    }

    fn of_options(options: &Value, directory: Option<&Path>) -> Self {
        let driver = options["driver"].as_str().unwrap_or("file");
        match driver {
            "file" | "host_device" => match options["filename"].as_str() {
                Some(path) => Self::local(path, directory),
                None => Self::Elsewhere("an image without a name".to_owned()),
            },
            "raw" if options.get("offset").is_some() || options.get("size").is_some() => {
                Self::Elsewhere("a part of a file".to_owned())
            }
            // Formats and filters lead on to their file; depth was bounded when
            // the text was read.
            _ => match options.get("file") {
                Some(file @ Value::Object(_)) => Self::of_options(file, directory),
                _ => Self::Elsewhere(format!("not a file ({driver})")),
            },
        }
    }
}

/// As QEMU decides (`path_has_protocol`): letters before a colon, before any
/// slash.
fn has_protocol(name: &str) -> bool {
    name.find([':', '/'])
        .is_some_and(|at| name.as_bytes()[at] == b':')
}

/// Whether a driver only stands in front of another node.
pub(crate) fn is_filter(driver: &str) -> bool {
    FILTERS.contains(&driver)
}

/// The format that a driver stands for. A device may sit on a bare file node.
pub(crate) fn format_of(driver: &str) -> Option<ImageFormat> {
    match driver {
        "qcow2" => Some(ImageFormat::Qcow2),
        "raw" | "file" => Some(ImageFormat::Raw),
        _ => None,
    }
}

/// The images of a chain that hold data, the active one first.
pub(crate) fn chain(image: &Image) -> impl Iterator<Item = &Image> {
    std::iter::successors(Some(image), |image| image.backing_image.as_deref())
        .filter(|image| !is_filter(&image.format))
}

/// The name of a layer's format node where we open it: at most 31 characters,
/// beginning with a letter.
pub(crate) fn format_node(layer: LayerId) -> String {
    format!("l{}", short(layer))
}

/// The name of its protocol node.
pub(crate) fn protocol_node(layer: LayerId) -> String {
    format!("p{}", short(layer))
}

/// The first 24 of a layer's hexadecimal digits.
pub(crate) fn short(layer: LayerId) -> String {
    let mut digits = layer.0.simple().to_string();
    digits.truncate(24);
    digits
}

/// What a layer's node stands on.
pub(crate) enum Backing {
    /// Nothing yet: a swap will put it on a node.
    None,
    /// A node.
    Node(String),
    /// What its own header says.
    Header,
}

/// How nodes of a disk are opened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Access {
    pub(crate) read_only: bool,
    /// Past the host's cache.
    pub(crate) direct: bool,
    /// The guest's flushes are ignored.
    pub(crate) no_flush: bool,
    pub(crate) detect_zeroes: Option<qmp::BlockdevDetectZeroesOptions>,
}

/// The options with which a layer is opened. `device` is set where the file is a
/// block device.
pub(crate) fn options(
    layer: &LayerFile,
    backing: Backing,
    access: Access,
    device: bool,
) -> Result<qmp::BlockdevOptions, HypervisorError> {
    let path = layer.path.to_str().ok_or_else(|| {
        HypervisorError::Invalid(format!("{} is not UTF-8", layer.path.display()))
    })?;
    let base = |node_name: String| qmp::BlockdevOptionsBase {
        auto_read_only: None,
        cache: Some(qmp::BlockdevCacheOptions {
            direct: Some(access.direct),
            no_flush: Some(access.no_flush),
        }),
        detect_zeroes: None,
        discard: Some(qmp::BlockdevDiscardOptions::unmap),
        force_share: None,
        node_name: Some(node_name),
        read_only: Some(access.read_only),
    };
    let file = qmp::BlockdevOptionsFile {
        aio: None,
        aio_max_batch: None,
        drop_cache: None,
        locking: None,
        pr_manager: None,
        x_check_cache_dropped: None,
        filename: path.to_owned(),
    };
    // The file's node inherits read-only from the format's, also when QEMU
    // reopens that for a merge: so it must not be said here.
    let inherited = qmp::BlockdevOptionsBase {
        read_only: None,
        ..base(protocol_node(layer.id))
    };
    let file = match device {
        true => qmp::BlockdevOptions::host_device {
            base: inherited,
            host_device: file,
        },
        false => qmp::BlockdevOptions::file {
            base: inherited,
            file,
        },
    };
    let file = qmp::BlockdevOptionsGenericFormat {
        file: qmp::BlockdevRef::definition(Box::new(file)),
    };
    let base = qmp::BlockdevOptionsBase {
        detect_zeroes: access.detect_zeroes,
        ..base(format_node(layer.id))
    };
    Ok(match layer.format {
        ImageFormat::Raw => qmp::BlockdevOptions::raw {
            base,
            raw: file.into(),
        },
        ImageFormat::Qcow2 => {
            let cow = qmp::BlockdevOptionsGenericCOWFormat {
                base: file,
                backing: match backing {
                    Backing::None => Some(qmp::BlockdevRefOrNull::null(())),
                    Backing::Node(name) => Some(qmp::BlockdevRefOrNull::reference(name)),
                    Backing::Header => None,
                },
            };
            qmp::BlockdevOptions::qcow2 {
                base,
                qcow2: cow.into(),
            }
        }
    })
}

/// The true names of files, links resolved; of one that is not there, the name
/// itself.
pub(crate) async fn true_names(paths: Vec<PathBuf>) -> Result<Vec<PathBuf>, HypervisorError> {
    let resolve = |path: PathBuf| std::fs::canonicalize(&path).unwrap_or(path);
    tokio::task::spawn_blocking(move || paths.into_iter().map(resolve).collect())
        .await
        .map_err(|error| lost_task(&error))
}

/// Whether a path is a block device.
pub(crate) async fn is_block_device(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    tokio::fs::metadata(path)
        .await
        .is_ok_and(|data| data.file_type().is_block_device())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_of_naming_a_file_leads_to_it() {
        let cwd = Path::new("/home/owner");
        let path = |p: &str| Place::Path(p.into());
        for (name, place) in [
            ("/a/b.qcow2", path("/a/b.qcow2")),
            ("b.qcow2", path("/home/owner/b.qcow2")),
            ("dir/odd:name.raw", path("/home/owner/dir/odd:name.raw")),
            ("file:b.raw", path("/home/owner/b.raw")),
            (
                r#"json:{"driver":"qcow2","file":{"driver":"file","filename":"/x"}}"#,
                path("/x"),
            ),
            (
                r#"json:{"backing":null,"driver":"qcow2","file":{"driver":"raw","file":{"driver":"file","filename":"y"}}}"#,
                path("/home/owner/y"),
            ),
        ] {
            assert_eq!(Place::of(name, Some(cwd)), place, "{name}");
        }
        for name in [
            "nbd://host/export",
            "rbd:pool/image",
            r#"json:{"driver":"raw","offset":512,"file":{"driver":"file","filename":"/x"}}"#,
            r#"json:{"driver":"nbd","server":{"type":"unix","path":"/x"}}"#,
            r#"json:{"driver":"null-co"}"#,
            "json:{",
        ] {
            assert!(
                matches!(Place::of(name, Some(cwd)), Place::Elsewhere(_)),
                "{name}"
            );
        }
    }
}
