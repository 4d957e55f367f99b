//! Operations without HTTP: what clients seldom send and DSP0200 still rules.

#![allow(clippy::expect_used)] // A test fails by panicking.

mod common;

use std::sync::Arc;

use common::{NAMESPACE, TestServer, wrap};
use isochron_cim::{
    CimError, CimType, EnumerationLimits, Name, Principal, Role, Status, TypedValue, Value,
};
use isochron_cim::{ObjectPath, Outcome};
use isochron_cimxml::decode::{Call, Limits, request};
use isochron_cimxml::operations::{Answer, Item, Operations};

async fn call(namespace: &str, method: &str, parameters: &str) -> Result<Answer, Status> {
    let operations = Operations::new(Arc::new(TestServer::new()), EnumerationLimits::default());
    call_on(&operations, namespace, method, parameters).await
}

async fn call_on(
    operations: &Operations,
    namespace: &str,
    method: &str,
    parameters: &str,
) -> Result<Answer, Status> {
    let body = wrap(namespace, method, parameters);
    let request = request(body.as_bytes(), Limits::default()).expect("a request");
    let Call::Intrinsic {
        namespace,
        arguments,
    } = request.call
    else {
        panic!("intrinsic")
    };
    let who = Principal::anonymous(Role::Administrator);
    let answer = operations.intrinsic(who, namespace, &request.method, arguments);
    answer.await.map_err(|error: CimError| error.status)
}

#[tokio::test]
async fn refusals_have_the_status_of_dsp0200() {
    let argument =
        |name: &str, xml: &str| format!("<IPARAMVALUE NAME=\"{name}\">{xml}</IPARAMVALUE>");
    let class = argument("ClassName", "<CLASSNAME NAME=\"T_Thing\"/>");
    let nobody = argument("ClassName", "<CLASSNAME NAME=\"T_Nobody\"/>");
    let with = |more: String| format!("{class}{more}");
    let table = [
        // What this server does not have comes before everything else.
        ("nowhere", "Nonsense", String::new(), Status::NotSupported),
        (
            NAMESPACE,
            "EnumerationCount",
            argument("X", "<VALUE/>"),
            Status::NotSupported,
        ),
        (NAMESPACE, "Work", String::new(), Status::NotSupported),
        (
            "nowhere",
            "GetClass",
            class.clone(),
            Status::InvalidNamespace,
        ),
        (
            NAMESPACE,
            "GetClass",
            String::new(),
            Status::InvalidParameter,
        ),
        (
            NAMESPACE,
            "GetClass",
            with(argument("Other", "<VALUE>1</VALUE>")),
            Status::InvalidParameter,
        ),
        (
            NAMESPACE,
            "GetClass",
            with(argument("localonly", "<VALUE>1</VALUE>")),
            Status::InvalidParameter,
        ),
        (
            NAMESPACE,
            "GetClass",
            with(argument("PropertyList", "<VALUE>1</VALUE>")),
            Status::InvalidParameter,
        ),
        (
            NAMESPACE,
            "GetClass",
            with(class.clone()),
            Status::InvalidParameter,
        ),
        // A class that is not there has an error of its own, whatever is asked of it.
        (
            NAMESPACE,
            "EnumerateInstances",
            nobody.clone(),
            Status::InvalidClass,
        ),
        (
            NAMESPACE,
            "EnumerateInstances",
            nobody + &argument("DeepInheritance", "<VALUE>false</VALUE>"),
            Status::InvalidClass,
        ),
        (
            NAMESPACE,
            "GetInstance",
            argument("InstanceName", "<VALUE>1</VALUE>"),
            Status::InvalidParameter,
        ),
        (
            NAMESPACE,
            "Associators",
            String::new(),
            Status::InvalidParameter,
        ),
        (
            NAMESPACE,
            "AssociatorNames",
            argument("ObjectName", "<CLASSNAME NAME=\"T_Thing\"/>")
                + &argument("ResultClass", "<CLASSNAME NAME=\"T_None\"/>"),
            Status::InvalidParameter,
        ),
        (
            NAMESPACE,
            "ModifyInstance",
            argument("ModifiedInstance", "<INSTANCE CLASSNAME=\"T_Thing\"/>"),
            Status::InvalidParameter,
        ),
        (
            NAMESPACE,
            "ModifyInstance",
            argument(
                "ModifiedInstance",
                "<VALUE.NAMEDINSTANCE><INSTANCENAME CLASSNAME=\"T_Base\"/><INSTANCE CLASSNAME=\"T_Thing\"/></VALUE.NAMEDINSTANCE>",
            ),
            Status::InvalidParameter,
        ),
    ];
    for (namespace, method, parameters, status) in table {
        let answer = call(namespace, method, &parameters).await;
        assert_eq!(answer.err(), Some(status), "{method} {parameters}");
    }
    // Names compare without case, and null is as good as absent.
    let null = with(argument("PropertyList", "") + &argument("LOCALONLY", "<VALUE>False</VALUE>"));
    let Ok(Answer::Items(items)) = call("ROOT/Test", "getclass", &null).await else {
        panic!()
    };
    let Item::Class(class) = &items[0] else {
        panic!("{items:?}")
    };
    assert_eq!(class.properties.len(), 10);
}

