//! `isochron restore`: brings back what an export holds, as files, or as machines and
//! their collection.
//!
//! Machines are defined last, through the daemon; until then nothing of it knows. What
//! is refused on the way is taken back.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use isochron_api::client::Server;
use isochron_api::dto::{self, CollectionKind, NewCollection, NewMachine};
use isochron_backup::manifest::Manifest;
use isochron_backup::{Restore, Restored, restore};
use isochron_engine::model::ImageFormat;
use serde_json::json;
use uuid::Uuid;

use super::export::{Bases, failure, qemu_nbd, with_progress};
use super::{Global, Session};
use crate::exit::{Exit, Failure};
use crate::output::{self, Table};

/// What to restore, and where to.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  isochron restore /backups/shop-tuesday
  isochron restore /backups/shop-tuesday /var/lib/images/try --as try-
  isochron restore --files-only /backups/shop-tuesday /var/lib/images/shop
  isochron restore --files-only --format raw /mnt/shop-tuesday out --base /mnt/archive

Makes the machines and their collection anew, off, from images that stand alone. Run it on
the daemon's host. The export is checked first. If anything of it is damaged, or something
of a machine's or the collection's name is there already, nothing is left.")]
pub struct RestoreOptions {
    /// Write images, memory and definitions only; no daemon is needed
    #[arg(long)]
    files_only: bool,
    /// The export's directory
    directory: PathBuf,
    /// The directory to be made for the images: missing or empty [default: one with the
    /// restored collection's name, here]
    #[arg(required_if_eq("files_only", "true"))]
    out: Option<PathBuf>,
    /// What the restored names begin with; machines and collection get new identifiers
    #[arg(long = "as", value_name = "PREFIX", conflicts_with = "files_only")]
    prefix: Option<String>,
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
        let (manifest, _) = Manifest::read(&self.directory).map_err(failure)?;
        let collection = format!(
            "{}{}",
            self.prefix.as_deref().unwrap_or_default(),
            manifest.instant.collection_name
        );
        let out = match self.out {
            Some(out) => out,
            None if collection.contains('/') || collection.starts_with('.') => {
                let message = format!("{collection} cannot be a directory's name; name one");
                return Err(Failure::usage(message));
            }
            None => collection.clone().into(),
        };
        let order = Restore {
            qemu_nbd: qemu_nbd(global)?,
            directory: self.directory,
            bases: self.bases.bases,
            target: std::path::absolute(out).map_err(Failure::usage)?,
            format: match self.format {
                Format::Qcow2 => ImageFormat::Qcow2,
                Format::Raw => ImageFormat::Raw,
            },
        };
        if self.files_only {
            let restored = with_progress(|progress| restore(&order, progress))?;
            return match global.json {
                true => output::json(&as_json(&restored)),
                false => output::text(&as_text(&restored)),
            };
        }
        super::talk(global, async |session| {
            let plan = Plan {
                prefix: self.prefix,
                collection,
            };
            plan.check(&manifest, session).await?;
            // It has a runtime of its own, which cannot be within this one.
            let restored = std::thread::scope(|scope| {
                let restoring = scope.spawn(|| with_progress(|progress| restore(&order, progress)));
                let panicked = |_| Err(Failure::failed("restoring ended without an answer"));
                restoring.join().unwrap_or_else(panicked)
            })?;
            let made = plan.make(&restored, session).await;
            if made.is_err() {
                // Nothing uses them.
                let _ = std::fs::remove_dir_all(&order.target);
            }
            let mut told = as_json(&restored);
            if let (Some(told), Some(collection)) = (told.as_object_mut(), made?) {
                told.insert("collection".to_owned(), json!(collection));
            }
            session.print(&told, |_| plan.told(&restored))
        })
    }
}

/// What machines and collection are to be called.
struct Plan {
    prefix: Option<String>,
    collection: String,
}

impl Plan {
    /// Refuses what would not come to an end.
    async fn check(&self, manifest: &Manifest, session: &Session) -> Result<(), Failure> {
        let client = &session.client;
        if !matches!(client.server(), Server::Unix(_)) {
            return Err(Failure::usage(
                "images are written here, and a daemon elsewhere does not see them: restore on \
                 its host",
            ));
        }
        let taken = |what: &str, name: &str| {
            Failure::new(
                Exit::Conflict,
                format!(
                    "there is a {what} {name} already; `--as PREFIX` restores beside what is there"
                ),
            )
        };
        for machine in client.machines().await? {
            for member in &manifest.members {
                let same_id = self.prefix.is_none() && machine.id == member.machine.0;
                if same_id || machine.name == self.name(&member.definition.name) {
                    return Err(taken("machine", &machine.name));
                }
            }
        }
        if !of_one(manifest) {
            let id = manifest.instant.collection.0;
            for collection in client.collections().await? {
                let same_id = self.prefix.is_none() && collection.id == id;
                if same_id || collection.name == self.collection {
                    return Err(taken("collection", &collection.name));
                }
            }
        }
        Ok(())
    }

    fn name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix.as_deref().unwrap_or_default())
    }

    /// Defines the machines and makes the collection, if it is more than a machine;
    /// its identifier. Takes back what it did where something is refused.
    async fn make(&self, restored: &Restored, session: &Session) -> Result<Option<Uuid>, Failure> {
        let client = &session.client;
        let mut made = Vec::new();
        let result = async {
            for member in &restored.members {
                let mut definition: dto::Definition = member.definition.clone().into();
                definition.name = self.name(&definition.name);
                definition.id = self.prefix.is_none().then_some(member.machine.0);
                let machine = client
                    .create_machine(&NewMachine::Define(definition))
                    .await?;
                made.push(machine.id.to_string());
            }
            if of_one(&restored.manifest) {
                return Ok(None);
            }
            let new = NewCollection {
                name: self.collection.clone(),
                id: (self.prefix.is_none()).then_some(restored.manifest.instant.collection.0),
                kind: CollectionKind::Machines,
                members: made.clone(),
            };
            Ok(Some(client.create_collection(&new).await?.id))
        };
        let result: Result<_, Failure> = result.await;
        if result.is_err() {
            for machine in made {
                if let Err(error) = client.undefine_machine(&machine).await {
                    let error = Failure::from(error).message;
                    eprintln!("isochron: the machine {machine} is left: {error}");
                }
            }
        }
        result
    }

    fn told(&self, restored: &Restored) -> String {
        let mut text = as_text(restored);
        let names = restored.members.iter();
        let names: Vec<_> = names.map(|m| self.name(&m.definition.name)).collect();
        text.push_str(&format!("\nmachines    {}\n", names.join(", ")));
        if !of_one(&restored.manifest) {
            text.push_str(&format!("collection  {}\n", self.collection));
        }
        if restored
            .members
            .iter()
            .any(|member| member.memory.is_some())
        {
            text.push_str(
                "memory was restored as files only: the machines are off, and boot when started\n",
            );
        }
        text
    }
}

/// Whether it is of a single machine, and of no collection.
fn of_one(manifest: &Manifest) -> bool {
    match manifest.members.as_slice() {
        [only] => manifest.instant.collection.0 == only.machine.0,
        _ => false,
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
