//! Who gets in at the real daemon, by which way and with which role; what the log says
//! of it; and what of a client is too much.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::Host;
use isochron_lab::clients;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::Value;

const ROLES: [&str; 3] = ["reader", "operator", "administrator"];

/// HTTPS for all faces, and HTTP for the JSON API.
const ALL: &str = r#"cimxml_https = "127.0.0.1:0"
wsman_https = "127.0.0.1:0"
http = "127.0.0.1:0"
https = "127.0.0.1:0"
"#;

fn host(configuration: &str) -> Host {
    Host::closed(&format!("{ALL}{configuration}"), &[])
}

/// Where a face listens with this scheme.
fn at(host: &Host, face: &str, scheme: &str) -> String {
    let beginning = format!("listening for {face} on {scheme}://");
    format!("{scheme}://{}", host.said(&beginning).unwrap())
}

fn certificate(host: &Host) -> PathBuf {
    host.path().join("state/tls/certificate.pem")
}

/// A machine that is off, and the collection of it.
fn define(host: &Host) {
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
    host.json(&["collection", "create", "shop", "web"]);
}

/// A Python with pywbem, which knows no CA but those that it is given.
fn interpreter() -> Command {
    let mut python = Command::new(clients::python().unwrap());
    // They go before what a program says (requests, "SSL Cert Verification").
    python.env_remove("REQUESTS_CA_BUNDLE");
    python.env_remove("CURL_CA_BUNDLE");
    python.arg("-B").stdin(Stdio::null());
    python
}

/// Runs a script of tests/py against an address.
fn python(script: &str, arguments: &[&str]) {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/py");
    let output = interpreter()
        .arg(scripts.join(script))
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script} {arguments:?}: {said}");
}

/// The audit log's lines.
fn audit(host: &Host) -> Vec<Value> {
    let text = std::fs::read_to_string(host.path().join("state/audit.log")).unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn pywbem_and_wbemcli_get_in_with_their_role() {
    let mut host = host("");
    assert!(host.log().contains("there are no users yet"));
    define(&host);
    let ca = certificate(&host);
    let ca = ca.to_str().unwrap();
    for role in ROLES {
        host.add_user(role, role, &format!("{role} word"));
    }
    let https = at(&host, "CIM-XML", "https");
    for role in ROLES {
        let password = format!("{role} word");
        python("access.py", &[&https, role, &password, role, ca]);
    }
    // The same without TLS, on loopback.
    host.add_user("plain", "operator", "plain word");
    python(
        "access.py",
        &[&host.cimxml, "plain", "plain word", "operator"],
    );

    let wbemcli = |password: &str, options: &[&str]| {
        let address = https.strip_prefix("https://").unwrap();
        let object = format!(
            "https://reader:{password}@{address}/root/HyperVCluster/v2:Msvm_ComputerSystem"
        );
        let output = Command::new(clients::wbemcli().unwrap())
            .args(options)
            .args(["ein", &object])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&said).into_owned()
    };
    host.json(&["user", "role", "reader", "operator"]);
    let file = host.path().join("word");
    std::fs::write(&file, "readerword\n").unwrap();
    let mut passwd = Command::new(env!("CARGO_BIN_EXE_isochron"));
    let changed = passwd
        .args([
            "--config",
            "isochron.toml",
            "user",
            "passwd",
            "reader",
            "--password-stdin",
        ])
        .current_dir(host.path())
        .env_remove("ISOCHRON_SERVER")
        .stdin(std::fs::File::open(file).unwrap())
        .output();
    assert!(changed.unwrap().status.success());
    let listed = wbemcli("readerword", &["-cacert", ca]);
    assert_eq!(
        listed.matches(":Msvm_ComputerSystem.").count(),
        2,
        "{listed}"
    );
    for (password, options) in [("wrongword", &["-cacert", ca][..]), ("readerword", &[])] {
        let refused = wbemcli(password, options);
        assert!(!refused.contains(":Msvm_ComputerSystem."), "{refused}");
    }

    // Users and their roles are there after a restart, and so is the certificate.
    let fingerprint = host.json(&["tls", "show"])["fingerprint"].clone();
    host.restart();
    assert!(!host.log().contains("there are no users yet"));
    let users = host.json(&["user", "list"]);
    let names: Vec<_> = users
        .as_array()
        .unwrap()
        .iter()
        .map(|user| &user["name"])
        .collect();
    assert_eq!(names, ["administrator", "operator", "plain", "reader"]);
    assert_eq!(users[3]["role"], "operator");
    assert_eq!(host.json(&["tls", "show"])["fingerprint"], fingerprint);
    python(
        "access.py",
        &[&host.cimxml, "plain", "plain word", "operator"],
    );

    told(&host);
    host.json(&["user", "remove", "plain"]);
    let refused = interpreter()
        .args([
            "-c",
            "import sys, pywbem; pywbem.WBEMConnection(sys.argv[1], \
            ('plain', 'plain word'), default_namespace='interop').EnumerateClassNames()",
        ])
        .arg(&host.cimxml)
        .output();
    let said = String::from_utf8(refused.unwrap().stderr).unwrap();
    assert!(said.contains("AuthError"), "{said}");
    host.close();
}

