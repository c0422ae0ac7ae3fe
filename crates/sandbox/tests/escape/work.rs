//! What each process must still be able to do behind its walls.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd,
    os::unix::net::{UnixListener, UnixStream},
    thread,
    time::Duration,
};

use postern_sandbox::{
    Policy, fd, memfd, packet, seqpacket,
    worker::{self, End, Happened, Reason, Supervisor},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

use crate::Around;

pub(crate) type Case = (&'static str, fn(&Around));

pub(crate) static ALL: &[Case] = &[
    ("smtpd serves a session on a tokio runtime", smtpd_serves),
    ("smtpd hands a sealed message over", smtpd_hands_over),
    ("smtpd asks the resolver over UDP", |a| {
        let server = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        a.smtpd().enforce().expect("walls");
        let client = UdpSocket::bind("0.0.0.0:0").expect("a random port");
        client
            .send_to(b"?", server.local_addr().expect("an address"))
            .expect("sent");
        assert_eq!(server.recv(&mut [0; 8]).expect("received"), 1);
    }),
    ("smtpd connects to a scanner's socket", |a| {
        let path = a.outside.join("scanner.sock");
        let scanner = UnixListener::bind(&path).expect("a socket");
        a.smtpd().enforce().expect("walls");
        UnixStream::connect(&path)
            .expect("connected")
            .write_all(b"PING")
            .expect("written");
        scanner.accept().expect("a connection");
    }),
    ("smtpd panics in a thread and goes on", |a| {
        a.smtpd().enforce().expect("walls");
        assert!(thread::spawn(|| panic!("on purpose")).join().is_err());
        thread::spawn(|| Vec::<u8>::with_capacity(64 << 20).len())
            .join()
            .expect("a second thread");
    }),
    ("smtpd reports a panic with a backtrace asked for", |a| {
        a.smtpd().enforce().expect("walls");
        assert!(!std::backtrace::Backtrace::force_capture().to_string().is_empty());
    }),
    ("queue keeps a spool", queue_keeps_a_spool),
    ("queue connects to a listed port", |a| {
        a.queue().enforce().expect("walls");
        TcpStream::connect(("127.0.0.1", a.listed)).expect("connected");
    }),
    ("scan's workers answer, and end alone", scan_works),
    ("proxy connects to a listed port", |a| {
        Policy::proxy().connect_tcp(a.listed).enforce().expect("walls");
        TcpStream::connect(("127.0.0.1", a.listed)).expect("connected");
    }),
];

fn smtpd_serves(around: &Around) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    listener.set_nonblocking(true).expect("non-blocking");
    let address = listener.local_addr().expect("an address");
    around
        .smtpd()
        .connect_tcp(address.port())
        .enforce()
        .expect("walls");
    Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async move {
            let _terminate = signal(SignalKind::terminate()).expect("a signal handler");
            let listener = tokio::net::TcpListener::from_std(listener).expect("a tokio listener");
            let client = tokio::spawn(async move {
                let mut stream = tokio::net::TcpStream::connect(address).await.expect("connected");
                stream.set_nodelay(true).expect("nodelay");
                stream.write_all(b"EHLO").await.expect("written");
            });
            let (mut stream, peer) = listener.accept().await.expect("accepted");
            assert!(peer.ip().is_loopback());
            let mut bytes = [0; 4];
            tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut bytes))
                .await
                .expect("in time")
                .expect("read");
            client.await.expect("the client ends");
            tokio::task::spawn_blocking(|| thread::sleep(Duration::from_millis(1)))
                .await
                .expect("a blocking thread");
        });
}

fn smtpd_hands_over(around: &Around) {
    let path = around.outside.join("handover.sock");
    let listener = seqpacket::listen(&path).expect("a packet socket");
    around.smtpd().enforce().expect("walls");
    Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async move {
            let listener = packet::Listener::new(listener).expect("a listener");
            let smtpd = packet::Connection::connect(&path).await.expect("connected");
            let queue = listener.accept().await.expect("accepted");
            assert_eq!(seqpacket::peer_uid(&queue).expect("credentials"), own_uid());
            let message = memfd::sealed(b"Subject: x\r\n\r\n").expect("sealed");
            let mut buffer = [0; 64];
            let (sent, packet) =
                tokio::join!(smtpd.send(b"{}", Some(message.as_fd())), queue.recv(&mut buffer));
            sent.expect("sent");
            let packet = packet.expect("received");
            assert_eq!((packet.len, &buffer[..2]), (2, &b"{}"[..]));
            assert_eq!(
                memfd::read(packet.fd.expect("a descriptor"), 100).expect("read"),
                b"Subject: x\r\n\r\n"
            );
        });
}

