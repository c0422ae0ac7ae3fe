//! What must hold between the values of a site file: names and addresses are unique, every node has the
//! links of its role, every address lies in its network, networks do not overlap, thresholds are in order.

mod links;
mod smarthost;
mod source_pool;
mod state;

use std::collections::HashSet;
use std::net::IpAddr;
use std::ops::Range;

use ipnet::IpNet;

use crate::diagnostic::Report;
use crate::model::{At, Node, OutboundTls, Site, Zone};

pub(crate) fn site(site: &Site, report: &mut Report) {
    identity(site, report);
    roles(site, report);
    unique(site, report);
    networks(site, report);
    for node in &site.nodes {
        links::check(site, node, report);
        links::public_addresses(node, report);
    }
    hosts_in_networks(site, report);
    root(site, report);
    scores(site, report);
    site.policy.scanning.check(*site.policy.max_message_size, report);
    senders(site, report);
    sealers(site, report);
    services(site, report);
    tls_exceptions(site, report);
    state::check(site, report);
    smarthost::check(site, report);
    source_pool::check(site, report);
}

fn identity(site: &Site, report: &mut Report) {
    if site.domains.is_empty() {
        report.add(
            site.domains.span(),
            "the site has no mail domain",
            "name at least one, such as [\"example.org\"]",
        );
    }
    duplicates(
        site.domains.iter().map(|d| (d.to_string(), d.span())),
        "the domain",
        report,
    );
    let domain = &site.postmaster.1;
    if !site.domains.is_empty() && !site.domains.iter().any(|d| **d == *domain) {
        report.add(
            site.postmaster.span(),
            format!("the postmaster's domain {domain} is not one of the site's domains"),
            "use an address of this site: mail about delivery must not leave it",
        );
    }
}

fn services(site: &Site, report: &mut Report) {
    duplicates(
        site.services.iter().map(|s| (s.name.to_string(), s.name.span())),
        "the service name",
        report,
    );
    for service in &site.services {
        if !site
            .network
            .internal
            .iter()
            .any(|network| network.contains(&*service.address))
        {
            report.add(
                service.address.span(),
                format!(
                    "the service {} at {} is not in the network `internal`",
                    *service.name, *service.address
                ),
                format!(
                    "use an address of {}: the internal node reaches nothing else",
                    join(&site.network.internal)
                ),
            );
        }
    }
}

fn tls_exceptions(site: &Site, report: &mut Report) {
    let mut seen = HashSet::new();
    for exception in &site.tls_exceptions {
        if !seen.insert(exception.domain.as_str()) {
            report.add(
                exception.domain.span(),
                format!("{} is excepted twice", *exception.domain),
                "keep one of the two",
            );
        }
        if site.outbound_tls == OutboundTls::Opportunistic {
            report.add(
                exception.domain.span(),
                format!(
                    "nothing is required that {} could be excepted from",
                    *exception.domain
                ),
                "set outbound = \"required\" in [tls], or remove the exceptions",
            );
        }
        if site.domains.iter().any(|domain| **domain == *exception.domain) {
            report.add(
                exception.domain.span(),
                format!(
                    "{} is a domain of this site, its mail goes to the internal node",
                    *exception.domain
                ),
                "remove the exception: between the nodes TLS is mutual, always",
            );
        }
    }
}

/// Our own domains' seals would be believed of strangers, and the gateway seals nothing.
fn sealers(site: &Site, report: &mut Report) {
    let mut seen = HashSet::new();
    for sealer in &site.policy.trusted_sealers {
        if !seen.insert(sealer.as_str()) {
            report.add(
                sealer.span(),
                format!("{} is trusted twice", **sealer),
                "keep one of the two",
            );
        }
        if site.domains.iter().any(|domain| **domain == **sealer) {
            report.add(
                sealer.span(),
                format!("{} is a domain of this site, which seals nothing", **sealer),
                "name the forwarders and list servers of others that you trust, by the d= of their ARC-Seal fields",
            );
        }
    }
}

fn senders(site: &Site, report: &mut Report) {
    for login in &site.policy.send_as_any {
        if !site.domains.iter().any(|domain| **domain == login.1) {
            report.add(
                login.span(),
                format!(
                    "{}@{} is not an address of the site, so it can never log in",
                    login.0, login.1
                ),
                "name the login of a user of this site",
            );
        }
    }
}

fn roles(site: &Site, report: &mut Report) {
    let first = site.nodes.first().map_or(0..0, |node| node.name.span());
    if site.gateways().next().is_none() {
        report.add(
            first.clone(),
            "no node has the role gateway",
            "add a [[node]] with role = \"gateway\"",
        );
    }
    let internals: Vec<&Node> = site.internals().collect();
    match internals.as_slice() {
        [] => report.add(
            first,
            "no node has the role internal",
            "add a [[node]] with role = \"internal\"",
        ),
        [_] => {}
        [_, more @ ..] => {
            for node in more {
                report.add(
                    node.role.span(),
                    format!("{} is a second internal node", node.name()),
                    "keep one: the mailboxes are on exactly one node",
                );
            }
        }
    }
}

