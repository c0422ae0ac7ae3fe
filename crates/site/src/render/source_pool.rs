//! Source pools in `relay.toml`: those with addresses on this gateway.

use std::fmt::Write as _;

use super::{quoted, quoted_list};
use crate::model::{MailClass, Node, Site, Zone};

pub(super) fn pools(site: &Site, node: &Node) -> String {
    let own = node.addresses(Zone::Outside);
    let mut out = String::new();
    for pool in &site.source_pools {
        let here: Vec<_> = pool
            .addresses
            .iter()
            .filter(|address| own.contains(address))
            .collect();
        if here.is_empty() {
            continue;
        }
        let addresses = quoted_list(here.iter().map(|address| address.to_string()));
        // Writing to a string cannot fail, here and below.
        let _ = write!(
            out,
            "\n[[source-pool]]\nname = {}\naddresses = {addresses}\n",
            quoted(&pool.name)
        );
        if let Some(helo) = &pool.helo {
            let _ = writeln!(out, "helo = {}", quoted(helo.as_str()));
        }
        if let Some(class) = pool.class {
            let class = match class {
                MailClass::Transactional => "transactional",
                MailClass::Bulk => "bulk",
            };
            let _ = writeln!(out, "class = \"{class}\"");
        }
        let senders = quoted_list(pool.senders.iter().map(|domain| domain.as_str()));
        let _ = writeln!(out, "senders = {senders}");
    }
    out
}
