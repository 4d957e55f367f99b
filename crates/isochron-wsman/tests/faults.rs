//! Every fault, with the rule or else the section that asks for it: of DSP0226 1.0.0 unless
//! it says otherwise. A fault is HTTP's 500 with a subcode, a detail where there is one, and
//! Microsoft's number (MS-WSMV §2.2.4.43).

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use std::sync::atomic::Ordering;

use common::{DMTF, ENUMERATION, NAMESPACE, Running, TRANSFER, WMI, envelope, selectors};
use isochron_wsman::Config;

/// Where it is said; what is sent; the subcode, the detail's last step, the number.
type Case = (
    &'static str,
    String,
    &'static str,
    Option<&'static str>,
    u32,
);

fn get(class: &str, headers: &str) -> String {
    let resource = format!("{WMI}/{class}");
    envelope(&format!("{TRANSFER}/Get"), &resource, headers, "")
}

fn one(headers: &str) -> String {
    let named = selectors(&[("Name", "one")]);
    get("T_Thing", &format!("{named}{headers}"))
}

fn create(content: &str) -> String {
    let resource = format!("{WMI}/T_Thing");
    let body = format!("<T_Thing xmlns=\"{resource}\">{content}</T_Thing>");
    envelope(&format!("{TRANSFER}/Create"), &resource, "", &body)
}

fn enumerate(body: &str) -> String {
    let body = format!("<n:Enumerate>{body}</n:Enumerate>");
    let resource = format!("{WMI}/T_Many");
    envelope(&format!("{ENUMERATION}/Enumerate"), &resource, "", &body)
}

fn pull(context: &str, more: &str) -> String {
    let body =
        format!("<n:Pull><n:EnumerationContext>{context}</n:EnumerationContext>{more}</n:Pull>");
    let resource = format!("{WMI}/T_Many");
    envelope(&format!("{ENUMERATION}/Pull"), &resource, "", &body)
}

fn work(input: &str) -> String {
    let resource = format!("{WMI}/T_Thing");
    let input = format!("<p:Work_INPUT xmlns:p=\"{resource}\">{input}</p:Work_INPUT>");
    envelope(
        &format!("{resource}/Work"),
        &resource,
        &selectors(&[("Name", "one")]),
        &input,
    )
}

fn filter(dialect: &str, content: &str) -> String {
    enumerate(&format!(
        "<w:Filter Dialect=\"{dialect}\">{content}</w:Filter>"
    ))
}

const WQL: &str = "http://schemas.microsoft.com/wbem/wsman/1/WQL";
const SELECTORS: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman/SelectorFilter";
const ASSOCIATIONS: &str = "http://schemas.dmtf.org/wbem/wsman/1/cimbinding/associationFilter";

