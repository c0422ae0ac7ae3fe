//! One descriptor inside one packet (unix(7), `SCM_RIGHTS`), over a `SOCK_SEQPACKET` socket.
//!
//! Both calls are a single system call and never block: with nothing to do they answer
//! [`io::ErrorKind::WouldBlock`], so that tokio's `AsyncFd::try_io` drives them.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// The largest packet that either side of a handover sends or takes, in octets; below the kernel's default send buffer.
pub const MAX_PACKET: usize = 128 * 1024;

/// The most descriptors that the kernel puts into one packet (`SCM_MAX_FD`).
const KERNEL_MAX_DESCRIPTORS: usize = 253;

/// A packet that arrived. `bytes` of length 0 without a descriptor is the end of the connection.
#[derive(Debug)]
pub struct Packet {
    /// How much of the buffer is filled.
    pub len: usize,
    /// The descriptor that came with it, close-on-exec.
    pub fd: Option<OwnedFd>,
}

/// Sends `bytes`, 1 to [`MAX_PACKET`] of them, as one packet, with at most one descriptor.
pub fn send_with_fd(socket: impl AsFd, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    if bytes.is_empty() || bytes.len() > MAX_PACKET {
        return Err(refused(format!(
            "a packet of {} octets: 1 to {MAX_PACKET} can be sent",
            bytes.len()
        )));
    }
    let raw = fd.map(|fd| [fd.as_raw_fd()]);
    let rights = raw.as_ref().map(|raw| [ControlMessage::ScmRights(raw)]);
    let control: &[ControlMessage<'_>] = rights.as_ref().map_or(&[], |r| r);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let sent = sendmsg::<()>(
        socket.as_fd().as_raw_fd(),
        &[IoSlice::new(bytes)],
        control,
        flags,
        None,
    )?;
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(refused(format!(
            "only {sent} of {} octets were taken: not a packet socket",
            bytes.len()
        )))
    }
}

/// Receives one packet into `buffer`. A packet that does not fit, or that brings more than one descriptor, is an
/// error, and every descriptor it brought is closed.
pub fn recv_with_fd(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Packet> {
    // Room for all the kernel can send: with less it would keep some back without a trace.
    let mut control = nix::cmsg_space!([RawFd; KERNEL_MAX_DESCRIPTORS]);
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let mut slices = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut slices, Some(&mut control), flags)?;
    let mut fds = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = part {
            // SAFETY: the kernel made these descriptors for this call, they are open, and nobody else has seen
            // their numbers: each becomes owned exactly once, here, before any other one is looked at.
            fds.extend(raw.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
        }
    }
    if message.flags.contains(MsgFlags::MSG_TRUNC) {
        return Err(refused(format!(
            "a packet longer than {} octets",
            slices[0].len()
        )));
    }
    if fds.len() > 1 {
        return Err(refused(format!(
            "a packet with {} descriptors: one is the most",
            fds.len()
        )));
    }
    Ok(Packet {
        len: message.bytes,
        fd: fds.pop(),
    })
}

fn refused(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
