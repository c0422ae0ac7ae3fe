//! `site.nft`: the elements of the named sets that `firewall/base.nft` owns, and nothing else. A set without
//! elements has no line, stays empty and so matches nothing.

use std::fmt::Write as _;
use std::net::IpAddr;

use ipnet::IpNet;

use super::header;
use crate::model::{Node, Role, Site, Zone};

pub(super) fn render(site: &Site, node: &Node) -> String {
    let mut out = header(site, node.name());
    for link in &node.links {
        let zone = link.zone.as_str();
        add(&mut out, &format!("link_{zone}"), &[format!("\"{zone}\"")]);
    }
    let with_ipv6 = node
        .links
        .iter()
        .filter(|link| link.addresses.iter().any(|a| a.addr().is_ipv6()));
    let with_ipv6: Vec<String> = with_ipv6
        .map(|link| format!("\"{}\"", link.zone.as_str()))
        .collect();
    add(&mut out, "link_ipv6", &with_ipv6);

    addresses(&mut out, "public", &node.addresses(Zone::Outside));
    addresses(&mut out, "gateway", &site.gateway_addresses());
    addresses(&mut out, "internal", &site.mail_server_addresses());
    addresses(
        &mut out,
        "app",
        &site.network.app_servers.iter().map(|a| **a).collect::<Vec<_>>(),
    );
    networks(
        &mut out,
        "dmz",
        &site.network.dmz.iter().map(|n| **n).collect::<Vec<_>>(),
    );
    networks(
        &mut out,
        "internal_net",
        &site.network.internal.iter().map(|n| **n).collect::<Vec<_>>(),
    );
    if site.options.submissions && node.role() == Role::Gateway {
        add(&mut out, "submissions", &["465".to_owned()]);
    }
    if let Some(state) = &site.state
        && node.role() == Role::Gateway
    {
        let set = if state.address.is_ipv4() {
            "state4"
        } else {
            "state6"
        };
        add(&mut out, set, &[format!("{} . {}", *state.address, *state.port)]);
    }
    let smarthost = site.smarthost_port().map(|port| port.to_string());
    add(&mut out, "smarthost", smarthost.as_slice());
    for (set, v4) in [("services4", true), ("services6", false)] {
        let family = site
            .services
            .iter()
            .filter(|service| service.address.is_ipv4() == v4);
        let elements: Vec<String> = family
            .map(|s| format!("{} . {} . {}", *s.address, s.protocol.as_str(), *s.port))
            .collect();
        add(&mut out, set, &elements);
    }
    out
}

fn addresses(out: &mut String, name: &str, list: &[IpAddr]) {
    for (suffix, v4) in [("4", true), ("6", false)] {
        let family: Vec<String> = list
            .iter()
            .filter(|a| a.is_ipv4() == v4)
            .map(ToString::to_string)
            .collect();
        add(out, &format!("{name}{suffix}"), &family);
    }
}

fn networks(out: &mut String, name: &str, list: &[IpNet]) {
    for (suffix, v4) in [("4", true), ("6", false)] {
        let family: Vec<String> = list
            .iter()
            .filter(|n| n.addr().is_ipv4() == v4)
            .map(ToString::to_string)
            .collect();
        add(out, &format!("{name}{suffix}"), &family);
    }
}

fn add(out: &mut String, set: &str, elements: &[String]) {
    if !elements.is_empty() {
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "add element inet postern {set} {{ {} }}",
            elements.join(", ")
        );
    }
}
