//! The operations of a CIM server, answered from the schema and the provider.
//!
//! Errors are those that DSP0200 lists per operation: a namespace, a class or an
//! instance that is not there has a status of its own each; a path whose keys are
//! not its class's is an invalid parameter. Nothing can be created, modified or
//! deleted but through methods.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, StreamExt};
use isochron_cim::{
    AssociationFilter, ChangeStream, CimError, CimServer, CimType, Class, ClassQuery, Instance,
    InstanceStream, Invocation, Method, MethodTarget, Name, ObjectPath, Outcome, QualifierDecl,
    RequestContext, SchemaError, Status, TypedValue, Value,
};
use isochron_engine::{Caller, Engine};

use crate::changes;
use crate::lookup::Provider;
use crate::methods::{self, Attempt};
use crate::object::Object;
use crate::schema::{Schema, Space};
use crate::traversal::Link;

/// Reads the text of an embedded instance. How that text looks is the protocol's
/// business, which is not known here.
pub type Decode = Arc<dyn Fn(&str) -> Result<Instance, CimError> + Send + Sync>;

/// How many instances of one enumeration are described at a time: describing a
/// machine asks it how it is.
const RENDERED_AT_ONCE: usize = 8;

/// The CIM server over the engine.
#[derive(Clone)]
pub struct HypervServer {
    provider: Arc<Provider>,
}

impl HypervServer {
    /// A server over an engine. `decode` reads the text of embedded instances;
    /// `host` is the name that this host is known by, the key of its computer
    /// system and of its services. `root` is the directory in which `proc`, `sys` and
    /// `etc` describe this host; without one there is no `root/cimv2`. Fails only if the
    /// schema that is compiled in does not fit together.
    pub fn new(
        engine: Engine,
        decode: Decode,
        host: &str,
        root: Option<PathBuf>,
    ) -> Result<Self, SchemaError> {
        let provider = Provider {
            engine: engine.on_behalf_of(Caller::reader("cim")),
            schema: Schema::compile(root.is_some())?,
            host: host.to_owned(),
            root,
            decode,
        };
        Ok(Self {
            provider: Arc::new(provider),
        })
    }

    fn space(&self, cx: &RequestContext) -> Result<&Space, CimError> {
        self.provider.schema.find(&cx.namespace).ok_or_else(|| {
            let names: Vec<_> = self.provider.schema.names().collect();
            CimError::new(
                Status::InvalidNamespace,
                format!(
                    "there is no namespace {}; there are {}",
                    cx.namespace,
                    names.join(", ")
                ),
            )
        })
    }

    /// The objects of a path's class, described as they are taken.
    fn describe(&self, space: &Space, objects: Vec<Object>) -> InstanceStream {
        let (provider, space) = (self.provider.clone(), space.clone());
        stream::iter(objects)
            .map(move |object| {
                let (provider, space) = (provider.clone(), space.clone());
                async move { provider.render(&space, &object).await }
            })
            .buffered(RENDERED_AT_ONCE)
            .boxed()
    }

    /// Associations, described as they are taken.
    fn describe_links(&self, space: &Space, links: Vec<Link>) -> InstanceStream {
        let (provider, space) = (self.provider.clone(), space.clone());
        let links = stream::iter(links);
        links
            .map(move |link| provider.render_link(&space, &link))
            .boxed()
    }

    /// The object from which associations are walked; `None` if the path is that
    /// of an association, from which none are.
    async fn source(&self, space: &Space, path: &ObjectPath) -> Result<Option<Object>, CimError> {
        let class = class(space, &path.class)
            .map_err(|error| CimError::new(Status::InvalidParameter, error.message))?;
        if class.is_association() {
            return Ok(None);
        }
        let path = own_path(space, path)?;
        match self.provider.find(space, &path).await? {
            Some(object) => Ok(Some(object)),
            None => Err(no_instance(&path)),
        }
    }

    /// Calls a method of an instance of a class.
    async fn carry_out(
        &self,
        space: &Space,
        class: &Class,
        method: &Method,
        call: Invocation,
        attempt: &Attempt,
    ) -> Result<Outcome, CimError> {
        let MethodTarget::Instance(path) = &call.target else {
            return Err(CimError::invalid_parameter(format!(
                "{} is called on an instance of {}, not on the class",
                call.method, class.name
            )));
        };
        let path = own_path(space, path)?;
        let object = self.provider.find(space, &path).await?;
        let object = object.ok_or_else(|| no_instance(&path))?;
        // Untyped clients write a reference that they leave out as empty text.
        let left_out = |name: &Name, given: &TypedValue| {
            let declared = method.parameters.get(name).map(|parameter| &parameter.ty);
            let text = given.value.as_ref().and_then(Value::as_str);
            matches!(declared, Some(CimType::Reference(_))) && text.is_some_and(str::is_empty)
        };
        let mut given = call.parameters;
        given.retain(|name, value| !left_out(name, value));
        let parameters = space
            .repository
            .check_parameters(&class.name, &call.method, given)?;
        methods::invoke(
            &self.provider,
            space,
            attempt,
            &object,
            &call.method,
            parameters,
        )
        .await
    }
}

fn class<'a>(space: &'a Space, name: &Name) -> Result<&'a Class, CimError> {
    space.repository.get(name).ok_or_else(|| {
        CimError::new(
            Status::InvalidClass,
            format!("there is no class {name} in the namespace {}", space.name),
        )
    })
}

/// The path with keys of its class's types, without namespace.
fn own_path(space: &Space, path: &ObjectPath) -> Result<ObjectPath, CimError> {
    space.repository.complete_path(path.relative())
}

