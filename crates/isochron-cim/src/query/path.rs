//! Property paths: from an instance to one of its values, through embedded
//! instances, references' keys and array elements.

use std::fmt;

use indexmap::IndexMap;

use super::ClassTree;
use crate::{CimType, Embedded, Instance, Name, ObjectPath, Property, TypedValue, Value};

/// A way to a value. Without a step it is the instance itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertyPath {
    pub(super) steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Property {
        /// `Scope::Name`: only where the object is of this class (DSP0202).
        scope: Option<Name>,
        name: Name,
        index: Option<Index>,
    },
    System(System),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Index {
    At(usize),
    /// `[*]`: the array as a whole, in `ANY` and `EVERY`.
    All,
}

/// WMI's system properties that any server can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    Class,
    Path,
    RelPath,
    Namespace,
    Server,
}

impl System {
    const NAMES: [(&'static str, Self); 5] = [
        ("__CLASS", Self::Class),
        ("__PATH", Self::Path),
        ("__RELPATH", Self::RelPath),
        ("__NAMESPACE", Self::Namespace),
        ("__SERVER", Self::Server),
    ];

    pub fn from_name(name: &str) -> Option<Self> {
        let mut names = Self::NAMES.iter();
        names
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, system)| *system)
    }

    fn name(self) -> &'static str {
        let mut names = Self::NAMES.iter();
        names
            .find(|(_, known)| *known == self)
            .map_or("", |(name, _)| name)
    }

    fn of(self, class: &Name, path: Option<&ObjectPath>) -> Option<String> {
        match self {
            Self::Class => Some(class.to_string()),
            Self::Path => path.map(ObjectPath::to_string),
            Self::RelPath => path.map(|path| path.relative().to_string()),
            Self::Namespace => path.and_then(|path| path.namespace.clone()),
            Self::Server => path.and_then(|path| path.host.clone()),
        }
    }
}

/// What a path leads to.
pub(super) enum Found<'a> {
    Nothing,
    Object(&'a Instance),
    Value(&'a Value),
    Text(String),
}

impl<'a> Found<'a> {
    fn from(value: Option<&'a Value>) -> Self {
        match value {
            None => Self::Nothing,
            Some(Value::Instance(instance)) => Self::Object(instance),
            Some(value) => Self::Value(value),
        }
    }

    /// The class of what was found, where it is an object or refers to one.
    pub fn class(&self) -> Option<&Name> {
        match self {
            Self::Object(instance) => Some(&instance.class),
            Self::Value(Value::Reference(path)) => Some(&path.class),
            _ => None,
        }
    }
}

/// What names in a path may stand for.
#[derive(Clone, Copy)]
pub(super) struct Scope<'a> {
    pub instance: &'a Instance,
    pub tree: &'a dyn ClassTree,
    /// The element that `ANY` or `EVERY` looks at.
    pub bound: Option<&'a Bound<'a>>,
}

pub(super) struct Bound<'a> {
    pub name: &'a Name,
    pub value: Option<&'a Value>,
    pub outer: Option<&'a Bound<'a>>,
}

impl<'a> Scope<'a> {
    fn bound(&self, name: &Name) -> Option<&'a Bound<'a>> {
        std::iter::successors(self.bound, |bound| bound.outer).find(|bound| bound.name == name)
    }
}

impl PropertyPath {
    pub(super) fn property(name: Name) -> Self {
        Self {
            steps: vec![Step::Property {
                scope: None,
                name,
                index: None,
            }],
        }
    }

    /// The name of the property that it starts from, as the instance has it.
    pub fn first(&self) -> Option<&Name> {
        match self.steps.first()? {
            Step::Property {
                scope: None, name, ..
            } => Some(name),
            _ => None,
        }
    }

