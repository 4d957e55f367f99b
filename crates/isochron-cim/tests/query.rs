//! Queries and filters: what is read, what is refused, what is selected.

#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use isochron_cim::query::{MAX_BYTES, Query, filter};
use isochron_cim::{
    AssociationFilter, CimError, CimServer, CimType, Class, ClassQuery, Instance, InstanceStream,
    Invocation, Name, ObjectPath, Outcome, Principal, QualifierDecl, Repository, RequestContext,
    Role, Status, TypedValue, Value,
};
use proptest::prelude::*;

const MOF: &str = r#"
    Qualifier Key : boolean = false, Scope(property, reference), Flavor(DisableOverride);
    Qualifier Association : boolean = false, Scope(association), Flavor(DisableOverride);
    Qualifier Marked : boolean = false, Scope(class), Flavor(Restricted);
    class EX_Base { [Key] string Id; string Name; };
    class EX_Thing : EX_Base { uint64 Size; real64 Ratio; boolean On; datetime When; uint16 Codes[]; };
    [Marked] class EX_Box : EX_Thing { uint8 Sides; };
    class EX_Event { string Inner; };
    [Association] class EX_Holds { [Key] EX_Base REF Outer; [Key] EX_Base REF Inner; };
"#;

fn repository() -> Repository {
    Repository::from_mof(&[("example.mof", MOF)]).unwrap()
}

fn thing(class: &str, id: &str, name: Option<&str>, size: u64) -> Instance {
    let mut thing = Instance::new(class);
    let path = ObjectPath::class(class).with_key("Id", id);
    thing.path = Some(path.in_namespace("root/x"));
    thing.set("Id", id).set("Size", size);
    if let Some(name) = name {
        thing.set("Name", name);
    } else {
        let null = TypedValue {
            ty: CimType::String,
            is_array: false,
            value: None,
        };
        thing.set("Name", "");
        thing.properties.get_mut(&Name::from("Name")).unwrap().value = null;
    }
    thing
}

/// An event about a box that refers to a thing.
fn event() -> Instance {
    let mut inner = thing("EX_Box", r"C:\it's", Some("Red_Box"), 42);
    inner
        .set("Ratio", Value::Real64(0.5))
        .set("On", true)
        .set("Delta", Value::Sint32(-3))
        .set(
            "When",
            CimType::DateTime
                .parse("20260102030405.000000+060")
                .unwrap(),
        )
        .set(
            "For",
            CimType::DateTime
                .parse("00000000000100.000000:000")
                .unwrap(),
        )
        .set("Codes", vec![2u16, 5])
        .set("Letter", Value::Char16(0x78))
        .set(
            "Other",
            ObjectPath::class("EX_Thing")
                .with_key("Id", "two")
                .in_namespace("root/x"),
        );
    let mut event = Instance::new("EX_Event");
    event.set("Inner", inner).set("Count", 7u8);
    event
}

fn holds(language: &str, condition: &str) -> bool {
    let tree = repository();
    let filter = match language {
        "DMTF:FQL" => filter(language, condition),
        _ => filter(
            language,
            &format!("SELECT * FROM EX_Event WHERE {condition}"),
        ),
    };
    let filter = filter.unwrap_or_else(|error| panic!("{condition}: {error}"));
    filter.matches(&event(), &tree)
}

