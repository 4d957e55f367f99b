//! Layers, memory and guests behave as the real ones do, and what a real
//! hypervisor refuses is refused here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::common::{cut, layer, machine, overlay, run, start, swap};
use isochron_engine::model::{ImageFormat, Origin, Power};
use isochron_engine::ports::{Hypervisor, HypervisorError, Overlay, SaveMode, Start};
use isochron_sim::World;

const A: &str = "/images/a-disk0.qcow2";
const B: &str = "/images/b-disk0.qcow2";

fn blocks(blocks: &[(u64, u64)]) -> std::collections::BTreeMap<u64, u64> {
    blocks.iter().copied().collect()
}

#[tokio::test]
async fn a_cut_freezes_what_was_written_before_it() {
    let world = World::new();
    let daemon = world.daemon();
    let (a, b) = (machine(&world, "a"), machine(&world, "b"));
    let (live_a, live_b) = (run(&daemon, &a, &[A]).await, run(&daemon, &b, &[B]).await);
    for (machine, value) in [(&a, 1), (&b, 2)] {
        world.guest_write(machine.id, "disk0", 0, value).unwrap();
    }
    overlay(&daemon, &*live_a, "/images/a1", A).await;
    overlay(&daemon, &*live_b, "/images/b1", B).await;
    world.guest_write(a.id, "disk0", 1, 3).unwrap();

    let stops = [live_a.stop().await.unwrap(), live_b.stop().await.unwrap()];
    assert!(
        world.guest_write(a.id, "disk0", 2, 9).is_err(),
        "a guest that stands wrote"
    );
    live_a.swap(&[swap("/images/a1")]).await.unwrap();
    live_b.swap(&[swap("/images/b1")]).await.unwrap();
    let resumes = [
        live_a.resume().await.unwrap(),
        live_b.resume().await.unwrap(),
    ];
    assert!(
        stops.iter().max() < resumes.iter().min(),
        "{stops:?} {resumes:?}"
    );

    world.guest_write(a.id, "disk0", 0, 7).unwrap();
    assert_eq!(
        world.read_view(Path::new(A)).unwrap(),
        blocks(&[(0, 1), (1, 3)])
    );
    assert_eq!(world.read_view(Path::new(B)).unwrap(), blocks(&[(0, 2)]));
    let now = blocks(&[(0, 7), (1, 3)]);
    assert_eq!(world.read_view(Path::new("/images/a1")).unwrap(), now);
    assert_eq!(world.guest_view(a.id, "disk0").unwrap(), now);
    assert_eq!(
        world.disks(a.id).unwrap()[0].chain,
        [Path::new("/images/a1"), Path::new(A)]
    );
}

#[tokio::test]
async fn merging_changes_no_byte_that_the_guest_reads() {
    let world = World::new();
    let daemon = world.daemon();
    let a = machine(&world, "a");
    let live = run(&daemon, &a, &[A]).await;
    let mut base = A;
    for (round, top) in ["/images/1", "/images/2", "/images/3"]
        .into_iter()
        .enumerate()
    {
        world.guest_write(a.id, "disk0", 0, round as u64).unwrap();
        world
            .guest_write(a.id, "disk0", 10 + round as u64, 1)
            .unwrap();
        overlay(&daemon, &*live, top, base).await;
        cut(&*live, top).await;
        base = top;
    }
    world.guest_write(a.id, "disk0", 20, 5).unwrap();
    let view = world.guest_view(a.id, "disk0").unwrap();
    let agree = || {
        assert_eq!(world.guest_view(a.id, "disk0").unwrap(), view);
        let chain = world.disks(a.id).unwrap().remove(0).chain;
        assert_eq!(world.read_view(&chain[0]).unwrap(), view);
        chain
    };

    // a frozen layer, while the guest runs
    let [one, two, three] = ["/images/1", "/images/2", "/images/3"].map(layer);
    live.merge("disk0", &two, &one, &three, &|_| {})
        .await
        .unwrap();
    assert_eq!(agree(), [&three.path, &one.path, Path::new(A)]);
    daemon.hypervisor().delete_file(&two.path).await.unwrap();
    agree();

    // the active one; what the guest writes meanwhile goes with it
    live.begin_merge_active("disk0", &three, &one, &|_| {})
        .await
        .unwrap();
    agree();
    world.guest_write(a.id, "disk0", 21, 6).unwrap();
    let view = world.guest_view(a.id, "disk0").unwrap();
    assert!(
        live.end_merge_active("disk0", &one).await.is_err(),
        "ended while the guest runs"
    );
    live.stop().await.unwrap();
    live.end_merge_active("disk0", &one).await.unwrap();
    live.resume().await.unwrap();
    assert_eq!(world.read_view(&one.path).unwrap(), view);
    assert_eq!(world.guest_view(a.id, "disk0").unwrap(), view);
    world.guest_write(a.id, "disk0", 22, 7).unwrap();
    assert_eq!(world.read_view(&one.path).unwrap().get(&22), Some(&7));

    // offline, twice as after an interruption
    let hypervisor = daemon.hypervisor();
    let first = layer(A);
    assert!(
        hypervisor.merge_offline(&one, &first).await.is_err(),
        "merged in use"
    );
    hypervisor.kill(&a).await.unwrap();
    let view = world.read_view(&one.path).unwrap();
    for _ in 0..2 {
        hypervisor.merge_offline(&one, &first).await.unwrap();
    }
    assert_eq!(world.read_view(&first.path).unwrap(), view);
}

