//! One namespace as it is kept: its classes and qualifier types, and the instances
//! that clients made in it.
//!
//! Writers come one after the other: what a writer has checked stays true until it
//! is done. A write is on stable storage before anybody sees it. Readers never wait
//! for a writer's storage. The space of `interop` holds a copy of the provider's
//! classes, which nobody writes, and the instances that the provider does not have.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use isochron_cim::{
    AssociationFilter, Change, ChangeKind, CimError, Indication, Instance, Name, ObjectPath,
    Property, Repository, Status,
};
use tokio::sync::{Mutex, MutexGuard, broadcast};

use crate::instances::{Instances, Number, in_space};
use crate::limits::Limits;
use crate::record;
use crate::records::{Record, RecordWrite, Records};

/// What all spaces share: where things are kept, how much, and who is told.
#[derive(Clone)]
pub(crate) struct Keeper {
    pub(crate) records: Arc<dyn Records>,
    pub(crate) limits: Limits,
    pub(crate) changes: broadcast::Sender<Change>,
    pub(crate) indications: broadcast::Sender<Indication>,
}

impl Keeper {
    pub(crate) async fn commit(&self, writes: Vec<RecordWrite>) -> Result<(), CimError> {
        let refused = |error| CimError::failed(format!("nothing was changed: {error}"));
        self.records.commit(writes).await.map_err(refused)
    }
}

/// The namespace.
pub(crate) struct Space {
    /// Its name, with slashes, as paths give it.
    name: String,
    keeper: Keeper,
    schema: RwLock<Repository>,
    instances: RwLock<Instances>,
    /// Held by the one who writes; false when the namespace is deleted.
    writing: Mutex<bool>,
}

/// Permission to write, given to one at a time.
pub(crate) struct Writing<'a>(MutexGuard<'a, bool>);

impl Writing<'_> {
    /// Nobody writes here any more.
    pub(crate) fn close(mut self) {
        *self.0 = false;
    }
}

/// What the keys of a namespace's records begin with.
pub(crate) fn prefix(namespace: &str) -> String {
    format!("cim/{}/", namespace.to_lowercase().replace('/', ":"))
}

