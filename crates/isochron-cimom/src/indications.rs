//! Indications (DSP1054): listeners are told of what changes, as clients subscribed.
//!
//! ```text
//!   changes of all namespaces
//!     -> every filter that somebody subscribed to      (filter)
//!     -> the queue of every destination subscribed     (queue)
//!     -> its listener, by a task of its own            (listener: a port)
//! ```
//!
//! Filters, destinations and subscriptions are stored instances of `interop`, which
//! clients write under the rules of `rules`; the [`Table`] here is what follows from
//! them, brought up to date by every write while the writer holds the permission to.
//! Changes are read only while there are subscriptions. Whoever makes a change waits
//! for nobody here: matching happens in one task, delivery in others.

mod filter;
mod listener;
mod queue;
mod rules;
mod service;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use futures::future::FutureExt;
use futures::stream::StreamExt;
use isochron_cim::{
    AssociationFilter, Change, CimError, CimServer, EventStream, Indication, Instance, Name,
    ObjectPath, Repository, Value,
};
use tokio::task::AbortHandle;

use crate::manager::{self, INTEROP, schema_of};
use crate::namespaces::Namespaces;
use crate::places::normal;
use crate::space::Space;

use filter::Filter;
use queue::{Queue, Verdict, deliver};

pub use listener::{Listener, Listeners};
pub use queue::Delivery;

/// The classes of which clients make instances.
pub(crate) const FILTER: Name = Name::fixed("CIM_IndicationFilter");
pub(crate) const DESTINATION: Name = Name::fixed("CIM_ListenerDestination");
pub(crate) const SUBSCRIPTION: Name = Name::fixed("CIM_IndicationSubscription");

/// How indications are delivered, and by what.
#[derive(Clone)]
pub struct IndicationOptions {
    /// Reaches listeners.
    pub listeners: Arc<dyn Listeners>,
    /// How often, and for how long, what is not taken is sent again.
    pub delivery: Delivery,
}

/// A namespace as it is looked up here: in lower case, `interop` by this name.
pub(crate) fn namespace_key(namespace: &str) -> String {
    let name = normal(namespace).to_lowercase();
    match INTEROP.contains(&&*name) {
        true => INTEROP[0].to_owned(),
        false => name,
    }
}

/// Who derives from whom in a namespace.
pub(crate) enum Tree {
    /// One whose classes nobody writes.
    Fixed(Arc<Repository>),
    /// One of clients.
    Space(Arc<Space>),
}

impl Tree {
    pub(crate) fn is_a(&self, class: &Name, ancestor: &Name) -> bool {
        match self {
            _ if class == ancestor => true,
            Self::Fixed(schema) => schema.is_a(class, ancestor),
            Self::Space(space) => space.schema().is_a(class, ancestor),
        }
    }
}

/// Tells listeners of what changes.
pub(crate) struct Indications {
    provider: Arc<dyn CimServer>,
    interop: Arc<Space>,
    namespaces: Arc<Namespaces>,
    options: IndicationOptions,
    /// The system of this server: the keys SystemCreationClassName and SystemName.
    system: [String; 2],
    /// The classes of the provider's namespaces, as they were asked for.
    provided: RwLock<HashMap<String, Arc<Repository>>>,
    table: Mutex<Table>,
    this: Weak<Self>,
}

/// What the stored instances amount to.
#[derive(Default)]
struct Table {
    filters: HashMap<ObjectPath, Watch>,
    destinations: HashMap<ObjectPath, Destination>,
    /// Reads changes, while there is a subscription.
    reader: Option<Task>,
}

/// A filter and the destinations of those who subscribed to it, by subscription.
struct Watch {
    filter: Filter,
    subscribed: HashMap<ObjectPath, ObjectPath>,
}

/// A destination. Its task ends with it.
struct Destination {
    url: String,
    queue: Arc<Queue>,
    _task: Option<Task>,
}

