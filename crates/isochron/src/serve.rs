//! The daemon: opens the store, takes over machines that run, recovers what was
//! under way, then listens.
//!
//! On SIGTERM and SIGINT it stops listening, lets jobs that run reach their end
//! within a bound, and exits. Guests are no children of it: they run on.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use isochron_api::listen::{self, Socket, serve_http};
use isochron_cim::CimServer;
use isochron_cimom::{Delivery, IndicationOptions, Limits, ObjectManager};
use isochron_cimxml::{ListenerConfig, decode_embedded};
use isochron_engine::ports::{Store, SystemClock};
use isochron_engine::{Engine, TIMELINE};
use isochron_hyperv::HypervServer;
use isochron_net::Listener;
use isochron_qemu::{QemuConfig, QemuHypervisor};
use isochron_store::SqliteStore;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{Address, Config, Environment};
use crate::exit::Failure;
use crate::listeners::CimXmlListeners;
use crate::output;
use crate::records::StoredRecords;
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
    /// Address of CIM-XML; port 0 takes a free one; "off" for none
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_cimxml: Option<Address>,
    /// Address of the JSON API on HTTP; port 0 takes a free one; "off" for none
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen_http: Option<Address>,
    /// Write a timeline of every cut's steps and QMP commands, for ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Print the configuration that results, and exit
    #[arg(long)]
    print_config: bool,
}

impl ServeOptions {
    fn apply_to(self, config: &mut Config) -> std::io::Result<()> {
        if let Some(state) = self.state {
            let state = std::path::absolute(state)?;
            // What lay below the old directory by default lies below this one.
            for path in [&mut config.run, &mut config.listen.socket] {
                if let Ok(rest) = path.strip_prefix(&config.state) {
                    *path = state.join(rest);
                }
            }
            config.state = state;
        }
        if let Some(socket) = self.listen_socket {
            config.listen.socket = std::path::absolute(socket)?;
        }
        if let Some(address) = self.listen_cimxml {
            config.listen.cimxml = address;
        }
        if let Some(address) = self.listen_http {
            config.listen.http = address;
        }
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
    let (engine, store) = open(&config).await?;
    let (stop, stopping) = watch::channel(false);
    let listeners = listen(&config, &engine, store, stopping).await?;
    signals.next().await;
    tracing::info!("stopping; guests run on");
    let _ = stop.send(true);
    tokio::select! {
        () = finish(listeners, &engine) => {}
        () = signals.next() => tracing::warn!("told to stop again: not waiting any longer"),
    }
    Ok(())
}

/// Opens store, hypervisor and engine; recovery is done when this returns.
async fn open(config: &Config) -> Result<(Engine, Arc<dyn Store>), Failure> {
    let store = SqliteStore::open(config.state.join("isochron.db"))
        .await
        .map_err(|error| Failure::failed(format!("the store cannot be opened: {error}")))?;
    let store: Arc<dyn Store> = Arc::new(store);
    let hypervisor = QemuHypervisor::new(QemuConfig {
        qemu_binary: config.qemu.binary.clone(),
        qemu_img: config.qemu.img.clone(),
        answer: config.deadlines.stop.0,
        ..QemuConfig::new(&config.run)
    });
    let engine = Engine::open(
        Arc::new(hypervisor),
        store.clone(),
        Arc::new(SystemClock),
        config.engine(),
    )
    .await
    .map_err(|error| Failure::failed(format!("recovery failed: {error}")))?;
    Ok((engine, store))
}

/// What CIM clients see: the Msvm_* classes over the engine, and beside them what
/// clients keep here; indications are sent from then on.
async fn object_manager(
    config: &Config,
    engine: &Engine,
    store: Arc<dyn Store>,
) -> Result<Arc<dyn CimServer>, Failure> {
    let host = rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned();
    let hyperv = HypervServer::new(engine.clone(), Arc::new(embedded), &host)
        .map_err(|error| Failure::failed(format!("the schema does not compile: {error}")))?;
    let records = Arc::new(StoredRecords(store));
    let indications = IndicationOptions {
        listeners: Arc::new(CimXmlListeners(ListenerConfig {
            allow_remote: config.indications.allow_remote,
            ..ListenerConfig::default()
        })),
        delivery: Delivery::default(),
    };
    let manager = ObjectManager::open(Arc::new(hyperv), records, Limits::default(), indications)
        .await
        .map_err(Failure::failed)?;
    Ok(Arc::new(manager))
}

/// Binds all listeners, then serves on them.
async fn listen(
    config: &Config,
    engine: &Engine,
    store: Arc<dyn Store>,
    stopping: watch::Receiver<bool>,
) -> Result<JoinSet<()>, Failure> {
    let path = &config.listen.socket;
    let socket = Socket::bind(path).await.map_err(|error| {
        Failure::failed(format!("cannot listen on {}: {error}", path.display()))
    })?;
    let http = bind("listen.http", listen::FACE, config.listen.http).await?;
    let cimxml = bind("listen.cimxml", isochron_cimxml::FACE, config.listen.cimxml).await?;

    let stopped = |mut stopping: watch::Receiver<bool>| async move {
        // An error means that the sender is gone, which is the end as well.
        let _ = stopping.wait_for(|&stop| stop).await;
    };
    let mut listeners = JoinSet::new();
    let router = isochron_api::router(engine.clone());
    if let Some((listener, address)) = cimxml {
        let manager = object_manager(config, engine, store).await?;
        let server = isochron_cimxml::Server::new(listener, isochron_cimxml::Config::default());
        let stopped = stopped(stopping.clone());
        listeners.spawn(async move {
            if let Err(error) = server.serve(manager, stopped).await {
                tracing::error!(%error, "the CIM-XML listener failed");
            }
        });
        eprintln!("listening for CIM-XML on http://{address}");
    }
    if let Some((listener, address)) = http {
        let (router, stopped) = (router.clone(), stopped(stopping.clone()));
        listeners.spawn(async move {
            if let Err(error) = serve_http(listener, router, stopped).await {
                tracing::error!(%error, "the HTTP listener failed");
            }
        });
        eprintln!("listening for the JSON API on http://{address}");
    }
    listeners.spawn(socket.serve(router, stopped(stopping)));
    eprintln!("listening for the JSON API on unix:{}", path.display());
    Ok(listeners)
}

async fn bind(
    key: &str,
    face: &'static str,
    address: Address,
) -> Result<Option<(Listener, SocketAddr)>, Failure> {
    let Some(address) = address.0 else {
        return Ok(None);
    };
    let bound = async {
        let listener = Listener::bind(address, face).await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bound.await.map(Some).map_err(|error: std::io::Error| {
        Failure::failed(format!(
            "cannot listen on {address}: {error}; choose another address with {key}, or \"off\""
        ))
    })
}

/// Reads the text of an embedded instance, as CIM-XML's clients write it.
fn embedded(text: &str) -> Result<isochron_cim::Instance, isochron_cim::CimError> {
    match decode_embedded(text) {
        Ok(Some(instance)) => Ok(instance),
        Ok(None) => Err(isochron_cim::CimError::invalid_parameter(
            "the text holds no instance",
        )),
        Err(error) => Err(isochron_cim::CimError::invalid_parameter(error)),
    }
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

/// The signals that end the daemon.
struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
