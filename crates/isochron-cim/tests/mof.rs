//! MOF, read and written: every construct of the grammar, errors with their place,
//! limits, and the round trip through the writer.

use indexmap::IndexMap;
use isochron_cim::mof::{self, Declaration, Literal, MofError};
use isochron_cim::{
    CimType, Class, Flavor, Method, Name, Parameter, PropertyDecl, Qualifier, QualifierDecl, Scope,
    TypedValue, Value,
};
use proptest::prelude::*;

const QUALIFIERS: &str = r#"
    Qualifier Key : boolean = false, Scope(property, reference), Flavor(DisableOverride, ToSubclass);
    Qualifier Association : boolean = false, Scope(association), Flavor(DisableOverride);
    qualifier Description : string = null, Scope(any), Flavor(Translatable);
    Qualifier Values : string[], Scope(property, method, parameter);
    Qualifier Out : boolean = false, Scope(parameter);
    Qualifier Max : uint32, Scope(reference);
    Qualifier Weight : real32 = 1.5, Scope(any), Flavor(Restricted);
"#;

type Types = IndexMap<Name, QualifierDecl>;

fn parse(text: &str) -> Result<(Vec<Declaration>, Types), MofError> {
    let mut types = Types::new();
    mof::parse("qualifiers.mof", QUALIFIERS, &mut types, &mut |_| None)?;
    let found = mof::parse("t.mof", text, &mut types, &mut |_| None)?;
    Ok((
        found
            .into_iter()
            .map(|(_, declaration)| declaration)
            .collect(),
        types,
    ))
}

