//! Class declarations: what MOF says and GetClass returns (DSP0004 §5.1).

use indexmap::IndexMap;

use crate::{CimType, Name, TypedValue};

/// A class, with every element that it declares or inherits.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Class {
    /// The class's name.
    pub name: Name,
    /// The class it derives from.
    pub superclass: Option<Name>,
    /// Qualifiers on the class itself.
    pub qualifiers: IndexMap<Name, Qualifier>,
    /// Properties and references, inherited ones first.
    pub properties: IndexMap<Name, PropertyDecl>,
    /// Methods, inherited ones first.
    pub methods: IndexMap<Name, Method>,
}

/// A property or reference as a class declares it.
#[derive(Clone, Debug, PartialEq)]
pub struct PropertyDecl {
    /// Type, whether an array, and the default value.
    pub value: TypedValue,
    /// The size of a fixed-size array.
    pub array_size: Option<u32>,
    /// Qualifiers, inherited ones included.
    pub qualifiers: IndexMap<Name, Qualifier>,
    /// The class that declares it first; one that overrides it is not its origin.
    pub class_origin: Name,
    /// Whether it comes from a superclass without being declared again.
    pub propagated: bool,
}

/// A method as a class declares it.
#[derive(Clone, Debug, PartialEq)]
pub struct Method {
    /// The return value's type.
    pub return_type: CimType,
    /// Qualifiers, inherited ones included.
    pub qualifiers: IndexMap<Name, Qualifier>,
    /// Parameters in the order of the declaration.
    pub parameters: IndexMap<Name, Parameter>,
    /// The class that declares it first; one that overrides it is not its origin.
    pub class_origin: Name,
    /// Whether it comes from a superclass without being declared again.
    pub propagated: bool,
}

/// A method's parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its type.
    pub ty: CimType,
    /// Whether it is an array.
    pub is_array: bool,
    /// The size of a fixed-size array.
    pub array_size: Option<u32>,
    /// Qualifiers; `In` (default true) and `Out` say the direction.
    pub qualifiers: IndexMap<Name, Qualifier>,
}

/// A qualifier's value on an element.
#[derive(Clone, Debug, PartialEq)]
pub struct Qualifier {
    /// Its type and value.
    pub value: TypedValue,
    /// How it is inherited.
    pub flavor: Flavor,
    /// Whether it came from the superclass's element.
    pub propagated: bool,
}

/// A qualifier's flavor (DSP0004 §5.6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flavor {
    /// `ToSubclass` (default) or `Restricted`.
    pub to_subclass: bool,
    /// `EnableOverride` (default) or `DisableOverride`.
    pub overridable: bool,
    /// The value may be translated.
    pub translatable: bool,
}

impl Default for Flavor {
    fn default() -> Self {
        Self {
            to_subclass: true,
            overridable: true,
            translatable: false,
        }
    }
}

/// A qualifier type: what MOF's `Qualifier Name : type = default, Scope(...)`
/// declares.
#[derive(Clone, Debug, PartialEq)]
pub struct QualifierDecl {
    /// The qualifier's name.
    pub name: Name,
    /// Type and default value.
    pub value: TypedValue,
    /// The size of a fixed-size array.
    pub array_size: Option<u32>,
    /// The elements that it may stand on.
    pub scope: Vec<Scope>,
    /// How its values are inherited unless they say otherwise.
    pub flavor: Flavor,
}

/// An element kind that a qualifier may stand on (DSP0004 §5.6.1).
#[allow(missing_docs)] // The names are the specification's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    Class,
    Association,
    Indication,
    Property,
    Reference,
    Method,
    Parameter,
    Any,
}

impl Class {
    /// Whether the boolean qualifier is on the class with the value true.
    pub fn flag(&self, qualifier: &str) -> bool {
        is_true(&self.qualifiers, qualifier)
    }

    /// Whether this is an association class.
    pub fn is_association(&self) -> bool {
        self.flag("Association")
    }

    /// The class with only what it declares itself: as it is before inheritance is
    /// resolved, and what [`crate::Repository::add_class`] takes.
    #[must_use]
    pub fn declared(mut self) -> Self {
        fn own(qualifiers: &mut IndexMap<Name, Qualifier>) {
            qualifiers.retain(|_, qualifier| !qualifier.propagated);
        }
        own(&mut self.qualifiers);
        self.properties.retain(|_, property| !property.propagated);
        self.methods.retain(|_, method| !method.propagated);
        for property in self.properties.values_mut() {
            own(&mut property.qualifiers);
        }
        for method in self.methods.values_mut() {
            own(&mut method.qualifiers);
            for parameter in method.parameters.values_mut() {
                own(&mut parameter.qualifiers);
            }
        }
        self
    }

    /// The names of the key properties, in declaration order.
    pub fn keys(&self) -> impl Iterator<Item = &Name> {
        self.properties
            .iter()
            .filter(|(_, p)| p.flag("Key"))
            .map(|(name, _)| name)
    }
}

impl PropertyDecl {
    /// Whether the boolean qualifier is on the property with the value true.
    pub fn flag(&self, qualifier: &str) -> bool {
        is_true(&self.qualifiers, qualifier)
    }
}

impl Parameter {
    /// Whether a caller may pass the parameter in (`In`, true by default).
    pub fn is_in(&self) -> bool {
        !self.qualifiers.contains_key(&Name::fixed("In")) || is_true(&self.qualifiers, "In")
    }

    /// Whether the method passes the parameter out (`Out`, false by default).
    pub fn is_out(&self) -> bool {
        is_true(&self.qualifiers, "Out")
    }
}

fn is_true(qualifiers: &IndexMap<Name, Qualifier>, name: &str) -> bool {
    qualifiers
        .get(&Name::from(name))
        .and_then(|q| q.value.value.as_ref())
        .and_then(crate::Value::as_bool)
        .unwrap_or(false)
}
