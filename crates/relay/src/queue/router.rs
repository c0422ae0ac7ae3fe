//! Routing: provenance and recipient domain decide where mail goes; the first matching route counts.

use std::sync::Arc;

use super::config::{NextHop, Route, SourcePool};
use super::priority::Class;
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
    /// Name of the source pool that the mail leaves from; none where the system chooses.
    pub source: Option<Arc<str>>,
}

/// The route table.
pub struct Router {
    routes: Vec<Line>,
    pools: Vec<(Arc<str>, SourcePool)>,
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
            pools: config
                .source_pool
                .iter()
                .map(|pool| (pool.name.as_str().into(), pool.clone()))
                .collect(),
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
            source: None,
        })
    }

    /// The same for mail of this reverse-path and class: what goes by MX leaves from the first pool that fits.
    pub fn from_source(&self, to: Destination, reverse_path: &str, class: Class) -> Destination {
        let by_mx = !to.next_hop.is_empty() && !to.domain.is_empty();
        let fitting = self
            .pools
            .iter()
            .find(|(_, pool)| by_mx && pool.fits(reverse_path, class));
        Destination {
            source: fitting.map(|(name, _)| name.clone()),
            ..to
        }
    }

    /// For a message whose route is gone since it was taken: it waits until there is one.
    pub fn nowhere(address: &str) -> Destination {
        Destination {
            next_hop: "".into(),
            domain: domain_of(address).into(),
            sign: false,
            source: None,
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
