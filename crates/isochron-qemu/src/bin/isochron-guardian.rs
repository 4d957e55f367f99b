//! The guardian as a program of its own, for the tests of this crate: the
//! product's binary runs the same code as a hidden subcommand.

fn main() -> std::io::Result<()> {
    isochron_qemu::guardian::run()
}
