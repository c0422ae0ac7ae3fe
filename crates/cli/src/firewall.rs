//! `postern firewall status`: the rule set that the kernel holds, read through `nft`'s JSON. Leaves: its state and,
//! for each rule of a matrix row, how many packets it counted. An unloaded wall is an error, so that a unit may ask.

use anyhow::{Context, bail};
use nftables::helper::get_current_ruleset;
use nftables::schema::{Chain, NfListObject, NfObject, Nftables, Rule};
use nftables::stmt::{Counter, Statement};
use nftables::types::{NfChainPolicy, NfFamily, NfHook};
use serde::Serialize;

const TABLE: &str = "postern";

/// What the kernel's `table inet postern` amounts to.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// No such table: nothing is filtered.
    Absent,
    /// A base chain is missing or does not drop by default.
    Open,
    /// `closed.nft`: nothing passes.
    Closed,
    /// A role's rule set.
    Loaded,
}

/// One rule with a comment and a counter.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Row {
    chain: String,
    comment: String,
    packets: usize,
}

#[derive(Debug, Serialize)]
struct Status {
    state: State,
    rows: Vec<Row>,
}

/// Prints the state and the counters.
///
/// # Errors
/// `nft` cannot be asked, or the state is other than loaded.
pub(crate) fn show(json: bool) -> anyhow::Result<()> {
    let ruleset = get_current_ruleset()
        .context("cannot read the kernel's rule set: run as root, with nft installed")?;
    let status = examine(&ruleset);
    if json {
        println!("{}", serde_json::to_string(&status)?);
    } else {
        for row in &status.rows {
            println!("{:>12}  {:<18} {}", row.packets, row.chain, row.comment);
        }
    }
    match status.state {
        State::Loaded => Ok(()),
        State::Absent => bail!(
            "the firewall is not loaded: the kernel has no table inet {TABLE}; see the journal of postern-closed and postern-firewall"
        ),
        State::Open => bail!(
            "the firewall is not whole: a base chain of table inet {TABLE} is missing or does not drop; restart postern-firewall"
        ),
        State::Closed => bail!(
            "the firewall is closed, nothing passes: the role's rule set was not loaded; see the journal of postern-render and postern-firewall"
        ),
    }
}

fn examine(ruleset: &Nftables<'_>) -> Status {
    let objects = || {
        ruleset.objects.iter().filter_map(|object| match object {
            NfObject::ListObject(object) => Some(object),
            NfObject::CmdObject(_) => None,
        })
    };
    let chains: Vec<&Chain<'_>> = objects()
        .filter_map(|object| match object {
            NfListObject::Chain(chain) if chain.family == NfFamily::INet && chain.table == TABLE => {
                Some(chain)
            }
            _ => None,
        })
        .collect();
    let drops = |hook| {
        chains
            .iter()
            .any(|c| c.hook == Some(hook) && c.policy == Some(NfChainPolicy::Drop))
    };
    let rows: Vec<Row> = objects()
        .filter_map(|object| match object {
            NfListObject::Rule(rule) if rule.family == NfFamily::INet && rule.table == TABLE => row(rule),
            _ => None,
        })
        .collect();
    let state = if chains.is_empty() {
        State::Absent
    } else if ![NfHook::Input, NfHook::Forward, NfHook::Output]
        .into_iter()
        .all(drops)
    {
        State::Open
    } else if rows.iter().any(|row| row.comment.starts_with("role: ")) {
        State::Loaded
    } else {
        State::Closed
    };
    Status { state, rows }
}

fn row(rule: &Rule<'_>) -> Option<Row> {
    let packets = rule.expr.iter().find_map(|statement| match statement {
        Statement::Counter(Counter::Anonymous(Some(counter))) => counter.packets,
        _ => None,
    })?;
    Some(Row {
        chain: rule.chain.to_string(),
        comment: rule.comment.as_deref()?.to_owned(),
        packets,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = r#"
      {"chain": {"family": "inet", "table": "postern", "name": "input", "handle": 1, "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}},
      {"chain": {"family": "inet", "table": "postern", "name": "forward", "handle": 2, "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}}"#;
    const OUTPUT: &str = r#"
      {"chain": {"family": "inet", "table": "postern", "name": "output", "handle": 3, "type": "filter", "hook": "output", "prio": 0, "policy": "POLICY"}}"#;
    const RULE: &str = r#"
      {"rule": {"family": "inet", "table": "postern", "chain": "input_rows", "handle": 9, "comment": "role: gateway",
        "expr": [{"counter": {"packets": 7, "bytes": 420}}, {"jump": {"target": "external_input"}}]}}"#;

    fn status(objects: &[String]) -> Status {
        let text = format!(r#"{{"nftables": [{}]}}"#, objects.join(","));
        examine(&serde_json::from_str(&text).expect("nft's JSON"))
    }

    #[test]
    fn a_role_over_three_dropping_chains_is_loaded() {
        let status = status(&[BASE.into(), OUTPUT.replace("POLICY", "drop"), RULE.into()]);
        assert_eq!(status.state, State::Loaded);
        assert_eq!(
            status.rows,
            [Row {
                chain: "input_rows".into(),
                comment: "role: gateway".into(),
                packets: 7
            }]
        );
    }

    #[test]
    fn a_chain_that_accepts_or_is_missing_is_open() {
        assert_eq!(
            status(&[BASE.into(), OUTPUT.replace("POLICY", "accept"), RULE.into()]).state,
            State::Open
        );
        assert_eq!(status(&[BASE.into(), RULE.into()]).state, State::Open);
    }

    #[test]
    fn no_role_is_closed_and_no_table_is_absent() {
        assert_eq!(
            status(&[BASE.into(), OUTPUT.replace("POLICY", "drop")]).state,
            State::Closed
        );
        assert_eq!(status(&[RULE.replace("postern", "other")]).state, State::Absent);
    }
}
