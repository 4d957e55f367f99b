//! The lab's kit: a kernel and the guest images, in one directory.
//!
//! ```text
//! $ISOCHRON_LAB_DIR, or target/lab of the workspace
//!   kernel/vmlinuz      the distribution's kernel, unpacked and not installed
//!   kernel/modules/     its modules (lib/modules/VERSION of the package)
//!   agent/              the package qemu-guest-agent, unpacked
//!   isochron-ring       the guest program, static
//!   ring.initrd         guest image: member of a ring
//!   agent.initrd        guest image: guest agent, ext4 on /data, a writer
//! ```
//!
//! `make guest` fills it. `ISOCHRON_LAB_KERNEL` names another kernel, and then
//! `ISOCHRON_LAB_MODULES` its modules.

use crate::image;
use anyhow::{Context, Result, bail};
use std::env;
use std::path::{Path, PathBuf};

/// Absolute paths of what a guest is started from.
#[derive(Debug, Clone)]
pub struct Kit {
    /// The directory that holds the kit.
    pub dir: PathBuf,
    /// The kernel, bootable with `-kernel`.
    pub kernel: PathBuf,
    /// The image of a ring member.
    pub ring_initrd: PathBuf,
    /// The image with the guest agent.
    pub agent_initrd: PathBuf,
}

impl Kit {
    /// The directory of the kit: `ISOCHRON_LAB_DIR`, else `target/lab` of the
    /// workspace that this was built in.
    pub fn directory() -> PathBuf {
        match env::var_os("ISOCHRON_LAB_DIR") {
            Some(dir) if !dir.is_empty() => dir.into(),
            _ => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/lab"),
        }
    }

    /// Finds the kit.
    ///
    /// # Errors
    /// When a part is missing; the message says what, and that `make guest`
    /// prepares it.
    pub fn load() -> Result<Kit> {
        Kit::load_from(&Kit::directory())
    }

    /// Finds the kit in a given directory; otherwise as [`Kit::load`].
    ///
    /// # Errors
    /// When a part is missing.
    pub fn load_from(dir: &Path) -> Result<Kit> {
        let found = |path: PathBuf| {
            path.canonicalize().with_context(|| {
                format!(
                    "the guests' {} is missing: run `make guest` in the source tree",
                    path.display()
                )
            })
        };
        Ok(Kit {
            dir: found(dir.to_owned())?,
            kernel: found(kernel(dir))?,
            ring_initrd: found(dir.join("ring.initrd"))?,
            agent_initrd: found(dir.join("agent.initrd"))?,
        })
    }

    /// Builds the guest images from the other parts, which must be there
    /// (scripts/guest.sh puts them there). An image in use is replaced, not
    /// written over.
    ///
    /// # Errors
    /// When a part is missing or unusable.
    pub fn build(dir: &Path) -> Result<Kit> {
        let modules = modules(dir);
        for needed in [&kernel(dir), &modules, &dir.join("isochron-ring")] {
            if !needed.exists() {
                bail!("{} is needed to build guest images", needed.display());
            }
        }
        let ring = image::ring(dir, &modules).context("building ring.initrd")?;
        replace(&dir.join("ring.initrd"), &ring)?;
        let agent = image::agent(dir, &modules).context("building agent.initrd")?;
        replace(&dir.join("agent.initrd"), &agent)?;
        Kit::load_from(dir)
    }
}

fn kernel(dir: &Path) -> PathBuf {
    env::var_os("ISOCHRON_LAB_KERNEL").map_or_else(|| dir.join("kernel/vmlinuz"), PathBuf::from)
}

fn modules(dir: &Path) -> PathBuf {
    env::var_os("ISOCHRON_LAB_MODULES").map_or_else(|| dir.join("kernel/modules"), PathBuf::from)
}

fn replace(path: &Path, content: &[u8]) -> Result<()> {
    if std::fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    let new = path.with_extension(format!("new{}", std::process::id()));
    std::fs::write(&new, content)
        .and_then(|()| std::fs::rename(&new, path))
        .with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_kit_names_the_command_that_makes_it() {
        let dir = tempfile::tempdir().unwrap();
        let error = Kit::load_from(dir.path()).unwrap_err().to_string();
        assert!(error.contains("make guest"), "{error}");
    }
}
