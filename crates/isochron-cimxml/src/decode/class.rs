//! DSP0201 §5.2.2 and §5.2.5: class declarations with their properties,
//! methods, parameters and qualifiers, and qualifier types.

use indexmap::IndexMap;
use isochron_cim::{
    CimType, Class, Flavor, Method, Name, Parameter, PropertyDecl, Qualifier, QualifierDecl, Scope,
    TypedValue, Value,
};

use super::xml::{Element, Pull};
use super::{DecodeError, Decoded};

type Qualifiers = IndexMap<Name, Qualifier>;

impl Pull<'_> {
    /// CLASS. An element without CLASSORIGIN originates in the class itself.
    pub fn class(&mut self, e: &Element) -> Decoded<Class> {
        let mut class = Class {
            name: e.required("NAME")?.into(),
            superclass: e
                .attribute("SUPERCLASS")
                .filter(|name| !name.is_empty())
                .map(Name::from),
            ..Class::default()
        };
        while let Some(e) = self.child()? {
            match e.name.as_str() {
                "QUALIFIER" => self.qualifier(&e, &mut class.qualifiers)?,
                "PROPERTY" | "PROPERTY.ARRAY" | "PROPERTY.REFERENCE" => {
                    let property = self.property_decl(&e, &class.name)?;
                    class
                        .properties
                        .insert(e.required("NAME")?.into(), property);
                }
                "METHOD" => {
                    let method = self.method(&e, &class.name)?;
                    class.methods.insert(e.required("NAME")?.into(), method);
                }
                _ if self.lenient => self.skip()?,
                _ => return Err(e.unexpected("CLASS")),
            }
        }
        Ok(class)
    }

    /// PROPERTY, PROPERTY.ARRAY and PROPERTY.REFERENCE in a class.
    fn property_decl(&mut self, e: &Element, class: &Name) -> Decoded<PropertyDecl> {
        let is_array = e.name == "PROPERTY.ARRAY";
        let ty = match e.name.as_str() {
            "PROPERTY.REFERENCE" => reference(e),
            _ => self.element_type(e)?,
        };
        let mut qualifiers = Qualifiers::new();
        let mut value = None;
        while let Some(child) = self.child()? {
            match child.name.as_str() {
                "QUALIFIER" => self.qualifier(&child, &mut qualifiers)?,
                "VALUE" => value = self.value(&ty, None)?,
                "VALUE.ARRAY" => value = Some(Value::Array(self.value_array(&ty, None)?)),
                "VALUE.REFERENCE" => value = Some(self.value_reference()?.into()),
                _ => return Err(child.unexpected(&e.name)),
            }
        }
        Ok(PropertyDecl {
            value: TypedValue {
                ty,
                is_array,
                value,
            },
            array_size: array_size(e)?,
            qualifiers,
            class_origin: origin(e, class),
            propagated: e.flag("PROPAGATED", false)?,
        })
    }

    fn method(&mut self, e: &Element, class: &Name) -> Decoded<Method> {
        let mut method = Method {
            return_type: self.element_type(e)?,
            qualifiers: Qualifiers::new(),
            parameters: IndexMap::new(),
            class_origin: origin(e, class),
            propagated: e.flag("PROPAGATED", false)?,
        };
        while let Some(child) = self.child()? {
            match child.name.as_str() {
                "QUALIFIER" => self.qualifier(&child, &mut method.qualifiers)?,
                "PARAMETER" | "PARAMETER.ARRAY" | "PARAMETER.REFERENCE" | "PARAMETER.REFARRAY" => {
                    let parameter = self.parameter(&child)?;
                    method
                        .parameters
                        .insert(child.required("NAME")?.into(), parameter);
                }
                _ => return Err(child.unexpected("METHOD")),
            }
        }
        Ok(method)
    }

    fn parameter(&mut self, e: &Element) -> Decoded<Parameter> {
        let (ty, is_array) = match e.name.as_str() {
            "PARAMETER.REFERENCE" => (reference(e), false),
            "PARAMETER.REFARRAY" => (reference(e), true),
            name => (self.element_type(e)?, name == "PARAMETER.ARRAY"),
        };
        let mut qualifiers = Qualifiers::new();
        while let Some(child) = self.child()? {
            match child.name.as_str() {
                "QUALIFIER" => self.qualifier(&child, &mut qualifiers)?,
                _ => return Err(child.unexpected(&e.name)),
            }
        }
        Ok(Parameter {
            ty,
            is_array,
            array_size: array_size(e)?,
            qualifiers,
        })
    }

    fn qualifier(&mut self, e: &Element, into: &mut Qualifiers) -> Decoded<()> {
        let ty = self.element_type(e)?;
        let mut is_array = false;
        let mut value = None;
        while let Some(child) = self.child()? {
            match child.name.as_str() {
                "VALUE" => value = self.value(&ty, None)?,
                "VALUE.ARRAY" => {
                    is_array = true;
                    value = Some(Value::Array(self.value_array(&ty, None)?));
                }
                _ => return Err(child.unexpected("QUALIFIER")),
            }
        }
        let qualifier = Qualifier {
            value: TypedValue {
                ty,
                is_array,
                value,
            },
            flavor: flavor(e)?,
            propagated: e.flag("PROPAGATED", false)?,
        };
        into.insert(e.required("NAME")?.into(), qualifier);
        Ok(())
    }

    /// QUALIFIER.DECLARATION.
    pub fn qualifier_declaration(&mut self, e: &Element) -> Decoded<QualifierDecl> {
        let ty = self.element_type(e)?;
        let is_array = e.flag("ISARRAY", false)?;
        let mut scope = Vec::new();
        let mut value = None;
        while let Some(child) = self.child()? {
            match child.name.as_str() {
                "SCOPE" => {
                    for (name, kind) in SCOPES {
                        if child.flag(name, false)? {
                            scope.push(kind);
                        }
                    }
                    self.close("SCOPE")?;
                }
                "VALUE" => value = self.value(&ty, None)?,
                "VALUE.ARRAY" => value = Some(Value::Array(self.value_array(&ty, None)?)),
                _ => return Err(child.unexpected("QUALIFIER.DECLARATION")),
            }
        }
        Ok(QualifierDecl {
            name: e.required("NAME")?.into(),
            value: TypedValue {
                ty,
                is_array,
                value,
            },
            array_size: array_size(e)?,
            scope,
            flavor: flavor(e)?,
        })
    }
}

