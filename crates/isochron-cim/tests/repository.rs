//! The repository: inheritance, what schemas are refused, and how values take the
//! types of their class.

use indexmap::IndexMap;
use isochron_cim::{
    CimType, Embedded, Instance, Name, ObjectPath, Repository, SchemaError, Status, TypedValue,
    Value,
};

const QUALIFIERS: &str = r#"
    Qualifier Abstract : boolean = false, Scope(class, association), Flavor(Restricted);
    Qualifier Association : boolean = false, Scope(association), Flavor(DisableOverride);
    Qualifier Key : boolean = false, Scope(property, reference), Flavor(DisableOverride);
    Qualifier Override : string, Scope(property, reference, method), Flavor(Restricted);
    Qualifier Description : string, Scope(any), Flavor(Translatable);
    Qualifier MaxLen : uint32, Scope(property), Flavor(DisableOverride);
    Qualifier In : boolean = true, Scope(parameter), Flavor(DisableOverride);
    Qualifier Out : boolean = false, Scope(parameter), Flavor(DisableOverride);
    Qualifier EmbeddedInstance : string, Scope(property, parameter);
"#;

const CLASSES: &str = r#"
    [Abstract, Description("base")]
    class EX_Base {
        [Description("the name"), MaxLen(8)] string Name = "x";
        uint16 State;
        [Description("does it")]
        uint32 Do([In, Description("what")] uint16 What, [In(false), Out] string Answer, EX_Base REF On[]);
    };
    class EX_Thing : EX_Base {
        [Key] uint32 Id;
        [Override("Name"), Description("the thing's name")] string name;
        datetime Made;
        boolean Flags[];
        [EmbeddedInstance("EX_Part")] string Part;
        EX_Thing REF Next;
    };
    class EX_Part { sint8 Weight; [EmbeddedInstance("EX_Part")] string Inner; };
    class EX_Box : EX_Thing {
        [Override("Do")]
        uint32 Do(uint16 What, [In(false), Out, Description("its answer")] string Answer, EX_Box REF On[]);
    };
    [Association, Abstract]
    class EX_Link { [Key] EX_Base REF From; [Key] EX_Base REF To; };
    class EX_Holds : EX_Link { [Override("From")] EX_Box REF From; };
"#;

fn repository() -> Repository {
    Repository::from_mof(&[("q.mof", QUALIFIERS), ("c.mof", CLASSES)])
        .unwrap_or_else(|error| panic!("{error}"))
}

fn name(text: &'static str) -> Name {
    Name::fixed(text)
}

fn names<'a>(names: impl IntoIterator<Item = &'a Name>) -> Vec<&'a str> {
    names.into_iter().map(Name::as_str).collect()
}

#[test]
fn a_class_has_what_it_inherits() {
    let repository = repository();
    let thing = repository.get(&name("ex_thing")).unwrap();
    assert_eq!(
        names(thing.properties.keys()),
        ["name", "State", "Id", "Made", "Flags", "Part", "Next"]
    );
    let overriding = &thing.properties[&name("Name")];
    assert!(!overriding.propagated);
    assert_eq!(overriding.class_origin, "EX_Base");
    // The default is inherited, and so is a qualifier that is not given again.
    assert_eq!(overriding.value.value, Some("x".into()));
    let max = &overriding.qualifiers[&name("MaxLen")];
    assert_eq!(
        (max.propagated, &max.value.value),
        (true, &Some(Value::Uint32(8)))
    );
    let description = &overriding.qualifiers[&name("Description")];
    assert_eq!(description.value.value, Some("the thing's name".into()));
    assert!(!description.propagated);

    // Restricted qualifiers stay behind, others come along.
    assert!(!thing.flag("Abstract"));
    assert!(thing.qualifiers[&name("Description")].propagated);

    let state = &thing.properties[&name("State")];
    assert!(state.propagated && state.class_origin == "EX_Base");
    assert!(thing.methods[&name("Do")].propagated);

    let do_it = &repository.get(&name("EX_Box")).unwrap().methods[&name("Do")];
    assert!(!do_it.propagated && do_it.class_origin == "EX_Base");
    assert!(
        !do_it.qualifiers.contains_key(&name("Override"))
            || !do_it.qualifiers[&name("Override")].propagated
    );
    assert!(do_it.qualifiers[&name("Description")].propagated);
    assert!(do_it.parameters[&name("What")].qualifiers[&name("Description")].propagated);
    assert_eq!(
        do_it.parameters[&name("On")].ty,
        CimType::Reference(Some(name("EX_Box")))
    );

    let holds = repository.get(&name("EX_Holds")).unwrap();
    assert!(holds.is_association());
    assert_eq!(names(holds.keys()), ["From", "To"]);
}

