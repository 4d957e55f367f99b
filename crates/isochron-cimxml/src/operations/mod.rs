//! DSP0200's operations over a [`CimServer`]: what follows from a provider's
//! answers is done here, once: flags, property lists, name-only variants,
//! traversal between classes.
//!
//! `INTRINSIC` is the list of DSP0200's intrinsic methods. One that has no
//! function there is `CIM_ERR_NOT_SUPPORTED`, and so is a name that is not in
//! it (DSP0200, "Intrinsic methods").

mod associations;
mod classes;
mod instances;
mod methods;

use std::sync::Arc;

use futures::future::BoxFuture;
use isochron_cim::{
    CimError, CimServer, Class, Instance, Name, ObjectPath, Principal, QualifierDecl,
    RequestContext, Status,
};

use crate::decode::{Argument, Arguments};
pub use methods::invoke;

/// What an intrinsic method returns: the content of IRETURNVALUE.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Nothing: the method returns no value.
    Nothing,
    /// CLASS elements.
    Classes(Vec<Class>),
    /// CLASSNAME elements.
    ClassNames(Vec<Name>),
    /// INSTANCE elements.
    Instances(Vec<Instance>),
    /// VALUE.NAMEDINSTANCE elements.
    NamedInstances(Vec<Instance>),
    /// INSTANCENAME elements.
    InstanceNames(Vec<ObjectPath>),
    /// VALUE.OBJECTWITHPATH elements.
    ObjectsWithPath(Vec<Object>),
    /// OBJECTPATH elements; without keys of classes.
    ObjectPaths(Vec<ObjectPath>),
    /// QUALIFIER.DECLARATION elements.
    Qualifiers(Vec<QualifierDecl>),
}

/// What an association leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// At instance level.
    Instance(Instance),
    /// At class level.
    Class(Class),
}

/// An intrinsic method on its way.
struct Operation {
    server: Arc<dyn CimServer>,
    cx: RequestContext,
    arguments: Arguments,
}

type Run = fn(&Operation) -> BoxFuture<'_, Result<Answer, CimError>>;

/// An intrinsic method: its name, its parameters, and what runs it.
struct Intrinsic {
    name: &'static str,
    parameters: &'static [&'static str],
    run: Option<Run>,
}

macro_rules! supported {
    ($name:literal, $run:path, [$($parameter:literal),*]) => {
        Intrinsic {
            name: $name,
            parameters: &[$($parameter),*],
            run: Some(|operation| Box::pin($run(operation))),
        }
    };
}

const fn unsupported(name: &'static str) -> Intrinsic {
    Intrinsic {
        name,
        parameters: &[],
        run: None,
    }
}

/// DSP0200's intrinsic methods.
static INTRINSIC: &[Intrinsic] = &[
    supported!(
        "GetClass",
        classes::get_class,
        [
            "ClassName",
            "LocalOnly",
            "IncludeQualifiers",
            "IncludeClassOrigin",
            "PropertyList"
        ]
    ),
    supported!(
        "EnumerateClasses",
        classes::enumerate_classes,
        [
            "ClassName",
            "DeepInheritance",
            "LocalOnly",
            "IncludeQualifiers",
            "IncludeClassOrigin"
        ]
    ),
    supported!(
        "EnumerateClassNames",
        classes::enumerate_class_names,
        ["ClassName", "DeepInheritance"]
    ),
    supported!("GetQualifier", classes::get_qualifier, ["QualifierName"]),
    supported!("EnumerateQualifiers", classes::enumerate_qualifiers, []),
    supported!(
        "GetInstance",
        instances::get_instance,
        [
            "InstanceName",
            "LocalOnly",
            "IncludeQualifiers",
            "IncludeClassOrigin",
            "PropertyList"
        ]
    ),
    supported!(
        "EnumerateInstances",
        instances::enumerate_instances,
        [
            "ClassName",
            "LocalOnly",
            "DeepInheritance",
            "IncludeQualifiers",
            "IncludeClassOrigin",
            "PropertyList"
        ]
    ),
    supported!(
        "EnumerateInstanceNames",
        instances::enumerate_instance_names,
        ["ClassName"]
    ),
    supported!(
        "CreateInstance",
        instances::create_instance,
        ["NewInstance"]
    ),
    supported!(
        "ModifyInstance",
        instances::modify_instance,
        ["ModifiedInstance", "IncludeQualifiers", "PropertyList"]
    ),
    supported!(
        "DeleteInstance",
        instances::delete_instance,
        ["InstanceName"]
    ),
    supported!(
        "Associators",
        associations::associators,
        [
            "ObjectName",
            "AssocClass",
            "ResultClass",
            "Role",
            "ResultRole",
            "IncludeQualifiers",
            "IncludeClassOrigin",
            "PropertyList"
        ]
    ),
    supported!(
        "AssociatorNames",
        associations::associator_names,
        [
            "ObjectName",
            "AssocClass",
            "ResultClass",
            "Role",
            "ResultRole"
        ]
    ),
    supported!(
        "References",
        associations::references,
        [
            "ObjectName",
            "ResultClass",
            "Role",
            "IncludeQualifiers",
            "IncludeClassOrigin",
            "PropertyList"
        ]
    ),
    supported!(
        "ReferenceNames",
        associations::reference_names,
        ["ObjectName", "ResultClass", "Role"]
    ),
    unsupported("CreateClass"),
    unsupported("ModifyClass"),
    unsupported("DeleteClass"),
    unsupported("SetQualifier"),
    unsupported("DeleteQualifier"),
    unsupported("GetProperty"),
    unsupported("SetProperty"),
    unsupported("ExecQuery"),
    unsupported("OpenEnumerateInstances"),
    unsupported("OpenEnumerateInstancePaths"),
    unsupported("OpenAssociatorInstances"),
    unsupported("OpenAssociatorInstancePaths"),
    unsupported("OpenReferenceInstances"),
    unsupported("OpenReferenceInstancePaths"),
    unsupported("OpenQueryInstances"),
    unsupported("PullInstancesWithPath"),
    unsupported("PullInstancePaths"),
    unsupported("PullInstances"),
    unsupported("CloseEnumeration"),
    unsupported("EnumerationCount"),
];