fn items(answer: Result<Answer, Status>) -> Result<Vec<Item>, Status> {
    match answer? {
        Answer::Items(items) => Ok(items),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn one_property_is_read_and_set() {
    let argument =
        |name: &str, xml: &str| format!("<IPARAMVALUE NAME=\"{name}\">{xml}</IPARAMVALUE>");
    let one = r#"<INSTANCENAME CLASSNAME="T_Thing"><KEYBINDING NAME="Name"><KEYVALUE>one</KEYVALUE></KEYBINDING></INSTANCENAME>"#;
    let of_one = |property: &str, value: &str| {
        argument("InstanceName", one)
            + &argument("PropertyName", &format!("<VALUE>{property}</VALUE>"))
            + value
    };
    let operations = Operations::new(Arc::new(TestServer::new()), EnumerationLimits::default());
    let get = async |property: &str| {
        let got = call_on(&operations, NAMESPACE, "GetProperty", &of_one(property, "")).await;
        items(got).map(|items| match items.as_slice() {
            [Item::Value(typed)] => typed.value.clone(),
            [] => None,
            other => panic!("{other:?}"),
        })
    };
    let set = async |property: &str, value: &str| {
        let parameters = of_one(property, &argument("NewValue", value));
        let set = call_on(&operations, NAMESPACE, "SetProperty", &parameters).await;
        set.map(|answer| assert!(matches!(answer, Answer::Nothing)))
    };
    assert_eq!(get("size").await, Ok(Some(Value::Uint64(u64::MAX))));
    assert_eq!(get("Nothing").await, Err(Status::NoSuchProperty));
    assert_eq!(
        set("Size", "<VALUE>sixteen</VALUE>").await,
        Err(Status::TypeMismatch)
    );
    assert_eq!(set("Size", "<VALUE>0x10</VALUE>").await, Ok(()));
    assert_eq!(get("Size").await, Ok(Some(Value::Uint64(16))));
    let array = "<VALUE.ARRAY><VALUE>a</VALUE><VALUE.NULL/></VALUE.ARRAY>";
    assert_eq!(set("Tags", array).await, Ok(()));
    let tags = Value::Array(vec![Some("a".into()), None]);
    assert_eq!(get("Tags").await, Ok(Some(tags)));
    assert_eq!(set("On", "").await, Ok(()));
    assert_eq!(get("On").await, Ok(None));
    for (property, value) in [
        ("Tags", "<VALUE>a</VALUE>"),
        ("Size", array),
        ("Size", one),
        ("On", "<VALUE>maybe</VALUE>"),
    ] {
        let set = set(property, value).await;
        assert_eq!(set, Err(Status::TypeMismatch), "{property} {value}");
    }
    assert_eq!(set("None", "").await, Err(Status::NoSuchProperty));
}

async fn add(parameters: Vec<(Name, TypedValue)>) -> Result<Outcome, Status> {
    let server = Arc::new(TestServer::new());
    let operations = Operations::new(server, EnumerationLimits::default());
    let target = ObjectPath::class("T_Thing").in_namespace(NAMESPACE);
    let who = Principal::anonymous(Role::Administrator);
    let outcome = operations.invoke(who, target, "Add", Ok(parameters));
    outcome.await.map_err(|error| error.status)
}

#[tokio::test]
async fn parameters_without_a_name_go_by_their_place() {
    let number = |name: &str, text: &str| {
        let value = Some(Value::from(text));
        (
            Name::from(name),
            TypedValue {
                ty: CimType::String,
                is_array: false,
                value,
            },
        )
    };
    for sent in [
        vec![number("", "2"), number("", "40")],
        vec![number("A", "2"), number("", "40")],
        vec![number("b", "40"), number("a", "2")],
    ] {
        let outcome = add(sent.clone()).await.expect("it adds");
        assert_eq!(
            outcome.return_value.value,
            Some(Value::Uint32(42)),
            "{sent:?}"
        );
    }
    for sent in [
        vec![number("", "2"), number("A", "40")],
        vec![number("", "1"), number("", "2"), number("", "3")],
    ] {
        assert_eq!(
            add(sent.clone()).await,
            Err(Status::InvalidParameter),
            "{sent:?}"
        );
    }
}
