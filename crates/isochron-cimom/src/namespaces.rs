//! The namespaces of clients: made by creating a `CIM_Namespace` in `interop`,
//! deleted by deleting it (DSP0200, "Namespace manipulation").
//!
//! A namespace's record is all that is kept of it; its `CIM_Namespace` and what
//! associates that with the object manager are made after the provider's own, at
//! every start anew.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use futures::TryStreamExt;
use indexmap::IndexMap;
use isochron_cim::{
    AssociationFilter, CimError, Instance, Name, ObjectPath, Repository, RequestContext, Role,
    Status,
};

use crate::instances::Instances;
use crate::manager::{ObjectManager, OpenError, ourselves};
use crate::places::normal;
use crate::records::{Record, RecordWrite};
use crate::schema;
use crate::space::{Keeper, Space, full, prefix, references};

/// The class whose instances are namespaces.
pub(crate) const CLASS: Name = Name::fixed("CIM_Namespace");
/// What associates them with the object manager.
const IN_MANAGER: Name = Name::fixed("CIM_NamespaceInManager");

/// The longest name of a namespace (CIM_Namespace.Name, MaxLen).
const MAX_NAME: usize = 256;

/// The clients' namespaces, by name in lower case.
#[derive(Default)]
pub(crate) struct Namespaces(RwLock<IndexMap<String, Arc<Space>>>);

impl Namespaces {
    /// Reads all records: the clients' namespaces, and `interop`'s instances.
    pub(crate) async fn open(keeper: &Keeper, interop: &Space) -> Result<Self, OpenError> {
        let mut kept: HashMap<String, Vec<Record>> = HashMap::new();
        let mut names = IndexMap::new();
        for record in keeper.records.list("cim/").await? {
            let mut parts = record.key.splitn(4, '/').skip(1);
            match (parts.next(), parts.next()) {
                (Some(space), Some("namespace")) => {
                    names.insert(space.to_owned(), record.text);
                }
                (Some(space), Some(_)) => {
                    kept.entry(space.to_owned()).or_default().push(record);
                }
                _ => return Err(unreadable(&record.key, "the key is none of ours")),
            }
        }
        for record in kept.remove(interop.name()).unwrap_or_default() {
            restore_instance(interop, &record)?;
        }
        let mut spaces = IndexMap::new();
        for (key, name) in names {
            let records = kept.remove(&key).unwrap_or_default();
            let space = restore(name, keeper, records)?;
            spaces.insert(space.name().to_lowercase(), Arc::new(space));
        }
        if let Some(record) = kept.into_values().flatten().next() {
            return Err(unreadable(&record.key, "there is no such namespace"));
        }
        Ok(Self(RwLock::new(spaces)))
    }

    /// The namespace of this name, in any case, with slashes and none at its ends.
    pub(crate) fn find(&self, name: &str) -> Option<Arc<Space>> {
        let spaces = self.0.read().unwrap_or_else(PoisonError::into_inner);
        spaces.get(&name.to_lowercase()).cloned()
    }

    /// All names.
    pub(crate) fn names(&self) -> Vec<String> {
        let spaces = self.0.read().unwrap_or_else(PoisonError::into_inner);
        spaces.values().map(|s| s.name().to_owned()).collect()
    }

    fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn insert(&self, space: Space) {
        let mut spaces = self.0.write().unwrap_or_else(PoisonError::into_inner);
        spaces.insert(space.name().to_lowercase(), Arc::new(space));
    }

    fn remove(&self, name: &str) {
        let mut spaces = self.0.write().unwrap_or_else(PoisonError::into_inner);
        spaces.shift_remove(&name.to_lowercase());
    }
}

fn unreadable(key: &str, reason: impl ToString) -> OpenError {
    OpenError::Record {
        key: key.to_owned(),
        reason: reason.to_string(),
    }
}

/// A namespace from its records, which come in the order of their keys.
fn restore(name: String, keeper: &Keeper, records: Vec<Record>) -> Result<Space, OpenError> {
    let (instances, schema): (Vec<_>, Vec<_>) = records
        .into_iter()
        .partition(|record| record.key.contains("/instance/"));
    let schema = schema::restore(schema).map_err(|(key, why)| unreadable(&key, why))?;
    let space = Space::new(name, keeper.clone(), schema, Instances::default());
    for record in instances {
        restore_instance(&space, &record)?;
    }
    Ok(space)
}

fn restore_instance(space: &Space, record: &Record) -> Result<(), OpenError> {
    let number = record.key.rsplit('/').next().unwrap_or_default();
    let number = u64::from_str_radix(number, 16)
        .map_err(|_| unreadable(&record.key, "the key has no number"))?;
    space
        .restore(number, &record.text)
        .map_err(|reason| unreadable(&record.key, reason))
}

/// A namespace's name as a client gives it, or why it is none.
fn checked(name: &str) -> Result<String, CimError> {
    let name = normal(name);
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
    };
    if name.len() <= MAX_NAME && name.split('/').all(part) {
        return Ok(name);
    }
    Err(CimError::invalid_parameter(format!(
        "{name:?} is no name of a namespace: names of letters, digits, '_', '-' and '.' with \
         slashes between them, each beginning with a letter or '_', {MAX_NAME} characters at most"
    )))
}

