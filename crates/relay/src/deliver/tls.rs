//! TLS towards next hops that have no certificate of our authority.
//!
//! Between strangers the name of a mail exchanger comes from the DNS, so a certificate for it proves nothing unless
//! DANE or MTA-STS says what it must be (RFC 7672 1.3, RFC 8461; see [`super::policy`]). Without these, mandatory encryption keeps those out
//! who only listen; the handshake's signatures are checked, the certificate's names and issuer are not.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::dane::Associations;
use crate::tls::{TlsError, provider, roots};

/// Encryption without authentication.
pub fn unauthenticated() -> Result<Arc<ClientConfig>, TlsError> {
    with_rule(Rule::AnyCertificate)
}

/// Encryption where the certificate must be what the DNS says (RFC 7672).
pub fn dane(associations: Associations) -> Result<Arc<ClientConfig>, TlsError> {
    with_rule(Rule::Dane(associations))
}

fn with_rule(rule: Rule) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = Arc::new(Verifier {
        rule,
        provider: provider(),
    });
    let client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(Arc::new(client))
}

/// What is wrong with a certificate that was taken all the same; empty where nothing is, or before the handshake.
pub type Watched = Arc<OnceLock<rustls::Error>>;

/// Encryption without authentication, where what `judge` would have said of the certificate is put into `seen`.
pub fn watched(judge: Arc<WebPkiServerVerifier>, seen: Watched) -> Result<Arc<ClientConfig>, TlsError> {
    with_rule(Rule::Watch(judge, seen))
}

/// Who says whether a certificate is of the authority in `path`, or of one that web servers are believed by.
pub fn judge(path: Option<&Path>) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    let authorities = path.map_or_else(|| Ok(public_roots()), roots)?;
    WebPkiServerVerifier::builder_with_provider(Arc::new(authorities), provider())
        .build()
        .map_err(unusable)
}

/// Encryption where the server proves itself by a certificate of the authority in `path`.
pub fn authenticated(path: &Path) -> Result<Arc<ClientConfig>, TlsError> {
    believing(roots(path)?)
}

/// Encryption where the server proves itself by a certificate of an authority that web servers are believed by.
pub fn public() -> Result<Arc<ClientConfig>, TlsError> {
    believing(public_roots())
}

fn public_roots() -> RootCertStore {
    webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()
}

fn believing(authorities: RootCertStore) -> Result<Arc<ClientConfig>, TlsError> {
    let client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_root_certificates(authorities)
        .with_no_client_auth();
    Ok(Arc::new(client))
}

fn unusable(error: impl std::fmt::Display) -> TlsError {
    TlsError::Unusable {
        what: "outbound TLS".into(),
        reason: error.to_string(),
    }
}

/// Which certificates are taken.
#[derive(Debug)]
enum Rule {
    AnyCertificate,
    Dane(Associations),
    Watch(Arc<WebPkiServerVerifier>, Watched),
}

/// A rule of ours for certificates; the server must always hold its key.
#[derive(Debug)]
struct Verifier {
    rule: Rule,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        server: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.rule {
            Rule::AnyCertificate => {}
            Rule::Dane(associations) => associations.check(server, chain, now)?,
            Rule::Watch(judge, seen) => {
                if let Err(error) = judge.verify_server_cert(server, chain, name, stapled, now) {
                    // Of one handshake there is one answer.
                    let _ = seen.set(error);
                }
            }
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
