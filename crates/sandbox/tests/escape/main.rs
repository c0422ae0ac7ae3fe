//! Attempts to break out of each process's walls, and the work that must go on behind them.
//!
//! Walls stand for ever, so each case runs in a process of its own: this program started again. Every attempt runs
//! twice: without walls it must succeed (or the test proves nothing), behind them it must fail in the one way that the
//! policy names. Work must succeed behind the walls.
#![allow(unsafe_code, missing_docs)]

mod attempts;
mod startup;
mod work;

use std::{
    env,
    net::TcpListener,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Command, ExitCode, ExitStatus, Output},
    time::Duration,
};

use postern_sandbox::{
    Policy,
    worker::{Happened, Reason, Supervisor},
};

/// What a case finds around it: made by the parent, handed on in the environment.
pub(crate) struct Around {
    /// A directory that the queue's policy allows.
    pub(crate) spool: PathBuf,
    /// One beside it, that no policy allows.
    pub(crate) outside: PathBuf,
    /// A TCP port of 127.0.0.1 where the parent listens, and policies allow connections.
    pub(crate) listed: u16,
    /// One where it listens, and policies do not.
    pub(crate) unlisted: u16,
}

impl Around {
    pub(crate) fn smtpd(&self) -> Policy {
        Policy::smtpd().connect_tcp(self.listed)
    }

    pub(crate) fn queue(&self) -> Policy {
        Policy::queue([&self.spool]).connect_tcp(self.listed)
    }
}

/// How an attempt must end behind the walls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum End {
    /// The kernel answers with this error.
    Errno(i32),
    /// The process dies of SIGSYS.
    Killed,
}

/// The child's exit status for an attempt that failed with a given errno, so that 0 means success.
const ERRNO_BASE: u8 = 100;
const BROKEN: u8 = 99;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [mode, name] = &arguments[..]
        && env::var_os("ESCAPE_CHILD").is_some()
    {
        return child(mode, name);
    }
    // Work with the filters that libtest's callers pass, such as a name; options are not for us.
    let wanted = |name: &str| {
        arguments
            .iter()
            .all(|a| a.starts_with('-') || name.contains(a.as_str()))
    };
    let directory = tempfile::tempdir().expect("a temporary directory");
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a listener"));
    let ports = listeners
        .each_ref()
        .map(|l| l.local_addr().expect("an address").port());
    let around = Around {
        spool: directory.path().join("spool"),
        outside: directory.path().join("outside"),
        listed: ports[0],
        unlisted: ports[1],
    };
    for path in [&around.spool, &around.outside] {
        std::fs::create_dir(path).expect("a directory");
    }
    let _abstract = attempts::listen_abstract(&around.spool);
    let (mut passes, mut failures) = (0, 0);
    let mut check = |name: &str, verdict: Result<(), String>| match verdict {
        Ok(()) => {
            passes += 1;
            println!("ok      {name}");
        }
        Err(why) => {
            failures += 1;
            println!("FAILED  {name}: {why}");
        }
    };
    for attempt in attempts::ALL.iter().filter(|a| wanted(a.name)) {
        check(
            &format!("{} without walls", attempt.name),
            expect(&start(&around, "open", attempt.name), |s| s.code() == Some(0)),
        );
        let verdict = expect(&start(&around, "walled", attempt.name), |s| match attempt.end {
            End::Errno(errno) => s.code() == Some(i32::from(ERRNO_BASE) + errno),
            End::Killed => s.signal() == Some(libc::SIGSYS),
        });
        check(&format!("{} ends in {:?}", attempt.name, attempt.end), verdict);
    }
    for (name, _) in work::ALL
        .iter()
        .chain(startup::ALL)
        .filter(|(name, _)| wanted(name) && !name.starts_with("child: "))
    {
        check(
            name,
            expect(&start(&around, "work", name), |s| s.code() == Some(0)),
        );
    }
    println!("{passes} passed, {failures} failed");
    if failures == 0 && passes > 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn start(around: &Around, mode: &str, name: &str) -> Output {
    Command::new(env::current_exe().expect("this program"))
        .args([mode, name])
        .env("ESCAPE_CHILD", "1")
        .env("ESCAPE_SPOOL", &around.spool)
        .env("ESCAPE_OUTSIDE", &around.outside)
        .env("ESCAPE_PORTS", format!("{} {}", around.listed, around.unlisted))
        .output()
        .expect("this program starts")
}

