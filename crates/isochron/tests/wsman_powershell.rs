//! A PowerShell session (docs/powershell.md) as the messages that its CIM cmdlets send:
//! every header that MI's client sends, on one connection, to the daemon with a machine.
//! They are written after MS-WSMV's examples; what is answered is compared to the letter,
//! but for what no two answers have in common.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::soap::{Connection, between};
use common::{Host, LIMIT};

const CLUSTER: &str = "root/HyperVCluster/v2";
const SCHEMA: &str = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2";
const TRANSFER: &str = "http://schemas.xmlsoap.org/ws/2004/09/transfer";
const ENUMERATION: &str = "http://schemas.xmlsoap.org/ws/2004/09/enumeration";
const ANONYMOUS: &str = "http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous";

/// A CimSession.
struct Session {
    connection: Connection,
    sent: u32,
}

impl Session {
    fn new(host: &Host) -> Self {
        let headers = "Connection: Keep-Alive\r\nUser-Agent: Microsoft WinRM Client\r\n";
        Self {
            connection: Connection::new(host, headers),
            sent: 0,
        }
    }

    /// Sends what a cmdlet sends; the content of the reply's body.
    fn cmdlet(&mut self, action: &str, resource: &str, selectors: &str, body: &str) -> String {
        self.sent += 1;
        let id = format!("uuid:7A0F5C1E-0000-4000-8000-{:012}", self.sent);
        let envelope = format!(
            "<s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" \
             xmlns:a=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\" \
             xmlns:n=\"{ENUMERATION}\" \
             xmlns:w=\"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd\" \
             xmlns:p=\"http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd\" \
             xmlns:b=\"http://schemas.dmtf.org/wbem/wsman/1/cimbinding.xsd\"><s:Header>\
             <a:To>http://localhost:5985/wsman</a:To>\
             <w:ResourceURI s:mustUnderstand=\"true\">{resource}</w:ResourceURI>\
             <a:ReplyTo><a:Address s:mustUnderstand=\"true\">{ANONYMOUS}</a:Address></a:ReplyTo>\
             <a:Action s:mustUnderstand=\"true\">{action}</a:Action>\
             <w:MaxEnvelopeSize s:mustUnderstand=\"true\">512000</w:MaxEnvelopeSize>\
             <a:MessageID>{id}</a:MessageID>\
             <w:Locale xml:lang=\"en-US\" s:mustUnderstand=\"false\" />\
             <p:DataLocale xml:lang=\"en-US\" s:mustUnderstand=\"false\" />\
             <p:SessionId s:mustUnderstand=\"false\">uuid:91A8C559-0000-4000-8000-000000000001\
             </p:SessionId>\
             <p:OperationID s:mustUnderstand=\"false\">uuid:F524DB49-0000-4000-8000-000000000001\
             </p:OperationID><p:SequenceId s:mustUnderstand=\"false\">1</p:SequenceId>\
             <w:SelectorSet><w:Selector Name=\"__cimnamespace\">{CLUSTER}</w:Selector>{selectors}\
             </w:SelectorSet>\
             <w:OptionSet xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\">\
             <w:Option Name=\"__MI_CallbackRegistration\" Type=\"xs:int\">11</w:Option>\
             <w:Option Name=\"wmiarray:__MI_OPERATIONOPTIONS_CHANNELVALUE\" \
             Type=\"xs:unsignedInt\">0</w:Option>\
             <w:Option Name=\"wmiarray:__MI_OPERATIONOPTIONS_CHANNELVALUE\" \
             Type=\"xs:unsignedInt\">1</w:Option>\
             <w:Option Name=\"wmi:__MI_OPERATIONOPTIONS_WRITEERRORMODE\" \
             Type=\"xs:unsignedInt\">1</w:Option>\
             <w:Option Name=\"msftwinrm:UsePreciseArrays\" Type=\"xs:boolean\">true</w:Option>\
             </w:OptionSet><w:OperationTimeout>PT60.000S</w:OperationTimeout></s:Header>\
             <s:Body>{body}</s:Body></s:Envelope>"
        );
        let (status, reply) = self.connection.post(&envelope);
        assert_eq!(status, 200, "{envelope}\n{reply}");
        let relates = format!("<a:RelatesTo>{id}</a:RelatesTo>");
        assert!(reply.contains(&relates), "{reply}");
        let said = format!("<a:Action>{action}Response</a:Action>");
        assert!(reply.contains(&said), "{reply}");
        between(&reply, "<s:Body>", "</s:Body>").to_owned()
    }

