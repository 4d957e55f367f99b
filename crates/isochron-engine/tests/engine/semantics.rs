//! Every answer of `docs/semantics.md` that the engine gives. A refusal changes
//! nothing: that is asserted with each.

pub mod host;
mod points;
mod returning;
mod single;
mod taking;