impl ObjectManager {
    /// Makes a namespace. Of what the client gives only the name counts; the other
    /// keys say which object manager has it, and that is this one.
    pub(crate) async fn create_namespace(
        &self,
        cx: &RequestContext,
        instance: Instance,
    ) -> Result<ObjectPath, CimError> {
        cx.principal.require(Role::Administrator)?;
        let name = instance.get("Name").and_then(|name| name.as_str());
        let name = checked(name.unwrap_or_default())?;
        // Its properties have to be those of the class, even if they do not count.
        self.interop.schema().complete(instance)?;
        let _writing = self.interop.write().await?;
        let same = |other: &String| normal(other).eq_ignore_ascii_case(&name);
        if isochron_cim::CimServer::namespaces(self).iter().any(same) {
            return Err(CimError::new(
                Status::AlreadyExists,
                format!("there is a namespace {name} already"),
            ));
        }
        let keeper = self.interop.keeper();
        if self.namespaces.len() >= keeper.limits.namespaces {
            return Err(full("namespaces of clients", keeper.limits.namespaces));
        }
        let shown = self.shown(&name).await?;
        let key = format!("{}namespace", prefix(&name));
        let text = name.clone();
        keeper
            .commit(vec![RecordWrite::Put(Record { key, text })])
            .await?;
        let space = Space::new(
            name,
            keeper.clone(),
            Repository::default(),
            Instances::default(),
        );
        self.namespaces.insert(space);
        let path = shown[0].path.clone().unwrap_or_default();
        for instance in shown {
            self.interop.show(instance);
        }
        Ok(path)
    }

    /// Deletes a namespace that is empty.
    pub(crate) async fn delete_namespace(
        &self,
        cx: &RequestContext,
        path: &ObjectPath,
    ) -> Result<(), CimError> {
        let own = self.interop.own_path(path)?;
        let _writing = self.interop.write().await?;
        let shown = self.interop.find(path)?.is_some()
            || self.provider.get_instance(cx, &own).await.is_ok();
        let space = own
            .key_str("Name")
            .and_then(|name| self.namespaces.find(name))
            .filter(|_| shown);
        let Some(space) = space else {
            return self.provider.delete_instance(cx, path).await;
        };
        cx.principal.require(Role::Administrator)?;
        let writing = space.write().await?;
        let (classes, qualifiers) = {
            let schema = space.schema();
            (schema.classes().count(), schema.qualifiers().len())
        };
        let instances = space.instances().len();
        if classes + qualifiers + instances > 0 {
            return Err(CimError::new(
                Status::NamespaceNotEmpty,
                format!(
                    "the namespace {} still has {classes} classes, {qualifiers} qualifier types \
                     and {instances} instances; delete them first",
                    space.name()
                ),
            ));
        }
        let key = format!("{}namespace", prefix(space.name()));
        space
            .keeper()
            .commit(vec![RecordWrite::Delete(key)])
            .await?;
        writing.close();
        self.namespaces.remove(space.name());
        for (association, _) in self.interop.links(&own, &AssociationFilter::default()) {
            if let Some(path) = &association.path {
                self.interop.hide(path);
            }
        }
        self.interop.hide(&own);
        Ok(())
    }

    /// Shows the namespaces that were read from records.
    pub(crate) async fn show_namespaces(&self) -> Result<(), CimError> {
        let ours = self.provider.namespaces();
        for name in self.namespaces.names() {
            match ours.iter().any(|o| normal(o).eq_ignore_ascii_case(&name)) {
                true => tracing::warn!(
                    %name,
                    "clients made this namespace before this server had one of its name; \
                     theirs is served until they delete it"
                ),
                false => self.show_namespace(&name).await?,
            }
        }
        Ok(())
    }

    /// Shows a namespace.
    pub(crate) async fn show_namespace(&self, name: &str) -> Result<(), CimError> {
        for instance in self.shown(name).await? {
            self.interop.show(instance);
        }
        Ok(())
    }

    /// What `interop` shows of a namespace: its `CIM_Namespace` and the association
    /// of that with the object manager, made after those of one of the provider's.
    async fn shown(&self, name: &str) -> Result<Vec<Instance>, CimError> {
        let cx = ourselves(self.interop.name());
        let model: Vec<Instance> = self
            .provider
            .enumerate_instances(&cx, &CLASS)
            .await?
            .try_collect()
            .await?;
        let Some(model) = model.into_iter().next() else {
            return Err(CimError::failed(
                "the provider names no namespace of its own",
            ));
        };
        let classes = "What clients write here";
        let mut namespace = model.clone();
        namespace.path = None;
        for (property, text) in [
            ("Name", name),
            ("ElementName", name),
            ("DescriptionOfClassInfo", classes),
            ("DescriptionOfClassType", classes),
        ] {
            if namespace.properties.contains_key(&Name::fixed(property)) {
                namespace.set(property, text);
            }
        }
        let namespace = self.interop.whole(namespace)?;
        let mut shown = vec![namespace];
        if self.interop.schema().get(&IN_MANAGER).is_none() {
            return Ok(shown);
        }
        let (Some(old), Some(new)) = (&model.path, shown[0].path.clone()) else {
            return Ok(shown);
        };
        let filter = AssociationFilter {
            association: Some(IN_MANAGER),
            ..AssociationFilter::default()
        };
        let links = self.provider.references(&cx, old, &filter).await?;
        for mut link in links.try_collect::<Vec<_>>().await? {
            let role = references(&link)
                .find(|(_, path)| path.relative() == old.relative())
                .map(|(role, _)| role.clone());
            if let Some(role) = role {
                link.set(role, new.clone());
                shown.push(self.interop.whole(link)?);
            }
        }
        Ok(shown)
    }
}