fn headers() -> Vec<Case> {
    let soap11 = one("").replace(
        "http://www.w3.org/2003/05/soap-envelope",
        "http://schemas.xmlsoap.org/soap/envelope/",
    );
    let without = |start: &str, end: &str| {
        let whole = one("");
        let (before, rest) = whole.split_once(start).unwrap();
        format!("{before}{}", rest.split_once(end).unwrap().1)
    };
    vec![
        (
            "SOAP 1.2 part 1, 5.4.7",
            soap11,
            "s:VersionMismatch",
            None,
            2150858765,
        ),
        (
            "R5.2-2",
            one("<z:New xmlns:z=\"urn:z\" s:mustUnderstand=\"true\"/>"),
            "s:MustUnderstand",
            None,
            2150858768,
        ),
        (
            "R13.1-9",
            one("<a:To>x:y</a:To>"),
            "a:InvalidMessageInformationHeader",
            None,
            2150858767,
        ),
        (
            "5.4.4",
            without("<a:MessageID>", "</a:MessageID>"),
            "a:InvalidMessageInformationHeader",
            None,
            2150858767,
        ),
        (
            "5.4.5",
            without("<a:Action s:mustUnderstand=\"true\">", "</a:Action>"),
            "a:MessageInformationHeaderRequired",
            None,
            2150858769,
        ),
        (
            "R5.4.2-2",
            one("").replace("role/anonymous", "role/other"),
            "w:UnsupportedFeature",
            Some("AddressingMode"),
            2150858818,
        ),
        (
            "R5.4.3-3",
            one("<a:FaultTo><a:Address>http://x</a:Address></a:FaultTo>"),
            "w:UnsupportedFeature",
            Some("AddressingMode"),
            2150858818,
        ),
        (
            "R5.1.2.1-3",
            without(
                "<w:ResourceURI s:mustUnderstand=\"true\">",
                "</w:ResourceURI>",
            ),
            "a:DestinationUnreachable",
            Some("InvalidResourceURI"),
            2150858752,
        ),
        (
            "R13.1-6",
            one("").replace(WMI, &"http://x/".repeat(600)),
            "w:EncodingLimit",
            Some("URILimitExceeded"),
            2150858805,
        ),
        (
            "R6.1-2",
            one("<w:OperationTimeout>soon</w:OperationTimeout>"),
            "a:InvalidMessageInformationHeader",
            None,
            2150858767,
        ),
        (
            "R6.2-4",
            one("<w:MaxEnvelopeSize s:mustUnderstand=\"true\">8191</w:MaxEnvelopeSize>"),
            "w:EncodingLimit",
            Some("MinimumEnvelopeLimit"),
            2150858805,
        ),
        (
            "R6.3-2",
            one("<w:Locale xml:lang=\"de-DE\" s:mustUnderstand=\"true\"/>"),
            "w:UnsupportedFeature",
            Some("Locale"),
            2150858818,
        ),
        (
            "6.4",
            one("<w:OptionSet><w:Option Name=\"x\" MustComply=\"true\"/></w:OptionSet>"),
            "w:InvalidOptions",
            Some("NotSupported"),
            2150858809,
        ),
        (
            "6.4",
            one("<w:OptionSet><w:Option/></w:OptionSet>"),
            "w:InvalidOptions",
            Some("InvalidName"),
            2150858809,
        ),
        (
            "R7.7-1",
            one("<w:FragmentTransfer s:mustUnderstand=\"true\">Name</w:FragmentTransfer>"),
            "w:UnsupportedFeature",
            Some("FragmentLevelAccess"),
            2150858818,
        ),
    ]
}

fn resources() -> Vec<Case> {
    let unreachable = "a:DestinationUnreachable";
    let selecting = "w:InvalidSelectors";
    let epr = "<w:Selector Name=\"Antecedent\">x</w:Selector>";
    let many = |count: usize| {
        let one = |n: usize| format!("<w:Selector Name=\"s{n}\">x</w:Selector>");
        let set: String = (0..count).map(one).collect();
        get("T_Thing", &format!("<w:SelectorSet>{set}</w:SelectorSet>"))
    };
    vec![
        (
            "DSP0227 6.1",
            get("T_None", ""),
            unreachable,
            Some("InvalidResourceURI"),
            2150858752,
        ),
        (
            "DSP0227 6.3",
            envelope(
                &format!("{TRANSFER}/Get"),
                &format!("{DMTF}/T_Thing"),
                &selectors(&[("__cimnamespace", "root/none"), ("Name", "one")]),
                "",
            ),
            unreachable,
            Some("InvalidNamespace"),
            2150858752,
        ),
        (
            "14.6",
            get("T_Thing", &selectors(&[("Name", "none")])),
            unreachable,
            None,
            2150858752,
        ),
        (
            "DSP0227 7",
            get("*", ""),
            "a:ActionNotSupported",
            None,
            2150858771,
        ),
        (
            "R5.1.2.2-4",
            get("T_Thing", &selectors(&[("Name", "one"), ("name", "two")])),
            selecting,
            Some("DuplicateSelectors"),
            2150858813,
        ),
        (
            "5.1.2.2",
            get("T_Thing", ""),
            selecting,
            Some("InsufficientSelectors"),
            2150858813,
        ),
        (
            "5.1.2.2",
            get("T_Thing", &selectors(&[("Name", "one"), ("Size", "1")])),
            selecting,
            Some("UnexpectedSelectors"),
            2150858813,
        ),
        (
            "5.1.2.2",
            get("T_Only", &selectors(&[("Number", "five")])),
            selecting,
            Some("TypeMismatch"),
            2150858813,
        ),
        (
            "5.1.2.2",
            get("T_Link", &format!("<w:SelectorSet>{epr}</w:SelectorSet>")),
            selecting,
            Some("TypeMismatch"),
            2150858813,
        ),
        (
            "14.6",
            many(257),
            "w:EncodingLimit",
            Some("SelectorLimit"),
            2150858805,
        ),
        (
            "5.4.5",
            envelope(
                &format!("{TRANSFER}/Move"),
                &format!("{WMI}/T_Thing"),
                "",
                "",
            ),
            "a:ActionNotSupported",
            None,
            2150858771,
        ),
        (
            "DSP0227 11",
            envelope(
                &format!("{WMI}/T_Thing/None"),
                &format!("{WMI}/T_Thing"),
                "",
                "",
            ),
            "a:ActionNotSupported",
            None,
            2150858771,
        ),
        (
            "DSP0227 11",
            envelope(
                &format!("{WMI}/T_Only/Work"),
                &format!("{WMI}/T_Thing"),
                "",
                "",
            ),
            "a:ActionNotSupported",
            None,
            2150858771,
        ),
    ]
}

