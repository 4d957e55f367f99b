//! From what QEMU, its tools and the system say to the engine's
//! [`HypervisorError`]. The texts of QEMU are kept: they name the cause.

use std::io;
use std::path::Path;
use std::time::Duration;

use isochron_engine::ports::HypervisorError;
use qapi::ErrorClass;

/// Why a QMP command has no result.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum QmpError {
    /// QEMU refused it.
    #[error("QEMU refused {command}: {text}")]
    Refused {
        /// The command.
        command: &'static str,
        /// QEMU's class of the error.
        class: ErrorClass,
        /// QEMU's text.
        text: String,
    },
    /// No answer in time.
    #[error("QEMU did not answer {command} within {} ms", .after.as_millis())]
    Timeout {
        /// The command.
        command: &'static str,
        /// The limit.
        after: Duration,
    },
    /// QEMU closed the connection: it is gone.
    #[error("QEMU closed the connection")]
    Gone,
    /// The connection is of no use any more.
    #[error("the connection to QEMU broke: {0}")]
    Broken(String),
    /// The answer is not what it should be.
    #[error("QEMU's answer to {command} is not understood: {detail}")]
    Garbled {
        /// The command.
        command: &'static str,
        /// What is wrong with it.
        detail: String,
    },
}

impl QmpError {
    /// QEMU's own text if it refused, the whole sentence otherwise.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Refused { text, .. } => text.clone(),
            other => other.to_string(),
        }
    }
}

impl From<QmpError> for HypervisorError {
    fn from(error: QmpError) -> Self {
        match error {
            QmpError::Timeout { .. } => Self::Timeout(error.to_string()),
            QmpError::Gone => Self::Off,
            QmpError::Refused {
                class: ErrorClass::CommandNotFound,
                ..
            } => Self::NotSupported(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// An error of the system on a file.
pub(crate) fn file_error(doing: &str, path: &Path, error: &io::Error) -> HypervisorError {
    HypervisorError::Failed(format!("{doing} {}: {error}", path.display()))
}

/// A task on the blocking pool that ended without a result.
pub(crate) fn lost_task(error: &tokio::task::JoinError) -> HypervisorError {
    HypervisorError::Failed(format!("a task was lost: {error}"))
}
