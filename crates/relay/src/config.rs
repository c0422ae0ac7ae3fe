//! The relay's configuration: `relay.toml`, strict in every key.
//!
//! Enters: the text of one file. Leaves: a checked [`Config`], or a [`diagnostic::Diagnostic`] that cites the line
//! and says how to mend it. Rendered by `postern node render` on an appliance, written by hand for `run`.
//! Sizes are octets, durations seconds.

pub mod check;
pub mod client;
pub mod diagnostic;
mod hybrid;
mod strangers;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::queue::config::{Dkim, MtaSts, NextHop, Queue, Reports, Route, SelfCheck, SourcePool};
use crate::scan::config::Content;
pub use client::{Attitude, Client, DnsList, ListAction};
use diagnostic::Diagnostic;
pub use hybrid::Hybrid;
pub use strangers::{PerHour, Stress};

/// The whole file, checked: a value of this type has passed [`check::check`].
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Which side of the DMZ this node is.
    pub role: Role,
    /// Name in the greeting, in Received and as authserv-id (RFC 8601 section 2.5).
    pub hostname: String,
    /// Domains whose mailboxes are ours.
    pub local_domains: Vec<String>,
    /// Where mail for the bare `postmaster` goes (RFC 5321 section 4.5.1).
    pub postmaster: String,
    /// The queue's own directory; relative paths start at the configuration file.
    pub state_directory: PathBuf,
    /// Sockets between the processes; relative paths start at the configuration file.
    pub runtime_directory: PathBuf,
    /// The only resolver ever asked.
    pub resolver: Resolver,
    /// Bounds on what a client may do.
    #[serde(default)]
    pub limits: Limits,
    /// What changes near capacity.
    #[serde(default)]
    pub stress: Stress,
    /// Listening sides of smtpd, by name; the name is the provenance of what comes in there.
    pub instance: BTreeMap<String, Instance>,
    /// Domains whose ARC seals are believed where DMARC fails (RFC 8617 section 7.2).
    #[serde(default)]
    pub trusted_sealers: Vec<String>,
    /// What is held against a client.
    #[serde(default)]
    pub client: Client,
    /// Lists of addresses in DNS.
    #[serde(default)]
    pub dns_list: Vec<DnsList>,
    /// First-contact delay; absent means off.
    pub greylist: Option<Greylist>,
    /// What is remembered about strangers.
    #[serde(default)]
    pub reputation: Reputation,
    /// What several gateways remember together; absent means that each remembers for itself.
    pub shared_state: Option<SharedState>,
    /// The spam scanner.
    pub spam: Option<Spam>,
    /// The virus scanner.
    pub virus: Option<Virus>,
    /// The hold for mail that is not scanned in time.
    pub hybrid: Option<Hybrid>,
    /// Bounds on structure, and which attachments are taken; absent means that no scan process is started.
    pub content: Option<Content>,
    /// How a local recipient is verified.
    pub recipient: Option<Recipient>,
    /// The proxy process.
    pub proxy: Option<Proxy>,
    /// Where logins are checked.
    pub sasl: Option<Sasl>,
    /// Destinations by name.
    #[serde(default)]
    pub next_hop: BTreeMap<String, NextHop>,
    /// First match wins.
    #[serde(default)]
    pub route: Vec<Route>,
    /// Retry and expiry.
    #[serde(default)]
    pub queue: Queue,
    /// Signing of outbound mail.
    pub dkim: Option<Dkim>,
    /// Policies of recipient domains; absent means they are not asked for.
    pub mta_sts: Option<MtaSts>,
    /// DMARC and TLS reports to domains that ask for them; absent means none are sent.
    pub reports: Option<Reports>,
    /// Addresses that mail by MX leaves from; the first pool that fits a message counts, and without one the system chooses.
    #[serde(default)]
    pub source_pool: Vec<SourcePool>,
    /// Whether our own domains are looked at as others see them; absent means they are not.
    pub self_check: Option<SelfCheck>,
    /// Directory of the file this came from; relative paths start here.
    #[serde(skip)]
    pub directory: PathBuf,
    /// `$CREDENTIALS_DIRECTORY`, looked at first for relative credential paths.
    #[serde(skip)]
    pub credentials_directory: Option<PathBuf>,
}

/// Which side of the DMZ a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Between the Internet and the DMZ.
    Gateway,
    /// Between the DMZ and the internal network.
    Internal,
}

