//! An export from its order to its end.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use isochron_engine::model::Changes;
use isochron_engine::ports::{self, ArchiveError, Exported, Order, OrderDisk};

use crate::archive::Programs;
use crate::chain::{self, Chain};
use crate::control::Control;
use crate::copy::{self, Known, LANES, Sink};
use crate::directory::{Names, Target, copy_file, new_file, relative, write_file};
use crate::manifest::{
    Blake3, Content, Disk, FileOf, InstantOf, Kind, LayerOf, MANIFEST, Manifest, Member, Mode,
    Parent, SUMS, cannot,
};
use crate::map::Map;
use crate::plan::Plan;
use crate::qcow2::{self, Writer};
use crate::server::{Image, Server};
use crate::threads;

/// An order whose sources are open.
pub(crate) struct Opened {
    programs: Programs,
    target: Target,
    control: Arc<Control>,
    /// Without contents yet.
    manifest: Manifest,
    base: Option<Chain>,
    merge: bool,
    jobs: Vec<Job>,
}

/// A file to be written, of this member.
struct Job {
    member: usize,
    work: Work,
}

enum Work {
    Memory {
        source: File,
        path: PathBuf,
        file: String,
    },
    Disk(Box<DiskJob>),
}

struct DiskJob {
    /// Its number in the member.
    disk: usize,
    source: Source,
    /// What changed since the base.
    changes: Option<Changes>,
    image: String,
    leaves: String,
}

/// A disk's layers, open.
struct Source {
    server: Server,
    /// Where all of its data lies in the layers' files.
    map: Option<(Map, Vec<File>)>,
}

/// What a job wrote.
enum Done {
    Memory(FileOf),
    Disk(usize, Content),
}

impl Opened {
    /// Checks an order and opens what it reads.
    pub(crate) fn new(
        programs: Programs,
        order: Order,
        control: Arc<Control>,
    ) -> Result<Self, ArchiveError> {
        let target = Target::new(&order.directory, order.id)?;
        let base = match &order.base {
            Some(base) => Some(Chain::read(base, &[])?),
            None => None,
        };
        if let Some(base) = &base {
            fits(base, &order)?;
        }
        let kind = match (&base, order.copy_storage, order.merge) {
            (_, false, _) => Kind::Record,
            (None, true, _) => Kind::Full,
            (Some(_), true, false) => Kind::Difference,
            (Some(_), true, true) => Kind::Merged,
        };
        let mut manifest = Manifest::new(order.id, kind, instant(&order.instant));
        let mut opened = Opening {
            order: &order,
            kind,
            base: base.as_ref(),
            programs: &programs,
            control: &control,
            names: Names::default(),
            sources: VecDeque::new(),
            jobs: Vec::new(),
        };
        opened.names.unique(MANIFEST);
        opened.names.unique(SUMS);
        opened.open_sources()?;
        for index in 0..order.members.len() {
            let member = opened.member(index)?;
            manifest.members.push(member);
        }
        let jobs = opened.jobs;
        if let Some(base) = &base {
            let top = base.top();
            let from = real_path(target.directory())?;
            let parent = Parent {
                id: top.manifest.id,
                path: relative(&from, &top.directory),
                manifest_blake3: top.digest,
            };
            match kind {
                Kind::Merged => manifest.merged_from = Some(parent),
                Kind::Difference if has_difference(&manifest) => manifest.parent = Some(parent),
                _ => (),
            }
        }
        Ok(Self {
            programs,
            target,
            control,
            manifest,
            base,
            merge: kind == Kind::Merged,
            jobs,
        })
    }

    /// Writes it. Nothing is left if that fails, unless removing fails as well.
    pub(crate) fn run(mut self) -> Result<Exported, ArchiveError> {
        let target = self.target.clone();
        let control = self.control.clone();
        let result = target.create().and_then(|()| self.write());
        let result = control.outcome(result);
        if result.is_err()
            && let Err(error) = target.remove()
        {
            tracing::warn!("{error}");
        }
        result
    }

