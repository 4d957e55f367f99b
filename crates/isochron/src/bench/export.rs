//! `isochron bench export`: how fast a disk is exported, beside `qemu-img convert`, and
//! what a difference of little takes.
//!
//! One disk, half of it data and a part of it zeroes that were written, is converted by
//! `qemu-img` and exported by us in turn, to the same file system, several times; then
//! what 1 % of it changed. Each begins with nothing left to be written from before, and
//! the disk in the host's page cache. `qemu-img convert` flushes nothing by default, an
//! export always does; so `qemu-img` is measured with a flush too. Every image that
//! comes out must read as the disk does.
//!
//! Beside exports of the same disk a guest writes, which notices them or does not.

mod guest;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use isochron_backup::DirectoryArchive;
use isochron_backup::manifest::Manifest;
use isochron_engine::model::{
    Changes, CollectionId, Consistency, CutReport, Definition, ExportId, ImageFormat, LayerId,
    MachineId, Power, SnapshotKind,
};
use isochron_engine::ports::{
    Archive, Content, Go, Instant as OfInstant, LayerFile, Order, OrderDisk, OrderMember,
};
use isochron_lab::kit::Kit;
use serde::Serialize;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use self::guest::Noticed;
use super::summary::Spread;
use crate::exit::Failure;
use crate::output::{self, Table};
use crate::stage;

pub const EXAMPLES: &str = "\
Examples:
  isochron bench export
  isochron bench export --size 16384 --rounds 3 --dir /srv/scratch
  isochron bench export --no-guest --json

It needs twice the disk's size of space, and the guest that `make guest` prepares. Nothing else should run meanwhile.";

/// What to measure.
#[derive(Args, Debug)]
pub struct ExportOptions {
    /// Size of the disk in MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048,
        value_parser = clap::value_parser!(u64).range(64..=1 << 20))]
    size: u64,
    /// How often each is measured; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Leave out the guest that writes meanwhile
    #[arg(long)]
    no_guest: bool,
    /// Where to make the temporary directory [default: TMPDIR, else /var/tmp]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Bytes of which the disk is made: in turn data, holes, data, zeroes.
const STRETCH: u64 = 1 << 20;

/// One block in so many is changed for the difference.
const ONE_IN: u64 = 100;

/// What is measured.
const WAYS: [Way; 4] = [
    Way::Convert,
    Way::ConvertFlushed,
    Way::Full,
    Way::Difference,
];

/// A way to have a disk's content once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Way {
    /// `qemu-img convert`, as it is: nothing is flushed.
    Convert,
    /// The same with `-t writeback`: flushed at the end.
    ConvertFlushed,
    /// A full export.
    Full,
    /// An export of what changed.
    Difference,
}

/// What a way took.
#[derive(Debug, Serialize)]
struct Taken {
    way: Way,
    ms: Spread<u64>,
    /// Bytes of what was written.
    bytes: u64,
    /// The most memory that this process had, in KiB.
    memory_kib: Option<u64>,
    /// The most that `qemu-nbd` had, which reads the layers.
    reader_kib: Option<u64>,
}

/// Measures, prints, and fails if an image was another than the disk.
pub fn run(options: &ExportOptions, json: bool) -> Result<(), Failure> {
    let kit = match options.no_guest {
        true => None,
        false => Some(Kit::load().map_err(Failure::usage)?),
    };
    let (taken, noticed) = stage::perform(measure(options, kit.as_ref()))?;
    print(options, &taken, noticed.as_ref(), json)
}

