//! Opening: who may, what is created, what is brought forward and what is
//! refused, with a sentence and without touching the file.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;

use isochron_engine::ports::{Batch, Store, Write};
use isochron_store::{OpenError, SqliteStore};
use rusqlite::Connection;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn batch(range: std::ops::Range<usize>) -> Batch {
    let put = |n| Write::Put(format!("key/{n:04}"), vec![0x5a; 400]);
    Batch {
        checks: vec![],
        writes: range.map(put).collect(),
    }
}

async fn refusal(path: &Path) -> OpenError {
    let before = fs::read(path).unwrap();
    let error = SqliteStore::open(path).await.unwrap_err();
    assert!(
        fs::read(path).unwrap() == before,
        "the refused file was changed"
    );
    let sentence = error.to_string();
    assert!(sentence.contains(path.to_str().unwrap()), "{sentence}");
    error
}

#[tokio::test]
async fn what_is_created_is_for_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state/inner/isochron.db");
    let store = SqliteStore::open(&path).await.unwrap();
    store.commit(batch(0..1)).await.unwrap();
    assert_eq!(mode(&directory.path().join("state")), 0o700);
    assert_eq!(mode(&directory.path().join("state/inner")), 0o700);
    let files: Vec<_> = fs::read_dir(path.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(
        files.contains(&path.with_extension("db-wal")),
        "no write-ahead log: {files:?}"
    );
    for file in files {
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn a_second_opener_is_refused_until_the_first_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let first = SqliteStore::open(&path).await.unwrap();
    let error = SqliteStore::open(&path).await.unwrap_err();
    assert!(
        matches!(error, OpenError::Locked { process: Some(id), .. } if id == std::process::id()),
        "{error}"
    );
    assert!(
        error.to_string().contains("served by another process"),
        "{error}"
    );
    first.commit(batch(0..1)).await.unwrap();
    drop(first);
    SqliteStore::open(&path).await.unwrap();
}

#[tokio::test]
async fn an_empty_file_is_brought_to_the_present_format() {
    let directory = tempfile::tempdir().unwrap();
    for (name, prepare) in [("bare", false), ("database", true)] {
        let path = directory.path().join(name);
        fs::write(&path, "").unwrap();
        if prepare {
            // a header, version 0, no table
            Connection::open(&path)
                .unwrap()
                .execute_batch("VACUUM")
                .unwrap();
            assert_ne!(fs::metadata(&path).unwrap().len(), 0);
        }
        let store = SqliteStore::open(&path).await.unwrap();
        store.commit(batch(0..1)).await.unwrap();
        drop(store);
        let connection = Connection::open(&path).unwrap();
        let number = |pragma| {
            connection
                .pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))
                .unwrap()
        };
        assert_eq!(
            (number("application_id"), number("user_version")),
            (0x4973_6f63, 1),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    drop(SqliteStore::open(&path).await.unwrap());
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 7)
        .unwrap();
    let error = refusal(&path).await;
    assert!(
        matches!(
            error,
            OpenError::Newer {
                found: 7,
                known: 1,
                ..
            }
        ),
        "{error}"
    );
    assert!(
        error.to_string().contains("newer version of Isochron"),
        "{error}"
    );
}

#[tokio::test]
async fn another_programs_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    for (name, sql) in [
        ("tables", "CREATE TABLE theirs (a)"),
        ("version", "PRAGMA user_version = 1"),
        ("application", "PRAGMA application_id = 42"),
    ] {
        let path = directory.path().join(name);
        Connection::open(&path).unwrap().execute_batch(sql).unwrap();
        let error = refusal(&path).await;
        assert!(
            matches!(error, OpenError::Foreign { .. }),
            "{name}: {error}"
        );
    }
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("not a database");
    fs::write(&path, "[listen]\ncimxml = \"127.0.0.1:5988\"\n".repeat(200)).unwrap();
    let error = refusal(&path).await;
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
    assert!(
        error.to_string().contains("restore it from a copy"),
        "{error}"
    );

    // one page in the middle overwritten
    let path = directory.path().join("one page");
    let store = SqliteStore::open(&path).await.unwrap();
    store.commit(batch(0..500)).await.unwrap();
    drop(store);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let pages = file.metadata().unwrap().len() / 4096;
    assert!(pages > 20);
    file.write_all_at(&[0xff; 4096], pages / 2 * 4096).unwrap();
    let error = refusal(&path).await;
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = SqliteStore::open(file.join("db")).await.unwrap_err();
    assert!(
        error.to_string().contains(file.to_str().unwrap()),
        "{error}"
    );
    let inner = directory.path().join("directory");
    fs::create_dir(&inner).unwrap();
    let error = SqliteStore::open(&inner).await.unwrap_err();
    assert!(
        error.to_string().contains(inner.to_str().unwrap()),
        "{error}"
    );
}
