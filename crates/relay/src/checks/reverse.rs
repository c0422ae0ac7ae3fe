//! Whether a client's address has a name in the reverse DNS that leads back to the address (RFC 1912 section 2.1).
//!
//! Enters: the address. Leaves: what was seen, or why DNS could not be asked, which is held against nobody.

use std::net::IpAddr;

use hickory_resolver::proto::rr::{Name, RData, RecordType};
use serde::{Deserialize, Serialize};

use super::{Facts, Observation, Seeing, Tools};
use crate::config::CheckName;
use crate::deliver::dns::Dns;

/// Names of one address that are looked at; its owner may publish thousands.
const NAMES: usize = 4;

/// What the reverse DNS says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reverse {
    /// This name leads to the address and back.
    Confirmed(String),
    /// The address has no name.
    Missing,
    /// It has this one, which leads elsewhere.
    Unconfirmed(String),
}

impl Reverse {
    /// How it is known, for the trace.
    pub fn evidence(&self, peer: IpAddr) -> String {
        match self {
            Self::Confirmed(name) => format!("{peer} is {name}"),
            Self::Missing => format!("{peer} has no PTR record"),
            Self::Unconfirmed(name) => format!("{peer} is called {name}, which does not lead back to it"),
        }
    }
}

/// The row of the table.
pub fn see<'a>(tools: &'a Tools, facts: Facts<'a>) -> Seeing<'a> {
    Box::pin(async move {
        if facts.listed {
            return Vec::new();
        }
        let (observation, evidence) = match look(&tools.dns, facts.peer).await {
            Ok(reverse) => {
                let evidence = reverse.evidence(facts.peer);
                (Observation::Reverse(reverse), evidence)
            }
            Err(error) => (Observation::NoAnswer, error),
        };
        vec![(CheckName::ReverseDns, observation, evidence)]
    })
}

/// Asks for the address's names, and for theirs.
async fn look(dns: &Dns, peer: IpAddr) -> Result<Reverse, String> {
    let answer = dns.ask(Name::from(peer), RecordType::PTR).await?;
    let mut called = None;
    let mut silent = None;
    for data in answer.data.into_iter().take(NAMES) {
        let RData::PTR(target) = data else { continue };
        let name = shown(&target.0);
        match addresses(dns, &target.0, peer).await {
            Ok(addresses) if addresses.contains(&peer) => return Ok(Reverse::Confirmed(name)),
            Ok(_) => called = called.or(Some(name)),
            Err(error) => silent = Some(error),
        }
    }
    match (silent, called) {
        (Some(error), _) => Err(error),
        (None, Some(name)) => Ok(Reverse::Unconfirmed(name)),
        (None, None) => Ok(Reverse::Missing),
    }
}

/// Addresses of a name, of the family of `like`.
pub async fn addresses(dns: &Dns, name: &Name, like: IpAddr) -> Result<Vec<IpAddr>, String> {
    let kind = if like.is_ipv4() {
        RecordType::A
    } else {
        RecordType::AAAA
    };
    let answer = dns.ask(name.clone(), kind).await?;
    let addresses = answer.data.into_iter().filter_map(|data| match data {
        RData::A(address) => Some(IpAddr::V4(address.0)),
        RData::AAAA(address) => Some(IpAddr::V6(address.0)),
        _ => None,
    });
    Ok(addresses.collect())
}

fn shown(name: &Name) -> String {
    name.to_ascii().trim_end_matches('.').to_owned()
}
