//! Routing: provenance and recipient domain decide where mail goes; the first matching route counts.

use std::sync::Arc;

use super::config::{NextHop, Route};
use super::provenance::Provenance;
use crate::config::Config;

/// Where a recipient's mail goes. Recipients of one message with equal destinations share a transaction; messages with
/// equal destinations share its connections.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Destination {
    /// Name of the next hop; empty where no route leads any more.
    pub next_hop: Arc<str>,
    /// The recipients' domain in lower case, where the hop depends on it; else empty.
    pub domain: Box<str>,
    /// Add DKIM signatures.
    pub sign: bool,
}

/// The route table.
pub struct Router {
    routes: Vec<Line>,
}

struct Line {
    route: Route,
    next_hop: Arc<str>,
    by_domain: bool,
}

impl Router {
    /// The routes of the configuration.
    pub fn new(config: &Config) -> Self {
        let line = |route: &Route| Line {
            route: route.clone(),
            next_hop: route.next_hop.as_str().into(),
            by_domain: matches!(config.next_hop.get(&route.next_hop), Some(NextHop::Mx { .. })),
        };
        Self {
            routes: config.route.iter().map(line).collect(),
        }
    }

    /// Where mail of this provenance to this address goes; `None` is refused with 5.7.1.
    pub fn destination(&self, provenance: Provenance, address: &str) -> Option<Destination> {
        let domain = domain_of(address);
        let line = self
            .routes
            .iter()
            .find(|line| line.matches(provenance, &domain))?;
        let domain = if line.by_domain { domain.into() } else { "".into() };
        // Configuration that would sign strangers' mail is refused when it is read; this is the wall behind it.
        let sign = line.route.sign
            && matches!(
                provenance,
                Provenance::Inside | Provenance::Submission | Provenance::Own
            );
        Some(Destination {
            next_hop: line.next_hop.clone(),
            domain,
            sign,
        })
    }

    /// For a message whose route is gone since it was taken: it waits until there is one.
    pub fn nowhere(address: &str) -> Destination {
        Destination {
            next_hop: "".into(),
            domain: domain_of(address).into(),
            sign: false,
        }
    }
}

impl Line {
    fn matches(&self, provenance: Provenance, domain: &str) -> bool {
        let as_inside = provenance == Provenance::Own && self.route.from.contains(&Provenance::Inside);
        (as_inside || self.route.from.contains(&provenance))
            && self
                .route
                .domains
                .iter()
                .any(|listed| listed == "*" || listed.eq_ignore_ascii_case(domain))
    }
}

/// The domain of an address in lower case.
pub fn domain_of(address: &str) -> String {
    address
        .rsplit_once('@')
        .map_or(String::new(), |(_, domain)| domain.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn router() -> Router {
        let text = r#"
            role = "gateway"
            hostname = "mx1.example.org"
            local-domains = ["example.org"]
            postmaster = "postmaster@example.org"
            state-directory = "s"
            runtime-directory = "r"
            [resolver]
            address = "127.0.0.1:53"
            [instance.public]
            tls = "off"
            relay-for = "local-domains"
            authentication = "none"
            [next-hop.internal]
            kind = "lmtp"
            socket = "/s"
            [next-hop.world]
            kind = "mx"
            tls = "required"
            [[route]]
            from = ["public", "inside"]
            domains = ["example.org"]
            next-hop = "internal"
            [[route]]
            from = ["inside"]
            domains = ["*"]
            next-hop = "world"
            sign = true
            [dkim]
            directory = "d"
            selector = "s"
            domains = []
        "#;
        Router::new(&Config::parse("t", text, "/".into(), None).unwrap())
    }

    #[test]
    fn provenance_decides() {
        let router = router();
        let to = |provenance, address| {
            router
                .destination(provenance, address)
                .map(|to| (to.next_hop.to_string(), to.domain.to_string(), to.sign))
        };
        let internal = Some(("internal".to_owned(), String::new(), false));
        let world = Some(("world".to_owned(), "far.example".to_owned(), true));
        assert_eq!(to(Provenance::Public, "a@Example.ORG"), internal);
        assert_eq!(to(Provenance::Public, "a@far.example"), None);
        assert_eq!(to(Provenance::Dmz, "a@example.org"), None);
        assert_eq!(to(Provenance::Inside, "a@example.org"), internal);
        assert_eq!(to(Provenance::Inside, "a@FAR.example"), world);
        assert_eq!(to(Provenance::Own, "a@far.example"), world);
        assert_eq!(to(Provenance::Public, "a@b@far.example"), None);
    }
}
