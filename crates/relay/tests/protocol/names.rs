//! Certificates made for one run: an authority, the server's, and clients'.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// An authority and what it signed.
pub(crate) struct Names {
    authority: CertificateDer<'static>,
    internal: (CertificateDer<'static>, String),
    stranger: (CertificateDer<'static>, String),
}

impl Names {
    /// Makes them, and writes `ca.crt`, `smtp.crt` and `smtp.key` into `directory`.
    pub(crate) fn new(directory: &Path) -> Self {
        let (issuer, authority) = authority();
        let (other_issuer, _) = authority_named("another authority");
        let (server, key) = signed("mx1.example.org", &issuer);
        write(directory, "ca.crt", &pem("CERTIFICATE", &authority));
        write(directory, "smtp.crt", &pem("CERTIFICATE", &server));
        write(directory, "smtp.key", &key);
        Self {
            authority,
            internal: signed("mail.example.org", &issuer),
            stranger: signed("mail.example.org", &other_issuer),
        }
    }

    /// A client that shows the certificate called `certificate`, or none.
    pub(crate) fn client(&self, certificate: &str) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.clone()).expect("our authority is one");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS 1.2 and 1.3")
            .with_root_certificates(roots);
        let (chain, key) = match certificate {
            "" => return builder.with_no_client_auth(),
            "internal" => &self.internal,
            "stranger" => &self.stranger,
            other => panic!("there is no certificate called {other}"),
        };
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("our key is one");
        builder
            .with_client_auth_cert(vec![chain.clone()], key)
            .expect("key and certificate fit")
    }
}

fn authority() -> (Issuer<'static, KeyPair>, CertificateDer<'static>) {
    authority_named("test authority")
}

fn authority_named(name: &str) -> (Issuer<'static, KeyPair>, CertificateDer<'static>) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("an authority").der().clone();
    (Issuer::new(params, key), certificate)
}

fn signed(name: &str, issuer: &Issuer<'static, KeyPair>) -> (CertificateDer<'static>, String) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    (certificate.der().clone(), key.serialize_pem())
}

fn pem(label: &str, der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

fn write(directory: &Path, name: &str, text: &str) {
    std::fs::write(directory.join(name), text).expect("a credential can be written");
}
