//! What this host is, in the files in which its kernel and its distribution say so:
//! `proc`, `sys` and `etc`, which anybody may read. What only root may read, or what no
//! file says, is not known.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use isochron_cim::{CimError, ObjectPath};
use ring::hmac;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::lookup::Provider;
use crate::object::{Object, class};

/// One of the things that are told of the host.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Fact {
    /// The computer.
    System,
    /// The computer as its maker sold it.
    Product,
    /// Its operating system.
    OperatingSystem,
    /// A package of processors, by its place among them.
    Processor(usize),
}

impl Fact {
    /// Its class.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::System => class::HOST_SYSTEM,
            Self::Product => class::HOST_PRODUCT,
            Self::OperatingSystem => class::OPERATING_SYSTEM,
            Self::Processor(_) => class::HOST_PROCESSOR,
        }
    }

    /// Its path, without namespace, on a host of this name. What a key does not know is
    /// empty.
    pub(crate) fn path(self, facts: &Facts, host: &str) -> ObjectPath {
        let path = ObjectPath::class(self.class());
        let known = |text: &Option<String>| text.clone().unwrap_or_default();
        match self {
            Self::System => path.with_key("Name", host),
            Self::Product => path
                .with_key("IdentifyingNumber", known(&facts.product.serial))
                .with_key("Name", known(&facts.product.name))
                .with_key("Version", known(&facts.product.version)),
            Self::OperatingSystem => path.with_key("Name", facts.system.name.as_str()),
            Self::Processor(index) => path.with_key("DeviceID", format!("CPU{index}")),
        }
    }
}

/// What the host is and has at a moment.
#[derive(Debug, PartialEq)]
pub(crate) struct Facts {
    pub(crate) product: Product,
    pub(crate) system: OperatingSystem,
    pub(crate) memory: Memory,
    /// The packages of processors.
    pub(crate) processors: Vec<Package>,
}

/// The computer, as its firmware tells.
#[derive(Debug, PartialEq)]
pub(crate) struct Product {
    pub(crate) vendor: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) version: Option<String>,
    pub(crate) serial: Option<String>,
    /// Identifies the host.
    pub(crate) uuid: Option<Uuid>,
}

/// What runs on it.
#[derive(Debug, PartialEq)]
pub(crate) struct OperatingSystem {
    /// What the distribution calls itself.
    pub(crate) name: String,
    /// The three numbers that the kernel's release begins with.
    pub(crate) version: Option<String>,
    pub(crate) booted: Option<OffsetDateTime>,
    pub(crate) processes: u32,
}

/// Memory and swap, in KiB.
#[derive(Debug, PartialEq)]
pub(crate) struct Memory {
    pub(crate) total: Option<u64>,
    /// What programs can have without swapping.
    pub(crate) available: Option<u64>,
    pub(crate) swap: Option<u64>,
    pub(crate) swap_free: Option<u64>,
}

/// A package of processors.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Package {
    /// What it calls itself; its instruction set where it has no name.
    pub(crate) name: String,
    pub(crate) vendor: Option<String>,
    /// Of an x86.
    pub(crate) family: Option<u8>,
    /// Of an x86.
    pub(crate) model: Option<u8>,
    /// Of an x86.
    pub(crate) stepping: Option<u8>,
    pub(crate) cores: u32,
    /// What the kernel schedules on.
    pub(crate) logical: u32,
    /// In MHz.
    pub(crate) speed: Option<u32>,
    /// In MHz.
    pub(crate) top_speed: Option<u32>,
}

impl Facts {
    /// Reads them below a directory, usually the root.
    fn read(root: &Path) -> Self {
        Self {
            product: Product::read(root),
            system: OperatingSystem::read(root),
            memory: Memory::read(root),
            processors: packages(root),
        }
    }

    /// All things that there are.
    pub(crate) fn all(facts: &Arc<Self>) -> impl Iterator<Item = Object> {
        let processors = (0..facts.processors.len()).map(Fact::Processor);
        [Fact::System, Fact::Product, Fact::OperatingSystem]
            .into_iter()
            .chain(processors)
            .map(|fact| Object::Facts(facts.clone(), fact))
    }
}

