//! Isochron: snapshots of a collection of virtual machines at one instant.
//!
//! One binary: the daemon (`isochron serve`), the command line that talks to it,
//! and the guardian process that the daemon starts for the time of a cut.

mod bench;
mod cli;
mod config;
mod demo;
mod exit;
mod faces;
mod judge;
mod listeners;
mod output;
mod records;
mod serve;
mod stage;
mod tickets;
mod trace;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};
use exit::{Exit, Failure};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                eprintln!("isochron: {}", failure.message);
            }
            failure.exit.into()
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Serve(options) => serve::run(options, cli.global.config.as_deref()),
        Command::Guardian => {
            isochron_qemu::guardian::run().map_err(|error| Failure::new(Exit::Failed, error))
        }
        Command::Demo(options) => demo::run(&options),
        Command::Bench(bench) => bench::run(&bench, cli.global.json),
        Command::Completion { shell } => cli::generate::completion(shell),
        Command::Schema { namespace } => cli::generate::schema(&namespace),
        Command::Man { directory } => cli::generate::man(&directory),
        Command::Vm(verb) => cli::talk(&cli.global, async |session| verb.run(session).await),
        Command::Collection(verb) => {
            cli::talk(&cli.global, async |session| verb.run(session).await)
        }
        Command::Snapshot(verb) => cli::talk(&cli.global, async |session| verb.run(session).await),
        Command::Refpoint(verb) => cli::talk(&cli.global, async |session| verb.run(session).await),
        Command::Export(verb) => verb.run(&cli.global),
        Command::Restore(options) => options.run(&cli.global),
        Command::User(verb) => cli::talk(&cli.global, async |session| verb.run(session).await),
        Command::Tls(verb) => cli::talk(&cli.global, async |session| verb.run(session).await),
        Command::Job(verb) => cli::talk(&cli.global, async |session| verb.run(session).await),
    }
}