#[test]
fn the_tree_is_walked_both_ways() {
    let repository = repository();
    assert_eq!(names(repository.roots()), ["EX_Base", "EX_Part", "EX_Link"]);
    assert_eq!(
        names(repository.subclasses(&name("EX_Base"), false)),
        ["EX_Thing"]
    );
    assert_eq!(
        names(repository.subclasses(&name("EX_Base"), true)),
        ["EX_Thing", "EX_Box"]
    );
    assert_eq!(
        names(repository.superclasses(&name("EX_Box"))),
        ["EX_Thing", "EX_Base"]
    );
    assert!(repository.is_a(&name("EX_Box"), &name("EX_Base")));
    assert!(!repository.is_a(&name("EX_Base"), &name("EX_Box")));
    assert!(repository.subclasses(&name("EX_Nope"), true).is_empty());
    let order = names(repository.classes().map(|class| &class.name));
    assert_eq!(
        order,
        [
            "EX_Base", "EX_Thing", "EX_Part", "EX_Box", "EX_Link", "EX_Holds"
        ]
    );
}

#[test]
fn ends_are_found_whichever_class_comes_first() {
    let after = r#"class EX_Late : EX_Box {};
        [Association] class EX_Any { [Key] EX_Later REF A; [Key] object REF B; };
        class EX_Later {};"#;
    let sources = [("q.mof", QUALIFIERS), ("c.mof", CLASSES), ("l.mof", after)];
    let repository = Repository::from_mof(&sources).unwrap();
    let ends = |class| -> Vec<String> {
        let mut ends: Vec<_> = repository
            .association_ends(&name(class))
            .iter()
            .map(|end| format!("{}.{}", end.association, end.role))
            .collect();
        ends.sort();
        ends
    };
    let box_ends = [
        "EX_Any.B",
        "EX_Holds.From",
        "EX_Holds.To",
        "EX_Link.From",
        "EX_Link.To",
    ];
    assert_eq!(ends("EX_Box"), box_ends);
    assert_eq!(ends("EX_Late"), box_ends);
    assert_eq!(
        ends("EX_Thing"),
        ["EX_Any.B", "EX_Holds.To", "EX_Link.From", "EX_Link.To"]
    );
    assert_eq!(ends("EX_Later"), ["EX_Any.A", "EX_Any.B"]);
    assert_eq!(ends("EX_Part"), ["EX_Any.B"]);
}

