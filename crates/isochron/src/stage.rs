//! A stage for guests: a temporary directory, a daemon of its own in it (this
//! executable), and rings of guests that it runs. Demo and benchmarks play on it.
//!
//! What holds: when a stage is dropped, by whatever way, no process that began on
//! it is left and its directory is gone. Guests outlive a daemon by design, so
//! they are not found as its children: every process on a stage carries the
//! stage's directory in its environment (`ISOCHRON_STAGE`), and those are ended,
//! each by a handle on that very process. Only [`Stage::keep`] leaves it standing.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use isochron_api::client::{Client, Server};
use isochron_api::dto::{
    Definition, Job, JobState, NewMachine, NewSnapshot, Snapshot, SnapshotKind,
};
use isochron_lab::kit::Kit;
use isochron_lab::ring::{Options, Ring};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;

use crate::exit::{Exit, Failure};

/// How long a daemon may take until it listens.
const LISTEN_LIMIT: Duration = Duration::from_secs(30);

/// How long guests may take to boot and to pass the counter round; under
/// emulation on a busy host, several of them at once take tens of seconds.
pub const ALIVE_LIMIT: Duration = Duration::from_secs(180);

/// How long a job may take.
const JOB_LIMIT: Duration = Duration::from_secs(300);

/// How long processes may take to end.
const END_LIMIT: Duration = Duration::from_secs(20);

/// The environment variable that marks every process of a stage.
const MARK: &str = "ISOCHRON_STAGE";

/// The daemon's configuration; its paths are meant from the stage's directory.
const CONFIGURATION: &str = r#"state = "state"
run = "run"

[listen]
socket = "api.sock"
cimxml = "127.0.0.1:0"
cimxml_https = "off"
wsman = "127.0.0.1:0"
wsman_https = "off"
anonymous = "administrator"
"#;

/// A temporary directory, a daemon in it, and the machines that it runs.
pub struct Stage {
    /// A client of the daemon's JSON API.
    pub client: Client,
    /// Where the daemon speaks CIM-XML: `http://ADDRESS:PORT`.
    pub cimxml: String,
    /// Where it speaks WS-Management: `http://ADDRESS:PORT/wsman`.
    pub wsman: String,
    daemon: Child,
    /// Taken out when the stage is kept.
    directory: Option<TempDir>,
    path: PathBuf,
}

impl Stage {
    /// Makes the directory, in `parent` or where temporary files belong, and
    /// starts the daemon. Returns when it listens.
    pub async fn open(parent: Option<&Path>) -> Result<Self> {
        Self::open_with(parent, "", &[]).await
    }

