//! The configuration: one TOML file, every key with a default.
//!
//! ```toml
//! state = "/var/lib/isochron"             # store, memory of snapshots
//! run = "/var/lib/isochron/run"           # sockets of running machines
//!
//! [listen]
//! socket = "/run/isochron/isochron.sock"  # JSON API
//! socket_group = "isochron"               # who may use it beside root
//! cimxml = "127.0.0.1:5988"               # CIM-XML on HTTP; "off"
//! cimxml_https = "127.0.0.1:5989"         # CIM-XML on HTTPS
//! wsman = "127.0.0.1:5985"                # WS-Management on HTTP
//! wsman_https = "127.0.0.1:5986"          # WS-Management on HTTPS
//! http = "off"                            # JSON API on HTTP
//! https = "off"                           # JSON API on HTTPS
//! allow_plain_remote = false              # HTTP without TLS off loopback
//! anonymous = "off"                       # the role of who does not log in
//!
//! [tls]
//! certificate = "/etc/.../host.pem"       # made at first start where absent
//! key = "/etc/.../host.key"
//! client_ca = "/etc/.../clients.pem"      # whose client certificates are believed
//! names = ["host.example", "10.0.0.1"]    # in the certificate that is made
//!
//! [tls.users]                             # users by their certificates' names
//! "Build Agent" = "ci"
//!
//! [kerberos]
//! keytab = "/etc/.../http.keytab"         # whose tickets WS-Management takes
//!
//! [kerberos.users]                        # users by their principals
//! "ada@EXAMPLE.ORG" = "ada"
//!
//! [paths]
//! roots = ["/srv/images"]                 # where clients' paths may lead
//!
//! [limits]                                # of every TCP listener; see `Limits`
//! connections = 512
//!
//! [deadlines]                             # "10s", "500ms", or milliseconds
//! freeze = "10s"
//! stop = "2s"
//! window = "10s"
//!
//! [qemu]
//! binary = "qemu-system-x86_64"
//! img = "qemu-img"
//! nbd = "qemu-nbd"                        # reads layers for exports
//!
//! [jobs]
//! retention = "5m"                        # how long ended jobs are kept
//!
//! [indications]
//! allow_remote = false                    # send them, and events, off loopback
//! ```
//!
//! An unknown key is an error that names it: a misspelt deadline must not be a
//! default in silence. Relative paths are meant from the file's directory.

mod environment;
mod file;
#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use isochron_engine::Deadlines;
use serde::{Deserialize, Serialize};

pub use environment::{Environment, host_name};
pub use values::{Address, Anonymous, Span};

use file::File;

/// The ports of CIM-XML (DSP0200 §7).
/// The most that `limits.cimxml_depth` may be.
const XML_DEPTH_MAX: usize = 256;
const CIMXML: u16 = 5988;
const CIMXML_HTTPS: u16 = 5989;

/// The ports of WS-Management (DSP0226 annex C, IANA's wsman and wsmans).
const WSMAN: u16 = 5985;
const WSMAN_HTTPS: u16 = 5986;

/// The group that the unix socket is open to, where there is such a group.
pub const SOCKET_GROUP: &str = "isochron";

fn loopback(port: u16) -> Address {
    Address(Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)))
}

/// What the daemon goes by.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Config {
    /// Directory of the store and of the memory of snapshots.
    pub state: PathBuf,
    /// Directory of the sockets of running machines.
    pub run: PathBuf,
    /// Who did what, as lines of JSON.
    pub audit_log: PathBuf,
    pub listen: Listen,
    pub tls: Tls,
    pub kerberos: Kerberos,
    pub paths: Paths,
    pub limits: Limits,
    pub deadlines: Times,
    pub qemu: Qemu,
    pub jobs: Jobs,
    pub indications: Indications,
    /// Whether the namespace of conformance tests is offered. Only an option says so.
    #[serde(skip)]
    pub test_provider: bool,
}

/// Where the daemon listens, and for whom.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Listen {
    /// Unix socket of the JSON API.
    pub socket: PathBuf,
    /// The group whose members may use it beside root and the daemon's own user;
    /// where absent, [`SOCKET_GROUP`] if there is one and we are root.
    pub socket_group: Option<String>,
    /// CIM-XML on HTTP.
    pub cimxml: Address,
    /// CIM-XML on HTTPS.
    pub cimxml_https: Address,
    /// WS-Management on HTTP.
    pub wsman: Address,
    /// WS-Management on HTTPS.
    pub wsman_https: Address,
    /// The JSON API on HTTP.
    pub http: Address,
    /// The JSON API on HTTPS.
    pub https: Address,
    /// Whether HTTP listeners off loopback are accepted: passwords are sent in the
    /// clear there.
    pub allow_plain_remote: bool,
    /// What those may do on TCP who do not say who they are.
    pub anonymous: Anonymous,
}

