//! The HTTP side, byte by byte: what DSP0200 §6 and §7 ask of a server.

#![allow(clippy::expect_used)] // A test fails by panicking.

mod common;

use std::sync::atomic::Ordering;
use std::time::Duration;

use common::{Running, wrap};
use isochron_cimxml::Config;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MATCHING: &[&str] = &[
    "Content-Type: application/xml; charset=\"utf-8\"",
    "CIMOperation: MethodCall",
    "CIMMethod: EnumerateClassNames",
    "CIMObject: root%2Ftest",
];

fn request(method: &str, headers: &[&str], body: &str) -> String {
    let headers: String = headers
        .iter()
        .map(|header| format!("{header}\r\n"))
        .collect();
    let length = body.len();
    format!(
        "{method} /cimom HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    )
}

/// Sends bytes on a connection of their own and returns what comes back until
/// the server closes.
async fn exchange(server: &Running, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address).await.expect("connect");
    stream.write_all(bytes).await.ok();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.ok();
    String::from_utf8(response).expect("UTF-8")
}

async fn closing(server: &Running, method: &str, headers: &[&str], body: &str) -> String {
    let headers: Vec<&str> = headers
        .iter()
        .copied()
        .chain(["Connection: close"])
        .collect();
    exchange(server, request(method, &headers, body).as_bytes()).await
}

fn header<'a>(response: &'a str, name: &str) -> Option<&'a str> {
    let head = response.split("\r\n\r\n").next()?;
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn status(response: &str) -> &str {
    response.split(' ').nth(1).unwrap_or("none")
}

fn with<'a>(replaced: &str, by: &'a str) -> Vec<&'a str> {
    let prefix = format!("{replaced}:");
    MATCHING
        .iter()
        .copied()
        .filter(|header| !header.starts_with(&prefix))
        .chain((!by.is_empty()).then_some(by))
        .collect()
}

#[tokio::test]
async fn a_request_is_answered() {
    let server = Running::start(Config::default()).await;
    let body = wrap("root/test", "EnumerateClassNames", "");
    let response = closing(&server, "POST", MATCHING, &body).await;
    assert_eq!(status(&response), "200", "{response}");
    assert_eq!(
        header(&response, "Content-Type"),
        Some("application/xml; charset=\"utf-8\"")
    );
    assert_eq!(header(&response, "CIMOperation"), Some("MethodResponse"));
    let time = header(&response, "WBEMServerResponseTime").expect("a time");
    assert!(time.parse::<u64>().is_ok(), "{time}");
    assert_eq!(header(&response, "Ext"), None);
    assert!(
        response.contains("<MESSAGE ID=\"42\"") && response.contains("T_Base"),
        "{response}"
    );
    server.stop().await;
}

#[tokio::test]
async fn m_post_and_its_prefix() {
    let server = Running::start(Config::default()).await;
    let body = wrap("root/test", "EnumerateClassNames", "");
    let man = "Man: http://www.dmtf.org/cim/mapping/http/v1.0 ; ns=73";
    let prefixed = [
        MATCHING[0],
        man,
        "73-CIMOperation: MethodCall",
        "73-CIMMethod: EnumerateClassNames",
        "73-CIMObject: root%2Ftest",
        "73-CIMProtocolVersion: 1.0",
    ];
    let response = closing(&server, "M-POST", &prefixed, &body).await;
    assert_eq!(status(&response), "200", "{response}");
    assert_eq!(header(&response, "73-CIMOperation"), Some("MethodResponse"));
    assert_eq!(header(&response, "Ext"), Some(""));
    assert!(
        header(&response, "Man").is_some_and(|man| man.ends_with("ns=73")),
        "{response}"
    );
    // The headers are read under their prefix, not beside it.
    let mut wrong = prefixed;
    wrong[3] = "73-CIMMethod: GetClass";
    let response = closing(&server, "M-POST", &wrong, &body).await;
    assert_eq!(
        header(&response, "CIMError"),
        Some("header-mismatch"),
        "{response}"
    );
    let response = closing(&server, "M-POST", MATCHING, &body).await;
    assert_eq!(status(&response), "510", "{response}");
    server.stop().await;
}

