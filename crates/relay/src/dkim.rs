//! DKIM signing of outbound mail (RFC 6376), with two keys for each domain: RSA-2048 and Ed25519 (RFC 8463).
//!
//! Enters: a message, in parts. Leaves: header fields to put in front of it. Relaxed/relaxed; From, To and Subject are
//! listed once more than they occur (RFC 6376 8.15), as is every listed field that is missing, so that none can be
//! added later. The domain is that of the From field: only then is the signature aligned for DMARC (RFC 7489 3.1.1).

pub mod keys;

use std::collections::BTreeMap;

use mail_auth::common::crypto::DkimKey;
use mail_auth::common::headers::HeaderWriter;
use mail_auth::dkim::{Canonicalization, DkimSigner, DkimSigningStream, Done};

use crate::queue::config::Dkim;
pub use keys::DkimError;
use keys::{KeyPair, Selector};

/// Signed fields (RFC 6376 5.4.1). Those that stand twice are protected against a second one besides.
const FIELDS: [&str; 15] = [
    "From",
    "From",
    "To",
    "To",
    "Subject",
    "Subject",
    "Cc",
    "Date",
    "Message-ID",
    "Reply-To",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
];

/// Largest header section in which From is looked for.
pub const MAX_HEADER: usize = 1 << 20;

/// A key with its selector.
type Named = (String, DkimSigner<DkimKey, Done>);

/// The keys of all domains, ready to sign.
pub struct Signers {
    domains: BTreeMap<String, Vec<Named>>,
}

impl Signers {
    /// Signers for the keys that [`keys::load_or_make`] has.
    pub fn new(config: &Dkim, pairs: Vec<KeyPair>) -> Result<Self, DkimError> {
        let mut domains: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for pair in pairs {
            let selector = pair.selector.name(&config.selector);
            let signer = DkimSigner::from_key(pair.into_signing_key()?)
                .domain(pair.domain.clone())
                .selector(selector.clone())
                .headers(FIELDS)
                .header_canonicalization(Canonicalization::Relaxed)
                .body_canonicalization(Canonicalization::Relaxed);
            domains
                .entry(pair.domain.to_ascii_lowercase())
                .or_default()
                .push((selector, signer));
        }
        Ok(Self { domains })
    }

    /// Starts signatures for a message with this header section; `None` where the domain of its author has no keys.
    pub fn begin(&self, header: &[u8]) -> Option<Signing<'_>> {
        let domain = author_domain(header)?;
        let signers = self.domains.get(&domain)?;
        let streams = signers
            .iter()
            .map(|(_, signer)| signer.sign_streaming())
            .collect();
        let selectors = signers.iter().map(|(selector, _)| selector.clone()).collect();
        Some(Signing {
            domain,
            selectors,
            streams,
        })
    }
}

/// Signatures over a message that is being read.
pub struct Signing<'a> {
    /// `d=` of the signatures.
    pub domain: String,
    /// `s=` of the signatures.
    pub selectors: Vec<String>,
    streams: Vec<DkimSigningStream<'a, DkimKey>>,
}

impl Signing<'_> {
    /// Takes the next octets of the message.
    pub fn write(&mut self, octets: &[u8]) {
        for stream in &mut self.streams {
            stream.write(octets);
        }
    }

    /// The DKIM-Signature fields, each with its line end.
    pub fn finish(self) -> Result<Vec<u8>, DkimError> {
        let mut fields = Vec::new();
        for stream in self.streams {
            let signature = stream
                .finish()
                .map_err(|error| DkimError::Sign(error.to_string()))?;
            fields.extend_from_slice(signature.to_header().as_bytes());
        }
        Ok(fields)
    }
}

/// Domain of the one author in the From field, in lower case; `None` where there is not exactly one From field with
/// exactly one address, because such mail would fail DMARC whatever it is signed with.
pub fn author_domain(header: &[u8]) -> Option<String> {
    let message = mail_parser::MessageParser::new().parse_headers(header)?;
    let mut from = message
        .headers()
        .iter()
        .filter(|field| field.name == mail_parser::HeaderName::From);
    let field = from.next()?;
    if from.next().is_some() {
        return None;
    }
    let mut addresses = field.value().as_address()?.iter();
    let address = addresses.next()?.address()?;
    if addresses.next().is_some() {
        return None;
    }
    address
        .rsplit_once('@')
        .map(|(_, domain)| domain.to_ascii_lowercase())
}

impl Selector {
    /// The selector's full name.
    pub fn name(self, stem: &str) -> String {
        match self {
            Self::Rsa => format!("{stem}-rsa"),
            Self::Ed25519 => format!("{stem}-ed25519"),
        }
    }
}

#[cfg(test)]
#[path = "dkim/tests.rs"]
mod tests;
