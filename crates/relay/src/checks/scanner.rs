//! How scanners are reached: a unix socket or TCP on loopback.

use std::fmt;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::config::ScannerSocket;

/// Either kind of stream.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Connects to `socket`.
pub async fn connect(socket: &ScannerSocket) -> io::Result<Box<dyn Stream>> {
    match socket {
        ScannerSocket::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        ScannerSocket::Tcp(address) => Ok(Box::new(TcpStream::connect(address).await?)),
        ScannerSocket::Off => Err(io::Error::new(io::ErrorKind::NotConnected, "the scanner is off")),
    }
}

impl fmt::Display for ScannerSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}
