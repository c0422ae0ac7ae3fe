//! systemd-networkd's files: each card, known by its Ethernet address, gets its zone's name, static addresses
//! and the routes of the site. Nothing is learnt from the network: no DHCP, no router advertisements, no name
//! service discovery. See systemd.link(5) and systemd.network(5).

use std::fmt::Write as _;
use std::net::IpAddr;

use super::{RenderedFile, header};
use crate::model::{Link, Node, Role, Site, Zone};

pub(super) fn render(site: &Site, node: &Node) -> Vec<RenderedFile> {
    let mut files = Vec::new();
    for link in &node.links {
        let zone = link.zone.as_str();
        let top = header(site, node.name());
        let rename = format!("{top}[Match]\nMACAddress={}\n\n[Link]\nName={zone}\n", *link.mac);
        files.push(RenderedFile::new(format!("network/10-{zone}.link"), rename));
        let network = top + &network(site, node, link);
        files.push(RenderedFile::new(format!("network/10-{zone}.network"), network));
    }
    if node.role() == Role::Internal && node.links.iter().any(has_ipv6) {
        // The kernel forwards IPv6 only if the switch for all links is on, whatever each link says.
        let contents = header(site, node.name()) + "[Network]\nIPv6Forwarding=yes\n";
        files.push(RenderedFile::new("networkd.conf.d/10-postern.conf", contents));
    }
    files
}

fn has_ipv6(link: &Link) -> bool {
    link.addresses.iter().any(|a| a.addr().is_ipv6())
}

fn network(site: &Site, node: &Node, link: &Link) -> String {
    let zone = link.zone.as_str();
    let link_local = if has_ipv6(link) { "ipv6" } else { "no" };
    // The app server's mail to the gateway is the only thing ever forwarded; the firewall sees to the rest.
    let forwards = node.role() == Role::Internal;
    let forward = |on: bool| if on { "yes" } else { "no" };
    let mut out = format!(
        "[Match]
MACAddress={mac}

[Link]
RequiredForOnline=no

[Network]
Description=postern {zone}
DHCP=no
IPv6AcceptRA=no
IPv6SendRA=no
LinkLocalAddressing={link_local}
LLMNR=no
MulticastDNS=no
LLDP=no
EmitLLDP=no
IPv4Forwarding={v4}
IPv6Forwarding={v6}
ConfigureWithoutCarrier=yes
IgnoreCarrierLoss=yes
",
        mac = *link.mac,
        v4 = forward(forwards),
        v6 = forward(forwards && has_ipv6(link)),
    );
    let own_source = node.role() == Role::Internal && link.zone == Zone::Dmz;
    for address in link.addresses.iter() {
        // Writing to a string cannot fail.
        let _ = write!(out, "\n[Address]\nAddress={}\n", **address);
        if address.addr().is_ipv6() {
            out += "DuplicateAddressDetection=none\n";
        }
        if own_source && source_for(node, address.addr()).is_some() {
            out += "AddPrefixRoute=no\n";
        }
    }
    for (destination, how) in routes(site, node, link) {
        let _ = write!(out, "\n[Route]\nDestination={destination}\n{how}");
    }
    out
}

/// The internal node's own address for traffic into the DMZ: its inside address of that family.
fn source_for(node: &Node, family_of: IpAddr) -> Option<IpAddr> {
    node.addresses(Zone::Internal)
        .into_iter()
        .find(|a| a.is_ipv4() == family_of.is_ipv4())
}

/// Destination and the further lines of each `[Route]`.
fn routes(site: &Site, node: &Node, link: &Link) -> Vec<(String, String)> {
    match (node.role(), link.zone) {
        (Role::Gateway, Zone::Outside) => link
            .gateways
            .iter()
            .map(|gateway| {
                let everywhere = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
                (everywhere.to_owned(), format!("Gateway={}\n", **gateway))
            })
            .collect(),
        (Role::Gateway, Zone::Dmz) => {
            let next_hops: Vec<IpAddr> = site.internals().flat_map(|n| n.addresses(Zone::Dmz)).collect();
            let via = |v4: bool| next_hops.iter().find(|a| a.is_ipv4() == v4);
            let nets = site.network.internal.iter();
            nets.filter_map(|net| {
                Some((
                    net.to_string(),
                    format!("Gateway={}\n", via(net.addr().is_ipv4())?),
                ))
            })
            .collect()
        }
        // In place of the link's own prefix route: connections into the DMZ come from the mail server's
        // address. The node's own DMZ address would be "rest of the DMZ" to itself.
        (Role::Internal, Zone::Dmz) => link
            .addresses
            .iter()
            .filter_map(|a| Some((a.trunc(), source_for(node, a.addr())?)))
            .map(|(net, source)| {
                let scope = if net.addr().is_ipv4() { "Scope=link\n" } else { "" };
                (net.to_string(), format!("{scope}PreferredSource={source}\n"))
            })
            .collect(),
        _ => Vec::new(),
    }
}
