//! Values take the types that their class declares: a provider's instances,
//! clients' paths and method parameters.
//!
//! A protocol may bring an untyped value as a string, an integer of another width,
//! or a reference where a string is meant. What can be read as the declared type
//! without loss is, and everything else is an error.

use indexmap::IndexMap;

use super::{Repository, embedded};
use crate::{CimError, CimType, Instance, Name, ObjectPath, Property, Status, TypedValue, Value};

/// How deep instances may stand in the properties of instances.
const MAX_DEPTH: usize = 16;

impl Repository {
    /// The instance with all properties that its class has, in the class's order and
    /// with the declared types, origins and embedded marks; those missing are null.
    /// Embedded instances of classes that are known here are completed too.
    ///
    /// # Errors
    /// `INVALID_CLASS`, `NO_SUCH_PROPERTY` where the class lacks a property,
    /// `TYPE_MISMATCH` where a value does not fit.
    pub fn complete(&self, instance: Instance) -> Result<Instance, CimError> {
        self.complete_at(instance, 0)
    }

    fn complete_at(&self, mut instance: Instance, depth: usize) -> Result<Instance, CimError> {
        if depth > MAX_DEPTH {
            return Err(CimError::failed("instances stand too deep in instances"));
        }
        let class = self.class(&instance.class)?;
        let mut properties = IndexMap::with_capacity(class.properties.len());
        for (name, decl) in &class.properties {
            let (value, given_embedded) = match instance.properties.shift_remove(name) {
                Some(property) => (property.value.value, property.embedded),
                None => (None, None),
            };
            let value = match value {
                None => None,
                Some(value) => {
                    let value = coerce(value, &decl.value.ty, decl.value.is_array)
                        .map_err(|why| mismatch(format!("{}.{name}: {why}", class.name)))?;
                    Some(self.complete_embedded(value, depth)?)
                }
            };
            let TypedValue { ty, is_array, .. } = decl.value.clone();
            let property = Property {
                value: TypedValue {
                    ty,
                    is_array,
                    value,
                },
                embedded: embedded(&decl.qualifiers).or(given_embedded),
                class_origin: Some(decl.class_origin.clone()),
            };
            properties.insert(name.clone(), property);
        }
        if let Some(name) = instance.properties.keys().next() {
            return Err(CimError::new(
                Status::NoSuchProperty,
                format!("{} has no property {name}", class.name),
            ));
        }
        let path = instance
            .path
            .map(|path| self.complete_path(path))
            .transpose()?;
        Ok(Instance {
            class: class.name.clone(),
            path,
            properties,
        })
    }

    fn complete_embedded(&self, value: Value, depth: usize) -> Result<Value, CimError> {
        Ok(match value {
            Value::Instance(instance) if self.get(&instance.class).is_some() => {
                Value::Instance(Box::new(self.complete_at(*instance, depth + 1)?))
            }
            Value::Array(items) => {
                let items = items.into_iter().map(|item| {
                    item.map(|item| self.complete_embedded(item, depth))
                        .transpose()
                });
                Value::Array(items.collect::<Result<_, _>>()?)
            }
            value => value,
        })
    }

    /// The path with its keys in the class's order and of the declared types; a key
    /// without a name is the class's only one. Host and namespace stay.
    ///
    /// # Errors
    /// `INVALID_CLASS`; `INVALID_PARAMETER` where a key is missing, is none of the
    /// class's, or has a value that does not fit.
    pub fn complete_path(&self, mut path: ObjectPath) -> Result<ObjectPath, CimError> {
        let class = self.class(&path.class)?;
        let names = self.key_names(&path.class);
        if let ([only], 1) = (names, path.keys.len())
            && let Some(value) = path.keys.shift_remove(&Name::fixed(""))
        {
            path.keys.insert(only.clone(), value);
        }
        let mut keys = IndexMap::with_capacity(names.len());
        for name in names {
            let Some(value) = path.keys.shift_remove(name) else {
                return Err(CimError::invalid_parameter(format!(
                    "the path of a {} lacks the key {name}",
                    class.name
                )));
            };
            let ty = class
                .properties
                .get(name)
                .map_or(&CimType::String, |p| &p.value.ty);
            let value = coerce(value, ty, false).map_err(|why| {
                CimError::invalid_parameter(format!("{}, key {name}: {why}", class.name))
            })?;
            keys.insert(name.clone(), value);
        }
        if let Some(name) = path.keys.keys().next() {
            return Err(CimError::invalid_parameter(format!(
                "{} has no key {:?}",
                class.name,
                name.as_str()
            )));
        }
        Ok(ObjectPath {
            class: class.name.clone(),
            keys,
            ..path
        })
    }

