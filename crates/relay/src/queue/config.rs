//! The queue's part of `relay.toml`: next hops, routes, retry, signing.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;

use super::priority::Class;
use super::provenance::Provenance;
use crate::config::diagnostic::Fault;
use crate::config::{Config, Network};

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
    /// Authority of the host's certificate (mutual; or required, which then proves the host).
    pub ca: Option<PathBuf>,
    /// The host proves itself by a certificate of an authority that browsers agree on (required).
    #[serde(default)]
    pub public_authorities: bool,
    /// TLS begins at once, without STARTTLS (RFC 8314 section 3.3).
    #[serde(default)]
    pub implicit_tls: bool,
    /// File with our user name there and, on its second line, the password; only for a host that proves itself.
    pub login: Option<PathBuf>,
}

impl SmtpHop {
    /// Whether the host must prove that it is the right one.
    fn is_proved(&self) -> bool {
        match self.tls {
            OutboundTls::Mutual => true,
            OutboundTls::Required => self.ca.is_some() || self.public_authorities,
            OutboundTls::Opportunistic | OutboundTls::Off => false,
        }
    }
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
    /// Networks and addresses of the site: no web server of others is there, whatever the DNS says. Those that are not of the
    /// public Internet need not be named.
    #[serde(default)]
    pub own_networks: Vec<Network>,
    /// Web servers may be here all the same; for tests, whose servers are on loopback.
    #[serde(default)]
    pub allowed_networks: Vec<Network>,
}

fn default_policies() -> PathBuf {
    "mta-sts".into()
}

fn default_https() -> u16 {
    443
}

/// `[reports]`: reports are sent to domains that ask for them.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Reports {
    /// Where observations are kept, under the state directory.
    #[serde(default = "default_observations")]
    pub directory: PathBuf,
    /// DMARC aggregate reports (RFC 7489 section 7.2).
    #[serde(default = "yes")]
    pub dmarc: bool,
    /// TLS reports (RFC 8460).
    #[serde(default = "yes")]
    pub tls: bool,
    /// Address that reports are from.
    pub from: String,
    /// Who reports; absent = the domain of `from`.
    pub organization: Option<String>,
    /// Seconds of a period; periods begin at multiples of it since 1970, those of a day at midnight UTC.
    #[serde(default = "default_interval")]
    pub interval: u64,
}

fn yes() -> bool {
    true
}

fn default_observations() -> PathBuf {
    "reports".into()
}

fn default_interval() -> u64 {
    86_400
}

/// `[self-check]`: our own domains' SPF, DKIM and DMARC records are looked at, and faults are told.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SelfCheck {
    /// Addresses that our mail comes from, as others see them; of none, SPF is not looked at.
    pub addresses: Vec<IpAddr>,
    /// Seconds between two looks, a minute at least.
    #[serde(default = "default_every")]
    pub every: u64,
}

fn default_every() -> u64 {
    6 * 3600
}

/// `[[source-pool]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SourcePool {
    /// What it is called.
    pub name: String,
    /// Addresses of this node; used by turns.
    pub addresses: Vec<IpAddr>,
    /// Our name in EHLO from there; absent = `hostname`.
    pub helo: Option<String>,
    /// Only mail of this class.
    pub class: Option<Class>,
    /// Only mail whose reverse-path is in one of these domains.
    #[serde(default)]
    pub senders: Vec<String>,
}