    /// The same with more of configuration and of arguments of the daemon.
    pub async fn open_with(
        parent: Option<&Path>,
        configuration: &str,
        arguments: &[OsString],
    ) -> Result<Self> {
        let parent = match parent {
            Some(parent) => parent.to_owned(),
            None => scratch(),
        };
        // Short: below it are unix sockets, whose paths are limited to 107 bytes.
        let directory = tempfile::Builder::new()
            .prefix("iso")
            .rand_bytes(5)
            .tempdir_in(&parent)
            .with_context(|| format!("no directory can be made in {}", parent.display()))?;
        let path = directory.path().canonicalize()?;
        let socket = path.join("api.sock");
        let configuration = [CONFIGURATION, configuration].concat();
        std::fs::write(path.join("isochron.toml"), configuration)?;
        let daemon = start_daemon(&path, arguments)?;
        // From here on the directory and the daemon are the stage's to clear away.
        let mut stage = Self {
            client: Client::new(Server::Unix(socket)),
            cimxml: String::new(),
            wsman: String::new(),
            daemon,
            directory: Some(directory),
            path,
        };
        [stage.cimxml, stage.wsman] = stage.listening().await?;
        Ok(stage)
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The environment variable by which a process that begins here is the stage's to
    /// end, and those that it starts.
    pub fn mark(&self) -> (&'static str, &Path) {
        (MARK, &self.path)
    }

    /// The process of the daemon.
    pub fn daemon_id(&self) -> Option<u32> {
        self.daemon.id()
    }

    /// How many processes there are on the stage: the daemon, guests, guardians.
    pub fn processes(&self) -> usize {
        processes(&self.path).len()
    }

    /// The daemon's log.
    pub fn log(&self) -> PathBuf {
        log(&self.path)
    }

    /// Waits until the daemon listens; returns where it speaks CIM-XML and WS-Management.
    /// It says so on standard error, and the JSON API's listener last.
    async fn listening(&mut self) -> Result<[String; 2]> {
        let began = Instant::now();
        loop {
            let said = std::fs::read_to_string(self.log()).unwrap_or_default();
            if said.contains("listening for the JSON API on unix:") {
                let at = |face: &str| {
                    let beginning = format!("listening for {face} on ");
                    let mut lines = said.lines();
                    let at = lines.find_map(|line| line.strip_prefix(&beginning));
                    at.map(str::to_owned)
                        .with_context(|| format!("the daemon does not say where it has {face}"))
                };
                return Ok([at("CIM-XML")?, at("WS-Management")?]);
            }
            if let Some(status) = self.daemon.try_wait()? {
                bail!("the daemon ended at once ({status}): {}", said.trim());
            }
            if began.elapsed() > LISTEN_LIMIT {
                bail!("the daemon does not listen: {}", said.trim());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Builds a ring of guests, `NAME-0`, `NAME-1`, ..., starts them all and waits
    /// until the counter goes round.
    pub async fn ring(&self, kit: &Kit, name: &str, count: usize) -> Result<Ring> {
        let options = Options {
            name: name.to_owned(),
            count,
            ..Options::default()
        };
        self.ring_of(kit, options).await
    }

    /// The same with these options.
    pub async fn ring_of(&self, kit: &Kit, options: Options) -> Result<Ring> {
        let directory = self.path.join(&options.name);
        std::fs::create_dir(&directory)?;
        let ring = Ring::create(kit, &directory, &options)?;
        let mut starting = JoinSet::new();
        for member in &ring.members {
            let text = std::fs::read_to_string(&member.file)?;
            let definition: Definition = toml::from_str(&text)
                .with_context(|| format!("the definition {}", member.file.display()))?;
            let client = self.client.clone();
            starting.spawn(async move {
                let name = definition.name.clone();
                client
                    .create_machine(&NewMachine::Define(definition))
                    .await?;
                client.start_machine(&name).await
            });
        }
        while let Some(started) = starting.join_next().await {
            started?.context("a guest does not start")?;
        }
        progress(&ring, 2).await?;
        Ok(ring)
    }

    /// Waits for a job that must complete.
    pub async fn completed(&self, job: Job) -> Result<Job> {
        let (began, id) = (Instant::now(), job.id.to_string());
        let mut job = job;
        while !job.ended() {
            if began.elapsed() > JOB_LIMIT {
                bail!(
                    "the job {id} has not ended after {} s: {}",
                    JOB_LIMIT.as_secs(),
                    job.step
                );
            }
            job = self.client.job(&id, Duration::from_secs(30)).await?;
        }
        match (job.state, &job.error) {
            (JobState::Completed, _) => Ok(job),
            (_, Some(error)) => bail!("{}", error.message),
            (state, None) => bail!("the job {id} ended as {state:?}"),
        }
    }

    /// Takes a snapshot of a collection, which must succeed.
    pub async fn take_snapshot(&self, collection: &str, kind: SnapshotKind) -> Result<Snapshot> {
        let new = NewSnapshot {
            collection: collection.to_owned(),
            name: None,
            kind,
            consistency: None,
            ignore_excluded_disks: false,
            id: None,
        };
        let job = self.client.create_snapshot(&new).await?;
        let job = self.completed(job).await.context("taking a snapshot")?;
        let id = job.snapshot_id.context("the job names no snapshot")?;
        self.snapshot(&id.to_string()).await
    }

    /// Destroys a snapshot, which must succeed.
    pub async fn destroy_snapshot(&self, snapshot: &Snapshot) -> Result<()> {
        let id = snapshot.id.to_string();
        let job = self.client.destroy_snapshot(&id).await?;
        self.completed(job).await.context("destroying a snapshot")?;
        Ok(())
    }

    /// The snapshot of that name or identifier.
    pub async fn snapshot(&self, name: &str) -> Result<Snapshot> {
        self.client
            .snapshot(name)
            .await
            .with_context(|| format!("the snapshot {name}"))
    }

    /// Ends the machines, then the daemon, as their owner would, and removes the
    /// directory.
    ///
    /// # Errors
    /// When a process is still there afterwards; it has been killed then.
    pub async fn close(mut self) -> Result<()> {
        for machine in self.client.machines().await? {
            self.client.kill_machine(&machine.name).await?;
        }
        if let Some(daemon) = self
            .daemon
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()))
        {
            rustix::process::kill_process(daemon, Signal::TERM)?;
        }
        let ended = tokio::time::timeout(END_LIMIT, self.daemon.wait()).await;
        let status = ended.context("the daemon does not end when it is told to")??;
        if !status.success() {
            bail!(
                "the daemon ended with {status}, see {}",
                self.log().display()
            );
        }
        // A guardian may need a moment to see that it is not needed any more.
        let began = Instant::now();
        let mut left = processes(&self.path);
        while !left.is_empty() && began.elapsed() < END_LIMIT {
            tokio::time::sleep(Duration::from_millis(20)).await;
            left = processes(&self.path);
        }
        if !left.is_empty() {
            bail!("processes were left over and had to be killed: {left:?}");
        }
        Ok(())
    }

    /// Leaves everything running and in place.
    pub fn keep(mut self) {
        if let Some(directory) = self.directory.take() {
            let _ = directory.keep();
        }
    }
}

impl Drop for Stage {
    /// Clears the stage at once, whatever state it is in. Blocks, which is right
    /// here: there is nothing left to do besides.
    fn drop(&mut self) {
        if self.directory.is_none() {
            return;
        }
        // The daemon first, so that it starts nothing more.
        let _ = self.daemon.start_kill();
        let began = Instant::now();
        while began.elapsed() < END_LIMIT {
            // Reaps it.
            let ended = !matches!(self.daemon.try_wait(), Ok(None));
            let left = processes(&self.path);
            if ended && left.is_empty() {
                break;
            }
            left.into_iter()
                .for_each(|process| kill(process, &self.path));
            std::thread::sleep(Duration::from_millis(20));
        }
        // The field's own drop removes the directory.
    }
}

/// Carries out work on a stage until its end or until this process is told to
/// end (then the work is dropped, and its stage with it).
pub fn perform<T>(work: impl Future<Output = Result<T>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::failed(format!("no runtime: {error}")))?;
    let outcome = runtime.block_on(async {
        let interrupted = interruption().map_err(Failure::failed)?;
        tokio::select! {
            outcome = work => outcome.map_err(|error| Failure::failed(format!("{error:#}"))),
            () = interrupted => Err(Failure::new(
                Exit::Interrupted,
                "interrupted; guests and daemon are ended, the directory is removed",
            )),
        }
    });
    // What waits for guests on a thread is not waited for.
    runtime.shutdown_background();
    outcome
}

/// Ready when this process is told to end.
fn interruption() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    })
}

