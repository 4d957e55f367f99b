//! `isochron vm ...`

use std::fmt::Write;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Subcommand;
use futures::future::join_all;
use isochron_api::client::ClientError;
use isochron_api::dto::{
    Attach, DefineSaved, Definition, Machine, MachineChange, MachineSummary, NewMachine, Origin,
    Power,
};

use super::Session;
use crate::exit::Failure;
use crate::output::{Table, facts, time};

/// What can be done to machines.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Define a machine from a TOML file
    ///
    /// Paths in the file are relative to the file. Only `name` has no default.
    #[command(after_help = DEFINE_EXAMPLE)]
    Define {
        /// The definition; - reads standard input
        file: PathBuf,
        /// Saved memory from which it goes on when it is started, as `restore --files-only`
        /// writes it; the daemon deletes the file then
        #[arg(long, value_name = "FILE")]
        memory: Option<PathBuf>,
    },
    /// Attach to a QEMU that someone else has started
    ///
    /// The socket must be for Isochron alone: QEMU talks to one client at a time
    /// on each. Stopping and starting the process remains its owner's business.
    #[command(
        after_help = "Example:\n  isochron vm attach legacy --qmp /run/legacy/qmp.sock \
        --guest-agent /run/legacy/qga.sock"
    )]
    Attach {
        /// The machine's name
        name: String,
        /// Its QMP socket
        #[arg(long, value_name = "SOCKET")]
        qmp: PathBuf,
        /// Its guest agent's socket
        #[arg(long, value_name = "SOCKET")]
        guest_agent: Option<PathBuf>,
    },
    /// List machines
    #[command(after_help = "Example:\n  isochron vm list --json | jq -r '.[].name'")]
    List,
    /// Show a machine: its state, its disks' layers, its definition
    #[command(after_help = "Example:\n  isochron vm show web")]
    Show {
        /// Name or identifier
        name: String,
    },
    /// Start machines
    #[command(after_help = "Example:\n  isochron vm start web db")]
    Start {
        /// Names or identifiers
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Ask guests to shut down and wait for it, or end them with --force
    #[command(after_help = "Examples:\n  isochron vm stop web --wait 120\n  \
        isochron vm stop web db --force")]
    Stop {
        /// Names or identifiers
        #[arg(required = true)]
        names: Vec<String>,
        /// End the process without asking the guest
        #[arg(long)]
        force: bool,
        /// How long to wait for the guest's shutdown
        #[arg(long, value_name = "SECONDS", default_value = "60",
            value_parser = clap::value_parser!(u64).range(0..=3600), conflicts_with = "force")]
        wait: u64,
    },
    /// Pause machines: their processors stand
    #[command(after_help = "Example:\n  isochron vm pause web")]
    Pause {
        /// Names or identifiers
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Let paused machines run
    #[command(after_help = "Example:\n  isochron vm resume web")]
    Resume {
        /// Names or identifiers
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Save machines: their memory goes to a file and their process ends
    ///
    /// `vm start` lets them go on from there.
    #[command(after_help = "Example:\n  isochron vm save web db")]
    Save {
        /// Names or identifiers
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Give a machine another name
    #[command(after_help = "Example:\n  isochron vm rename web web-old")]
    Rename {
        /// Name or identifier
        name: String,
        /// The new name
        new_name: String,
    },
    /// Forget a machine; its images stay
    #[command(after_help = "Example:\n  isochron vm undefine web")]
    Undefine {
        /// Name or identifier
        name: String,
    },
}

const DEFINE_EXAMPLE: &str = "\
Examples:
  isochron vm define web.toml
  isochron vm define - < web.toml
  isochron vm define shop/web/definition.toml --memory shop/web/memory

web.toml:
  name = \"web\"
  memory_mib = 1024
  cpus = 2
  guest_agent = true

  [[disks]]
  path = \"web.qcow2\"

  [[nics]]
  netdev = \"user\"";

impl Verb {
    /// Carries it out.
    pub async fn run(self, session: &Session) -> Result<(), Failure> {
        let client = &session.client;
        match self {
            Self::Define { file, memory } => {
                let definition = read_definition(&file)?;
                let new = match memory {
                    None => NewMachine::Define(definition),
                    Some(memory) => NewMachine::DefineSaved(DefineSaved {
                        definition,
                        memory: absolute(&memory)?,
                    }),
                };
                let machine = client.create_machine(&new).await?;
                session.print(&machine, |machine| {
                    format!("{}  {}\n", machine.id, machine.name)
                })
            }
            Self::Attach {
                name,
                qmp,
                guest_agent,
            } => {
                let qmp = absolute(&qmp)?;
                let guest_agent = guest_agent.as_deref().map(absolute).transpose()?;
                let new = NewMachine::Attach(Attach {
                    name,
                    qmp,
                    guest_agent,
                });
                let machine = client.create_machine(&new).await?;
                session.print(&machine, show)
            }
            Self::List => session.print(&client.machines().await?, |machines| list(machines)),
            Self::Show { name } => session.print(&client.machine(&name).await?, show),
            Self::Start { names } => {
                each(session, &names, async |name| {
                    client.start_machine(name).await
                })
                .await
            }
            Self::Stop {
                names, force: true, ..
            } => {
                each(session, &names, async |name| {
                    client.kill_machine(name).await
                })
                .await
            }
            Self::Stop { names, wait, .. } => {
                let wait = Duration::from_secs(wait);
                each(session, &names, async |name| {
                    client.shut_down_machine(name, wait).await
                })
                .await
            }
            Self::Pause { names } => {
                each(session, &names, async |name| {
                    client.pause_machine(name).await
                })
                .await
            }
            Self::Resume { names } => {
                each(session, &names, async |name| {
                    client.resume_machine(name).await
                })
                .await
            }
            Self::Save { names } => {
                each(session, &names, async |name| {
                    client.save_machine(name).await
                })
                .await
            }
            Self::Rename { name, new_name } => {
                let change = MachineChange {
                    name: Some(new_name),
                    notes: None,
                };
                let machine = client.change_machine(&name, &change).await?;
                session.print(&machine, |machine| {
                    format!("{}  {}\n", machine.id, machine.name)
                })
            }
            Self::Undefine { name } => {
                client.undefine_machine(&name).await?;
                session.print_done(&format!("{name} is forgotten; its images stay"))
            }
        }
    }
}

/// Does something to all of them at once, prints each that it was done to, and
/// then fails with the first refusal.
async fn each(
    session: &Session,
    names: &[String],
    action: impl AsyncFn(&str) -> Result<Machine, ClientError>,
) -> Result<(), Failure> {
    let mut refusal = None;
    for result in join_all(names.iter().map(|name| action(name))).await {
        match result {
            Ok(machine) => session.print(&machine, |machine| {
                format!("{}: {}\n", machine.name, power(Some(machine.power)))
            })?,
            Err(error) => {
                refusal.get_or_insert(Failure::from(error));
            }
        }
    }
    refusal.map_or(Ok(()), Err)
}

/// Reads a definition; relative paths in it are meant from where it lies.
fn read_definition(file: &Path) -> Result<Definition, Failure> {
    let cannot = |error| Failure::usage(format!("{}: {error}", file.display()));
    let mut text = String::new();
    let directory = if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut text).map_err(cannot)?;
        absolute(Path::new("."))?
    } else {
        text = std::fs::read_to_string(file).map_err(cannot)?;
        let file = absolute(file)?;
        file.parent().map(Path::to_owned).unwrap_or_default()
    };
    let mut definition: Definition = toml::from_str(&text).map_err(|error| {
        Failure::usage(format!(
            "{} is no machine definition: {error}",
            file.display()
        ))
    })?;
    definition.resolve(&directory);
    Ok(definition)
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

fn power(power: Option<Power>) -> &'static str {
    match power {
        Some(Power::Running) => "running",
        Some(Power::Paused) => "paused",
        Some(Power::Off) => "off",
        Some(Power::Saved) => "saved",
        None => "unknown",
    }
}

