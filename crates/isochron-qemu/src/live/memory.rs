//! Saving memory and devices to a file, and loading them (QEMU's migration).
//!
//! What was measured on QEMU 7.2 and 10.0 and holds this together:
//! - A *background* save of a machine that stands: 7.2 resumes the guest itself
//!   once devices are saved and writes are tracked; 10.0 leaves it standing. That
//!   the state "active" is reached says neither. Pages sent do: they are sent only
//!   after both. So we wait for RESUME, or for pages and then send `cont`.
//! - A background save that fails or is cancelled leaves the guest of a 7.2 hanging:
//!   it goes through a pipe that never fails, and is given up by finishing it
//!   ([`crate::drain`]).
//! - What a *plain* save leaves behind is in [`super::standing`].

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use isochron_engine::model::Power;
use isochron_engine::ports::{HypervisorError, SaveMode, Stamp};
use qapi::{Enum, qmp};
use tokio::time::{Instant, sleep, timeout};

use super::standing::Trace;
use super::{LiveQemu, locked};
use crate::drain::Drain;
use crate::error::{QmpError, file_error, lost_task};
use crate::qmp::{Capability, Connection, Migration, Parameters};

/// As fast as the disk takes it: QEMU's own limit is 128 MiB/s. Libvirt's
/// largest value, which every version takes.
const UNLIMITED: u64 = (i64::MAX as u64 >> 20) << 20;
/// How long a background save may take to let the guest run.
const ARMING: Duration = Duration::from_secs(10);
/// How long a save or load may stand without a byte moved.
const STALL: Duration = Duration::from_secs(30);
/// How long a load may take.
const LOAD: Duration = Duration::from_secs(600);
/// Between two looks at a save that holds a guest up.
const SHORT_LOOK: Duration = Duration::from_millis(1);
/// Between two looks at a save behind a guest that runs.
const LONG_LOOK: Duration = Duration::from_millis(20);
/// What makes a save one behind a running guest.
const BACKGROUND: qmp::MigrationCapability = qmp::MigrationCapability::background_snapshot;
/// The descriptor's name in QEMU.
const DESCRIPTOR: &str = "isochron-memory";

/// What was set for a save and what is known of the last.
#[derive(Default)]
pub(super) struct Saving {
    /// What has to be set back.
    before: Option<Before>,
    /// The set of descriptors that QEMU holds for us.
    descriptors: Option<i64>,
    /// What carries a background save.
    drain: Option<Drain>,
    /// The last plain save, while the machine has not run since.
    pub(super) last: Option<(File, Trace)>,
}

/// The machine's own settings.
struct Before {
    capabilities: Vec<qmp::MigrationCapabilityStatus>,
    max_bandwidth: Option<u64>,
}

enum Phase {
    None,
    Underway,
    Completed,
    Failed(String),
}

impl Migration {
    fn phase(&self) -> Phase {
        let reason = |or: &str| self.error.clone().unwrap_or_else(|| or.to_owned());
        match self.status.as_deref() {
            Some("completed") => Phase::Completed,
            Some("failed") => Phase::Failed(reason("QEMU gives no reason")),
            Some("cancelled") => Phase::Failed(reason("it was cancelled")),
            None | Some("none") => Phase::None,
            Some(_) => Phase::Underway,
        }
    }

    pub(super) fn transferred(&self) -> u64 {
        self.ram.as_ref().map_or(0, |ram| ram.transferred)
    }

    /// Memory is on its way: devices are saved and writes are tracked.
    fn sends_pages(&self) -> bool {
        self.ram
            .as_ref()
            .is_some_and(|ram| ram.normal + ram.duplicate > 0)
    }

    fn percent(&self) -> u8 {
        let Some(ram) = self.ram.as_ref().filter(|ram| ram.total > 0) else {
            return 0;
        };
        let done = ram.total.saturating_sub(ram.remaining);
        u8::try_from(u128::from(done) * 100 / u128::from(ram.total))
            .unwrap_or(100)
            .min(100)
    }
}

/// Tells a save that moves from one that hangs.
struct Stall {
    transferred: u64,
    since: Instant,
}

impl Stall {
    fn new() -> Self {
        Self {
            transferred: 0,
            since: Instant::now(),
        }
    }

    fn hangs(&mut self, migration: &Migration) -> bool {
        if migration.transferred() != self.transferred {
            *self = Self {
                transferred: migration.transferred(),
                since: Instant::now(),
            };
        }
        self.since.elapsed() > STALL
    }
}

impl LiveQemu {
    pub(super) async fn migration(&self) -> Result<Migration, QmpError> {
        self.qmp.ask(&qmp::query_migrate {}).await
    }

