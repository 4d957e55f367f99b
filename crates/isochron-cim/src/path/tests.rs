//! Object paths: every spelling, what is refused, limits, equality, and the round
//! trip through text.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn parsed(text: &str) -> ObjectPath {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn every_spelling_is_read() {
    let key = |name: &'static str, value: &str| (name, Value::from(value));
    let ns = Some("root/HyperVCluster/v2");
    type Row<'a> = (
        &'a str,
        Option<&'a str>,
        Option<&'a str>,
        &'a str,
        Vec<(&'a str, Value)>,
    );
    let table: Vec<Row<'_>> = vec![
        ("Msvm_X", None, None, "Msvm_X", vec![]),
        ("Msvm_X=@", None, None, "Msvm_X", vec![]),
        (
            " Msvm_X.k=\"v\" ",
            None,
            None,
            "Msvm_X",
            vec![key("k", "v")],
        ),
        ("Msvm_X.k='v'", None, None, "Msvm_X", vec![key("k", "v")]),
        ("Msvm_X=\"v\"", None, None, "Msvm_X", vec![key("", "v")]),
        (
            ":Msvm_X.k=1",
            None,
            None,
            "Msvm_X",
            vec![("k", Value::Uint64(1))],
        ),
        ("root/HyperVCluster/v2:Msvm_X", None, ns, "Msvm_X", vec![]),
        (
            "/root/HyperVCluster/v2:Msvm_X.a=TRUE",
            None,
            ns,
            "Msvm_X",
            vec![("a", true.into())],
        ),
        (
            "//h/root/HyperVCluster/v2:X.k=\"v\",k2=1",
            Some("h"),
            ns,
            "X",
            vec![key("k", "v"), ("k2", Value::Uint64(1))],
        ),
        (
            "http://h:5988/root/HyperVCluster/v2:X",
            Some("h:5988"),
            ns,
            "X",
            vec![],
        ),
        (
            "HTTPS://[::1]:5989/root/HyperVCluster/v2:X",
            Some("[::1]:5989"),
            ns,
            "X",
            vec![],
        ),
        (r"\\h\root\HyperVCluster\v2:X", Some("h"), ns, "X", vec![]),
        (
            r#"\\.\root\HyperVCluster\v2:X.a="x\\y\"z", b = -2"#,
            None,
            ns,
            "X",
            vec![key("a", "x\\y\"z"), ("b", Value::Sint64(-2))],
        ),
        (
            r#"X.a="C:\temp",b="a:b=c,d.e""#,
            None,
            None,
            "X",
            vec![key("a", "C:\\temp"), key("b", "a:b=c,d.e")],
        ),
        (
            "X.a=0x1F,b=1.5e3,c=false",
            None,
            None,
            "X",
            vec![
                ("a", Value::Uint64(31)),
                ("b", Value::Real64(1500.0)),
                ("c", false.into()),
            ],
        ),
        (
            r#"X.a="Microsoft:4764334E-E001\\8E36=1_2""#,
            None,
            None,
            "X",
            vec![key("a", "Microsoft:4764334E-E001\\8E36=1_2")],
        ),
        ("X.a=\"Grüße\"", None, None, "X", vec![key("a", "Grüße")]),
    ];
    for (text, host, namespace, class, keys) in table {
        let path = parsed(text);
        assert_eq!(path.host.as_deref(), host, "{text}");
        assert_eq!(path.namespace.as_deref(), namespace, "{text}");
        assert_eq!(path.class.as_str(), class, "{text}");
        let keys: Vec<_> = keys.into_iter().map(|(k, v)| (Name::from(k), v)).collect();
        assert_eq!(path.keys.into_iter().collect::<Vec<_>>(), keys, "{text}");
    }
}

#[test]
fn a_key_that_is_a_path_is_a_reference() {
    let text = r#"root:A_B.Antecedent="//h/root:C_D.E=\"x\\\\y\",F=\"\\\"q\\\"\"",N="1""#;
    let path = parsed(text);
    let inner = path
        .key("Antecedent")
        .and_then(Value::as_reference)
        .unwrap();
    assert_eq!(inner.host.as_deref(), Some("h"));
    assert_eq!(inner.key_str("E"), Some("x\\y"));
    assert_eq!(inner.key_str("F"), Some("\"q\""));
    assert_eq!(path.to_string(), text);
}

