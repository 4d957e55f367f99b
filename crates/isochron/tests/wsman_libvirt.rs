//! What libvirt's Hyper-V driver does for each of virsh's verbs, as the messages that it
//! sends through openwsman, to the daemon with a machine. Debian's libvirt is built without
//! that driver: the messages are written after its sources and openwsman's, and virsh of
//! libvirt 9.0, built by hand with both, was tried with each verb. What is told of the host
//! is compared with what the host says itself.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::soap::{Connection, between};
use common::{Host, LIMIT};

const WMI: &str = "http://schemas.microsoft.com/wbem/wsman/1/wmi";
const ENUMERATION: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration";
const ADDRESSING: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing";
const WSMAN: &str = "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd";
const SERVICE: &str = "Msvm_VirtualSystemManagementService";

/// The namespace's URI in which the driver looks for a class.
fn namespace(class: &str) -> String {
    match class.starts_with("Msvm_") {
        true => format!("{WMI}/root/virtualization/v2"),
        false => format!("{WMI}/root/cimv2"),
    }
}

/// A virConnect.
struct Virsh {
    connection: Connection,
    sent: u32,
}

impl Virsh {
    fn new(host: &Host) -> Self {
        let headers = "Authorization: Basic YWRhOmFkYS13b3JkLTE=\r\nUser-Agent: Openwsman\r\n\
                       Accept: */*\r\n";
        Self {
            connection: Connection::new(host, headers),
            sent: 0,
        }
    }

