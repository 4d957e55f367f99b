//! The end of an export: it is remembered with what it is of, or cleared away; at once,
//! or, where we died or cannot yet, later.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Exports;
use crate::EngineError;
use crate::engine::Inner;
use crate::gate::Pass;
use crate::jobs::Progress;
use crate::model::{Affected, FinishedExport, Job, JobId, ReferencePoint, Snapshot};
use crate::ports::{ArchiveError, Exported};
use crate::records::{Exporting, Transaction, export_key, job_key, point_key, snapshot_key};

/// How an export ended in the end.
enum Settled {
    /// Its directory is there, whole, of these files.
    Whole(Vec<PathBuf>),
    /// Nothing is left.
    Gone,
}

/// Ends an export: shows its success, or clears away what it left and shows its
/// failure.
pub(super) async fn conclude(
    inner: &Arc<Inner>,
    exporting: Exporting,
    own: Pass,
    outcome: Result<Exported, EngineError>,
    progress: &Progress,
) {
    let failure = match &outcome {
        Ok(exported) => match commit(inner, &exporting, &exported.files, progress).await {
            Ok(()) => return,
            Err(error) => error,
        },
        Err(error) => error.clone(),
    };
    tracing::warn!(job = %exporting.job, error = %failure, "the export is being settled");
    let unsettled = match settle(inner, &exporting).await {
        Ok(Settled::Whole(files)) => match commit(inner, &exporting, &files, progress).await {
            Ok(()) => return,
            Err(error) => error,
        },
        Ok(Settled::Gone) => match forget(inner, &exporting).await {
            Ok(()) => {
                progress.finish(&inner.records, None, Some(failure)).await;
                return;
            }
            Err(error) => error,
        },
        Err(error) => error,
    };
    // How it ends is not known yet: its job says so when it is.
    tracing::warn!(job = %exporting.job, error = %unsettled, "the export is not settled yet");
    progress.step(99, "it is being found out what was written");
    let ending = Ending {
        failure,
        progress: progress.clone(),
        _own: own,
    };
    tokio::spawn(settle_until_done(
        Arc::clone(inner),
        exporting,
        Some(ending),
    ));
}

/// How the job of an export that is not settled ends, and what it holds until then.
struct Ending {
    failure: EngineError,
    progress: Progress,
    _own: Pass,
}

/// Remembers a whole export, and ends its job.
async fn commit(
    inner: &Inner,
    exporting: &Exporting,
    files: &[PathBuf],
    progress: &Progress,
) -> Result<(), EngineError> {
    let mut ended = progress.ending(Some(affected(exporting)), None)?;
    show_files(&mut ended, files);
    let mut transaction = inner.records.begin().await;
    remember(inner, &mut transaction, exporting).await?;
    transaction.put(&ended)?;
    transaction.commit().await?;
    progress.shown(ended);
    Ok(())
}

/// The job of a whole export tells its files.
fn show_files(job: &mut Job, files: &[PathBuf]) {
    if let Some(export) = &mut job.export {
        export.files = files.to_vec();
        export.done = export.total;
    }
}

fn affected(exporting: &Exporting) -> Affected {
    match exporting.what {
        Exports::Snapshot(id) => Affected::Snapshot(id),
        Exports::Point(id) => Affected::ReferencePoint(id),
    }
}

/// The export is no longer under way, and known to what it is of.
async fn remember(
    inner: &Inner,
    transaction: &mut Transaction<'_>,
    exporting: &Exporting,
) -> Result<(), EngineError> {
    transaction.delete(export_key(exporting.job));
    if !exporting.with_storage {
        return Ok(());
    }
    let finished = FinishedExport {
        id: exporting.export,
        directory: exporting.directory.clone(),
        finished_at: inner.clock.now(),
    };
    // Whatever was there before is not there any more.
    let add = |exports: &mut Vec<FinishedExport>| {
        exports.retain(|old| old.directory != finished.directory && old.id != finished.id);
        exports.insert(0, finished.clone());
    };
    match exporting.what {
        Exports::Snapshot(id) => {
            let found: Option<Snapshot> = transaction.get(&snapshot_key(id)).await?;
            if let Some(mut snapshot) = found {
                add(&mut snapshot.exports);
                transaction.put(&snapshot)?;
            }
        }
        Exports::Point(id) => {
            let found: Option<ReferencePoint> = transaction.get(&point_key(id)).await?;
            if let Some(mut point) = found {
                add(&mut point.exports);
                transaction.put(&point)?;
            }
        }
    }
    Ok(())
}

