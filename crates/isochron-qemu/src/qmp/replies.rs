//! Answers read with less than the schema's types: only what is used here, and
//! words instead of closed sets of values. The schema's own types list every
//! driver and state of one QEMU version; a disk of an unknown driver, or a later
//! QEMU, would make the whole answer unreadable.

use serde::Deserialize;

/// `query-status`.
#[derive(Debug, Deserialize)]
pub(crate) struct Status {
    pub(crate) running: bool,
    pub(crate) status: String,
}

/// `query-migrate`.
#[derive(Debug, Deserialize)]
pub(crate) struct Migration {
    pub(crate) status: Option<String>,
    #[serde(rename = "error-desc")]
    pub(crate) error: Option<String>,
    #[serde(rename = "total-time", default)]
    pub(crate) total_time: u64,
    pub(crate) ram: Option<Ram>,
}

/// Memory's part of `query-migrate`, in bytes and pages.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Ram {
    #[serde(default)]
    pub(crate) total: u64,
    #[serde(default)]
    pub(crate) remaining: u64,
    #[serde(default)]
    pub(crate) transferred: u64,
    /// Pages sent as such.
    #[serde(default)]
    pub(crate) normal: u64,
    /// Pages sent as "all the same byte".
    #[serde(default)]
    pub(crate) duplicate: u64,
}

/// One of `query-migrate-capabilities`.
#[derive(Debug, Deserialize)]
pub(crate) struct Capability {
    pub(crate) capability: String,
    pub(crate) state: bool,
}

/// `query-migrate-parameters`.
#[derive(Debug, Deserialize)]
pub(crate) struct Parameters {
    #[serde(rename = "max-bandwidth")]
    pub(crate) max_bandwidth: Option<u64>,
}

/// One of `query-jobs`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Job {
    pub(crate) id: String,
    pub(crate) status: String,
    pub(crate) current_progress: u64,
    pub(crate) total_progress: u64,
    pub(crate) error: Option<String>,
}

/// One of `query-block`.
#[derive(Debug, Deserialize)]
pub(crate) struct BlockDevice {
    pub(crate) device: String,
    pub(crate) qdev: Option<String>,
    pub(crate) inserted: Option<Node>,
}

/// A device's root node in `query-block`.
#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    #[serde(rename = "node-name")]
    pub(crate) name: Option<String>,
    pub(crate) drv: String,
    pub(crate) ro: bool,
    #[serde(default)]
    pub(crate) encrypted: bool,
    pub(crate) cache: CacheInfo,
    pub(crate) detect_zeroes: Option<String>,
    pub(crate) image: Image,
}

/// One of `query-named-block-nodes`.
#[derive(Debug, Deserialize)]
pub(crate) struct NamedNode {
    #[serde(rename = "node-name")]
    pub(crate) name: Option<String>,
    pub(crate) drv: String,
    pub(crate) file: String,
}

/// How a node uses the host's cache.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct CacheInfo {
    pub(crate) direct: bool,
    #[serde(rename = "no-flush")]
    pub(crate) no_flush: bool,
}

/// An image of a chain.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Image {
    pub(crate) filename: String,
    pub(crate) format: String,
    pub(crate) virtual_size: u64,
    pub(crate) backing_image: Option<Box<Image>>,
}
