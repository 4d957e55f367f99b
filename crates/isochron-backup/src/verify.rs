//! Whether an export is what it was: every file of it and of those that it is a
//! difference to, and the content of all their disks as QEMU reads them.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use isochron_engine::model::{ExportId, MachineId};
use isochron_engine::ports::{ArchiveError, Copied, Go};
use serde::Serialize;

use crate::chain::{self, Chain, Link};
use crate::control::Control;
use crate::copy::{self, Known, LANES, Sink};
use crate::directory::digest;
use crate::manifest::{Disk, FileOf, MANIFEST, SUMS, cannot};
use crate::plan::Plan;
use crate::server::Server;
use crate::threads;

/// What was checked, and what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The export and those that it is a difference to.
    pub exports: Vec<VerifiedExport>,
    /// How many disks of these exports were read as QEMU reads them; none if files are
    /// damaged.
    pub disks: usize,
    /// Bytes of those disks, holes included.
    pub disk_bytes: u64,
    /// What is wrong: nothing of a good export.
    pub damages: Vec<Damage>,
}

/// An export whose files were checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifiedExport {
    /// The export.
    pub id: ExportId,
    /// Where it is.
    pub directory: PathBuf,
    /// How many files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// A file that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it.
    pub why: String,
}

/// Checks an export with its parents, which are looked for where it says and then
/// among `bases`; blocks until the end.
///
/// # Errors
/// `Invalid` (no export, or a parent is missing), `Damaged` (a manifest is, or does not
/// belong here), `Cancelled`, `Failed`. Files that are damaged are no error, but told.
pub fn verify(
    qemu_nbd: &Path,
    directory: &Path,
    bases: &[PathBuf],
    progress: &dyn Fn(Copied) -> Go,
) -> Result<Verified, ArchiveError> {
    let chain = Chain::read(directory, bases)?;
    let control = Arc::new(Control::default());
    threads::watched(&control, progress, || {
        expect_files(&chain, &control);
        // Each export's disks through those beneath it.
        let tails = (0..chain.links.len()).map(|from| &chain.links[from..]);
        let disks: Vec<_> = tails
            .flat_map(|links| held(&links[0]).map(move |(machine, disk)| (links, machine, disk)))
            .collect();
        let disk_bytes = disks.iter().map(|(.., disk)| disk.virtual_size).sum();
        control.expect(disk_bytes);
        let damages = damaged_files(&chain, &control)?;
        let exports = chain.links.iter().map(|link| VerifiedExport {
            id: link.manifest.id,
            directory: link.directory.clone(),
            files: link.manifest.files().count() + 2,
            bytes: link.manifest.files().map(|file| file.bytes).sum(),
        });
        let mut verified = Verified {
            exports: exports.collect(),
            disks: 0,
            disk_bytes: 0,
            damages,
        };
        if verified.damages.is_empty() {
            verified.disks = disks.len();
            verified.disk_bytes = disk_bytes;
            threads::each(disks, &control, |(links, machine, disk)| {
                let (sink, path) = (Sink::Nowhere, PathBuf::new());
                read_disk(qemu_nbd, links, machine, disk, sink, path, &control)
            })?;
        }
        Ok(verified)
    })
}

/// The disks that an export holds.
pub(crate) fn held(link: &Link) -> impl Iterator<Item = (MachineId, &Disk)> {
    link.manifest.members.iter().flat_map(|member| {
        let held = member.disks.iter().filter(|disk| disk.content.is_some());
        held.map(|disk| (member.machine, disk))
    })
}

/// All files of a chain are to be read.
pub(crate) fn expect_files(chain: &Chain, control: &Control) {
    for link in &chain.links {
        control.expect(link.manifest.files().map(|file| file.bytes).sum());
    }
}

/// Reads every file of a chain: those that are not what the manifests say, are missing,
/// or should not be there.
pub(crate) fn damaged_files(chain: &Chain, control: &Control) -> Result<Vec<Damage>, ArchiveError> {
    let mut damages = Vec::new();
    let mut files = Vec::new();
    for link in &chain.links {
        let directory = &link.directory;
        let entries = fs::read_dir(directory).map_err(|error| cannot("read", directory, &error))?;
        for entry in entries {
            let name = entry
                .map_err(|error| cannot("read", directory, &error))?
                .file_name();
            let known = [MANIFEST, SUMS].map(|name| name.as_ref()).contains(&&*name)
                || link.manifest.files().any(|file| *file.file == *name);
            if !known {
                damages.push(Damage {
                    file: directory.join(name),
                    why: "it is no file of this export".to_owned(),
                });
            }
        }
        files.extend(link.manifest.files().map(|file| (directory, file)));
    }
    let found = threads::each(files, control, |(directory, file)| {
        damage(&directory.join(&file.file), file, control)
    })?;
    damages.extend(found.into_iter().flatten());
    Ok(damages)
}

/// What is wrong with a file.
fn damage(path: &Path, told: &FileOf, control: &Control) -> Result<Option<Damage>, ArchiveError> {
    let damaged = |why: &str| {
        Ok(Some(Damage {
            file: path.to_owned(),
            why: why.to_owned(),
        }))
    };
    match fs::symlink_metadata(path) {
        Ok(file) if !file.is_file() => return damaged("it is no file"),
        Ok(file) if file.len() != told.bytes => {
            let why = format!("it has {} bytes and not {}", file.len(), told.bytes);
            return damaged(&why);
        }
        Ok(_) => (),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return damaged("it is missing"),
        Err(error) => return Err(cannot("read", path, &error)),
    }
    let mut file = File::open(path).map_err(|error| cannot("read", path, &error))?;
    let found = digest(&mut file, path, control, |_| Ok(()))?;
    match found.blake3 == told.blake3 {
        true => Ok(None),
        false => damaged("its BLAKE3 is not the manifest's"),
    }
}

/// Reads a disk of the first of these exports, of which each stands on the next, as QEMU
/// reads it, checks its content, and writes it.
pub(crate) fn read_disk(
    qemu_nbd: &Path,
    links: &[Link],
    machine: MachineId,
    disk: &Disk,
    sink: Sink,
    sink_path: PathBuf,
    control: &Arc<Control>,
) -> Result<(), ArchiveError> {
    let (Some(link), Some(content)) = (links.first(), &disk.content) else {
        return Ok(());
    };
    let directory = &link.directory;
    let image = directory.join(&content.image.file);
    let damaged = |why: &str| ArchiveError::Damaged(format!("{} {why}", image.display()));
    let mut server = Server::start(
        qemu_nbd,
        &chain::images(links, machine, &disk.name)?,
        LANES,
        control,
    )?;
    if server.size() != disk.virtual_size {
        return Err(damaged("is of another size than its manifest says"));
    }
    let status = server
        .take_status()
        .ok_or_else(|| ArchiveError::Failed("a connection is missing".to_owned()))?;
    let leaves = chain::leaves(directory, disk, content)?;
    let copied = copy::copy(
        copy::Disk {
            size: disk.virtual_size,
            plan: Plan::full(disk.virtual_size, status),
            layers: &mut server,
            files: Vec::new(),
            base: None,
            sink,
            sink_path,
            leaves: Box::new(io::sink()),
            leaves_path: PathBuf::new(),
            known: Known::Same(Box::new(leaves)),
        },
        control,
    )?;
    match copied.leaves.content == content.blake3.0 {
        true => Ok(()),
        false => Err(damaged("does not have the content that its manifest says")),
    }
}
