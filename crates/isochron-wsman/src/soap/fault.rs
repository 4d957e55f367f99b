//! Faults: what DSP0226 §14.6 lists, with Microsoft's number for each (MS-WSMV
//! §2.2.4.43), which is all that some clients look at, and CIM's error where there is
//! one (DSP0227).

use isochron_cim::{CimError, Status};
use isochron_cimxml::decode::DecodeError;
use isochron_cimxml::encode::{attribute, text};

use super::reply::{element, open_envelope};
use crate::names::{CIM_SCHEMA, FAULT};

/// Who has to change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blame {
    Sender,
    Receiver,
}

/// What kind of fault, as the specification names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The subcode with the prefix that replies declare; SOAP's own have a code alone.
    subcode: &'static str,
    blame: Blame,
    /// Microsoft's number.
    number: u32,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $subcode:literal, $blame:ident, $number:literal;)*) => {
        impl Kind {
            $($(#[$doc])* pub const $name: Self = Self {
                subcode: $subcode,
                blame: Blame::$blame,
                number: $number,
            };)*
        }
    };
}

kinds! {
    /// The envelope is not SOAP 1.2's.
    VERSION_MISMATCH = "s:VersionMismatch", Sender, 2150858765;
    /// A header that has to be understood is not.
    MUST_UNDERSTAND = "s:MustUnderstand", Sender, 2150858768;
    /// No such operation there.
    ACTION_NOT_SUPPORTED = "a:ActionNotSupported", Sender, 2150858771;
    /// No such resource.
    DESTINATION_UNREACHABLE = "a:DestinationUnreachable", Sender, 2150858752;
    /// A header that is none.
    INVALID_HEADER = "a:InvalidMessageInformationHeader", Sender, 2150858767;
    /// A header that is missing.
    HEADER_REQUIRED = "a:MessageInformationHeaderRequired", Sender, 2150858769;
    /// The filter cannot be.
    CANNOT_PROCESS_FILTER = "n:CannotProcessFilter", Sender, 2150858778;
    /// The filter is in a language that is not known.
    FILTER_DIALECT = "n:FilterDialectRequestedUnavailable", Sender, 2150858777;
    /// No such enumeration.
    INVALID_CONTEXT = "n:InvalidEnumerationContext", Receiver, 2150858779;
    /// An enumeration cannot last so long.
    INVALID_EXPIRATION = "n:InvalidExpirationTime", Sender, 2150858774;
    /// Events are not delivered that way.
    DELIVERY_MODE = "e:DeliveryModeRequestedUnavailable", Sender, 2150858782;
    /// Events are not chosen that way.
    EVENT_FILTER = "e:FilteringRequestedUnavailable", Sender, 2150858786;
    /// A subscription cannot last so long.
    EVENT_EXPIRATION = "e:InvalidExpirationTime", Sender, 2150858783;
    /// No such subscription.
    EVENT_MESSAGE = "e:InvalidMessage", Sender, 2150858789;
    /// The representation is none of the class's.
    INVALID_REPRESENTATION = "x:InvalidRepresentation", Sender, 2150858773;
    /// Subclasses cannot be seen that way.
    POLYMORPHISM = "b:PolymorphismModeNotSupported", Sender, 2150859063;
    /// The caller may not.
    ACCESS_DENIED = "w:AccessDenied", Sender, 5;
    /// It is there.
    ALREADY_EXISTS = "w:AlreadyExists", Sender, 2150858803;
    /// Something else is under way there.
    CONCURRENCY = "w:Concurrency", Sender, 2150858802;
    /// Too large, or not a charset that is read.
    ENCODING_LIMIT = "w:EncodingLimit", Sender, 2150858805;
    /// A failure of ours.
    INTERNAL_ERROR = "w:InternalError", Receiver, 2150858755;
    /// An option that has to be complied with is not known.
    INVALID_OPTIONS = "w:InvalidOptions", Sender, 2150858809;
    /// A parameter of a method.
    INVALID_PARAMETER = "w:InvalidParameter", Sender, 2150858810;
    /// The selectors name no instance.
    INVALID_SELECTORS = "w:InvalidSelectors", Sender, 2150858813;
    /// Too much at once.
    QUOTA_LIMIT = "w:QuotaLimit", Sender, 2150858815;
    /// The document is not what the schema says.
    SCHEMA_VALIDATION = "w:SchemaValidationError", Sender, 2150858817;
    /// It took longer than the client waits.
    TIMED_OUT = "w:TimedOut", Receiver, 2150858793;
    /// A feature that is not here.
    UNSUPPORTED_FEATURE = "w:UnsupportedFeature", Sender, 2150858818;
}

