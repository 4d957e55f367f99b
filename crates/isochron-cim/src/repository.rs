//! The classes and qualifier types of one namespace, with inheritance resolved.
//!
//! A class enters after its superclass and is whole from then on: it holds every
//! property, method and qualifier that it declares or inherits, overrides are
//! checked, and what traversal and instances need later (subclasses, keys, the
//! associations that can refer to a class) is worked out once, on entry. Lookups
//! are by hash. [`Repository::complete`] and its siblings, in the `typing` part,
//! give clients' and providers' values the types that the classes declare.

mod change;
mod inherit;
mod typing;

use std::collections::{HashMap, HashSet};
use std::fmt;

use indexmap::IndexMap;

use crate::mof::{self, Declaration, InstanceDecl, MofError, Position};
use crate::{
    CimError, CimType, Class, Instance, Name, ObjectPath, Property, QualifierDecl, Status,
};
use crate::{Embedded, TypedValue};

/// Classes and qualifier types of one namespace.
///
/// ```
/// use isochron_cim::{Name, Repository};
///
/// let repository = Repository::from_mof(&[("example.mof", r#"
///     Qualifier Key : boolean = false, Scope(property, reference), Flavor(DisableOverride);
///     Qualifier Association : boolean = false, Scope(association), Flavor(DisableOverride);
///     class EX_Thing { [Key] string Id; };
///     class EX_Box : EX_Thing { uint32 Size; };
///     [Association] class EX_Holds { [Key] EX_Box REF Box; [Key] EX_Thing REF Thing; };
/// "#)])?;
/// let ends = repository.association_ends(&Name::fixed("EX_Box"));
/// let roles: Vec<_> = ends.iter().map(|end| end.role.as_str()).collect();
/// assert_eq!(roles, ["Box", "Thing"]);
/// assert!(repository.is_a(&Name::fixed("ex_box"), &Name::fixed("EX_Thing")));
/// # Ok::<(), isochron_cim::SchemaError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Repository {
    qualifiers: IndexMap<Name, QualifierDecl>,
    /// In the order of entry: a class follows its superclass.
    classes: IndexMap<Name, Entry>,
    roots: Vec<Name>,
    instances: Vec<Instance>,
}

/// A class and what follows from it and the others.
#[derive(Clone, Debug)]
struct Entry {
    class: Class,
    subclasses: Vec<Name>,
    keys: Vec<Name>,
    ends: Vec<AssociationEnd>,
}

/// One way to refer to an instance of a class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssociationEnd {
    /// The association class; an abstract one too.
    pub association: Name,
    /// The reference property of it that can hold the class.
    pub role: Name,
}

/// Why a schema does not fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// The text is no MOF.
    #[error(transparent)]
    Mof(#[from] MofError),
    /// A superclass, a reference's target or an instance's class is not there.
    #[error("{at}: there is no class {class}")]
    UnknownClass {
        /// Where it is named.
        at: Place,
        /// The class that is missing.
        class: Name,
    },
    /// A qualifier has no qualifier type.
    #[error("{at}: the qualifier {qualifier} is not declared")]
    UnknownQualifier {
        /// Where it stands.
        at: Place,
        /// The qualifier.
        qualifier: Name,
    },
    /// A class, property or method is there already and not overridden.
    #[error("{at}: {message}")]
    Duplicate {
        /// Where the second one is.
        at: Place,
        /// What there are two of.
        message: String,
    },
    /// Types of overriding and overridden element, or of a qualifier and its type, differ.
    #[error("{at}: {message}")]
    TypeConflict {
        /// Where.
        at: Place,
        /// What differs from what.
        message: String,
    },
    /// An `Override` without anything to override, or against a flavor.
    #[error("{at}: {message}")]
    InvalidOverride {
        /// Where.
        at: Place,
        /// What is wrong with it.
        message: String,
    },
    /// An instance does not fit its class.
    #[error("{at}: {message}")]
    InvalidInstance {
        /// Where it is declared.
        at: Place,
        /// What does not fit.
        message: String,
    },
}

/// A place in a schema: in the MOF, where it came from MOF, and the element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where the class is declared.
    pub position: Option<Position>,
    /// `Class`, `Class.Element` or `Class.Method(Parameter)`.
    pub element: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.position {
            Some(position) => write!(f, "{position}: {}", self.element),
            None => f.write_str(&self.element),
        }
    }
}