    fn write(&mut self) -> Result<Exported, ArchiveError> {
        self.control.check()?;
        let jobs = std::mem::take(&mut self.jobs);
        let done = threads::each(jobs, &self.control, |job| {
            Ok((job.member, self.carry_out(job)?))
        })?;
        for (member, end) in done {
            let member = &mut self.manifest.members[member];
            match end {
                Done::Memory(file) => member.memory = Some(file),
                Done::Disk(disk, content) => member.disks[disk].content = Some(content),
            }
        }
        let text = self.manifest.text()?;
        let digest = Blake3(*blake3::hash(&text).as_bytes());
        let sums = self.manifest.sums(&digest);
        write_file(&self.target.partial().join(MANIFEST), &text)?;
        write_file(&self.target.partial().join(SUMS), sums.as_bytes())?;
        self.control.check()?;
        self.target.finish()?;
        Ok(Exported {
            files: self.manifest.names().collect(),
            bytes: self.manifest.files().map(|file| file.bytes).sum::<u64>()
                + (text.len() + sums.len()) as u64,
        })
    }

    fn carry_out(&self, job: Job) -> Result<Done, ArchiveError> {
        match job.work {
            Work::Memory {
                mut source,
                path,
                file,
            } => {
                let to = self.target.partial().join(file);
                copy_file(&mut source, &path, &to, &self.control).map(Done::Memory)
            }
            Work::Disk(disk) => {
                let index = disk.disk;
                let content = self.disk(job.member, *disk)?;
                Ok(Done::Disk(index, content))
            }
        }
    }

    fn disk(&self, member: usize, mut job: DiskJob) -> Result<Content, ArchiveError> {
        let member = &self.manifest.members[member];
        let disk = &member.disks[job.disk];
        let size = disk.virtual_size;
        let image_path = self.target.partial().join(&job.image);
        let leaves_path = self.target.partial().join(&job.leaves);
        // The base's disk, where it is needed.
        let old = match (&self.base, &job.changes) {
            (Some(base), Some(_)) => base
                .top()
                .manifest
                .disk(member.machine, &disk.name)
                .and_then(|old| Some((base, old, old.content.as_ref()?))),
            _ => None,
        };
        let old_leaves = || -> Result<_, ArchiveError> {
            match old {
                Some((base, disk, content)) => {
                    let leaves = chain::leaves(&base.top().directory, disk, content)?;
                    Ok(Some(leaves))
                }
                None => Ok(None),
            }
        };
        let status = job
            .source
            .server
            .take_status()
            .ok_or_else(|| ArchiveError::Failed("a connection is missing".to_owned()))?;
        let mut base_server = None;
        let mut files = Vec::new();
        let mut backing = None;
        let mut known = Known::Nothing;
        if let Some(again) = old_leaves()? {
            known = Known::Before(Box::new(again));
        }
        let plan = match (old_leaves()?, job.changes.take(), old) {
            (Some(leaves), Some(changes), Some((base, ..))) if self.merge => {
                let images = chain::images(&base.links, member.machine, &disk.name)?;
                let server = Server::start(&self.programs.qemu_nbd, &images, LANES, &self.control)?;
                if server.size() != size {
                    return Err(ArchiveError::Damaged(format!(
                        "{} is of another size than its manifest says",
                        leaves.image.display()
                    )));
                }
                base_server = Some(server);
                Plan::merge(size, status, changes, leaves.leaves)
            }
            (Some(leaves), Some(changes), Some((base, ..))) => {
                backing = Some(self.backing(base, &leaves.image)?);
                Plan::difference(size, status, changes, leaves.leaves)
            }
            _ => match job.source.map.take() {
                Some((map, open)) => {
                    files = open;
                    Plan::mapped(size, status, map)
                }
                None => Plan::full(size, status),
            },
        };
        let on_another = backing.is_some();
        let file = new_file(&image_path)?;
        let leaves_file = new_file(&leaves_path)?;
        let leaves_out = leaves_file
            .try_clone()
            .map_err(|error| cannot("write", &leaves_path, &error))?;
        let leaves_out: Box<dyn Write + Send> =
            Box::new(BufWriter::with_capacity(128 << 10, leaves_out));
        let copied = copy::copy(
            copy::Disk {
                size,
                plan,
                layers: &mut job.source.server,
                files,
                base: base_server.as_mut(),
                sink: Sink::Qcow2 {
                    writer: Writer::new(file, size, backing),
                    on_another,
                },
                sink_path: image_path.clone(),
                leaves: leaves_out,
                leaves_path: leaves_path.clone(),
                known,
            },
            &self.control,
        )?;
        leaves_file
            .sync_all()
            .map_err(|error| cannot("write", &leaves_path, &error))?;
        let image = copied
            .image
            .ok_or_else(|| ArchiveError::Failed("no image was written".to_owned()))?;
        Ok(Content {
            image: FileOf {
                file: job.image,
                bytes: image.bytes,
                blake3: Blake3(image.digest),
            },
            leaves: FileOf {
                file: job.leaves,
                bytes: copied.leaves.bytes,
                blake3: Blake3(copied.leaves.digest),
            },
            blake3: Blake3(copied.leaves.content),
        })
    }

