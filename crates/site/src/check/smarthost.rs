//! What must hold for a smarthost.

use super::duplicates;
use crate::diagnostic::Report;
use crate::model::Site;

pub(super) fn check(site: &Site, report: &mut Report) {
    let Some(smarthost) = &site.smarthost else {
        return;
    };
    duplicates(
        smarthost.domains.iter().map(|d| (d.to_string(), d.span())),
        "the smarthost's domain",
        report,
    );
    for domain in &smarthost.domains {
        if site.domains.iter().any(|own| **own == **domain) {
            report.add(
                domain.span(),
                format!(
                    "{} is a domain of this site, its mail goes to the internal node",
                    **domain
                ),
                "name only domains of others, or leave `domains` out for all outward mail",
            );
        }
    }
    if site
        .nodes
        .iter()
        .any(|node| node.hostname() == smarthost.host.as_str())
    {
        report.add(
            smarthost.host.span(),
            format!("{} is a node of this site", *smarthost.host),
            "name the provider's host, or remove [smarthost]: mail would go in circles",
        );
    }
}
