//! Stored instances of one namespace in memory, found by path, by class and by
//! what they refer to, each by hash. Order is that of creation.
//!
//! Paths are kept without host and namespace; so are references to objects of the
//! same namespace where they are looked up. Nothing is checked here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use isochron_cim::{Instance, Name, ObjectPath};

/// The number of a stored instance: rises, is never used twice.
pub(crate) type Number = u64;

/// The instances.
#[derive(Debug, Default)]
pub(crate) struct Instances {
    next: Number,
    all: BTreeMap<Number, Arc<Instance>>,
    by_path: HashMap<ObjectPath, Number>,
    by_class: HashMap<Name, BTreeSet<Number>>,
    by_reference: HashMap<ObjectPath, BTreeSet<Number>>,
}

impl Instances {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// The number that the next new instance takes.
    pub(crate) fn next(&self) -> Number {
        self.next
    }

    /// The number of the instance of this path, which names no namespace.
    pub(crate) fn number(&self, path: &ObjectPath) -> Option<Number> {
        self.by_path.get(path).copied()
    }

    /// The instance of this path, which names no namespace.
    pub(crate) fn get(&self, path: &ObjectPath) -> Option<&Arc<Instance>> {
        self.all.get(self.by_path.get(path)?)
    }

    /// The instances of exactly this class.
    pub(crate) fn of_class(&self, class: &Name) -> impl Iterator<Item = &Arc<Instance>> {
        self.numbered(self.by_class.get(class))
    }

    /// The instances with a property that refers to this path; it names no
    /// namespace where that is the instances' own.
    pub(crate) fn referring(&self, path: &ObjectPath) -> impl Iterator<Item = &Arc<Instance>> {
        self.numbered(self.by_reference.get(path))
    }

    fn numbered<'a>(
        &'a self,
        numbers: Option<&'a BTreeSet<Number>>,
    ) -> impl Iterator<Item = &'a Arc<Instance>> {
        let numbers = numbers.into_iter().flatten();
        numbers.filter_map(|number| self.all.get(number))
    }

    /// Puts an instance in, under a number that is free or its own. Its path names
    /// its namespace.
    pub(crate) fn put(&mut self, number: Number, instance: Arc<Instance>) {
        self.remove(number);
        self.next = self.next.max(number + 1);
        let (path, references) = index(&instance);
        self.by_path.insert(path, number);
        let same = self.by_class.entry(instance.class.clone());
        same.or_default().insert(number);
        for reference in references {
            let same = self.by_reference.entry(reference);
            same.or_default().insert(number);
        }
        self.all.insert(number, instance);
    }

    /// Takes an instance out.
    pub(crate) fn remove(&mut self, number: Number) -> Option<Arc<Instance>> {
        let instance = self.all.remove(&number)?;
        let (path, references) = index(&instance);
        self.by_path.remove(&path);
        take(&mut self.by_class, &instance.class, number);
        for reference in references {
            take(&mut self.by_reference, &reference, number);
        }
        Some(instance)
    }
}

fn take<K: Eq + std::hash::Hash>(
    index: &mut HashMap<K, BTreeSet<Number>>,
    key: &K,
    number: Number,
) {
    if let Some(numbers) = index.get_mut(key) {
        numbers.remove(&number);
        if numbers.is_empty() {
            index.remove(key);
        }
    }
}

/// The instance's path without namespace, and what it refers to, each once.
fn index(instance: &Instance) -> (ObjectPath, Vec<ObjectPath>) {
    let path = instance.path.as_ref();
    let namespace = path.and_then(|path| path.namespace.as_deref());
    let mut references: Vec<_> = instance
        .properties
        .values()
        .filter_map(|property| property.value.value.as_ref()?.as_reference())
        .map(|reference| in_space(reference, namespace.unwrap_or_default()))
        .collect();
    references.dedup();
    (
        path.map(ObjectPath::relative).unwrap_or_default(),
        references,
    )
}

/// The path as it is looked up in a namespace: without the namespace if it is this
/// one, and without host.
pub(crate) fn in_space(path: &ObjectPath, namespace: &str) -> ObjectPath {
    let own = ObjectPath::class("").in_namespace(namespace);
    let other = path
        .namespace
        .as_ref()
        .map(|other| ObjectPath::class("").in_namespace(other.clone()))
        .filter(|other| *other != own)
        .and_then(|other| other.namespace);
    ObjectPath {
        namespace: other,
        ..path.relative()
    }
}
