//! Classes and qualifier types that clients write in their namespaces (DSP0200,
//! CreateClass, ModifyClass, DeleteClass, SetQualifier, DeleteQualifier).
//!
//! They are kept as MOF. What is kept has been read back from that text before and
//! was the same, so a start never finds a class that it cannot read. A class
//! changes only while nothing depends on it: no subclass, no instance.

use std::collections::HashMap;

use indexmap::IndexMap;
use isochron_cim::mof::{self, Declaration};
use isochron_cim::{CimError, Class, Name, QualifierDecl, Repository, SchemaError, Status};

use crate::records::{Record, RecordWrite};
use crate::space::{Space, full, prefix};

/// What a class that does not fit is to the client that wrote it.
fn unfit(error: SchemaError) -> CimError {
    let status = match &error {
        SchemaError::UnknownQualifier { .. } => Status::NotFound,
        _ => Status::InvalidParameter,
    };
    CimError::new(status, error)
}

fn unkept(what: &Name, why: impl std::fmt::Display) -> CimError {
    CimError::invalid_parameter(format!("{what} cannot be kept as MOF: {why}"))
}

impl Space {
    /// Adds a class; what it inherits may be given with it and does not count.
    ///
    /// # Errors
    /// `ALREADY_EXISTS`, `INVALID_SUPERCLASS`, `NOT_FOUND` for a qualifier's type,
    /// `INVALID_PARAMETER` for all else that does not fit, a reference to a class
    /// that is not there too.
    pub(crate) async fn create_class(&self, class: Class) -> Result<(), CimError> {
        let _writing = self.write().await?;
        let (own, text) = {
            let schema = self.schema();
            if schema.get(&class.name).is_some() {
                return Err(CimError::new(
                    Status::AlreadyExists,
                    format!("there is a class {} already", class.name),
                ));
            }
            let limit = self.keeper().limits.classes;
            if schema.classes().count() >= limit {
                return Err(full("classes in one namespace", limit));
            }
            self.checked(&schema, class)?
        };
        self.keep(self.class_key(&own.name), text).await?;
        self.schema_mut().add_class(own).map_err(unfit)
    }

    /// Replaces a class that has neither subclasses nor instances.
    ///
    /// # Errors
    /// `INVALID_CLASS` where there is none, `CLASS_HAS_CHILDREN`,
    /// `CLASS_HAS_INSTANCES`, `INVALID_SUPERCLASS` where it would get another, and
    /// those of [`Space::create_class`].
    pub(crate) async fn modify_class(&self, class: Class) -> Result<(), CimError> {
        let _writing = self.write().await?;
        self.check_class(&class.name)?;
        self.check_unused(&class.name)?;
        let (own, text) = {
            let schema = self.schema();
            let (own, text) = self.checked(&schema, class)?;
            if schema.class(&own.name)?.superclass != own.superclass {
                return Err(CimError::new(
                    Status::InvalidSuperclass,
                    format!("{} cannot get another superclass", own.name),
                ));
            }
            (own, text)
        };
        self.keep(self.class_key(&own.name), text).await?;
        self.schema_mut().replace_class(own).map_err(unfit)
    }

    /// Deletes a class that has neither subclasses nor instances.
    ///
    /// # Errors
    /// `NOT_FOUND`, `CLASS_HAS_CHILDREN`, `CLASS_HAS_INSTANCES`.
    pub(crate) async fn delete_class(&self, class: &Name) -> Result<(), CimError> {
        let _writing = self.write().await?;
        self.check_class(class)
            .map_err(|error| CimError::not_found(error.message))?;
        self.check_unused(class)?;
        let write = RecordWrite::Delete(self.class_key(class));
        self.keeper().commit(vec![write]).await?;
        self.schema_mut().remove_class(class);
        Ok(())
    }

    /// Adds or replaces a qualifier type. One that classes use keeps its type, its
    /// flavor and its scope.
    ///
    /// # Errors
    /// `FAILED` where classes use it and it would change.
    pub(crate) async fn set_qualifier(&self, decl: QualifierDecl) -> Result<(), CimError> {
        let _writing = self.write().await?;
        let text = mof::write_qualifier(&decl);
        {
            let schema = self.schema();
            let old = schema.qualifier(&decl.name);
            if old == Some(&decl) {
                return Ok(());
            }
            if let (Some(_), Some(user)) = (old, schema.user_of(&decl.name)) {
                return Err(CimError::failed(format!(
                    "the qualifier type {} cannot be changed: the class {user} uses it",
                    decl.name
                )));
            }
            let limit = self.keeper().limits.qualifiers;
            if old.is_none() && schema.qualifiers().len() >= limit {
                return Err(full("qualifier types in one namespace", limit));
            }
            let read = read_qualifier(&text).map_err(|why| unkept(&decl.name, why))?;
            if read != decl {
                return Err(unkept(&decl.name, "it would be another"));
            }
        }
        self.keep(self.qualifier_key(&decl.name), text).await?;
        self.schema_mut().add_qualifier(decl);
        Ok(())
    }