#[tokio::test]
async fn headers_must_say_what_the_body_says() {
    let server = Running::start(Config::default()).await;
    let body = wrap("root/test", "EnumerateClassNames", "");
    let good = &body;
    let ill = body.replace("</CIM>", "");
    let invalid = body.replace(" ID=\"42\"", "");
    let multi = body.replace("SIMPLEREQ", "MULTIREQ");
    let cim = body.replace("CIMVERSION=\"2.0\"", "CIMVERSION=\"9.0\"");
    let dtd = body.replace("DTDVERSION=\"2.0\"", "DTDVERSION=\"9.0\"");
    let protocol = body.replace("PROTOCOLVERSION=\"1.0\"", "PROTOCOLVERSION=\"9.0\"");
    let minor = body.replace("PROTOCOLVERSION=\"1.0\"", "PROTOCOLVERSION=\"1.1\"");
    let mismatch = Some("header-mismatch");
    let table: Vec<(Vec<&str>, &str, &str, Option<&str>)> = vec![
        (MATCHING.to_vec(), good, "200", None),
        (with("CIMObject", "CIMObject: ROOT/test"), good, "200", None),
        (
            with("CIMObject", "CIMObject: root/other"),
            good,
            "400",
            mismatch,
        ),
        (
            with("CIMObject", "CIMObject: root%2"),
            good,
            "400",
            mismatch,
        ),
        (
            with("CIMObject", "CIMObject: root%FF"),
            good,
            "400",
            mismatch,
        ),
        (with("CIMObject", ""), good, "400", mismatch),
        (
            with("CIMMethod", "CIMMethod: %45numerateClassNames"),
            good,
            "200",
            None,
        ),
        (
            with("CIMMethod", "CIMMethod: GetClass"),
            good,
            "400",
            mismatch,
        ),
        (with("CIMMethod", ""), good, "400", mismatch),
        (
            with("CIMOperation", "CIMOperation: "),
            good,
            "400",
            Some("unsupported-operation"),
        ),
        (
            with("CIMOperation", "CIMOperation: Other"),
            good,
            "400",
            Some("unsupported-operation"),
        ),
        (
            with("CIMOperation", ""),
            good,
            "400",
            Some("unsupported-operation"),
        ),
        (
            with("X", "CIMBatch:"),
            good,
            "501",
            Some("multiple-requests-unsupported"),
        ),
        (
            with("X", "CIMProtocolVersion: 2.0"),
            good,
            "501",
            Some("unsupported-protocol-version"),
        ),
        (with("X", "CIMProtocolVersion: 1.0"), good, "200", None),
        (
            with("X", "CIMProtocolVersion: 1.0"),
            &minor,
            "400",
            mismatch,
        ),
        (MATCHING.to_vec(), &minor, "200", None),
        (
            MATCHING.to_vec(),
            &ill,
            "400",
            Some("request-not-well-formed"),
        ),
        (
            MATCHING.to_vec(),
            "",
            "400",
            Some("request-not-well-formed"),
        ),
        (
            MATCHING.to_vec(),
            &invalid,
            "400",
            Some("request-not-loosely-valid"),
        ),
        (
            MATCHING.to_vec(),
            &multi,
            "501",
            Some("multiple-requests-unsupported"),
        ),
        (
            MATCHING.to_vec(),
            &cim,
            "501",
            Some("unsupported-cim-version"),
        ),
        (
            MATCHING.to_vec(),
            &dtd,
            "501",
            Some("unsupported-dtd-version"),
        ),
        (
            MATCHING.to_vec(),
            &protocol,
            "501",
            Some("unsupported-protocol-version"),
        ),
        (
            with("Content-Type", "Content-Type: text/xml"),
            good,
            "200",
            None,
        ),
        (
            with(
                "Content-Type",
                "Content-Type: application/XML;charset=UTF-8",
            ),
            good,
            "200",
            None,
        ),
        (
            with("Content-Type", "Content-Type: application/json"),
            good,
            "415",
            None,
        ),
        (
            with("Content-Type", "Content-Type: text/xml; charset=utf-16"),
            good,
            "415",
            None,
        ),
        (with("Content-Type", ""), good, "415", None),
    ];
    for (headers, body, code, error) in table {
        let response = closing(&server, "POST", &headers, body).await;
        assert_eq!(status(&response), code, "{headers:?}\n{response}");
        assert_eq!(
            header(&response, "CIMError"),
            error,
            "{headers:?}\n{response}"
        );
        assert_eq!(
            error.is_some(),
            header(&response, "PGErrorDetail").is_some() && code != "415"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn a_methods_object_is_compared_as_a_path() {
    let server = Running::start(Config::default()).await;
    let body = "<CIM CIMVERSION=\"2.0\" DTDVERSION=\"2.0\"><MESSAGE ID=\"1\" PROTOCOLVERSION=\"1.0\"><SIMPLEREQ><METHODCALL NAME=\"None\"><LOCALINSTANCEPATH><LOCALNAMESPACEPATH><NAMESPACE NAME=\"root\"/><NAMESPACE NAME=\"test\"/></LOCALNAMESPACEPATH><INSTANCENAME CLASSNAME=\"C\"><KEYBINDING NAME=\"K\"><KEYVALUE>\u{e9}\"</KEYVALUE></KEYBINDING><KEYBINDING NAME=\"N\"><KEYVALUE VALUETYPE=\"numeric\" TYPE=\"uint8\">1</KEYVALUE></KEYBINDING></INSTANCENAME></LOCALINSTANCEPATH></METHODCALL></SIMPLEREQ></MESSAGE></CIM>";
    for (object, code) in [
        ("root/test:C.K=\"%C3%A9\\\"\",N=1", "200"),
        ("ROOT%2Ftest%3Ac.n%3D1,k=\"%C3%A9\\%22\"", "200"),
        ("root/test:C.K=\"e\\\"\",N=1", "400"),
        ("root/test:C.K=\"%C3%A9\\\"\"", "400"),
        ("root/other:C.K=\"%C3%A9\\\"\",N=1", "400"),
        ("root/test:D.K=\"%C3%A9\\\"\",N=1", "400"),
        ("root/test", "400"),
        ("", "400"),
    ] {
        let object = format!("CIMObject: {object}");
        let headers = [MATCHING[0], MATCHING[1], "CIMMethod: None", &object];
        let response = closing(&server, "POST", &headers, body).await;
        assert_eq!(status(&response), code, "{object}\n{response}");
        // It reaches the provider, which has no such method.
        assert_eq!(
            code == "200",
            response.contains("CODE=\"17\""),
            "{response}"
        );
    }
    server.stop().await;
}

#[tokio::test]
async fn other_methods_are_told_what_this_is() {
    let server = Running::start(Config::default()).await;
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        let response = closing(&server, method, &[], "").await;
        assert_eq!(status(&response), "405", "{response}");
        assert_eq!(
            header(&response, "Allow"),
            Some("POST, M-POST, OPTIONS"),
            "{response}"
        );
    }
    let response = closing(&server, "OPTIONS", &[], "").await;
    assert_eq!(status(&response), "200", "{response}");
    assert_eq!(
        header(&response, "77-CIMProtocolVersion"),
        Some("1.0"),
        "{response}"
    );
    assert!(
        header(&response, "77-CIMSupportedFunctionalGroups").is_some(),
        "{response}"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_connection_serves_many_requests() {
    let server = Running::start(Config::default()).await;
    let body = wrap("root/test", "EnumerateClassNames", "");
    let one = request("POST", MATCHING, &body);
    let refused = request("POST", &with("CIMMethod", ""), &body);
    let last = request("POST", &with("X", "Connection: close"), &body);
    let response = exchange(&server, format!("{one}{refused}{one}{last}").as_bytes()).await;
    assert_eq!(response.matches("HTTP/1.1 200").count(), 3, "{response}");
    assert_eq!(response.matches("HTTP/1.1 400").count(), 1, "{response}");
    server.stop().await;
}

#[tokio::test]
async fn bodies_are_limited() {
    let server = Running::start(Config {
        max_body: 2000,
        ..Config::default()
    })
    .await;
    let body = wrap("root/test", "EnumerateClassNames", "");
    let large = format!("{body}{}", " ".repeat(2000));
    let response = closing(&server, "POST", MATCHING, &large).await;
    assert_eq!(status(&response), "413", "{response}");
    // Without a length the limit is found on the way.
    let headers: String = MATCHING
        .iter()
        .map(|header| format!("{header}\r\n"))
        .collect();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n{headers}\r\n"
    );
    for (body, code) in [(&body, "200"), (&large, "413")] {
        let chunked = format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let response = exchange(&server, chunked.as_bytes()).await;
        assert_eq!(status(&response), code, "{response}");
    }
    server.stop().await;
}

#[tokio::test]
async fn silent_clients_lose_their_connection() {
    let short = Duration::from_millis(200);
    let config = Config {
        header_timeout: short,
        body_timeout: short,
        ..Config::default()
    };
    let server = Running::start(config).await;
    let body = wrap("root/test", "EnumerateClassNames", "");
    let whole = request("POST", MATCHING, &body);
    // Each holds the only place there is; each is closed by the server.
    for part in [&whole[..0], &whole[..40], &whole[..whole.len() - 10]] {
        let response = exchange(&server, part.as_bytes()).await;
        assert!(
            response.is_empty() || status(&response) == "408",
            "{response}"
        );
    }
    // Also after a response, without another request.
    let idle = exchange(&server, whole.as_bytes()).await;
    assert_eq!(status(&idle), "200");
    let response = closing(&server, "POST", MATCHING, &body).await;
    assert_eq!(status(&response), "200", "{response}");
    server.stop().await;
}

fn slow() -> String {
    let body = "<CIM CIMVERSION=\"2.0\" DTDVERSION=\"2.0\"><MESSAGE ID=\"1\" PROTOCOLVERSION=\"1.0\"><SIMPLEREQ><METHODCALL NAME=\"Slow\"><LOCALCLASSPATH><LOCALNAMESPACEPATH><NAMESPACE NAME=\"root\"/><NAMESPACE NAME=\"test\"/></LOCALNAMESPACEPATH><CLASSNAME NAME=\"T_Thing\"/></LOCALCLASSPATH></METHODCALL></SIMPLEREQ></MESSAGE></CIM>";
    let headers = [
        MATCHING[0],
        MATCHING[1],
        "CIMMethod: Slow",
        "CIMObject: root/test:T_Thing",
    ];
    request("POST", &headers, body)
}

async fn until_done(server: &Running) {
    let done = async {
        while !server.server.slow_done.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), done)
        .await
        .expect("the operation ends");
}

#[tokio::test]
async fn an_operation_ends_whether_its_client_waits_or_not() {
    // The server stops waiting.
    let short = Duration::from_millis(50);
    let server = Running::start(Config {
        operation_timeout: short,
        ..Config::default()
    })
    .await;
    let mut stream = TcpStream::connect(server.address).await.expect("connect");
    stream.write_all(slow().as_bytes()).await.expect("sent");
    let mut response = vec![0; 4096];
    let length = stream.read(&mut response).await.expect("a response");
    let response = String::from_utf8_lossy(&response[..length]).into_owned();
    assert!(
        response.contains("CODE=\"1\"") && response.contains("it goes on"),
        "{response}"
    );
    until_done(&server).await;
    server.stop().await;
    // The client does.
    let server = Running::start(Config::default()).await;
    let mut stream = TcpStream::connect(server.address).await.expect("connect");
    stream.write_all(slow().as_bytes()).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!server.server.slow_done.load(Ordering::SeqCst));
    drop(stream);
    until_done(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn shutting_down_lets_a_request_finish() {
    let server = Running::start(Config::default()).await;
    let mut stream = TcpStream::connect(server.address).await.expect("connect");
    stream.write_all(slow().as_bytes()).await.expect("sent");
    let idle = TcpStream::connect(server.address).await.expect("connect");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let address = server.address;
    server.stop().await;
    let mut response = String::new();
    stream
        .read_to_string(&mut response)
        .await
        .expect("a response");
    assert!(response.contains("<VALUE>77</VALUE>"), "{response}");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens");
    drop(idle);
}
