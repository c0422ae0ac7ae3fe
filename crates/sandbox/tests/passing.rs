//! What a receiver of packets and of sealed memory refuses: the other side may be in a stranger's hands.
#![allow(unsafe_code, missing_docs)]

use std::{
    fs::{self, File},
    io::{ErrorKind, IoSlice, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, SealFlag, fcntl},
    sys::{
        memfd::{MFdFlags, memfd_create},
        socket::{ControlMessage, MsgFlags, sendmsg},
    },
};
use postern_sandbox::{fd, memfd, seqpacket};

fn packet_with(fds: &[i32]) -> std::io::Result<fd::Packet> {
    let (sender, receiver) = seqpacket::pair().expect("a pair");
    let control = [ControlMessage::ScmRights(fds)];
    sendmsg::<()>(
        sender.as_raw_fd(),
        &[IoSlice::new(b"x")],
        &control,
        MsgFlags::empty(),
        None,
    )
    .expect("sent");
    fd::recv_with_fd(&receiver, &mut [0; 16])
}

/// How many descriptors of this process are open on the file at `path`.
fn open_on(path: &std::path::Path) -> usize {
    let links = fs::read_dir("/proc/self/fd")
        .expect("listed")
        .filter_map(|e| fs::read_link(e.ok()?.path()).ok());
    links.filter(|target| target == path).count()
}

#[test]
fn a_descriptor_arrives_close_on_exec() {
    let file = tempfile::tempfile().expect("a file");
    let passed = packet_with(&[file.as_raw_fd()])
        .expect("one is allowed")
        .fd
        .expect("it came");
    let flags = FdFlag::from_bits_truncate(fcntl(&passed, FcntlArg::F_GETFD).expect("flags"));
    assert!(flags.contains(FdFlag::FD_CLOEXEC));
}

#[test]
fn two_descriptors_or_many_are_refused_and_closed() {
    for count in [2, 3, 253] {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let error = packet_with(&vec![file.as_raw_fd(); count]).expect_err("one is the most");
        assert!(
            error.to_string().contains(&format!("{count} descriptors")),
            "{error}"
        );
        assert_eq!(open_on(file.path()), 1, "{count}: only ours stays open");
    }
}

#[test]
fn a_packet_longer_than_the_buffer_is_refused_and_its_descriptor_closed() {
    let (sender, receiver) = seqpacket::pair().expect("a pair");
    let file = tempfile::NamedTempFile::new().expect("a file");
    fd::send_with_fd(&sender, &[0; 17], Some(file.as_file().as_fd())).expect("sent");
    let error = fd::recv_with_fd(&receiver, &mut [0; 16]).expect_err("too long");
    assert!(error.to_string().contains("longer than 16 octets"), "{error}");
    assert_eq!(open_on(file.path()), 1);
}

#[test]
fn a_packet_over_the_bound_is_not_sent_and_one_at_the_bound_is() {
    let (sender, receiver) = seqpacket::pair().expect("a pair");
    assert_eq!(
        fd::send_with_fd(&sender, &vec![0; fd::MAX_PACKET + 1], None)
            .expect_err("over")
            .kind(),
        ErrorKind::InvalidData
    );
    fd::send_with_fd(&sender, &vec![7; fd::MAX_PACKET], None).expect("sent");
    let mut buffer = vec![0; fd::MAX_PACKET];
    assert_eq!(
        fd::recv_with_fd(&receiver, &mut buffer).expect("received").len,
        fd::MAX_PACKET
    );
}

#[test]
fn nothing_to_receive_and_a_closed_peer_are_told_apart() {
    let (sender, receiver) = seqpacket::pair().expect("a pair");
    assert_eq!(
        fd::recv_with_fd(&receiver, &mut [0; 16])
            .expect_err("nothing yet")
            .kind(),
        ErrorKind::WouldBlock
    );
    drop(sender);
    let packet = fd::recv_with_fd(&receiver, &mut [0; 16]).expect("the end");
    assert!(packet.len == 0 && packet.fd.is_none());
}

#[test]
fn sealed_memory_cannot_be_changed_by_its_maker() {
    let kept = memfd::sealed(b"message").expect("sealed");
    let mut maker = File::from(kept.try_clone().expect("a duplicate"));
    assert_eq!(
        maker.write(b"x").expect_err("sealed").kind(),
        ErrorKind::PermissionDenied
    );
    assert_eq!(
        maker.set_len(0).expect_err("sealed").kind(),
        ErrorKind::PermissionDenied
    );
    assert_eq!(memfd::read(kept, 7).expect("read"), b"message");
}

