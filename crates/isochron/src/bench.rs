//! `isochron bench ...`: measurements that judge as well.

mod oracle;
mod summary;

use clap::Subcommand;

use crate::exit::Failure;

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Snapshot rings of guests under load, again and again, and have each judged
    #[command(after_help = oracle::EXAMPLES)]
    Oracle(oracle::OracleOptions),
}

/// Measures.
pub fn run(bench: &Bench, json: bool) -> Result<(), Failure> {
    match bench {
        Bench::Oracle(options) => oracle::run(options, json),
    }
}
