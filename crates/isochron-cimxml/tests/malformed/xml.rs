//! Messages that are malformed: their encoding, their entities, their elements.

use std::time::Duration;

use isochron_cimxml::Config;
use tokio::net::TcpListener;

use crate::common::Running;
use crate::{
    Expected, FINE, HEADERS, ILL, INVALID, LARGE, MEDIA, check, exchange, good, post, status,
};

fn utf16(text: &str, big: bool, mark: bool) -> Vec<u8> {
    let units = mark
        .then_some(0xfeff)
        .into_iter()
        .chain(text.encode_utf16());
    let bytes = |unit: u16| {
        if big {
            unit.to_be_bytes()
        } else {
            unit.to_le_bytes()
        }
    };
    units.flat_map(bytes).collect()
}

/// The body's encoding: UTF-8, and said to be (DSP0200 §7.2, XML 1.0 §4.3.3).
#[tokio::test]
async fn encodings() {
    let server = Running::start(Config::default()).await;
    let body = good();
    let within = |bytes: &[u8]| {
        let (before, after) = body.split_once("</IMETHODCALL>").expect("a call");
        let parameter = b"<IPARAMVALUE NAME=\"X\"><VALUE>".to_vec();
        let end = b"</VALUE></IPARAMVALUE></IMETHODCALL>".to_vec();
        [before.as_bytes(), &parameter, bytes, &end, after.as_bytes()].concat()
    };
    let sent = |body: Vec<u8>| post(HEADERS, &body);
    let typed = |value: &str, body: &[u8]| {
        let headers = HEADERS.replace("application/xml; charset=\"utf-8\"", value);
        post(&headers, body)
    };
    let text = body.as_bytes();
    let no_utf8: [(&str, &[u8]); 6] = [
        ("a byte that is never in UTF-8", b"\xff"),
        ("Latin-1", b"caf\xe9"),
        ("a continuation byte alone", b"\x80"),
        ("an overlong NUL", b"\xc0\x80"),
        ("a surrogate", b"\xed\xa0\x80"),
        ("half a character", b"\xe2\x82"),
    ];
    let mut rows: Vec<(&str, Vec<u8>, Expected)> = no_utf8
        .into_iter()
        .map(|(name, bytes)| (name, sent(within(bytes)), ILL))
        .collect();
    let utf16_declared = body.replace("utf-8", "utf-16");
    #[rustfmt::skip]
    rows.extend([
        ("a NUL", sent(within(b"\0")), ILL),
        ("an escape character", sent(within(b"\x1b")), ILL),
        ("U+FFFE", sent(within("\u{fffe}".as_bytes())), ILL),
        ("UTF-16, little end first", sent(utf16(&utf16_declared, false, true)), ILL),
        ("UTF-16, big end first", sent(utf16(&utf16_declared, true, true)), ILL),
        ("UTF-16 without a mark", sent(utf16(&utf16_declared, false, false)), ILL),
        ("UTF-16 without a mark, big", sent(utf16(&body, true, false)), ILL),
        ("UTF-32", sent(body.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect()), ILL),
        ("UTF-16 that is said to be", typed("text/xml; charset=utf-16", &utf16(&body, true, true)), MEDIA),
        ("another encoding is declared", sent(utf16_declared.clone().into_bytes()), ILL),
        ("one that there is not is declared", sent(body.replace("utf-8", "x").into_bytes()), ILL),
        ("a byte order mark", sent([b"\xef\xbb\xbf", text].concat()), FINE),
        ("two byte order marks", sent([b"\xef\xbb\xbf\xef\xbb\xbf", text].concat()), ILL),
        ("UTF-8 in capitals", sent(body.replace("utf-8", "UTF-8").into_bytes()), FINE),
        ("no declaration", sent(body[body.find("<CIM").expect("a root")..].into()), FINE),
        ("XML 1.1, which is read as 1.0", sent(body.replace("version=\"1.0\" e", "version=\"1.1\" e").into_bytes()), FINE),
        ("XML 2.0", sent(body.replace("version=\"1.0\" e", "version=\"2.0\" e").into_bytes()), ILL),
        ("two charsets", typed("application/xml; charset=utf-8; charset=utf-16", text), MEDIA),
        ("no media type", post(&HEADERS.replace("Content-Type", "X"), text), MEDIA),
        ("another media type", typed("application/json", text), MEDIA),
        ("a form", typed("application/x-www-form-urlencoded", text), MEDIA),
        ("another charset", typed("application/xml; charset=iso-8859-1", text), MEDIA),
        ("no charset", typed("text/xml", text), FINE),
        ("a charset in capitals", typed("Application/XML ; Charset=UTF-8", text), FINE),
        ("an empty media type", typed("", text), MEDIA),
        ("two media types", post(&format!("Content-Type: text/plain\r\n{HEADERS}"), text), MEDIA),
        ("two that agree, then not", post(&format!("{HEADERS}Content-Type: text/plain\r\n"), text), MEDIA),
        ("compressed", post(&format!("{HEADERS}Content-Encoding: gzip\r\n"), text), MEDIA),
        ("not compressed, and said so", post(&format!("{HEADERS}Content-Encoding: identity\r\n"), text), FINE),
    ]);
    check(&server, rows).await;
    server.stop().await;
}