    /// The base's image as an image of this export names it.
    fn backing(&self, base: &Chain, image: &Path) -> Result<String, ArchiveError> {
        let from = real_path(self.target.directory())?;
        let file = image.file_name().unwrap_or_default();
        let path = relative(&from, &base.top().directory).join(file);
        let name = path.to_str().filter(|name| name.len() <= qcow2::NAME);
        name.map(str::to_owned).ok_or_else(|| {
            ArchiveError::Invalid(format!(
                "{} cannot be named in an image: the name is too long or not UTF-8",
                path.display()
            ))
        })
    }
}

/// What is needed while an order is opened.
struct Opening<'a> {
    order: &'a Order,
    kind: Kind,
    base: Option<&'a Chain>,
    programs: &'a Programs,
    control: &'a Arc<Control>,
    names: Names,
    /// Of all disks, in their order.
    sources: VecDeque<Source>,
    jobs: Vec<Job>,
}

impl Opening<'_> {
    /// Opens all disks, several at once: members are held meanwhile.
    fn open_sources(&mut self) -> Result<(), ArchiveError> {
        if self.kind == Kind::Record {
            return Ok(());
        }
        let mut disks = Vec::new();
        for (index, member) in self.order.members.iter().enumerate() {
            for disk in &member.disks {
                if matches!(disk.content, ports::Content::Since(_)) {
                    self.base_holds(index, disk)?;
                }
                disks.push((member, disk));
            }
        }
        let sources = threads::each(disks, self.control, |(member, disk)| {
            let images = disk.chain.iter().map(|layer| Image {
                path: layer.path.clone(),
                format: layer.format,
            });
            let images: Vec<_> = images.collect();
            let qemu_nbd = &self.programs.qemu_nbd;
            let server = Server::start(qemu_nbd, &images, LANES, self.control)?;
            let size = disk.virtual_size;
            let whole = matches!(disk.content, ports::Content::Full { .. }) && size > 0;
            match server.size() == size {
                true if whole => {
                    let map = Map::start(&self.programs.qemu_img, &images, size, self.control);
                    let map = map.map_err(|error| server.failed("mapped", &error))?;
                    Ok(Source { server, map })
                }
                true => Ok(Source { server, map: None }),
                false => Err(ArchiveError::Invalid(format!(
                    "the disk {} of {} has {} bytes and not {}",
                    disk.name,
                    member.machine_name,
                    server.size(),
                    disk.virtual_size
                ))),
            }
        })?;
        self.sources = sources.into();
        Ok(())
    }

    fn member(&mut self, index: usize) -> Result<Member, ArchiveError> {
        let order = self.order;
        let member = &order.members[index];
        let name = &member.machine_name;
        if let (Some(memory), true) = (&member.memory, order.copy_storage) {
            let source = File::open(&memory.path);
            let source = source.map_err(|error| cannot("read", &memory.path, &error))?;
            self.control.expect(memory.bytes);
            self.jobs.push(Job {
                member: index,
                work: Work::Memory {
                    source,
                    path: memory.path.clone(),
                    file: self.names.unique(&format!("{name}.memory")),
                },
            });
        }
        let disks = member.disks.iter().enumerate();
        let disks = disks.map(|(number, disk)| self.disk(index, number, disk));
        let disks = disks.collect::<Result<_, _>>()?;
        Ok(Member {
            machine: member.machine,
            machine_name: name.clone(),
            power: member.power,
            machine_type: member.machine_type.clone(),
            definition: member.definition.clone(),
            memory: None,
            disks,
            left_out: member.left_out.clone(),
        })
    }

    fn disk(
        &mut self,
        index: usize,
        number: usize,
        disk: &OrderDisk,
    ) -> Result<Disk, ArchiveError> {
        let member = &self.order.members[index];
        let (changes, reason) = match &disk.content {
            ports::Content::Full { reason } => (None, reason.clone()),
            ports::Content::Since(changes) => (Some(changes), None),
        };
        let mode = match (self.kind, changes) {
            (Kind::Record, _) => Mode::RecordOnly,
            (Kind::Difference, Some(_)) => Mode::Difference,
            _ => Mode::Full,
        };
        if let Some(source) = self.sources.pop_front() {
            self.control.expect(disk.virtual_size);
            let name = format!("{}.{}", member.machine_name, disk.name);
            self.jobs.push(Job {
                member: index,
                work: Work::Disk(Box::new(DiskJob {
                    disk: number,
                    source,
                    changes: changes.cloned(),
                    image: self.names.unique(&format!("{name}.qcow2")),
                    leaves: self.names.unique(&format!("{name}.leaves")),
                })),
            });
        }
        let layers = disk.chain.iter().map(|layer| LayerOf {
            id: layer.id,
            path: layer.path.clone(),
            format: layer.format,
        });
        Ok(Disk {
            name: disk.name.clone(),
            virtual_size: disk.virtual_size,
            mode,
            reason,
            layers: layers.collect(),
            content: None,
        })
    }

    fn base_holds(&self, index: usize, disk: &OrderDisk) -> Result<(), ArchiveError> {
        let member = &self.order.members[index];
        let base = self.base.map(|base| &base.top().manifest);
        let old = base.and_then(|base| base.disk(member.machine, &disk.name));
        match old {
            Some(old) if old.content.is_some() && old.virtual_size == disk.virtual_size => Ok(()),
            _ => Err(ArchiveError::Invalid(format!(
                "the base does not hold the disk {} of {} in this size",
                disk.name, member.machine_name
            ))),
        }
    }
}

