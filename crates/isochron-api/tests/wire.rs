//! The wire form: the fields that callers rely on, and definitions that mean the
//! same here as in the engine.

#![allow(clippy::unwrap_used)] // tests end at the first surprise

use isochron_api::dto;
use isochron_engine::model::*;
use serde_json::{Value, json};
use uuid::Uuid;

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn definition() -> Definition {
    serde_json::from_value(json!({ "name": "web" })).unwrap()
}

fn member(n: u128, memory: Option<MemoryState>) -> MemberSnapshot {
    MemberSnapshot {
        id: MemberSnapshotId(id(n)),
        machine: MachineId(id(n + 1)),
        machine_name: "web".to_owned(),
        power: Power::Running,
        definition: definition(),
        machine_type: Some("pc-q35-7.2".to_owned()),
        disks: vec![DiskSnapshot {
            disk: "root".to_owned(),
            layer: LayerId(id(n + 2)),
            path: "/images/web.qcow2".into(),
            format: ImageFormat::Qcow2,
            lost: None,
        }],
        left_out: vec!["scratch".to_owned()],
        memory,
        parent: None,
    }
}

fn snapshot() -> Snapshot {
    let mut cut = CutReport {
        members: vec![
            CutMember {
                vm: MachineId(id(11)),
                name: "web".to_owned(),
                power: Power::Running,
                stopped_at_us: Some(1_000),
                resumed_at_us: Some(1_900),
                pause_us: None,
                memory: MemorySave::Background,
                memory_note: None,
                frozen_filesystems: 0,
            },
            CutMember {
                vm: MachineId(id(21)),
                name: "db".to_owned(),
                power: Power::Off,
                stopped_at_us: None,
                resumed_at_us: None,
                pause_us: None,
                memory: MemorySave::None,
                memory_note: None,
                frozen_filesystems: 0,
            },
        ],
        consistency: Some(Consistency::Crash),
        ..CutReport::default()
    };
    cut.conclude();
    Snapshot {
        id: SnapshotId(id(1)),
        name: "before".to_owned(),
        collection: CollectionId(id(2)),
        collection_name: "shop".to_owned(),
        kind: SnapshotKind::Standard,
        consistency: Consistency::Crash,
        parent: Some(SnapshotId(id(3))),
        created_at: time::OffsetDateTime::UNIX_EPOCH,
        members: vec![
            member(
                10,
                Some(MemoryState {
                    path: "/state/memory/1".into(),
                    bytes: 4096,
                }),
            ),
            member(20, None),
        ],
        cut,
        notes: String::new(),
        exports: Vec::new(),
    }
}

/// Names and meanings that scripts are told to rely on.
#[test]
fn a_snapshot_has_the_promised_fields() {
    let value = serde_json::to_value(dto::Snapshot::new(snapshot(), true)).unwrap();
    for (pointer, expected) in [
        ("/id", json!(id(1).to_string())),
        ("/name", json!("before")),
        ("/collection", json!("shop")),
        ("/collection_id", json!(id(2).to_string())),
        ("/type", json!("standard")),
        ("/consistency", json!("crash")),
        ("/parent", json!(id(3).to_string())),
        ("/current", json!(true)),
        ("/created_at", json!("1970-01-01T00:00:00Z")),
        ("/members/0/vm", json!("web")),
        ("/members/0/vm_id", json!(id(11).to_string())),
        ("/members/0/disks/0/disk", json!("root")),
        ("/members/0/disks/0/layer", json!("/images/web.qcow2")),
        ("/members/0/disks/0/format", json!("qcow2")),
        ("/members/0/memory", json!("/state/memory/1")),
        ("/members/0/memory_bytes", json!(4096)),
        ("/members/0/left_out", json!(["scratch"])),
        ("/members/1/memory", Value::Null),
        ("/cut/members/0/vm", json!("web")),
        ("/cut/members/0/stopped_at_us", json!(1_000)),
        ("/cut/members/0/resumed_at_us", json!(1_900)),
        ("/cut/members/0/pause_us", json!(900)),
        ("/cut/members/0/memory", json!("background")),
        ("/cut/members/1/vm", json!("db")),
        ("/cut/members/1/stopped_at_us", Value::Null),
        ("/cut/skew_us", json!(0)),
        ("/cut/common_window_us", json!(900)),
    ] {
        assert_eq!(value.pointer(pointer), Some(&expected), "{pointer}");
    }
}

#[test]
fn what_goes_out_reads_back() {
    let snapshot = dto::Snapshot::new(snapshot(), false);
    let text = serde_json::to_string(&snapshot).unwrap();
    assert_eq!(
        serde_json::from_str::<dto::Snapshot>(&text).unwrap(),
        snapshot
    );
    let refusal: dto::Error =
        serde_json::from_value(json!({ "kind": "of_tomorrow", "message": "m" })).unwrap();
    assert_eq!(refusal.kind, dto::ErrorKind::Failed);
}

