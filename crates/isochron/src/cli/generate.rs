//! What is generated from the command line's definition: completion scripts and
//! manual pages.

use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;
use crate::exit::Failure;
use crate::output;

/// Prints a completion script.
pub fn completion(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "isochron", &mut script);
    output::text(&String::from_utf8_lossy(&script))
}

/// Writes one manual page per verb.
pub fn man(directory: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory))
        .map_err(|error| Failure::failed(format!("{}: {error}", directory.display())))
}
