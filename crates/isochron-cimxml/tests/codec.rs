//! The codec: tables of bytes in and objects out, and what is refused.

#![allow(clippy::expect_used)] // A test fails by panicking.

mod common;

use common::{AWKWARD, NAMESPACE, TestServer, class, wrap};
use isochron_cim::{CimType, Embedded, Instance, Name, ObjectPath, Status, Value};
use isochron_cimxml::decode::{Argument, Call, request};
use isochron_cimxml::{DecodeError, Limits, decode_embedded, encode};

fn arguments(xml: &str) -> Result<Argument, Status> {
    let body = wrap(
        "root/a",
        "M",
        &format!("<IPARAMVALUE NAME=\"X\">{xml}</IPARAMVALUE>"),
    );
    match request(body.as_bytes(), Limits::default())
        .expect("a request")
        .call
    {
        Call::Intrinsic {
            arguments: Ok(arguments),
            ..
        } => Ok(arguments[&Name::from("x")].clone()),
        Call::Intrinsic {
            arguments: Err(error),
            ..
        } => Err(error.status),
        other => panic!("{other:?}"),
    }
}

fn path(class: &str, keys: &[(&str, Value)]) -> ObjectPath {
    let path = ObjectPath::class(class);
    keys.iter().fold(path, |path, (name, value)| {
        path.with_key(*name, value.clone())
    })
}

#[test]
fn arguments_decode() {
    let local =
        r#"<LOCALNAMESPACEPATH><NAMESPACE NAME="root"/><NAMESPACE NAME="b"/></LOCALNAMESPACEPATH>"#;
    let name = r#"<INSTANCENAME CLASSNAME="C"><KEYBINDING NAME="K"><KEYVALUE>v</KEYVALUE></KEYBINDING></INSTANCENAME>"#;
    let key = [("K", Value::from("v"))];
    let located = path("C", &key).in_namespace("root/b");
    let hosted = ObjectPath {
        host: Some("h:1".into()),
        ..located.clone()
    };
    let table: Vec<(String, Argument)> = vec![
        ("".into(), Argument::Null),
        ("<VALUE/>".into(), Argument::Text(String::new())),
        (
            "<VALUE> a&lt;&#x42;&amp;<![CDATA[<c>]]><!-- no -->d\r\n</VALUE>".into(),
            Argument::Text(" a<B&<c>d\n".into()),
        ),
        (
            "<VALUE.ARRAY><VALUE>a</VALUE><VALUE.NULL/>\n<VALUE></VALUE></VALUE.ARRAY>".into(),
            Argument::Texts(vec![Some("a".into()), None, Some(String::new())]),
        ),
        ("<VALUE.ARRAY/>".into(), Argument::Texts(vec![])),
        (
            "<CLASSNAME NAME=\"C&amp;D\"/>".into(),
            Argument::ClassName("C&D".into()),
        ),
        (name.into(), Argument::Path(path("C", &key))),
        (
            format!("<VALUE.REFERENCE>{name}</VALUE.REFERENCE>"),
            Argument::Path(path("C", &key)),
        ),
        (
            format!(
                "<VALUE.REFERENCE><LOCALINSTANCEPATH>{local}{name}</LOCALINSTANCEPATH></VALUE.REFERENCE>"
            ),
            Argument::Path(located),
        ),
        (
            format!(
                "<VALUE.REFERENCE><INSTANCEPATH><NAMESPACEPATH><HOST>h:1</HOST>{local}</NAMESPACEPATH>{name}</INSTANCEPATH></VALUE.REFERENCE>"
            ),
            Argument::Path(hosted),
        ),
        (
            format!(
                "<VALUE.REFERENCE><LOCALCLASSPATH>{local}<CLASSNAME NAME=\"C\"/></LOCALCLASSPATH></VALUE.REFERENCE>"
            ),
            Argument::Path(ObjectPath::class("C").in_namespace("root/b")),
        ),
        (
            // Keys: untyped numbers, TYPE over VALUETYPE, an empty TYPE, a reference, no name.
            format!(
                r#"<INSTANCENAME CLASSNAME="C"><KEYBINDING NAME="A"><KEYVALUE VALUETYPE="numeric">0x10</KEYVALUE></KEYBINDING>
                <KEYBINDING NAME="B"><KEYVALUE VALUETYPE="numeric">-3</KEYVALUE></KEYBINDING>
                <KEYBINDING NAME="C"><KEYVALUE VALUETYPE="numeric">1.5</KEYVALUE></KEYBINDING>
                <KEYBINDING NAME="D"><KEYVALUE VALUETYPE="numeric" TYPE="uint8">7</KEYVALUE></KEYBINDING>
                <KEYBINDING NAME="E"><KEYVALUE VALUETYPE="boolean" TYPE="">TRUE</KEYVALUE></KEYBINDING>
                <KEYBINDING NAME="F"><VALUE.REFERENCE>{name}</VALUE.REFERENCE></KEYBINDING></INSTANCENAME>"#
            ),
            Argument::Path(path(
                "C",
                &[
                    ("A", Value::Uint64(16)),
                    ("B", Value::Sint64(-3)),
                    ("C", Value::Real64(1.5)),
                    ("D", Value::Uint8(7)),
                    ("E", Value::Boolean(true)),
                    ("F", path("C", &key).into()),
                ],
            )),
        ),
        (
            "<INSTANCENAME CLASSNAME=\"C\"><KEYVALUE>v</KEYVALUE></INSTANCENAME>".into(),
            Argument::Path(path("C", &[("", Value::from("v"))])),
        ),
    ];
    for (xml, expected) in table {
        assert_eq!(arguments(&xml), Ok(expected), "{xml}");
    }
}

