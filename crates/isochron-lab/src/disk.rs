//! Image files for guests: empty ones and ones with an ext4 file system, in the
//! formats that the product knows.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Format of an image file, by QEMU's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// With layers and metadata.
    #[default]
    Qcow2,
    /// The disk's bytes as they are.
    Raw,
}

impl Format {
    /// As QEMU spells it.
    pub fn name(self) -> &'static str {
        match self {
            Format::Qcow2 => "qcow2",
            Format::Raw => "raw",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Creates an empty image of `mib` MiB; an existing file is replaced.
///
/// # Errors
/// When `qemu-img` is missing or refuses.
pub fn create(path: &Path, format: Format, mib: u64) -> Result<()> {
    let size = format!("{mib}M");
    let args = ["create", "-q", "-f", format.name()].map(OsStr::new);
    run(
        "qemu-img",
        args.into_iter()
            .chain([path.as_os_str(), OsStr::new(&size)]),
    )
}

/// Creates an image of `mib` MiB with an empty ext4 file system on the whole of
/// it; an existing file is replaced.
///
/// # Errors
/// When `mkfs.ext4` or `qemu-img` is missing or refuses.
pub fn create_ext4(path: &Path, format: Format, mib: u64) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let raw = tempfile::Builder::new()
        .prefix(".ext4-")
        .tempfile_in(dir)
        .with_context(|| format!("creating a file in {}", dir.display()))?;
    raw.as_file()
        .set_len(mib * 1024 * 1024)
        .context("giving the image its size")?;
    run(
        &tool("mkfs.ext4"),
        [OsStr::new("-q"), OsStr::new("-F"), raw.path().as_os_str()],
    )?;
    match format {
        Format::Raw => {
            raw.persist(path)
                .with_context(|| format!("creating {}", path.display()))?;
            Ok(())
        }
        Format::Qcow2 => {
            let args = ["convert", "-f", "raw", "-O", "qcow2"].map(OsStr::new);
            run(
                "qemu-img",
                args.into_iter()
                    .chain([raw.path().as_os_str(), path.as_os_str()]),
            )
        }
    }
}

/// Where a program of e2fsprogs is: /sbin is not on every user's path.
pub(crate) fn tool(name: &str) -> String {
    ["/usr/sbin", "/sbin"]
        .map(|dir| format!("{dir}/{name}"))
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or_else(|| name.to_owned())
}

/// Runs a program to its end; its standard error is in the message on failure.
pub(crate) fn run<'a>(program: &str, args: impl IntoIterator<Item = &'a OsStr>) -> Result<()> {
    let output = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{program} cannot be run (scripts/prereqs.sh installs it)"))?;
    if !output.status.success() {
        bail!(
            "{program} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ext4_image_carries_its_file_system_in_either_format() {
        let dir = tempfile::tempdir().unwrap();
        for format in [Format::Raw, Format::Qcow2] {
            let path = dir.path().join(format.name());
            create_ext4(&path, format, 32).unwrap();
            let magic = crate::oracle::read(&path, format, 1024, 1024).unwrap();
            assert_eq!(magic[56..58], [0x53, 0xef], "{format}");
        }
        // The raw file that it was made from is gone.
        assert_eq!(dir.path().read_dir().unwrap().count(), 2);
    }

    #[test]
    fn a_refusal_says_who_refused() {
        let error = create(Path::new("/no/such/place"), Format::Qcow2, 1).unwrap_err();
        assert!(error.to_string().starts_with("qemu-img failed"), "{error}");
    }
}