    /// The content of the body that answers a message.
    fn send(&mut self, action: &str, resource: &str, selectors: &str, body: &str) -> String {
        self.sent += 1;
        let id = format!("uuid:2f0a9b4c-0000-1000-8000-{:012}", self.sent);
        let envelope = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" \
             xmlns:wsa=\"{ADDRESSING}\" xmlns:wsman=\"{WSMAN}\" xmlns:wsen=\"{ENUMERATION}\">\
             <s:Header><wsa:Action s:mustUnderstand=\"true\">{action}</wsa:Action>\
             <wsa:To s:mustUnderstand=\"true\">http://localhost:5985/wsman</wsa:To>\
             <wsman:ResourceURI s:mustUnderstand=\"true\">{resource}</wsman:ResourceURI>\
             <wsa:MessageID s:mustUnderstand=\"true\">{id}</wsa:MessageID>\
             <wsa:ReplyTo><wsa:Address>{ADDRESSING}/role/anonymous</wsa:Address></wsa:ReplyTo>\
             {selectors}</s:Header><s:Body>{body}</s:Body></s:Envelope>\n"
        );
        let (status, reply) = self.connection.post(&envelope);
        assert_eq!(status, 200, "{envelope}\n{reply}");
        assert!(reply.contains(&format!("RelatesTo>{id}<")), "{reply}");
        between(&reply, "<s:Body>", "</s:Body>").to_owned()
    }

    /// What a query finds: begun in the namespace, then pulled one by one from the class
    /// until nothing comes or nothing is left.
    fn query(&mut self, class: &str, query: &str) -> Vec<String> {
        let namespace = namespace(class);
        let resource = format!("{namespace}/{class}");
        let begun = self.enumerate(&format!("{namespace}/*"), "", query);
        let mut context = between(&begun, "<n:EnumerationContext>", "<").to_owned();
        let mut found = Vec::new();
        loop {
            let pulled = self.pull(&resource, &context);
            let items = between(&pulled, "<n:Items>", "</n:Items>");
            if items.is_empty() {
                break;
            }
            // Its element is of the class's own namespace.
            let start = format!("<p:{class} xmlns:p=\"{resource}\"");
            assert!(items.starts_with(&start), "{items}");
            assert_eq!(items.matches(&start).count(), 1, "{items}");
            found.push(items.to_owned());
            if pulled.contains("<n:EndOfSequence/>") {
                break;
            }
            context = between(&pulled, "<n:EnumerationContext>", "<").to_owned();
        }
        found
    }

    fn enumerate(&mut self, resource: &str, mode: &str, query: &str) -> String {
        let body = format!(
            "<wsen:Enumerate>{mode}<wsman:Filter \
             Dialect=\"http://schemas.microsoft.com/wbem/wsman/1/WQL\">{query}</wsman:Filter>\
             </wsen:Enumerate>"
        );
        self.send(&format!("{ENUMERATION}/Enumerate"), resource, "", &body)
    }

    fn pull(&mut self, resource: &str, context: &str) -> String {
        let body = format!(
            "<wsen:Pull><wsen:EnumerationContext>{context}</wsen:EnumerationContext></wsen:Pull>"
        );
        self.send(&format!("{ENUMERATION}/Pull"), resource, "", &body)
    }

    fn one(&mut self, class: &str, query: &str) -> String {
        let mut found = self.query(class, query);
        assert_eq!(found.len(), 1, "{query}: {found:?}");
        found.remove(0)
    }

    /// A domain by its UUID.
    fn domain(&mut self, uuid: &str) -> String {
        let query =
            format!("SELECT * FROM Msvm_ComputerSystem WHERE Name != __SERVER AND Name = '{uuid}'");
        self.one("Msvm_ComputerSystem", &query)
    }

    /// A method; its output, once its job has completed if there is one.
    fn invoke(&mut self, class: &str, selectors: &str, method: &str, input: &str) -> String {
        let resource = format!("{}/{class}", namespace(class));
        let selectors = format!("<wsman:SelectorSet>{selectors}</wsman:SelectorSet>");
        let body = format!("<p:{method}_INPUT xmlns:p=\"{resource}\">{input}</p:{method}_INPUT>");
        let action = format!("{resource}/{method}");
        let output = self.send(&action, &resource, &selectors, &body);
        let start = format!("<p:{method}_OUTPUT xmlns:p=\"{resource}\">");
        assert!(output.starts_with(&start), "{output}");
        match between(&output, "<p:ReturnValue>", "<") {
            "0" => return output,
            "4096" => {}
            other => panic!("{other}: {output}"),
        }
        let job = between(&output, "<w:Selector Name=\"InstanceID\">", "<");
        let query = format!("SELECT * FROM Msvm_ConcreteJob WHERE InstanceID = '{job}'");
        let began = Instant::now();
        loop {
            let job = self.one("Msvm_ConcreteJob", &query);
            match between(&job, "<p:JobState>", "<") {
                "7" => return output,
                "3" | "4" => std::thread::sleep(Duration::from_millis(100)),
                other => panic!("{other}: {job}"),
            }
            assert!(began.elapsed() < LIMIT);
        }
    }

    /// RequestStateChange of a domain, as suspend, resume, start, destroy and managedsave
    /// send it; the EnabledState that it has then.
    fn change(&mut self, uuid: &str, state: u16) -> String {
        let selectors = format!(
            "<wsman:Selector Name=\"Name\">{uuid}</wsman:Selector>\
             <wsman:Selector Name=\"CreationClassName\">Msvm_ComputerSystem</wsman:Selector>"
        );
        let input = format!("<p:RequestedState>{state}</p:RequestedState>");
        self.invoke(
            "Msvm_ComputerSystem",
            &selectors,
            "RequestStateChange",
            &input,
        );
        between(&self.domain(uuid), "<p:EnabledState>", "<").to_owned()
    }

    /// What the settings of a domain have of a class.
    fn parts(&mut self, settings: &str, class: &str) -> Vec<String> {
        let query = format!(
            "ASSOCIATORS OF {{Msvm_VirtualSystemSettingData.InstanceID='{settings}'}} WHERE \
             AssocClass = Msvm_VirtualSystemSettingDataComponent ResultClass = {class}"
        );
        self.query(class, &query)
    }
}

fn value<'a>(instance: &'a str, property: &str) -> &'a str {
    between(instance, &format!("<p:{property}>"), "<")
}

/// The text behind a name in one of the kernel's tables.
fn told(table: &str, name: &str) -> String {
    let table = std::fs::read_to_string(table).unwrap();
    let line = table.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim_matches([':', ' ', '\t']).to_owned()
}

