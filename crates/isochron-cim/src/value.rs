//! CIM's intrinsic types (DSP0004 §5.2.3) and their values.

use crate::{Class, DateTime, Instance, Name, ObjectPath};

/// An intrinsic CIM type. Arrays are said beside it, not in it.
#[allow(missing_docs)] // The names are the specification's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CimType {
    Boolean,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Sint8,
    Sint16,
    Sint32,
    Sint64,
    Real32,
    Real64,
    Char16,
    String,
    DateTime,
    /// A reference to instances of this class (or of any, when `None`).
    Reference(Option<Name>),
}

/// A string-typed element whose text is a whole CIM element (DSP0201's
/// EmbeddedObject attribute; DSP0004's qualifiers of the same names).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Embedded {
    /// `EmbeddedInstance("Class")`; the class is empty where it is not known.
    Instance(Name),
    /// `EmbeddedObject`: an instance or a class.
    Object,
}

/// A value that is present. Null is `None` of an `Option<Value>`.
#[allow(missing_docs)] // One variant per intrinsic type.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Boolean(bool),
    Uint8(u8),
    Uint16(u16),
    Uint32(u32),
    Uint64(u64),
    Sint8(i8),
    Sint16(i16),
    Sint32(i32),
    Sint64(i64),
    Real32(f32),
    Real64(f64),
    /// A UCS-2 character (DSP0004 §5.2.3).
    Char16(u16),
    String(String),
    DateTime(DateTime),
    Reference(Box<ObjectPath>),
    /// An embedded instance, in a string-typed element.
    Instance(Box<Instance>),
    /// An embedded class, in a string-typed element.
    Class(Box<Class>),
    /// An array; its elements may be null, and are of one type.
    Array(Vec<Option<Value>>),
}

/// A value with the type that it was declared with, which null alone does not
/// tell: what a method's parameter, a qualifier or a key carries.
#[derive(Clone, Debug, PartialEq)]
pub struct TypedValue {
    /// The element's type.
    pub ty: CimType,
    /// Whether it is an array of that type.
    pub is_array: bool,
    /// The value, or null.
    pub value: Option<Value>,
}

/// Why text is no value of a type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {ty} value")]
pub struct ValueError {
    /// The type that was asked for, in CIM's spelling.
    pub ty: &'static str,
    /// The text (shortened).
    pub text: String,
}

impl CimType {
    /// The type's name in MOF and CIM-XML (`uint16`, `reference`, ...).
    pub fn name(&self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Uint8 => "uint8",
            Self::Uint16 => "uint16",
            Self::Uint32 => "uint32",
            Self::Uint64 => "uint64",
            Self::Sint8 => "sint8",
            Self::Sint16 => "sint16",
            Self::Sint32 => "sint32",
            Self::Sint64 => "sint64",
            Self::Real32 => "real32",
            Self::Real64 => "real64",
            Self::Char16 => "char16",
            Self::String => "string",
            Self::DateTime => "datetime",
            Self::Reference(_) => "reference",
        }
    }

    /// The type of this name, without regard to case.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [
            Self::Boolean,
            Self::Uint8,
            Self::Uint16,
            Self::Uint32,
            Self::Uint64,
            Self::Sint8,
            Self::Sint16,
            Self::Sint32,
            Self::Sint64,
            Self::Real32,
            Self::Real64,
            Self::Char16,
            Self::String,
            Self::DateTime,
            Self::Reference(None),
        ];
        all.into_iter()
            .find(|ty| ty.name().eq_ignore_ascii_case(name))
    }

    /// Whether this is one of the eight integer types.
    pub fn is_integer(&self) -> bool {
        self.integer(0).is_some()
    }

    /// The number as a value of this type; `None` where the type is no integer or
    /// the number is out of its range.
    pub fn integer(&self, number: i128) -> Option<Value> {
        Some(match self {
            Self::Uint8 => Value::Uint8(number.try_into().ok()?),
            Self::Uint16 => Value::Uint16(number.try_into().ok()?),
            Self::Uint32 => Value::Uint32(number.try_into().ok()?),
            Self::Uint64 => Value::Uint64(number.try_into().ok()?),
            Self::Sint8 => Value::Sint8(number.try_into().ok()?),
            Self::Sint16 => Value::Sint16(number.try_into().ok()?),
            Self::Sint32 => Value::Sint32(number.try_into().ok()?),
            Self::Sint64 => Value::Sint64(number.try_into().ok()?),
            _ => return None,
        })
    }

    /// Reads a scalar as CIM-XML and object paths write it (DSP0201 §5.2.1):
    /// `true`/`false`, decimal or `0x` integers, decimal or exponent reals,
    /// one character, text, a datetime, an object path.
    pub fn parse(&self, text: &str) -> Result<Value, ValueError> {
        let error = || ValueError {
            ty: self.name(),
            text: text.chars().take(80).collect(),
        };
        let trimmed = text.trim();
        Ok(match self {
            Self::Boolean if trimmed.eq_ignore_ascii_case("true") => Value::Boolean(true),
            Self::Boolean if trimmed.eq_ignore_ascii_case("false") => Value::Boolean(false),
            Self::Boolean => return Err(error()),
            Self::Real32 => Value::Real32(trimmed.parse().map_err(|_| error())?),
            Self::Real64 => Value::Real64(trimmed.parse().map_err(|_| error())?),
            Self::Char16 => {
                let mut units = text.encode_utf16();
                match (units.next(), units.next()) {
                    (Some(unit), None) => Value::Char16(unit),
                    _ => return Err(error()),
                }
            }
            Self::String => Value::String(text.to_owned()),
            Self::DateTime => Value::DateTime(trimmed.parse().map_err(|_| error())?),
            Self::Reference(_) => Value::Reference(Box::new(text.parse().map_err(|_| error())?)),
            _ => whole_number(trimmed)
                .and_then(|number| self.integer(number))
                .ok_or_else(error)?,
        })
    }
}