/// What a document type declaration can do, it does not do here: nothing is expanded,
/// nothing fetched (DSP0201 §5: documents need none).
#[tokio::test]
async fn entities_and_document_types() {
    let server = Running::start(Config::default()).await;
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let url = format!(
        "http://{}/cim.dtd",
        elsewhere.local_addr().expect("an address")
    );
    let body = good();
    let typed = |doctype: &str| body.replace("<CIM ", &format!("{doctype}<CIM "));
    let with = |doctype: &str, value: &str| {
        let parameter = format!("<IPARAMVALUE NAME=\"X\"><VALUE>{value}</VALUE></IPARAMVALUE>");
        typed(doctype).replace("</IMETHODCALL>", &format!("{parameter}</IMETHODCALL>"))
    };
    let mut laughs = String::from("<!DOCTYPE CIM [<!ENTITY a0 \"ha\">");
    for n in 1..20 {
        let many = format!("&a{};", n - 1).repeat(10);
        laughs.push_str(&format!("<!ENTITY a{n} \"{many}\">"));
    }
    laughs.push_str("]>");
    #[rustfmt::skip]
    let rows = [
        ("a system identifier", typed(&format!("<!DOCTYPE CIM SYSTEM \"{url}\">")), FINE),
        ("a public identifier", typed(&format!("<!DOCTYPE CIM PUBLIC \"-//x\" \"{url}\">")), FINE),
        ("entities that nobody uses", typed(&laughs), FINE),
        ("entities within entities", with(&laughs, "&a19;"), ILL),
        ("an entity", with("<!DOCTYPE CIM [<!ENTITY e \"v\">]>", "&e;"), ILL),
        ("one in an attribute", typed("<!DOCTYPE CIM [<!ENTITY e \"42\">]>").replace("\"42\"", "\"&e;\""), ILL),
        ("one of itself", with("<!DOCTYPE CIM [<!ENTITY e \"&e;\">]>", "&e;"), ILL),
        ("a file", with("<!DOCTYPE CIM [<!ENTITY e SYSTEM \"file:///etc/passwd\">]>", "&e;"), ILL),
        ("a web page", with(&format!("<!DOCTYPE CIM [<!ENTITY e SYSTEM \"{url}\">]>"), "&e;"), ILL),
        ("a parameter entity", typed(&format!("<!DOCTYPE CIM [<!ENTITY % p SYSTEM \"{url}\"> %p;]>")), FINE),
        ("one that nobody declared", with("", "&nbsp;"), ILL),
        ("no character", with("", "&#0;"), ILL),
        ("a surrogate by its number", with("", "&#xD800;"), ILL),
        ("beyond Unicode", with("", "&#x110000;"), ILL),
        ("a number that is none", with("", "&#x;"), ILL),
        ("a reference without its end", with("", "&lt"), ILL),
        ("a type without its end", typed("<!DOCTYPE CIM ["), ILL),
        ("two types", typed("<!DOCTYPE CIM><!DOCTYPE CIM>"), ILL),
        ("a type after the root", format!("{body}<!DOCTYPE CIM>"), ILL),
        ("a type within the root", body.replace("<MESSAGE", "<!DOCTYPE CIM><MESSAGE"), ILL),
        ("a default for an attribute", typed("<!DOCTYPE CIM [<!ATTLIST MESSAGE ID CDATA \"1\">]>").replace("ID=\"42\" ", ""), INVALID),
        ("a stylesheet", body.replace("<CIM ", &format!("<?xml-stylesheet href=\"{url}\"?><CIM ")), FINE),
        ("an inclusion", with("", &format!("<xi:include xmlns:xi=\"http://www.w3.org/2001/XInclude\" href=\"{url}\"/>")), INVALID),
    ];
    let rows = rows.map(|(name, body, expected)| (name, post(HEADERS, body.as_bytes()), expected));
    check(&server, rows.into()).await;
    let fetched = tokio::time::timeout(Duration::from_millis(50), elsewhere.accept()).await;
    assert!(fetched.is_err(), "nothing is fetched");
    server.stop().await;
}

