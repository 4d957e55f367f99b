//! What a guest that writes notices of an export: its longest gap between two writes,
//! beside the longest in a quiet time of the same length.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use isochron_api::dto::{NewSnapshot, SnapshotKind};
use isochron_engine::model::{ImageFormat, LayerId};
use isochron_engine::ports::LayerFile;
use isochron_lab::kit::Kit;
use isochron_lab::ring::{Options, Ring};
use serde::Serialize;

use super::Disk;
use crate::bench::cut::pulse::{Pulses, now_us};
use crate::stage::Stage;

/// After so long without a write a guest is given up.
const WRITTEN: Duration = Duration::from_secs(60);

/// At least so long a quiet time is, however quick an export.
const QUIET: Duration = Duration::from_secs(2);

/// The longest gaps of a guest.
#[derive(Debug, Serialize)]
pub struct Noticed {
    /// In the quiet times, per round.
    pub usual_us: Vec<u64>,
    /// During the exports, per round.
    pub export_us: Vec<u64>,
}

/// Runs a guest beside exports of the disk, of its own frozen layer too.
pub async fn measure(disk: &Disk, kit: &Kit, dir: &Path, rounds: u32) -> Result<Noticed> {
    let stage = Stage::open(Some(dir)).await?;
    let options = Options {
        name: "export".to_owned(),
        count: 1,
        pulse: true,
        ..Options::default()
    };
    let disk_bytes = options.disk_mib << 20;
    let ring = stage.ring_of(kit, options).await?;
    let pulses = Pulses::listen(&ring.pulses())?;
    let own = freeze(&stage, &ring).await?;
    let mut noticed = Noticed {
        usual_us: Vec::new(),
        export_us: Vec::new(),
    };
    // The first round is not counted.
    for round in 0..=rounds {
        rustix::fs::sync();
        written_since(&pulses, now_us()).await?;
        let (from, began) = (now_us(), Instant::now());
        disk.export_beside(&own, disk_bytes).await?;
        let took = began.elapsed();
        let to = now_us();
        rustix::fs::sync();
        written_since(&pulses, now_us()).await?;
        let quiet_from = now_us();
        tokio::time::sleep(took.max(QUIET)).await;
        let quiet_to = now_us();
        written_since(&pulses, quiet_to).await?;
        let gaps = pulses.gaps(from, to).zip(pulses.gaps(quiet_from, quiet_to));
        let (during, usual) = gaps.context("the guest wrote nothing")?;
        pulses.clear();
        if round > 0 {
            noticed.export_us.push(during.longest_us);
            noticed.usual_us.push(usual.longest_us);
        }
    }
    drop(pulses);
    stage.close().await?;
    Ok(noticed)
}

/// A snapshot of the guest: its frozen layer.
async fn freeze(stage: &Stage, ring: &Ring) -> Result<LayerFile> {
    let name = ring
        .members
        .first()
        .context("no guest")?
        .definition
        .name
        .clone();
    let new = NewSnapshot {
        collection: name,
        name: Some("exported".to_owned()),
        kind: SnapshotKind::Recovery,
        consistency: None,
        ignore_excluded_disks: false,
        id: None,
    };
    let job = stage.client.create_snapshot(&new).await?;
    stage.completed(job).await?;
    let snapshot = stage.snapshot("exported").await?;
    let disks = snapshot.members.iter().flat_map(|member| &member.disks);
    let frozen = disks.into_iter().next().context("no disk")?;
    Ok(LayerFile {
        id: LayerId(frozen.layer_id),
        path: frozen.layer.clone(),
        format: ImageFormat::Qcow2,
    })
}

/// Waits until the guest has written again.
async fn written_since(pulses: &Pulses, since_us: u64) -> Result<()> {
    let began = Instant::now();
    while !pulses.all_since(since_us) {
        ensure!(
            began.elapsed() < WRITTEN,
            "the guest does not tell of its writes any more"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}
