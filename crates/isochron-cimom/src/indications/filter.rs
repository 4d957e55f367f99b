//! A filter as it is applied: which indications its query lets through, and what
//! of them it selects.
//!
//! What is told of a change depends on the class that the query is FROM: a
//! `CIM_InstCreation`, `CIM_InstModification` or `CIM_InstDeletion` for these, for
//! `CIM_InstIndication` and for `CIM_Indication` (DSP1054); Windows' own
//! `__InstanceCreationEvent` and so on for those and `__InstanceOperationEvent`.
//! `WITHIN` is the longest that a client waits for its event; it is told at once.

use std::time::SystemTime;

use isochron_cim::query::{Query, Select};
use isochron_cim::{
    Change, ChangeKind, CimError, DateTime, Embedded, Indication, Instance, Name, Repository,
    Status, Value,
};

use super::{Tree, namespace_key};

/// The root of all indications.
const INDICATION: Name = Name::fixed("CIM_Indication");

/// In whose words a change is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Cim,
    Windows,
}

/// The classes that stand for changes, and for which.
const CHANGES: [(&str, Style, &[ChangeKind]); 9] = {
    use ChangeKind::{Created, Deleted, Modified};
    const ALL: &[ChangeKind] = &[Created, Modified, Deleted];
    [
        ("CIM_Indication", Style::Cim, ALL),
        ("CIM_InstIndication", Style::Cim, ALL),
        ("CIM_InstCreation", Style::Cim, &[Created]),
        ("CIM_InstModification", Style::Cim, &[Modified]),
        ("CIM_InstDeletion", Style::Cim, &[Deleted]),
        ("__InstanceOperationEvent", Style::Windows, ALL),
        ("__InstanceCreationEvent", Style::Windows, &[Created]),
        ("__InstanceModificationEvent", Style::Windows, &[Modified]),
        ("__InstanceDeletionEvent", Style::Windows, &[Deleted]),
    ]
};

/// The seconds from Windows' epoch, 1601, to Unix'.
const WINDOWS_EPOCH: u64 = 11_644_473_600;

/// A filter.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    name: String,
    /// Where indications come from, as [`namespace_key`] has them.
    namespaces: Vec<String>,
    select: Select,
    changes: Option<(Style, &'static [ChangeKind])>,
}

