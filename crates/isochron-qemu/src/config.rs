//! Where QEMU is found and where its sockets are kept.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// How [`QemuHypervisor`](crate::QemuHypervisor) finds and reaches QEMU.
#[derive(Clone, Debug)]
pub struct QemuConfig {
    /// Directory that holds one directory per machine with its sockets, its
    /// process identifier and its log. Its path must be short enough for unix
    /// sockets (107 bytes in all).
    pub run_dir: PathBuf,
    /// QEMU's system emulator; a bare name is looked for in `PATH`.
    pub qemu_binary: PathBuf,
    /// `qemu-img`; a bare name is looked for in `PATH`.
    pub qemu_img: PathBuf,
    /// The program whose main is [`guardian::run`](crate::guardian::run).
    pub guardian_exe: PathBuf,
    /// Its arguments.
    pub guardian_args: Vec<OsString>,
    /// How long QEMU may take for an answer, except for operations that are long
    /// by nature (saving memory, merging layers, starting).
    pub answer: Duration,
}

impl QemuConfig {
    /// The defaults: programs from `PATH`, the guardian is this program with the
    /// argument `guardian`, answers within two seconds.
    pub fn new(run_dir: impl Into<PathBuf>) -> Self {
        Self {
            run_dir: run_dir.into(),
            qemu_binary: "qemu-system-x86_64".into(),
            qemu_img: "qemu-img".into(),
            guardian_exe: "/proc/self/exe".into(),
            guardian_args: vec!["guardian".into()],
            answer: Duration::from_secs(2),
        }
    }
}
