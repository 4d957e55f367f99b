//! Snapshot collections and the snapshots of their members.
//!
//! The evidence for the instant is readable where the classes have room: the whole
//! cut report, as JSON, is a snapshot collection's Description (Caption says in
//! words what it is); a member's part of it is the first element of Notes in the
//! member's settings, before what its owner noted.

use std::path::Path;

use isochron_cim::{DateTime, Instance};
use isochron_engine::model::{Consistency, Snapshot, SnapshotKind};
use serde_json::{Value as Json, json};

use super::machines::common;
use crate::object::Member;

/// What a snapshot collection says of its instant: `id`, `name`, `kind`,
/// `consistency`, `created_at`, `parent`, `collection` and `cut`, the report.
pub(crate) fn report(snapshot: &Snapshot) -> Json {
    // Every record of the engine's serialises; null would be shown otherwise.
    let mut json = serde_json::to_value(snapshot).unwrap_or_default();
    if let Some(fields) = json.as_object_mut() {
        fields.remove("members");
    }
    json
}

/// A snapshot of a collection.
pub(super) fn collection(snapshot: &Snapshot, instance: &mut Instance) {
    let (members, name) = (snapshot.members.len(), &snapshot.collection_name);
    let kind = match (snapshot.kind, snapshot.consistency) {
        (SnapshotKind::Standard, _) => "Standard snapshot",
        (SnapshotKind::Recovery, Consistency::Application) => {
            "Application-consistent recovery snapshot"
        }
        (SnapshotKind::Recovery, Consistency::Crash) => "Crash-consistent recovery snapshot",
    };
    let plural = if members == 1 { "" } else { "s" };
    instance
        .set("ElementName", snapshot.name.as_str())
        .set(
            "Caption",
            format!("{kind} of {name}, {members} virtual machine{plural}"),
        )
        .set("Description", report(snapshot).to_string());
}

/// A member's part of the evidence for the instant, as JSON.
pub(crate) fn evidence(member: &Member) -> String {
    let machine = member.record().machine;
    let mut cuts = member.snapshot.cut.members.iter();
    let cut = cuts.find(|cut| cut.vm == machine);
    cut.map_or(Json::Null, |cut| json!(cut)).to_string()
}

/// A member's snapshot: the settings that the machine had, and its part of the
/// evidence. `state` is the daemon's directory.
pub(super) fn member(member: &Member, state: &Path, instance: &mut Instance) {
    let (snapshot, record) = (&member.snapshot, member.record());
    let machine = record.machine.to_string();
    let mut notes = vec![evidence(member)];
    if !snapshot.notes.is_empty() {
        notes.push(snapshot.notes.clone());
    }
    common(&record.definition, state, instance);
    instance
        .set("Caption", "Virtual Machine Settings")
        .set("Description", "Snapshot settings for the virtual machine")
        .set("ElementName", snapshot.name.as_str())
        .set("VirtualSystemIdentifier", machine.as_str())
        .set("BIOSGUID", machine.as_str())
        .set("ConfigurationID", record.id.to_string())
        .set("CreationTime", DateTime::from(snapshot.created_at))
        .set("IsSaved", record.memory.is_some())
        .set("Notes", notes)
        .set(
            "VirtualSystemType",
            match snapshot.kind {
                SnapshotKind::Standard => "Microsoft:Hyper-V:Snapshot:Realized",
                SnapshotKind::Recovery => "Microsoft:Hyper-V:Snapshot:Recovery",
            },
        );
    let memory = record
        .memory
        .as_ref()
        .map(|memory| memory.path.display().to_string());
    super::set_some(instance, "SuspendDataRoot", memory);
}