/// A job's record as the engine keeps it, and what a client sees of it.
#[test]
fn a_failed_job_carries_its_sentence() {
    let job = Job {
        id: JobId(id(1)),
        kind: JobKind::CreateSnapshot,
        state: JobState::Failed,
        percent: 40,
        step: "failed".to_owned(),
        cancellable: false,
        owner: Some("uid 0".to_owned()),
        collection: Some(CollectionId(id(2))),
        snapshot: Some(SnapshotId(id(3))),
        point: Some(ReferencePointId(id(4))),
        export: Some(JobExport {
            id: ExportId(id(5)),
            directory: "/backups/shop".into(),
            base: Some(id(6)),
            machines: vec![MachineId(id(7))],
            done: 3,
            total: 4,
            written: 2,
            rate: 1,
            whole: vec![WholeDisk {
                machine: MachineId(id(7)),
                disk: "root".to_owned(),
                reason: "it was resized".to_owned(),
            }],
            files: vec!["manifest.json".into()],
        }),
        affected: Some(Affected::Snapshot(SnapshotId(id(3)))),
        started_at: time::OffsetDateTime::UNIX_EPOCH,
        changed_at: time::OffsetDateTime::UNIX_EPOCH,
        ended_at: None,
        error: Some(JobError {
            kind: isochron_engine::ErrorKind::Timeout,
            message: "web did not stop".to_owned(),
        }),
    };
    assert_eq!(
        serde_json::to_value(dto::Job::from(job)).unwrap(),
        json!({
            "id": id(1), "kind": "create_snapshot", "state": "failed", "percent": 40,
            "step": "failed", "cancellable": false, "owner": "uid 0",
            "collection_id": id(2), "snapshot_id": id(3), "point_id": id(4),
            "export": {
                "id": id(5), "directory": "/backups/shop", "base": id(6), "vm_ids": [id(7)],
                "done_bytes": 3, "total_bytes": 4, "written_bytes": 2, "bytes_per_second": 1,
                "whole": [{ "vm_id": id(7), "disk": "root", "reason": "it was resized" }],
                "files": ["manifest.json"],
            },
            "affected": { "kind": "snapshot", "id": id(3) },
            "started_at": "1970-01-01T00:00:00Z", "changed_at": "1970-01-01T00:00:00Z",
            "ended_at": null,
            "error": { "kind": "timeout", "message": "web did not stop" },
        })
    );
}

/// The shortest and the longest definition mean the same to the wire type as to
/// the engine: keys, defaults, refusals.
#[test]
fn definitions_mean_what_they_mean_in_the_engine() {
    let shortest =
        json!({ "name": "web", "disks": [{ "path": "/d" }], "nics": [{ "netdev": "user" }] });
    let longest = json!({
        "name": "web", "id": id(7), "memory_mib": 64, "cpus": 3, "machine": "pc",
        "accel": "tcg", "kernel": "/k", "initrd": "/i", "append": "quiet",
        "firmware": "/f", "serial_log": "/s", "guest_agent": true,
        "extra_args": ["-cpu", "max"],
        "disks": [{ "name": "root", "path": "/d", "format": "raw", "cache": "directsync",
                    "read_only": true }],
        "nics": [{ "netdev": "user", "mac": "52:54:00:00:00:01" }],
    });
    for text in [shortest, longest.clone()] {
        let engines: Definition = serde_json::from_value(text.clone()).unwrap();
        let ours: dto::Definition = serde_json::from_value(text).unwrap();
        assert_eq!(dto::Definition::from(engines.clone()), ours);
        assert_eq!(Definition::from(ours), engines);
    }
    let ours: dto::Definition = serde_json::from_value(longest.clone()).unwrap();
    assert_eq!(serde_json::to_value(ours).unwrap(), longest);
    for unknown in [
        json!({ "name": "web", "memory": 64 }),
        json!({ "name": "web", "disks": [{ "path": "/d", "size": 1 }] }),
        json!({ "name": "web", "nics": [{ "netdev": "user", "model": "e1000" }] }),
    ] {
        assert!(serde_json::from_value::<dto::Definition>(unknown).is_err());
    }
}

#[test]
fn relative_paths_are_meant_from_the_file() {
    let mut definition: dto::Definition = serde_json::from_value(json!({
        "name": "web", "kernel": "vmlinuz", "initrd": "/boot/initrd",
        "disks": [{ "path": "disks/root.qcow2" }],
    }))
    .unwrap();
    definition.resolve("/vms".as_ref());
    assert_eq!(definition.kernel.as_deref(), Some("/vms/vmlinuz".as_ref()));
    assert_eq!(definition.initrd.as_deref(), Some("/boot/initrd".as_ref()));
    assert_eq!(
        definition.disks[0].path,
        std::path::Path::new("/vms/disks/root.qcow2")
    );
}