/// Runs an intrinsic method.
///
/// # Errors
/// The CIM status that DSP0200 lists for the method; `NOT_SUPPORTED` where this
/// server does not have it, before anything else is looked at.
pub async fn intrinsic(
    server: Arc<dyn CimServer>,
    principal: Principal,
    namespace: String,
    method: &str,
    arguments: Result<Arguments, CimError>,
) -> Result<Answer, CimError> {
    let entry = INTRINSIC
        .iter()
        .find(|entry| entry.name.eq_ignore_ascii_case(method));
    let Some((entry, run)) = entry.and_then(|entry| Some((entry, entry.run?))) else {
        return Err(CimError::not_supported(format!(
            "this server has no operation {method}"
        )));
    };
    check_namespace(&*server, &namespace)?;
    let arguments = arguments?;
    if let Some(name) = arguments
        .keys()
        .find(|name| !entry.parameters.iter().any(|p| name.is(p)))
    {
        return Err(CimError::invalid_parameter(format!(
            "{method} has no parameter {name}"
        )));
    }
    run(&Operation {
        server,
        cx: RequestContext {
            namespace,
            principal,
        },
        arguments,
    })
    .await
}

/// `INVALID_NAMESPACE` unless the server has it; clients look for namespaces by
/// trying them.
fn check_namespace(server: &dyn CimServer, namespace: &str) -> Result<(), CimError> {
    let same = |ours: &String| ours.trim_matches('/').eq_ignore_ascii_case(namespace);
    if server.namespaces().iter().any(same) {
        return Ok(());
    }
    Err(CimError::new(
        Status::InvalidNamespace,
        format!("there is no namespace {namespace} on this server"),
    ))
}

impl Operation {
    fn argument(&self, name: &'static str) -> Option<&Argument> {
        self.arguments
            .get(&Name::fixed(name))
            .filter(|argument| **argument != Argument::Null)
    }

    fn flag(&self, name: &'static str, default: bool) -> Result<bool, CimError> {
        match self.argument(name) {
            None => Ok(default),
            Some(Argument::Text(text)) if text.trim().eq_ignore_ascii_case("true") => Ok(true),
            Some(Argument::Text(text)) if text.trim().eq_ignore_ascii_case("false") => Ok(false),
            Some(_) => Err(CimError::invalid_parameter(format!(
                "{name} is true or false"
            ))),
        }
    }

    /// A name given as text or CLASSNAME; an empty one is none.
    fn name(&self, name: &'static str) -> Result<Option<Name>, CimError> {
        match self.argument(name) {
            None => Ok(None),
            Some(Argument::Text(text)) if text.trim().is_empty() => Ok(None),
            Some(Argument::Text(text)) => Ok(Some(text.trim().into())),
            Some(Argument::ClassName(class)) => Ok(Some(class.clone())),
            Some(_) => Err(CimError::invalid_parameter(format!("{name} is a name"))),
        }
    }

    fn required_name(&self, name: &'static str) -> Result<Name, CimError> {
        self.name(name)?.ok_or_else(|| missing(name))
    }

    fn path(&self, name: &'static str) -> Result<ObjectPath, CimError> {
        match self.argument(name) {
            Some(Argument::Path(path)) => Ok(self.located(path.clone())),
            Some(_) => Err(CimError::invalid_parameter(format!(
                "{name} is an INSTANCENAME"
            ))),
            None => Err(missing(name)),
        }
    }

    fn instance(&self, name: &'static str) -> Result<Instance, CimError> {
        match self.argument(name) {
            Some(Argument::Instance(instance)) => Ok(instance.clone()),
            Some(_) => Err(CimError::invalid_parameter(format!(
                "{name} is an instance"
            ))),
            None => Err(missing(name)),
        }
    }

    /// The property list: `None` for all properties.
    fn property_list(&self) -> Result<Option<Vec<Name>>, CimError> {
        let not_names = || CimError::invalid_parameter("PropertyList is an array of names");
        match self.argument("PropertyList") {
            None => Ok(None),
            Some(Argument::Texts(items)) => {
                let name = |item: &Option<String>| item.as_deref().map(Name::from);
                let names: Option<_> = items.iter().map(name).collect();
                names.map(Some).ok_or_else(not_names)
            }
            Some(_) => Err(not_names()),
        }
    }

    /// The path in the operation's namespace.
    fn located(&self, mut path: ObjectPath) -> ObjectPath {
        path.host = None;
        path.namespace
            .get_or_insert_with(|| self.cx.namespace.clone());
        path
    }
}

fn missing(name: &str) -> CimError {
    CimError::invalid_parameter(format!("the parameter {name} is needed"))
}