#[tokio::test]
async fn memory_is_saved_as_it_was_at_the_instant_and_comes_back() {
    let world = World::new();
    let daemon = world.daemon();
    let hypervisor = daemon.hypervisor();
    let a = machine(&world, "a");
    let live = run(&daemon, &a, &[A]).await;
    world.guest_write(a.id, "disk0", 0, 1).unwrap();

    let [background, plain] = ["/memory/background", "/memory/plain"].map(PathBuf::from);
    let mode = live.prepare_save(Power::Running).await.unwrap();
    assert_eq!(mode, SaveMode::Background);
    let stop = live.stop().await.unwrap();
    let resumed = live.save(&background, &mode).await.unwrap().unwrap();
    assert!(stop < resumed);
    world.guest_write(a.id, "disk0", 0, 2).unwrap(); // it runs already
    assert_eq!(
        hypervisor.file_size(&background).await,
        Ok(Some(0)),
        "complete before its end"
    );
    let bytes = live.finish_save(&background, &|_| {}).await.unwrap();
    assert_eq!(hypervisor.file_size(&background).await, Ok(Some(bytes)));

    world.set_background_save(a.id, false);
    let mode = live.prepare_save(Power::Running).await.unwrap();
    assert!(matches!(mode, SaveMode::Plain(_)));
    live.stop().await.unwrap();
    assert_eq!(live.save(&plain, &mode).await.unwrap(), None);
    assert_eq!(world.power(a.id), Power::Paused);
    live.finish_save(&plain, &|_| {}).await.unwrap();

    for (file, memory) in [(&background, 1), (&plain, 2)] {
        hypervisor.kill(&a).await.unwrap();
        let start = Start {
            memory: Some(file.clone()),
            ..start(&a, &[A])
        };
        hypervisor.start(start).await.unwrap();
        assert_eq!(world.power(a.id), Power::Paused);
        assert_eq!(world.guest_memory(a.id).unwrap(), memory);
    }
    assert_eq!(
        live.power().await,
        Err(HypervisorError::Off),
        "a connection outlived its process"
    );

    hypervisor.kill(&a).await.unwrap();
    world.tear(&plain);
    let torn = Start {
        memory: Some(plain),
        ..start(&a, &[A])
    };
    assert!(hypervisor.start(torn).await.is_err());
    assert_eq!(world.power(a.id), Power::Off);
}

#[tokio::test]
async fn frozen_file_systems_hold_writes_back() {
    let world = World::new();
    let daemon = world.daemon();
    let a = machine(&world, "a");
    let live = run(&daemon, &a, &[A]).await;
    let limit = Duration::from_secs(1);
    assert_eq!(live.freeze(limit).await, Ok(1));
    assert!(world.guest_write(a.id, "disk0", 0, 1).is_err());
    live.stop().await.unwrap();
    assert!(matches!(
        live.thaw(limit).await,
        Err(HypervisorError::Timeout(_))
    ));
    live.resume().await.unwrap();
    assert_eq!(live.thaw(limit).await, Ok(1));
    assert_eq!(live.thaw(limit).await, Ok(0));
    world.guest_write(a.id, "disk0", 0, 1).unwrap();
}