impl Space {
    pub(crate) fn new(
        name: impl Into<String>,
        keeper: Keeper,
        schema: Repository,
        instances: Instances,
    ) -> Self {
        Self {
            name: name.into(),
            keeper,
            schema: RwLock::new(schema),
            instances: RwLock::new(instances),
            writing: Mutex::new(true),
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// Its classes. Not held while something is waited for.
    pub(crate) fn schema(&self) -> RwLockReadGuard<'_, Repository> {
        self.schema.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn schema_mut(&self) -> RwLockWriteGuard<'_, Repository> {
        self.schema.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its stored instances. Not held while something is waited for.
    pub(crate) fn instances(&self) -> RwLockReadGuard<'_, Instances> {
        self.instances
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn instances_mut(&self) -> RwLockWriteGuard<'_, Instances> {
        self.instances
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is our turn to write. `INVALID_NAMESPACE` if the namespace
    /// was deleted meanwhile.
    pub(crate) async fn write(&self) -> Result<Writing<'_>, CimError> {
        let writing = Writing(self.writing.lock().await);
        if *writing.0 {
            return Ok(writing);
        }
        Err(CimError::new(
            Status::InvalidNamespace,
            format!("the namespace {} was deleted", self.name),
        ))
    }

    /// `INVALID_CLASS` unless the class is here.
    pub(crate) fn check_class(&self, class: &Name) -> Result<(), CimError> {
        if self.schema().get(class).is_some() {
            return Ok(());
        }
        Err(CimError::new(
            Status::InvalidClass,
            format!("there is no class {class} in the namespace {}", self.name),
        ))
    }

    /// The path as this space's instances are found by: keys complete and of their
    /// types, without namespace.
    pub(crate) fn own_path(&self, path: &ObjectPath) -> Result<ObjectPath, CimError> {
        self.check_class(&path.class)?;
        self.schema().complete_path(path.relative())
    }

    /// The stored instance of this path; `None` if there is none.
    ///
    /// # Errors
    /// `INVALID_CLASS`; `INVALID_PARAMETER` where the keys are not the class's.
    pub(crate) fn find(&self, path: &ObjectPath) -> Result<Option<Arc<Instance>>, CimError> {
        let path = self.own_path(path)?;
        Ok(self.instances().get(&path).cloned())
    }

    /// The stored instances of a class and its subclasses.
    pub(crate) fn enumerate(&self, class: &Name) -> Result<Vec<Arc<Instance>>, CimError> {
        self.check_class(class)?;
        let schema = self.schema();
        let instances = self.instances();
        let below = schema.subclasses(class, true);
        let classes = std::iter::once(class).chain(below);
        Ok(classes
            .flat_map(|class| instances.of_class(class))
            .cloned()
            .collect())
    }

    /// Classes that a filter names have to exist (DSP0200 §5.4.2.9).
    pub(crate) fn check_filter(&self, filter: &AssociationFilter) -> Result<(), CimError> {
        for class in [&filter.association, &filter.result_class]
            .into_iter()
            .flatten()
        {
            self.check_class(class)
                .map_err(|error| CimError::invalid_parameter(error.message))?;
        }
        Ok(())
    }

    /// The stored associations that refer to an object and fit the filter, each
    /// with the paths at its far ends that do. The object need not be stored here.
    pub(crate) fn links(
        &self,
        source: &ObjectPath,
        filter: &AssociationFilter,
    ) -> Vec<(Arc<Instance>, Vec<ObjectPath>)> {
        let schema = self.schema();
        let source = in_space(source, &self.name);
        let is_class = |class: &Name, wanted: &Option<Name>| {
            wanted.as_ref().is_none_or(|w| schema.is_a(class, w))
        };
        let is_role =
            |role: &Name, wanted: &Option<Name>| wanted.as_ref().is_none_or(|w| w == role);
        let mut links = Vec::new();
        for instance in self.instances().referring(&source) {
            let association = schema
                .get(&instance.class)
                .is_some_and(isochron_cim::Class::is_association);
            if !association || !is_class(&instance.class, &filter.association) {
                continue;
            }
            let ends: Vec<_> = references(instance).collect();
            let near = |(role, path): &(&Name, &ObjectPath)| {
                in_space(path, &self.name) == source && is_role(role, &filter.role)
            };
            let mut far = Vec::new();
            for at in (0..ends.len()).filter(|at| near(&ends[*at])) {
                for (other, (role, path)) in ends.iter().enumerate() {
                    if other != at
                        && is_role(role, &filter.result_role)
                        && is_class(&path.class, &filter.result_class)
                        && !far.contains(*path)
                    {
                        far.push((*path).clone());
                    }
                }
            }
            if ends.iter().any(near) {
                links.push((instance.clone(), far));
            }
        }
        links
    }

    /// Creates an instance of a class of this space: properties not given take the
    /// class's defaults, keys make the path. Returns the path, with the namespace.
    ///
    /// # Errors
    /// `INVALID_CLASS` where the class is not here or abstract, `NO_SUCH_PROPERTY`,
    /// `TYPE_MISMATCH`, `INVALID_PARAMETER` where a key is missing,
    /// `ALREADY_EXISTS`, `SERVER_LIMITS_EXCEEDED`.
    pub(crate) async fn create(&self, instance: Instance) -> Result<ObjectPath, CimError> {
        let writing = self.write().await?;
        self.create_as(&writing, instance).await
    }

    /// [`Space::create`] by who has the permission already.
    pub(crate) async fn create_as(
        &self,
        _writing: &Writing<'_>,
        instance: Instance,
    ) -> Result<ObjectPath, CimError> {
        let instance = self.whole(instance)?;
        let path = instance.path.clone().unwrap_or_default();
        let number = {
            let instances = self.instances();
            if instances.get(&path.relative()).is_some() {
                return Err(CimError::new(
                    Status::AlreadyExists,
                    format!("there is an instance {} already", path.relative()),
                ));
            }
            if instances.len() >= self.keeper.limits.instances {
                return Err(full(
                    "instances in one namespace",
                    self.keeper.limits.instances,
                ));
            }
            instances.next()
        };
        self.store(number, instance, None).await?;
        Ok(path)
    }

    /// The instance as it is stored, with its path.
    pub(crate) fn whole(&self, mut instance: Instance) -> Result<Instance, CimError> {
        self.check_class(&instance.class)?;
        let schema = self.schema();
        let class = schema.class(&instance.class)?;
        if class.flag("Abstract") {
            return Err(CimError::new(
                Status::InvalidClass,
                format!("{} is abstract and has no instances", class.name),
            ));
        }
        for (name, declared) in &class.properties {
            if declared.value.value.is_some() && !instance.properties.contains_key(name) {
                let property = Property {
                    value: declared.value.clone(),
                    embedded: None,
                    class_origin: None,
                };
                instance.properties.insert(name.clone(), property);
            }
        }
        instance.path = None;
        let mut instance = schema.complete(instance)?;
        if schema.key_names(&instance.class).is_empty() {
            return Err(CimError::invalid_parameter(format!(
                "{} has no keys, so that its instances cannot be told apart",
                instance.class
            )));
        }
        let path = schema.path_of(&instance)?;
        instance.path = Some(path.in_namespace(&self.name));
        Ok(instance)
    }

    /// Changes the properties that `changes` has.
    ///
    /// # Errors
    /// `NOT_FOUND`, `NO_SUCH_PROPERTY`, `TYPE_MISMATCH`; `NOT_SUPPORTED` where a
    /// key would change.
    pub(crate) async fn modify(
        &self,
        path: &ObjectPath,
        changes: Instance,
    ) -> Result<(), CimError> {
        let writing = self.write().await?;
        let (_, new) = self.changed(path, changes)?;
        self.replace_as(&writing, path, new).await.map(drop)
    }

    /// An instance as it is, and as it would be with these changes.
    ///
    /// # Errors
    /// As [`Space::modify`].
    pub(crate) fn changed(
        &self,
        path: &ObjectPath,
        changes: Instance,
    ) -> Result<(Arc<Instance>, Instance), CimError> {
        let path = self.own_path(path)?;
        let (_, old) = self.stored(&path)?;
        let mut new = Instance::clone(&old);
        for (name, property) in changes.properties {
            if !new.properties.contains_key(&name) {
                return Err(CimError::new(
                    Status::NoSuchProperty,
                    format!("{} has no property {name}", new.class),
                ));
            }
            new.properties.insert(name, property);
        }
        let new = self.schema().complete(new)?;
        let same = self.schema().path_of(&new).is_ok_and(|new| new == path);
        if !same {
            return Err(CimError::not_supported(format!(
                "the keys of {path} cannot be changed; create a new instance"
            )));
        }
        Ok((old, new))
    }

    /// Puts an instance that is [`Space::changed`] in the place of what it was, by
    /// who has the permission to write. Returns it.
    pub(crate) async fn replace_as(
        &self,
        _writing: &Writing<'_>,
        path: &ObjectPath,
        new: Instance,
    ) -> Result<Arc<Instance>, CimError> {
        let (number, old) = self.stored(&self.own_path(path)?)?;
        match new == *old {
            true => Ok(old),
            false => self.store(number, new, Some(&old)).await,
        }
    }

    /// Deletes an instance and returns it. `NOT_FOUND` if there is none.
    pub(crate) async fn delete(&self, path: &ObjectPath) -> Result<Arc<Instance>, CimError> {
        let writing = self.write().await?;
        self.delete_as(&writing, path).await
    }

    /// [`Space::delete`] by who has the permission already.
    pub(crate) async fn delete_as(
        &self,
        _writing: &Writing<'_>,
        path: &ObjectPath,
    ) -> Result<Arc<Instance>, CimError> {
        let path = self.own_path(path)?;
        let (number, old) = self.stored(&path)?;
        let write = RecordWrite::Delete(self.key(number));
        self.keeper.commit(vec![write]).await?;
        self.instances_mut().remove(number);
        self.tell(ChangeKind::Deleted, &old, None);
        Ok(old)
    }

    /// Shows an instance that is [`Space::whole`] and not kept; whoever shows it has
    /// the permission to write.
    pub(crate) fn show(&self, instance: Instance) {
        let instance = Arc::new(instance);
        let number = self.instances().next();
        self.instances_mut().put(number, instance.clone());
        self.tell(ChangeKind::Created, &instance, None);
    }

    /// Hides what was shown.
    pub(crate) fn hide(&self, path: &ObjectPath) {
        let number = self.instances().number(&path.relative());
        let hidden = number.and_then(|number| self.instances_mut().remove(number));
        if let Some(instance) = hidden {
            self.tell(ChangeKind::Deleted, &instance, None);
        }
    }

    fn stored(&self, path: &ObjectPath) -> Result<(Number, Arc<Instance>), CimError> {
        let instances = self.instances();
        let found = instances.number(path).zip(instances.get(path).cloned());
        found.ok_or_else(|| CimError::not_found(format!("there is no {path}")))
    }

    fn key(&self, number: Number) -> String {
        format!("{}instance/{number:016x}", prefix(&self.name))
    }

    /// Keeps an instance, then shows it.
    async fn store(
        &self,
        number: Number,
        instance: Instance,
        old: Option<&Arc<Instance>>,
    ) -> Result<Arc<Instance>, CimError> {
        let text = record::write(&instance)
            .map_err(|what| CimError::invalid_parameter(format!("{what} cannot be stored")))?;
        if text.len() > self.keeper.limits.record {
            return Err(full("bytes of an instance", self.keeper.limits.record));
        }
        let key = self.key(number);
        self.keeper
            .commit(vec![RecordWrite::Put(Record { key, text })])
            .await?;
        let instance = Arc::new(instance);
        self.instances_mut().put(number, instance.clone());
        match old {
            None => self.tell(ChangeKind::Created, &instance, None),
            Some(old) => self.tell(ChangeKind::Modified, &instance, Some(old)),
        }
        Ok(instance)
    }

    fn tell(&self, kind: ChangeKind, instance: &Instance, previous: Option<&Arc<Instance>>) {
        // Nobody listens: nobody is to be told.
        let _ = self.keeper.changes.send(Change {
            namespace: self.name.clone(),
            kind,
            instance: instance.clone(),
            previous: previous.map(|previous| Instance::clone(previous)),
        });
    }

    /// Takes an instance's record in, at the start.
    pub(crate) fn restore(&self, number: Number, text: &str) -> Result<(), String> {
        let instance = record::read(text)?;
        let instance = self.whole(instance).map_err(|error| error.message)?;
        self.instances_mut().put(number, Arc::new(instance));
        Ok(())
    }
}

/// The references of an instance that are not null: role and path.
pub(crate) fn references(instance: &Instance) -> impl Iterator<Item = (&Name, &ObjectPath)> {
    instance
        .properties
        .iter()
        .filter_map(|(name, p)| Some((name, p.value.value.as_ref()?.as_reference()?)))
}

/// The error of a limit that is reached.
pub(crate) fn full(what: &str, limit: usize) -> CimError {
    CimError::new(
        Status::ServerLimitsExceeded,
        format!("no more than {limit} {what} are kept here"),
    )
}
