//! Exit codes, and the failures that carry them. Scripts rely on the numbers;
//! `isochron --help` lists them.

use std::fmt::Display;
use std::process::ExitCode;

use isochron_api::client::ClientError;
use isochron_api::dto::{self, ErrorKind};

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It was tried and failed.
    Failed = 1,
    /// The command line, a file given with it, or what was asked for makes no
    /// sense.
    Usage = 2,
    /// What was named does not exist.
    NotFound = 3,
    /// Not now: the state of things does not allow it, or the name is taken.
    Conflict = 4,
    /// No daemon answers.
    Unreachable = 5,
    /// Something did not answer in time.
    Timeout = 6,
    /// It cannot be done here.
    NotSupported = 7,
    /// The job was cancelled.
    Cancelled = 8,
    /// The caller may not.
    Denied = 9,
    /// Interrupted while waiting; what was waited for goes on.
    Interrupted = 130,
}

/// The list for `--help`.
pub const EXIT_CODES: &str = "\
Exit codes:
  0  done                      5  no daemon answers
  1  tried and failed          6  timeout
  2  usage, bad input          7  not supported
  3  not found                 8  the job was cancelled
  4  not now, or name taken  9  you may not
                           130  interrupted while waiting (the job goes on)";

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

impl From<ErrorKind> for Exit {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Exists | ErrorKind::InvalidState | ErrorKind::Busy => Self::Conflict,
            ErrorKind::InvalidParameter => Self::Usage,
            ErrorKind::NotSupported => Self::NotSupported,
            ErrorKind::Timeout => Self::Timeout,
            ErrorKind::Cancelled => Self::Cancelled,
            ErrorKind::Forbidden | ErrorKind::Unauthenticated => Self::Denied,
            ErrorKind::Failed => Self::Failed,
        }
    }
}

/// Why the program ends otherwise than well: a code and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The code.
    pub exit: Exit,
    /// The sentence, for stderr.
    pub message: String,
}

impl Failure {
    /// A failure.
    pub fn new(exit: Exit, message: impl Display) -> Self {
        Self {
            exit,
            message: message.to_string(),
        }
    }

    /// Bad input.
    pub fn usage(message: impl Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Tried and failed.
    pub fn failed(message: impl Display) -> Self {
        Self::new(Exit::Failed, message)
    }
}

impl From<dto::Error> for Failure {
    fn from(error: dto::Error) -> Self {
        let message = match error.kind {
            ErrorKind::Unauthenticated => format!(
                "{}; say who you are with --user NAME (`isochron user list` on its host \
                 tells who there is)",
                error.message
            ),
            _ => error.message,
        };
        Self::new(error.kind.into(), message)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(refusal) => refusal.into(),
            ClientError::Unreachable { .. } => Self::new(
                Exit::Unreachable,
                format!(
                    "{error}\n\
                     Start one with `isochron serve`, or say where it is with --server \
                     unix:PATH, --server https://HOST:PORT or ISOCHRON_SERVER."
                ),
            ),
            ClientError::Denied { .. } => Self::new(Exit::Denied, error),
            ClientError::Timeout { .. } => Self::new(Exit::Timeout, error),
            ClientError::BadAnswer { .. } => Self::failed(error),
        }
    }
}
