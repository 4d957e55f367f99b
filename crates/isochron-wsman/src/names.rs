//! The names of WS-Management: XML namespaces, actions, dialects.

#![allow(
    missing_docs,
    reason = "each is the specification's name for its value"
)]

pub const SOAP: &str = "http://www.w3.org/2003/05/soap-envelope";
pub const ADDRESSING: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing";
pub const TRANSFER: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer";
pub const ENUMERATION: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration";
pub const EVENTING: &str = "http://schemas.xmlsoap.org/ws/2004/08/eventing";
pub const WSMAN: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd";
/// Microsoft's additions to WS-Management (MS-WSMV §2.2.1).
pub const WSMV: &str = "http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd";
/// Security tokens (WS-Trust, February 2005).
pub const TRUST: &str = "http://schemas.xmlsoap.org/ws/2005/02/trust";
/// What such a token says (WS-Security 1.0).
pub const SECURITY: &str =
    "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-secext-1.0.xsd";
/// The CIM binding (DSP0227).
pub const BINDING: &str = "http://schemas.dmtf.org/wbem/wsman/1/cimbinding.xsd";
/// What all classes share (DSP0230).
pub const COMMON: &str = "http://schemas.dmtf.org/wbem/wscim/1/common";
pub const XSI: &str = "http://www.w3.org/2001/XMLSchema-instance";
pub const XML: &str = "http://www.w3.org/XML/1998/namespace";
/// Identify (DSP0226 §11), as the specification has it.
pub const IDENTIFY: &str = "http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd";
/// Identify as clients of other makers ask for it.
pub const IDENTIFY_OTHER: &str = "http://schemas.dmtf.org/wbem/wsman/identify/1/wsmanidentity.xsd";
/// Microsoft's detail of faults (MS-WSMV §2.2.4.43).
pub const FAULT: &str = "http://schemas.microsoft.com/wbem/wsman/1/wsmanfault";

/// The address of who asked (WS-Addressing 2004/08 §3).
pub const ANONYMOUS: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous";

/// What the class's name follows in the DMTF's resource URIs (DSP0227 §6.1).
pub const CIM_SCHEMA: &str = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2";
/// All classes of a namespace (DSP0227 §6.2).
pub const ALL_CLASSES: &str = "http://schemas.dmtf.org/wbem/wscim/1/*";
/// What namespace and class follow in Microsoft's resource URIs (MS-WSMV §3.1.4.1.1).
pub const WMI: &str = "http://schemas.microsoft.com/wbem/wsman/1/wmi";
/// Class declarations as CIM-XML has them (MS-WSMV §3.1.4.1.38).
pub const CIM_XML: &str = "http://schemas.dmtf.org/wbem/cim-xml/2/cim-schema/2";

/// Filter dialects.
pub mod dialect {
    /// MS-WSMV §3.1.4.1.13.
    pub const WQL: &str = "http://schemas.microsoft.com/wbem/wsman/1/WQL";
    /// DSP0227 §8.1.
    pub const CQL: &str = "http://schemas.dmtf.org/wbem/cql/1/dsp0202.pdf";
    /// DSP0226 annex E.
    pub const SELECTORS: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/SelectorFilter";
    /// The same where it is Microsoft's.
    pub const SELECTORS_OTHER: &str =
        "http://schemas.microsoft.com/wbem/wsman/1/wsman/SelectorFilter";
    /// DSP0227 §8.2.
    pub const ASSOCIATIONS: &str =
        "http://schemas.dmtf.org/wbem/wsman/1/cimbinding/associationFilter";
}