    fn enumerate(&mut self, resource: &str, body: &str) -> String {
        let body = format!(
            "<n:Enumerate><w:OptimizeEnumeration/><w:MaxElements>32000</w:MaxElements>{body}\
             </n:Enumerate>"
        );
        let found = self.cmdlet(&format!("{ENUMERATION}/Enumerate"), resource, "", &body);
        assert!(
            found.ends_with("<w:EndOfSequence/></n:EnumerateResponse>"),
            "{found}"
        );
        between(&found, "<w:Items>", "</w:Items>").to_owned()
    }

    fn invoke(&mut self, class: &str, method: &str, input: &str) -> String {
        let uri = format!("{SCHEMA}/{class}");
        let body = format!("<r:{method}_INPUT xmlns:r=\"{uri}\">{input}</r:{method}_INPUT>");
        self.cmdlet(&format!("{uri}/{method}"), &uri, "", &body)
    }

    /// Follows the job of a method's output until it has completed.
    fn completed(&mut self, output: &str, class: &str, method: &str, before_job: &str) {
        let id = between(output, "<w:Selector Name=\"InstanceID\">", "<").to_owned();
        let expected = format!(
            "<p:{method}_OUTPUT xmlns:p=\"{SCHEMA}/{class}\">{before_job}<p:Job>{}</p:Job>\
             <p:ReturnValue>4096</p:ReturnValue></p:{method}_OUTPUT>",
            reference("Msvm_ConcreteJob", "InstanceID", &id)
        );
        assert_eq!(output, expected);
        let began = Instant::now();
        loop {
            let job = self.cmdlet(
                &format!("{TRANSFER}/Get"),
                &format!("{SCHEMA}/Msvm_ConcreteJob"),
                &format!("<w:Selector Name=\"InstanceID\">{id}</w:Selector>"),
                "",
            );
            match between(&job, "<p:JobState>", "<") {
                "7" => return,
                "3" | "4" => std::thread::sleep(Duration::from_millis(50)),
                other => panic!("{other}: {job}"),
            }
            assert!(began.elapsed() < LIMIT);
        }
    }
}

/// The content of an endpoint reference, as both sides write it.
fn reference(class: &str, key: &str, value: &str) -> String {
    format!(
        "<a:Address>http://localhost:5985/wsman</a:Address><a:ReferenceParameters>\
         <w:ResourceURI>{SCHEMA}/{class}</w:ResourceURI><w:SelectorSet>\
         <w:Selector Name=\"__cimnamespace\">{CLUSTER}</w:Selector>\
         <w:Selector Name=\"{key}\">{value}</w:Selector></w:SelectorSet>\
         </a:ReferenceParameters>"
    )
}

