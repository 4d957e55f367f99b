//! The daemon: opens the store, takes over machines that run, recovers what was
//! under way, then listens.
//!
//! On SIGHUP it reads certificates anew. On SIGTERM and SIGINT it stops listening, lets jobs that run reach their end
//! within a bound, and exits. Guests are no children of it: they run on.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use isochron_access::AuditLog;
use isochron_backup::DirectoryArchive;
use isochron_engine::ports::{Store, SystemClock};
use isochron_engine::{Engine, TIMELINE};
use isochron_qemu::{QemuConfig, QemuHypervisor};
use isochron_store::SqliteStore;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{Address, Config, Environment};
use crate::exit::Failure;
use crate::faces::{self, Behind};
use crate::output;
use crate::trace::Recorder;

/// For how long jobs that run are waited for at the end.
const JOB_GRACE: Duration = Duration::from_secs(60);

/// How to run the daemon. What is said here goes before the configuration.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  isochron serve
  isochron serve --config /etc/isochron/isochron.toml
  isochron serve --state /tmp/try --listen-socket /tmp/try.sock --listen-cimxml off
  isochron serve --print-config > isochron.toml
  isochron serve --trace cuts.json        # open it in ui.perfetto.dev

ISOCHRON_LOG sets what is logged: info (the default), debug, isochron_qemu=trace, ...")]
pub struct ServeOptions {
    /// Directory of the store and of the memory of snapshots
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Unix socket of the JSON API
    #[arg(long, value_name = "PATH")]
    listen_socket: Option<PathBuf>,
    /// Address of CIM-XML on HTTP; port 0 takes a free one; "off" for none
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_cimxml: Option<Address>,
    /// Address of CIM-XML on HTTPS
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_cimxml_https: Option<Address>,
    /// Address of WS-Management on HTTP
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_wsman: Option<Address>,
    /// Address of WS-Management on HTTPS
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_wsman_https: Option<Address>,
    /// Address of the JSON API on HTTP
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_http: Option<Address>,
    /// Address of the JSON API on HTTPS
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_https: Option<Address>,
    /// Write a timeline of every cut's steps and QMP commands, for ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Print the configuration that results, and exit
    #[arg(long)]
    print_config: bool,
    /// Offer the namespace test/TestProvider, which conformance tests of CIM servers call
    #[arg(long, hide = true)]
    test_provider: bool,
}

impl ServeOptions {
    fn apply_to(self, config: &mut Config) -> std::io::Result<()> {
        if let Some(state) = self.state {
            config.move_state(std::path::absolute(state)?);
        }
        if let Some(socket) = self.listen_socket {
            config.listen.socket = std::path::absolute(socket)?;
        }
        if let Some(address) = self.listen_cimxml {
            config.listen.cimxml = address;
        }
        if let Some(address) = self.listen_cimxml_https {
            config.listen.cimxml_https = address;
        }
        if let Some(address) = self.listen_wsman {
            config.listen.wsman = address;
        }
        if let Some(address) = self.listen_wsman_https {
            config.listen.wsman_https = address;
        }
        if let Some(address) = self.listen_http {
            config.listen.http = address;
        }
        if let Some(address) = self.listen_https {
            config.listen.https = address;
        }
        config.test_provider = self.test_provider;
        Ok(())
    }
}

