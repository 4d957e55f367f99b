//! `isochron restore`: brings back what an export holds.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use isochron_backup::{Restore, Restored, restore};
use isochron_engine::model::ImageFormat;
use serde_json::json;

use super::Global;
use super::export::{Bases, qemu_nbd, with_progress};
use crate::exit::Failure;
use crate::output::{self, Table};

/// What to restore, and where to.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  isochron restore --files-only /backups/shop-tuesday /var/lib/images/shop
  isochron restore --files-only --format raw /mnt/shop-tuesday out --base /mnt/archive
  isochron vm define /var/lib/images/shop/web/definition.toml

The export is checked first. If anything of it is damaged, nothing is written.")]
pub struct RestoreOptions {
    /// Write images, memory and definitions into a directory; no daemon is needed
    #[arg(long, required = true)]
    files_only: bool,
    /// The export's directory
    directory: PathBuf,
    /// The directory to be made: missing or empty
    out: PathBuf,
    /// The images' format
    #[arg(long, value_enum, default_value = "qcow2")]
    format: Format,
    #[command(flatten)]
    bases: Bases,
}

/// A format of images.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// QEMU's format
    Qcow2,
    /// The bare content, with holes
    Raw,
}

impl RestoreOptions {
    /// Carries it out.
    pub fn run(self, global: &Global) -> Result<(), Failure> {
        let order = Restore {
            qemu_nbd: qemu_nbd(global)?,
            directory: self.directory,
            bases: self.bases.bases,
            target: std::path::absolute(self.out).map_err(Failure::usage)?,
            format: match self.format {
                Format::Qcow2 => ImageFormat::Qcow2,
                Format::Raw => ImageFormat::Raw,
            },
        };
        let restored = with_progress(|progress| restore(&order, progress))?;
        match global.json {
            true => output::json(&as_json(&restored)),
            false => output::text(&as_text(&restored)),
        }
    }
}

fn as_json(restored: &Restored) -> serde_json::Value {
    let members = restored.members.iter().map(|member| {
        let disks = member.disks.iter();
        json!({
            "machine": member.machine,
            "name": member.definition.name,
            "directory": member.directory,
            "definition": member.directory.join(isochron_backup::DEFINITION),
            "disks": disks.map(|(name, path)| json!({"name": name, "path": path}))
                .collect::<Vec<_>>(),
            "memory": member.memory.as_ref().map(|memory| &memory.path),
            "not_held": member.not_held,
        })
    });
    json!({ "export": restored.manifest.id, "members": members.collect::<Vec<_>>() })
}

fn as_text(restored: &Restored) -> String {
    let mut table = Table::new(["MEMBER", "HOLDS", "FILE"]);
    for member in &restored.members {
        let name = &member.definition.name;
        let mut row = |what: &str, file: String| {
            table.row([name.clone(), what.to_owned(), file]);
        };
        for (disk, path) in &member.disks {
            row(disk, path.display().to_string());
        }
        if let Some(memory) = &member.memory {
            row("memory", memory.path.display().to_string());
        }
        for disk in &member.not_held {
            row(
                disk,
                "not in the export; its path is what it was".to_owned(),
            );
        }
        let definition = member.directory.join(isochron_backup::DEFINITION);
        row("definition", definition.display().to_string());
    }
    table.to_string()
}
