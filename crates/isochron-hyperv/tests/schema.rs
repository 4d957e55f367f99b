//! The schema is what clients of Hyper-V's collection classes expect: `expected.txt`
//! holds that as facts, and says how to read it. Both namespaces have all of it, with
//! keys, types, references, directions, value maps and embedded instances.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, dead_code)]

mod world;

use std::collections::{HashMap, HashSet};

use indexmap::IndexMap;
use isochron_cim::{CimServer, CimType, Class, ClassQuery, Name, Qualifier, Value};
use world::{CLUSTER, Setup, VIRTUALIZATION};

/// Value and text of each entry of a ValueMap, and whether that is all of it.
struct Values {
    entries: Vec<(String, String)>,
    all: bool,
}

/// A property or parameter: type, name, and what it embeds or which values it has.
struct Element<'t> {
    ty: &'t str,
    name: &'t str,
    embeds: Option<&'t str>,
    values: Option<&'t str>,
}

struct Method<'t> {
    name: &'t str,
    values: Option<&'t str>,
    /// With their direction.
    parameters: Vec<(&'t str, Element<'t>)>,
}

struct Expected<'t> {
    name: &'t str,
    superclass: Option<&'t str>,
    association: bool,
    keys: Option<HashSet<&'t str>>,
    properties: Vec<Element<'t>>,
    methods: Vec<Method<'t>>,
}

/// `TYPE NAME, NAME ...`, `TYPE NAME embeds CLASS` or `TYPE NAME = VALUES`.
fn elements(text: &str) -> Vec<Element<'_>> {
    let (ty, rest) = text.split_once(' ').expect(text);
    let (names, embeds, values) = match (rest.split_once(" embeds "), rest.split_once(" = ")) {
        (Some((name, class)), _) => (name, Some(class), None),
        (_, Some((name, values))) => (name, None, Some(values)),
        _ => (rest, None, None),
    };
    let element = |name| Element {
        ty,
        name,
        embeds,
        values,
    };
    names.split(", ").map(element).collect()
}

fn read(text: &str) -> (HashMap<&str, Values>, Vec<Expected<'_>>) {
    let (mut values, mut texts) = (HashMap::new(), Vec::<(&str, String)>::new());
    let mut classes = Vec::<Expected<'_>>::new();
    let lines = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in lines {
        let (indent, line) = (line.len() - line.trim_start().len(), line.trim());
        if let Some(rest) = line.strip_prefix("values ") {
            let (name, entries) = rest.split_once("  ").expect(line);
            texts.push((name, entries.to_owned()));
        } else if classes.is_empty() && indent == 4 {
            let (_, entries) = texts.last_mut().expect(line);
            *entries = format!("{entries} {line}");
        } else if indent == 0 {
            let (name, superclass) = match line.split_once(" : ") {
                Some((name, superclass)) => (name, Some(superclass)),
                None => (line, None),
            };
            classes.push(Expected {
                name,
                superclass,
                association: false,
                keys: None,
                properties: Vec::new(),
                methods: Vec::new(),
            });
        } else {
            let class = classes.last_mut().expect(line);
            if indent == 4 {
                let (direction, rest) = line.split_once(' ').expect(line);
                let method = class.methods.last_mut().expect(line);
                let parameters = elements(rest).into_iter().map(|e| (direction, e));
                method.parameters.extend(parameters);
            } else if line == "association" {
                class.association = true;
            } else if let Some(keys) = line.strip_prefix("keys") {
                class.keys = Some(keys.split_whitespace().collect());
            } else if let Some((name, rest)) = line.split_once("()") {
                class.methods.push(Method {
                    name,
                    values: rest.strip_prefix(" = "),
                    parameters: Vec::new(),
                });
            } else {
                class.properties.extend(elements(line));
            }
        }
    }
    for (name, text) in texts {
        let entry = |entry: &str| {
            let (value, text) = entry.split_once(": ").expect(entry);
            (value.trim().to_owned(), text.trim().to_owned())
        };
        let set = Values {
            entries: text.split(" | ").map(entry).collect(),
            all: !name.ends_with('+'),
        };
        values.insert(name, set);
    }
    (values, classes)
}

fn strings(qualifiers: &IndexMap<Name, Qualifier>, name: &'static str) -> Vec<String> {
    match qualifiers.get(&Name::fixed(name)).map(|q| &q.value.value) {
        Some(Some(Value::Array(items))) => items
            .iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    }
}

/// What differs between the facts and a namespace.
struct Comparison<'t> {
    values: &'t HashMap<&'t str, Values>,
    different: Vec<String>,
}

