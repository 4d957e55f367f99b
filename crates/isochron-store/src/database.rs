//! The open database and its three operations. Everything here blocks.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use isochron_engine::ports::{Batch, Record, Revision, StoreError, Write};
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior,
};

use crate::OpenError;
use crate::lock::Lock;
use crate::schema::{self, Format};

/// How long a commit waits for someone who looks at the file with another tool.
const BUSY: Duration = Duration::from_secs(5);

/// The open database. Fields are dropped in this order: closed, then unlocked.
pub(crate) struct Database {
    connection: Connection,
    _lock: Lock,
}

impl Database {
    pub(crate) fn open(path: &Path) -> Result<Self, OpenError> {
        create_directory(path)?;
        let lock = Lock::take(path)?;
        create_file(path)?;
        let sqlite = |source| refusal(path, source);
        // not created by SQLite, so that it is never there with a wider mode
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags).map_err(sqlite)?;
        connection.busy_timeout(BUSY).map_err(sqlite)?;

        let version = match schema::read(&connection).map_err(sqlite)? {
            Format::Ours(version) => version,
            Format::Foreign => {
                return Err(OpenError::Foreign {
                    path: path.to_owned(),
                });
            }
            Format::Newer(found) => {
                return Err(OpenError::Newer {
                    path: path.to_owned(),
                    found,
                    known: schema::VERSION,
                });
            }
        };
        let verdict: String = connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(sqlite)?;
        if verdict != "ok" {
            return Err(OpenError::Damaged {
                path: path.to_owned(),
                detail: verdict,
            });
        }
        let mode: String = connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
            .map_err(sqlite)?;
        if mode != "wal" {
            return Err(OpenError::NoLog {
                path: path.to_owned(),
                mode,
            });
        }
        connection
            .pragma_update(None, "synchronous", "FULL")
            .map_err(sqlite)?;
        schema::migrate(&mut connection, version).map_err(sqlite)?;
        Ok(Self {
            connection,
            _lock: lock,
        })
    }

    pub(crate) fn get(&mut self, key: &str) -> Result<Option<Record>, StoreError> {
        self.connection
            .prepare_cached("SELECT key, revision, value FROM records WHERE key = ?1")
            .and_then(|mut query| query.query_row([key], record).optional())
            .map_err(failed)
    }

    /// Keys are ordered by their bytes, so those with the prefix follow it
    /// without a gap.
    pub(crate) fn list(&mut self, prefix: &str) -> Result<Vec<Record>, StoreError> {
        let mut query = self
            .connection
            .prepare_cached("SELECT key, revision, value FROM records WHERE key >= ?1 ORDER BY key")
            .map_err(failed)?;
        let records = query.query_map([prefix], record).map_err(failed)?;
        records
            .take_while(|row| {
                row.as_ref()
                    .map_or(true, |record| record.key.starts_with(prefix))
            })
            .collect::<Result<_, _>>()
            .map_err(failed)
    }

    pub(crate) fn commit(&mut self, batch: &Batch) -> Result<Revision, StoreError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        for check in &batch.checks {
            if current_revision(&transaction, &check.key).map_err(failed)? != check.revision {
                return Err(StoreError::Conflict(check.key.clone()));
            }
        }
        let revision = write(&transaction, &batch.writes).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(revision)
    }
}

fn current_revision(
    transaction: &Transaction<'_>,
    key: &str,
) -> rusqlite::Result<Option<Revision>> {
    transaction
        .prepare_cached("SELECT revision FROM records WHERE key = ?1")?
        .query_row([key], |row| revision(row, 0))
        .optional()
}

fn write(transaction: &Transaction<'_>, writes: &[Write]) -> rusqlite::Result<Revision> {
    let next: i64 = transaction
        .prepare_cached(
            "UPDATE meta SET value = value + 1 WHERE name = 'revision' RETURNING value",
        )?
        .query_row([], |row| row.get(0))?;
    for write in writes {
        match write {
            Write::Put(key, value) => transaction
                .prepare_cached(
                    "INSERT INTO records (key, revision, value) VALUES (?1, ?2, ?3)
                     ON CONFLICT (key) DO UPDATE SET revision = ?2, value = ?3",
                )?
                .execute((key, next, value))?,
            Write::Delete(key) => transaction
                .prepare_cached("DELETE FROM records WHERE key = ?1")?
                .execute([key])?,
        };
    }
    Ok(next.unsigned_abs())
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        key: row.get(0)?,
        revision: revision(row, 1)?,
        value: row.get(2)?,
    })
}

/// Revisions count up from 0, so they are never negative.
fn revision(row: &Row<'_>, column: usize) -> rusqlite::Result<Revision> {
    Ok(row.get::<_, i64>(column)?.unsigned_abs())
}

fn failed(error: rusqlite::Error) -> StoreError {
    StoreError::Failed(error.to_string())
}

fn refusal(path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    match source.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => OpenError::Damaged {
            path,
            detail: source.to_string(),
        },
        _ => OpenError::Sqlite { path, source },
    }
}

fn directory_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn create_directory(path: &Path) -> Result<(), OpenError> {
    let directory = directory_of(path);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory)
        .map_err(|source| OpenError::Io {
            path: directory,
            source,
        })
}

/// Creates the file empty, so that its mode is right from the first moment
/// (SQLite gives the log the same), and puts its name on stable storage.
fn create_file(path: &Path) -> Result<(), OpenError> {
    let created = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let directory = directory_of(path);
    match created {
        Ok(_) => File::open(&directory)
            .and_then(|directory| directory.sync_all())
            .map_err(|source| OpenError::Io {
                path: directory,
                source,
            }),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(OpenError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What "on stable storage" rests on; seen only on the connection itself.
    #[test]
    fn every_commit_is_synced_to_the_log() {
        let directory = tempfile::tempdir().unwrap();
        let database = Database::open(&directory.path().join("db")).unwrap();
        let synchronous: i64 = database
            .connection
            .pragma_query_value(None, "synchronous", |row| row.get(0))
            .unwrap();
        let mode: String = database
            .connection
            .pragma_query_value(None, "journal_mode", |row| row.get(0))
            .unwrap();
        assert_eq!((synchronous, mode.as_str()), (2, "wal")); // 2: FULL
    }
}
