//! Logging in by Kerberos: a KDC of our own on loopback issues tickets, curl brings them,
//! and whose they are decides what they may.

#![allow(clippy::unwrap_used, reason = "a test ends at what it cannot have")]

mod common;

use std::io::Write;
use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use common::Host;

/// A realm: its KDC, which ends when this is dropped.
struct Realm<'a> {
    directory: &'a Path,
    kdc: Option<Child>,
}

impl Drop for Realm<'_> {
    fn drop(&mut self) {
        if let Some(mut kdc) = self.kdc.take() {
            let _ = kdc.kill();
            let _ = kdc.wait();
        }
    }
}

impl<'a> Realm<'a> {
    /// A realm with these users, whose passwords are their names, and the service
    /// `HTTP/localhost`, whose keys are in `http.keytab`.
    fn start(directory: &'a Path, users: &[&str]) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let kdc = socket.local_addr().unwrap();
        let at = directory.display();
        let write = |name: &str, text: String| {
            std::fs::write(directory.join(name), text).unwrap();
        };
        write(
            "krb5.conf",
            format!(
                "[libdefaults]\n default_realm = TEST.ORG\n dns_lookup_kdc = false\n \
                 dns_canonicalize_hostname = false\n rdns = false\n[realms]\n TEST.ORG = {{\n  \
                 kdc = {kdc}\n }}\n"
            ),
        );
        write(
            "kdc.conf",
            format!(
                "[realms]\n TEST.ORG = {{\n  database_name = {at}/principal\n  \
                 key_stash_file = {at}/stash\n  kdc_listen = {kdc}\n  \
                 kdc_tcp_listen = \"\"\n }}\n"
            ),
        );
        let mut realm = Self {
            directory,
            kdc: None,
        };
        realm.run("kdb5_util", &["create", "-s", "-r", "TEST.ORG", "-P", "x"]);
        let keytab = format!("ktadd -k {at}/http.keytab HTTP/localhost");
        let add = |user: &&str| format!("addprinc -pw {user} {user}");
        let mut queries: Vec<_> = users.iter().map(add).collect();
        queries.extend(["addprinc -randkey HTTP/localhost".into(), keytab]);
        for query in queries {
            realm.run("kadmin.local", &["-q", &query]);
        }
        drop(socket);
        let kdc = realm.command("krb5kdc").args(["-n"]).spawn();
        realm.kdc = Some(kdc.unwrap());
        realm
    }

    /// A program of the realm, which knows it by files alone.
    fn command(&self, program: &str) -> Command {
        let path = std::env::var("PATH").unwrap_or_default();
        let mut command = Command::new(program);
        command
            .env("PATH", format!("{path}:/usr/sbin:/sbin"))
            .env("KRB5_CONFIG", self.directory.join("krb5.conf"))
            .env("KRB5_KDC_PROFILE", self.directory.join("kdc.conf"))
            .env("KRB5CCNAME", self.directory.join("tickets"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = self.command(program).args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {output:?}"
        );
    }

    /// Gets a user's ticket; asked again while the KDC starts.
    fn login(&self, user: &str) {
        for _ in 0..100 {
            let mut kinit = self
                .command("kinit")
                .arg(user)
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            writeln!(kinit.stdin.take().unwrap(), "{user}").unwrap();
            if kinit.wait_with_output().unwrap().status.success() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("{user} gets no ticket");
    }

    /// Posts a body to WS-Management with the ticket that is there; what curl says.
    fn post(&self, host: &Host, body: &str, options: &[&str]) -> (String, String) {
        let url = host
            .said("listening for WS-Management on https://")
            .unwrap();
        let url = format!("https://{}", url.replace("127.0.0.1", "localhost"));
        let Output { stdout, .. } = self
            .command("curl")
            .args(["--silent", "--write-out", "\n%{http_code}", "--cacert"])
            .arg(host.path().join("state/tls/certificate.pem"))
            .args([
                "--header",
                "Content-Type: application/soap+xml;charset=UTF-8",
            ])
            .args(options)
            .args(["--data-binary", body, &url])
            .output()
            .unwrap();
        let said = String::from_utf8(stdout).unwrap();
        let (body, status) = said.rsplit_once('\n').unwrap();
        (status.to_owned(), body.to_owned())
    }
}

fn request(action: &str, class: &str, selectors: &str, body: &str) -> String {
    let uri = "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/HyperVCluster/v2";
    format!(
        "<s:Envelope xmlns:s=\"http://www.w3.org/2003/05/soap-envelope\" \
         xmlns:a=\"http://schemas.xmlsoap.org/ws/2004/08/addressing\" \
         xmlns:w=\"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd\"><s:Header>\
         <a:To>https://localhost/wsman</a:To><w:ResourceURI>{uri}/{class}</w:ResourceURI>\
         <a:Action>{action}</a:Action><a:MessageID>uuid:1</a:MessageID>{selectors}</s:Header>\
         <s:Body>{body}</s:Body></s:Envelope>"
    )
}

#[test]
fn a_ticket_logs_in_whose_it_is() {
    let files = tempfile::tempdir().unwrap();
    let realm = Realm::start(files.path(), &["ada", "mallory"]);
    let keytab = files.path().join("http.keytab");
    let host = Host::closed(
        &format!(
            "cimxml_https = \"off\"\nwsman_https = \"127.0.0.1:0\"\n[kerberos]\n\
             keytab = \"{}\"\n[kerberos.users]\n\"ada@TEST.ORG\" = \"ada\"\n",
            keytab.display()
        ),
        &[],
    );
    host.add_user("ada", "reader", "not known");
    host.add_user("mallory", "administrator", "not known either");
    let get = request(
        "http://schemas.xmlsoap.org/ws/2004/09/transfer/Get",
        "Msvm_CollectionSnapshotService",
        "",
        "",
    );
    let by_ticket = ["--negotiate", "--user", ":"];
    // Without a ticket nobody gets in.
    assert_eq!(realm.post(&host, &get, &by_ticket).0, "401");
    realm.login("ada");
    assert_eq!(realm.post(&host, &get, &[]).0, "401");
    let (status, reply) = realm.post(&host, &get, &by_ticket);
    assert_eq!(status, "200", "{reply}");
    assert!(
        reply.contains("Msvm_CollectionSnapshotService_Type"),
        "{reply}"
    );
    // Her role is that of the user.
    let uri = "http://schemas.microsoft.com/wbem/wsman/1/wmi/root/HyperVCluster/v2";
    let service = "Msvm_CollectionManagementService";
    let input = format!(
        "<p:DefineCollection_INPUT xmlns:p=\"{uri}/{service}\"><p:Name>x</p:Name>\
         <p:Type>0</p:Type></p:DefineCollection_INPUT>"
    );
    let define = request(
        &format!("{uri}/{service}/DefineCollection"),
        service,
        "",
        &input,
    );
    let (_, reply) = realm.post(&host, &define, &by_ticket);
    assert!(reply.contains("<p:ReturnValue>32769<"), "{reply}");
    host.json(&["user", "remove", "ada"]);
    assert_eq!(realm.post(&host, &get, &by_ticket).0, "401");
    // A name alone makes nobody a user: its realm may be anybody's.
    realm.login("mallory");
    assert_eq!(realm.post(&host, &get, &by_ticket).0, "401");
    assert!(host.path().join("state/kerberos.replays").exists());
    let log = std::fs::read_to_string(host.path().join("state/audit.log")).unwrap();
    assert!(log.contains("mallory@TEST.ORG"), "{log}");
    host.close();
}