/// Who did what, and who was refused, of what the test before did.
fn told(host: &Host) {
    let log = audit(host);
    let mode = std::fs::metadata(host.path().join("state/audit.log"))
        .unwrap()
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
    let find = |fields: &[(&str, &str)]| {
        let fits = |line: &&Value| fields.iter().all(|(key, value)| line[key] == *value);
        log.iter().filter(fits).count()
    };
    for (user, operation, result, face) in [
        ("reader", "create-snapshot", "denied", "cim-xml"),
        ("reader", "create-collection", "denied", "cim-xml"),
        ("reader", "call-method", "denied", "cim-xml"),
        ("operator", "call-method", "failed", "cim-xml"),
        ("reader", "create-instance", "denied", "cim-xml"),
        ("operator", "create-snapshot", "done", "cim-xml"),
        ("operator", "destroy-snapshot", "done", "cim-xml"),
        ("operator", "create-collection", "denied", "cim-xml"),
        ("administrator", "create-collection", "done", "cim-xml"),
        ("administrator", "create-class", "done", "cim-xml"),
        ("administrator", "login", "done", "cim-xml"),
        ("administrator", "login", "denied", "cim-xml"),
        ("nobody", "login", "denied", "cim-xml"),
    ] {
        let fields = [
            ("user", user),
            ("operation", operation),
            ("result", result),
            ("face", face),
        ];
        assert!(find(&fields) > 0, "{fields:?} is not in {log:#?}");
    }
    assert!(
        find(&[
            ("face", "unix"),
            ("operation", "add-user"),
            ("result", "done")
        ]) == 4
    );
    let created = log
        .iter()
        .find(|line| line["operation"] == "create-snapshot")
        .unwrap();
    assert!(
        created["object"]
            .as_str()
            .unwrap()
            .starts_with("collection shop (")
    );
    assert!(
        created["address"]
            .as_str()
            .unwrap()
            .starts_with("127.0.0.1:")
    );
    let text = format!("{log:?}");
    assert!(!text.contains(" word"), "no password is in the log");
}

