//! The listeners: a unix socket, which trusts the processes that it belongs to, and
//! TCP, where every request is somebody's. TCP's connections are `isochron-net`'s.

mod http;
mod socket;

use std::time::Duration;

pub use http::{FACE, serve_http};
pub use socket::{Group, Socket};

/// For how long requests under way are waited for at the end. What changes
/// something goes on behind them to its end in any case.
const GRACE: Duration = Duration::from_secs(2);
