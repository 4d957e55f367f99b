//! Builds the guest images of the lab's kit; run by scripts/guest.sh once the
//! kernel, the agent and the guest program are in place.

use isochron_lab::kit::Kit;

fn main() -> anyhow::Result<()> {
    let kit = Kit::build(&Kit::directory())?;
    println!("guest images are ready in {}", kit.dir.display());
    Ok(())
}
