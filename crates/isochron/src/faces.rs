//! The daemon's faces: everything that it listens on, who gets in there, and what is
//! served behind.
//!
//! All listeners are bound before the first serves, so that one that cannot be ends the
//! start with nothing half there.

use std::net::SocketAddr;
use std::sync::Arc;

use isochron_access::{AuditLog, AuditedServer, LoginConfig, Logins, Users};
use isochron_api::listen::{self, Group, Socket, serve_http};
use isochron_api::{Served, router};
use isochron_cim::{CimError, CimServer, EnumerationLimits, Instance};
use isochron_cimom::{Delivery, IndicationOptions, Limits as ObjectLimits, ObjectManager};
use isochron_cimxml::decode_embedded;
use isochron_engine::Engine;
use isochron_engine::ports::Store;
use isochron_hyperv::HypervServer;
use isochron_net::outgoing::Outgoing;
use isochron_net::{
    Authenticator, Files, Limits, Listener, ProofAuthenticator, TicketAuthenticator, Tls,
    make_self_signed,
};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::config::{Address, Config, SOCKET_GROUP, host_name};
use crate::exit::Failure;
use crate::listeners::CimXmlListeners;
use crate::records::StoredRecords;
use crate::tickets::Tickets;

/// What is behind the faces.
pub struct Behind {
    /// The engine, which acts for the daemon itself and tells the audit.
    pub engine: Engine,
    /// The records.
    pub store: Arc<dyn Store>,
    /// The audit.
    pub audit: Arc<AuditLog>,
}

/// A TCP listener: what a person calls it, and where it is.
struct Face {
    listener: Listener,
    address: SocketAddr,
}

/// Binds everything, then serves until `stopping` says so. When `reload` is notified,
/// certificates are read anew at once.
pub async fn serve(
    config: &Config,
    behind: Behind,
    reload: Arc<Notify>,
    stopping: watch::Receiver<bool>,
) -> Result<JoinSet<()>, Failure> {
    let Behind {
        engine,
        store,
        audit,
    } = behind;
    let users = Users::open(store.clone()).await.map_err(Failure::failed)?;
    let users = Arc::new(users);
    let tls = tls(config).await?;

    let path = &config.listen.socket;
    let group = group(config).await?;
    let socket = Socket::bind(path, group).await.map_err(|error| {
        Failure::failed(format!("cannot listen on {}: {error}", path.display()))
    })?;
    let bind = |key, face, address, tls| bind(config, key, face, address, tls);
    let (cim, http) = (isochron_cimxml::FACE, listen::FACE);
    let at = &config.listen;
    let cimxml = [
        bind("listen.cimxml", cim, at.cimxml, None).await?,
        bind("listen.cimxml_https", cim, at.cimxml_https, tls.clone()).await?,
    ];
    let wsman = [
        bind("listen.wsman", isochron_wsman::FACE, at.wsman, None).await?,
        bind(
            "listen.wsman_https",
            isochron_wsman::FACE,
            at.wsman_https,
            tls.clone(),
        )
        .await?,
    ];
    let json = [
        bind("listen.http", http, at.http, None).await?,
        bind("listen.https", http, at.https, tls.clone()).await?,
    ];

    if config.listen.anonymous.0.is_none()
        && users.is_empty()
        && [&cimxml, &wsman, &json]
            .into_iter()
            .flatten()
            .any(Option::is_some)
    {
        eprintln!(
            "there are no users yet, and without one nobody gets in on TCP: \
             isochron user add NAME --role ROLE"
        );
    }
    let logins = LoginConfig {
        anonymous: config.listen.anonymous.0,
        certificates: config.tls.users.clone(),
        principals: config.kerberos.users.clone(),
    };
    let logins = Logins::new(users.clone(), logins, audit.clone());
    let logins = Arc::new(logins.await.map_err(Failure::failed)?);
    let tickets = Tickets::open(config, logins.clone()).await?;
    let tickets = tickets.map(|tickets| Arc::new(tickets) as Arc<dyn TicketAuthenticator>);
    let proofs: Arc<dyn ProofAuthenticator> = logins.clone();
    let logins: Arc<dyn Authenticator> = logins;

    let stopped = move || {
        let mut stopping = stopping.clone();
        async move {
            // An error means that the sender is gone, which is the end as well.
            let _ = stopping.wait_for(|&stop| stop).await;
        }
    };
    let mut serving = JoinSet::new();
    if let Some(tls) = &tls {
        let (keeping, stopped) = (tls.clone().keep_current(reload), stopped());
        serving.spawn(async move {
            tokio::select! {
                () = keeping => {}
                () = stopped => {}
            }
        });
    }
    if [&cimxml, &wsman].into_iter().flatten().any(Option::is_some) {
        let manager = object_manager(config, &engine, store).await?;
        let manager = Arc::new(AuditedServer::new(manager, audit.clone()));
        for Face { listener, address } in cimxml.into_iter().flatten() {
            let scheme = scheme(&listener);
            let server = isochron_cimxml::Server::new(listener, cimxml_config(config, &logins));
            let (manager, stopped) = (manager.clone(), stopped());
            serving.spawn(async move {
                if let Err(error) = server.serve(manager, stopped).await {
                    tracing::error!(%error, "a CIM-XML listener failed");
                }
            });
            eprintln!("listening for CIM-XML on {scheme}://{address}");
        }
        for Face { listener, address } in wsman.into_iter().flatten() {
            let scheme = scheme(&listener);
            let server = isochron_wsman::Server::new(
                listener,
                isochron_wsman::Config {
                    negotiate: Some(proofs.clone()),
                    tickets: tickets.clone(),
                    ..wsman_config(config, &logins)
                },
            );
            let (manager, stopped) = (manager.clone(), stopped());
            serving.spawn(async move {
                if let Err(error) = server.serve(manager, stopped).await {
                    tracing::error!(%error, "a WS-Management listener failed");
                }
            });
            eprintln!("listening for WS-Management on {scheme}://{address}/wsman");
        }
    }
    let router = router(Served {
        engine,
        users,
        tls: tls.clone(),
        limits: isochron_api::Limits {
            body: config.limits.http_request_kib << 10,
            body_time: config.limits.body.0,
        },
    });
    for Face { listener, address } in json.into_iter().flatten() {
        let scheme = scheme(&listener);
        let (router, stopped) = (router.clone(), stopped());
        let (logins, headers) = (logins.clone(), config.limits.headers.0);
        serving.spawn(async move {
            if let Err(error) = serve_http(listener, logins, headers, router, stopped).await {
                tracing::error!(%error, "a listener of the JSON API failed");
            }
        });
        eprintln!("listening for the JSON API on {scheme}://{address}");
    }
    if let Some(tls) = tls {
        let fingerprint = tls.certificate().fingerprint;
        eprintln!("the TLS certificate's SHA-256 fingerprint is {fingerprint}");
    }
    serving.spawn(socket.serve(router, Some(audit), stopped()));
    eprintln!("listening for the JSON API on unix:{}", path.display());
    Ok(serving)
}

