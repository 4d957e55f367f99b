//! The object manager: which server or space an operation belongs to.
//!
//! A namespace of clients is answered from its space. In `interop` the provider
//! answers first and its answers come first; stored instances of its classes are
//! added. Every other namespace is the provider's alone. One that clients made before the
//! provider had one of its name stays theirs until they delete it.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt};
use isochron_cim::{
    AssociationFilter, ChangeStream, CimError, CimServer, Class, ClassQuery, EventStream,
    IndicationStream, Instance, InstanceStream, Invocation, MethodTarget, Name, ObjectPath,
    Outcome, Principal, QualifierDecl, Repository, RequestContext, Role, SchemaError, Status,
};
use tokio::sync::broadcast::{self, error::RecvError};

use crate::indications::{IndicationOptions, Indications};
use crate::limits::Limits;
use crate::namespaces::Namespaces;
use crate::places::{Place, Places, missing, normal};
use crate::records::{Records, RecordsError};
use crate::space::{Keeper, Space};
use crate::test_provider::TestProvider;

/// The namespace of discovery, and its other name.
pub(crate) const INTEROP: [&str; 2] = ["interop", "root/interop"];

/// How many changes a slow reader may be behind before it loses some.
const CHANGES_KEPT: usize = 1024;

/// A CIM server over a provider's, with namespaces and instances of clients.
pub struct ObjectManager {
    pub(crate) provider: Arc<dyn CimServer>,
    /// What is stored in `interop`, under the provider's classes.
    pub(crate) interop: Arc<Space>,
    /// The clients' namespaces.
    pub(crate) namespaces: Arc<Namespaces>,
    /// Tells listeners of what changes.
    pub(crate) indications: Arc<Indications>,
    /// The namespace of conformance tests, where it is offered.
    pub(crate) test_provider: Option<TestProvider>,
    keeper: Keeper,
}