/// Runs what blocks (reading images, watching guests) on a thread that may.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}

/// Waits until every member's counter, seen on its serial port, has gone up by
/// `by`.
pub async fn progress(ring: &Ring, by: u64) -> Result<()> {
    let logs: Vec<PathBuf> = ring
        .members
        .iter()
        .map(|member| member.definition.serial_log.clone())
        .collect();
    blocking(move || isochron_lab::serial::wait_progress(&logs, by, ALIVE_LIMIT)).await
}

/// Where a stage stands by default. Guests' disks are opened past the host's
/// cache, which not every file system in memory allows: /var/tmp is on a disk.
fn scratch() -> PathBuf {
    match std::env::var_os("TMPDIR") {
        Some(directory) if !directory.is_empty() => directory.into(),
        _ if Path::new("/var/tmp").is_dir() => "/var/tmp".into(),
        _ => std::env::temp_dir(),
    }
}

fn log(stage: &Path) -> PathBuf {
    stage.join("serve.log")
}

/// Starts the daemon in a process group of its own, so that an interrupt from the
/// terminal reaches only this process, which then ends it in order.
fn start_daemon(stage: &Path, arguments: &[OsString]) -> Result<Child> {
    let output = File::create(log(stage))?;
    Command::new(std::env::current_exe()?)
        .arg("--config")
        .arg(stage.join("isochron.toml"))
        .arg("serve")
        .args(arguments)
        .env(MARK, stage)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .spawn()
        .context("the daemon cannot be started")
}

/// The processes that carry the stage's mark, but for those that have ended and
/// only wait to be reaped.
fn processes(stage: &Path) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .filter(|process| is_on(*process, stage))
        .collect()
}

/// Whether a process carries the stage's mark. One that has ended has no
/// environment any more.
fn is_on(process: Pid, stage: &Path) -> bool {
    let environment = std::fs::read(format!("/proc/{}/environ", process.as_raw_nonzero()));
    environment.is_ok_and(|environment| {
        environment.split(|byte| *byte == 0).any(|variable| {
            let value = variable.strip_prefix(MARK.as_bytes());
            let value = value.and_then(|value| value.strip_prefix(b"="));
            value == Some(stage.as_os_str().as_bytes())
        })
    })
}

/// Kills a process of the stage, and no other that was given its number since.
fn kill(process: Pid, stage: &Path) {
    if let Ok(handle) = pidfd_open(process, PidfdFlags::empty())
        && is_on(process, stage)
    {
        // Fails only if it has just ended.
        let _ = pidfd_send_signal(handle, Signal::KILL);
    }
}