/// DSP0201's message elements, attributes and versions.
#[tokio::test]
async fn documents() {
    let server = Running::start(Config::default()).await;
    let body = good();
    let instead = |old: &str, new: &str| {
        assert!(body.contains(old), "{old}");
        body.replace(old, new)
    };
    let versions = |attribute: &str, given: &str| {
        let start =
            body.find(&format!("{attribute}=\"")).expect("an attribute") + attribute.len() + 2;
        format!("{}{given}{}", &body[..start], &body[start + 3..])
    };
    let cim = (501, Some("unsupported-cim-version"));
    let dtd = (501, Some("unsupported-dtd-version"));
    let protocol = (501, Some("unsupported-protocol-version"));
    let several = (501, Some("multiple-requests-unsupported"));
    let call = &body
        [body.find("<IMETHODCALL").expect("a call")..body.find("</SIMPLEREQ>").expect("its end")];
    let path = "<LOCALNAMESPACEPATH><NAMESPACE NAME=\"root\"/><NAMESPACE NAME=\"test\"/></LOCALNAMESPACEPATH>";
    let parameter = |xml: &str| instead("</IMETHODCALL>", &format!("{xml}</IMETHODCALL>"));
    let levels = |depth: usize, open: &str, close: &str| {
        parameter(&format!(
            "<IPARAMVALUE NAME=\"X\">{}{}</IPARAMVALUE>",
            open.repeat(depth),
            close.repeat(depth)
        ))
    };
    let attributes = |count: usize| {
        let many: String = (0..count).map(|n| format!(" a{n}=\"\"")).collect();
        instead("<MESSAGE ", &format!("<MESSAGE{many} "))
    };
    #[rustfmt::skip]
    let rows = vec![
        // Nothing, or no XML.
        ("nothing", String::new(), ILL),
        ("blanks", "  \r\n".into(), ILL),
        ("no XML", "{\"jsonrpc\": \"2.0\"}".into(), ILL),
        ("HTML that is not XML", "<html><body><br></body></html>".into(), ILL),
        ("XML of something else", "<html/>".into(), INVALID),
        ("SOAP", "<s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\"/>".into(), INVALID),
        ("blanks before the declaration", format!(" {body}"), ILL),
        ("two roots", format!("{body}{}", &body[body.find("<CIM").expect("a root")..]), ILL),
        ("text after the root", format!("{body}x"), ILL),
        ("a comment after the root", format!("{body}<!-- x -->\r\n"), FINE),
        ("a comment with two hyphens", instead("<CIM ", "<!-- a -- b --><CIM "), ILL),
        ("a comment without its end", format!("{body}<!-- x"), ILL),
        ("other case in an end tag", instead("</CIM>", "</cim>"), ILL),
        ("tags that cross", instead("</IMETHODCALL></SIMPLEREQ>", "</SIMPLEREQ></IMETHODCALL>"), ILL),
        ("a section without its end", parameter("<IPARAMVALUE NAME=\"X\"><VALUE><![CDATA[x</VALUE></IPARAMVALUE>"), ILL),
        // XML 1.0 §3.1: attributes.
        ("an attribute twice", instead("ID=\"42\"", "ID=\"42\" ID=\"42\""), ILL),
        ("an attribute without quotes", instead("ID=\"42\"", "ID=42"), ILL),
        ("an attribute without a value", instead("ID=\"42\"", "ID"), ILL),
        ("a less-than in an attribute", instead("ID=\"42\"", "ID=\"<\""), ILL),
        ("attributes without a blank", instead("ID=\"42\" ", "ID=\"42\""), ILL),
        ("an attribute that nobody knows", instead("ID=\"42\"", "ID=\"42\" X=\"\""), FINE),
        // Limits of this server.
        ("many attributes", attributes(33), LARGE),
        ("so many attributes", attributes(20), FINE),
        ("deep elements", levels(100, "<A>", "</A>"), LARGE),
        ("deep references", levels(30, "<VALUE.REFERENCE><INSTANCENAME CLASSNAME=\"C\"><KEYBINDING NAME=\"K\">", "</KEYBINDING></INSTANCENAME></VALUE.REFERENCE>"), LARGE),
        ("many elements", parameter(&format!("<IPARAMVALUE NAME=\"X\"><VALUE.ARRAY>{}</VALUE.ARRAY></IPARAMVALUE>", "<VALUE/>".repeat(1_000_000))), LARGE),
        // DSP0201 §5.2.2.1: versions.
        ("no CIMVERSION", instead(" CIMVERSION=\"2.0\"", ""), INVALID),
        ("no DTDVERSION", instead(" DTDVERSION=\"2.0\"", ""), INVALID),
        ("no PROTOCOLVERSION", instead(" PROTOCOLVERSION=\"1.0\"", ""), INVALID),
        ("no ID", instead(" ID=\"42\"", ""), INVALID),
        ("CIM 1", versions("CIMVERSION", "1.0"), cim),
        ("CIM 3", versions("CIMVERSION", "3.0"), cim),
        ("CIM 20", versions("CIMVERSION", "20.0"), cim),
        ("CIM 2.8", versions("CIMVERSION", "2.8"), FINE),
        ("CIM of words", versions("CIMVERSION", "two"), cim),
        ("CIM 2.x", versions("CIMVERSION", "2.x"), cim),
        ("an empty CIMVERSION", versions("CIMVERSION", ""), INVALID),
        ("DTD 1", versions("DTDVERSION", "1.0"), dtd),
        ("DTD 3", versions("DTDVERSION", "3.0"), dtd),
        ("DTD 2.4.0", versions("DTDVERSION", "2.4.0"), FINE),
        ("DTD 2.", versions("DTDVERSION", "2."), dtd),
        ("DTD -2", versions("DTDVERSION", "-2.0"), dtd),
        ("protocol 2", versions("PROTOCOLVERSION", "2.0"), protocol),
        ("protocol 0", versions("PROTOCOLVERSION", "0.9"), protocol),
        ("protocol 1.4", versions("PROTOCOLVERSION", "1.4"), FINE),
        ("a protocol of words", versions("PROTOCOLVERSION", "1;1"), protocol),
        // DSP0201 §5.2.6: one simple request, whose parts are known.
        ("MULTIREQ", instead("SIMPLEREQ", "MULTIREQ"), several),
        ("MULTIEXPREQ", instead("SIMPLEREQ", "MULTIEXPREQ"), several),
        ("two SIMPLEREQ", instead("</SIMPLEREQ>", &format!("</SIMPLEREQ><SIMPLEREQ>{call}</SIMPLEREQ>")), INVALID),
        ("two calls in one", instead("</SIMPLEREQ>", &format!("{call}</SIMPLEREQ>")), INVALID),
        ("two MESSAGE", instead("</MESSAGE>", "</MESSAGE><MESSAGE ID=\"1\" PROTOCOLVERSION=\"1.0\"/>"), INVALID),
        ("a second one after a bad value", parameter("<IPARAMVALUE NAME=\"X\"/><IPARAMVALUE NAME=\"x\"/>").replace("</SIMPLEREQ>", "</SIMPLEREQ><SIMPLEREQ/>"), INVALID),
        ("a declaration beside", instead("</MESSAGE>", "</MESSAGE><DECLARATION/>"), INVALID),
        ("text after MESSAGE", instead("</MESSAGE>", "</MESSAGE>x"), INVALID),
        ("a response", instead("SIMPLEREQ", "SIMPLERSP"), INVALID),
        ("an indication", instead("SIMPLEREQ", "SIMPLEEXPREQ"), INVALID),
        ("an export call", instead("IMETHODCALL", "EXPMETHODCALL"), INVALID),
        ("no MESSAGE", "<CIM CIMVERSION=\"2.0\" DTDVERSION=\"2.0\"/>".into(), INVALID),
        ("an empty MESSAGE", instead(&body[body.find("<SIMPLEREQ").expect("it")..body.find("</MESSAGE").expect("it")], ""), INVALID),
        ("an empty SIMPLEREQ", instead(call, ""), INVALID),
        ("an unknown element in CIM", instead("<MESSAGE ", "<X/><MESSAGE "), INVALID),
        ("an unknown element in MESSAGE", instead("<SIMPLEREQ>", "<X/><SIMPLEREQ>"), INVALID),
        ("an unknown element in the call", parameter("<X/>"), INVALID),
        ("an unknown element as a value", parameter("<IPARAMVALUE NAME=\"X\"><X/></IPARAMVALUE>"), INVALID),
        ("two values", parameter("<IPARAMVALUE NAME=\"X\"><VALUE/><VALUE/></IPARAMVALUE>"), INVALID),
        ("an element in a text", parameter("<IPARAMVALUE NAME=\"X\"><VALUE><B/></VALUE></IPARAMVALUE>"), INVALID),
        ("text between elements", instead("<SIMPLEREQ>", "<SIMPLEREQ>x"), INVALID),
        ("no method's name", instead(" NAME=\"EnumerateClassNames\"", ""), INVALID),
        ("an empty method's name", instead("NAME=\"EnumerateClassNames\"", "NAME=\"\""), INVALID),
        ("no parameter's name", parameter("<IPARAMVALUE><VALUE/></IPARAMVALUE>"), INVALID),
        ("no namespace", instead(path, ""), INVALID),
        ("an empty namespace path", instead(path, "<LOCALNAMESPACEPATH/>"), INVALID),
        ("no namespace's name", instead("<NAMESPACE NAME=\"root\"/>", "<NAMESPACE/>"), INVALID),
        ("two namespace paths", instead(path, &path.repeat(2)), INVALID),
        ("a namespace path with a host", instead(path, &format!("<NAMESPACEPATH><HOST>h</HOST>{path}</NAMESPACEPATH>")), INVALID),
        ("an extrinsic call's parameter", parameter("<PARAMVALUE NAME=\"X\"/>"), INVALID),
        ("an instance without a class", parameter("<IPARAMVALUE NAME=\"X\"><INSTANCE/></IPARAMVALUE>"), INVALID),
        ("a flag that is none", parameter("<IPARAMVALUE NAME=\"X\"><CLASS NAME=\"C\"><QUALIFIER NAME=\"Q\" TYPE=\"string\" TOSUBCLASS=\"yes\"/></CLASS></IPARAMVALUE>"), INVALID),
        ("an instance name without a class", parameter("<IPARAMVALUE NAME=\"X\"><INSTANCENAME/></IPARAMVALUE>"), INVALID),
        ("a key without a value", parameter("<IPARAMVALUE NAME=\"X\"><INSTANCENAME CLASSNAME=\"C\"><KEYBINDING NAME=\"K\"/></INSTANCENAME></IPARAMVALUE>"), INVALID),
        ("a property without a type", parameter("<IPARAMVALUE NAME=\"X\"><INSTANCE CLASSNAME=\"C\"><PROPERTY NAME=\"P\"/></INSTANCE></IPARAMVALUE>"), INVALID),
        // Other case is another name in XML.
        ("elements in small letters", instead("SIMPLEREQ", "simplereq"), INVALID),
        ("attributes in small letters", instead(" ID=", " id="), INVALID),
        ("a prefix", instead("SIMPLEREQ", "c:SIMPLEREQ"), FINE),
    ];
    let rows = rows.into_iter();
    let rows = rows.map(|(name, body, expected)| (name, post(HEADERS, body.as_bytes()), expected));
    check(&server, rows.collect()).await;
    server.stop().await;
}

