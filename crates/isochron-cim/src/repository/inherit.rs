//! What a class inherits, and whether what it declares again may be declared so
//! (DSP0004 §5.1.2.3 on overriding, §5.6.1 on the propagation of qualifiers).
//!
//! An element that overrides another keeps its place and its class of origin, as
//! existing servers have it; qualifiers propagate by flavor.

use indexmap::IndexMap;

use super::{Place, Repository, SchemaError};
use crate::mof::Position;
use crate::{CimType, Class, Method, Name, Parameter, PropertyDecl, Qualifier, Value};

type Qualifiers = IndexMap<Name, Qualifier>;

/// The class with everything it inherits.
pub(super) fn resolve(
    own: Class,
    superclass: Option<&Class>,
    repository: &Repository,
    position: Option<&Position>,
) -> Result<Class, SchemaError> {
    let class = own.name.clone();
    let cx = Context {
        class: class.clone(),
        superclass: superclass.map(|class| class.name.clone()),
        repository,
        position,
    };
    let empty = Class::default();
    let above = superclass.unwrap_or(&empty);

    let mut whole = Class {
        name: class,
        superclass: superclass.map(|class| class.name.clone()),
        qualifiers: cx.qualifiers(own.qualifiers, &above.qualifiers, "")?,
        properties: above.properties.clone(),
        methods: above.methods.clone(),
    };
    for property in whole.properties.values_mut() {
        property.propagated = true;
        property.qualifiers = inherited(&property.qualifiers);
    }
    for method in whole.methods.values_mut() {
        method.propagated = true;
        method.qualifiers = inherited(&method.qualifiers);
        for parameter in method.parameters.values_mut() {
            parameter.qualifiers = inherited(&parameter.qualifiers);
        }
    }
    for (name, property) in own.properties {
        let resolved = cx.property(&name, property, above.properties.get(&name))?;
        insert(&mut whole.properties, name, resolved);
    }
    for (name, method) in own.methods {
        let resolved = cx.method(&name, method, above.methods.get(&name))?;
        insert(&mut whole.methods, name, resolved);
    }
    Ok(whole)
}

/// Puts an element in the place of the one that it overrides, or at the end, with
/// its name as it is spelt here.
fn insert<T>(elements: &mut IndexMap<Name, T>, name: Name, element: T) {
    match elements.get_index_of(&name) {
        Some(index) => {
            elements.shift_remove_index(index);
            elements.shift_insert(index, name, element);
        }
        None => {
            elements.insert(name, element);
        }
    }
}

/// The qualifiers that an element takes over from the superclass's element.
fn inherited(above: &Qualifiers) -> Qualifiers {
    above
        .iter()
        .filter(|(_, qualifier)| qualifier.flavor.to_subclass)
        .map(|(name, qualifier)| {
            (
                name.clone(),
                Qualifier {
                    propagated: true,
                    ..qualifier.clone()
                },
            )
        })
        .collect()
}

struct Context<'a> {
    class: Name,
    superclass: Option<Name>,
    repository: &'a Repository,
    position: Option<&'a Position>,
}

