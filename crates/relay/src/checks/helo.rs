//! What a client calls itself in EHLO or HELO (RFC 5321 sections 4.1.1.1 and 4.1.4).
//!
//! A name that does not match the address is no fault: section 4.1.4 forbids to refuse for that. A name that cannot be the
//! client's is one: ours, or the address of another. Enters: the name. Leaves: what was seen, or why DNS could not be asked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_resolver::proto::rr::{Name, RecordType};
use postern_smtp::address::Domain;
use serde::{Deserialize, Serialize};

use super::reverse::addresses;
use super::{Facts, Observation, Seeing, Tools};
use crate::config::CheckName;
use crate::deliver::dns::Dns;

/// What the name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Greeting {
    /// One that the client may have.
    Plausible,
    /// Our own, or one of our domains.
    Ours,
    /// The literal of an address that is not the client's.
    OthersAddress,
    /// Neither a domain name nor an address literal.
    Malformed,
    /// A name that does not exist.
    Unresolvable,
}

impl Greeting {
    /// How it is known, for the trace.
    pub fn evidence(self, helo: &str) -> String {
        let what = match self {
            Self::Plausible => "may be the client's name",
            Self::Ours => "is our own name",
            Self::OthersAddress => "is the address of another",
            Self::Malformed => "is neither a domain name nor an address literal",
            Self::Unresolvable => "does not exist in DNS",
        };
        format!("{helo} {what}")
    }
}

/// The row of the table.
pub fn see<'a>(tools: &'a Tools, facts: Facts<'a>) -> Seeing<'a> {
    Box::pin(async move {
        if facts.listed {
            return Vec::new();
        }
        let config = &tools.config;
        let ours = |name: &str| name.eq_ignore_ascii_case(&config.hostname) || config.is_local(name);
        let seen = match read(facts.helo, facts.peer, ours) {
            Some(greeting) => Ok(greeting),
            None => look(&tools.dns, facts.helo).await,
        };
        let (observation, evidence) = match seen {
            Ok(greeting) => (Observation::Greeting(greeting), greeting.evidence(facts.helo)),
            Err(error) => (Observation::NoAnswer, error),
        };
        vec![(CheckName::Helo, observation, evidence)]
    })
}

/// What can be said without DNS; nothing where that has to be asked.
fn read(helo: &str, peer: IpAddr, is_ours: impl Fn(&str) -> bool) -> Option<Greeting> {
    let Ok(domain) = helo.parse::<Domain>() else {
        return Some(Greeting::Malformed);
    };
    if let Some(literal) = domain.literal() {
        return Some(if literal.to_canonical() == peer {
            Greeting::Plausible
        } else {
            Greeting::OthersAddress
        });
    }
    let name = helo.trim_end_matches('.');
    let bare_address = name.parse::<Ipv4Addr>().is_ok() || name.parse::<Ipv6Addr>().is_ok();
    if bare_address || !name.contains('.') {
        return Some(Greeting::Malformed);
    }
    is_ours(name).then_some(Greeting::Ours)
}

/// Whether a name that [`read`] could not judge exists: an address, or at least somebody who takes its mail.
async fn look(dns: &Dns, helo: &str) -> Result<Greeting, String> {
    let Ok(name) = Name::from_utf8(helo).map(|mut name| {
        name.set_fqdn(true);
        name
    }) else {
        return Ok(Greeting::Malformed);
    };
    for like in [
        IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    ] {
        if !addresses(dns, &name, like).await?.is_empty() {
            return Ok(Greeting::Plausible);
        }
    }
    let mail = dns.ask(name, RecordType::MX).await?;
    Ok(if mail.data.is_empty() {
        Greeting::Unresolvable
    } else {
        Greeting::Plausible
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_cannot_be_the_clients() {
        let peer = "192.0.2.1".parse().unwrap();
        let said = |helo: &str| read(helo, peer, |name| name.eq_ignore_ascii_case("mx1.example.org"));
        for (helo, expected) in [
            ("mail.sender.example", None),
            ("mail.sender.example.", Some(Greeting::Malformed)),
            ("MX1.example.org", Some(Greeting::Ours)),
            ("mx1.example.org.evil.example", None),
            ("[192.0.2.1]", Some(Greeting::Plausible)),
            ("[IPv6:::ffff:192.0.2.1]", Some(Greeting::Plausible)),
            ("[192.0.2.2]", Some(Greeting::OthersAddress)),
            ("[IPv6:2001:db8::1]", Some(Greeting::OthersAddress)),
            ("192.0.2.1", Some(Greeting::Malformed)),
            ("[192.0.2.1", Some(Greeting::Malformed)),
            ("localhost", Some(Greeting::Malformed)),
            ("-.example", Some(Greeting::Malformed)),
            ("a b", Some(Greeting::Malformed)),
        ] {
            assert_eq!(said(helo), expected, "{helo}");
        }
    }
}
