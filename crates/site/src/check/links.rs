//! Each node has exactly the links of its role, each link addresses of its own network, the outside link a router.

use super::{join, one_per_family, overlap};
use crate::diagnostic::Report;
use crate::model::{Link, Node, Role, Site, Zone};

fn zones_of(role: Role) -> [Zone; 2] {
    match role {
        Role::Gateway => [Zone::Outside, Zone::Dmz],
        Role::Internal => [Zone::Dmz, Zone::Internal],
    }
}

pub(super) fn check(site: &Site, node: &Node, report: &mut Report) {
    let (wanted, role) = (zones_of(node.role()), node.role().as_str());
    for zone in wanted.iter().filter(|zone| node.link(**zone).is_none()) {
        report.add(
            node.name.span(),
            format!("the {role} node {} has no {} link", node.name(), zone.as_str()),
            format!("add [node.links.{}] to it", zone.as_str()),
        );
    }
    for link in &node.links {
        if !wanted.contains(&link.zone) {
            report.add(
                link.span.clone(),
                format!(
                    "the {role} node {} has a link to the zone {}",
                    node.name(),
                    link.zone.as_str()
                ),
                format!(
                    "remove it: a node with the role {role} stands between {} and {} only",
                    wanted[0].as_str(),
                    wanted[1].as_str()
                ),
            );
        }
        link_addresses(site, link, report);
        link_gateways(link, report);
    }
}

fn link_addresses(site: &Site, link: &Link, report: &mut Report) {
    if link.addresses.is_empty() {
        report.add(
            link.addresses.span(),
            "the link has no address",
            "give it at least one, such as [\"10.200.9.10/24\"]",
        );
    }
    one_per_family(
        link.addresses.iter().map(|a| (a.addr(), a.span())),
        "the link",
        report,
    );
    let (name, networks) = match link.zone {
        Zone::Dmz => ("dmz", &site.network.dmz),
        Zone::Internal => ("internal", &site.network.internal),
        Zone::Outside => return outside_addresses(site, link, report),
    };
    for address in link.addresses.iter() {
        if !networks.iter().any(|network| network.contains(&address.addr())) {
            report.add(
                address.span(),
                format!("{} is not in the network `{name}`", address.addr()),
                format!("use an address of {}, or correct [network]", join(networks)),
            );
        } else if !networks
            .iter()
            .any(|network| network.prefix_len() == address.prefix_len())
        {
            report.add(
                address.span(),
                format!(
                    "the prefix length of {} is not that of the network `{name}`",
                    **address
                ),
                format!("use the prefix length of {}", join(networks)),
            );
        }
    }
}

fn outside_addresses(site: &Site, link: &Link, report: &mut Report) {
    let inner = || site.network.dmz.iter().chain(site.network.internal.iter());
    for address in link.addresses.iter() {
        for network in inner().filter(|network| overlap(network, &address.trunc())) {
            report.add(
                address.span(),
                format!(
                    "the outside link's network {} overlaps {}",
                    address.trunc(),
                    **network
                ),
                "the outside link must be in a network of its own",
            );
        }
    }
}

fn link_gateways(link: &Link, report: &mut Report) {
    one_per_family(link.gateways.iter().map(|g| (**g, g.span())), "`gateway`", report);
    if link.zone != Zone::Outside {
        for gateway in &link.gateways {
            report.add(
                gateway.span(),
                format!("the {} link has a gateway", link.zone.as_str()),
                "remove it: only the outside link leads elsewhere, the routes between the nodes are made from the site",
            );
        }
        return;
    }
    for address in link.addresses.iter() {
        if !link
            .gateways
            .iter()
            .any(|g| g.is_ipv4() == address.addr().is_ipv4())
        {
            report.add(
                address.span(),
                format!("there is no gateway for the address {}", address.addr()),
                "add gateway = \"…\" with the router of this network, or a list with one for each address family",
            );
        }
    }
    for gateway in &link.gateways {
        let holder = link.addresses.iter().find(|address| address.contains(&**gateway));
        match holder {
            None => report.add(
                gateway.span(),
                format!("the gateway {} is not in a network of this link", **gateway),
                format!("use the router's address in {}", join(&link.addresses)),
            ),
            Some(address) if address.addr() == **gateway => report.add(
                gateway.span(),
                format!("the gateway {} is the link's own address", **gateway),
                "use the router's address",
            ),
            Some(_) => {}
        }
    }
}

pub(super) fn public_addresses(node: &Node, report: &mut Report) {
    let list = &node.public_addresses;
    match node.role() {
        Role::Gateway if list.is_empty() => report.add(
            node.name.span(),
            format!("the gateway {} has no public address", node.name()),
            "add public-addresses = [\"…\"]: MX and SPF publish them",
        ),
        Role::Internal if !list.is_empty() => report.add(
            list.span(),
            format!("the internal node {} has public addresses", node.name()),
            "remove them: the world reaches only gateways",
        ),
        _ => {}
    }
}
