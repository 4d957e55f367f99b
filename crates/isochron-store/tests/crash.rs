//! A writer that is killed in the middle of its batches. The test runs itself
//! again as the writer: a process that can be killed without taking the test
//! with it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::env;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use isochron_engine::ports::{Batch, Store, Write};
use isochron_store::{OpenError, SqliteStore};

const WRITER: &str = "ISOCHRON_STORE_TEST_WRITER";
const KEYS: usize = 20;

/// In the child: batches without end, each setting every key to its number,
/// which is told on standard error once it is committed. In the test run itself
/// there is nothing to do.
#[tokio::test]
async fn writer() {
    let Some(path) = env::var_os(WRITER).map(PathBuf::from) else {
        return;
    };
    let store = SqliteStore::open(path).await.unwrap();
    let start = number(&store).await.map_or(0, |n| n + 1);
    for n in start.. {
        let put = |key| Write::Put(format!("key/{key}"), n.to_string().into_bytes());
        let batch = Batch {
            checks: vec![],
            writes: (0..KEYS).map(put).collect(),
        };
        store.commit(batch).await.unwrap();
        writeln!(std::io::stderr(), "committed {n}").unwrap();
    }
}

/// The number of the last batch; every key holds it or none is there.
async fn number(store: &SqliteStore) -> Option<u64> {
    let records = store.list("key/").await.unwrap();
    let first = records.first()?;
    assert_eq!(records.len(), KEYS);
    for record in &records {
        assert_eq!(
            (&record.value, record.revision),
            (&first.value, first.revision),
            "torn batch"
        );
    }
    Some(std::str::from_utf8(&first.value).unwrap().parse().unwrap())
}

/// Kills the child however the test ends.
struct Writer(Child);

impl Writer {
    fn start(path: &Path) -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "writer", "--nocapture"])
            .env(WRITER, path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_writer_leaves_whole_batches() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("db");
    let mut rounds = 0;
    for commits in [1, 2, 7, 23, 40, 3, 11, 30] {
        let mut writer = Writer::start(&path);
        let mut lines = BufReader::new(writer.0.stderr.take().unwrap()).lines();
        let mut told = lines.by_ref().map_while(Result::ok).filter_map(|line| {
            line.strip_prefix("committed ")
                .and_then(|n| n.parse::<u64>().ok())
        });
        let mut last = told
            .by_ref()
            .take(commits)
            .last()
            .expect("the writer commits");

        let error = SqliteStore::open(&path).await.unwrap_err();
        assert!(
            matches!(error, OpenError::Locked { process: Some(id), .. } if id == writer.0.id()),
            "{error}"
        );

        writer.0.kill().unwrap();
        last = told.last().unwrap_or(last); // what it told before the kill reached it
        writer.0.wait().unwrap();
        let store = SqliteStore::open(&path).await.unwrap();
        let found = number(&store).await.unwrap();
        assert!(
            found == last || found == last + 1,
            "batch {last} was committed, {found} is found"
        );
        rounds += 1;
    }
    assert_eq!(rounds, 8);
}
