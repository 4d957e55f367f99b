//! Death at any moment: the daemon, a member's QEMU, who reads its disks or the space
//! on a disk is taken away in the middle of an operation, with real guests under load.
//!
//! What must hold, by means that the daemon has no part in (a second monitor, the
//! serial ports, `qemu-img`): no guest stands still for longer than the deadline,
//! and after a restart an operation happened as a whole or not at all.
//!
//! `ISOCHRON_KILL_POINTS=N` spreads N kills over each operation; by default so
//! few that the whole takes about five minutes on two processors.

#![allow(clippy::unwrap_used, clippy::expect_used)] // tests end at the first surprise

mod applied;
#[path = "../common/mod.rs"]
mod common;
mod created;
mod disk;
mod exported;
mod hold;
mod member;
mod remembered;
mod saved;
mod space;
mod stage;
mod watch;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Guests of one test at a time: more of them would measure only each other.
fn alone() -> MutexGuard<'static, ()> {
    static GUESTS: Mutex<()> = Mutex::new(());
    GUESTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many kills are spread over one operation.
fn points(default: u32) -> u32 {
    match std::env::var("ISOCHRON_KILL_POINTS") {
        Ok(number) => number.parse().expect("ISOCHRON_KILL_POINTS is a number"),
        Err(_) => default,
    }
}
