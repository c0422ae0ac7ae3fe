//! Next hops, ready for use: their credentials are read before the sandbox stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use postern_smtp::client;
use postern_smtp::reply::Reply;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;

use super::policy::{Demand, Proof};
use super::tls;
use crate::config::Config;
use crate::queue::config::{LmtpSocket, NextHop, OutboundTls};
use crate::queue::reasons;
use crate::tls::TlsError;

/// Where mail goes.
pub enum Hop {
    /// A fixed host.
    Smtp {
        /// Its name or address.
        host: String,
        /// TCP port.
        port: u16,
        /// How the connection is encrypted.
        encryption: Encryption,
    },
    /// The recipient domain's mail exchangers.
    Mx {
        /// TCP port.
        port: u16,
        /// How connections are encrypted.
        encryption: Encryption,
        /// Recipient domains, in A-labels and lower case, of which no encryption is asked.
        exceptions: BTreeSet<String>,
        /// How connections for these are.
        exempt: Encryption,
    },
    /// A mail store.
    Lmtp(LmtpSocket),
}

/// How connections to a hop are encrypted.
pub struct Encryption {
    /// When STARTTLS is said.
    pub policy: client::Tls,
    /// Settings; absent where nothing is encrypted.
    client: Option<Arc<ClientConfig>>,
    /// The name that the certificate must bear, where that is not the host's own.
    name: Option<ServerName<'static>>,
    /// What the handshake proves.
    proof: Proof,
}

/// What a handshake needs.
pub type Handshake = (Arc<ClientConfig>, ServerName<'static>);

impl Encryption {
    /// What is demanded of `host`.
    pub fn demand(&self, host: &str) -> Result<Demand, Reply> {
        let handshake = match (&self.client, &self.name) {
            (None, _) => None,
            (Some(client), Some(name)) => Some((client.clone(), name.clone())),
            (Some(client), None) => Some((client.clone(), server_name(host)?)),
        };
        Ok(Demand {
            tls: self.policy,
            handshake,
            proof: self.proof,
        })
    }
}

/// A host's name as TLS wants it.
pub fn server_name(host: &str) -> Result<ServerName<'static>, Reply> {
    ServerName::try_from(host.to_owned()).map_err(reasons::unusable_next_hop)
}

/// All next hops of the configuration by name.
pub fn prepare(config: &Config) -> Result<BTreeMap<String, Hop>, TlsError> {
    config
        .next_hop
        .iter()
        .map(|(name, hop)| Ok((name.clone(), prepare_one(config, name, hop)?)))
        .collect()
}

fn prepare_one(config: &Config, name: &str, hop: &NextHop) -> Result<Hop, TlsError> {
    Ok(match hop {
        NextHop::Lmtp { socket } => Hop::Lmtp(socket.clone()),
        NextHop::Mx {
            tls,
            tls_exceptions,
            port,
        } => Hop::Mx {
            port: *port,
            encryption: unauthenticated(*tls)?,
            exceptions: tls_exceptions
                .iter()
                .map(|domain| domain.to_ascii_lowercase())
                .collect(),
            exempt: unauthenticated(OutboundTls::Opportunistic)?,
        },
        NextHop::Smtp(smtp) => {
            let encryption = match (smtp.tls, &smtp.ca) {
                (OutboundTls::Mutual, _) => {
                    let (client, name) = crate::tls::mutual(config, name, smtp)?;
                    Encryption {
                        policy: client::Tls::Required,
                        client: Some(client),
                        name: Some(name),
                        proof: Proof::Mutual,
                    }
                }
                (OutboundTls::Required, Some(authority)) => {
                    let client = tls::authenticated(&config.credential(authority))?;
                    let name = smtp.server_name.clone().unwrap_or_else(|| smtp.host.clone());
                    let name = ServerName::try_from(name).map_err(|error| TlsError::Unusable {
                        what: format!("[next-hop.{name}]", name = smtp.host),
                        reason: format!("server-name: {error}"),
                    })?;
                    Encryption {
                        policy: client::Tls::Required,
                        client: Some(client),
                        name: Some(name),
                        proof: Proof::Authority,
                    }
                }
                (tls, _) => unauthenticated(tls)?,
            };
            Hop::Smtp {
                host: smtp.host.clone(),
                port: smtp.port,
                encryption,
            }
        }
    })
}

fn unauthenticated(tls: OutboundTls) -> Result<Encryption, TlsError> {
    let policy = match tls {
        OutboundTls::Off => client::Tls::Never,
        OutboundTls::Opportunistic => client::Tls::IfOffered,
        OutboundTls::Required | OutboundTls::Mutual => client::Tls::Required,
    };
    let client = if tls == OutboundTls::Off {
        None
    } else {
        Some(tls::unauthenticated()?)
    };
    Ok(Encryption {
        policy,
        client,
        name: None,
        proof: Proof::None,
    })
}
