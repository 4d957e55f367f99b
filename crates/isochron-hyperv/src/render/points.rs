//! Reference points of collections and of their members.
//!
//! Msvm_ReferencePointCollection counts ConsistencyLevel the other way round than all
//! other classes do; each is followed as it is written. The whole cut report is the
//! collection's Description, as it is a snapshot collection's.

use isochron_cim::{Instance, Value};
use isochron_engine::model::{Consistency, ReferencePoint};
use serde_json::{Value as Json, json};

use crate::object::PointPart;

/// ReferencePointType, in both classes: what changed is told from the disks' layers.
const TRACKED: u16 = 2;

/// A reference point of a collection.
pub(super) fn collection(point: &ReferencePoint, instance: &mut Instance) {
    let (members, name) = (point.members.len(), &point.collection_name);
    let plural = if members == 1 { "" } else { "s" };
    // 1 crash, 2 application: the reverse of all other classes.
    let (level, words) = match point.consistency {
        Consistency::Crash => (1_u16, "Crash-consistent"),
        Consistency::Application => (2, "Application-consistent"),
    };
    instance
        .set("ElementName", point.name.as_str())
        .set(
            "Caption",
            format!("{words} reference point of {name}, {members} virtual machine{plural}"),
        )
        .set("Description", report(point).to_string())
        .set("ReferencePointType", TRACKED)
        .set("ConsistencyLevel", level)
        // Nothing is logged: layers tell what changed.
        .set("HasAssociatedLog", false);
}

/// What a reference point says of its instant: as a snapshot collection does, with
/// `keeps_data` and `exports`.
fn report(point: &ReferencePoint) -> Json {
    // Every record of the engine's serialises; null would be shown otherwise.
    let mut json = serde_json::to_value(point).unwrap_or_default();
    if let Some(fields) = json.as_object_mut() {
        fields.remove("members");
    }
    json
}

/// A member's part: its disks, and what names this instant in their histories.
pub(super) fn part(part: &PointPart, instance: &mut Instance) {
    let (point, record) = (&part.point, part.record());
    let level: u16 = match point.consistency {
        Consistency::Application => 1,
        Consistency::Crash => 2,
    };
    let cut = point.cut.members.iter();
    let mut cut = cut.filter(|cut| cut.vm == record.machine);
    let evidence = cut.next().map_or(Json::Null, |cut| json!(cut));
    let texts = |texts: Vec<String>| {
        let texts = texts.into_iter().map(|text| Some(Value::from(text)));
        Value::Array(texts.collect())
    };
    let disks = || record.disks.iter();
    instance
        .set("ElementName", point.name.as_str())
        .set(
            "Caption",
            format!("Reference point of {}", record.machine_name),
        )
        .set("Description", evidence.to_string())
        .set("ReferencePointType", TRACKED)
        .set("ConsistencyLevel", level)
        .set("HasAssociatedData", point.keeps_data)
        .set(
            "VirtualDiskIdentifiers",
            texts(disks().map(|disk| disk.root.to_string()).collect()),
        )
        .set(
            "ResilientChangeTrackingIdentifiers",
            texts(disks().map(|disk| disk.tracking.to_string()).collect()),
        );
}