/// SCOPE's attributes; `Any` is all of them.
pub(crate) const SCOPES: [(&str, Scope); 7] = [
    ("CLASS", Scope::Class),
    ("ASSOCIATION", Scope::Association),
    ("REFERENCE", Scope::Reference),
    ("PROPERTY", Scope::Property),
    ("METHOD", Scope::Method),
    ("PARAMETER", Scope::Parameter),
    ("INDICATION", Scope::Indication),
];

fn reference(e: &Element) -> CimType {
    CimType::Reference(
        e.attribute("REFERENCECLASS")
            .filter(|name| !name.is_empty())
            .map(Name::from),
    )
}

fn origin(e: &Element, class: &Name) -> Name {
    match e.attribute("CLASSORIGIN").filter(|name| !name.is_empty()) {
        Some(name) => name.into(),
        None => class.clone(),
    }
}

fn flavor(e: &Element) -> Decoded<Flavor> {
    Ok(Flavor {
        to_subclass: e.flag("TOSUBCLASS", true)?,
        overridable: e.flag("OVERRIDABLE", true)?,
        translatable: e.flag("TRANSLATABLE", false)?,
    })
}

fn array_size(e: &Element) -> Decoded<Option<u32>> {
    e.attribute("ARRAYSIZE")
        .map(|text| {
            text.parse().map_err(|_| {
                DecodeError::NotLooselyValid(format!("ARRAYSIZE is a number, not {text:?}"))
            })
        })
        .transpose()
}
