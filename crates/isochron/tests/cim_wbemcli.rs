//! The main job by another third-party client: sblim's wbemcli, which reads a class
//! before it calls its methods and sends parameters by the types that it found.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Host, LIMIT, one_instant};
use isochron_lab::clients;
use isochron_lab::kit::Kit;
use isochron_lab::ring::{Options, Ring};

/// wbemcli sends values as they are, without escaping markup: CDATA it is.
const SETTINGS: &str = "<![CDATA[<INSTANCE CLASSNAME='Msvm_VirtualSystemSnapshotSettingData'>\
    <PROPERTY NAME='ElementName' TYPE='string'><VALUE>by wbemcli</VALUE></PROPERTY></INSTANCE>]]>";

#[test]
fn wbemcli_takes_applies_and_destroys_a_snapshot_of_a_ring() {
    let host = Host::start();
    host.add_user("user", "administrator", "password");
    let directory = host.directory("ring");
    let options = Options {
        count: 2,
        ..Options::default()
    };
    let ring = Ring::create(&Kit::load().unwrap(), &directory, &options).unwrap();
    host.start_ring(&ring);
    let files = host.files();
    let cim = Wbemcli {
        server: host.cimxml.strip_prefix("http://").unwrap().to_owned(),
    };

    // Classes.
    let names = cim.run(&["ecn", "-nl", &cim.url("")]);
    assert!(names.contains(":CIM_Service"), "{names}");
    let class = cim.run(&["gc", "-nl", "-t", &cim.url(":Msvm_VirtualSystemCollection")]);
    assert!(class.contains("CollectionID#"), "{class}");
    assert!(
        cim.refused(&["gc", &cim.url(":Msvm_Nothing")])
            .contains("NOT_FOUND")
    );

    // A collection.
    let manage = cim.only("Msvm_CollectionManagementService");
    let snapshots = cim.only("Msvm_CollectionSnapshotService");
    let (code, out) = cim.call(&manage, "DefineCollection.Name=\"pair\",Type=0");
    assert_eq!((code, out.len()), (0, 1), "{out:?}");
    let collection = out[0].1.clone();
    for machine in cim.lines(&["ein", &cim.url(":Msvm_ComputerSystem")]) {
        let shown = cim.run(&["gi", "-nl", &cim.at(&machine), "Caption,ElementName"]);
        if shown.contains("\"Virtual Machine\"") {
            let call = format!("AddMember.Collection={collection},Member={machine}");
            assert_eq!(cim.call(&manage, &call).0, 0);
        }
    }
    let members = cim.run(&[
        "ai",
        "-nl",
        "-ac",
        "Msvm_CollectedVirtualSystems",
        &cim.at(&collection),
        "ElementName",
    ]);
    assert!(
        members.contains("\"ring-0\"") && members.contains("\"ring-1\""),
        "{members}"
    );

    // Snapshots: under way as a job that is read by its path, then found through it.
    let mut taken = Vec::new();
    for (kind, settings) in [
        (1, format!(",SnapshotSettings=\"{SETTINGS}\"")),
        (2, String::new()),
    ] {
        let call = format!("CreateSnapshot.Collection={collection},SnapshotType={kind}{settings}");
        let out = cim.started(&snapshots, &call);
        let made = cim.lines(&[
            "ain",
            "-ac",
            "Msvm_AffectedJobElement",
            &cim.at(&out["Job"]),
        ]);
        assert_eq!(made.len(), 1, "{made:?}");
        assert_eq!(made[0], out["ResultingSnapshotCollection"]);
        taken.push(out["ResultingSnapshotCollection"].clone());
        let id = taken.last().unwrap().split('"').nth(1).unwrap();
        one_instant(&ring.members, &host.json(&["snapshot", "show", id]));
    }
    let listed = cim.run(&["ei", "-nl", &cim.url(":Msvm_SnapshotCollection")]);
    assert_eq!(listed.matches("-CollectionID=").count(), 2, "{listed}");
    let shown = cim.run(&["gi", "-nl", &cim.at(&taken[0])]);
    assert!(
        shown.contains("ElementName=\"by wbemcli\"") && shown.contains("Standard"),
        "{shown}"
    );
    let of = ["rin", "-arc", "Msvm_SnapshotOfVirtualSystemCollection"];
    assert_eq!(
        cim.lines(&[&of[..], &[&cim.at(&collection)]].concat())
            .len(),
        2
    );
    let settings = cim.run(&[
        "ai",
        "-nl",
        "-ac",
        "Msvm_CollectedSnapshots",
        &cim.at(&taken[0]),
    ]);
    assert_eq!(
        settings.matches("Snapshot:Realized").count(),
        2,
        "{settings}"
    );
    let links = cim.run(&[
        "ri",
        "-nl",
        "-arc",
        "Msvm_CollectedSnapshots",
        &cim.at(&taken[0]),
    ]);
    assert_eq!(links.matches("-Member=").count(), 2, "{links}");

    // A refusal, with its sentence.
    let call = format!("CreateSnapshot.Collection={collection},SnapshotType=0");
    let (code, out) = cim.call(&snapshots, &call);
    assert_eq!(code, 6);
    let job = cim.run(&[
        "gi",
        "-nl",
        &cim.at(&out[0].1),
        "ErrorDescription,ErrorCode,JobState",
    ]);
    assert!(
        job.contains("ErrorCode=6") && job.contains("SnapshotType 0"),
        "{job}"
    );
    let error = cim.run(&["cm", &cim.at(&out[0].1), "GetErrorEx"]);
    assert!(error.contains("SnapshotType 0"), "{error}");

    // Back to the first, and all gone.
    cim.started(
        &snapshots,
        &format!("ApplySnapshot.SnapshotCollection={}", taken[0]),
    );
    ring.wait_progress(5, LIMIT).unwrap();
    for snapshot in &taken {
        let call = format!("DestroySnapshot.AffectedSnapshotCollection={snapshot}");
        cim.started(&snapshots, &call);
        assert!(
            cim.refused(&["gi", &cim.at(snapshot)])
                .contains("NOT_FOUND")
        );
    }
    host.files_become(&files);
    let call = format!("DestroyCollection.Collection={collection}");
    assert_eq!(cim.call(&manage, &call).0, 0);
    ring.wait_progress(5, LIMIT).unwrap();
    host.close();
}

