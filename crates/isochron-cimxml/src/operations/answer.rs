//! What operations return.

use std::fmt;

use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use isochron_cim::{
    CimError, Class, Instance, InstanceStream, Name, ObjectPath, QualifierDecl, TypedValue,
};

use crate::encode::EnumerationState;

/// What an intrinsic method returns.
#[derive(Debug)]
pub enum Answer {
    /// Nothing: the method returns no value.
    Nothing,
    /// IRETURNVALUE with these elements.
    Items(Vec<Item>),
    /// IRETURNVALUE with elements as they are found.
    Stream(Items),
    /// IRETURNVALUE with some of an enumeration's elements, and where it stands then.
    Page(Vec<Item>, EnumerationState),
}

/// An element of IRETURNVALUE.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// CLASS.
    Class(Class),
    /// CLASSNAME.
    ClassName(Name),
    /// INSTANCE.
    Instance(Instance),
    /// VALUE.NAMEDINSTANCE.
    NamedInstance(Instance),
    /// VALUE.INSTANCEWITHPATH.
    InstanceWithPath(Instance),
    /// INSTANCENAME.
    InstanceName(ObjectPath),
    /// INSTANCEPATH.
    InstancePath(ObjectPath),
    /// VALUE.OBJECTWITHPATH of an instance.
    ObjectWithPath(Instance),
    /// VALUE.OBJECTWITHPATH of a class.
    ClassWithPath(Class),
    /// OBJECTPATH; without keys of a class.
    ObjectPath(ObjectPath),
    /// QUALIFIER.DECLARATION.
    Qualifier(QualifierDecl),
    /// VALUE, VALUE.ARRAY or VALUE.REFERENCE; null is none of them.
    Value(TypedValue),
}

/// Elements as they are found.
pub struct Items(pub BoxStream<'static, Result<Item, CimError>>);

impl fmt::Debug for Items {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Items").finish_non_exhaustive()
    }
}

impl Answer {
    /// One element.
    pub(super) fn one(item: Item) -> Self {
        Self::Items(vec![item])
    }

    /// Some elements of one kind.
    pub(super) fn all<T>(items: impl IntoIterator<Item = T>, kind: fn(T) -> Item) -> Self {
        Self::Items(items.into_iter().map(kind).collect())
    }

    /// An element of each instance as it is found.
    pub(super) fn instances(found: InstanceStream, kind: fn(Instance) -> Item) -> Self {
        Self::Stream(Items(found.map_ok(kind).boxed()))
    }

    /// An element of each instance's path. The instances have paths.
    pub(super) fn paths(found: InstanceStream, kind: fn(ObjectPath) -> Item) -> Self {
        let item = move |instance: Instance| kind(instance.path.unwrap_or_default());
        Self::Stream(Items(found.map_ok(item).boxed()))
    }
}
