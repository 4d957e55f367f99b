//! What libvirt's Hyper-V driver asks and reads: `libvirt.txt` holds the properties as
//! facts; the queries are here. Of the host, the answers are those of files that a kernel
//! and a distribution would write.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, dead_code)]

mod world;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;
use isochron_cim::query::Query;
use isochron_cim::{CimServer, Instance, Name, ObjectPath, Value};
use isochron_sim::World;
use tempfile::TempDir;
use world::{Client, HOST, Setup, VIRTUALIZATION, number, text};

const CIMV2: &str = "root/cimv2";

/// Two packages of two cores of two threads, and what else a host says of itself.
fn describe(root: &Path, firmware: bool) {
    let write = |file: &str, text: &str| {
        let file = root.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    };
    write("etc/machine-id", "3d1219c7c4c5404aaa1f6d2a48adfda4\n");
    write(
        "usr/lib/os-release",
        "NAME=\"Debian GNU/Linux\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n",
    );
    write("proc/sys/kernel/osrelease", "6.1.0-35-amd64\n");
    write("proc/stat", "cpu  1 2 3\nintr 4\nbtime 1796000000\n");
    write("proc/1/comm", "init\n");
    write("proc/4711/comm", "qemu\n");
    write(
        "proc/meminfo",
        "MemTotal:       32768000 kB\nMemFree:         1000000 kB\nMemAvailable:   20000000 kB\n\
         SwapTotal:       4000000 kB\nSwapFree:        3000000 kB\n",
    );
    let mut cpuinfo = String::new();
    for processor in 0..8 {
        let (package, core) = (processor / 2 % 2, processor / 4);
        cpuinfo.push_str(&format!(
            "processor\t: {processor}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\n\
             model\t\t: 207\nmodel name\t: Intel(R) Xeon(R) Gold 6548Y+\nstepping\t: 2\n\
             cpu MHz\t\t: 2500.125\nphysical id\t: {package}\ncore id\t\t: {core}\n\n"
        ));
    }
    write("proc/cpuinfo", &cpuinfo);
    write(
        "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq",
        "4100000\n",
    );
    if firmware {
        write("sys/class/dmi/id/sys_vendor", "Example Computers\n");
        write("sys/class/dmi/id/product_name", "Model 5\n");
        write("sys/class/dmi/id/product_version", "\n");
        write("sys/class/dmi/id/product_serial", "EX-42\n");
        write(
            "sys/class/dmi/id/product_uuid",
            "0a1b2c3d-1111-4222-8333-444455556666\n",
        );
    }
}

/// A server on a host that these files describe.
struct Hosted {
    setup: Setup,
    _root: TempDir,
    server: Client,
}

async fn hosted(firmware: bool) -> Hosted {
    let root = TempDir::new().unwrap();
    describe(root.path(), firmware);
    let setup = Setup::new().await;
    let server = Client::described(setup.engine.clone(), CIMV2, root.path());
    Hosted {
        setup,
        _root: root,
        server,
    }
}

async fn ask(client: &Client, query: &str) -> Vec<Instance> {
    let query = Query::parse("WQL", query).unwrap();
    let server: Arc<dyn CimServer> = Arc::new(client.server.clone());
    let found = query.run(server, &client.cx).await.unwrap();
    found.try_collect().await.unwrap()
}

async fn one(client: &Client, query: &str) -> Instance {
    let mut found = ask(client, query).await;
    assert_eq!(found.len(), 1, "{query}");
    found.remove(0)
}

#[tokio::test]
async fn every_property_that_it_reads_is_there() {
    let hosted = hosted(true).await;
    let facts = include_str!("libvirt.txt").replace(",\n    ", ", ");
    let (mut class, mut properties) = (None, 0);
    let lines = facts
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in lines {
        let Some(line) = line.strip_prefix("  ") else {
            let namespace = match line.starts_with("Win32_") {
                true => CIMV2,
                false => VIRTUALIZATION,
            };
            let client = hosted.server.at(namespace);
            let name = Name::from(line);
            class = Some(client.server.get_class(&client.cx, &name).await.unwrap());
            continue;
        };
        let class = class.as_ref().unwrap();
        let (ty, names) = line.split_once(' ').unwrap();
        for name in names.split(", ") {
            let found = class.properties.get(&Name::from(name));
            let found = &found
                .unwrap_or_else(|| panic!("{}.{name}", class.name))
                .value;
            let array = if found.is_array { "[]" } else { "" };
            let found = format!("{}{array}", found.ty.name());
            assert_eq!(found, ty, "{}.{name}", class.name);
            properties += 1;
        }
    }
    assert!(properties > 300, "{properties}");
}

