//! What somebody who took a process over would try.
#![allow(
    clippy::cast_possible_truncation,
    reason = "C's constants and sizes, all small"
)]
#![allow(clippy::unnecessary_wraps, reason = "one signature for all")]
#![allow(clippy::disallowed_methods, reason = "exec is what must fail")]

use std::{
    fs::{self, File},
    io::{self, Error},
    net::{TcpListener, TcpStream, UdpSocket},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    os::linux::net::SocketAddrExt,
    os::unix::{
        fs::symlink,
        net::{SocketAddr, UnixListener, UnixStream},
        process::CommandExt,
    },
    process::Command,
    ptr,
};

use postern_sandbox::Policy;

use crate::{
    Around,
    End::{self, Errno, Killed},
};

/// Something made before the walls stand, for the attempt to use.
pub(crate) type Prepared = Option<OwnedFd>;

pub(crate) struct Attempt {
    pub(crate) name: &'static str,
    pub(crate) policy: fn(&Around) -> Policy,
    pub(crate) prepare: fn(&Around) -> Prepared,
    pub(crate) run: fn(&Around, Prepared) -> io::Result<()>,
    pub(crate) end: End,
    /// The walls are those of a worker, which a supervisor behind `policy` starts.
    pub(crate) in_worker: bool,
}

const fn smtpd(name: &'static str, end: End, run: fn(&Around, Prepared) -> io::Result<()>) -> Attempt {
    Attempt {
        name,
        policy: Around::smtpd,
        prepare: nothing,
        run,
        end,
        in_worker: false,
    }
}

const fn queue(name: &'static str, end: End, run: fn(&Around, Prepared) -> io::Result<()>) -> Attempt {
    Attempt {
        name,
        policy: Around::queue,
        prepare: nothing,
        run,
        end,
        in_worker: false,
    }
}

const fn supervisor(name: &'static str, end: End, run: fn(&Around, Prepared) -> io::Result<()>) -> Attempt {
    Attempt {
        name,
        policy: |_| Policy::scan(),
        prepare: nothing,
        run,
        end,
        in_worker: false,
    }
}

const fn worker(name: &'static str, end: End, run: fn(&Around, Prepared) -> io::Result<()>) -> Attempt {
    Attempt {
        in_worker: true,
        ..supervisor(name, end, run)
    }
}

impl Attempt {
    const fn after(mut self, prepare: fn(&Around) -> Prepared) -> Self {
        self.prepare = prepare;
        self
    }
}

fn nothing(_: &Around) -> Prepared {
    None
}

