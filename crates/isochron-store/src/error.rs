//! Why a store cannot be opened. Every variant is a sentence with the path and,
//! where there is something to do, what.

use std::io;
use std::path::PathBuf;

/// Why a store cannot be opened. Nothing in the file was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A directory or file could not be made or reached.
    #[error("cannot open {}: {source}", path.display())]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process serves from it.
    #[error("{} is served by another process{}; stop that first", path.display(), by(.process))]
    Locked {
        /// The database.
        path: PathBuf,
        /// The process, where it could be read.
        process: Option<u32>,
    },
    /// It is a database, but not ours.
    #[error("{} is a database of another program; name another file", path.display())]
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// A newer version of Isochron wrote it.
    #[error(
        "{} was written by a newer version of Isochron (its format is {found}, this version \
         knows up to {known}); use that version, or a copy of the file from before",
        path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its format's version.
        found: i64,
        /// The newest version known here.
        known: i64,
    },
    /// Its content is damaged, or no database at all.
    #[error("{} is damaged or not a database ({detail}); restore it from a copy", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// Its file system cannot hold a write-ahead log.
    #[error(
        "{} cannot keep a write-ahead log there (it stays in mode {mode:?}); put it on a local \
         file system",
        path.display()
    )]
    NoLog {
        /// The database.
        path: PathBuf,
        /// The journal mode that SQLite kept.
        mode: String,
    },
    /// SQLite failed otherwise.
    #[error("cannot open {}: {source}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// SQLite's reason.
        source: rusqlite::Error,
    },
}

fn by(process: &Option<u32>) -> String {
    process.map_or_else(String::new, |id| format!(" (process {id})"))
}
