//! Machines: defining, attaching, starting, stopping.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;

use crate::access::Operation;
use crate::collections::{check_name, exists};
use crate::cut::resume;
use crate::layers::chain;
use crate::model::{
    Definition, Disk, DiskDefinition, Layer, LayerId, Machine, MachineId, Origin, Power, Snapshot,
};
use crate::ports::{HypervisorError, LiveMachine, Start};
use crate::records::{activity_key, collection_key, layer_key, machine_key, machine_name_key};
use crate::recovery::files;
use crate::{Engine, EngineError, ErrorKind};

/// A machine as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct MachineView {
    /// Its record.
    pub machine: Machine,
    /// What it does.
    pub power: Power,
    /// Its process, where it is known.
    pub process_id: Option<u32>,
    /// Since when it does that; absent where someone else changed it.
    pub since: Option<OffsetDateTime>,
    /// How long it has run since it was last turned on or restored, without pauses;
    /// absent where it is off or that is not known.
    pub on_time: Option<Duration>,
    /// Its disks' chains.
    pub disks: Vec<DiskView>,
}

/// A disk as it is now.
#[derive(Clone, Debug, PartialEq)]
pub struct DiskView {
    /// Its name.
    pub name: String,
    /// The chain, the active layer first: that one's file is what the machine has
    /// to be started from. Empty where an attached machine's disk is no file.
    pub chain: Vec<Layer>,
    /// Why it cannot be snapshotted, if it cannot.
    pub excluded: Option<String>,
}

impl Engine {
    /// Defines a machine that we start.
    ///
    /// # Errors
    /// `InvalidParameter` a definition that cannot be; `Exists` a name, identifier
    /// or image in use.
    pub async fn define_machine(&self, definition: Definition) -> Result<Machine, EngineError> {
        let target = format!("machine {}", definition.name);
        let define = self.define(definition, None);
        self.perform(Operation::DefineMachine, target, define).await
    }

    /// Defines a machine that is saved: started, it goes on from the memory in this
    /// file, on the disks of its definition as they are. The file is the engine's from
    /// then on: it goes when the machine has gone on, or is turned off.
    ///
    /// # Errors
    /// As [`define_machine`](Self::define_machine); `InvalidParameter` also where the
    /// file is not there or holds no memory, `Exists` where it belongs to another
    /// machine or a snapshot.
    pub async fn define_saved_machine(
        &self,
        definition: Definition,
        memory: PathBuf,
    ) -> Result<Machine, EngineError> {
        let target = format!("machine {}", definition.name);
        let define = self.define(definition, Some(memory));
        self.perform(Operation::DefineMachine, target, define).await
    }

    async fn define(
        &self,
        mut definition: Definition,
        memory: Option<PathBuf>,
    ) -> Result<Machine, EngineError> {
        self.confine_definition(&mut definition).await?;
        let saved = match memory {
            Some(memory) => {
                let memory = self.confine(&memory).await?;
                Some(self.inner.hypervisor.saved_state(&memory).await?)
            }
            None => None,
        };
        check_name(&definition.name)?;
        for (index, disk) in definition.disks.iter_mut().enumerate() {
            if disk.name.is_empty() {
                disk.name = format!("disk{index}");
            }
        }
        for (index, disk) in definition.disks.iter().enumerate() {
            if definition.disks[..index]
                .iter()
                .any(|other| other.name == disk.name)
            {
                return Err(EngineError::invalid(format!(
                    "two disks are named {}",
                    disk.name
                )));
            }
        }
        let excluded = self.inner.hypervisor.check(&definition).await?;
        let id = definition.id.unwrap_or_else(MachineId::new);
        definition.id = Some(id);
        let disks = definition.disks.iter().zip(excluded);
        let (disks, layers) = disks
            .map(|(disk, excluded)| root(id, disk, excluded))
            .unzip();
        self.add(
            Machine {
                id,
                name: definition.name.clone(),
                origin: Origin::Launched,
                definition,
                disks,
                current: None,
                last_applied: None,
                notes: String::new(),
                saved,
                created_at: self.inner.clock.now(),
            },
            layers,
        )
        .await
    }