    pub(super) async fn prepare(&self, power: Power) -> Result<SaveMode, HypervisorError> {
        self.set_back().await?;
        let parameters: Parameters = self.qmp.ask(&qmp::query_migrate_parameters {}).await?;
        let capabilities: Vec<Capability> =
            self.qmp.ask(&qmp::query_migrate_capabilities {}).await?;
        let known = |c: &Capability| qmp::MigrationCapability::from_name(&c.capability);
        let set = |capability, state| qmp::MigrationCapabilityStatus { capability, state };
        // Saving goes to one file in one pass; whatever else was set up for
        // migration to another host is put off meanwhile.
        let capabilities: Vec<_> = capabilities
            .iter()
            .filter(|c| c.state)
            .filter_map(known)
            .collect();
        let off = capabilities.iter().map(|c| set(*c, false)).collect();
        locked(&self.saving).before = Some(Before {
            capabilities: capabilities.iter().map(|c| set(*c, true)).collect(),
            max_bandwidth: parameters.max_bandwidth,
        });
        self.set_capabilities(off).await?;
        self.set_bandwidth(UNLIMITED).await?;
        if power != Power::Running {
            return Ok(SaveMode::Plain("the machine is paused".to_owned()));
        }
        if self.qmp.run(&qmp::query_balloon {}).await.is_ok() {
            return Ok(SaveMode::Plain(
                "its memory balloon would lose pages during a background save".to_owned(),
            ));
        }
        let background = set(BACKGROUND, true);
        match self.set_capabilities(vec![background]).await {
            Ok(()) => (),
            Err(error @ QmpError::Refused { .. }) => return Ok(SaveMode::Plain(error.text())),
            Err(error) => return Err(error.into()),
        }
        let (drain, pipe) = Drain::start(&self.identity.config).await?;
        let fdname = DESCRIPTOR.to_owned();
        self.qmp.run_with(&qmp::getfd { fdname }, pipe).await?;
        locked(&self.saving).drain = Some(drain);
        Ok(SaveMode::Background)
    }

    async fn set_capabilities(
        &self,
        capabilities: Vec<qmp::MigrationCapabilityStatus>,
    ) -> Result<(), QmpError> {
        if capabilities.is_empty() {
            return Ok(());
        }
        self.qmp
            .run(&qmp::migrate_set_capabilities { capabilities })
            .await
            .map(drop)
    }

    async fn set_bandwidth(&self, limit: u64) -> Result<(), QmpError> {
        let parameters = serde_json::json!({ "max-bandwidth": limit });
        let parameters = serde_json::from_value(parameters).map_err(|error| QmpError::Garbled {
            command: "migrate-set-parameters",
            detail: error.to_string(),
        })?;
        self.qmp
            .run(&qmp::migrate_set_parameters(parameters))
            .await
            .map(drop)
    }

    /// Sets back what [`prepare`](Self::prepare) set, here or in a daemon before us.
    async fn set_back(&self) -> Result<(), HypervisorError> {
        let (before, descriptors, drain) = {
            let mut saving = locked(&self.saving);
            (
                saving.before.take(),
                saving.descriptors.take(),
                saving.drain.take(),
            )
        };
        // Errors mean that QEMU closed them itself.
        if let Some(fdset_id) = descriptors {
            let _ = self.qmp.run(&qmp::remove_fd { fd: None, fdset_id }).await;
        }
        if drain.is_some() {
            let fdname = DESCRIPTOR.to_owned();
            let _ = self.qmp.run(&qmp::closefd { fdname }).await;
        }
        let off = qmp::MigrationCapabilityStatus {
            capability: BACKGROUND,
            state: false,
        };
        self.set_capabilities(vec![off]).await?;
        let Some(before) = before else { return Ok(()) };
        self.set_capabilities(before.capabilities).await?;
        if let Some(limit) = before.max_bandwidth {
            self.set_bandwidth(limit).await?;
        }
        Ok(())
    }

    pub(super) async fn save_to(
        &self,
        path: &Path,
        mode: &SaveMode,
    ) -> Result<Option<Stamp>, HypervisorError> {
        match mode {
            SaveMode::Background => self.save_behind(create(path).await?).await.map(Some),
            SaveMode::Plain(_) if self.status().await?.status == "postmigrate" => {
                self.save_again(path).await.map(|()| None)
            }
            SaveMode::Plain(_) => {
                let file = create(path).await?;
                self.save_standing(path, file).await.map(|()| None)
            }
        }
    }

