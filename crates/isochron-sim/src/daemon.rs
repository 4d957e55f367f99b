//! One life of the daemon, and what every call of its ports goes through.

use std::path::Path;
use std::sync::Arc;

use isochron_engine::model::MachineId;
use tokio::sync::watch;

use crate::fault::Interrupted;
use crate::state::State;
use crate::world::lock;
use crate::{Call, Fault, Point, SimArchive, SimHypervisor, SimStore, When, World};

/// One life of the daemon. Cheap to clone; all clones are one life.
#[derive(Clone)]
pub struct Daemon(Arc<Life>);

struct Life {
    world: World,
    id: u64,
    dead: watch::Sender<bool>,
}

/// Which call it is.
pub(crate) struct At<'a> {
    pub(crate) point: Point,
    pub(crate) machine: Option<MachineId>,
    pub(crate) file: Option<&'a Path>,
}

impl Daemon {
    pub(crate) fn new(world: World, id: u64) -> Self {
        Self(Arc::new(Life {
            world,
            id,
            dead: watch::Sender::new(false),
        }))
    }

    /// The world that it lives in.
    pub fn world(&self) -> &World {
        &self.0.world
    }

    /// Its hypervisor.
    pub fn hypervisor(&self) -> Arc<SimHypervisor> {
        Arc::new(SimHypervisor::new(self.clone()))
    }

    /// Its store.
    pub fn store(&self) -> Arc<SimStore> {
        Arc::new(SimStore::new(self.clone()))
    }

    /// Its archive.
    pub fn archive(&self) -> Arc<SimArchive> {
        Arc::new(SimArchive::new(self.clone()))
    }

    /// Its life ends, as by SIGKILL: armed guards act at once, and no call of its
    /// ports has an effect any more; each fails. Processes, files and records stay.
    pub fn crash(&self) {
        if self.0.dead.send_replace(true) {
            return;
        }
        let mut state = self.0.world.state();
        let guards = state
            .guards
            .iter()
            .filter(|(_, watch)| watch.life == self.0.id);
        for guard in guards.map(|(id, _)| *id).collect::<Vec<_>>() {
            state.abandon(guard);
        }
    }

    /// Whether it has crashed.
    pub fn crashed(&self) -> bool {
        *self.0.dead.borrow()
    }

    pub(crate) fn id(&self) -> u64 {
        self.0.id
    }

    /// Carries out a call: time passes, others have their turn, hooks see it,
    /// faults meet it, and in between it has its effect.
    pub(crate) async fn call<T, E>(
        &self,
        at: At<'_>,
        effect: impl FnOnce(&mut State) -> Result<T, E> + Send,
    ) -> Result<T, E>
    where
        T: Send,
        E: From<Interrupted> + Send,
    {
        let world = self.world();
        let mut call = Call {
            point: at.point,
            when: When::Before,
            machine: at.machine,
            file: at.file.map(Path::to_owned),
        };
        self.alive()?;
        world.plan().calls.push(call.clone());
        let latency = world.latency(&call);
        match latency.is_zero() {
            true => tokio::task::yield_now().await,
            false => tokio::time::sleep(latency).await,
        }
        self.meet(&call).await?;
        world.clock().tick();
        let result = effect(&mut world.state())?;
        call.when = When::After;
        self.meet(&call).await?;
        Ok(result)
    }

    /// Hooks and faults of a call.
    async fn meet(&self, call: &Call) -> Result<(), Interrupted> {
        // a hook may plan faults, so the plan is not locked while it runs
        let actions = self.world().plan().actions(call);
        for action in actions {
            lock(&action)(self, call);
        }
        self.alive()?;
        let mut released = self.world().released();
        let fault = self.world().plan().take(call);
        let what = format!(
            "{:?} was made to fail {:?} its effect",
            call.point, call.when
        );
        match fault {
            None => {}
            Some(Fault::Error) => return Err(Interrupted::Failed(what)),
            Some(Fault::Timeout) => return Err(Interrupted::TimedOut(what)),
            Some(Fault::Hang) => {
                let mut dead = self.0.dead.subscribe();
                // neither sender can be gone while this runs
                tokio::select! {
                    biased; // the same run twice
                    _ = released.changed() => {}
                    _ = dead.wait_for(|dead| *dead) => {}
                }
            }
        }
        self.alive()
    }

    fn alive(&self) -> Result<(), Interrupted> {
        match self.crashed() {
            true => Err(Interrupted::Failed("the daemon is dead".to_owned())),
            false => Ok(()),
        }
    }
}
