//! `[client]` and `[[dns-list]]` of `relay.toml`, and the checks that go with them.

use std::fmt::Write as _;

use super::relay::peer;
use super::{quoted, quoted_list};
use crate::model::{Attitude, ListAction, Site};

/// The names of the checks, each with a comma and a space behind.
pub(super) fn checks(site: &Site) -> String {
    let policy = &site.policy;
    let wanted = [
        ("helo", *policy.helo != Attitude::Off),
        ("reverse-dns", *policy.reverse_dns != Attitude::Off),
        ("dns-lists", !site.dns_lists.is_empty()),
    ];
    let names = wanted.iter().filter(|(_, is)| *is);
    names.flat_map(|(name, _)| ["\"", name, "\", "]).collect()
}

pub(super) fn render(site: &Site) -> String {
    let mut out = String::from("\n[client]\n");
    let policy = &site.policy;
    for (key, attitude) in [("reverse-dns", *policy.reverse_dns), ("helo", *policy.helo)] {
        // What is off is not among the checks.
        if attitude != Attitude::Off {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{key} = \"{}\"", attitude.as_str());
        }
    }
    for list in &site.dns_lists {
        let _ = write!(
            out,
            "\n[[dns-list]]\nzone = {}\naction = \"{}\"\n",
            quoted(list.zone.as_str()),
            match *list.action {
                ListAction::Reject => "reject",
                ListAction::Mark => "mark",
                ListAction::Score => "score",
                ListAction::Allow => "allow",
            }
        );
        if let Some(weight) = *list.weight {
            let _ = writeln!(out, "weight = {weight:?}");
        }
        if !list.codes.is_empty() {
            let _ = writeln!(out, "codes = {}", quoted_list(list.codes.iter().map(peer)));
        }
    }
    out
}