    /// Makes a machine known whose process is its owner's.
    ///
    /// # Errors
    /// `InvalidState` the socket is not there or does not answer; `Exists` name or
    /// image in use.
    pub async fn attach_machine(
        &self,
        name: &str,
        qmp: PathBuf,
        guest_agent: Option<PathBuf>,
    ) -> Result<Machine, EngineError> {
        let target = format!("machine {name}");
        let attach = self.attach(name, qmp, guest_agent);
        self.perform(Operation::AttachMachine, target, attach).await
    }

    async fn attach(
        &self,
        name: &str,
        qmp: PathBuf,
        guest_agent: Option<PathBuf>,
    ) -> Result<Machine, EngineError> {
        let qmp = self.confine(&qmp).await?;
        let guest_agent = match guest_agent {
            Some(path) => Some(self.confine(&path).await?),
            None => None,
        };
        check_name(name)?;
        let id = MachineId::new();
        let definition = Definition {
            name: name.to_owned(),
            id: Some(id),
            memory_mib: 0,
            cpus: 0,
            machine: String::new(),
            accel: crate::model::Accelerator::Auto,
            kernel: None,
            initrd: None,
            append: None,
            firmware: None,
            serial_log: None,
            guest_agent: guest_agent.is_some(),
            extra_args: Vec::new(),
            disks: Vec::new(),
            nics: Vec::new(),
        };
        let mut machine = Machine {
            id,
            name: name.to_owned(),
            origin: Origin::Attached {
                qmp: qmp.clone(),
                guest_agent,
            },
            definition,
            disks: Vec::new(),
            current: None,
            last_applied: None,
            notes: String::new(),
            saved: None,
            created_at: self.inner.clock.now(),
        };
        let live =
            self.inner.hypervisor.live(&machine).await?.ok_or_else(|| {
                EngineError::state(format!("nobody answers on {}", qmp.display()))
            })?;
        if let Some(machine_type) = live.machine_type().await? {
            machine.definition.machine = machine_type;
        }
        let mut layers = Vec::new();
        for truth in live.disks().await? {
            let disk = DiskDefinition {
                name: truth.name,
                path: truth.path,
                format: truth.format,
                cache: crate::model::Cache::default(),
                read_only: truth.read_only,
            };
            let (disk_now, layer) = root(id, &disk, truth.excluded);
            machine.definition.disks.push(disk);
            machine.disks.push(disk_now);
            layers.push(layer);
        }
        self.add(machine, layers).await
    }

    async fn add(&self, machine: Machine, layers: Vec<Layer>) -> Result<Machine, EngineError> {
        // Begun first: another may claim the same image.
        let mut transaction = self.inner.records.begin().await;
        let taken: Vec<Layer> = self.inner.records.list().await?;
        for layer in &layers {
            let shared = machine
                .disks
                .iter()
                .any(|disk| disk.active == layer.id && disk.read_only);
            if !shared && layer.is_file() && taken.iter().any(|other| other.path == layer.path) {
                return Err(exists(format!(
                    "the image {} belongs to another machine",
                    layer.path.display()
                )));
            }
        }
        if let Some(saved) = &machine.saved {
            self.owned_by_nobody(&saved.memory.path, taken.iter().chain(&layers))
                .await?;
        }
        // As a collection of one it shares its identifier with no other collection.
        let collection = collection_key(machine.id.into());
        if transaction.exists(&machine_key(machine.id)).await?
            || transaction.exists(&collection).await?
        {
            return Err(exists(format!(
                "the identifier {} is in use already",
                machine.id
            )));
        }
        if transaction.exists(&machine_name_key(&machine.name)).await? {
            return Err(exists(format!(
                "a machine named {} exists already",
                machine.name
            )));
        }
        transaction.put(&machine)?;
        transaction.put_index(machine_name_key(&machine.name), &machine.id)?;
        for layer in &layers {
            transaction.put(layer)?;
        }
        if machine.saved.is_some() {
            self.inner
                .note(&mut transaction, machine.id, Power::Saved)
                .await?;
        }
        transaction.commit().await?;
        Ok(machine)
    }

