//! Jobs that change what a machine does, for callers who do not wait; and since
//! when it does that.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::access::Operation;
use crate::engine::Inner;
use crate::jobs::NewJob;
use crate::model::{Affected, JobId, JobKind, Machine, MachineId, Power};
use crate::records::{Transaction, activity_key};
use crate::{Engine, EngineError, ErrorKind, save};

/// What a machine shall do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerChange {
    /// Run: it is started, restored or resumed. Nothing where it runs already.
    Run,
    /// Its process ends at once, and what was saved of it is given up.
    TurnOff,
    /// The guest is asked to shut down, and waited for this long.
    ShutDown(Duration),
    /// Its processors stand.
    Pause,
    /// Its memory goes to a file and its process ends.
    Save,
}

impl Engine {
    /// Starts a job that changes what a machine does. Whether that is possible now
    /// is checked before this returns.
    ///
    /// # Errors
    /// `NotFound`; `InvalidState` not from the state that it is in, or in use;
    /// `NotSupported` it is attached and that is its owner's business; `Timeout` it
    /// does not answer.
    pub async fn change_power(
        &self,
        id: MachineId,
        change: PowerChange,
        owner: Option<String>,
    ) -> Result<JobId, EngineError> {
        let operation = match change {
            PowerChange::Run => match self.power(id).await? {
                Power::Paused | Power::Running => Operation::ResumeMachine,
                Power::Off | Power::Saved => Operation::StartMachine,
            },
            PowerChange::TurnOff => Operation::KillMachine,
            PowerChange::ShutDown(_) => Operation::ShutDownMachine,
            PowerChange::Pause => Operation::PauseMachine,
            PowerChange::Save => Operation::SaveMachine,
        };
        let target = self.machine_target(id).await;
        self.perform(operation, target, self.begin_to_change(id, change, owner))
            .await
    }

    async fn begin_to_change(
        &self,
        id: MachineId,
        change: PowerChange,
        owner: Option<String>,
    ) -> Result<JobId, EngineError> {
        let machine = self.machine(id).await?;
        let of = |error: EngineError| error.of(format!("machine {}", machine.name));
        if change == PowerChange::Save {
            return self.begin_to_save(id, owner).await;
        }
        let power = self.power(id).await?;
        let kind = match (change, power) {
            (PowerChange::Run, Power::Saved) => return self.restore_machine(id, owner).await,
            (PowerChange::Run, Power::Off) => JobKind::StartMachine,
            (PowerChange::Run, Power::Paused | Power::Running) => JobKind::ResumeMachine,
            (PowerChange::TurnOff, _) => JobKind::TurnOffMachine,
            (PowerChange::ShutDown(_), Power::Running) => JobKind::ShutDownMachine,
            (PowerChange::Pause, Power::Running | Power::Paused) => JobKind::PauseMachine,
            (PowerChange::ShutDown(_) | PowerChange::Pause | PowerChange::Save, _) => {
                return Err(of(EngineError::state(format!("it is {power}"))));
            }
        };
        let owners = matches!(kind, JobKind::StartMachine | JobKind::TurnOffMachine);
        if machine.attached() && owners {
            return Err(of(EngineError::new(
                ErrorKind::NotSupported,
                "it is attached: its owner starts and ends its process",
            )));
        }
        // Turning off is possible at any time; for anything else it must be free. It
        // is held only while this looks: the work itself enters again.
        if kind != JobKind::TurnOffMachine {
            drop(
                self.inner
                    .enter_machines("its state is being changed", [id])?,
            );
        }
        let progress = self
            .inner
            .begin_job(NewJob::of_machine(id, kind, owner))
            .await?;
        let job = progress.id();
        let engine = self.clone();
        tokio::spawn(async move {
            let done = match change {
                PowerChange::Run if power == Power::Off => engine.start(id).await,
                PowerChange::Run | PowerChange::Save => engine.let_run(id).await,
                PowerChange::TurnOff => engine.kill(id).await,
                PowerChange::ShutDown(wait) => engine.shut_down(id, wait).await,
                PowerChange::Pause => engine.pause(id).await,
            };
            let affected = Some(Affected::Machine(id));
            progress
                .finish(&engine.inner.records, affected, done.err())
                .await;
        });
        Ok(job)
    }

    /// Saves a machine and waits until that is done.
    ///
    /// # Errors
    /// As [`change_power`](Self::change_power), and what made it fail.
    pub async fn save_machine(&self, id: MachineId) -> Result<(), EngineError> {
        let job = self.change_power(id, PowerChange::Save, None).await?;
        self.done(job).await
    }

