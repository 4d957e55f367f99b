//! `docs/openapi.json` says what the daemon serves, and everything that it
//! refers to is in it.

use std::path::Path;

use serde_json::Value;

/// Run with `ISOCHRON_UPDATE=1` to write the document anew.
#[test]
fn the_committed_document_is_the_served_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let served = isochron_api::openapi_text();
    if std::env::var_os("ISOCHRON_UPDATE").is_some() {
        std::fs::write(&path, &served).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        committed == served,
        "docs/openapi.json is not what is served; write it anew with \
         ISOCHRON_UPDATE=1 cargo test -p isochron-api --test openapi"
    );
}

#[test]
fn every_reference_has_its_schema_and_every_operation_its_description() {
    let document: Value = serde_json::from_str(&isochron_api::openapi_text()).unwrap();
    let mut references = Vec::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 30);
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(
            document.pointer(pointer).is_some(),
            "{reference} is nowhere"
        );
    }
    let mut identifiers = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            assert!(
                operation["summary"].is_string(),
                "{method} {path} has no summary"
            );
            let responses = operation["responses"].as_object().unwrap();
            assert!(
                responses.contains_key("default") || path == "/v1/version",
                "{method} {path} does not say how it refuses"
            );
            identifiers.push(operation["operationId"].as_str().unwrap().to_owned());
        }
    }
    let count = identifiers.len();
    identifiers.sort();
    identifiers.dedup();
    assert_eq!(identifiers.len(), count, "operation identifiers are unique");
}

fn collect_references(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match (key.as_str(), value) {
                    ("$ref", Value::String(reference)) => into.push(reference.clone()),
                    _ => collect_references(value, into),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, into)),
        _ => {}
    }
}
