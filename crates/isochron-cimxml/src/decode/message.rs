//! DSP0201 §5.2.6, "Message elements": a request as a call.
//!
//! Only what the document is made of decides whether there is a request. A
//! value that does not fit its type, or a parameter given twice, is the
//! call's own error and is answered with a CIM status.

use indexmap::IndexMap;
use isochron_cim::{
    CimError, CimType, Class, Instance, Name, ObjectPath, QualifierDecl, TypedValue, Value,
};

use super::xml::{Element, Limits, Pull};
use super::{DecodeError, Decoded};

/// A SIMPLEREQ message.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The message's ID, which the response repeats.
    pub id: String,
    /// PROTOCOLVERSION.
    pub protocol_version: String,
    /// The method's name, as the client wrote it.
    pub method: String,
    /// What is called, and with what.
    pub call: Call,
}

/// A method call.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// IMETHODCALL: an operation of DSP0200.
    Intrinsic {
        /// The target namespace.
        namespace: String,
        /// Its parameters, or why they are not acceptable.
        arguments: Result<Arguments, CimError>,
    },
    /// METHODCALL: a method of a class.
    Extrinsic {
        /// The instance or, without keys, the class; always with a namespace.
        target: ObjectPath,
        /// Its parameters in their order, those without a name with an empty
        /// one; or why they are not acceptable.
        parameters: Result<Vec<(Name, TypedValue)>, CimError>,
    },
}

/// The parameters of an intrinsic method.
pub type Arguments = IndexMap<Name, Argument>;

/// The value of an IPARAMVALUE.
#[derive(Clone, Debug, PartialEq)]
pub enum Argument {
    /// Nothing is given: null.
    Null,
    /// VALUE.
    Text(String),
    /// VALUE.ARRAY.
    Texts(Vec<Option<String>>),
    /// INSTANCENAME or VALUE.REFERENCE.
    Path(ObjectPath),
    /// CLASSNAME.
    ClassName(Name),
    /// INSTANCE; VALUE.NAMEDINSTANCE where it has a path.
    Instance(Instance),
    /// CLASS.
    Class(Class),
    /// QUALIFIER.DECLARATION.
    Qualifier(QualifierDecl),
}

/// Reads a request.
///
/// # Errors
/// The document is not a simple CIM-XML request, or exceeds the limits.
pub fn request(bytes: &[u8], limits: Limits) -> Result<Request, DecodeError> {
    let mut pull = Pull::document(bytes, limits)?;
    let request = pull.cim();
    if let Err(error @ (DecodeError::NotWellFormed(_) | DecodeError::TooLarge(_))) = request {
        return Err(error);
    }
    // Whatever else is wrong, being no XML comes first.
    pull.drain()?;
    request
}

