//! MOF's declarations, in the order of the text: qualifier types, classes with
//! their features, instances, pragmas.
//!
//! Qualifiers and defaults get their types here, because the error then has a
//! place; what needs another class (inheritance, instances) is the repository's.

use indexmap::IndexMap;
use indexmap::map::Entry;

use super::{Parser, Qualifiers};
use crate::mof::lexer::Token;
use crate::mof::{Declaration, InstanceDecl, Literal, MofError};
use crate::{
    CimType, Class, Flavor, Method, Name, Parameter, PropertyDecl, Qualifier, QualifierDecl, Scope,
    TypedValue,
};

impl Parser<'_, '_, '_> {
    pub(super) fn declarations(mut self) -> Result<(), MofError> {
        while *self.peek() != Token::End {
            if self.eat('#') {
                self.pragma()?;
            } else if self.eat_word("qualifier") {
                self.qualifier_type()?;
            } else {
                self.class_or_instance()?;
            }
        }
        Ok(())
    }

    /// `#pragma name ("text")`; an unknown one is ignored, as DSP0004 §7.12 wants.
    fn pragma(&mut self) -> Result<(), MofError> {
        let start = self.next - 1;
        if !self.eat_word("pragma") {
            return self.expected("'pragma' after '#'");
        }
        let pragma = self.name("the pragma's name")?;
        self.need('(', "after the pragma's name")?;
        let arguments = self.list(')', "in the pragma", |p| match p.advance() {
            Token::Text(text) => Ok(text),
            Token::Word(word) => Ok(word.to_owned()),
            _ => {
                p.next -= 1;
                p.expected("the pragma's text in quotes")
            }
        })?;
        let Some(argument) = arguments.into_iter().next() else {
            return self.expected("the pragma's text in quotes");
        };
        if pragma.is("include") {
            let Some(text) = (self.reading.include)(&argument) else {
                return Err(self.error(start, format!("there is no file {argument:?} to include")));
            };
            return self.reading.file(&argument, &text, self.depth + 1);
        }
        if pragma.is("namespace") {
            let namespace = crate::path::normal_namespace(&argument);
            let at = self.at(start);
            self.reading
                .found
                .push((at, Declaration::Namespace(namespace)));
        }
        Ok(())
    }

    /// `Qualifier Name : type[] = default, Scope(...), Flavor(...);`
    fn qualifier_type(&mut self) -> Result<(), MofError> {
        let start = self.next - 1;
        let name = self.name("the qualifier's name")?;
        self.need(':', "after the qualifier's name")?;
        let ty = self.intrinsic_type()?;
        let (is_array, array_size) = self.array()?;
        let value = self.default(&ty, is_array)?;
        let mut decl = QualifierDecl {
            name: name.clone(),
            value: TypedValue {
                ty,
                is_array,
                value,
            },
            array_size,
            scope: Vec::new(),
            flavor: Flavor::default(),
        };
        while self.eat(',') {
            if self.eat_word("scope") {
                self.need('(', "after Scope")?;
                decl.scope = self.list(')', "in the scope", Self::scope)?;
            } else if self.eat_word("flavor") {
                self.need('(', "after Flavor")?;
                let mut flavor = decl.flavor;
                self.list(')', "in the flavor", |p| p.flavor(&mut flavor))?;
                decl.flavor = flavor;
            } else {
                return self.expected("Scope(...) or Flavor(...)");
            }
        }
        self.need(';', "after the qualifier type")?;
        if decl.scope.is_empty() {
            return Err(self.error(start, format!("the qualifier {name} has no Scope(...)")));
        }
        match self.reading.qualifiers.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(decl);
                Ok(())
            }
            Entry::Occupied(entry) if *entry.get() == decl => Ok(()),
            Entry::Occupied(entry) => {
                let message = format!(
                    "the qualifier {} is declared a second time, differently",
                    entry.key()
                );
                Err(self.error(start, message))
            }
        }
    }

    fn scope(&mut self) -> Result<Scope, MofError> {
        let scopes = [
            ("class", Scope::Class),
            ("association", Scope::Association),
            ("indication", Scope::Indication),
            ("property", Scope::Property),
            ("reference", Scope::Reference),
            ("method", Scope::Method),
            ("parameter", Scope::Parameter),
            ("any", Scope::Any),
        ];
        match scopes
            .into_iter()
            .find(|(word, _)| self.is_word(self.next, word))
        {
            Some((_, scope)) => {
                self.next += 1;
                Ok(scope)
            }
            None => self.expected(
                "class, association, indication, property, reference, method, parameter or any",
            ),
        }
    }

    fn flavor(&mut self, flavor: &mut Flavor) -> Result<(), MofError> {
        let word = self.name("a flavor")?;
        match word.as_str().to_ascii_lowercase().as_str() {
            "enableoverride" => flavor.overridable = true,
            "disableoverride" => flavor.overridable = false,
            "tosubclass" => flavor.to_subclass = true,
            "restricted" => flavor.to_subclass = false,
            "translatable" => flavor.translatable = true,
            // Of older specifications: instances carry no qualifiers.
            "toinstance" => {}
            _ => {
                self.next -= 1;
                return self.expected(
                    "EnableOverride, DisableOverride, ToSubclass, Restricted or Translatable",
                );
            }
        }
        Ok(())
    }

    fn class_or_instance(&mut self) -> Result<(), MofError> {
        let list = self.next;
        let uses = self.qualifier_list()?;
        let start = self.next;
        if self.eat_word("class") {
            let class = self.class(uses)?;
            let at = self.at(start);
            self.reading
                .found
                .push((at, Declaration::Class(Box::new(class))));
            return Ok(());
        }
        if self.eat_word("instance") {
            if !uses.is_empty() {
                return Err(self.error(list, "qualifiers do not stand on instances"));
            }
            let instance = self.instance()?;
            let at = self.at(start);
            self.reading
                .found
                .push((at, Declaration::Instance(instance)));
            return Ok(());
        }
        self.expected("class, instance, Qualifier or #pragma")
    }

    fn alias(&mut self) -> Result<Option<Name>, MofError> {
        if !self.eat_word("as") {
            return Ok(None);
        }
        match *self.peek() {
            Token::Alias(alias) => {
                self.next += 1;
                Ok(Some(alias.into()))
            }
            _ => self.expected("an alias such as $Name"),
        }
    }

    /// `Name as $Alias : Superclass { features };`. A class's alias means nothing:
    /// a class is referred to by its name.
    fn class(&mut self, uses: Qualifiers) -> Result<Class, MofError> {
        let name = self.name("the class's name")?;
        self.alias()?;
        let superclass = if self.eat(':') {
            Some(self.name("the superclass's name")?)
        } else {
            None
        };
        let mut class = Class {
            name: name.clone(),
            superclass,
            qualifiers: uses,
            ..Class::default()
        };
        let kind = [
            ("Association", Scope::Association),
            ("Indication", Scope::Indication),
        ]
        .into_iter()
        .find(|(qualifier, _)| class.flag(qualifier))
        .map_or(Scope::Class, |(_, scope)| scope);
        self.check_scope(&class.qualifiers, kind, self.next)?;
        self.need('{', "before the class's features")?;
        while !self.eat('}') {
            self.feature(&mut class)?;
        }
        self.need(';', "after the class")?;
        Ok(class)
    }

    fn check_scope(&self, uses: &Qualifiers, scope: Scope, at: usize) -> Result<(), MofError> {
        for name in uses.keys() {
            let allowed = self.reading.qualifiers.get(name).is_none_or(|decl| {
                decl.scope.contains(&Scope::Any)
                    || decl.scope.contains(&scope)
                    // A class may turn out to be an association by inheritance.
                    || matches!(scope, Scope::Class | Scope::Association | Scope::Indication)
                        && decl.scope.iter().any(|s| {
                            matches!(s, Scope::Class | Scope::Association | Scope::Indication)
                        })
            });
            if !allowed {
                let scope = format!("{scope:?}").to_lowercase();
                let message = format!("the qualifier {name} does not stand on a {scope}");
                return Err(self.error(at, message));
            }
        }
        Ok(())
    }

    /// A property, reference or method.
    fn feature(&mut self, class: &mut Class) -> Result<(), MofError> {
        let uses = self.qualifier_list()?;
        let ty = self.any_type("a property, reference or method, or '}'")?;
        let at = self.next;
        let name = self.name("the name after its type")?;
        let twice = |p: &Self| p.error(at, format!("{} declares {name} twice", class.name));
        if self.eat('(') {
            if matches!(ty, CimType::Reference(_)) {
                return Err(self.error(at, "a method does not return a reference"));
            }
            self.check_scope(&uses, Scope::Method, at)?;
            let mut parameters = IndexMap::new();
            for (at, name, parameter) in self.list(')', "after the parameter", Self::parameter)? {
                if parameters.insert(name.clone(), parameter).is_some() {
                    return Err(self.error(at, format!("the parameter {name} stands twice")));
                }
            }
            self.need(';', "after the method")?;
            let method = Method {
                return_type: ty,
                qualifiers: uses,
                parameters,
                class_origin: class.name.clone(),
                propagated: false,
            };
            if class.methods.contains_key(&name) {
                return Err(twice(self));
            }
            class.methods.insert(name, method);
            return Ok(());
        }
        let reference = matches!(ty, CimType::Reference(_));
        self.check_scope(
            &uses,
            if reference {
                Scope::Reference
            } else {
                Scope::Property
            },
            at,
        )?;
        let (is_array, array_size) = self.array()?;
        if reference && is_array {
            return Err(self.error(at, "a reference property is no array"));
        }
        let value = self.default(&ty, is_array)?;
        self.need(';', "after the property")?;
        if class.properties.contains_key(&name) {
            return Err(twice(self));
        }
        let property = PropertyDecl {
            value: TypedValue {
                ty,
                is_array,
                value,
            },
            array_size,
            qualifiers: uses,
            class_origin: class.name.clone(),
            propagated: false,
        };
        class.properties.insert(name, property);
        Ok(())
    }

    fn parameter(&mut self) -> Result<(usize, Name, Parameter), MofError> {
        let uses = self.qualifier_list()?;
        let ty = self.any_type("a parameter's type")?;
        let at = self.next;
        let name = self.name("the parameter's name")?;
        self.check_scope(&uses, Scope::Parameter, at)?;
        let (is_array, array_size) = self.array()?;
        Ok((
            at,
            name,
            Parameter {
                ty,
                is_array,
                array_size,
                qualifiers: uses,
            },
        ))
    }

    /// `[Name, Name(value), Name{values} : flavors, ...]` or nothing.
    fn qualifier_list(&mut self) -> Result<Qualifiers, MofError> {
        let mut uses = IndexMap::new();
        if !self.eat('[') {
            return Ok(uses);
        }
        for (at, name, qualifier) in self.list(']', "in the qualifiers", Self::qualifier)? {
            if uses.insert(name.clone(), qualifier).is_some() {
                return Err(self.error(at, format!("the qualifier {name} stands twice")));
            }
        }
        Ok(uses)
    }

    fn qualifier(&mut self) -> Result<(usize, Name, Qualifier), MofError> {
        let at = self.next;
        let name = self.name("a qualifier")?;
        let Some(decl) = self.reading.qualifiers.get(&name) else {
            let message = format!("the qualifier {name} is not declared before its use");
            return Err(self.error(at, message));
        };
        let TypedValue { ty, is_array, .. } = decl.value.clone();
        let mut flavor = decl.flavor;
        let name = decl.name.clone();
        let value_at = self.next;
        let literal = if self.eat('(') {
            let literal = self.literal()?;
            self.need(')', "after the qualifier's value")?;
            literal
        } else if *self.peek() == Token::Sign('{') {
            self.literal()?
        } else if ty == CimType::Boolean && !is_array {
            Literal::Boolean(true)
        } else {
            Literal::Null
        };
        let value = literal
            .typed(&ty, is_array, &|_| None)
            .map_err(|message| self.error(value_at, format!("{name}: {message}")))?;
        if self.eat(':') {
            self.flavor(&mut flavor)?;
            while matches!(self.peek(), Token::Word(_)) {
                self.flavor(&mut flavor)?;
            }
        }
        let value = TypedValue {
            ty,
            is_array,
            value,
        };
        Ok((
            at,
            name,
            Qualifier {
                value,
                flavor,
                propagated: false,
            },
        ))
    }

    /// `of Class as $Alias { name = value; ... };`
    fn instance(&mut self) -> Result<InstanceDecl, MofError> {
        if !self.eat_word("of") {
            return self.expected("'of' after 'instance'");
        }
        let class = self.name("the instance's class")?;
        let alias = self.alias()?;
        self.need('{', "before the instance's values")?;
        let mut properties = IndexMap::new();
        while !self.eat('}') {
            self.qualifier_list()?;
            let at = self.next;
            let name = self.name("a property's name or '}'")?;
            self.need('=', "after the property's name")?;
            let value = self.literal()?;
            self.need(';', "after the property's value")?;
            if properties.insert(name.clone(), value).is_some() {
                return Err(self.error(at, format!("{name} is given twice")));
            }
        }
        self.need(';', "after the instance")?;
        Ok(InstanceDecl {
            class,
            alias,
            properties,
        })
    }
}
