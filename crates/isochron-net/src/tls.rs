//! TLS: a certificate with its key, and whose client certificates count.
//!
//! The files are read at start and again whenever they changed; a connection keeps
//! what it began with, the next one has the new. Files that do not fit together,
//! as half-way through being replaced, change nothing. TLS 1.2 and 1.3, with
//! rustls' defaults.

use std::fmt;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair};
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};
use x509_parser::extensions::GeneralName;

/// For how long a certificate that is made here is valid.
const VALIDITY: time::Duration = time::Duration::days(3650);

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate, then those that lead to its CA.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The CAs whose client certificates are believed. None are asked for without.
    pub client_ca: Option<PathBuf>,
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A file is not what it should be, or two do not fit together.
    #[error("{}: {reason}", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// In which way.
        reason: String,
    },
}

/// What connections begin with.
pub struct Tls {
    files: Files,
    current: RwLock<Current>,
    /// What could not be used last, so that it is complained of once.
    bad: Mutex<Option<Content>>,
}

struct Current {
    content: Content,
    config: Arc<ServerConfig>,
    certificate: Certificate,
}

/// A certificate, as a person sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Its SHA-256, as `AA:BB:...`: what a person compares.
    pub fingerprint: String,
    /// Whom it says that it is of.
    pub subject: String,
    /// The host names and addresses that it is good for.
    pub names: Vec<String>,
    /// Until when it is good.
    pub expires: OffsetDateTime,
    /// Its file.
    pub file: PathBuf,
}

/// The files' bytes.
#[derive(Clone, PartialEq, Eq)]
struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// A file that is missing, is not PEM, or does not fit the others.
    pub fn open(files: Files) -> Result<Self, TlsError> {
        let content = Content::read(&files)?;
        Ok(Self {
            current: RwLock::new(Current::new(&files, content)?),
            files,
            bad: Mutex::new(None),
        })
    }

    /// The certificate that connections are shown now.
    pub fn certificate(&self) -> Certificate {
        let current = self.current.read();
        let current = current.unwrap_or_else(PoisonError::into_inner);
        current.certificate.clone()
    }

    /// Reads the files again; whether they had changed. Blocks.
    ///
    /// # Errors
    /// As [`Tls::open`]; what was read before stays.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let content = Content::read(&self.files)?;
        let same = |current: &Current| current.content == content;
        if same(&self.current.read().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(false);
        }
        let mut bad = self.bad.lock().unwrap_or_else(PoisonError::into_inner);
        if bad.as_ref() == Some(&content) {
            return Ok(false);
        }
        match Current::new(&self.files, content.clone()) {
            Ok(new) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = new;
                *bad = None;
                Ok(true)
            }
            Err(error) => {
                *bad = Some(content);
                Err(error)
            }
        }
    }

    /// Reads the files again whenever they changed or `asked` says so, without end.
    pub async fn keep_current(self: Arc<Self>, asked: Arc<Notify>) {
        let mut missing = false;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = asked.notified() => {}
            }
            let tls = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || tls.reload()).await {
                Ok(Ok(changed)) => {
                    missing = false;
                    if changed {
                        let fingerprint = self.certificate().fingerprint;
                        tracing::info!(fingerprint, "the TLS certificate was read anew");
                    }
                }
                Ok(Err(TlsError::File { .. })) if missing => {}
                Ok(Err(error)) => {
                    missing = matches!(error, TlsError::File { .. });
                    tracing::warn!(%error, "the TLS files changed and cannot be used; \
                        what was read before stays");
                }
                Err(error) => tracing::error!(%error, "the TLS files could not be looked at"),
            }
        }
    }

    pub(crate) fn current(&self) -> Arc<ServerConfig> {
        let current = self.current.read();
        Arc::clone(&current.unwrap_or_else(PoisonError::into_inner).config)
    }
}

impl Content {
    fn read(files: &Files) -> Result<Self, TlsError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|error| TlsError::File {
                path: path.to_owned(),
                error,
            })
        };
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            client_ca: files.client_ca.as_deref().map(read).transpose()?,
        })
    }
}

impl Current {
    fn new(files: &Files, content: Content) -> Result<Self, TlsError> {
        let certificates = certificates(&files.certificate, &content.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&content.key)
            .map_err(|error| bad(&files.key, format!("no private key in PEM: {error}")))?;
        let certificate = Certificate::read(&files.certificate, &certificates[0])?;
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| bad(&files.certificate, error))?;
        let builder = match (&files.client_ca, &content.client_ca) {
            (Some(path), Some(pem)) => {
                let mut roots = RootCertStore::empty();
                for root in self::certificates(path, pem)? {
                    roots.add(root).map_err(|error| bad(path, error))?;
                }
                let provider = Arc::new(default_provider());
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
                    .allow_unauthenticated()
                    .build()
                    .map_err(|error| bad(path, error))?;
                builder.with_client_cert_verifier(verifier)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(certificates, key)
            .map_err(|error| bad(&files.certificate, format!("with its key: {error}")))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            content,
            config: Arc::new(config),
            certificate,
        })
    }
}

pub(crate) fn bad(path: &Path, reason: impl fmt::Display) -> TlsError {
    TlsError::Content {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}

/// The certificates of a PEM file, at least one.
pub(crate) fn certificates(
    path: &Path,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| bad(path, format!("no PEM: {error}")))?;
    match found.is_empty() {
        true => Err(bad(path, "no certificate in it")),
        false => Ok(found),
    }
}