fn no_instance(path: &ObjectPath) -> CimError {
    CimError::not_found(format!("there is no {path}"))
}

/// Classes that a filter names have to exist (DSP0200 §5.4.2.9).
fn check_filter(space: &Space, filter: &AssociationFilter) -> Result<(), CimError> {
    for name in [&filter.association, &filter.result_class]
        .into_iter()
        .flatten()
    {
        class(space, name)
            .map_err(|error| CimError::new(Status::InvalidParameter, error.message))?;
    }
    Ok(())
}

#[async_trait]
impl CimServer for HypervServer {
    fn namespaces(&self) -> Vec<String> {
        self.provider
            .schema
            .spellings()
            .map(str::to_owned)
            .collect()
    }

    fn host(&self) -> Option<String> {
        Some(self.provider.host.clone())
    }

    async fn get_class(&self, cx: &RequestContext, name: &Name) -> Result<Class, CimError> {
        // DSP0200 §5.4.2.1: a class that is not there is "not found" here.
        class(self.space(cx)?, name)
            .cloned()
            .map_err(|error| CimError::not_found(error.message))
    }

    async fn enumerate_classes(
        &self,
        cx: &RequestContext,
        query: &ClassQuery,
    ) -> Result<Vec<Class>, CimError> {
        let space = self.space(cx)?;
        let schema = &space.repository;
        let names = match &query.below {
            None if query.deep => return Ok(schema.classes().cloned().collect()),
            None => schema.roots().iter().collect(),
            Some(above) => {
                class(space, above)?;
                schema.subclasses(above, query.deep)
            }
        };
        Ok(names
            .into_iter()
            .filter_map(|name| schema.get(name))
            .cloned()
            .collect())
    }

    async fn get_qualifier(
        &self,
        cx: &RequestContext,
        name: &Name,
    ) -> Result<QualifierDecl, CimError> {
        let found = self.space(cx)?.repository.qualifier(name).cloned();
        found.ok_or_else(|| CimError::not_found(format!("there is no qualifier type {name}")))
    }

    async fn enumerate_qualifiers(
        &self,
        cx: &RequestContext,
    ) -> Result<Vec<QualifierDecl>, CimError> {
        Ok(self
            .space(cx)?
            .repository
            .qualifiers()
            .values()
            .cloned()
            .collect())
    }

    fn changes(&self) -> ChangeStream {
        changes::changes(self.provider.clone())
    }

    async fn get_instance(
        &self,
        cx: &RequestContext,
        path: &ObjectPath,
    ) -> Result<Instance, CimError> {
        let space = self.space(cx)?;
        let association = class(space, &path.class)?.is_association();
        let path = own_path(space, path)?;
        if association {
            let link = self.provider.find_link(space, &path).await?;
            let link = link.ok_or_else(|| no_instance(&path))?;
            return self.provider.render_link(space, &link);
        }
        let object = self.provider.find(space, &path).await?;
        self.provider
            .render(space, &object.ok_or_else(|| no_instance(&path))?)
            .await
    }

    async fn enumerate_instances(
        &self,
        cx: &RequestContext,
        name: &Name,
    ) -> Result<InstanceStream, CimError> {
        let space = self.space(cx)?;
        let top = class(space, name)?;
        let mut classes = vec![&top.name];
        classes.extend(space.repository.subclasses(name, true));
        if top.is_association() {
            let mut links = Vec::new();
            for class in classes {
                links.extend(self.provider.all_links(space, class.as_str()).await?);
            }
            return Ok(self.describe_links(space, links));
        }
        let mut objects = Vec::new();
        for class in classes {
            objects.extend(self.provider.all(class.as_str()).await?);
        }
        Ok(self.describe(space, objects))
    }

    async fn associators(
        &self,
        cx: &RequestContext,
        source: &ObjectPath,
        filter: &AssociationFilter,
    ) -> Result<InstanceStream, CimError> {
        let space = self.space(cx)?;
        check_filter(space, filter)?;
        let Some(source) = self.source(space, source).await? else {
            return Ok(stream::empty().boxed());
        };
        Ok(self.describe(
            space,
            self.provider.neighbours(space, &source, filter).await?,
        ))
    }

    async fn references(
        &self,
        cx: &RequestContext,
        source: &ObjectPath,
        filter: &AssociationFilter,
    ) -> Result<InstanceStream, CimError> {
        let space = self.space(cx)?;
        check_filter(space, filter)?;
        let Some(source) = self.source(space, source).await? else {
            return Ok(stream::empty().boxed());
        };
        let links = self.provider.links(space, &source, filter).await?;
        let links = links.into_iter().map(|(link, _)| link).collect();
        Ok(self.describe_links(space, links))
    }

    async fn invoke_method(
        &self,
        cx: &RequestContext,
        call: Invocation,
    ) -> Result<Outcome, CimError> {
        let space = self.space(cx)?;
        let name = match &call.target {
            MethodTarget::Instance(path) => &path.class,
            MethodTarget::Class(class) => class,
        };
        let class = class(space, name)?;
        let method = class.methods.get(&call.method).ok_or_else(|| {
            CimError::new(
                Status::MethodNotFound,
                format!("{} has no method {}", class.name, call.method),
            )
        })?;
        let attempt = Attempt::new(&self.provider, cx);
        let name = call.method.clone();
        let outcome = self.carry_out(space, class, method, call, &attempt).await;
        attempt.tell(&class.name, &name, &outcome);
        outcome
    }
}
