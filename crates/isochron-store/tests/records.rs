//! What the engine relies on between opening and closing: batches happen whole
//! or not at all, revisions rise, prefixes find exactly their keys, and what was
//! committed is there after reopening.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::Duration;

use isochron_engine::ports::{Batch, Check, Revision, Store, StoreError, Write};
use isochron_store::SqliteStore;

fn put(key: &str, value: &str) -> Write {
    Write::Put(key.to_owned(), value.as_bytes().to_vec())
}

fn check(key: &str, revision: Option<Revision>) -> Check {
    Check {
        key: key.to_owned(),
        revision,
    }
}

fn writes(writes: impl IntoIterator<Item = Write>) -> Batch {
    Batch {
        checks: vec![],
        writes: writes.into_iter().collect(),
    }
}

async fn keys(store: &SqliteStore, prefix: &str) -> Vec<String> {
    store
        .list(prefix)
        .await
        .unwrap()
        .into_iter()
        .map(|record| record.key)
        .collect()
}

#[tokio::test]
async fn a_batch_happens_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("db"))
        .await
        .unwrap();
    let first = store
        .commit(writes([put("a", "1"), put("b", "1")]))
        .await
        .unwrap();

    // the second of two checks fails: neither write is made
    let refused = Batch {
        checks: vec![check("a", Some(first)), check("b", None)],
        writes: vec![put("a", "2"), Write::Delete("b".to_owned()), put("c", "2")],
    };
    assert_eq!(
        store.commit(refused).await,
        Err(StoreError::Conflict("b".to_owned()))
    );
    assert_eq!(keys(&store, "").await, ["a", "b"]);
    let a = store.get("a").await.unwrap().unwrap();
    assert_eq!((a.value.as_slice(), a.revision), (b"1".as_slice(), first));

    let made = Batch {
        checks: vec![
            check("a", Some(first)),
            check("b", Some(first)),
            check("c", None),
        ],
        writes: vec![put("a", "2"), Write::Delete("b".to_owned()), put("c", "2")],
    };
    let second = store.commit(made).await.unwrap();
    assert!(second > first);
    assert_eq!(keys(&store, "").await, ["a", "c"]);
    let a = store.get("a").await.unwrap().unwrap();
    assert_eq!((a.value.as_slice(), a.revision), (b"2".as_slice(), second));
    assert_eq!(store.get("b").await.unwrap(), None);
}

#[tokio::test]
async fn writes_of_a_batch_are_made_in_their_order() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("db"))
        .await
        .unwrap();
    let batch = [
        put("a", "1"),
        Write::Delete("a".to_owned()),
        put("b", "1"),
        put("b", "2"),
    ];
    store.commit(writes(batch)).await.unwrap();
    store
        .commit(writes([Write::Delete("never there".to_owned())]))
        .await
        .unwrap();
    assert_eq!(store.get("a").await.unwrap(), None);
    assert_eq!(store.get("b").await.unwrap().unwrap().value, b"2");
}

#[tokio::test]
async fn a_revision_conflicts_with_every_other_state_of_its_record() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("db"))
        .await
        .unwrap();
    let old = store.commit(writes([put("a", "1")])).await.unwrap();
    let new = store.commit(writes([put("a", "1")])).await.unwrap();
    for (key, revision) in [
        ("a", Some(old)),
        ("a", Some(u64::MAX)),
        ("a", None),
        ("absent", Some(new)),
    ] {
        let batch = Batch {
            checks: vec![check(key, revision)],
            writes: vec![put("x", "x")],
        };
        assert_eq!(
            store.commit(batch).await,
            Err(StoreError::Conflict(key.to_owned())),
            "{key} at {revision:?}"
        );
    }
    assert_eq!(keys(&store, "").await, ["a"]);

    // deleted and created again is another state too
    store
        .commit(writes([Write::Delete("a".to_owned())]))
        .await
        .unwrap();
    store.commit(writes([put("a", "1")])).await.unwrap();
    let batch = Batch {
        checks: vec![check("a", Some(new))],
        writes: vec![],
    };
    assert_eq!(
        store.commit(batch).await,
        Err(StoreError::Conflict("a".to_owned()))
    );
}

