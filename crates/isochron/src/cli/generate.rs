//! What the binary holds in itself and prints: completion scripts and manual pages,
//! generated from the command line's definition, and the schema of CIM.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;
use crate::exit::{Exit, Failure};
use crate::output;

/// Prints a completion script.
pub fn completion(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "isochron", &mut script);
    output::text(&String::from_utf8_lossy(&script))
}

/// Prints a namespace's classes and qualifier types as MOF.
pub fn schema(namespace: &str) -> Result<(), Failure> {
    let mof = isochron_hyperv::mof(namespace).map_err(Failure::failed)?;
    let mof = mof.ok_or_else(|| {
        let message = format!("there is no namespace {namespace} of Isochron's own");
        Failure::new(Exit::NotFound, message)
    })?;
    output::text(&mof)
}

/// Writes one manual page per verb.
pub fn man(directory: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory))
        .map_err(|error| Failure::failed(format!("{}: {error}", directory.display())))
}
