//! What is in the two guest images: busybox, kernel modules, the guest program,
//! and for one of them the guest agent with the libraries it is linked to.

use crate::cpio::Archive;
use crate::modules;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Power button, disk and network.
const RING_MODULES: &[&str] = &["button", "evdev", "virtio_pci", "virtio_blk", "virtio_net"];

/// Power button, disk, the agent's port and the file system. Where ext4 is a
/// module it asks for crc32c by alias only, so that is named.
const AGENT_MODULES: &[&str] = &[
    "button",
    "evdev",
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_console",
    "crc32c_generic",
    "ext4",
];

/// The image of a ring member.
///
/// # Errors
/// When busybox is not installed or not static, or a part cannot be read.
pub fn ring(dir: &Path, modules: &Path) -> Result<Vec<u8>> {
    Ok(base(dir, modules, RING_MODULES)?.finish())
}

/// The image with the guest agent.
///
/// # Errors
/// As [`ring`], and when the agent or one of its libraries is missing.
pub fn agent(dir: &Path, modules: &Path) -> Result<Vec<u8>> {
    let mut archive = base(dir, modules, AGENT_MODULES)?;
    let root = dir.join("agent");
    let program = root.join("usr/sbin/qemu-ga");
    archive.file("bin/qemu-ga", 0o755, read(&program)?);
    for (inside, outside) in libraries(&program, &root)? {
        archive.file(&inside, 0o755, read(&outside)?);
    }
    Ok(archive.finish())
}

fn base(dir: &Path, modules: &Path, wanted: &[&str]) -> Result<Archive> {
    let mut archive = Archive::new();
    for directory in ["dev", "proc", "sys"] {
        archive.directory(directory);
    }
    archive.file("init", 0o755, include_bytes!("../guest/init").to_vec());
    archive.file(
        "etc/acpi/PWRF/00000080",
        0o755,
        include_bytes!("../guest/powered-off").to_vec(),
    );
    archive.file("bin/busybox", 0o755, busybox()?);
    archive.symlink("bin/sh", "busybox");
    archive.file(
        "bin/isochron-ring",
        0o755,
        read(&dir.join("isochron-ring"))?,
    );

    let mut order = String::new();
    for module in modules::resolve(modules, wanted)? {
        order.push_str(&module.file);
        order.push('\n');
        archive.file(&format!("modules/{}", module.file), 0o644, module.content);
    }
    archive.file("modules/order", 0o644, order.into_bytes());
    Ok(archive)
}

fn busybox() -> Result<Vec<u8>> {
    let path = ["/bin/busybox", "/usr/bin/busybox"]
        .map(Path::new)
        .into_iter()
        .find(|path| path.exists())
        .context("busybox is not installed: the package is busybox-static")?;
    let content = read(path)?;
    if !linked(path)?.is_empty() {
        bail!("{} is not static: install busybox-static", path.display());
    }
    Ok(content)
}

/// What `program` is linked to: the path in the guest, the path here. Libraries
/// that this machine lacks are taken from `root`, where the agent's package and
/// those it depends on are unpacked.
fn libraries(program: &Path, root: &Path) -> Result<Vec<(String, PathBuf)>> {
    let found = linked(program)?;
    if found.is_empty() {
        bail!("ldd names no library of {}", program.display());
    }
    found
        .into_iter()
        .map(|(name, path)| match path {
            Some(path) => Ok((path.clone(), PathBuf::from(path))),
            None => {
                let inside = format!("usr/lib/x86_64-linux-gnu/{name}");
                let outside = ["", "usr/"]
                    .map(|top| root.join(format!("{top}lib/x86_64-linux-gnu/{name}")))
                    .into_iter()
                    .find(|path| path.exists())
                    .with_context(|| format!("the guest agent needs {name}, which is missing"))?;
                Ok((inside, outside))
            }
        })
        .collect()
}

/// Runs `ldd`: each library's name, and its path unless it was not found. Empty
/// for a static program.
fn linked(program: &Path) -> Result<Vec<(String, Option<String>)>> {
    let output = Command::new("ldd")
        .arg(program)
        .output()
        .context("ldd cannot be run")?;
    Ok(parse_ldd(&String::from_utf8_lossy(&output.stdout)))
}

/// Lines are `name => /path (address)`, `name => not found`, or for the loader
/// `/path (address)`; the kernel's own `linux-vdso` is no file.
fn parse_ldd(text: &str) -> Vec<(String, Option<String>)> {
    text.lines()
        .filter_map(|line| {
            let line = line.trim();
            if let Some((name, rest)) = line.split_once(" => ") {
                let path = rest
                    .split_whitespace()
                    .next()
                    .filter(|p| p.starts_with('/'));
                return Some((name.to_owned(), path.map(str::to_owned)));
            }
            let path = line
                .split_whitespace()
                .next()
                .filter(|p| p.starts_with('/'))?;
            Some((path.to_owned(), Some(path.to_owned())))
        })
        .collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let text = "\tlinux-vdso.so.1 (0x00007ff)\n\tlibudev.so.1 => /lib/x/libudev.so.1 (0x07)\n\
                    \tlibnuma.so.1 => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x07)\n";
        let found = |name: &str, path: &str| (name.to_owned(), Some(path.to_owned()));
        let expected = [
            found("libudev.so.1", "/lib/x/libudev.so.1"),
            ("libnuma.so.1".to_owned(), None),
            found("/lib64/ld-linux-x86-64.so.2", "/lib64/ld-linux-x86-64.so.2"),
        ];
        assert_eq!(parse_ldd(text), expected);
        assert!(parse_ldd("\tstatically linked\n").is_empty());
    }
}
