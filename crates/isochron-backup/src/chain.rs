//! An export and those that it is a difference to, down to a full one.

use std::collections::HashSet;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use isochron_engine::model::{ImageFormat, MachineId};
use isochron_engine::ports::ArchiveError;

use crate::copy::Other;
use crate::leaves::LeafReader;
use crate::manifest::{Blake3, Content, Disk, Manifest, Mode, cannot};
use crate::qcow2;
use crate::server::Image;

/// Longer chains are refused: each export is one more file that QEMU has open.
const LONGEST: usize = 256;

/// A finished export.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) directory: PathBuf,
    pub(crate) manifest: Manifest,
    pub(crate) digest: Blake3,
}

impl Link {
    /// Reads one.
    pub(crate) fn read(directory: &Path) -> Result<Self, ArchiveError> {
        // Of one that is not there, the manifest's reader says so.
        let absolute = std::fs::canonicalize(directory).unwrap_or(directory.to_owned());
        let (manifest, digest) = Manifest::read(&absolute)?;
        Ok(Self {
            directory: absolute,
            manifest,
            digest,
        })
    }
}

/// An export with its parents.
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    /// The export first.
    pub(crate) links: Vec<Link>,
}

impl Chain {
    /// Reads an export and its parents. A parent is looked for where its child says,
    /// then among `bases`: directories of exports, and directories that such are in.
    ///
    /// # Errors
    /// `Invalid` (there is no export, or a parent is missing), `Damaged`.
    pub(crate) fn read(directory: &Path, bases: &[PathBuf]) -> Result<Self, ArchiveError> {
        let mut links = vec![Link::read(directory)?];
        let mut seen = HashSet::from([links[0].manifest.id]);
        while let Some(link) = links.last()
            && let Some(parent) = &link.manifest.parent
        {
            if links.len() >= LONGEST || !seen.insert(parent.id) {
                return Err(ArchiveError::Damaged(format!(
                    "the parents of {} do not come to an end",
                    directory.display()
                )));
            }
            let told = link.directory.join(&parent.path);
            let mut places = vec![told.clone()];
            for base in bases {
                places.push(base.clone());
                places.extend(
                    base.join(told.file_name().unwrap_or_default())
                        .exists()
                        .then(|| base.join(told.file_name().unwrap_or_default())),
                );
            }
            let mut found = None;
            let mut others = Vec::new();
            for place in &places {
                match Link::read(place) {
                    Ok(link) if link.manifest.id == parent.id => {
                        found = Some(link);
                        break;
                    }
                    Ok(link) => others.push(format!(
                        "{} is the export {}",
                        place.display(),
                        link.manifest.id
                    )),
                    Err(error @ ArchiveError::Damaged(_)) => return Err(error),
                    Err(error) => others.push(error.to_string()),
                }
            }
            let Some(found) = found else {
                return Err(ArchiveError::Invalid(format!(
                    "{} is a difference to the export {}, which is not found: {}. If it is \
                     elsewhere now, name its directory, or the one that it is in (--base DIR)",
                    link.directory.display(),
                    parent.id,
                    others.join("; "),
                )));
            };
            if found.digest != parent.manifest_blake3 {
                return Err(ArchiveError::Damaged(format!(
                    "{} is not what it was when {} was made of it",
                    found.directory.join(crate::manifest::MANIFEST).display(),
                    link.directory.display()
                )));
            }
            links.push(found);
        }
        let chain = Self { links };
        chain.check()?;
        Ok(chain)
    }

    /// Every difference stands on a disk of the same size in its parent.
    fn check(&self) -> Result<(), ArchiveError> {
        for (index, link) in self.links.iter().enumerate() {
            for member in &link.manifest.members {
                for disk in &member.disks {
                    if disk.mode != Mode::Difference {
                        continue;
                    }
                    let below = self
                        .links
                        .get(index + 1)
                        .and_then(|parent| parent.manifest.disk(member.machine, &disk.name));
                    let fits = below.is_some_and(|below| {
                        below.content.is_some() && below.virtual_size == disk.virtual_size
                    });
                    if !fits {
                        return Err(ArchiveError::Damaged(format!(
                            "the parent of {} does not hold the disk {} of {}",
                            link.directory.display(),
                            disk.name,
                            member.machine_name
                        )));
                    }
                }
            }
        }
        Ok(())
    }

    /// The export itself.
    pub(crate) fn top(&self) -> &Link {
        // There is always one: `read` begins with it.
        &self.links[0]
    }
}

/// The images that hold a disk of the first of these exports, of which each stands on
/// the next; the top first. They lead QEMU to nothing else.
pub(crate) fn images(
    links: &[Link],
    machine: MachineId,
    name: &str,
) -> Result<Vec<Image>, ArchiveError> {
    let mut images = Vec::new();
    for link in links {
        let disk = link.manifest.disk(machine, name);
        let Some((disk, content)) = disk.and_then(|disk| Some((disk, disk.content.as_ref()?)))
        else {
            break;
        };
        let path = link.directory.join(&content.image.file);
        check_image(&path, disk)?;
        images.push(Image {
            path,
            format: ImageFormat::Qcow2,
        });
        if disk.mode != Mode::Difference {
            break;
        }
    }
    Ok(images)
}

fn check_image(path: &Path, disk: &Disk) -> Result<(), ArchiveError> {
    let file = File::open(path).map_err(|error| cannot("read", path, &error))?;
    qcow2::check_header(&file, disk.virtual_size).map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => {
            ArchiveError::Damaged(format!("{} is damaged: {error}", path.display()))
        }
        _ => cannot("read", path, &error),
    })
}

/// The leaves of an export's disk.
pub(crate) fn leaves(
    directory: &Path,
    disk: &Disk,
    content: &Content,
) -> Result<Other, ArchiveError> {
    let path = directory.join(&content.leaves.file);
    let file = File::open(&path).map_err(|error| cannot("read", &path, &error))?;
    let leaves = LeafReader::new(BufReader::with_capacity(128 << 10, file), disk.virtual_size);
    let leaves = leaves.map_err(|error| match error.kind() {
        std::io::ErrorKind::InvalidData => {
            ArchiveError::Damaged(format!("{} is damaged: {error}", path.display()))
        }
        _ => cannot("read", &path, &error),
    })?;
    Ok(Other {
        leaves,
        path,
        image: directory.join(&content.image.file),
        digest: content.leaves.blake3.0,
    })
}