impl Context<'_> {
    fn at(&self, element: &str) -> Place {
        let dot = if element.is_empty() { "" } else { "." };
        Place {
            position: self.position.cloned(),
            element: format!("{}{dot}{element}", self.class),
        }
    }

    /// The element's own qualifiers and, behind them, those it inherits.
    fn qualifiers(
        &self,
        own: Qualifiers,
        above: &Qualifiers,
        element: &str,
    ) -> Result<Qualifiers, SchemaError> {
        for (name, qualifier) in &own {
            let Some(decl) = self.repository.qualifiers.get(name) else {
                let qualifier = name.clone();
                return Err(SchemaError::UnknownQualifier {
                    at: self.at(element),
                    qualifier,
                });
            };
            if (&decl.value.ty, decl.value.is_array)
                != (&qualifier.value.ty, qualifier.value.is_array)
            {
                let message = format!("the qualifier {name} has not the type it was declared with");
                return Err(SchemaError::TypeConflict {
                    at: self.at(element),
                    message,
                });
            }
            if let Some(old) = above.get(name)
                && old.flavor.to_subclass
                && !old.flavor.overridable
                && old.value != qualifier.value
            {
                let message = format!("the qualifier {name} cannot be changed in a subclass");
                return Err(SchemaError::InvalidOverride {
                    at: self.at(element),
                    message,
                });
            }
        }
        let mut whole = own;
        for (name, qualifier) in inherited(above) {
            whole.entry(name).or_insert(qualifier);
        }
        Ok(whole)
    }

    /// Checks that a redeclared element says `Override`, and that one that says it
    /// has something to override.
    fn overriding(&self, name: &Name, own: &Qualifiers, above: bool) -> Result<(), SchemaError> {
        let named = own
            .get(&Name::fixed("Override"))
            .map(|qualifier| qualifier.value.value.as_ref().and_then(Value::as_str));
        let at = || self.at(name.as_str());
        match (named, above) {
            (None, false) => Ok(()),
            (Some(None), true) => Ok(()),
            (Some(Some(named)), true) if name.is(named) => Ok(()),
            (Some(Some(named)), _) if !name.is(named) => {
                let message = format!("Override names {named}: an element overrides its namesake");
                Err(SchemaError::InvalidOverride { at: at(), message })
            }
            (Some(_), _) => {
                let message = "there is nothing in the superclass to override".to_owned();
                Err(SchemaError::InvalidOverride { at: at(), message })
            }
            (None, true) => {
                let message = "the superclass declares it already, and Override is missing";
                Err(SchemaError::Duplicate {
                    at: at(),
                    message: message.to_owned(),
                })
            }
        }
    }

    fn property(
        &self,
        name: &Name,
        mut own: PropertyDecl,
        above: Option<&PropertyDecl>,
    ) -> Result<PropertyDecl, SchemaError> {
        self.overriding(name, &own.qualifiers, above.is_some())?;
        own.propagated = false;
        own.class_origin = self.class.clone();
        let none = Qualifiers::default();
        let old = above.map_or(&none, |above| &above.qualifiers);
        own.qualifiers = self.qualifiers(own.qualifiers, old, name.as_str())?;
        let Some(above) = above else {
            return Ok(own);
        };
        if own.value.is_array != above.value.is_array || !self.fits(&own.value.ty, &above.value.ty)
        {
            return Err(self.type_conflict(name.as_str(), &own.value.ty, &above.value.ty));
        }
        if own.value.value.is_none() {
            own.value.value.clone_from(&above.value.value);
        }
        own.class_origin = above.class_origin.clone();
        Ok(own)
    }

    fn method(
        &self,
        name: &Name,
        mut own: Method,
        above: Option<&Method>,
    ) -> Result<Method, SchemaError> {
        self.overriding(name, &own.qualifiers, above.is_some())?;
        own.propagated = false;
        own.class_origin = self.class.clone();
        let none = Qualifiers::default();
        let old = above.map_or(&none, |above| &above.qualifiers);
        own.qualifiers = self.qualifiers(own.qualifiers, old, name.as_str())?;
        for (parameter_name, parameter) in &mut own.parameters {
            let element = format!("{name}({parameter_name})");
            let old = above.and_then(|above| above.parameters.get(parameter_name));
            self.parameter(&element, parameter, old)?;
        }
        let Some(above) = above else {
            return Ok(own);
        };
        if own.return_type != above.return_type {
            return Err(self.type_conflict(name.as_str(), &own.return_type, &above.return_type));
        }
        if !own.parameters.keys().eq(above.parameters.keys()) {
            let message = "the parameters are not those of the method it overrides".to_owned();
            return Err(SchemaError::InvalidOverride {
                at: self.at(name.as_str()),
                message,
            });
        }
        own.class_origin = above.class_origin.clone();
        Ok(own)
    }

    fn parameter(
        &self,
        element: &str,
        own: &mut Parameter,
        above: Option<&Parameter>,
    ) -> Result<(), SchemaError> {
        let none = Qualifiers::default();
        let old = above.map_or(&none, |above| &above.qualifiers);
        own.qualifiers = self.qualifiers(std::mem::take(&mut own.qualifiers), old, element)?;
        match above {
            Some(above) if own.is_array != above.is_array || !self.fits(&own.ty, &above.ty) => {
                Err(self.type_conflict(element, &own.ty, &above.ty))
            }
            _ => Ok(()),
        }
    }

    /// Whether an overriding element of this type may stand for one of that. A
    /// reference may be narrowed to a subclass that was declared before.
    fn fits(&self, own: &CimType, above: &CimType) -> bool {
        match (own, above) {
            (CimType::Reference(_), CimType::Reference(None)) => true,
            (CimType::Reference(Some(own)), CimType::Reference(Some(above))) => {
                // The class itself is not in the repository yet.
                let own = if *own == self.class {
                    &self.superclass
                } else {
                    &Some(own.clone())
                };
                own.as_ref()
                    .is_some_and(|own| self.repository.is_a(own, above))
            }
            _ => own == above,
        }
    }

    fn type_conflict(&self, element: &str, own: &CimType, above: &CimType) -> SchemaError {
        let text = |ty: &CimType| match ty {
            CimType::Reference(Some(class)) => format!("a reference to {class}"),
            ty => ty.name().to_owned(),
        };
        let message = match own == above {
            true => "one of overriding and overridden is an array".to_owned(),
            false => format!("{} overrides {}", text(own), text(above)),
        };
        SchemaError::TypeConflict {
            at: self.at(element),
            message,
        }
    }
}
