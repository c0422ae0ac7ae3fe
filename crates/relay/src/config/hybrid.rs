//! `[hybrid]`: what the scanners have not answered for in time is taken into the hold and scanned after.

use serde::Deserialize;

use super::Config;
use super::diagnostic::Fault;

/// Absent means that the client waits for the scanners, and comes again where they do not answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Hybrid {
    /// Seconds that the client waits for the scanners, where there is room in the hold.
    pub deadline: u64,
    /// Seconds after which a message that no scanner has answered for goes into quarantine.
    pub lifetime: u64,
    /// Messages in hold and quarantine; with more the client waits for the scanners, as without a hold.
    pub max_messages: usize,
    /// Their octets.
    pub max_octets: u64,
}

impl Default for Hybrid {
    fn default() -> Self {
        Self {
            deadline: 10,
            lifetime: 86_400,
            max_messages: 1000,
            max_octets: 1 << 30,
        }
    }
}

impl Config {
    /// Seconds that a scanner has for a message at most; a minute where there is none.
    pub fn scan_timeout(&self) -> u64 {
        let spam = self.spam.as_ref().map(|spam| spam.timeout);
        let virus = self.virus.as_ref().map(|virus| virus.timeout);
        spam.into_iter().chain(virus).max().unwrap_or(60)
    }
}

/// Seconds that a message may be held.
const MONTH: u64 = 30 * 86_400;

pub(super) fn check(config: &Config) -> Result<(), Fault> {
    let Some(hybrid) = &config.hybrid else {
        return Ok(());
    };
    if config.spam.is_none() && config.virus.is_none() {
        return Err(Fault::new(
            &["hybrid"],
            "there is no scanner to wait for",
            "add [spam] or [virus], or remove [hybrid]",
        ));
    }
    let timeout = config.scan_timeout();
    if hybrid.deadline == 0 || hybrid.deadline >= timeout {
        return Err(Fault::new(
            &["hybrid", "deadline"],
            format!(
                "a deadline of {} s is not below the scanners' timeout",
                hybrid.deadline
            ),
            format!("write a number from 1 to {}", timeout.saturating_sub(1).max(1)),
        ));
    }
    if !(1..=MONTH).contains(&hybrid.lifetime) {
        return Err(Fault::new(
            &["hybrid", "lifetime"],
            format!("a message cannot be held for {} s", hybrid.lifetime),
            "write seconds up to 30 days, such as 86400",
        ));
    }
    if hybrid.max_messages == 0 || hybrid.max_octets < config.limits.max_message_size {
        return Err(Fault::new(
            &["hybrid"],
            "the hold has no room for the largest message",
            "write max-messages = 1000, and max-octets at least as large as max-message-size",
        ));
    }
    Ok(())
}
