//! Jobs: progress that moves, cancellation until the point of no return, and an
//! end that is recorded together with what the job did.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::events::Events;
use crate::model::{
    Affected, CollectionId, Job, JobError, JobExport, JobId, JobKind, JobState, ReferencePointId,
    SnapshotId,
};
use crate::records::{Records, job_key};
use crate::{Change, Clock, EngineError, ErrorKind, Event};

/// All jobs that are under way or ended not long ago.
pub(crate) struct Jobs {
    clock: Arc<dyn Clock>,
    events: Events,
    retention: Duration,
    table: Mutex<HashMap<JobId, watch::Sender<Entry>>>,
}

#[derive(Clone)]
struct Entry {
    job: Job,
    cancelled: bool,
}

/// What a new job is about.
pub(crate) struct NewJob {
    pub(crate) kind: JobKind,
    pub(crate) owner: Option<String>,
    pub(crate) collection: Option<CollectionId>,
    pub(crate) snapshot: Option<SnapshotId>,
    pub(crate) point: Option<ReferencePointId>,
    pub(crate) export: Option<JobExport>,
    pub(crate) cancellable: bool,
}

impl NewJob {
    /// A job of this kind, about nothing yet, that cannot be cancelled.
    pub(crate) fn new(kind: JobKind, owner: Option<String>) -> Self {
        Self {
            kind,
            owner,
            collection: None,
            snapshot: None,
            point: None,
            export: None,
            cancellable: false,
        }
    }
}

impl Jobs {
    pub(crate) fn new(clock: Arc<dyn Clock>, events: Events, retention: Duration) -> Self {
        Self {
            clock,
            events,
            retention,
            table: Mutex::default(),
        }
    }

    fn table(&self) -> MutexGuard<'_, HashMap<JobId, watch::Sender<Entry>>> {
        // A panic between two map operations leaves the map whole.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A job in state running, not yet recorded.
    pub(crate) fn create(&self, new: NewJob) -> Job {
        let now = self.clock.now();
        Job {
            id: JobId::new(),
            kind: new.kind,
            state: JobState::Running,
            percent: 0,
            step: "checking".to_owned(),
            cancellable: new.cancellable,
            owner: new.owner,
            collection: new.collection,
            snapshot: new.snapshot,
            point: new.point,
            export: new.export,
            affected: None,
            started_at: now,
            changed_at: now,
            ended_at: None,
            error: None,
        }
    }

    /// Shows a job to everyone; `before` is what it was when it was shown last, by
    /// the service that ran before us.
    pub(crate) fn publish(self: &Arc<Self>, before: Option<Job>, job: Job) -> Progress {
        let id = job.id;
        let mut table = self.table();
        self.tell(before, Some(job.clone()));
        table.insert(
            id,
            watch::Sender::new(Entry {
                job,
                cancelled: false,
            }),
        );
        Progress {
            jobs: Arc::clone(self),
            id,
        }
    }

    /// Told while the table is locked: in the order of what happened.
    fn tell(&self, before: Option<Job>, now: Option<Job>) {
        if let Some(change) = Change::between(before, now) {
            self.events.tell(Event::Job(change));
        }
    }

    fn update(&self, id: JobId, change: impl FnOnce(&mut Entry)) {
        let table = self.table();
        let Some(entry) = table.get(&id) else { return };
        let before = entry.borrow().job.clone();
        entry.send_modify(change);
        let now = entry.borrow().job.clone();
        self.tell(Some(before), Some(now));
    }

    pub(crate) fn list(&self) -> Vec<Job> {
        self.that(|_| true)
    }

    /// Jobs are few: those of the last minutes.
    pub(crate) fn affecting(&self, affected: Affected) -> Vec<Job> {
        self.that(|job| job.affected == Some(affected))
    }

    fn that(&self, wanted: impl Fn(&Job) -> bool) -> Vec<Job> {
        let mut jobs: Vec<_> = self
            .table()
            .values()
            .filter_map(|entry| {
                let entry = entry.borrow();
                wanted(&entry.job).then(|| entry.job.clone())
            })
            .collect();
        jobs.sort_by_key(|job| (job.started_at, job.id));
        jobs
    }

    pub(crate) fn get(&self, id: JobId) -> Result<Job, EngineError> {
        self.table()
            .get(&id)
            .map(|entry| entry.borrow().job.clone())
            .ok_or_else(|| missing(id))
    }

    /// Waits until the job has ended.
    pub(crate) async fn wait(&self, id: JobId) -> Result<Job, EngineError> {
        let mut seen = self
            .table()
            .get(&id)
            .ok_or_else(|| missing(id))?
            .subscribe();
        let entry = seen
            .wait_for(|entry| entry.job.ended())
            .await
            .map_err(|_| missing(id))?;
        Ok(entry.job.clone())
    }