#[test]
fn memory_without_every_seal_is_refused() {
    let all = [
        SealFlag::F_SEAL_SHRINK,
        SealFlag::F_SEAL_GROW,
        SealFlag::F_SEAL_WRITE,
        SealFlag::F_SEAL_SEAL,
    ];
    for missing in all {
        let memory: OwnedFd = memfd_create("x", MFdFlags::MFD_ALLOW_SEALING).expect("memory");
        let seals = all
            .into_iter()
            .filter(|s| *s != missing)
            .fold(SealFlag::empty(), SealFlag::union);
        fcntl(&memory, FcntlArg::F_ADD_SEALS(seals)).expect("sealed");
        let error = memfd::verify(&memory, 10).expect_err("one seal is missing");
        assert!(
            error.to_string().contains("not fully sealed"),
            "{missing:?}: {error}"
        );
    }
}

#[test]
fn an_ordinary_file_is_not_sealed_memory() {
    let error = memfd::verify(tempfile::tempfile_in("/var/tmp").expect("a file"), 10).expect_err("a file");
    assert!(error.to_string().contains("sealed"), "{error}");
}

#[test]
fn memory_over_the_limit_is_refused_at_its_length() {
    let memory = memfd::sealed(&[0; 11]).expect("sealed");
    assert_eq!(memfd::verify(&memory, 11).expect("at the limit"), 11);
    assert!(
        memfd::verify(&memory, 10)
            .expect_err("over")
            .to_string()
            .contains("11 octets")
    );
}

#[test]
fn memory_is_looked_at_while_it_is_filled_and_sealed_after() {
    let mut writer = memfd::Writer::new().expect("memory");
    assert!(writer.view(1).is_err(), "there is nothing yet");
    writer.write_from(4096).expect("a gap");
    writer.write_all(b"body").expect("written");
    assert!(writer.view(4101).is_err(), "beyond the end");
    assert_eq!(writer.view(4100).expect("a view")[4096..], *b"body");
    writer.write_from(4090).expect("back");
    writer.write_all(b"head: ").expect("written");
    assert_eq!(writer.view(4100).expect("a view")[4088..], *b"\0\0head: body");
    let sealed = memfd::read(writer.seal().expect("sealed"), 4100).expect("read");
    assert_eq!((sealed.len(), &sealed[4090..]), (4100, &b"head: body"[..]));
}

#[test]
fn what_is_lent_is_looked_at_and_written_by_its_maker_alone() {
    let mut writer = memfd::Writer::new().expect("memory");
    writer.write_all(b"    body").expect("written");
    let lent = {
        let view = writer.view(8).expect("a view");
        view.lend().expect("lent").try_clone_to_owned().expect("a copy")
    };
    assert!(
        memfd::map(&lent, 8).is_err(),
        "it is not sealed: the queue would refuse it"
    );
    assert_eq!(*memfd::map_lent(&lent, 8).expect("mapped"), b"    body"[..]);
    assert!(memfd::map_lent(&lent, 7).is_err(), "over the limit");
    let mut other = fs::File::from(lent.try_clone().expect("a copy"));
    assert_eq!(
        other.write(b"x").expect_err("a write").kind(),
        ErrorKind::PermissionDenied
    );
    assert!(other.set_len(3).is_err() && other.set_len(30).is_err());
    writer.write_from(2).expect("back");
    writer.write_all(b"a:").expect("written through the mapping");
    assert!(writer.write_all(b"body and more").is_err(), "the length is fixed");
    let sealed = writer.seal().expect("sealed, though it was lent");
    assert_eq!(memfd::read(sealed, 8).expect("read")[..4], *b"  a:");
}

#[test]
fn memory_that_its_lender_could_shorten_is_not_mapped() {
    let memory: OwnedFd = memfd_create("x", MFdFlags::MFD_ALLOW_SEALING).expect("memory");
    let error = memfd::map_lent(&memory, 10).expect_err("no seals");
    assert!(error.to_string().contains("not fully sealed"), "{error}");
}

#[test]
fn a_listener_replaces_a_stale_socket_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let (socket, file) = (directory.path().join("socket"), directory.path().join("file"));
    drop(seqpacket::listen(&socket).expect("made"));
    let listener = seqpacket::listen(&socket).expect("replaced");
    let client = seqpacket::connect(&socket).expect("connected");
    seqpacket::accept(&listener).expect("accepted");
    drop(client);
    fs::write(&file, b"mail").expect("written");
    assert_eq!(
        seqpacket::listen(&file).expect_err("a file").kind(),
        ErrorKind::AlreadyExists
    );
    assert_eq!(fs::read(&file).expect("kept"), b"mail");
}
