//! `isochron export ...`: what is in an export's directory. No daemon is needed.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Subcommand;
use indicatif::{BinaryBytes, ProgressBar, ProgressStyle};
use isochron_backup::manifest::{Manifest, Mode, Parent};
use isochron_backup::{Verified, verify};
use isochron_engine::ports::{ArchiveError, Copied, Go};

use super::Global;
use crate::config::{Config, Environment};
use crate::exit::{Exit, Failure};
use crate::output::{self, Table, facts, micros_of, time};

/// What can be done with an export's directory.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Check every file of an export and what its disks hold; no daemon is needed
    ///
    /// The exports that it is a difference to are checked as well. Reads all of them,
    /// and the disks once more, as QEMU reads them.
    #[command(after_help = "Examples:
  isochron export verify /backups/shop-tuesday
  isochron export verify /mnt/shop-tuesday --base /mnt/archive
  isochron export verify /backups/shop-tuesday --json | jq .damages")]
    Verify {
        /// The export's directory
        directory: PathBuf,
        #[command(flatten)]
        bases: Bases,
    },
    /// Show what an export is of and what it holds; no daemon is needed
    #[command(after_help = "Examples:
  isochron export show /backups/shop-tuesday
  isochron export show /backups/shop-tuesday --json | jq .instant.cut")]
    Show {
        /// The export's directory
        directory: PathBuf,
    },
}

/// Where parents of exports are.
#[derive(clap::Args, Debug)]
pub struct Bases {
    /// Where to look for an export that this one is a difference to, if it is not where
    /// it was: its directory, or the one that it is in. Can be given again
    #[arg(long = "base", value_name = "DIR")]
    pub bases: Vec<PathBuf>,
}

impl Verb {
    /// Carries it out.
    pub fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Verify { directory, bases } => {
                let qemu_nbd = qemu_nbd(global)?;
                let verified = with_progress(|progress| {
                    verify(&qemu_nbd, &directory, &bases.bases, progress)
                })?;
                match global.json {
                    true => output::json(&verified)?,
                    false => output::text(&told(&verified))?,
                }
                match verified.damages.len() {
                    0 => Ok(()),
                    1 => Err(Failure::failed("a file is damaged")),
                    count => Err(Failure::failed(format!("{count} files are damaged"))),
                }
            }
            Self::Show { directory } => {
                let (manifest, _) = Manifest::read(&directory).map_err(failure)?;
                match global.json {
                    true => output::json(&manifest),
                    false => output::text(&shown(&manifest)),
                }
            }
        }
    }
}

/// The program that reads images, as configured.
pub fn qemu_nbd(global: &Global) -> Result<PathBuf, Failure> {
    let config = Config::load(global.config.as_deref(), &Environment::of_process());
    Ok(config.map_err(Failure::usage)?.qemu.nbd)
}

/// How the program ends when something cannot be done with an export.
pub fn failure(error: ArchiveError) -> Failure {
    let exit = match error {
        ArchiveError::Invalid(_) => Exit::Usage,
        ArchiveError::NotSupported(_) => Exit::NotSupported,
        ArchiveError::Cancelled => {
            return Failure::new(Exit::Cancelled, "interrupted; nothing is left");
        }
        ArchiveError::Damaged(_) | ArchiveError::Failed(_) => Exit::Failed,
    };
    Failure::new(exit, error)
}

/// Shows how far some work is to who looks. Interrupting the program stops the work,
/// so that it can clear away what it wrote.
pub fn with_progress<T>(
    work: impl FnOnce(&dyn Fn(Copied) -> Go) -> Result<T, ArchiveError>,
) -> Result<T, Failure> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("no runtime: {error}")))?;
    let told = interrupted.clone();
    runtime.spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() {
            told.store(true, Ordering::Relaxed);
        }
    });
    let bar = bar();
    let result = work(&|copied: Copied| {
        bar.set_length(copied.total);
        bar.set_position(copied.done.min(copied.total));
        match interrupted.load(Ordering::Relaxed) {
            true => Go::Stop,
            false => Go::On,
        }
    });
    bar.finish_and_clear();
    result.map_err(failure)
}

/// A bar of bytes on stderr; nothing where nobody looks.
fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    let template = "[{bar:30}] {binary_bytes} of {binary_total_bytes}, \
                    {binary_bytes_per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

fn told(verified: &Verified) -> String {
    if verified.damages.is_empty() {
        let files: usize = verified.exports.iter().map(|export| export.files).sum();
        let bytes = verified.exports.iter().map(|export| export.bytes).sum();
        let parents = match verified.exports.len() {
            1 => String::new(),
            count => format!(", of {count} exports that belong together"),
        };
        return format!(
            "good: {files} files ({}){parents}; disks read: {} ({})\n",
            BinaryBytes(bytes),
            verified.disks,
            BinaryBytes(verified.disk_bytes)
        );
    }
    let mut table = Table::new(["DAMAGED", "WHY"]);
    for damage in &verified.damages {
        table.row([damage.file.display().to_string(), damage.why.clone()]);
    }
    table.to_string()
}

fn shown(manifest: &Manifest) -> String {
    let instant = &manifest.instant;
    let other = |other: &Option<Parent>| {
        let other = other.as_ref()?;
        Some(format!("{} in {}", other.id, other.path.display()))
    };
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let mut shown = facts(&[
        ("id", Some(manifest.id.to_string())),
        ("kind", Some(lower(&manifest.kind))),
        ("of", Some(format!("{} ({})", instant.name, instant.id))),
        ("collection", Some(instant.collection_name.clone())),
        ("instant", Some(time(instant.created_at))),
        ("consistency", Some(lower(&instant.consistency))),
        ("common window", instant.cut.common_window_us.map(micros_of)),
        ("notes", text(&instant.notes)),
        ("difference to", other(&manifest.parent)),
        ("merged from", other(&manifest.merged_from)),
        ("written", Some(time(manifest.written_at))),
    ]);
    let mut table = Table::new(["MEMBER", "HOLDS", "WHAT", "SIZE", "IN FILE", "BYTES"]);
    for member in &manifest.members {
        for disk in &member.disks {
            let image = disk.content.as_ref().map(|content| &content.image);
            let what = match (disk.mode, &disk.reason) {
                (Mode::Full, Some(reason)) => format!("full ({reason})"),
                (Mode::Full, None) => "full".to_owned(),
                (Mode::Difference, _) => "difference".to_owned(),
                (Mode::RecordOnly, _) => "record".to_owned(),
            };
            table.row([
                member.machine_name.clone(),
                disk.name.clone(),
                what,
                BinaryBytes(disk.virtual_size).to_string(),
                image.map(|image| image.file.clone()).unwrap_or_default(),
                image
                    .map(|image| BinaryBytes(image.bytes).to_string())
                    .unwrap_or_default(),
            ]);
        }
        if let Some(memory) = &member.memory {
            table.row([
                member.machine_name.clone(),
                "memory".to_owned(),
                String::new(),
                String::new(),
                memory.file.clone(),
                BinaryBytes(memory.bytes).to_string(),
            ]);
        }
    }
    shown.push('\n');
    shown.push_str(&table.to_string());
    shown
}

/// A word of the manifest's.
fn lower(word: &impl std::fmt::Debug) -> String {
    format!("{word:?}").to_lowercase()
}
