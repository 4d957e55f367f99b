//! `isochron restore`: brings back what an export holds, as files, or as machines and
//! their collection.
//!
//! Machines are defined last, through the daemon; until then nothing of it knows. What
//! is refused on the way is taken back.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use isochron_api::client::{Client, Server};
use isochron_api::dto::{self, CollectionKind, DefineSaved, NewCollection, NewMachine};
use isochron_backup::manifest::{Manifest, Member};
use isochron_backup::{Restore, Restored, restore};
use isochron_engine::model::ImageFormat;
use serde_json::json;
use uuid::Uuid;

use super::export::{Bases, failure, qemu_nbd, with_progress};
use super::{Global, Session};
use crate::exit::{Exit, Failure};
use crate::output::{self, Table, facts, time};

/// What to restore, and where to.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  isochron restore /backups/shop-tuesday && isochron vm start web db
  isochron restore /backups/shop-tuesday /var/lib/images/try --as try- --off
  isochron restore --files-only /backups/shop-tuesday /var/lib/images/shop
  isochron restore --files-only --format raw /mnt/shop-tuesday out --base /mnt/archive

Makes the machines and their collection anew, on images that stand alone. A machine whose
memory is in the export is saved: started, it goes on from the snapshot's instant. All
others are off. Run it on the daemon's host. The export is checked first. If anything of it
is damaged, or something of a machine's or the collection's name is there already, nothing
is left.")]
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
    /// Leave memory out: all machines are off, and boot when they are started
    #[arg(long)]
    off: bool,
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
            memory: !self.off,
        };
        if self.files_only {
            let restored = with_progress(|progress| restore(&order, progress))?;
            return match global.json {
                true => output::json(&as_json(&restored)),
                false => output::text(&as_text(&restored)),
            };
        }
        for member in &manifest.members {
            can_be_machine(member, order.memory)?;
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
            let made = plan.make(&restored, &order.target, session).await?;
            let mut told = as_json(&restored);
            let machines = made.machines.iter();
            told["machines"] = machines
                .map(|made| json!({"id": made.id, "name": made.name, "power": made.power}))
                .collect();
            if let Some((_, collection)) = made.collection {
                told["collection"] = json!(collection);
            }
            session.print(&told, |_| made.told(&restored))
        })
    }
}

/// What was made of a restore.
struct Made {
    machines: Vec<dto::Machine>,
    /// Name and identifier.
    collection: Option<(String, Uuid)>,
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

    /// Defines the machines and makes the collection, if it is more than a machine. Where
    /// something is refused, nothing is left of it and of the restored files.
    async fn make(
        &self,
        restored: &Restored,
        target: &Path,
        session: &Session,
    ) -> Result<Made, Failure> {
        let client = &session.client;
        let mut machines: Vec<dto::Machine> = Vec::new();
        let result = async {
            for member in &restored.members {
                let mut definition: dto::Definition = member.definition.clone().into();
                definition.name = self.name(&definition.name);
                definition.id = self.prefix.is_none().then_some(member.machine.0);
                let new = match &member.memory {
                    None => NewMachine::Define(definition),
                    Some(memory) => NewMachine::DefineSaved(DefineSaved {
                        definition,
                        memory: memory.path.clone(),
                    }),
                };
                machines.push(client.create_machine(&new).await?);
            }
            if of_one(&restored.manifest) {
                return Ok(None);
            }
            let new = NewCollection {
                name: self.collection.clone(),
                id: (self.prefix.is_none()).then_some(restored.manifest.instant.collection.0),
                kind: CollectionKind::Machines,
                members: machines.iter().map(|made| made.id.to_string()).collect(),
            };
            let collection = client.create_collection(&new).await?;
            Ok(Some((collection.name, collection.id)))
        };
        let result: Result<_, Failure> = result.await;
        match result {
            Ok(collection) => Ok(Made {
                machines,
                collection,
            }),
            Err(error) => {
                take_back(&machines, target, client).await;
                Err(error)
            }
        }
    }
}

impl Made {
    fn names(&self, of: impl Fn(&dto::Machine) -> bool) -> Option<String> {
        let machines = self.machines.iter().filter(|machine| of(machine));
        let names: Vec<_> = machines.map(|machine| machine.name.as_str()).collect();
        Some(names.join(", ")).filter(|names| !names.is_empty())
    }

    fn told(&self, restored: &Restored) -> String {
        let saved = self.names(|machine| machine.power == dto::Power::Saved);
        let instant = time(restored.manifest.instant.created_at);
        let mut members = restored.manifest.members.iter();
        let left_out = saved.is_none() && members.any(|member| member.memory.is_some());
        let told = facts(&[
            ("machines", self.names(|_| true)),
            (
                "collection",
                self.collection.as_ref().map(|(name, _)| name.clone()),
            ),
            ("saved", saved.clone()),
            (
                "goes on from",
                saved.map(|_| format!("{instant}, when started")),
            ),
            (
                "memory",
                left_out.then(|| "left out: the machines boot when started".to_owned()),
            ),
        ]);
        format!("{}\n{told}", as_text(restored))
    }
}

/// Takes back what was made of a restore that was refused, and removes the files,
/// which nothing uses then.
async fn take_back(made: &[dto::Machine], target: &Path, client: &Client) {
    for machine in made {
        let id = machine.id.to_string();
        let taken = async {
            // Or its saved memory would keep it.
            client.kill_machine(&id).await?;
            client.undefine_machine(&id).await
        };
        if let Err(error) = taken.await {
            let (name, target) = (&machine.name, target.display());
            let error = Failure::from(error).message;
            eprintln!("isochron: the machine {name} is left, and {target}: {error}");
            return;
        }
    }
    if let Err(error) = std::fs::remove_dir_all(target) {
        eprintln!("isochron: {} is left: {error}", target.display());
    }
}

/// Refuses a member that would be no machine that goes on, or boots, as it did.
fn can_be_machine(member: &Member, memory: bool) -> Result<(), Failure> {
    let name = &member.machine_name;
    if member.definition.memory_mib == 0 {
        return Err(Failure::new(
            Exit::NotSupported,
            format!(
                "{name} was attached, so how it is started is not known here; `--files-only` \
                 restores its files"
            ),
        ));
    }
    let held = |disk: &str| {
        let mut disks = member.disks.iter();
        disks.any(|held| held.name == disk && held.content.is_some())
    };
    let mut disks = member.definition.disks.iter();
    let missing = disks.find(|disk| !disk.read_only && !held(&disk.name));
    match (&member.memory, missing) {
        (Some(_), Some(missing)) if memory => Err(Failure::usage(format!(
            "the export has the memory of {name} and not its disk {}, and memory goes on only \
             with all disks of its instant; `--off` leaves it out",
            missing.name
        ))),
        _ => Ok(()),
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
