//! Listeners of indications, reached by CIM-XML.

use isochron_cim::Instance;
use isochron_cimom::{ExportError, Listener, Listeners};
use isochron_cimxml::{ListenerAddress, ListenerConfig};

/// Reaches listeners by CIM-XML.
pub struct CimXmlListeners(pub ListenerConfig);

struct CimXmlListener(isochron_cimxml::Listener);

impl Listeners for CimXmlListeners {
    fn at(&self, destination: &str) -> Result<Box<dyn Listener>, String> {
        let address = ListenerAddress::parse(destination, &self.0)?;
        let listener = isochron_cimxml::Listener::new(address, self.0.clone());
        Ok(Box::new(CimXmlListener(listener)))
    }
}

#[async_trait::async_trait]
impl Listener for CimXmlListener {
    async fn export(&mut self, indication: &Instance) -> Result<(), ExportError> {
        let sent = self.0.export(indication).await;
        sent.map_err(|error| match error {
            isochron_cimxml::ExportError::Unreachable(why) => ExportError::Unreachable(why),
            isochron_cimxml::ExportError::Refused(why) => ExportError::Refused(why),
        })
    }
}