/// Why the object manager cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The records cannot be had.
    #[error("what clients keep here cannot be read: {0}")]
    Records(#[from] RecordsError),
    /// A record is none of ours, or not what it was.
    #[error("the record {key} cannot be read: {reason}")]
    Record {
        /// The record's key.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The provider does not have `interop`, or does not say what is in it.
    #[error("the provider's interop namespace cannot be read: {0}")]
    Provider(#[from] CimError),
    /// The provider's classes do not fit together.
    #[error("the provider's classes of interop do not fit together: {0}")]
    Schema(#[from] SchemaError),
}

/// Who asks where we ask the provider ourselves.
pub(crate) fn ourselves(namespace: &str) -> RequestContext {
    RequestContext {
        namespace: namespace.to_owned(),
        principal: Principal::user("isochron", Role::Administrator),
    }
}

impl ObjectManager {
    /// The object manager over a provider, with what clients left in the records.
    /// From then on indications are sent.
    pub async fn open(
        provider: Arc<dyn CimServer>,
        records: Arc<dyn Records>,
        limits: Limits,
        indications: IndicationOptions,
    ) -> Result<Self, OpenError> {
        let keeper = Keeper {
            records,
            limits,
            changes: broadcast::channel(CHANGES_KEPT).0,
            indications: broadcast::channel(CHANGES_KEPT).0,
        };
        let schema = schema_of(&*provider, INTEROP[0]).await?;
        let interop = Space::new(INTEROP[0], keeper.clone(), schema, Default::default());
        let namespaces = Arc::new(Namespaces::open(&keeper, &interop).await?);
        let interop = Arc::new(interop);
        let indications = Indications::open(
            provider.clone(),
            interop.clone(),
            namespaces.clone(),
            indications,
        );
        let manager = Self {
            indications: indications.await?,
            provider,
            interop,
            namespaces,
            test_provider: None,
            keeper,
        };
        manager.show_namespaces().await?;
        Ok(manager)
    }

    fn places(&self) -> Places {
        Places {
            provider: self.provider.clone(),
            interop: self.interop.clone(),
            namespaces: self.namespaces.clone(),
            indications: self.indications.clone(),
        }
    }

    /// Where an operation belongs.
    pub(crate) fn place(&self, cx: &RequestContext) -> Place {
        self.places().place(&cx.namespace)
    }

    /// The far ends of the stored associations of an object.
    fn far_ends(
        &self,
        cx: &RequestContext,
        space: &Space,
        source: &ObjectPath,
        filter: &AssociationFilter,
    ) -> InstanceStream {
        let links = space.links(source, filter).into_iter();
        let paths = links.flat_map(|(_, far)| far).collect();
        self.places().fetch(cx, paths)
    }

    /// Fails unless associations can be walked from here in a space of our own.
    fn check_source(
        space: &Space,
        source: &ObjectPath,
        filter: &AssociationFilter,
    ) -> Result<(), CimError> {
        space.check_filter(filter)?;
        let unknown = |error: CimError| match error.status {
            Status::InvalidClass => CimError::invalid_parameter(error.message),
            _ => error,
        };
        match space.find(source).map_err(unknown)? {
            Some(_) => Ok(()),
            None => Err(missing(source)),
        }
    }
}

/// The provider's classes and qualifier types of a namespace.
pub(crate) async fn schema_of(
    provider: &dyn CimServer,
    namespace: &str,
) -> Result<Repository, OpenError> {
    let cx = ourselves(namespace);
    let mut schema = Repository::default();
    for decl in provider.enumerate_qualifiers(&cx).await? {
        schema.add_qualifier(decl);
    }
    let all = ClassQuery {
        below: None,
        deep: true,
    };
    for class in provider.enumerate_classes(&cx, &all).await? {
        schema.add_class(class.declared())?;
    }
    Ok(schema)
}

/// What changes from now on in all namespaces.
pub(crate) fn changes(provider: &dyn CimServer, keeper: &Keeper) -> ChangeStream {
    stream::select(provider.changes(), told(&keeper.changes)).boxed()
}

/// What else happens from now on in all namespaces.
pub(crate) fn indications(provider: &dyn CimServer, keeper: &Keeper) -> IndicationStream {
    stream::select(provider.indications(), told(&keeper.indications)).boxed()
}

/// What is sent from now on.
fn told<T: Clone + Send + 'static>(sender: &broadcast::Sender<T>) -> BoxStream<'static, T> {
    let read = stream::unfold(sender.subscribe(), |mut told| async move {
        loop {
            match told.recv().await {
                Ok(one) => return Some((one, told)),
                Err(RecvError::Lagged(lost)) => {
                    tracing::warn!(lost, "a reader of changes is too slow");
                }
                Err(RecvError::Closed) => return None,
            }
        }
    });
    read.boxed()
}

fn all(instances: Vec<Arc<Instance>>) -> InstanceStream {
    let instances = instances.into_iter();
    stream::iter(instances.map(|instance| Ok(Arc::unwrap_or_clone(instance)))).boxed()
}

#[async_trait]
impl CimServer for ObjectManager {
    fn namespaces(&self) -> Vec<String> {
        let mut names = self.provider.namespaces();
        let same = |name: &String, other: &String| normal(other).eq_ignore_ascii_case(name);
        let mut clients = self.namespaces.names();
        clients.retain(|name| !names.iter().any(|other| same(name, other)));
        names.extend(clients);
        names
    }

    fn host(&self) -> Option<String> {
        self.provider.host()
    }

    async fn get_class(&self, cx: &RequestContext, class: &Name) -> Result<Class, CimError> {
        let Place::Client(space) = self.place(cx) else {
            return self.provider.get_class(cx, class).await;
        };
        // DSP0200 §5.4.2.1: a class that is not there is "not found" here.
        let missing = |error: CimError| CimError::not_found(error.message);
        space.check_class(class).map_err(missing)?;
        let schema = space.schema();
        schema.class(class).cloned().map_err(missing)
    }

    async fn enumerate_classes(
        &self,
        cx: &RequestContext,
        query: &ClassQuery,
    ) -> Result<Vec<Class>, CimError> {
        let Place::Client(space) = self.place(cx) else {
            return self.provider.enumerate_classes(cx, query).await;
        };
        if let Some(above) = &query.below {
            space.check_class(above)?;
        }
        let schema = space.schema();
        let names: Vec<&Name> = match &query.below {
            None if query.deep => return Ok(schema.classes().cloned().collect()),
            None => schema.roots().iter().collect(),
            Some(above) => schema.subclasses(above, query.deep),
        };
        let classes = names.into_iter().filter_map(|name| schema.get(name));
        Ok(classes.cloned().collect())
    }

    async fn get_qualifier(
        &self,
        cx: &RequestContext,
        name: &Name,
    ) -> Result<QualifierDecl, CimError> {
        let Place::Client(space) = self.place(cx) else {
            return self.provider.get_qualifier(cx, name).await;
        };
        let found = space.schema().qualifier(name).cloned();
        found.ok_or_else(|| CimError::not_found(format!("there is no qualifier type {name}")))
    }

    async fn enumerate_qualifiers(
        &self,
        cx: &RequestContext,
    ) -> Result<Vec<QualifierDecl>, CimError> {
        let Place::Client(space) = self.place(cx) else {
            return self.provider.enumerate_qualifiers(cx).await;
        };
        let schema = space.schema();
        Ok(schema.qualifiers().values().cloned().collect())
    }

    async fn create_class(&self, cx: &RequestContext, class: Class) -> Result<(), CimError> {
        let Place::Client(space) = self.place(cx) else {
            return self.provider.create_class(cx, class).await;
        };
        cx.principal.require(Role::Administrator)?;
        space.create_class(class).await
    }

    async fn modify_class(&self, cx: &RequestContext, class: Class) -> Result<(), CimError> {
        let Place::Client(space) = self.place(cx) else {
            return self.provider.modify_class(cx, class).await;
        };
        cx.principal.require(Role::Administrator)?;
        space.modify_class(class).await
    }

    async fn delete_class(&self, cx: &RequestContext, class: &Name) -> Result<(), CimError> {
        let Place::Client(space) = self.place(cx) else {
            return self.provider.delete_class(cx, class).await;
        };
        cx.principal.require(Role::Administrator)?;
        space.delete_class(class).await
    }

    async fn set_qualifier(
        &self,
        cx: &RequestContext,
        decl: QualifierDecl,
    ) -> Result<(), CimError> {
        let Place::Client(space) = self.place(cx) else {
            return self.provider.set_qualifier(cx, decl).await;
        };
        cx.principal.require(Role::Administrator)?;
        space.set_qualifier(decl).await
    }

    async fn delete_qualifier(&self, cx: &RequestContext, name: &Name) -> Result<(), CimError> {
        let Place::Client(space) = self.place(cx) else {
            return self.provider.delete_qualifier(cx, name).await;
        };
        cx.principal.require(Role::Administrator)?;
        space.delete_qualifier(name).await
    }

    fn changes(&self) -> ChangeStream {
        changes(&*self.provider, &self.keeper)
    }

    fn indications(&self) -> IndicationStream {
        indications(&*self.provider, &self.keeper)
    }

    async fn events(
        &self,
        cx: &RequestContext,
        language: &str,
        query: &str,
    ) -> Result<EventStream, CimError> {
        self.indications
            .events(&cx.namespace, language, query)
            .await
    }

    async fn get_instance(
        &self,
        cx: &RequestContext,
        path: &ObjectPath,
    ) -> Result<Instance, CimError> {
        self.places().get_instance(cx, path).await
    }

    async fn enumerate_instances(
        &self,
        cx: &RequestContext,
        class: &Name,
    ) -> Result<InstanceStream, CimError> {
        match self.place(cx) {
            Place::Client(space) => match self.made_for_tests(&space, class) {
                Some(made) => Ok(made),
                None => Ok(all(space.enumerate(class)?)),
            },
            Place::Provider => self.provider.enumerate_instances(cx, class).await,
            Place::Interop => {
                let provided = self.provider.enumerate_instances(cx, class).await?;
                Ok(provided.chain(all(self.interop.enumerate(class)?)).boxed())
            }
        }
    }

    async fn associators(
        &self,
        cx: &RequestContext,
        source: &ObjectPath,
        filter: &AssociationFilter,
    ) -> Result<InstanceStream, CimError> {
        match self.place(cx) {
            Place::Client(space) => {
                Self::check_source(&space, source, filter)?;
                Ok(self.far_ends(cx, &space, source, filter))
            }
            Place::Provider => self.provider.associators(cx, source, filter).await,
            Place::Interop => {
                let provided = match Self::check_source(&self.interop, source, filter) {
                    Ok(()) => stream::empty().boxed(),
                    Err(_) => self.provider.associators(cx, source, filter).await?,
                };
                let stored = self.far_ends(cx, &self.interop, source, filter);
                Ok(provided.chain(stored).boxed())
            }
        }
    }

    async fn references(
        &self,
        cx: &RequestContext,
        source: &ObjectPath,
        filter: &AssociationFilter,
    ) -> Result<InstanceStream, CimError> {
        let stored = |space: &Space| {
            let links = space.links(source, filter).into_iter();
            all(links.map(|(association, _)| association).collect())
        };
        match self.place(cx) {
            Place::Client(space) => {
                Self::check_source(&space, source, filter)?;
                Ok(stored(&space))
            }
            Place::Provider => self.provider.references(cx, source, filter).await,
            Place::Interop => {
                let provided = match Self::check_source(&self.interop, source, filter) {
                    Ok(()) => stream::empty().boxed(),
                    Err(_) => self.provider.references(cx, source, filter).await?,
                };
                Ok(provided.chain(stored(&self.interop)).boxed())
            }
        }
    }

    async fn create_instance(
        &self,
        cx: &RequestContext,
        instance: Instance,
    ) -> Result<ObjectPath, CimError> {
        match self.place(cx) {
            Place::Client(space) => {
                cx.principal.require(Role::Administrator)?;
                space.create(instance).await
            }
            Place::Interop => self.create_in_interop(cx, instance).await,
            Place::Provider => self.provider.create_instance(cx, instance).await,
        }
    }

    async fn modify_instance(
        &self,
        cx: &RequestContext,
        path: &ObjectPath,
        changes: Instance,
    ) -> Result<(), CimError> {
        match self.place(cx) {
            Place::Client(space) => {
                cx.principal.require(Role::Administrator)?;
                space.modify(path, changes).await.map(drop)
            }
            Place::Interop => self.modify_in_interop(cx, path, changes).await,
            Place::Provider => self.provider.modify_instance(cx, path, changes).await,
        }
    }

    async fn delete_instance(
        &self,
        cx: &RequestContext,
        path: &ObjectPath,
    ) -> Result<(), CimError> {
        match self.place(cx) {
            Place::Client(space) => {
                cx.principal.require(Role::Administrator)?;
                space.delete(path).await.map(drop)
            }
            Place::Interop => self.delete_in_interop(cx, path).await,
            Place::Provider => self.provider.delete_instance(cx, path).await,
        }
    }

    async fn invoke_method(
        &self,
        cx: &RequestContext,
        call: Invocation,
    ) -> Result<Outcome, CimError> {
        let Place::Client(space) = self.place(cx) else {
            return self.provider.invoke_method(cx, call).await;
        };
        let class = match &call.target {
            MethodTarget::Class(class) => {
                space.check_class(class)?;
                class
            }
            MethodTarget::Instance(path) => {
                space.find(path)?.ok_or_else(|| missing(path))?;
                &path.class
            }
        };
        if let Some(done) = self.invoke_test(&space, &call).await {
            return done;
        }
        // Nobody carries out methods of clients' classes, whatever they declare.
        Err(CimError::new(
            Status::MethodNotAvailable,
            format!(
                "no method of a class in {} is carried out: {class}.{}",
                space.name(),
                call.method
            ),
        ))
    }
}