fn bodies() -> Vec<Case> {
    let parameter = "w:InvalidParameter";
    let representation = "x:InvalidRepresentation";
    let other = create("<Name>x</Name>").replace(
        &format!("<T_Thing xmlns=\"{WMI}/T_Thing\">"),
        "<T_Thing xmlns=\"urn:other\">",
    );
    let put = |body: &str| {
        let resource = format!("{WMI}/T_Thing");
        let named = selectors(&[("Name", "one")]);
        envelope(&format!("{TRANSFER}/Put"), &resource, &named, body)
    };
    vec![
        (
            "7.6",
            create("<Nome>x</Nome>"),
            representation,
            Some("InvalidValues"),
            2150858773,
        ),
        (
            "7.6",
            create("<Size>big</Size>"),
            representation,
            Some("InvalidValues"),
            2150858773,
        ),
        (
            "7.6",
            create("<Name>x</Name><Name>y</Name>"),
            representation,
            Some("InvalidValues"),
            2150858773,
        ),
        (
            "7.6",
            other,
            representation,
            Some("InvalidNamespace"),
            2150858773,
        ),
        (
            "7.6",
            create("<Name>one</Name>"),
            "w:AlreadyExists",
            None,
            2150858803,
        ),
        ("7.4", put(""), "w:SchemaValidationError", None, 2150858817),
        (
            "7.4",
            put("<T_Thing><Name>two</Name></T_Thing>"),
            representation,
            Some("InvalidValues"),
            2150858773,
        ),
        (
            "7.4",
            put("<T_Only/>"),
            representation,
            Some("InvalidValues"),
            2150858773,
        ),
        (
            "DSP0227 11",
            work("<p:Nothing>1</p:Nothing>"),
            parameter,
            Some("InvalidName"),
            2150858810,
        ),
        (
            "DSP0227 11",
            work("<p:Numbers>1</p:Numbers><p:Numbers>x</p:Numbers>"),
            parameter,
            Some("TypeMismatch"),
            2150858810,
        ),
        (
            "DSP0227 11",
            work("<p:Flag>1</p:Flag><p:Flag>0</p:Flag>"),
            parameter,
            Some("TypeMismatch"),
            2150858810,
        ),
        (
            "DSP0227 11",
            work("<p:At>soon</p:At>"),
            parameter,
            Some("TypeMismatch"),
            2150858810,
        ),
        (
            "DSP0227 11",
            work("<p:Other><a:Address>x</a:Address></p:Other>"),
            parameter,
            Some("InvalidValue"),
            2150858810,
        ),
        (
            "DSP0227 11",
            work("<p:Settings><x/><y/></p:Settings>"),
            parameter,
            Some("TypeMismatch"),
            2150858810,
        ),
        (
            "DSP0227 11",
            work("").replace("Work_INPUT", "Other_INPUT"),
            "w:SchemaValidationError",
            None,
            2150858817,
        ),
    ]
}

