//! HTTP that is malformed, or does not fit its body.

use std::time::Duration;

use isochron_cimxml::Config;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::common::{Running, wrap};
use crate::{
    BAD, CLOSED, Expected, FINE, HEADERS, ILL, INVALID, LARGE, MISMATCH, check, exchange, good,
    header, post, response, status,
};

/// DSP0200 §7.3: no operation that this server knows.
const OPERATION: Expected = (400, Some("unsupported-operation"));

/// The request with another line of its head.
fn with(old: &str, new: &str) -> Vec<u8> {
    let line = HEADERS
        .split_inclusive("\r\n")
        .find(|line| line.starts_with(old))
        .expect(old);
    let new = if new.is_empty() {
        String::new()
    } else {
        format!("{new}\r\n")
    };
    post(&HEADERS.replace(line, &new), good().as_bytes())
}

fn more(headers: &str) -> Vec<u8> {
    post(&format!("{HEADERS}{headers}\r\n"), good().as_bytes())
}

/// The extension headers (DSP0200 §6.3).
#[tokio::test]
async fn extension_headers() {
    let server = Running::start(Config::default()).await;
    let protocol = (501, Some("unsupported-protocol-version"));
    let several = (501, Some("multiple-requests-unsupported"));
    let method = "CIMMethod: EnumerateClassNames";
    let call = "<CIM CIMVERSION=\"2.0\" DTDVERSION=\"2.0\"><MESSAGE ID=\"1\" PROTOCOLVERSION=\"1.0\"><SIMPLEREQ><METHODCALL NAME=\"Add\"><LOCALCLASSPATH><LOCALNAMESPACEPATH><NAMESPACE NAME=\"root\"/><NAMESPACE NAME=\"test\"/></LOCALNAMESPACEPATH><CLASSNAME NAME=\"T_Thing\"/></LOCALCLASSPATH></METHODCALL></SIMPLEREQ></MESSAGE></CIM>";
    let calling = |object: &str| {
        let headers = HEADERS
            .replace("EnumerateClassNames", "Add")
            .replace("root%2Ftest", object);
        post(&headers, call.as_bytes())
    };
    #[rustfmt::skip]
    let rows = vec![
        // §6.3.3, §6.3.4: which operation.
        ("no CIMOperation", with("CIMOperation", ""), OPERATION),
        ("an empty CIMOperation", with("CIMOperation", "CIMOperation:"), OPERATION),
        ("a response", with("CIMOperation", "CIMOperation: MethodResponse"), OPERATION),
        ("in other case", with("CIMOperation", "cimoperation: METHODCALL"), FINE),
        ("an export", with("CIMOperation", "CIMExport: MethodRequest\r\nCIMExportMethod: ExportIndication"), OPERATION),
        ("two that agree", more("CIMOperation: MethodCall"), MISMATCH),
        ("two that differ", more("CIMOperation: Other"), MISMATCH),
        // §6.3.5.
        ("protocol 1.0", more("CIMProtocolVersion: 1.0"), FINE),
        ("another than the message's", more("CIMProtocolVersion: 1.2"), MISMATCH),
        ("protocol 2", more("CIMProtocolVersion: 2.0"), protocol),
        ("an empty protocol", more("CIMProtocolVersion:"), protocol),
        // §6.3.6.
        ("no CIMMethod", with("CIMMethod", ""), MISMATCH),
        ("an empty CIMMethod", with("CIMMethod", "CIMMethod:"), MISMATCH),
        ("another CIMMethod", with("CIMMethod", "CIMMethod: DeleteClass"), MISMATCH),
        ("an escaped CIMMethod", with("CIMMethod", "CIMMethod: Enumerate%43lassNames"), FINE),
        ("half an escape", with("CIMMethod", "CIMMethod: EnumerateClassNames%4"), MISMATCH),
        ("an escape that is none", with("CIMMethod", "CIMMethod: EnumerateClassNames%zz"), MISMATCH),
        ("an escape that is no UTF-8", with("CIMMethod", "CIMMethod: EnumerateClassNames%FF"), MISMATCH),
        ("two CIMMethod that agree", more(method), MISMATCH),
        ("two CIMMethod that differ", more("CIMMethod: DeleteClass"), MISMATCH),
        // §6.3.7.
        ("no CIMObject", with("CIMObject", ""), MISMATCH),
        ("an empty CIMObject", with("CIMObject", "CIMObject:"), MISMATCH),
        ("another namespace", with("CIMObject", "CIMObject: root/other"), MISMATCH),
        ("a class as well", with("CIMObject", "CIMObject: root/test:T_Base"), MISMATCH),
        ("backslashes", with("CIMObject", "CIMObject: ROOT\\test"), FINE),
        ("two CIMObject that differ", more("CIMObject: root/other"), MISMATCH),
        ("a namespace for a method", calling("root%2Ftest"), MISMATCH),
        ("another class for a method", calling("root%2Ftest%3AT_Base"), MISMATCH),
        ("no path for a method", calling("%3A%3A"), MISMATCH),
        // §6.3.9, §6.3.10.
        ("a batch", more("CIMBatch:"), several),
        ("a batch of exports", with("CIMOperation", "CIMExportBatch:"), OPERATION),
        // Headers before the body: what is wrong with it is not told.
        ("both wrong", post(&HEADERS.replace("MethodCall", "Other"), b"<"), OPERATION),
        ("a body that cannot be read", post(&HEADERS.replace("EnumerateClassNames", "Other"), b"<"), ILL),
    ];
    check(&server, rows).await;
    // As in Latin-1: a byte that is no UTF-8.
    let mut bytes = with("CIMObject", "CIMObject: root/test#");
    let at = bytes.iter().position(|byte| *byte == b'#').expect("there");
    bytes[at] = 0xe9;
    check(&server, vec![("Latin-1", bytes, MISMATCH)]).await;
    server.stop().await;
}

