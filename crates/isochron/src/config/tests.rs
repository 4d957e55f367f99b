//! What the file's keys mean, and what is refused.

use std::time::Duration;

use super::*;

fn user() -> Environment {
    Environment {
        home: Some("/home/u".into()),
        host: "here".into(),
        ..Environment::default()
    }
}

fn read(text: &str) -> Result<Config, String> {
    Config::read(text, "/conf".as_ref(), &user()).map_err(|error| error.to_string())
}

#[test]
fn defaults() {
    let root = Environment {
        root: true,
        ..user()
    };
    let config = Config::read("", "/".as_ref(), &root).unwrap();
    assert_eq!(config.state, Path::new("/var/lib/isochron"));
    assert_eq!(config.run, Path::new("/var/lib/isochron/run"));
    assert_eq!(
        config.listen.socket,
        Path::new("/run/isochron/isochron.sock")
    );
    assert_eq!(config.listen.cimxml.to_string(), "127.0.0.1:5988");
    assert_eq!(config.listen.http.to_string(), "off");
    assert_eq!(config.listen.cimxml_https.to_string(), "127.0.0.1:5989");
    assert_eq!(config.listen.wsman.to_string(), "127.0.0.1:5985");
    assert_eq!(config.listen.wsman_https.to_string(), "127.0.0.1:5986");
    assert_eq!(config.listen.https.to_string(), "off");
    assert_eq!(config.listen.anonymous, Anonymous(None));
    assert!(!config.listen.allow_plain_remote);
    let tls = Path::new("/var/lib/isochron/tls");
    assert_eq!(config.tls.certificate, tls.join("certificate.pem"));
    assert_eq!(config.tls.names, ["here", "localhost", "127.0.0.1", "::1"]);
    assert!(config.makes_certificate());
    assert_eq!(config.audit_log, Path::new("/var/lib/isochron/audit.log"));
    assert!(config.engine().roots.is_empty());
    assert_eq!(config.check(), Ok(()));

    let config = read("").unwrap();
    assert_eq!(config.state, Path::new("/home/u/.local/state/isochron"));
    assert_eq!(config.listen.socket, config.state.join("isochron.sock"));
    let seat = Environment {
        runtime_dir: Some("/run/user/7".into()),
        ..user()
    };
    let config = Config::read("", "/".as_ref(), &seat).unwrap();
    assert_eq!(config.listen.socket, Path::new("/run/user/7/isochron.sock"));
}

#[test]
fn every_key() {
    let config = read(
        r#"
        state = "s"
        run = "/r"
        audit_log = "a.log"
        [listen]
        socket = "api.sock"
        socket_group = "staff"
        cimxml = ""
        cimxml_https = "0.0.0.0:5989"
        wsman = "localhost:1"
        wsman_https = "off"
        http = "localhost:80"
        https = "[::]:443"
        allow_plain_remote = true
        anonymous = "reader"
        [tls]
        certificate = "c.pem"
        key = "/k.pem"
        client_ca = "ca.pem"
        names = ["a.example"]
        users = { "Build Agent" = "ci" }
        [kerberos]
        keytab = "http.keytab"
        users = { "ada@EXAMPLE.ORG" = "ada" }
        [paths]
        roots = ["images", "/srv/images"]
        [limits]
        connections = 9
        connections_per_peer = 8
        handshake = "7s"
        headers = "6s"
        body = "5s"
        cimxml_request_kib = 4
        cimxml_depth = 30
        cimxml_elements = 31
        wsman_request_kib = 10
        http_request_kib = 3
        operation = "2s"
        enumerations = 6
        enumerations_per_user = 5
        [deadlines]
        freeze = "1m 30s"
        stop = 250
        window = "500ms"
        [qemu]
        binary = "bin/qemu"
        img = "qemu-img-9"
        nbd = "qemu-nbd-9"
        [jobs]
        retention = "1h"
        "#,
    )
    .unwrap();
    assert_eq!(config.state, Path::new("/conf/s"));
    assert_eq!(config.run, Path::new("/r"));
    assert_eq!(config.listen.socket, Path::new("/conf/api.sock"));
    assert_eq!(config.listen.cimxml, Address(None));
    assert_eq!(config.listen.http.to_string(), "127.0.0.1:80");
    assert_eq!(config.audit_log, Path::new("/conf/a.log"));
    assert_eq!(config.listen.socket_group.as_deref(), Some("staff"));
    assert_eq!(config.listen.cimxml_https.to_string(), "0.0.0.0:5989");
    assert_eq!(config.listen.wsman.to_string(), "127.0.0.1:1");
    assert_eq!(config.listen.wsman_https, Address(None));
    assert_eq!(config.listen.https.to_string(), "[::]:443");
    assert!(config.listen.allow_plain_remote);
    assert_eq!(
        config.listen.anonymous,
        Anonymous(Some(isochron_engine::Role::Reader))
    );
    assert_eq!(config.tls.certificate, Path::new("/conf/c.pem"));
    assert_eq!(config.tls.key, Path::new("/k.pem"));
    assert!(!config.makes_certificate());
    assert_eq!(
        config.tls.client_ca.as_deref(),
        Some("/conf/ca.pem".as_ref())
    );
    assert_eq!(config.tls.names, ["a.example"]);
    assert_eq!(config.tls.users["Build Agent"], "ci");
    assert_eq!(
        config.kerberos.keytab.as_deref(),
        Some("/conf/http.keytab".as_ref())
    );
    assert_eq!(config.kerberos.users["ada@EXAMPLE.ORG"], "ada");
    let limits = &config.limits;
    assert_eq!((limits.connections, limits.connections_per_peer), (9, 8));
    let spans = [
        limits.handshake,
        limits.headers,
        limits.body,
        limits.operation,
    ];
    assert_eq!(spans.map(|span| span.0.as_secs()), [7, 6, 5, 2]);
    let enumerations = (limits.enumerations, limits.enumerations_per_user);
    assert_eq!(enumerations, (6, 5));
    assert_eq!((limits.cimxml_request_kib, limits.http_request_kib), (4, 3));
    assert_eq!((limits.cimxml_depth, limits.cimxml_elements), (30, 31));
    assert_eq!(limits.wsman_request_kib, 10);
    assert_eq!(config.qemu.binary, Path::new("/conf/bin/qemu"));
    assert_eq!(config.qemu.img, Path::new("qemu-img-9"));
    assert_eq!(config.qemu.nbd, Path::new("qemu-nbd-9"));
    let engine = config.engine();
    assert_eq!(engine.deadlines.freeze, Duration::from_secs(90));
    assert_eq!(engine.deadlines.stop, Duration::from_millis(250));
    assert_eq!(engine.deadlines.window, Duration::from_millis(500));
    let roots = ["/conf/images", "/srv/images"].map(Path::new);
    assert_eq!(engine.roots, roots);
    assert_eq!(engine.job_retention, Duration::from_secs(3600));
}

