//! DANE for SMTP: what the DNS says a host's certificate must be (RFC 7672; RFC 6698, RFC 7671).
//!
//! Enters: a host whose MX and address records were validated, see [`super::dns`]. Leaves: [`Tlsa`], and from it a rule for the TLS
//! handshake ([`Associations`]). Only usages DANE-TA(2) and DANE-EE(3) count between mail servers (RFC 7672 3.1.3);
//! a host with records of which none can be used is still encrypted, but not authenticated (RFC 7672 2.2).

use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::digest;
use hickory_resolver::proto::rr::rdata::TLSA;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, Error, OtherError, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::dns::Dns;
use crate::tls::provider;

/// What the DNS says about a host's certificate.
#[derive(Debug)]
pub enum Tlsa {
    /// Nothing that counts: no records, or not validated.
    None,
    /// Records that none of our rules can use: encrypted, whoever it is.
    Unusable(Published),
    /// The certificate must fit one of these.
    Usable(Published, Vec<Association>),
}

/// The records of a host, as they are published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The base domain; also for SNI (RFC 7672 8.1).
    pub base: String,
    /// Each in presentation format (RFC 6698 2.2).
    pub records: Vec<String>,
}

/// The DNS has no answer about a host's records.
#[derive(Debug, thiserror::Error)]
#[error("{name} TLSA: {reason}")]
pub struct Unanswered {
    /// The base domain.
    pub base: String,
    name: Name,
    reason: String,
}

/// The certificate is none of those that the DNS names.
#[derive(Debug, thiserror::Error)]
#[error("the certificate fits no TLSA record")]
pub struct Unmatched;

/// One usable record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Association {
    usage: Usage,
    selector: Selector,
    matching: Matching,
    data: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Usage {
    /// DANE-TA(2)
    Authority,
    /// DANE-EE(3)
    Server,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Selector {
    Certificate,
    Key,
}

/// By strength.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Matching {
    Whole,
    Sha256,
    Sha512,
}

/// Looks for records of `port` at the base domains in their order (RFC 7672 2.2.3). The error says why the DNS does not
/// answer: then nothing may be sent to the host.
pub async fn look_up(dns: Dns, port: u16, bases: &[Name]) -> Result<Tlsa, Unanswered> {
    for base in bases {
        // A name too long for the prefix can have no such records.
        let Ok(name) =
            Name::from_ascii(format!("_{port}._tcp")).and_then(|prefix| prefix.append_domain(base))
        else {
            continue;
        };
        let text = base.to_ascii().trim_end_matches('.').to_ascii_lowercase();
        let answer = match dns.ask(name.clone(), RecordType::TLSA).await {
            Ok(answer) => answer,
            Err(reason) => {
                return Err(Unanswered {
                    base: text,
                    name,
                    reason,
                });
            }
        };
        if !answer.authentic || answer.data.is_empty() {
            continue;
        }
        let usable: Vec<Association> = answer.data.iter().filter_map(Association::from_record).collect();
        let published = Published {
            base: text,
            records: answer.data.iter().filter_map(presentation).collect(),
        };
        return Ok(if usable.is_empty() {
            Tlsa::Unusable(published)
        } else {
            Tlsa::Usable(published, strongest(usable))
        });
    }
    Ok(Tlsa::None)
}

fn presentation(data: &RData) -> Option<String> {
    let RData::TLSA(tlsa) = data else {
        return None;
    };
    let mut data = String::with_capacity(2 * tlsa.cert_data.len());
    for octet in &tlsa.cert_data {
        // Writing to a string cannot fail.
        let _ = write!(data, "{octet:02x}");
    }
    let (usage, selector) = (u8::from(tlsa.cert_usage), u8::from(tlsa.selector));
    Some(format!("{usage} {selector} {} {data}", u8::from(tlsa.matching)))
}