    /// A memory that a machine is to own, and that is deleted with its state, is no
    /// other machine's, no snapshot's and no disk.
    async fn owned_by_nobody(
        &self,
        memory: &Path,
        mut layers: impl Iterator<Item = &Layer>,
    ) -> Result<(), EngineError> {
        let machines: Vec<Machine> = self.inner.records.list().await?;
        let snapshots: Vec<Snapshot> = self.inner.records.list().await?;
        let machines = machines.iter().filter_map(|machine| machine.saved.as_ref());
        let members = snapshots.iter().flat_map(|snapshot| &snapshot.members);
        let members = members.filter_map(|member| member.memory.as_ref());
        let mut memories = machines.map(|saved| &saved.memory).chain(members);
        if memories.any(|other| other.path == memory) || layers.any(|layer| layer.path == memory) {
            return Err(exists(format!(
                "the memory {} belongs to a machine or a snapshot already",
                memory.display()
            )));
        }
        Ok(())
    }

    /// Forgets a machine. Its images stay, and the process of an attached one.
    ///
    /// # Errors
    /// `NotFound`; `InvalidState` while we run it, while it is a member of a
    /// collection, or while it has snapshots or reference points.
    pub async fn undefine_machine(&self, id: MachineId) -> Result<(), EngineError> {
        let target = self.machine_target(id).await;
        self.perform(Operation::UndefineMachine, target, self.undefine(id))
            .await
    }

    async fn undefine(&self, id: MachineId) -> Result<(), EngineError> {
        let machine = self.machine(id).await?;
        let _pass = self.inner.enter_machines("it is being undefined", [id])?;
        if !machine.attached() {
            let power = self.power(id).await?;
            if power != Power::Off {
                return Err(EngineError::state(format!(
                    "machine {} is {power}; stop it first",
                    machine.name
                )));
            }
        }
        // Begun first: another may make it a member.
        let mut transaction = self.inner.records.begin().await;
        if let Some(collection) = self.collections_with(id).await?.first() {
            return Err(EngineError::state(format!(
                "machine {} is a member of collection {}; remove it there first",
                machine.name, collection.name
            )));
        }
        if let Some(snapshot) = self.snapshots_of_machine(id).await?.first() {
            return Err(EngineError::state(format!(
                "machine {} is part of snapshot {} ({}); destroy that first",
                machine.name, snapshot.name, snapshot.id
            )));
        }
        if let Some(point) = self.reference_points_of_machine(id).await?.first() {
            return Err(EngineError::state(format!(
                "machine {} is part of reference point {} ({}); destroy that first",
                machine.name, point.name, point.id
            )));
        }
        let layers = self.inner.records.layers(id).await?;
        let machine: Machine = transaction.require(&machine_key(id)).await?;
        transaction.delete(machine_key(id));
        transaction.delete(machine_name_key(&machine.name));
        transaction.delete(activity_key(id));
        for layer in layers {
            transaction.delete(layer_key(id, layer.id));
        }
        transaction.collected(id);
        transaction.commit().await
    }

    /// Gives a machine another name.
    ///
    /// # Errors
    /// `NotFound`; `InvalidParameter` name; `Exists` name in use.
    pub async fn rename_machine(&self, id: MachineId, name: &str) -> Result<(), EngineError> {
        let target = self.machine_target(id).await;
        self.perform(Operation::ModifyMachine, target, self.rename(id, name))
            .await
    }