async fn measure(
    options: &ExportOptions,
    kit: Option<&Kit>,
) -> Result<(Vec<Taken>, Option<Noticed>)> {
    let parent = options.dir.clone();
    let parent = parent.or_else(|| std::env::var_os("TMPDIR").map(Into::into));
    let parent = parent.unwrap_or_else(|| "/var/tmp".into());
    let directory = tempfile::Builder::new()
        .prefix("isochron-bench.")
        .tempdir_in(&parent)
        .with_context(|| format!("a directory in {}", parent.display()))?;
    let disk = Disk::make(directory.path(), options.size << 20).await?;
    let mut rounds: Vec<Vec<(Duration, Measured)>> = WAYS.iter().map(|_| Vec::new()).collect();
    // The first round is not counted: it brings the disk into the page cache.
    for round in 0..=options.rounds {
        for (way, rounds) in WAYS.into_iter().zip(&mut rounds) {
            rustix::fs::sync();
            let began = Instant::now();
            let measured = disk.take(way).await?;
            let took = began.elapsed();
            disk.compare(&measured.image, way).await?;
            // The difference of this round stands on the full export of this round.
            if way == Way::Difference {
                std::fs::remove_dir_all(disk.path("full"))?;
                std::fs::remove_dir_all(disk.path("difference"))?;
            } else if way != Way::Full {
                std::fs::remove_file(&measured.image)?;
            }
            if round > 0 {
                rounds.push((took, measured));
            }
        }
    }
    let noticed = match kit {
        Some(kit) => Some(guest::measure(&disk, kit, &parent, options.rounds).await?),
        None => None,
    };
    let taken = WAYS.into_iter().zip(rounds).map(|(way, rounds)| {
        let ms = |took: &Duration| u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let of = |field: fn(&Measured) -> Option<u64>| {
            rounds
                .iter()
                .filter_map(|(_, measured)| field(measured))
                .max()
        };
        Ok(Taken {
            way,
            ms: Spread::of(rounds.iter().map(|(took, _)| ms(took))).context("no round")?,
            bytes: of(|measured| Some(measured.bytes)).unwrap_or_default(),
            memory_kib: of(|measured| measured.memory_kib),
            reader_kib: of(|measured| measured.reader_kib),
        })
    });
    Ok((taken.collect::<Result<_>>()?, noticed))
}

/// A disk of two layers: all, and what changed.
struct Disk {
    directory: PathBuf,
    size: u64,
    layers: [LayerFile; 2],
    changes: Changes,
    machine: MachineId,
    collection: CollectionId,
}

/// What came of one run.
struct Measured {
    image: PathBuf,
    bytes: u64,
    memory_kib: Option<u64>,
    reader_kib: Option<u64>,
}

