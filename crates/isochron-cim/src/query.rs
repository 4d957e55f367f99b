//! Queries and filters: WQL, DMTF:CQL (DSP0202) and DMTF:FQL (DSP0212).
//!
//! [`Query::parse`] reads a query; [`Query::run`] answers one over a
//! [`CimServer`](crate::CimServer) with the projection that it asks for.
//! [`filter`] reads what pull operations and subscriptions filter with, as a
//! [`Condition`], which [`Condition::matches`] puts to one instance. An event
//! query (`SELECT * FROM __InstanceModificationEvent WITHIN 1 WHERE TargetInstance
//! ISA 'X'`) is a [`Select`] like any other: its `class`, `within` and `condition`
//! are for those who deliver events, and its [`Select::project`] for what they send.
//!
//! The three languages share one grammar, with these differences: WQL compares
//! strings without regard to case, has strings in either quotes with few escapes,
//! and `LIKE` with `%`, `_` and `[a-f]`; CQL and FQL regard case, and their `LIKE`
//! takes a regular expression that the whole string must match. What of CQL is not
//! here (joins, subqueries, functions, arithmetic, sorting, symbolic constants) is
//! `INVALID_QUERY` with a sentence that says so.
//!
//! Logic has three values: a comparison with null, or of what cannot be compared,
//! is neither true nor false, and selects nothing, negated or not.
//!
//! Limits: [`MAX_BYTES`], [`MAX_DEPTH`], [`MAX_ITEMS`]; patterns match in time
//! linear in the text, whatever they are.

mod condition;
mod lexer;
mod parser;
mod path;
mod pattern;
mod run;
mod scalar;

use std::time::Duration;

use crate::{AssociationFilter, CimError, Instance, Name, ObjectPath, Repository, Status};

pub use condition::Condition;
pub use path::PropertyPath;
pub use run::{Subclasses, filtered};

/// The longest query read, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;
/// How deep conditions may nest.
pub const MAX_DEPTH: usize = 64;
/// The most selected properties, and the most comparisons.
pub const MAX_ITEMS: usize = 1024;

/// A query language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// Windows' WQL.
    Wql,
    /// The CIM Query Language (DSP0202).
    Cql,
    /// The Filter Query Language (DSP0212): a condition alone.
    Fql,
}

impl Language {
    /// The language of this name, as operations and subscriptions give it.
    ///
    /// # Errors
    /// `QUERY_LANGUAGE_NOT_SUPPORTED`.
    pub fn from_name(name: &str) -> Result<Self, CimError> {
        let names = [
            ("WQL", Self::Wql),
            ("DMTF:CQL", Self::Cql),
            ("CIM:CQL", Self::Cql),
            ("DMTF:FQL", Self::Fql),
        ];
        let found = names
            .into_iter()
            .find(|(known, _)| name.trim().eq_ignore_ascii_case(known));
        found.map(|(_, language)| language).ok_or_else(|| {
            CimError::new(
                Status::QueryLanguageNotSupported,
                format!(
                    "{name:?} is not known; there are WQL, DMTF:CQL and, for filters, DMTF:FQL"
                ),
            )
        })
    }

    fn regards_case(self) -> bool {
        self != Self::Wql
    }
}

/// A query.
#[derive(Clone, Debug)]
pub enum Query {
    /// `SELECT ... FROM ...`.
    Select(Select),
    /// `ASSOCIATORS OF {...}` and `REFERENCES OF {...}`, which only WQL has.
    Traversal(Traversal),
}

/// `SELECT columns FROM class WITHIN seconds WHERE condition`.
#[derive(Clone, Debug)]
pub struct Select {
    /// The properties asked for; `None` for all (`*`).
    pub columns: Option<Vec<PropertyPath>>,
    /// The class: of instances, or of events.
    pub class: Name,
    /// The longest that an event may be told after it happened (WQL's event queries).
    pub within: Option<Duration>,
    /// What must hold; `None` for everything.
    pub condition: Option<Condition>,
}

