//! Who is believed on either side of a TLS connection.

#![allow(clippy::unwrap_used)] // tests end at the first surprise

use std::path::{Path, PathBuf};
use std::sync::Arc;

use isochron_net::{Files, Limits, Listener, Peer, Tls, TlsClient, Trust, make_self_signed};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

fn files(directory: &Path) -> Files {
    Files {
        certificate: directory.join("certificate.pem"),
        key: directory.join("key.pem"),
        client_ca: None,
    }
}

async fn listener(files: Files) -> (Listener, Arc<Tls>) {
    let tls = Arc::new(Tls::open(files).unwrap());
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = Listener::new(tcp, "test", Some(tls.clone()), Limits::default());
    (listener, tls)
}

#[tokio::test]
async fn a_server_is_known_by_its_fingerprint_or_its_certificate() {
    let directory = tempfile::tempdir().unwrap();
    let own = files(directory.path());
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    make_self_signed(&own, &names).unwrap();
    let other = files(&directory.path().join("other"));
    make_self_signed(&other, &names).unwrap();
    let (listener, tls) = listener(own.clone()).await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let arrival = listener.accept().await;
            tokio::spawn(async move {
                let mut connection = arrival.open().await.unwrap();
                connection.stream.write_all(b"hello").await.unwrap();
                connection.stream.shutdown().await.unwrap();
            });
        }
    });
    let of = |file: &Files| Tls::open(file.clone()).unwrap().certificate().fingerprint;
    let fingerprint = tls.certificate().fingerprint;
    for (trust, host, believed) in [
        (
            Trust::Fingerprint(fingerprint.parse().unwrap()),
            "127.0.0.1",
            true,
        ),
        // Whatever it is called.
        (
            Trust::Fingerprint(fingerprint.parse().unwrap()),
            "shop.example",
            true,
        ),
        (
            Trust::Fingerprint(of(&other).parse().unwrap()),
            "127.0.0.1",
            false,
        ),
        (Trust::Ca(own.certificate.clone()), "127.0.0.1", true),
        (Trust::Ca(own.certificate.clone()), "localhost", true),
        (Trust::Ca(own.certificate.clone()), "shop.example", false),
        (Trust::Ca(other.certificate.clone()), "127.0.0.1", false),
        (Trust::System, "127.0.0.1", false),
    ] {
        let client = TlsClient::new(&trust).unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let connected = client.connect(host, stream).await;
        assert_eq!(connected.is_ok(), believed, "{trust:?} {host}");
        if let Ok(mut stream) = connected {
            let mut text = String::new();
            stream.read_to_string(&mut text).await.unwrap();
            assert_eq!(text, "hello");
        }
    }
    let absent = Trust::Ca(directory.path().join("absent.pem"));
    assert!(TlsClient::new(&absent).is_err());
}

/// A CA, and a client's certificate and key of it.
fn client_of(name: &str) -> (String, String, String) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &ca).unwrap();
    (ca.pem(), certificate.pem(), key.serialize_pem())
}

/// Whom a listener takes a client for that shows this certificate, or none.
async fn met(files: &Files, shown: Option<(&str, &str)>) -> Option<Peer> {
    let (listener, _) = listener(files.clone()).await;
    let address = listener.local_addr().unwrap();
    let mut roots = RootCertStore::empty();
    let server = CertificateDer::from_pem_file(&files.certificate).unwrap();
    roots.add(server).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match shown {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let client = tokio::spawn(async move {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connected = TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await;
        if let Ok(mut stream) = connected {
            let _ = stream.read(&mut [0; 1]).await;
        }
    });
    let opened = listener.accept().await.open().await;
    let peer = opened.ok().map(|connection| connection.peer);
    client.await.unwrap();
    peer
}

#[tokio::test]
async fn a_client_is_known_by_a_certificate_of_the_right_ca() {
    let directory = tempfile::tempdir().unwrap();
    let mut files = files(directory.path());
    make_self_signed(&files, &["localhost".to_owned()]).unwrap();
    let (ca, certificate, key) = client_of("ada");
    let (_, forged, forged_key) = client_of("ada");
    let own: PathBuf = directory.path().join("clients.pem");
    std::fs::write(&own, ca).unwrap();
    files.client_ca = Some(own);

    let ada = met(&files, Some((&certificate, &key))).await.unwrap();
    assert_eq!(ada.certificate.as_deref(), Some("ada"));
    assert!(ada.encrypted);
    // Without one, credentials are asked for later.
    assert_eq!(met(&files, None).await.unwrap().certificate, None);
    assert!(met(&files, Some((&forged, &forged_key))).await.is_none());
}