    pub(super) fn resolve<'a>(&self, scope: &Scope<'a>) -> Found<'a> {
        let mut found = Found::Object(scope.instance);
        for (at, step) in self.steps.iter().enumerate() {
            let next = match step {
                Step::System(system) => {
                    let text = match &found {
                        Found::Object(instance) => {
                            system.of(&instance.class, instance.path.as_ref())
                        }
                        Found::Value(Value::Reference(path)) => system.of(&path.class, Some(path)),
                        _ => None,
                    };
                    let here = || scope.tree.host().map(str::to_owned);
                    let text = match system {
                        System::Server => text.or_else(here),
                        _ => text,
                    };
                    text.map_or(Found::Nothing, Found::Text)
                }
                Step::Property {
                    scope: class,
                    name,
                    index,
                } => {
                    let fits = class.as_ref().is_none_or(|wanted| {
                        found
                            .class()
                            .is_some_and(|class| scope.tree.is_a(class, wanted))
                    });
                    let value = match (&found, scope.bound(name)) {
                        (_, Some(bound)) if at == 0 && class.is_none() => bound.value,
                        (Found::Object(instance), _) if fits => instance
                            .properties
                            .get(name)
                            .and_then(|property| property.value.value.as_ref()),
                        (Found::Value(Value::Reference(path)), _) if fits => path.keys.get(name),
                        _ => None,
                    };
                    Found::from(match (index, value) {
                        (Some(Index::At(index)), Some(Value::Array(items))) => {
                            items.get(*index).and_then(Option::as_ref)
                        }
                        (Some(Index::At(_)), _) => None,
                        (_, value) => value,
                    })
                }
            };
            found = next;
        }
        found
    }
}

impl fmt::Display for PropertyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps.is_empty() {
            return f.write_str("__this");
        }
        for (at, step) in self.steps.iter().enumerate() {
            if at > 0 {
                f.write_str(".")?;
            }
            match step {
                Step::System(system) => f.write_str(system.name())?,
                Step::Property { scope, name, index } => {
                    if let Some(scope) = scope {
                        write!(f, "{scope}::")?;
                    }
                    write!(f, "{name}")?;
                    match index {
                        Some(Index::At(index)) => write!(f, "[{index}]")?,
                        Some(Index::All) => f.write_str("[*]")?,
                        None => {}
                    }
                }
            }
        }
        Ok(())
    }
}

/// Leaves of the instance what the paths select.
pub(super) fn project(columns: &[PropertyPath], mut instance: Instance) -> Instance {
    let columns: Vec<&[Step]> = columns.iter().map(|path| &path.steps[..]).collect();
    projected(&columns, &mut instance);
    instance
}

fn projected(columns: &[&[Step]], instance: &mut Instance) {
    let mut kept: IndexMap<Name, Property> = IndexMap::new();
    for column in columns {
        match column.first() {
            // The object itself.
            None => return,
            Some(Step::System(system)) => {
                let text = system.of(&instance.class, instance.path.as_ref());
                kept.insert(
                    Name::fixed(system.name()),
                    Property {
                        value: TypedValue {
                            ty: CimType::String,
                            is_array: false,
                            value: text.map(Value::String),
                        },
                        embedded: None,
                        class_origin: None,
                    },
                );
            }
            Some(Step::Property { name, .. }) => {
                if kept.contains_key(name) {
                    continue;
                }
                let Some((spelling, mut property)) = instance
                    .properties
                    .get_key_value(name)
                    .map(|(name, p)| (name.clone(), p.clone()))
                else {
                    continue;
                };
                if let (Some(Value::Instance(inner)), Some(_)) =
                    (&mut property.value.value, &property.embedded)
                {
                    let same = |step: &Step| matches!(step, Step::Property { name: other, .. } if other == name);
                    let below: Vec<&[Step]> = columns
                        .iter()
                        .filter(|column| column.first().is_some_and(same))
                        .map(|column| &column[1..])
                        .collect();
                    projected(&below, inner);
                    property.embedded = Some(Embedded::Instance(inner.class.clone()));
                }
                kept.insert(spelling, property);
            }
        }
    }
    instance.properties = kept;
}