fn unique(site: &Site, report: &mut Report) {
    let nodes = || site.nodes.iter();
    duplicates(
        nodes().map(|n| (n.name.to_string(), n.name.span())),
        "the node name",
        report,
    );
    duplicates(
        nodes().map(|n| (n.hostname.to_string(), n.hostname.span())),
        "the host name",
        report,
    );
    let links = || nodes().flat_map(|n| n.links.iter());
    duplicates(
        links().map(|l| (l.mac.to_string(), l.mac.span())),
        "the Ethernet address",
        report,
    );
    let addresses = links().flat_map(|l| l.addresses.iter());
    duplicates(
        addresses.map(|a| (a.addr().to_string(), a.span())),
        "the address",
        report,
    );
    let public = nodes().flat_map(|n| n.public_addresses.iter());
    duplicates(
        public.map(|a| (a.to_string(), a.span())),
        "the public address",
        report,
    );
    let list = |list: &[At<IpAddr>]| list.iter().map(|a| (a.to_string(), a.span())).collect::<Vec<_>>();
    duplicates(
        list(&site.network.app_servers).into_iter(),
        "the app server",
        report,
    );
    duplicates(
        list(&site.network.reserved).into_iter(),
        "the reserved address",
        report,
    );
}

fn duplicates(values: impl Iterator<Item = (String, Range<usize>)>, what: &str, report: &mut Report) {
    let mut seen = HashSet::new();
    for (value, span) in values {
        if !seen.insert(value.clone()) {
            report.add(span, format!("{what} {value} is used twice"), "give each its own");
        }
    }
}

fn networks(site: &Site, report: &mut Report) {
    for (name, list) in [("dmz", &site.network.dmz), ("internal", &site.network.internal)] {
        if list.is_empty() {
            report.add(
                list.span(),
                format!("`{name}` names no network"),
                "write one network, or one for each address family",
            );
        }
        one_per_family(
            list.iter().map(|n| (n.addr(), n.span())),
            &format!("`{name}`"),
            report,
        );
    }
    for internal in site.network.internal.iter() {
        for dmz in site.network.dmz.iter().filter(|dmz| overlap(dmz, internal)) {
            report.add(
                internal.span(),
                format!("the internal network {} overlaps the DMZ {}", **internal, **dmz),
                "give the DMZ and the inside networks of their own: no address may be in both",
            );
        }
    }
}

fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

fn one_per_family(values: impl Iterator<Item = (IpAddr, Range<usize>)>, what: &str, report: &mut Report) {
    let mut seen = [false; 2];
    for (address, span) in values {
        let family = &mut seen[usize::from(address.is_ipv6())];
        if std::mem::replace(family, true) {
            report.add(
                span,
                format!("{what} has two values of one address family"),
                "keep one for IPv4 and one for IPv6",
            );
        }
    }
}

fn hosts_in_networks(site: &Site, report: &mut Report) {
    let taken: Vec<IpAddr> = site
        .nodes
        .iter()
        .flat_map(|n| Zone::ALL.into_iter().flat_map(|zone| n.addresses(zone)))
        .collect();
    let sets = [
        (
            "the app server",
            "internal",
            &site.network.app_servers,
            &site.network.internal,
        ),
        (
            "the reserved address",
            "dmz",
            &site.network.reserved,
            &site.network.dmz,
        ),
    ];
    for (what, name, hosts, networks) in sets {
        for host in hosts {
            if !networks.iter().any(|network| network.contains(&**host)) {
                report.add(
                    host.span(),
                    format!("{what} {} is not in the network `{name}`", **host),
                    format!("use an address of {}, or remove it", join(networks)),
                );
            } else if taken.contains(&**host) {
                report.add(
                    host.span(),
                    format!("{what} {} is a node's address", **host),
                    "use another address",
                );
            }
        }
    }
}

fn root(site: &Site, report: &mut Report) {
    let Some(root) = &site.root else { return };
    if root.servers.is_empty() {
        report.add(
            root.servers.span(),
            "`root-servers` is empty",
            "name a server, or remove the whole [dns] section",
        );
    }
    for server in root.servers.iter() {
        if server.is_loopback() || server.is_unspecified() || server.is_multicast() {
            report.add(
                server.span(),
                format!("the root server {} is not a host's address", **server),
                "use the address of the name server that serves your root zone",
            );
        }
    }
}

fn scores(site: &Site, report: &mut Report) {
    let (mark, reject) = (&site.policy.mark_score, &site.policy.reject_score);
    if **mark >= **reject {
        let span = if reject.span().is_empty() {
            mark.span()
        } else {
            reject.span()
        };
        report.add(
            span,
            format!("mark-score {} is not below reject-score {}", **mark, **reject),
            "mail is marked at the lower score and refused at the higher one: put them in this order",
        );
    }
    if **mark <= 0.0 {
        report.add(
            mark.span(),
            format!("mark-score {} would mark all mail", **mark),
            "use a number above 0",
        );
    }
}

fn join(networks: &[At<IpNet>]) -> String {
    networks
        .iter()
        .map(|n| n.trunc().to_string())
        .collect::<Vec<_>>()
        .join(" or ")
}
