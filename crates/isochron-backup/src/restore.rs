//! Restoring the files of an export: plain images of its disks, its memory, and
//! definitions of its machines with the new paths.
//!
//! ```text
//!   OUT/web/definition.toml    what `isochron vm define` reads
//!           disk0.qcow2        an image that stands alone
//!           memory             if the export has it
//! ```
//!
//! Everything is checked before the first file is written, and the disks' content
//! again while it is written; what does not hold is not restored.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use isochron_engine::model::{Definition, ImageFormat, MachineId, MemoryState};
use isochron_engine::ports::{ArchiveError, Copied, Go};

use crate::chain::Chain;
use crate::control::Control;
use crate::copy::Sink;
use crate::directory::{Names, Target, copy_file, new_file, sync_directory, write_file};
use crate::manifest::{FileOf, Manifest, cannot};
use crate::qcow2::Writer;
use crate::threads;
use crate::verify::{damaged_files, expect_files, held, read_disk};

/// What is restored, and where to.
#[derive(Clone, Debug)]
pub struct Restore {
    /// The program `qemu-nbd`, by name or path.
    pub qemu_nbd: PathBuf,
    /// The export's directory.
    pub directory: PathBuf,
    /// Where its parents are looked for if they are not where it says: their
    /// directories, or those that they are in.
    pub bases: Vec<PathBuf>,
    /// The directory that is made: absolute, missing or empty.
    pub target: PathBuf,
    /// The format of the images.
    pub format: ImageFormat,
    /// Whether memory is restored, where the export has it.
    pub memory: bool,
}

/// What was restored.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The export's manifest.
    pub manifest: Manifest,
    /// Its members, in the manifest's order.
    pub members: Vec<RestoredMember>,
}

/// A member whose files were restored.
#[derive(Clone, Debug)]
pub struct RestoredMember {
    /// The machine that it was.
    pub machine: MachineId,
    /// Its directory.
    pub directory: PathBuf,
    /// Its definition, with the paths and the format of the restored disks.
    pub definition: Definition,
    /// Its disks' images, by the disks' names.
    pub disks: Vec<(String, PathBuf)>,
    /// Its memory.
    pub memory: Option<MemoryState>,
    /// Disks of the definition that the export does not hold: their paths are what
    /// they were.
    pub not_held: Vec<String>,
}

