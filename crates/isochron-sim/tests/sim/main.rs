//! The simulated world, tested as the engine uses it.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
mod engine;
mod faults;
mod machines;
mod records;