/// What is printed can be used as the file.
#[test]
fn printed_reads_back() {
    let text = "[deadlines]\nstop = \"1500ms\"\n[tls.users]\n\"Build Agent\" = \"ci\"";
    let config = read(text).unwrap();
    let printed = toml::to_string(&config).unwrap();
    assert_eq!(read(&printed).unwrap(), config);
}

#[test]
fn mistakes_are_named() {
    for (text, expected) in [
        ("stat = \"/x\"", "unknown field `stat`"),
        ("[listen]\nsocket = \"/x\"\ncimxlm = \"off\"", "line 3"),
        ("[deadlines]\nfreze = 1", "unknown field `freze`"),
        ("[deadlines]\nstop = \"soon\"", "a duration such as"),
        ("[deadlines]\nstop = 0", "leaves no time"),
        ("[deadlines]\nstop = -1", "a duration such as"),
        (
            "[listen]\ncimxml = \"everywhere\"",
            "\"everywhere\" is no address",
        ),
        ("[listen]\ncimxml = 5988", "line 2"),
        ("[qemu]\nbinary =", "line 2"),
        ("[cluster]", "unknown field `cluster`"),
        ("[listen]\nanonymous = \"root\"", "\"root\" is no role"),
        ("[tls]\nkey = \"k.pem\"", "belong together"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
    }
}

#[test]
fn what_is_not_safe_is_not_listened_on() {
    for (listen, complaint) in [
        ("cimxml = \"0.0.0.0:5988\"", Some("listen.cimxml_https")),
        ("http = \"10.0.0.1:80\"", Some("use listen.https")),
        ("cimxml = \"[::]:5988\"", Some("allow_plain_remote")),
        ("wsman = \"10.0.0.1:5985\"", Some("use listen.wsman_https")),
        ("wsman_https = \"0.0.0.0:5986\"", None),
        ("cimxml = \"[::1]:5988\"", None),
        ("cimxml = \"127.1.2.3:5988\"", None),
        ("cimxml = \"0.0.0.0:5988\"\nallow_plain_remote = true", None),
        ("cimxml_https = \"0.0.0.0:5989\"", None),
        ("https = \"[::]:443\"", None),
        ("anonymous = \"administrator\"", None),
        (
            "anonymous = \"reader\"\nhttps = \"[::]:443\"",
            Some("listen.anonymous"),
        ),
        (
            "anonymous = \"reader\"\ncimxml = \"[::]:1\"\nallow_plain_remote = true",
            Some("listen.anonymous"),
        ),
    ] {
        let checked = read(&format!("[listen]\n{listen}")).unwrap().check();
        match (checked, complaint) {
            (Ok(()), None) => {}
            (Err(error), Some(part)) => assert!(error.contains(part), "{error}"),
            other => panic!("{listen}: {other:?}"),
        }
    }
    let nothing = read("[limits]\nconnections = 0").unwrap().check();
    assert!(nothing.unwrap_err().contains("limits.connections"));
    let deep = read("[limits]\ncimxml_depth = 257").unwrap().check();
    assert!(deep.unwrap_err().contains("more than 256"));
}

#[test]
fn another_state_takes_along_what_lies_below_it() {
    let mut config = read("[tls]\ncertificate = \"/c.pem\"\nkey = \"/k.pem\"").unwrap();
    config.move_state("/elsewhere".into());
    assert_eq!(config.run, Path::new("/elsewhere/run"));
    assert_eq!(config.audit_log, Path::new("/elsewhere/audit.log"));
    assert_eq!(config.tls.certificate, Path::new("/c.pem"));
    let mut config = read("").unwrap();
    config.move_state("/elsewhere".into());
    assert_eq!(config.tls.key, Path::new("/elsewhere/tls/key.pem"));
    assert!(config.makes_certificate());
}

#[test]
fn a_file_that_was_named_must_be_there() {
    let directory = tempfile::tempdir().unwrap();
    let absent = directory.path().join("absent.toml");
    let error = Config::load(Some(&absent), &user()).unwrap_err();
    assert!(error.contains("absent.toml"), "{error}");
    let environment = Environment {
        config_home: Some(directory.path().to_owned()),
        ..user()
    };
    assert!(Config::load(None, &environment).is_ok());
    std::fs::create_dir(directory.path().join("isochron")).unwrap();
    std::fs::write(directory.path().join("isochron/isochron.toml"), "state = 1").unwrap();
    let error = Config::load(None, &environment).unwrap_err();
    assert!(
        error.contains("isochron.toml") && error.contains("line 1"),
        "{error}"
    );
}