fn enumerations() -> Vec<Case> {
    let unsupported = "w:UnsupportedFeature";
    let cannot = "n:CannotProcessFilter";
    let context = "n:InvalidEnumerationContext";
    vec![
        (
            "8.2.1",
            enumerate("<n:EndTo><a:Address>x</a:Address></n:EndTo>"),
            unsupported,
            Some("AddressingMode"),
            2150858818,
        ),
        (
            "8.2.1",
            enumerate("<n:Expires>P</n:Expires>"),
            "n:InvalidExpirationTime",
            None,
            2150858774,
        ),
        (
            "8.2.1",
            enumerate("<n:Expires>PT0S</n:Expires>"),
            "n:InvalidExpirationTime",
            None,
            2150858774,
        ),
        (
            "8.2.1",
            enumerate("<n:Expires>2001-01-01T00:00:00Z</n:Expires>"),
            "n:InvalidExpirationTime",
            None,
            2150858774,
        ),
        (
            "8.7",
            enumerate("<w:EnumerationMode>All</w:EnumerationMode>"),
            unsupported,
            Some("EnumerationMode"),
            2150858818,
        ),
        (
            "DSP0227 9.3",
            enumerate("<b:PolymorphismMode>All</b:PolymorphismMode>"),
            "b:PolymorphismModeNotSupported",
            None,
            2150859063,
        ),
        (
            "8.3",
            filter("http://www.w3.org/TR/1999/REC-xpath-19991116", "/x"),
            "n:FilterDialectRequestedUnavailable",
            None,
            2150858777,
        ),
        (
            "8.3",
            enumerate("<n:Filter>/x</n:Filter>"),
            "n:FilterDialectRequestedUnavailable",
            None,
            2150858777,
        ),
        ("8.3", filter(WQL, "SELECT"), cannot, None, 2150858778),
        (
            "8.3",
            filter(WQL, "SELECT * FROM T_None"),
            cannot,
            None,
            2150858778,
        ),
        (
            "R8.2.1-3",
            filter(WQL, "SELECT * FROM T_Many<x/>"),
            cannot,
            None,
            2150858778,
        ),
        (
            "R8.2.1-3",
            filter(SELECTORS, "text"),
            cannot,
            None,
            2150858778,
        ),
        (
            "annex E",
            filter(
                SELECTORS,
                "<w:SelectorSet><w:Selector Name=\"No\">1</w:Selector></w:SelectorSet>",
            ),
            cannot,
            None,
            2150858778,
        ),
        (
            "DSP0227 R8.2.1-4",
            filter(ASSOCIATIONS, "<b:AssociatedInstances/>"),
            cannot,
            None,
            2150858778,
        ),
        (
            "R8.2.1-3",
            filter(
                ASSOCIATIONS,
                "<b:AssociatedInstances/><b:AssociatedInstances/>",
            ),
            cannot,
            None,
            2150858778,
        ),
        ("8.4", pull("none", ""), context, None, 2150858779),
        (
            "8.4",
            pull("none", "<n:MaxElements>0</n:MaxElements>"),
            "w:SchemaValidationError",
            None,
            2150858817,
        ),
        (
            "8.4",
            pull("none", "<n:MaxElements>x</n:MaxElements>"),
            "w:SchemaValidationError",
            None,
            2150858817,
        ),
        (
            "8.5",
            pull("none", "").replace("Pull", "Release"),
            context,
            None,
            2150858779,
        ),
    ]
}

fn documents() -> Vec<Case> {
    let schema = "w:SchemaValidationError";
    let deep = format!("{}{}", "<x>".repeat(80), "</x>".repeat(80));
    let large = "<x/>".repeat(100_001);
    let resource = format!("{WMI}/T_Thing");
    let holding = |body: &str| envelope(&format!("{TRANSFER}/Get"), &resource, "", body);
    vec![
        ("14.6", "<not-xml".into(), schema, None, 2150858817),
        ("14.6", "<x/>".into(), schema, None, 2150858817),
        (
            "14.6",
            one("").replace("<a:To>", "<b:To xmlns:b=\"u\">"),
            schema,
            None,
            2150858817,
        ),
        (
            "14.6",
            one("").replace("a:MessageID", "zz:MessageID"),
            schema,
            None,
            2150858817,
        ),
        (
            "14.6",
            one("").replace("<s:Body></s:Body>", ""),
            schema,
            None,
            2150858817,
        ),
        (
            "SOAP 1.2 part 1, 5",
            holding("<!ENTITY x 'y'>&x;"),
            schema,
            None,
            2150858817,
        ),
        (
            "14.6",
            holding(&deep),
            "w:EncodingLimit",
            Some("ServiceEnvelopeLimit"),
            2150858805,
        ),
        (
            "14.6",
            holding(&large),
            "w:EncodingLimit",
            Some("ServiceEnvelopeLimit"),
            2150858805,
        ),
    ]
}