impl Comparison<'_> {
    fn same<T: PartialEq + std::fmt::Debug>(&mut self, what: &str, found: T, expected: T) {
        if found != expected {
            self.different
                .push(format!("{what}: {found:?}, expected {expected:?}"));
        }
    }

    fn values(&mut self, what: &str, set: Option<&str>, qualifiers: &IndexMap<Name, Qualifier>) {
        let Some(name) = set else { return };
        let set = self.values.get(name).expect(name);
        let (map, texts) = (
            strings(qualifiers, "ValueMap"),
            strings(qualifiers, "Values"),
        );
        self.same(&format!("{what}, number of Values"), texts.len(), map.len());
        let found: Vec<_> = map.into_iter().zip(texts).collect();
        if set.all {
            self.same(what, &found, &set.entries);
        } else {
            for entry in &set.entries {
                let there = found.contains(entry);
                self.same(&format!("{what}, {entry:?} in its values"), there, true);
            }
        }
    }

    fn element(
        &mut self,
        what: &str,
        expected: &Element<'_>,
        ty: &CimType,
        is_array: bool,
        qualifiers: &IndexMap<Name, Qualifier>,
    ) {
        let mut found = match ty {
            CimType::Reference(Some(class)) => format!("{class}&"),
            other => other.name().to_owned(),
        };
        if is_array {
            found.push_str("[]");
        }
        self.same(what, found.as_str(), expected.ty);
        let embedded = qualifiers.get(&Name::fixed("EmbeddedInstance"));
        let embedded = embedded.and_then(|q| q.value.value.as_ref()?.as_str());
        if expected.embeds.is_some() {
            self.same(what, embedded, expected.embeds);
        }
        self.values(what, expected.values, qualifiers);
    }

    fn class(&mut self, expected: &Expected<'_>, class: &Class) {
        let name = expected.name;
        let superclass = class.superclass.as_ref().map(Name::as_str);
        self.same(name, superclass, expected.superclass);
        self.same(name, class.is_association(), expected.association);
        if let Some(keys) = &expected.keys {
            let found: HashSet<_> = class.keys().map(Name::as_str).collect();
            self.same(&format!("keys of {name}"), &found, keys);
        }
        for property in &expected.properties {
            let what = format!("{name}.{}", property.name);
            match class.properties.get(&Name::from(property.name)) {
                Some(found) => {
                    let (ty, is_array) = (&found.value.ty, found.value.is_array);
                    self.element(&what, property, ty, is_array, &found.qualifiers);
                }
                None => self.different.push(format!("{what} is missing")),
            }
        }
        for method in &expected.methods {
            let what = format!("{name}.{}()", method.name);
            let Some(found) = class.methods.get(&Name::from(method.name)) else {
                self.different.push(format!("{what} is missing"));
                continue;
            };
            self.same(&what, &found.return_type, &CimType::Uint32);
            self.values(&what, method.values, &found.qualifiers);
            let names: Vec<_> = found.parameters.keys().map(Name::as_str).collect();
            let wanted: Vec<_> = method.parameters.iter().map(|(_, e)| e.name).collect();
            self.same(&what, &names, &wanted);
            for ((direction, element), found) in
                method.parameters.iter().zip(found.parameters.values())
            {
                let what = format!("{what} {}", element.name);
                let (ty, is_array) = (&found.ty, found.is_array);
                self.element(&what, element, ty, is_array, &found.qualifiers);
                let way = match (found.is_in(), found.is_out()) {
                    (true, true) => "inout",
                    (true, false) => "in",
                    _ => "out",
                };
                self.same(&what, way, direction);
            }
        }
    }
}

#[tokio::test]
async fn both_namespaces_have_every_class_that_clients_expect() {
    let setup = Setup::new().await;
    let (values, classes) = read(include_str!("expected.txt"));
    assert!(classes.len() > 80, "{} classes are read", classes.len());
    for namespace in [CLUSTER, VIRTUALIZATION] {
        let client = setup.client.at(namespace);
        let mut comparison = Comparison {
            values: &values,
            different: Vec::new(),
        };
        for expected in &classes {
            let name = Name::from(expected.name);
            match client.server.get_class(&client.cx, &name).await {
                Ok(class) => comparison.class(expected, &class),
                Err(error) => comparison.different.push(error.to_string()),
            }
        }
        let different = comparison.different.join("\n");
        assert!(different.is_empty(), "{namespace}:\n{different}");
    }
}

/// A class of Hyper-V's that is served and not in the facts would be unproven.
#[tokio::test]
async fn every_class_of_hyperv_that_is_served_is_in_the_facts() {
    let setup = Setup::new().await;
    let client = &setup.client;
    let query = ClassQuery {
        below: None,
        deep: true,
    };
    let served = client.server.enumerate_classes(&client.cx, &query).await;
    let (_, classes) = read(include_str!("expected.txt"));
    let facts: HashSet<_> = classes.iter().map(|class| class.name).collect();
    let served = served.unwrap();
    let unproven: Vec<_> = served
        .iter()
        .map(|class| class.name.as_str())
        .filter(|name| name.starts_with("Msvm_") && !facts.contains(name))
        .collect();
    assert!(unproven.is_empty(), "{unproven:?}");
}
