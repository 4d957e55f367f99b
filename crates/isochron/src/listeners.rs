//! Listeners of indications, reached by CIM-XML.

use isochron_cim::Instance;
use isochron_cimom::{Listener, Listeners};
use isochron_net::outgoing::{Outgoing, SendError};

/// Reaches listeners by CIM-XML.
pub struct CimXmlListeners(pub Outgoing);

struct CimXmlListener(isochron_cimxml::Listener);

impl Listeners for CimXmlListeners {
    fn at(&self, destination: &str) -> Result<Box<dyn Listener>, String> {
        let listener = isochron_cimxml::Listener::at(destination, self.0.clone())?;
        Ok(Box::new(CimXmlListener(listener)))
    }
}

#[async_trait::async_trait]
impl Listener for CimXmlListener {
    async fn export(&mut self, indication: &Instance) -> Result<(), SendError> {
        self.0.export(indication).await
    }
}
