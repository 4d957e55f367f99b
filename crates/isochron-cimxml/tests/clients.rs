//! Third-party CIM clients against the server: pywbem and sblim's wbemcli.

#![allow(clippy::expect_used)] // A test fails by panicking.

mod common;

use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use async_trait::async_trait;
use common::{Running, TestServer};
use isochron_cim::{EnumerationLimits, Principal, Role};
use isochron_cimxml::Config;
use isochron_net::{Authenticator, Denied, Peer, basic_credentials};

/// The Python that has pywbem.
fn python() -> PathBuf {
    let python = std::env::var_os("ISOCHRON_PYTHON").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../target/venv/bin/python"
            ))
        },
        PathBuf::from,
    );
    assert!(
        python.exists(),
        "there is no Python with pywbem at {}: run the tests with `make test`, which makes one, \
         or set ISOCHRON_PYTHON",
        python.display()
    );
    python
}

async fn run(program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Output {
    let program = program.as_ref();
    let output = tokio::process::Command::new(program)
        .args(arguments)
        .kill_on_drop(true)
        .output();
    output.await.unwrap_or_else(|error| {
        panic!("{program:?} cannot be run ({error}): see `make test` for what it needs")
    })
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

#[tokio::test]
async fn pywbem_uses_every_operation() {
    let server = Running::start(Config::default()).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pywbem_drive.py");
    let output = run(python(), &[script, &format!("http://{}", server.address)]).await;
    assert!(output.status.success(), "{}", text(&output));
    server.stop().await;
}

#[tokio::test]
async fn pywbem_pulls_and_queries() {
    let mut cim = TestServer::new();
    cim.many.count = 25;
    let enumerations = EnumerationLimits {
        open: 5,
        by_caller: 3,
        page: 20,
        longest_timeout: Duration::from_secs(60),
        ..EnumerationLimits::default()
    };
    let config = Config {
        enumerations,
        authenticator: std::sync::Arc::new(ByName),
        ..Config::default()
    };
    let server = Running::start_with(config, cim).await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pywbem_pulls.py");
    let output = run(python(), &[script, &format!("http://{}", server.address)]).await;
    assert!(output.status.success(), "{}", text(&output));
    server.stop().await;
}

/// Lets everyone in who has a name.
struct ByName;

#[async_trait]
impl Authenticator for ByName {
    async fn authenticate(
        &self,
        authorization: Option<&str>,
        _: &Peer,
    ) -> Result<Principal, Denied> {
        match authorization.and_then(basic_credentials) {
            Some((user, _)) => Ok(Principal::user(user, Role::Reader)),
            None => Err(Denied::Unknown),
        }
    }

    fn role_now(&self, principal: &Principal) -> Option<Role> {
        Some(principal.role)
    }
}

struct OneUser;

#[async_trait]
impl Authenticator for OneUser {
    async fn authenticate(
        &self,
        authorization: Option<&str>,
        peer: &Peer,
    ) -> Result<Principal, Denied> {
        assert_eq!(peer.face, "cim-xml");
        match authorization.and_then(basic_credentials) {
            Some((user, password)) if user == "ada" && password == "p:w" => {
                Ok(Principal::user(user, Role::Administrator))
            }
            _ => Err(Denied::Unknown),
        }
    }

    fn role_now(&self, principal: &Principal) -> Option<Role> {
        Some(principal.role)
    }
}

#[tokio::test]
async fn pywbem_is_asked_for_credentials() {
    let config = Config {
        authenticator: std::sync::Arc::new(OneUser),
        ..Config::default()
    };
    let server = Running::start(config).await;
    let script = r#"
import sys, pywbem
good = pywbem.WBEMConnection(sys.argv[1], ("ada", "p:w"), default_namespace="root/test")
assert good.EnumerateClassNames()
for creds in (None, ("ada", "wrong")):
    try:
        pywbem.WBEMConnection(sys.argv[1], creds, default_namespace="root/test").EnumerateClassNames()
    except pywbem.AuthError as error:
        assert "userid/password" in str(error), error
    else:
        raise AssertionError(creds)
"#;
    let output = run(
        python(),
        &["-c", script, &format!("http://{}", server.address)],
    )
    .await;
    assert!(output.status.success(), "{}", text(&output));
    server.stop().await;
}

#[tokio::test]
async fn wbemcli_uses_its_operations() {
    let server = Running::start(Config::default()).await;
    let namespace = format!("http://u:p@{}/root/test", server.address);
    let one = format!("{namespace}:T_Thing.Name=\"one\"");
    let class = format!("{namespace}:T_Thing");
    let table: &[(&[&str], &[&str])] = &[
        (
            &["ecn", &namespace],
            &["root/test:T_Base", "root/test:T_BigThing"],
        ),
        (&["ec", &namespace], &["T_Thing", "Size=", "Settings="]),
        (&["gc", &class], &["T_Thing", "Size=", "Settings="]),
        (
            &["ein", &class],
            &["T_Thing.Name=\"one\"", "T_BigThing.Name="],
        ),
        (
            &["ei", "-nl", &class],
            &["Name=\"one\"", "Size=18446744073709551615", "Extra=1"],
        ),
        (
            &["gi", "-nl", &one],
            &[
                "Size=18446744073709551615",
                "When=20260102030405.123456+060",
            ],
        ),
        (&["ain", &one], &["T_BigThing.Name="]),
        (&["ai", "-nl", &one], &["Extra=1"]),
        (&["rin", &one], &["T_Link.Antecedent="]),
        (&["ri", "-nl", &one], &["Antecedent=", "Dependent="]),
        (&["cm", &one, "Work.Big=8"], &["4096", "Big"]),
        (&["cm", &class, "Add.A=2,B=40"], &["42"]),
    ];
    let mut failures = Vec::new();
    for (arguments, expected) in table {
        let output = run("wbemcli", arguments).await;
        let text = text(&output);
        if !output.status.success() || !expected.iter().all(|part| text.contains(part)) {
            failures.push(format!("wbemcli {arguments:?}: {text}"));
        }
    }
    let output = run("wbemcli", &["gi", &format!("{class}.Name=\"none\"")]).await;
    if !text(&output).contains("CIM_ERR_NOT_FOUND") {
        failures.push(text(&output));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    server.stop().await;
}