#[test]
fn schemas_that_do_not_fit_are_refused() {
    type Row = (&'static str, fn(&SchemaError) -> bool, &'static str);
    let table: [Row; 14] = [
        (
            "class A_B : EX_Nope {};",
            is_unknown,
            "t.mof:1:1: A_B: there is no class EX_Nope",
        ),
        (
            "class A_B { EX_Nope REF X; };",
            is_unknown,
            "A_B.X: there is no class EX_Nope",
        ),
        (
            "class A_B { uint8 X(EX_Nope REF P); };",
            is_unknown,
            "A_B.X(P): there is no class EX_Nope",
        ),
        (
            "class ex_box {};",
            is_duplicate,
            "there is a class ex_box already",
        ),
        (
            "class A_B : EX_Base { uint16 State; };",
            is_duplicate,
            "A_B.State: the superclass declares it already",
        ),
        (
            "class A_B : EX_Base { [Override(\"State\")] uint32 State; };",
            is_type,
            "uint32 overrides uint16",
        ),
        (
            "class A_B : EX_Base { [Override(\"State\")] uint16 State[]; };",
            is_type,
            "is an array",
        ),
        (
            "class A_B : EX_Holds { [Override(\"From\")] EX_Base REF From; };",
            is_type,
            "a reference to EX_Base overrides a reference to EX_Box",
        ),
        (
            "class A_B : EX_Base { [Override(\"Do\")] uint16 Do(uint16 What, string Answer, EX_Base REF On[]); };",
            is_type,
            "uint16 overrides uint32",
        ),
        (
            "class A_B : EX_Base { [Override(\"Do\")] uint32 Do(uint16 What); };",
            is_override,
            "the parameters are not those",
        ),
        (
            "class A_B { [Override(\"X\")] uint16 X; };",
            is_override,
            "nothing in the superclass to override",
        ),
        (
            "class A_B : EX_Base { [Override(\"Name\")] uint16 State; };",
            is_override,
            "an element overrides its namesake",
        ),
        (
            "class A_B : EX_Base { [Override(\"Name\"), MaxLen(9)] string Name; };",
            is_override,
            "the qualifier MaxLen cannot be changed",
        ),
        (
            "instance of EX_Thing { Id = 1; Nope = 2; };",
            is_instance,
            "EX_Thing has no such property",
        ),
    ];
    for (text, kind, message) in table {
        let sources = [("q.mof", QUALIFIERS), ("c.mof", CLASSES), ("t.mof", text)];
        let error = Repository::from_mof(&sources)
            .err()
            .unwrap_or_else(|| panic!("{text}"));
        assert!(kind(&error), "{text}: {error:?}");
        assert!(error.to_string().contains(message), "{text}: {error}");
    }
    // A reference may be narrowed to the class itself.
    let own = "class EX_Chest : EX_Box { [Override(\"Next\")] EX_Chest REF Next; };";
    Repository::from_mof(&[("q", QUALIFIERS), ("c", CLASSES), ("t", own)]).unwrap();

    let mut repository = Repository::default();
    let class = self::repository().get(&name("EX_Part")).unwrap().clone();
    let error = repository.add_class(class).unwrap_err();
    assert!(
        matches!(error, SchemaError::UnknownQualifier { .. }),
        "{error}"
    );
    assert!(repository.get(&name("EX_Part")).is_none());
}

fn is_unknown(error: &SchemaError) -> bool {
    matches!(error, SchemaError::UnknownClass { .. })
}
fn is_duplicate(error: &SchemaError) -> bool {
    matches!(error, SchemaError::Duplicate { .. })
}
fn is_type(error: &SchemaError) -> bool {
    matches!(error, SchemaError::TypeConflict { .. })
}
fn is_override(error: &SchemaError) -> bool {
    matches!(error, SchemaError::InvalidOverride { .. })
}
fn is_instance(error: &SchemaError) -> bool {
    matches!(error, SchemaError::InvalidInstance { .. })
}

#[test]
fn files_include_each_other_once() {
    let a = "#pragma include (\"q.mof\")\n#pragma include (\"b.mof\")\nclass EX_A : EX_B {};";
    let b = "#pragma include (\"a.mof\")\n[Description(\"b\")] class EX_B {};";
    let sources = [("a.mof", a), ("b.mof", b), ("q.mof", QUALIFIERS)];
    let repository = Repository::from_mof(&sources).unwrap();
    assert_eq!(
        names(repository.classes().map(|class| &class.name)),
        ["EX_B", "EX_A"]
    );
}

