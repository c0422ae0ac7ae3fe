//! Greylisting (RFC 6647): the first try of a triplet waits.
//!
//! The triplet is client, reverse-path, forward-path. The client is the domain of the reverse-path where SPF says that it
//! sends from this address, since large senders try again from anywhere; else the network (/24 or /64). A client that
//! came back for several triplets has shown that it tries again: it waits no more. So does a domain whose mail passed DMARC.
//!
//! Here is only who is meant; what is remembered of whom, and for how long, is [`crate::reputation`]'s.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::reputation::{Key, Triplet};

/// Who sends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Client {
    /// Who may send for this domain, by SPF.
    Domain(String),
    /// Whoever is in this network.
    Network(IpNet),
}

impl Client {
    /// The /24 or /64 that `peer` is in.
    pub fn network(peer: IpAddr) -> Self {
        let length = if peer.is_ipv4() { 24 } else { 64 };
        Self::Network(IpNet::new_assert(peer, length).trunc())
    }

    /// The domain of a reverse-path that SPF has proven.
    pub fn domain(reverse_path: &str) -> Option<Self> {
        let (_, domain) = reverse_path.rsplit_once('@')?;
        Some(Self::Domain(domain.to_lowercase()))
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Domain(_) => "domain",
            Self::Network(_) => "network",
        }
    }

    fn name(&self) -> String {
        match self {
            Self::Domain(domain) => domain.clone(),
            Self::Network(network) => network.to_string(),
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domain) => write!(f, "{domain} (by SPF)"),
            Self::Network(network) => network.fmt(f),
        }
    }
}

/// What the greylist knows of a triplet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen {
    /// Known, or waited long enough.
    Known,
    /// To wait this much longer.
    Wait(Duration),
}

/// The keys under which a triplet is remembered; letter case makes no difference.
pub fn triplet(client: &Client, reverse_path: &str, forward_path: &str) -> Triplet {
    let (from, to) = (reverse_path.to_lowercase(), forward_path.to_lowercase());
    let kind = client.kind();
    let who = client.name();
    Triplet {
        whole: Key::new("triplet", &[kind, &who, &from, &to]),
        client: Key::new("client", &[kind, &who]),
    }
}

/// The key of a client alone.
pub fn client_key(client: &Client) -> Key {
    triplet(client, "", "").client
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Client {
        Client::network(text.parse().unwrap())
    }

    #[test]
    fn neighbours_are_one_client_and_letter_case_is_nothing() {
        let first = triplet(&ip("192.0.2.1"), "a@x.example", "b@y.example");
        assert_eq!(triplet(&ip("192.0.2.77"), "A@X.example", "B@y.example"), first);
        let domain = Client::domain("a@X.example").unwrap();
        for other in [
            triplet(&ip("192.0.3.1"), "a@x.example", "b@y.example"),
            triplet(&ip("2001:db8::1"), "a@x.example", "b@y.example"),
            triplet(&domain, "a@x.example", "b@y.example"),
        ] {
            assert!(other.client != first.client && other.whole != first.whole);
        }
        for other in [
            triplet(&ip("192.0.2.1"), "", "b@y.example"),
            triplet(&ip("192.0.2.1"), "a@x.example", "c@y.example"),
        ] {
            assert!(other.client == first.client && other.whole != first.whole);
        }
    }

    #[test]
    fn a_domain_that_looks_like_a_network_is_not_the_network() {
        let domain = Client::domain("a@192.0.2.0/24").unwrap();
        assert_ne!(client_key(&domain), client_key(&ip("192.0.2.1")));
    }

    #[test]
    fn the_null_reverse_path_has_no_domain() {
        assert_eq!(Client::domain(""), None);
    }
}