    async fn migrate_to(&self, uri: String) -> Result<(), QmpError> {
        let migrate = qmp::migrate {
            channels: None,
            detach: None,
            resume: None,
            uri: Some(uri),
        };
        self.qmp.run(&migrate).await.map(drop)
    }

    async fn save_behind(&self, file: File) -> Result<Stamp, HypervisorError> {
        let drain = locked(&self.saving).drain.take();
        let mut drain = drain.ok_or_else(|| {
            HypervisorError::Invalid("a background save was not prepared".to_owned())
        })?;
        let begun = drain.write_to(file).await;
        locked(&self.saving).drain = Some(drain);
        begun?;
        let resumed_before = self.qmp.pulse().borrow().resume;
        self.migrate_to(format!("fd:{DESCRIPTOR}")).await?;
        self.until_it_runs(resumed_before).await
    }

    async fn save_standing(&self, path: &Path, file: File) -> Result<(), HypervisorError> {
        let keep = |set| locked(&self.saving).descriptors = Some(set);
        let uri = hand_over(&self.qmp, file.into(), keep).await?;
        self.migrate_to(uri).await?;
        let saved = self.until_saved(SHORT_LOOK, &|_| ()).await;
        // Failed or not: QEMU may have given the images away.
        let active = self.activate().await;
        let saved = saved?;
        active?;
        self.remember(path, &saved).await
    }

    /// Waits until a background save lets the guest run, or lets it run.
    async fn until_it_runs(&self, resumed_before: Stamp) -> Result<Stamp, HypervisorError> {
        let mut pulse = self.qmp.pulse();
        let resumes = async {
            let resumed = pulse.wait_for(|pulse| pulse.resume != resumed_before);
            match resumed.await.ok().map(|pulse| pulse.resume) {
                Some(resumed) => Ok(resumed),
                // The connection ended; the questions say how.
                None => std::future::pending().await,
            }
        };
        let work = async {
            tokio::select! {
                biased;
                resumed = resumes => resumed,
                resumed = self.let_it_run() => resumed,
            }
        };
        timeout(ARMING, work).await.unwrap_or_else(|_| {
            Err(HypervisorError::Timeout(format!(
                "QEMU did not let the guest run within {} s of saving memory",
                ARMING.as_secs()
            )))
        })
    }

    /// Lets the guest run as soon as it may, if QEMU does not.
    async fn let_it_run(&self) -> Result<Stamp, HypervisorError> {
        loop {
            let migration = self.migration().await?;
            let sends = match migration.phase() {
                Phase::None => false,
                Phase::Failed(text) => {
                    return Err(HypervisorError::Failed(format!(
                        "saving memory failed: {text}"
                    )));
                }
                Phase::Completed => true,
                Phase::Underway => migration.sends_pages(),
            };
            // The second question gives QEMU a turn in which it carries out what it
            // had decided on by itself.
            if sends && !self.status().await?.running {
                return self.resume_and_wait().await;
            }
            sleep(SHORT_LOOK).await;
        }
    }

    async fn until_saved(
        &self,
        look: Duration,
        progress: &(dyn Fn(u8) + Send + Sync),
    ) -> Result<Migration, HypervisorError> {
        let mut stall = Stall::new();
        loop {
            let migration = self.migration().await?;
            match migration.phase() {
                Phase::Completed => return Ok(migration),
                Phase::None => {
                    return Err(HypervisorError::Failed(
                        "no memory is being saved".to_owned(),
                    ));
                }
                Phase::Failed(text) => {
                    return Err(HypervisorError::Failed(format!(
                        "saving memory failed: {text}"
                    )));
                }
                Phase::Underway if stall.hangs(&migration) => {
                    return Err(HypervisorError::Timeout(format!(
                        "saving memory did not move for {} s",
                        STALL.as_secs()
                    )));
                }
                Phase::Underway => progress(migration.percent().min(99)),
            }
            sleep(look).await;
        }
    }

    pub(super) async fn finish(
        &self,
        path: &Path,
        progress: &(dyn Fn(u8) + Send + Sync),
    ) -> Result<u64, HypervisorError> {
        // The lock is not held while the carrier is told.
        let drain = locked(&self.saving).drain.take();
        if let Some(mut drain) = drain {
            // If the carrier ended, QEMU has seen its end already.
            let _ = drain.flow().await;
            locked(&self.saving).drain = Some(drain);
        }
        let saved = self.until_saved(LONG_LOOK, progress).await;
        let drain = locked(&self.saving).drain.take();
        let written = match (&saved, drain) {
            (Ok(_), Some(drain)) => drain.end().await.map(drop),
            _ => Ok(()),
        };
        let set_back = self.set_back().await;
        saved?;
        written?;
        set_back?;
        let owned = path.to_owned();
        let length = tokio::task::spawn_blocking(move || {
            let file = File::open(&owned)?;
            file.sync_all()?;
            if let Some(parent) = owned.parent() {
                File::open(parent)?.sync_all()?;
            }
            Ok(file.metadata()?.len())
        });
        let length = length
            .await
            .map_err(|error| lost_task(&error))?
            .map_err(|error: io::Error| file_error("writing to stable storage:", path, &error))?;
        progress(100);
        Ok(length)
    }

