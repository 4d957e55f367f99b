//! Taking out and replacing what a repository holds, such that what is left still
//! fits together: no class without its superclass, no qualifier without its type.

use super::{Entry, Place, Repository, SchemaError, inherit};
use crate::{Class, Name, Qualifier, QualifierDecl};

impl Repository {
    /// The class, given with its own elements, as it would be in here.
    ///
    /// # Errors
    /// What does not fit; that there is one of its name already is not seen.
    pub fn resolve(&self, own: Class) -> Result<Class, SchemaError> {
        let superclass = match &own.superclass {
            None => None,
            Some(name) => Some(self.get(name).ok_or_else(|| SchemaError::UnknownClass {
                at: at(&own.name),
                class: name.clone(),
            })?),
        };
        inherit::resolve(own, superclass, self, None)
    }

    /// Takes a class out. `None`, and nothing is changed, where there is no such
    /// class or one derives from it. References to it may be left.
    pub fn remove_class(&mut self, class: &Name) -> Option<Class> {
        if !self.classes.get(class)?.subclasses.is_empty() {
            return None;
        }
        let Entry { class, .. } = self.classes.shift_remove(class)?;
        match &class.superclass {
            None => self.roots.retain(|root| *root != class.name),
            Some(superclass) => {
                if let Some(above) = self.classes.get_mut(superclass) {
                    above.subclasses.retain(|below| *below != class.name);
                }
            }
        }
        if class.is_association() {
            for entry in self.classes.values_mut() {
                entry.ends.retain(|end| end.association != class.name);
            }
        }
        Some(class)
    }

    /// Puts a class, given with its own elements, in the place of the one of its
    /// name, from which none may derive. It comes after all others then.
    ///
    /// # Errors
    /// What does not fit; nothing is changed then.
    pub fn replace_class(&mut self, own: Class) -> Result<(), SchemaError> {
        self.resolve(own.clone())?;
        let Some(old) = self.remove_class(&own.name) else {
            return Err(SchemaError::UnknownClass {
                at: at(&own.name),
                class: own.name,
            });
        };
        let entered = self.enter(own, None);
        if entered.is_err() {
            self.enter(old.declared(), None)?;
        }
        entered
    }

    /// A class that has the qualifier somewhere, if any.
    pub fn user_of(&self, qualifier: &Name) -> Option<&Name> {
        let is_on = |on: &indexmap::IndexMap<Name, Qualifier>| on.contains_key(qualifier);
        let uses = |class: &&Class| {
            is_on(&class.qualifiers)
                || class.properties.values().any(|p| is_on(&p.qualifiers))
                || class.methods.values().any(|method| {
                    is_on(&method.qualifiers)
                        || method.parameters.values().any(|p| is_on(&p.qualifiers))
                })
        };
        self.classes().find(uses).map(|class| &class.name)
    }

    /// Takes a qualifier type out. `None`, and nothing is changed, where there is no
    /// such type or a class uses it.
    pub fn remove_qualifier(&mut self, name: &Name) -> Option<QualifierDecl> {
        if self.user_of(name).is_some() {
            return None;
        }
        self.qualifiers.shift_remove(name)
    }

    /// The classes that a class's references can hold and that are not here.
    /// Those of methods' parameters are not looked at: classes may name each other
    /// there.
    pub fn unknown_references<'a>(&self, class: &'a Class) -> Vec<&'a Name> {
        super::references(class)
            .filter_map(|(_, target)| target)
            .filter(|target| **target != class.name && self.get(target).is_none())
            .collect()
    }
}

fn at(class: &Name) -> Place {
    Place {
        position: None,
        element: class.to_string(),
    }
}