#[tokio::test]
async fn each_mistake_has_its_fault() {
    let server = Running::start(Config::default()).await;
    let cases = [
        headers(),
        resources(),
        bodies(),
        enumerations(),
        documents(),
    ];
    let mut failed = Vec::new();
    for (place, sent, subcode, detail, number) in cases.into_iter().flatten() {
        let (status, reply) = server.send(&sent).await;
        let has = |part: &str| reply.contains(part);
        let tail = "http://schemas.dmtf.org/wbem/wsman/1/wsman/faultDetail/";
        let detailed = match detail {
            Some(detail) => has(&format!("<w:FaultDetail>{tail}{detail}</w:FaultDetail>")),
            None => !has("<w:FaultDetail>"),
        };
        let right = status == 500
            && has(&format!("<s:Value>{subcode}</s:Value>"))
            && detailed
            && has(&format!(" Code=\"{number}\" Machine=\"here\""));
        if !right {
            let start: String = sent.chars().take(1500).collect();
            failed.push(format!(
                "{place}: {status} {subcode} {detail:?}\n{start}\n{reply}\n"
            ));
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    server.stop().await;
}

#[tokio::test]
async fn what_is_not_understood_is_named() {
    let server = Running::start(Config::default()).await;
    // R5.2-2.
    let header = |more: &str| one(&format!("<z:New xmlns:z=\"urn:z\" {more}/>"));
    let (_, reply) = server.send(&header("s:mustUnderstand=\"1\"")).await;
    // SOAP 1.2 part 1, 5.4.8.
    let named = "<s:NotUnderstood xmlns:u0=\"urn:z\" qname=\"u0:New\"/>";
    assert!(reply.contains(named), "{reply}");
    assert!(reply.contains("<a:RelatesTo>uuid:5E6FD101"), "{reply}");
    // SOAP 1.2 part 1, 5.2: what may be passed over is, and what others have to understand.
    for more in [
        "",
        "s:mustUnderstand=\"false\"",
        "s:mustUnderstand=\"true\" s:role=\"urn:another\"",
    ] {
        server.ok(&header(more)).await;
    }
    // All that PowerShell and MI send along.
    let more = "<p:SessionId xmlns:p=\"http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd\" \
        s:mustUnderstand=\"true\">uuid:1</p:SessionId>\
        <w:OptionSet s:mustUnderstand=\"true\"><w:Option Name=\"wmi:x\" MustComply=\"true\">1\
        </w:Option><w:Option Name=\"wmiarray:x\">1</w:Option><w:Option Name=\"wmiarray:x\">2\
        </w:Option></w:OptionSet><w:Locale xml:lang=\"en-GB\" s:mustUnderstand=\"true\"/>\
        <w:OperationTimeout>PT60.000S</w:OperationTimeout>";
    server.ok(&one(more)).await;
    server.stop().await;
}

#[tokio::test]
async fn what_takes_longer_than_the_client_waits_times_out() {
    let server = Running::start(Config::default()).await;
    let resource = format!("{WMI}/T_Thing");
    let headers = format!(
        "{}<w:OperationTimeout>PT0.2S</w:OperationTimeout>",
        selectors(&[("Name", "one")])
    );
    // 6.1.
    let slow = envelope(&format!("{resource}/Slow"), &resource, &headers, "");
    let (status, reply) = server.send(&slow).await;
    assert_eq!(status, 500);
    assert!(reply.contains("<s:Value>w:TimedOut</s:Value>"), "{reply}");
    assert!(reply.contains("Code=\"2150858793\""), "{reply}");
    server.stop().await;
}

#[tokio::test]
async fn a_caller_who_may_not_is_told_so() {
    struct Reader;
    #[async_trait::async_trait]
    impl isochron_net::Authenticator for Reader {
        async fn authenticate(
            &self,
            _authorization: Option<&str>,
            _peer: &isochron_net::Peer,
        ) -> Result<isochron_cim::Principal, isochron_net::Denied> {
            Ok(isochron_cim::Principal::user(
                "r",
                isochron_cim::Role::Reader,
            ))
        }

        fn role_now(&self, _: &isochron_cim::Principal) -> Option<isochron_cim::Role> {
            Some(isochron_cim::Role::Reader)
        }
    }
    let server = Running::start(Config {
        authenticator: std::sync::Arc::new(Reader),
        ..Config::default()
    })
    .await;
    let resource = format!("{WMI}/T_Thing");
    let named = selectors(&[("Name", "one")]);
    let delete = envelope(&format!("{TRANSFER}/Delete"), &resource, &named, "");
    let (status, reply) = server.send(&delete).await;
    assert_eq!(status, 500);
    for part in [
        "<s:Value>w:AccessDenied</s:Value>",
        "Code=\"5\"",
        "<c:CIMStatusCode>2</c:CIMStatusCode>",
    ] {
        assert!(reply.contains(part), "{part}\n{reply}");
    }
    // Deleting needs the key, also where there is only one.
    let resource = format!("{WMI}/T_Only");
    let delete = envelope(&format!("{TRANSFER}/Delete"), &resource, "", "");
    let (_, reply) = server.send(&delete).await;
    assert!(reply.contains("InsufficientSelectors"), "{reply}");
    server.stop().await;
}

#[tokio::test]
async fn a_reply_that_does_not_fit_is_not_sent() {
    let server = Running::start(Config::default()).await;
    let resource = format!("{DMTF}/T_Thing");
    let big = "x".repeat(20_000);
    let body =
        format!("<T_Thing xmlns=\"{resource}\"><Name>big</Name><Caption>{big}</Caption></T_Thing>");
    let namespace = selectors(&[("__cimnamespace", NAMESPACE)]);
    let create = envelope(&format!("{TRANSFER}/Create"), &resource, &namespace, &body);
    server.ok(&create).await;
    // R6.2-2.
    let size = "<w:MaxEnvelopeSize s:mustUnderstand=\"true\">10000</w:MaxEnvelopeSize>";
    let named = selectors(&[("__cimnamespace", NAMESPACE), ("Name", "big")]);
    let headers = format!("{named}{size}");
    let get = envelope(&format!("{TRANSFER}/Get"), &resource, &headers, "");
    let (status, reply) = server.send(&get).await;
    assert_eq!(status, 500);
    assert!(
        reply.contains("faultDetail/MaxEnvelopeSizeExceeded"),
        "{reply}"
    );
    // What is done is not undone, and that is said.
    let body = format!("<T_Thing xmlns=\"{resource}\"><Size>1</Size></T_Thing>");
    let put = envelope(&format!("{TRANSFER}/Put"), &resource, &headers, &body);
    let (status, reply) = server.send(&put).await;
    assert_eq!(status, 500);
    assert!(reply.contains("faultDetail/UnreportableSuccess"), "{reply}");
    let get = envelope(&format!("{TRANSFER}/Get"), &resource, &named, "");
    let reply = server.ok(&get).await;
    assert!(reply.contains("<p:Size>1</p:Size>"), "{reply}");
    // In an enumeration it stays where it is, and can be asked for again.
    let headers = format!("{namespace}{size}");
    let body = "<n:Enumerate><w:Filter \
        Dialect=\"http://schemas.microsoft.com/wbem/wsman/1/WQL\">\
        SELECT * FROM T_Thing WHERE Name = 'big'</w:Filter></n:Enumerate>";
    let action = format!("{ENUMERATION}/Enumerate");
    let all = "http://schemas.dmtf.org/wbem/wscim/1/*";
    let reply = server.ok(&envelope(&action, all, &headers, body)).await;
    let context = reply.split("<n:EnumerationContext>").nth(1).unwrap();
    let context = context.split('<').next().unwrap();
    let body = format!("<n:Pull><n:EnumerationContext>{context}</n:EnumerationContext></n:Pull>");
    let action = format!("{ENUMERATION}/Pull");
    let (_, reply) = server.send(&envelope(&action, all, &headers, &body)).await;
    assert!(
        reply.contains("faultDetail/MaxEnvelopeSizeExceeded"),
        "{reply}"
    );
    let reply = server.ok(&envelope(&action, all, &namespace, &body)).await;
    assert!(reply.contains(&big), "{reply}");
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_message_gets_https_answer() {
    let server = Running::start(Config {
        max_body: 20_000,
        ..Config::default()
    })
    .await;
    let soap = "Content-Type: application/soap+xml";
    for (path, headers, body, status) in [
        ("/", soap, "", 404),
        ("/wsman-anon", soap, "", 404),
        ("/wsman", "Content-Type: text/plain", "<x/>", 415),
        ("/wsman", "X-None: 1", "<x/>", 415),
        ("/wsman", soap, &"x".repeat(20_001), 413),
        (
            "/wsman-anon/identify",
            soap,
            &"x".repeat((16 << 10) + 1),
            413,
        ),
        // What logs in before it has anything to say.
        ("/wsman", "X-None: 1", "", 200),
    ] {
        let (found, _, _) = server.post(path, &[headers], body.as_bytes()).await;
        assert_eq!(found, status, "{path} {headers}");
    }
    let get = b"GET /wsman HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let response = String::from_utf8(server.exchange(get).await).unwrap();
    assert!(response.starts_with("HTTP/1.1 405"), "{response}");
    assert!(response.contains("POST"), "{response}");
    assert_eq!(server.server.reached.load(Ordering::SeqCst), 0);
    server.stop().await;
}

#[tokio::test]
async fn a_charset_that_is_not_read_is_told_in_utf_8() {
    let server = Running::start(Config::default()).await;
    let latin = ["Content-Type: application/soap+xml;charset=latin1"];
    let (status, head, reply) = server.post("/wsman", &latin, one("").as_bytes()).await;
    // R13.1-5.
    assert_eq!(status, 500);
    assert!(head.to_lowercase().contains("charset=utf-8"), "{head}");
    for part in [
        "<s:Value>w:EncodingLimit</s:Value>",
        "faultDetail/CharacterSet",
    ] {
        assert!(reply.contains(part), "{part}\n{reply}");
    }
    server.stop().await;
}

#[tokio::test]
async fn nobody_in_particular_reaches_nothing() {
    struct Nobody;
    #[async_trait::async_trait]
    impl isochron_net::Authenticator for Nobody {
        async fn authenticate(
            &self,
            _authorization: Option<&str>,
            _peer: &isochron_net::Peer,
        ) -> Result<isochron_cim::Principal, isochron_net::Denied> {
            Err(isochron_net::Denied::Unknown)
        }

        fn role_now(&self, _: &isochron_cim::Principal) -> Option<isochron_cim::Role> {
            None
        }
    }
    let server = Running::start(Config {
        authenticator: std::sync::Arc::new(Nobody),
        ..Config::default()
    })
    .await;
    for headers in [
        vec!["Content-Type: application/soap+xml"],
        vec![
            "Content-Type: application/soap+xml",
            "Authorization: Basic eDp5",
        ],
        vec!["Authorization: "],
    ] {
        for body in [one(""), String::new()] {
            let (status, head, _) = server.post("/wsman", &headers, body.as_bytes()).await;
            assert_eq!(status, 401);
            let head = head.to_lowercase();
            assert!(
                head.contains("www-authenticate: basic realm=\"isochron\""),
                "{head}"
            );
        }
    }
    assert_eq!(server.server.reached.load(Ordering::SeqCst), 0);
    server.stop().await;
}

/// Who says nothing is let in here; who says that there is a certificate is not nobody in
/// particular, and has to have one (annex C.3.5).
#[tokio::test]
async fn a_certificate_that_is_not_there_lets_nobody_in() {
    struct Anybody;
    #[async_trait::async_trait]
    impl isochron_net::Authenticator for Anybody {
        async fn authenticate(
            &self,
            authorization: Option<&str>,
            peer: &isochron_net::Peer,
        ) -> Result<isochron_cim::Principal, isochron_net::Denied> {
            match authorization {
                None => isochron_net::AllowAll.authenticate(None, peer).await,
                Some(_) => Err(isochron_net::Denied::Unknown),
            }
        }

        fn role_now(&self, _: &isochron_cim::Principal) -> Option<isochron_cim::Role> {
            None
        }
    }
    let server = Running::start(Config {
        authenticator: std::sync::Arc::new(Anybody),
        ..Config::default()
    })
    .await;
    let mutual = "http://schemas.dmtf.org/wbem/wsman/1/wsman/secprofile/https/mutual";
    let kind = "Content-Type: application/soap+xml";
    let named = format!("Authorization: {mutual}");
    for (headers, found) in [(&[kind, &*named][..], 401), (&[kind], 200)] {
        let (status, ..) = server.post("/wsman", headers, one("").as_bytes()).await;
        assert_eq!(status, found);
    }
    server.stop().await;
}