impl Certificate {
    fn read(file: &Path, der: &[u8]) -> Result<Self, TlsError> {
        let (_, x509) = x509_parser::parse_x509_certificate(der)
            .map_err(|error| bad(file, format!("no certificate: {error}")))?;
        let alternative = x509.subject_alternative_name().ok().flatten();
        let names = alternative.map_or_else(Vec::new, |names| {
            let names = names.value.general_names.iter();
            names.filter_map(name).collect()
        });
        Ok(Self {
            fingerprint: fingerprint(der),
            subject: x509.subject().to_string(),
            names,
            expires: x509.validity().not_after.to_datetime(),
            file: file.to_owned(),
        })
    }
}

/// A host's name or address.
fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            v4.or_else(|_| v6()).ok().map(|address| address.to_string())
        }
        _ => None,
    }
}

pub(crate) fn fingerprint(certificate: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, certificate);
    let bytes: Vec<_> = digest.as_ref().iter().map(|b| format!("{b:02X}")).collect();
    bytes.join(":")
}

/// The common name of a certificate's subject.
pub(crate) fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let name = names.next()?.as_str().ok()?.to_owned();
    // With two it would be a matter of taste who it is.
    names.next().is_none().then_some(name)
}

/// Makes a certificate for these host names and addresses, signed by itself, if
/// neither of the two files is there; whether it did. The key is for its owner
/// alone. Blocks.
///
/// # Errors
/// A directory or file cannot be made.
pub fn make_self_signed(files: &Files, names: &[String]) -> io::Result<bool> {
    if files.certificate.exists() || files.key.exists() {
        return Ok(false);
    }
    let now = OffsetDateTime::now_utc();
    let made = || -> Result<_, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.not_before = now - time::Duration::days(1);
        params.not_after = now + VALIDITY;
        params.distinguished_name = DistinguishedName::new();
        let subject = names.first().map_or("isochron", String::as_str);
        params.distinguished_name.push(DnType::CommonName, subject);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.self_signed(&key)?;
        Ok((certificate.pem(), key.serialize_pem()))
    };
    let (certificate, key) = made().map_err(io::Error::other)?;
    write(&files.key, &key, 0o600)?;
    write(&files.certificate, &certificate, 0o644)?;
    Ok(true)
}

/// Writes a file at once or not at all.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let fresh = path.with_file_name(name);
    let written = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&fresh)?;
        // Whatever the umask.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    written().inspect_err(|_| {
        let _ = fs::remove_file(&fresh);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(directory: &Path) -> Files {
        Files {
            certificate: directory.join("tls/certificate.pem"),
            key: directory.join("tls/key.pem"),
            client_ca: None,
        }
    }

    #[test]
    fn a_certificate_is_made_once_and_its_key_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let files = files(directory.path());
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        assert!(make_self_signed(&files, &names).unwrap());
        let mode = fs::metadata(&files.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let first = Tls::open(files.clone()).unwrap().certificate().fingerprint;
        assert_eq!(first.len(), 95);
        let certificate = Tls::open(files.clone()).unwrap().certificate();
        assert_eq!(certificate.names, names);
        assert!(certificate.subject.contains("localhost"));
        assert!(certificate.expires > OffsetDateTime::now_utc() + time::Duration::days(3000));
        assert!(!make_self_signed(&files, &names).unwrap());
        assert_eq!(
            Tls::open(files.clone()).unwrap().certificate().fingerprint,
            first
        );
        // A key alone is somebody's, and no reason to make another.
        fs::remove_file(&files.certificate).unwrap();
        assert!(!make_self_signed(&files, &names).unwrap());
        let error = Tls::open(files).unwrap_err().to_string();
        assert!(error.contains("certificate.pem"), "{error}");
    }

    #[test]
    fn files_are_read_anew_and_halves_change_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (here, there) = (directory.path().join("a"), directory.path().join("b"));
        let names = ["localhost".to_owned()];
        let (files, other) = (self::files(&here), self::files(&there));
        make_self_signed(&files, &names).unwrap();
        make_self_signed(&other, &names).unwrap();
        let tls = Tls::open(files.clone()).unwrap();
        let first = tls.certificate().fingerprint;
        assert!(!tls.reload().unwrap());

        fs::copy(&other.certificate, &files.certificate).unwrap();
        assert!(tls.reload().is_err());
        assert!(!tls.reload().unwrap(), "told once");
        assert_eq!(tls.certificate().fingerprint, first);
        fs::copy(&other.key, &files.key).unwrap();
        assert!(tls.reload().unwrap());
        assert_eq!(
            tls.certificate().fingerprint,
            Tls::open(other).unwrap().certificate().fingerprint
        );
        assert_ne!(tls.certificate().fingerprint, first);

        fs::write(&files.certificate, "nothing").unwrap();
        assert!(tls.reload().is_err());
        fs::remove_file(&files.certificate).unwrap();
        assert!(tls.reload().is_err());
    }

    #[test]
    fn a_client_is_the_one_common_name_of_its_certificate() {
        for (name, expected) in [(Some("ada"), Some("ada")), (None, None)] {
            let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
            params.distinguished_name = DistinguishedName::new();
            if let Some(name) = name {
                params.distinguished_name.push(DnType::CommonName, name);
            }
            let key = KeyPair::generate().unwrap();
            let certificate = params.self_signed(&key).unwrap();
            assert_eq!(common_name(certificate.der()).as_deref(), expected);
        }
        assert_eq!(common_name(b"no certificate"), None);
    }
}