enum Job<'a> {
    Disk(MachineId, &'a crate::manifest::Disk, PathBuf),
    Memory(&'a FileOf, PathBuf),
}

/// Restores; blocks until the end.
///
/// # Errors
/// `Invalid` (no export, a parent is missing, the target is in use, there is nothing to
/// restore), `Damaged` (which files), `Cancelled`, `Failed`. Nothing is left then.
pub fn restore(order: &Restore, progress: &dyn Fn(Copied) -> Go) -> Result<Restored, ArchiveError> {
    let chain = Chain::read(&order.directory, &order.bases)?;
    let top = chain.top();
    if held(top).next().is_none() && top.manifest.files().next().is_none() {
        return Err(ArchiveError::Invalid(format!(
            "{} is a record of the layers and holds no disk",
            order.directory.display()
        )));
    }
    let target = Target::new(&order.target, top.manifest.id)?;
    let control = Arc::new(Control::default());
    threads::watched(&control, progress, || {
        expect_files(&chain, &control);
        let damages = damaged_files(&chain, &control)?;
        if !damages.is_empty() {
            let all = damages
                .iter()
                .map(|damage| format!("{}: {}", damage.file.display(), damage.why));
            let all: Vec<_> = all.collect();
            return Err(ArchiveError::Damaged(all.join("; ")));
        }
        target.create()?;
        let result = write(order, &chain, &target, &control);
        let result = control.outcome(result);
        if result.is_err()
            && let Err(error) = target.remove()
        {
            tracing::warn!("{error}");
        }
        result
    })
}

fn write(
    order: &Restore,
    chain: &Chain,
    target: &Target,
    control: &Arc<Control>,
) -> Result<Restored, ArchiveError> {
    let manifest = &chain.top().manifest;
    let mut names = Names::default();
    let mut members = Vec::new();
    let mut jobs = Vec::new();
    for member in &manifest.members {
        let name = names.unique(&member.machine_name);
        let partial = target.partial().join(&name);
        let directory = target.directory().join(&name);
        fs::create_dir(&partial).map_err(|error| cannot("make", &partial, &error))?;
        let mut files = Names::default();
        files.unique(DEFINITION);
        files.unique(MEMORY);
        let mut restored = RestoredMember {
            machine: member.machine,
            directory: directory.clone(),
            definition: member.definition.clone(),
            disks: Vec::new(),
            memory: None,
            not_held: Vec::new(),
        };
        for disk in member.disks.iter().filter(|disk| disk.content.is_some()) {
            let file = files.unique(&format!("{}.{}", disk.name, order.format.as_str()));
            control.expect(disk.virtual_size);
            jobs.push(Job::Disk(member.machine, disk, partial.join(&file)));
            restored
                .disks
                .push((disk.name.clone(), directory.join(file)));
        }
        if let Some(memory) = member.memory.as_ref().filter(|_| order.memory) {
            control.expect(memory.bytes);
            jobs.push(Job::Memory(memory, partial.join(MEMORY)));
            restored.memory = Some(MemoryState {
                path: directory.join(MEMORY),
                bytes: memory.bytes,
            });
        }
        for disk in &mut restored.definition.disks {
            match restored.disks.iter().find(|(name, _)| *name == disk.name) {
                Some((_, path)) => {
                    disk.path = path.clone();
                    disk.format = order.format;
                }
                None => restored.not_held.push(disk.name.clone()),
            }
        }
        write_definition(&partial, &restored)?;
        members.push((partial, restored));
    }
    threads::each(jobs, control, |job| match job {
        Job::Disk(machine, disk, path) => {
            let file = new_file(&path)?;
            let sink = match order.format {
                ImageFormat::Qcow2 => Sink::Qcow2 {
                    writer: Writer::new(file, disk.virtual_size, None),
                    on_another: false,
                },
                ImageFormat::Raw => {
                    let sized = file.set_len(disk.virtual_size);
                    sized.map_err(|error| cannot("write", &path, &error))?;
                    Sink::Raw(file)
                }
            };
            let links = &chain.links;
            read_disk(&order.qemu_nbd, links, machine, disk, sink, path, control)
        }
        Job::Memory(told, to) => {
            let from = chain.top().directory.join(&told.file);
            let mut source = File::open(&from).map_err(|error| cannot("read", &from, &error))?;
            let copied = copy_file(&mut source, &from, &to, control)?;
            match copied.blake3 == told.blake3 {
                true => Ok(()),
                false => Err(ArchiveError::Damaged(format!(
                    "{} is not what the manifest says",
                    from.display()
                ))),
            }
        }
    })?;
    for (partial, _) in &members {
        sync_directory(partial)?;
    }
    target.finish()?;
    Ok(Restored {
        manifest: manifest.clone(),
        members: members.into_iter().map(|(_, member)| member).collect(),
    })
}

/// The file of a restored member that `isochron vm define` reads.
pub const DEFINITION: &str = "definition.toml";
const MEMORY: &str = "memory";

/// Paths of restored disks are relative to the file there, so that the directory can
/// be moved.
fn write_definition(partial: &Path, member: &RestoredMember) -> Result<(), ArchiveError> {
    let mut definition = member.definition.clone();
    for disk in &mut definition.disks {
        if let Ok(file) = disk.path.strip_prefix(&member.directory) {
            disk.path = file.to_owned();
        }
    }
    let text = toml::to_string(&definition).map_err(|error| {
        ArchiveError::Failed(format!("a definition cannot be written: {error}"))
    })?;
    write_file(&partial.join(DEFINITION), text.as_bytes())
}
