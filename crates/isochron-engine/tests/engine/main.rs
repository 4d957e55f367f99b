//! The engine on the simulated world: what must hold whatever fails
//! (`faults`, and `histories` of several at once), and every answer of `docs/semantics.md` that the engine gives
//! (`semantics`), and what it tells those who watch (`events`).

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod events;
mod faults;
mod guests;
mod histories;
mod scene;
mod semantics;
mod verdict;
