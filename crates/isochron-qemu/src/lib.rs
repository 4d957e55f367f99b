//! The engine's [`Hypervisor`](isochron_engine::Hypervisor) over QMP, for QEMU
//! 7.2 and later, launched by us or attached to.
//!
//! - [`QemuHypervisor`] knows the machines' processes and keeps one QMP
//!   connection to each. A launched QEMU is nobody's child: it outlives us, and a
//!   new daemon finds it again by the files in the run directory.
//! - Images are written by `qemu-img` when no process has them, by the process
//!   when it does. Files are never renamed under a running QEMU.
//! - [`guardian`] is the process that resumes and thaws guests when we are gone.
//!
//! What a QEMU can do is asked of it (`query-qmp-schema`, trying a capability),
//! never taken from its version.

mod accel;
mod agent;
mod args;
mod config;
mod drain;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod guard;
pub mod guardian;
mod hypervisor;
mod image;
mod launch;
mod live;
mod nodes;
mod process;
mod qmp;
mod stream;

pub use config::QemuConfig;
pub use hypervisor::QemuHypervisor;
