//! The configuration: one TOML file, every key with a default.
//!
//! ```toml
//! state = "/var/lib/isochron"             # store, memory of snapshots
//! run = "/var/lib/isochron/run"           # sockets of running machines
//!
//! [listen]
//! socket = "/run/isochron/isochron.sock"  # JSON API
//! cimxml = "127.0.0.1:5988"               # CIM-XML; "off"
//! http = "off"                            # JSON API on HTTP
//! allow_remote = false                    # listeners off loopback
//!
//! [deadlines]                             # "10s", "500ms", or milliseconds
//! freeze = "10s"
//! stop = "2s"
//! window = "10s"
//!
//! [qemu]
//! binary = "qemu-system-x86_64"
//! img = "qemu-img"
//!
//! [jobs]
//! retention = "5m"                        # how long ended jobs are kept
//!
//! [indications]
//! allow_remote = false                    # send them off loopback
//! ```
//!
//! An unknown key is an error that names it: a misspelt deadline must not be a
//! default in silence. Relative paths are meant from the file's directory.

mod values;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use isochron_engine::Deadlines;
use serde::{Deserialize, Serialize};

pub use values::{Address, Span};

/// The port of CIM-XML (DSP0200 §7).
const CIMXML_DEFAULT: Address =
    Address(Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5988)));

/// What the daemon goes by.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// Directory of the store and of the memory of snapshots.
    pub state: PathBuf,
    /// Directory of the sockets of running machines.
    pub run: PathBuf,
    pub listen: Listen,
    pub deadlines: Times,
    pub qemu: Qemu,
    pub jobs: Jobs,
    pub indications: Indications,
}

/// Where the daemon listens.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Listen {
    /// Unix socket of the JSON API.
    pub socket: PathBuf,
    /// CIM-XML.
    pub cimxml: Address,
    /// The JSON API on HTTP.
    pub http: Address,
    /// Whether listeners off loopback are accepted.
    pub allow_remote: bool,
}

/// How long what may take; see [`Deadlines`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Times {
    pub freeze: Span,
    pub stop: Span,
    pub window: Span,
}

/// QEMU's programs: names to be found in `PATH`, or paths.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Qemu {
    pub binary: PathBuf,
    pub img: PathBuf,
}

/// Jobs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Jobs {
    /// How long a job that has ended is kept.
    pub retention: Span,
}

/// Indications.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Indications {
    /// Whether they are sent to listeners off loopback.
    pub allow_remote: bool,
}

/// What the defaults depend on.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    pub root: bool,
    pub home: Option<PathBuf>,
    pub config_home: Option<PathBuf>,
    pub state_home: Option<PathBuf>,
    pub runtime_dir: Option<PathBuf>,
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
        }
    }

    fn below_home(&self, special: &Option<PathBuf>, rest: &str) -> PathBuf {
        match (special, &self.home) {
            (Some(directory), _) => directory.clone(),
            (None, Some(home)) => home.join(rest),
            (None, None) => PathBuf::from("/").join(rest),
        }
    }

    fn config_file(&self) -> PathBuf {
        match self.root {
            true => PathBuf::from("/etc/isochron/isochron.toml"),
            false => self
                .below_home(&self.config_home, ".config")
                .join("isochron/isochron.toml"),
        }
    }

    fn state(&self) -> PathBuf {
        match self.root {
            true => PathBuf::from("/var/lib/isochron"),
            false => self
                .below_home(&self.state_home, ".local/state")
                .join("isochron"),
        }
    }

    fn socket(&self, state: &Path) -> PathBuf {
        match &self.runtime_dir {
            _ if self.root => PathBuf::from("/run/isochron/isochron.sock"),
            Some(directory) => directory.join("isochron.sock"),
            None => state.join("isochron.sock"),
        }
    }
}

impl Config {
    /// Reads a file, or the default one, which may be absent.
    ///
    /// # Errors
    /// A sentence with the file's name; for a bad key, with its line.
    pub fn load(file: Option<&Path>, environment: &Environment) -> Result<Self, String> {
        let path = file.map_or_else(|| environment.config_file(), Path::to_owned);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if file.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                String::new()
            }
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        let path =
            std::path::absolute(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        Self::read(&text, directory, environment)
            .map_err(|error| format!("{}: {error}", path.display()))
    }

