//! DNS for the checks: hickory as the client of the one configured resolver, inside mail-auth.
//!
//! The system's resolver, its hosts file and any public service are never asked.

use std::net::SocketAddr;
use std::time::Duration;

use mail_auth::MessageAuthenticator;
use mail_auth::hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};

/// The resolver's settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the resolver client for {address} cannot be made: {reason}; correct [resolver] address")]
pub struct ResolverError {
    address: SocketAddr,
    reason: String,
}

/// A mail-auth authenticator that asks `address` only: UDP first, TCP where an answer is cut short.
pub fn authenticator(address: SocketAddr) -> Result<MessageAuthenticator, ResolverError> {
    let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
    for connection in &mut connections {
        connection.port = address.port();
    }
    let server = NameServerConfig::new(address.ip(), true, connections);
    let mut options = ResolverOpts::default();
    options.use_hosts_file = ResolveHosts::Never;
    options.ndots = 0;
    options.timeout = Duration::from_secs(5);
    options.attempts = 2;
    options.cache_size = 8192;
    MessageAuthenticator::new(
        ResolverConfig::from_parts(None, Vec::new(), vec![server]),
        options,
    )
    .map_err(|error| ResolverError {
        address,
        reason: error.to_string(),
    })
}
