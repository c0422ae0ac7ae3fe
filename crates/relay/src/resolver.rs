//! DNS: hickory as the client of the one configured resolver; for the checks inside mail-auth.
//!
//! The system's resolver, its hosts file and any public service are never asked. DNS over TLS is not used; hickory is
//! given an empty trust store all the same, since it would otherwise read the system's when it is made.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mail_auth::MessageAuthenticator;
use mail_auth::hickory_resolver::TokioResolver;
use mail_auth::hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use mail_auth::hickory_resolver::net::runtime::TokioRuntimeProvider;
use rustls::{ClientConfig, RootCertStore};

/// The resolver's settings cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the resolver client for {address} cannot be made: {reason}; correct [resolver] address")]
pub struct ResolverError {
    address: SocketAddr,
    reason: String,
}

/// A client that asks `address` only: UDP first, TCP where an answer is cut short. It opens no file.
pub fn resolver(address: SocketAddr) -> Result<TokioResolver, ResolverError> {
    let unusable = |reason: String| ResolverError { address, reason };
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
    let trusts_nobody =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| unusable(error.to_string()))?
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        .with_options(options)
        .with_tls_config(trusts_nobody)
        .build()
        .map_err(|error| unusable(error.to_string()))
}

/// A mail-auth authenticator on [`resolver`].
pub fn authenticator(address: SocketAddr) -> Result<MessageAuthenticator, ResolverError> {
    resolver(address).map(MessageAuthenticator)
}