fn class(text: &str) -> Class {
    match parse(text)
        .unwrap_or_else(|error| panic!("{error}\n{text}"))
        .0
        .remove(0)
    {
        Declaration::Class(class) => *class,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_class_has_what_is_written() {
    let class = class(
        r#"
        // A line comment; /* not a block
        [ Association /* here */ , Description ( "one " "two\n" // and between
          "\x263a\"\\" ) : DisableOverride Restricted ]
        CLASS EX_Uses as $Uses : EX_Base {
            [Key, Max(1)] EX_Thing Ref Thing;
            uint16 Levels[4] = {0x1F, 017, 101b, -0, null};
            real64 Ratio = -2.5E-3;
            char16 Letter = 'A';
            datetime When = "20240101000000.000000+000";
            boolean Up = TRUE;
            EX_Thing REF Other = "EX_Thing.Id=\"1\"";
            [Values {"a", "b"}]
            uint32 Do([Out] EX_Thing REF Things[], string Text, sint8 Codes[]);
            uint8 Nothing();
        };"#,
    );
    assert_eq!(class.name.as_str(), "EX_Uses");
    assert_eq!(class.superclass, Some(Name::fixed("EX_Base")));
    let description = &class.qualifiers[&Name::fixed("description")];
    assert_eq!(
        description.value.value,
        Some("one two\n\u{263a}\"\\".into())
    );
    assert_eq!(
        description.flavor,
        Flavor {
            to_subclass: false,
            overridable: false,
            translatable: true
        }
    );
    let default = |name| class.properties[&Name::fixed(name)].value.clone();
    let thing = CimType::Reference(Some(Name::fixed("EX_Thing")));
    assert_eq!(
        default("Thing"),
        TypedValue {
            ty: thing,
            is_array: false,
            value: None
        }
    );
    let levels = [31, 15, 5, 0].map(|level| Some(Value::Uint16(level)));
    let levels = Value::Array(levels.into_iter().chain([None]).collect());
    assert_eq!(default("Levels").value, Some(levels));
    assert_eq!(class.properties[&Name::fixed("Levels")].array_size, Some(4));
    assert_eq!(default("Ratio").value, Some(Value::Real64(-0.0025)));
    assert_eq!(default("Letter").value, Some(Value::Char16(65)));
    assert_eq!(default("Up").value, Some(Value::Boolean(true)));
    assert!(matches!(default("When").value, Some(Value::DateTime(_))));
    assert_eq!(
        default("Other")
            .value
            .as_ref()
            .and_then(Value::as_reference)
            .unwrap()
            .key_str("Id"),
        Some("1")
    );
    let method = &class.methods[&Name::fixed("Do")];
    assert_eq!(method.return_type, CimType::Uint32);
    let parameters: Vec<_> = method
        .parameters
        .iter()
        .map(|(name, p)| {
            (
                name.as_str(),
                p.ty.name(),
                p.is_array,
                p.is_in(),
                p.is_out(),
            )
        })
        .collect();
    assert_eq!(
        parameters,
        [
            ("Things", "reference", true, true, true),
            ("Text", "string", false, true, false),
            ("Codes", "sint8", true, true, false),
        ]
    );
    assert_eq!(class.methods.len(), 2);
}

#[test]
fn instances_and_pragmas_are_read() {
    let text = r#"
        #pragma locale ("en_US")
        #pragma namespace ("root\\x")
        instance of EX_Thing as $One { Id = "1" "2"; Sizes = {1, 2}; Gone = null; };
        instance of EX_Uses { Thing = $One; };
    "#;
    let found = parse(text).unwrap().0;
    assert_eq!(found[0], Declaration::Namespace("root/x".to_owned()));
    let Declaration::Instance(one) = &found[1] else {
        panic!("{found:?}")
    };
    assert_eq!(one.alias, Some(Name::fixed("One")));
    assert_eq!(
        one.properties[&Name::fixed("Id")],
        Literal::Text("12".to_owned())
    );
    let sizes = vec![Literal::Integer(1), Literal::Integer(2)];
    assert_eq!(one.properties[&Name::fixed("Sizes")], Literal::Array(sizes));
    let Declaration::Instance(uses) = &found[2] else {
        panic!("{found:?}")
    };
    assert_eq!(
        uses.properties[&Name::fixed("Thing")],
        Literal::Alias(Name::fixed("One"))
    );
}

#[test]
fn errors_say_where_and_what() {
    let table = [
        ("class", 1, 6, "expected the class's name, found the end"),
        (
            "class A_B\n{ string ; };",
            2,
            10,
            "expected the name after its type, found ';'",
        ),
        (
            "class A_B {\n  strin X;\n};",
            2,
            3,
            "expected a type such as string or uint16, found 'strin'",
        ),
        (
            "class A_B { string X }",
            1,
            22,
            "expected ';' after the property, found '}'",
        ),
        (
            "class A_B { string X; }",
            1,
            24,
            "expected ';' after the class",
        ),
        (
            "class A_B { uint8 X = 256; };",
            1,
            23,
            "256 is out of the range of uint8",
        ),
        (
            "class A_B { uint8 X = \"1\"; };",
            1,
            23,
            "expected a uint8 value, found a string",
        ),
        (
            "class A_B { uint8 X[] = 1; };",
            1,
            25,
            "expected an array of uint8 in braces",
        ),
        (
            "class A_B { uint8 X = {1}; };",
            1,
            23,
            "expected one uint8 value, found an array",
        ),
        (
            "class A_B { uint8 X[0]; };",
            1,
            21,
            "expected an array's size",
        ),
        (
            "class A_B { datetime X = \"now\"; };",
            1,
            26,
            "no CIM datetime",
        ),
        (
            "class A_B { string X = \"a\n\"; };",
            1,
            26,
            "expected a quote at the end of the string",
        ),
        (
            "class A_B { string X = \"\\q\"; };",
            1,
            26,
            "after the backslash",
        ),
        (
            "class A_B { char16 X = 'ab'; };",
            1,
            26,
            "one character between apostrophes",
        ),
        ("class A_B { uint8 X = 09; };", 1, 23, "expected a number"),
        (
            "class A_B { uint8 X = 12x; };",
            1,
            25,
            "expected the end of the number",
        ),
        (
            "class A_B { string X; uint8 x; };",
            1,
            29,
            "A_B declares x twice",
        ),
        (
            "class A_B { A_B REF X[]; };",
            1,
            21,
            "a reference property is no array",
        ),
        (
            "class A_B { A_B REF X(); };",
            1,
            21,
            "a method does not return a reference",
        ),
        (
            "class A_B { uint8 X(string P, string p); };",
            1,
            38,
            "the parameter p stands twice",
        ),
        (
            "[Nope] class A_B {};",
            1,
            2,
            "the qualifier Nope is not declared before its use",
        ),
        (
            "[Key] class A_B {};",
            1,
            17,
            "the qualifier Key does not stand on a class",
        ),
        (
            "class A_B { [Max(1)] string X; };",
            1,
            29,
            "the qualifier Max does not stand on a property",
        ),
        (
            "class A_B { [Key, key] string X; };",
            1,
            19,
            "the qualifier Key stands twice",
        ),
        (
            "class A_B { [Key(1)] string X; };",
            1,
            17,
            "Key: expected a boolean value",
        ),
        (
            "class A_B { [Key : Never] string X; };",
            1,
            20,
            "expected EnableOverride",
        ),
        (
            "Qualifier Key : string, Scope(any);",
            1,
            1,
            "Key is declared a second time, differently",
        ),
        (
            "Qualifier X : string;",
            1,
            1,
            "the qualifier X has no Scope(...)",
        ),
        (
            "Qualifier X : string, Scope(all);",
            1,
            29,
            "expected class, association",
        ),
        (
            "instance of A_B { X = 1; x = 2; };",
            1,
            26,
            "x is given twice",
        ),
        (
            "[Key] instance of A_B {};",
            1,
            1,
            "qualifiers do not stand on instances",
        ),
        ("/* never", 1, 3, "expected */ at the end of the comment"),
        (
            "#pragma include (\"x.mof\")",
            1,
            1,
            "there is no file \"x.mof\" to include",
        ),
        (
            "classs A_B {};",
            1,
            1,
            "expected class, instance, Qualifier or #pragma, found 'classs'",
        ),
        ("\n  @", 2, 3, "expected a name, number, string or sign"),
    ];
    for (text, line, column, message) in table {
        let error = parse(text)
            .err()
            .unwrap_or_else(|| panic!("{text} is read"));
        assert!(error.message.contains(message), "{text}: {error}");
        assert_eq!(
            (error.at.line, error.at.column),
            (line, column),
            "{text}: {error}"
        );
        assert!(
            error
                .to_string()
                .starts_with(&format!("t.mof:{line}:{column}: "))
        );
    }
}

#[test]
fn includes_are_followed_and_their_errors_placed() {
    let mut files = |name: &str| match name {
        "a.mof" => Some("#pragma include (\"b.mof\")\nclass EX_A {};".to_owned()),
        "b.mof" => Some("class EX_B {};".to_owned()),
        "broken.mof" => Some("\nclass EX_B {".to_owned()),
        "loop.mof" => Some("#pragma include (\"loop.mof\")".to_owned()),
        _ => None,
    };
    let mut types = Types::new();
    let mut read = |text: &str| mof::parse("t.mof", text, &mut types, &mut files);
    let found = read("#pragma include (\"a.mof\")\nclass EX_C {};").unwrap();
    let names: Vec<_> = found
        .iter()
        .map(|(at, declaration)| match declaration {
            Declaration::Class(class) => format!("{at} {}", class.name),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        names,
        ["b.mof:1:1 EX_B", "a.mof:2:1 EX_A", "t.mof:2:1 EX_C"]
    );
    let error = read("#pragma include (\"broken.mof\")").unwrap_err();
    assert_eq!(error.at.to_string(), "broken.mof:2:13");
    let error = read("#pragma include (\"loop.mof\")").unwrap_err();
    assert!(error.message.contains("levels deep"), "{error}");
}

#[test]
fn too_much_text_is_refused() {
    let error = parse(&" ".repeat(mof::MAX_BYTES + 1)).unwrap_err();
    assert!(error.message.contains("bytes of MOF"), "{error}");
}

fn name() -> impl Strategy<Value = Name> {
    "[A-Z][a-z]{0,5}_[A-Za-z0-9]{1,6}".prop_map(Name::from)
}

fn scalar() -> impl Strategy<Value = (CimType, Value)> {
    prop_oneof![
        any::<bool>().prop_map(|v| (CimType::Boolean, Value::Boolean(v))),
        any::<u8>().prop_map(|v| (CimType::Uint8, Value::Uint8(v))),
        any::<u64>().prop_map(|v| (CimType::Uint64, Value::Uint64(v))),
        any::<i64>().prop_map(|v| (CimType::Sint64, Value::Sint64(v))),
        proptest::num::f32::NORMAL.prop_map(|v| (CimType::Real32, Value::Real32(v))),
        proptest::num::f64::NORMAL.prop_map(|v| (CimType::Real64, Value::Real64(v))),
        any::<u16>().prop_map(|v| (CimType::Char16, Value::Char16(v))),
        any::<String>().prop_map(|v| (CimType::String, Value::String(v))),
        (0..1_000_000_000_000u64).prop_map(|v| {
            let length = std::time::Duration::from_micros(v);
            (CimType::DateTime, Value::DateTime(length.into()))
        }),
    ]
}

fn typed() -> impl Strategy<Value = TypedValue> {
    (scalar(), 0..4usize).prop_map(|((ty, value), form)| match form {
        0 => TypedValue {
            ty,
            is_array: false,
            value: None,
        },
        1 => TypedValue {
            ty,
            is_array: false,
            value: Some(value),
        },
        2 => TypedValue {
            ty,
            is_array: true,
            value: Some(Value::Array(vec![])),
        },
        _ => {
            let items = vec![Some(value.clone()), None, Some(value)];
            TypedValue {
                ty,
                is_array: true,
                value: Some(Value::Array(items)),
            }
        }
    })
}

fn flavor() -> impl Strategy<Value = Flavor> {
    any::<(bool, bool, bool)>().prop_map(|(to_subclass, overridable, translatable)| Flavor {
        to_subclass,
        overridable,
        translatable,
    })
}

/// Qualifier types, and for each a value that may stand on an element.
fn qualifiers() -> impl Strategy<Value = Vec<(QualifierDecl, Qualifier)>> {
    let one = (name(), typed(), flavor(), flavor()).prop_map(|(name, value, flavor, mut own)| {
        own.translatable |= flavor.translatable;
        let qualifier = Qualifier {
            value: value.clone(),
            flavor: own,
            propagated: false,
        };
        (
            QualifierDecl {
                name,
                value,
                array_size: None,
                scope: vec![Scope::Any],
                flavor,
            },
            qualifier,
        )
    });
    proptest::collection::vec(one, 0..4)
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        qualifiers in qualifiers(),
        properties in proptest::collection::vec((name(), typed(), any::<bool>()), 0..5),
        method in name(),
        superclass in proptest::option::of(name()),
    ) {
        let types: Types =
            qualifiers.iter().map(|(decl, _)| (decl.name.clone(), decl.clone())).collect();
        let uses: IndexMap<_, _> = types
            .keys()
            .map(|name| {
                let found = qualifiers.iter().rev().find(|(decl, _)| decl.name == *name).unwrap();
                (name.clone(), found.1.clone())
            })
            .collect();
        let class_name = Name::fixed("EX_Written");
        let properties = properties
            .into_iter()
            .map(|(name, value, qualified)| {
                let sized = value.is_array && qualified;
                (name, PropertyDecl {
                    value,
                    array_size: sized.then_some(3),
                    qualifiers: if qualified { uses.clone() } else { IndexMap::new() },
                    class_origin: class_name.clone(),
                    propagated: false,
                })
            })
            .collect();
        let parameter = Parameter {
            ty: CimType::Reference(Some(class_name.clone())),
            is_array: true,
            array_size: None,
            qualifiers: uses.clone(),
        };
        let method_decl = Method {
            return_type: CimType::Sint16,
            qualifiers: uses.clone(),
            parameters: [(method.clone(), parameter)].into_iter().collect(),
            class_origin: class_name.clone(),
            propagated: false,
        };
        let class = Class {
            name: class_name,
            superclass,
            qualifiers: uses,
            properties,
            methods: [(method, method_decl)].into_iter().collect(),
        };
        let mut text: String = types.values().map(mof::write_qualifier).collect();
        text.push_str(&mof::write_class(&class, &types));
        let mut read = Types::new();
        let found = mof::parse("written.mof", &text, &mut read, &mut |_| None);
        let found = found.map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))?;
        prop_assert_eq!(&read, &types, "{}", text);
        prop_assert_eq!(&found[0].1, &Declaration::Class(Box::new(class)), "{}", text);
    }

    #[test]
    fn any_text_is_read_or_refused(
        text in r#"(class|instance of|Qualifier|#pragma|as \$|[A-Z]_X|REF|string|[\[\](){};:,=$"'\\/*0-9.x+-]|[ \nü]){0,60}"#
    ) {
        let _ = parse(&text);
    }
}
