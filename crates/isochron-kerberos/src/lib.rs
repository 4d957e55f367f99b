//! Accepts Kerberos tickets (RFC 4121, within SPNEGO or not) with the keys of a keytab,
//! by MIT's GSS-API library.
//!
//! The library is loaded when it is first needed, so that nothing of it has to be there
//! where nobody logs in by Kerberos, neither to build nor to run. What it says of a
//! ticket is all that is asked of it: whose it is. Messages are not encrypted with it.

mod gssapi;

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use gssapi::{Gssapi, LIBRARY};

/// Why tickets cannot be accepted, or one is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KerberosError {
    /// The library is not there, or another one than was meant.
    #[error("{LIBRARY}: {0}")]
    Library(String),
    /// The keytab cannot be used.
    #[error("the keytab cannot be used: {0}")]
    Keytab(String),
    /// The token is no ticket for us that holds.
    #[error("the ticket is refused: {0}")]
    Refused(String),
}

/// Accepts tickets for the services of a keytab.
pub struct Acceptor {
    library: Gssapi,
    /// What the library calls the keytab, and the file of tickets that were taken.
    keytab: CString,
    replays: CString,
}

/// A ticket that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Whose it is, with the realm: `ada@EXAMPLE.ORG`.
    pub principal: String,
    /// What goes back to the client, if something does.
    pub reply: Vec<u8>,
}

impl Acceptor {
    /// Loads the library and tries the keytab. What is taken is noted in the file
    /// `replays`, so that it is not taken twice.
    ///
    /// # Errors
    /// `Library`, `Keytab`.
    pub fn open(keytab: &Path, replays: &Path) -> Result<Self, KerberosError> {
        let name = |kind: &[u8], path: &Path| {
            CString::new([kind, path.as_os_str().as_bytes()].concat())
                .map_err(|error| KerberosError::Keytab(error.to_string()))
        };
        let acceptor = Self {
            keytab: name(b"FILE:", keytab)?,
            replays: name(b"file2:", replays)?,
            library: Gssapi::load().map_err(KerberosError::Library)?,
        };
        acceptor.credential()?;
        Ok(acceptor)
    }

    fn credential(&self) -> Result<gssapi::Credential<'_>, KerberosError> {
        self.library.credential(&self.keytab, &self.replays)
    }

    /// Accepts a token, the only one of its handshake. The keytab is read anew. Blocks:
    /// files are read and written.
    ///
    /// # Errors
    /// `Keytab`, `Refused`.
    pub fn accept(&self, token: &[u8]) -> Result<Accepted, KerberosError> {
        let credential = self.credential()?;
        self.library.accept(&credential, token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_keytab_there_is_no_acceptor() {
        let nowhere = Path::new("/nowhere/http.keytab");
        match Acceptor::open(nowhere, nowhere) {
            Err(KerberosError::Keytab(why)) => assert!(!why.is_empty()),
            // Machines without the library have nobody who logs in so.
            Err(KerberosError::Library(_)) => {}
            other => panic!("{:?}", other.map(|_| ())),
        }
    }
}
