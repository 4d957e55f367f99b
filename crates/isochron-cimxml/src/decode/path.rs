//! DSP0201 §5.2.4, "Naming and location elements": namespaces, class names,
//! instance names with their keys, and the paths made of them.

use isochron_cim::{CimType, Name, ObjectPath, Value};

use super::xml::{Element, Pull};
use super::{DecodeError, Decoded};

impl Pull<'_> {
    /// HOST and LOCALNAMESPACEPATH.
    pub fn namespacepath(&mut self) -> Decoded<(String, String)> {
        self.expect("NAMESPACEPATH", "HOST")?;
        let host = self.content()?.trim().to_owned();
        self.expect("NAMESPACEPATH", "LOCALNAMESPACEPATH")?;
        let namespace = self.localnamespacepath()?;
        self.close("NAMESPACEPATH")?;
        Ok((host, namespace))
    }

    /// The namespace, with slashes.
    pub fn localnamespacepath(&mut self) -> Decoded<String> {
        let mut parts = Vec::new();
        while let Some(e) = self.child()? {
            match e.name.as_str() {
                "NAMESPACE" => {
                    parts.push(
                        e.required("NAME")?
                            .trim_matches(['/', '\\'])
                            .replace('\\', "/"),
                    );
                    self.close("NAMESPACE")?;
                }
                _ => return Err(e.unexpected("LOCALNAMESPACEPATH")),
            }
        }
        if parts.is_empty() {
            return Err(DecodeError::NotLooselyValid(
                "LOCALNAMESPACEPATH needs at least one NAMESPACE".into(),
            ));
        }
        Ok(parts.join("/"))
    }

    /// A class's name.
    pub fn classname(&mut self, e: &Element) -> Decoded<Name> {
        let name = Name::from(e.required("NAME")?);
        self.close("CLASSNAME")?;
        Ok(name)
    }

    /// A class with its namespace and host.
    pub fn classpath(&mut self) -> Decoded<ObjectPath> {
        self.expect("CLASSPATH", "NAMESPACEPATH")?;
        let (host, namespace) = self.namespacepath()?;
        let e = self.expect("CLASSPATH", "CLASSNAME")?;
        let path = ObjectPath::class(self.classname(&e)?).in_namespace(namespace);
        self.close("CLASSPATH")?;
        Ok(ObjectPath {
            host: Some(host),
            ..path
        })
    }

    /// A class with its namespace.
    pub fn localclasspath(&mut self) -> Decoded<ObjectPath> {
        self.expect("LOCALCLASSPATH", "LOCALNAMESPACEPATH")?;
        let namespace = self.localnamespacepath()?;
        let e = self.expect("LOCALCLASSPATH", "CLASSNAME")?;
        let path = ObjectPath::class(self.classname(&e)?).in_namespace(namespace);
        self.close("LOCALCLASSPATH")?;
        Ok(path)
    }

    /// An instance with its namespace and host.
    pub fn instancepath(&mut self) -> Decoded<ObjectPath> {
        self.expect("INSTANCEPATH", "NAMESPACEPATH")?;
        let (host, namespace) = self.namespacepath()?;
        let e = self.expect("INSTANCEPATH", "INSTANCENAME")?;
        let path = self.instancename(&e)?.in_namespace(namespace);
        self.close("INSTANCEPATH")?;
        Ok(ObjectPath {
            host: Some(host),
            ..path
        })
    }

    /// An instance with its namespace.
    pub fn localinstancepath(&mut self) -> Decoded<ObjectPath> {
        self.expect("LOCALINSTANCEPATH", "LOCALNAMESPACEPATH")?;
        let namespace = self.localnamespacepath()?;
        let e = self.expect("LOCALINSTANCEPATH", "INSTANCENAME")?;
        let path = self.instancename(&e)?.in_namespace(namespace);
        self.close("LOCALINSTANCEPATH")?;
        Ok(path)
    }

    /// A class and key bindings. A key without a name, which DSP0201 allows
    /// where there is only one, gets the empty name.
    pub fn instancename(&mut self, e: &Element) -> Decoded<ObjectPath> {
        let mut path = ObjectPath::class(e.required("CLASSNAME")?);
        while let Some(e) = self.child()? {
            let (name, value) = match e.name.as_str() {
                "KEYBINDING" => self.keybinding(&e)?,
                "KEYVALUE" => (Name::default(), self.keyvalue(&e)?),
                "VALUE.REFERENCE" => (Name::default(), self.value_reference()?.into()),
                _ => return Err(e.unexpected("INSTANCENAME")),
            };
            if path.keys.contains_key(&name) {
                return Err(DecodeError::BadValue(format!(
                    "the key {name:?} is given twice"
                )));
            }
            path.keys.insert(name, value);
        }
        Ok(path)
    }

    fn keybinding(&mut self, e: &Element) -> Decoded<(Name, Value)> {
        let name = Name::from(e.required("NAME")?);
        let value = match self.child()? {
            Some(e) if e.name == "KEYVALUE" => self.keyvalue(&e)?,
            Some(e) if e.name == "VALUE.REFERENCE" => self.value_reference()?.into(),
            Some(e) => return Err(e.unexpected("KEYBINDING")),
            None => {
                return Err(DecodeError::NotLooselyValid(format!(
                    "the KEYBINDING {:?} has no value",
                    name.as_str()
                )));
            }
        };
        self.close("KEYBINDING")?;
        Ok((name, value))
    }

    /// TYPE where it is given and not empty, else VALUETYPE; a number without
    /// TYPE becomes the widest type that holds it.
    fn keyvalue(&mut self, e: &Element) -> Decoded<Value> {
        let text = self.content()?;
        let parsed = match e.attribute("TYPE").filter(|ty| !ty.is_empty()) {
            Some(ty) => CimType::from_name(ty)
                .ok_or_else(|| unknown_type(ty))?
                .parse(&text),
            None => match e.attribute("VALUETYPE").unwrap_or("string") {
                "string" | "" => Ok(Value::String(text)),
                "boolean" => CimType::Boolean.parse(&text),
                "numeric" => [CimType::Uint64, CimType::Sint64]
                    .iter()
                    .find_map(|ty| ty.parse(&text).ok())
                    .map_or_else(|| CimType::Real64.parse(&text), Ok),
                other => {
                    return Err(DecodeError::NotLooselyValid(format!(
                        "VALUETYPE is string, boolean or numeric, not {other:?}"
                    )));
                }
            },
        };
        let value = parsed.map_err(|e| DecodeError::BadValue(format!("in a key: {e}")))?;
        let finite = match &value {
            Value::Real32(number) => number.is_finite(),
            Value::Real64(number) => number.is_finite(),
            _ => true,
        };
        // A path's text has no word for it (DSP0207).
        if finite {
            Ok(value)
        } else {
            Err(DecodeError::BadValue("a number in a key is finite".into()))
        }
    }

    /// A path of any form.
    pub fn value_reference(&mut self) -> Decoded<ObjectPath> {
        let Some(e) = self.child()? else {
            return Err(DecodeError::NotLooselyValid(
                "VALUE.REFERENCE is empty".into(),
            ));
        };
        let path = match e.name.as_str() {
            "CLASSPATH" => self.classpath()?,
            "LOCALCLASSPATH" => self.localclasspath()?,
            "CLASSNAME" => ObjectPath::class(self.classname(&e)?),
            "INSTANCEPATH" => self.instancepath()?,
            "LOCALINSTANCEPATH" => self.localinstancepath()?,
            "INSTANCENAME" => self.instancename(&e)?,
            _ => return Err(e.unexpected("VALUE.REFERENCE")),
        };
        self.close("VALUE.REFERENCE")?;
        Ok(path)
    }

    /// The next child, which must be `name`.
    pub fn expect(&mut self, parent: &str, name: &str) -> Decoded<Element> {
        match self.child()? {
            Some(e) if e.name == name => Ok(e),
            Some(e) => Err(e.unexpected(parent)),
            None => Err(DecodeError::NotLooselyValid(format!(
                "{parent} needs {name}"
            ))),
        }
    }
}

pub(super) fn unknown_type(ty: &str) -> DecodeError {
    DecodeError::NotLooselyValid(format!("{ty:?} is no CIM type"))
}
