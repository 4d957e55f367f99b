//! A directory that is whole or not there: written under another name beside it, made
//! final by one rename after all is on stable storage.

use std::collections::HashSet;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use isochron_engine::model::ExportId;
use isochron_engine::ports::ArchiveError;

use crate::control::Control;
use crate::manifest::{Blake3, FileOf, cannot};

/// Bytes of a file that are copied at once.
const AT_ONCE: usize = 1 << 20;

/// Where a directory is to be, and its name until then.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    directory: PathBuf,
    partial: PathBuf,
}

impl Target {
    /// A directory that is missing or empty; the one that it is in exists.
    ///
    /// # Errors
    /// `Invalid`.
    pub(crate) fn new(directory: &Path, id: ExportId) -> Result<Self, ArchiveError> {
        let target = Self::of(directory, id)?;
        let shown = directory.display();
        let invalid = |why: String| ArchiveError::Invalid(format!("{shown} {why}"));
        match fs::read_dir(directory) {
            Ok(mut entries) => {
                if entries.next().is_some() {
                    return Err(invalid("is not empty".to_owned()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => (),
            Err(error) => return Err(invalid(format!("cannot be used: {error}"))),
        }
        match target.parent() {
            Some(parent) if parent.is_dir() => Ok(target),
            _ => Err(invalid(
                "is to be in a directory that is not there".to_owned(),
            )),
        }
    }

    /// The names, without a look at what is there.
    pub(crate) fn of(directory: &Path, id: ExportId) -> Result<Self, ArchiveError> {
        let name = match directory.components().next_back() {
            Some(Component::Normal(name)) if directory.is_absolute() => name,
            _ => {
                return Err(ArchiveError::Invalid(format!(
                    "{} is no absolute path of a directory",
                    directory.display()
                )));
            }
        };
        let mut partial = std::ffi::OsString::from(".");
        partial.push(name);
        partial.push(format!(".{id}.partial"));
        // Without a slash at the end.
        let directory: PathBuf = directory.components().collect();
        Ok(Self {
            partial: directory.with_file_name(partial),
            directory,
        })
    }

    fn parent(&self) -> Option<&Path> {
        self.directory.parent()
    }

    /// Where files are written.
    pub(crate) fn partial(&self) -> &Path {
        &self.partial
    }

    /// Where they will be.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes the directory, under its first name; readable by its owner only, as
    /// memory and disks of guests are.
    pub(crate) fn create(&self) -> Result<(), ArchiveError> {
        let made = DirBuilder::new().mode(0o700).create(&self.partial);
        made.map_err(|error| cannot("make", &self.partial, &error))
    }

    /// Makes it final. All its files are on stable storage.
    pub(crate) fn finish(&self) -> Result<(), ArchiveError> {
        sync_directory(&self.partial)?;
        // Takes the place of an empty directory, and of nothing else.
        fs::rename(&self.partial, &self.directory)
            .map_err(|error| cannot("make final as", &self.directory, &error))?;
        match self.parent() {
            Some(parent) => sync_directory(parent),
            None => Ok(()),
        }
    }

    /// Removes what is there under its first name; `Ok` where there is nothing.
    pub(crate) fn remove(&self) -> Result<(), ArchiveError> {
        match fs::remove_dir_all(&self.partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(cannot("remove", &self.partial, &error))
            }
            _ => Ok(()),
        }
    }
}

/// Brings a directory's entries to stable storage.
pub(crate) fn sync_directory(path: &Path) -> Result<(), ArchiveError> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.map_err(|error| cannot("write", path, &error))
}

/// A new file, readable by its owner only.
pub(crate) fn new_file(path: &Path) -> Result<File, ArchiveError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| cannot("make", path, &error))
}

/// A new small file with all that is in it, on stable storage.
pub(crate) fn write_file(path: &Path, text: &[u8]) -> Result<(), ArchiveError> {
    let mut file = new_file(path)?;
    let written = file.write_all(text).and_then(|()| file.sync_all());
    written.map_err(|error| cannot("write", path, &error))
}