/// A client's paths lead below the roots, whichever role it has.
#[test]
fn an_administrator_from_elsewhere_names_paths_below_the_roots_only() {
    let host = host("[paths]\nroots = [\"open\"]\n");
    host.add_user("ada", "administrator", "ada word");
    let open = host.directory("open");
    std::os::unix::fs::symlink(host.path(), open.join("way-out")).unwrap();
    for directory in [&open, host.path()] {
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .arg(directory.join("web.qcow2"))
            .arg("1M")
            .status();
        assert!(made.unwrap().success());
    }
    let server = at(&host, "the JSON API", "http");
    let environment = [("ISOCHRON_USER", "ada"), ("ISOCHRON_PASSWORD", "ada word")];
    let define = |more: &str, path: &str| {
        let file = host.path().join("web.toml");
        let text =
            format!("name = \"web\"\naccel = \"tcg\"\n{more}\n[[disks]]\npath = \"{path}\"\n");
        std::fs::write(&file, text).unwrap();
        let words = ["--server", &server, "vm", "define", file.to_str().unwrap()];
        let output = host.run_with(&words, &environment);
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), said)
    };
    for (more, path) in [
        ("", "web.qcow2"),
        ("", "open/../web.qcow2"),
        ("", "open/way-out/web.qcow2"),
        ("", "/etc/shadow"),
        ("kernel = \"/etc/shadow\"", "open/web.qcow2"),
        ("serial_log = \"log\"", "open/web.qcow2"),
        ("extra_args = [\"-version\"]", "open/web.qcow2"),
    ] {
        let (code, said) = define(more, path);
        assert_eq!(code, 9, "{more} {path}: {said}");
    }
    let words = [
        "--server",
        &server,
        "vm",
        "attach",
        "x",
        "--qmp",
        "/run/x.sock",
    ];
    assert_eq!(host.run_with(&words, &environment).status.code(), Some(9));
    assert_eq!(host.json(&["vm", "list"]).as_array().unwrap().len(), 0);
    let (code, said) = define("serial_log = \"open/log\"", "open/web.qcow2");
    assert_eq!(code, 0, "{said}");
    // Root names any on the socket.
    if rustix::process::geteuid().is_root() {
        let file = host.path().join("other.toml");
        let text = "name = \"other\"\naccel = \"tcg\"\n[[disks]]\npath = \"web.qcow2\"\n";
        std::fs::write(&file, text).unwrap();
        host.json(&["vm", "define", file.to_str().unwrap()]);
    }
    host.close();
}

#[test]
fn the_command_line_knows_the_daemon_over_https() {
    let host = host("");
    define(&host);
    for role in ROLES {
        host.add_user(role, role, &format!("{role} word"));
    }
    let server = at(&host, "the JSON API", "https");
    let shown = host.json(&["tls", "show"]);
    let fingerprint = shown["fingerprint"].as_str().unwrap().to_owned();
    let said = "the TLS certificate's SHA-256 fingerprint is ";
    assert_eq!(host.said(said).unwrap(), fingerprint);
    assert!(
        shown["names"]
            .as_array()
            .unwrap()
            .iter()
            .any(|name| name == "127.0.0.1")
    );
    let key = std::fs::metadata(host.path().join("state/tls/key.pem")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);

    let ca = certificate(&host);
    let ca = ca.to_str().unwrap();
    let by_ca = ["--server", &server, "--ca", ca];
    let by_fingerprint = ["--server", &server, "--fingerprint", &fingerprint];
    let ask = |how: &[&str], role: &str, password: &str, words: &[&str]| {
        let environment = [("ISOCHRON_USER", role), ("ISOCHRON_PASSWORD", password)];
        let output = host.run_with(&[how, words].concat(), &environment);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), said)
    };
    for role in ROLES {
        let word = format!("{role} word");
        for how in [&by_ca, &by_fingerprint] {
            assert_eq!(ask(how, role, &word, &["vm", "list"]), (0, String::new()));
        }
        let may = |least: &str| {
            if ROLES.iter().position(|r| *r == role) >= ROLES.iter().position(|r| *r == least) {
                0
            } else {
                9
            }
        };
        let snapshot = [
            "snapshot", "create", "shop", "--type", "recovery", "--name", role,
        ];
        let (code, said) = ask(&by_ca, role, &word, &snapshot);
        assert_eq!(code, may("operator"), "{role}: {said}");
        let collection = ["collection", "create", role];
        let (code, said) = ask(&by_ca, role, &word, &collection);
        assert_eq!(code, may("administrator"), "{role}: {said}");
        let (code, _) = ask(&by_ca, role, &word, &["user", "list"]);
        assert_eq!(code, may("administrator"), "{role}");
        // Files are not theirs to name: nothing is open.
        let file = host.path().join("web.toml");
        let define = ["vm", "define", file.to_str().unwrap()];
        let (code, said) = ask(&by_ca, role, &word, &define);
        assert_eq!(code, 9, "{said}");
        assert!(
            role != "administrator" || said.contains("paths.roots"),
            "{said}"
        );
    }
    let (code, said) = ask(&by_ca, "reader", "another word", &["vm", "list"]);
    assert_eq!(code, 9, "{said}");
    let nobody = host.run(&[&by_ca[..], &["vm", "list"]].concat());
    assert_eq!(nobody.status.code(), Some(9));
    let said = String::from_utf8(nobody.stderr).unwrap();
    assert!(said.contains("--user"), "{said}");
    // A server that is not believed gets to see no password.
    let wrong = fingerprint.replace(|c: char| c.is_ascii_hexdigit(), "0");
    for how in [
        &["--server", &server][..],
        &["--server", &server, "--fingerprint", &wrong],
        &["--server", &server, "--ca", "isochron.toml"],
    ] {
        let (code, said) = ask(how, "reader", "reader word", &["vm", "list"]);
        assert!([2, 5].contains(&code), "{how:?}: {said}");
    }
    let unread = audit(&host);
    let tries = unread.iter().filter(|line| line["operation"] == "login");
    let wrong = tries.filter(|line| line["result"] == "denied").count();
    assert_eq!(wrong, 1, "{unread:#?}");
    host.close();
}