#[test]
fn mof_instances_are_complete_and_have_paths() {
    let text = r#"
        instance of EX_Box as $Box { ID = 7; Made = "00000000000100.000000:000"; };
        instance of EX_Holds { From = $Box; To = "EX_Thing.Id=8"; };
        instance of EX_Part { Weight = -1; };
    "#;
    let sources = [("q.mof", QUALIFIERS), ("c.mof", CLASSES), ("t.mof", text)];
    let repository = Repository::from_mof(&sources).unwrap();
    let paths: Vec<_> = repository
        .instances()
        .iter()
        .map(|instance| instance.path.as_ref().map(ToString::to_string))
        .collect();
    assert_eq!(
        paths,
        [
            Some("EX_Box.Id=7".to_owned()),
            Some(r#"EX_Holds.From="EX_Box.Id=7",To="EX_Thing.Id=8""#.to_owned()),
            None,
        ]
    );
    assert_eq!(repository.instances()[0].properties.len(), 7);
}

#[test]
fn an_instance_takes_the_types_of_its_class() {
    let repository = repository();
    let mut part = Instance::new("EX_Part");
    part.set("Weight", 3u16);
    let mut instance = Instance::new("ex_box");
    instance
        .set("id", 5u16)
        .set("STATE", "0x10")
        .set("flags", true)
        .set("Part", part);
    instance.path = Some("root/x:ex_box.id=5".parse().unwrap());
    let complete = repository.complete(instance).unwrap();

    assert_eq!(complete.class.as_str(), "EX_Box");
    assert_eq!(
        names(complete.properties.keys()),
        ["name", "State", "Id", "Made", "Flags", "Part", "Next"]
    );
    assert_eq!(complete.get("Id"), Some(&Value::Uint32(5)));
    assert_eq!(complete.get("State"), Some(&Value::Uint16(16)));
    assert_eq!(
        complete.get("Flags"),
        Some(&Value::Array(vec![Some(Value::Boolean(true))]))
    );
    let made = &complete.properties[&name("Made")];
    assert_eq!(
        made.value,
        TypedValue {
            ty: CimType::DateTime,
            is_array: false,
            value: None
        }
    );
    assert_eq!(made.class_origin, Some(name("EX_Thing")));
    let part = &complete.properties[&name("Part")];
    assert_eq!(part.embedded, Some(Embedded::Instance(name("EX_Part"))));
    let Some(Value::Instance(part)) = &part.value.value else {
        panic!("{part:?}")
    };
    assert_eq!(part.get("Weight"), Some(&Value::Sint8(3)));
    let path = complete.path.unwrap();
    assert_eq!(path.key("Id"), Some(&Value::Uint32(5)));
    assert_eq!(path.namespace.as_deref(), Some("root/x"));
}

#[test]
fn what_does_not_fit_a_class_is_refused() {
    let repository = repository();
    let mut wrong = Vec::new();
    for (property, value) in [
        ("Id", Value::from("x")),
        ("Id", Value::Sint8(-1)),
        ("State", Value::Uint32(65_536)),
        ("State", Value::Boolean(true)),
        ("State", Value::Array(vec![Some(Value::Uint16(1))])),
        ("Made", Value::from("today")),
        ("Flags", Value::Array(vec![Some(Value::from("maybe"))])),
        ("Next", Value::Uint32(1)),
    ] {
        let mut instance = Instance::new("EX_Thing");
        instance.set(property, value);
        wrong.push((instance, Status::TypeMismatch, property));
    }
    let mut unknown = Instance::new("EX_Thing");
    unknown.set("Nope", 1u16);
    wrong.push((unknown, Status::NoSuchProperty, "Nope"));
    wrong.push((Instance::new("EX_Nope"), Status::InvalidClass, "EX_Nope"));
    for (instance, status, named) in wrong {
        let error = repository.complete(instance).unwrap_err();
        assert_eq!(error.status, status, "{error}");
        assert!(error.message.contains(named), "{error}");
    }
    let mut deep = Instance::new("EX_Part");
    for _ in 0..20 {
        let mut outer = Instance::new("EX_Part");
        outer.set("Inner", deep);
        deep = outer;
    }
    assert_eq!(
        repository.complete(deep).unwrap_err().status,
        Status::Failed
    );
}

#[test]
fn paths_take_the_types_of_their_class() {
    let repository = repository();
    let complete = |text: &str| repository.complete_path(text.parse().unwrap());
    for text in [
        "EX_Thing.Id=7",
        "ex_thing.ID=\"7\"",
        "EX_Thing=7",
        "EX_Thing.Id=0x7",
    ] {
        let path = complete(text).unwrap();
        assert_eq!(path.to_string(), "EX_Thing.Id=7");
        assert_eq!(path.key("Id"), Some(&Value::Uint32(7)));
    }
    let link =
        complete(r#"EX_Holds.To="EX_Thing.Id=1",From="\\\\.\\root\\x:EX_Box.Id=2""#).unwrap();
    assert_eq!(names(link.keys.keys()), ["From", "To"]);
    assert!(link.keys.values().all(|key| key.as_reference().is_some()));
    for (text, status) in [
        ("EX_Nope.Id=1", Status::InvalidClass),
        ("EX_Thing", Status::InvalidParameter),
        ("EX_Thing.Id=\"x\"", Status::InvalidParameter),
        ("EX_Thing.Id=1,State=2", Status::InvalidParameter),
        ("EX_Thing.Name=\"x\"", Status::InvalidParameter),
        ("EX_Holds=1", Status::InvalidParameter),
    ] {
        let error = complete(text).unwrap_err();
        assert_eq!(error.status, status, "{text}: {error}");
    }
    let mut thing = Instance::new("EX_Thing");
    thing.set("Id", 9u16);
    assert_eq!(
        repository.path_of(&thing).unwrap(),
        "EX_Thing.Id=9".parse().unwrap()
    );
    let error = repository.path_of(&Instance::new("EX_Thing")).unwrap_err();
    assert_eq!(error.status, Status::InvalidParameter);
}

#[test]
fn parameters_take_the_types_of_their_method() {
    let repository = repository();
    let call = |method: &'static str, given: Vec<(&'static str, Value)>| {
        let given: IndexMap<_, _> = given
            .into_iter()
            .map(|(parameter, value)| {
                let ty = value.cim_type().unwrap_or(CimType::String);
                let is_array = matches!(value, Value::Array(_));
                (
                    name(parameter),
                    TypedValue {
                        ty,
                        is_array,
                        value: Some(value),
                    },
                )
            })
            .collect();
        repository.check_parameters(&name("EX_Thing"), &name(method), given)
    };
    let path = ObjectPath::class("EX_Thing").with_key("Id", 1u32);
    let text = path.to_string();
    let on = Value::Array(vec![Some(Value::from(path))]);
    for given in [
        vec![
            ("what", Value::from("2")),
            ("on", Value::from(vec![text.as_str()])),
        ],
        vec![("On", on.clone()), ("What", Value::from(2u64))],
    ] {
        let typed = call("DO", given).unwrap();
        assert_eq!(names(typed.keys()), ["What", "On"]);
        assert_eq!(typed[&name("What")].value, Some(Value::Uint16(2)));
        assert_eq!(typed[&name("On")].value, Some(on.clone()));
    }
    let typed = call("Do", vec![]).unwrap();
    assert!(typed.values().all(|value| value.value.is_none()));
    assert_eq!(typed[&name("What")].ty, CimType::Uint16);
    assert!(typed[&name("On")].is_array);
    for (method, given, status) in [
        ("Nope", vec![], Status::MethodNotFound),
        (
            "Do",
            vec![("Nope", Value::from("1"))],
            Status::InvalidParameter,
        ),
        (
            "Do",
            vec![("What", Value::from("x"))],
            Status::InvalidParameter,
        ),
        (
            "Do",
            vec![("What", Value::from(65_536u32))],
            Status::InvalidParameter,
        ),
        ("Do", vec![("What", on)], Status::InvalidParameter),
        (
            "Do",
            vec![("Answer", Value::from("x"))],
            Status::InvalidParameter,
        ),
    ] {
        assert_eq!(call(method, given).unwrap_err().status, status, "{method}");
    }
}
