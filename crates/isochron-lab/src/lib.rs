//! Real guests to judge a cut by.
//!
//! - [`kit`]: the kernel and the two guest images that `make guest` prepares;
//!   [`image`], [`modules`] and [`cpio`] build them.
//! - [`disk`]: image files for guests; [`definition`]: machine definitions.
//! - [`ring`]: a ring of guests that pass a counter and write it down, and a
//!   guest with the guest agent; [`guest`] runs them on QEMU directly, without
//!   the product; [`serial`] watches them from the host.
//! - [`oracle`]: whether what a ring's disks hold can be one instant;
//!   [`filesystem`]: what the disk of the guest with the agent holds.
//! - [`clients`]: CIM clients by other people, to drive the product with.
//!
//! Everything here is blocking: call it from a thread that may wait.

pub mod clients;
pub mod cpio;
pub mod definition;
pub mod disk;
pub mod filesystem;
pub mod guest;
pub mod image;
pub mod kit;
pub mod modules;
pub mod oracle;
pub mod ring;
pub mod serial;
