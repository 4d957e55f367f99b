//! A whole schema as MOF, in an order in which a compiler that reads once and looks
//! nothing up later takes it: each class after those that it names.

use std::collections::HashSet;

use super::{write_class, write_qualifier};
use crate::{CimType, Class, Name, Qualifier, Repository, Value};

/// All qualifier types and classes of a repository.
///
/// A class follows its superclass, those that its references and parameters refer to
/// and those of its embedded instances. Where these make a circle, a class in it comes
/// before one that it names.
pub fn write_schema(repository: &Repository) -> String {
    let mut order = Order {
        repository,
        seen: HashSet::new(),
        classes: Vec::new(),
    };
    for class in repository.classes() {
        order.visit(&class.name);
    }
    let types = repository.qualifiers().values().map(write_qualifier);
    let mut text: String = types.collect();
    for class in order.classes {
        text.push('\n');
        text.push_str(&write_class(class, repository.qualifiers()));
    }
    text
}

struct Order<'r> {
    repository: &'r Repository,
    seen: HashSet<&'r Name>,
    classes: Vec<&'r Class>,
}

impl<'r> Order<'r> {
    fn visit(&mut self, name: &Name) {
        let Some(class) = self.repository.get(name) else {
            return;
        };
        // A schema has so few levels that this does not go deep.
        if self.seen.insert(&class.name) {
            for name in named(class) {
                self.visit(&name);
            }
            self.classes.push(class);
        }
    }
}

/// The classes that a class's own declaration names.
fn named(class: &Class) -> Vec<Name> {
    fn of<'q>(
        ty: &CimType,
        mut qualifiers: impl Iterator<Item = (&'q Name, &'q Qualifier)>,
    ) -> Option<Name> {
        if let CimType::Reference(target) = ty {
            return target.clone();
        }
        let (_, embedded) = qualifiers.find(|(name, _)| name.is("EmbeddedInstance"))?;
        let target = embedded.value.value.as_ref().and_then(Value::as_str)?;
        Some(Name::from(target))
    }
    let mut names: Vec<Name> = class.superclass.iter().cloned().collect();
    for property in class.properties.values().filter(|p| !p.propagated) {
        names.extend(of(&property.value.ty, property.qualifiers.iter()));
    }
    for method in class.methods.values().filter(|m| !m.propagated) {
        for parameter in method.parameters.values() {
            names.extend(of(&parameter.ty, parameter.qualifiers.iter()));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_follow_those_that_they_name() {
        let source = r#"
            Qualifier Association : boolean = false, Scope(association);
            Qualifier EmbeddedInstance : string, Scope(property, method, parameter);
            Qualifier Key : boolean = false, Scope(property, reference);
            class Top { [Key] string Id; uint32 Work(Job REF Doing); };
            class Below : Top { [EmbeddedInstance("Settings")] string Set; };
            class Settings { string Name; };
            class Job { [Key] string Id; };
            [Association] class Link { [Key] Late REF One; [Key] Top REF Other; };
            class Late { [Key] string Id; uint32 Ask(Late REF Again); };
        "#;
        let repository = Repository::from_mof(&[("order.mof", source)]).unwrap();
        let text = write_schema(&repository);
        let place = |name: &str| text.find(&format!("class {name} ")).unwrap();
        for (before, after) in [
            ("Job", "Top"),
            ("Top", "Below"),
            ("Settings", "Below"),
            ("Late", "Link"),
            ("Top", "Link"),
        ] {
            assert!(place(before) < place(after), "{before}, {after}: {text}");
        }
        let again = Repository::from_mof(&[("again.mof", &text)]).unwrap();
        assert_eq!(again.classes().count(), repository.classes().count());
        for class in repository.classes() {
            assert_eq!(again.get(&class.name), Some(class));
        }
    }
}
