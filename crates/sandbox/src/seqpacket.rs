//! Local packet sockets (`AF_UNIX`, `SOCK_SEQPACKET`): all non-blocking and close-on-exec, for tokio's `AsyncFd`.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::Duration,
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, connect as connect_to, getsockopt,
    listen as listen_on, socket, socketpair, sockopt,
};

const FLAGS: SockFlag = SockFlag::SOCK_NONBLOCK.union(SockFlag::SOCK_CLOEXEC);

/// Connects to the socket at `path`. [`io::ErrorKind::WouldBlock`] means that its backlog is full: try again.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = new()?;
    connect_to(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

/// Makes a listening socket at `path` that only this user may connect to, for processes started without a service
/// manager. A socket left there by an earlier run is replaced; anything else there is an error. Not possible in a sandbox.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    use std::os::unix::fs::FileTypeExt;
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} is there and no socket: remove it", path.display()),
            ));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        Err(e) => return Err(e),
    }
    let socket = new()?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listen_on(&socket, Backlog::MAXCONN)?;
    Ok(socket)
}

/// Takes one waiting connection.
pub fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    let raw = accept4(listener.as_fd().as_raw_fd(), FLAGS)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Makes [`accept`] wait for a connection instead of answering [`io::ErrorKind::WouldBlock`]. Of several processes that
/// wait at one listener, the kernel wakes one.
pub fn let_accept_wait(listener: impl AsFd) -> io::Result<()> {
    let listener = listener.as_fd();
    let flags = OFlag::from_bits_retain(fcntl(listener, FcntlArg::F_GETFL)?);
    fcntl(listener, FcntlArg::F_SETFL(flags.difference(OFlag::O_NONBLOCK)))?;
    Ok(())
}

/// Waits until there is something to receive, or until `at_most` is over: then `false`.
pub fn readable(socket: impl AsFd, at_most: Duration) -> io::Result<bool> {
    let timeout = PollTimeout::try_from(at_most).unwrap_or(PollTimeout::MAX);
    let mut sockets = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut sockets, timeout)? > 0)
}

/// A connected pair.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, FLAGS)?)
}

/// The user id of the process at the other end, as it was when it connected.
pub fn peer_uid(socket: impl AsFd) -> io::Result<u32> {
    Ok(getsockopt(&socket.as_fd(), sockopt::PeerCredentials)?.uid())
}

fn new() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, FLAGS, None)?)
}
