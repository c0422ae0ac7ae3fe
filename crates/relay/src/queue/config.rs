//! The queue's part of `relay.toml`: next hops, routes, retry, signing.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::provenance::Provenance;
use crate::config::Config;
use crate::config::diagnostic::Fault;

/// `[next-hop.NAME]`
#[derive(Debug, Clone, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "kebab-case",
    rename_all_fields = "kebab-case",
    deny_unknown_fields
)]
pub enum NextHop {
    /// One fixed host by SMTP.
    Smtp(SmtpHop),
    /// A mailbox server by LMTP (RFC 2033).
    Lmtp {
        /// Where it listens.
        socket: LmtpSocket,
    },
    /// By the recipient domain's MX records.
    Mx {
        /// Whether connections must be encrypted.
        tls: OutboundTls,
        /// Recipient domains, in A-labels, for which they need not be. What a domain publishes about itself (DANE,
        /// MTA-STS) holds all the same.
        #[serde(default)]
        tls_exceptions: Vec<String>,
        /// Port, 25 but in tests.
        #[serde(default = "default_port")]
        port: u16,
    },
}

/// A fixed SMTP host.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SmtpHop {
    /// Name or address.
    pub host: String,
    /// TCP port.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Whether the connection must be encrypted, and how it is proved.
    pub tls: OutboundTls,
    /// Name expected in the host's certificate.
    pub server_name: Option<String>,
    /// Our PEM chain (mutual).
    pub certificate: Option<PathBuf>,
    /// Our PEM key (mutual).
    pub key: Option<PathBuf>,
    /// Authority of the host's certificate (mutual).
    pub ca: Option<PathBuf>,
}

/// Where an LMTP server listens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum LmtpSocket {
    /// A unix socket, absolute path.
    Unix(PathBuf),
    /// A TCP address.
    Tcp(SocketAddr),
}

impl TryFrom<String> for LmtpSocket {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            format!("`{text}` is neither an absolute path nor an address with a port (127.0.0.1:24)")
        })
    }
}

fn default_port() -> u16 {
    25
}

/// TLS towards a next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutboundTls {
    /// Both sides prove themselves by certificates of our CA.
    Mutual,
    /// Encrypted, or not sent.
    Required,
    /// Encrypted where the host can.
    Opportunistic,
    /// Never encrypted.
    Off,
}

/// `[[route]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Route {
    /// Provenances whose mail may take this route; our own notifications go as `inside`.
    pub from: Vec<Provenance>,
    /// Recipient domains, or `*`.
    pub domains: Vec<String>,
    /// Name of the next hop.
    pub next_hop: String,
    /// Whether mail on this route is DKIM-signed.
    #[serde(default)]
    pub sign: bool,
}

/// `[queue]`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Queue {
    /// Seconds between attempts; the last repeats.
    pub retry: Vec<u64>,
    /// Seconds until a recipient is given up, but not before it was tried as often as `retry` has entries: a clock that
    /// is set forward by years must not fail all mail at once.
    pub expire: u64,
    /// Seconds after which a sender is told once that his message is late; 0 is never.
    pub delay_warning: u64,
    /// Connections to one destination at a time.
    pub concurrency_per_destination: usize,
}

impl Queue {
    /// When the sender of a message that arrived then is told of its delay, milliseconds since 1970.
    pub fn late_at(&self, arrived: u64) -> u64 {
        match self.delay_warning {
            0 => u64::MAX,
            seconds => arrived.saturating_add(seconds.saturating_mul(1000)),
        }
    }

    /// When the time of a message that arrived then has run out, milliseconds since 1970.
    pub fn over_at(&self, arrived: u64) -> u64 {
        arrived.saturating_add(self.expire.saturating_mul(1000))
    }

    /// Milliseconds to wait after so many failures in a row and one more.
    pub fn wait(&self, failures: u32) -> u64 {
        let last = self.retry.len().saturating_sub(1);
        let step = usize::try_from(failures).map_or(last, |step| step.min(last));
        self.retry.get(step).copied().unwrap_or(3600).saturating_mul(1000)
    }

    /// Milliseconds that pass until a message has been tried so often.
    pub fn waited(&self, attempts: u32) -> u64 {
        let steps = u32::try_from(self.retry.len()).unwrap_or(u32::MAX).min(attempts);
        let first = (0..steps)
            .map(|step| self.wait(step))
            .fold(0, u64::saturating_add);
        let rest = u64::from(attempts - steps).saturating_mul(self.wait(steps));
        first.saturating_add(rest)
    }

