//! The DKIM keys: made on the node at the first start, kept as PKCS#8 PEM in files that only the queue reads. The
//! private halves never leave the node; the public halves are told as DNS records (RFC 6376 3.6.1, RFC 8463 4.2).

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::prelude::{BASE64_STANDARD, Engine};
use mail_auth::common::crypto::{DkimKey, Ed25519Key, RsaKey};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::durable;
use crate::queue::config::Dkim;

/// What is wrong with the keys.
#[derive(Debug, thiserror::Error)]
pub enum DkimError {
    /// A file or directory of keys.
    #[error(
        "cannot {operation} the DKIM key {}: {source}; the queue's user must own the directory and its files",
        path.display()
    )]
    File {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file does not hold such a key.
    #[error(
        "the DKIM key {} cannot be used: {reason}; restore the file, or remove it so that a new key is made (and \
         then publish the new DNS record)",
        path.display()
    )]
    Key {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The library could not make a key.
    #[error("cannot make a DKIM key: the system has no random numbers or no memory left")]
    Generate,
    /// The library could not sign.
    #[error("cannot sign with DKIM: {0}")]
    Sign(String),
}

/// The kinds of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selector {
    /// RSA with 2048 bits.
    Rsa,
    /// Ed25519.
    Ed25519,
}

/// One key of one domain.
#[derive(Debug)]
pub struct KeyPair {
    /// `d=`
    pub domain: String,
    /// Which kind.
    pub selector: Selector,
    /// True where this start has made it.
    pub made: bool,
    path: PathBuf,
    private: PrivatePkcs8KeyDer<'static>,
}

/// Reads the keys of all domains below `directory`; makes those that are missing.
pub fn load_or_make(config: &Dkim, directory: &Path) -> Result<Vec<KeyPair>, DkimError> {
    let mut pairs = Vec::new();
    for domain in &config.domains {
        for selector in [Selector::Rsa, Selector::Ed25519] {
            let path = directory.join(format!("{}.{domain}.pem", selector.name(&config.selector)));
            let (private, made) = match read(&path)? {
                Some(private) => (private, false),
                None => (make(selector, directory, &path)?, true),
            };
            pairs.push(KeyPair {
                domain: domain.clone(),
                selector,
                made,
                path,
                private,
            });
        }
    }
    Ok(pairs)
}

impl KeyPair {
    /// Owner name and value of the DNS TXT record.
    pub fn record(&self, stem: &str) -> Result<(String, String), DkimError> {
        let unusable = |reason: String| DkimError::Key {
            path: self.path.clone(),
            reason,
        };
        let pkcs8 = self.private.secret_pkcs8_der();
        let (kind, public) = match self.selector {
            Selector::Rsa => {
                let pair = RsaKeyPair::from_pkcs8(pkcs8).map_err(|error| unusable(error.to_string()))?;
                let der: PublicKeyX509Der<'_> = pair
                    .public_key()
                    .as_der()
                    .map_err(|error| unusable(error.to_string()))?;
                ("rsa", BASE64_STANDARD.encode(der.as_ref()))
            }
            Selector::Ed25519 => {
                let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|error| unusable(error.to_string()))?;
                ("ed25519", BASE64_STANDARD.encode(pair.public_key().as_ref()))
            }
        };
        let name = format!("{}._domainkey.{}", self.selector.name(stem), self.domain);
        Ok((name, format!("v=DKIM1; k={kind}; p={public}")))
    }

    /// The key as mail-auth signs with it.
    pub fn into_signing_key(&self) -> Result<DkimKey, DkimError> {
        let unusable = |error: mail_auth::Error| DkimError::Key {
            path: self.path.clone(),
            reason: error.to_string(),
        };
        match self.selector {
            Selector::Rsa => RsaKey::from_key_der(PrivateKeyDer::Pkcs8(self.private.clone_key()))
                .map(DkimKey::Rsa)
                .map_err(unusable),
            Selector::Ed25519 => Ed25519Key::from_pkcs8_der(self.private.secret_pkcs8_der())
                .map(DkimKey::Ed25519)
                .map_err(unusable),
        }
    }
}

fn read(path: &Path) -> Result<Option<PrivatePkcs8KeyDer<'static>>, DkimError> {
    match std::fs::read(path) {
        Ok(pem) => PrivatePkcs8KeyDer::from_pem_slice(&pem)
            .map(Some)
            .map_err(|error| DkimError::Key {
                path: path.to_owned(),
                reason: error.to_string(),
            }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DkimError::File {
            operation: "read",
            path: path.to_owned(),
            source,
        }),
    }
}

fn make(selector: Selector, directory: &Path, path: &Path) -> Result<PrivatePkcs8KeyDer<'static>, DkimError> {
    let generate = |_| DkimError::Generate;
    let der: Pkcs8V1Der<'_> = match selector {
        Selector::Rsa => RsaKeyPair::generate(KeySize::Rsa2048)
            .and_then(|pair| pair.as_der())
            .map_err(generate)?,
        Selector::Ed25519 => Ed25519KeyPair::generate()
            .and_then(|pair| pair.as_der())
            .map_err(generate)?,
    };
    write(directory, path, &pem(der.as_ref())).map_err(|source| DkimError::File {
        operation: "write",
        path: path.to_owned(),
        source,
    })?;
    Ok(PrivatePkcs8KeyDer::from(der.as_ref().to_vec()))
}

/// Puts the key in place whole or not at all, and durably: a key whose record is published must not be lost.
fn write(directory: &Path, path: &Path, octets: &[u8]) -> io::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    durable::replace(path, octets)
}

fn pem(der: &[u8]) -> Vec<u8> {
    let mut pem = b"-----BEGIN PRIVATE KEY-----\n".to_vec();
    for line in BASE64_STANDARD.encode(der).as_bytes().chunks(64) {
        pem.extend_from_slice(line);
        pem.push(b'\n');
    }
    pem.extend_from_slice(b"-----END PRIVATE KEY-----\n");
    pem
}
