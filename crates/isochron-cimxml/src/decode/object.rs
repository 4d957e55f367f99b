//! DSP0201 §5.2.3 and §5.2.5: values, instances and their properties.
//!
//! A text that is no value of its type is [`DecodeError::BadValue`]: the
//! document is fine, the call is not.

use isochron_cim::{CimType, Embedded, Instance, Name, ObjectPath, Property, TypedValue, Value};

use super::path::unknown_type;
use super::xml::{Element, Pull};
use super::{DecodeError, Decoded};

impl Pull<'_> {
    /// INSTANCE with its properties. Qualifiers on instances are passed over
    /// (DSP0200 deprecates them).
    pub fn instance(&mut self, e: &Element) -> Decoded<Instance> {
        let mut instance = Instance::new(e.required("CLASSNAME")?);
        while let Some(e) = self.child()? {
            let property = match e.name.as_str() {
                "QUALIFIER" => {
                    self.skip()?;
                    continue;
                }
                "PROPERTY" => self.property(&e)?,
                "PROPERTY.ARRAY" => self.property_array(&e)?,
                "PROPERTY.REFERENCE" => self.property_reference(&e)?,
                // WMI's DTD: an embedded object as elements rather than text.
                "PROPERTY.OBJECT" if self.lenient => self.property_object(&e)?,
                "PROPERTY.OBJECTARRAY" if self.lenient => self.property_objectarray(&e)?,
                _ if self.lenient => {
                    self.skip()?;
                    continue;
                }
                _ => return Err(e.unexpected("INSTANCE")),
            };
            let name = e.required("NAME")?;
            // WMI's DTD: system properties such as __PATH.
            if self.lenient && name.starts_with("__") {
                continue;
            }
            if instance
                .properties
                .insert(Name::from(name), property)
                .is_some()
            {
                return Err(DecodeError::BadValue(format!(
                    "the property {name} is given twice"
                )));
            }
        }
        Ok(instance)
    }

    fn property(&mut self, e: &Element) -> Decoded<Property> {
        let ty = self.element_type(e)?;
        let embedded = embedded_object(e)?;
        let mut value = None;
        while let Some(child) = self.child()? {
            match child.name.as_str() {
                "QUALIFIER" => self.skip()?,
                "VALUE" if value.is_none() => {
                    value = self
                        .value(&ty, embedded.as_ref())
                        .map_err(|error| within(error, e))?;
                }
                _ => return Err(child.unexpected("PROPERTY")),
            }
        }
        Ok(property(
            e,
            TypedValue {
                ty,
                is_array: false,
                value,
            },
            embedded,
        ))
    }

    fn property_array(&mut self, e: &Element) -> Decoded<Property> {
        let ty = self.element_type(e)?;
        let embedded = embedded_object(e)?;
        let mut value = None;
        while let Some(child) = self.child()? {
            match child.name.as_str() {
                "QUALIFIER" => self.skip()?,
                "VALUE.ARRAY" if value.is_none() => {
                    let items = self.value_array(&ty, embedded.as_ref());
                    value = Some(Value::Array(items.map_err(|error| within(error, e))?));
                }
                _ => return Err(child.unexpected("PROPERTY.ARRAY")),
            }
        }
        Ok(property(
            e,
            TypedValue {
                ty,
                is_array: true,
                value,
            },
            embedded,
        ))
    }

    fn property_reference(&mut self, e: &Element) -> Decoded<Property> {
        let ty = CimType::Reference(e.attribute("REFERENCECLASS").map(Name::from));
        let mut value = None;
        while let Some(child) = self.child()? {
            match child.name.as_str() {
                "QUALIFIER" => self.skip()?,
                "VALUE.REFERENCE" if value.is_none() => {
                    value = Some(self.value_reference()?.into());
                }
                _ => return Err(child.unexpected("PROPERTY.REFERENCE")),
            }
        }
        Ok(property(
            e,
            TypedValue {
                ty,
                is_array: false,
                value,
            },
            None,
        ))
    }

    fn property_object(&mut self, e: &Element) -> Decoded<Property> {
        let mut value = None;
        while let Some(child) = self.child()? {
            match child.name.as_str() {
                "VALUE.OBJECT" => value = self.value_object()?,
                _ => self.skip()?,
            }
        }
        let value = TypedValue {
            ty: CimType::String,
            is_array: false,
            value,
        };
        Ok(property(e, value, Some(Embedded::Object)))
    }

    fn property_objectarray(&mut self, e: &Element) -> Decoded<Property> {
        let mut value = None;
        while let Some(child) = self.child()? {
            if child.name != "VALUE.OBJECTARRAY" {
                self.skip()?;
                continue;
            }
            let mut items = Vec::new();
            while let Some(item) = self.child()? {
                match item.name.as_str() {
                    "VALUE.OBJECT" => items.push(self.value_object()?),
                    _ => self.skip()?,
                }
            }
            value = Some(Value::Array(items));
        }
        let value = TypedValue {
            ty: CimType::String,
            is_array: true,
            value,
        };
        Ok(property(e, value, Some(Embedded::Object)))
    }

    fn value_object(&mut self) -> Decoded<Option<Value>> {
        let mut value = None;
        while let Some(e) = self.child()? {
            match e.name.as_str() {
                "INSTANCE" => value = Some(self.instance(&e)?.into()),
                "CLASS" => value = Some(Value::Class(Box::new(self.class(&e)?))),
                _ => self.skip()?,
            }
        }
        Ok(value)
    }

    /// VALUE: text of the type. An embedded object that is blank is null.
    pub fn value(&mut self, ty: &CimType, embedded: Option<&Embedded>) -> Decoded<Option<Value>> {
        let text = self.content()?;
        if embedded.is_some() {
            return self.embedded_value(&text);
        }
        if self.lenient && *ty != CimType::String && text.trim().is_empty() {
            return Ok(None);
        }
        ty.parse(&text)
            .map(Some)
            .map_err(|e| DecodeError::BadValue(e.to_string()))
    }

    /// VALUE.ARRAY: VALUE and VALUE.NULL.
    pub fn value_array(
        &mut self,
        ty: &CimType,
        embedded: Option<&Embedded>,
    ) -> Decoded<Vec<Option<Value>>> {
        let mut items = Vec::new();
        while let Some(e) = self.child()? {
            items.push(match e.name.as_str() {
                "VALUE" => self.value(ty, embedded)?,
                "VALUE.NULL" => self.value_null()?,
                _ => return Err(e.unexpected("VALUE.ARRAY")),
            });
        }
        Ok(items)
    }

    /// VALUE.REFARRAY: VALUE.REFERENCE and VALUE.NULL.
    pub fn value_refarray(&mut self) -> Decoded<Vec<Option<Value>>> {
        let mut items = Vec::new();
        while let Some(e) = self.child()? {
            items.push(match e.name.as_str() {
                "VALUE.REFERENCE" => Some(self.value_reference()?.into()),
                "VALUE.NULL" => self.value_null()?,
                _ => return Err(e.unexpected("VALUE.REFARRAY")),
            });
        }
        Ok(items)
    }

    fn value_null(&mut self) -> Decoded<Option<Value>> {
        self.close("VALUE.NULL")?;
        Ok(None)
    }

    /// VALUE.NAMEDINSTANCE: an instance with its name as its path.
    pub fn value_namedinstance(&mut self) -> Decoded<Instance> {
        let e = self.expect("VALUE.NAMEDINSTANCE", "INSTANCENAME")?;
        let path = self.instancename(&e)?;
        let e = self.expect("VALUE.NAMEDINSTANCE", "INSTANCE")?;
        let mut instance = self.instance(&e)?;
        self.close("VALUE.NAMEDINSTANCE")?;
        instance.path = Some(path);
        Ok(instance)
    }

    /// PARAMVALUE: a method's parameter. One without a type is a string or a
    /// reference, as its value is; one without a name gets the empty name.
    pub fn paramvalue(&mut self, e: &Element) -> Decoded<(Name, TypedValue)> {
        let name = Name::from(e.attribute("NAME").unwrap_or_default());
        let ty = match e.attribute("PARAMTYPE").or(e.attribute("TYPE")) {
            Some(text) if !text.is_empty() => {
                CimType::from_name(text).ok_or_else(|| unknown_type(text))?
            }
            _ => CimType::String,
        };
        let embedded = embedded_object(e)?;
        let mut parameter = TypedValue {
            ty,
            is_array: false,
            value: None,
        };
        let any = CimType::Reference(None);
        if let Some(child) = self.child()? {
            let (ty, is_array, value) = match child.name.as_str() {
                "VALUE" => {
                    let value = self.value(&parameter.ty, embedded.as_ref());
                    (
                        parameter.ty,
                        false,
                        value.map_err(|error| within(error, e))?,
                    )
                }
                "VALUE.ARRAY" => {
                    let items = self.value_array(&parameter.ty, embedded.as_ref());
                    let items = items.map_err(|error| within(error, e))?;
                    (parameter.ty, true, Some(Value::Array(items)))
                }
                "VALUE.REFERENCE" => (any, false, Some(self.value_reference()?.into())),
                "VALUE.REFARRAY" => (any, true, Some(Value::Array(self.value_refarray()?))),
                "INSTANCENAME" => (any, false, Some(self.instancename(&child)?.into())),
                "CLASSNAME" => {
                    let path = ObjectPath::class(self.classname(&child)?);
                    (any, false, Some(path.into()))
                }
                "INSTANCE" => (CimType::String, false, Some(self.instance(&child)?.into())),
                "VALUE.NAMEDINSTANCE" => (
                    CimType::String,
                    false,
                    Some(self.value_namedinstance()?.into()),
                ),
                "CLASS" => {
                    let class = Value::Class(Box::new(self.class(&child)?));
                    (CimType::String, false, Some(class))
                }
                _ => return Err(child.unexpected("PARAMVALUE")),
            };
            parameter = TypedValue {
                ty,
                is_array,
                value,
            };
            self.close("PARAMVALUE")?;
        }
        Ok((name, parameter))
    }

    /// The TYPE of an element; where it is missing in an embedded document,
    /// string.
    pub fn element_type(&self, e: &Element) -> Decoded<CimType> {
        match e.attribute("TYPE").filter(|text| !text.is_empty()) {
            Some(text) => match CimType::from_name(text) {
                Some(ty) => Ok(ty),
                None if self.lenient => Ok(CimType::String),
                None => Err(unknown_type(text)),
            },
            None if self.lenient => Ok(CimType::String),
            None => e.required("TYPE").map(|_| CimType::String),
        }
    }
}

