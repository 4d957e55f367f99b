//! Writes an initramfs: a cpio archive in the "newc" format that Linux reads
//! (kernel documentation, driver-api/early-userspace/buffer-format).
//!
//! Each entry is a header of thirteen eight-digit hexadecimal numbers after the
//! magic "070701", the name with its NUL, and the content, each padded to four
//! bytes. Parent directories are written before what is in them. Times and owners
//! are zero, so the same content gives the same archive.

use std::collections::BTreeMap;

const DIRECTORY: u32 = 0o040_755;
const SYMLINK: u32 = 0o120_777;

/// An archive in the making.
#[derive(Debug, Default)]
pub struct Archive {
    entries: BTreeMap<String, (u32, Vec<u8>)>,
}

impl Archive {
    /// An empty archive.
    pub fn new() -> Archive {
        Archive::default()
    }

    /// Adds a directory and those above it. A leading slash is dropped.
    pub fn directory(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() || self.entries.contains_key(path) {
            return;
        }
        self.parents(path);
        self.entries.insert(path.into(), (DIRECTORY, Vec::new()));
    }

    /// Adds a regular file; `mode` is its permissions, such as `0o755`.
    pub fn file(&mut self, path: &str, mode: u32, content: Vec<u8>) {
        let path = path.trim_matches('/');
        self.parents(path);
        self.entries
            .insert(path.into(), (0o100_000 | mode & 0o7777, content));
    }

    /// Adds a symbolic link at `path` that points to `target`.
    pub fn symlink(&mut self, path: &str, target: &str) {
        let path = path.trim_matches('/');
        self.parents(path);
        self.entries
            .insert(path.into(), (SYMLINK, target.as_bytes().to_vec()));
    }

    fn parents(&mut self, path: &str) {
        if let Some((above, _)) = path.rsplit_once('/') {
            self.directory(above);
        }
    }

    /// The whole archive as bytes.
    pub fn finish(self) -> Vec<u8> {
        let mut out = Vec::new();
        // A directory's path is a prefix of its entries' paths, so the map's order
        // has it first.
        for (number, (path, (mode, content))) in (1..).zip(&self.entries) {
            entry(&mut out, number, path, *mode, content);
        }
        entry(&mut out, 0, "TRAILER!!!", 0, &[]);
        out
    }
}

fn entry(out: &mut Vec<u8>, number: u32, path: &str, mode: u32, content: &[u8]) {
    let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
    let header = [
        number as usize,
        mode as usize,
        0, // user
        0, // group
        links,
        0, // modified
        content.len(),
        0, // device, major and minor
        0,
        0, // special file's device, major and minor
        0,
        path.len() + 1,
        0, // checksum, unused in this format
    ];
    out.extend_from_slice(b"070701");
    for field in header {
        out.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    out.extend_from_slice(path.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(content);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};

    /// busybox's cpio is the second opinion on the format.
    #[test]
    fn another_cpio_unpacks_what_was_packed() {
        let mut archive = Archive::new();
        archive.file("/lib/x/one.bin", 0o640, vec![7; 4097]);
        archive.file("init", 0o755, b"#!/bin/sh\n".to_vec());
        archive.symlink("/bin/sh", "busybox");
        archive.directory("/proc");

        let dir = tempfile::tempdir().unwrap();
        let packed = dir.path().join("packed");
        std::fs::write(&packed, archive.finish()).unwrap();
        let into = dir.path().join("into");
        std::fs::create_dir(&into).unwrap();
        let status = Command::new("busybox")
            .args(["cpio", "-i"])
            .current_dir(&into)
            .stdin(std::fs::File::open(&packed).unwrap())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success());
        assert_eq!(
            std::fs::read(into.join("lib/x/one.bin")).unwrap(),
            vec![7; 4097]
        );
        let mode = |path: &str| into.join(path).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("lib/x/one.bin"), mode("init")), (0o640, 0o755));
        let link = std::fs::read_link(into.join("bin/sh")).unwrap();
        assert_eq!(link.to_str(), Some("busybox"));
        assert!(into.join("proc").is_dir());
    }
}