/// A base is of the same collection, and another instant's.
fn fits(base: &Chain, order: &Order) -> Result<(), ArchiveError> {
    let manifest = &base.top().manifest;
    if manifest.instant.collection != order.instant.collection {
        return Err(ArchiveError::Invalid(format!(
            "{} is an export of the collection {}, not of {}",
            base.top().directory.display(),
            manifest.instant.collection_name,
            order.instant.collection_name
        )));
    }
    Ok(())
}

fn has_difference(manifest: &Manifest) -> bool {
    let mut disks = manifest.members.iter().flat_map(|member| &member.disks);
    disks.any(|disk| disk.mode == Mode::Difference)
}

fn instant(instant: &ports::Instant) -> InstantOf {
    InstantOf {
        id: instant.id,
        name: instant.name.clone(),
        collection: instant.collection,
        collection_name: instant.collection_name.clone(),
        kind: instant.kind,
        consistency: instant.consistency,
        created_at: instant.created_at,
        cut: instant.cut.clone(),
        notes: instant.notes.clone(),
    }
}

/// Where a directory will be, without links on the way.
fn real_path(directory: &Path) -> Result<PathBuf, ArchiveError> {
    let parent = directory.parent().unwrap_or(directory);
    let parent = std::fs::canonicalize(parent).map_err(|error| cannot("find", parent, &error))?;
    Ok(parent.join(directory.file_name().unwrap_or_default()))
}