/// What HTTPS listeners show, and believe.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Tls {
    /// The certificate, then those that lead to its CA. PEM.
    pub certificate: PathBuf,
    /// Its private key. PEM.
    pub key: PathBuf,
    /// The CAs whose client certificates are believed. PEM.
    pub client_ca: Option<PathBuf>,
    /// The host names and addresses in the certificate that is made.
    pub names: Vec<String>,
    /// The users of client certificates, by common name, where it is not the user's.
    pub users: BTreeMap<String, String>,
}

/// Logins by Kerberos, of WS-Management.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kerberos {
    /// The keys of the service `HTTP/HOST`; none, and no ticket is taken.
    pub keytab: Option<PathBuf>,
    /// The users of principals, by their names with the realm.
    pub users: BTreeMap<String, String>,
}

/// Where files may be.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Paths {
    /// Below these lie the paths that clients name which are not root.
    pub roots: Vec<PathBuf>,
}

/// What of a client is too much, for each TCP listener.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Connections of one address (an IPv6 /64) at a time.
    pub connections_per_peer: usize,
    /// For a TLS handshake.
    pub handshake: Span,
    /// For a request's headers; a connection that is idle for so long is closed.
    pub headers: Span,
    /// For a request's body.
    pub body: Span,
    /// Size of a request of CIM-XML, in KiB.
    pub cimxml_request_kib: usize,
    /// Elements of such a request that are nested in one another.
    pub cimxml_depth: usize,
    /// Elements of such a request.
    pub cimxml_elements: usize,
    /// Size of a request of WS-Management, in KiB.
    pub wsman_request_kib: usize,
    /// Size of a request of the JSON API, in KiB.
    pub http_request_kib: usize,
    /// For an operation on CIM, after which its client is not kept waiting.
    pub operation: Span,
    /// Enumerations that are open at a time, of each listener.
    pub enumerations: usize,
    /// The same of one user.
    pub enumerations_per_user: usize,
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
    pub nbd: PathBuf,
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
    /// Whether they, and events of WS-Management, are sent to listeners off loopback.
    pub allow_remote: bool,
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
        let net = isochron_net::Limits::default();
        let http = isochron_api::Limits::default();
        let cimxml = isochron_cimxml::Config::default();
        let wsman = isochron_wsman::Config::default();
        let (listen, tls, limits) = (file.listen, file.tls, file.limits);
        if tls.certificate.is_some() != tls.key.is_some() {
            return Err(serde::de::Error::custom(
                "tls.certificate and tls.key belong together: give both or neither",
            ));
        }
        let names = || {
            let names = [&environment.host, "localhost", "127.0.0.1", "::1"];
            names.map(str::to_owned).to_vec()
        };
        Ok(Self {
            run: path(file.run).unwrap_or_else(|| state.join("run")),
            audit_log: path(file.audit_log).unwrap_or_else(|| state.join("audit.log")),
            listen: Listen {
                socket: path(listen.socket).unwrap_or_else(|| environment.socket(&state)),
                socket_group: listen.socket_group,
                cimxml: listen.cimxml.unwrap_or(loopback(CIMXML)),
                cimxml_https: listen.cimxml_https.unwrap_or(loopback(CIMXML_HTTPS)),
                wsman: listen.wsman.unwrap_or(loopback(WSMAN)),
                wsman_https: listen.wsman_https.unwrap_or(loopback(WSMAN_HTTPS)),
                http: listen.http.unwrap_or(Address(None)),
                https: listen.https.unwrap_or(Address(None)),
                allow_plain_remote: listen.allow_plain_remote,
                anonymous: listen.anonymous.unwrap_or(Anonymous(None)),
            },
            tls: Tls {
                certificate: path(tls.certificate).unwrap_or_else(|| own_certificate(&state)),
                key: path(tls.key).unwrap_or_else(|| own_key(&state)),
                client_ca: path(tls.client_ca),
                names: tls.names.unwrap_or_else(names),
                users: tls.users,
            },
            kerberos: Kerberos {
                keytab: path(file.kerberos.keytab),
                users: file.kerberos.users,
            },
            paths: Paths {
                roots: file
                    .paths
                    .roots
                    .into_iter()
                    .map(|r| directory.join(r))
                    .collect(),
            },
            limits: Limits {
                connections: limits.connections.unwrap_or(net.connections),
                connections_per_peer: limits.connections_per_peer.unwrap_or(net.per_peer),
                handshake: limits.handshake.unwrap_or(Span(net.handshake)),
                headers: limits.headers.unwrap_or(Span(cimxml.header_timeout)),
                body: limits.body.unwrap_or(Span(cimxml.body_timeout)),
                cimxml_request_kib: limits.cimxml_request_kib.unwrap_or(cimxml.max_body >> 10),
                cimxml_depth: limits.cimxml_depth.unwrap_or(cimxml.max_depth),
                cimxml_elements: limits.cimxml_elements.unwrap_or(cimxml.max_elements),
                wsman_request_kib: limits.wsman_request_kib.unwrap_or(wsman.max_body >> 10),
                http_request_kib: limits.http_request_kib.unwrap_or(http.body >> 10),
                operation: limits.operation.unwrap_or(Span(cimxml.operation_timeout)),
                enumerations: limits.enumerations.unwrap_or(cimxml.enumerations.open),
                enumerations_per_user: limits
                    .enumerations_per_user
                    .unwrap_or(cimxml.enumerations.by_caller),
            },
            deadlines: Times {
                freeze: file.deadlines.freeze.unwrap_or(Span(deadlines.freeze)),
                stop: file.deadlines.stop.unwrap_or(Span(deadlines.stop)),
                window: file.deadlines.window.unwrap_or(Span(deadlines.window)),
            },
            qemu: Qemu {
                binary: program(file.qemu.binary, "qemu-system-x86_64"),
                img: program(file.qemu.img, "qemu-img"),
                nbd: program(file.qemu.nbd, "qemu-nbd"),
            },
            jobs: Jobs {
                retention: file
                    .jobs
                    .retention
                    .unwrap_or(Span(isochron_engine::Config::new(&state).job_retention)),
            },
            indications: file.indications,
            test_provider: false,
            state,
        })
    }

    /// Refuses what must not be.
    ///
    /// # Errors
    /// A sentence with the key.
    pub fn check(&self) -> Result<(), String> {
        let Listen {
            cimxml,
            cimxml_https,
            wsman,
            wsman_https,
            http,
            https,
            ..
        } = self.listen;
        for (key, address, plain) in [
            ("listen.cimxml", cimxml, true),
            ("listen.cimxml_https", cimxml_https, false),
            ("listen.wsman", wsman, true),
            ("listen.wsman_https", wsman_https, false),
            ("listen.http", http, true),
            ("listen.https", https, false),
        ] {
            let Some(address) = address.0.filter(|address| !address.ip().is_loopback()) else {
                continue;
            };
            if plain && !self.listen.allow_plain_remote {
                return Err(format!(
                    "{key} = \"{address}\" is not on loopback, and passwords are sent in the \
                     clear without TLS: use {key}{} instead, or set listen.allow_plain_remote = \
                     true",
                    if key == "listen.http" { "s" } else { "_https" }
                ));
            }
            if let Some(role) = self.listen.anonymous.0 {
                return Err(format!(
                    "{key} = \"{address}\" is not on loopback, and listen.anonymous makes \
                     whoever reaches it {role}: add users instead"
                ));
            }
        }
        for (key, limit) in [
            ("connections", self.limits.connections),
            ("connections_per_peer", self.limits.connections_per_peer),
            ("cimxml_request_kib", self.limits.cimxml_request_kib),
            ("cimxml_depth", self.limits.cimxml_depth),
            ("cimxml_elements", self.limits.cimxml_elements),
            ("wsman_request_kib", self.limits.wsman_request_kib),
            ("http_request_kib", self.limits.http_request_kib),
            ("enumerations", self.limits.enumerations),
            ("enumerations_per_user", self.limits.enumerations_per_user),
        ] {
            if limit == 0 {
                return Err(format!("limits.{key} = 0 lets nothing through"));
            }
        }
        let depth = self.limits.cimxml_depth;
        if depth > XML_DEPTH_MAX {
            return Err(format!(
                "limits.cimxml_depth = {depth} is more than {XML_DEPTH_MAX}: each level takes \
                 stack of the daemon"
            ));
        }
        Ok(())
    }

    /// Everything that lies below the state by default lies below this one.
    pub fn move_state(&mut self, state: PathBuf) {
        for path in [
            &mut self.run,
            &mut self.audit_log,
            &mut self.listen.socket,
            &mut self.tls.certificate,
            &mut self.tls.key,
        ] {
            if let Ok(rest) = path.strip_prefix(&self.state) {
                *path = state.join(rest);
            }
        }
        self.state = state;
    }

    /// Whether the certificate is ours to make.
    pub fn makes_certificate(&self) -> bool {
        let own = [own_certificate(&self.state), own_key(&self.state)];
        own == [self.tls.certificate.clone(), self.tls.key.clone()]
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
            roots: self.paths.roots.clone(),
            ..isochron_engine::Config::new(&self.state)
        }
    }
}

fn own_certificate(state: &Path) -> PathBuf {
    state.join("tls/certificate.pem")
}

fn own_key(state: &Path) -> PathBuf {
    state.join("tls/key.pem")
}
