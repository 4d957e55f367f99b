//! Kerberos tickets: accepted by the keys of a keytab, and whose they are by the users of
//! the configuration.

use std::sync::Arc;

use isochron_access::Logins;
use isochron_cim::Principal;
use isochron_kerberos::Acceptor;
use isochron_net::{Denied, Peer, TicketAuthenticator};

use crate::config::Config;
use crate::exit::Failure;

/// Accepts tickets.
pub struct Tickets {
    acceptor: Arc<Acceptor>,
    logins: Arc<Logins>,
}

impl Tickets {
    /// Those of the keytab, if there is one.
    pub async fn open(config: &Config, logins: Arc<Logins>) -> Result<Option<Self>, Failure> {
        let Some(keytab) = config.kerberos.keytab.clone() else {
            return Ok(None);
        };
        let replays = config.state.join("kerberos.replays");
        let opening = tokio::task::spawn_blocking(move || Acceptor::open(&keytab, &replays));
        let opened = opening.await.map_err(Failure::failed)?;
        let acceptor = opened.map_err(|error| {
            Failure::failed(format!("kerberos.keytab: nobody can log in by it: {error}"))
        })?;
        Ok(Some(Self {
            acceptor: Arc::new(acceptor),
            logins,
        }))
    }
}

#[async_trait::async_trait]
impl TicketAuthenticator for Tickets {
    async fn ticket(&self, token: Vec<u8>, peer: &Peer) -> Result<(Principal, Vec<u8>), Denied> {
        let acceptor = self.acceptor.clone();
        let accepted = tokio::task::spawn_blocking(move || acceptor.accept(&token)).await;
        match accepted {
            Ok(Ok(accepted)) => {
                let principal = self.logins.by_principal(&accepted.principal, peer)?;
                Ok((principal, accepted.reply))
            }
            Ok(Err(error)) => Err(self.logins.refused_ticket(&error.to_string(), peer)),
            Err(_) => Err(Denied::Unknown),
        }
    }
}
