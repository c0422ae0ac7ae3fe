//! How a host must prove itself before mail for a domain goes to it.
//!
//! Enters: a domain, one of its hosts, and what the DNS proves about both. Leaves: a [`Demand`]. The order: DANE (RFC 7672), where
//! the DNS proves hosts and addresses; an MTA-STS policy in force (RFC 8461, which yields to DANE by its section 2); then what the
//! next hop says. A demand is never weakened afterwards.

use std::sync::Arc;

use hickory_resolver::proto::rr::Name;
use mail_auth::report::tlsrpt::{PolicyDetails, PolicyType, ResultType};
use postern_smtp::client;
use postern_smtp::reply::Reply;
use rustls::ClientConfig;
use rustls::client::WebPkiServerVerifier;

use super::dane::{self, Associations, Tlsa};
use super::dns::Dns;
use super::hop::{Encryption, Handshake, server_name};
use super::mta_sts::MtaSts;
use super::mta_sts::policy::Mode;
use super::observed::{self, Fault, Judged};
use super::tls::{self, Watched};
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
    /// What its sessions are counted as for the domain's TLS report; absent where they are not.
    pub judged: Option<Judged>,
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

/// Who is believed about hosts that MTA-STS names.
#[derive(Clone)]
pub struct Authorities {
    /// For sessions that must be proved.
    pub client: Arc<ClientConfig>,
    /// For those that are only looked at.
    pub judge: Arc<WebPkiServerVerifier>,
}

/// Finds out what is demanded.
pub struct Policies {
    /// Knows the TLSA records.
    pub dns: Dns,
    /// Knows the domains' policies, and the authorities that their hosts are believed by; absent where it is off.
    pub mta_sts: Option<(Arc<MtaSts>, Authorities)>,
}

/// What MTA-STS says of a host.
enum Standing {
    /// Nothing.
    None,
    /// The policy only tests: it is looked at and demands nothing.
    Testing(Judged, Watched),
    /// This.
    Demands(Demand),
}

impl Policies {
    /// What is demanded of a mail exchanger; the error says why nothing may be sent to it now. What is wrong with the policies
    /// themselves, whether or not mail may be sent, is added to `faults`.
    pub async fn demand(&self, question: &Question<'_>, faults: &mut Vec<Judged>) -> Result<Demand, Reply> {
        let Question {
            domain, host, port, ..
        } = *question;
        let tlsa = match dane::look_up(self.dns, port, question.tlsa_bases).await {
            Ok(tlsa) => tlsa,
            Err(error) => {
                let fault = Fault::new(ResultType::DnssecInvalid, &error);
                let policy = PolicyDetails::new(PolicyType::Tlsa, &error.base);
                faults.push(Judged::new(domain, policy).with(fault));
                return Err(reasons::dns_failed(host, error));
            }
        };
        match tlsa {
            Tlsa::Usable(published, records) => {
                let names = [published.base.as_str(), host, domain];
                let client = tls::dane(Associations::new(records, names));
                let name = server_name(&published.base)?;
                Ok(Demand {
                    tls: client::Tls::Required,
                    handshake: Some((client.map_err(reasons::unusable_next_hop)?, name)),
                    proof: Proof::Dane,
                    judged: Some(Judged::new(domain, observed::tlsa(published))),
                })
            }
            Tlsa::Unusable(published) => {
                let fault = Fault::new(ResultType::TlsaInvalid, "none of the records can be used");
                let judged = Judged::new(domain, observed::tlsa(published)).with(fault);
                if let Standing::Demands(demand) = self.mta_sts(domain, host, faults).await? {
                    faults.push(judged);
                    return Ok(demand);
                }
                let client = tls::unauthenticated().map_err(reasons::unusable_next_hop)?;
                Ok(Demand {
                    tls: client::Tls::Required,
                    handshake: Some((client, server_name(host)?)),
                    proof: Proof::None,
                    judged: Some(judged),
                })
            }
            Tlsa::None => match self.mta_sts(domain, host, faults).await? {
                Standing::Demands(demand) => Ok(demand),
                Standing::Testing(judged, seen) => {
                    let mut demand = question.encryption.demand(host)?;
                    if let (Some((client, _)), Some((_, authorities))) =
                        (&mut demand.handshake, &self.mta_sts)
                    {
                        *client = tls::watched(authorities.judge.clone(), seen)
                            .map_err(reasons::unusable_next_hop)?;
                    }
                    demand.judged = Some(judged);
                    Ok(demand)
                }
                Standing::None => {
                    let mut demand = question.encryption.demand(host)?;
                    demand.judged = Some(Judged::new(domain, observed::none(domain)));
                    Ok(demand)
                }
            },
        }
    }

    /// What a policy in force demands (RFC 8461 4.2, 5); one that only tests demands nothing.
    async fn mta_sts(&self, domain: &str, host: &str, faults: &mut Vec<Judged>) -> Result<Standing, Reply> {
        let Some((mta_sts, authorities)) = &self.mta_sts else {
            return Ok(Standing::None);
        };
        let (policy, fault) = mta_sts.policy(domain).await;
        if let Some(fault) = fault {
            let unknown = || PolicyDetails::new(PolicyType::Sts, domain);
            let policy = policy
                .as_ref()
                .map_or_else(unknown, |policy| observed::sts(domain, policy));
            faults.push(Judged::new(domain, policy).with(fault));
        }
        let Some(policy) = policy.filter(|policy| policy.mode != Mode::None) else {
            return Ok(Standing::None);
        };
        let mut judged = Judged::new(domain, observed::sts(domain, &policy));
        if !policy.names(host) {
            judged = judged.with(Fault::new(
                ResultType::ValidationFailure,
                "the policy does not name this host",
            ));
        }
        if policy.mode == Mode::Testing {
            let seen = Watched::default();
            judged.certificate = Some(seen.clone());
            return Ok(Standing::Testing(judged, seen));
        }
        if judged.fault.is_some() {
            faults.push(judged);
            return Err(reasons::not_in_policy(host, domain));
        }
        Ok(Standing::Demands(Demand {
            tls: client::Tls::Required,
            handshake: Some((authorities.client.clone(), server_name(host)?)),
            proof: Proof::MtaSts,
            judged: Some(judged),
        }))
    }
}
