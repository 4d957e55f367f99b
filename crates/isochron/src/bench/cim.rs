//! `isochron bench cim`: how fast a CIM-XML server answers.
//!
//! A namespace of its own is filled with instances of about 1 kB, then connections
//! ask as fast as they are answered, each operation for some seconds with each
//! number of connections. Beside every rate stands the **floor** of the same run:
//! requests that the server's HTTP refuses before it reads any CIM. What an
//! operation reaches of it is a figure that does not depend on the machine.
//!
//! Every answer is read to its end and must be one without an error. The namespace
//! is removed at the end, also of a server that is not ours.

mod client;
pub(super) mod report;

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::Args;

use self::client::{Connection, Request};
use self::report::{Listing, Report};
use super::asking::{Asking, Target};
use crate::exit::Failure;
use crate::stage::{self, Stage};

pub const EXAMPLES: &str = "\
Examples:
  isochron bench cim
  isochron bench cim --connections 1,4,16,64 --seconds 10
  isochron bench cim --url http://127.0.0.1:5988 --user admin     # asks ISOCHRON_PASSWORD
  isochron bench cim --instances 100000 --json

Without --url it starts a daemon of its own. With it, the user must be an
administrator: a namespace is created, and removed at the end.";

/// What all else is compared with: a request that HTTP refuses.
const FLOOR: &str = "HTTP floor";

/// What to measure.
#[derive(Args, Debug)]
pub struct CimOptions {
    #[command(flatten)]
    asking: Asking,
    /// Instances of the enumerations
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    instances: u32,
}

/// Where CIM-XML is where its address does not say.
const PATH: &str = "/cimom";

/// Bytes of text in every instance.
const TEXT: usize = 900;

/// Instances that one pull asks for.
const PULLED_AT_ONCE: u32 = 1_000;

/// Enumerations of each kind; the median counts.
const LISTINGS: usize = 5;

/// Measures and prints.
pub fn run(options: &CimOptions, json: bool) -> Result<(), Failure> {
    let report = stage::perform(measure(options))?;
    report.print(json)
}

async fn measure(options: &CimOptions) -> Result<Report> {
    if let Some(target) = options.asking.target()? {
        return measure_server(options, &target.or_at(PATH), None).await;
    }
    let stage = Stage::open(options.asking.dir.as_deref()).await?;
    let target = stage.cimxml.parse::<Target>()?.or_at(PATH);
    let report = measure_server(options, &target, stage.daemon_id()).await;
    stage.close().await?;
    report
}

async fn measure_server(
    options: &CimOptions,
    target: &Target,
    process: Option<u32>,
) -> Result<Report> {
    let namespace = format!("isochron_bench_{}", std::process::id());
    let mut connection = Connection::to(target).await?;
    let found = match fill(&mut connection, &namespace, options.instances).await {
        Ok(()) => ask(options, target, &namespace, process).await,
        Err(error) => Err(error),
    };
    eprintln!("bench: removing the namespace {namespace}");
    let removed = clear(target, &namespace, options.instances).await;
    let report = found?;
    removed.context("the namespace could not be removed")?;
    Ok(report)
}

/// Creates the namespace, its class and its instances.
async fn fill(connection: &mut Connection, namespace: &str, instances: u32) -> Result<()> {
    eprintln!("bench: creating {instances} instances");
    connection
        .call(&Request::create_namespace(namespace))
        .await?;
    connection
        .call(&Request::set_key_qualifier(namespace))
        .await?;
    connection.call(&Request::create_class(namespace)).await?;
    for id in 0..instances {
        let request = Request::create_instance(namespace, id, TEXT);
        connection.call(&request).await?;
    }
    Ok(())
}

/// Takes away what [`fill`] made, as far as it came.
async fn clear(target: &Target, namespace: &str, instances: u32) -> Result<()> {
    let mut connection = Connection::to(target).await?;
    for id in 0..instances {
        let request = Request::delete_instance(namespace, id);
        if connection.call(&request).await.is_err() {
            break;
        }
    }
    // What was never made cannot be deleted; the namespace's own end tells.
    let _ = connection.call(&Request::delete_class(namespace)).await;
    let _ = connection.call(&Request::delete_qualifier(namespace)).await;
    let namespaces = connection.call(&Request::namespaces()).await?;
    let path = client::namespace_path(&namespaces, namespace)
        .context("the server does not list the namespace")?;
    connection.call(&Request::delete_namespace(path)).await?;
    Ok(())
}