    /// Reads a file's text; its relative paths are meant from `directory`.
    fn read(
        text: &str,
        directory: &Path,
        environment: &Environment,
    ) -> Result<Self, toml::de::Error> {
        let file: File = toml::from_str(text)?;
        let path = |path: Option<PathBuf>| path.map(|path| directory.join(path));
        // A bare name is looked up in PATH, everything else is a path.
        let program = |program: Option<PathBuf>, default: &str| match program {
            None => PathBuf::from(default),
            Some(name) if name.components().count() == 1 => name,
            Some(relative) => directory.join(relative),
        };
        let state = path(file.state).unwrap_or_else(|| environment.state());
        let deadlines = Deadlines::default();
        Ok(Self {
            run: path(file.run).unwrap_or_else(|| state.join("run")),
            listen: Listen {
                socket: path(file.listen.socket).unwrap_or_else(|| environment.socket(&state)),
                cimxml: file.listen.cimxml.unwrap_or(CIMXML_DEFAULT),
                http: file.listen.http.unwrap_or(Address(None)),
                allow_remote: file.listen.allow_remote,
            },
            deadlines: Times {
                freeze: file.deadlines.freeze.unwrap_or(Span(deadlines.freeze)),
                stop: file.deadlines.stop.unwrap_or(Span(deadlines.stop)),
                window: file.deadlines.window.unwrap_or(Span(deadlines.window)),
            },
            qemu: Qemu {
                binary: program(file.qemu.binary, "qemu-system-x86_64"),
                img: program(file.qemu.img, "qemu-img"),
            },
            jobs: Jobs {
                retention: file
                    .jobs
                    .retention
                    .unwrap_or(Span(isochron_engine::Config::new(&state).job_retention)),
            },
            indications: file.indications,
            state,
        })
    }

