//! Next hops, ready for use: their credentials are read before the sandbox stands.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use postern_smtp::client::{self, Login};
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
        /// How it begins.
        door: Door,
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

/// How a session with a host begins.
#[derive(Default)]
pub struct Door {
    /// TLS begins at once.
    pub implicit_tls: bool,
    /// Who we are there.
    pub login: Option<Login>,
}

/// A next hop cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HopError {
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The file of a login.
    #[error(
        "[next-hop.{hop}] login {}: {reason}; it must hold the user name on its first line and the password on its second, \
         and this process's user must be able to read it",
        path.display()
    )]
    Login {
        /// The table.
        hop: String,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
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
            judged: None,
        })
    }
}

/// A host's name as TLS wants it.
pub fn server_name(host: &str) -> Result<ServerName<'static>, Reply> {
    ServerName::try_from(host.to_owned()).map_err(reasons::unusable_next_hop)
}

/// All next hops of the configuration by name.
pub fn prepare(config: &Config) -> Result<BTreeMap<String, Hop>, HopError> {
    config
        .next_hop
        .iter()
        .map(|(name, hop)| Ok((name.clone(), prepare_one(config, name, hop)?)))
        .collect()
}

/// Reads the file of a login.
fn login(config: &Config, hop: &str, name: &Path) -> Result<Login, HopError> {
    let path = config.credential(name);
    let wrong = |reason: String| HopError::Login {
        hop: hop.to_owned(),
        path: path.clone(),
        reason,
    };
    let text = std::fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
    let mut lines = text.lines();
    match (lines.next(), lines.next(), lines.next()) {
        (Some(user), Some(password), None) => {
            Login::new(user, password).map_err(|error| wrong(error.to_string()))
        }
        _ => Err(wrong(format!("it holds {} lines", text.lines().count()))),
    }
}

fn prepare_one(config: &Config, name: &str, hop: &NextHop) -> Result<Hop, HopError> {
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
                (OutboundTls::Required, authority) if authority.is_some() || smtp.public_authorities => {
                    let client = match authority {
                        Some(authority) => tls::authenticated(&config.credential(authority))?,
                        None => tls::public()?,
                    };
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
                door: Door {
                    implicit_tls: smtp.implicit_tls,
                    login: smtp
                        .login
                        .as_deref()
                        .map(|file| login(config, name, file))
                        .transpose()?,
                },
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
