//! Pulled enumerations (DSP0200, "Pulled enumeration operations"): operations that
//! open one, and those that read on in it or close it.
//!
//! What is open holds the provider's stream, never its instances. A filter is put
//! to whole instances, before the property list leaves anything out. The first
//! error ends an enumeration: to continue on errors is not supported.

use isochron_cim::query::{self, Condition, Query};
use isochron_cim::{CimError, Class, Instance, InstanceStream, Name, Page, Status};

use super::associations::{Sought, from_instance};
use super::instances::{InstanceView, of_class, with_paths};
use super::{Answer, Item, Operation, missing};
use crate::encode::EnumerationState;

/// What an enumeration consists of; it is pulled by the operation for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Instances with their paths: PullInstancesWithPath.
    InstancesWithPath,
    /// Paths alone: PullInstancePaths.
    InstancePaths,
    /// What a query selects: PullInstances.
    Instances,
}

impl Shape {
    fn item(self, mut instance: Instance) -> Item {
        match self {
            Self::InstancesWithPath => Item::InstanceWithPath(instance),
            Self::InstancePaths => Item::InstancePath(instance.path.take().unwrap_or_default()),
            Self::Instances => Item::Instance(instance),
        }
    }

    fn answer(self, page: Page, class: Option<Box<Class>>) -> Answer {
        let items = page.instances.into_iter().map(|i| self.item(i)).collect();
        let context = page.context;
        Answer::Page(items, EnumerationState { context, class })
    }
}

pub(super) async fn open_instances(op: &Operation) -> Result<Answer, CimError> {
    let view = InstanceView::asked_by(op)?;
    let opening = Opening::asked_by(op)?;
    let found = of_class(op, opening.filter.clone()).await?;
    opening
        .open(op, view.on(found), Shape::InstancesWithPath)
        .await
}

pub(super) async fn open_instance_paths(op: &Operation) -> Result<Answer, CimError> {
    let opening = Opening::asked_by(op)?;
    let found = of_class(op, opening.filter.clone()).await?;
    opening.open(op, found, Shape::InstancePaths).await
}

pub(super) async fn open_associators(op: &Operation) -> Result<Answer, CimError> {
    open_objects(op, Sought::Associators).await
}

pub(super) async fn open_references(op: &Operation) -> Result<Answer, CimError> {
    open_objects(op, Sought::References).await
}

pub(super) async fn open_associator_paths(op: &Operation) -> Result<Answer, CimError> {
    open_paths(op, Sought::Associators).await
}

pub(super) async fn open_reference_paths(op: &Operation) -> Result<Answer, CimError> {
    open_paths(op, Sought::References).await
}

async fn open_objects(op: &Operation, sought: Sought) -> Result<Answer, CimError> {
    let view = InstanceView::asked_by(op)?;
    let opening = Opening::asked_by(op)?;
    let source = op.path("InstanceName")?;
    let found = from_instance(op, sought, &source, opening.filter.clone()).await?;
    opening
        .open(op, view.on(found), Shape::InstancesWithPath)
        .await
}

async fn open_paths(op: &Operation, sought: Sought) -> Result<Answer, CimError> {
    let opening = Opening::asked_by(op)?;
    let source = op.path("InstanceName")?;
    let found = from_instance(op, sought, &source, opening.filter.clone()).await?;
    opening.open(op, found, Shape::InstancePaths).await
}

/// OpenQueryInstances. What is filtered by is the query itself.
pub(super) async fn open_query(op: &Operation) -> Result<Answer, CimError> {
    let opening = Opening::unfiltered(op)?;
    let query = query_of(op, "FilterQueryLanguage", "FilterQuery")?;
    let class = match op.flag("ReturnQueryResultClass", false)? {
        true => Some(Box::new(result_class(op, &query).await?)),
        false => None,
    };
    let found = query.run(op.server.clone(), &op.cx).await?;
    let page = opening.first(op, found, Shape::Instances).await?;
    Ok(Shape::Instances.answer(page, class))
}