    async fn rename(&self, id: MachineId, name: &str) -> Result<(), EngineError> {
        check_name(name)?;
        let mut transaction = self.inner.records.begin().await;
        let mut machine: Machine = transaction
            .get(&machine_key(id))
            .await?
            .ok_or_else(|| EngineError::not_found(format!("there is no machine {id}")))?;
        if machine.name == name {
            return Ok(());
        }
        if transaction.exists(&machine_name_key(name)).await? {
            return Err(exists(format!("a machine named {name} exists already")));
        }
        transaction.delete(machine_name_key(&machine.name));
        transaction.put_index(machine_name_key(name), &id)?;
        name.clone_into(&mut machine.name);
        name.clone_into(&mut machine.definition.name);
        transaction.put(&machine)?;
        transaction.commit().await
    }

    /// All machines, by name.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn machines(&self) -> Result<Vec<Machine>, EngineError> {
        let mut machines: Vec<Machine> = self.inner.records.list().await?;
        machines.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(machines)
    }

    /// A machine.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn machine(&self, id: MachineId) -> Result<Machine, EngineError> {
        self.inner.machine(id).await
    }

    /// A machine by name or identifier.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn find_machine(&self, text: &str) -> Result<Machine, EngineError> {
        let id = match self.inner.records.index(&machine_name_key(text)).await? {
            Some(id) => Some(id),
            None => text.parse().ok(),
        };
        match id {
            Some(id) => self.machine(id).await,
            None => Err(EngineError::not_found(format!(
                "there is no machine {text}"
            ))),
        }
    }

    /// A machine with what it does and its disks' chains.
    ///
    /// # Errors
    /// `NotFound`; `Timeout` it does not answer.
    pub async fn machine_view(&self, id: MachineId) -> Result<MachineView, EngineError> {
        let (machine, layers) = self.inner.machine_and_layers(id).await?;
        let live = self.inner.hypervisor.live(&machine).await?;
        let power = machine.power(live.as_ref()).await?;
        let disks = disk_views(&machine, &layers);
        let process_id = live.and_then(|live| live.process_id());
        let activity = self.inner.activity(id).await?.filter(|a| a.power == power);
        Ok(MachineView {
            since: activity.as_ref().map(|activity| activity.since),
            on_time: activity.and_then(|a| a.on_time(self.inner.clock.now())),
            machine,
            power,
            process_id,
            disks,
        })
    }

    /// A machine's disks' chains, in the order of its disks.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn disks(&self, id: MachineId) -> Result<Vec<DiskView>, EngineError> {
        let (machine, layers) = self.inner.machine_and_layers(id).await?;
        Ok(disk_views(&machine, &layers))
    }

    /// What a machine does.
    ///
    /// # Errors
    /// `NotFound`; `Timeout` it does not answer.
    pub async fn power(&self, id: MachineId) -> Result<Power, EngineError> {
        let machine = self.machine(id).await?;
        let live = self.inner.hypervisor.live(&machine).await?;
        Ok(machine.power(live.as_ref()).await?)
    }

    /// Starts a machine from its active layers, and from its memory where it is
    /// saved.
    ///
    /// # Errors
    /// `InvalidState` it is on already or in use; `NotSupported` it is attached;
    /// `Failed` with the hypervisor's words.
    pub async fn start_machine(&self, id: MachineId) -> Result<(), EngineError> {
        let target = self.machine_target(id).await;
        self.perform(Operation::StartMachine, target, self.start(id))
            .await
    }

    pub(crate) async fn start(&self, id: MachineId) -> Result<(), EngineError> {
        if self.machine(id).await?.saved.is_some() {
            let job = self.restore_machine(id, None).await?;
            return self.done(job).await;
        }
        let _pass = self.inner.enter_machines("it is being started", [id])?;
        let machine = self.machine(id).await?;
        let of = |error: EngineError| error.of(format!("machine {}", machine.name));
        if machine.saved.is_some() {
            return Err(of(EngineError::state("it was saved just now; try again")));
        }
        if self.inner.hypervisor.live(&machine).await?.is_some() {
            return Err(of(EngineError::state("it is on already")));
        }
        self.inner.turned(&machine, Power::Off).await;
        if machine.attached() {
            return Err(of(EngineError::new(
                ErrorKind::NotSupported,
                "it is attached: its owner starts it; `vm show` says from which files",
            )));
        }
        let mut transaction = self.inner.records.begin().await;
        transaction.starting(id)?;
        transaction.commit().await?;
        let run = self.start_process(&machine).await;
        let mut transaction = self.inner.records.begin().await;
        transaction.started(id);
        let recorded = transaction.commit().await;
        run.map_err(of)?;
        self.inner.turned(&machine, Power::Running).await;
        // It runs; a record that is still there finds it running.
        if let Err(error) = recorded {
            tracing::warn!(machine = %machine.name, %error, "that it runs is not recorded");
        }
        Ok(())
    }

    /// A machine's process, running; none on error.
    async fn start_process(&self, machine: &Machine) -> Result<(), EngineError> {
        let id = machine.id;
        let layers = self.inner.records.layers(id).await?;
        let live = self
            .inner
            .hypervisor
            .start(Start {
                id,
                definition: &machine.definition,
                chains: machine
                    .disks
                    .iter()
                    .map(|disk| files(&chain(&layers, disk.active)))
                    .collect(),
                machine_type: None,
                memory: None,
            })
            .await?;
        if let Err(error) = resume(live.as_ref(), self.inner.config.deadlines.stop).await {
            // All or nothing, so that it can be tried again.
            self.inner.hypervisor.kill(machine).await?;
            return Err(error.into());
        }
        Ok(())
    }

    /// Asks the guest to shut down and waits this long until it has.
    ///
    /// # Errors
    /// `InvalidState` it is off or in use; `Timeout` the guest did not.
    pub async fn shut_down_machine(
        &self,
        id: MachineId,
        wait: Duration,
    ) -> Result<(), EngineError> {
        let target = self.machine_target(id).await;
        self.perform(Operation::ShutDownMachine, target, self.shut_down(id, wait))
            .await
    }

    pub(crate) async fn shut_down(&self, id: MachineId, wait: Duration) -> Result<(), EngineError> {
        let _pass = self.inner.enter_machines("it is being shut down", [id])?;
        let (machine, live) = self.live(id).await?;
        live.ask_shutdown().await?;
        let until = Instant::now() + wait;
        while self.inner.hypervisor.live(&machine).await?.is_some() {
            if Instant::now() >= until {
                return Err(EngineError::new(
                    ErrorKind::Timeout,
                    format!(
                        "machine {}: the guest did not shut down within {wait:?}; stop it by \
                         force, or wait longer",
                        machine.name
                    ),
                ));
            }
            self.inner.clock.sleep(Duration::from_millis(100)).await;
        }
        self.inner.turned(&machine, Power::Off).await;
        Ok(())
    }

    /// Ends a machine's process without asking the guest, and gives up what was
    /// saved of it. Like pulling the plug it is possible at any time; an operation
    /// that the machine takes part in fails.
    ///
    /// # Errors
    /// `NotSupported` it is attached.
    pub async fn kill_machine(&self, id: MachineId) -> Result<(), EngineError> {
        let target = self.machine_target(id).await;
        self.perform(Operation::KillMachine, target, self.kill(id))
            .await
    }

    pub(crate) async fn kill(&self, id: MachineId) -> Result<(), EngineError> {
        let machine = self.machine(id).await?;
        if machine.attached() {
            return Err(EngineError::new(
                ErrorKind::NotSupported,
                format!(
                    "machine {} is attached: its owner ends its process",
                    machine.name
                ),
            ));
        }
        // What is saved belongs to whoever is at work on it; a process does not.
        let _pass = match machine.saved {
            Some(_) => Some(self.inner.enter_machines("it is being turned off", [id])?),
            None => None,
        };
        self.inner.hypervisor.kill(&machine).await?;
        if machine.saved.is_none() {
            self.inner.turned(&machine, Power::Off).await;
            return Ok(());
        }
        let mut transaction = self.inner.records.begin().await;
        let mut machine: Machine = transaction.require(&machine_key(id)).await?;
        self.inner
            .give_up_saved(&mut transaction, &mut machine)
            .await?;
        self.inner.note(&mut transaction, id, Power::Off).await?;
        transaction.put(&machine)?;
        transaction.commit().await?;
        self.inner.saw_power(&machine, Power::Off);
        self.inner.empty_trash().await;
        Ok(())
    }

    /// Lets a machine stand still.
    ///
    /// # Errors
    /// `InvalidState` it is off or in use.
    pub async fn pause_machine(&self, id: MachineId) -> Result<(), EngineError> {
        let target = self.machine_target(id).await;
        self.perform(Operation::PauseMachine, target, self.pause(id))
            .await
    }

    pub(crate) async fn pause(&self, id: MachineId) -> Result<(), EngineError> {
        let _pass = self.inner.enter_machines("it is being paused", [id])?;
        let (machine, live) = self.live(id).await?;
        // Or a start that could not be recorded as done would be finished by recovery.
        if self.inner.records.starting().await?.contains(&id) {
            let mut transaction = self.inner.records.begin().await;
            transaction.started(id);
            transaction.commit().await?;
        }
        if live.power().await? == Power::Running {
            self.inner.saw_power(&machine, Power::Running);
            live.stop().await?;
            self.inner.turned(&machine, Power::Paused).await;
        }
        self.inner.saw_power(&machine, Power::Paused);
        Ok(())
    }

    /// Lets a machine run on.
    ///
    /// # Errors
    /// `InvalidState` it is off or in use.
    pub async fn resume_machine(&self, id: MachineId) -> Result<(), EngineError> {
        let target = self.machine_target(id).await;
        self.perform(Operation::ResumeMachine, target, self.let_run(id))
            .await
    }

    pub(crate) async fn let_run(&self, id: MachineId) -> Result<(), EngineError> {
        let _pass = self.inner.enter_machines("it is being resumed", [id])?;
        let (machine, live) = self.live(id).await?;
        let before = live.power().await?;
        self.inner.saw_power(&machine, before);
        resume(live.as_ref(), self.inner.config.deadlines.stop).await?;
        if before == Power::Paused {
            self.inner.turned(&machine, Power::Running).await;
        }
        Ok(())
    }

    async fn live(&self, id: MachineId) -> Result<(Machine, Arc<dyn LiveMachine>), EngineError> {
        let machine = self.machine(id).await?;
        match self.inner.hypervisor.live(&machine).await? {
            Some(live) => Ok((machine, live)),
            None => Err(EngineError::state(format!(
                "machine {} is {}",
                machine.name,
                machine.power(None).await?
            ))),
        }
    }
}

