//! `docs/export-manifest.schema.json` says what manifests are: those that are written
//! are as it says, and what it forbids is not read.

#![allow(clippy::unwrap_used)] // tests end at the first surprise

mod common;

use std::path::Path;

use common::{Rig, export};
use isochron_backup::manifest::{MANIFEST, Manifest};
use isochron_engine::model::{
    Consistency, CutMember, CutReport, ImageFormat, MachineId, MemorySave, MemoryState, Power,
};
use isochron_engine::ports::Content;
use serde_json::Value;

/// Why a value is not as a schema says. Knows the words that the schema uses, and no
/// others.
fn wrong(value: &Value, schema: &Value, root: &Value, at: &str) -> Option<String> {
    for (word, told) in schema.as_object().unwrap() {
        let fits = match word.as_str() {
            "$schema" | "$defs" | "title" | "description" | "required" => true,
            "additionalProperties" => *told == false,
            "$ref" => {
                let path = told.as_str().unwrap().strip_prefix('#').unwrap();
                let wrong = wrong(value, root.pointer(path).unwrap(), root, at);
                if wrong.is_some() {
                    return wrong;
                }
                true
            }
            "anyOf" => told
                .as_array()
                .unwrap()
                .iter()
                .any(|schema| wrong(value, schema, root, at).is_none()),
            "const" => value == told,
            "enum" => told.as_array().unwrap().contains(value),
            "type" => match told {
                Value::Array(types) => types.iter().any(|kind| is(value, kind)),
                kind => is(value, kind),
            },
            "minimum" => value.as_u64() >= told.as_u64(),
            "pattern" => {
                assert_eq!(told, "^[0-9a-f]{64}$");
                let text = value.as_str().unwrap_or_default();
                text.len() == 64 && text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
            }
            "format" => {
                let text = value.as_str().unwrap_or_default();
                match told.as_str().unwrap() {
                    "uuid" => text.parse::<uuid::Uuid>().is_ok(),
                    "date-time" => {
                        let form = &time::format_description::well_known::Rfc3339;
                        time::OffsetDateTime::parse(text, form).is_ok()
                    }
                    other => panic!("the format {other}"),
                }
            }
            "items" => {
                let Some(items) = value.as_array() else {
                    return Some(format!("{at} is no array"));
                };
                let items = items.iter().enumerate();
                let mut wrongs =
                    items.filter_map(|(n, item)| wrong(item, told, root, &format!("{at}/{n}")));
                let first = wrongs.next();
                if first.is_some() {
                    return first;
                }
                true
            }
            "properties" => {
                let Some(object) = value.as_object() else {
                    return Some(format!("{at} is no object"));
                };
                for name in schema.get("required").and_then(Value::as_array).unwrap() {
                    if !object.contains_key(name.as_str().unwrap()) {
                        return Some(format!("{at} has no {name}"));
                    }
                }
                for (name, value) in object {
                    let Some(told) = told.get(name) else {
                        return Some(format!("{at} has {name}"));
                    };
                    let wrong = wrong(value, told, root, &format!("{at}/{name}"));
                    if wrong.is_some() {
                        return wrong;
                    }
                }
                true
            }
            other => panic!("the word {other}"),
        };
        if !fits {
            return Some(format!("{at} is {value}, which is against {word} {told}"));
        }
    }
    None
}

fn is(value: &Value, kind: &Value) -> bool {
    match kind.as_str().unwrap() {
        "null" => value.is_null(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("the type {other}"),
    }
}

/// Calls for every object in a value with it taken out of context.
fn objects(value: &mut Value, at: String, each: &mut dyn FnMut(&str, &mut Value)) {
    match value {
        Value::Object(fields) => {
            let names: Vec<_> = fields.keys().cloned().collect();
            for name in names {
                objects(&mut value[&name], format!("{at}/{name}"), each);
            }
            each(&at, value);
        }
        Value::Array(items) => {
            for (number, item) in items.iter_mut().enumerate() {
                objects(item, format!("{at}/{number}"), each);
            }
        }
        _ => (),
    }
}

#[test]
fn manifests_are_as_the_schema_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/export-manifest.schema.json");
    let schema: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut rig = Rig::new(1 << 20, ImageFormat::Qcow2);
    rig.io(&["write -P 1 0 64k"]);
    std::fs::write(rig.path("memory"), [7; 100]).unwrap();
    let mut order = rig.order("full", Content::Full { reason: None });
    order.members[0].memory = Some(MemoryState {
        path: rig.path("memory"),
        bytes: 100,
    });
    order.members[0].left_out = vec!["cd0".to_owned()];
    order.instant.cut = CutReport {
        members: vec![CutMember {
            vm: MachineId::new(),
            name: "web".to_owned(),
            power: Power::Running,
            stopped_at_us: Some(1),
            resumed_at_us: Some(3),
            pause_us: None,
            memory: MemorySave::Plain,
            memory_note: Some("huge pages".to_owned()),
            frozen_filesystems: 1,
        }],
        skew_us: Some(0),
        common_window_us: Some(-2),
        consistency: Some(Consistency::Application),
    };
    export(order).unwrap();
    rig.overlay();
    rig.since("difference", "full", 1, false);
    rig.since("merged", "full", 1, true);
    let mut record = rig.order("record", Content::Full { reason: None });
    record.copy_storage = false;
    export(record).unwrap();

    for name in ["full", "difference", "merged", "record"] {
        let text = std::fs::read(rig.path(name).join(MANIFEST)).unwrap();
        let good: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(wrong(&good, &schema, &schema, ""), None, "{name}");

        // A field less or more, anywhere but in the definition, is neither valid nor
        // read.
        let mut paths = Vec::new();
        objects(&mut good.clone(), String::new(), &mut |at, object| {
            if !at.contains("/definition") {
                let fields = object.as_object().unwrap().keys().cloned();
                paths.extend(fields.map(|field| (at.to_owned(), field)));
            }
        });
        for (at, field) in paths {
            for add in [true, false] {
                let mut bad = good.clone();
                let object = bad.pointer_mut(&at).unwrap().as_object_mut().unwrap();
                match add {
                    true => drop(object.insert(format!("{field}_"), Value::Null)),
                    false => drop(object.remove(&field)),
                }
                let optional = !add && field == "memory_note";
                let valid = wrong(&bad, &schema, &schema, "").is_none();
                assert_eq!(valid, optional, "{name}{at}/{field}, added: {add}");
                // Parts that are the engine's own are read more leniently, and absent
                // fields that may be null are null.
                if add && !at.contains("/cut") {
                    let text = serde_json::to_vec(&bad).unwrap();
                    assert!(Manifest::parse(&text).is_err(), "{name}{at}/{field}_");
                }
            }
        }
    }
}