fn scheme(listener: &Listener) -> &'static str {
    match listener.is_encrypted() {
        true => "https",
        false => "http",
    }
}

/// The certificate of HTTPS listeners, if there are any; made where it is ours to make
/// and not there.
async fn tls(config: &Config) -> Result<Option<Arc<Tls>>, Failure> {
    let at = &config.listen;
    let encrypted = [at.cimxml_https, at.wsman_https, at.https];
    if encrypted.iter().all(|address| address.0.is_none()) {
        return Ok(None);
    }
    let files = Files {
        certificate: config.tls.certificate.clone(),
        key: config.tls.key.clone(),
        client_ca: config.tls.client_ca.clone(),
    };
    let names = config.makes_certificate().then(|| config.tls.names.clone());
    let opening = move || {
        if let Some(names) = names
            && make_self_signed(&files, &names)
                .map_err(|error| Failure::failed(format!("no certificate can be made: {error}")))?
        {
            let file = files.certificate.display();
            tracing::info!(%file, "a certificate was made");
        }
        let opened = Tls::open(files);
        opened.map_err(|error| Failure::failed(format!("TLS cannot be served: {error}")))
    };
    let opened = tokio::task::spawn_blocking(opening).await;
    opened.map_err(Failure::failed)?.map(Arc::new).map(Some)
}

