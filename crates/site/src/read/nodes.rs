//! The `[[node]]` tables and the links in them.

use super::{or_default, or_empty, read_section};
use crate::diagnostic::Fault;
use crate::model::{At, Link, Node, Role, Zone};
use crate::reader::Reader;
use crate::value;

pub(super) fn read(root: &mut Reader<'_, '_>) -> Option<Vec<Node>> {
    let Some(tables) = root.tables("node") else {
        if root.key_span("node").is_none() {
            root.missing(
                "[[node]]",
                "add a [[node]] for the gateway and one for the internal node",
            );
        }
        return None;
    };
    let read: Vec<_> = tables
        .iter()
        .map(|table| read_section(root, "[[node]]".to_owned(), table, node))
        .collect();
    read.into_iter().collect()
}

fn role(text: &str) -> Result<Role, Fault> {
    match text {
        "gateway" => Ok(Role::Gateway),
        "internal" => Ok(Role::Internal),
        _ => Err(Fault::new(
            format!("there is no role `{text}`"),
            "use \"gateway\" or \"internal\"",
        )),
    }
}

fn node(table: &mut Reader<'_, '_>) -> Option<Node> {
    let name = table.required_text(
        "name",
        "add the node's name, such as name = \"gateway\"",
        value::label,
    );
    let role = table.required_text("role", "add role = \"gateway\" or role = \"internal\"", role);
    let hostname = table.required_text(
        "hostname",
        "add the node's full host name, such as hostname = \"mx1.example.org\"",
        value::domain,
    );
    let public = table.list("public-addresses", value::public_address);
    let public_addresses = or_default(table, "public-addresses", public, Vec::new());
    let found = table.table("links");
    if table.key_span("links").is_none() {
        table.missing("links", "add [node.links.dmz] and the node's other link");
    }
    let links = found.and_then(|found| read_section(table, "[node.links]".to_owned(), found, links));
    Some(Node {
        name: name?,
        role: role?,
        hostname: hostname?,
        public_addresses: public_addresses?,
        links: links?,
    })
}

fn links(table: &mut Reader<'_, '_>) -> Option<Vec<Link>> {
    let mut links = Vec::new();
    let mut faulty = false;
    for zone in Zone::ALL {
        let Some(found) = table.table(zone.as_str()) else {
            faulty |= table.key_span(zone.as_str()).is_some();
            continue;
        };
        let span = table.key_span(zone.as_str()).unwrap_or_else(|| found.span());
        let parts = read_section(table, format!("[node.links.{}]", zone.as_str()), found, link);
        match parts {
            Some((mac, addresses, gateways)) => links.push(Link {
                zone,
                span,
                mac,
                addresses,
                gateways,
            }),
            None => faulty = true,
        }
    }
    (!faulty).then_some(links)
}

type LinkParts = (
    At<value::Mac>,
    At<Vec<At<ipnet::IpNet>>>,
    Vec<At<std::net::IpAddr>>,
);

fn link(table: &mut Reader<'_, '_>) -> Option<LinkParts> {
    let mac = table.required_text(
        "mac",
        "add the card's Ethernet address, such as mac = \"52:54:00:c8:00:0a\"",
        value::mac,
    );
    let addresses = table.one_or_list("addresses", value::link_address);
    if table.key_span("addresses").is_none() {
        table.missing(
            "addresses",
            "add the link's addresses, such as addresses = [\"10.200.9.10/24\"]",
        );
    }
    let gateway = table.one_or_list("gateway", value::address);
    let gateways = or_empty(table, "gateway", gateway);
    Some((mac?, addresses?, gateways?))
}
