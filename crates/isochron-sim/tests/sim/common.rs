//! A machine of the simulated world, as a test holds it.

use std::path::PathBuf;
use std::sync::Arc;

use isochron_engine::model::{ImageFormat, LayerId, Machine, MachineId, Origin};
use isochron_engine::ports::{Clock, Hypervisor, LayerFile, LiveMachine, Overlay, Start, Swap};
use isochron_sim::{Daemon, World};

pub fn layer(path: impl Into<PathBuf>) -> LayerFile {
    LayerFile {
        id: LayerId::new(),
        path: path.into(),
        format: ImageFormat::Qcow2,
    }
}

pub fn swap(path: &str) -> Swap {
    Swap {
        disk: "disk0".to_owned(),
        overlay: layer(path),
    }
}

/// A machine with one disk `/images/NAME-disk0.qcow2`.
pub fn machine(world: &World, name: &str) -> Machine {
    Machine {
        id: MachineId::new(),
        name: name.to_owned(),
        origin: Origin::Launched,
        definition: world.definition(name, &["disk0"]),
        disks: vec![],
        current: None,
        last_applied: None,
        notes: String::new(),
        saved: None,
        created_at: world.clock().now(),
    }
}

/// Starts it on this chain and lets it run.
pub async fn run(daemon: &Daemon, machine: &Machine, chain: &[&str]) -> Arc<dyn LiveMachine> {
    let live = daemon
        .hypervisor()
        .start(start(machine, chain))
        .await
        .unwrap();
    live.resume().await.unwrap();
    live
}

pub fn start<'a>(machine: &'a Machine, chain: &[&str]) -> Start<'a> {
    Start {
        id: machine.id,
        definition: &machine.definition,
        chains: vec![chain.iter().map(|path| layer(*path)).collect()],
        machine_type: None,
        memory: None,
    }
}

/// An overlay on a base, created and opened.
pub async fn overlay(daemon: &Daemon, live: &dyn LiveMachine, top: &str, base: &str) {
    let overlay = Overlay {
        layer: layer(top),
        base: layer(base),
    };
    daemon
        .hypervisor()
        .create_overlay(&overlay, Some(1 << 30))
        .await
        .unwrap();
    live.open_overlays(&[swap(top)]).await.unwrap();
}

/// Stops, swaps and resumes.
pub async fn cut(live: &dyn LiveMachine, top: &str) {
    live.stop().await.unwrap();
    live.swap(&[swap(top)]).await.unwrap();
    live.resume().await.unwrap();
}
