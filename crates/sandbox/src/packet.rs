//! Packet sockets on a tokio runtime: [`crate::seqpacket`] and [`crate::fd`], awaited.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    fd::{Packet, recv_with_fd, send_with_fd},
    seqpacket,
};

/// How long to wait before asking again while a listener's backlog is full: the kernel has no event for it.
const BACKLOG_PAUSE: Duration = Duration::from_millis(10);

/// A listening packet socket.
#[derive(Debug)]
pub struct Listener(AsyncFd<OwnedFd>);

/// A connected packet socket. Sending and receiving take `&self`: one task may do each at the same time.
#[derive(Debug)]
pub struct Connection(AsyncFd<OwnedFd>);

impl Listener {
    /// Takes over a listening, non-blocking packet socket: from [`crate::listen_fds`] or [`seqpacket::listen`].
    ///
    /// # Panics
    /// Outside a tokio runtime, as tokio's own sockets do.
    pub fn new(listener: OwnedFd) -> io::Result<Self> {
        register(listener).map(Self)
    }

    /// Waits for a connection.
    pub async fn accept(&self) -> io::Result<Connection> {
        Connection::new(
            self.0
                .async_io(Interest::READABLE, |listener| seqpacket::accept(listener))
                .await?,
        )
    }
}

impl Connection {
    /// Takes over a connected, non-blocking packet socket.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        register(socket).map(Self)
    }

    /// Connects to the listener at `path`. It waits while the backlog is full: put a time limit around it.
    pub async fn connect(path: &Path) -> io::Result<Self> {
        loop {
            match seqpacket::connect(path) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(BACKLOG_PAUSE).await,
                result => return Self::new(result?),
            }
        }
    }

    /// [`send_with_fd`], awaited.
    pub async fn send(&self, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        self.0
            .async_io(Interest::WRITABLE, |socket| send_with_fd(socket, bytes, fd))
            .await
    }

    /// [`recv_with_fd`], awaited: one packet, or `len` 0 without a descriptor at the end of the connection.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<Packet> {
        self.0
            .async_io(Interest::READABLE, |socket| recv_with_fd(socket, buffer))
            .await
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

fn register(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, answers the same number as long as it lives, and the AsyncFd owns it; neither type
    // above hands out a mutable reference through which it could be replaced.
    unsafe { AsyncFd::register(socket) }.map_err(Into::into)
}
