//! Whether our own domains publish what others judge our mail by, before others reject it: an SPF record that permits each
//! address that we send from (RFC 7208), the DKIM keys that we sign with (RFC 6376), a DMARC policy (RFC 7489).
//!
//! Enters: domains, addresses and keys of the configuration, and what the DNS says of them. Leaves: findings, each with what is to be
//! published, as warnings and for who asks the control socket. Mail is never stopped by it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::rr::{Name, RData, RecordType};
use mail_auth::spf::verify::SpfParameters;
use mail_auth::{MessageAuthenticator, SpfResult};
use postern_control::{DkimRecord, DnsFinding};

use crate::config::Config;
use crate::deliver::dns::Dns;
use crate::events::Events;
use crate::resolver::ResolverError;

/// SPF may lead to many questions.
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks the DNS about our own domains.
pub struct Published {
    authenticator: MessageAuthenticator,
    dns: Dns,
    hostname: String,
    domains: Vec<String>,
    addresses: Vec<IpAddr>,
    every: Duration,
    keys: Vec<DkimRecord>,
}

impl Published {
    /// As the configuration has it; absent where it does not want it.
    pub fn new(config: &Config, keys: &[DkimRecord]) -> Result<Option<Arc<Self>>, ResolverError> {
        let Some(settings) = &config.self_check else {
            return Ok(None);
        };
        Ok(Some(Arc::new(Self {
            authenticator: crate::resolver::authenticator(config.resolver.address)?,
            dns: Dns::new(config.resolver.address),
            hostname: config.hostname.clone(),
            domains: config.local_domains.clone(),
            addresses: settings.addresses.clone(),
            every: Duration::from_secs(settings.every),
            keys: keys.to_vec(),
        })))
    }

    /// How many domains are looked at.
    pub fn domains(&self) -> u64 {
        self.domains.len() as u64
    }

    /// Checks at once and again and again; each finding is a warning.
    pub async fn watch(self: Arc<Self>, events: Events) {
        loop {
            for finding in self.check().await {
                events.warn(format!(
                    "{}: {}; {}",
                    finding.record, finding.problem, finding.remedy
                ));
            }
            tokio::time::sleep(self.every).await;
        }
    }

    /// What is wrong now, in the order of the domains.
    pub async fn check(&self) -> Vec<DnsFinding> {
        let mut findings = Vec::new();
        for domain in &self.domains {
            self.spf(domain, &mut findings).await;
            self.dkim(domain, &mut findings).await;
            self.dmarc(domain, &mut findings).await;
        }
        findings
    }

    async fn spf(&self, domain: &str, findings: &mut Vec<DnsFinding>) {
        let sender = format!("postmaster@{domain}");
        for address in &self.addresses {
            let parameters =
                SpfParameters::verify_mail_from(*address, &self.hostname, &self.hostname, &sender);
            let verified = tokio::time::timeout(PATIENCE, self.authenticator.verify_spf(parameters)).await;
            let mechanism = match address {
                IpAddr::V4(_) => format!("ip4:{address}"),
                IpAddr::V6(_) => format!("ip6:{address}"),
            };
            let (problem, remedy) = match verified.map(|output| output.result()) {
                Ok(SpfResult::Pass) => continue,
                Ok(SpfResult::None) => (
                    "no SPF record is published".to_owned(),
                    format!("publish a TXT record such as \"v=spf1 {mechanism} -all\""),
                ),
                Ok(SpfResult::PermError) => (
                    "the SPF record is broken, or leads to more than ten questions".to_owned(),
                    format!("publish one valid TXT record such as \"v=spf1 {mechanism} -all\""),
                ),
                Ok(SpfResult::TempError) | Err(_) => no_answer(),
                Ok(SpfResult::Fail | SpfResult::SoftFail | SpfResult::Neutral) => (
                    format!("the SPF record does not permit {address}, which our mail comes from"),
                    format!("put {mechanism} into it"),
                ),
            };
            findings.push(finding(domain, domain.to_owned(), problem, remedy));
        }
    }

    /// A key is compared by what is in `p=`: the other tags may be the operator's own.
    async fn dkim(&self, domain: &str, findings: &mut Vec<DnsFinding>) {
        let suffix = format!("._domainkey.{domain}");
        for key in self.keys.iter().filter(|key| key.name.ends_with(&suffix)) {
            let publish = format!("publish it as TXT \"{}\"", key.value);
            let (problem, remedy) = match self.texts(&key.name).await {
                Err(_) => no_answer(),
                Ok(texts) if texts.iter().any(|text| tag(text, "p") == tag(&key.value, "p")) => continue,
                Ok(texts) if texts.is_empty() => (
                    "the DKIM key that we sign with is not published".to_owned(),
                    publish,
                ),
                Ok(_) => (
                    "another DKIM key is published than the one that we sign with".to_owned(),
                    publish,
                ),
            };
            findings.push(finding(domain, key.name.clone(), problem, remedy));
        }
    }

    async fn dmarc(&self, domain: &str, findings: &mut Vec<DnsFinding>) {
        let record = format!("_dmarc.{domain}");
        let (problem, remedy) = match self.texts(&record).await {
            Err(_) => no_answer(),
            Ok(texts)
                if texts
                    .iter()
                    .any(|text| tag(text, "v").as_deref() == Some("DMARC1")) =>
            {
                return;
            }
            Ok(_) => (
                "no DMARC policy is published".to_owned(),
                "publish a TXT record such as \"v=DMARC1; p=reject\"".to_owned(),
            ),
        };
        findings.push(finding(domain, record, problem, remedy));
    }

    /// The TXT records of a name, each as one text (RFC 7208 section 3.3).
    async fn texts(&self, name: &str) -> Result<Vec<String>, String> {
        let mut name = Name::from_ascii(name).map_err(|error| error.to_string())?;
        name.set_fqdn(true);
        let answer = self.dns.ask(name, RecordType::TXT).await?;
        let texts = answer.data.iter().filter_map(|data| match data {
            RData::TXT(text) => Some(String::from_utf8_lossy(&text.txt_data.concat()).into_owned()),
            _ => None,
        });
        Ok(texts.collect())
    }
}

fn finding(domain: &str, record: String, problem: String, remedy: String) -> DnsFinding {
    DnsFinding {
        domain: domain.to_owned(),
        record,
        problem,
        remedy,
    }
}

fn no_answer() -> (String, String) {
    (
        "the DNS has no answer now".to_owned(),
        "look at the domain's name servers and at DNSSEC".to_owned(),
    )
}

/// The value of a tag of a list (RFC 6376 section 3.2), without white space.
fn tag(text: &str, wanted: &str) -> Option<String> {
    text.split(';').find_map(|part| {
        let (name, value) = part.split_once('=')?;
        (name.trim() == wanted).then(|| value.split_ascii_whitespace().collect())
    })
}