impl Repository {
    /// The repository of these MOF texts, given as (file name, text) in an order
    /// where superclasses and qualifier types come first. `#pragma include` finds
    /// the others of the same list by name; each is read once. `#pragma namespace`
    /// says nothing here, where there is one namespace.
    ///
    /// # Errors
    /// What does not fit, and where. All references' targets must exist.
    pub fn from_mof(sources: &[(&str, &str)]) -> Result<Self, SchemaError> {
        let mut repository = Self::default();
        let mut aliases = HashMap::new();
        let mut read = HashSet::new();
        for (file, text) in sources {
            if !read.insert(*file) {
                continue;
            }
            let mut include = |name: &str| {
                let (file, text) = sources.iter().find(|(file, _)| *file == name)?;
                let text = if read.insert(*file) { *text } else { "" };
                Some(text.to_owned())
            };
            let found = mof::parse(file, text, &mut repository.qualifiers, &mut include)?;
            for (position, declaration) in found {
                match declaration {
                    Declaration::Class(class) => repository.enter(*class, Some(position))?,
                    Declaration::Instance(decl) => {
                        repository.enter_instance(&decl, position, &mut aliases)?;
                    }
                    Declaration::Namespace(_) => {}
                }
            }
        }
        repository.check_references()?;
        Ok(repository)
    }

    /// Adds a class with its own elements; inheritance is resolved here.
    ///
    /// # Errors
    /// What does not fit. References' targets may come later.
    pub fn add_class(&mut self, class: Class) -> Result<(), SchemaError> {
        self.enter(class, None)
    }

    /// Adds a qualifier type, or replaces it.
    pub fn add_qualifier(&mut self, decl: QualifierDecl) {
        self.qualifiers.insert(decl.name.clone(), decl);
    }

    fn enter(&mut self, own: Class, position: Option<Position>) -> Result<(), SchemaError> {
        let place = || Place {
            position: position.clone(),
            element: own.name.to_string(),
        };
        if self.classes.contains_key(&own.name) {
            let message = format!("there is a class {} already", own.name);
            return Err(SchemaError::Duplicate {
                at: place(),
                message,
            });
        }
        let superclass = match &own.superclass {
            None => None,
            Some(name) => match self.classes.get(name) {
                Some(entry) => Some(&entry.class),
                None => {
                    return Err(SchemaError::UnknownClass {
                        at: place(),
                        class: name.clone(),
                    });
                }
            },
        };
        let class = inherit::resolve(own, superclass, self, position.as_ref())?;
        let name = class.name.clone();
        match &class.superclass {
            Some(superclass) => {
                if let Some(entry) = self.classes.get_mut(superclass) {
                    entry.subclasses.push(name.clone());
                }
            }
            None => self.roots.push(name.clone()),
        }
        let keys = class.keys().cloned().collect();
        self.classes.insert(
            name.clone(),
            Entry {
                class,
                subclasses: Vec::new(),
                keys,
                ends: Vec::new(),
            },
        );
        self.enter_ends(&name);
        Ok(())
    }

    /// Notes which associations can refer to the new class, and, if it is an
    /// association, to which classes it can.
    fn enter_ends(&mut self, new: &Name) {
        let mut ends = Vec::new();
        for entry in self
            .classes
            .values()
            .filter(|entry| entry.class.is_association())
        {
            for (role, target) in references(&entry.class) {
                let end = || AssociationEnd {
                    association: entry.class.name.clone(),
                    role: role.clone(),
                };
                let refers = |class: &Name| target.is_none_or(|target| self.is_a(class, target));
                if entry.class.name == *new {
                    let targets = self.classes.keys().filter(|class| refers(class));
                    ends.extend(targets.map(|class| (class.clone(), end())));
                } else if refers(new) {
                    ends.push((new.clone(), end()));
                }
            }
        }
        for (class, end) in ends {
            if let Some(entry) = self.classes.get_mut(&class) {
                entry.ends.push(end);
            }
        }
    }

    fn enter_instance(
        &mut self,
        decl: &InstanceDecl,
        position: Position,
        aliases: &mut HashMap<Name, ObjectPath>,
    ) -> Result<(), SchemaError> {
        let place = |element: &Name| Place {
            position: Some(position.clone()),
            element: element.to_string(),
        };
        let Some(class) = self.get(&decl.class) else {
            let class = decl.class.clone();
            return Err(SchemaError::UnknownClass {
                at: place(&class),
                class,
            });
        };
        let mut instance = Instance::new(class.name.clone());
        for (name, literal) in &decl.properties {
            let invalid = |message: String| SchemaError::InvalidInstance {
                at: place(&class.name),
                message: format!("{name}: {message}"),
            };
            let Some(property) = class.properties.get(name) else {
                return Err(invalid(format!("{} has no such property", class.name)));
            };
            let TypedValue { ty, is_array, .. } = &property.value;
            let value = literal
                .typed(ty, *is_array, &|a| aliases.get(a).cloned())
                .map_err(invalid)?;
            let value = TypedValue {
                ty: ty.clone(),
                is_array: *is_array,
                value,
            };
            instance.properties.insert(
                name.clone(),
                Property {
                    value,
                    embedded: None,
                    class_origin: None,
                },
            );
        }
        let invalid = |error: CimError| SchemaError::InvalidInstance {
            at: place(&class.name),
            message: error.message,
        };
        let mut instance = self.complete(instance).map_err(invalid)?;
        instance.path = match class.keys().next() {
            Some(_) => Some(self.path_of(&instance).map_err(invalid)?),
            None => None,
        };
        if let (Some(alias), Some(path)) = (&decl.alias, &instance.path) {
            aliases.insert(alias.clone(), path.clone());
        }
        self.instances.push(instance);
        Ok(())
    }

