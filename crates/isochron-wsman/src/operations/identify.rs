//! Identify (DSP0226 §11): which protocol, and which product.

use crate::names::{IDENTIFY, IDENTIFY_OTHER, SOAP};
use crate::soap::{Request, close, element};

/// The namespace in which the request asks, if it does.
pub(crate) fn asks_to_identify(request: &Request) -> Option<&'static str> {
    let [node] = &*request.body else { return None };
    let known = [IDENTIFY, IDENTIFY_OTHER];
    known.into_iter().find(|uri| node.is(uri, "Identify"))
}

/// The reply, in the same namespace. Who did not say who they are is not told the
/// version (DSP0226 §11).
pub(crate) fn identified(namespace: &str, anonymous: bool) -> String {
    let mut out = format!(
        "<s:Envelope xmlns:s=\"{SOAP}\" xmlns:wsmid=\"{namespace}\"><s:Header/><s:Body>\
         <wsmid:IdentifyResponse>"
    );
    element(&mut out, "wsmid:ProtocolVersion", crate::names::WSMAN);
    element(&mut out, "wsmid:ProductVendor", "Isochron");
    let version = match anonymous {
        true => "",
        false => env!("CARGO_PKG_VERSION"),
    };
    element(&mut out, "wsmid:ProductVersion", version);
    out.push_str("<wsmid:SecurityProfiles>");
    for profile in [
        "http://schemas.dmtf.org/wbem/wsman/1/wsman/secprofile/http/basic",
        "http://schemas.dmtf.org/wbem/wsman/1/wsman/secprofile/https/basic",
        "http://schemas.dmtf.org/wbem/wsman/1/wsman/secprofile/https/mutual",
    ] {
        element(&mut out, "wsmid:SecurityProfileName", profile);
    }
    for tag in [
        "wsmid:SecurityProfiles",
        "wsmid:IdentifyResponse",
        "s:Body",
        "s:Envelope",
    ] {
        close(&mut out, tag);
    }
    out
}
