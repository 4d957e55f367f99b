//! Kernel modules for a guest: which files, in which order.
//!
//! A kernel package that was only unpacked has no `modules.dep`. Each module
//! names what it needs in its own `.modinfo` section (`depends=a,b`), so the
//! order is worked out from the modules. What is not there as a file is built
//! into the kernel, or does not exist in it: both are skipped.

use anyhow::{Context, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A module to load: its file name in the guest and its uncompressed content.
#[derive(Debug)]
pub struct Module {
    /// Such as `virtio_blk.ko`.
    pub file: String,
    /// The ELF object.
    pub content: Vec<u8>,
}

/// Finds the `wanted` modules and all they depend on below `directory`, each
/// after what it needs. Compressed ones (`.ko.zst`, `.ko.xz`, `.ko.gz`) are
/// unpacked with the program of that name.
///
/// # Errors
/// When a directory or module cannot be read or unpacked.
pub fn resolve(directory: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    index(directory, &mut files)
        .with_context(|| format!("reading kernel modules in {}", directory.display()))?;
    let mut order = Order {
        files,
        seen: BTreeSet::new(),
        modules: Vec::new(),
    };
    for name in wanted {
        order.add(&canonical(name))?;
    }
    Ok(order.modules)
}

struct Order {
    files: BTreeMap<String, PathBuf>,
    seen: BTreeSet<String>,
    modules: Vec<Module>,
}

impl Order {
    fn add(&mut self, name: &str) -> Result<()> {
        let Some(path) = self.files.get(name) else {
            return Ok(());
        };
        if !self.seen.insert(name.to_owned()) {
            return Ok(());
        }
        let content = unpack(path)?;
        for needed in depends(&content) {
            self.add(&needed)?;
        }
        self.modules.push(Module {
            file: format!("{name}.ko"),
            content,
        });
        Ok(())
    }
}

/// Modules are named with `-` and `_` alike; the kernel takes them as the same.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn index(directory: &Path, files: &mut BTreeMap<String, PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            index(&path, files)?;
        } else if let Some((stem, rest)) = entry.file_name().to_string_lossy().split_once(".ko")
            && matches!(rest, "" | ".zst" | ".xz" | ".gz")
        {
            files.insert(canonical(stem), path);
        }
    }
    Ok(())
}

fn unpack(path: &Path) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|e| e.to_str()) {
        Some("zst") => "zstd",
        Some("xz") => "xz",
        Some("gz") => "gzip",
        _ => return std::fs::read(path).with_context(|| path.display().to_string()),
    };
    let output = Command::new(program)
        .arg("-dc")
        .arg(path)
        .output()
        .with_context(|| format!("{program} is needed to unpack {}", path.display()))?;
    if !output.status.success() {
        bail!(
            "{program} cannot unpack {}: {}",
            path.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(output.stdout)
}

/// The names after `depends=` in `.modinfo`, whose strings are separated by NUL.
fn depends(module: &[u8]) -> Vec<String> {
    let names = module
        .split(|byte| *byte == 0)
        .find_map(|string| string.strip_prefix(b"depends="));
    String::from_utf8_lossy(names.unwrap_or_default())
        .split(',')
        .filter(|name| !name.is_empty())
        .map(canonical)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_module_comes_once_and_after_what_it_needs() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("kernel/drivers");
        std::fs::create_dir_all(&deep).unwrap();
        let module = |name: &str, needs: &str| {
            let content = format!("\x7fELF\0license=GPL\0depends={needs}\0name={name}\0");
            std::fs::write(deep.join(format!("{name}.ko")), content).unwrap();
        };
        module("virtio_net", "net-failover,virtio");
        module("net-failover", "failover");
        module("failover", "");
        module("virtio", "builtin_one");
        let found = resolve(dir.path(), &["virtio", "no_such", "virtio_net"]).unwrap();
        let names: Vec<_> = found.iter().map(|m| m.file.as_str()).collect();
        assert_eq!(
            names,
            [
                "virtio.ko",
                "failover.ko",
                "net_failover.ko",
                "virtio_net.ko"
            ]
        );
    }

    #[test]
    fn a_compressed_module_is_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let plain = dir.path().join("ext4.ko");
        std::fs::write(&plain, "\0depends=\0the module").unwrap();
        let zipped = Command::new("gzip").arg(&plain).status().unwrap();
        assert!(zipped.success());
        let found = resolve(dir.path(), &["ext4"]).unwrap();
        assert_eq!(found[0].content, b"\0depends=\0the module");
        std::fs::write(dir.path().join("ext4.ko.gz"), "not gzip").unwrap();
        assert!(resolve(dir.path(), &["ext4"]).is_err());
    }
}