/// A fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind.
    pub kind: Kind,
    /// A sentence for a person.
    pub reason: String,
    /// The last step of the URI that says more (DSP0226 §14.6, `FaultDetail`).
    detail: Option<&'static str>,
    /// CIM's error that this comes from.
    cim: Option<CimError>,
    /// The headers that are not understood: namespace and name.
    not_understood: Vec<(String, String)>,
}

impl Fault {
    /// A fault of this kind.
    pub fn new(kind: Kind, reason: impl Into<String>) -> Self {
        Self {
            kind,
            reason: reason.into(),
            detail: None,
            cim: None,
            not_understood: Vec::new(),
        }
    }

    /// The same with the last step of a `FaultDetail` URI.
    #[must_use]
    pub fn detailed(self, detail: &'static str) -> Self {
        Self {
            detail: Some(detail),
            ..self
        }
    }

    /// Headers have to be understood and are not (SOAP 1.2 part 1, §5.4.8).
    pub(crate) fn must_understand(headers: Vec<(String, String)>) -> Self {
        let names: Vec<&str> = headers.iter().map(|(_, name)| &**name).collect();
        let reason = format!("these headers are not understood: {}", names.join(", "));
        Self {
            not_understood: headers,
            ..Self::new(Kind::MUST_UNDERSTAND, reason)
        }
    }

    /// A document that is not in the form that its place needs.
    pub(crate) fn schema(reason: impl Into<String>) -> Self {
        Self::new(Kind::SCHEMA_VALIDATION, reason)
    }

    /// A feature that is not here.
    pub(crate) fn unsupported(detail: &'static str, reason: impl Into<String>) -> Self {
        Self::new(Kind::UNSUPPORTED_FEATURE, reason).detailed(detail)
    }

    /// Writes the envelope that tells of it. `relates_to` is the request's message ID,
    /// `host` this server's name.
    pub fn envelope(&self, relates_to: Option<&str>, host: &str) -> String {
        let mut out = String::with_capacity(2048);
        open_envelope(&mut out, self.action(), relates_to, |header| {
            for (at, (namespace, name)) in self.not_understood.iter().enumerate() {
                header.push_str("<s:NotUnderstood");
                attribute(header, &format!("xmlns:u{at}"), namespace);
                attribute(header, "qname", &format!("u{at}:{name}"));
                header.push_str("/>");
            }
        });
        out.push_str("<s:Fault><s:Code>");
        if self.kind.subcode.starts_with("s:") {
            element(&mut out, "s:Value", self.kind.subcode);
        } else {
            let code = match self.kind.blame {
                Blame::Sender => "s:Sender",
                Blame::Receiver => "s:Receiver",
            };
            element(&mut out, "s:Value", code);
            out.push_str("<s:Subcode>");
            element(&mut out, "s:Value", self.kind.subcode);
            out.push_str("</s:Subcode>");
        }
        out.push_str("</s:Code><s:Reason><s:Text xml:lang=\"en-US\">");
        text(&mut out, &self.reason);
        out.push_str("</s:Text></s:Reason><s:Detail>");
        if let Some(detail) = self.detail {
            let uri = format!("http://schemas.dmtf.org/wbem/wsman/1/wsman/faultDetail/{detail}");
            element(&mut out, "w:FaultDetail", &uri);
        }
        if let Some(error) = &self.cim {
            cim_error(&mut out, error);
        }
        out.push_str("<f:WSManFault");
        attribute(&mut out, "xmlns:f", FAULT);
        attribute(&mut out, "Code", &self.kind.number.to_string());
        attribute(&mut out, "Machine", host);
        out.push_str("><f:Message>");
        text(&mut out, &self.reason);
        out.push_str("</f:Message></f:WSManFault></s:Detail></s:Fault></s:Body></s:Envelope>");
        out
    }

