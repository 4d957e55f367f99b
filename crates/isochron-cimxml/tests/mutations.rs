//! Damaged requests: whatever a client sends, the answer is an error or a
//! response, never a panic. Seeded, so that a failure comes again.

#![allow(clippy::expect_used)] // A test fails by panicking.

mod common;

use std::sync::Arc;

use common::{NAMESPACE, TestServer, wrap};
use futures::TryStreamExt;
use isochron_cim::{EnumerationLimits, Principal, Role};
use isochron_cimxml::decode::{Call, Limits, request};
use isochron_cimxml::operations::{Answer, Operations};
use isochron_cimxml::{decode_embedded, encode};

/// xorshift64*, enough to choose damage.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(mixed).unwrap_or(0) % bound.max(1)
    }
}

fn seeds() -> Vec<String> {
    let name = r#"<INSTANCENAME CLASSNAME="T_Thing"><KEYBINDING NAME="Name"><KEYVALUE VALUETYPE="string">one</KEYVALUE></KEYBINDING></INSTANCENAME>"#;
    let server = TestServer::new();
    let mut instance = String::new();
    encode::instance(&mut instance, &server.instances.lock().expect("lock")[0]);
    let mut class = String::new();
    encode::class(&mut class, &server.classes[1]);
    let embedded = instance.replace('&', "&amp;").replace('<', "&lt;");
    let argument =
        |name: &str, xml: &str| format!("<IPARAMVALUE NAME=\"{name}\">{xml}</IPARAMVALUE>");
    vec![
        wrap(
            NAMESPACE,
            "EnumerateClassNames",
            &argument("DeepInheritance", "<VALUE>true</VALUE>"),
        ),
        wrap(
            NAMESPACE,
            "GetInstance",
            &(argument("InstanceName", name)
                + &argument(
                    "PropertyList",
                    "<VALUE.ARRAY><VALUE>Size</VALUE><VALUE.NULL/></VALUE.ARRAY>",
                )),
        ),
        wrap(NAMESPACE, "Associators", &argument("ObjectName", name)),
        wrap(
            NAMESPACE,
            "AssociatorNames",
            &argument("ObjectName", "<CLASSNAME NAME=\"T_Thing\"/>"),
        ),
        wrap(
            NAMESPACE,
            "CreateInstance",
            &argument("NewInstance", &instance),
        ),
        wrap(NAMESPACE, "CreateClass", &argument("NewClass", &class)),
        wrap(
            NAMESPACE,
            "OpenEnumerateInstances",
            &(argument("ClassName", "<CLASSNAME NAME=\"T_Base\"/>")
                + &argument("FilterQueryLanguage", "<VALUE>DMTF:FQL</VALUE>")
                + &argument(
                    "FilterQuery",
                    "<VALUE>Size = 7 AND NOT Caption LIKE 'a.*'</VALUE>",
                )
                + &argument("MaxObjectCount", "<VALUE>1</VALUE>")),
        ),
        format!(
            r#"<CIM CIMVERSION="2.0" DTDVERSION="2.0"><MESSAGE ID="1" PROTOCOLVERSION="1.0"><SIMPLEREQ><METHODCALL NAME="Work">
            <LOCALINSTANCEPATH><LOCALNAMESPACEPATH><NAMESPACE NAME="root"/><NAMESPACE NAME="test"/></LOCALNAMESPACEPATH>{name}</LOCALINSTANCEPATH>
            <PARAMVALUE NAME="Other" PARAMTYPE="reference"><VALUE.REFERENCE>{name}</VALUE.REFERENCE></PARAMVALUE>
            <PARAMVALUE><VALUE><![CDATA[text]]></VALUE></PARAMVALUE>
            <PARAMVALUE NAME="Numbers" PARAMTYPE="uint16"><VALUE.ARRAY><VALUE>1</VALUE></VALUE.ARRAY></PARAMVALUE>
            <PARAMVALUE NAME="Big" PARAMTYPE="string" EmbeddedObject="instance"><VALUE>{embedded}</VALUE></PARAMVALUE>
            </METHODCALL></SIMPLEREQ></MESSAGE></CIM>"#
        ),
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-16\"?><CIM><DECLGROUP>{instance}</DECLGROUP></CIM>"
        ),
    ]
}