#[test]
fn what_is_no_path_is_refused_with_its_place() {
    for (text, at) in [
        ("", 0),
        ("//", 2),
        ("//host", 2),
        ("//host/root", 6),
        ("root:", 5),
        ("1X.a=1", 0),
        ("X.", 2),
        ("X.a", 3),
        ("X.a=", 4),
        ("X.a=b", 4),
        ("X.a=1e999", 4),
        ("X.a=-1e999", 4),
        ("X.a=\"b", 4),
        ("X.a=\"b\"c", 7),
        ("X.a=1,", 6),
        ("X.a=1,A=2", 9),
        ("X a", 2),
        ("ü.a=\"b\"\"", 7),
        ("/\tns:X", 0),
        ("//ho st/ns:X", 2),
        ("\u{3000}X\u{3000}Y", 3),
    ] {
        let error = text.parse::<ObjectPath>().unwrap_err();
        assert_eq!(error.at, at, "{text}: {error}");
    }
}

#[test]
fn size_keys_and_depth_are_limited() {
    let long = format!("X.a=\"{}\"", "x".repeat(MAX_LENGTH));
    assert!(long.parse::<ObjectPath>().is_err());
    let keys: Vec<_> = (0..=MAX_KEYS).map(|i| format!("k{i}=1")).collect();
    assert!(
        format!("X.{}", keys.join(","))
            .parse::<ObjectPath>()
            .is_err()
    );
    assert!(
        format!("X.{}", keys[1..].join(","))
            .parse::<ObjectPath>()
            .is_ok()
    );

    let mut path = ObjectPath::class("A_B").with_key("k", "v");
    for _ in 0..MAX_DEPTH {
        path = ObjectPath::class("A_B").with_key("k", path);
    }
    assert_eq!(parsed(&path.to_string()), path);
    let deeper = ObjectPath::class("A_B").with_key("k", path).to_string();
    assert!(deeper.parse::<ObjectPath>().is_err());
}

#[test]
fn equal_paths_hash_alike() {
    let same = [
        r#"//H/root/v2:A_B.x="1",Y=2"#,
        r#"\\h\ROOT\v2:a_b.y=2,X="1""#,
        r#"http://h/root/v2/:A_b.X="1",y=0x2"#,
    ];
    let set: HashSet<_> = same.iter().map(|text| parsed(text)).collect();
    assert_eq!(set.len(), 1, "{set:?}");
    let narrow = ObjectPath::class("X").with_key("k", 7u16);
    assert_eq!(narrow, parsed("X.k=7"));
    let different = [
        "A_B",
        "A_B.x=1",
        "A_B.x=\"1\"",
        "A_B.y=1",
        "r:A_B",
        "//h/r:A_B",
        "A_B.x=TRUE",
    ];
    let set: HashSet<_> = different.iter().map(|text| parsed(text)).collect();
    assert_eq!(set.len(), different.len());
}

fn key() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(Value::Boolean),
        any::<u16>().prop_map(Value::Uint16),
        any::<u64>().prop_map(Value::Uint64),
        any::<i64>().prop_map(Value::Sint64),
        (-1.0e300..1.0e300).prop_map(Value::Real64),
        // A text without an underscore is never taken for a path.
        "[^_]{0,20}".prop_map(Value::String),
        r#"[\\"',=.: a]{0,8}"#.prop_map(Value::String),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| path(inner).prop_map(Value::from))
}

fn path(key: impl Strategy<Value = Value>) -> impl Strategy<Value = ObjectPath> {
    let keys = proptest::collection::vec(("[a-zA-Z_][a-zA-Z0-9_]{0,6}", key), 1..4);
    let place = proptest::option::of((
        proptest::option::of("[a-z0-9.:-]{2,9}"),
        "[a-z]{1,5}(/[a-z0-9]{1,5}){0,3}",
    ));
    (place, "[A-Z]{2,4}_[A-Za-z]{1,8}", keys).prop_map(|(place, class, keys)| {
        let (host, namespace) = match place {
            Some((host, namespace)) => (host, Some(namespace)),
            None => (None, None),
        };
        let keys = keys
            .into_iter()
            .map(|(name, value)| (Name::from(name), value))
            .collect();
        ObjectPath {
            host,
            namespace,
            class: class.into(),
            keys,
        }
    })
}

proptest! {
    #[test]
    fn text_names_the_same_object(path in path(key())) {
        let text = path.to_string();
        prop_assert_eq!(parsed(&text), path, "{}", text);
    }

    #[test]
    fn any_text_is_read_or_refused(text in r#"(//|[A-Z]_|[.:=,"'\\/@]|[a-z0-9 ü]){0,40}"#) {
        if let Ok(path) = text.parse::<ObjectPath>() {
            prop_assert_eq!(parsed(&path.to_string()), path);
        }
    }
}
