//! The engine's ports in memory, for tests of what must hold: machines,
//! image files and a store that behave as the real ones do, on a clock of their
//! own, with faults at any call and a daemon that can die at any call.
//!
//! ```text
//!   World                what outlives the daemon: files, processes and their
//!     |                  guests, records, guards, the clock
//!     +-- Daemon         one life of the daemon: crash() ends it, and every later
//!           |            call of its ports fails while the processes live on
//!           +-- SimHypervisor, SimStore, SimArchive
//! ```
//!
//! Nothing is left to chance: on one thread, the same test makes the same calls
//! in the same order. Layers are modelled block by block, and a process holds its
//! chains itself, apart from what the files and the records say of them, so that
//! a disagreement shows ([`World::disagreements`]).
//!
//! ```
//! use isochron_engine::ports::{Hypervisor, LayerFile, LiveMachine, Start};
//! use isochron_engine::model::{ImageFormat, LayerId, MachineId};
//! use isochron_sim::World;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let world = World::new();
//! let definition = world.definition("web", &["disk0"]);
//! let disk = &definition.disks[0];
//! let layer = LayerFile { id: LayerId::new(), path: disk.path.clone(), format: disk.format };
//! let id = MachineId::new();
//! let start = Start {
//!     id,
//!     definition: &definition,
//!     chains: vec![vec![layer]],
//!     machine_type: None,
//!     memory: None,
//! };
//! let daemon = world.daemon();
//! daemon.hypervisor().start(start).await?.resume().await?;
//! world.guest_write(id, "disk0", 7, 42)?;
//! assert_eq!(world.read_view(&disk.path)?.get(&7), Some(&42));
//! # Ok(())
//! # }
//! ```

mod archive;
mod clock;
mod daemon;
mod fault;
mod files;
mod guard;
mod hypervisor;
mod machine;
mod process;
mod state;
mod store;
mod survey;
mod world;

pub use archive::{SimArchive, StoredDisk, StoredExport};
pub use clock::SimClock;
pub use daemon::Daemon;
pub use fault::{Call, Fault, Point, When};
pub use hypervisor::SimHypervisor;
pub use store::SimStore;
pub use survey::{MachineState, Survey};
pub use world::World;
