//! The database's format and how older ones are brought forward.
//!
//! ```text
//! PRAGMA application_id   "Isoc": the file is ours
//! PRAGMA user_version     how many of the MIGRATIONS were made
//! records                 key (order: its bytes), revision last written at, value
//! meta                    name, value; 'revision': the last batch's revision
//! ```
//!
//! Migrations only go forward; one that was released never changes. They are
//! made together in one transaction: a crash leaves the old format or the new.

use rusqlite::{Connection, TransactionBehavior};

/// "Isoc" in ASCII.
pub(crate) const APPLICATION_ID: i64 = 0x4973_6f63;

/// Each brings the format from the version of its index to the next.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE records (
        key      TEXT PRIMARY KEY NOT NULL,
        revision INTEGER NOT NULL,
        value    BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE meta (
        name  TEXT PRIMARY KEY NOT NULL,
        value INTEGER NOT NULL
    ) WITHOUT ROWID;
    INSERT INTO meta (name, value) VALUES ('revision', 0);
"];

/// The newest version of the format.
pub(crate) const VERSION: i64 = MIGRATIONS.len() as i64;

/// What a file is, before anything in it is touched.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Ours, of this version; 0 is an empty file.
    Ours(i64),
    /// Ours, of a version that is not known here.
    Newer(i64),
    /// Another program's.
    Foreign,
}

/// Reads what a file is.
pub(crate) fn read(connection: &Connection) -> rusqlite::Result<Format> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    if application == APPLICATION_ID {
        return Ok(match version {
            0..=VERSION => Format::Ours(version),
            _ => Format::Newer(version),
        });
    }
    let objects: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(match (application, version, objects) {
        (0, 0, 0) => Format::Ours(0),
        _ => Format::Foreign,
    })
}

/// Brings a file of our format forward to [`VERSION`].
pub(crate) fn migrate(connection: &mut Connection, from: i64) -> rusqlite::Result<()> {
    let pending = usize::try_from(from)
        .ok()
        .and_then(|from| MIGRATIONS.get(from..));
    let Some(pending) = pending.filter(|pending| !pending.is_empty()) else {
        return Ok(());
    };
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for migration in pending {
        transaction.execute_batch(migration)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", VERSION)?;
    transaction.commit()
}
