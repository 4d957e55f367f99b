//! A stage for dying on: a ring of three guests and a daemon that can be killed,
//! stopped and started again, with short deadlines.
//!
//! What holds: every process that begins here carries the directory in its
//! environment, and all of them are ended when the stage is dropped.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use isochron_api::client::{Client, ClientError, Server};
use isochron_api::dto::{
    Consistency, Definition, ErrorKind, Job, JobKind, JobState, NewCollection, NewMachine,
    NewSnapshot, Snapshot, SnapshotKind,
};
use isochron_lab::disk::Format;
use isochron_lab::kit::Kit;
use isochron_lab::oracle::{self, Image, Verdict};
use isochron_lab::ring::{Options, Ring};
use rustix::process::{Pid, Signal, kill_process};
use uuid::Uuid;

use crate::common::{LIMIT, Mount, one_instant};
use crate::disk::Probe;
use crate::watch::{Hook, Watch};

/// The window of the configuration below: no guest may stand longer.
pub const WINDOW: Duration = Duration::from_secs(3);

/// What a busy host may take to let a process do what is due.
const SCHEDULING: Duration = Duration::from_millis(1500);

const CONFIGURATION: &str = r#"state = "state"
run = "run"
[listen]
socket = "api.sock"
cimxml = "off"
cimxml_https = "off"
wsman = "off"
wsman_https = "off"
[deadlines]
freeze = "3s"
stop = "2s"
window = "3s"
"#;

/// Marks every process of a stage.
const MARK: &str = "ISOCHRON_KILL_STAGE";

/// The collection of all members.
pub const COLLECTION: &str = "ring";

/// What an operation may not leave behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    files: BTreeSet<PathBuf>,
    nodes: Vec<Vec<(String, String)>>,
}

impl Picture {
    /// How much there is, whatever its names.
    pub fn size(&self) -> (usize, Vec<usize>) {
        (self.files.len(), self.nodes.iter().map(Vec::len).collect())
    }
}

/// A ring, a daemon, and what watches them.
pub struct Stage {
    /// Before the directory, in which they are; the innermost first.
    _mounts: Vec<Mount>,
    probe: Probe,
    directory: tempfile::TempDir,
    daemon: Child,
    hook: Hook,
    /// The members' second monitors.
    pub watches: Vec<Watch>,
    /// The guests.
    pub ring: Ring,
    ids: Vec<Uuid>,
    /// Outermost, so that it goes last.
    _alone: std::sync::MutexGuard<'static, ()>,
}

impl Stage {
    /// A ring that goes round, on disks past the host's cache.
    pub fn open() -> Self {
        Self::open_with(|_| Vec::new(), Options::default())
    }

    /// The same with options; `prepare` is given the directory before anything
    /// is in it.
    pub fn open_with(prepare: impl FnOnce(&Path) -> Vec<Mount>, options: Options) -> Self {
        let alone = crate::alone();
        // Short, for unix sockets, and where a file system takes O_DIRECT.
        let directory = tempfile::Builder::new()
            .prefix("k")
            .rand_bytes(5)
            .tempdir_in("/var/tmp")
            .unwrap();
        let path = directory.path();
        std::fs::write(path.join("isochron.toml"), CONFIGURATION).unwrap();
        std::fs::create_dir(path.join("ring")).unwrap();
        let mounts = prepare(path);
        let ring = Ring::create(&Kit::load().unwrap(), &path.join("ring"), &options).unwrap();
        let mut stage = Self {
            daemon: serve(path),
            _mounts: mounts,
            probe: Probe::new(path),
            directory,
            hook: Hook::default(),
            watches: Vec::new(),
            ring,
            ids: Vec::new(),
            _alone: alone,
        };
        stage.listens();
        for member in &stage.ring.members {
            let text = std::fs::read_to_string(&member.file).unwrap();
            let definition: Definition = toml::from_str(&text).unwrap();
            let name = definition.name.clone();
            let defined = stage.call(async |client| {
                client
                    .create_machine(&NewMachine::Define(definition))
                    .await?;
                client.start_machine(&name).await
            });
            stage.ids.push(defined.unwrap().id);
        }
        let collection = NewCollection {
            name: COLLECTION.to_owned(),
            id: None,
            kind: Default::default(),
            members: stage.ids.iter().map(Uuid::to_string).collect(),
        };
        stage
            .call(async |client| client.create_collection(&collection).await)
            .unwrap();
        stage.watch();
        stage.ring.wait_alive(LIMIT).unwrap();
        stage
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The daemon's process.
    pub fn daemon(&self) -> u32 {
        self.daemon.id()
    }

    /// What the daemons said so far, and their guardians.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("serve.log")).unwrap_or_default()
    }

