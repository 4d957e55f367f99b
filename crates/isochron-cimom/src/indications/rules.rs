//! What clients may write of filters, destinations and subscriptions (DSP1054,
//! "Methods"; DSP0200, CreateInstance, ModifyInstance, DeleteInstance).
//!
//! Writing takes the role administrator: a destination makes this server speak to
//! whoever it names. Keys that a client leaves out are filled in. What is asked for
//! and not done here (a subscription that ends by itself, repetitions that are
//! suppressed) is `NOT_SUPPORTED`, never silently something else.

use std::time::SystemTime;

use isochron_cim::{
    CimError, DateTime, Instance, Name, ObjectPath, RequestContext, Role, Status, Value,
};

use super::filter::Filter;
use super::{DESTINATION, FILTER, Indications, SUBSCRIPTION, end, path_of, text};
use crate::space::{Writing, full};

/// What clients may change later, by class.
const FILTER_WRITABLE: &[&str] = &[
    "Caption",
    "Description",
    "ElementName",
    "Query",
    "QueryLanguage",
    "SourceNamespace",
    "SourceNamespaces",
];
const DESTINATION_WRITABLE: &[&str] = &[
    "Caption",
    "Description",
    "ElementName",
    "Destination",
    "OtherPersistenceType",
    "PersistenceType",
];
const SUBSCRIPTION_WRITABLE: &[&str] = &[
    "FailureTriggerTimeInterval",
    "OnFatalErrorPolicy",
    "SubscriptionState",
];

/// Which of the three an instance is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Filter,
    Destination,
    Subscription,
}

impl Indications {
    fn kind(&self, class: &Name) -> Option<Kind> {
        let schema = self.interop.schema();
        [
            (FILTER, Kind::Filter),
            (DESTINATION, Kind::Destination),
            (SUBSCRIPTION, Kind::Subscription),
        ]
        .into_iter()
        .find(|(top, _)| schema.is_a(class, top))
        .map(|(_, kind)| kind)
    }

    /// Whether instances of this class are written here.
    pub(crate) fn writes(&self, class: &Name) -> bool {
        self.kind(class).is_some()
    }

    /// The path as it is found here: references in its keys name their namespace,
    /// `interop`, and no host, however the client wrote them.
    pub(crate) fn canonical(&self, path: &ObjectPath) -> ObjectPath {
        let mut path = path.clone();
        if self.kind(&path.class) == Some(Kind::Subscription) {
            for value in path.keys.values_mut() {
                let reference = match value {
                    Value::Reference(reference) => Some((**reference).clone()),
                    Value::String(text) => text.parse().ok(),
                    _ => None,
                };
                if let Some(reference) = reference {
                    *value = self.reference(&reference).into();
                }
            }
        }
        path
    }

    /// A reference to something of `interop` as it is stored.
    fn reference(&self, path: &ObjectPath) -> ObjectPath {
        let own = self.interop.own_path(path);
        let own = own.unwrap_or_else(|_| path.relative());
        own.in_namespace(self.interop.name())
    }

    /// Creates a filter, a destination or a subscription.
    ///
    /// # Errors
    /// `ACCESS_DENIED`; those of [`Space::create`](crate::space::Space::create);
    /// `INVALID_PARAMETER` where something that is needed is missing, no address or
    /// not there; `INVALID_QUERY` and `QUERY_LANGUAGE_NOT_SUPPORTED` for a filter's
    /// query; `NOT_SUPPORTED`; `SERVER_LIMITS_EXCEEDED`.
    pub(crate) async fn create(
        &self,
        cx: &RequestContext,
        instance: Instance,
    ) -> Result<ObjectPath, CimError> {
        cx.principal.require(Role::Administrator)?;
        let writing = self.interop.write().await?;
        let instance = self.interop.schema().complete(instance)?;
        match self.kind(&instance.class) {
            Some(Kind::Filter) => self.create_filter(&writing, instance).await,
            Some(Kind::Destination) => self.create_destination(&writing, instance).await,
            _ => self.create_subscription(&writing, instance).await,
        }
    }

    async fn create_filter(
        &self,
        writing: &Writing<'_>,
        mut filter: Instance,
    ) -> Result<ObjectPath, CimError> {
        self.fill_keys(&mut filter)?;
        filter.set("IndividualSubscriptionSupported", true);
        let read = self.check_filter(&filter).await?;
        self.check_room(&FILTER, self.interop.keeper().limits.filters)?;
        let path = self.interop.create_as(writing, filter.clone()).await?;
        filter.path = Some(path.clone());
        self.add_filter(&filter, read).await?;
        self.show_affected(&path)?;
        Ok(path)
    }