impl Filter {
    /// Reads a `CIM_IndicationFilter`.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` where Query or QueryLanguage is missing,
    /// `QUERY_LANGUAGE_NOT_SUPPORTED`, `INVALID_QUERY`.
    pub(crate) fn read(instance: &Instance) -> Result<Self, CimError> {
        let text = |name: &str| instance.get(name).and_then(Value::as_str);
        let required = |name: &str| {
            let missing = || CimError::invalid_parameter(format!("a filter needs a {name}"));
            text(name).ok_or_else(missing)
        };
        let query = Query::parse(required("QueryLanguage")?, required("Query")?)?;
        let Query::Select(select) = query else {
            return Err(invalid(
                "a filter's query selects from a class of indications",
            ));
        };
        let listed: Vec<&str> = match instance.get("SourceNamespaces") {
            Some(Value::Array(names)) => names.iter().flatten().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let namespaces = match (listed.is_empty(), text("SourceNamespace")) {
            (false, _) => listed,
            (true, Some(one)) => vec![one],
            // The filter's own.
            (true, None) => vec!["interop"],
        };
        let changes = CHANGES.iter().find(|(class, ..)| select.class.is(class));
        Ok(Self {
            name: text("Name").unwrap_or_default().to_owned(),
            namespaces: namespaces.into_iter().map(namespace_key).collect(),
            changes: changes.map(|(_, style, kinds)| (*style, *kinds)),
            select,
        })
    }

    /// The namespaces that its indications come from, as [`namespace_key`] has them.
    pub(crate) fn namespaces(&self) -> &[String] {
        &self.namespaces
    }

    /// Fails unless what the query is about is there.
    ///
    /// # Errors
    /// `INVALID_QUERY` where the class is none of indications, or lacks a property
    /// that is selected.
    pub(crate) fn check(&self, namespace: &str, schema: &Repository) -> Result<(), CimError> {
        let Select { class, columns, .. } = &self.select;
        if let Some((Style::Windows, _)) = self.changes {
            return Ok(());
        }
        let found = schema.get(class);
        if self.changes.is_none() && (found.is_none() || !schema.is_a(class, &INDICATION)) {
            return Err(invalid(format!(
                "{class} is no class of indications in the namespace {namespace}"
            )));
        }
        let selected = columns.iter().flatten().filter_map(|column| column.first());
        for name in selected {
            if found.is_some_and(|class| !class.properties.contains_key(name)) {
                return Err(invalid(format!("{class} has no property {name}")));
            }
        }
        Ok(())
    }

    /// What is told of a change; nothing if the filter does not let it through.
    /// `host` is the system's name.
    pub(crate) fn of_change(&self, change: &Change, host: &str, tree: &Tree) -> Option<Instance> {
        let (style, kinds) = self.changes?;
        if !kinds.contains(&change.kind) {
            return None;
        }
        let source = match style {
            Style::Cim => "SourceInstance",
            Style::Windows => "TargetInstance",
        };
        // Most changes are none of this filter's: that is seen before they are copied.
        let required = self.select.condition.iter();
        let mut required = required.flat_map(|condition| condition.required_classes(source));
        if required.any(|class| !tree.is_a(&change.instance.class, class)) {
            return None;
        }
        let event = match style {
            Style::Cim => self.cim_event(change, host),
            Style::Windows => windows_event(change),
        };
        self.selected(event, tree)
    }

    /// The indication, if the filter lets it through.
    pub(crate) fn of_indication(&self, told: &Indication, tree: &Tree) -> Option<Instance> {
        if !tree.is_a(&told.instance.class, &self.select.class) {
            return None;
        }
        let mut event = told.instance.clone();
        event.set("IndicationFilterName", &*self.name);
        self.selected(event, tree)
    }

    fn selected(&self, event: Instance, tree: &Tree) -> Option<Instance> {
        let is_a = |class: &Name, ancestor: &Name| tree.is_a(class, ancestor);
        let holds = match &self.select.condition {
            Some(condition) => condition.matches(&event, &is_a),
            None => true,
        };
        holds.then(|| self.select.project(event))
    }

    fn cim_event(&self, change: &Change, host: &str) -> Instance {
        let mut event = Instance::new(match change.kind {
            ChangeKind::Created => "CIM_InstCreation",
            ChangeKind::Modified => "CIM_InstModification",
            ChangeKind::Deleted => "CIM_InstDeletion",
        });
        event
            .set("IndicationTime", DateTime::from(SystemTime::now()))
            // 2: information.
            .set("PerceivedSeverity", 2_u16)
            .set("IndicationFilterName", &*self.name);
        embed(&mut event, "SourceInstance", &change.instance);
        if let Some(path) = &change.instance.path {
            event.set("SourceInstanceModelPath", path.to_string());
        }
        event.set("SourceInstanceHost", host);
        if let Some(previous) = &change.previous {
            embed(&mut event, "PreviousInstance", previous);
        }
        event
    }
}

/// WMI's intrinsic event of a change.
fn windows_event(change: &Change) -> Instance {
    let mut event = Instance::new(match change.kind {
        ChangeKind::Created => "__InstanceCreationEvent",
        ChangeKind::Modified => "__InstanceModificationEvent",
        ChangeKind::Deleted => "__InstanceDeletionEvent",
    });
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default();
    let ticks = (now.as_secs() + WINDOWS_EPOCH) * 10_000_000 + u64::from(now.subsec_nanos() / 100);
    event.set("TIME_CREATED", ticks);
    embed(&mut event, "TargetInstance", &change.instance);
    if let Some(previous) = &change.previous {
        embed(&mut event, "PreviousInstance", previous);
    }
    event
}

/// Sets a property that may hold an object of any class (EmbeddedObject).
fn embed(event: &mut Instance, name: &'static str, instance: &Instance) {
    event.set(name, Value::Instance(Box::new(instance.clone())));
    if let Some(property) = event.properties.get_mut(&Name::fixed(name)) {
        property.embedded = Some(Embedded::Object);
    }
}

fn invalid(message: impl std::fmt::Display) -> CimError {
    CimError::new(Status::InvalidQuery, message)
}
