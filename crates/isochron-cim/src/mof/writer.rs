//! Classes and qualifier types as MOF text that [`super::parse`] reads back.

use std::fmt::Write as _;

use indexmap::IndexMap;

use crate::{
    CimType, Class, Flavor, Method, Name, Parameter, PropertyDecl, Qualifier, QualifierDecl,
    TypedValue, Value,
};

/// Where a qualifier's strings are broken, in characters.
const WIDTH: usize = 80;

/// The class's declaration: what it declares itself, without what it inherits.
/// Flavors are written where they differ from those of the qualifier's type.
pub fn write_class(class: &Class, qualifiers: &IndexMap<Name, QualifierDecl>) -> String {
    let mut out = Writer {
        text: String::new(),
        types: qualifiers,
    };
    out.class(class);
    out.text
}

/// The qualifier type's declaration.
pub fn write_qualifier(decl: &QualifierDecl) -> String {
    let mut text = format!("Qualifier {} : {}", decl.name, decl.value.ty.name());
    text.push_str(&array(decl.value.is_array, decl.array_size));
    text.push_str(&default(&decl.value));
    let scopes: Vec<_> = decl
        .scope
        .iter()
        .map(|s| format!("{s:?}").to_lowercase())
        .collect();
    let _ = write!(text, ", Scope({})", scopes.join(", "));
    let words = flavors(decl.flavor, Flavor::default());
    if !words.is_empty() {
        let _ = write!(text, ", Flavor({})", words.join(", "));
    }
    text.push_str(";\n");
    text
}

/// The words that turn one flavor into another. (Nothing takes `Translatable` back.)
fn flavors(is: Flavor, from: Flavor) -> Vec<&'static str> {
    let mut words = Vec::new();
    if is.overridable != from.overridable {
        words.push(if is.overridable {
            "EnableOverride"
        } else {
            "DisableOverride"
        });
    }
    if is.to_subclass != from.to_subclass {
        words.push(if is.to_subclass {
            "ToSubclass"
        } else {
            "Restricted"
        });
    }
    if is.translatable && !from.translatable {
        words.push("Translatable");
    }
    words
}

struct Writer<'a> {
    text: String,
    types: &'a IndexMap<Name, QualifierDecl>,
}

impl Writer<'_> {
    fn class(&mut self, class: &Class) {
        self.qualifiers(&class.qualifiers, "");
        let _ = write!(self.text, "class {}", class.name);
        if let Some(superclass) = &class.superclass {
            let _ = write!(self.text, " : {superclass}");
        }
        self.text.push_str(" {\n");
        for (name, property) in class.properties.iter().filter(|(_, p)| !p.propagated) {
            self.property(name, property);
        }
        for (name, method) in class.methods.iter().filter(|(_, m)| !m.propagated) {
            self.method(name, method);
        }
        self.text.push_str("};\n");
    }

    fn property(&mut self, name: &Name, property: &PropertyDecl) {
        self.qualifiers(&property.qualifiers, "    ");
        let _ = writeln!(
            self.text,
            "    {} {name}{}{};",
            type_text(&property.value.ty),
            array(property.value.is_array, property.array_size),
            default(&property.value),
        );
    }

    fn method(&mut self, name: &Name, method: &Method) {
        self.qualifiers(&method.qualifiers, "    ");
        let _ = write!(self.text, "    {} {name}(", method.return_type.name());
        for (i, (name, parameter)) in method.parameters.iter().enumerate() {
            self.text.push_str(if i == 0 { "\n" } else { ",\n" });
            self.parameter(name, parameter);
        }
        self.text.push_str(");\n");
    }

    fn parameter(&mut self, name: &Name, parameter: &Parameter) {
        self.qualifiers(&parameter.qualifiers, "        ");
        let _ = write!(
            self.text,
            "        {} {name}{}",
            type_text(&parameter.ty),
            array(parameter.is_array, parameter.array_size)
        );
    }

    fn qualifiers(&mut self, qualifiers: &IndexMap<Name, Qualifier>, indent: &str) {
        let own: Vec<_> = qualifiers
            .iter()
            .filter(|(_, qualifier)| !qualifier.propagated)
            .map(|(name, qualifier)| self.qualifier(name, qualifier, indent))
            .collect();
        if !own.is_empty() {
            let _ = writeln!(
                self.text,
                "{indent}[{}]",
                own.join(&format!(",\n{indent} "))
            );
        }
    }

    fn qualifier(&self, name: &Name, qualifier: &Qualifier, indent: &str) -> String {
        let mut text = name.to_string();
        match &qualifier.value.value {
            Some(Value::Boolean(true)) => {}
            // A boolean without a value would be true.
            None if qualifier.value.ty == CimType::Boolean => text.push_str("(null)"),
            None => {}
            Some(Value::Array(items)) => {
                let items: Vec<_> = items.iter().map(|item| literal(item.as_ref())).collect();
                let separator = format!(",\n{indent}     ");
                let line = items.join(", ");
                let fits = line.chars().count() <= WIDTH;
                let _ = write!(
                    text,
                    " {{{}}}",
                    if fits { line } else { items.join(&separator) }
                );
            }
            Some(Value::String(long)) => {
                let lines = broken(long).map(|line| quoted(&line)).collect::<Vec<_>>();
                let _ = write!(text, "({})", lines.join(&format!("\n{indent}     ")));
            }
            value => {
                let _ = write!(text, "({})", literal(value.as_ref()));
            }
        }
        let from = self
            .types
            .get(name)
            .map_or_else(Flavor::default, |decl| decl.flavor);
        let words = flavors(qualifier.flavor, from);
        if !words.is_empty() {
            let _ = write!(text, " : {}", words.join(" "));
        }
        text
    }
}

