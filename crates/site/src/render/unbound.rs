//! `unbound.conf`: the node's only resolver. It answers on loopback alone, validates (RFC 4035) and asks
//! over TCP alone (RFC 7766), which is all that the firewall lets out. See unbound.conf(5).

use std::fmt::Write as _;

use super::header;
use crate::model::{Node, Role, Site, Zone};

pub(super) fn render(site: &Site, node: &Node) -> String {
    let mut out = header(site, node.name());
    out += SERVER;
    match node.role() {
        Role::Gateway => gateway(site, node, &mut out),
        Role::Internal => internal(site, &mut out),
    }
    out += "\nremote-control:\n    control-enable: no\n";
    out
}

/// No chroot and no change of user: the unit sets both the user and the file system. Logs go to stderr.
const SERVER: &str = "server:
    username: \"\"
    chroot: \"\"
    directory: \"/\"
    pidfile: \"\"
    use-syslog: no
    logfile: \"\"
    do-daemonize: no
    verbosity: 1
    log-servfail: yes

    interface: 127.0.0.1
    interface: ::1
    access-control: 0.0.0.0/0 refuse
    access-control: ::/0 refuse
    access-control: 127.0.0.0/8 allow
    access-control: ::1 allow
    do-not-query-localhost: yes

    num-threads: 1
    module-config: \"validator iterator\"
    hide-identity: yes
    hide-version: yes
    qname-minimisation: yes
    harden-glue: yes
    harden-dnssec-stripped: yes
    harden-below-nxdomain: yes
    deny-any: yes
    minimal-responses: yes
";

fn gateway(site: &Site, node: &Node, out: &mut String) {
    let has_ipv6 = node
        .addresses(Zone::Outside)
        .iter()
        .any(std::net::IpAddr::is_ipv6);
    *out += "
    tcp-upstream: yes
    outgoing-num-tcp: 64
    incoming-num-tcp: 64
";
    if !has_ipv6 {
        *out += "    prefer-ip4: yes\n";
    }
    let Some(root) = &site.root else {
        *out += "
    root-hints: \"/usr/share/dns/root.hints\"
    trust-anchor-file: \"/usr/share/dns/root.key\"
";
        return;
    };
    // A root of the site's own: its answers about any zone count, those about private addresses too.
    // Writing to a string cannot fail.
    let _ = writeln!(out, "\n    trust-anchor: \"{}\"", *root.trust_anchor);
    // Nor does unbound then answer for `test` itself (RFC 6761 section 6.2): a closed network may well use it.
    *out += "    unblock-lan-zones: yes\n    local-zone: \"test.\" nodefault\n\nstub-zone:\n    name: \".\"\n    stub-prime: no\n";
    for server in root.servers.iter() {
        let _ = writeln!(out, "    stub-addr: {}", **server);
    }
}

/// The inside has no way to the Internet's name servers: the node knows its own site and refuses the rest.
fn internal(site: &Site, out: &mut String) {
    *out += "\n    local-zone: \".\" refuse\n";
    for node in site.nodes() {
        let zone = if node.role() == Role::Gateway {
            Zone::Dmz
        } else {
            Zone::Internal
        };
        let _ = writeln!(out, "    local-zone: \"{}.\" static", node.hostname());
        for address in node.addresses(zone) {
            let kind = if address.is_ipv4() { "A" } else { "AAAA" };
            let _ = writeln!(
                out,
                "    local-data: \"{}. IN {kind} {address}\"",
                node.hostname()
            );
        }
    }
}
