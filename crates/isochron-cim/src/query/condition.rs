//! Conditions: what a `WHERE` clause says, and whether an instance fulfils it.

use std::borrow::Cow;

use super::path::{Bound, Found, Index, PropertyPath, Scope, Step};
use super::pattern::Pattern;
use super::scalar::{Comparison, Scalar, compare};
use super::{ClassTree, Language};
use crate::{Instance, Name, Value};

/// A condition on an instance.
#[derive(Clone, Debug)]
pub struct Condition {
    pub(super) expression: Expression,
    pub(super) regards_case: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Expression {
    All(Vec<Expression>),
    Any(Vec<Expression>),
    Not(Box<Expression>),
    Compare(Operand, Comparison, Operand),
    Like(Operand, Pattern),
    IsA(PropertyPath, Name),
    IsNull(PropertyPath),
    /// `ANY name IN array SATISFIES (holds)`; `EVERY`, where `every`.
    Elements {
        every: bool,
        name: Name,
        array: PropertyPath,
        holds: Box<Expression>,
    },
}

#[derive(Clone, Debug)]
pub(super) enum Operand {
    Path(PropertyPath),
    Constant(Scalar<'static>),
}

impl Condition {
    pub(super) fn new(language: Language, expression: Expression) -> Self {
        Self {
            expression,
            regards_case: language.regards_case(),
        }
    }

    /// Being an instance of the class, and the condition.
    pub(super) fn of_class(class: Name, condition: Option<Self>) -> Self {
        let is_a = Expression::IsA(PropertyPath::default(), class);
        match condition {
            Some(condition) => Self {
                expression: Expression::All(vec![is_a, condition.expression]),
                ..condition
            },
            None => Self {
                expression: is_a,
                regards_case: true,
            },
        }
    }

    /// Whether the instance fulfils the condition; `tree` knows the classes that
    /// [`Condition::classes`] names and what derives from them.
    pub fn matches(&self, instance: &Instance, tree: &dyn ClassTree) -> bool {
        let scope = Scope {
            instance,
            tree,
            bound: None,
        };
        self.expression.holds(&scope, self.regards_case) == Some(true)
    }

    /// The classes that it names (`ISA`, `Class::Property`), each once.
    pub fn classes(&self) -> Vec<&Name> {
        let mut names = Vec::new();
        self.expression.visit(&mut |expression| {
            if let Expression::IsA(_, class) = expression {
                names.push(class);
            }
            for path in expression.paths() {
                names.extend(path.steps.iter().filter_map(|step| match step {
                    Step::Property { scope, .. } => scope.as_ref(),
                    Step::System(_) => None,
                }));
            }
        });
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(*name));
        names
    }

    /// The classes that the object at `property` (`TargetInstance`) must be of for
    /// the condition to hold: what an event's source can be chosen by. Empty if
    /// there is no such rule in it.
    pub fn required_classes(&self, property: &str) -> Vec<&Name> {
        let (mut required, mut terms) = (Vec::new(), vec![&self.expression]);
        while let Some(term) = terms.pop() {
            match term {
                Expression::All(inner) => terms.extend(inner),
                Expression::IsA(path, class)
                    if path.steps.len() == 1
                        && path.first().is_some_and(|name| name.is(property)) =>
                {
                    required.push(class);
                }
                _ => {}
            }
        }
        required
    }

    /// The properties of the instance itself that it looks at.
    pub(super) fn properties(&self) -> Vec<&Name> {
        let (mut names, mut bound) = (Vec::new(), Vec::new());
        self.expression.visit(&mut |expression| {
            if let Expression::Elements { name, .. } = expression {
                bound.push(name);
            }
            names.extend(
                expression
                    .paths()
                    .into_iter()
                    .filter_map(PropertyPath::first),
            );
        });
        names.retain(|name| !bound.contains(name));
        names
    }
}

impl Expression {
    /// This expression and all in it.
    fn visit<'a>(&'a self, look: &mut dyn FnMut(&'a Self)) {
        look(self);
        match self {
            Self::All(terms) | Self::Any(terms) => {
                for term in terms {
                    term.visit(look);
                }
            }
            Self::Not(inner) | Self::Elements { holds: inner, .. } => inner.visit(look),
            Self::Compare(..) | Self::Like(..) | Self::IsA(..) | Self::IsNull(_) => {}
        }
    }

    /// The paths that stand in it itself.
    fn paths(&self) -> Vec<&PropertyPath> {
        let operands = match self {
            Self::Compare(left, _, right) => vec![left, right],
            Self::Like(operand, _) => vec![operand],
            Self::IsA(path, _) | Self::IsNull(path) | Self::Elements { array: path, .. } => {
                return vec![path];
            }
            Self::All(_) | Self::Any(_) | Self::Not(_) => Vec::new(),
        };
        let paths = operands.into_iter().filter_map(|operand| match operand {
            Operand::Path(path) => Some(path),
            Operand::Constant(_) => None,
        });
        paths.collect()
    }

    fn holds(&self, scope: &Scope<'_>, regards_case: bool) -> Option<bool> {
        match self {
            Self::All(terms) => all(terms.iter().map(|term| term.holds(scope, regards_case))),
            Self::Any(terms) => any(terms.iter().map(|term| term.holds(scope, regards_case))),
            Self::Not(inner) => inner.holds(scope, regards_case).map(|holds| !holds),
            Self::IsNull(path) => Some(matches!(path.resolve(scope), Found::Nothing)),
            Self::IsA(path, class) => {
                let found = path.resolve(scope);
                Some(scope.tree.is_a(found.class()?, class))
            }
            Self::Like(operand, pattern) => operand.with(scope, |value| {
                value.text().map(|text| pattern.matches(&text))
            }),
            Self::Compare(left, comparison, right) => left.with(scope, |left| {
                right.with(scope, |right| {
                    compare(left, *comparison, right, regards_case)
                })
            }),
            Self::Elements {
                every,
                name,
                array,
                holds,
            } => {
                let Found::Value(Value::Array(items)) = array.resolve(scope) else {
                    return None;
                };
                let each = items.iter().map(|item| {
                    let bound = Bound {
                        name,
                        value: item.as_ref(),
                        outer: scope.bound,
                    };
                    let inner = Scope {
                        bound: Some(&bound),
                        ..*scope
                    };
                    holds.holds(&inner, regards_case)
                });
                if *every { all(each) } else { any(each) }
            }
        }
    }
}

impl Operand {
    /// What the value gives; nothing for null.
    fn with<T>(&self, scope: &Scope<'_>, give: impl FnOnce(&Scalar<'_>) -> Option<T>) -> Option<T> {
        match self {
            Self::Constant(constant) => give(constant),
            Self::Path(path) => {
                let found = path.resolve(scope);
                give(&Scalar::found(&found)?)
            }
        }
    }
}

/// False if any is, else unknown if any is, else true.
fn all(terms: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut result = Some(true);
    for term in terms {
        match term {
            Some(false) => return Some(false),
            None => result = None,
            Some(true) => {}
        }
    }
    result
}

fn any(terms: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    all(terms.map(|term| term.map(|holds| !holds))).map(|holds| !holds)
}

impl PropertyPath {
    /// Whether it names a whole array (`[*]`) anywhere.
    pub(super) fn has_all(&self) -> bool {
        let is_all = |step: &Step| {
            matches!(
                step,
                Step::Property {
                    index: Some(Index::All),
                    ..
                }
            )
        };
        self.steps.iter().any(is_all)
    }
}

impl From<Cow<'static, str>> for Operand {
    fn from(text: Cow<'static, str>) -> Self {
        Self::Constant(Scalar::Text(text))
    }
}