fn damage(seed: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=random.below(2) {
        let at = random.below(bytes.len());
        let to = (at + 1 + random.below(40)).min(bytes.len());
        match random.below(9) {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << random.below(8),
            // What leaves the document in order and changes what it says.
            2..=4 => {
                let word = |b: &u8| b.is_ascii_alphanumeric();
                if let Some(next) = bytes[at..].iter().position(word) {
                    bytes[at + next] = b"0aZ9_"[random.below(5)];
                }
            }
            5 => {
                let piece = bytes[at..to].to_vec();
                bytes.splice(at..at, piece);
            }
            6 => drop(bytes.drain(at..to)),
            7 => {
                let from = random.below(bytes.len());
                let piece = bytes[from..(from + 60).min(bytes.len())].to_vec();
                bytes.splice(at..to, piece);
            }
            _ => {
                let pieces: [&[u8]; 8] = [
                    b"&lt;",
                    b"&x;",
                    b"]]>",
                    b"<!--",
                    b"<![CDATA[",
                    b"/>",
                    b"\"",
                    b"&#xD800;",
                ];
                bytes.splice(at..at, pieces[random.below(pieces.len())].iter().copied());
            }
        }
        if bytes.is_empty() {
            break;
        }
    }
    bytes
}

/// Runs a request as the HTTP side does; the response, if there is one.
async fn answer(operations: &Operations, bytes: &[u8]) -> Option<String> {
    let request = request(bytes, Limits::default()).ok()?;
    let (id, method) = (request.id, request.method);
    let who = Principal::anonymous(Role::Administrator);
    Some(match request.call {
        Call::Intrinsic {
            namespace,
            arguments,
        } => {
            let origin = encode::Origin {
                host: "h",
                namespace: &namespace,
            };
            let answer = operations.intrinsic(who, namespace.clone(), &method, arguments);
            let (items, state) = match answer.await {
                Ok(Answer::Nothing) => return Some(encode::empty_imethodresponse(&id, &method)),
                Ok(Answer::Items(items)) => (items, None),
                Ok(Answer::Page(items, state)) => (items, Some(state)),
                Ok(Answer::Stream(items)) => (items.0.try_collect().await.expect("found"), None),
                Err(error) => return Some(encode::error_response(&id, &method, true, &error)),
            };
            encode::imethodresponse(&id, &method, &items, state.as_ref(), origin)
        }
        Call::Extrinsic { target, parameters } => {
            match operations.invoke(who, target, &method, parameters).await {
                Ok(outcome) => encode::methodresponse(&id, &method, &outcome),
                Err(error) => encode::error_response(&id, &method, false, &error),
            }
        }
    })
}

/// That a response is well-formed, by reading it with quick-xml alone.
fn assert_well_formed(xml: &str) {
    let mut reader = quick_xml::Reader::from_str(xml);
    loop {
        match reader.read_event() {
            Ok(quick_xml::events::Event::Eof) => return,
            Ok(_) => {}
            Err(error) => panic!("{error}: {xml}"),
        }
    }
}

#[tokio::test]
async fn damaged_requests_get_an_error_or_an_answer() {
    let seeds = seeds();
    let server = Operations::new(Arc::new(TestServer::new()), EnumerationLimits::default());
    for seed in &seeds[..seeds.len() - 1] {
        assert!(answer(&server, seed.as_bytes()).await.is_some(), "{seed}");
    }
    let mut random = Random(0x1503);
    let (mut answered, mut refused) = (0, 0);
    for round in 0..6000 {
        let bytes = damage(seeds[round % seeds.len()].as_bytes(), &mut random);
        if let Ok(text) = std::str::from_utf8(&bytes) {
            drop(decode_embedded(text));
        }
        match answer(&server, &bytes).await {
            Some(response) => {
                assert_well_formed(&response);
                answered += 1;
            }
            None => refused += 1,
        }
    }
    assert!(
        answered > 300 && refused > 300,
        "the damage tests both: {answered}, {refused}"
    );
}
