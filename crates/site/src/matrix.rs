//! The reachability matrix of a site: who may open which connection. Everything not listed is dropped, in
//! both address families, and counted. The rule sets in `firewall/` are this table in nft's words.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::model::{At, Site, Zone};

/// One row: what `from` may open at `to`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// `firewall 1`, `firewall 2`, `inside`, or the name of an option.
    pub boundary: &'static str,
    /// Who opens the connection, with the site's addresses.
    pub from: String,
    /// Who is reached, with the site's addresses.
    pub to: String,
    /// Protocol and ports, or `nothing`.
    pub allowed: String,
}

/// A row that the base matrix does not have, off unless the site switches it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedOption {
    /// The option's name.
    pub name: &'static str,
    /// What it would allow.
    pub opens: &'static str,
}

/// All options. This version can switch on `submissions` (`[options]`), `dmz-state` and `smarthost`: the rule sets have no rows for
/// the others.
pub const OPTIONS: [NamedOption; 6] = [
    NamedOption {
        name: "time.ntp",
        opens: "gateway -> Internet udp/123",
    },
    NamedOption {
        name: "dns.udp",
        opens: "gateway -> Internet udp/53",
    },
    NamedOption {
        name: "tunnel",
        opens: "gateway -> Internet tcp/7844",
    },
    NamedOption {
        name: "submissions",
        opens: "Internet -> gateway tcp/465",
    },
    NamedOption {
        name: "dmz-state",
        opens: "gateway <-> state host in the DMZ, TLS",
    },
    NamedOption {
        name: "smarthost",
        opens: "gateway -> Internet, the smarthost's port, for the queue alone",
    },
];

/// The rows for this site, in the order of the boundaries.
pub fn matrix(site: &Site) -> Vec<Row> {
    let row = |boundary, from: &str, to: &str, allowed: &str| Row {
        boundary,
        from: from.to_owned(),
        to: to.to_owned(),
        allowed: allowed.to_owned(),
    };
    let outside: Vec<IpAddr> = site
        .gateways()
        .flat_map(|node| node.addresses(Zone::Outside))
        .collect();
    let gateway_outside = named("gateway", &outside);
    let gateway_dmz = named("gateway", &site.gateway_addresses());
    let server = named("internal mail server", &site.mail_server_addresses());
    let nets = |list: &[At<ipnet::IpNet>]| list.iter().map(|n| n.to_string()).collect::<Vec<_>>().join(", ");
    let dmz = format!("rest of the DMZ {}", nets(&site.network.dmz));
    let internal_net = format!("internal network {}", nets(&site.network.internal));
    let strangers = if site.options.submissions {
        "tcp/25, tcp/587, tcp/443, tcp/465 (option submissions)"
    } else {
        "tcp/25, tcp/587, tcp/443"
    };
    let mut rows = vec![
        row("firewall 1", "Internet", &gateway_outside, strangers),
        row(
            "firewall 1",
            &gateway_outside,
            "Internet",
            "tcp/25, tcp/53, tcp/80, tcp/443",
        ),
        row("firewall 1", "Internet", &dmz, "nothing, either way"),
        row("firewall 2", &gateway_dmz, &server, "tcp/25"),
        row("firewall 2", &server, &gateway_dmz, "tcp/25"),
    ];
    if let Some(port) = site.smarthost_port() {
        let allowed = format!("tcp/{port}, for the queue alone (option smarthost)");
        rows.insert(2, row("firewall 1", &gateway_outside, "Internet", &allowed));
    }
    if !site.network.app_servers.is_empty() {
        let apps: Vec<IpAddr> = site.network.app_servers.iter().map(|a| **a).collect();
        rows.push(row(
            "firewall 2",
            &named("app server", &apps),
            &gateway_dmz,
            "tcp/25",
        ));
    }
    if let Some(state) = &site.state {
        let to = format!("state host {}", *state.address);
        let allowed = format!("tcp/{} (TLS)", *state.port);
        rows.push(row("dmz-state", &gateway_dmz, &to, &allowed));
    }
    rows.push(row("firewall 2", &dmz, "rest of internal", "nothing, either way"));
    rows.push(row(
        "inside",
        &internal_net,
        &server,
        "tcp/25, tcp/587, tcp/993, tcp/443",
    ));
    if site.services.is_empty() {
        rows.push(row(
            "inside",
            "internal node",
            "internal network",
            "nothing: the site names no services",
        ));
    }
    for service in &site.services {
        let to = format!("{} {}", *service.name, *service.address);
        rows.push(row(
            "inside",
            "internal node",
            &to,
            &format!("{}/{}", service.protocol.as_str(), *service.port),
        ));
    }
    rows
}

fn is_on(site: &Site, option: NamedOption) -> bool {
    match option.name {
        "submissions" => site.options.submissions,
        "dmz-state" => site.state.is_some(),
        "smarthost" => site.smarthost_port().is_some(),
        _ => false,
    }
}

fn named(name: &str, addresses: &[IpAddr]) -> String {
    let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    format!("{name} {}", list.join(", "))
}

/// The matrix as a table, with the state of each option.
pub fn matrix_text(site: &Site) -> String {
    let rows = matrix(site);
    let width = |cell: fn(&Row) -> &str, title: &str| {
        rows.iter()
            .map(|row| cell(row).chars().count())
            .chain([title.len()])
            .max()
            .unwrap_or_default()
    };
    let (b, f, t) = (
        width(|r| r.boundary, "boundary"),
        width(|r| &r.from, "from"),
        width(|r| &r.to, "to"),
    );
    let mut out = format!(
        "Reachability of the site {}; everything not listed is dropped, IPv4 and IPv6.\n\n",
        site.name()
    );
    // Writing to a string cannot fail, here and below.
    let mut line = |boundary: &str, from: &str, to: &str, allowed: &str| {
        let _ = writeln!(out, "{boundary:<b$}  {from:<f$}  {to:<t$}  {allowed}");
    };
    line("boundary", "from", "to", "allowed");
    for row in &rows {
        line(row.boundary, &row.from, &row.to, &row.allowed);
    }
    out += "\nOptions\n";
    for option in OPTIONS {
        let state = if is_on(site, option) {
            "on   opens"
        } else {
            "off  would open"
        };
        let _ = writeln!(out, "{:<12} {state} {}", option.name, option.opens);
    }
    for address in &site.network.reserved {
        let _ = writeln!(out, "\nReserved and dark: {}", **address);
    }
    out
}