/// A decimal or `0x` number with an optional sign.
fn whole_number(text: &str) -> Option<i128> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (digits, radix) = match rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (rest, 10),
    };
    // `from_str_radix` would take a second sign.
    let number = digits.starts_with(|c: char| c.is_digit(radix));
    let number = number
        .then(|| i128::from_str_radix(digits, radix).ok())
        .flatten()?;
    Some(if negative { -number } else { number })
}

impl Value {
    /// The intrinsic type; of an array, its elements' (`None` when it has no
    /// element that is not null).
    pub fn cim_type(&self) -> Option<CimType> {
        Some(match self {
            Self::Boolean(_) => CimType::Boolean,
            Self::Uint8(_) => CimType::Uint8,
            Self::Uint16(_) => CimType::Uint16,
            Self::Uint32(_) => CimType::Uint32,
            Self::Uint64(_) => CimType::Uint64,
            Self::Sint8(_) => CimType::Sint8,
            Self::Sint16(_) => CimType::Sint16,
            Self::Sint32(_) => CimType::Sint32,
            Self::Sint64(_) => CimType::Sint64,
            Self::Real32(_) => CimType::Real32,
            Self::Real64(_) => CimType::Real64,
            Self::Char16(_) => CimType::Char16,
            Self::String(_) | Self::Instance(_) | Self::Class(_) => CimType::String,
            Self::DateTime(_) => CimType::DateTime,
            Self::Reference(path) => CimType::Reference(Some(path.class.clone())),
            Self::Array(items) => return items.iter().flatten().find_map(Self::cim_type),
        })
    }

    /// The text of a string value.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The value of a boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Boolean(value) => Some(*value),
            _ => None,
        }
    }

    /// The value of any integer type, where it is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::Uint8(v) => Some(v.into()),
            Self::Uint16(v) => Some(v.into()),
            Self::Uint32(v) => Some(v.into()),
            Self::Uint64(v) => Some(v),
            Self::Sint8(v) => v.try_into().ok(),
            Self::Sint16(v) => v.try_into().ok(),
            Self::Sint32(v) => v.try_into().ok(),
            Self::Sint64(v) => v.try_into().ok(),
            _ => None,
        }
    }

    /// The value of any integer type.
    pub fn as_integer(&self) -> Option<i128> {
        Some(match *self {
            Self::Uint8(v) => v.into(),
            Self::Uint16(v) => v.into(),
            Self::Uint32(v) => v.into(),
            Self::Uint64(v) => v.into(),
            Self::Sint8(v) => v.into(),
            Self::Sint16(v) => v.into(),
            Self::Sint32(v) => v.into(),
            Self::Sint64(v) => v.into(),
            _ => return None,
        })
    }

    /// The path of a reference.
    pub fn as_reference(&self) -> Option<&ObjectPath> {
        match self {
            Self::Reference(path) => Some(path),
            _ => None,
        }
    }
}