/// A task that ends when this is dropped.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Indications {
    /// What tells of changes in the provider's and the clients' namespaces, with the
    /// filters, destinations and subscriptions that `interop` has.
    pub(crate) async fn open(
        provider: Arc<dyn CimServer>,
        interop: Arc<Space>,
        namespaces: Arc<Namespaces>,
        options: IndicationOptions,
    ) -> Result<Arc<Self>, CimError> {
        let system = service::system(&*provider).await?;
        let this = Arc::new_cyclic(|this| Self {
            provider,
            interop,
            namespaces,
            options,
            system,
            provided: RwLock::default(),
            table: Mutex::default(),
            this: this.clone(),
        });
        this.show_service().await?;
        for filter in this.interop.enumerate(&FILTER)? {
            let taken = match Filter::read(&filter) {
                Ok(read) => this.add_filter(&filter, read).await,
                Err(error) => Err(error),
            };
            unusable(&filter, taken);
            this.show_affected(&path_of(&filter).in_namespace(INTEROP[0]))?;
        }
        for destination in this.interop.enumerate(&DESTINATION)? {
            unusable(&destination, this.add_destination(&destination));
            this.show_affected(&path_of(&destination).in_namespace(INTEROP[0]))?;
        }
        for subscription in this.interop.enumerate(&SUBSCRIPTION)? {
            this.set_subscription(&subscription);
        }
        Ok(this)
    }

    /// Not held while something is waited for.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a filter in, new or changed.
    async fn add_filter(&self, instance: &Instance, filter: Filter) -> Result<(), CimError> {
        for namespace in filter.namespaces() {
            self.learn(namespace).await?;
        }
        let path = path_of(instance);
        let mut table = self.table();
        match table.filters.get_mut(&path) {
            Some(watch) => watch.filter = filter,
            None => {
                let subscribed = HashMap::new();
                table.filters.insert(path, Watch { filter, subscribed });
            }
        }
        Ok(())
    }

    /// Takes a destination in, new or changed. One that is sent elsewhere begins
    /// anew: what waited is not sent, and its sequence is another.
    fn add_destination(&self, instance: &Instance) -> Result<(), CimError> {
        let path = path_of(instance);
        let url = text(instance, "Destination").to_owned();
        let mut table = self.table();
        if table.destinations.get(&path).is_some_and(|d| d.url == url) {
            return Ok(());
        }
        let name = format!("{} ({url})", text(instance, "Name"));
        let queue = Arc::new(Queue::new(self.interop.keeper().limits.queue));
        let listener = self.options.listeners.at(&url);
        let (task, result) = match listener {
            Ok(listener) => {
                let (this, about) = (self.this.clone(), path.clone());
                let failing = move |since| {
                    let (this, about) = (this.clone(), about.clone());
                    async move {
                        match this.upgrade() {
                            Some(this) => this.failing(&about, since).await,
                            None => Verdict::Gone,
                        }
                    }
                    .boxed()
                };
                let delivery = self.options.delivery;
                let task = deliver(name, queue.clone(), listener, delivery, Box::new(failing));
                let task = Task(tokio::spawn(task).abort_handle());
                (Some(task), Ok(()))
            }
            Err(why) => (None, Err(CimError::invalid_parameter(why))),
        };
        let destination = Destination {
            url,
            queue,
            _task: task,
        };
        table.destinations.insert(path, destination);
        result
    }

    /// Takes a subscription in, new or changed.
    fn set_subscription(&self, instance: &Instance) {
        let path = path_of(instance);
        // 4: disabled.
        let enabled = instance
            .get("SubscriptionState")
            .and_then(Value::as_integer)
            != Some(4);
        let (Some(filter), Some(handler)) = (end(instance, "Filter"), end(instance, "Handler"))
        else {
            return;
        };
        let mut table = self.table();
        if let Some(watch) = table.filters.get_mut(&filter) {
            match enabled {
                true => watch.subscribed.insert(path, handler),
                false => watch.subscribed.remove(&path),
            };
        }
        self.read_if_needed(&mut table);
    }

    /// Forgets what was deleted, whichever it is.
    fn forget(&self, path: &ObjectPath) {
        let mut table = self.table();
        table.filters.remove(path);
        table.destinations.remove(path);
        for watch in table.filters.values_mut() {
            watch.subscribed.remove(path);
        }
        self.read_if_needed(&mut table);
    }

    /// Begins to read changes with the first subscription, ends with the last.
    fn read_if_needed(&self, table: &mut Table) {
        let needed = table.filters.values().any(|w| !w.subscribed.is_empty());
        if !needed {
            table.reader = None;
        } else if table.reader.is_none() {
            // Subscribed to here and not in the task: what changes from now on is told.
            let keeper = self.interop.keeper();
            let mut changes = manager::changes(&*self.provider, keeper);
            let mut others = manager::indications(&*self.provider, keeper);
            let this = self.this.clone();
            let read = async move {
                loop {
                    tokio::select! {
                        Some(change) = changes.next() => match this.upgrade() {
                            Some(this) => this.tell_change(&change),
                            None => return,
                        },
                        Some(indication) = others.next() => match this.upgrade() {
                            Some(this) => this.tell(&indication),
                            None => return,
                        },
                        else => return,
                    }
                }
            };
            table.reader = Some(Task(tokio::spawn(read).abort_handle()));
        }
    }

    fn tell_change(&self, change: &Change) {
        let host = &self.system[1];
        self.dispatch(&change.namespace, |filter, tree| {
            filter.of_change(change, host, tree)
        });
    }

    fn tell(&self, indication: &Indication) {
        self.dispatch(&indication.namespace, |filter, tree| {
            filter.of_indication(indication, tree)
        });
    }

    /// What a query selects of what happens in a namespace from now on, for a reader of
    /// its own: no filter is stored for it, and nothing of it survives the reader.
    pub(crate) async fn events(
        &self,
        namespace: &str,
        language: &str,
        query: &str,
    ) -> Result<EventStream, CimError> {
        let mut described = Instance::new(FILTER);
        described
            .set("QueryLanguage", language)
            .set("Query", query)
            .set("SourceNamespaces", vec![namespace]);
        let filter = Arc::new(self.check_filter(&described).await?);
        let keeper = self.interop.keeper();
        let changed = manager::changes(&*self.provider, keeper);
        let told = manager::indications(&*self.provider, keeper);
        let (of_changes, of_others) = (
            (self.this.clone(), filter.clone()),
            (self.this.clone(), filter),
        );
        let changed = changed.filter_map(move |change| {
            let (this, filter) = &of_changes;
            let event = this.upgrade().and_then(|this| {
                this.through(filter, &change.namespace, |tree| {
                    filter.of_change(&change, &this.system[1], tree)
                })
            });
            std::future::ready(event)
        });
        let told = told.filter_map(move |indication| {
            let (this, filter) = &of_others;
            let event = this.upgrade().and_then(|this| {
                this.through(filter, &indication.namespace, |tree| {
                    filter.of_indication(&indication, tree)
                })
            });
            std::future::ready(event)
        });
        Ok(futures::stream::select(changed, told).boxed())
    }

    /// What a filter makes of something in a namespace, if it is one of the filter's.
    fn through(
        &self,
        filter: &Filter,
        namespace: &str,
        of: impl FnOnce(&Tree) -> Option<Instance>,
    ) -> Option<Instance> {
        let namespace = namespace_key(namespace);
        match filter.namespaces().contains(&namespace) {
            true => of(&self.tree(&namespace)?),
            false => None,
        }
    }

    /// Puts what a filter lets through into the queues of those who subscribed.
    fn dispatch(&self, namespace: &str, through: impl Fn(&Filter, &Tree) -> Option<Instance>) {
        let namespace = namespace_key(namespace);
        let Some(tree) = self.tree(&namespace) else {
            return;
        };
        let table = self.table();
        for watch in table.filters.values() {
            if watch.subscribed.is_empty() || !watch.filter.namespaces().contains(&namespace) {
                continue;
            }
            let Some(indication) = through(&watch.filter, &tree).map(Arc::new) else {
                continue;
            };
            for destination in watch.subscribed.values() {
                if let Some(destination) = table.destinations.get(destination)
                    && destination.queue.push(indication.clone())
                {
                    let (destination, limit) = (&destination.url, destination.queue.limit());
                    tracing::warn!(
                        destination,
                        limit,
                        "its queue is full: the oldest are dropped"
                    );
                }
            }
        }
    }

    fn tree(&self, namespace: &str) -> Option<Tree> {
        if let Some(space) = self.namespaces.find(namespace) {
            return Some(Tree::Space(space));
        }
        let provided = self.provided.read().unwrap_or_else(PoisonError::into_inner);
        provided.get(namespace).cloned().map(Tree::Fixed)
    }

    /// Gets the classes of a provider's namespace, if it is one.
    async fn learn(&self, namespace: &str) -> Result<(), CimError> {
        if self.tree(namespace).is_some() {
            return Ok(());
        }
        let has = |known: &String| namespace_key(known) == namespace;
        if !self.provider.namespaces().iter().any(has) {
            return Ok(());
        }
        let schema = schema_of(&*self.provider, namespace).await;
        let schema = schema.map_err(CimError::failed)?;
        let mut provided = self
            .provided
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        provided.insert(namespace.to_owned(), Arc::new(schema));
        Ok(())
    }

    /// What becomes of a destination, and of its subscriptions, that has been failing
    /// for so long: a transient one is deleted with them in the end, and before
    /// that each subscription's OnFatalErrorPolicy holds.
    async fn failing(&self, destination: &ObjectPath, since: Duration) -> Verdict {
        let removal = self.options.delivery.removal_interval;
        let Ok(Some(found)) = self.interop.find(destination) else {
            return Verdict::Gone;
        };
        // 3: transient.
        let persistence = found.get("PersistenceType").and_then(Value::as_integer);
        let gone = persistence == Some(3) && since >= removal;
        for (subscription, _) in self.interop.links(destination, &subscriptions()) {
            let number = |name: &str| subscription.get(name).and_then(Value::as_u64);
            let trigger = number("FailureTriggerTimeInterval").map(Duration::from_secs);
            let fatal = since >= trigger.unwrap_or(removal);
            let done = match number("OnFatalErrorPolicy") {
                _ if gone => self.remove(&path_of(&subscription)).await,
                Some(3) if fatal => self.disable(&subscription).await,
                Some(4) if fatal => self.remove(&path_of(&subscription)).await,
                _ => Ok(()),
            };
            if let Err(error) = done {
                tracing::warn!(%error, "the subscription of a failing destination is kept");
            }
        }
        if !gone {
            return Verdict::Kept;
        }
        match self.remove(destination).await {
            Ok(()) => Verdict::Gone,
            Err(error) => {
                tracing::warn!(%error, "a failing destination is kept");
                Verdict::Kept
            }
        }
    }
}

/// Only subscriptions.
fn subscriptions() -> AssociationFilter {
    AssociationFilter {
        association: Some(SUBSCRIPTION),
        ..AssociationFilter::default()
    }
}

/// Says of what was kept that it cannot be used any more; it stays.
fn unusable(instance: &Instance, taken: Result<(), CimError>) {
    if let Err(error) = taken {
        let path = path_of(instance);
        tracing::warn!(%path, %error, "not used for indications");
    }
}

/// The path by which things are found here: without host and namespace.
fn path_of(instance: &Instance) -> ObjectPath {
    let path = instance.path.as_ref();
    path.map(ObjectPath::relative).unwrap_or_default()
}

/// The path at one end of a subscription, as [`path_of`] has it.
fn end(subscription: &Instance, role: &str) -> Option<ObjectPath> {
    let path = subscription.get(role).and_then(Value::as_reference);
    path.map(ObjectPath::relative)
}

fn text<'a>(instance: &'a Instance, name: &str) -> &'a str {
    let value = instance.get(name).and_then(Value::as_str);
    value.unwrap_or_default()
}