/// Nothing is left, and nothing is under way.
async fn forget(inner: &Inner, exporting: &Exporting) -> Result<(), EngineError> {
    let mut transaction = inner.records.begin().await;
    transaction.delete(export_key(exporting.job));
    transaction.commit().await
}

/// Clears away what an export left, and asks whether it is there. Can be repeated.
async fn settle(inner: &Inner, exporting: &Exporting) -> Result<Settled, EngineError> {
    let archive = &inner.archive;
    archive
        .clear(&exporting.directory, exporting.export)
        .await?;
    match archive.describe(&exporting.directory).await {
        Ok(found) if found.id == exporting.export => Ok(Settled::Whole(found.files)),
        Ok(_)
        | Err(
            ArchiveError::Invalid(_) | ArchiveError::Damaged(_) | ArchiveError::NotSupported(_),
        ) => Ok(Settled::Gone),
        Err(error) => Err(error.into()),
    }
}

/// Tries again until it is done, ever more slowly. Without an ending, its job has ended
/// already.
async fn settle_until_done(inner: Arc<Inner>, exporting: Exporting, ending: Option<Ending>) {
    let mut pause = Duration::from_secs(1);
    loop {
        inner.clock.sleep(pause).await;
        match settle_and_record(&inner, &exporting, ending.as_ref()).await {
            Ok(()) => break,
            Err(error) => {
                tracing::warn!(job = %exporting.job, %error, "an export is not settled yet");
            }
        }
        pause = (pause * 2).min(Duration::from_secs(60));
    }
}

async fn settle_and_record(
    inner: &Inner,
    exporting: &Exporting,
    ending: Option<&Ending>,
) -> Result<(), EngineError> {
    match (settle(inner, exporting).await?, ending) {
        (Settled::Whole(files), Some(ending)) => {
            commit(inner, exporting, &files, &ending.progress).await
        }
        (Settled::Whole(_), None) => {
            let mut transaction = inner.records.begin().await;
            remember(inner, &mut transaction, exporting).await?;
            transaction.commit().await
        }
        (Settled::Gone, ending) => {
            forget(inner, exporting).await?;
            if let Some(ending) = ending {
                let failure = Some(ending.failure.clone());
                ending.progress.finish(&inner.records, None, failure).await;
            }
            Ok(())
        }
    }
}

/// At start: every export under way is cleared away, or, where its directory is there,
/// whole, remembered. The jobs that are done after all, as they were before.
pub(crate) async fn recover(inner: &Arc<Inner>) -> Result<HashMap<JobId, Job>, EngineError> {
    let mut done = HashMap::new();
    for exporting in inner.records.list::<Exporting>().await? {
        match recover_one(inner, &exporting).await {
            Ok(Some(before)) => {
                done.insert(before.id, before);
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(job = %exporting.job, %error, "an export is not settled yet");
                tokio::spawn(settle_until_done(Arc::clone(inner), exporting, None));
            }
        }
    }
    Ok(done)
}

async fn recover_one(inner: &Inner, exporting: &Exporting) -> Result<Option<Job>, EngineError> {
    let Settled::Whole(files) = settle(inner, exporting).await? else {
        forget(inner, exporting).await?;
        return Ok(None);
    };
    let mut transaction = inner.records.begin().await;
    remember(inner, &mut transaction, exporting).await?;
    let before: Option<Job> = transaction.get(&job_key(exporting.job)).await?;
    let before = before.filter(|job| !job.ended());
    if let Some(before) = &before {
        let mut job = before.clone();
        crate::jobs::end(
            &mut job,
            Some(affected(exporting)),
            None,
            inner.clock.as_ref(),
        );
        show_files(&mut job, &files);
        transaction.put(&job)?;
    }
    transaction.commit().await?;
    Ok(before)
}
