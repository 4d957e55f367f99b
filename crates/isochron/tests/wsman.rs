//! WS-Management by clients that others wrote, against the daemon and real guests: the
//! scripts in tests/py and tests/js make the calls, here the guests and their files are
//! looked at.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use common::{Host, LIMIT, one_instant};
use isochron_lab::clients;
use isochron_lab::disk::{self, Format};
use isochron_lab::kit::Kit;
use isochron_lab::ring::{Options, Ring};
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse: battery";

/// The port of a WS-Management listener.
fn port(host: &Host, scheme: &str) -> u16 {
    let beginning = format!("listening for WS-Management on {scheme}://127.0.0.1:");
    let rest = host.said(&beginning).unwrap();
    rest.strip_suffix("/wsman").unwrap().parse().unwrap()
}

/// A user's connection, as pypsrp takes it.
fn connection(host: &Host, scheme: &str, auth: &str, user: &str) -> Value {
    let certificate = host.path().join("state/tls/certificate.pem");
    json!({
        "server": "localhost",
        "port": port(host, scheme),
        "ssl": scheme == "https",
        "auth": auth,
        "username": user,
        "password": PASSWORD,
        "cert_validation": certificate,
    })
}

#[test]
fn pypsrp_takes_applies_and_destroys_snapshots_of_a_ring() {
    let configuration = "cimxml_https = \"off\"\nwsman_https = \"127.0.0.1:0\"\n";
    let host = Host::closed(configuration, &[]);
    host.add_user("ada", "operator", PASSWORD);
    // By NTLM only who is given that gets in.
    host.add_user_with("nt", "operator", PASSWORD, &["--ntlm"]);
    let directory = host.directory("ring");
    let ring = Ring::create(&Kit::load().unwrap(), &directory, &Options::default()).unwrap();
    host.start_ring(&ring);
    host.json(&["collection", "create", "shop", "ring-0", "ring-1", "ring-2"]);
    let files = host.files();
    let basic = connection(&host, "https", "basic", "ada");
    // NTLM as it is and in SPNEGO, with messages that are encrypted, and over TLS.
    let ntlm = connection(&host, "http", "ntlm", "nt");
    let spnego = connection(&host, "http", "negotiate", "nt");
    let both = connection(&host, "https", "ntlm", "nt");
    for (family, connection) in [
        ("wmi", &basic),
        ("dmtf", &basic),
        ("wmi", &ntlm),
        ("dmtf", &spnego),
        ("wmi", &both),
    ] {
        let connection = connection.to_string();
        let taken = ["take", "shop", family, &connection];
        let taken = host.python("wsman_snapshots.py", &taken);
        let taken = taken.as_str().unwrap();
        one_instant(&ring.members, &host.json(&["snapshot", "show", taken]));
        host.python(
            "wsman_snapshots.py",
            &["finish", taken, family, &connection],
        );
        ring.wait_progress(5, LIMIT).unwrap();
        host.files_become(&files);
    }
    let refused = connection(&host, "http", "ntlm", "ada").to_string();
    let said = host.python_fails("wsman_snapshots.py", &["take", "shop", "wmi", &refused]);
    assert!(said.contains("AuthenticationError"), "{said}");
    host.close();
}

#[test]
fn pypsrp_is_told_of_a_snapshots_job_where_it_asked_to_be() {
    let host = Host::closed(
        "cimxml_https = \"off\"\nwsman_https = \"127.0.0.1:0\"\n",
        &[],
    );
    host.add_user("ada", "administrator", PASSWORD);
    disk::create(&host.path().join("web.qcow2"), Format::Qcow2, 16).unwrap();
    let definition = host.path().join("web.toml");
    let text = "name = \"web\"\naccel = \"tcg\"\n[[disks]]\npath = \"web.qcow2\"\n";
    std::fs::write(&definition, text).unwrap();
    host.json(&["vm", "define", definition.to_str().unwrap()]);
    host.json(&["collection", "create", "shop", "web"]);
    let connection = connection(&host, "https", "basic", "ada").to_string();
    host.python("wsman_push.py", &["shop", &connection]);
    host.close();
}

#[test]
fn other_clients_take_apply_and_destroy_snapshots_of_a_ring() {
    let host = Host::closed("cimxml_https = \"off\"\nwsman_https = \"off\"\n", &[]);
    host.add_user("ada", "operator", PASSWORD);
    let directory = host.directory("ring");
    let ring = Ring::create(&Kit::load().unwrap(), &directory, &Options::default()).unwrap();
    host.start_ring(&ring);
    host.json(&["collection", "create", "shop", "ring-0", "ring-1", "ring-2"]);
    let files = host.files();
    let endpoint = format!("http://localhost:{}/wsman", port(&host, "http"));
    let at = [endpoint.as_str(), "ada", PASSWORD];

    let taken = host.node("messages.js", &[&["take", "shop"], &at[..]].concat());
    let taken = taken.as_str().unwrap();
    one_instant(&ring.members, &host.json(&["snapshot", "show", taken]));
    host.node("messages.js", &[&["finish", taken], &at[..]].concat());
    ring.wait_progress(5, LIMIT).unwrap();
    host.files_become(&files);

    match clients::wsmanio() {
        Some(python) => {
            let words = [&["shop"], &at[..]].concat();
            host.python_of(&python, "wsmanio_snapshots.py", &words);
            ring.wait_progress(5, LIMIT).unwrap();
            host.files_become(&files);
        }
        None => eprintln!("SKIPPED: there is no Python 3.12 or later for wsmanio"),
    }
    host.close();
}

/// Intel's generator makes messages for computers with its own classes. What is not here
/// is said so; nothing is taken for damaged.
#[test]
fn every_message_of_intels_generator_is_read() {
    let host = Host::closed("cimxml_https = \"off\"\nwsman_https = \"off\"\n", &[]);
    host.add_user("ada", "operator", PASSWORD);
    let endpoint = format!("http://localhost:{}/wsman", port(&host, "http"));
    let answers = host.node("messages.js", &["all", &endpoint, "ada", PASSWORD]);
    let answers = answers.as_object().unwrap();
    let count: u64 = answers.values().filter_map(Value::as_u64).sum();
    assert!(count > 200, "{answers:?}");
    let known = [
        "DestinationUnreachable",
        "InvalidEnumerationContext",
        "InvalidSelectors",
        "Enumerate",
    ];
    let others: Vec<_> = answers
        .keys()
        .filter(|a| !known.contains(&a.as_str()))
        .collect();
    assert!(others.is_empty(), "{answers:?}");
    host.close();
}