impl Disk {
    async fn make(directory: &Path, size: u64) -> Result<Self> {
        let layer = |name: &str| LayerFile {
            id: LayerId::new(),
            path: directory.join(name),
            format: ImageFormat::Qcow2,
        };
        let (base, top) = (layer("base.qcow2"), layer("top.qcow2"));
        let size_text = size.to_string();
        qemu_img(&["create", "-q", "-f", "qcow2", text(&base.path)?, &size_text]).await?;
        let mut commands = String::new();
        for (number, at) in (0..size).step_by(STRETCH as usize).enumerate() {
            let length = STRETCH.min(size - at);
            match number % 4 {
                0 | 2 => {
                    let pattern = number % 255 + 1;
                    commands += &format!("write -P {pattern} {at} {length}\n");
                }
                3 if number % 8 == 3 => commands += &format!("write -P 0 {at} {length}\n"),
                _ => (),
            }
        }
        qemu_io(&base.path, &commands).await?;
        qemu_img(&[
            "create",
            "-q",
            "-f",
            "qcow2",
            "-u",
            "-b",
            text(&base.path)?,
            "-F",
            "qcow2",
            text(&top.path)?,
            &size_text,
        ])
        .await?;
        let mut changes = Changes::none();
        let mut commands = String::new();
        for at in (0..size).step_by((Changes::BLOCK * ONE_IN) as usize) {
            let length = Changes::BLOCK.min(size - at);
            commands += &format!("write -P 254 {at} {length}\n");
            changes.touch(at..at + length);
        }
        qemu_io(&top.path, &commands).await?;
        Ok(Self {
            directory: directory.to_owned(),
            size,
            layers: [base, top],
            changes,
            machine: MachineId::new(),
            collection: CollectionId::new(),
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    async fn take(&self, way: Way) -> Result<Measured> {
        let flush: &[&str] = match way {
            Way::Convert => &[],
            Way::ConvertFlushed => &["-t", "writeback"],
            Way::Full | Way::Difference => return self.export(way).await,
        };
        let image = self.path("converted.qcow2");
        let mut arguments = vec!["convert", "-f", "qcow2", "-O", "qcow2"];
        arguments.extend(flush);
        arguments.extend([text(&self.layers[0].path)?, text(&image)?]);
        qemu_img(&arguments).await?;
        Ok(Measured {
            bytes: std::fs::metadata(&image)?.len(),
            image,
            memory_kib: None,
            reader_kib: None,
        })
    }

    async fn export(&self, way: Way) -> Result<Measured> {
        let difference = way == Way::Difference;
        let directory = self.path(if difference { "difference" } else { "full" });
        let order = self.order(directory.clone(), difference)?;
        forget_peak()?;
        let reader = AtomicU64::new(0);
        let export = DirectoryArchive::default().open(order).await?;
        let exported = export
            .run(&|_| {
                let peak = readers_peak(&self.directory);
                reader.fetch_max(peak.unwrap_or_default(), Ordering::Relaxed);
                Go::On
            })
            .await?;
        let memory_kib = peak("self");
        let (manifest, _) = Manifest::read(&directory)?;
        let image = manifest.files().find(|file| file.file.ends_with(".qcow2"));
        let image = directory.join(&image.context("no image")?.file);
        Ok(Measured {
            image,
            bytes: exported.bytes,
            memory_kib,
            reader_kib: Some(reader.into_inner()).filter(|peak| *peak > 0),
        })
    }

    fn order(&self, directory: PathBuf, difference: bool) -> Result<Order> {
        let [base, top] = &self.layers;
        let definition: Definition = serde_json::from_value(json!({ "name": "disk" }))?;
        Ok(Order {
            id: ExportId::new(),
            directory,
            instant: OfInstant {
                id: uuid::Uuid::new_v4(),
                name: "bench".to_owned(),
                collection: self.collection,
                collection_name: "bench".to_owned(),
                kind: SnapshotKind::Recovery,
                consistency: Consistency::Crash,
                created_at: time::OffsetDateTime::now_utc(),
                cut: CutReport::default(),
                notes: String::new(),
            },
            members: vec![OrderMember {
                machine: self.machine,
                machine_name: "disk".to_owned(),
                power: Power::Off,
                definition,
                machine_type: None,
                memory: None,
                disks: vec![OrderDisk {
                    name: "disk0".to_owned(),
                    chain: match difference {
                        true => vec![top.clone(), base.clone()],
                        false => vec![base.clone()],
                    },
                    virtual_size: self.size,
                    content: match difference {
                        true => Content::Since(self.changes.clone()),
                        false => Content::Full { reason: None },
                    },
                }],
                left_out: Vec::new(),
            }],
            base: difference.then(|| self.path("full")),
            merge: false,
            copy_storage: true,
            limit: None,
        })
    }

    /// Exports the disk in full, and a guest's frozen layer with it.
    async fn export_beside(&self, guest: &LayerFile, bytes: u64) -> Result<()> {
        let directory = self.path("beside");
        let mut order = self.order(directory.clone(), false)?;
        if let Some(member) = order.members.first_mut() {
            member.disks.push(OrderDisk {
                name: "disk1".to_owned(),
                chain: vec![guest.clone()],
                virtual_size: bytes,
                content: Content::Full { reason: None },
            });
        }
        let export = DirectoryArchive::default().open(order).await?;
        export.run(&|_| Go::On).await?;
        std::fs::remove_dir_all(directory)?;
        Ok(())
    }

    /// Sees that an image reads as the layers that it was made of.
    async fn compare(&self, image: &Path, way: Way) -> Result<()> {
        let [base, top] = &self.layers;
        let layer = if way == Way::Difference { top } else { base };
        let arguments = ["compare", "-q", text(image)?, text(&layer.path)?];
        let compared = qemu_img(&arguments).await;
        compared.with_context(|| format!("{way:?} made another disk"))
    }
}

async fn qemu_img(arguments: &[&str]) -> Result<()> {
    let ended = Command::new("qemu-img")
        .args(arguments)
        .kill_on_drop(true)
        .stdin(Stdio::null())
        .status()
        .await?;
    ensure!(ended.success(), "qemu-img {arguments:?}: {ended}");
    Ok(())
}

/// Has `qemu-io` carry out commands.
async fn qemu_io(image: &Path, commands: &str) -> Result<()> {
    let mut child = Command::new("qemu-io")
        .args(["-f", "qcow2", text(image)?])
        .kill_on_drop(true)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    stdin.write_all(commands.as_bytes()).await?;
    drop(stdin);
    let ended = child.wait().await?;
    ensure!(ended.success(), "qemu-io: {ended}");
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}

/// Has the peak of this process' memory begin anew (proc(5), `clear_refs`).
fn forget_peak() -> Result<()> {
    std::fs::write("/proc/self/clear_refs", "5").context("the peak of memory")
}

/// The most memory that a process had, in KiB.
fn peak(process: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The most memory that a `qemu-nbd` on files of this directory had.
fn readers_peak(directory: &Path) -> Option<u64> {
    let directory = directory.to_str()?;
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let peaks = processes.filter_map(|process| {
        let id = process.file_name().into_string().ok()?;
        let name = std::fs::read_to_string(format!("/proc/{id}/comm")).ok()?;
        let command = std::fs::read(format!("/proc/{id}/cmdline")).ok()?;
        let ours =
            name.trim() == "qemu-nbd" && String::from_utf8_lossy(&command).contains(directory);
        ours.then(|| peak(&id)).flatten()
    });
    peaks.max()
}

fn print(
    options: &ExportOptions,
    taken: &[Taken],
    noticed: Option<&Noticed>,
    json: bool,
) -> Result<(), Failure> {
    if json {
        return output::json(&json!({
            "size_mib": options.size,
            "rounds": options.rounds,
            "changed": 1.0 / ONE_IN as f64,
            "ways": taken,
            "guest": noticed,
        }));
    }
    let median = |way: Way| {
        let found = taken.iter().find(|taken| taken.way == way);
        found.map_or(f64::NAN, |taken| taken.ms.median as f64)
    };
    let mib = |kib: Option<u64>| kib.map(|kib| format!("{:.1} MiB", kib as f64 / 1024.0));
    let mut table = Table::new([
        "WAY", "TIME", "WORST", "RATIO", "WRITTEN", "MEMORY", "READER",
    ]);
    for taken in taken {
        let (name, beside) = match taken.way {
            Way::Convert => ("qemu-img convert, nothing flushed", Way::Convert),
            Way::ConvertFlushed => ("qemu-img convert -t writeback", Way::Convert),
            Way::Full => ("full export, flushed", Way::ConvertFlushed),
            Way::Difference => ("difference of 1 %, flushed", Way::Full),
        };
        let ratio = taken.ms.median as f64 / median(beside);
        table.row([
            name.to_owned(),
            format!("{} ms", taken.ms.median),
            format!("{} ms", taken.ms.worst),
            match beside == taken.way {
                true => "1".to_owned(),
                false => format!("{ratio:.2}"),
            },
            format!("{} MiB", taken.bytes >> 20),
            mib(taken.memory_kib).unwrap_or_default(),
            mib(taken.reader_kib).unwrap_or_default(),
        ]);
    }
    let guest = noticed.map(|noticed| {
        let median = |times: &[u64]| Spread::of(times.iter().copied()).map_or(0, |all| all.median);
        let (during, usual) = (median(&noticed.export_us), median(&noticed.usual_us));
        format!(
            "A writing guest's longest gap during an export: {}, and without one {} ({:.2} times).\n",
            output::micros(during),
            output::micros(usual),
            during as f64 / usual as f64
        )
    });
    let guest = guest.unwrap_or_default();
    output::text(&format!(
        "{table}A disk of {} MiB, median of {}. RATIO is to the way that is flushed alike: a full \
         export's\nto the flushed convert, a difference's to the full export. MEMORY is the most \
         that this\nprocess had, READER the most of qemu-nbd.\n{guest}",
        options.size, options.rounds
    ))
}
