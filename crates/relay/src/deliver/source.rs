//! Which of the node's addresses mail to the world leaves from, where the configuration has pools of them.
//!
//! Enters: the pools. Leaves: for a connection the address that it is bound to, by turns within the pool. An address that is not on the
//! node stops the process at its start: mail would else leave from another one, which SPF may not permit.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::config::Config;

/// An address of a pool cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "[[source-pool]] {pool}: the address {address} is not on this node ({reason}); give it to the outside link, or take it out of the pool"
)]
pub struct SourceError {
    pool: String,
    address: IpAddr,
    reason: std::io::Error,
}

/// A pool in use.
pub struct Source {
    addresses: Vec<IpAddr>,
    /// Our name in EHLO.
    pub helo: String,
    turn: AtomicUsize,
}

/// All of them by name.
pub type Sources = BTreeMap<Arc<str>, Source>;

/// The configured pools; tries each address, so it belongs before the sandbox.
pub fn prepare(config: &Config) -> Result<Sources, SourceError> {
    let mut sources = Sources::new();
    for pool in &config.source_pool {
        for address in &pool.addresses {
            UdpSocket::bind((*address, 0)).map_err(|reason| SourceError {
                pool: pool.name.clone(),
                address: *address,
                reason,
            })?;
        }
        let source = Source {
            addresses: pool.addresses.clone(),
            helo: pool.helo.clone().unwrap_or_else(|| config.hostname.clone()),
            turn: AtomicUsize::new(0),
        };
        sources.insert(pool.name.as_str().into(), source);
    }
    Ok(sources)
}

impl Source {
    /// The next address of the family of `to`; none where the pool has none.
    pub fn address_towards(&self, to: &SocketAddr) -> Option<SocketAddr> {
        let fitting: Vec<&IpAddr> = self
            .addresses
            .iter()
            .filter(|address| address.is_ipv4() == to.is_ipv4())
            .collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let address = fitting.get(turn.checked_rem(fitting.len())?)?;
        Some(SocketAddr::new(**address, 0))
    }
}
