//! The configuration's file as it is written: every key may be absent, and one that is
//! not known is an error.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::{Address, Anonymous, Indications, Kerberos, Span};

/// The file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    pub(super) state: Option<PathBuf>,
    pub(super) run: Option<PathBuf>,
    pub(super) audit_log: Option<PathBuf>,
    pub(super) listen: FileListen,
    pub(super) tls: FileTls,
    pub(super) kerberos: Kerberos,
    pub(super) paths: FilePaths,
    pub(super) limits: FileLimits,
    pub(super) deadlines: FileDeadlines,
    pub(super) qemu: FileQemu,
    pub(super) jobs: FileJobs,
    pub(super) indications: Indications,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileListen {
    pub(super) socket: Option<PathBuf>,
    pub(super) socket_group: Option<String>,
    pub(super) cimxml: Option<Address>,
    pub(super) cimxml_https: Option<Address>,
    pub(super) wsman: Option<Address>,
    pub(super) wsman_https: Option<Address>,
    pub(super) http: Option<Address>,
    pub(super) https: Option<Address>,
    pub(super) allow_plain_remote: bool,
    pub(super) anonymous: Option<Anonymous>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileTls {
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) client_ca: Option<PathBuf>,
    pub(super) names: Option<Vec<String>>,
    pub(super) users: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FilePaths {
    pub(super) roots: Vec<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileLimits {
    pub(super) connections: Option<usize>,
    pub(super) connections_per_peer: Option<usize>,
    pub(super) handshake: Option<Span>,
    pub(super) headers: Option<Span>,
    pub(super) body: Option<Span>,
    pub(super) cimxml_request_kib: Option<usize>,
    pub(super) cimxml_depth: Option<usize>,
    pub(super) cimxml_elements: Option<usize>,
    pub(super) wsman_request_kib: Option<usize>,
    pub(super) http_request_kib: Option<usize>,
    pub(super) operation: Option<Span>,
    pub(super) enumerations: Option<usize>,
    pub(super) enumerations_per_user: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileDeadlines {
    pub(super) freeze: Option<Span>,
    pub(super) stop: Option<Span>,
    pub(super) window: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileQemu {
    pub(super) binary: Option<PathBuf>,
    pub(super) img: Option<PathBuf>,
    pub(super) nbd: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct FileJobs {
    pub(super) retention: Option<Span>,
}