    /// Refuses what must not be listened on.
    ///
    /// # Errors
    /// A sentence with the key.
    pub fn check(&self) -> Result<(), String> {
        for (key, address) in [
            ("listen.cimxml", self.listen.cimxml),
            ("listen.http", self.listen.http),
        ] {
            match address.0 {
                Some(address) if !address.ip().is_loopback() && !self.listen.allow_remote => {
                    return Err(format!(
                        "{key} = \"{address}\" is not on loopback, and whoever reaches it can \
                         do everything without a password; if that is wanted, set \
                         listen.allow_remote = true"
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The engine's part.
    pub fn engine(&self) -> isochron_engine::Config {
        isochron_engine::Config {
            deadlines: Deadlines {
                freeze: self.deadlines.freeze.0,
                stop: self.deadlines.stop.0,
                window: self.deadlines.window.0,
            },
            job_retention: self.jobs.retention.0,
            ..isochron_engine::Config::new(&self.state)
        }
    }
}

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    state: Option<PathBuf>,
    run: Option<PathBuf>,
    listen: FileListen,
    deadlines: FileDeadlines,
    qemu: FileQemu,
    jobs: FileJobs,
    indications: Indications,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileListen {
    socket: Option<PathBuf>,
    cimxml: Option<Address>,
    http: Option<Address>,
    allow_remote: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileDeadlines {
    freeze: Option<Span>,
    stop: Option<Span>,
    window: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileQemu {
    binary: Option<PathBuf>,
    img: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileJobs {
    retention: Option<Span>,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn user() -> Environment {
        Environment {
            home: Some("/home/u".into()),
            ..Environment::default()
        }
    }

    fn read(text: &str) -> Result<Config, String> {
        Config::read(text, "/conf".as_ref(), &user()).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults() {
        let root = Environment {
            root: true,
            ..user()
        };
        let config = Config::read("", "/".as_ref(), &root).unwrap();
        assert_eq!(config.state, Path::new("/var/lib/isochron"));
        assert_eq!(config.run, Path::new("/var/lib/isochron/run"));
        assert_eq!(
            config.listen.socket,
            Path::new("/run/isochron/isochron.sock")
        );
        assert_eq!(config.listen.cimxml.to_string(), "127.0.0.1:5988");
        assert_eq!(config.listen.http.to_string(), "off");
        assert!(!config.listen.allow_remote);
        assert_eq!(config.check(), Ok(()));

        let config = read("").unwrap();
        assert_eq!(config.state, Path::new("/home/u/.local/state/isochron"));
        assert_eq!(config.listen.socket, config.state.join("isochron.sock"));
        let seat = Environment {
            runtime_dir: Some("/run/user/7".into()),
            ..user()
        };
        let config = Config::read("", "/".as_ref(), &seat).unwrap();
        assert_eq!(config.listen.socket, Path::new("/run/user/7/isochron.sock"));
    }

    #[test]
    fn every_key() {
        let config = read(
            r#"
            state = "s"
            run = "/r"
            [listen]
            socket = "api.sock"
            cimxml = ""
            http = "localhost:80"
            allow_remote = true
            [deadlines]
            freeze = "1m 30s"
            stop = 250
            window = "500ms"
            [qemu]
            binary = "bin/qemu"
            img = "qemu-img-9"
            [jobs]
            retention = "1h"
            "#,
        )
        .unwrap();
        assert_eq!(config.state, Path::new("/conf/s"));
        assert_eq!(config.run, Path::new("/r"));
        assert_eq!(config.listen.socket, Path::new("/conf/api.sock"));
        assert_eq!(config.listen.cimxml, Address(None));
        assert_eq!(config.listen.http.to_string(), "127.0.0.1:80");
        assert_eq!(config.qemu.binary, Path::new("/conf/bin/qemu"));
        assert_eq!(config.qemu.img, Path::new("qemu-img-9"));
        let engine = config.engine();
        assert_eq!(engine.deadlines.freeze, Duration::from_secs(90));
        assert_eq!(engine.deadlines.stop, Duration::from_millis(250));
        assert_eq!(engine.deadlines.window, Duration::from_millis(500));
        assert_eq!(engine.job_retention, Duration::from_secs(3600));
    }

    /// What is printed can be used as the file.
    #[test]
    fn printed_reads_back() {
        let config = read("[deadlines]\nstop = \"1500ms\"").unwrap();
        let printed = toml::to_string(&config).unwrap();
        assert_eq!(read(&printed).unwrap(), config);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("stat = \"/x\"", "unknown field `stat`"),
            ("[listen]\nsocket = \"/x\"\ncimxlm = \"off\"", "line 3"),
            ("[deadlines]\nfreze = 1", "unknown field `freze`"),
            ("[deadlines]\nstop = \"soon\"", "a duration such as"),
            ("[deadlines]\nstop = 0", "leaves no time"),
            ("[deadlines]\nstop = -1", "a duration such as"),
            (
                "[listen]\ncimxml = \"everywhere\"",
                "\"everywhere\" is no address",
            ),
            ("[listen]\ncimxml = 5988", "line 2"),
            ("[qemu]\nbinary =", "line 2"),
            ("[cluster]", "unknown field `cluster`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn listeners_stay_on_loopback() {
        for (text, allowed) in [
            ("[listen]\ncimxml = \"0.0.0.0:5988\"", false),
            ("[listen]\nhttp = \"10.0.0.1:80\"", false),
            ("[listen]\ncimxml = \"[::]:5988\"", false),
            ("[listen]\ncimxml = \"[::1]:5988\"", true),
            ("[listen]\ncimxml = \"127.1.2.3:5988\"", true),
            (
                "[listen]\ncimxml = \"0.0.0.0:5988\"\nallow_remote = true",
                true,
            ),
        ] {
            assert_eq!(read(text).unwrap().check().is_ok(), allowed, "{text}");
        }
    }

    #[test]
    fn a_file_that_was_named_must_be_there() {
        let directory = tempfile::tempdir().unwrap();
        let absent = directory.path().join("absent.toml");
        let error = Config::load(Some(&absent), &user()).unwrap_err();
        assert!(error.contains("absent.toml"), "{error}");
        let environment = Environment {
            config_home: Some(directory.path().to_owned()),
            ..user()
        };
        assert!(Config::load(None, &environment).is_ok());
        std::fs::create_dir(directory.path().join("isochron")).unwrap();
        std::fs::write(directory.path().join("isochron/isochron.toml"), "state = 1").unwrap();
        let error = Config::load(None, &environment).unwrap_err();
        assert!(
            error.contains("isochron.toml") && error.contains("line 1"),
            "{error}"
        );
    }
}