impl Machine {
    /// What it does, given its live side if it has one.
    pub(crate) async fn power(
        &self,
        live: Option<&Arc<dyn LiveMachine>>,
    ) -> Result<Power, HypervisorError> {
        match live {
            Some(live) => live.power().await,
            None if self.saved.is_some() => Ok(Power::Saved),
            None => Ok(Power::Off),
        }
    }
}

fn disk_views(machine: &Machine, layers: &[Layer]) -> Vec<DiskView> {
    let view = |disk: &Disk| DiskView {
        name: disk.name.clone(),
        chain: chain(layers, disk.active)
            .into_iter()
            .filter(Layer::is_file)
            .collect(),
        excluded: disk.excluded.clone(),
    };
    machine.disks.iter().map(view).collect()
}

/// A disk as it is when its machine becomes known: one layer, its owner's image.
fn root(machine: MachineId, disk: &DiskDefinition, excluded: Option<String>) -> (Disk, Layer) {
    let layer = Layer {
        id: LayerId::new(),
        machine,
        disk: disk.name.clone(),
        path: disk.path.clone(),
        format: disk.format,
        parent: None,
        identity: None,
    };
    let disk = Disk {
        name: disk.name.clone(),
        active: layer.id,
        excluded,
        read_only: disk.read_only,
    };
    (disk, layer)
}