/// `[resolver]`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Resolver {
    /// Address and port of a validating resolver, on loopback.
    pub address: SocketAddr,
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Limits {
    /// SIZE announced and enforced, octets (RFC 1870).
    pub max_message_size: u64,
    /// Recipients of one message; RFC 5321 section 4.5.3.1.8 wants at least 100.
    pub max_recipients: usize,
    /// Connections of one instance.
    pub max_connections: usize,
    /// Connections of one client address at one instance.
    pub max_connections_per_address: usize,
    /// Messages of one client address (an IPv6 /64 is one); 0 = no limit.
    pub messages_per_hour: u32,
    /// Messages of one network (/24, or /48 of IPv6); absent = ten times that of an address.
    pub messages_per_hour_network: Option<u32>,
    /// Messages of one reverse-path; absent = ten times that of an address.
    pub messages_per_hour_sender: Option<u32>,
    /// Messages for one mailbox; absent = ten times that of an address.
    pub messages_per_hour_recipient: Option<u32>,
    /// What these limits are multiplied by for senders with a history of mail that passed DMARC; 1 = nothing.
    pub proven_factor: u32,
    /// Messages that make a history.
    pub proven_messages: u32,
    /// Seconds since the first of them.
    pub proven_age: u64,
    /// Octets of messages that one instance holds in memory at a time; what comes above gets 452.
    pub message_memory: u64,
    /// Milliseconds before the greeting in which an unlisted client of an open instance must stay silent.
    pub greeting_delay: u64,
    /// Seconds to wait for a command.
    pub command_timeout: u64,
    /// Seconds to wait for the next octets of a message.
    pub data_timeout: u64,
    /// Wrong commands before the connection is closed.
    pub max_errors: usize,
    /// Received fields before a loop is assumed (RFC 5321 section 6.3).
    pub max_hops: usize,
    /// Peers exempt from the greylist and the hourly limits.
    pub listed_peers: Vec<Network>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_size: 50 * 1024 * 1024,
            max_recipients: 100,
            max_connections: 1000,
            max_connections_per_address: 50,
            messages_per_hour: 100,
            messages_per_hour_network: None,
            messages_per_hour_sender: None,
            messages_per_hour_recipient: None,
            proven_factor: 10,
            proven_messages: 10,
            proven_age: 24 * 60 * 60,
            message_memory: 256 * 1024 * 1024,
            greeting_delay: 100,
            command_timeout: 300,
            data_timeout: 600,
            max_errors: 10,
            max_hops: 50,
            listed_peers: Vec::new(),
        }
    }
}

/// An address (`192.0.2.1`) or a network (`192.0.2.0/24`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network(pub IpNet);

impl Network {
    /// Whether the network holds this (canonical) address.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }

    /// Whether it holds every address of its family.
    pub fn is_everybody(&self) -> bool {
        self.0.prefix_len() == 0
    }
}

impl TryFrom<String> for Network {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self(address.into()));
        }
        text.parse::<IpNet>()
            .map(Self)
            .map_err(|_| format!("`{text}` is neither an address (192.0.2.1) nor a network (192.0.2.0/24)"))
    }
}

/// `[instance.NAME]`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Instance {
    /// Addresses for mail exchange (port 25) that `run` binds; empty = sockets named `mx` from systemd.
    #[serde(default)]
    pub listen: Vec<SocketAddr>,
    /// Addresses for submission (port 587) that `run` binds; empty = sockets named `submission` from systemd.
    #[serde(default)]
    pub listen_submission: Vec<SocketAddr>,
    /// Addresses for submission with TLS from the first octet (port 465) that `run` binds; empty = sockets named
    /// `submissions` from systemd.
    #[serde(default)]
    pub listen_submissions: Vec<SocketAddr>,
    /// Whether clients must encrypt.
    pub tls: InboundTls,
    /// PEM chain shown to clients.
    pub certificate: Option<PathBuf>,
    /// PEM key of that chain.
    pub key: Option<PathBuf>,
    /// PEM of the authority whose client certificates are believed.
    pub client_ca: Option<PathBuf>,
    /// Peers that may relay without certificate or AUTH.
    #[serde(default)]
    pub trusted_addresses: Vec<Network>,
    /// Names in client certificates that may relay.
    #[serde(default)]
    pub trusted_names: Vec<String>,
    /// Proxies that say whose connection they pass on, by the PROXY protocol; they must, and nobody else is believed.
    #[serde(default)]
    pub proxy_protocol_from: Vec<Network>,
    /// Which recipients are taken.
    pub relay_for: RelayFor,
    /// How a client proves itself.
    pub authentication: Authentication,
    /// Logins that may use any sender address.
    #[serde(default)]
    pub send_as_any: Vec<String>,
    /// Checks made on what comes in here.
    #[serde(default)]
    pub checks: Vec<CheckName>,
    /// What the instance has to do with submission from outside.
    #[serde(default)]
    pub submission: Submission,
}

