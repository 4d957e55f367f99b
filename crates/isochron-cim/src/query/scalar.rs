//! Comparing values: with one another and with a query's constants.
//!
//! Numbers compare as numbers, whatever their types; datetimes as instants or
//! lengths of time; references as paths, where a path that names no namespace means
//! any. A constant in quotes is read as what it is compared with. What cannot be
//! compared has no order.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::path::Found;
use crate::{DateTime, ObjectPath, Value};

/// A comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Comparison {
    pub fn from_sign(sign: &str) -> Option<Self> {
        Some(match sign {
            "=" => Self::Equal,
            "<>" | "!=" => Self::NotEqual,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            _ => return None,
        })
    }
}

/// A value that can be compared.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Scalar<'a> {
    Boolean(bool),
    Integer(i128),
    Real(f64),
    Text(Cow<'a, str>),
    DateTime(DateTime),
    Path(&'a ObjectPath),
}

impl<'a> Scalar<'a> {
    /// `None` for null, and for objects and arrays, which do not compare.
    pub fn found(found: &'a Found<'a>) -> Option<Self> {
        match found {
            Found::Nothing | Found::Object(_) => None,
            Found::Text(text) => Some(Self::Text(text.as_str().into())),
            Found::Value(value) => Self::of(value),
        }
    }

    fn of(value: &'a Value) -> Option<Self> {
        Some(match value {
            Value::Boolean(v) => Self::Boolean(*v),
            Value::Real32(v) => Self::Real(f64::from(*v)),
            Value::Real64(v) => Self::Real(*v),
            Value::Char16(unit) => Self::Text(String::from_utf16_lossy(&[*unit]).into()),
            Value::String(text) => Self::Text(text.as_str().into()),
            Value::DateTime(v) => Self::DateTime(*v),
            Value::Reference(path) => Self::Path(path),
            Value::Instance(_) | Value::Class(_) | Value::Array(_) => return None,
            value => Self::Integer(value.as_integer()?),
        })
    }

    /// The text of a string; what `LIKE` looks at.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::DateTime(v) => Some(Cow::Owned(v.to_string())),
            Self::Path(path) => Some(Cow::Owned(path.to_string())),
            _ => None,
        }
    }
}

/// How two values stand to each other.
enum Relation {
    /// Before, after or the same.
    Order(Ordering),
    /// The same or not; there is no before.
    Same(bool),
}

/// Whether the comparison holds; `None` where the two do not compare.
pub(super) fn compare(
    left: &Scalar<'_>,
    comparison: Comparison,
    right: &Scalar<'_>,
    regards_case: bool,
) -> Option<bool> {
    let relation = relation(left, right, regards_case)?;
    Some(match (comparison, relation) {
        (Comparison::Equal, Relation::Order(order)) => order.is_eq(),
        (Comparison::NotEqual, Relation::Order(order)) => order.is_ne(),
        (Comparison::Less, Relation::Order(order)) => order.is_lt(),
        (Comparison::LessOrEqual, Relation::Order(order)) => order.is_le(),
        (Comparison::Greater, Relation::Order(order)) => order.is_gt(),
        (Comparison::GreaterOrEqual, Relation::Order(order)) => order.is_ge(),
        (Comparison::Equal, Relation::Same(same)) => same,
        (Comparison::NotEqual, Relation::Same(same)) => !same,
        (_, Relation::Same(_)) => return None,
    })
}

#[allow(clippy::cast_precision_loss)] // An order of reals is approximate anyway.
fn relation(left: &Scalar<'_>, right: &Scalar<'_>, regards_case: bool) -> Option<Relation> {
    use Scalar::{Boolean, DateTime as Date, Integer, Path, Real, Text};
    Some(match (left, right) {
        (Boolean(a), Boolean(b)) => Relation::Same(a == b),
        // WQL writes booleans as numbers and texts too; true is 1 or -1.
        (Boolean(a), Integer(b)) => {
            Relation::Same(*a == matches!(b, 1 | -1) && (-1..=1).contains(b))
        }
        (Boolean(a), Text(b)) => Relation::Same(*a == boolean(b)?),
        (Integer(a), Integer(b)) => Relation::Order(a.cmp(b)),
        (Integer(a), Real(b)) => Relation::Order((*a as f64).partial_cmp(b)?),
        (Real(a), Real(b)) => Relation::Order(a.partial_cmp(b)?),
        (Integer(_) | Real(_), Text(b)) => return relation(left, &number(b)?, regards_case),
        (Text(a), Text(b)) if regards_case => Relation::Order(a.cmp(b)),
        (Text(a), Text(b)) => {
            let fold = |text| str::chars(text).flat_map(char::to_lowercase);
            Relation::Order(fold(a).cmp(fold(b)))
        }
        (Date(a), Date(b)) => moments(a, b)?,
        (Date(a), Text(b)) => moments(a, &b.trim().parse().ok()?)?,
        (Path(a), Path(b)) => Relation::Same(same_object(a, b)),
        (Path(a), Text(b)) => Relation::Same(same_object(a, &b.parse().ok()?)),
        (Text(_), Boolean(_) | Integer(_) | Real(_) | Date(_) | Path(_))
        | (Integer(_), Boolean(_))
        | (Real(_), Integer(_)) => match relation(right, left, regards_case)? {
            Relation::Order(order) => Relation::Order(order.reverse()),
            same => same,
        },
        _ => return None,
    })
}

fn boolean(text: &str) -> Option<bool> {
    let is = |word| text.trim().eq_ignore_ascii_case(word);
    match (is("true"), is("false")) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

fn number(text: &str) -> Option<Scalar<'static>> {
    let text = text.trim();
    let integer = text.parse().map(Scalar::Integer).ok();
    integer.or_else(|| text.parse().map(Scalar::Real).ok())
}

/// Datetimes with asterisks are only ever equal to themselves.
fn moments(a: &DateTime, b: &DateTime) -> Option<Relation> {
    if let (Some(a), Some(b)) = (a.as_offset_date_time(), b.as_offset_date_time()) {
        return Some(Relation::Order(a.cmp(&b)));
    }
    if let (Some(a), Some(b)) = (a.as_duration(), b.as_duration()) {
        return Some(Relation::Order(a.cmp(&b)));
    }
    (a.is_interval() == b.is_interval()).then(|| Relation::Same(a == b))
}

fn same_object(a: &ObjectPath, b: &ObjectPath) -> bool {
    let somewhere = |path: &ObjectPath| ObjectPath {
        host: None,
        ..path.clone()
    };
    match (&a.namespace, &b.namespace) {
        (Some(_), Some(_)) => somewhere(a) == somewhere(b),
        _ => a.relative() == b.relative(),
    }
}