/// Runs the daemon until it is told to stop.
pub fn run(options: ServeOptions, file: Option<&Path>) -> Result<(), Failure> {
    let mut config = Config::load(file, &Environment::of_process()).map_err(Failure::usage)?;
    let print = options.print_config;
    let trace = options.trace.clone();
    options.apply_to(&mut config).map_err(Failure::usage)?;
    config.check().map_err(Failure::usage)?;
    if print {
        return output::text(&toml::to_string(&config).map_err(Failure::failed)?);
    }
    let filter =
        EnvFilter::try_from_env("ISOCHRON_LOG").or_else(|error| {
            match std::env::var_os("ISOCHRON_LOG") {
                None => Ok(EnvFilter::new("info")),
                Some(_) => Err(Failure::usage(format!("ISOCHRON_LOG: {error}"))),
            }
        })?;
    let log = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_filter(filter)
        .boxed();
    let mut layers = vec![log];
    let mut recorder = None;
    if let Some(path) = trace {
        let begun = Recorder::begin(&path);
        let (begun, timeline) = begun
            .map_err(|error| Failure::usage(format!("cannot write {}: {error}", path.display())))?;
        let only = Targets::new().with_target(TIMELINE, LevelFilter::TRACE);
        layers.push(timeline.with_filter(only).boxed());
        recorder = Some(begun);
    }
    tracing_subscriber::registry().with(layers).init();
    let runtime = tokio::runtime::Runtime::new()
        .map_err(|error| Failure::failed(format!("no runtime: {error}")))?;
    let served = runtime.block_on(serve(config));
    if let Some(Err(error)) = recorder.map(Recorder::finish) {
        eprintln!("isochron: the trace could not be written: {error}");
    }
    served
}

async fn serve(config: Config) -> Result<(), Failure> {
    // Signals wait for us from now on, while recovery runs too.
    let mut signals = Signals::new().map_err(Failure::failed)?;
    let behind = open(&config).await?;
    let engine = behind.engine.clone();
    let (stop, stopping) = watch::channel(false);
    let reload = Arc::new(Notify::new());
    let listeners = faces::serve(&config, behind, reload.clone(), stopping).await?;
    signals.next(&reload).await;
    tracing::info!("stopping; guests run on");
    let _ = stop.send(true);
    tokio::select! {
        () = finish(listeners, &engine) => {}
        () = signals.next(&reload) => tracing::warn!("told to stop again: not waiting any longer"),
    }
    Ok(())
}

/// Opens store, audit log, hypervisor and engine; recovery is done when this returns.
async fn open(config: &Config) -> Result<Behind, Failure> {
    let store = SqliteStore::open(config.state.join("isochron.db"))
        .await
        .map_err(|error| Failure::failed(format!("the store cannot be opened: {error}")))?;
    let store: Arc<dyn Store> = Arc::new(store);
    let path = config.audit_log.clone();
    let audit = tokio::task::spawn_blocking(move || {
        AuditLog::open(&path).map_err(|error| {
            let path = path.display();
            Failure::failed(format!("the audit log {path} cannot be opened: {error}"))
        })
    });
    let audit = Arc::new(audit.await.map_err(Failure::failed)??);
    let hypervisor = QemuHypervisor::new(QemuConfig {
        qemu_binary: config.qemu.binary.clone(),
        qemu_img: config.qemu.img.clone(),
        answer: config.deadlines.stop.0,
        ..QemuConfig::new(&config.run)
    });
    let engine = Engine::open(
        Arc::new(hypervisor),
        store.clone(),
        Arc::new(DirectoryArchive::new(&config.qemu.nbd, &config.qemu.img)),
        Arc::new(SystemClock),
        config.engine(),
    )
    .await
    .map_err(|error| Failure::failed(format!("recovery failed: {error}")))?;
    Ok(Behind {
        engine: engine.audited(audit.clone()),
        store,
        audit,
    })
}

/// Waits for the listeners and then for the jobs that run, within a bound.
async fn finish(mut listeners: JoinSet<()>, engine: &Engine) {
    while listeners.join_next().await.is_some() {}
    let Ok(jobs) = engine.jobs().await else {
        return;
    };
    let running: Vec<_> = jobs.into_iter().filter(|job| !job.ended()).collect();
    if running.is_empty() {
        return;
    }
    tracing::info!(jobs = running.len(), "waiting for jobs that run");
    let all = async {
        for job in running {
            let _ = engine.wait_job(job.id).await;
        }
    };
    if tokio::time::timeout(JOB_GRACE, all).await.is_err() {
        tracing::warn!("jobs still run; the next start brings them to an end");
    }
}

/// The signals that end the daemon, and the one that has it read certificates anew.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Ready when the daemon is to end.
    async fn next(&mut self, reload: &Notify) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => reload.notify_one(),
            }
        }
    }
}