    pub(super) async fn cancel(&self) -> Result<(), HypervisorError> {
        let drain = locked(&self.saving).drain.take();
        if let Some(mut drain) = drain {
            // If the carrier ended, QEMU has seen its end already.
            let _ = drain.discard().await;
            locked(&self.saving).drain = Some(drain);
        }
        if matches!(self.migration().await?.phase(), Phase::Underway) {
            let background = self.saves_in_background().await?;
            if !background {
                self.qmp.run(&qmp::migrate_cancel {}).await?;
            }
            // Ended is what was asked for, in whatever way.
            if let Err(error @ HypervisorError::Timeout(_)) =
                self.until_saved(SHORT_LOOK, &|_| ()).await
            {
                return Err(error);
            }
            if !background && !self.status().await?.running {
                self.activate().await?;
            }
        }
        self.set_back().await
    }

    async fn saves_in_background(&self) -> Result<bool, QmpError> {
        let capabilities: Vec<Capability> =
            self.qmp.ask(&qmp::query_migrate_capabilities {}).await?;
        Ok(capabilities
            .iter()
            .any(|c| c.state && c.capability == BACKGROUND.name()))
    }
}

/// Creates a file that was not there, for its owner alone.
pub(super) async fn create(path: &Path) -> Result<File, HypervisorError> {
    let owned = path.to_owned();
    let created = tokio::task::spawn_blocking(move || {
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(owned)
    });
    created
        .await
        .map_err(|error| lost_task(&error))?
        .map_err(|error| file_error("creating", path, &error))
}

/// Gives QEMU a file and returns the address that migration commands take.
async fn hand_over(
    qmp: &Connection,
    file: OwnedFd,
    keep: impl FnOnce(i64),
) -> Result<String, QmpError> {
    if qmp.features().file_transport {
        let add = qmp::add_fd {
            fdset_id: None,
            opaque: None,
        };
        let set = qmp.run_with(&add, file).await?;
        keep(set.fdset_id);
        return Ok(format!("file:/dev/fdset/{}", set.fdset_id));
    }
    let fdname = DESCRIPTOR.to_owned();
    qmp.run_with(&qmp::getfd { fdname }, file).await?;
    Ok(format!("fd:{DESCRIPTOR}"))
}

/// Loads saved memory into a QEMU that waits for it. Its processors stand.
pub(crate) async fn load(machine: &LiveQemu, path: &Path) -> Result<(), HypervisorError> {
    let file = tokio::fs::File::open(path).await;
    let file = file
        .map_err(|error| file_error("opening", path, &error))?
        .into_std()
        .await;
    let mut set = None;
    let uri = hand_over(&machine.qmp, file.into(), |id| set = Some(id)).await?;
    let survives = machine.qmp.features().survives_bad_memory;
    let incoming = qmp::migrate_incoming {
        channels: None,
        exit_on_error: survives.then_some(false),
        uri: Some(uri),
    };
    machine.qmp.run(&incoming).await?;
    let started = Instant::now();
    let mut heard = started;
    loop {
        let over = started.elapsed() > LOAD;
        let migration = match machine.migration().await {
            // QEMU reads 128 MiB of a file at a time without listening, however long the
            // disk takes for them.
            Err(QmpError::Timeout { .. }) if heard.elapsed() < STALL => continue,
            migration => migration?,
        };
        heard = Instant::now();
        match migration.phase() {
            Phase::Completed if machine.status().await?.status != "inmigrate" => break,
            Phase::Failed(text) => return Err(HypervisorError::Failed(text)),
            // A load tells nothing of its progress.
            _ if over => {
                return Err(HypervisorError::Timeout(
                    "loading memory does not end".to_owned(),
                ));
            }
            _ => sleep(SHORT_LOOK).await,
        }
    }
    if let Some(fdset_id) = set {
        // An error means that QEMU closed it itself.
        let _ = machine
            .qmp
            .run(&qmp::remove_fd { fd: None, fdset_id })
            .await;
    }
    machine.activate().await
}