/// A text in lines of about [`WIDTH`], broken after spaces; one line at least.
fn broken(text: &str) -> impl Iterator<Item = String> {
    let mut lines = vec![String::new()];
    for word in text.split_inclusive(' ') {
        let last = lines.len() - 1;
        if lines[last].is_empty() || lines[last].chars().count() + word.chars().count() <= WIDTH {
            lines[last].push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.into_iter()
}

fn type_text(ty: &CimType) -> String {
    match ty {
        CimType::Reference(Some(class)) => format!("{class} REF"),
        CimType::Reference(None) => "object REF".to_owned(),
        ty => ty.name().to_owned(),
    }
}

fn array(is_array: bool, size: Option<u32>) -> String {
    match (is_array, size) {
        (false, _) => String::new(),
        (true, None) => "[]".to_owned(),
        (true, Some(size)) => format!("[{size}]"),
    }
}

fn default(value: &TypedValue) -> String {
    value
        .value
        .as_ref()
        .map_or_else(String::new, |value| format!(" = {}", literal(Some(value))))
}

fn literal(value: Option<&Value>) -> String {
    match value {
        None => "null".to_owned(),
        Some(Value::Boolean(v)) => v.to_string(),
        // With a decimal point always, which `{v:?}` gives but for exponents.
        Some(Value::Real32(v)) => real(&format!("{v:?}")),
        Some(Value::Real64(v)) => real(&format!("{v:?}")),
        Some(Value::Char16(v)) => match char::from_u32(u32::from(*v)) {
            Some(c) if c.is_ascii_graphic() && c != '\'' && c != '\\' => format!("'{c}'"),
            _ => format!("'\\x{v:04X}'"),
        },
        Some(Value::String(v)) => quoted(v),
        Some(Value::DateTime(v)) => quoted(v.as_str()),
        Some(Value::Reference(v)) => quoted(&v.to_string()),
        Some(Value::Array(items)) => {
            let items: Vec<_> = items.iter().map(|item| literal(item.as_ref())).collect();
            format!("{{ {} }}", items.join(", "))
        }
        // No declaration has an embedded object as its default.
        Some(Value::Instance(_) | Value::Class(_)) => "null".to_owned(),
        Some(integer) => integer.as_integer().unwrap_or_default().to_string(),
    }
}

fn real(text: &str) -> String {
    match text.split_once('e') {
        Some((mantissa, exponent)) if !mantissa.contains('.') => format!("{mantissa}.0e{exponent}"),
        _ => text.to_owned(),
    }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\x{:04X}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
