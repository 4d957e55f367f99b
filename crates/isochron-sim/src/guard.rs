//! The guard: a process of its own, so its watch is part of the world and acts
//! by itself when its time comes, when the daemon dies, or when its handle is
//! dropped while it is armed.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use isochron_engine::Guard;
use isochron_engine::ports::HypervisorError;

use crate::daemon::At;
use crate::{Daemon, Point};

pub(crate) struct SimGuard {
    pub(crate) daemon: Daemon,
    pub(crate) id: u64,
}

fn at(point: Point) -> At<'static> {
    At {
        point,
        machine: None,
        file: None,
    }
}

#[async_trait]
impl Guard for SimGuard {
    async fn arm(&self, deadline: Duration) -> Result<(), HypervisorError> {
        self.daemon
            .call(at(Point::Arm), |state| state.arm(self.id, deadline))
            .await
    }

    async fn forfeits(&self, memory: &Path) -> Result<(), HypervisorError> {
        let at = At {
            file: Some(memory),
            ..at(Point::Forfeits)
        };
        self.daemon
            .call(at, |state| state.forfeits(self.id, memory))
            .await
    }

    async fn disarm(&self) -> Result<bool, HypervisorError> {
        self.daemon
            .call(at(Point::Disarm), |state| Ok(state.disarm(self.id)))
            .await
    }
}

impl Drop for SimGuard {
    fn drop(&mut self) {
        self.daemon.world().state().abandon(self.id);
    }
}
