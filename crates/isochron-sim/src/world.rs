//! The world: what is there whether a daemon lives or not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use isochron_engine::model::{Definition, ImageFormat, MachineId, Power};
use isochron_engine::ports::{HypervisorError, LiveDisk};
use serde_json::json;
use tokio::sync::watch;

use crate::fault::Plan;
use crate::files::Image;
use crate::process::{Attachment, MACHINE_TYPE, Process};
use crate::state::State;
use crate::{Call, Daemon, Fault, Point, SimClock, When};

/// Size of every disk, in bytes.
const DISK_BYTES: u64 = 1 << 30;

/// A world. Cheap to clone; all clones are one world.
#[derive(Clone)]
pub struct World(Arc<Inner>);

struct Inner {
    clock: Arc<SimClock>,
    state: Mutex<State>,
    plan: Mutex<Plan>,
    /// Machines whose memory cannot be saved while they run.
    no_background: Mutex<BTreeSet<MachineId>>,
    /// How long a call takes.
    latency: Mutex<Option<Latency>>,
    /// Wakes calls that hang.
    released: watch::Sender<()>,
    lives: Mutex<u64>,
}

/// Says how long a call takes.
type Latency = Box<dyn FnMut(&Call) -> Duration + Send>;

/// A panic of one test's hook must not hide behind another's lock.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// An empty world on an automatic clock.
    pub fn new() -> Self {
        Self::with_clock(SimClock::auto())
    }

    /// An empty world on this clock.
    pub fn with_clock(clock: SimClock) -> Self {
        Self(Arc::new(Inner {
            clock: Arc::new(clock),
            state: Mutex::default(),
            plan: Mutex::default(),
            no_background: Mutex::default(),
            latency: Mutex::default(),
            released: watch::Sender::new(()),
            lives: Mutex::new(0),
        }))
    }

    /// The world's clock.
    pub fn clock(&self) -> Arc<SimClock> {
        Arc::clone(&self.0.clock)
    }

    /// A new life of the daemon.
    pub fn daemon(&self) -> Daemon {
        let mut lives = lock(&self.0.lives);
        *lives += 1;
        Daemon::new(self.clone(), *lives)
    }

    // ---- files and machines that their owner brings ----------------------------

    /// An empty image that its owner brought.
    ///
    /// # Errors
    /// `Failed` if a file of that name exists.
    pub fn add_image(&self, path: &Path, format: ImageFormat) -> Result<(), HypervisorError> {
        self.add(path, format, false)
    }

    /// A device of the host, which cannot be snapshotted.
    ///
    /// # Errors
    /// `Failed` if a file of that name exists.
    pub fn add_device(&self, path: &Path) -> Result<(), HypervisorError> {
        self.add(path, ImageFormat::Raw, true)
    }

    fn add(&self, path: &Path, format: ImageFormat, device: bool) -> Result<(), HypervisorError> {
        let image = Image {
            format,
            backing: None,
            blocks: BTreeMap::new(),
            virtual_size: DISK_BYTES,
            complete: true,
            device,
            inode: 0,
            changed: 0,
        };
        self.state().files.create(path, image)
    }

    /// The definition of a machine with an agent and these disks, each on a new
    /// qcow2 image `/images/MACHINE-DISK.qcow2`.
    ///
    /// # Panics
    /// If a machine of that name has such an image already.
    #[allow(clippy::expect_used)] // for tests, on names that they choose
    pub fn definition(&self, name: &str, disks: &[&str]) -> Definition {
        let disks: Vec<_> = disks
            .iter()
            .map(|disk| {
                let path = PathBuf::from(format!("/images/{name}-{disk}.qcow2"));
                self.add_image(&path, ImageFormat::Qcow2)
                    .expect("the image is new");
                json!({ "name": disk, "path": path })
            })
            .collect();
        let definition = json!({ "name": name, "guest_agent": true, "disks": disks });
        serde_json::from_value(definition).expect("the definition has all that it needs")
    }

    /// A running process of someone else's, to be attached by its socket, with
    /// these disks by name.
    ///
    /// # Errors
    /// `Failed` where a disk's file is no image.
    pub fn start_foreign(
        &self,
        socket: &Path,
        disks: &[(&str, &Path)],
    ) -> Result<(), HypervisorError> {
        let mut state = self.state();
        let attach = |(name, path): &(&str, &Path)| {
            Ok(Attachment {
                name: (*name).to_owned(),
                chain: state.files.chain(path)?,
                read_only: false,
                excluded: state.excluded(path, false)?,
            })
        };
        let disks = disks
            .iter()
            .map(attach)
            .collect::<Result<_, HypervisorError>>()?;
        state.add_process(Process {
            machine: None,
            socket: Some(socket.to_owned()),
            power: Power::Running,
            disks,
            memory: 0,
            agent: false,
            frozen: 0,
            background: true,
            opened: BTreeSet::new(),
            save: None,
            merges: BTreeMap::new(),
            unseen: BTreeSet::new(),
            machine_type: MACHINE_TYPE.to_owned(),
        });
        Ok(())
    }

    /// Whether the machine's memory can be saved while it runs (it can, if nothing
    /// is said), from its next start on and now.
    pub fn set_background_save(&self, machine: MachineId, possible: bool) {
        let mut without = lock(&self.0.no_background);
        match possible {
            true => without.remove(&machine),
            false => without.insert(machine),
        };
        if let Ok(guest) = self.state().guest(machine) {
            guest.background = possible;
        }
    }

    pub(crate) fn background_save(&self, machine: MachineId) -> bool {
        !lock(&self.0.no_background).contains(&machine)
    }

    /// The machine's process dies, as by a signal from someone else.
    pub fn kill_process(&self, machine: MachineId) {
        let mut state = self.state();
        if let Some(process) = state.process_of(machine) {
            state.processes.remove(&process);
        }
    }

    // ---- guests ------------------------------------------------------------------

    /// The guest writes a block, and its memory goes on by one.
    ///
    /// # Errors
    /// `Off` without a process; `Invalid` where the guest stands, its file systems
    /// are frozen, or the disk is not there or read-only.
    pub fn guest_write(
        &self,
        machine: MachineId,
        disk: &str,
        block: u64,
        value: u64,
    ) -> Result<(), HypervisorError> {
        let mut state = self.state();
        let state = &mut *state;
        let process = state.process_of(machine).ok_or(HypervisorError::Off)?;
        let process = state
            .processes
            .get_mut(&process)
            .ok_or(HypervisorError::Off)?;
        process.write(&mut state.files, disk, block, value)
    }

    /// What the guest reads from a disk: its written blocks.
    ///
    /// # Errors
    /// As [`guest_write`](Self::guest_write).
    pub fn guest_view(
        &self,
        machine: MachineId,
        disk: &str,
    ) -> Result<BTreeMap<u64, u64>, HypervisorError> {
        let mut state = self.state();
        let chain = state.guest(machine)?.disk(disk)?.chain.clone();
        state.files.view(&chain)
    }

    /// The guest's memory: how many writes it remembers.
    ///
    /// # Errors
    /// `Off` without a process.
    pub fn guest_memory(&self, machine: MachineId) -> Result<u64, HypervisorError> {
        Ok(self.state().guest(machine)?.memory)
    }

    // ---- what there is -------------------------------------------------------------

    /// Whether the machine runs, stands or is off.
    pub fn power(&self, machine: MachineId) -> Power {
        self.state()
            .guest(machine)
            .map_or(Power::Off, |guest| guest.power)
    }

    /// The machine's disks as its process has them.
    ///
    /// # Errors
    /// `Off` without a process.
    pub fn disks(&self, machine: MachineId) -> Result<Vec<LiveDisk>, HypervisorError> {
        let mut state = self.state();
        let guest = state.guest(machine)?.clone();
        guest.live_disks(&state.files)
    }

    /// The directories that were created below this one.
    pub fn directories(&self, below: &Path) -> Vec<PathBuf> {
        let state = self.state();
        let is_below = |path: &&PathBuf| path.starts_with(below) && *path != below;
        state.directories.iter().filter(is_below).cloned().collect()
    }

    /// What a layer reads as, with those beneath it as the files' headers say:
    /// its written blocks.
    ///
    /// # Errors
    /// `Failed` where a file of the chain is missing or incomplete.
    pub fn read_view(&self, path: &Path) -> Result<BTreeMap<u64, u64>, HypervisorError> {
        let state = self.state();
        state.files.view(&state.files.chain(path)?)
    }

    /// Makes a file what an interrupted creation leaves: there, but no complete
    /// image or memory.
    pub fn tear(&self, path: &Path) {
        self.state().files.tear(path);
    }

    /// Its owner copies a file of memory, over what is there.
    ///
    /// # Errors
    /// `Failed` where it holds no complete memory.
    pub fn copy_memory(&self, from: &Path, to: &Path) -> Result<(), HypervisorError> {
        let mut state = self.state();
        let files = &mut state.files;
        let memory = files.read_memory(from)?;
        files.delete(to);
        files.create_memory(to)?;
        files.write_memory(to, memory).map(drop)
    }

    /// Somebody changes a file behind everybody's back: its content is as before, and
    /// that nobody can know.
    ///
    /// # Errors
    /// `Failed` where it is no image.
    pub fn touch(&self, path: &Path) -> Result<(), HypervisorError> {
        self.state().files.image_mut(path).map(drop)
    }

    /// Makes a disk larger or smaller, as its owner can while its machine is off.
    ///
    /// # Errors
    /// `Failed` where it is no image.
    pub fn resize(&self, path: &Path, bytes: u64) -> Result<(), HypervisorError> {
        self.state().files.image_mut(path)?.virtual_size = bytes;
        Ok(())
    }

    // ---- faults ----------------------------------------------------------------------

    /// The next call of this kind, of this machine if one is named, goes wrong.
    /// Several plans for one call are met one after the other, in their order.
    pub fn fail_next(&self, point: Point, machine: Option<MachineId>, when: When, fault: Fault) {
        lock(&self.0.plan).fail_next(point, machine, when, fault);
    }

    /// Does this at every call of the kind. The world is not locked meanwhile.
    pub fn on(
        &self,
        point: Point,
        when: When,
        action: impl FnMut(&Daemon, &Call) + Send + 'static,
    ) {
        lock(&self.0.plan).on(Some(point), when, action);
    }

    /// Does this at every call, such as counting them and ending the daemon's
    /// life at one.
    pub fn on_every(&self, when: When, action: impl FnMut(&Daemon, &Call) + Send + 'static) {
        lock(&self.0.plan).on(None, when, action);
    }

    /// From now on a call takes as long as this says, so that calls under way at
    /// once have their effects in another order than they began.
    pub fn set_latency(&self, latency: impl FnMut(&Call) -> Duration + Send + 'static) {
        *lock(&self.0.latency) = Some(Box::new(latency));
    }

    pub(crate) fn latency(&self, call: &Call) -> Duration {
        let mut latency = lock(&self.0.latency);
        latency.as_mut().map_or(Duration::ZERO, |take| take(call))
    }

    /// Calls that hang, or were planned to, go on.
    pub fn release(&self) {
        lock(&self.0.plan).drop_hangs();
        self.0.released.send_replace(());
    }

    /// No call that was planned to go wrong will, and those that hang go on.
    pub fn forgive(&self) {
        lock(&self.0.plan).drop_all();
        self.0.released.send_replace(());
    }

    /// All calls made so far, in the order in which they began.
    pub fn calls(&self) -> Vec<Call> {
        lock(&self.0.plan).calls.clone()
    }

    // ---- inside --------------------------------------------------------------------

    /// The state as it is now: guards whose time came have acted.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        let mut state = lock(&self.0.state);
        state.settle(self.0.clock.stamp());
        state
    }

    pub(crate) fn plan(&self) -> MutexGuard<'_, Plan> {
        lock(&self.0.plan)
    }

    pub(crate) fn released(&self) -> watch::Receiver<()> {
        self.0.released.subscribe()
    }
}
