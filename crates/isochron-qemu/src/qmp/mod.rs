//! A QMP connection of our own over the commands and types of the crate `qapi`.
//!
//! Why not that crate's client: a `cont` must go out at once behind a `stop` that
//! is still unanswered, descriptors travel with commands (`SCM_RIGHTS`), and the
//! guardian may speak on the same socket, so that answers to nobody's questions
//! and torn lines arrive here and must not end the connection.

mod connection;
mod replies;
mod schema;
mod wire;

pub(crate) use connection::{Connection, Loaded, send_with};
pub(crate) use replies::Status;
pub(crate) use replies::{BlockDevice, Capability, Image, Job, Migration, NamedNode, Parameters};
pub(crate) use schema::Features;
pub(crate) use wire::Lines;
#[cfg(fuzzing)]
pub(crate) use wire::{Message, parse};
