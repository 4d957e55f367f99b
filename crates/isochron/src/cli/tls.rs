//! `isochron tls ...`

use clap::Subcommand;
use isochron_api::dto::Certificate;

use super::Session;
use crate::exit::Failure;
use crate::output::{facts, time};

/// What can be asked of TLS.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Show the certificate of the HTTPS listeners, with its fingerprint
    ///
    /// Whoever connects from elsewhere compares the fingerprint with what their
    /// program shows, or gives it to it: `isochron --fingerprint`.
    #[command(after_help = "Example:\n  isochron tls show --json | jq -r .fingerprint")]
    Show,
}

impl Verb {
    /// Carries it out.
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        match self {
            Self::Show => session.print(&session.client.tls().await?, show),
        }
    }
}

fn show(certificate: &Certificate) -> String {
    facts(&[
        ("fingerprint", Some(certificate.fingerprint.clone())),
        ("subject", Some(certificate.subject.clone())),
        ("names", Some(certificate.names.join(", "))),
        ("expires", Some(time(certificate.expires))),
        ("file", Some(certificate.file.display().to_string())),
    ])
}
