//! The command line: what can be said, and the session with the daemon in which
//! it is carried out. The verbs are in one file per subject.

mod collection;
pub mod export;
mod exporting;
pub mod generate;
mod job;
mod password;
mod refpoint;
pub mod restore;
mod snapshot;
mod tls;
mod user;
mod vm;
mod wait;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use isochron_api::client::{Client, Server};
use isochron_net::{Fingerprint, TlsClient, Trust};

use crate::config::{Config, Environment};
use crate::exit::{EXIT_CODES, Failure};
use crate::output;
use crate::serve::ServeOptions;

/// Snapshots of a collection of virtual machines at one instant.
#[derive(Debug, Parser)]
#[command(name = "isochron", version, after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"),
    max_term_width = 100, propagate_version = true, subcommand_required = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  isochron serve &
  isochron vm define web.toml && isochron vm define db.toml
  isochron vm start web db
  isochron collection create shop web db
  isochron snapshot create shop --name before-upgrade
  isochron snapshot apply before-upgrade";

const GLOBAL: &str = "Global options";

/// What every verb understands.
#[derive(Args, Debug)]
pub struct Global {
    /// Where the daemon is: unix:PATH, https://HOST:PORT or http://HOST:PORT [default:
    /// the configuration's `listen.socket`]
    #[arg(long, global = true, env = "ISOCHRON_SERVER", value_name = "SERVER",
        hide_env_values = true, help_heading = GLOBAL)]
    pub server: Option<Server>,
    /// Who you are, on HTTP and HTTPS; the password is asked for, or ISOCHRON_PASSWORD
    #[arg(long, global = true, env = "ISOCHRON_USER", value_name = "NAME",
        hide_env_values = true, help_heading = GLOBAL)]
    pub user: Option<String>,
    /// The SHA-256 fingerprint of the daemon's certificate, as `isochron tls show` tells
    /// it on the daemon's host
    #[arg(long, global = true, env = "ISOCHRON_FINGERPRINT", value_name = "AA:BB:...",
        hide_env_values = true, conflicts_with = "ca", help_heading = GLOBAL)]
    pub fingerprint: Option<Fingerprint>,
    /// The CA of the daemon's certificate, or that itself, in PEM [default: the system's]
    #[arg(long, global = true, env = "ISOCHRON_CA", value_name = "FILE",
        hide_env_values = true, help_heading = GLOBAL)]
    pub ca: Option<PathBuf>,
    /// Print JSON instead of text for people
    #[arg(long, global = true, help_heading = GLOBAL)]
    pub json: bool,
    /// Configuration file [default: /etc/isochron/isochron.toml for root,
    /// $XDG_CONFIG_HOME/isochron/isochron.toml for others; it may be absent]
    #[arg(long, global = true, env = "ISOCHRON_CONFIG", value_name = "FILE",
        hide_env_values = true, help_heading = GLOBAL)]
    pub config: Option<PathBuf>,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon
    Serve(ServeOptions),
    /// Virtual machines
    #[command(subcommand)]
    Vm(vm::Verb),
    /// Named sets of machines
    #[command(subcommand)]
    Collection(collection::Verb),
    /// Snapshots of whole collections
    #[command(subcommand)]
    Snapshot(snapshot::Verb),
    /// Instants from which what changed since can be told, for backup
    #[command(subcommand)]
    Refpoint(refpoint::Verb),
    /// Exports of collections: what is in their directories
    #[command(subcommand)]
    Export(export::Verb),
    /// Bring back what an export holds
    Restore(restore::RestoreOptions),
    /// What runs after a call has returned
    #[command(subcommand)]
    Job(job::Verb),
    /// Who gets in on TCP, and what they may do
    #[command(subcommand)]
    User(user::Verb),
    /// The certificate by which others know this daemon
    #[command(subcommand)]
    Tls(tls::Verb),
    /// Show it: a ring of guests, snapshotted at one instant and returned to it
    Demo(crate::demo::DemoOptions),
    /// Measure and judge
    #[command(subcommand)]
    Bench(crate::bench::Bench),
    /// Print the classes that CIM clients find, as MOF
    #[command(after_help = "Example:\n  isochron schema > classes.mof\n  \
        isochron schema interop")]
    Schema {
        /// A namespace: root/HyperVCluster/v2, root/virtualization/v2, interop or root/cimv2
        #[arg(default_value = "root/HyperVCluster/v2")]
        namespace: String,
    },
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  isochron completion bash > \
        ~/.local/share/bash-completion/completions/isochron")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages into a directory
    #[command(after_help = "Example:\n  isochron man /usr/local/share/man/man1")]
    Man {
        /// The directory
        directory: PathBuf,
    },
    /// Watch over a cut (started by the daemon)
    #[command(hide = true)]
    Guardian,
}

/// One invocation's dealings with the daemon.
pub struct Session {
    /// The daemon.
    pub client: Client,
    /// Print JSON.
    pub json: bool,
}

impl Session {
    /// Prints a result: as JSON, or as `text` says it for people.
    pub fn print<T: serde::Serialize>(
        &self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self.json {
            true => output::json(value),
            false => output::text(&text(value)),
        }
    }

    /// Prints that something is gone: a sentence, or an empty JSON object.
    pub fn print_done(&self, sentence: &str) -> Result<(), Failure> {
        self.print(&serde_json::json!({}), |_| format!("{sentence}\n"))
    }
}

/// Carries out a verb that talks to the daemon.
pub fn talk(
    global: &Global,
    verb: impl AsyncFnOnce(&Session) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let server = match &global.server {
        Some(server) => server.clone(),
        None => {
            let config = Config::load(global.config.as_deref(), &Environment::of_process())
                .map_err(Failure::usage)?;
            Server::Unix(config.listen.socket)
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("no runtime: {error}")))?;
    let session = Session {
        client: client(global, server)?,
        json: global.json,
    };
    runtime.block_on(verb(&session))
}

/// A client that says who it is, and knows whom it talks to, as far as that is needed.
fn client(global: &Global, server: Server) -> Result<Client, Failure> {
    let remote = !matches!(server, Server::Unix(_));
    let secure = matches!(server, Server::Https(_));
    let mut client = Client::new(server);
    if secure {
        let trust = match (&global.fingerprint, &global.ca) {
            (Some(fingerprint), _) => Trust::Fingerprint(fingerprint.clone()),
            (None, Some(ca)) => Trust::Ca(ca.clone()),
            (None, None) => Trust::System,
        };
        client = client.with_tls(TlsClient::new(&trust).map_err(Failure::usage)?);
    }
    if let Some(user) = global.user.as_deref().filter(|_| remote) {
        let password = match std::env::var("ISOCHRON_PASSWORD") {
            Ok(password) => password,
            Err(_) => password::from_terminal(&format!("Password of {user}: "))?,
        };
        client = client.with_user(user, &password);
    }
    Ok(client)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    /// Every verb says what it does, and its help shows an example.
    #[test]
    fn every_verb_has_help_and_examples() {
        fn check(command: &clap::Command, path: &str) {
            for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
                let path = format!("{path} {}", verb.get_name());
                assert!(
                    verb.get_about().is_some(),
                    "{path} does not say what it does"
                );
                if verb.get_subcommands().next().is_none() {
                    let help = verb.clone().render_help().to_string();
                    assert!(help.contains("Example"), "{path} --help has no example");
                }
                check(verb, &path);
            }
        }
        check(&Cli::command(), "isochron");
    }
}
