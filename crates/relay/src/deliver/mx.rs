//! Which hosts take a domain's mail (RFC 5321 5.1), asked of the one configured resolver.
//!
//! MX records by preference, equal ones in random order; a domain without MX is its own host; a null MX takes no mail
//! (RFC 7505). Where we are among the hosts, only better ones count, so that mail cannot go in circles.

use std::net::{IpAddr, SocketAddr};

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use postern_smtp::address::Domain;
use postern_smtp::reply::Reply;

use crate::queue::reasons;
use crate::resolver::ResolverError;

/// Asks the DNS.
pub struct Mx {
    resolver: TokioResolver,
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
    /// Asks the resolver at `address` and nobody else: no hosts file, no search list, no public resolver.
    pub fn new(address: SocketAddr) -> Result<Self, ResolverError> {
        Ok(Self {
            resolver: crate::resolver::resolver(address)?,
        })
    }

    /// The one host of a fixed hop.
    pub fn fixed(host: &str) -> Vec<Host> {
        vec![host_of(host)]
    }

    /// The hosts of `domain`, best first. `own` is our own name.
    pub async fn hosts(&self, domain: &str, own: &str) -> Result<Vec<Host>, Reply> {
        if let Some(address) = domain.parse::<Domain>().ok().and_then(|domain| domain.literal()) {
            return Ok(vec![Host::Address(address, address.to_string())]);
        }
        let name = absolute(domain)?;
        match self.resolver.lookup(name, RecordType::MX).await {
            Ok(lookup) => {
                let records: Vec<_> = lookup
                    .answers()
                    .iter()
                    .filter_map(|record| match &record.data {
                        RData::MX(mx) => Some((mx.preference, mx.exchange.to_ascii())),
                        _ => None,
                    })
                    .collect();
                // An alias only: its target has no MX records.
                if records.is_empty() {
                    return self.itself(domain, own).await;
                }
                choose(domain, records, own)
            }
            Err(error) if error.is_nx_domain() => Err(reasons::no_mail_host(domain)),
            Err(error) if error.is_no_records_found() => self.itself(domain, own).await,
            Err(error) => Err(reasons::dns_failed(domain, error)),
        }
    }

    /// The implicit MX: the domain itself, if it has an address.
    async fn itself(&self, domain: &str, own: &str) -> Result<Vec<Host>, Reply> {
        match self.lookup(domain).await {
            Ok(addresses) if addresses.is_empty() => Err(reasons::no_mail_host(domain)),
            Ok(_) => choose(domain, vec![(0, domain.to_owned())], own),
            Err(error) => Err(reasons::dns_failed(domain, error)),
        }
    }

    /// The addresses of a host.
    pub async fn addresses(&self, host: &Host) -> Result<Vec<IpAddr>, Reply> {
        match host {
            Host::Address(address, _) => Ok(vec![*address]),
            Host::Name(name) => match self.lookup(name).await {
                Ok(addresses) if addresses.is_empty() => Err(reasons::no_address(name)),
                Ok(addresses) => Ok(addresses),
                Err(error) => Err(reasons::dns_failed(name, error)),
            },
        }
    }

    /// IPv6 and IPv4 addresses; empty where the DNS says that there are none.
    async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        let name = absolute(name).map_err(|reply| reply.text())?;
        match self.resolver.lookup_ip(name).await {
            Ok(found) => Ok(found.iter().collect()),
            Err(error) if error.is_no_records_found() => Ok(Vec::new()),
            Err(error) => Err(error.to_string()),
        }
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