    fn check_references(&self) -> Result<(), SchemaError> {
        for entry in self.classes.values() {
            let class = &entry.class;
            let properties = class
                .properties
                .iter()
                .map(|(name, p)| (name.to_string(), &p.value.ty));
            let parameters = class.methods.iter().flat_map(|(method, m)| {
                m.parameters
                    .iter()
                    .map(move |(name, p)| (format!("{method}({name})"), &p.ty))
            });
            for (element, ty) in properties.chain(parameters) {
                if let CimType::Reference(Some(target)) = ty
                    && !self.classes.contains_key(target)
                {
                    let at = Place {
                        position: None,
                        element: format!("{}.{element}", class.name),
                    };
                    return Err(SchemaError::UnknownClass {
                        at,
                        class: target.clone(),
                    });
                }
            }
        }
        Ok(())
    }

    /// The class with all its elements.
    pub fn get(&self, class: &Name) -> Option<&Class> {
        self.classes.get(class).map(|entry| &entry.class)
    }

    /// The class with all its elements, or the error to answer a client with
    /// (`CIM_ERR_INVALID_CLASS`).
    pub fn class(&self, class: &Name) -> Result<&Class, CimError> {
        self.get(class).ok_or_else(|| {
            CimError::new(
                Status::InvalidClass,
                format!("there is no class {class} here"),
            )
        })
    }

    /// All classes, a class after its superclass.
    pub fn classes(&self) -> impl Iterator<Item = &Class> {
        self.classes.values().map(|entry| &entry.class)
    }

    /// The classes without superclass.
    pub fn roots(&self) -> &[Name] {
        &self.roots
    }

    /// The subclasses of the next level or of all levels, a class after its
    /// superclass; none where there is no such class.
    pub fn subclasses(&self, class: &Name, deep: bool) -> Vec<&Name> {
        let next = |name: &Name| {
            self.classes
                .get(name)
                .map_or(&[][..], |entry| &entry.subclasses)
        };
        let mut found: Vec<&Name> = next(class).iter().collect();
        let mut at = 0;
        while deep && at < found.len() {
            found.extend(next(found[at]));
            at += 1;
        }
        found
    }

    /// The superclasses, the nearest first.
    pub fn superclasses(&self, class: &Name) -> impl Iterator<Item = &Name> {
        let above = |name: &Name| self.get(name).and_then(|class| class.superclass.as_ref());
        std::iter::successors(above(class), move |name| above(name))
    }

    /// Whether `class` is `ancestor` or derives from it.
    pub fn is_a(&self, class: &Name, ancestor: &Name) -> bool {
        class == ancestor || self.superclasses(class).any(|name| name == ancestor)
    }

    /// The names of the class's keys; none where there is no such class.
    pub fn key_names(&self, class: &Name) -> &[Name] {
        self.classes.get(class).map_or(&[], |entry| &entry.keys)
    }

    /// The references of associations (abstract ones too) that can hold an instance
    /// whose creation class is `class`.
    pub fn association_ends(&self, class: &Name) -> &[AssociationEnd] {
        self.classes.get(class).map_or(&[], |entry| &entry.ends)
    }

    /// A qualifier type.
    pub fn qualifier(&self, name: &Name) -> Option<&QualifierDecl> {
        self.qualifiers.get(name)
    }

    /// All qualifier types, by name.
    pub fn qualifiers(&self) -> &IndexMap<Name, QualifierDecl> {
        &self.qualifiers
    }

    /// The instances that the MOF declares, complete, with paths that name no
    /// namespace.
    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }
}

/// The class's references: their names and the classes they refer to.
fn references(class: &Class) -> impl Iterator<Item = (&Name, Option<&Name>)> {
    class
        .properties
        .iter()
        .filter_map(|(name, property)| match &property.value.ty {
            CimType::Reference(target) => Some((name, target.as_ref())),
            _ => None,
        })
}

/// How `EmbeddedInstance` and `EmbeddedObject` mark an element.
fn embedded(qualifiers: &IndexMap<Name, crate::Qualifier>) -> Option<Embedded> {
    let get = |name| {
        qualifiers
            .get(&Name::fixed(name))
            .and_then(|q| q.value.value.as_ref())
    };
    match get("EmbeddedInstance").and_then(crate::Value::as_str) {
        Some(class) => Some(Embedded::Instance(class.into())),
        None => get("EmbeddedObject")
            .and_then(crate::Value::as_bool)
            .filter(|is| *is)
            .map(|_| Embedded::Object),
    }
}