pub(crate) static ALL: &[Attempt] = &[
    smtpd("become a shell", Killed, |_, _| {
        Err(Command::new("/bin/sh").args(["-c", "exit 0"]).exec())
    }),
    smtpd("start a program", Errno(libc::EPERM), |_, _| {
        Command::new("/bin/true").status().map(drop)
    }),
    smtpd("fork", Errno(libc::EPERM), |_, _| fork()),
    smtpd("open a file", Errno(libc::EPERM), |_, _| {
        File::open("/etc/passwd").map(drop)
    }),
    smtpd("make a file", Errno(libc::EPERM), |a, _| {
        File::create(a.outside.join("made")).map(drop)
    }),
    smtpd("look whether a path exists", Errno(libc::EPERM), |_, _| {
        fs::metadata("/etc/passwd").map(drop)
    }),
    smtpd("list a directory", Errno(libc::EPERM), |_, _| {
        fs::read_dir("/").map(drop)
    }),
    smtpd("bind a TCP port", Errno(libc::EACCES), |_, _| {
        TcpListener::bind("127.0.0.1:0").map(drop)
    }),
    smtpd("listen on an unbound socket", Errno(libc::EPERM), |_, _| {
        let socket = tcp(libc::IPPROTO_TCP)?;
        // SAFETY: plain system call on a descriptor we own.
        answer(unsafe { libc::listen(socket.as_raw_fd(), 1) })
    }),
    smtpd("make a unix socket", Errno(libc::EACCES), |a, _| {
        let socket = std::os::unix::net::UnixDatagram::bind(a.outside.join("socket"));
        socket.and_then(|_| fs::remove_file(a.outside.join("socket")))
    }),
    smtpd("connect to an unlisted port", Errno(libc::EACCES), |a, _| {
        connect(a.unlisted)
    }),
    smtpd("connect by fast open", Errno(libc::EPERM), |a, _| {
        fast_open(a.unlisted)
    }),
    smtpd("connect over MPTCP", Errno(libc::EPERM), |a, _| {
        connect_socket(&tcp(libc::IPPROTO_MPTCP)?, a.unlisted)
    }),
    smtpd("reach an abstract socket outside", Errno(libc::EPERM), |_, _| {
        // Bound by the parent process's second self: see `abstract_name`.
        UnixStream::connect_addr(&SocketAddr::from_abstract_name(abstract_name())?).map(drop)
    }),
    smtpd("open a netlink socket", Errno(libc::EPERM), |_, _| {
        socket(libc::AF_NETLINK, libc::SOCK_RAW, 0).map(drop)
    }),
    smtpd("open a vsock socket", Errno(libc::EPERM), |_, _| {
        socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0).map(drop)
    }),
    smtpd("open an inotify watch", Errno(libc::EPERM), |_, _| {
        // SAFETY: plain system call; the new descriptor ends with the process.
        answer(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) })
    }),
    smtpd("be traced", Killed, |_, _| {
        // SAFETY: PTRACE_TRACEME takes no pointers.
        answer(unsafe {
            libc::ptrace(
                libc::PTRACE_TRACEME,
                0,
                ptr::null_mut::<u8>(),
                ptr::null_mut::<u8>(),
            )
        })
    }),
    smtpd("read another process's memory", Killed, |_, _| {
        // SAFETY: with no vectors nothing is read or written.
        answer(unsafe { libc::process_vm_readv(libc::getpid(), ptr::null(), 0, ptr::null(), 0, 0) as i64 })
    }),
    smtpd("signal the parent", Errno(libc::EPERM), |_, _| {
        // SAFETY: signal 0 only asks.
        answer(unsafe { libc::kill(libc::getppid(), 0) })
    }),
    smtpd("signal a thread of the parent", Errno(libc::EPERM), |_, _| {
        // SAFETY: signal 0 only asks.
        answer(unsafe { libc::syscall(libc::SYS_tgkill, libc::getppid(), libc::getppid(), 0) })
    }),
    smtpd("map executable memory", Errno(libc::EPERM), |_, _| {
        map(libc::PROT_READ | libc::PROT_EXEC).map(drop)
    }),
    smtpd("make memory executable", Errno(libc::EPERM), |_, _| {
        let page = map(libc::PROT_READ | libc::PROT_WRITE)?;
        // SAFETY: the page was just mapped, and nothing refers to it.
        answer(unsafe { libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_EXEC) })
    }),
    smtpd("change the user id", Killed, |_, _| {
        // SAFETY: plain system call; to our own id it changes nothing.
        answer(unsafe { libc::setuid(libc::getuid()) })
    }),
    smtpd("leave the namespaces", Killed, |_, _| {
        // SAFETY: plain system call of a single-threaded process.
        answer(unsafe { libc::unshare(libc::CLONE_FS) })
    }),
    smtpd("become dumpable again", Errno(libc::EPERM), |_, _| {
        // SAFETY: takes no pointers.
        answer(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) })
    }),
    smtpd("clone3", Errno(libc::ENOSYS), |_, _| {
        // SAFETY: the kernel refuses a null argument block; that it does so shows that the call arrived.
        match answer(unsafe { libc::syscall(libc::SYS_clone3, ptr::null::<u8>(), 0) }) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            other => other,
        }
    }),
    smtpd("io_uring", Killed, |_, _| {
        // SAFETY: the kernel refuses a null parameter block; that it does so shows that the call arrived.
        match answer(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, ptr::null::<u8>()) }) {
            Err(e) if e.raw_os_error() == Some(libc::EFAULT) => Ok(()),
            other => other,
        }
    }),
    smtpd("use a capability", Errno(libc::EPERM), |_, socket| mark(&socket)).after(own_namespace),
    queue("queue: become a shell", Killed, |_, _| {
        Err(Command::new("/bin/sh").args(["-c", "exit 0"]).exec())
    }),
    queue("queue: read outside the spool", Errno(libc::EACCES), |_, _| {
        File::open("/etc/passwd").map(drop)
    }),
    queue("queue: write outside the spool", Errno(libc::EACCES), |a, _| {
        File::create(a.outside.join("made")).map(drop)
    }),
    queue(
        "queue: move mail out of the spool",
        Errno(libc::EACCES),
        |a, _| fs::rename(a.spool.join("mail"), a.outside.join("mail")),
    )
    .after(|a| Some(File::create(a.spool.join("mail")).expect("a file").into())),
    queue("queue: leave the spool by a link", Errno(libc::EPERM), |a, _| {
        symlink("/etc", a.spool.join("link"))?;
        fs::remove_file(a.spool.join("link"))
    }),
    queue("queue: read memory through /proc", Errno(libc::EACCES), |_, _| {
        File::open("/proc/self/mem").map(drop)
    }),
    queue(
        "queue: connect to an unlisted port",
        Errno(libc::EACCES),
        |a, _| connect(a.unlisted),
    ),
    queue("queue: bind a TCP port", Errno(libc::EACCES), |_, _| {
        TcpListener::bind("127.0.0.1:0").map(drop)
    }),
    // A port that the system chooses may be bound, and nothing be taken on it.
    Attempt {
        name: "queue with source addresses: listen",
        policy: |a| Around::queue(a).bind_addresses(),
        prepare: nothing,
        in_worker: false,
        run: |_, _| TcpListener::bind("127.0.0.1:0").map(drop),
        end: Errno(libc::EPERM),
    },
    Attempt {
        name: "queue with source addresses: bind a TCP port of its own choice",
        policy: |a| Around::queue(a).bind_addresses(),
        prepare: nothing,
        in_worker: false,
        run: |_, _| TcpListener::bind("127.0.31.41:2525").map(drop),
        end: Errno(libc::EACCES),
    },
    queue(
        "queue: make a file executable by open",
        Errno(libc::EACCES),
        |_, _| {
            // Executing through a memory file needs execve; mapping a library needs open: neither is there.
            File::open("/proc/self/exe").map(drop)
        },
    ),
    supervisor("scan: become a shell", Killed, |_, _| {
        Err(Command::new("/bin/sh").args(["-c", "exit 0"]).exec())
    }),
    supervisor("scan: open a file", Errno(libc::EPERM), |_, _| {
        File::open("/etc/passwd").map(drop)
    }),
    supervisor("scan: start a thread", Errno(libc::EPERM), |_, _| {
        std::thread::Builder::new().spawn(|| ()).map(drop)
    }),
    supervisor("scan: connect to a listed port", Errno(libc::EPERM), |a, _| {
        connect(a.listed)
    }),
    supervisor("scan: signal the parent", Errno(libc::EPERM), |_, _| {
        // SAFETY: signal 0 only asks.
        answer(unsafe { libc::kill(libc::getppid(), 0) })
    }),
    worker("scan worker: become a shell", Killed, |_, _| {
        Err(Command::new("/bin/sh").args(["-c", "exit 0"]).exec())
    }),
    worker("scan worker: fork", Errno(libc::EPERM), |_, _| fork()),
    worker("scan worker: open a file", Errno(libc::EPERM), |_, _| {
        File::open("/etc/passwd").map(drop)
    }),
    worker(
        "scan worker: read its memory through /proc",
        Errno(libc::EPERM),
        |_, _| File::open("/proc/self/mem").map(drop),
    ),
    worker("scan worker: make a memory file", Errno(libc::EPERM), |_, _| {
        postern_sandbox::memfd::sealed(b"x").map(drop)
    }),
    worker("scan worker: make a TCP socket", Errno(libc::EPERM), |_, _| {
        tcp(0).map(drop)
    }),
    worker("scan worker: make a UDP socket", Errno(libc::EPERM), |_, _| {
        UdpSocket::bind("127.0.0.1:0").map(drop)
    }),
    worker("scan worker: make a unix socket", Errno(libc::EPERM), |_, _| {
        std::os::unix::net::UnixDatagram::unbound().map(drop)
    }),
    worker(
        "scan worker: connect a socket that it was given",
        Errno(libc::EPERM),
        |a, socket| connect_socket(&socket.expect("a prepared socket"), a.listed),
    )
    .after(|_| Some(tcp(0).expect("a socket"))),
    worker(
        "scan worker: make memory executable",
        Errno(libc::EPERM),
        |_, _| map(libc::PROT_READ | libc::PROT_EXEC).map(drop),
    ),
    worker(
        "scan worker: signal its supervisor",
        Errno(libc::EPERM),
        |_, _| {
            // SAFETY: signal 0 only asks.
            answer(unsafe { libc::kill(libc::getppid(), 0) })
        },
    ),
    worker(
        "scan worker: outlive its supervisor",
        Errno(libc::EPERM),
        |_, _| {
            // SAFETY: takes no pointers.
            answer(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, 0, 0, 0, 0) })
        },
    ),
    worker(
        "scan worker: raise its memory limit",
        Errno(libc::EPERM),
        |_, _| {
            let none = libc::rlimit {
                rlim_cur: 1 << 30,
                rlim_max: 1 << 30,
            };
            // SAFETY: the limit lives through the call.
            answer(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const none) })
        },
    ),
    worker("scan worker: read another process's memory", Killed, |_, _| {
        // SAFETY: with no vectors nothing is read or written.
        answer(unsafe { libc::process_vm_readv(libc::getpid(), ptr::null(), 0, ptr::null(), 0, 0) as i64 })
    }),
    Attempt {
        name: "proxy: make a memory file",
        policy: |a| Policy::proxy().connect_tcp(a.listed),
        prepare: nothing,
        run: |_, _| postern_sandbox::memfd::sealed(b"x").map(drop),
        end: Errno(libc::EPERM),
        in_worker: false,
    },
    Attempt {
        name: "proxy: open a file",
        policy: |a| Policy::proxy().connect_tcp(a.listed),
        prepare: nothing,
        run: |_, _| File::open("/etc/passwd").map(drop),
        end: Errno(libc::EPERM),
        in_worker: false,
    },
    Attempt {
        name: "proxy: connect to an unlisted port",
        policy: |a| Policy::proxy().connect_tcp(a.listed),
        prepare: nothing,
        run: |a, _| connect(a.unlisted),
        end: Errno(libc::EACCES),
        in_worker: false,
    },
];