#[tokio::test]
async fn the_host_is_what_its_files_say() {
    let hosted = hosted(true).await;
    let client = &hosted.server;
    let product = one(client, "SELECT * FROM Win32_ComputerSystemProduct ").await;
    assert_eq!(
        text(&product, "UUID"),
        "0A1B2C3D-1111-4222-8333-444455556666"
    );
    assert_eq!(text(&product, "Name"), "Model 5");
    assert_eq!(text(&product, "IdentifyingNumber"), "EX-42");
    assert_eq!(product.get("Version"), Some(&"".into()));

    let system = one(client, "SELECT * FROM Win32_OperatingSystem ").await;
    assert_eq!(text(&system, "Version"), "6.1.0");
    assert_eq!(text(&system, "Caption"), "Debian GNU/Linux 12 (bookworm)");
    assert_eq!(number(&system, "OSType"), 36);
    assert_eq!(number(&system, "FreePhysicalMemory"), 20_000_000);
    assert_eq!(number(&system, "TotalVirtualMemorySize"), 36_768_000);
    assert_eq!(number(&system, "FreeVirtualMemory"), 23_000_000);
    assert_eq!(number(&system, "NumberOfProcesses"), 2);
    let Some(Value::DateTime(booted)) = system.get("LastBootUpTime") else {
        panic!()
    };
    let booted = booted.as_offset_date_time().unwrap();
    assert_eq!(booted.unix_timestamp(), 1_796_000_000);
    assert_eq!(system.get("SystemDirectory"), None);

    let host = one(client, "SELECT * FROM Win32_ComputerSystem ").await;
    assert_eq!(text(&host, "DNSHostName"), HOST);
    assert_eq!(text(&host, "Manufacturer"), "Example Computers");
    assert_eq!(number(&host, "TotalPhysicalMemory"), 32_768_000 << 10);
    assert_eq!(number(&host, "NumberOfProcessors"), 2);
    assert_eq!(number(&host, "NumberOfLogicalProcessors"), 8);

    let query = format!(
        "ASSOCIATORS OF {{Win32_ComputerSystem.Name='{}'}} WHERE AssocClass = \
         Win32_ComputerSystemProcessor ResultClass = Win32_Processor",
        text(&host, "Name")
    );
    let packages = ask(client, &query).await;
    assert_eq!(packages.len(), 2);
    for (index, package) in packages.iter().enumerate() {
        assert_eq!(text(package, "DeviceID"), format!("CPU{index}"));
        assert_eq!(text(package, "Name"), "Intel(R) Xeon(R) Gold 6548Y+");
        assert_eq!(number(package, "NumberOfCores"), 2);
        assert_eq!(number(package, "NumberOfLogicalProcessors"), 4);
        assert_eq!(number(package, "CurrentClockSpeed"), 2500);
        assert_eq!(number(package, "Revision"), 207 << 8 | 2);
    }
    assert_eq!(number(&packages[0], "MaxClockSpeed"), 4100);
    for class in ["CIM_ManagedSystemElement", "CIM_Product", "CIM_Component"] {
        for instance in client.all(class).await {
            let path = instance.path.unwrap();
            assert_eq!(path.namespace.as_deref(), Some(CIMV2));
            assert_eq!(client.get(&path).await.unwrap().path, Some(path));
        }
    }
}

#[tokio::test]
async fn a_host_without_firmware_has_a_uuid_all_the_same() {
    let hosted = hosted(false).await;
    let client = &hosted.server;
    let query = "SELECT * FROM Win32_ComputerSystemProduct";
    let (product, again) = (one(client, query).await, one(client, query).await);
    assert_eq!(product, again);
    let uuid: uuid::Uuid = text(&product, "UUID").parse().unwrap();
    assert_ne!(
        uuid.simple().to_string(),
        "3d1219c7c4c5404aaa1f6d2a48adfda4"
    );
    assert_eq!(product.get("Vendor"), None);
    let path = product.path.unwrap();
    assert_eq!(path.key_str("Name"), Some(""));
    assert_eq!(client.get(&path).await.unwrap().path, Some(path));
}