impl Pull<'_> {
    fn cim(&mut self) -> Decoded<Request> {
        let e = self.root()?;
        if e.name != "CIM" {
            return Err(e.unexpected("a request, whose root is CIM"));
        }
        version(e.required("CIMVERSION")?, "2", DecodeError::CimVersion)?;
        version(e.required("DTDVERSION")?, "2", DecodeError::DtdVersion)?;
        let e = self.expect("CIM", "MESSAGE")?;
        let request = self.message(&e)?;
        self.close("CIM")?;
        Ok(request)
    }

    fn message(&mut self, e: &Element) -> Decoded<Request> {
        let id = e.required("ID")?.to_owned();
        let protocol_version = e.required("PROTOCOLVERSION")?.to_owned();
        version(&protocol_version, "1", DecodeError::ProtocolVersion)?;
        let Some(e) = self.child()? else {
            return Err(DecodeError::NotLooselyValid("MESSAGE is empty".into()));
        };
        match e.name.as_str() {
            "SIMPLEREQ" => {}
            "MULTIREQ" | "MULTIEXPREQ" => return Err(DecodeError::MultipleRequests),
            _ => return Err(e.unexpected("a request's MESSAGE")),
        }
        let message = self.depth() - 1;
        let (method, call) = self.simplereq()?;
        // Where a value is bad, not all of the call was read.
        self.leave(message)?;
        self.close("MESSAGE")?;
        Ok(Request {
            id,
            protocol_version,
            method,
            call,
        })
    }

    fn simplereq(&mut self) -> Decoded<(String, Call)> {
        let e = loop {
            match self.child()? {
                Some(e) if e.name == "CORRELATOR" => self.skip()?,
                Some(e) => break e,
                None => return Err(DecodeError::NotLooselyValid("SIMPLEREQ is empty".into())),
            }
        };
        let method = e.required("NAME")?.to_owned();
        let call = match e.name.as_str() {
            "IMETHODCALL" => self.imethodcall()?,
            "METHODCALL" => self.methodcall()?,
            _ => return Err(e.unexpected("SIMPLEREQ")),
        };
        Ok((method, call))
    }

    fn imethodcall(&mut self) -> Decoded<Call> {
        self.expect("IMETHODCALL", "LOCALNAMESPACEPATH")?;
        let namespace = self.localnamespacepath()?;
        let arguments = self.arguments();
        Ok(Call::Intrinsic {
            namespace,
            arguments: or_refused(arguments)?,
        })
    }

    fn arguments(&mut self) -> Decoded<Arguments> {
        let mut arguments = Arguments::new();
        while let Some(e) = self.child()? {
            if e.name != "IPARAMVALUE" {
                return Err(e.unexpected("IMETHODCALL"));
            }
            let name = Name::from(e.required("NAME")?);
            let argument = self.iparamvalue()?;
            if arguments.contains_key(&name) {
                return Err(DecodeError::BadValue(format!(
                    "the parameter {name} is given twice"
                )));
            }
            arguments.insert(name, argument);
        }
        self.close("SIMPLEREQ")?;
        Ok(arguments)
    }

    fn iparamvalue(&mut self) -> Decoded<Argument> {
        let Some(e) = self.child()? else {
            return Ok(Argument::Null);
        };
        let argument = match e.name.as_str() {
            "VALUE" => Argument::Text(self.content()?),
            "VALUE.ARRAY" => {
                let items = self.value_array(&CimType::String, None)?.into_iter();
                let text = |value| match value {
                    Value::String(text) => Some(text),
                    _ => None,
                };
                Argument::Texts(items.map(|item| item.and_then(text)).collect())
            }
            "VALUE.REFERENCE" => Argument::Path(self.value_reference()?),
            "INSTANCENAME" => Argument::Path(self.instancename(&e)?),
            "CLASSNAME" => Argument::ClassName(self.classname(&e)?),
            "INSTANCE" => Argument::Instance(self.instance(&e)?),
            "VALUE.NAMEDINSTANCE" => Argument::Instance(self.value_namedinstance()?),
            "CLASS" => Argument::Class(self.class(&e)?),
            "QUALIFIER.DECLARATION" => Argument::Qualifier(self.qualifier_declaration(&e)?),
            _ => return Err(e.unexpected("IPARAMVALUE")),
        };
        self.close("IPARAMVALUE")?;
        Ok(argument)
    }

    fn methodcall(&mut self) -> Decoded<Call> {
        let Some(e) = self.child()? else {
            return Err(DecodeError::NotLooselyValid(
                "METHODCALL needs a target".into(),
            ));
        };
        let target = match e.name.as_str() {
            "LOCALCLASSPATH" => self.localclasspath()?,
            "LOCALINSTANCEPATH" => self.localinstancepath()?,
            _ => return Err(e.unexpected("METHODCALL")),
        };
        let parameters = self.parameters();
        Ok(Call::Extrinsic {
            target,
            parameters: or_refused(parameters)?,
        })
    }

    fn parameters(&mut self) -> Decoded<Vec<(Name, TypedValue)>> {
        let mut parameters: Vec<(Name, TypedValue)> = Vec::new();
        let mut names = std::collections::HashSet::new();
        while let Some(e) = self.child()? {
            if e.name != "PARAMVALUE" {
                return Err(e.unexpected("METHODCALL"));
            }
            let (name, value) = self.paramvalue(&e)?;
            if !name.is("") && !names.insert(name.clone()) {
                return Err(DecodeError::BadValue(format!(
                    "the parameter {name} is given twice"
                )));
            }
            parameters.push((name, value));
        }
        self.close("SIMPLEREQ")?;
        Ok(parameters)
    }
}

/// Makes a bad value the call's error.
fn or_refused<T>(decoded: Decoded<T>) -> Decoded<Result<T, CimError>> {
    match decoded {
        Ok(parameters) => Ok(Ok(parameters)),
        Err(DecodeError::BadValue(reason)) => Ok(Err(CimError::invalid_parameter(reason))),
        Err(error) => Err(error),
    }
}

/// Checks that it is numbers with dots between, of which the first is the major version:
/// minor ones are compatible (DSP0201, "CIM").
fn version(text: &str, major: &str, error: fn(String) -> DecodeError) -> Decoded<()> {
    let mut numbers = text.trim().split('.');
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if numbers.next() == Some(major) && numbers.all(number) {
        Ok(())
    } else {
        Err(error(text.to_owned()))
    }
}