/// The abstract socket that the parent of all cases listens on, so that it lies outside every case's walls.
pub(crate) fn abstract_name() -> String {
    // The spool's path is unique to one run and known to parent and child.
    format!("{}.abstract", std::env::var("ESCAPE_SPOOL").unwrap_or_default())
}

/// Binds it.
pub(crate) fn listen_abstract(spool: &std::path::Path) -> UnixListener {
    let name = format!("{}.abstract", spool.display());
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).expect("a name"))
        .expect("an abstract socket")
}

fn answer(result: impl Into<i64>) -> io::Result<()> {
    if result.into() < 0 {
        Err(Error::last_os_error())
    } else {
        Ok(())
    }
}

fn fork() -> io::Result<()> {
    // SAFETY: the child calls only _exit.
    match unsafe { libc::fork() } {
        0 => unsafe { libc::_exit(0) },
        pid => answer(pid),
    }
}

fn connect(port: u16) -> io::Result<()> {
    TcpStream::connect(("127.0.0.1", port)).map(drop)
}

fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain system call; a non-negative result is a new descriptor that nobody else owns.
    unsafe {
        let fd = libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol);
        answer(fd).map(|()| OwnedFd::from_raw_fd(fd))
    }
}

fn tcp(protocol: i32) -> io::Result<OwnedFd> {
    socket(libc::AF_INET, libc::SOCK_STREAM, protocol)
}

