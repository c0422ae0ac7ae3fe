//! What is held against a client before its mail is looked at: `[client]` and `[[dns-list]]`.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use super::diagnostic::Fault;
use super::{CheckName, Config, Network};

/// `[client]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Client {
    /// What follows where the address has no name that leads back to it.
    pub reverse_dns: Attitude,
    /// What follows where the name in EHLO cannot be the client's.
    pub helo: Attitude,
}

/// What follows from a bad sign.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attitude {
    /// The message is marked.
    #[default]
    Mark,
    /// It is refused.
    Reject,
}

/// `[[dns-list]]`: a list of addresses in DNS (RFC 5782).
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct DnsList {
    /// Its domain.
    pub zone: String,
    /// What follows for a client that is on it.
    pub action: ListAction,
    /// Added to the spam score, where `action` is that.
    pub weight: Option<f64>,
    /// Answers that count, of 127.0.0.0/8.
    #[serde(default = "all_codes")]
    pub codes: Vec<Network>,
}

/// What follows for a client that is on a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ListAction {
    /// Its mail is refused.
    Reject,
    /// Its mail is marked.
    Mark,
    /// The list's weight is added to the spam score.
    Score,
    /// It is exempt from the other lists and the greylist.
    Allow,
}

const CODES: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);

fn all_codes() -> Vec<Network> {
    vec![Network(IpNet::V4(CODES))]
}

impl DnsList {
    /// Whether this answer of the list counts.
    pub fn wants(&self, code: Ipv4Addr) -> bool {
        self.codes.iter().any(|codes| codes.contains(IpAddr::V4(code)))
    }
}

/// What must hold of the lists.
pub(super) fn check(config: &Config) -> Result<(), Fault> {
    for (index, list) in config.dns_list.iter().enumerate() {
        let index = index.to_string();
        let at = |key: &'static str| ["dns-list".to_owned(), index.clone(), key.to_owned()];
        let fault = |key, message: String, remedy: &str| {
            let at = at(key);
            let at: Vec<&str> = at.iter().map(String::as_str).collect();
            Err(Fault::new(&at, message, remedy))
        };
        if !is_zone(&list.zone) {
            return fault(
                "zone",
                format!("`{}` is not the domain of a list", list.zone),
                "write its domain, such as \"dnsbl.example\", without a final dot",
            );
        }
        let scores = list.action == ListAction::Score;
        if scores != list.weight.is_some()
            || list.weight.is_some_and(|weight| !(0.0..=100.0).contains(&weight))
        {
            return fault(
                "action",
                "action = \"score\", and it alone, needs a weight from 0 to 100".to_owned(),
                "add weight, such as weight = 2.5, or take it out",
            );
        }
        if scores && config.spam.is_none() {
            return fault(
                "action",
                "the weight is added to the spam score, and there is no [spam]".to_owned(),
                "add [spam], or use \"mark\" or \"reject\"",
            );
        }
        let lies_in = |codes: &Network| matches!(codes.0, IpNet::V4(codes) if CODES.contains(&codes));
        if list.codes.is_empty() || !list.codes.iter().all(lies_in) {
            return fault(
                "codes",
                "lists answer with addresses of 127.0.0.0/8 (RFC 5782 section 2.1)".to_owned(),
                "write those of the list's documentation, such as [\"127.0.0.2\", \"127.0.0.4/30\"]",
            );
        }
    }
    for (name, instance) in &config.instance {
        if config.dns_list.is_empty() && instance.checks.contains(&CheckName::DnsLists) {
            return Err(Fault::new(
                &["instance", name, "checks"],
                "the check \"dns-lists\" needs at least one [[dns-list]]",
                "add one, or take the check out of the list",
            ));
        }
    }
    Ok(())
}

/// Labels of letters, digits, hyphens and underscores; room is left for an IPv6 address in front.
fn is_zone(text: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|octet| octet.is_ascii_alphanumeric() || b"-_".contains(&octet))
    };
    text.len() <= 180 && text.contains('.') && text.split('.').all(is_label)
}