    pub(crate) fn cancel(&self, id: JobId) -> Result<(), EngineError> {
        let mut outcome = Err(missing(id));
        self.update(id, |entry| {
            outcome = if entry.job.ended() {
                Err(EngineError::state(format!("job {id} has ended already")))
            } else if !entry.job.cancellable {
                Err(EngineError::state(format!(
                    "job {id} is past the point up to which it can be cancelled ({})",
                    entry.job.step
                )))
            } else {
                entry.cancelled = true;
                entry.job.cancellable = false;
                Ok(())
            };
        });
        outcome
    }

    /// Forgets jobs that ended long enough ago.
    pub(crate) async fn sweep(&self, records: &Records) -> Result<(), EngineError> {
        let now = self.clock.now();
        let old: Vec<_> = self
            .list()
            .into_iter()
            .filter(|job| {
                job.ended_at
                    .is_some_and(|ended| now - ended > self.retention)
            })
            .map(|job| job.id)
            .collect();
        if old.is_empty() {
            return Ok(());
        }
        let mut transaction = records.begin().await;
        for id in &old {
            transaction.delete(job_key(*id));
        }
        transaction.commit().await?;
        let mut table = self.table();
        for id in old {
            if let Some(entry) = table.remove(&id) {
                self.tell(Some(entry.borrow().job.clone()), None);
            }
        }
        Ok(())
    }
}

fn missing(id: JobId) -> EngineError {
    EngineError::not_found(format!("there is no job {id}"))
}

/// A job's own view of itself.
#[derive(Clone)]
pub(crate) struct Progress {
    jobs: Arc<Jobs>,
    id: JobId,
}

impl Progress {
    pub(crate) fn id(&self) -> JobId {
        self.id
    }

    /// Tells what is being done, and how much of all is done.
    pub(crate) fn step(&self, percent: u8, step: &str) {
        self.jobs.update(self.id, |entry| {
            entry.job.percent = percent.min(99).max(entry.job.percent);
            step.clone_into(&mut entry.job.step);
        });
    }

    /// Tells how far an export is.
    pub(crate) fn exporting(&self, percent: u8, change: impl FnOnce(&mut JobExport)) {
        self.jobs.update(self.id, |entry| {
            entry.job.percent = percent.min(99).max(entry.job.percent);
            if let Some(export) = &mut entry.job.export {
                change(export);
            }
        });
    }

    /// Fails if the caller has cancelled the job.
    pub(crate) fn checkpoint(&self) -> Result<(), EngineError> {
        let table = self.jobs.table();
        match table.get(&self.id) {
            Some(entry) if entry.borrow().cancelled => Err(EngineError::new(
                ErrorKind::Cancelled,
                "the job was cancelled by its caller",
            )),
            _ => Ok(()),
        }
    }

    /// From here on the job cannot be cancelled. Fails if it was before.
    pub(crate) fn commit(&self) -> Result<(), EngineError> {
        let mut cancelled = false;
        self.jobs.update(self.id, |entry| {
            cancelled = entry.cancelled;
            entry.job.cancellable = false;
        });
        if cancelled { self.checkpoint() } else { Ok(()) }
    }

    /// The job as it will be when it has ended so; recorded in a transaction
    /// together with what it did, then shown by [`shown`](Self::shown).
    pub(crate) fn ending(
        &self,
        affected: Option<Affected>,
        error: Option<EngineError>,
    ) -> Result<Job, EngineError> {
        let mut job = self.jobs.get(self.id)?;
        end(&mut job, affected, error, self.jobs.clock.as_ref());
        Ok(job)
    }

    /// Shows the end of the job.
    pub(crate) fn shown(&self, ended: Job) {
        self.jobs.update(self.id, |entry| entry.job = ended);
    }

    /// Records and shows an end that changes nothing else.
    pub(crate) async fn finish(
        &self,
        records: &Records,
        affected: Option<Affected>,
        error: Option<EngineError>,
    ) {
        let Ok(ended) = self.ending(affected, error) else {
            return;
        };
        for pause in [Some(100), Some(1000), None] {
            match record(records, &ended).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::error!(job = %self.id, %error, "the job's end was not recorded");
                }
            }
            if let Some(pause) = pause {
                self.jobs.clock.sleep(Duration::from_millis(pause)).await;
            }
        }
        self.shown(ended);
    }
}

/// Records a job by itself.
pub(crate) async fn record(records: &Records, job: &Job) -> Result<(), EngineError> {
    let mut transaction = records.begin().await;
    transaction.put(job)?;
    transaction.commit().await
}

/// Turns a running job into one that has ended.
pub(crate) fn end(
    job: &mut Job,
    affected: Option<Affected>,
    error: Option<EngineError>,
    clock: &dyn Clock,
) {
    let now = clock.now();
    job.cancellable = false;
    job.changed_at = now;
    job.ended_at = Some(now);
    job.state = match &error {
        None => JobState::Completed,
        Some(error) if error.kind == ErrorKind::Cancelled => JobState::Cancelled,
        Some(_) => JobState::Failed,
    };
    match error {
        None => {
            job.percent = 100;
            job.step = "done".to_owned();
            job.affected = affected;
            job.error = None;
        }
        Some(error) => {
            job.step = "ended".to_owned();
            job.error = Some(JobError {
                kind: error.kind,
                message: error.message,
            });
        }
    }
}