impl Provider {
    /// What is told of this host, if it is described.
    pub(crate) async fn facts(&self) -> Result<Vec<Object>, CimError> {
        let Some(root) = self.root.clone() else {
            return Ok(Vec::new());
        };
        let reading = tokio::task::spawn_blocking(move || Facts::read(&root));
        let facts = reading.await.map_err(CimError::failed)?;
        Ok(Facts::all(&Arc::new(facts)).collect())
    }
}

/// The text of a file, if there is one that may be read and says something.
fn text(root: &Path, file: &str) -> Option<String> {
    let text = fs::read_to_string(root.join(file)).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

impl Product {
    fn read(root: &Path) -> Self {
        let dmi = |name: &str| text(root, &format!("sys/class/dmi/id/{name}"));
        let uuid = dmi("product_uuid").and_then(|uuid| uuid.parse().ok());
        Self {
            vendor: dmi("sys_vendor"),
            name: dmi("product_name"),
            version: dmi("product_version"),
            serial: dmi("product_serial"),
            uuid: uuid.or_else(|| of_machine_id(&text(root, "etc/machine-id")?)),
        }
    }
}

/// A UUID that the machine-id always gives and that does not tell it: machine-id(5) asks
/// for a hash of it with something of one's own.
fn of_machine_id(machine_id: &str) -> Option<Uuid> {
    let machine_id = Uuid::try_parse(machine_id).ok()?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, machine_id.as_bytes());
    let hash = hmac::sign(&key, b"isochron: Win32_ComputerSystemProduct.UUID");
    let bytes = hash.as_ref().first_chunk()?;
    Some(uuid::Builder::from_random_bytes(*bytes).into_uuid())
}

impl OperatingSystem {
    fn read(root: &Path) -> Self {
        let release = text(root, "etc/os-release").or_else(|| text(root, "usr/lib/os-release"));
        let name = release.as_deref().and_then(|release| {
            let line = release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME="));
            line.map(|name| name.trim_matches(['"', '\'']).to_owned())
        });
        let booted = text(root, "proc/stat").and_then(|stat| {
            let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "));
            OffsetDateTime::from_unix_timestamp(seconds?.trim().parse().ok()?).ok()
        });
        let processes = fs::read_dir(root.join("proc")).into_iter().flatten();
        let processes = processes.flatten().filter(|entry| {
            let name = entry.file_name();
            name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
        });
        Self {
            name: name.unwrap_or_else(|| "Linux".to_owned()),
            version: text(root, "proc/sys/kernel/osrelease").and_then(|r| three_numbers(&r)),
            booted,
            processes: u32::try_from(processes.count()).unwrap_or(u32::MAX),
        }
    }
}

/// The three numbers that a kernel's release begins with, as `6.1.0` in `6.1.0-35-amd64`;
/// a number that it leaves out is 0.
fn three_numbers(release: &str) -> Option<String> {
    let end = release.find(|c: char| c != '.' && !c.is_ascii_digit());
    let mut numbers = release[..end.unwrap_or(release.len())]
        .split('.')
        .map(|number| number.parse::<u32>().unwrap_or_default());
    let major = numbers.next().filter(|major| *major > 0)?;
    let (minor, patch) = (numbers.next(), numbers.next());
    let known = |number: Option<u32>| number.unwrap_or_default();
    Some(format!("{major}.{}.{}", known(minor), known(patch)))
}

impl Memory {
    fn read(root: &Path) -> Self {
        let memory = text(root, "proc/meminfo").unwrap_or_default();
        let kib = |name: &str| {
            let rest = memory.lines().find_map(|line| line.strip_prefix(name))?;
            rest.strip_prefix(':')?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        };
        Self {
            total: kib("MemTotal"),
            available: kib("MemAvailable"),
            swap: kib("SwapTotal"),
            swap_free: kib("SwapFree"),
        }
    }
}