/// Submission from outside: the gateway passes it inward, the internal node takes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Submission {
    /// Nothing.
    #[default]
    Off,
    /// AUTH on the submission ports, and the mail after it, go through the proxy.
    PassInward,
    /// A gateway that showed its certificate may pass submissions on (XSUBMIT).
    FromGateway,
}

/// STARTTLS towards clients (RFC 3207).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InboundTls {
    /// 530 to MAIL before STARTTLS.
    Required,
    /// Announced, not demanded.
    Offered,
    /// Not announced.
    Off,
}

/// Which recipients an instance takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RelayFor {
    /// Only `local-domains`.
    LocalDomains,
    /// Any domain, from clients that proved themselves.
    Any,
}

/// How a client proves itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Authentication {
    /// Nobody is trusted.
    None,
    /// By a certificate of `client-ca` naming one of `trusted-names`, or from `trusted-addresses`.
    ClientCertificate,
    /// By AUTH (RFC 4954) against `[sasl]`.
    Sasl,
}

/// Names of checks as the configuration writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckName {
    /// The name in EHLO (RFC 5321 section 4.1.4)
    Helo,
    /// The name of the address
    ReverseDns,
    /// RFC 5782
    DnsLists,
    /// RFC 7208
    Spf,
    /// RFC 6376
    Dkim,
    /// RFC 8617
    Arc,
    /// RFC 7489
    Dmarc,
    /// spamd
    Spam,
    /// clamd
    Virus,
    /// MIME structure and attachments
    Content,
    /// RFC 6647
    Greylist,
    /// Verification at RCPT
    Recipient,
}

impl CheckName {
    /// Whether it looks at the client, and not at a recipient or a message.
    pub fn is_of_client(self) -> bool {
        matches!(self, Self::Helo | Self::ReverseDns | Self::DnsLists)
    }

    /// The name as written in the configuration and in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Helo => "helo",
            Self::ReverseDns => "reverse-dns",
            Self::DnsLists => "dns-lists",
            Self::Spf => "spf",
            Self::Dkim => "dkim",
            Self::Arc => "arc",
            Self::Dmarc => "dmarc",
            Self::Spam => "spam",
            Self::Virus => "virus",
            Self::Content => "content",
            Self::Greylist => "greylist",
            Self::Recipient => "recipient",
        }
    }
}

/// `[greylist]`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Greylist {
    /// Seconds a first-seen triplet must wait.
    pub delay: u64,
}

/// `[reputation]`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Reputation {
    /// Seconds between two snapshots of greylist and counts; at most so much is forgotten in a power cut.
    pub snapshot_interval: u64,
}

impl Default for Reputation {
    fn default() -> Self {
        Self {
            snapshot_interval: 300,
        }
    }
}

/// `[shared-state]`: a Valkey server, asked by the proxy process.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SharedState {
    /// Address and port; always TLS.
    pub address: SocketAddr,
    /// The name that its certificate must carry.
    pub server_name: String,
    /// PEM of the authority that is believed.
    pub ca: PathBuf,
    /// PEM chain shown to the server.
    pub certificate: PathBuf,
    /// PEM key of that chain.
    pub key: PathBuf,
    /// User of the server's access list.
    pub user: String,
    /// File that holds the password on its first line.
    pub password: PathBuf,
}

/// `[spam]`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Spam {
    /// Where spamd listens, or `off`.
    pub socket: ScannerSocket,
    /// Seconds until an answer counts as none.
    #[serde(default = "default_scan_timeout")]
    pub timeout: u64,
    /// From this score on the message is marked.
    pub mark_score: f64,
    /// From this score on the message is refused.
    pub reject_score: f64,
}

/// `[virus]`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Virus {
    /// Where clamd listens, or `off`.
    pub socket: ScannerSocket,
    /// Seconds until an answer counts as none.
    #[serde(default = "default_scan_timeout")]
    pub timeout: u64,
    /// What is done with encrypted archives, which clamd cannot look into.
    #[serde(default)]
    pub encrypted: Encrypted,
}