/// Request lines, lengths and codings (RFC 9110, RFC 9112; DSP0200 §7.2).
#[tokio::test]
async fn messages() {
    let server = Running::start(Config {
        max_body: 4000,
        body_timeout: Duration::from_millis(500),
        ..Config::default()
    })
    .await;
    let body = good();
    let length = body.len();
    let head = |line: &str, headers: &str| format!("{line}\r\n{HEADERS}{headers}\r\n").into_bytes();
    let line = "POST /cimom HTTP/1.1";
    let framed = |headers: &str| {
        [
            head(line, &format!("{headers}\r\n")),
            body.clone().into_bytes(),
        ]
        .concat()
    };
    let chunked =
        |content: &str| [head(line, "Transfer-Encoding: chunked\r\n"), content.into()].concat();
    let chunks = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
    let not_allowed = (405, None);
    // RFC 9110 §15.5.9: what is still to come does not.
    let late = (408, None);
    let asked = |line: &str| {
        [
            head(line, &format!("Content-Length: {length}\r\n")),
            body.clone().into_bytes(),
        ]
        .concat()
    };
    #[rustfmt::skip]
    let rows = vec![
        // RFC 9112 §3: the request line.
        ("another path", asked("POST /wrong/path?x=%zz HTTP/1.1"), FINE),
        ("the root", asked("POST / HTTP/1.1"), FINE),
        ("a whole URL", asked("POST http://here/cimom HTTP/1.1"), FINE),
        ("HTTP/1.0", asked("POST /cimom HTTP/1.0"), FINE),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), CLOSED),
        ("HTTP/9.9", asked("POST /cimom HTTP/9.9"), BAD),
        ("no version", asked("POST /cimom"), BAD),
        ("no target", asked("POST HTTP/1.1"), BAD),
        ("no HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), BAD),
        ("a long path", asked(&format!("POST /{} HTTP/1.1", "x".repeat(100_000))), (414, None)),
        // DSP0200 §6.2: POST and M-POST.
        ("GET", asked("GET /cimom HTTP/1.1"), not_allowed),
        ("PUT", asked("PUT /cimom HTTP/1.1"), not_allowed),
        ("DELETE", asked("DELETE /cimom HTTP/1.1"), not_allowed),
        ("PATCH", asked("PATCH /cimom HTTP/1.1"), not_allowed),
        ("TRACE", asked("TRACE /cimom HTTP/1.1"), not_allowed),
        ("a method of nobody", asked("CIM /cimom HTTP/1.1"), not_allowed),
        ("POST in small letters", asked("post /cimom HTTP/1.1"), not_allowed),
        ("M-POST without Man", asked("M-POST /cimom HTTP/1.1"), (510, None)),
        // RFC 9112 §5: header lines.
        ("a blank before the colon", more("X-Header : 1"), BAD),
        ("a line that is folded", more("X-Header: 1\r\n 2"), BAD),
        ("a header without a name", more(": 1"), BAD),
        ("a NUL in a header", more("X-Header: \0"), BAD),
        ("many headers", more((0..200).map(|n| format!("X-{n}: 1\r\n")).collect::<String>().trim_end()), (431, None)),
        // RFC 9112 §3.2: exactly one Host, but for HTTP/1.0.
        ("no Host", with("Host", ""), BAD),
        ("two Hosts", more("Host: there"), BAD),
        ("no Host in HTTP/1.0", String::from_utf8(with("Host", "")).expect("text").replace("HTTP/1.1", "HTTP/1.0").into(), FINE),
        // RFC 9110 §8.6, RFC 9112 §6: how long the body is.
        ("no length", framed("X: 1"), ILL),
        ("a length of words", framed("Content-Length: many"), BAD),
        ("a negative length", framed("Content-Length: -1"), BAD),
        ("a length with a sign", framed(&format!("Content-Length: +{length}")), BAD),
        ("an empty length", framed("Content-Length:"), BAD),
        ("a length beyond numbers", framed("Content-Length: 99999999999999999999999"), BAD),
        ("a large length", framed("Content-Length: 18446744073709551610"), LARGE),
        ("two lengths that differ", framed(&format!("Content-Length: {length}\r\nContent-Length: 1")), BAD),
        ("a list of lengths", framed(&format!("Content-Length: {length}, 1")), BAD),
        ("a length of zero", framed("Content-Length: 0"), ILL),
        ("one byte too few", framed(&format!("Content-Length: {}", length - 1)), ILL),
        ("one byte too many", framed(&format!("Content-Length: {}", length + 1)), late),
        ("too large", post(HEADERS, format!("{body}{}", " ".repeat(4000)).as_bytes()), LARGE),
        ("chunks", chunked(&chunks), FINE),
        ("chunks of one byte", chunked(&(body.chars().map(|c| format!("1\r\n{c}\r\n")).collect::<String>() + "0\r\n\r\n")), FINE),
        // RFC 9112 §6.3: the length does not count then, and nothing follows.
        ("chunks and a length", [head(line, &format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n")), chunks.clone().into()].concat(), FINE),
        ("a length and chunks", [head(line, &format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n")), chunks.clone().into()].concat(), FINE),
        ("too large in chunks", chunked(&format!("1000\r\n{}\r\n0\r\n\r\n", " ".repeat(0x1000))), LARGE),
        ("no chunk's length", chunked(&format!("\r\n{body}\r\n0\r\n\r\n")), BAD),
        ("a chunk's length of words", chunked(&format!("many\r\n{body}\r\n0\r\n\r\n")), BAD),
        ("a chunk that is longer", chunked(&format!("{:x}\r\n{body}\r\n0\r\n\r\n", length - 1)), BAD),
        ("a chunk that is shorter", chunked(&format!("{:x}\r\n{body}\r\n0\r\n\r\n", length + 9)), late),
        ("no last chunk", chunked(&format!("{length:x}\r\n{body}\r\n")), late),
        ("another coding", framed("Transfer-Encoding: gzip"), BAD),
        ("chunks within another coding", framed("Transfer-Encoding: chunked, gzip"), BAD),
    ];
    check(&server, rows).await;
    server.stop().await;
}

/// A request that ends anywhere is refused or gets no answer; none is carried out.
#[tokio::test]
async fn what_ends_early() {
    let server = Running::start(Config::default()).await;
    let body = good();
    // The message: as much of it as is there, with its length.
    for end in 0..body.len() {
        let response = exchange(&server, &post(HEADERS, &body.as_bytes()[..end])).await;
        assert_eq!(status(&response), Some(400), "{end}: {response}");
        assert_eq!(header(&response, "CIMError"), ILL.1, "{end}: {response}");
    }
    // The connection: the length is that of the whole.
    let whole = post(HEADERS, body.as_bytes());
    for end in 0..whole.len() {
        let mut stream = TcpStream::connect(server.address).await.expect("connect");
        stream.write_all(&whole[..end]).await.expect("sent");
        stream.shutdown().await.expect("ended");
        let response = response(&mut stream).await;
        assert!(
            [None, Some(400)].contains(&status(&response)),
            "{end}: {response}"
        );
        assert_eq!(header(&response, "CIMError"), None, "{end}: {response}");
    }
    assert_eq!(status(&exchange(&server, &whole).await), Some(200));
    server.stop().await;
}

/// What can be read and means nothing has a CIM status (DSP0200 §5.4, "Errors").
#[tokio::test]
async fn calls() {
    let server = Running::start(Config::default()).await;
    let argument =
        |name: &str, xml: &str| format!("<IPARAMVALUE NAME=\"{name}\">{xml}</IPARAMVALUE>");
    let class = argument("ClassName", "<CLASSNAME NAME=\"T_Thing\"/>");
    let key = |xml: &str| {
        argument(
            "InstanceName",
            &format!("<INSTANCENAME CLASSNAME=\"T_Thing\">{xml}</INSTANCENAME>"),
        )
    };
    let binding = "<KEYBINDING NAME=\"Name\"><KEYVALUE>x</KEYVALUE></KEYBINDING>";
    #[rustfmt::skip]
    let rows = [
        ("no such operation", "root/test", "Enumerate", String::new(), 7),
        ("no such namespace", "root/none", "EnumerateClassNames", String::new(), 3),
        ("no parameter of that name", "root/test", "EnumerateClassNames", argument("X", ""), 4),
        ("a parameter twice", "root/test", "EnumerateInstances", class.repeat(2), 4),
        ("a parameter too few", "root/test", "GetClass", String::new(), 4),
        ("a class where a flag stands", "root/test", "EnumerateClassNames", argument("DeepInheritance", "<CLASSNAME NAME=\"T\"/>"), 4),
        ("a flag of words", "root/test", "EnumerateClassNames", argument("DeepInheritance", "<VALUE>maybe</VALUE>"), 4),
        ("a number of words", "root/test", "OpenEnumerateInstances", class.clone() + &argument("MaxObjectCount", "<VALUE>few</VALUE>"), 4),
        ("a number too large", "root/test", "OpenEnumerateInstances", class.clone() + &argument("MaxObjectCount", "<VALUE>4294967296</VALUE>"), 4),
        ("no such class", "root/test", "EnumerateInstances", argument("ClassName", "<CLASSNAME NAME=\"T_None\"/>"), 5),
        ("no such instance", "root/test", "GetInstance", key(binding), 6),
        ("a key twice", "root/test", "GetInstance", key(&binding.repeat(2)), 4),
        ("a key that is no number", "root/test", "GetInstance", key("<KEYBINDING NAME=\"Name\"><KEYVALUE TYPE=\"uint8\">x</KEYVALUE></KEYBINDING>"), 4),
        ("a key beyond all numbers", "root/test", "GetInstance", key("<KEYBINDING NAME=\"Name\"><KEYVALUE VALUETYPE=\"numeric\">1e999</KEYVALUE></KEYBINDING>"), 4),
        ("a key that is not a number", "root/test", "GetInstance", key("<KEYBINDING NAME=\"Name\"><KEYVALUE TYPE=\"real32\">NaN</KEYVALUE></KEYBINDING>"), 4),
        ("no such context", "root/test", "PullInstances", argument("EnumerationContext", "<VALUE>x</VALUE>") + &argument("MaxObjectCount", "<VALUE>1</VALUE>"), 21),
        ("no such query language", "root/test", "ExecQuery", argument("QueryLanguage", "<VALUE>SQL</VALUE>") + &argument("Query", "<VALUE>SELECT 1</VALUE>"), 14),
        ("no query", "root/test", "ExecQuery", argument("QueryLanguage", "<VALUE>WQL</VALUE>") + &argument("Query", "<VALUE>SELECT</VALUE>"), 15),
    ];
    for (name, namespace, method, parameters, code) in rows {
        let headers = HEADERS
            .replace("EnumerateClassNames", method)
            .replace("root%2Ftest", namespace);
        let response = exchange(
            &server,
            &post(&headers, wrap(namespace, method, &parameters).as_bytes()),
        )
        .await;
        assert_eq!(status(&response), Some(200), "{name}: {response}");
        let told = format!("<ERROR CODE=\"{code}\" DESCRIPTION=\"");
        assert!(response.contains(&told), "{name}: {response}");
        assert!(!response.contains("<IRETURNVALUE"), "{name}: {response}");
    }
    server.stop().await;
}

/// Who sends slowly loses the connection, also where something always comes.
#[tokio::test]
async fn slow_clients() {
    let server = Running::start(Config {
        header_timeout: Duration::from_millis(300),
        body_timeout: Duration::from_millis(300),
        ..Config::default()
    })
    .await;
    let whole = post(HEADERS, good().as_bytes());
    let body = whole.len() - good().len();
    for (sent, expected) in [(20, None), (body - 1, None), (body + 10, Some(408))] {
        let mut stream = TcpStream::connect(server.address).await.expect("connect");
        stream.write_all(&whole[..sent]).await.expect("sent");
        // A byte at a time, which alone would keep it open for good.
        let (mut from, mut into) = stream.split();
        let dripping = async {
            for byte in whole[sent..].iter().cycle().take(4000) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                // A blank of a header's value, or of the body.
                let byte = if sent < body { b'x' } else { *byte };
                if into.write_all(&[byte]).await.is_err() {
                    break;
                }
            }
        };
        let response = tokio::select! {
            response = response(&mut from) => response,
            () = dripping => panic!("it was not closed after {sent} bytes"),
        };
        assert_eq!(status(&response), expected, "{sent}: {response}");
    }
    // Everyone else is served.
    let rows = vec![
        ("whole", whole, FINE),
        ("invalid", post(HEADERS, b"<A/>"), INVALID),
    ];
    check(&server, rows).await;
    server.stop().await;
}
