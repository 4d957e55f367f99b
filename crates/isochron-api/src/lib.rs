//! The JSON API over the engine: what the command line speaks, and a web page
//! later.
//!
//! - [`dto`]: what goes over the wire. These types are the stable form; the
//!   engine's own may change behind them.
//! - [`router`] and [`openapi`]: the resources and their description, built from
//!   one list, so that neither has a resource that the other lacks.
//! - [`listen`]: the unix socket and the TCP listeners, and who gets in there.
//! - [`client`]: the other side, for the command line.
//!
//! Things are named by identifier or by name, in paths as in bodies. What takes
//! long answers 202 with a job. A refusal is `{"kind": ..., "message": ...}`.

pub mod client;
pub mod dto;
mod error;
pub mod listen;
mod routes;

pub use error::ApiError;
pub use routes::{Limits, Served, openapi, openapi_text, router};
