//! Traversal of associations from instances and from classes: DSP0200's
//! Associators, AssociatorNames, References and ReferenceNames.
//!
//! Between instances the provider knows the answer. Between classes it follows
//! from the association classes' reference declarations: a class takes part in
//! an association where a reference's class is the class itself or one that it
//! derives from.

use std::collections::HashMap;

use isochron_cim::query::Condition;
use isochron_cim::{
    AssociationFilter, CimError, CimType, Class, ClassQuery, InstanceStream, Name, ObjectPath,
};

use super::classes::ClassView;
use super::instances::{InstanceView, with_paths};
use super::{Answer, Item, Operation, missing};
use crate::decode::Argument;

/// ObjectName: where traversal starts.
enum Source {
    Instance(ObjectPath),
    Class(Name),
}

/// What traversal looks for.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Sought {
    Associators,
    References,
}

pub(super) async fn associators(op: &Operation) -> Result<Answer, CimError> {
    objects(op, Sought::Associators).await
}

pub(super) async fn references(op: &Operation) -> Result<Answer, CimError> {
    objects(op, Sought::References).await
}

pub(super) async fn associator_names(op: &Operation) -> Result<Answer, CimError> {
    names(op, Sought::Associators).await
}

pub(super) async fn reference_names(op: &Operation) -> Result<Answer, CimError> {
    names(op, Sought::References).await
}

async fn objects(op: &Operation, sought: Sought) -> Result<Answer, CimError> {
    let view = InstanceView::asked_by(op)?;
    match source(op)? {
        Source::Instance(path) => {
            let found = from_instance(op, sought, &path, None).await?;
            Ok(Answer::instances(view.on(found), Item::ObjectWithPath))
        }
        Source::Class(class) => {
            let view = ClassView {
                local_only: false,
                include_qualifiers: op.flag("IncludeQualifiers", false)?,
                include_class_origin: op.flag("IncludeClassOrigin", false)?,
                property_list: op.property_list()?,
            };
            let found = between_classes(op, &class, &filter(op, sought)?, sought).await?;
            let seen = found.into_iter().map(|class| view.of(class));
            Ok(Answer::all(seen, Item::ClassWithPath))
        }
    }
}

async fn names(op: &Operation, sought: Sought) -> Result<Answer, CimError> {
    match source(op)? {
        Source::Instance(path) => {
            let found = from_instance(op, sought, &path, None).await?;
            Ok(Answer::paths(found, Item::ObjectPath))
        }
        Source::Class(class) => {
            let found = between_classes(op, &class, &filter(op, sought)?, sought).await?;
            let paths = found.into_iter().map(|class| ObjectPath::class(class.name));
            Ok(Answer::all(paths, Item::ObjectPath))
        }
    }
}

/// What associations lead to from an instance, and fulfils the condition.
pub(super) async fn from_instance(
    op: &Operation,
    sought: Sought,
    source: &ObjectPath,
    condition: Option<Condition>,
) -> Result<InstanceStream, CimError> {
    let filter = filter(op, sought)?;
    let found = match sought {
        Sought::Associators => op.server.associators(&op.cx, source, &filter).await?,
        Sought::References => op.server.references(&op.cx, source, &filter).await?,
    };
    Ok(with_paths(op.filtered(found, condition).await?))
}

fn source(op: &Operation) -> Result<Source, CimError> {
    match op.argument("ObjectName") {
        Some(Argument::ClassName(class)) => Ok(Source::Class(class.clone())),
        Some(Argument::Path(path)) => Ok(Source::Instance(op.located(path.clone()))),
        Some(_) => Err(CimError::invalid_parameter(
            "ObjectName is an INSTANCENAME or a CLASSNAME",
        )),
        None => Err(missing("ObjectName")),
    }
}

/// The filter. For references, ResultClass is the association's class.
fn filter(op: &Operation, sought: Sought) -> Result<AssociationFilter, CimError> {
    Ok(match sought {
        Sought::Associators => AssociationFilter {
            association: op.name("AssocClass")?,
            result_class: op.name("ResultClass")?,
            role: op.name("Role")?,
            result_role: op.name("ResultRole")?,
        },
        Sought::References => AssociationFilter {
            association: op.name("ResultClass")?,
            role: op.name("Role")?,
            ..AssociationFilter::default()
        },
    })
}

/// The classes of a namespace, and who derives from whom.
struct Hierarchy {
    classes: HashMap<Name, Class>,
    order: Vec<Name>,
}

impl Hierarchy {
    fn get(&self, name: &Name) -> Option<&Class> {
        self.classes.get(name)
    }

    /// Whether `class` is `ancestor` or derives from it.
    fn derives(&self, class: &Name, ancestor: &Name) -> bool {
        let parent = |name: &Name| self.get(name)?.superclass.clone();
        std::iter::successors(Some(class.clone()), parent)
            // A chain is no longer than there are classes.
            .take(self.order.len() + 1)
            .any(|name| name == *ancestor)
    }
}

async fn between_classes(
    op: &Operation,
    source: &Name,
    filter: &AssociationFilter,
    sought: Sought,
) -> Result<Vec<Class>, CimError> {
    let all = ClassQuery {
        below: None,
        deep: true,
    };
    let all = op.server.enumerate_classes(&op.cx, &all).await?;
    let hierarchy = Hierarchy {
        order: all.iter().map(|class| class.name.clone()).collect(),
        classes: all
            .into_iter()
            .map(|class| (class.name.clone(), class))
            .collect(),
    };
    let named = [
        Some(source),
        filter.association.as_ref(),
        filter.result_class.as_ref(),
    ];
    for class in named.into_iter().flatten() {
        if hierarchy.get(class).is_none() {
            // DSP0200 has no INVALID_CLASS for these operations.
            return Err(CimError::invalid_parameter(format!(
                "there is no class {class} in {}",
                op.cx.namespace
            )));
        }
    }
    let wanted = |class: &Name, ancestor: &Option<Name>| {
        ancestor
            .as_ref()
            .is_none_or(|ancestor| hierarchy.derives(class, ancestor))
    };
    let plays = |name: &Name, role: &Option<Name>| role.as_ref().is_none_or(|role| role == name);

    let mut found: Vec<Name> = Vec::new();
    let associations = hierarchy
        .order
        .iter()
        .filter_map(|name| hierarchy.get(name));
    for association in associations.filter(|class| class.is_association()) {
        if !wanted(&association.name, &filter.association) {
            continue;
        }
        let ends: Vec<(&Name, &Name)> = association
            .properties
            .iter()
            .filter_map(|(name, property)| match &property.value.ty {
                CimType::Reference(Some(class)) => Some((name, class)),
                _ => None,
            })
            .collect();
        for (near, (name, class)) in ends.iter().enumerate() {
            if !plays(name, &filter.role) || !hierarchy.derives(source, class) {
                continue;
            }
            if sought == Sought::References {
                found.push(association.name.clone());
                continue;
            }
            for (far, (name, class)) in ends.iter().enumerate() {
                if far != near
                    && plays(name, &filter.result_role)
                    && wanted(class, &filter.result_class)
                {
                    found.push((*class).clone());
                }
            }
        }
    }
    let mut seen = std::collections::HashSet::new();
    found.retain(|name| seen.insert(name.clone()));
    Ok(found
        .iter()
        .filter_map(|name| hierarchy.get(name))
        .cloned()
        .collect())
}