/// The group of the unix socket: the one that is configured, which must be there, or
/// the default one, if it is.
async fn group(config: &Config) -> Result<Option<Group>, Failure> {
    let configured = config.listen.socket_group.clone();
    let finding = tokio::task::spawn_blocking(move || match configured {
        Some(name) => match Group::find(&name) {
            Ok(Some(group)) => Ok(Some(group)),
            Ok(None) => Err(format!("listen.socket_group = {name:?}: no such group")),
            Err(error) => Err(format!("listen.socket_group = {name:?}: {error}")),
        },
        // Others than root could not give the socket to it.
        None if rustix::process::geteuid().is_root() => Group::find(SOCKET_GROUP)
            .map_err(|error| format!("the group {SOCKET_GROUP} cannot be looked up: {error}")),
        None => Ok(None),
    });
    let found = finding.await.map_err(Failure::failed)?;
    found.map_err(Failure::failed)
}

async fn bind(
    config: &Config,
    key: &str,
    face: &'static str,
    address: Address,
    tls: Option<Arc<Tls>>,
) -> Result<Option<Face>, Failure> {
    let Some(address) = address.0 else {
        return Ok(None);
    };
    let limits = Limits {
        connections: config.limits.connections,
        per_peer: config.limits.connections_per_peer,
        handshake: config.limits.handshake.0,
    };
    let bound = async {
        let tcp = TcpListener::bind(address).await?;
        let address = tcp.local_addr()?;
        let listener = Listener::new(tcp, face, tls, limits);
        Ok(Face { listener, address })
    };
    bound.await.map(Some).map_err(|error: std::io::Error| {
        Failure::failed(format!(
            "cannot listen on {address}: {error}; choose another address with {key}, or \"off\""
        ))
    })
}

fn cimxml_config(config: &Config, logins: &Arc<dyn Authenticator>) -> isochron_cimxml::Config {
    isochron_cimxml::Config {
        authenticator: logins.clone(),
        max_body: config.limits.cimxml_request_kib << 10,
        max_depth: config.limits.cimxml_depth,
        max_elements: config.limits.cimxml_elements,
        header_timeout: config.limits.headers.0,
        body_timeout: config.limits.body.0,
        operation_timeout: config.limits.operation.0,
        enumerations: enumerations(config),
        ..isochron_cimxml::Config::default()
    }
}

fn wsman_config(config: &Config, logins: &Arc<dyn Authenticator>) -> isochron_wsman::Config {
    isochron_wsman::Config {
        authenticator: logins.clone(),
        host: host_name(),
        max_body: config.limits.wsman_request_kib << 10,
        header_timeout: config.limits.headers.0,
        body_timeout: config.limits.body.0,
        operation_timeout: config.limits.operation.0,
        enumerations: enumerations(config),
        outgoing: outgoing(config),
        ..isochron_wsman::Config::default()
    }
}

fn enumerations(config: &Config) -> EnumerationLimits {
    EnumerationLimits {
        open: config.limits.enumerations,
        by_caller: config.limits.enumerations_per_user,
        ..EnumerationLimits::default()
    }
}

/// What CIM clients see: the Msvm_* classes over the engine, this host, and beside them
/// what clients keep here; indications are sent from then on.
async fn object_manager(
    config: &Config,
    engine: &Engine,
    store: Arc<dyn Store>,
) -> Result<Arc<dyn CimServer>, Failure> {
    // The conformance tests fill a root/cimv2 of their own.
    let root = (!config.test_provider).then(|| "/".into());
    let hyperv = HypervServer::new(engine.clone(), Arc::new(embedded), &host_name(), root)
        .map_err(|error| Failure::failed(format!("the schema does not compile: {error}")))?;
    let records = Arc::new(StoredRecords(store));
    let indications = IndicationOptions {
        listeners: Arc::new(CimXmlListeners(outgoing(config))),
        delivery: Delivery::default(),
    };
    let limits = ObjectLimits::default();
    let mut manager = ObjectManager::open(Arc::new(hyperv), records, limits, indications)
        .await
        .map_err(Failure::failed)?;
    if config.test_provider {
        manager.add_test_provider().await.map_err(Failure::failed)?;
    }
    Ok(Arc::new(manager))
}

/// Where indications and events may go.
fn outgoing(config: &Config) -> Outgoing {
    Outgoing {
        allow_remote: config.indications.allow_remote,
        ..Outgoing::default()
    }
}

/// Reads the text of an embedded instance, as CIM-XML's clients write it.
fn embedded(text: &str) -> Result<Instance, CimError> {
    match decode_embedded(text) {
        Ok(Some(instance)) => Ok(instance),
        Ok(None) => Err(CimError::invalid_parameter("the text holds no instance")),
        Err(error) => Err(CimError::invalid_parameter(error)),
    }
}