    /// The action of the message that tells of it (DSP0226 §14.6).
    fn action(&self) -> &'static str {
        match self.kind.subcode.split_once(':') {
            Some(("a", _)) => "http://schemas.xmlsoap.org/ws/2004/08/addressing/fault",
            Some(("n", _)) => "http://schemas.xmlsoap.org/ws/2004/09/enumeration/fault",
            Some(("x", _)) => "http://schemas.xmlsoap.org/ws/2004/09/transfer/fault",
            Some(("e", _)) => "http://schemas.xmlsoap.org/ws/2004/08/eventing/fault",
            Some(("b", _)) => "http://schemas.dmtf.org/wbem/wsman/1/cimbinding/fault",
            Some(("w", _)) => "http://schemas.dmtf.org/wbem/wsman/1/wsman/fault",
            _ => "http://schemas.xmlsoap.org/ws/2004/08/addressing/fault",
        }
    }
}

/// CIM's error as an instance (DSP0227).
fn cim_error(out: &mut String, error: &CimError) {
    out.push_str("<c:CIM_Error");
    attribute(out, "xmlns:c", &format!("{CIM_SCHEMA}/CIM_Error"));
    out.push_str(" xsi:type=\"c:CIM_Error_Type\">");
    element(out, "c:CIMStatusCode", &error.status.code().to_string());
    element(out, "c:CIMStatusCodeDescription", error.status.symbol());
    element(out, "c:Message", &error.message);
    element(out, "c:OwningEntity", "Isochron");
    out.push_str("</c:CIM_Error>");
}

impl From<CimError> for Fault {
    /// The fault for each of CIM's errors (DSP0227).
    fn from(error: CimError) -> Self {
        let (kind, detail) = match error.status {
            Status::AccessDenied => (Kind::ACCESS_DENIED, None),
            Status::InvalidNamespace => (Kind::DESTINATION_UNREACHABLE, Some("InvalidNamespace")),
            Status::InvalidClass => (Kind::DESTINATION_UNREACHABLE, Some("InvalidResourceURI")),
            Status::NotFound => (Kind::DESTINATION_UNREACHABLE, None),
            Status::InvalidParameter => (Kind::INVALID_PARAMETER, None),
            Status::TypeMismatch => (Kind::INVALID_PARAMETER, Some("TypeMismatch")),
            Status::NoSuchProperty => (Kind::SCHEMA_VALIDATION, None),
            Status::NotSupported | Status::MethodNotAvailable | Status::MethodNotFound => {
                (Kind::ACTION_NOT_SUPPORTED, None)
            }
            Status::AlreadyExists => (Kind::ALREADY_EXISTS, None),
            Status::QueryLanguageNotSupported => (Kind::FILTER_DIALECT, None),
            Status::InvalidQuery | Status::FilteredEnumerationNotSupported => {
                (Kind::CANNOT_PROCESS_FILTER, None)
            }
            Status::InvalidEnumerationContext | Status::PullHasBeenAbandoned => {
                (Kind::INVALID_CONTEXT, None)
            }
            Status::InvalidOperationTimeout => (Kind::INVALID_EXPIRATION, None),
            Status::ServerLimitsExceeded => (Kind::QUOTA_LIMIT, None),
            Status::Failed
            | Status::ClassHasChildren
            | Status::ClassHasInstances
            | Status::InvalidSuperclass
            | Status::NamespaceNotEmpty
            | Status::PullCannotBeAbandoned
            | Status::ContinuationOnErrorNotSupported
            | Status::ServerIsShuttingDown => (Kind::INTERNAL_ERROR, None),
        };
        Self {
            detail,
            reason: error.message.clone(),
            cim: Some(error),
            ..Self::new(kind, "")
        }
    }
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::TooLarge(_) => {
                Self::new(Kind::ENCODING_LIMIT, error.to_string()).detailed("ServiceEnvelopeLimit")
            }
            error => Self::schema(error.to_string()),
        }
    }
}