#[tokio::test]
async fn what_a_real_one_refuses_is_refused_and_changes_nothing() {
    let world = World::new();
    let daemon = world.daemon();
    let hypervisor = daemon.hypervisor();
    let a = machine(&world, "a");
    let live = run(&daemon, &a, &[A]).await;
    overlay(&daemon, &*live, "/images/top", A).await;
    let other = Overlay {
        layer: layer("/images/other"),
        base: layer(A),
    };
    hypervisor.create_overlay(&other, None).await.unwrap();
    let before = world.survey();

    assert!(
        live.swap(&[swap("/images/top")]).await.is_err(),
        "swapped while the guest runs"
    );
    assert!(
        hypervisor.start(start(&a, &[A])).await.is_err(),
        "two processes of one machine"
    );
    assert!(
        hypervisor.delete_file(Path::new(A)).await.is_err(),
        "deleted a file in use"
    );
    assert!(
        hypervisor
            .rebase(&layer("/images/top"), &layer(A))
            .await
            .is_err(),
        "rebased in use"
    );
    assert!(
        hypervisor.create_overlay(&other, None).await.is_err(),
        "overwrote a file"
    );
    assert!(
        live.close_layers(&[layer(A)]).await.is_err(),
        "closed the active layer"
    );
    let save = live
        .save(Path::new("/nowhere/memory"), &SaveMode::Background)
        .await;
    assert!(save.is_err(), "saved while the guest runs");
    assert_eq!(world.survey(), before);

    live.stop().await.unwrap();
    let both = [swap("/images/top"), swap("/images/other")];
    assert!(
        live.swap(&both).await.is_err(),
        "swapped to an overlay that is not open"
    );
    live.resume().await.unwrap();
    assert_eq!(world.survey(), before, "half a swap");

    hypervisor.kill(&a).await.unwrap();
    let start = start(&a, &["/images/top"]);
    assert!(hypervisor.start(start).await.is_err(), "half a chain");
    world.tear(Path::new("/images/top"));
    assert_eq!(hypervisor.is_image(&layer("/images/top")).await, Ok(false));
    assert_eq!(hypervisor.is_image(&layer(A)).await, Ok(true));
}

#[tokio::test]
async fn what_cannot_be_snapshotted_is_named() {
    let world = World::new();
    let hypervisor = world.daemon().hypervisor();
    let mut definition = world.definition("a", &["one", "two", "three"]);
    world.add_device(Path::new("/dev/sdx")).unwrap();
    definition.disks[1].path = "/dev/sdx".into();
    definition.disks[1].format = ImageFormat::Raw;
    definition.disks[2].read_only = true;
    let reasons = hypervisor.check(&definition).await.unwrap();
    assert_eq!(
        reasons.iter().map(Option::is_some).collect::<Vec<_>>(),
        [false, true, true]
    );
    definition.disks[0].path = "/images/nowhere".into();
    assert!(hypervisor.check(&definition).await.is_err());
}

#[tokio::test]
async fn a_foreign_process_is_attached_by_its_socket_and_never_ended() {
    let world = World::new();
    let daemon = world.daemon();
    let mut a = machine(&world, "a");
    world
        .start_foreign(Path::new("/run/a.qmp"), &[("drive0", Path::new(A))])
        .unwrap();
    assert!(daemon.hypervisor().live(&a).await.unwrap().is_none());
    a.origin = Origin::Attached {
        qmp: "/run/a.qmp".into(),
        guest_agent: None,
    };
    let live = daemon.hypervisor().live(&a).await.unwrap().unwrap();
    assert_eq!(live.power().await, Ok(Power::Running));
    world.guest_write(a.id, "drive0", 0, 1).unwrap();
    assert!(!live.agent_answers().await);
    let kill = daemon.hypervisor().kill(&a).await;
    assert!(matches!(kill, Err(HypervisorError::NotSupported(_))));
    assert_eq!(world.power(a.id), Power::Running);
}
