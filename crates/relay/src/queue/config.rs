//! The queue's part of `relay.toml`: next hops, routes, retry, signing.

use std::path::PathBuf;

use serde::Deserialize;

use crate::config::Config;
use crate::config::diagnostic::Fault;

/// `[next-hop.NAME]`
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum NextHop {
    /// One fixed host by SMTP.
    Smtp(SmtpHop),
    /// A mailbox server by LMTP on a unix socket.
    Lmtp {
        /// The socket.
        socket: PathBuf,
    },
    /// By the recipient domain's MX records.
    Mx {
        /// Whether connections must be encrypted.
        tls: OutboundTls,
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
    /// Instances whose mail may take this route.
    pub from: Vec<String>,
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
    /// Seconds until a recipient is given up.
    pub expire: u64,
    /// Connections to one destination at a time.
    pub concurrency_per_destination: usize,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            retry: vec![60, 300, 900, 1800, 3600],
            expire: 432_000,
            concurrency_per_destination: 10,
        }
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

/// Checks these sections.
pub fn check(config: &Config) -> Result<(), Fault> {
    for (index, route) in config.route.iter().enumerate() {
        if !config.next_hop.contains_key(&route.next_hop) {
            return Err(Fault::new(
                &["route", &index.to_string(), "next-hop"],
                format!("there is no [next-hop.{}]", route.next_hop),
                "name a next hop of this file",
            ));
        }
    }
    Ok(())
}