/// The EmbeddedObject attribute (also in the capitals that some senders use).
fn embedded_object(e: &Element) -> Decoded<Option<Embedded>> {
    match e
        .attribute("EmbeddedObject")
        .or(e.attribute("EMBEDDEDOBJECT"))
    {
        None | Some("") => Ok(None),
        Some(text) if text.eq_ignore_ascii_case("instance") => {
            Ok(Some(Embedded::Instance(Name::default())))
        }
        Some(text) if text.eq_ignore_ascii_case("object") => Ok(Some(Embedded::Object)),
        Some(text) => Err(DecodeError::NotLooselyValid(format!(
            "EmbeddedObject is instance or object, not {text:?}"
        ))),
    }
}

fn property(e: &Element, value: TypedValue, mut embedded: Option<Embedded>) -> Property {
    if let (Some(Embedded::Instance(class)), Some(Value::Instance(instance))) =
        (&mut embedded, &value.value)
    {
        *class = instance.class.clone();
    }
    let class_origin = e
        .attribute("CLASSORIGIN")
        .filter(|name| !name.is_empty())
        .map(Name::from);
    Property {
        value,
        embedded,
        class_origin,
    }
}

/// Says in which element a value is bad.
fn within(error: DecodeError, e: &Element) -> DecodeError {
    match error {
        DecodeError::BadValue(reason) => DecodeError::BadValue(format!(
            "{}: {reason}",
            e.attribute("NAME").unwrap_or(&e.name)
        )),
        other => other,
    }
}
