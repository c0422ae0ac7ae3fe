//! How scanners are reached: a unix socket or TCP on loopback.

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::config::ScannerSocket;

/// Either kind of stream.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// Connects to `socket`.
pub async fn connect(socket: &ScannerSocket) -> io::Result<Box<dyn Stream>> {
    match socket {
        ScannerSocket::Unix(path) => Ok(Box::new(unix(path).await?)),
        ScannerSocket::Tcp(address) => Ok(Box::new(TcpStream::connect(address).await?)),
        ScannerSocket::Off => Err(io::Error::new(io::ErrorKind::NotConnected, "the scanner is off")),
    }
}

/// A connection to a local daemon. While its backlog is full the kernel says EAGAIN (connect(2)): it is asked again, until the
/// caller's time is over.
pub async fn unix(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            connected => return connected,
        }
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

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept, bind, listen, socket,
    };

    use super::*;

    #[tokio::test]
    async fn a_full_backlog_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let server = socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None).unwrap();
        bind(server.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        listen(&server, Backlog::new(0).unwrap()).unwrap();
        let mut waiting = Vec::new();
        // The kernel lets one more in than the backlog says.
        while let Ok(stream) = UnixStream::connect(&path).await {
            waiting.push(stream);
        }
        let late = tokio::spawn(async move { unix(&path).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!late.is_finished());
        accept(server.as_raw_fd()).unwrap();
        late.await.unwrap().unwrap();
        let nowhere = directory.path().join("nowhere");
        assert_eq!(unix(&nowhere).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