/// Copies a file to its end, into a new one on stable storage; its length and digest.
pub(crate) fn copy_file(
    from: &mut File,
    from_path: &Path,
    to: &Path,
    control: &Control,
) -> Result<FileOf, ArchiveError> {
    let mut file = new_file(to)?;
    let copied = digest(from, from_path, control, |bytes| {
        control.written(bytes.len() as u64);
        file.write_all(bytes)
            .map_err(|error| cannot("write", to, &error))
    })?;
    file.sync_all()
        .map_err(|error| cannot("write", to, &error))?;
    Ok(FileOf {
        file: to
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        ..copied
    })
}

/// Length and digest of a file, which is passed to `each` in pieces. It has no name
/// then.
pub(crate) fn digest(
    file: &mut File,
    path: &Path,
    control: &Control,
    mut each: impl FnMut(&[u8]) -> Result<(), ArchiveError>,
) -> Result<FileOf, ArchiveError> {
    let mut buffer = vec![0; AT_ONCE];
    let mut hasher = blake3::Hasher::new();
    let mut bytes = 0;
    loop {
        control.wait_for(buffer.len() as u64)?;
        let count = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(cannot("read", path, &error)),
        };
        hasher.update(&buffer[..count]);
        each(&buffer[..count])?;
        bytes += count as u64;
        control.done(count as u64);
    }
    Ok(FileOf {
        file: String::new(),
        bytes,
        blake3: Blake3(*hasher.finalize().as_bytes()),
    })
}

/// Names of files that no two things share.
#[derive(Debug, Default)]
pub(crate) struct Names(HashSet<String>);

impl Names {
    /// A name like this one that nothing else has, of letters, digits, `-`, `_` and
    /// `.`, not beginning with a dot.
    pub(crate) fn unique(&mut self, like: &str) -> String {
        let plain: String = like
            .chars()
            .map(|c| match c {
                'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' => c,
                _ => '_',
            })
            .take(80)
            .collect();
        let plain = match plain.starts_with('.') || plain.is_empty() {
            true => format!("_{plain}"),
            false => plain,
        };
        let mut name = plain.clone();
        let mut number = 2;
        // File systems that do not tell cases apart exist, for exports at least.
        while !self.0.insert(name.to_lowercase()) {
            name = format!("{plain}-{number}");
            number += 1;
        }
        name
    }
}

/// The way from one directory to another, both absolute and without `..`.
pub(crate) fn relative(from: &Path, to: &Path) -> PathBuf {
    let (mut from, mut to) = (from.components().peekable(), to.components().peekable());
    while from.peek().is_some() && from.peek() == to.peek() {
        from.next();
        to.next();
    }
    let up = from.map(|_| Component::ParentDir);
    up.chain(to).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain_and_unique() {
        let mut names = Names::default();
        for (like, name) in [
            ("web.disk0", "web.disk0"),
            ("WEB.disk0", "WEB.disk0-2"),
            ("../etc/passwd", "_.._etc_passwd"),
            ("", "_"),
            (".", "_."),
            ("ä", "_-2"),
        ] {
            assert_eq!(names.unique(like), name);
        }
        assert!(names.unique(&"x".repeat(500)).len() <= 80);
    }

    #[test]
    fn the_way_between_directories() {
        for (from, to, way) in [
            ("/b/two", "/b/one", "../one"),
            ("/b/x/two", "/b/one", "../../one"),
            ("/b", "/b/one", "one"),
            ("/two", "/one", "../one"),
        ] {
            assert_eq!(relative(Path::new(from), Path::new(to)), Path::new(way));
        }
    }

    #[test]
    fn the_unfinished_directory_is_beside_the_finished_one() {
        let id = ExportId::new();
        let target = Target::of(Path::new("/backups/monday/"), id).unwrap();
        assert_eq!(target.directory(), Path::new("/backups/monday"));
        let partial = format!("/backups/.monday.{id}.partial");
        assert_eq!(target.partial(), Path::new(&partial));
        for wrong in ["monday", "/", "/backups/..", ""] {
            assert!(Target::of(Path::new(wrong), id).is_err(), "{wrong}");
        }
    }
}
