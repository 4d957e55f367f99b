//! What the disk of a guest with the agent holds: an ext4 file system with the
//! records of the writer (isochron-ring's `writer` has the layout).
//!
//! A frozen ext4 has an empty journal and says so in its superblock; one that was
//! cut while in use needs its journal. This is how an application-consistent
//! snapshot is told from a crash-consistent one, without the product's word.

use crate::disk::{run, tool};
use crate::oracle::Image;
use anyhow::{Context, Result, bail};
use isochron_ring::record::{Record, SEGMENT, SIZE};
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

/// `s_feature_incompat` of the superblock at byte 1024, and its bit that says the
/// journal must be replayed (kernel documentation, filesystems/ext4/super.rst).
const FEATURE_INCOMPAT: usize = 1024 + 0x60;
const INCOMPAT_RECOVER: u32 = 0x4;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Whether the file system was clean as it lay there: frozen, or unmounted.
    pub clean: bool,
    /// The highest counter that the writer has in it; 0 when there is none.
    pub counter: u64,
}

/// Inspects a copy of the image; the image itself stays as it is.
///
/// # Errors
/// When the image cannot be read, the file system is damaged beyond what its
/// journal repairs, or the writer's records have a gap.
pub fn inspect(image: &Image) -> Result<Found> {
    let dir = tempfile::tempdir().context("creating a temporary directory")?;
    let raw = dir.path().join("raw");
    let args = ["convert", "-U", "-f", image.format.name(), "-O", "raw"].map(OsStr::new);
    let files = [image.path.as_os_str(), raw.as_os_str()];
    run("qemu-img", args.into_iter().chain(files))?;

    let clean = clean(&raw)?;
    if !clean {
        // Replays the journal. 1: errors were corrected.
        check(&raw, "-p", &[0, 1])?;
    }
    check(&raw, "-fn", &[0])?;
    let mut counters = Vec::new();
    for file in ["/writes.0", "/writes.1"] {
        let out = dir.path().join("out");
        std::fs::write(&out, b"")?;
        // It says on standard error that there is no such file, and ends with 0.
        let request = format!("dump {file} {}", out.display());
        let args = [OsStr::new("-R"), OsStr::new(&request), raw.as_os_str()];
        run(&tool("debugfs"), args)?;
        let bytes = std::fs::read(&out)?;
        let records = bytes.chunks(SIZE).filter_map(Record::decode);
        counters.extend(records.map(|record| record.counter));
    }
    counters.sort_unstable();
    let counter = counters.last().copied().unwrap_or(0);
    if let Some(gap) = counters.windows(2).find(|pair| pair[1] != pair[0] + 1) {
        bail!(
            "the file has record {} but none between it and {}",
            gap[1],
            gap[0]
        );
    }
    if (counters.len() as u64) < counter.min(SEGMENT) {
        bail!(
            "the file has record {counter} but only {} before it",
            counters.len()
        );
    }
    Ok(Found { clean, counter })
}

fn clean(raw: &Path) -> Result<bool> {
    use std::os::unix::fs::FileExt;
    let mut features = [0; 4];
    std::fs::File::open(raw)?
        .read_exact_at(&mut features, FEATURE_INCOMPAT as u64)
        .context("the image is too small for a file system")?;
    Ok(u32::from_le_bytes(features) & INCOMPAT_RECOVER == 0)
}

fn check(raw: &Path, how: &str, good: &[i32]) -> Result<()> {
    let output = Command::new(tool("e2fsck"))
        .arg(how)
        .arg(raw)
        .stdin(Stdio::null())
        .output()
        .context("e2fsck cannot be run (scripts/prereqs.sh installs it)")?;
    if !output
        .status
        .code()
        .is_some_and(|code| good.contains(&code))
    {
        bail!(
            "the file system is damaged ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stdout).trim()
        );
    }
    Ok(())
}