    /// The path, without host and namespace, that the instance's keys make.
    ///
    /// # Errors
    /// `INVALID_CLASS`; `INVALID_PARAMETER` where a key is missing, null or does not fit.
    pub fn path_of(&self, instance: &Instance) -> Result<ObjectPath, CimError> {
        let mut path = ObjectPath::class(instance.class.clone());
        for name in self.key_names(&instance.class) {
            if let Some(value) = instance.get(name.as_str()) {
                path.keys.insert(name.clone(), value.clone());
            }
        }
        self.complete_path(path)
    }

    /// A method call's in-parameters, in the order of the declaration and of the
    /// declared types; those not given are null.
    ///
    /// # Errors
    /// `INVALID_CLASS`, `METHOD_NOT_FOUND`; `INVALID_PARAMETER` where a parameter is
    /// none of the method's, only comes out and is not null, or does not fit.
    pub fn check_parameters(
        &self,
        class: &Name,
        method: &Name,
        mut given: IndexMap<Name, TypedValue>,
    ) -> Result<IndexMap<Name, TypedValue>, CimError> {
        let class = self.class(class)?;
        let Some(decl) = class.methods.get(method) else {
            let message = format!("{} has no method {method}", class.name);
            return Err(CimError::new(Status::MethodNotFound, message));
        };
        let mut parameters = IndexMap::with_capacity(decl.parameters.len());
        for (name, parameter) in &decl.parameters {
            let value = given.shift_remove(name).and_then(|given| given.value);
            if !parameter.is_in() {
                if value.is_some() {
                    return Err(CimError::invalid_parameter(format!(
                        "{method}: the parameter {name} only comes out"
                    )));
                }
                continue;
            }
            let value = value
                .map(|value| coerce(value, &parameter.ty, parameter.is_array))
                .transpose()
                .map_err(|why| CimError::invalid_parameter(format!("{method}, {name}: {why}")))?;
            let (ty, is_array) = (parameter.ty.clone(), parameter.is_array);
            parameters.insert(
                name.clone(),
                TypedValue {
                    ty,
                    is_array,
                    value,
                },
            );
        }
        match given.keys().next() {
            None => Ok(parameters),
            Some(name) => Err(CimError::invalid_parameter(format!(
                "{method} has no parameter {name}"
            ))),
        }
    }
}

fn mismatch(message: String) -> CimError {
    CimError::new(Status::TypeMismatch, message)
}

/// The value as the declared type; an array of one where one value stands for an
/// array, as untyped clients write it.
fn coerce(value: Value, ty: &CimType, is_array: bool) -> Result<Value, String> {
    match (value, is_array) {
        (Value::Array(items), true) => {
            let items = items
                .into_iter()
                .map(|item| item.map(|v| scalar(v, ty)).transpose());
            Ok(Value::Array(items.collect::<Result<_, _>>()?))
        }
        (Value::Array(_), false) => Err(format!("an array where one {} is declared", ty.name())),
        (value, true) => Ok(Value::Array(vec![Some(scalar(value, ty)?)])),
        (value, false) => scalar(value, ty),
    }
}

fn scalar(value: Value, ty: &CimType) -> Result<Value, String> {
    let wrong = |value: &Value| {
        let found = value.cim_type().map_or("nothing", |ty| ty.name());
        Err(format!(
            "a value of type {found} where {} is declared",
            ty.name()
        ))
    };
    match (ty, value) {
        (CimType::String, Value::Reference(path)) => Ok(Value::String(path.to_string())),
        (CimType::String, Value::DateTime(value)) => Ok(Value::String(value.to_string())),
        (CimType::String, Value::Char16(unit)) => {
            Ok(Value::String(String::from_utf16_lossy(&[unit])))
        }
        (CimType::Reference(_), value @ Value::Reference(_)) => Ok(value),
        (CimType::Real32, Value::Real64(v)) => CimType::Real32
            .parse(&v.to_string())
            .map_err(|error| error.to_string()),
        (CimType::Real64, Value::Real32(v)) => Ok(Value::Real64(f64::from(v))),
        (ty, Value::String(text)) => ty.parse(&text).map_err(|error| error.to_string()),
        (ty, value) => match value.as_integer() {
            Some(number) if ty.is_integer() => ty
                .integer(number)
                .ok_or_else(|| format!("{number} is out of the range of {}", ty.name())),
            #[allow(clippy::cast_precision_loss)] // A real is what was declared.
            Some(number) if *ty == CimType::Real64 => Ok(Value::Real64(number as f64)),
            _ if value.cim_type().as_ref() == Some(ty) => Ok(value),
            _ => wrong(&value),
        },
    }
}
