//! The store in memory answers as the real one, and a test that looks for what is
//! left over finds it.

use std::path::Path;

use crate::common::{cut, layer, machine, overlay, run};
use isochron_engine::model::{Layer, Machine, Power};
use isochron_engine::ports::{Batch, Check, Hypervisor, Overlay, Store, Write};
use isochron_engine::{DiskView, MachineView};
use isochron_sim::World;
use isochron_store::SqliteStore;

const A: &str = "/images/a-disk0.qcow2";

/// A fixed sequence that looks random (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

#[tokio::test]
async fn the_store_answers_as_sqlite_does() {
    let directory = tempfile::tempdir().unwrap();
    let real = SqliteStore::open(directory.path().join("db"))
        .await
        .unwrap();
    let sim = World::new().daemon().store();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let keys = [
        "a",
        "a/",
        "a/1",
        "a/\u{10ffff}",
        "aé",
        "b",
        "",
        "\u{10ffff}x",
    ];
    let (mut made, mut refused) = (0, 0);
    for round in 0..300_u64 {
        let mut key = || keys[dice.roll(keys.len() as u64) as usize].to_owned();
        let (first, second, third) = (key(), key(), key());
        let known = sim.get(&first).await.unwrap().map(|record| record.revision);
        let revision = match dice.roll(4) {
            0 => Some(dice.roll(round + 1)),
            1 => None,
            _ => known,
        };
        let batch = Batch {
            checks: vec![Check {
                key: first.clone(),
                revision,
            }],
            writes: vec![
                Write::Put(first, round.to_string().into_bytes()),
                Write::Delete(second),
                Write::Put(third, vec![]),
            ],
        };
        let answer = sim.commit(batch.clone()).await;
        match &answer {
            Ok(_) => made += 1,
            Err(_) => refused += 1,
        }
        assert_eq!(real.commit(batch).await, answer);
        for prefix in ["", "a", "a/", "\u{10ffff}", "c"] {
            assert_eq!(
                real.list(prefix).await,
                sim.list(prefix).await,
                "{prefix:?}"
            );
        }
    }
    assert!(made > 50 && refused > 50, "{made} {refused}");
}

/// What an engine would show whose records say this chain.
fn view(machine: &Machine, power: Power, chain: &[&str]) -> MachineView {
    let record = |path: &&str| {
        let file = layer(*path);
        Layer {
            id: file.id,
            machine: machine.id,
            disk: "disk0".to_owned(),
            path: file.path,
            format: file.format,
            parent: None,
            identity: None,
        }
    };
    let disk = DiskView {
        name: "disk0".to_owned(),
        chain: chain.iter().map(record).collect(),
        excluded: None,
    };
    MachineView {
        machine: machine.clone(),
        power,
        since: None,
        on_time: None,
        process_id: None,
        disks: vec![disk],
    }
}

#[tokio::test]
async fn what_is_left_over_or_untrue_is_found() {
    let world = World::new();
    let daemon = world.daemon();
    let a = machine(&world, "a");
    let live = run(&daemon, &a, &[A]).await;
    let is = |found: Vec<String>, what: &[&str]| {
        assert_eq!(found.len(), what.len(), "{found:?}");
        for (sentence, part) in found.iter().zip(what) {
            assert!(sentence.contains(part), "{found:?}");
        }
    };
    let truth = || view(&a, Power::Running, &[A]);
    is(world.disagreements(&[truth()], &[], &[]), &[]);
    is(
        world.disagreements(&[view(&a, Power::Off, &[A])], &[], &[]),
        &["said to be Off"],
    );

    overlay(&daemon, &*live, "/images/1", A).await;
    is(
        world.disagreements(&[truth()], &[], &[]),
        &["open", "left over: /images/1"],
    );
    live.close_layers(&[layer("/images/1")]).await.unwrap();
    is(
        world.disagreements(&[truth()], &[], &[]),
        &["left over: /images/1"],
    );

    live.open_overlays(&[crate::common::swap("/images/1")])
        .await
        .unwrap();
    cut(&*live, "/images/1").await;
    let found = world.disagreements(&[truth()], &[], &[]);
    is(found, &["the process has", "left over: /images/1"]);
    is(
        world.disagreements(&[view(&a, Power::Running, &["/images/1", A])], &[], &[]),
        &[],
    );

    live.freeze(std::time::Duration::from_secs(1))
        .await
        .unwrap();
    let guard = daemon.hypervisor().guard(&[]).await.unwrap();
    live.prepare_save(Power::Running).await.unwrap();
    let found = world.disagreements(&[view(&a, Power::Running, &["/images/1", A])], &[], &[]);
    is(found, &["frozen", "saving memory", "guards live"]);
    drop(guard);
    world.kill_process(a.id);

    let lost = Overlay {
        layer: layer("/images/2"),
        base: layer("/images/1"),
    };
    daemon
        .hypervisor()
        .create_overlay(&lost, None)
        .await
        .unwrap();
    daemon
        .hypervisor()
        .delete_file(Path::new("/images/1"))
        .await
        .unwrap();
    let found = world.disagreements(
        &[view(&a, Power::Off, &["/images/2", "/images/1", A])],
        &[],
        &[],
    );
    is(found, &["headers", "missing: /images/1"]);
}