/// The client, and whom it talks to.
struct Wbemcli {
    server: String,
}

impl Wbemcli {
    fn url(&self, class: &str) -> String {
        self.at(&format!("root/HyperVCluster/v2{class}"))
    }

    /// The URL of a path that it printed, with or without host.
    fn at(&self, path: &str) -> String {
        let path = path
            .strip_prefix(&format!("{}/", self.server))
            .unwrap_or(path);
        format!("http://user:password@{}/{path}", self.server)
    }

    /// What it prints; it must succeed.
    fn run(&self, arguments: &[&str]) -> String {
        let (success, said) = self.say(arguments);
        assert!(success, "wbemcli {arguments:?}: {said}");
        said
    }

    fn refused(&self, arguments: &[&str]) -> String {
        let (success, said) = self.say(arguments);
        assert!(!success, "wbemcli {arguments:?}: {said}");
        said
    }

    fn say(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(clients::wbemcli().unwrap())
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        (output.status.success(), said)
    }

    /// The paths that it prints, one a line.
    fn lines(&self, arguments: &[&str]) -> Vec<String> {
        let printed = self.run(arguments);
        let lines = printed.lines().map(str::trim);
        lines
            .filter(|line| !line.is_empty())
            .map(str::to_owned)
            .collect()
    }

    /// The path of the one instance of a class.
    fn only(&self, class: &str) -> String {
        let found = self.lines(&["ein", &self.url(&format!(":{class}"))]);
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    }

    /// Calls a method: the return value, and references that came back with it, which
    /// it prints as `Method: 0, Name (reference): PATH, ...`.
    fn call(&self, object: &str, call: &str) -> (u32, Vec<(String, String)>) {
        let printed = self.run(&["cm", &self.at(object), call]);
        let method = call.split('.').next().unwrap();
        let (_, answer) = printed.split_once(&format!(" {method}: ")).unwrap();
        let mut parts = answer.trim().split(", ");
        let code = parts.next().unwrap().parse().unwrap();
        let out = parts.map(|part| {
            let (name, path) = part.split_once(" (reference): ").unwrap();
            // It takes paths as parameters with a host only.
            (name.to_owned(), format!("{}/{path}", self.server))
        });
        (code, out.collect())
    }

    /// Calls a method that starts a job, and waits until that has completed.
    fn started(&self, object: &str, call: &str) -> BTreeMap<String, String> {
        let (code, out) = self.call(object, call);
        assert_eq!(code, 4096, "{call}");
        let out: BTreeMap<_, _> = out.into_iter().collect();
        let began = Instant::now();
        loop {
            let job = self.run(&[
                "gi",
                "-nl",
                &self.at(&out["Job"]),
                "JobState,ErrorDescription",
            ]);
            if job.contains("-JobState=7") {
                return out;
            }
            assert!(
                job.contains("-JobState=4") && began.elapsed() < LIMIT,
                "{call}: {job}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