impl Association {
    fn from_record(data: &RData) -> Option<Self> {
        let RData::TLSA(TLSA {
            cert_usage,
            selector,
            matching,
            cert_data,
            ..
        }) = data
        else {
            return None;
        };
        let association = Self {
            usage: match u8::from(*cert_usage) {
                2 => Usage::Authority,
                3 => Usage::Server,
                _ => return None,
            },
            selector: match u8::from(*selector) {
                0 => Selector::Certificate,
                1 => Selector::Key,
                _ => return None,
            },
            matching: match u8::from(*matching) {
                0 => Matching::Whole,
                1 => Matching::Sha256,
                2 => Matching::Sha512,
                _ => return None,
            },
            data: cert_data.clone(),
        };
        let fits = match association.matching {
            Matching::Whole => !association.data.is_empty(),
            Matching::Sha256 => association.data.len() == digest::SHA256_OUTPUT_LEN,
            Matching::Sha512 => association.data.len() == digest::SHA512_OUTPUT_LEN,
        };
        fits.then_some(association)
    }

    fn matches(&self, certificate: &CertificateDer<'_>) -> bool {
        let key;
        let octets: &[u8] = match self.selector {
            Selector::Certificate => certificate,
            Selector::Key => match ParsedCertificate::try_from(certificate) {
                Ok(parsed) => {
                    key = parsed.subject_public_key_info();
                    &key
                }
                Err(_) => return false,
            },
        };
        match self.matching {
            Matching::Whole => octets == self.data,
            Matching::Sha256 => digest::digest(&digest::SHA256, octets).as_ref() == self.data,
            Matching::Sha512 => digest::digest(&digest::SHA512, octets).as_ref() == self.data,
        }
    }
}

/// Of digests for the same usage and selector only the strongest kind counts (RFC 7671 9); whole values always do.
fn strongest(mut records: Vec<Association>) -> Vec<Association> {
    let all = records.clone();
    records.retain(|one| {
        let stronger = |other: &Association| {
            (other.usage, other.selector) == (one.usage, one.selector) && other.matching > one.matching
        };
        one.matching == Matching::Whole || !all.iter().any(stronger)
    });
    records
}

/// The rule for a handshake.
#[derive(Debug)]
pub struct Associations {
    records: Vec<Association>,
    /// Names of which a certificate under a DANE-TA record must bear one (RFC 7672 3.2.2).
    names: Vec<ServerName<'static>>,
}

impl Associations {
    /// `names`: the base domain, the host, the recipients' domain. What cannot be in a certificate is passed over.
    pub fn new<'a>(records: Vec<Association>, names: impl IntoIterator<Item = &'a str>) -> Self {
        let names = names
            .into_iter()
            .filter_map(|name| ServerName::try_from(name.to_owned()).ok());
        Self {
            records,
            names: names.collect(),
        }
    }

    /// Whether what the server shows fits a record. DANE-EE looks at nothing else, neither name nor date (RFC 7672 3.1.1).
    pub(super) fn check(
        &self,
        server: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let of = |usage| self.records.iter().filter(move |record| record.usage == usage);
        if of(Usage::Server).any(|record| record.matches(server)) {
            return Ok(());
        }
        let mut roots = RootCertStore::empty();
        for record in of(Usage::Authority) {
            for certificate in chain.iter().filter(|certificate| record.matches(certificate)) {
                // One that cannot be an authority is none.
                let _ = roots.add(certificate.clone().into_owned());
            }
            if (record.selector, record.matching) == (Selector::Certificate, Matching::Whole) {
                let _ = roots.add(CertificateDer::from(record.data.clone()));
            }
        }
        let mut error = Error::InvalidCertificate(CertificateError::UnknownIssuer);
        if roots.is_empty() {
            return Err(Error::Other(OtherError(Arc::new(Unmatched))));
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        for name in &self.names {
            match verifier.verify_server_cert(server, chain, name, &[], now) {
                Ok(_) => return Ok(()),
                Err(reason) => error = reason,
            }
        }
        Err(error)
    }
}
