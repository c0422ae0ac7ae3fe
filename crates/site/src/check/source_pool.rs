//! What must hold for source pools: each address is on the outside link of one gateway, where firewall and network know it.

use std::net::IpAddr;

use super::duplicates;
use crate::diagnostic::Report;
use crate::model::{Node, Site, Zone};

pub(super) fn check(site: &Site, report: &mut Report) {
    duplicates(
        site.source_pools
            .iter()
            .map(|p| (p.name.to_string(), p.name.span())),
        "the source pool",
        report,
    );
    for pool in &site.source_pools {
        if pool.addresses.is_empty() {
            report.add(
                pool.addresses.span(),
                "the pool has no address",
                "name addresses of a gateway's outside link, or remove the pool",
            );
        }
        for address in pool.addresses.iter() {
            let mut gateways = site.gateways();
            let gateway = gateways.find(|node| node.addresses(Zone::Outside).contains(address));
            if let Some(gateway) = gateway {
                if publishes_its_own(gateway, address)
                    && !gateway.public_addresses.iter().any(|one| **one == **address)
                {
                    report.add(
                        address.span(),
                        format!(
                            "SPF would not permit {}: it is not in public-addresses",
                            **address
                        ),
                        format!("add it to public-addresses of {}", gateway.name()),
                    );
                }
            } else {
                report.add(
                    address.span(),
                    format!("no gateway has {} on its outside link", **address),
                    "add it to `addresses` of [node.links.outside], and to public-addresses as others see it",
                );
            }
        }
        for sender in &pool.senders {
            if !site.domains.iter().any(|own| **own == **sender) {
                report.add(
                    sender.span(),
                    format!("{} is not a domain of this site", **sender),
                    "name sender domains of this site",
                );
            }
        }
    }
}

/// Whether the node's addresses of this family on the link are those that others see; behind an upstream NAT they are not.
fn publishes_its_own(node: &Node, like: &IpAddr) -> bool {
    let own = node.addresses(Zone::Outside);
    let mut public = node.public_addresses.iter();
    public.any(|one| one.is_ipv4() == like.is_ipv4() && own.contains(one))
}