/// The fingerprint of the certificate that a server shows.
fn shown(address: &str) -> String {
    let script = "import hashlib, ssl, sys; host, port = sys.argv[1].rsplit(':', 1); \
        pem = ssl.get_server_certificate((host, int(port))); \
        print(hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest())";
    let address = address.strip_prefix("https://").unwrap();
    let output = interpreter()
        .args(["-c", script, address])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let digest = String::from_utf8(output.stdout).unwrap();
    digest.trim().to_uppercase()
}

#[test]
fn certificates_are_read_anew_while_connections_go_on() {
    let own = tempfile::tempdir().unwrap();
    let write = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let certified = rcgen::generate_simple_self_signed(names).unwrap();
        std::fs::write(own.path().join("c.pem"), certified.cert.pem()).unwrap();
        let key = certified.signing_key.serialize_pem();
        std::fs::write(own.path().join("k.pem"), key).unwrap();
    };
    write(&["first.example"]);
    let path = own.path().display();
    let tls = format!("[tls]\ncertificate = \"{path}/c.pem\"\nkey = \"{path}/k.pem\"\n");
    let host = host(&tls);
    let (cim, json) = (
        at(&host, "CIM-XML", "https"),
        at(&host, "the JSON API", "https"),
    );
    assert!(
        !certificate(&host).exists(),
        "none is made where one is given"
    );
    let plain = |host: &Host| {
        let certificate = host.json(&["tls", "show"]);
        assert_eq!(
            certificate["file"].as_str().unwrap(),
            format!("{path}/c.pem")
        );
        certificate["fingerprint"]
            .as_str()
            .unwrap()
            .replace(':', "")
    };
    let first = plain(&host);
    assert_eq!((shown(&cim), shown(&json)), (first.clone(), first.clone()));

    write(&["second.example"]);
    host.hang_up();
    let began = Instant::now();
    while plain(&host) == first {
        assert!(began.elapsed() < Duration::from_secs(3), "not at once");
        std::thread::sleep(Duration::from_millis(10));
    }
    let second = plain(&host);
    assert_eq!(
        (shown(&cim), shown(&json)),
        (second.clone(), second.clone())
    );
    // By itself, in some seconds.
    write(&["third.example"]);
    while plain(&host) == second {
        assert!(began.elapsed() < Duration::from_secs(60), "never");
        std::thread::sleep(Duration::from_millis(100));
    }
    // What cannot be used changes nothing.
    let third = plain(&host);
    std::fs::write(own.path().join("c.pem"), "nothing").unwrap();
    host.hang_up();
    let began = Instant::now();
    while !host.log().contains("cannot be used") {
        assert!(began.elapsed() < Duration::from_secs(60), "{}", host.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(shown(&cim), third);
    host.close();
}

#[test]
fn a_client_certificate_says_who_its_owner_is() {
    let files = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let signed = |name: &str, file: &str, ca: &CertifiedIssuer<'_, KeyPair>| {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, ca).unwrap().pem();
        let certificate = write(&format!("{file}.pem"), certificate);
        (
            certificate,
            write(&format!("{file}.key"), key.serialize_pem()),
        )
    };
    let client = |name: &str| signed(name, &name.replace(' ', "-"), &ca);
    let path = write("ca.pem", ca.pem());
    let tls = format!("[tls]\nclient_ca = \"{path}\"\n[tls.users]\n\"Build Agent\" = \"ci\"\n");
    let host = host(&tls);
    host.add_user("ci", "reader", "not known");
    host.add_user("ada", "reader", "not known");
    define(&host);
    let https = at(&host, "CIM-XML", "https");
    let ask = |(shown, key): (String, String)| {
        let script = "import sys, pywbem; pywbem.WBEMConnection(sys.argv[1], None, \
            'interop', ca_certs=sys.argv[2], x509={'cert_file': sys.argv[3], \
            'key_file': sys.argv[4]}).EnumerateClassNames()";
        let output = interpreter()
            .args(["-c", script, &https])
            .arg(certificate(&host))
            .args([shown, key])
            .output()
            .unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(ask(client("Build Agent")), "");
    assert_eq!(ask(client("ada")), "");
    let refused = ask(client("mallory"));
    assert!(refused.contains("AuthError"), "{refused}");
    // WS-Management's clients name the certificate as how they log in.
    let address = at(&host, "WS-Management", "https");
    let port = address.rsplit_once(':').unwrap().1;
    let port: u16 = port.strip_suffix("/wsman").unwrap().parse().unwrap();
    let ask = |(shown, key): (String, String), role: &str| {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/py");
        let connection = serde_json::json!({
            "server": "localhost",
            "port": port,
            "auth": "certificate",
            "certificate_pem": shown,
            "certificate_key_pem": key,
            "cert_validation": certificate(&host),
        });
        let output = interpreter()
            .arg(scripts.join("wsman_certificate.py"))
            .args([&connection.to_string(), role])
            .output()
            .unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(ask(client("Build Agent"), "reader"), "");
    host.json(&["user", "role", "ada", "operator"]);
    assert_eq!(ask(client("ada"), "operator"), "");
    let refused = ask(client("mallory"), "reader");
    assert!(refused.contains("AuthenticationError"), "{refused}");
    // One that says that it is somebody's, and that another CA signed.
    let unknown = CertifiedIssuer::self_signed(
        CertificateParams::new(Vec::<String>::new()).unwrap(),
        KeyPair::generate().unwrap(),
    );
    let forged = signed("ada", "forged", &unknown.unwrap());
    let refused = ask(forged, "operator");
    assert!(refused.contains("SSLError"), "{refused}");
    let log = audit(&host);
    assert!(
        log.iter()
            .any(|line| line["user"] == "mallory" && line["result"] == "denied")
    );
    host.close();
}

/// What root alone can try: to be somebody else.
#[test]
fn the_unix_socket_is_for_its_owners() {
    let host = host("");
    let socket = host.path().join("api.sock");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    // 0660 where there is a group isochron, which then has it.
    assert_eq!(mode(&socket) & 0o717, 0o600);
    let own = host.json(&["user", "list"]);
    assert_eq!(own, Value::Array(Vec::new()));
    if !rustix::process::geteuid().is_root() {
        host.close();
        return;
    }
    // Somebody else's program needs to get at the socket, and at itself.
    let open = tempfile::tempdir_in("/var/tmp").unwrap();
    let program = open.path().join("isochron");
    std::fs::copy(env!("CARGO_BIN_EXE_isochron"), &program).unwrap();
    let set = |path: &Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    set(open.path(), 0o755);
    set(host.path(), 0o755);
    let nobody = |gid: u32| {
        let output = Command::new(&program)
            .args([
                "--server",
                &format!("unix:{}", socket.display()),
                "vm",
                "list",
            ])
            .env_clear()
            .current_dir("/")
            .uid(65534)
            .gid(gid)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), said)
    };
    let (code, said) = nobody(65534);
    assert_eq!(code, Some(9), "{said}");
    assert!(said.contains("you may not use"), "{said}");
    // Somebody opened it to all: the daemon looks for itself.
    set(&socket, 0o666);
    let (code, said) = nobody(65534);
    assert_eq!(code, Some(9), "{said}");
    assert!(said.contains("may not use this socket"), "{said}");
    let log = audit(&host);
    let denied = |line: &&Value| line["face"] == "unix" && line["result"] == "denied";
    assert_eq!(log.iter().filter(denied).count(), 1);
    host.close();

    // A group that there is on every system.
    let host = self::host("socket_group = \"daemon\"\n");
    let socket = host.path().join("api.sock");
    assert_eq!(mode(&socket), 0o660);
    set(host.path(), 0o755);
    let daemon: u32 = std::os::unix::fs::MetadataExt::gid(&std::fs::metadata(&socket).unwrap());
    let member = Command::new(&program)
        .args([
            "--server",
            &format!("unix:{}", socket.display()),
            "user",
            "list",
            "--json",
        ])
        .env_clear()
        .current_dir("/")
        .uid(65534)
        .gid(daemon)
        .output()
        .unwrap();
    assert_eq!(member.stdout, b"[]\n", "{member:?}");
    host.close();
}