/// A walk along associations from one instance.
#[derive(Clone, Debug)]
pub struct Traversal {
    /// The associations themselves (`REFERENCES OF`), not what they lead to.
    pub references: bool,
    /// Where it starts.
    pub source: ObjectPath,
    /// `AssocClass`, `ResultClass`, `Role`, `ResultRole`. For references, the
    /// result's class is the `association`, as DSP0200 has it.
    pub filter: AssociationFilter,
    /// `RequiredQualifier`: the result's class has it.
    pub required_qualifier: Option<Name>,
    /// `ClassDefsOnly`: the classes of the result are asked for.
    pub classes_only: bool,
    /// `KeysOnly`: of the result, only its keys.
    pub keys_only: bool,
}

/// Who derives from whom, and where.
///
/// A closure from (class, ancestor) is one too.
pub trait ClassTree {
    /// Whether `class` is `ancestor` or derives from it.
    fn is_a(&self, class: &Name, ancestor: &Name) -> bool;

    /// The name of the host that has them: `__SERVER` of what does not say it itself.
    fn host(&self) -> Option<&str> {
        None
    }
}

impl ClassTree for Repository {
    fn is_a(&self, class: &Name, ancestor: &Name) -> bool {
        Self::is_a(self, class, ancestor)
    }
}

impl<F: Fn(&Name, &Name) -> bool> ClassTree for F {
    fn is_a(&self, class: &Name, ancestor: &Name) -> bool {
        self(class, ancestor)
    }
}

impl Query {
    /// Reads a query.
    ///
    /// ```
    /// use isochron_cim::query::Query;
    /// let text = "SELECT Name FROM EX_Thing WHERE Size > 0x10 AND NOT Name LIKE '%[_]old'";
    /// let Query::Select(select) = Query::parse("WQL", text)? else { unreachable!() };
    /// assert_eq!(select.class.as_str(), "EX_Thing");
    /// # Ok::<(), isochron_cim::CimError>(())
    /// ```
    ///
    /// # Errors
    /// `QUERY_LANGUAGE_NOT_SUPPORTED`; `INVALID_QUERY` with what is wrong where.
    pub fn parse(language: &str, text: &str) -> Result<Self, CimError> {
        match Language::from_name(language)? {
            Language::Fql => Err(CimError::new(
                Status::QueryLanguageNotSupported,
                "DMTF:FQL is a language for filters; queries are in WQL or DMTF:CQL",
            )),
            language => parser::query(language, text),
        }
    }

    /// Whether the answer is classes ([`Query::classes`]) and not instances.
    pub fn asks_for_classes(&self) -> bool {
        matches!(self, Self::Traversal(traversal) if traversal.classes_only)
    }
}

/// Reads a filter: a condition in FQL, or a whole query in WQL or CQL that selects
/// everything (`SELECT * FROM Class WHERE ...`), whose class is then part of the
/// condition.
///
/// # Errors
/// As [`Query::parse`]; `INVALID_QUERY` also for a query that selects columns, is
/// for events, or walks associations.
pub fn filter(language: &str, text: &str) -> Result<Condition, CimError> {
    let language = Language::from_name(language)?;
    if language == Language::Fql {
        return parser::condition(language, text);
    }
    match parser::query(language, text)? {
        Query::Select(Select {
            columns: None,
            class,
            within: None,
            condition,
        }) => Ok(Condition::of_class(class, condition)),
        _ => Err(invalid(
            "a filter is SELECT * FROM one class WHERE some condition",
        )),
    }
}

impl Select {
    /// Leaves of an instance (or an event) what was asked for. Of an embedded
    /// instance `A`, `A.B` leaves only `B`. `__CLASS`, `__PATH` and the like become
    /// properties of these names.
    #[must_use]
    pub fn project(&self, instance: Instance) -> Instance {
        match &self.columns {
            Some(columns) => path::project(columns, instance),
            None => instance,
        }
    }
}

fn invalid(message: impl std::fmt::Display) -> CimError {
    CimError::new(Status::InvalidQuery, message)
}
