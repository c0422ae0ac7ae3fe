//! What the shape alone cannot say: names that must exist, keys that need each other.
//!
//! Enters: a deserialised [`Config`]. Leaves: nothing, or the first [`Fault`].

use super::diagnostic::Fault;
use super::{
    Authentication, CheckName, Config, InboundTls, Instance, Network, RecipientVia, RelayFor, Submission,
};

/// An envelope goes to the queue in one packet ([`crate::handover::MAX_PACKET`]), where so many ordinary addresses have room;
/// one that has none is refused with 552 at the end of DATA.
const MAX_RECIPIENTS: usize = 1000;

/// Checks the whole configuration.
pub fn check(config: &Config) -> Result<(), Fault> {
    if config.instance.is_empty() {
        return Err(Fault::new(
            &[],
            "no [instance.NAME] table",
            "add one, for example [instance.public]",
        ));
    }
    for (key, value) in [("hostname", &config.hostname), ("postmaster", &config.postmaster)] {
        if value.is_empty() || value.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(Fault::new(
                &[key],
                format!("`{value}` is not usable here"),
                "write a name without spaces",
            ));
        }
    }
    if config.limits.message_memory < config.limits.max_message_size {
        return Err(Fault::new(
            &["limits", "message-memory"],
            "message-memory is below max-message-size, so the largest message would never fit",
            "make message-memory a few times max-message-size",
        ));
    }
    if !(1..=MAX_RECIPIENTS).contains(&config.limits.max_recipients) {
        return Err(Fault::new(
            &["limits", "max-recipients"],
            format!("max-recipients is {}", config.limits.max_recipients),
            format!(
                "write a number from 1 to {MAX_RECIPIENTS}; RFC 5321 section 4.5.3.1.8 asks for 100 at least"
            ),
        ));
    }
    for sealer in &config.trusted_sealers {
        if !sealer.contains('.')
            || sealer
                .chars()
                .any(|c| c.is_whitespace() || matches!(c, '@' | '*'))
        {
            return Err(Fault::new(
                &["trusted-sealers"],
                format!("`{sealer}` is not the domain of a seal"),
                "write the d= of its ARC-Seal fields, such as \"lists.example.net\"",
            ));
        }
    }
    let stress = &config.stress;
    if stress.at_percent > 100 || [stress.command_timeout, stress.data_timeout].contains(&0) {
        return Err(Fault::new(
            &["stress"],
            "at-percent is a number from 0 (never) to 100, and the waits are a second at least",
            "write for example at-percent = 80, command-timeout = 30, data-timeout = 60",
        ));
    }
    if config.limits.proven_factor == 0 {
        return Err(Fault::new(
            &["limits", "proven-factor"],
            "proven-factor is 0, which would take every limit away from those who proved themselves",
            "write 1 to raise no limit, or the factor, such as 10",
        ));
    }
    for (name, instance) in &config.instance {
        check_instance(config, name, instance)?;
    }
    if let Some(spam) = &config.spam
        && spam.mark_score > spam.reject_score
    {
        return Err(Fault::new(
            &["spam", "mark-score"],
            "mark-score is above reject-score, so nothing would ever be marked",
            "make mark-score the smaller of the two",
        ));
    }
    if let Some(content) = &config.content {
        crate::scan::config::check(content)?;
    }
    if let Some(proxy) = &config.proxy
        && !config.next_hop.contains_key(&proxy.next_hop)
    {
        return Err(Fault::new(
            &["proxy", "next-hop"],
            format!("there is no [next-hop.{}]", proxy.next_hop),
            format!("name one of: {}", names(config.next_hop.keys())),
        ));
    }
    if config.shared_state.is_some() && config.proxy.is_none() {
        return Err(Fault::new(
            &["shared-state"],
            "[shared-state] is asked by the proxy process, and there is no [proxy]",
            "add [proxy] with `next-hop`, or remove [shared-state]: each gateway then remembers for itself",
        ));
    }
    if config.reputation.snapshot_interval == 0 {
        return Err(Fault::new(
            &["reputation", "snapshot-interval"],
            "a snapshot every 0 seconds is one after the other",
            "write the seconds between two of them, such as 300",
        ));
    }
    super::client::check(config).and_then(|()| super::hybrid::check(config))?;
    crate::queue::config::check(config)
}