#[test]
fn a_group_that_is_not_there_is_said() {
    let directory = tempfile::tempdir().unwrap();
    let text = "state = \"state\"\n[listen]\nsocket = \"api.sock\"\ncimxml = \"off\"\n\
        cimxml_https = \"off\"\nwsman = \"off\"\nwsman_https = \"off\"\n\
        socket_group = \"no-such-group\"\n";
    std::fs::write(directory.path().join("isochron.toml"), text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_isochron"))
        .args(["--config", "isochron.toml", "serve"])
        .current_dir(directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("no-such-group"), "{said}");
}

/// What a raw request on a connection is answered, up to the connection's end.
fn answer(address: &str, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    // The other side may have answered before it has read everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn what_is_too_much_is_refused_and_keeps_nobody_out() {
    let host = Host::with(
        "http = \"127.0.0.1:0\"\n[limits]\nconnections = 20\nconnections_per_peer = 10\n\
         headers = \"600ms\"\nbody = \"600ms\"\ncimxml_request_kib = 16\nhttp_request_kib = 4\n\
         cimxml_depth = 9\ncimxml_elements = 40\n",
        &[],
    );
    let cim = host.cimxml.strip_prefix("http://").unwrap().to_owned();
    let json = at(&host, "the JSON API", "http");
    let json = json.strip_prefix("http://").unwrap().to_owned();
    let post = |length: usize| {
        format!(
            "POST /v1/collections HTTP/1.1\r\nHost: localhost\r\n\
             Content-Type: application/xml\r\nCIMOperation: MethodCall\r\n\
             CIMMethod: EnumerateClassNames\r\nCIMObject: interop\r\n\
             Content-Length: {length}\r\n\r\n"
        )
    };
    // Nested too deep, and with too many elements.
    for xml in ["<A>".repeat(10), format!("<A>{}</A>", "<B/>".repeat(40))] {
        let status = answer(&cim, format!("{}{xml}", post(xml.len())).as_bytes());
        assert!(status.starts_with("HTTP/1.1 413"), "{status}");
    }
    for (address, kib) in [(&cim, 16), (&json, 4)] {
        // Too large, told by its length and by what comes.
        let large = (kib << 10) + 1;
        let request = [post(large).as_bytes(), &vec![b'x'; large]].concat();
        let status = answer(address, &request);
        assert!(status.starts_with("HTTP/1.1 413"), "{kib} KiB: {status}");
        // A body that does not come.
        let began = Instant::now();
        let status = answer(address, post(100).as_bytes());
        assert!(status.starts_with("HTTP/1.1 408"), "{status}");
        // A head that does not end.
        let dribbled = answer(address, b"POST / HTTP/1.1\r\nHost: localhost\r\n");
        assert!(!dribbled.contains(" 200 "), "{dribbled}");
        assert!(began.elapsed() < Duration::from_secs(10));
        // Many that say nothing: the first have to go, whoever comes gets in.
        let mut silent: Vec<_> = (0..50)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        let version = "GET /v1/version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let answered = answer(address, version.as_bytes());
        let expected = if address == &json {
            "HTTP/1.1 200"
        } else {
            "HTTP/1.1 405"
        };
        assert!(answered.starts_with(expected), "{answered}");
        let first = silent.first_mut().unwrap();
        first
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        assert!(matches!(first.read(&mut [0; 1]), Ok(0) | Err(_)));
    }
    host.close();
}
