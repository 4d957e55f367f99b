//! Queries over a [`CimServer`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::stream::{StreamExt, TryStreamExt};

use super::{ClassTree, Condition, Query, Select, Traversal, invalid};
use crate::{
    CimError, CimServer, Class, ClassQuery, Instance, InstanceStream, Name, RequestContext, Status,
};

/// Some classes, each with all that derive from it, as a server has them.
#[derive(Clone, Debug, Default)]
pub struct Subclasses {
    below: HashMap<Name, HashSet<Name>>,
    host: Option<String>,
}

impl Subclasses {
    /// Asks the server who derives from these classes. One that it does not have
    /// has no subclasses.
    ///
    /// # Errors
    /// Those of [`CimServer::enumerate_classes`], but for a class that is not there.
    pub async fn of(
        server: &dyn CimServer,
        cx: &RequestContext,
        classes: &[&Name],
    ) -> Result<Self, CimError> {
        let mut all = HashMap::new();
        for class in classes {
            let query = ClassQuery {
                below: Some((*class).clone()),
                deep: true,
            };
            let below = match server.enumerate_classes(cx, &query).await {
                Ok(below) => below,
                Err(error) if is_unknown(&error) => Vec::new(),
                Err(error) => return Err(error),
            };
            let below = below.into_iter().map(|class| class.name).collect();
            all.insert((*class).clone(), below);
        }
        let (below, host) = (all, server.host());
        Ok(Self { below, host })
    }
}

impl ClassTree for Subclasses {
    fn is_a(&self, class: &Name, ancestor: &Name) -> bool {
        class == ancestor
            || self
                .below
                .get(ancestor)
                .is_some_and(|below| below.contains(class))
    }

    fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }
}

/// What of the stream fulfils the condition.
///
/// # Errors
/// The classes that the condition names cannot be asked for.
pub async fn filtered(
    stream: InstanceStream,
    condition: Condition,
    server: &dyn CimServer,
    cx: &RequestContext,
) -> Result<InstanceStream, CimError> {
    let tree = Subclasses::of(server, cx, &condition.classes()).await?;
    let kept =
        stream.try_filter(move |instance| std::future::ready(condition.matches(instance, &tree)));
    Ok(kept.boxed())
}

impl Query {
    /// The instances that the query selects, with what it selects of them, as they
    /// are found.
    ///
    /// # Errors
    /// `INVALID_QUERY` if the class or a property is not there, if the query is for
    /// events, or for classes; the errors of the operations that it stands for.
    pub async fn run(
        &self,
        server: Arc<dyn CimServer>,
        cx: &RequestContext,
    ) -> Result<InstanceStream, CimError> {
        match self {
            Self::Select(select) => select.run(server, cx).await,
            Self::Traversal(traversal) if traversal.classes_only => Err(invalid(
                "the query asks for classes, and only instances can be given here",
            )),
            Self::Traversal(traversal) => traversal.run(server, cx).await,
        }
    }

    /// The classes that a query with ClassDefsOnly selects: those of the instances
    /// that it would find, each once.
    ///
    /// # Errors
    /// As [`Query::run`].
    pub async fn classes(
        &self,
        server: Arc<dyn CimServer>,
        cx: &RequestContext,
    ) -> Result<Vec<Class>, CimError> {
        let Self::Traversal(traversal) = self else {
            return Err(invalid("the query asks for instances"));
        };
        let mut found = traversal.run(Arc::clone(&server), cx).await?;
        let (mut seen, mut classes) = (HashSet::new(), Vec::new());
        while let Some(instance) = found.try_next().await? {
            if seen.insert(instance.class.clone()) {
                classes.push(server.get_class(cx, &instance.class).await?);
            }
        }
        Ok(classes)
    }
}

impl Select {
    async fn run(
        &self,
        server: Arc<dyn CimServer>,
        cx: &RequestContext,
    ) -> Result<InstanceStream, CimError> {
        if self.within.is_some() {
            return Err(invalid(
                "a query WITHIN some time is for events: subscribe to it",
            ));
        }
        if self.class.is("meta_class") {
            return Err(invalid(
                "queries for classes are not supported: use EnumerateClasses",
            ));
        }
        let class = match server.get_class(cx, &self.class).await {
            Ok(class) => class,
            Err(error) if is_unknown(&error) => return Err(invalid(error.message)),
            Err(error) => return Err(error),
        };
        let columns = self
            .columns
            .iter()
            .flatten()
            .filter_map(|path| path.first());
        let conditions = self.condition.iter().flat_map(Condition::properties);
        for name in columns.chain(conditions) {
            if !class.properties.contains_key(name) {
                return Err(invalid(format!("{} has no property {name}", class.name)));
            }
        }
        let mut found = server.enumerate_instances(cx, &self.class).await?;
        if let Some(condition) = &self.condition {
            found = filtered(found, condition.clone(), &*server, cx).await?;
        }
        if self.columns.is_some() {
            let select = self.clone();
            found = found
                .map_ok(move |instance| select.project(instance))
                .boxed();
        }
        Ok(found)
    }
}

impl Traversal {
    async fn run(
        &self,
        server: Arc<dyn CimServer>,
        cx: &RequestContext,
    ) -> Result<InstanceStream, CimError> {
        let mut source = self.source.clone();
        if source.keys.is_empty() {
            return Err(invalid(format!(
                "{source} names no instance: associations are walked from one"
            )));
        }
        source.namespace.get_or_insert_with(|| cx.namespace.clone());
        let mut found = match self.references {
            true => server.references(cx, &source, &self.filter).await?,
            false => server.associators(cx, &source, &self.filter).await?,
        };
        if let Some(qualifier) = self.required_qualifier.clone() {
            found = having(found, qualifier, server, cx.clone());
        }
        if self.keys_only {
            found = found.map_ok(keys_only).boxed();
        }
        Ok(found)
    }
}

/// The instances whose class has the qualifier. Each class is asked for once.
fn having(
    found: InstanceStream,
    qualifier: Name,
    server: Arc<dyn CimServer>,
    cx: RequestContext,
) -> InstanceStream {
    let known: HashMap<Name, bool> = HashMap::new();
    let state = (found, known, qualifier, server, cx);
    let kept = futures::stream::try_unfold(state, |mut state| async move {
        let (found, known, qualifier, server, cx) = &mut state;
        while let Some(instance) = found.try_next().await? {
            let has = match known.get(&instance.class) {
                Some(has) => *has,
                None => {
                    let class = server.get_class(cx, &instance.class).await?;
                    let has = class.qualifiers.contains_key(qualifier);
                    known.insert(instance.class.clone(), has);
                    has
                }
            };
            if has {
                return Ok(Some((instance, state)));
            }
        }
        Ok(None)
    });
    kept.boxed()
}

fn keys_only(mut instance: Instance) -> Instance {
    if let Some(path) = &instance.path {
        instance
            .properties
            .retain(|name, _| path.keys.contains_key(name));
    }
    instance
}

/// Servers say "not found" of a class in some operations and "invalid class" in others.
fn is_unknown(error: &CimError) -> bool {
    matches!(error.status, Status::InvalidClass | Status::NotFound)
}
