//! Where a test can act: every call of a port is a [`Point`], before and after
//! its effect. There a fault can be planned, or a hook can watch, write as a
//! guest, or end the daemon's life.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use isochron_engine::model::MachineId;
use isochron_engine::ports::{ArchiveError, HypervisorError, StoreError};

use crate::Daemon;

/// A call of a port, by the method's name.
#[allow(missing_docs)] // each is the method of that name
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Point {
    // Hypervisor
    Check,
    Live,
    Start,
    Kill,
    CreateOverlay,
    MergeOffline,
    Rebase,
    IsImage,
    FileSize,
    SavedState,
    DeleteFile,
    Guard,
    Allocated,
    VirtualSize,
    Identity,
    KeptMemory,
    // Guard
    Arm,
    Forfeits,
    Disarm,
    // LiveMachine
    Power,
    MachineType,
    Disks,
    AgentAnswers,
    OpenOverlays,
    CloseLayers,
    Flush,
    PrepareSave,
    Freeze,
    Thaw,
    Stop,
    Swap,
    Save,
    FinishSave,
    CancelSave,
    Resume,
    AskShutdown,
    Merge,
    BeginMergeActive,
    EndMergeActive,
    CancelMergeActive,
    // Store
    Get,
    List,
    Commit,
    // Archive
    Describe,
    OpenExport,
    /// One disk of an export is copied.
    CopyDisk,
    /// An export becomes whole.
    SealExport,
    ClearExport,
}

/// Before or after the call's effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum When {
    /// The effect has not happened.
    Before,
    /// It has, and the caller does not know it yet.
    After,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The call fails.
    Error,
    /// The call fails with a timeout.
    Timeout,
    /// The call does not return until [`World::release`](crate::World::release),
    /// or until the daemon dies.
    Hang,
}

/// A call, as a hook sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Which.
    pub point: Point,
    /// Before or after its effect.
    pub when: When,
    /// Of which machine, if of one.
    pub machine: Option<MachineId>,
    /// The file that it makes, changes or deletes, if it is one.
    pub file: Option<PathBuf>,
}

/// Why a call ended without the answer of what was called.
pub(crate) enum Interrupted {
    Failed(String),
    TimedOut(String),
}

impl From<Interrupted> for HypervisorError {
    fn from(interrupted: Interrupted) -> Self {
        match interrupted {
            Interrupted::Failed(sentence) => Self::Failed(sentence),
            Interrupted::TimedOut(sentence) => Self::Timeout(sentence),
        }
    }
}

impl From<Interrupted> for StoreError {
    fn from(interrupted: Interrupted) -> Self {
        let (Interrupted::Failed(sentence) | Interrupted::TimedOut(sentence)) = interrupted;
        Self::Failed(sentence)
    }
}

impl From<Interrupted> for ArchiveError {
    fn from(interrupted: Interrupted) -> Self {
        let (Interrupted::Failed(sentence) | Interrupted::TimedOut(sentence)) = interrupted;
        Self::Failed(sentence)
    }
}

type Action = Arc<Mutex<dyn FnMut(&Daemon, &Call) + Send>>;

/// Faults that wait for their call, hooks, and the calls made so far.
#[derive(Default)]
pub(crate) struct Plan {
    faults: Vec<(Point, Option<MachineId>, When, Fault)>,
    /// Without a point: at every call.
    hooks: Vec<(Option<Point>, When, Action)>,
    pub(crate) calls: Vec<Call>,
}

impl Plan {
    pub(crate) fn fail_next(
        &mut self,
        point: Point,
        machine: Option<MachineId>,
        when: When,
        fault: Fault,
    ) {
        self.faults.push((point, machine, when, fault));
    }

    /// Takes the first fault that is meant for this call.
    pub(crate) fn take(&mut self, call: &Call) -> Option<Fault> {
        let index = self.faults.iter().position(|(point, machine, when, _)| {
            *point == call.point
                && *when == call.when
                && machine.is_none_or(|machine| call.machine == Some(machine))
        })?;
        Some(self.faults.remove(index).3)
    }

    /// Nothing goes wrong any more.
    pub(crate) fn drop_all(&mut self) {
        self.faults.clear();
    }

    /// Calls that would hang will not.
    pub(crate) fn drop_hangs(&mut self) {
        self.faults.retain(|(.., fault)| *fault != Fault::Hang);
    }

    pub(crate) fn on(
        &mut self,
        point: Option<Point>,
        when: When,
        action: impl FnMut(&Daemon, &Call) + Send + 'static,
    ) {
        self.hooks.push((point, when, Arc::new(Mutex::new(action))));
    }

    pub(crate) fn actions(&self, call: &Call) -> Vec<Action> {
        let meant = |(point, when, _): &&(Option<Point>, When, Action)| {
            point.is_none_or(|point| point == call.point) && *when == call.when
        };
        self.hooks
            .iter()
            .filter(meant)
            .map(|(.., action)| Arc::clone(action))
            .collect()
    }
}
