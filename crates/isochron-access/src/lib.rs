//! Who gets in, and the log of what they did.
//!
//! - [`Users`] are kept as records of the engine's store, with Argon2id hashes of
//!   their passwords. What changes them goes through [`Engine::perform`], as
//!   everything does that changes something.
//! - [`Logins`] is the [`Authenticator`] of every TCP listener: Basic credentials,
//!   client certificates, or nobody in particular where that is allowed. Guessing is
//!   slow, and guessers do not keep others out.
//! - [`AuditLog`] is a file of JSON lines; [`AuditedServer`] tells it what clients of a
//!   CIM server write.
//!
//! [`Engine::perform`]: isochron_engine::Engine::perform
//! [`Authenticator`]: isochron_net::Authenticator

mod audit;
mod logins;
mod password;
mod remembered;
mod server;
mod throttle;
mod users;

pub use audit::AuditLog;
pub use logins::{LoginConfig, Logins, caller};
pub use password::{PASSWORD_MAX, PASSWORD_MIN};
pub use server::AuditedServer;
pub use users::{User, Users};
