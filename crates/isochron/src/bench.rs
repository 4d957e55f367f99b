//! `isochron bench ...`: measurements that judge as well.

mod asking;
mod cim;
mod cut;
mod export;
mod oracle;
mod soak;
mod summary;
mod wsman;

use clap::Subcommand;

use crate::exit::Failure;

/// What can be measured.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Measure how fast a CIM-XML server answers
    #[command(after_help = cim::EXAMPLES)]
    Cim(cim::CimOptions),
    /// Measure for how long guests stand still, beside the floor and scripts
    #[command(after_help = cut::EXAMPLES)]
    Cut(cut::CutOptions),
    /// Measure how fast disks are exported, beside `qemu-img convert`
    #[command(after_help = export::EXAMPLES)]
    Export(export::ExportOptions),
    /// Snapshot rings of guests under load, again and again, and have each judged
    #[command(after_help = oracle::EXAMPLES)]
    Oracle(oracle::OracleOptions),
    /// Take, apply and destroy snapshots at random for long, and see that nothing grows
    #[command(after_help = soak::EXAMPLES)]
    Soak(soak::SoakOptions),
    /// Measure how fast a WS-Management server answers
    #[command(after_help = wsman::EXAMPLES)]
    Wsman(wsman::WsmanOptions),
}

/// Measures.
pub fn run(bench: &Bench, json: bool) -> Result<(), Failure> {
    match bench {
        Bench::Cim(options) => cim::run(options, json),
        Bench::Cut(options) => cut::run(options, json),
        Bench::Export(options) => export::run(options, json),
        Bench::Oracle(options) => oracle::run(options, json),
        Bench::Soak(options) => soak::run(options, json),
        Bench::Wsman(options) => wsman::run(options, json),
    }
}