#[test]
fn a_value_that_does_not_fit_is_the_calls_error() {
    for xml in [
        r#"<INSTANCENAME CLASSNAME="C"><KEYBINDING NAME="K"><KEYVALUE TYPE="uint8">256</KEYVALUE></KEYBINDING></INSTANCENAME>"#,
        r#"<INSTANCE CLASSNAME="C"><PROPERTY NAME="P" TYPE="uint8"><VALUE>-1</VALUE></PROPERTY></INSTANCE>"#,
        r#"<INSTANCE CLASSNAME="C"><PROPERTY NAME="P" TYPE="boolean"><VALUE>yes</VALUE></PROPERTY></INSTANCE>"#,
        r#"<INSTANCE CLASSNAME="C"><PROPERTY NAME="P" TYPE="datetime"><VALUE>today</VALUE></PROPERTY></INSTANCE>"#,
        r#"<INSTANCE CLASSNAME="C"><PROPERTY NAME="P" TYPE="string" EmbeddedObject="instance"><VALUE>no XML</VALUE></PROPERTY></INSTANCE>"#,
        r#"<INSTANCE CLASSNAME="C"><PROPERTY NAME="P" TYPE="uint8"/><PROPERTY NAME="p" TYPE="uint8"/></INSTANCE>"#,
        r#"</IPARAMVALUE><IPARAMVALUE NAME="x">"#,
    ] {
        assert_eq!(arguments(xml), Err(Status::InvalidParameter), "{xml}");
    }
}

#[test]
fn instances_come_back_as_they_went() {
    let server = TestServer::new();
    for mut instance in server.instances.lock().expect("lock").clone() {
        instance.path = None;
        if instance.class.is("T_BigThing") {
            // Control characters cannot come back.
            instance.set("Caption", "bell\u{fffd} and \u{fffd}");
        }
        for property in instance.properties.values_mut() {
            // The class that a reference is declared with is not on the wire of its value.
            if let CimType::Reference(_) = property.value.ty {
                property.value.ty = CimType::Reference(Some("T_Thing".into()));
            }
        }
        let mut xml = String::new();
        encode::instance(&mut xml, &instance);
        assert_eq!(decode_embedded(&xml).expect(&xml), Some(instance), "{xml}");
    }
}

