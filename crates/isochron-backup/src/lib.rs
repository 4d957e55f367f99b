//! Exports of collections: directories that hold a collection at one instant, in full
//! or as what changed since another, that can be verified and restored without a
//! daemon, and by `qemu-img` alone.
//!
//! [`DirectoryArchive`] is the engine's port
//! [`Archive`](isochron_engine::ports::Archive). What is in a directory says
//! `docs/export.md`.
//!
//! What images hold is known from `qemu-nbd` and `qemu-img map` only; nothing here
//! understands the tables of an image that a guest or a stranger wrote. Images of exports
//! are written by ourselves.

mod archive;
mod chain;
mod control;
mod copy;
pub mod digest;
mod directory;
mod export;
pub mod leaves;
pub mod manifest;
mod map;
pub mod nbd;
mod plan;
mod qcow2;
mod restore;
mod server;
mod threads;
mod verify;

pub use archive::DirectoryArchive;
pub use restore::{DEFINITION, Restore, Restored, RestoredMember, restore};
pub use verify::{Damage, Verified, VerifiedExport, verify};