fn origin(origin: Origin) -> &'static str {
    match origin {
        Origin::Launched => "launched",
        Origin::Attached => "attached",
    }
}

fn list(machines: &[MachineSummary]) -> String {
    let mut table = Table::new(["NAME", "STATE", "ORIGIN", "MEMORY", "CPUS", "DISKS", "ID"]);
    for machine in machines {
        table.row([
            machine.name.clone(),
            power(machine.power).to_owned(),
            origin(machine.origin).to_owned(),
            format!("{} MiB", machine.memory_mib),
            machine.cpus.to_string(),
            machine.disks.to_string(),
            machine.id.to_string(),
        ]);
    }
    let mut text = table.to_string();
    for machine in machines {
        if let Some(problem) = &machine.problem {
            let _ = writeln!(text, "{}: {problem}", machine.name);
        }
    }
    text
}

fn show(machine: &Machine) -> String {
    let state = match machine.process_id {
        Some(pid) => format!("{} (process {pid})", power(Some(machine.power))),
        None => power(Some(machine.power)).to_owned(),
    };
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let id = |id: Option<uuid::Uuid>| id.map(|id| id.to_string());
    let mut text = facts(&[
        ("name", Some(machine.name.clone())),
        ("id", Some(machine.id.to_string())),
        ("state", Some(state)),
        ("origin", Some(origin(machine.origin).to_owned())),
        ("qmp", path(&machine.qmp)),
        ("guest agent", path(&machine.guest_agent)),
        ("defined", Some(time(machine.created_at))),
        ("current snapshot", id(machine.current)),
        ("last applied", id(machine.last_applied)),
        (
            "notes",
            Some(machine.notes.clone()).filter(|notes| !notes.is_empty()),
        ),
    ]);
    if !machine.disks.is_empty() {
        text.push_str("\ndisks (what the guest writes to first)\n");
    }
    for disk in &machine.disks {
        let _ = writeln!(text, "  {}", disk.name);
        for (depth, layer) in disk.chain.iter().enumerate() {
            let branch = if depth == 0 { "" } else { "└─ " };
            let indent = "   ".repeat(depth.saturating_sub(1));
            let format = layer.format.as_str();
            let _ = writeln!(
                text,
                "    {indent}{branch}{} ({format})",
                layer.path.display()
            );
        }
        if let Some(reason) = &disk.excluded {
            let _ = writeln!(text, "    takes no part in snapshots: {reason}");
        }
    }
    match machine.origin {
        Origin::Attached => {
            text.push_str("\nto start it again, its owner must use\n");
            for disk in &machine.disks {
                if let Some(layer) = disk.chain.first() {
                    let format = layer.format.as_str();
                    let _ = writeln!(text, "  {}: {} ({format})", disk.name, layer.path.display());
                }
            }
        }
        Origin::Launched => {
            text.push_str("\ndefinition\n");
            let definition = toml::to_string(&machine.definition).unwrap_or_default();
            for line in definition.lines() {
                let indent = if line.is_empty() { "" } else { "  " };
                let _ = writeln!(text, "{indent}{line}");
            }
        }
    }
    text
}