/// What a command of this host prints.
fn printed(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn virshs_verbs_do_what_they_say() {
    let host = Host::closed("cimxml_https = \"off\"\nwsman_https = \"off\"\n", &[]);
    host.add_user("ada", "administrator", "ada-word-1");
    let image = host.path().join("web.qcow2");
    let path = image.to_str().unwrap();
    printed("qemu-img", &["create", "-q", "-f", "qcow2", path, "1M"]);
    let file = host.path().join("web.toml");
    let text = "name = \"web\"\naccel = \"tcg\"\nmemory_mib = 96\ncpus = 2\n\
                [[disks]]\npath = \"web.qcow2\"\n";
    std::fs::write(&file, text).unwrap();
    host.json(&["vm", "define", file.to_str().unwrap()]);
    let mut virsh = Virsh::new(&host);

    // To connect.
    let query = "SELECT * FROM Win32_ComputerSystemProduct ";
    let product = virsh.one("Win32_ComputerSystemProduct", query);
    let uuid = value(&product, "UUID").to_owned();
    let firmware = std::fs::read_to_string("/sys/class/dmi/id/product_uuid");
    let firmware = firmware.map(|uuid| uuid.trim().to_uppercase());
    assert_eq!(uuid, firmware.unwrap_or(uuid.clone()));
    assert!(uuid::Uuid::parse_str(&uuid).is_ok(), "{uuid}");
    let query = "SELECT * FROM Win32_OperatingSystem ";
    let system = virsh.one("Win32_OperatingSystem", query);
    // version: three numbers.
    let version = value(&system, "Version");
    let release = printed("uname", &["-r"]);
    let numbers: Vec<u32> = version.split('.').map(|n| n.parse().unwrap()).collect();
    assert_eq!(numbers.len(), 3, "{version}");
    let begins = format!("{}.{}", numbers[0], numbers[1]);
    assert!(release.starts_with(&begins), "{release} {version}");

    // hostname, nodeinfo, nodememstats
    let computer = virsh.one(
        "Win32_ComputerSystem",
        "SELECT * FROM Win32_ComputerSystem ",
    );
    let name = printed("uname", &["-n"]);
    assert_eq!(value(&computer, "DNSHostName"), name);
    let memory = told("/proc/meminfo", "MemTotal");
    let kib: u64 = memory.strip_suffix(" kB").unwrap().parse().unwrap();
    let bytes = (kib * 1024).to_string();
    assert_eq!(value(&computer, "TotalPhysicalMemory"), bytes);
    let free: u64 = value(&system, "FreePhysicalMemory").parse().unwrap();
    assert!(0 < free && free < kib);
    let query = format!(
        "ASSOCIATORS OF {{Win32_ComputerSystem.Name='{name}'}} WHERE AssocClass = \
         Win32_ComputerSystemProcessor ResultClass = Win32_Processor"
    );
    let packages = virsh.query("Win32_Processor", &query);
    let number = |text: &String, name| value(text, name).parse::<usize>().unwrap();
    let logical: usize = packages
        .iter()
        .map(|p| number(p, "NumberOfLogicalProcessors"))
        .sum();
    let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let processors = processors
        .lines()
        .filter(|line| line.starts_with("processor"));
    assert_eq!(logical, processors.count());
    for package in &packages {
        assert!(number(package, "NumberOfCores") > 0 && !value(package, "Name").is_empty());
    }

    // list --all, list, by name
    let all = "SELECT * FROM Msvm_ComputerSystem WHERE Name != __SERVER ";
    let active = "AND (EnabledState != 0 and EnabledState != 3 and EnabledState != 32769) ";
    let web = virsh.one("Msvm_ComputerSystem", all);
    assert_eq!(
        (value(&web, "ElementName"), value(&web, "EnabledState")),
        ("web", "3")
    );
    let uuid = value(&web, "Name").to_owned();
    assert_eq!(uuid, host.json(&["vm", "show", "web"])["id"]);
    let running = format!("{all}{active}");
    assert!(virsh.query("Msvm_ComputerSystem", &running).is_empty());
    let by_name = format!("{all}AND ElementName = 'web'");
    assert_eq!(virsh.one("Msvm_ComputerSystem", &by_name), web);

    // start; the id of a domain is its process.
    assert_eq!(virsh.change(&uuid, 2), "2");
    let web = virsh.one("Msvm_ComputerSystem", &running);
    let id = host.process("web").to_string();
    assert_eq!(value(&web, "ProcessID"), id);
    let by_id = format!("{all}AND ProcessID = {id}");
    assert_eq!(
        value(&virsh.one("Msvm_ComputerSystem", &by_id), "Name"),
        uuid
    );

    // dominfo, dumpxml
    let query = format!(
        "ASSOCIATORS OF {{Msvm_ComputerSystem.CreationClassName='Msvm_ComputerSystem',\
         Name='{uuid}'}} WHERE AssocClass = Msvm_SettingsDefineState ResultClass = \
         Msvm_VirtualSystemSettingData"
    );
    let settings = virsh.one("Msvm_VirtualSystemSettingData", &query);
    assert_eq!(value(&settings, "AutomaticStartupAction"), "2");
    let id = value(&settings, "InstanceID").to_owned();
    let [processors] = &virsh.parts(&id, "Msvm_ProcessorSettingData")[..] else {
        panic!()
    };
    assert_eq!(value(processors, "VirtualQuantity"), "2");
    let [memory] = &virsh.parts(&id, "Msvm_MemorySettingData")[..] else {
        panic!()
    };
    assert_eq!(
        (value(memory, "VirtualQuantity"), value(memory, "Limit")),
        ("96", "96")
    );
    let devices = virsh.parts(&id, "Msvm_ResourceAllocationSettingData");
    let [controller, drive] = &devices[..] else {
        panic!("{devices:?}")
    };
    assert_eq!(value(controller, "ResourceType"), "6");
    assert_eq!(
        (
            value(drive, "ResourceType"),
            value(drive, "AddressOnParent")
        ),
        ("17", "0")
    );
    // One that is there would be read as text, and there is none.
    assert!(!drive.contains("HostResource"), "{drive}");
    let disks = virsh.parts(&id, "Msvm_StorageAllocationSettingData");
    let [disk] = &disks[..] else {
        panic!("{disks:?}")
    };
    assert_eq!(value(disk, "HostResource"), path);
    // A parent's path ends with its InstanceID, as text.
    for (part, parent) in [(disk, drive), (drive, controller)] {
        let id = value(parent, "InstanceID").replace('\\', "\\\\");
        let path = value(part, "Parent").replace("&quot;", "\"");
        assert!(path.ends_with(&format!("{id}\"")), "{path}");
    }
    for class in [
        "Msvm_SerialPortSettingData",
        "Msvm_EthernetPortAllocationSettingData",
    ] {
        assert!(virsh.parts(&id, class).is_empty());
    }

    // suspend, resume (which virsh does where the state is 9), managedsave, start, destroy
    assert_eq!(virsh.change(&uuid, 9), "9");
    assert_eq!(host.power("web"), "paused");
    assert_eq!(virsh.change(&uuid, 2), "2");
    assert_eq!(virsh.change(&uuid, 6), "6");
    assert_eq!(host.power("web"), "saved");
    assert_eq!(virsh.change(&uuid, 2), "2");
    assert_eq!(virsh.change(&uuid, 3), "3");
    assert_eq!(host.power("web"), "off");

    // undefine: the domain's reference, pulled from the service's class, to a service of
    // which but one key is told.
    let service = format!("{}/{SERVICE}", namespace(SERVICE));
    let query = format!("SELECT * FROM Msvm_ComputerSystem WHERE Name = '{uuid}'");
    let mode = "<wsman:EnumerationMode>EnumerateEPR</wsman:EnumerationMode>";
    let begun = virsh.enumerate(&format!("{}/*", namespace(SERVICE)), mode, &query);
    let context = between(&begun, "<n:EnumerationContext>", "<");
    let pulled = virsh.pull(&service, context);
    let reference = between(&pulled, "<a:EndpointReference>", "</a:EndpointReference>");
    let input = format!(
        "<p:AffectedSystem xmlns:a=\"{ADDRESSING}\" xmlns:w=\"{WSMAN}\">{reference}\
         </p:AffectedSystem>"
    );
    let selector = format!("<wsman:Selector Name=\"CreationClassName\">{SERVICE}</wsman:Selector>");
    virsh.invoke(SERVICE, &selector, "DestroySystem", &input);
    assert!(virsh.query("Msvm_ComputerSystem", all).is_empty());
    host.close();
}