    /// Has something done when a member's QEMU next tells this event.
    pub fn on(&self, event: &'static str, action: impl FnOnce() + Send + 'static) {
        *self.hook.lock().unwrap() = Some((event, Box::new(action)));
    }

    /// Waits until the event came and is being acted on.
    pub fn happens(&self) {
        self.until("the event comes", || self.hook.lock().unwrap().is_none());
    }

    /// Opens the second monitor of a member anew, after its QEMU was.
    pub fn watch_again(&mut self, index: usize) {
        self.watches[index] = Watch::open(&self.observe(index), self.hook.clone());
    }

    /// Opens all second monitors anew.
    pub fn watch(&mut self) {
        self.watches.clear();
        for index in 0..self.ids.len() {
            let watch = Watch::open(&self.observe(index), self.hook.clone());
            self.watches.push(watch);
        }
    }

    /// The socket of a member's second monitor.
    fn observe(&self, index: usize) -> PathBuf {
        let run = self.path().join("run").join(self.ids[index].to_string());
        run.join("observe.sock")
    }

    fn listens(&self) {
        self.until("the daemon answers", || {
            self.call(async |client| client.machines().await).is_ok()
        });
    }

    /// Waits for something that must come.
    pub fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let began = Instant::now();
        while !holds() {
            assert!(began.elapsed() < LIMIT, "not so: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks the daemon.
    pub fn call<T>(
        &self,
        work: impl AsyncFnOnce(&Client) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        call(self.path(), work)
    }

    /// Asks the daemon from a thread of its own; it may die over it.
    pub fn begin<T: Send + 'static>(
        &self,
        work: impl AsyncFnOnce(&Client) -> Result<T, ClientError> + Send + 'static,
    ) -> JoinHandle<Result<T, ClientError>> {
        let path = self.path().to_owned();
        std::thread::spawn(move || call(&path, work))
    }

    /// Kills the daemon and collects it.
    pub fn kill_daemon(&mut self) {
        let _ = self.daemon.kill();
        self.daemon.wait().unwrap();
    }

    /// Starts a daemon after the last one's end; returns when it listens.
    pub fn start_daemon(&mut self) {
        self.daemon = serve(self.path());
        self.listens();
    }

    /// A job's end.
    pub fn ended(&self, job: Job) -> Job {
        let id = job.id.to_string();
        let began = Instant::now();
        let mut job = job;
        while !job.ended() {
            assert!(began.elapsed() < LIMIT, "{job:?}\n{}", self.log());
            job = self
                .call(async |client| client.job(&id, Duration::from_secs(10)).await)
                .unwrap();
        }
        job
    }

    /// Runs a job that must complete. On a busy host a deadline as short as ours
    /// may pass with nothing wrong: then it is tried again.
    pub fn complete(&self, work: impl AsyncFn(&Client) -> Result<Job, ClientError>) -> Job {
        for _ in 0..20 {
            let job = match self.call(&work) {
                Ok(job) => self.ended(job),
                Err(ClientError::Refused(error))
                    if matches!(error.kind, ErrorKind::Timeout | ErrorKind::InvalidState) =>
                {
                    eprintln!("again, since {}", error.message);
                    std::thread::sleep(Duration::from_secs(1));
                    continue;
                }
                Err(error) => panic!("{error}\n{}", self.log()),
            };
            match &job.error {
                Some(error) if error.kind == ErrorKind::Timeout => {
                    eprintln!("again, since {}", error.message);
                    // What is taken back holds the members for a moment.
                    std::thread::sleep(Duration::from_secs(2));
                }
                _ => {
                    assert_eq!(job.state, JobState::Completed, "{job:?}\n{}", self.log());
                    return job;
                }
            }
        }
        panic!("the deadline passes again and again\n{}", self.log());
    }

    /// Takes a snapshot that must succeed.
    pub fn snapshot(&self, kind: SnapshotKind) -> Snapshot {
        let job = self.complete(async |client| client.create_snapshot(&new(kind, None)).await);
        let id = job.snapshot_id.unwrap();
        self.find(id).unwrap()
    }

    /// The snapshot, if it is there.
    pub fn find(&self, id: Uuid) -> Option<Snapshot> {
        let found = self.call(async |client| client.snapshots(None).await);
        found.unwrap().into_iter().find(|found| found.id == id)
    }

    /// Destroys a snapshot. On a busy host its layers may not be merged when the
    /// job ends; the daemon tries again then.
    pub fn destroy(&self, id: Uuid) {
        let name = id.to_string();
        while self.find(id).is_some() {
            match self.call(async |client| client.destroy_snapshot(&name).await) {
                Ok(job) => {
                    let job = self.ended(job);
                    let late = |error: &isochron_api::dto::Error| error.kind == ErrorKind::Timeout;
                    assert!(
                        job.error.as_ref().is_none_or(late),
                        "{job:?}\n{}",
                        self.log()
                    );
                }
                Err(ClientError::Refused(error)) if error.kind == ErrorKind::Timeout => {}
                // Merges that were late hold a member for a moment.
                Err(ClientError::Refused(error)) if error.kind == ErrorKind::InvalidState => {
                    std::thread::sleep(Duration::from_millis(200));
                }
                Err(error) => panic!("{error}\n{}", self.log()),
            }
        }
    }

    /// The jobs that were to make, apply or destroy a snapshot.
    pub fn jobs(&self, kind: JobKind, snapshot: Uuid) -> Vec<Job> {
        let jobs = self.call(async |client| client.jobs().await).unwrap();
        let wanted = |job: &Job| job.kind == kind && job.snapshot_id == Some(snapshot);
        jobs.into_iter().filter(wanted).collect()
    }

    /// The jobs of a kind.
    pub fn jobs_of(&self, kind: JobKind) -> Vec<Job> {
        let jobs = self.call(async |client| client.jobs().await).unwrap();
        jobs.into_iter().filter(|job| job.kind == kind).collect()
    }

    /// The jobs of a kind that were not there before.
    pub fn jobs_since(&self, kind: JobKind, before: &[Job]) -> Vec<Job> {
        let mut jobs = self.jobs_of(kind);
        jobs.retain(|job| before.iter().all(|old| old.id != job.id));
        jobs
    }

    /// Images, memory, exports, and the block nodes of every member.
    pub fn picture(&mut self) -> Picture {
        let mut files = BTreeSet::new();
        let mut left = [
            "ring",
            "exports",
            "state/memory",
            "state/rescue",
            "state/saved",
        ]
        .map(|d| self.path().join(d))
        .to_vec();
        while let Some(directory) = left.pop() {
            let Ok(entries) = directory.read_dir() else {
                continue;
            };
            for entry in entries.flatten() {
                let path = entry.path();
                if path.is_dir() {
                    left.push(path.clone());
                }
                if path.extension().is_none_or(|e| e != "sock" && e != "log") {
                    files.insert(path);
                }
            }
        }
        let nodes = self.watches.iter_mut().map(Watch::nodes).collect();
        Picture { files, nodes }
    }

    /// Waits until nothing is there that was not there before, and nothing lacks.
    pub fn looks_like(&mut self, before: &Picture) {
        let began = Instant::now();
        loop {
            let now = self.picture();
            if now == *before {
                return;
            }
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "left behind: {:?}\nlost: {:?}\nnodes {:?}\nbefore {:?}\n{}",
                now.files.difference(&before.files),
                before.files.difference(&now.files),
                now.nodes,
                before.nodes,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Fails if one of these members does not run now, or stood for longer than
    /// the deadline since this was asked last. Whoever stands has until then. What
    /// the host's disk took to flush is not ours.
    pub fn nobody_stood_too_long(&mut self, members: &[usize]) {
        let mut slack = SCHEDULING + self.probe.longest();
        let began = Instant::now();
        for &index in members {
            loop {
                let runs = self.watches[index].runs(Duration::from_millis(500));
                if runs == Some(true) {
                    break;
                }
                slack += self.probe.longest();
                assert!(
                    began.elapsed() < WINDOW + slack,
                    "member {index} stands still: {runs:?}\n{}",
                    self.log()
                );
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        for &index in members {
            let stood = self.watches[index].longest_stand();
            assert!(
                stood < WINDOW + slack,
                "member {index} stood for {stood:?}\n{}",
                self.log()
            );
        }
    }

    /// Fails unless the ring goes round.
    pub fn goes_round(&self) {
        self.ring
            .wait_progress(2, LIMIT)
            .unwrap_or_else(|error| panic!("{error:#}\n{}", self.log()));
    }

    /// The length of each member's serial log.
    pub fn said(&self) -> Vec<usize> {
        let members = self.ring.members.iter();
        members.map(|m| serial(m).len()).collect()
    }

    /// Whether a member's counter went down since its serial log had that length:
    /// only a guest that was put back to an earlier time says so.
    pub fn went_back(&self, index: usize, since: usize) -> bool {
        let log = serial(&self.ring.members[index]);
        // From the line before, so that the first step counts.
        let start = log[..since].trim_end().rfind('\n').map_or(0, |at| at + 1);
        let shown = log[start..].lines().filter_map(|line| {
            let mut words = line.trim().strip_prefix("ring ")?.split(' ');
            words.nth(1)?.parse().ok()
        });
        let shown: Vec<u64> = shown.collect();
        shown.windows(2).any(|pair| pair[1] < pair[0])
    }

    /// What each member showed last to be on its disks.
    pub fn counters(&self) -> Vec<u64> {
        let count = |index| self.ring.counter_now(index).unwrap_or(0);
        (0..self.ids.len()).map(count).collect()
    }

    /// Fails unless a snapshot is whole: one instant by the oracle and by QEMU's
    /// stamps, every image sound, memory as long as is said.
    pub fn is_whole(&self, snapshot: &Snapshot) {
        assert_eq!(snapshot.members.len(), self.ids.len());
        one_instant(&self.ring.members, &serde_json::to_value(snapshot).unwrap());
        for member in &snapshot.members {
            assert_eq!(
                member.memory.is_some(),
                snapshot.kind == SnapshotKind::Standard
            );
            if let Some(memory) = &member.memory {
                assert_eq!(Some(memory.metadata().unwrap().len()), member.memory_bytes);
            }
        }
    }

    /// The stage's processes of a program.
    pub fn programs(&self, name: &str) -> Vec<u32> {
        let is_one = |process: &u32| {
            let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
            program.rsplit(|byte| *byte == b'/').next() == Some(name.as_bytes())
        };
        let mut all = processes(self.path());
        all.retain(is_one);
        all
    }

    /// QEMU's processes, per member.
    pub fn processes(&self) -> Vec<Vec<u32>> {
        let all = processes(self.path());
        let of = |id: &Uuid| {
            let is_its = |process: &u32| {
                let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
                line.split(|byte| *byte == 0)
                    .any(|word| word == id.to_string().as_bytes())
            };
            all.iter().copied().filter(is_its).collect()
        };
        self.ids.iter().map(of).collect()
    }

    /// The one QEMU of a member.
    pub fn process(&self, index: usize) -> u32 {
        let processes = &self.processes()[index];
        assert_eq!(processes.len(), 1, "{}", self.log());
        processes[0]
    }

    /// The images that the members write to.
    pub fn active(&self) -> Vec<Vec<Image>> {
        let image = |id: &Uuid| {
            let machine = self.call(async |client| client.machine(&id.to_string()).await);
            let disks = machine.unwrap().disks.into_iter();
            disks
                .map(|disk| {
                    let format = match disk.chain[0].format {
                        isochron_api::dto::ImageFormat::Raw => Format::Raw,
                        isochron_api::dto::ImageFormat::Qcow2 => Format::Qcow2,
                    };
                    Image::new(disk.active.unwrap(), format)
                })
                .collect()
        };
        self.ids.iter().map(image).collect()
    }

    /// The end: guests are ended, and what they saw complete is on their disks,
    /// every image is sound, and no process is left but the daemon. Clusters that
    /// nobody uses are no loss, and what a killed QEMU leaves behind.
    pub fn close(mut self, leaks_allowed: bool) {
        self.goes_round();
        self.watches.clear();
        for id in &self.ids {
            self.call(async |client| client.kill_machine(&id.to_string()).await)
                .unwrap();
        }
        let active = self.active();
        let said = self.counters();
        let verdict = oracle::judge(&active).unwrap();
        let Verdict::Consistent { counters } = &verdict else {
            panic!("{verdict}\n{}", self.log());
        };
        for (on_disks, said) in counters.iter().zip(&said) {
            let kept = on_disks.iter().all(|on_disk| on_disk >= said);
            assert!(kept, "a write is lost: {said:?} were said, {verdict}");
        }
        for file in self.picture().files {
            if file
                .extension()
                .is_some_and(|extension| extension == "qcow2")
            {
                sound(&file, leaks_allowed);
            }
        }
        signal(self.daemon.id(), Signal::TERM);
        assert!(self.daemon.wait().unwrap().success(), "{}", self.log());
        self.until("no process is left", || processes(self.path()).is_empty());
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.watches.clear();
        // The daemon first, so that it starts nothing more.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let began = Instant::now();
        loop {
            let left = processes(self.path());
            if left.is_empty() || began.elapsed() > Duration::from_secs(20) {
                break;
            }
            for process in left {
                signal(process, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A request for a snapshot.
pub fn new(kind: SnapshotKind, id: Option<Uuid>) -> NewSnapshot {
    NewSnapshot {
        collection: COLLECTION.to_owned(),
        name: None,
        kind,
        consistency: Some(Consistency::Crash),
        ignore_excluded_disks: false,
        id,
    }
}

/// Sends a signal to a process of the stage; one that has ended is no error.
pub fn signal(process: u32, signal: Signal) {
    if let Some(process) = Pid::from_raw(process.try_into().unwrap()) {
        let _ = kill_process(process, signal);
    }
}

fn serial(member: &isochron_lab::definition::Machine) -> String {
    let log = std::fs::read(&member.definition.serial_log).unwrap_or_default();
    // The firmware says things that are not text; one byte stays one character.
    log.iter()
        .map(|byte| {
            if byte.is_ascii() {
                char::from(*byte)
            } else {
                '?'
            }
        })
        .collect()
}

fn sound(image: &Path, leaks_allowed: bool) {
    let output = Command::new("qemu-img")
        .args(["check", "-q", "-f", "qcow2"])
        .arg(image)
        .output()
        .unwrap();
    // 3 is for clusters that are allocated and not used.
    let sound = output.status.success() || leaks_allowed && output.status.code() == Some(3);
    let said = String::from_utf8_lossy(&output.stderr);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        sound,
        "{}: {}: {printed}{said}",
        image.display(),
        output.status
    );
}

fn call<T>(
    path: &Path,
    work: impl AsyncFnOnce(&Client) -> Result<T, ClientError>,
) -> Result<T, ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let client = Client::new(Server::Unix(path.join("api.sock")));
    runtime.block_on(work(&client))
}

fn serve(path: &Path) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(path.join("serve.log"))
        .unwrap();
    Command::new(env!("CARGO_BIN_EXE_isochron"))
        .args(["--config", "isochron.toml", "serve"])
        .current_dir(path)
        .env_remove("ISOCHRON_LOG")
        .env(MARK, path)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// The processes that carry the stage's mark.
fn processes(path: &Path) -> Vec<u32> {
    let mark = format!("{MARK}={}", path.display());
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(id) = entry.file_name().to_string_lossy().parse() else {
            continue;
        };
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment
            .split(|byte| *byte == 0)
            .any(|word| word == mark.as_bytes())
        {
            found.push(id);
        }
    }
    found
}