#[test]
fn a_session_of_cim_cmdlets_does_the_main_job() {
    let host = Host::start();
    let image = host.path().join("web.qcow2");
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(&image)
        .arg("1M")
        .status();
    assert!(made.unwrap().success());
    let file = host.path().join("web.toml");
    let text = "name = \"web\"\naccel = \"tcg\"\n[[disks]]\npath = \"web.qcow2\"\n";
    std::fs::write(&file, text).unwrap();
    host.json(&["vm", "define", file.to_str().unwrap()]);
    let mut session = Session::new(&host);

    // Test-WSMan
    let identify = "<s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" \
        xmlns:wsmid=\"http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd\">\
        <s:Header/><s:Body><wsmid:Identify/></s:Body></s:Envelope>";
    let (status, reply) = session.connection.post(identify);
    assert_eq!(status, 200);
    assert!(reply.contains("<wsmid:ProductVendor>Isochron<"), "{reply}");

    // Get-CimClass Msvm_CollectionSnapshotService
    let class = session.cmdlet(
        &format!("{TRANSFER}/Get"),
        "http://schemas.dmtf.org/wbem/cim-xml/2/cim-schema/2/*",
        "<w:Selector Name=\"ClassName\">Msvm_CollectionSnapshotService</w:Selector>",
        "",
    );
    assert!(
        class.starts_with("<CLASS NAME=\"Msvm_CollectionSnapshotService\""),
        "{class}"
    );
    assert!(
        class.contains("<METHOD NAME=\"CreateSnapshot\" TYPE=\"uint32\""),
        "{class}"
    );

    // Invoke-CimMethod -ClassName Msvm_CollectionManagementService DefineCollection
    let manager = "Msvm_CollectionManagementService";
    let input = "<r:Name>shop</r:Name><r:Type>0</r:Type>";
    let defined = session.invoke(manager, "DefineCollection", input);
    let collection = between(&defined, "<w:Selector Name=\"CollectionID\">", "<").to_owned();
    let epr = reference("Msvm_VirtualSystemCollection", "CollectionID", &collection);
    let expected = format!(
        "<p:DefineCollection_OUTPUT xmlns:p=\"{SCHEMA}/{manager}\">\
         <p:DefinedCollection>{epr}</p:DefinedCollection><p:Job xsi:nil=\"true\"/>\
         <p:ReturnValue>0</p:ReturnValue></p:DefineCollection_OUTPUT>"
    );
    assert_eq!(defined, expected);

    // Get-CimInstance -Query, and AddMember with the instance that came: MI sends whole
    // instances where a reference is declared.
    let filter = "<w:Filter Dialect=\"http://schemas.microsoft.com/wbem/wsman/1/WQL\">\
        select * from Msvm_ComputerSystem where ElementName = 'web'</w:Filter>";
    let all = "http://schemas.dmtf.org/wbem/wscim/1/*";
    let found = session.enumerate(all, filter);
    let start = format!(
        "<p:Msvm_ComputerSystem xmlns:p=\"{SCHEMA}/Msvm_ComputerSystem\" \
         xsi:type=\"p:Msvm_ComputerSystem_Type\">"
    );
    assert!(found.starts_with(&start), "{found}");
    assert!(
        found.contains("<p:EnabledState>3</p:EnabledState>"),
        "{found}"
    );
    let name = between(&found, "<p:Name>", "<");
    let input = format!(
        "<r:Member xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
         xmlns:i=\"{SCHEMA}/Msvm_ComputerSystem\" xsi:type=\"i:Msvm_ComputerSystem_Type\">\
         <i:CreationClassName>Msvm_ComputerSystem</i:CreationClassName><i:Name>{name}</i:Name>\
         </r:Member><r:Collection>{epr}</r:Collection>"
    );
    let added = session.invoke(manager, "AddMember", &input);
    assert!(
        added.contains("<p:ReturnValue>0</p:ReturnValue>"),
        "{added}"
    );

    // Register-CimIndicationEvent, by a subscription whose events are pulled.
    let eventing = "http://schemas.xmlsoap.org/ws/2004/08/eventing";
    let query = "select * from __InstanceModificationEvent within 1 \
        where TargetInstance isa 'Msvm_ConcreteJob' and TargetInstance.JobState = 7";
    let subscribe = format!(
        "<e:Subscribe xmlns:e=\"{eventing}\">\
         <e:Delivery Mode=\"http://schemas.dmtf.org/wbem/wsman/1/wsman/Pull\"/>\
         <e:Expires>PT10M</e:Expires>\
         <w:Filter Dialect=\"http://schemas.microsoft.com/wbem/wsman/1/WQL\">{query}</w:Filter>\
         </e:Subscribe>"
    );
    let subscribed = session.cmdlet(&format!("{eventing}/Subscribe"), all, "", &subscribe);
    let context = between(&subscribed, "<n:EnumerationContext>", "<").to_owned();

    // Invoke-CimMethod -ClassName Msvm_CollectionSnapshotService CreateSnapshot: settings
    // as the MI serializer writes them, or none.
    let service = "Msvm_CollectionSnapshotService";
    let settings = "&lt;INSTANCE CLASSNAME=\"Msvm_VirtualSystemSnapshotSettingData\"&gt;\
        &lt;PROPERTY NAME=\"ElementName\" TYPE=\"string\" MODIFIED=\"TRUE\"&gt;\
        &lt;VALUE&gt;before&lt;/VALUE&gt;&lt;/PROPERTY&gt;&lt;/INSTANCE&gt;";
    let input = format!(
        "<r:Collection>{epr}</r:Collection><r:SnapshotSettings>{settings}</r:SnapshotSettings>\
         <r:SnapshotType>2</r:SnapshotType>"
    );
    let created = session.invoke(service, "CreateSnapshot", &input);
    let snapshot = between(&created, "<w:Selector Name=\"CollectionID\">", "<").to_owned();
    let snapshot = reference("Msvm_SnapshotCollection", "CollectionID", &snapshot);
    let result =
        format!("<p:ResultingSnapshotCollection>{snapshot}</p:ResultingSnapshotCollection>");
    session.completed(&created, service, "CreateSnapshot", &result);
    let pull = format!("<n:Pull><n:EnumerationContext>{context}</n:EnumerationContext></n:Pull>");
    let event = session.cmdlet(&format!("{ENUMERATION}/Pull"), all, "", &pull);
    let job = between(&created, "<w:Selector Name=\"InstanceID\">", "<");
    for part in [
        "xsi:type=\"p:__InstanceModificationEvent_Type\">",
        "xsi:type=\"p0:Msvm_ConcreteJob_Type\">",
        "<p0:JobState>7</p0:JobState>",
        &format!("<p0:InstanceID>{job}</p0:InstanceID>"),
    ] {
        assert!(event.contains(part), "{part}\n{event}");
    }

    // Get-CimAssociatedInstance $shop -ResultClassName Msvm_SnapshotCollection
    let filter = format!(
        "<w:Filter Dialect=\"http://schemas.dmtf.org/wbem/wsman/1/cimbinding/associationFilter\">\
         <b:AssociatedInstances><b:Object>{epr}</b:Object>\
         <b:ResultClassName>Msvm_SnapshotCollection</b:ResultClassName>\
         </b:AssociatedInstances></w:Filter>"
    );
    let found = session.enumerate(all, &filter);
    assert_eq!(
        found.matches("<p:Msvm_SnapshotCollection ").count(),
        1,
        "{found}"
    );
    assert!(
        found.contains("<p:ElementName>before</p:ElementName>"),
        "{found}"
    );

    // Apply, destroy.
    let input = format!("<r:SnapshotCollection>{snapshot}</r:SnapshotCollection>");
    let applied = session.invoke(service, "ApplySnapshot", &input);
    session.completed(&applied, service, "ApplySnapshot", "");
    let input = format!("<r:AffectedSnapshotCollection>{snapshot}</r:AffectedSnapshotCollection>");
    let destroyed = session.invoke(service, "DestroySnapshot", &input);
    session.completed(&destroyed, service, "DestroySnapshot", "");
    assert_eq!(
        session.enumerate(&format!("{SCHEMA}/Msvm_SnapshotCollection"), ""),
        ""
    );
    host.close();
}
