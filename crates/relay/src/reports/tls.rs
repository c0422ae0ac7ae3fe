//! What a TLS report is made of (RFC 8460): one session, or one policy that could not be applied.
//!
//! The queue sees it where it delivers (`deliver/observed.rs`), collects it by day and domain and mails it
//! (`queue/reports/tls.rs`).

use mail_auth::report::tlsrpt::{FailureDetails, PolicyDetails};

use crate::deliver::dns::a_labels;

/// Octets of a text that others chose: a host's name, an error, a line of a policy.
const TEXT: usize = 512;
/// Lines of a policy that are reported; an MTA-STS policy has three and one for each pattern.
const LINES: usize = 67;

/// What came of one session, or of a look at a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The recipients' domain, which is asked whether it wants reports.
    pub domain: String,
    /// What stood.
    pub policy: PolicyDetails,
    /// Why it failed; absent where it did not.
    pub failure: Option<FailureDetails>,
}

impl Seen {
    /// The same within bounds, with domains in A-labels; none of what has no name that could publish a record.
    #[must_use]
    pub fn bounded(mut self) -> Option<Self> {
        self.domain = a_labels(&self.domain)?;
        self.policy.policy_domain = a_labels(&self.policy.policy_domain)?;
        for lines in [&mut self.policy.policy_string, &mut self.policy.mx_host] {
            lines.truncate(LINES);
            for line in lines {
                *line = text(line);
            }
        }
        if let Some(failure) = &mut self.failure {
            failure.failed_session_count = 1;
            for told in [
                &mut failure.receiving_mx_hostname,
                &mut failure.receiving_mx_helo,
                &mut failure.additional_information,
                &mut failure.failure_reason_code,
            ] {
                *told = told.as_deref().map(text);
            }
        }
        Some(self)
    }

    /// Octets that it takes about, in memory and in a file.
    pub fn weight(&self) -> u64 {
        let lines = self.policy.policy_string.iter().chain(&self.policy.mx_host);
        let lines: usize = lines.map(|line| line.len() + 3).sum();
        let failure = self.failure.as_ref().map_or(0, |failure| {
            let told = [
                &failure.receiving_mx_hostname,
                &failure.receiving_mx_helo,
                &failure.failure_reason_code,
            ];
            300 + told.into_iter().flatten().map(String::len).sum::<usize>()
        });
        (200 + 2 * self.domain.len() + lines + failure) as u64
    }
}

fn text(text: &str) -> String {
    let text = &text[..text.floor_char_boundary(TEXT)];
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use mail_auth::report::tlsrpt::{PolicyType, ResultType};

    use super::*;

    #[test]
    fn what_strangers_write_stays_within_bounds() {
        let long = "h\r\n\u{7}".repeat(1000);
        let mut policy = PolicyDetails::new(PolicyType::Sts, "B\u{fc}ro.example");
        policy.mx_host = vec![long.clone(); 1000];
        let seen = Seen {
            domain: "B\u{fc}ro.example".into(),
            policy,
            failure: Some(
                FailureDetails::new(ResultType::Other)
                    .with_receiving_mx_hostname(&long)
                    .with_failure_reason_code(long),
            ),
        };
        let before = seen.weight();
        let seen = seen.bounded().unwrap();
        assert_eq!(seen.domain, "xn--bro-hoa.example");
        assert_eq!(seen.policy.policy_domain, seen.domain);
        assert_eq!(seen.policy.mx_host.len(), LINES);
        let reason = seen.failure.clone().unwrap().failure_reason_code.unwrap();
        assert!(reason.starts_with("h???h") && reason.len() <= TEXT, "{reason}");
        assert!(seen.weight() < before && seen.weight() > (LINES * TEXT) as u64 / 2);
    }
}