fn loopback(port: u16) -> libc::sockaddr_in {
    libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_be_bytes([127, 0, 0, 1]).to_be(),
        },
        sin_zero: [0; 8],
    }
}

fn connect_socket(socket: &OwnedFd, port: u16) -> io::Result<()> {
    let address = loopback(port);
    // SAFETY: the address lives through the call, and its length is its own.
    answer(unsafe {
        libc::connect(
            socket.as_raw_fd(),
            ptr::from_ref(&address).cast(),
            size_of_val(&address) as u32,
        )
    })
}

fn fast_open(port: u16) -> io::Result<()> {
    let socket = tcp(0)?;
    let address = loopback(port);
    // SAFETY: buffer and address live through the call, with their own lengths.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            b"x".as_ptr().cast(),
            1,
            libc::MSG_FASTOPEN,
            ptr::from_ref(&address).cast(),
            size_of_val(&address) as u32,
        )
    };
    answer(sent as i64)
}

fn map(protection: i32) -> io::Result<*mut libc::c_void> {
    // SAFETY: a new anonymous mapping touches no memory that anything else uses.
    let page = unsafe {
        libc::mmap(
            ptr::null_mut(),
            4096,
            protection,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if page == libc::MAP_FAILED {
        Err(Error::last_os_error())
    } else {
        Ok(page)
    }
}

/// A user and network namespace of our own, where this process has every capability: whoever runs the tests.
fn own_namespace(_: &Around) -> Prepared {
    // SAFETY: plain system call of a single-threaded process.
    answer(unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) })
        .expect("a user namespace: kernel.unprivileged_userns_clone=1");
    Some(UdpSocket::bind("0.0.0.0:0").expect("a socket").into())
}

/// `SO_MARK` takes `CAP_NET_ADMIN`, and setsockopt is a call that the filter must allow.
fn mark(socket: &Prepared) -> io::Result<()> {
    let fd = socket.as_ref().expect("a prepared socket").as_raw_fd();
    let mark: i32 = 7;
    // SAFETY: the option value lives through the call, and its length is its own.
    answer(unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_MARK,
            ptr::from_ref(&mark).cast(),
            4,
        )
    })
}