    async fn create_destination(
        &self,
        writing: &Writing<'_>,
        mut destination: Instance,
    ) -> Result<ObjectPath, CimError> {
        self.fill_keys(&mut destination)?;
        if destination.get("PersistenceType").is_none() {
            destination.set("PersistenceType", 2_u16);
        }
        if destination.get("Protocol").is_none() {
            destination.set("Protocol", 2_u16);
        }
        self.check_destination(&destination)?;
        self.check_room(&DESTINATION, self.interop.keeper().limits.destinations)?;
        let path = self.interop.create_as(writing, destination.clone()).await?;
        destination.path = Some(path.clone());
        self.add_destination(&destination)?;
        self.show_affected(&path)?;
        Ok(path)
    }

    async fn create_subscription(
        &self,
        writing: &Writing<'_>,
        mut subscription: Instance,
    ) -> Result<ObjectPath, CimError> {
        for (role, class) in [("Filter", FILTER), ("Handler", DESTINATION)] {
            let missing =
                |why: &str| CimError::invalid_parameter(format!("a subscription's {role} {why}"));
            let given = subscription.get(role).and_then(Value::as_reference);
            let given = given.ok_or_else(|| missing("is missing"))?;
            let path = self.reference(given);
            let there = self.interop.schema().is_a(&path.class, &class)
                && matches!(self.interop.find(&path), Ok(Some(_)));
            if !there {
                return Err(missing(&format!("is not there: {path}")));
            }
            subscription.set(role, path);
        }
        for (name, default) in [
            ("OnFatalErrorPolicy", 2_u16),
            ("RepeatNotificationPolicy", 2),
            ("SubscriptionState", 2),
        ] {
            if subscription.get(name).is_none() {
                subscription.set(name, default);
            }
        }
        let now = DateTime::from(SystemTime::now());
        subscription
            .set("SubscriptionStartTime", now)
            .set("TimeOfLastStateChange", now);
        check_subscription(&subscription)?;
        self.check_room(&SUBSCRIPTION, self.interop.keeper().limits.subscriptions)?;
        let path = self
            .interop
            .create_as(writing, subscription.clone())
            .await?;
        subscription.path = Some(path.clone());
        self.set_subscription(&subscription);
        Ok(path)
    }

    /// Changes a filter, a destination or a subscription; a filter that is
    /// subscribed to lets through what it says now.
    ///
    /// # Errors
    /// As [`Indications::create`]; `NOT_FOUND`; `NOT_SUPPORTED` where a key or what
    /// is this server's to say would change.
    pub(crate) async fn modify(
        &self,
        cx: &RequestContext,
        path: &ObjectPath,
        changes: Instance,
    ) -> Result<(), CimError> {
        cx.principal.require(Role::Administrator)?;
        let writing = self.interop.write().await?;
        self.modify_as(&writing, &self.canonical(path), changes)
            .await
    }

    async fn modify_as(
        &self,
        writing: &Writing<'_>,
        path: &ObjectPath,
        mut changes: Instance,
    ) -> Result<(), CimError> {
        let kind = self.kind(&path.class);
        for role in ["Filter", "Handler"] {
            if let (Some(Kind::Subscription), Some(end)) = (kind, end(&changes, role)) {
                changes.set(role, self.reference(&end));
            }
        }
        let (old, mut new) = self.interop.changed(path, changes)?;
        let writable = match kind {
            Some(Kind::Filter) => FILTER_WRITABLE,
            Some(Kind::Destination) => DESTINATION_WRITABLE,
            _ => SUBSCRIPTION_WRITABLE,
        };
        for (name, property) in &new.properties {
            let same = old.get(name.as_str()) == property.value.value.as_ref();
            if !same && !writable.iter().any(|writable| name.is(writable)) {
                return Err(CimError::not_supported(format!(
                    "{}.{name} cannot be changed",
                    new.class
                )));
            }
        }
        match kind {
            Some(Kind::Filter) => {
                let read = self.check_filter(&new).await?;
                let new = self.interop.replace_as(writing, path, new).await?;
                self.add_filter(&new, read).await
            }
            Some(Kind::Destination) => {
                self.check_destination(&new)?;
                let new = self.interop.replace_as(writing, path, new).await?;
                self.add_destination(&new)
            }
            _ => {
                check_subscription(&new)?;
                if new.get("SubscriptionState") != old.get("SubscriptionState") {
                    new.set("TimeOfLastStateChange", DateTime::from(SystemTime::now()));
                }
                let new = self.interop.replace_as(writing, path, new).await?;
                self.set_subscription(&new);
                Ok(())
            }
        }
    }

