//! `suricata-site.yaml`: which addresses are ours and which links to listen on; included by the image's own
//! `suricata.yaml`, which holds everything that does not depend on the site.

use std::fmt::Write as _;

use crate::model::{Site, Zone};

/// No comment of ours before the first line: Suricata wants `%YAML` there.
pub(super) fn render(site: &Site) -> String {
    let outside = site.gateways().flat_map(|node| node.addresses(Zone::Outside));
    let mut home: Vec<String> = outside.map(|a| a.to_string()).collect();
    home.extend(site.public_addresses().iter().map(ToString::to_string));
    home.extend(
        site.network
            .dmz
            .iter()
            .chain(site.network.internal.iter())
            .map(|n| n.to_string()),
    );
    let mut servers: Vec<String> = site.gateway_addresses().iter().map(ToString::to_string).collect();
    servers.extend(
        site.gateways()
            .flat_map(|n| n.addresses(Zone::Outside))
            .map(|a| a.to_string()),
    );
    servers.extend(site.mail_server_addresses().iter().map(ToString::to_string));
    let mut out = String::from("%YAML 1.1\n---\n");
    out += "# Rendered by postern from site.toml. Changes here are lost at the next boot.\n";
    // Writing to a string cannot fail.
    let _ = write!(
        out,
        "vars:
  address-groups:
    HOME_NET: \"[{home}]\"
    EXTERNAL_NET: \"!$HOME_NET\"
    SMTP_SERVERS: \"[{servers}]\"
  port-groups:
    SMTP_PORTS: \"[25,587]\"

af-packet:
",
        home = unique(home).join(","),
        servers = unique(servers).join(","),
    );
    for (number, zone) in [Zone::Outside, Zone::Dmz].into_iter().enumerate() {
        let _ = write!(
            out,
            "  - interface: {}
    threads: 1
    cluster-id: {}
    cluster-type: cluster_flow
    defrag: yes
    use-mmap: yes
    tpacket-v3: yes
",
            zone.as_str(),
            99 - number,
        );
    }
    out
}

fn unique(list: Vec<String>) -> Vec<String> {
    let mut seen = Vec::new();
    for item in list {
        if !seen.contains(&item) {
            seen.push(item);
        }
    }
    seen
}
