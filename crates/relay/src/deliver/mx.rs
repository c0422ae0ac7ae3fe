//! Which hosts take a domain's mail (RFC 5321 5.1), asked of the one configured resolver.
//!
//! MX records by preference, equal ones in random order; a domain without MX is its own host; a null MX takes no mail
//! (RFC 7505). Where we are among the hosts, only better ones count, so that mail cannot go in circles.

use std::net::IpAddr;

use hickory_resolver::proto::rr::{Name, RData, RecordType};
use postern_smtp::address::Domain;
use postern_smtp::reply::Reply;

use super::dns::{Answer, Dns};
use crate::queue::reasons;

/// Asks the DNS.
pub struct Mx {
    dns: Dns,
}

/// The hosts of a domain.
#[derive(Debug)]
pub struct Hosts {
    /// Best first.
    pub list: Vec<Host>,
    /// Whether the DNS has proved that they are the domain's.
    pub authentic: bool,
}

/// The addresses of a host.
#[derive(Debug, Default)]
pub struct Addresses {
    /// IPv6 and IPv4.
    pub list: Vec<IpAddr>,
    /// The names under which TLSA records of the host would be, in this order (RFC 7672 2.2.3); none where the DNS does
    /// not prove the addresses.
    pub tlsa_bases: Vec<Name>,
}

/// A host that takes mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// By name, without the trailing dot.
    Name(String),
    /// By address, from the configuration or an address literal.
    Address(IpAddr, String),
}

impl Host {
    /// What it is called in reasons, in certificates and to the operator.
    pub fn name(&self) -> &str {
        match self {
            Self::Name(name) | Self::Address(_, name) => name,
        }
    }
}

impl Mx {
    /// Asks with `dns`.
    pub fn new(dns: Dns) -> Self {
        Self { dns }
    }

    /// The one host of a fixed hop.
    pub fn fixed(host: &str) -> Hosts {
        Hosts {
            list: vec![host_of(host)],
            authentic: false,
        }
    }

    /// The hosts of `domain`, best first. `own` is our own name.
    pub async fn hosts(&self, domain: &str, own: &str) -> Result<Hosts, Reply> {
        if let Some(address) = domain.parse::<Domain>().ok().and_then(|domain| domain.literal()) {
            return Ok(Hosts {
                list: vec![Host::Address(address, address.to_string())],
                authentic: false,
            });
        }
        let answer = self.dns.ask(absolute(domain)?, RecordType::MX).await;
        let answer = answer.map_err(|error| reasons::dns_failed(domain, error))?;
        if answer.no_such_name {
            return Err(reasons::no_mail_host(domain));
        }
        let mut records: Vec<_> = answer
            .data
            .iter()
            .filter_map(|data| match data {
                RData::MX(mx) => Some((mx.preference, mx.exchange.to_ascii())),
                _ => None,
            })
            .collect();
        if records.is_empty() {
            // The implicit MX: the domain itself, if it has an address.
            if self.lookup(domain).await?.list.is_empty() {
                return Err(reasons::no_mail_host(domain));
            }
            records.push((0, domain.to_owned()));
        }
        Ok(Hosts {
            list: choose(domain, records, own)?,
            authentic: answer.authentic,
        })
    }

    /// The addresses of a host.
    pub async fn addresses(&self, host: &Host) -> Result<Addresses, Reply> {
        match host {
            Host::Address(address, _) => Ok(Addresses {
                list: vec![*address],
                tlsa_bases: Vec::new(),
            }),
            Host::Name(name) => match self.lookup(name).await? {
                found if found.list.is_empty() => Err(reasons::no_address(name)),
                found => Ok(found),
            },
        }
    }

    /// IPv6 and IPv4 addresses; empty where the DNS says that there are none.
    async fn lookup(&self, host: &str) -> Result<Addresses, Reply> {
        let name = absolute(host)?;
        let ask = |kind| self.dns.ask(name.clone(), kind);
        let (six, four) = tokio::join!(ask(RecordType::AAAA), ask(RecordType::A));
        let mut found = Addresses::default();
        let mut error = None;
        for answer in [six, four] {
            match answer {
                Ok(answer) => {
                    found.list.extend(answer.data.iter().filter_map(RData::ip_addr));
                    if !answer.data.is_empty() && found.tlsa_bases.is_empty() {
                        // Not knowing whether there are records is not having none.
                        let bases = self.tlsa_bases(&name, &answer).await;
                        found.tlsa_bases = bases.map_err(|error| reasons::dns_failed(host, error))?;
                    }
                }
                Err(reason) => error = Some(reason),
            }
        }
        match error {
            // Of one family alone we know enough.
            Some(error) if found.list.is_empty() => Err(reasons::dns_failed(host, error)),
            _ => Ok(found),
        }
    }

    /// Where the host is an alias, both names count if the whole way is proved, and its own if only its first step is.
    async fn tlsa_bases(&self, name: &Name, answer: &Answer) -> Result<Vec<Name>, String> {
        let alias = answer.canonical != *name;
        if answer.authentic && alias {
            return Ok(vec![answer.canonical.clone(), name.clone()]);
        }
        let own = if alias {
            let first = self.dns.ask(name.clone(), RecordType::CNAME).await?;
            first.authentic && !first.data.is_empty()
        } else {
            answer.authentic
        };
        Ok(own.then(|| name.clone()).into_iter().collect())
    }
}

/// A configured host: an address or a name.
fn host_of(host: &str) -> Host {
    host.parse().map_or_else(
        |_| Host::Name(host.to_owned()),
        |address| Host::Address(address, host.to_owned()),
    )
}

fn absolute(name: &str) -> Result<Name, Reply> {
    let mut name = Name::from_utf8(name).map_err(|_| reasons::no_mail_host(name))?;
    name.set_fqdn(true);
    Ok(name)
}

/// The order in which hosts are tried.
fn choose(domain: &str, mut records: Vec<(u16, String)>, own: &str) -> Result<Vec<Host>, Reply> {
    for (_, host) in &mut records {
        *host = host.trim_end_matches('.').to_ascii_lowercase();
    }
    if let [(_, host)] = &records[..]
        && host.is_empty()
    {
        return Err(reasons::null_mx(domain));
    }
    let ours = records
        .iter()
        .filter(|(_, host)| host.eq_ignore_ascii_case(own))
        .map(|(preference, _)| *preference)
        .min();
    records.retain(|(preference, host)| !host.is_empty() && ours.is_none_or(|ours| *preference < ours));
    if records.is_empty() {
        return Err(if ours.is_some() {
            reasons::loops_back(domain)
        } else {
            reasons::no_mail_host(domain)
        });
    }
    let mut hosts: Vec<(u16, u64, String)> = records
        .into_iter()
        .map(|(preference, host)| (preference, random(), host))
        .collect();
    hosts.sort_unstable();
    Ok(hosts.into_iter().map(|(_, _, host)| host_of(&host)).collect())
}

/// Spreads load over equal hosts; without random numbers they are tried in the order of their names.
fn random() -> u64 {
    let mut octets = [0; 8];
    let _ = aws_lc_rs::rand::fill(&mut octets);
    u64::from_le_bytes(octets)
}

#[cfg(test)]
#[path = "mx_tests.rs"]
mod tests;