/// The packages of processors, from what the kernel says of each processor in use.
fn packages(root: &Path) -> Vec<Package> {
    let told = text(root, "proc/cpuinfo").unwrap_or_default();
    let mut packages: Vec<(u32, BTreeSet<u32>, Package)> = Vec::new();
    for (index, told) in told.split("\n\n").enumerate() {
        let says = |name: &str| {
            told.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                (key.trim() == name).then(|| value.trim().to_owned())
            })
        };
        let number = |name: &str| says(name).and_then(|text| text.parse::<u32>().ok());
        // The last part of an ARM's tells of no processor.
        let Some(processor) = number("processor") else {
            continue;
        };
        let cpu = |file: &str| {
            let file = format!("sys/devices/system/cpu/cpu{processor}/{file}");
            text(root, &file)?.parse::<u32>().ok()
        };
        let place = cpu("topology/physical_package_id").or_else(|| number("physical id"));
        let core = cpu("topology/core_id").or_else(|| number("core id"));
        let (place, core) = (
            place.unwrap_or_default(),
            core.unwrap_or(u32::try_from(index).unwrap_or_default()),
        );
        let x86 = |name: &str| number(name).and_then(|number| u8::try_from(number).ok());
        let speed = says("cpu MHz").and_then(|text| text.split('.').next()?.parse().ok());
        let top_speed = cpu("cpufreq/cpuinfo_max_freq").map(|khz| khz / 1000);
        let known = packages.iter().position(|(other, _, _)| *other == place);
        let at = known.unwrap_or_else(|| {
            let package = Package {
                name: says("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
                vendor: says("vendor_id"),
                family: x86("cpu family"),
                model: x86("model"),
                stepping: x86("stepping"),
                speed,
                top_speed: top_speed.or(speed),
                ..Package::default()
            };
            packages.push((place, BTreeSet::new(), package));
            packages.len() - 1
        });
        let (_, cores, package) = &mut packages[at];
        cores.insert(core);
        package.logical += 1;
    }
    packages.sort_by_key(|(place, _, _)| *place);
    let counted = packages.into_iter().map(|(_, cores, package)| Package {
        cores: u32::try_from(cores.len()).unwrap_or(u32::MAX),
        ..package
    });
    counted.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_begins_with_a_version() {
        for (release, version) in [
            ("6.1.0-35-amd64", Some("6.1.0")),
            ("6.18.44-fc-v657", Some("6.18.44")),
            ("5.15.167.4-microsoft-standard-WSL2", Some("5.15.167")),
            ("6.12-rc1", Some("6.12.0")),
            ("7", Some("7.0.0")),
            ("generic", None),
            ("", None),
        ] {
            assert_eq!(three_numbers(release).as_deref(), version, "{release}");
        }
    }

    #[test]
    fn a_machine_id_is_not_told() {
        let id = "3d1219c7c4c5404aaa1f6d2a48adfda4";
        let made = of_machine_id(id).unwrap();
        assert_ne!(made.simple().to_string(), id);
        assert_eq!(of_machine_id(id), Some(made));
        let other = of_machine_id("4d1219c7c4c5404aaa1f6d2a48adfda4");
        assert_ne!(other, Some(made));
        assert_eq!(of_machine_id("uninitialized"), None);
    }

    /// The kernel of the host on which this runs, asked in another way.
    #[test]
    fn this_host_is_what_it_says_it_is() {
        let facts = Facts::read(Path::new("/"));
        let logical: u32 = facts.processors.iter().map(|p| p.logical).sum();
        assert!(logical > 0);
        for package in &facts.processors {
            assert!(package.cores > 0 && package.cores <= package.logical);
            assert!(!package.name.is_empty());
        }
        assert!(facts.memory.total > facts.memory.available);
        assert!(facts.system.processes > 0);
        let booted = facts.system.booted.unwrap();
        assert!(booted < OffsetDateTime::now_utc());
    }
}