    /// Waits until a job has ended, and for why it did not end well.
    pub(crate) async fn done(&self, job: JobId) -> Result<(), EngineError> {
        let ended = self.wait_job(job).await?;
        match ended.error {
            Some(error) => Err(EngineError::new(error.kind, error.message)),
            None => Ok(()),
        }
    }

    async fn begin_to_save(
        &self,
        id: MachineId,
        owner: Option<String>,
    ) -> Result<JobId, EngineError> {
        let inner = Arc::clone(&self.inner);
        let plan = save::plan(&inner, id).await?;
        let new = NewJob {
            cancellable: true,
            ..NewJob::of_machine(id, JobKind::SaveMachine, owner)
        };
        let progress = inner.begin_job(new).await?;
        let job = progress.id();
        tokio::spawn(async move { save::run(&inner, plan, &progress).await });
        Ok(job)
    }

    pub(crate) async fn restore_machine(
        &self,
        id: MachineId,
        owner: Option<String>,
    ) -> Result<JobId, EngineError> {
        let inner = Arc::clone(&self.inner);
        let plan = save::plan_restore(&inner, id).await?;
        let new = NewJob::of_machine(id, JobKind::RestoreMachine, owner);
        let progress = inner.begin_job(new).await?;
        let job = progress.id();
        tokio::spawn(async move { save::run_restore(&inner, plan, &progress).await });
        Ok(job)
    }
}

impl NewJob {
    /// A job on a machine, which cannot be cancelled.
    fn of_machine(id: MachineId, kind: JobKind, owner: Option<String>) -> Self {
        Self {
            collection: Some(id.into()),
            ..Self::new(kind, owner)
        }
    }
}

/// Since when a machine does what it does, as far as that was our doing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Activity {
    /// What it does. Another is found where someone else has changed it since.
    pub(crate) power: Power,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) since: OffsetDateTime,
    /// When it was last turned on or restored, if it is on.
    #[serde(with = "time::serde::rfc3339::option")]
    on_since: Option<OffsetDateTime>,
    /// For how many milliseconds it had been paused since then, before `since`.
    paused_ms: u64,
}

impl Activity {
    /// How long it has run since it was last turned on or restored, without the
    /// time for which it was paused.
    pub(crate) fn on_time(&self, now: OffsetDateTime) -> Option<Duration> {
        let until = match self.power {
            Power::Paused => self.since,
            _ => now,
        };
        let on = Duration::try_from(until - self.on_since?).unwrap_or_default();
        Some(on.saturating_sub(Duration::from_millis(self.paused_ms)))
    }

    /// What follows when it does something else from now on.
    fn next(before: Option<&Self>, power: Power, now: OffsetDateTime) -> Self {
        let mut next = Self {
            power,
            since: now,
            on_since: None,
            paused_ms: 0,
        };
        if matches!(power, Power::Off | Power::Saved) {
            return next;
        }
        match before {
            // It was on before we knew of it.
            None => {}
            Some(before) if matches!(before.power, Power::Off | Power::Saved) => {
                next.on_since = Some(now);
            }
            Some(before) => {
                next.on_since = before.on_since;
                next.paused_ms = before.paused_ms;
                if before.power == Power::Paused {
                    let stood = Duration::try_from(now - before.since).unwrap_or_default();
                    let stood = u64::try_from(stood.as_millis()).unwrap_or(u64::MAX);
                    next.paused_ms = next.paused_ms.saturating_add(stood);
                }
            }
        }
        next
    }
}

impl Inner {
    /// Since when a machine does what it does.
    pub(crate) async fn activity(&self, id: MachineId) -> Result<Option<Activity>, EngineError> {
        self.records.index(&activity_key(id)).await
    }

    /// Writes down that a machine does something else from now on.
    pub(crate) async fn note(
        &self,
        transaction: &mut Transaction<'_>,
        id: MachineId,
        power: Power,
    ) -> Result<(), EngineError> {
        let key = activity_key(id);
        let before: Option<Activity> = transaction.get(&key).await?;
        let next = Activity::next(before.as_ref(), power, self.clock.now());
        transaction.put_index(key, &next)
    }

    /// Tells and writes down that a machine does something else from now on. The
    /// note is for people to read: where it cannot be written, nothing else fails.
    pub(crate) async fn turned(&self, machine: &Machine, power: Power) {
        self.saw_power(machine, power);
        let noted = async {
            let mut transaction = self.records.begin().await;
            self.note(&mut transaction, machine.id, power).await?;
            transaction.commit().await
        };
        if let Err(error) = noted.await {
            tracing::warn!(machine = %machine.name, %error, "when its state changed is not noted");
        }
    }
}