#[test]
fn every_type_comes_back_as_it_went() {
    let mut instance = Instance::new("T");
    let nested = {
        let mut nested = Instance::new("N");
        nested.set("Text", AWKWARD);
        let mut outer = Instance::new("O");
        outer.set("Nested", nested);
        outer
    };
    let values = [
        Value::Boolean(false),
        Value::Uint8(255),
        Value::Uint16(65535),
        Value::Uint32(u32::MAX),
        Value::Uint64(u64::MAX),
        Value::Sint8(-128),
        Value::Sint16(i16::MIN),
        Value::Sint32(i32::MIN),
        Value::Sint64(i64::MIN),
        Value::Real32(f32::MIN_POSITIVE),
        Value::Real64(-1.0e-300),
        Value::Real64(0.1),
        Value::Real64(f64::INFINITY),
        Value::Real64(f64::NEG_INFINITY),
        Value::Char16(u16::from(b'<')),
        Value::String(String::new()),
        Value::String(AWKWARD.into()),
        CimType::DateTime
            .parse("00000001020304.000005:000")
            .expect("an interval"),
        Value::Instance(Box::new(nested)),
        Value::Array(vec![Some(Value::Uint8(1)), Some(Value::Uint8(2))]),
        Value::Array(vec![Some("a".into()), None, Some(AWKWARD.into())]),
    ];
    for (number, value) in values.into_iter().enumerate() {
        instance.set(format!("P{number}"), value);
    }
    let mut xml = String::new();
    encode::instance(&mut xml, &instance);
    assert_eq!(decode_embedded(&xml).expect(&xml), Some(instance), "{xml}");
    assert!(
        xml.contains("<VALUE>-1.0e-300</VALUE>"),
        "a real has a point: {xml}"
    );
}

#[test]
fn classes_come_back_as_they_went() {
    for declared in TestServer::new().classes {
        let mut xml = String::new();
        encode::class(&mut xml, &declared);
        assert_eq!(class(&xml), declared, "{xml}");
    }
}

#[test]
fn qualifier_types_decode() {
    let xml = r#"<QUALIFIER.DECLARATION NAME="Q" TYPE="string" ISARRAY="true" TOSUBCLASS="false" TRANSLATABLE="true">
        <SCOPE CLASS="true" METHOD="false" PROPERTY="true"/><VALUE.ARRAY><VALUE>a</VALUE></VALUE.ARRAY></QUALIFIER.DECLARATION>"#;
    let Ok(Argument::Qualifier(declared)) = arguments(xml) else {
        panic!()
    };
    let mut encoded = String::new();
    encode::qualifier_declaration(&mut encoded, &declared);
    assert_eq!(
        arguments(&encoded),
        Ok(Argument::Qualifier(declared.clone()))
    );
    assert!(!declared.flavor.to_subclass && declared.flavor.translatable);
    assert_eq!(declared.scope.len(), 2);
}

#[test]
fn what_xml_cannot_carry_is_replaced() {
    let mut instance = Instance::new("T");
    instance
        .set("P", "a\u{0}\u{1f}\u{fffe}z")
        .set("C", Value::Char16(0xd800));
    let mut xml = String::new();
    encode::instance(&mut xml, &instance);
    let back = decode_embedded(&xml)
        .expect("well-formed")
        .expect("an instance");
    assert_eq!(
        back.get("P"),
        Some(&Value::from("a\u{fffd}\u{fffd}\u{fffd}z"))
    );
    assert_eq!(back.get("C"), Some(&Value::Char16(0xfffd)));
}

fn method_call(parameters: &str) -> Call {
    let body = format!(
        r#"<CIM CIMVERSION="2.0" DTDVERSION="2.0"><MESSAGE ID="1" PROTOCOLVERSION="1.0"><SIMPLEREQ>
        <METHODCALL NAME="M"><LOCALCLASSPATH><LOCALNAMESPACEPATH><NAMESPACE NAME="root/test"/></LOCALNAMESPACEPATH>
        <CLASSNAME NAME="C"/></LOCALCLASSPATH>{parameters}</METHODCALL></SIMPLEREQ></MESSAGE></CIM>"#
    );
    request(body.as_bytes(), Limits::default())
        .expect("a request")
        .call
}

