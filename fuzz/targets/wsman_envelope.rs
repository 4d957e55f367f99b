//! A request of WS-Management, as a listener reads it, in whatever charset; what it is
//! answered where it cannot be read has to be XML of SOAP again.
#![no_main]

use isochron_cimxml::decode::Limits;
use isochron_wsman::soap::{Charset, Node, Request, decoded};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok((text, _)) = decoded(bytes, Charset::Utf8) else {
        return;
    };
    if let Err(unreadable) = Request::read(&text, Limits::default()) {
        let id = unreadable.message_id.as_deref();
        let envelope = unreadable.fault.envelope(id, "host");
        let read = Node::read(&envelope, Limits::default());
        assert!(read.is_ok_and(|node| node.name == "Envelope"), "{envelope}");
    }
});