#[tokio::test(start_paused = true)]
async fn a_machine_is_what_it_is_made_of() {
    let hosted = hosted(true).await;
    let client = &hosted.server.at(VIRTUALIZATION);
    let world: &World = &hosted.setup.world;
    let definition = world.definition("web", &["root", "data"]);
    let web = hosted.setup.engine.define_machine(definition.clone()).await;
    let web = web.unwrap().id;
    let db = hosted.setup.running("db").await;

    // Its machines, without the host.
    let machines = "SELECT * FROM Msvm_ComputerSystem WHERE Name != __SERVER ";
    assert_eq!(ask(client, machines).await.len(), 2);
    let active = "AND (EnabledState != 0 and EnabledState != 3 and EnabledState != 32769) ";
    let running = one(client, &format!("{machines}{active}")).await;
    assert_eq!(text(&running, "Name"), db.to_string());
    let inactive = "AND (EnabledState = 0 or EnabledState = 3 or EnabledState = 32769) ";
    let off = one(client, &format!("{machines}{inactive}")).await;
    assert_eq!(text(&off, "ElementName"), "web");
    let by_name = one(client, &format!("{machines}AND Name = '{web}'")).await;
    assert_eq!(by_name, off);
    let here = "SELECT * FROM Msvm_ComputerSystem WHERE Name = __SERVER";
    assert_eq!(text(&one(client, here).await, "Name"), HOST);

    let settings = format!(
        "ASSOCIATORS OF {{Msvm_ComputerSystem.CreationClassName='Msvm_ComputerSystem',Name='{web}'}} \
         WHERE AssocClass = Msvm_SettingsDefineState ResultClass = Msvm_VirtualSystemSettingData"
    );
    let settings = one(client, &settings).await;
    let of = |class: &str| {
        format!(
            "ASSOCIATORS OF {{Msvm_VirtualSystemSettingData.InstanceID='{}'}} WHERE AssocClass = \
             Msvm_VirtualSystemSettingDataComponent ResultClass = {class}",
            text(&settings, "InstanceID")
        )
    };
    let processors = one(client, &of("Msvm_ProcessorSettingData")).await;
    assert_eq!(
        number(&processors, "VirtualQuantity"),
        u64::from(definition.cpus)
    );
    let memory = one(client, &of("Msvm_MemorySettingData")).await;
    assert_eq!(number(&memory, "VirtualQuantity"), definition.memory_mib);
    assert_eq!(number(&memory, "Limit"), definition.memory_mib);

    let devices = ask(client, &of("Msvm_ResourceAllocationSettingData")).await;
    let kinds: Vec<_> = devices.iter().map(|d| number(d, "ResourceType")).collect();
    assert_eq!(kinds, [6, 17, 17]);
    let disks = ask(client, &of("Msvm_StorageAllocationSettingData")).await;
    assert_eq!(disks.len(), 2);
    for (index, disk) in disks.iter().enumerate() {
        let parent =
            |instance: &Instance| -> ObjectPath { text(instance, "Parent").parse().unwrap() };
        let drive = client.get(&parent(disk)).await.unwrap();
        assert_eq!(drive, devices[index + 1]);
        assert_eq!(text(&drive, "AddressOnParent"), index.to_string());
        assert_eq!(drive.get("HostResource"), Some(&Value::Array(Vec::new())));
        let controller = client.get(&parent(&drive)).await.unwrap();
        assert_eq!(controller, devices[0]);
        let image = Some(&definition.disks[index].path);
        let Some(Value::Array(resources)) = disk.get("HostResource") else {
            panic!()
        };
        let resource = resources[0].as_ref().and_then(Value::as_str);
        assert_eq!(resource, image.and_then(|path| path.to_str()));
        assert_eq!(number(disk, "Access"), 3);
    }
    for class in [
        "Msvm_SerialPortSettingData",
        "Msvm_EthernetPortAllocationSettingData",
    ] {
        assert!(ask(client, &of(class)).await.is_empty());
    }
    // Back from a part to the whole.
    let whole = Some("Msvm_VirtualSystemSettingDataComponent");
    let path = memory.path.unwrap();
    let whole = client.associators(&path, whole, None).await;
    assert_eq!(whole, [settings]);
}