fn scan_works(around: &Around) {
    let path = around.outside.join("scan.sock");
    let listener = seqpacket::listen(&path).expect("a packet socket");
    seqpacket::let_accept_wait(&listener).expect("a socket that waits");
    // Asked by a process of its own, since this one will start no thread.
    let client = seqpacket::connect(&path).expect("connected");
    let message = memfd::sealed(b"sealed").expect("sealed");
    let supervisor = Supervisor::enforce(Policy::scan(), 1 << 32).expect("walls");
    let (listener, again) = (&listener, Duration::from_secs(20));
    let work = || {
        let socket = seqpacket::accept(listener).expect("accepted");
        assert!(seqpacket::readable(&socket, again).expect("polled"));
        let packet = fd::recv_with_fd(&socket, &mut [0; 8]).expect("received");
        let mapped = memfd::map(&packet.fd.expect("a descriptor"), 100).expect("mapped");
        worker::time_left(20);
        fd::send_with_fd(&socket, &mapped, None).expect("sent");
        worker::time_free();
    };
    let ended = |pid, reason| Happened::Ended(vec![End { pid, reason }]);
    let pid = supervisor.start(work).expect("started");
    fd::send_with_fd(&client, b"M", Some(message.as_fd())).expect("sent");
    assert_eq!(
        supervisor.wait(again).expect("waited"),
        ended(pid, Reason::Exit(0))
    );
    let mut answer = [0; 8];
    let packet = fd::recv_with_fd(&client, &mut answer).expect("received");
    assert_eq!(&answer[..packet.len], b"sealed");
    let pid = supervisor.start(|| panic!("on purpose")).expect("started");
    assert_eq!(
        supervisor.wait(again).expect("waited"),
        ended(pid, Reason::Exit(101))
    );
    let pid = supervisor.start(|| std::process::abort()).expect("started");
    let aborted = ended(pid, Reason::Signal(libc::SIGABRT));
    assert_eq!(supervisor.wait(again).expect("waited"), aborted);
    let pid = supervisor
        .start(|| {
            worker::time_left(1);
            loop {
                std::hint::spin_loop();
            }
        })
        .expect("started");
    assert_eq!(
        supervisor.wait(again).expect("waited"),
        ended(pid, Reason::OutOfTime)
    );
}

/// The user of this process, asked through a socket: getuid is not among smtpd's calls.
fn own_uid() -> u32 {
    let (a, _b) = seqpacket::pair().expect("a pair");
    seqpacket::peer_uid(a).expect("credentials")
}

fn queue_keeps_a_spool(around: &Around) {
    around.queue().enforce().expect("walls");
    let (new, kept, sub) = (
        around.spool.join("new"),
        around.spool.join("kept"),
        around.spool.join("sub"),
    );
    let mut file = File::create(&new).expect("made");
    file.write_all(b"mail").expect("written");
    file.sync_data().expect("flushed");
    fs::rename(&new, &kept).expect("renamed");
    File::open(&around.spool)
        .expect("the directory")
        .sync_all()
        .expect("its flush");
    fs::create_dir(&sub).expect("a directory");
    fs::rename(&kept, sub.join("kept")).expect("moved between directories");
    assert_eq!(fs::read_dir(&sub).expect("listed").count(), 1);
    let mut text = String::new();
    File::open(sub.join("kept"))
        .expect("opened")
        .read_to_string(&mut text)
        .expect("read");
    assert_eq!(text, "mail");
    Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime")
        .block_on(async {
            tokio::fs::remove_file(sub.join("kept"))
                .await
                .expect("removed by tokio");
        });
    fs::remove_dir(sub).expect("removed");
}