    /// Deletes a filter, a destination or a subscription.
    ///
    /// # Errors
    /// `ACCESS_DENIED`, `NOT_FOUND`; `FAILED` where there are subscriptions to it.
    pub(crate) async fn delete(
        &self,
        cx: &RequestContext,
        path: &ObjectPath,
    ) -> Result<(), CimError> {
        cx.principal.require(Role::Administrator)?;
        self.remove(&self.canonical(path)).await
    }

    /// [`Indications::delete`] by this server itself.
    pub(super) async fn remove(&self, path: &ObjectPath) -> Result<(), CimError> {
        let writing = self.interop.write().await?;
        let own = self.interop.own_path(path)?;
        let subscribed = self.interop.links(&own, &super::subscriptions());
        if let Some((subscription, _)) = subscribed.first() {
            return Err(CimError::failed(format!(
                "{own} is subscribed to; delete its subscriptions first: {}",
                path_of(subscription)
            )));
        }
        self.interop.delete_as(&writing, &own).await?;
        self.hide_affected(&own);
        // The task of a destination ends here, which may be the one that runs this.
        self.forget(&own);
        Ok(())
    }

    /// Disables a subscription.
    pub(super) async fn disable(&self, subscription: &Instance) -> Result<(), CimError> {
        let mut changes = Instance::new(subscription.class.clone());
        changes.set("SubscriptionState", 4_u16);
        let writing = self.interop.write().await?;
        self.modify_as(&writing, &path_of(subscription), changes)
            .await
    }

    /// Fills in the keys that a filter's or a destination's client left out.
    fn fill_keys(&self, instance: &mut Instance) -> Result<(), CimError> {
        let class = instance.class.to_string();
        let [system_class, system] = &self.system;
        let new = format!("Isochron:{}", uuid::Uuid::new_v4());
        for (key, value) in [
            ("SystemCreationClassName", system_class),
            ("SystemName", system),
            ("CreationClassName", &class),
            ("Name", &new),
        ] {
            if text(instance, key).is_empty() {
                instance.set(key, &**value);
            }
        }
        if !instance.class.is(text(instance, "CreationClassName")) {
            return Err(CimError::invalid_parameter(format!(
                "the CreationClassName of a {class} is {class}"
            )));
        }
        Ok(())
    }

    pub(super) async fn check_filter(&self, instance: &Instance) -> Result<Filter, CimError> {
        let filter = Filter::read(instance)?;
        for namespace in filter.namespaces() {
            self.learn(namespace).await?;
            let checked = match self.tree(namespace) {
                Some(super::Tree::Fixed(schema)) => filter.check(namespace, &schema),
                Some(super::Tree::Space(space)) => filter.check(namespace, &space.schema()),
                None => Err(CimError::invalid_parameter(format!(
                    "there is no namespace {namespace}, from which the filter takes indications"
                ))),
            };
            checked?;
        }
        Ok(filter)
    }

    fn check_destination(&self, instance: &Instance) -> Result<(), CimError> {
        let number = |name| instance.get(name).and_then(Value::as_u64);
        // 2: CIM-XML.
        if number("Protocol").is_some_and(|protocol| protocol != 2) {
            return Err(CimError::not_supported(
                "indications are sent by CIM-XML only: Protocol 2",
            ));
        }
        if !number("PersistenceType").is_some_and(|kind| (1..=3).contains(&kind)) {
            return Err(CimError::invalid_parameter(
                "PersistenceType is 1 (Other), 2 (Permanent) or 3 (Transient)",
            ));
        }
        let url = text(instance, "Destination");
        let reached = self.options.listeners.at(url);
        reached.map(drop).map_err(CimError::invalid_parameter)
    }

    fn check_room(&self, class: &Name, limit: usize) -> Result<(), CimError> {
        if self.interop.enumerate(class)?.len() < limit {
            return Ok(());
        }
        Err(full(&format!("instances of {class}"), limit))
    }
}

fn check_subscription(instance: &Instance) -> Result<(), CimError> {
    let number = |name: &str| instance.get(name).and_then(Value::as_u64);
    let one_of = |name: &str, known: &[u64], words: &str| match number(name) {
        Some(value) if known.contains(&value) => Ok(()),
        _ => Err(CimError::new(
            Status::NotSupported,
            format!("{name} is {words} here"),
        )),
    };
    one_of(
        "OnFatalErrorPolicy",
        &[2, 3, 4],
        "2 (Ignore), 3 (Disable) or 4 (Remove)",
    )?;
    one_of("RepeatNotificationPolicy", &[2], "2 (None)")?;
    one_of("SubscriptionState", &[2, 4], "2 (Enabled) or 4 (Disabled)")?;
    match number("SubscriptionDuration") {
        None => Ok(()),
        Some(_) => Err(CimError::not_supported(
            "subscriptions last until they are deleted: no SubscriptionDuration",
        )),
    }
}
