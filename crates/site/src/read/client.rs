//! What is held against clients from outside: `[[dns-list]]`, and the words of `[policy]` for it.

use super::{or_default, or_empty};
use crate::diagnostic::Fault;
use crate::model::{At, Attitude, DnsList, ListAction};
use crate::reader::Reader;
use crate::value;

pub(super) fn attitude(text: &str) -> Result<Attitude, Fault> {
    match text {
        "off" => Ok(Attitude::Off),
        "mark" => Ok(Attitude::Mark),
        "reject" => Ok(Attitude::Reject),
        _ => Err(Fault::new(
            format!("a bad sign cannot mean `{text}`"),
            "use \"off\" (it is not looked for), \"mark\" or \"reject\"",
        )),
    }
}

fn action(text: &str) -> Result<ListAction, Fault> {
    match text {
        "reject" => Ok(ListAction::Reject),
        "mark" => Ok(ListAction::Mark),
        "score" => Ok(ListAction::Score),
        "allow" => Ok(ListAction::Allow),
        _ => Err(Fault::new(
            format!("a list cannot `{text}`"),
            "use \"reject\", \"mark\", \"score\" (with a weight), or \"allow\" (exempt from other lists and the greylist)",
        )),
    }
}

pub(super) fn dns_list(table: &mut Reader<'_, '_>) -> Option<DnsList> {
    let zone = table.required_text(
        "zone",
        "add the list's domain, such as zone = \"dnsbl.example\"",
        value::domain,
    );
    let action = table.required_text(
        "action",
        "say what follows for a client on it: action = \"reject\", \"mark\", \"score\" or \"allow\"",
        action,
    );
    let weight = table.decimal("weight");
    let weight = match (weight, table.key_span("weight")) {
        (None, None) => Some(At::default_value(None)),
        (read, _) => read.map(|weight| At::new(Some(*weight), weight.span())),
    };
    let codes = table.list("codes", value::peer);
    let all = or_empty(table, "codes", codes);
    let list = DnsList {
        zone: zone?,
        action: action?,
        weight: weight?,
        codes: all?,
    };
    let scores = *list.action == ListAction::Score;
    if scores != list.weight.is_some() || list.weight.is_some_and(|weight| !(0.0..=100.0).contains(&weight)) {
        table.report.add(
            list.action.span(),
            format!(
                "the list {} needs a weight where it scores, and only there",
                *list.zone
            ),
            "with action = \"score\" add a weight from 0 to 100, such as weight = 2.5; else take it out",
        );
    }
    for codes in &list.codes {
        if !matches!(codes.network(), std::net::IpAddr::V4(address) if address.is_loopback())
            || codes.prefix_len() < 8
        {
            table.report.add(
                codes.span(),
                format!("{} is no answer of a list", **codes),
                "lists answer with addresses of 127.0.0.0/8 (RFC 5782): write those of its documentation, such as \"127.0.0.2\"",
            );
        }
    }
    Some(list)
}

pub(super) fn attitude_of(
    table: &mut Reader<'_, '_>,
    key: &'static str,
    default: Attitude,
) -> Option<At<Attitude>> {
    let read = table.text(key, attitude);
    or_default(table, key, read, default)
}
