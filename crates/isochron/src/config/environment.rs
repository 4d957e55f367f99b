//! What the configuration's defaults depend on: whether we are root, and the user's
//! directories (XDG Base Directory Specification).

use std::path::{Path, PathBuf};

/// What the defaults depend on.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    pub root: bool,
    pub home: Option<PathBuf>,
    pub config_home: Option<PathBuf>,
    pub state_home: Option<PathBuf>,
    pub runtime_dir: Option<PathBuf>,
    /// What this host calls itself.
    pub host: String,
}

impl Environment {
    /// This process's.
    pub fn of_process() -> Self {
        // Relative values are to be ignored (XDG Base Directory Specification).
        let path = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path: &PathBuf| path.is_absolute())
        };
        Self {
            root: rustix::process::geteuid().is_root(),
            home: path("HOME"),
            config_home: path("XDG_CONFIG_HOME"),
            state_home: path("XDG_STATE_HOME"),
            runtime_dir: path("XDG_RUNTIME_DIR"),
            host: host_name(),
        }
    }

    fn below_home(&self, special: &Option<PathBuf>, rest: &str) -> PathBuf {
        match (special, &self.home) {
            (Some(directory), _) => directory.clone(),
            (None, Some(home)) => home.join(rest),
            (None, None) => PathBuf::from("/").join(rest),
        }
    }

    pub(super) fn config_file(&self) -> PathBuf {
        match self.root {
            true => PathBuf::from("/etc/isochron/isochron.toml"),
            false => self
                .below_home(&self.config_home, ".config")
                .join("isochron/isochron.toml"),
        }
    }

    pub(super) fn state(&self) -> PathBuf {
        match self.root {
            true => PathBuf::from("/var/lib/isochron"),
            false => self
                .below_home(&self.state_home, ".local/state")
                .join("isochron"),
        }
    }

    pub(super) fn socket(&self, state: &Path) -> PathBuf {
        match &self.runtime_dir {
            _ if self.root => PathBuf::from("/run/isochron/isochron.sock"),
            Some(directory) => directory.join("isochron.sock"),
            None => state.join("isochron.sock"),
        }
    }
}

/// What this host calls itself.
pub fn host_name() -> String {
    let uname = rustix::system::uname();
    uname.nodename().to_string_lossy().into_owned()
}
