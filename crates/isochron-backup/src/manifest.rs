//! The manifest of an export: what it is of, what it consists of, and the digest of
//! every file and of every disk's content.
//!
//! `manifest.json` is as `docs/export-manifest.schema.json` says. Beside it, `B3SUMS`
//! holds the digest of every file, the manifest's too, as `b3sum --check` reads it.

use std::collections::HashSet;
use std::fmt;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use isochron_engine::model::{
    CollectionId, Consistency, CutReport, Definition, ExportId, ImageFormat, LayerId, MachineId,
    Power, SnapshotKind,
};
use isochron_engine::ports::ArchiveError;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::digest::Leaf;

/// The manifest's file.
pub const MANIFEST: &str = "manifest.json";
/// The file of all digests.
pub const SUMS: &str = "B3SUMS";

const FORMAT: &str = "isochron-export";
const VERSION: u32 = 1;
/// The largest manifest that is read: thousands of members.
const LARGEST: u64 = 64 << 20;
/// The largest disk: what [`Changes`](isochron_engine::model::Changes) can tell.
const LARGEST_DISK: u64 = 1 << 48;

/// A BLAKE3 digest; in JSON, 64 digits.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Blake3(pub Leaf);

impl fmt::Display for Blake3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Blake3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Blake3> for String {
    fn from(digest: Blake3) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for Blake3 {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match blake3::Hash::from_hex(&text) {
            // One way to write it.
            Ok(hash) if hash.to_hex().as_str() == text => Ok(Self(*hash.as_bytes())),
            _ => Err("a digest is 64 hexadecimal digits in lower case".to_owned()),
        }
    }
}

/// A manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// `isochron-export`.
    pub format: String,
    /// The format's version, 1.
    pub version: u32,
    /// The export.
    pub id: ExportId,
    /// What it holds.
    pub kind: Kind,
    /// When it was begun.
    #[serde(with = "time::serde::rfc3339")]
    pub written_at: OffsetDateTime,
    /// The instant that it is of.
    pub instant: InstantOf,
    /// The export that it is a difference to and cannot be read without.
    pub parent: Option<Parent>,
    /// The export from which it was merged, and which it does not need.
    pub merged_from: Option<Parent>,
    /// One entry per member.
    pub members: Vec<Member>,
}

/// What an export holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// All of the disks, read from their layers.
    Full,
    /// Of some disk only what changed since the parent.
    Difference,
    /// All of the disks, made of another export and of what changed since.
    Merged,
    /// Definitions, and which layers hold the disks.
    Record,
}

/// The instant of an export: a snapshot's or a reference point's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstantOf {
    /// The snapshot or reference point.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// The collection.
    pub collection: CollectionId,
    /// Its name at the instant.
    pub collection_name: String,
    /// Memory and disks, or disks.
    pub kind: SnapshotKind,
    /// The consistency reached.
    pub consistency: Consistency,
    /// When it was.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The evidence.
    pub cut: CutReport,
    /// Free text of its owner.
    pub notes: String,
}

/// Another export.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Parent {
    /// The export.
    pub id: ExportId,
    /// Its directory, relative to this export's.
    pub path: PathBuf,
    /// The digest of its manifest.
    pub manifest_blake3: Blake3,
}

/// A member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// The machine.
    pub machine: MachineId,
    /// Its name at the instant.
    pub machine_name: String,
    /// What it was doing.
    pub power: Power,
    /// The exact machine type of its process, for its memory.
    pub machine_type: Option<String>,
    /// Its definition at the instant.
    pub definition: Definition,
    /// Its memory and devices.
    pub memory: Option<FileOf>,
    /// Its disks.
    pub disks: Vec<Disk>,
    /// Disks that the instant does not hold.
    pub left_out: Vec<String>,
}

/// A file of the export.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileOf {
    /// Its name.
    pub file: String,
    /// Its length in bytes.
    pub bytes: u64,
    /// Its digest.
    pub blake3: Blake3,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub virtual_size: u64,
    /// What of it is here.
    pub mode: Mode,
    /// Why all of it is here although the export is a difference.
    pub reason: Option<String>,
    /// The layers that held it, the instant's first.
    pub layers: Vec<LayerOf>,
    /// Where it is; nothing of a record.
    pub content: Option<Content>,
}

/// What of a disk is in an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// All.
    Full,
    /// What changed since the parent; the image stands on the parent's.
    Difference,
    /// Which layers hold it.
    RecordOnly,
}

/// A layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerOf {
    /// The layer.
    pub id: LayerId,
    /// Its file then.
    pub path: PathBuf,
    /// Its format.
    pub format: ImageFormat,
}

/// Where a disk's content is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// The qcow2 image.
    pub image: FileOf,
    /// The digests of its blocks.
    pub leaves: FileOf,
    /// The digest of the whole disk.
    pub blake3: Blake3,
}