impl SourcePool {
    /// Whether mail of this reverse-path and class leaves from here.
    pub fn fits(&self, reverse_path: &str, class: Class) -> bool {
        let domain = reverse_path.rsplit_once('@').map_or("", |(_, domain)| domain);
        let listed = |one: &String| one.eq_ignore_ascii_case(domain);
        self.class.is_none_or(|only| only == class)
            && (self.senders.is_empty() || self.senders.iter().any(listed))
    }
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
        if Provenance::of_instance(name).is_none_or(|provenance| provenance == Provenance::Submission) {
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
    for (name, hop) in &config.next_hop {
        if let NextHop::Smtp(hop) = hop {
            check_hop(name, hop)?;
        }
    }
    for (index, pool) in config.source_pool.iter().enumerate() {
        check_pool(config, &index.to_string(), pool)?;
    }
    if let Some(check) = &config.self_check
        && !(60..=YEAR).contains(&check.every)
    {
        return Err(Fault::new(
            &["self-check", "every"],
            format!("{} seconds between two looks at the DNS", check.every),
            "write a number from 60 to a year; 21600 is six hours",
        ));
    }
    if config.queue.retry.is_empty() || config.queue.retry.iter().any(|wait| !(1..=YEAR).contains(wait)) {
        return Err(Fault::new(
            &["queue", "retry"],
            "the waiting times between attempts must be one or more numbers of seconds, from 1 to a year",
            "write for example retry = [60, 300, 900, 1800, 3600]",
        ));
    }
    check_reports(config)?;
    if config.queue.concurrency_per_destination == 0 {
        return Err(Fault::new(
            &["queue", "concurrency-per-destination"],
            "with 0 connections nothing would ever be delivered",
            "write a number above 0",
        ));
    }
    Ok(())
}

fn check_reports(config: &Config) -> Result<(), Fault> {
    let Some(reports) = &config.reports else {
        return Ok(());
    };
    let is_ours = reports.from.rsplit_once('@').is_some_and(|(local, domain)| {
        let plain = |c: char| c.is_ascii_alphanumeric() || ".!#$%&'*+-/=?^_`{|}~".contains(c);
        !local.is_empty() && local.chars().all(plain) && is_local(config, domain)
    });
    if !is_ours {
        return Err(Fault::new(
            &["reports", "from"],
            format!("`{}` is not an address of one of local-domains", reports.from),
            "write one, such as the postmaster's: reports are signed as mail of its domain",
        ));
    }
    if !(1..=7 * 86_400).contains(&reports.interval) {
        return Err(Fault::new(
            &["reports", "interval"],
            format!("a period of {} seconds", reports.interval),
            "write a number of seconds up to a week; 86400 is what receivers expect",
        ));
    }
    Ok(())
}

fn check_pool(config: &Config, index: &str, pool: &SourcePool) -> Result<(), Fault> {
    let fault =
        |key, problem: String, remedy: &str| Err(Fault::new(&["source-pool", index, key], problem, remedy));
    let same = config.source_pool.iter().filter(|other| other.name == pool.name);
    if same.count() > 1 {
        let problem = format!("two pools are called `{}`", pool.name);
        return fault("name", problem, "give each a name of its own");
    }
    if pool.addresses.is_empty() {
        let problem = "a pool without an address".to_owned();
        return fault("addresses", problem, "name one at least, or remove the pool");
    }
    match &pool.helo {
        Some(helo) if helo.is_empty() || helo.contains(|c: char| c.is_whitespace() || c.is_control()) => {
            fault(
                "helo",
                format!("`{helo}` is not usable here"),
                "write a host name",
            )
        }
        _ => Ok(()),
    }
}

fn check_hop(name: &str, hop: &SmtpHop) -> Result<(), Fault> {
    if hop.login.is_some() && !hop.is_proved() {
        return Err(Fault::new(
            &["next-hop", name, "login"],
            "a password goes only to a host that proves who it is",
            "set tls = \"required\" and `ca` or public-authorities = true in this table",
        ));
    }
    if hop.implicit_tls && matches!(hop.tls, OutboundTls::Opportunistic | OutboundTls::Off) {
        return Err(Fault::new(
            &["next-hop", name, "implicit-tls"],
            "TLS that begins at once cannot be left out",
            "set tls = \"required\" in this table",
        ));
    }
    if hop.public_authorities && (hop.tls != OutboundTls::Required || hop.ca.is_some()) {
        return Err(Fault::new(
            &["next-hop", name, "public-authorities"],
            "the host's certificate is already to be of another authority, or is not looked at",
            "set tls = \"required\" and leave `ca` out, or remove this key",
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