fn expect(output: &Output, good: impl Fn(&ExitStatus) -> bool) -> Result<(), String> {
    if good(&output.status) {
        return Ok(());
    }
    let meaning = match output.status.code() {
        Some(0) => "it succeeded".to_owned(),
        Some(code) if code == i32::from(BROKEN) => "the case itself broke".to_owned(),
        Some(code) if code >= i32::from(ERRNO_BASE) => {
            std::io::Error::from_raw_os_error(code - i32::from(ERRNO_BASE)).to_string()
        }
        _ => output.status.to_string(),
    };
    Err(format!(
        "{meaning}; {}",
        String::from_utf8_lossy(&output.stderr).trim()
    ))
}

/// Runs one case in this process and tells the parent by the exit status.
fn child(mode: &str, name: &str) -> ExitCode {
    let ports: Vec<u16> = env::var("ESCAPE_PORTS")
        .unwrap_or_default()
        .split(' ')
        .filter_map(|p| p.parse().ok())
        .collect();
    let path = |variable| PathBuf::from(env::var_os(variable).unwrap_or_default());
    let around = Around {
        spool: path("ESCAPE_SPOOL"),
        outside: path("ESCAPE_OUTSIDE"),
        listed: ports[0],
        unlisted: ports[1],
    };
    if mode == "work" {
        let (_, run) = work::ALL
            .iter()
            .chain(startup::ALL)
            .find(|(n, _)| *n == name)
            .expect("a case of that name");
        run(&around);
        return ExitCode::SUCCESS;
    }
    let attempt = attempts::ALL
        .iter()
        .find(|a| a.name == name)
        .expect("an attempt of that name");
    let prepared = (attempt.prepare)(&around);
    if mode == "walled" && attempt.in_worker {
        return in_worker((attempt.policy)(&around), || {
            finish((attempt.run)(&around, prepared))
        });
    }
    if mode == "walled"
        && let Err(e) = (attempt.policy)(&around).enforce()
    {
        eprintln!("{e}");
        return ExitCode::from(BROKEN);
    }
    ExitCode::from(finish((attempt.run)(&around, prepared)))
}

fn finish(result: std::io::Result<()>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("{e}");
            u8::try_from(e.raw_os_error().unwrap_or(libc::EIO)).map_or(BROKEN, |errno| ERRNO_BASE + errno)
        }
    }
}

/// Does `work` in a worker and ends as the worker ends.
fn in_worker(policy: Policy, work: impl FnOnce() -> u8) -> ExitCode {
    let supervisor = match Supervisor::enforce(policy, 1 << 32) {
        Ok(supervisor) => supervisor,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::from(BROKEN);
        }
    };
    let started = supervisor.start(|| std::process::exit(i32::from(work())));
    started.expect("a worker");
    match supervisor.wait(Duration::from_mins(1)) {
        Ok(Happened::Ended(ended)) => match ended[0].reason {
            Reason::Exit(status) => ExitCode::from(u8::try_from(status).unwrap_or(BROKEN)),
            Reason::Signal(libc::SIGSYS) => {
                // SAFETY: takes no pointers; the parent looks for this very signal.
                unsafe { libc::syscall(libc::SYS_bpf, 0, 0, 0) };
                ExitCode::from(BROKEN)
            }
            other => {
                eprintln!("{other}");
                ExitCode::from(BROKEN)
            }
        },
        other => {
            eprintln!("{other:?}");
            ExitCode::from(BROKEN)
        }
    }
}