impl Manifest {
    /// A manifest without members.
    pub(crate) fn new(id: ExportId, kind: Kind, instant: InstantOf) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            id,
            kind,
            written_at: OffsetDateTime::now_utc(),
            instant,
            parent: None,
            merged_from: None,
            members: Vec::new(),
        }
    }

    /// Reads the manifest of a finished export, and its digest.
    ///
    /// # Errors
    /// `Invalid`: there is no finished export; `Damaged`: the manifest is not what
    /// [`SUMS`] says, or says what cannot be.
    pub fn read(directory: &Path) -> Result<(Self, Blake3), ArchiveError> {
        let path = directory.join(MANIFEST);
        let text = match small_file(&path) {
            Ok(text) => text,
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Err(ArchiveError::Invalid(format!(
                    "there is no finished export in {}: no {MANIFEST} is there",
                    directory.display()
                )));
            }
            Err(error) => return Err(cannot("read", &path, &error)),
        };
        let digest = Blake3(*blake3::hash(&text).as_bytes());
        let sums = directory.join(SUMS);
        let told = match small_file(&sums) {
            Ok(told) => told,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let sums = sums.display();
                return Err(ArchiveError::Damaged(format!("{sums} is missing")));
            }
            Err(error) => return Err(cannot("read", &sums, &error)),
        };
        let line = sum_line(MANIFEST, &digest);
        if !told
            .split_inclusive(|byte| *byte == b'\n')
            .any(|told| told == line.as_bytes())
        {
            return Err(ArchiveError::Damaged(format!(
                "{} is not what {SUMS} beside it says (or that is damaged)",
                path.display()
            )));
        }
        let manifest = Self::parse(&text).map_err(|why| {
            ArchiveError::Damaged(format!("{} is no manifest: {why}", path.display()))
        })?;
        if manifest.sums(&digest).as_bytes() != told {
            return Err(ArchiveError::Damaged(format!(
                "{} does not name the files of the manifest",
                sums.display()
            )));
        }
        Ok((manifest, digest))
    }

    /// Understands a manifest's text.
    ///
    /// # Errors
    /// Why it is none.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Head {
            format: String,
            version: u32,
        }
        let head: Head = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if head.format != FORMAT {
            return Err(format!("its format is not {FORMAT}"));
        }
        if head.version != VERSION {
            let version = head.version;
            return Err(format!(
                "it is of version {version}, and this program knows version {VERSION}"
            ));
        }
        let manifest: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        manifest.check()?;
        Ok(manifest)
    }

    /// What its type does not say.
    fn check(&self) -> Result<(), String> {
        let mut names = HashSet::from([MANIFEST, SUMS]);
        for file in self.files() {
            let name = file.file.as_str();
            let mut parts = Path::new(name).components();
            let plain = matches!(parts.next(), Some(Component::Normal(part)) if part == name);
            if !plain || name.chars().any(char::is_control) {
                return Err(format!("{name:?} is no file's name"));
            }
            if !names.insert(name) {
                return Err(format!("{name} is named twice"));
            }
        }
        let mut machines = HashSet::new();
        for member in &self.members {
            if !machines.insert(member.machine) {
                return Err(format!("the machine {} is named twice", member.machine));
            }
            let mut disks = HashSet::new();
            for disk in &member.disks {
                let name = &disk.name;
                if !disks.insert(name) {
                    return Err(format!("the disk {name} is named twice"));
                }
                if disk.virtual_size > LARGEST_DISK {
                    return Err(format!("the disk {name} is impossibly large"));
                }
                if disk.content.is_some() != (disk.mode != Mode::RecordOnly) {
                    return Err(format!("the disk {name} has content, or has none"));
                }
            }
        }
        let mut disks = self.members.iter().flat_map(|member| &member.disks);
        if disks.any(|disk| disk.mode == Mode::Difference) && self.parent.is_none() {
            return Err("it has a difference and no parent".to_owned());
        }
        Ok(())
    }

    /// The export's files but [`MANIFEST`] and [`SUMS`].
    pub fn files(&self) -> impl Iterator<Item = &FileOf> {
        self.members.iter().flat_map(|member| {
            let contents = member.disks.iter().filter_map(|disk| disk.content.as_ref());
            let of_disks = contents.flat_map(|content| [&content.image, &content.leaves]);
            member.memory.iter().chain(of_disks)
        })
    }

    /// The names of all the export's files, these two included.
    pub(crate) fn names(&self) -> impl Iterator<Item = PathBuf> {
        let files = self.files().map(|file| file.file.as_str());
        files.chain([MANIFEST, SUMS]).map(PathBuf::from)
    }

    /// A machine's disk.
    pub fn disk(&self, machine: MachineId, name: &str) -> Option<&Disk> {
        let member = self
            .members
            .iter()
            .find(|member| member.machine == machine)?;
        member.disks.iter().find(|disk| disk.name == name)
    }

    /// Its text.
    pub(crate) fn text(&self) -> Result<Vec<u8>, ArchiveError> {
        let mut text = serde_json::to_vec_pretty(self).map_err(|error| {
            ArchiveError::Invalid(format!("the manifest cannot be written: {error}"))
        })?;
        text.push(b'\n');
        Ok(text)
    }

    /// The text of [`SUMS`], given the manifest's digest.
    pub(crate) fn sums(&self, manifest: &Blake3) -> String {
        let files = self.files().map(|file| sum_line(&file.file, &file.blake3));
        files.chain([sum_line(MANIFEST, manifest)]).collect()
    }
}

/// A line as `b3sum` writes and reads it.
fn sum_line(name: &str, digest: &Blake3) -> String {
    format!("{digest}  {name}\n")
}

fn small_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(LARGEST + 1).read_to_end(&mut text)?;
    match text.len() as u64 > LARGEST {
        true => Err(io::Error::other("it is too large")),
        false => Ok(text),
    }
}

/// A failure with a file.
pub(crate) fn cannot(what: &str, path: &Path, error: &io::Error) -> ArchiveError {
    ArchiveError::Failed(format!("cannot {what} {}: {error}", path.display()))
}
