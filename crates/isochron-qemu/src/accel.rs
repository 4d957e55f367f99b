//! Whether KVM really runs a guest here. That `/dev/kvm` opens proves nothing:
//! there are hosts on which its first guest hangs, beyond the reach of a signal.
//!
//! The proof is a guest of five instructions at the reset vector that writes to
//! QEMU's debug exit port: only if it ran does QEMU end with that code.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

/// How long the proof may take.
const LIMIT: Duration = Duration::from_secs(2);
/// Firmware images are multiples of this.
const FIRMWARE: usize = 64 << 10;
/// `mov al, 0x10; out 0xf4, al; hlt; jmp $-1`
const GUEST: [u8; 7] = [0xb0, 0x10, 0xe6, 0xf4, 0xf4, 0xeb, 0xfd];
/// `(0x10 << 1) | 1`: what QEMU's isa-debug-exit makes of it.
const RAN: i32 = 0x21;

/// Whether a guest runs under this accelerator.
pub(crate) async fn runs(qemu: &Path, scratch: &Path, accelerator: &str) -> bool {
    let firmware = scratch.join(format!("proof-{}-{accelerator}", std::process::id()));
    let mut image = vec![0; FIRMWARE];
    // The reset vector, 16 bytes before the end.
    image[FIRMWARE - 16..FIRMWARE - 16 + GUEST.len()].copy_from_slice(&GUEST);
    if tokio::fs::write(&firmware, image).await.is_err() {
        return false;
    }
    let child = Command::new(qemu)
        .args(["-accel", accelerator, "-machine", "pc", "-m", "16", "-bios"])
        .arg(&firmware)
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn();
    // A child that is out of reach is killed when dropped and collected whenever
    // it ends; nobody waits for it.
    let ran = match child {
        Ok(mut child) => matches!(
            timeout(LIMIT, child.wait()).await,
            Ok(Ok(status)) if status.code() == Some(RAN)
        ),
        Err(_) => false,
    };
    // A scratch file; the run directory is emptied with the machine.
    let _ = tokio::fs::remove_file(&firmware).await;
    ran
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_proof_is_a_guest_that_ran() {
        let scratch = tempfile::tempdir().unwrap();
        let qemu = Path::new("qemu-system-x86_64");
        assert!(runs(qemu, scratch.path(), "tcg").await);
        assert!(!runs(qemu, scratch.path(), "none-such").await);
        assert!(!runs(Path::new("/nowhere"), scratch.path(), "tcg").await);
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    }
}