    /// Deletes a qualifier type that no class uses.
    ///
    /// # Errors
    /// `NOT_FOUND`; `FAILED` where a class uses it.
    pub(crate) async fn delete_qualifier(&self, name: &Name) -> Result<(), CimError> {
        let _writing = self.write().await?;
        {
            let schema = self.schema();
            if schema.qualifier(name).is_none() {
                return Err(CimError::not_found(format!(
                    "there is no qualifier type {name}"
                )));
            }
            if let Some(user) = schema.user_of(name) {
                return Err(CimError::failed(format!(
                    "the qualifier type {name} cannot be deleted: the class {user} uses it"
                )));
            }
        }
        let write = RecordWrite::Delete(self.qualifier_key(name));
        self.keeper().commit(vec![write]).await?;
        self.schema_mut().remove_qualifier(name);
        Ok(())
    }

    /// The class's own elements and the text that keeps them.
    fn checked(&self, schema: &Repository, class: Class) -> Result<(Class, String), CimError> {
        let own = class.declared();
        if let Some(superclass) = &own.superclass
            && schema.get(superclass).is_none()
        {
            return Err(CimError::new(
                Status::InvalidSuperclass,
                format!("there is no class {superclass} in {}", self.name()),
            ));
        }
        let whole = schema.resolve(own.clone()).map_err(unfit)?;
        if let Some(missing) = schema.unknown_references(&whole).first() {
            return Err(CimError::invalid_parameter(format!(
                "{} refers to the class {missing}, which is not in {}",
                own.name,
                self.name()
            )));
        }
        let text = mof::write_class(&whole, schema.qualifiers());
        let read = read_class(&text, schema.qualifiers()).map_err(|why| unkept(&own.name, why))?;
        if schema.resolve(read).map_err(unfit)? != whole {
            return Err(unkept(&own.name, "it would be another"));
        }
        Ok((own, text))
    }

    /// Fails if anything depends on the class.
    fn check_unused(&self, class: &Name) -> Result<(), CimError> {
        if let Some(child) = self.schema().subclasses(class, false).first() {
            return Err(CimError::new(
                Status::ClassHasChildren,
                format!("{child} derives from {class}"),
            ));
        }
        if self.instances().of_class(class).next().is_some() {
            return Err(CimError::new(
                Status::ClassHasInstances,
                format!("there are instances of {class}"),
            ));
        }
        Ok(())
    }

    async fn keep(&self, key: String, text: String) -> Result<(), CimError> {
        let limit = self.keeper().limits.record;
        if text.len() > limit {
            return Err(full("bytes of a class or qualifier type", limit));
        }
        let write = RecordWrite::Put(Record { key, text });
        self.keeper().commit(vec![write]).await
    }

    fn class_key(&self, class: &Name) -> String {
        let name = class.as_str().to_lowercase();
        format!("{}class/{name}", prefix(self.name()))
    }

    fn qualifier_key(&self, qualifier: &Name) -> String {
        let name = qualifier.as_str().to_lowercase();
        format!("{}qualifier/{name}", prefix(self.name()))
    }
}

fn read(
    text: &str,
    qualifiers: &mut IndexMap<Name, QualifierDecl>,
) -> Result<Vec<Declaration>, String> {
    let found = mof::parse("record", text, qualifiers, &mut |_| None);
    let found = found.map_err(|error| error.to_string())?;
    Ok(found.into_iter().map(|(_, found)| found).collect())
}

fn read_class(text: &str, qualifiers: &IndexMap<Name, QualifierDecl>) -> Result<Class, String> {
    let mut found = read(text, &mut qualifiers.clone())?;
    match (found.pop(), found.is_empty()) {
        (Some(Declaration::Class(class)), true) => Ok(*class),
        _ => Err("the text declares no class".to_owned()),
    }
}

fn read_qualifier(text: &str) -> Result<QualifierDecl, String> {
    let mut qualifiers = IndexMap::new();
    let found = read(text, &mut qualifiers)?;
    match (qualifiers.pop(), found.is_empty() && qualifiers.is_empty()) {
        (Some((_, decl)), true) => Ok(decl),
        _ => Err("the text declares no qualifier type".to_owned()),
    }
}

/// A namespace's classes and qualifier types from their records, in whatever order.
/// An error names the record.
pub(crate) fn restore(records: Vec<Record>) -> Result<Repository, (String, String)> {
    let mut schema = Repository::default();
    let (qualifiers, classes): (Vec<_>, Vec<_>) = records
        .into_iter()
        .partition(|record| record.key.contains("/qualifier/"));
    for record in qualifiers {
        let decl = read_qualifier(&record.text).map_err(|why| (record.key, why))?;
        schema.add_qualifier(decl);
    }
    // A class waits for its superclass, by whose name it is found.
    let mut waiting: HashMap<Option<Name>, Vec<(String, Class)>> = HashMap::new();
    for record in classes {
        let class = read_class(&record.text, schema.qualifiers());
        let class = class.map_err(|why| (record.key.clone(), why))?;
        let same = waiting.entry(class.superclass.clone()).or_default();
        same.push((record.key, class));
    }
    let mut ready = waiting.remove(&None).unwrap_or_default();
    while let Some((key, class)) = ready.pop() {
        let name = class.name.clone();
        let added = schema.add_class(class);
        added.map_err(|error| (key, error.to_string()))?;
        ready.extend(waiting.remove(&Some(name)).unwrap_or_default());
    }
    match waiting.into_values().flatten().next() {
        Some((key, _)) => Err((key, "its superclass is not there".to_owned())),
        None => Ok(schema),
    }
}