#[tokio::test]
async fn revisions_rise_across_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let mut last = 0;
    for _ in 0..3 {
        let store = SqliteStore::open(&path).await.unwrap();
        for batch in [
            writes([put("a", "1")]),
            writes([]),
            writes([Write::Delete("a".to_owned())]),
        ] {
            let revision = store.commit(batch).await.unwrap();
            assert!(revision > last);
            last = revision;
        }
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let value: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let store = SqliteStore::open(&path).await.unwrap();
    let revision = store
        .commit(writes([Write::Put("big".to_owned(), value.clone())]))
        .await
        .unwrap();
    drop(store);
    let store = SqliteStore::open(&path).await.unwrap();
    let record = store.get("big").await.unwrap().unwrap();
    assert_eq!((record.revision, record.value), (revision, value));
}

#[tokio::test]
async fn a_prefix_finds_exactly_its_keys_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("db"))
        .await
        .unwrap();
    let all = [
        "",
        "a",
        "a%",
        "a/",
        "a/1",
        "a/10",
        "a/2",
        "a/\0",
        "a/\0b",
        "a/\u{10ffff}",
        "a/\u{10ffff}x",
        "a/\u{d7ff}",
        "a/\u{e000}",
        "a/é",
        "a0",
        "aB",
        "a_",
        "b",
        "A/1",
        "\u{10ffff}",
        "\u{10ffff}\u{10ffff}z",
    ];
    store
        .commit(writes(all.iter().map(|key| put(key, ""))))
        .await
        .unwrap();
    for prefix in [
        "",
        "a",
        "a/",
        "a/1",
        "a/\0",
        "a/\u{10ffff}",
        "a/\u{d7ff}",
        "a%",
        "a_",
        "A",
        "b",
        "c",
        "\u{10ffff}",
        "\u{10ffff}\u{10ffff}",
        "é",
        "'",
        "a/1000",
    ] {
        let mut expected: Vec<_> = all.iter().filter(|key| key.starts_with(prefix)).collect();
        expected.sort();
        assert_eq!(
            keys(&store, prefix).await.iter().collect::<Vec<_>>(),
            expected,
            "{prefix:?}"
        );
    }
    assert_eq!(store.get("a/\0").await.unwrap().unwrap().key, "a/\0");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_writers_of_one_revision_exactly_one_wins() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("db"))
        .await
        .unwrap();
    let start = store.commit(writes([put("a", "")])).await.unwrap();
    let store = Arc::new(store);
    let attempts: Vec<_> = (0..16)
        .map(|n| {
            let batch = Batch {
                checks: vec![check("a", Some(start))],
                writes: vec![put("a", &n.to_string()), put(&format!("won/{n}"), "")],
            };
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.commit(batch).await })
        })
        .collect();
    let mut won = 0;
    for attempt in attempts {
        won += usize::from(attempt.await.unwrap().is_ok());
    }
    assert_eq!(won, 1);
    assert_eq!(keys(&store, "won/").await.len(), 1);
}

/// On one async thread: while a commit waits for the file, others go on. Were
/// the wait on this thread, the lock would never be given back in time.
#[tokio::test(flavor = "current_thread")]
async fn a_waiting_commit_does_not_hold_up_the_async_thread() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let store = SqliteStore::open(&path).await.unwrap();
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let commit = store.commit(writes([put("a", "1")]));
    let release = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        other.execute_batch("COMMIT").unwrap();
    };
    let (committed, ()) = tokio::join!(commit, release);
    committed.unwrap();
    assert_eq!(keys(&store, "").await, ["a"]);
}

#[tokio::test]
async fn a_commit_whose_caller_went_away_is_whole() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(directory.path().join("db"))
        .await
        .unwrap();
    let commit = store.commit(writes([put("a", "1"), put("b", "1")]));
    tokio::select! {
        biased;
        _ = commit => {}
        () = std::future::ready(()) => {}
    }
    // requests are answered in order, so this sees the batch's end
    assert_eq!(keys(&store, "").await, ["a", "b"]);
}
