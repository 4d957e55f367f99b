//! The client's side of TLS: which server is believed to be the one that was meant.
//!
//! By the system's CAs, by those of a file, or by the fingerprint of the certificate
//! itself, which is how a person gets to know a server that made its own.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{
    HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier,
};
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::TlsError;
use crate::tls::{bad, certificates, fingerprint};

/// Which server is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// One whose certificate a CA of this system signed, for the name that is asked for.
    #[default]
    System,
    /// One whose certificate is in this file (PEM), or signed by one that is, for the
    /// name that is asked for.
    Ca(PathBuf),
    /// The one with this certificate, whatever it says.
    Fingerprint(Fingerprint),
}

/// A certificate's SHA-256, as `AA:BB:...`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint(String);

impl FromStr for Fingerprint {
    type Err = String;

    /// Reads 32 bytes in hexadecimal, with or without colons.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits: String = text.chars().filter(|c| *c != ':').collect();
        let right = digits.len() == 64 && digits.chars().all(|c| c.is_ascii_hexdigit());
        if !right {
            return Err(format!(
                "{text:?} is no SHA-256 fingerprint: 32 bytes as AA:BB:..."
            ));
        }
        let digits = digits.to_ascii_uppercase();
        let bytes: Vec<_> = (0..64).step_by(2).map(|at| &digits[at..at + 2]).collect();
        Ok(Self(bytes.join(":")))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The bytes of a connection to a server.
pub type TlsStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Connects with TLS to servers that are believed.
#[derive(Clone)]
pub struct TlsClient(Arc<ClientConfig>);

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsClient").finish_non_exhaustive()
    }
}

impl TlsClient {
    /// A client that believes so. Reads files: blocks.
    ///
    /// # Errors
    /// A file that cannot be read or holds no certificate.
    pub fn new(trust: &Trust) -> Result<Self, TlsError> {
        let provider = Arc::new(default_provider());
        let algorithms = provider.signature_verification_algorithms;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| bad("TLS".as_ref(), error))?;
        let config = match trust {
            Trust::System => {
                let mut roots = RootCertStore::empty();
                // What the system has in bad shape is its business; without any,
                // nobody is believed.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                builder.with_root_certificates(roots).with_no_client_auth()
            }
            Trust::Ca(path) => {
                let pem = std::fs::read(path).map_err(|error| TlsError::File {
                    path: path.clone(),
                    error,
                })?;
                let mut roots = RootCertStore::empty();
                for root in certificates(path, &pem)? {
                    roots.add(root).map_err(|error| bad(path, error))?;
                }
                builder.with_root_certificates(roots).with_no_client_auth()
            }
            Trust::Fingerprint(expected) => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(ByFingerprint {
                    expected: expected.clone(),
                    algorithms,
                }))
                .with_no_client_auth(),
        };
        Ok(Self(Arc::new(config)))
    }

    /// Does the handshake with a server of this name or address.
    ///
    /// # Errors
    /// It is not believed, or the handshake failed otherwise.
    pub async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<TlsStream> {
        let name = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(&self.0));
        connector.connect(name, stream).await
    }
}

/// Believes one certificate; that the server has its key is verified as always.
#[derive(Debug)]
struct ByFingerprint {
    expected: Fingerprint,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ByFingerprint {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match fingerprint(end_entity) == self.expected.0 {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_with_and_without_colons() {
        let bytes: Vec<_> = (0..32).map(|byte| format!("{byte:02x}")).collect();
        let plain: Fingerprint = bytes.concat().parse().unwrap();
        assert_eq!(bytes.join(":").parse(), Ok(plain.clone()));
        assert_eq!(plain.to_string(), bytes.join(":").to_uppercase());
        for text in ["", "AA:BB", &"g0".repeat(32), &"00".repeat(33)] {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }
}
