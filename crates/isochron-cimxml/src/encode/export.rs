//! Export messages (DSP0201 §5.2.6, SIMPLEEXPREQ): an indication on its way to a
//! listener.

use isochron_cim::Instance;

use super::{attribute, instance};

/// The call of ExportIndication (DSP0200, "ExportIndication") with this message ID.
pub fn export_indication(id: &str, indication: &Instance) -> String {
    let mut out = String::with_capacity(4096);
    out.push_str("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n");
    out.push_str("<CIM CIMVERSION=\"2.0\" DTDVERSION=\"2.0\"><MESSAGE");
    attribute(&mut out, "ID", id);
    out.push_str(
        " PROTOCOLVERSION=\"1.0\"><SIMPLEEXPREQ><EXPMETHODCALL NAME=\"ExportIndication\">\
         <EXPPARAMVALUE NAME=\"NewIndication\">",
    );
    instance(&mut out, indication);
    out.push_str("</EXPPARAMVALUE></EXPMETHODCALL></SIMPLEEXPREQ></MESSAGE></CIM>\n");
    out
}
