//! The port through which indications leave: the binary implements it by a
//! protocol, which is not known here.

use async_trait::async_trait;
use isochron_cim::Instance;
use isochron_net::outgoing::SendError;

/// Reaches listeners.
pub trait Listeners: Send + Sync + 'static {
    /// The listener at a destination's address (`CIM_ListenerDestination.Destination`);
    /// nothing is connected yet.
    ///
    /// # Errors
    /// A sentence that says why this is no address, or none that may be reached.
    fn at(&self, destination: &str) -> Result<Box<dyn Listener>, String>;
}

/// One listener, to which indications are sent one after the other.
#[async_trait]
pub trait Listener: Send + 'static {
    /// Sends an indication; returns when the listener has taken it. It must return,
    /// however slow the listener is.
    async fn export(&mut self, indication: &Instance) -> Result<(), SendError>;
}
