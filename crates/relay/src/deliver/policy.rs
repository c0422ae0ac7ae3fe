//! How a host must prove itself before mail for a domain goes to it.
//!
//! Enters: a domain, one of its hosts, and what the DNS proves about both. Leaves: a [`Demand`]. The order: DANE (RFC 7672), where
//! the DNS proves hosts and addresses; an MTA-STS policy in force (RFC 8461, which yields to DANE by its section 2); then what the
//! next hop says. A demand is never weakened afterwards.

use std::sync::Arc;

use hickory_resolver::proto::rr::Name;
use postern_smtp::client;
use postern_smtp::reply::Reply;
use rustls::ClientConfig;

use super::dane::{self, Associations, Tlsa};
use super::dns::Dns;
use super::hop::{Encryption, Handshake, server_name};
use super::mta_sts::MtaSts;
use super::mta_sts::policy::Mode;
use super::tls;
use crate::queue::reasons;

/// What is demanded of a host.
#[derive(Debug, Clone)]
pub struct Demand {
    /// Whether TLS is.
    pub tls: client::Tls,
    /// What the handshake needs; absent where there is none.
    pub handshake: Option<Handshake>,
    /// What the handshake proves.
    pub proof: Proof,
}

impl Demand {
    /// The host in reasons, with what was demanded of it.
    pub fn describe(&self, host: &str) -> String {
        match self.proof {
            Proof::None => host.to_owned(),
            proof => format!("{host} (authentication: {})", proof.as_str()),
        }
    }
}

/// How a host has proved that it is the right one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Not at all.
    None,
    /// Both sides, by certificates of the site's authority.
    Mutual,
    /// By a certificate of an authority that the next hop names.
    Authority,
    /// By TLSA records.
    Dane,
    /// By a certificate for its name, which the domain's policy names.
    MtaSts,
}

impl Proof {
    /// The word of events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Mutual => "mutual",
            Self::Authority => "authority",
            Self::Dane => "dane",
            Self::MtaSts => "mta-sts",
        }
    }
}

/// What is asked about a host.
pub struct Question<'a> {
    /// Of the recipients.
    pub domain: &'a str,
    /// The host's name.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
    /// Where its TLSA records would be; none where the DNS does not prove that the host is the domain's.
    pub tlsa_bases: &'a [Name],
    /// What the next hop says.
    pub encryption: &'a Encryption,
}

/// Finds out what is demanded.
pub struct Policies {
    /// Knows the TLSA records.
    pub dns: Dns,
    /// Knows the domains' policies, and the authorities that their hosts are believed by; absent where it is off.
    pub mta_sts: Option<(Arc<MtaSts>, Arc<ClientConfig>)>,
}

impl Policies {
    /// What is demanded of a mail exchanger; the error says why nothing may be sent to it now.
    pub async fn demand(&self, question: &Question<'_>) -> Result<Demand, Reply> {
        let Question {
            domain, host, port, ..
        } = *question;
        let tlsa = dane::look_up(self.dns, port, question.tlsa_bases).await;
        match tlsa.map_err(|error| reasons::dns_failed(host, error))? {
            Tlsa::Usable(base, records) => {
                let names = [base.as_str(), host, domain];
                let client = tls::dane(Associations::new(records, names));
                Ok(Demand {
                    tls: client::Tls::Required,
                    handshake: Some((client.map_err(reasons::unusable_next_hop)?, server_name(&base)?)),
                    proof: Proof::Dane,
                })
            }
            Tlsa::Unusable => {
                if let Some(demand) = self.mta_sts(domain, host).await? {
                    return Ok(demand);
                }
                let client = tls::unauthenticated().map_err(reasons::unusable_next_hop)?;
                Ok(Demand {
                    tls: client::Tls::Required,
                    handshake: Some((client, server_name(host)?)),
                    proof: Proof::None,
                })
            }
            Tlsa::None => match self.mta_sts(domain, host).await? {
                Some(demand) => Ok(demand),
                None => question.encryption.demand(host),
            },
        }
    }

    /// What a policy in force demands (RFC 8461 4.2, 5); one that only tests demands nothing.
    async fn mta_sts(&self, domain: &str, host: &str) -> Result<Option<Demand>, Reply> {
        let Some((mta_sts, client)) = &self.mta_sts else {
            return Ok(None);
        };
        let Some(policy) = mta_sts
            .policy(domain)
            .await
            .filter(|policy| policy.mode == Mode::Enforce)
        else {
            return Ok(None);
        };
        if !policy.names(host) {
            return Err(reasons::not_in_policy(host, domain));
        }
        Ok(Some(Demand {
            tls: client::Tls::Required,
            handshake: Some((client.clone(), server_name(host)?)),
            proof: Proof::MtaSts,
        }))
    }
}
