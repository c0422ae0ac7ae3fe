//! How a process starts: with which descriptors, as which user, and what stops it.

use std::{
    env,
    fs::File,
    net::TcpListener,
    os::fd::{AsRawFd, OwnedFd},
    process::Command,
    thread,
    time::Duration,
};

use postern_sandbox::{Policy, SandboxError, child, listen_fds};

use crate::work::Case;

pub(crate) static ALL: &[Case] = &[
    ("walls stand for an ordinary user", |a| {
        become_nobody();
        let report = Policy::smtpd().connect_tcp(a.listed).enforce().expect("walls");
        assert!(
            !report.bounding_set_empty,
            "an ordinary user cannot empty it: {report}"
        );
        assert!(report.landlock_abi >= 4, "{report}");
    }),
    ("walls refuse a process with threads", |a| {
        thread::spawn(|| thread::sleep(Duration::from_mins(1)));
        let error = a.smtpd().enforce().expect_err("two threads run");
        assert!(matches!(error, SandboxError::Threads { threads: 2 }), "{error}");
    }),
    ("walls name a missing directory", |a| {
        let error = Policy::queue([a.spool.join("missing")])
            .enforce()
            .expect_err("no such directory");
        assert!(
            error.to_string().contains("missing") && error.to_string().contains("must exist"),
            "{error}"
        );
    }),
    ("descriptors are handed to a child by name, and no others", |_| {
        let (mx, submission) = (
            TcpListener::bind("127.0.0.1:0").expect("bound"),
            TcpListener::bind("127.0.0.1:0").expect("bound"),
        );
        let stray = File::open("/etc/passwd").expect("opened");
        // SAFETY: plain system call on a descriptor we own: the stray one survives the exec.
        assert_eq!(unsafe { libc::fcntl(stray.as_raw_fd(), libc::F_SETFD, 0) }, 0);
        let mut command = Command::new(env::current_exe().expect("this program"));
        command.args(["work", "child: reports its descriptors"]);
        command.env(
            "ESCAPE_EXPECT",
            format!("mx={} submission={}", port(&mx), port(&submission)),
        );
        child::pass_descriptors(
            &mut command,
            vec![
                ("mx".into(), OwnedFd::from(mx)),
                ("submission".into(), submission.into()),
            ],
        );
        assert!(command.status().expect("started").success());
    }),
    ("child: reports its descriptors", |_| {
        let Ok(expected) = env::var("ESCAPE_EXPECT") else {
            return;
        };
        let passed = listen_fds().expect("descriptors");
        let found: Vec<String> = passed
            .into_iter()
            .map(|p| (p.name, TcpListener::from(p.fd)))
            .map(|(name, listener)| format!("{name}={}", port(&listener)))
            .collect();
        assert_eq!(found.join(" "), expected);
        // Both were dropped with their listeners: what remains are the standard three and this listing.
        assert_eq!(std::fs::read_dir("/proc/self/fd").expect("listed").count(), 4);
        assert!(
            env::var_os("POSTERN_LISTEN_FDS").is_none(),
            "the announcement must not reach grandchildren"
        );
        assert!(listen_fds().is_err(), "descriptors are taken once");
    }),
    ("descriptors announced by systemd are taken", |_| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
        let expected = format!("mx={}", port(&listener));
        // A shell plays the service manager: it knows its own process id, and exec keeps it.
        let script = "exec env LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=mx \"$0\" work \"child: reports its descriptors\" 3<&0 0</dev/null";
        let status = Command::new("/bin/sh")
            .args(["-c", script])
            .arg(env::current_exe().expect("this program"))
            .env("ESCAPE_EXPECT", expected)
            .stdin(OwnedFd::from(listener))
            .status();
        assert!(status.expect("started").success());
    }),
    ("an announcement for another process is not taken", |_| {
        let status = Command::new(env::current_exe().expect("this program"))
            .args(["work", "child: reports its descriptors"])
            .envs([("LISTEN_PID", "1"), ("LISTEN_FDS", "1"), ("ESCAPE_EXPECT", "")])
            .status();
        assert!(status.expect("started").success());
    }),
    ("a damaged announcement is an error", |_| {
        let status = Command::new(env::current_exe().expect("this program"))
            .args(["work", "child: refuses a damaged announcement"])
            .env("POSTERN_LISTEN_PARENT", std::process::id().to_string())
            .env("POSTERN_LISTEN_FDS", "mx=three")
            .status();
        assert!(status.expect("started").success());
    }),
    ("child: refuses a damaged announcement", |_| {
        if env::var_os("POSTERN_LISTEN_FDS").is_some() {
            let error = listen_fds().expect_err("not a number");
            assert!(
                error.to_string().contains("POSTERN_LISTEN_FDS=mx=three"),
                "{error}"
            );
        }
    }),
];

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().expect("an address").port()
}

/// Root gives its identity up; anybody else is ordinary already.
fn become_nobody() {
    // SAFETY: plain system calls of a single-threaded process.
    unsafe {
        if libc::getuid() == 0 {
            assert_eq!(libc::setgroups(0, std::ptr::null()), 0);
            assert_eq!(libc::setresgid(65534, 65534, 65534), 0);
            assert_eq!(libc::setresuid(65534, 65534, 65534), 0);
        }
    }
}