impl From<bool> for Value {
    fn from(v: bool) -> Self {
        Self::Boolean(v)
    }
}

impl From<u8> for Value {
    fn from(v: u8) -> Self {
        Self::Uint8(v)
    }
}

impl From<u16> for Value {
    fn from(v: u16) -> Self {
        Self::Uint16(v)
    }
}

impl From<u32> for Value {
    fn from(v: u32) -> Self {
        Self::Uint32(v)
    }
}

impl From<u64> for Value {
    fn from(v: u64) -> Self {
        Self::Uint64(v)
    }
}

impl From<&str> for Value {
    fn from(v: &str) -> Self {
        Self::String(v.to_owned())
    }
}

impl From<String> for Value {
    fn from(v: String) -> Self {
        Self::String(v)
    }
}

impl From<DateTime> for Value {
    fn from(v: DateTime) -> Self {
        Self::DateTime(v)
    }
}

impl From<ObjectPath> for Value {
    fn from(v: ObjectPath) -> Self {
        Self::Reference(Box::new(v))
    }
}

impl From<Instance> for Value {
    fn from(v: Instance) -> Self {
        Self::Instance(Box::new(v))
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(items: Vec<T>) -> Self {
        Self::Array(items.into_iter().map(|item| Some(item.into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_read_as_the_type_or_refused() {
        let table: [(CimType, &str, Option<Value>); 32] = [
            (CimType::Boolean, " TRUE ", Some(Value::Boolean(true))),
            (CimType::Boolean, "false", Some(Value::Boolean(false))),
            (CimType::Boolean, "1", None),
            (CimType::Uint8, "255", Some(Value::Uint8(255))),
            (CimType::Uint8, "+0xFf", Some(Value::Uint8(255))),
            (CimType::Uint8, "256", None),
            (CimType::Uint8, "-1", None),
            (CimType::Uint8, "++1", None),
            (CimType::Uint8, "0x", None),
            (CimType::Uint8, "0x+1", None),
            (CimType::Uint8, "", None),
            (CimType::Uint8, "1.0", None),
            (
                CimType::Uint64,
                "18446744073709551615",
                Some(Value::Uint64(u64::MAX)),
            ),
            (CimType::Uint64, "18446744073709551616", None),
            (CimType::Sint8, "-128", Some(Value::Sint8(-128))),
            (CimType::Sint8, "-0x80", Some(Value::Sint8(-128))),
            (CimType::Sint8, "128", None),
            (CimType::Sint16, "\n7", Some(Value::Sint16(7))),
            (
                CimType::Sint32,
                "-2147483648",
                Some(Value::Sint32(i32::MIN)),
            ),
            (CimType::Sint64, "-9223372036854775809", None),
            (CimType::Real32, "1.5e1", Some(Value::Real32(15.0))),
            (CimType::Real64, "-2", Some(Value::Real64(-2.0))),
            (CimType::Real64, "x", None),
            (CimType::Char16, "\u{20ac}", Some(Value::Char16(0x20ac))),
            (CimType::Char16, "ab", None),
            (CimType::Char16, "\u{1f600}", None),
            (
                CimType::String,
                " x ",
                Some(Value::String(" x ".to_owned())),
            ),
            (CimType::DateTime, "x", None),
            (
                CimType::DateTime,
                "20240101000000.000000+000",
                Some(Value::DateTime(
                    "20240101000000.000000+000".parse().unwrap(),
                )),
            ),
            (
                CimType::Reference(None),
                "A_B.K=1",
                Some(Value::Reference(Box::new(
                    ObjectPath::class("A_B").with_key("K", 1u64),
                ))),
            ),
            (CimType::Reference(None), "A_B.K", None),
            (CimType::Reference(None), "", None),
        ];
        for (ty, text, value) in table {
            assert_eq!(ty.parse(text).ok(), value, "{} {text:?}", ty.name());
        }
    }

    #[test]
    fn every_type_is_found_by_its_name() {
        for name in [
            "boolean", "UINT8", "sint64", "Real32", "char16", "string", "datetime",
        ] {
            let ty = CimType::from_name(name).unwrap();
            assert!(ty.name().eq_ignore_ascii_case(name));
        }
        assert_eq!(
            CimType::from_name("reference"),
            Some(CimType::Reference(None))
        );
        assert_eq!(CimType::from_name("int"), None);
    }
}