fn check_instance(config: &Config, name: &str, instance: &Instance) -> Result<(), Fault> {
    let at = |key: &'static str| ["instance", name, key];
    if name.is_empty()
        || !name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
    {
        return Err(Fault::new(
            &["instance", name],
            format!("`{name}` cannot name an instance: it becomes a socket's file name"),
            "use lower-case letters, digits and hyphens",
        ));
    }
    if instance.tls != InboundTls::Off && (instance.certificate.is_none() || instance.key.is_none()) {
        return Err(Fault::new(
            &["instance", name, "tls"],
            "TLS needs `certificate` and `key`",
            "name both PEM files in this table, or set tls = \"off\"",
        ));
    }
    if instance.trusted_addresses.iter().any(Network::is_everybody) {
        return Err(Fault::new(
            &at("trusted-addresses"),
            "a network of prefix length 0 trusts everybody: an open relay",
            "list the addresses of the hosts that may send through this instance",
        ));
    }
    if instance.proxy_protocol_from.iter().any(Network::is_everybody) {
        return Err(Fault::new(
            &at("proxy-protocol-from"),
            "a network of prefix length 0 lets everybody claim any address",
            "list the addresses of the proxies in front of this instance, and nothing else",
        ));
    }
    match instance.authentication {
        Authentication::None if instance.relay_for == RelayFor::Any => {
            return Err(Fault::new(
                &at("relay-for"),
                "relaying for any domain without authentication is an open relay",
                "set authentication, or relay-for = \"local-domains\"",
            ));
        }
        Authentication::None
            if !instance.trusted_names.is_empty() || !instance.trusted_addresses.is_empty() =>
        {
            return Err(Fault::new(
                &at("authentication"),
                "trusted-names and trusted-addresses have no meaning without authentication",
                "set authentication = \"client-certificate\", or remove them",
            ));
        }
        Authentication::ClientCertificate
            if !instance.trusted_names.is_empty() && instance.client_ca.is_none() =>
        {
            return Err(Fault::new(
                &at("trusted-names"),
                "client certificates cannot be checked without `client-ca`",
                "name the authority's PEM file as client-ca",
            ));
        }
        Authentication::Sasl if config.sasl.is_none() => {
            return Err(Fault::new(
                &at("authentication"),
                "authentication = \"sasl\" needs a [sasl] table",
                "add [sasl] with the socket of Dovecot's auth service",
            ));
        }
        Authentication::Sasl
            if !instance.trusted_names.is_empty() || !instance.trusted_addresses.is_empty() =>
        {
            return Err(Fault::new(
                &at("authentication"),
                "with \"sasl\" everybody logs in: trusted-names and trusted-addresses have no meaning",
                "remove them, or set authentication = \"client-certificate\"",
            ));
        }
        Authentication::Sasl if instance.tls == InboundTls::Off => {
            return Err(Fault::new(
                &at("tls"),
                "passwords are taken over TLS only, and TLS is off",
                "set tls = \"required\"",
            ));
        }
        _ => {}
    }
    check_submission(config, name, instance)?;
    check_checks(config, name, instance)
}

fn check_submission(config: &Config, name: &str, instance: &Instance) -> Result<(), Fault> {
    let fault = |what: &str, remedy: &str| Err(Fault::new(&["instance", name, "submission"], what, remedy));
    match instance.submission {
        Submission::PassInward if config.proxy.is_none() => fault(
            "submissions are passed inward by the proxy, and there is no [proxy] table",
            "add [proxy] with the next hop to the internal node",
        ),
        Submission::PassInward if instance.authentication != Authentication::None => fault(
            "submissions are passed inward from the instance that is open to strangers",
            "set authentication = \"none\", or submission = \"off\"",
        ),
        Submission::PassInward if instance.tls == InboundTls::Off => fault(
            "passwords are taken over TLS only, and TLS is off",
            "set tls = \"required\"",
        ),
        Submission::FromGateway
            if instance.authentication != Authentication::ClientCertificate
                || instance.trusted_names.is_empty() =>
        {
            fault(
                "a gateway is believed by its certificate only",
                "set authentication = \"client-certificate\", client-ca and trusted-names",
            )
        }
        Submission::FromGateway if config.sasl.is_none() => fault(
            "passwords are checked by Dovecot, and there is no [sasl] table",
            "add [sasl] with the socket of Dovecot's auth service",
        ),
        _ if instance.submission != Submission::PassInward && !instance.listen_submissions.is_empty() => {
            Err(Fault::new(
                &["instance", name, "listen-submissions"],
                "nobody could log in there",
                "set submission = \"pass-inward\", or remove the line",
            ))
        }
        _ => Ok(()),
    }
}

/// Every named check must have what it asks.
fn check_checks(config: &Config, name: &str, instance: &Instance) -> Result<(), Fault> {
    let at = ["instance", name, "checks"];
    for check in &instance.checks {
        let missing = match check {
            CheckName::Spam if config.spam.is_none() => "[spam]",
            CheckName::Virus if config.virus.is_none() => "[virus]",
            CheckName::Content if config.content.is_none() => "[content]",
            CheckName::Recipient if config.recipient.is_none() => "[recipient]",
            _ => continue,
        };
        return Err(Fault::new(
            &at,
            format!("the check \"{}\" needs the table {missing}", check.as_str()),
            format!("add {missing}, or take the check out of the list"),
        ));
    }
    if instance.checks.contains(&CheckName::Dmarc)
        && !(instance.checks.contains(&CheckName::Spf) && instance.checks.contains(&CheckName::Dkim))
    {
        return Err(Fault::new(
            &at,
            "the check \"dmarc\" judges by the results of \"spf\" and \"dkim\"",
            "list all three",
        ));
    }
    if instance.checks.contains(&CheckName::Arc) && !instance.checks.contains(&CheckName::Dmarc) {
        return Err(Fault::new(
            &at,
            "the check \"arc\" only says when a failure of \"dmarc\" may be excused",
            "list both",
        ));
    }
    if instance.checks.contains(&CheckName::Recipient)
        && config
            .recipient
            .as_ref()
            .is_some_and(|recipient| recipient.via == RecipientVia::Proxy)
        && config.proxy.is_none()
    {
        return Err(Fault::new(
            &["recipient", "via"],
            "via = \"proxy\" needs a [proxy] table",
            "add [proxy] next-hop",
        ));
    }
    Ok(())
}

fn names<'a>(keys: impl Iterator<Item = &'a String>) -> String {
    let all: Vec<&str> = keys.map(String::as_str).collect();
    if all.is_empty() {
        "(there is none yet)".into()
    } else {
        all.join(", ")
    }
}
