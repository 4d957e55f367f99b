//! Values as MOF writes them, before their declaration gives them a type.

use crate::{CimType, DateTime, Name, ObjectPath, Value};

/// A constant in MOF.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `null`.
    Null,
    /// `true`, `false`.
    Boolean(bool),
    /// Decimal, `0x1F`, `101b` or `017`.
    Integer(i128),
    /// With a decimal point.
    Real(f64),
    /// `'a'`, a UCS-2 character.
    Char(u16),
    /// One or more strings in a row.
    Text(String),
    /// `$Alias`, without the `$`.
    Alias(Name),
    /// `{ ... }`.
    Array(Vec<Literal>),
}

impl Literal {
    /// The value of the type that the element was declared with; `path` finds what
    /// an alias names.
    ///
    /// # Errors
    /// A sentence that says why the constant has not that type.
    pub fn typed(
        &self,
        ty: &CimType,
        is_array: bool,
        path: &dyn Fn(&Name) -> Option<ObjectPath>,
    ) -> Result<Option<Value>, String> {
        match self {
            Self::Null => Ok(None),
            Self::Array(items) if is_array => {
                let items = items.iter().map(|item| match item {
                    Self::Array(_) => Err("an array in an array".to_owned()),
                    item => item.typed(ty, false, path),
                });
                Ok(Some(Value::Array(items.collect::<Result<_, _>>()?)))
            }
            Self::Array(_) => Err(format!("expected one {} value, found an array", ty.name())),
            _ if is_array => Err(format!("expected an array of {} in braces", ty.name())),
            scalar => scalar.scalar(ty, path).map(Some),
        }
    }

    fn scalar(
        &self,
        ty: &CimType,
        path: &dyn Fn(&Name) -> Option<ObjectPath>,
    ) -> Result<Value, String> {
        let wrong = || format!("expected a {} value, found {}", ty.name(), self.kind());
        match (ty, self) {
            (CimType::Boolean, Self::Boolean(v)) => Ok(Value::Boolean(*v)),
            (CimType::String, Self::Text(text)) => Ok(Value::String(text.clone())),
            (CimType::Char16, Self::Char(unit)) => Ok(Value::Char16(*unit)),
            (CimType::DateTime, Self::Text(text)) => match text.parse::<DateTime>() {
                Ok(value) => Ok(Value::DateTime(value)),
                Err(error) => Err(error.to_string()),
            },
            (CimType::Real32 | CimType::Real64, Self::Real(v)) => real(ty, *v),
            // DSP0004 wants a decimal point; everybody writes 0.
            (CimType::Real32 | CimType::Real64, Self::Integer(v)) => real(ty, *v as f64),
            (CimType::Reference(_), Self::Text(text)) => match text.parse::<ObjectPath>() {
                Ok(path) => Ok(Value::Reference(Box::new(path))),
                Err(error) => Err(error.to_string()),
            },
            (CimType::Reference(_), Self::Alias(alias)) => match path(alias) {
                Some(path) => Ok(Value::Reference(Box::new(path))),
                None => Err(format!("no instance before this one is named ${alias}")),
            },
            (_, Self::Integer(v)) => ty.integer(*v).ok_or_else(|| match ty.is_integer() {
                true => format!("{v} is out of the range of {}", ty.name()),
                false => wrong(),
            }),
            _ => Err(wrong()),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Boolean(_) => "a boolean",
            Self::Integer(_) => "an integer",
            Self::Real(_) => "a real number",
            Self::Char(_) => "a character",
            Self::Text(_) => "a string",
            Self::Alias(_) => "an alias",
            Self::Array(_) => "an array",
        }
    }
}

#[allow(clippy::cast_possible_truncation)] // real32 is what was asked for.
fn real(ty: &CimType, value: f64) -> Result<Value, String> {
    let value = match ty {
        CimType::Real32 if (value as f32).is_finite() => Value::Real32(value as f32),
        CimType::Real64 if value.is_finite() => Value::Real64(value),
        _ => return Err(format!("{value} is out of the range of {}", ty.name())),
    };
    Ok(value)
}