async fn ask(
    options: &CimOptions,
    target: &Target,
    namespace: &str,
    process: Option<u32>,
) -> Result<Report> {
    let mut connection = Connection::to(target).await?;
    let service = connection.call(&Request::services()).await?;
    let service = client::first_path(&service).context("the server has no snapshot service")?;
    let instances = options.instances;
    let operations: [(&'static str, Vec<Request>); 5] = [
        (FLOOR, vec![Request::refused()]),
        (
            "GetInstance, 1 kB",
            (0..64)
                .map(|n| Request::get_instance(namespace, n * 7919 % instances))
                .collect(),
        ),
        ("GetInstance, service", vec![Request::get_service(service)]),
        ("GetClass", vec![Request::get_class()]),
        (
            "AssociatorNames, service",
            vec![Request::associator_names(service)],
        ),
    ];
    let rates = options.asking.rates(target, &operations).await?;
    let mut listings = Vec::new();
    for kind in [
        Kind::Instances,
        Kind::Names,
        Kind::Pulled(PULLED_AT_ONCE.min(instances)),
    ] {
        eprintln!("bench: {}", kind.name());
        let mut connection = Connection::to(target).await?;
        listings.push(list(&mut connection, namespace, kind, instances, process).await?);
    }
    Ok(Report {
        floor: FLOOR,
        rates,
        listings,
        goal: None,
    })
}

/// How the instances of a class are asked for.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Instances,
    Names,
    /// By so many at a time.
    Pulled(u32),
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Instances => "EnumerateInstances",
            Self::Names => "EnumerateInstanceNames",
            Self::Pulled(_) => "Open and Pull",
        }
    }
}

async fn list(
    connection: &mut Connection,
    namespace: &str,
    kind: Kind,
    instances: u32,
    process: Option<u32>,
) -> Result<Listing> {
    let before = process.map(report::start_of_memory).transpose()?;
    let mut times = Vec::new();
    let mut bytes = 0;
    for _ in 0..LISTINGS {
        let began = Instant::now();
        let found;
        (found, bytes) = listed(connection, namespace, kind).await?;
        times.push(began.elapsed());
        ensure!(
            found == instances as usize,
            "{} gave {found} instances of {instances}",
            kind.name()
        );
    }
    let grown = match (process, before) {
        (Some(process), Some(before)) => {
            Some(report::peak_of_memory(process)?.saturating_sub(before))
        }
        _ => None,
    };
    times.sort_unstable();
    Ok(Listing {
        operation: kind.name(),
        instances,
        time: times[times.len() / 2],
        bytes,
        grown,
    })
}

/// How many instances came, in how many bytes.
async fn listed(
    connection: &mut Connection,
    namespace: &str,
    kind: Kind,
) -> Result<(usize, usize)> {
    let (whole, element) = match kind {
        Kind::Instances => (Request::enumerate(namespace), "<VALUE.NAMEDINSTANCE>"),
        Kind::Names => (Request::enumerate_names(namespace), "<INSTANCENAME "),
        Kind::Pulled(count) => return pulled(connection, namespace, count).await,
    };
    connection.count(&whole, element).await
}

async fn pulled(
    connection: &mut Connection,
    namespace: &str,
    count: u32,
) -> Result<(usize, usize)> {
    let (mut found, mut bytes) = (0, 0);
    let mut answer = connection.call(&Request::open(namespace, count)).await?;
    loop {
        found += answer.matches("<VALUE.INSTANCEWITHPATH>").count();
        bytes += answer.len();
        let Some(context) = client::context(&answer) else {
            return Ok((found, bytes));
        };
        answer = connection
            .call(&Request::pull(namespace, context, count))
            .await?;
    }
}
