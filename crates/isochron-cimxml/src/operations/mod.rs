//! DSP0200's operations over a [`CimServer`]: what follows from a provider's
//! answers is done here, once: flags, property lists, name-only variants,
//! traversal between classes, queries, pulled enumerations.

mod answer;
mod associations;
mod classes;
mod instances;
mod intrinsic;
mod methods;
mod properties;
mod pulled;

use std::sync::Arc;
use std::time::Instant;

use isochron_cim::query::{self, Condition};
use isochron_cim::{
    CimError, CimServer, Class, EnumerationLimits, Enumerations, Instance, InstanceStream, Name,
    ObjectPath, Principal, QualifierDecl, RequestContext, Status,
};

use crate::decode::{Argument, Arguments};
pub use answer::{Answer, Item, Items};
use intrinsic::Intrinsic;
use pulled::Shape;

/// What carries out operations: a server, and the enumerations that are open at it.
#[derive(Clone)]
pub struct Operations {
    server: Arc<dyn CimServer>,
    enumerations: Arc<Enumerations<Shape>>,
}

/// An intrinsic method on its way.
struct Operation {
    server: Arc<dyn CimServer>,
    enumerations: Arc<Enumerations<Shape>>,
    cx: RequestContext,
    arguments: Arguments,
}

impl Operations {
    /// On this server, with no enumeration open yet.
    pub fn new(server: Arc<dyn CimServer>, limits: EnumerationLimits) -> Self {
        Self {
            server,
            enumerations: Arc::new(Enumerations::new(limits)),
        }
    }

    /// Lets go of enumerations that nobody has used for their timeout. They end on
    /// time without this; with it, what they hold is freed on time too.
    pub fn expire(&self) {
        self.enumerations.expire(Instant::now());
    }

    /// Runs an intrinsic method.
    ///
    /// # Errors
    /// The CIM status that DSP0200 lists for the method; `NOT_SUPPORTED` where this
    /// server does not have it, before anything else is looked at.
    pub async fn intrinsic(
        &self,
        principal: Principal,
        namespace: String,
        method: &str,
        arguments: Result<Arguments, CimError>,
    ) -> Result<Answer, CimError> {
        let entry = Intrinsic::find(method);
        let Some((entry, run)) = entry.and_then(|entry| Some((entry, entry.run?))) else {
            return Err(CimError::not_supported(format!(
                "this server has no operation {method}"
            )));
        };
        self.check_namespace(&namespace)?;
        let arguments = arguments?;
        if let Some(name) = arguments
            .keys()
            .find(|name| !entry.parameters().any(|p| name.is(p)))
        {
            return Err(CimError::invalid_parameter(format!(
                "{method} has no parameter {name}"
            )));
        }
        run(&Operation {
            server: self.server.clone(),
            enumerations: self.enumerations.clone(),
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
    fn check_namespace(&self, namespace: &str) -> Result<(), CimError> {
        let same = |ours: &String| ours.trim_matches('/').eq_ignore_ascii_case(namespace);
        if self.server.namespaces().iter().any(same) {
            return Ok(());
        }
        Err(CimError::new(
            Status::InvalidNamespace,
            format!("there is no namespace {namespace} on this server"),
        ))
    }
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

    /// A text; an empty one is none.
    fn text(&self, name: &'static str) -> Result<Option<&str>, CimError> {
        match self.argument(name) {
            None => Ok(None),
            Some(Argument::Text(text)) if text.trim().is_empty() => Ok(None),
            Some(Argument::Text(text)) => Ok(Some(text)),
            Some(_) => Err(CimError::invalid_parameter(format!("{name} is a text"))),
        }
    }

    /// A uint32.
    fn number(&self, name: &'static str) -> Result<Option<u32>, CimError> {
        let parsed = |text: &str| {
            text.trim()
                .parse()
                .map_err(|_| CimError::invalid_parameter(format!("{name} is a number (uint32)")))
        };
        self.text(name)?.map(parsed).transpose()
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

    fn class(&self, name: &'static str) -> Result<Class, CimError> {
        match self.argument(name) {
            Some(Argument::Class(class)) => Ok(class.clone()),
            Some(_) => Err(CimError::invalid_parameter(format!("{name} is a CLASS"))),
            None => Err(missing(name)),
        }
    }

    fn qualifier(&self, name: &'static str) -> Result<QualifierDecl, CimError> {
        match self.argument(name) {
            Some(Argument::Qualifier(declared)) => Ok(declared.clone()),
            Some(_) => Err(CimError::invalid_parameter(format!(
                "{name} is a QUALIFIER.DECLARATION"
            ))),
            None => Err(missing(name)),
        }
    }

    /// What of the stream fulfils the condition.
    async fn filtered(
        &self,
        found: InstanceStream,
        condition: Option<Condition>,
    ) -> Result<InstanceStream, CimError> {
        match condition {
            None => Ok(found),
            Some(condition) => query::filtered(found, condition, &*self.server, &self.cx).await,
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
