//! TLS towards clients and towards the internal node: rustls, aws-lc-rs, versions 1.2 and 1.3 (RFC 8996, RFC 9325).
//!
//! Everything is read before the sandbox stands; each error names the file and how to mend it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use postern_smtp::server::TlsInfo;
use rustls::client::verify_server_name;
use rustls::crypto::CryptoProvider;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, CommonState, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::config::{Authentication, Config, InboundTls, Instance, SharedState};
use crate::queue::config::SmtpHop;

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file cannot be read.
    #[error(
        "{what} {}: {reason}; name an existing PEM file that this process's user may read (relative names are looked \
         up in $CREDENTIALS_DIRECTORY, then beside the configuration)",
        path.display()
    )]
    Pem {
        /// `certificate`, `key` or `client-ca`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificate and key do not fit, or an authority is none.
    #[error("{what}: {reason}; see that key and certificate belong together and are of a kind TLS knows")]
    Unusable {
        /// Which table.
        what: String,
        /// What rustls says.
        reason: String,
    },
    /// A key that mutual TLS needs is missing.
    #[error("{what}: mutual TLS needs `{key}`; add it to the table")]
    Missing {
        /// Which table.
        what: String,
        /// The key.
        key: &'static str,
    },
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// The server side of one instance; `None` where TLS is off.
pub fn acceptor(
    config: &Config,
    name: &str,
    instance: &Instance,
) -> Result<Option<Arc<ServerConfig>>, TlsError> {
    if instance.tls == InboundTls::Off {
        return Ok(None);
    }
    let table = format!("[instance.{name}]");
    let unusable = |reason: String| TlsError::Unusable {
        what: table.clone(),
        reason,
    };
    let missing = |key| TlsError::Missing {
        what: table.clone(),
        key,
    };
    let chain =
        certificates(&config.credential(instance.certificate.as_deref().ok_or(missing("certificate"))?))?;
    let key = private_key(&config.credential(instance.key.as_deref().ok_or(missing("key"))?))?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.to_string()))?;
    let builder = match (instance.authentication, &instance.client_ca) {
        (Authentication::ClientCertificate, Some(authority)) => {
            let roots = Arc::new(roots(&config.credential(authority))?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
                .allow_unauthenticated()
                .build()
                .map_err(|error| unusable(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
        _ => builder.with_no_client_auth(),
    };
    let server = builder
        .with_single_cert(chain, key)
        .map_err(|error| unusable(error.to_string()))?;
    Ok(Some(Arc::new(server)))
}

/// The client side of a mutual connection to `hop`, and the name expected of it.
pub fn mutual(
    config: &Config,
    name: &str,
    hop: &SmtpHop,
) -> Result<(Arc<ClientConfig>, ServerName<'static>), TlsError> {
    let table = format!("[next-hop.{name}]");
    let missing = |key| TlsError::Missing {
        what: table.clone(),
        key,
    };
    let files = [
        hop.ca.as_deref().ok_or(missing("ca"))?,
        hop.certificate.as_deref().ok_or(missing("certificate"))?,
        hop.key.as_deref().ok_or(missing("key"))?,
    ];
    let expected = hop.server_name.clone().unwrap_or_else(|| hop.host.clone());
    client(config, &table, files, expected)
}

/// The client side of the connection to the shared state, and the name expected of its server.
pub fn shared_state(
    config: &Config,
    state: &SharedState,
) -> Result<(Arc<ClientConfig>, ServerName<'static>), TlsError> {
    let files = [&*state.ca, &*state.certificate, &*state.key];
    client(config, "[shared-state]", files, state.server_name.clone())
}

fn client(
    config: &Config,
    table: &str,
    [ca, certificate, key]: [&Path; 3],
    expected: String,
) -> Result<(Arc<ClientConfig>, ServerName<'static>), TlsError> {
    let unusable = |reason: String| TlsError::Unusable {
        what: table.to_owned(),
        reason,
    };
    let authority = roots(&config.credential(ca))?;
    let chain = certificates(&config.credential(certificate))?;
    let key = private_key(&config.credential(key))?;
    let expected =
        ServerName::try_from(expected).map_err(|error| unusable(format!("server-name: {error}")))?;
    let client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.to_string()))?
        .with_root_certificates(authority)
        .with_client_auth_cert(chain, key)
        .map_err(|error| unusable(error.to_string()))?;
    Ok((Arc::new(client), expected))
}

fn pem<T>(
    what: &'static str,
    path: &Path,
    result: Result<T, rustls_pki_types::pem::Error>,
) -> Result<T, TlsError> {
    result.map_err(|error| TlsError::Pem {
        what,
        path: path.to_owned(),
        reason: match error {
            rustls_pki_types::pem::Error::Io(error) => error.to_string(),
            rustls_pki_types::pem::Error::NoItemsFound => "the file holds nothing of this kind".to_owned(),
            other => other.to_string(),
        },
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain: Result<Vec<_>, _> = pem("certificate", path, CertificateDer::pem_file_iter(path))?.collect();
    let chain = pem("certificate", path, chain)?;
    if chain.is_empty() {
        pem(
            "certificate",
            path,
            Err(rustls_pki_types::pem::Error::NoItemsFound),
        )?;
    }
    Ok(chain)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    pem("key", path, PrivateKeyDer::from_pem_file(path))
}

pub(crate) fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(path)? {
        store.add(certificate).map_err(|error| TlsError::Pem {
            what: "client-ca",
            path: path.to_owned(),
            reason: error.to_string(),
        })?;
    }
    Ok(store)
}

/// The first of `names` that the client's certificate is valid for. rustls has verified its chain already.
pub fn proven_name(connection: &CommonState, names: &[String]) -> Option<String> {
    let certificate = ParsedCertificate::try_from(connection.peer_certificates()?.first()?).ok()?;
    names
        .iter()
        .find(|name| {
            ServerName::try_from(name.as_str())
                .is_ok_and(|name| verify_server_name(&certificate, &name).is_ok())
        })
        .cloned()
}

/// Version and cipher suite, as written in Received fields and events.
pub fn info(connection: &CommonState) -> TlsInfo {
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLS",
    };
    let cipher = connection
        .negotiated_cipher_suite()
        .and_then(|suite| suite.suite().as_str())
        .unwrap_or("unknown")
        .replace("TLS13_", "TLS_");
    TlsInfo {
        version: version.into(),
        cipher,
    }
}