#[test]
fn conditions_hold_or_not() {
    let wql = [
        ("Count = 7", true),
        ("7 = Count", true),
        ("Count <> 7 OR Count >= 0x7", true),
        ("Count < 7 OR Count > 7.5", false),
        ("Count != '8'", true),
        ("Count = 7 AND NOT Count = 8", true),
        ("NOT (Count = 7 AND Count = 8) AND NOT NOT Count = 7", true),
        ("Count = 8 OR Count = 7 AND Count = 7", true),
        ("(Count = 8 OR Count = 7) AND Count = 9", false),
        ("Inner ISA 'EX_Thing'", true),
        ("Inner ISA EX_Box AND __this ISA \"ex_event\"", true),
        ("Inner ISA 'EX_Event'", false),
        (
            "Inner.Missing ISA 'EX_Thing' OR NOT Inner.Missing ISA 'EX_Thing'",
            false,
        ),
        ("Inner.Name = 'red_BOX'", true),
        ("Inner.Name LIKE \"RED[_]%\"", true),
        (
            "Inner.Name LIKE 'red%x' AND Inner.Name NOT LIKE '[a-f]%'",
            true,
        ),
        ("NOT Inner.Name LIKE '%box%'", false),
        (r#"Inner.Id = "C:\\it's""#, true),
        (r"Inner.Id = 'c:\it\'s'", true),
        (
            "Inner.Size > 41 AND Inner.Size <= 42 AND Inner.Size = '42'",
            true,
        ),
        (
            "Inner.Ratio = 0.5 AND Inner.Ratio < 1 AND Inner.Ratio > -1e3",
            true,
        ),
        ("Inner.Delta < -2 AND Inner.Delta = -3", true),
        (
            "Inner.On = TRUE AND Inner.On = 1 AND Inner.On <> false AND Inner.On = 'True'",
            true,
        ),
        ("Inner.On > 0", false),
        // 02:04:05 UTC, in two offsets, and an interval.
        ("Inner.When = '20260102020405.000000+000'", true),
        ("Inner.When > '20260102030405.000000+120'", true),
        ("Inner.When > '20260102020406.000000+000'", false),
        ("Inner.For >= '00000000000059.999999:000'", true),
        (
            "Inner.For > 'yesterday' OR NOT Inner.For > 'yesterday'",
            false,
        ),
        ("Inner.Letter = 'X'", true),
        (
            "Missing IS NULL AND Count IS NOT NULL AND Missing = NULL",
            true,
        ),
        ("Count <> NULL AND Inner IS NOT NULL", true),
        // Null is neither equal nor different.
        ("Missing = 1 OR Missing <> 1 OR NOT Missing = 1", false),
        ("Missing = 1 OR Count = 7", true),
        ("NOT (Missing = 1 AND Count = 8)", true),
        (
            "Inner.__CLASS = 'EX_Box' AND Inner.__CLASS LIKE 'EX[_]%'",
            true,
        ),
        (
            "Inner.__CLASS ISA 'EX_Thing' AND __CLASS = 'EX_Event'",
            true,
        ),
        (r#"Inner.__RELPATH = "EX_Box.Id=\"C:\\\\it's\"""#, true),
        ("Inner.__NAMESPACE = 'root/x'", true),
        ("Inner.Other = 'EX_Thing.Id=\"two\"'", true),
        ("Inner.Other = 'root/x:EX_Thing.Id=\"two\"'", true),
        ("Inner.Other <> 'root/y:EX_Thing.Id=\"two\"'", true),
        ("Inner.Other.Id = 'two' AND Inner.Other ISA EX_Base", true),
        ("Inner.Codes = 2", false),
        ("EX_Event.Count = 7", true),
    ];
    for (condition, expected) in wql {
        assert_eq!(holds("WQL", condition), expected, "{condition}");
    }
    let cql = [
        ("Inner.Name = 'Red_Box'", true),
        ("Inner.Name = 'red_box'", false),
        (
            "Inner.Name LIKE 'Red.*' AND Inner.Name NOT LIKE 'red.*'",
            true,
        ),
        (r"Inner.Name LIKE 'Red\\_[A-C]ox'", true),
        (r"Inner.Name = 'Red\u005fBox'", true),
        ("Inner ISA EX_Thing AND EX_Event ISA EX_Event", true),
        ("Inner.EX_Thing::Size = 42", true),
        (
            "Inner.EX_Holds::Size = 42 OR NOT Inner.EX_Holds::Size = 42",
            false,
        ),
        ("Inner.Codes[1] = 5 AND Inner.Codes[2] IS NULL", true),
        ("ANY c IN Inner.Codes[*] SATISFIES (c > 4 AND c < 6)", true),
        ("EVERY c IN Inner.Codes[*] SATISFIES (c > 4)", false),
        (
            "EVERY c IN Inner.Codes[*] SATISFIES (ANY d IN Inner.Codes[*] SATISFIES (c = d))",
            true,
        ),
        ("ANY c IN Inner.Size SATISFIES (c = 42)", false),
        ("Inner.Size = Inner.Size AND Count < Inner.Size", true),
    ];
    for (condition, expected) in cql {
        assert_eq!(holds("DMTF:CQL", condition), expected, "{condition}");
    }
    let fql = [
        ("Count = 7", true),
        ("ISA EX_Event AND Inner INSTANCEOF EX_Box", true),
        ("INSTANCEOF EX_Box", false),
        ("ANY Inner.Codes = 5 AND NOT EVERY Inner.Codes = 5", true),
        ("Inner.Name LIKE \"R.+\" OR Count = 8", true),
    ];
    for (condition, expected) in fql {
        assert_eq!(holds("DMTF:FQL", condition), expected, "{condition}");
    }
}

#[test]
fn broken_queries_are_refused_with_the_place() {
    let deep = format!(
        "SELECT * FROM C WHERE {}A=1{}",
        "(".repeat(80),
        ")".repeat(80)
    );
    let nots = format!("SELECT * FROM C WHERE {} A=1", "NOT ".repeat(80));
    let long = format!("SELECT * FROM C WHERE A = '{}'", "x".repeat(MAX_BYTES));
    let many = format!("SELECT * FROM C WHERE A=1{}", " OR A=1".repeat(2000));
    let wql = [
        (
            "",
            "character 1: expected SELECT, ASSOCIATORS OF or REFERENCES OF, found the end",
        ),
        ("SELECT", "character 7"),
        ("SELECT * C", "expected FROM, found \"C\""),
        ("SELECT * FROM", "expected a class"),
        ("SELECT * FROM C WHERE", "expected a property or a constant"),
        ("SELECT * FROM C WHERE A", "expected =,"),
        (
            "SELECT * FROM C WHERE A =",
            "expected a property or a constant",
        ),
        (
            "SELECT * FROM C WHERE A = 1 B",
            "character 29: expected the end",
        ),
        ("SELECT * FROM C WHERE (A = 1", "expected \")\""),
        ("SELECT * FROM C WHERE A = 'x", "a quote at the end"),
        ("SELECT * FROM C WHERE A = 1x", "the end of the number"),
        (
            "SELECT * FROM C WHERE A = 99999999999999999999999999999999999999999999",
            "a number",
        ),
        ("SELECT * FROM C WHERE A > NULL", "nothing is more or less"),
        ("SELECT * FROM C WHERE 'a' IS NULL", "never NULL"),
        ("SELECT * FROM C WHERE A LIKE B", "a pattern in quotes"),
        ("SELECT * FROM C WHERE A LIKE '[x'", "not closed"),
        ("SELECT * FROM C WHERE A = \u{7}", "expected"),
        ("SELECT * FROM C, D", "joins"),
        ("SELECT * FROM C ORDER BY A", "sorting"),
        ("SELECT * FROM C GROUP WITHIN 5", "grouping"),
        ("SELECT COUNT(*) FROM C", "functions"),
        ("SELECT * FROM C WHERE UPPER(A) = 'A'", "functions"),
        ("SELECT * FROM C WITHIN -1", "out of range"),
        ("SELECT * FROM root:C", "other namespaces"),
        ("ASSOCIATORS OF A", "in braces"),
        ("ASSOCIATORS OF {A.}", "no object path"),
        ("ASSOCIATORS OF {A.B=1} WHERE", "AssocClass"),
        (
            "ASSOCIATORS OF {A.B=1} WHERE ResultClass = X AND Role = Y",
            "no AND",
        ),
        (
            "ASSOCIATORS OF {A.B=1} WHERE ResultClass <> X",
            "expected \"=\"",
        ),
        ("ASSOCIATORS OF {A.B=1} WHERE Role = X Role = Y", "twice"),
        (
            "ASSOCIATORS OF {A.B=1} WHERE ClassDefsOnly ResultClass = X",
            "exclude",
        ),
        ("ASSOCIATORS OF {A} WHERE SchemaOnly", "queries for classes"),
        ("REFERENCES OF {A.B=1} WHERE AssocClass = X", "a keyword"),
        (&deep, "nest deeper"),
        (&nots, "nest deeper"),
        (&long, "longer than"),
        (&many, "at most"),
    ];
    let cql = [
        ("ASSOCIATORS OF {A.B=1}", "expected SELECT"),
        ("SELECT * FROM C WHERE A[*] = 1", "ANY or EVERY"),
        ("SELECT * FROM C WHERE A[-1] = 1", "0 or more"),
        ("SELECT * FROM C WHERE A#'OK' = 1", "symbolic constants"),
        ("SELECT * FROM C WHERE A = B#'OK'", "end of the query"),
        (
            "SELECT * FROM C WHERE ANY a IN B[*] SATISFIES a = 1",
            "\"(\"",
        ),
        ("SELECT A AS B FROM C", "new names"),
    ];
    let tables = [("WQL", &wql[..]), ("DMTF:CQL", &cql[..])];
    for (language, table) in tables {
        for (text, message) in table {
            let error = Query::parse(language, text).unwrap_err();
            assert_eq!(error.status, Status::InvalidQuery, "{text}");
            assert!(error.message.contains(message), "{text}: {}", error.message);
        }
    }
    for language in ["SQL", "", "DMTF:FQL"] {
        let error = Query::parse(language, "SELECT * FROM C").unwrap_err();
        assert_eq!(error.status, Status::QueryLanguageNotSupported);
    }
    for text in [
        "SELECT A FROM C",
        "ASSOCIATORS OF {A.B=1}",
        "SELECT * FROM C WITHIN 1",
    ] {
        assert_eq!(
            filter("wql", text).unwrap_err().status,
            Status::InvalidQuery
        );
    }
}

#[test]
fn event_queries_tell_what_to_watch() {
    let text = "SELECT * FROM __InstanceModificationEvent WITHIN 1.5 WHERE \
                TargetInstance ISA 'Msvm_ConcreteJob' AND TargetInstance.JobState = 7";
    let Ok(Query::Select(select)) = Query::parse("WQL", text) else {
        panic!()
    };
    assert_eq!(select.class.as_str(), "__InstanceModificationEvent");
    assert_eq!(select.within.unwrap().as_millis(), 1500);
    assert!(select.columns.is_none());
    let condition = select.condition.unwrap();
    let required = condition.required_classes("targetinstance");
    assert_eq!(required, [&Name::from("Msvm_ConcreteJob")]);
    assert_eq!(condition.classes(), required);
    let mut job = Instance::new("Msvm_StorageJob");
    job.set("JobState", 7u16);
    let mut event = Instance::new("__InstanceModificationEvent");
    event.set("TargetInstance", job);
    let tree = |class: &Name, ancestor: &Name| {
        class == ancestor || (class.is("Msvm_StorageJob") && ancestor.is("Msvm_ConcreteJob"))
    };
    assert!(condition.matches(&event, &tree));
    assert!(!condition.matches(&event, &|a: &Name, b: &Name| a == b));
    // Of an embedded instance, the columns leave what they name.
    let text = "SELECT TargetInstance.Id, TargetInstance.Size, Count, __CLASS FROM EX_Event";
    let Ok(Query::Select(select)) = Query::parse("WQL", &text.replace("Target", "")) else {
        panic!()
    };
    assert_eq!(
        select.columns.as_ref().unwrap()[0].to_string(),
        "Instance.Id"
    );
    let mut whole = Instance::new("EX_Event");
    whole
        .set("Instance", thing("EX_Box", "a", None, 1))
        .set("Gone", 1u8);
    let left = select.project(whole);
    let names: Vec<_> = left.properties.keys().map(Name::as_str).collect();
    assert_eq!(names, ["Instance", "__CLASS"]);
    let Some(Value::Instance(inner)) = left.get("Instance") else {
        panic!()
    };
    let names: Vec<_> = inner.properties.keys().map(Name::as_str).collect();
    assert_eq!(names, ["Id", "Size"]);
}

/// Three things, of which the first holds the others.
struct World {
    repository: Repository,
    asked: Mutex<Vec<String>>,
}

impl World {
    fn things() -> Vec<Instance> {
        vec![
            thing("EX_Thing", "one", Some("One"), 1),
            thing("EX_Box", "two", None, 2),
            thing("EX_Box", "three", Some("three"), 3),
        ]
    }

    fn class(&self, name: &Name) -> Result<&Class, CimError> {
        let error = || CimError::new(Status::InvalidClass, format!("there is no class {name}"));
        self.repository.get(name).ok_or_else(error)
    }

    fn ask(&self, what: impl Into<String>) {
        self.asked.lock().unwrap().push(what.into());
    }
}

#[async_trait]
impl CimServer for World {
    fn namespaces(&self) -> Vec<String> {
        vec!["root/x".into()]
    }

    async fn get_class(&self, _: &RequestContext, class: &Name) -> Result<Class, CimError> {
        self.ask(format!("class {class}"));
        self.class(class).cloned()
    }

    async fn enumerate_classes(
        &self,
        _: &RequestContext,
        query: &ClassQuery,
    ) -> Result<Vec<Class>, CimError> {
        let below = query.below.clone().unwrap();
        self.class(&below)?;
        let names = self.repository.subclasses(&below, query.deep);
        Ok(names
            .iter()
            .filter_map(|name| self.repository.get(name))
            .cloned()
            .collect())
    }

    async fn get_qualifier(
        &self,
        _: &RequestContext,
        name: &Name,
    ) -> Result<QualifierDecl, CimError> {
        Err(CimError::not_found(name))
    }

    async fn enumerate_qualifiers(
        &self,
        _: &RequestContext,
    ) -> Result<Vec<QualifierDecl>, CimError> {
        Ok(Vec::new())
    }

    async fn get_instance(
        &self,
        _: &RequestContext,
        path: &ObjectPath,
    ) -> Result<Instance, CimError> {
        Err(CimError::not_found(path))
    }

    async fn enumerate_instances(
        &self,
        _: &RequestContext,
        class: &Name,
    ) -> Result<InstanceStream, CimError> {
        let class = self.class(class)?.name.clone();
        let found = Self::things()
            .into_iter()
            .filter(|thing| self.repository.is_a(&thing.class, &class))
            .map(Ok);
        Ok(stream::iter(found.collect::<Vec<_>>()).boxed())
    }

    async fn associators(
        &self,
        _: &RequestContext,
        source: &ObjectPath,
        filter: &AssociationFilter,
    ) -> Result<InstanceStream, CimError> {
        self.ask(format!("associators {source} {filter:?}"));
        Ok(stream::iter(Self::things().into_iter().map(Ok)).boxed())
    }

    async fn references(
        &self,
        _: &RequestContext,
        source: &ObjectPath,
        filter: &AssociationFilter,
    ) -> Result<InstanceStream, CimError> {
        self.ask(format!("references {source} {filter:?}"));
        Ok(stream::empty().boxed())
    }

    async fn invoke_method(&self, _: &RequestContext, _: Invocation) -> Result<Outcome, CimError> {
        Err(CimError::not_supported("no methods"))
    }
}

fn run(language: &str, text: &str) -> Result<(Vec<Instance>, Vec<String>), CimError> {
    futures::executor::block_on(async {
        let world = Arc::new(World {
            repository: repository(),
            asked: Mutex::default(),
        });
        let cx = RequestContext {
            namespace: "root/x".into(),
            principal: Principal::anonymous(Role::Reader),
        };
        let query = Query::parse(language, text)?;
        let found = query.run(world.clone(), &cx).await?;
        let found = found.try_collect().await?;
        let asked = world.asked.lock().unwrap().clone();
        Ok((found, asked))
    })
}

fn ids(language: &str, text: &str) -> Vec<String> {
    let (found, _) = run(language, text).unwrap();
    let id = |instance: &Instance| {
        instance
            .path
            .as_ref()
            .unwrap()
            .key_str("Id")
            .unwrap()
            .to_owned()
    };
    found.iter().map(id).collect()
}

#[test]
fn a_select_finds_instances() {
    assert_eq!(
        ids("WQL", "select * from ex_thing"),
        ["one", "two", "three"]
    );
    assert_eq!(
        ids("WQL", "SELECT * FROM EX_Thing WHERE Size > 1;"),
        ["two", "three"]
    );
    assert_eq!(
        ids("WQL", "SELECT * FROM EX_Thing WHERE Name IS NULL"),
        ["two"]
    );
    assert_eq!(
        ids("WQL", "SELECT * FROM EX_Base WHERE __CLASS='EX_Box'"),
        ["two", "three"]
    );
    assert_eq!(
        ids(
            "DMTF:CQL",
            "SELECT * FROM EX_Base b WHERE b ISA EX_Thing AND b.Name <> 'x'"
        ),
        ["one", "three"]
    );
    let (found, _) = run(
        "DMTF:CQL",
        "SELECT EX_Thing.Size, Name FROM EX_Thing WHERE Id = 'one'",
    )
    .unwrap();
    let names: Vec<_> = found[0].properties.keys().map(Name::as_str).collect();
    assert_eq!(names, ["Size", "Name"]);
    let (found, _) = run("WQL", "SELECT __PATH, Id FROM EX_Thing WHERE Id = 'ONE'").unwrap();
    assert_eq!(
        found[0].get("__PATH").and_then(Value::as_str),
        Some("root/x:EX_Thing.Id=\"one\"")
    );
    for text in [
        "SELECT * FROM EX_None",
        "SELECT Nothing FROM EX_Thing",
        "SELECT * FROM EX_Thing WHERE Nothing = 1",
        "SELECT * FROM EX_Thing WITHIN 1",
        "SELECT * FROM meta_class",
        "ASSOCIATORS OF {EX_Thing}",
        "ASSOCIATORS OF {EX_Thing.Id=\"one\"} WHERE ClassDefsOnly",
    ] {
        assert_eq!(
            run("WQL", text).unwrap_err().status,
            Status::InvalidQuery,
            "{text}"
        );
    }
}

#[test]
fn a_traversal_asks_for_what_it_says() {
    let text = "ASSOCIATORS OF {EX_Thing.Id=\"{o}ne\"} WHERE AssocClass = EX_Holds \
                ResultClass=EX_Thing Role = Outer ResultRole=Inner RequiredQualifier=Marked KeysOnly";
    let (found, asked) = run("WQL", text).unwrap();
    let filter = AssociationFilter {
        association: Some("EX_Holds".into()),
        result_class: Some("EX_Thing".into()),
        role: Some("Outer".into()),
        result_role: Some("Inner".into()),
    };
    let source = "root/x:EX_Thing.Id=\"{o}ne\"";
    // Each class is asked for its qualifiers once.
    assert_eq!(
        asked,
        [
            format!("associators {source} {filter:?}"),
            "class EX_Thing".into(),
            "class EX_Box".into()
        ]
    );
    assert_eq!(found.len(), 2);
    assert_eq!(
        found[0].properties.keys().collect::<Vec<_>>(),
        [&Name::from("Id")]
    );
    let text =
        r#"references of {\\.\root\x:EX_Thing.Id='one'} where ResultClass=EX_Holds Role=Inner"#;
    let (_, asked) = run("WQL", text).unwrap();
    let filter = AssociationFilter {
        association: Some("EX_Holds".into()),
        role: Some("Inner".into()),
        ..AssociationFilter::default()
    };
    assert_eq!(
        asked,
        [format!("references root/x:EX_Thing.Id=\"one\" {filter:?}")]
    );
    let query = Query::parse(
        "WQL",
        "ASSOCIATORS OF {EX_Thing.Id='one'} WHERE ClassDefsOnly",
    )
    .unwrap();
    assert!(query.asks_for_classes());
    let world = Arc::new(World {
        repository: repository(),
        asked: Mutex::default(),
    });
    let cx = RequestContext {
        namespace: "root/x".into(),
        principal: Principal::anonymous(Role::Reader),
    };
    let classes = futures::executor::block_on(query.classes(world, &cx)).unwrap();
    let names: Vec<_> = classes.iter().map(|class| class.name.as_str()).collect();
    assert_eq!(names, ["EX_Thing", "EX_Box"]);
}

proptest! {
    /// Words of the languages in any order: an answer, never a panic.
    #[test]
    fn any_words_are_answered(words in prop::collection::vec(prop::sample::select(vec![
        "SELECT", "*", "FROM", "EX_Event", "WHERE", "AND", "OR", "NOT", "(", ")", "Count", "Inner",
        ".", "::", "[", "]", "1", "-0x1F", "1e400", "'x'", "\"", "'", "\\", "LIKE", "'[a-%_'", "ISA", "IS",
        "NULL", "ANY", "EVERY", "IN", "SATISFIES", "=", "<>", "<", ",", "WITHIN", "ASSOCIATORS", "OF",
        "{", "}", "{A.B=1}", "Role", "ClassDefsOnly", "__CLASS", "\u{e9}", "AS", ";", "#",
    ]), 0..30), wql in any::<bool>()) {
        let text = words.join(" ");
        let start = "SELECT * FROM EX_Event WHERE ";
        for text in [text.clone(), format!("{start}{text}")] {
            let language = if wql { "WQL" } else { "DMTF:CQL" };
            drop(Query::parse(language, &text));
            for language in [language, "DMTF:FQL"] {
                if let Ok(condition) = filter(language, &text) {
                    condition.matches(&event(), &|a: &Name, b: &Name| a == b);
                }
            }
        }
    }
}