/// What is done with encrypted archives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encrypted {
    /// Nothing passes unscanned.
    #[default]
    Refuse,
    /// They pass unread.
    Accept,
}

fn default_scan_timeout() -> u64 {
    60
}

/// Where a scanner listens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum ScannerSocket {
    /// Not asked; said loudly at start.
    Off,
    /// A unix socket, absolute path.
    Unix(PathBuf),
    /// A TCP address.
    Tcp(SocketAddr),
}

impl TryFrom<String> for ScannerSocket {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        text.parse().map(Self::Tcp).map_err(|_| {
            format!("`{text}` is neither \"off\", nor an absolute path, nor an address with a port (127.0.0.1:783)")
        })
    }
}

/// `[recipient]`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Recipient {
    /// Who is asked.
    pub via: RecipientVia,
    /// Seconds an answer is kept.
    #[serde(default = "default_cache_seconds")]
    pub cache_seconds: u64,
}

fn default_cache_seconds() -> u64 {
    300
}

/// Who is asked whether a mailbox exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecipientVia {
    /// The proxy process, which asks the internal node.
    Proxy,
    /// The mailbox server, by LMTP: the one next hop of kind `lmtp`.
    Lmtp,
    /// Nobody; said loudly at start.
    Off,
}

/// `[proxy]`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Proxy {
    /// Name of the next hop that is asked.
    pub next_hop: String,
}

/// `[sasl]`
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Sasl {
    /// Dovecot's auth client socket; a relative path starts at the configuration file.
    pub socket: PathBuf,
}

impl Config {
    /// Reads and checks the file at `path`.
    pub fn load(path: &Path, credentials_directory: Option<PathBuf>) -> Result<Self, Diagnostic> {
        let text = std::fs::read_to_string(path).map_err(|error| Diagnostic::unreadable(path, &error))?;
        let absolute = std::path::absolute(path).map_err(|error| Diagnostic::unreadable(path, &error))?;
        let directory = absolute.parent().unwrap_or(Path::new("/")).to_path_buf();
        Self::parse(
            &path.display().to_string(),
            &text,
            directory,
            credentials_directory,
        )
    }

    /// Checks `text`; `name` is how diagnostics call it.
    pub fn parse(
        name: &str,
        text: &str,
        directory: PathBuf,
        credentials_directory: Option<PathBuf>,
    ) -> Result<Self, Diagnostic> {
        let mut config: Config =
            toml::from_str(text).map_err(|error| Diagnostic::from_toml(name, text, &error))?;
        config.state_directory = directory.join(&config.state_directory);
        config.runtime_directory = directory.join(&config.runtime_directory);
        config.directory = directory;
        config.credentials_directory = credentials_directory;
        check::check(&config).map_err(|fault| Diagnostic::from_fault(name, text, &fault))?;
        Ok(config)
    }

    /// Where a certificate, key or CA file is: relative names are looked up in `$CREDENTIALS_DIRECTORY`, then beside
    /// the configuration file.
    pub fn credential(&self, name: &Path) -> PathBuf {
        if let Some(directory) = &self.credentials_directory {
            let path = directory.join(name);
            if path.exists() {
                return path;
            }
        }
        self.directory.join(name)
    }

    /// Whether `domain` (ASCII, any case) is one of ours.
    pub fn is_local(&self, domain: &str) -> bool {
        self.local_domains
            .iter()
            .any(|local| local.eq_ignore_ascii_case(domain))
    }

    /// Whether `peer` is exempt from the greylist and the hourly limits.
    pub fn is_listed(&self, peer: IpAddr) -> bool {
        self.limits
            .listed_peers
            .iter()
            .any(|network| network.contains(peer))
    }

    /// Path of the handover socket of `instance`.
    pub fn handover_socket(&self, instance: &str) -> PathBuf {
        self.runtime_directory
            .join("queue")
            .join(format!("{instance}.sock"))
    }

    /// Path of the scan process's socket.
    pub fn scan_socket(&self) -> PathBuf {
        self.runtime_directory.join("scan.sock")
    }
    /// Name of the handover socket for what users submit from outside.
    pub const SUBMISSION: &str = "submission";

    /// Where the queue keeps what instances of smtpd remember.
    pub fn snapshots_directory(&self) -> PathBuf {
        self.state_directory.join("reputation")
    }

    /// Path of the proxy's socket.
    pub fn proxy_socket(&self) -> PathBuf {
        self.runtime_directory.join("proxy.sock")
    }
}