    /// Milliseconds of the longest wait between two attempts.
    pub fn longest_wait(&self) -> u64 {
        let seconds = self.retry.iter().max().copied().unwrap_or(3600);
        seconds.saturating_mul(1000)
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            retry: vec![60, 300, 900, 1800, 3600],
            expire: 432_000,
            delay_warning: 14_400,
            concurrency_per_destination: 10,
        }
    }
}

/// `[mta-sts]`: policies that recipient domains publish by HTTPS (RFC 8461) are honoured.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MtaSts {
    /// Where policies are kept, under the state directory.
    #[serde(default = "default_policies")]
    pub directory: PathBuf,
    /// PEM of the authorities that web servers and mail hosts are believed by; absent = those that browsers agree on.
    pub ca: Option<PathBuf>,
    /// Port of the web servers, 443 but in tests.
    #[serde(default = "default_https")]
    pub port: u16,
}

fn default_policies() -> PathBuf {
    "mta-sts".into()
}

fn default_https() -> u16 {
    443
}

/// `[dkim]`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Dkim {
    /// Where the keys are, under the state directory.
    pub directory: PathBuf,
    /// Stem of the selectors.
    pub selector: String,
    /// Domains signed for.
    pub domains: Vec<String>,
}

/// Seconds that a waiting time may have.
const YEAR: u64 = 365 * 86_400;

/// Checks these sections.
pub fn check(config: &Config) -> Result<(), Fault> {
    for name in config.instance.keys() {
        if Provenance::of_instance(name).is_none() {
            return Err(Fault::new(
                &["instance", name],
                format!("no provenance is called `{name}`, so nothing could route its mail"),
                "name the instance public, inside or dmz",
            ));
        }
    }
    for (index, route) in config.route.iter().enumerate() {
        check_route(config, &index.to_string(), route)?;
    }
    for (name, hop) in &config.next_hop {
        if let NextHop::Smtp(hop) = hop
            && hop.tls == OutboundTls::Mutual
            && (hop.certificate.is_none() || hop.key.is_none() || hop.ca.is_none())
        {
            return Err(Fault::new(
                &["next-hop", name, "tls"],
                "tls = \"mutual\" needs `certificate`, `key` and `ca`",
                "name the three PEM files in this table",
            ));
        }
    }
    if config.queue.retry.is_empty() || config.queue.retry.iter().any(|wait| !(1..=YEAR).contains(wait)) {
        return Err(Fault::new(
            &["queue", "retry"],
            "the waiting times between attempts must be one or more numbers of seconds, from 1 to a year",
            "write for example retry = [60, 300, 900, 1800, 3600]",
        ));
    }
    if config.queue.concurrency_per_destination == 0 {
        return Err(Fault::new(
            &["queue", "concurrency-per-destination"],
            "with 0 connections nothing would ever be delivered",
            "write a number above 0",
        ));
    }
    Ok(())
}

/// The invariant of the DMZ is checked here and not left to whoever writes the file: mail of strangers is neither
/// signed nor routed to any domain but ours.
fn check_route(config: &Config, index: &str, route: &Route) -> Result<(), Fault> {
    if !config.next_hop.contains_key(&route.next_hop) {
        return Err(Fault::new(
            &["route", index, "next-hop"],
            format!("there is no [next-hop.{}]", route.next_hop),
            "name a next hop of this file",
        ));
    }
    if route.sign && config.dkim.is_none() {
        return Err(Fault::new(
            &["route", index, "sign"],
            "signing needs a [dkim] table",
            "add [dkim] with directory, selector and domains, or set sign = false",
        ));
    }
    let of_strangers = route
        .from
        .iter()
        .any(|from| matches!(from, Provenance::Public | Provenance::Dmz));
    if of_strangers && route.sign {
        return Err(Fault::new(
            &["route", index, "sign"],
            "mail from outside is never signed as ours",
            "give mail from `inside` a route of its own",
        ));
    }
    if of_strangers && let Some(domain) = route.domains.iter().find(|domain| !is_local(config, domain)) {
        return Err(Fault::new(
            &["route", index, "domains"],
            format!("mail from outside would be relayed to `{domain}`, which is not in local-domains"),
            "list only local domains in a route from `public` or `dmz`",
        ));
    }
    Ok(())
}

fn is_local(config: &Config, domain: &str) -> bool {
    config
        .local_domains
        .iter()
        .any(|local| local.eq_ignore_ascii_case(domain))
}
