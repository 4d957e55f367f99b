//! Messages that this server sends of its own accord, whatever their protocol: where
//! they may go ([`Destination`]), how they get there ([`Sender`]), what waits for its turn
//! ([`Queue`]) and what is done about failures ([`Retrying`]).

mod destination;
mod queue;
mod retrying;
mod sender;

use std::time::Duration;

pub use destination::Destination;
pub use queue::{Queue, Queued};
pub use retrying::{Failure, Retries, Retrying};
pub use sender::Sender;

/// How destinations are reached.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Whether those on other hosts are reached.
    pub allow_remote: bool,
    /// How long a connection may take.
    pub connect: Duration,
    /// How long an answer may take.
    pub answer: Duration,
    /// The largest message that is sent, in bytes.
    pub message_max: usize,
}

impl Default for Outgoing {
    /// Loopback only, 5 s, 15 s, 4 MiB.
    fn default() -> Self {
        Self {
            allow_remote: false,
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(15),
            message_max: 4 << 20,
        }
    }
}

/// Why a destination has not taken a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Nobody answered, or not now: it may be sent again.
    #[error("{0}")]
    Unreachable(String),
    /// This message is not wanted, and will not be.
    #[error("{0}")]
    Refused(String),
}
