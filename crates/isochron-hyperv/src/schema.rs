//! The namespaces and their classes, compiled from the MOF files in `mof/`, which
//! are part of the binary. `root/HyperVCluster/v2` and `root/virtualization/v2`
//! have the same classes and the same objects; `interop` has what discovery needs, and
//! `root/cimv2` this host.

use std::sync::Arc;

use isochron_cim::mof::write_schema;
use isochron_cim::{Repository, SchemaError};

/// The namespace of discovery.
pub(crate) const INTEROP: &str = "interop";
/// Its other name, which some clients try first.
const ROOT_INTEROP: &str = "root/interop";
/// Hyper-V's cluster provider.
const CLUSTER: &str = "root/HyperVCluster/v2";
/// Hyper-V's provider on one host.
const VIRTUALIZATION: &str = "root/virtualization/v2";
/// Where Windows describes a computer.
const CIMV2: &str = "root/cimv2";

/// MOF text with the name that errors give it.
macro_rules! mof {
    ($($file:literal),* $(,)?) => {
        &[$(($file, include_str!(concat!("../mof/", $file)))),*]
    };
}

const VIRTUALIZATION_MOF: &[(&str, &str)] = mof![
    "qualifiers.mof",
    "cim_core.mof",
    "cim_collections.mof",
    "cim_jobs.mof",
    "cim_capabilities.mof",
    "cim_indications.mof",
    "cim_profiles.mof",
    "cim_virtualization.mof",
    "msvm_system.mof",
    "msvm_settings.mof",
    "msvm_collection.mof",
    "msvm_jobs.mof",
    "msvm_services.mof",
    "msvm_virtualization.mof",
    "msvm_resources.mof",
];
const CIMV2_MOF: &[(&str, &str)] = mof!["qualifiers.mof", "win32.mof"];
const INTEROP_MOF: &[(&str, &str)] = mof![
    "qualifiers.mof",
    "cim_core.mof",
    "cim_collections.mof",
    "cim_jobs.mof",
    "cim_capabilities.mof",
    "cim_indications.mof",
    "cim_profiles.mof",
    "interop.mof",
    "interop_indications.mof",
];

/// The classes of a namespace and its qualifier types as MOF text, in an order in which
/// any compiler of MOF takes it; `None` if there is no such namespace.
///
/// # Errors
/// When the schema that is compiled in does not fit together.
pub fn mof(namespace: &str) -> Result<Option<String>, SchemaError> {
    let files = match spelled(namespace) {
        None => return Ok(None),
        Some(INTEROP) => INTEROP_MOF,
        Some(CIMV2) => CIMV2_MOF,
        Some(_) => VIRTUALIZATION_MOF,
    };
    Ok(Some(write_schema(&Repository::from_mof(files)?)))
}

/// The namespace's name as paths give it, of any spelling: in any case, with slashes
/// or backslashes, and of two names that one has, either.
fn spelled(name: &str) -> Option<&'static str> {
    let name = name.replace('\\', "/");
    let name = name.trim_matches('/');
    let known = [CLUSTER, VIRTUALIZATION, INTEROP, ROOT_INTEROP, CIMV2];
    let known = known
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(name))?;
    Some(if known == ROOT_INTEROP {
        INTEROP
    } else {
        known
    })
}

/// A namespace.
#[derive(Clone)]
pub(crate) struct Space {
    /// Its name as paths give it.
    pub(crate) name: &'static str,
    /// Its classes.
    pub(crate) repository: Arc<Repository>,
}

impl Space {
    /// Whether the engine's records are seen in it.
    pub(crate) fn is_hyperv(&self) -> bool {
        matches!(self.name, CLUSTER | VIRTUALIZATION)
    }
}

/// All namespaces.
pub(crate) struct Schema {
    spaces: Vec<Space>,
}

impl Schema {
    /// Compiles the classes; those of this host only where it is described.
    pub(crate) fn compile(host: bool) -> Result<Self, SchemaError> {
        let virtualization = Arc::new(Repository::from_mof(VIRTUALIZATION_MOF)?);
        let interop = Arc::new(Repository::from_mof(INTEROP_MOF)?);
        let space = |name, repository: &Arc<Repository>| Space {
            name,
            repository: repository.clone(),
        };
        let mut spaces = vec![
            space(CLUSTER, &virtualization),
            space(VIRTUALIZATION, &virtualization),
            space(INTEROP, &interop),
        ];
        if host {
            spaces.push(space(CIMV2, &Arc::new(Repository::from_mof(CIMV2_MOF)?)));
        }
        Ok(Self { spaces })
    }

    /// The namespaces' names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.spaces.iter().map(|space| space.name)
    }

    /// The names that namespaces are found by, to which some have another.
    pub(crate) fn spellings(&self) -> impl Iterator<Item = &'static str> {
        self.names().chain([ROOT_INTEROP])
    }

    /// The namespaces in which the engine's records are seen.
    pub(crate) fn hyperv(&self) -> impl Iterator<Item = &Space> {
        self.spaces.iter().filter(|space| space.is_hyperv())
    }

    /// The namespace of this name, in any case, with slashes or backslashes.
    pub(crate) fn find(&self, name: &str) -> Option<&Space> {
        let name = spelled(name)?;
        self.spaces.iter().find(|space| space.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_found_in_every_spelling() {
        let schema = Schema::compile(true).unwrap();
        for (given, name) in [
            ("root/HyperVCluster/v2", Some(CLUSTER)),
            (r"ROOT\hypervcluster\V2", Some(CLUSTER)),
            ("/root/virtualization/v2/", Some(VIRTUALIZATION)),
            ("Interop", Some(INTEROP)),
            (r"root\Interop", Some(INTEROP)),
            (r"ROOT\CIMV2", Some(CIMV2)),
            ("root/virtualization", None),
            ("", None),
        ] {
            assert_eq!(schema.find(given).map(|space| space.name), name, "{given}");
        }
        assert!(Schema::compile(false).unwrap().find(CIMV2).is_none());
    }
}