/// The limits are those that the server is given, and the stack is enough for as many
/// levels as it may be given.
#[tokio::test(flavor = "multi_thread")]
async fn limits_of_the_configuration() {
    let server = Running::start(Config {
        max_depth: 256,
        max_elements: 400,
        ..Config::default()
    })
    .await;
    let parameter = |xml: &str| {
        let parameter = format!("<IPARAMVALUE NAME=\"X\">{xml}</IPARAMVALUE></IMETHODCALL>");
        good().replace("</IMETHODCALL>", &parameter)
    };
    let references = |levels: usize| {
        let open = "<VALUE.REFERENCE><INSTANCENAME CLASSNAME=\"C\"><KEYBINDING NAME=\"K\">";
        let close = "</KEYBINDING></INSTANCENAME></VALUE.REFERENCE>";
        let inner = "<KEYVALUE>1</KEYVALUE>";
        parameter(&format!(
            "{}{inner}{}",
            open.repeat(levels),
            close.repeat(levels)
        ))
    };
    let texts = |count: usize| {
        parameter(&format!(
            "<VALUE.ARRAY>{}</VALUE.ARRAY>",
            "<VALUE/>".repeat(count)
        ))
    };
    // What can be read is no parameter of this operation, which is the call's error.
    for (body, code) in [
        (references(83), 200),
        (references(84), 413),
        (texts(380), 200),
        (texts(400), 413),
    ] {
        let response = exchange(&server, &post(HEADERS, body.as_bytes())).await;
        assert_eq!(status(&response), Some(code), "{response}");
        assert_eq!(code == 200, response.contains("CODE=\"4\""), "{response}");
    }
    server.stop().await;
}