#[test]
fn method_parameters_decode() {
    let call = method_call(
        r#"<PARAMVALUE NAME="Untyped"><VALUE>8</VALUE></PARAMVALUE>
        <PARAMVALUE><VALUE>positional</VALUE></PARAMVALUE>
        <PARAMVALUE NAME="Typed" PARAMTYPE="uint16"><VALUE.ARRAY><VALUE>1</VALUE></VALUE.ARRAY></PARAMVALUE>
        <PARAMVALUE NAME="Null" PARAMTYPE="datetime"/>
        <PARAMVALUE NAME="Ref" PARAMTYPE="reference"><VALUE.REFERENCE><CLASSNAME NAME="C"/></VALUE.REFERENCE></PARAMVALUE>
        <PARAMVALUE NAME="Inst" PARAMTYPE="string" EmbeddedObject="instance"><VALUE>&lt;INSTANCE CLASSNAME="E"/&gt;</VALUE></PARAMVALUE>
        <PARAMVALUE NAME="CData" PARAMTYPE="string" EMBEDDEDOBJECT="object"><VALUE><![CDATA[<CLASS NAME="E"/>]]></VALUE></PARAMVALUE>
        <PARAMVALUE NAME="Blank" PARAMTYPE="string" EmbeddedObject="instance"><VALUE> </VALUE></PARAMVALUE>
        <PARAMVALUE NAME="Text" PARAMTYPE="string"><VALUE>&lt;INSTANCE CLASSNAME="E"/&gt;</VALUE></PARAMVALUE>"#,
    );
    let Call::Extrinsic {
        target,
        parameters: Ok(parameters),
    } = call
    else {
        panic!("{call:?}")
    };
    assert_eq!(target, ObjectPath::class("C").in_namespace(NAMESPACE));
    let seen: Vec<_> = parameters
        .iter()
        .map(|(name, p)| (name.as_str(), p.ty.name(), p.is_array, p.value.clone()))
        .collect();
    let class = Value::Class(Box::new(isochron_cim::Class {
        name: "E".into(),
        ..Default::default()
    }));
    let expected = [
        ("Untyped", "string", false, Some("8".into())),
        ("", "string", false, Some("positional".into())),
        (
            "Typed",
            "uint16",
            true,
            Some(Value::Array(vec![Some(Value::Uint16(1))])),
        ),
        ("Null", "datetime", false, None),
        (
            "Ref",
            "reference",
            false,
            Some(ObjectPath::class("C").into()),
        ),
        ("Inst", "string", false, Some(Instance::new("E").into())),
        ("CData", "string", false, Some(class)),
        ("Blank", "string", false, None),
        (
            "Text",
            "string",
            false,
            Some("<INSTANCE CLASSNAME=\"E\"/>".into()),
        ),
    ];
    assert_eq!(seen, expected);
    for twice in ["A", "a"] {
        let call = method_call(&format!(
            "<PARAMVALUE NAME=\"A\"/><PARAMVALUE NAME=\"{twice}\"/>"
        ));
        let Call::Extrinsic {
            parameters: Err(error),
            ..
        } = call
        else {
            panic!("{call:?}")
        };
        assert_eq!(error.status, Status::InvalidParameter);
    }
}

