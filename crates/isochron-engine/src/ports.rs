//! The engine's ports: [`Hypervisor`] (what runs machines and writes their layers),
//! [`Store`] (what remembers), [`Archive`] (where exports are written) and [`Clock`].

mod archive;
mod hypervisor;
mod store;

pub use archive::{
    Archive, ArchiveError, Content, Copied, Described, Export, Exported, Go, Instant, Order,
    OrderDisk, OrderMember,
};
pub use hypervisor::{
    Guard, Guarded, Hypervisor, HypervisorError, LayerFile, LiveDisk, LiveMachine, Overlay,
    SaveMode, Stamp, Start, Swap,
};
pub use store::{Batch, Check, Record, Revision, Store, StoreError, Write};

use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;

/// Time, as far as the engine needs it.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// Now, UTC.
    fn now(&self) -> OffsetDateTime;

    /// Waits.
    async fn sleep(&self, time: Duration);
}

/// The host's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }

    async fn sleep(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}
