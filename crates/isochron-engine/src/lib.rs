//! The engine: machines, collections, snapshots of whole collections, the cut,
//! jobs and recovery.
//!
//! It knows three ports and nothing behind them: [`Hypervisor`] (with
//! [`LiveMachine`] and [`Guard`]), [`Store`] and [`Clock`]. No protocol enters
//! here, and no word of QEMU's.
//!
//! One way through it: [`Engine::create_snapshot`] checks everything that can be
//! checked (`cut::plan`), holds collection and members against other operations
//! (`gate`), starts a job (`jobs`) and returns. The job makes the cut
//! (`cut::run`): its journal is written first, one transaction makes the snapshot
//! real, and every failure is taken back by the journal (`recovery`), in the same
//! way as at the next start after our death. What a failed cut or a destroyed
//! snapshot leaves of layers is merged by `layers`.

mod access;
mod apply;
mod collections;
mod confine;
mod cut;
mod destroy;
mod engine;
mod error;
mod events;
mod export;
mod gate;
mod jobs;
mod journal;
mod layers;
mod machines;
pub mod model;
mod naming;
mod points;
pub mod ports;
mod records;
mod recovery;
mod relations;
mod save;
mod timeline;
mod tracking;
mod turning;
mod watch;

pub use access::{Act, Audit, Caller, Operation, Role};
pub use engine::{Config, CreateSnapshot, Deadlines, Engine, Started};
pub use error::{EngineError, ErrorKind};
pub use events::{Change, Event};
pub use export::{ExportBase, ExportDisks, ExportRequest, ExportStarted, Exports};
pub use machines::{DiskView, MachineView};
pub use points::{CreateReferencePoint, PointStarted};
pub use ports::{Archive, Clock, Guard, Hypervisor, LiveMachine, Store};
pub use timeline::TIMELINE;
pub use turning::PowerChange;
