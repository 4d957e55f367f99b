//! Instances and their properties.

use indexmap::IndexMap;

use crate::{CimType, Embedded, Name, ObjectPath, TypedValue, Value};

/// An instance of a class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Instance {
    /// The creation class.
    pub class: Name,
    /// Where the instance lives; `None` for one that was only described
    /// (an embedded instance, a new instance).
    pub path: Option<ObjectPath>,
    /// The properties that the instance carries, in declaration order.
    pub properties: IndexMap<Name, Property>,
}

/// A property's value in an instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Property {
    /// Declared type, whether an array, and the value or null.
    pub value: TypedValue,
    /// Set where the text of a string property is a CIM element.
    pub embedded: Option<Embedded>,
    /// The class that declared the property, where it is known.
    pub class_origin: Option<Name>,
}

impl Instance {
    /// An instance of `class` without properties.
    pub fn new(class: impl Into<Name>) -> Self {
        Self {
            class: class.into(),
            path: None,
            properties: IndexMap::new(),
        }
    }

    /// The property's value; `None` if it is absent or null.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.properties.get(&Name::from(name))?.value.value.as_ref()
    }

    /// Sets a property whose type follows from its value.
    pub fn set(&mut self, name: impl Into<Name>, value: impl Into<Value>) -> &mut Self {
        let value = value.into();
        let ty = value.cim_type().unwrap_or(CimType::String);
        let embedded = match &value {
            Value::Instance(instance) => Some(Embedded::Instance(instance.class.clone())),
            Value::Class(_) => Some(Embedded::Object),
            _ => None,
        };
        let is_array = matches!(value, Value::Array(_));
        self.properties.insert(
            name.into(),
            Property {
                value: TypedValue {
                    ty,
                    is_array,
                    value: Some(value),
                },
                embedded,
                class_origin: None,
            },
        );
        self
    }
}