#[test]
fn what_is_no_request_is_refused_for_its_reason() {
    let good = wrap("root/a", "EnumerateClassNames", "");
    let ill = |xml: &str| (xml.to_owned(), "not well-formed");
    let invalid = |xml: &str| (xml.to_owned(), "not valid CIM-XML");
    let table = [
        ill(""),
        ill("   "),
        ill("CIM"),
        ill("<CIM"),
        ill("<CIM>"),
        ill(&good.replace("</CIM>", "")),
        ill(&good.replace("</CIM>", "</cim>")),
        ill(&format!("{good}<CIM/>")),
        ill(&format!("{good} text")),
        ill(&good.replace("utf-8", "utf-16")),
        ill(&good.replace("utf-8", "iso-8859-1")),
        ill(&format!(" {good}")),
        ill(&good.replace("\"42\"", "\"&unknown;\"")),
        ill(&good.replace("\"42\"", "\"&#1;\"")),
        ill(&good.replace("\"42\"", "\"\u{1}\"")),
        ill(&good.replace("\"42\"", "\"<\"")),
        ill(&good.replace("ID=\"42\"", "ID=\"42\" ID=\"43\"")),
        ill(&wrap(
            "root/a",
            "M",
            "<IPARAMVALUE NAME=\"X\"><VALUE>&nbsp;</VALUE></IPARAMVALUE>",
        )),
        ill(&wrap(
            "root/a",
            "M",
            "<IPARAMVALUE NAME=\"X\"><VALUE>&#0;</VALUE></IPARAMVALUE>",
        )),
        ill(&wrap(
            "root/a",
            "M",
            "<IPARAMVALUE NAME=\"X\"><VALUE>a & b</VALUE></IPARAMVALUE>",
        )),
        // Nothing of a document type declaration is expanded.
        ill(&good
            .replace("<CIM ", "<!DOCTYPE CIM [<!ENTITY e \"42\">]><CIM ")
            .replace("\"42\" P", "\"&e;\" P")),
        invalid("<CIMX/>"),
        invalid("<CIM CIMVERSION=\"2.0\" DTDVERSION=\"2.0\"/>"),
        invalid(&good.replace(" ID=\"42\"", "")),
        invalid(&good.replace("SIMPLEREQ", "SIMPLERSP")),
        invalid(&good.replace("IMETHODCALL", "EXPMETHODCALL")),
        invalid(&good.replace("LOCALNAMESPACEPATH", "NAMESPACEPATH")),
        invalid(&wrap("root/a", "M", "<PARAMVALUE NAME=\"X\"/>")),
        invalid(&wrap("root/a", "M", "<IPARAMVALUE/>")),
        invalid(&wrap("root/a", "M", "text")),
        invalid(&wrap(
            "root/a",
            "M",
            "<IPARAMVALUE NAME=\"X\"><VALUE><B/></VALUE></IPARAMVALUE>",
        )),
        invalid(&wrap(
            "root/a",
            "M",
            "<IPARAMVALUE NAME=\"X\"><INSTANCE/></IPARAMVALUE>",
        )),
        (
            good.replace("CIMVERSION=\"2.0\"", "CIMVERSION=\"3.0\""),
            "CIM version 3.0",
        ),
        (
            good.replace("DTDVERSION=\"2.0\"", "DTDVERSION=\"1.0\""),
            "DTD version 1.0",
        ),
        (
            good.replace("PROTOCOLVERSION=\"1.0\"", "PROTOCOLVERSION=\"2.0\""),
            "protocol version 2.0",
        ),
        (good.replace("SIMPLEREQ", "MULTIREQ"), "several operations"),
    ];
    for (xml, reason) in table {
        let error = request(xml.as_bytes(), Limits::default()).expect_err(&xml);
        assert!(error.to_string().contains(reason), "{xml}\n{error}");
    }
    let mut latin = good.clone().into_bytes();
    latin.extend(b"<!-- \xe9 -->");
    assert!(matches!(
        request(&latin, Limits::default()),
        Err(DecodeError::NotWellFormed(_))
    ));
    for good in [
        format!("\u{feff}{good}"),
        good.replace(
            "<CIM ",
            "<!DOCTYPE CIM SYSTEM \"http://x/cim.dtd\" [<!ENTITY a \"b\">]><CIM ",
        ),
        good.replace("\"2.0\"", "\"2.4.0\"")
            .replace("\"1.0\" e", "'1.0' e"),
        good.replace(
            "<SIMPLEREQ>",
            "<SIMPLEREQ><CORRELATOR NAME=\"c\" TYPE=\"string\"><VALUE>1</VALUE></CORRELATOR>",
        ),
        format!("{good}<!-- the end --><?pi?>\n"),
    ] {
        assert!(
            request(good.as_bytes(), Limits::default()).is_ok(),
            "{good}"
        );
    }
}

#[test]
fn limits_hold() {
    let limits = Limits {
        bytes: 10_000,
        depth: 20,
        elements: 100,
    };
    let deep = |levels: usize| {
        let (mut open, mut close) = (String::new(), String::new());
        for _ in 0..levels {
            open.push_str("<INSTANCENAME CLASSNAME=\"C\"><KEYBINDING NAME=\"K\"><VALUE.REFERENCE>");
            close.push_str("</VALUE.REFERENCE></KEYBINDING></INSTANCENAME>");
        }
        let inner = "<INSTANCENAME CLASSNAME=\"C\"/>";
        wrap(
            "root/a",
            "M",
            &format!("<IPARAMVALUE NAME=\"X\">{open}{inner}{close}</IPARAMVALUE>"),
        )
    };
    // Embedded documents count into the same limits.
    let mut embedded = Instance::new("C");
    for _ in 0..12 {
        let mut outer = Instance::new("C");
        outer.set("I", embedded);
        embedded = outer;
    }
    let mut nested = String::new();
    encode::instance(&mut nested, &embedded);
    let many = "<VALUE/>".repeat(99);
    let attributes: String = (0..40).map(|n| format!(" a{n}=\"\"")).collect();
    for (xml, limits) in [
        (deep(5), limits),
        (deep(10_000), Limits::default()),
        (
            format!("{}{}", wrap("root/a", "M", ""), " ".repeat(10_000)),
            limits,
        ),
        (
            wrap(
                "root/a",
                "M",
                &format!("<IPARAMVALUE NAME=\"X\"><VALUE.ARRAY>{many}</VALUE.ARRAY></IPARAMVALUE>"),
            ),
            limits,
        ),
        (
            wrap(
                "root/a",
                "M",
                &format!("<IPARAMVALUE NAME=\"X\">{nested}</IPARAMVALUE>"),
            ),
            Limits {
                bytes: 1 << 20,
                ..limits
            },
        ),
        (
            wrap(
                "root/a",
                "M",
                &format!("<IPARAMVALUE NAME=\"X\"{attributes}/>"),
            ),
            limits,
        ),
    ] {
        match request(xml.as_bytes(), limits) {
            Err(DecodeError::TooLarge(_)) => {}
            other => panic!("{other:?} for {}", &xml[..200.min(xml.len())]),
        }
    }
    assert!(request(deep(2).as_bytes(), limits).is_ok());
}

