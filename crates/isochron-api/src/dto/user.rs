//! Users, and the certificate by which they know the daemon, on the wire.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;

use super::same_variants;

/// What a user may do. Each role may do what the ones before it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look.
    Reader,
    /// Work with what there is: snapshots, and the power of machines.
    Operator,
    /// Define what there is: machines, collections, users.
    Administrator,
}

/// Somebody who gets in on TCP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct User {
    /// The name.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// Since when they have their password.
    #[serde(with = "time::serde::rfc3339")]
    pub password_set: OffsetDateTime,
    /// Whether they may also log in by NTLM.
    pub ntlm: bool,
}

/// A user to be added.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// The name: letters, digits, and `. _ @ + -` behind the first; 64 at most.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// The password: 8 characters or more, 1,024 bytes or less.
    pub password: String,
    /// Whether they may also log in by NTLM, for which another hash is kept, which is
    /// easier to guess from.
    #[serde(default)]
    pub ntlm: bool,
}

/// A change of a user.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UserChange {
    /// A new password.
    #[serde(default)]
    pub password: Option<String>,
    /// Whether they may also log in by NTLM, with the new password.
    #[serde(default)]
    pub ntlm: bool,
    /// A new role.
    #[serde(default)]
    pub role: Option<Role>,
}

// Passwords are in no log.
impl fmt::Debug for NewUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewUser")
            .field("name", &self.name)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for UserChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserChange")
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// The certificate that listeners with TLS show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Certificate {
    /// Its SHA-256, as `AA:BB:...`: what a person compares.
    pub fingerprint: String,
    /// Whom it says that it is of.
    pub subject: String,
    /// The host names and addresses that it is good for.
    pub names: Vec<String>,
    /// Until when it is good.
    #[serde(with = "time::serde::rfc3339")]
    pub expires: OffsetDateTime,
    /// Its file.
    #[schema(value_type = String)]
    pub file: std::path::PathBuf,
}

same_variants!(
    Role = isochron_engine::Role {
        Reader,
        Operator,
        Administrator,
    }
);

impl From<isochron_access::User> for User {
    fn from(user: isochron_access::User) -> Self {
        Self {
            name: user.name,
            role: user.role.into(),
            password_set: user.password_set,
            ntlm: user.ntlm,
        }
    }
}

impl From<isochron_net::Certificate> for Certificate {
    fn from(certificate: isochron_net::Certificate) -> Self {
        Self {
            fingerprint: certificate.fingerprint,
            subject: certificate.subject,
            names: certificate.names,
            expires: certificate.expires,
            file: certificate.file,
        }
    }
}