/// The class that a query's results look like: the one selected from, with what is
/// selected of it.
async fn result_class(op: &Operation, query: &Query) -> Result<Class, CimError> {
    let Query::Select(select) = query else {
        return Err(CimError::not_supported(
            "what associations lead to has no class in common that could be returned",
        ));
    };
    let mut class = op.server.get_class(&op.cx, &select.class).await?;
    if let Some(columns) = &select.columns {
        let selected = |name: &Name| columns.iter().any(|path| path.first() == Some(name));
        class.properties.retain(|name, _| selected(name));
        class.methods.clear();
    }
    Ok(class)
}

/// ExecQuery: the same at once.
pub(super) async fn exec_query(op: &Operation) -> Result<Answer, CimError> {
    let query = query_of(op, "QueryLanguage", "Query")?;
    if query.asks_for_classes() {
        let classes = query.classes(op.server.clone(), &op.cx).await?;
        return Ok(Answer::all(classes, Item::ClassWithPath));
    }
    let found = query.run(op.server.clone(), &op.cx).await?;
    Ok(Answer::instances(with_paths(found), Item::ObjectWithPath))
}

fn query_of(
    op: &Operation,
    language: &'static str,
    query: &'static str,
) -> Result<Query, CimError> {
    let text = |name| op.text(name)?.ok_or_else(|| missing(name));
    Query::parse(text(language)?, text(query)?)
}

pub(super) async fn pull_instances_with_path(op: &Operation) -> Result<Answer, CimError> {
    pull(op, Shape::InstancesWithPath).await
}

pub(super) async fn pull_instance_paths(op: &Operation) -> Result<Answer, CimError> {
    pull(op, Shape::InstancePaths).await
}

pub(super) async fn pull_instances(op: &Operation) -> Result<Answer, CimError> {
    pull(op, Shape::Instances).await
}

async fn pull(op: &Operation, shape: Shape) -> Result<Answer, CimError> {
    let context = context(op)?;
    let most = op.number("MaxObjectCount")?;
    let most = most.ok_or_else(|| missing("MaxObjectCount"))?;
    let same = |opened: &Shape| *opened == shape;
    let page = op
        .enumerations
        .pull(&op.cx, context, same, objects(most))
        .await?;
    Ok(shape.answer(page, None))
}

pub(super) async fn close(op: &Operation) -> Result<Answer, CimError> {
    op.enumerations.close(&op.cx, context(op)?)?;
    Ok(Answer::Nothing)
}

fn context(op: &Operation) -> Result<&str, CimError> {
    let context = op.text("EnumerationContext")?;
    context.ok_or_else(|| missing("EnumerationContext"))
}

/// The parameters that all operations have which open an enumeration.
struct Opening {
    filter: Option<Condition>,
    timeout: std::time::Duration,
    most: usize,
}

impl Opening {
    fn asked_by(op: &Operation) -> Result<Self, CimError> {
        let filter = match (op.text("FilterQueryLanguage")?, op.text("FilterQuery")?) {
            (None, None) => None,
            (Some(language), Some(text)) => Some(query::filter(language, text)?),
            (None, Some(_)) => return Err(missing("FilterQueryLanguage")),
            // DSP0200: without a filter there is no language of it.
            (Some(_), None) => return Err(missing("FilterQuery")),
        };
        Ok(Self {
            filter,
            ..Self::unfiltered(op)?
        })
    }

    fn unfiltered(op: &Operation) -> Result<Self, CimError> {
        if op.flag("ContinueOnError", false)? {
            return Err(CimError::new(
                Status::ContinuationOnErrorNotSupported,
                "enumerations end with their first error",
            ));
        }
        let seconds = op.number("OperationTimeout")?.map(u64::from);
        Ok(Self {
            filter: None,
            timeout: op.enumerations.timeout(seconds)?,
            most: objects(op.number("MaxObjectCount")?.unwrap_or(0)),
        })
    }

    async fn first(
        &self,
        op: &Operation,
        found: InstanceStream,
        shape: Shape,
    ) -> Result<Page, CimError> {
        op.enumerations
            .open(&op.cx, found, shape, self.timeout, self.most)
            .await
    }

    async fn open(
        &self,
        op: &Operation,
        found: InstanceStream,
        shape: Shape,
    ) -> Result<Answer, CimError> {
        let page = self.first(op, found, shape).await?;
        Ok(shape.answer(page, None))
    }
}

fn objects(most: u32) -> usize {
    usize::try_from(most).unwrap_or(usize::MAX)
}
