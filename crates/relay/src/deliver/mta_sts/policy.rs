//! The text of MTA-STS: the TXT record and the policy file (RFC 8461 3.1, 3.2), and which hosts a policy lets in (4.1).

use serde::{Deserialize, Serialize};

/// Host patterns of one policy; more are a fault.
const MAX_HOSTS: usize = 64;
/// RFC 8461 3.2: about a year.
const MAX_AGE: u64 = 31_557_600;

/// What a policy asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Nothing is sent to a host that does not fit.
    Enforce,
    /// Failures are only counted by who reports them.
    Testing,
    /// There is no policy.
    None,
}

/// A domain's policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// What it asks for.
    pub mode: Mode,
    /// Seconds that it may be kept.
    pub max_age: u64,
    /// Patterns of the domain's mail hosts, in lower case.
    pub hosts: Vec<String>,
}

/// Why a text is no policy.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// RFC 8461 3.2.
    #[error("the first line is not \"version: STSv1\"")]
    Version,
    /// A field is missing or has no sense.
    #[error("`{0}` is missing or wrong")]
    Field(&'static str),
    /// More hosts than anybody has.
    #[error("it names more than {MAX_HOSTS} hosts")]
    TooManyHosts,
}

impl Policy {
    /// Reads a policy file. Of a field that stands twice the first counts, `mx` excepted; unknown fields are passed over.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let mut fields = text
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key.trim(), value.trim()));
        if fields.next() != Some(("version", "STSv1")) {
            return Err(PolicyError::Version);
        }
        let (mut mode, mut max_age, mut hosts) = (None, None, Vec::new());
        for (key, value) in fields {
            match key {
                "mode" if mode.is_none() => mode = Some(value),
                "max_age" if max_age.is_none() => max_age = Some(value),
                "mx" if hosts.len() == MAX_HOSTS => return Err(PolicyError::TooManyHosts),
                "mx" => hosts.push(value.trim_end_matches('.').to_ascii_lowercase()),
                _ => {}
            }
        }
        let mode = match mode {
            Some("enforce") => Mode::Enforce,
            Some("testing") => Mode::Testing,
            Some("none") => Mode::None,
            _ => return Err(PolicyError::Field("mode")),
        };
        let digits = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let max_age: u64 = max_age
            .filter(digits)
            .and_then(|age| age.parse().ok())
            .ok_or(PolicyError::Field("max_age"))?;
        if hosts.is_empty() && mode != Mode::None {
            return Err(PolicyError::Field("mx"));
        }
        Ok(Self {
            mode,
            max_age: max_age.min(MAX_AGE),
            hosts,
        })
    }

    /// Whether the policy names this host; `*.` stands for exactly one label.
    pub fn names(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let parent = host.split_once('.').map(|(_, parent)| parent);
        self.hosts.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(suffix) => parent == Some(suffix),
            None => *pattern == host,
        })
    }
}

/// The id of the one record among `texts`; none where there is no record, or more than one, or a wrong one.
pub fn record_id(texts: impl Iterator<Item = impl AsRef<[u8]>>) -> Option<String> {
    let mut records = texts
        .filter_map(|text| String::from_utf8(text.as_ref().to_vec()).ok())
        .filter(|text| {
            text.split(';')
                .next()
                .is_some_and(|first| first.trim_end() == "v=STSv1")
        });
    let (record, None) = (records.next()?, records.next()) else {
        return None;
    };
    let id = record
        .split(';')
        .filter_map(|field| field.split_once('='))
        .find(|(key, _)| key.trim() == "id")
        .map(|(_, id)| id.trim().to_owned())?;
    let right = (1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
    right.then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_read() {
        let text = "version: STSv1\r\nmode: enforce\r\nmx: Mail.Example.com\r\nmx: *.example.net\r\nfuture: x\r\nmax_age: 604800\r\nmode: none\r\n";
        let policy = Policy::parse(text).unwrap();
        assert_eq!((policy.mode, policy.max_age), (Mode::Enforce, 604_800));
        let names = |host: &str| policy.names(host);
        assert!(names("mail.example.com") && names("MX1.example.net.") && names("*.example.net"));
        assert!(!names("example.net") && !names("a.b.example.net") && !names("mx.example.com"));
        assert_eq!(
            Policy::parse("version: STSv1\nmode: none\nmax_age: 1")
                .unwrap()
                .mode,
            Mode::None
        );
        assert_eq!(
            Policy::parse("version: STSv1\nmode: none\nmax_age: 99999999999")
                .unwrap()
                .max_age,
            MAX_AGE
        );
    }

    #[test]
    fn what_is_no_policy_is_refused() {
        use PolicyError::{Field, TooManyHosts, Version};
        let many = format!(
            "version: STSv1\nmode: enforce\nmax_age: 1\n{}",
            "mx: a.example\n".repeat(65)
        );
        for (text, error) in [
            ("", Version),
            ("<html>404</html>", Version),
            (
                "mode: enforce\nversion: STSv1\nmx: a.example\nmax_age: 1\n",
                Version,
            ),
            (
                "version: STSv2\nmode: enforce\nmx: a.example\nmax_age: 1\n",
                Version,
            ),
            (
                "version: STSv1\nmode: force\nmx: a.example\nmax_age: 1\n",
                Field("mode"),
            ),
            ("version: STSv1\nmode: enforce\nmx: a.example\n", Field("max_age")),
            (
                "version: STSv1\nmode: enforce\nmx: a.example\nmax_age: +1\n",
                Field("max_age"),
            ),
            ("version: STSv1\nmode: testing\nmax_age: 1\n", Field("mx")),
            (many.as_str(), TooManyHosts),
        ] {
            assert_eq!(Policy::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn exactly_one_right_record_counts() {
        let id = |texts: &[&str]| record_id(texts.iter());
        assert_eq!(id(&["v=STSv1; id=20260101T00;"]).as_deref(), Some("20260101T00"));
        assert_eq!(id(&["v=spf1 -all", "v=STSv1;id=a"]).as_deref(), Some("a"));
        for wrong in [
            &["v=STSv1; id=a", "v=STSv1; id=b"][..],
            &[],
            &["v=STSv1;"],
            &["v=STSv1; id=a-b"],
            &["v=STSv12; id=a"],
        ] {
            assert_eq!(id(wrong), None, "{wrong:?}");
        }
    }
}
