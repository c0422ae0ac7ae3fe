//! Connections that come through a proxy: who the client is.
//!
//! A listed proxy must say so in a header of the PROXY protocol, before anything else and soon; nobody else is believed. The header
//! is read to its end and not an octet further.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::proxy_header::{HeaderError, Progress, parse};

/// A proxy sends its header with the connection.
const SOON: Duration = Duration::from_secs(5);
/// Headers waited for at a time.
pub(super) const AT_A_TIME: usize = 256;

/// Why a proxy's connection is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    #[error(transparent)]
    Header(#[from] HeaderError),
    #[error("the header did not come: {0}")]
    Io(#[from] io::Error),
    #[error("the header was not there in {} s", SOON.as_secs())]
    Late,
}

/// The client that the proxy names; nothing where it speaks for itself.
pub(super) async fn client(stream: &mut TcpStream) -> Result<Option<SocketAddr>, ProxyError> {
    tokio::time::timeout(SOON, read(stream))
        .await
        .map_err(|_| ProxyError::Late)?
}

async fn read(stream: &mut TcpStream) -> Result<Option<SocketAddr>, ProxyError> {
    let mut octets = Vec::new();
    loop {
        match parse(&octets)? {
            Progress::Whole(header) => return Ok(header.client),
            Progress::Needs(length) => {
                let had = octets.len();
                octets.resize(length, 0);
                stream.read_exact(&mut octets[had..]).await?;
            }
        }
    }
}