#[test]
fn embedded_instances_are_read_in_every_dialect() {
    let table = [
        // .NET, CIM DTD 2.0.
        "<INSTANCE CLASSNAME=\"S\"><PROPERTY NAME=\"Level\" CLASSORIGIN=\"S\" PROPAGATED=\"true\" TYPE=\"uint16\"><VALUE>2</VALUE></PROPERTY><PROPERTY NAME=\"Text\" TYPE=\"string\"></PROPERTY><PROPERTY.ARRAY NAME=\"List\" TYPE=\"string\"><VALUE.ARRAY><VALUE>a</VALUE></VALUE.ARRAY></PROPERTY.ARRAY></INSTANCE>",
        // .NET, WMI DTD 2.0.
        "<INSTANCE CLASSNAME=\"S\"><QUALIFIER NAME=\"dynamic\" PROPAGATED=\"true\" TYPE=\"boolean\" TOSUBCLASS=\"false\" TOINSTANCE=\"true\"><VALUE>TRUE</VALUE></QUALIFIER><PROPERTY NAME=\"__PATH\" CLASSORIGIN=\"___SYSTEM\" TYPE=\"string\"><VALUE>\\\\H\\root:S</VALUE></PROPERTY><PROPERTY.ARRAY NAME=\"__DERIVATION\" TYPE=\"string\"><VALUE.ARRAY></VALUE.ARRAY></PROPERTY.ARRAY><PROPERTY NAME=\"Level\" CLASSORIGIN=\"S\" TYPE=\"uint16\"><QUALIFIER NAME=\"CIMTYPE\" PROPAGATED=\"true\" TYPE=\"string\"><VALUE>uint16</VALUE></QUALIFIER><VALUE>2</VALUE></PROPERTY><PROPERTY NAME=\"Text\" TYPE=\"string\"/><PROPERTY.ARRAY NAME=\"List\" TYPE=\"string\"><VALUE.ARRAY><VALUE>a</VALUE></VALUE.ARRAY></PROPERTY.ARRAY></INSTANCE>",
        // Scripting, with the declaration and line ends.
        "<?xml version=\"1.0\"?>\r\n<INSTANCE CLASSNAME=\"S\">\r\n<PROPERTY NAME=\"Level\" TYPE=\"uint16\">\r\n<VALUE>2</VALUE>\r\n</PROPERTY>\r\n<PROPERTY NAME=\"Text\" TYPE=\"string\"/><PROPERTY.ARRAY NAME=\"List\" TYPE=\"string\"><VALUE.ARRAY><VALUE>a</VALUE></VALUE.ARRAY></PROPERTY.ARRAY></INSTANCE>\r\n\0",
        // The MI serializer, decoded from UTF-16.
        "\u{feff}<?xml version=\"1.0\" encoding=\"UTF-16\"?><INSTANCE CLASSNAME=\"S\"><PROPERTY NAME=\"Level\" TYPE=\"uint16\" MODIFIED=\"TRUE\"><VALUE>2</VALUE></PROPERTY><PROPERTY NAME=\"Text\" TYPE=\"string\" MODIFIED=\"TRUE\"></PROPERTY><PROPERTY.ARRAY NAME=\"List\" TYPE=\"string\" MODIFIED=\"TRUE\"><VALUE.ARRAY><VALUE>a</VALUE></VALUE.ARRAY></PROPERTY.ARRAY></INSTANCE>",
        // CDATA.
        "<![CDATA[<INSTANCE CLASSNAME=\"S\"><PROPERTY NAME=\"Level\"  TYPE=\"uint16\"><VALUE>2</VALUE></PROPERTY><PROPERTY NAME=\"Text\" TYPE=\"string\"/><PROPERTY.ARRAY NAME=\"List\" TYPE=\"string\"><VALUE.ARRAY><VALUE>a</VALUE></VALUE.ARRAY></PROPERTY.ARRAY></INSTANCE>]]>",
        // Wrapped.
        "<CIM CIMVERSION=\"2.0\" DTDVERSION=\"2.0\"><DECLARATION><DECLGROUP><LOCALNAMESPACEPATH><NAMESPACE NAME=\"root\"/></LOCALNAMESPACEPATH><VALUE.NAMEDINSTANCE><INSTANCENAME CLASSNAME=\"S\"><KEYBINDING NAME=\"K\"><KEYVALUE>1</KEYVALUE></KEYBINDING></INSTANCENAME><INSTANCE CLASSNAME=\"S\"><PROPERTY NAME=\"Level\" TYPE=\"uint16\"><VALUE>2</VALUE></PROPERTY><PROPERTY NAME=\"Text\" TYPE=\"string\"/><PROPERTY.ARRAY NAME=\"List\" TYPE=\"string\"><VALUE.ARRAY><VALUE>a</VALUE></VALUE.ARRAY></PROPERTY.ARRAY></INSTANCE></VALUE.NAMEDINSTANCE></DECLGROUP></DECLARATION></CIM>",
    ];
    for xml in table {
        let instance = decode_embedded(xml)
            .unwrap_or_else(|e| panic!("{e}: {xml}"))
            .expect(xml);
        assert!(instance.class.is("S"), "{xml}");
        assert_eq!(instance.get("Level"), Some(&Value::Uint16(2)), "{xml}");
        assert_eq!(instance.get("Text"), None, "{xml}");
        assert_eq!(instance.get("List"), Some(&vec!["a"].into()), "{xml}");
        assert_eq!(instance.properties.len(), 3, "{xml}");
    }
    // WMI's DTD writes embedded objects as elements.
    let xml = "<INSTANCE CLASSNAME=\"S\"><PROPERTY.OBJECT NAME=\"O\"><QUALIFIER NAME=\"CIMTYPE\" TYPE=\"string\"><VALUE>object:E</VALUE></QUALIFIER><VALUE.OBJECT><INSTANCE CLASSNAME=\"E\"/></VALUE.OBJECT></PROPERTY.OBJECT><PROPERTY.OBJECTARRAY NAME=\"A\"><VALUE.OBJECTARRAY><VALUE.OBJECT><INSTANCE CLASSNAME=\"E\"/></VALUE.OBJECT></VALUE.OBJECTARRAY></PROPERTY.OBJECTARRAY></INSTANCE>";
    let instance = decode_embedded(xml)
        .expect("readable")
        .expect("an instance");
    assert_eq!(instance.get("O"), Some(&Instance::new("E").into()));
    assert_eq!(instance.get("A"), Some(&vec![Instance::new("E")].into()));
    assert_eq!(
        instance.properties[&Name::from("O")].embedded,
        Some(Embedded::Object)
    );

    for blank in ["", " \r\n\t", "\u{feff}", "<![CDATA[]]>"] {
        assert_eq!(decode_embedded(blank), Ok(None), "{blank:?}");
    }
    for bad in [
        "instance of S { Level = 2; };",
        "<INSTANCE CLASSNAME=\"S\">",
        "<INSTANCE/>",
        "<NOTHING/>",
        "<CIM></CIM>",
        "<CLASS NAME=\"S\"/>",
        "<INSTANCE CLASSNAME=\"S\"><PROPERTY NAME=\"L\" TYPE=\"uint16\"><VALUE>many</VALUE></PROPERTY></INSTANCE>",
        "<INSTANCE CLASSNAME=\"S\"/><INSTANCE CLASSNAME=\"S\"/>",
    ] {
        assert!(decode_embedded(bad).is_err(), "{bad}");
    }
}
