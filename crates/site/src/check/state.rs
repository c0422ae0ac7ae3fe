//! The host of the shared state is a host of its own in the DMZ.

use crate::diagnostic::Report;
use crate::model::{Site, Zone};

pub(super) fn check(site: &Site, report: &mut Report) {
    let Some(state) = &site.state else { return };
    let address = *state.address;
    if !site.network.dmz.iter().any(|network| network.contains(&address)) {
        report.add(
            state.address.span(),
            format!("the state host {address} is not in the network `dmz`"),
            format!(
                "use an address of {}: gateways reach no other host but through the Internet's row",
                super::join(&site.network.dmz)
            ),
        );
    }
    let nodes = || {
        site.nodes
            .iter()
            .flat_map(|node| Zone::ALL.into_iter().flat_map(|zone| node.addresses(zone)))
    };
    if nodes().any(|taken| taken == address) {
        report.add(
            state.address.span(),
            format!("the state host {address} is a node's address"),
            "give it a machine of its own: a gateway listens to nothing but mail",
        );
    }
    if site.network.reserved.iter().any(|reserved| **reserved == address) {
        report.add(
            state.address.span(),
            format!("the state host {address} is reserved and dark"),
            "use another address, or take it out of `reserved`",
        );
    }
    let speaks = |node: &&crate::model::Node| {
        let addresses = node.addresses(Zone::Dmz);
        addresses.iter().any(|own| own.is_ipv4() == address.is_ipv4())
    };
    if let Some(mute) = site.gateways().find(|node| !speaks(node)) {
        report.add(
            state.address.span(),
            format!("{} has no address of this family in the DMZ", mute.name()),
            "use an address of the family that all gateways have there",
        );
    }
}
